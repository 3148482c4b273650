//! `hokusai sql`: one query, or a prompt.

use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures::TryStreamExt;
use rustyline::error::ReadlineError;
use tokio::runtime::{Handle, Runtime};

use super::common::{Format, Settings};
use super::exit::{Failure, Outcome};
use crate::sql::fresh::{self, FreshError};
use crate::sql::prompt::{self, Input, Prompt};
use crate::sql::{Limits, OutputFormat, ResultWriter, Session, SqlError};
use crate::stages::warehouse::store::Store;
use crate::stream::client::Cluster;

const EXAMPLES: &str = "\
Tables: contributions, rows, refusals, receipts, attestations, dead_letters, audit, model_revisions, run_states, trial_results,
        evaluation_records, attributions, table_positions
Views:  admitted_rows, models, model_versions, model_evaluations, runs, trials, evaluations, leaderboard, attribution_shares,
        receipt_refused, receipt_quality, receipt_pii, receipt_chunks

Examples:
  hokusai sql 'select status, count(*) from receipts group by status'
  hokusai sql --fresh --format json 'select code, count(*) as n from refusals group by code'
  hokusai sql --format csv 'select * from admitted_rows' > rows.csv
  hokusai sql                                   a prompt: \\d lists tables, Ctrl-C cancels, Ctrl-D leaves

SQL here only reads. Names are lower case unless quoted: \"DepDelay\".";

/// What was typed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SqlArgs {
    /// The query; without it a prompt, or what is piped in
    pub query: Option<String>,
    /// Wait until the tables hold what the topics hold now
    #[arg(long)]
    pub fresh: bool,
    /// Longest wait of --fresh
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub fresh_timeout: u64,
    /// Memory of sorts, joins and aggregations before they spill to disk
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..))]
    pub memory: u32,
    /// Disk that they may spill to
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub spill: u32,
}

/// What a query runs with.
struct Runner {
    session: Session,
    cluster: Cluster,
    fresh: Option<Duration>,
    format: OutputFormat,
}

/// Runs the command.
///
/// # Errors
/// Exit 1 for a query that fails, 3 when `--fresh` reaches no broker.
pub async fn run(args: SqlArgs, settings: Settings) -> Outcome<()> {
    let limits =
        Limits { memory: (args.memory as usize) << 20, spill: u64::from(args.spill) << 20, ..Limits::default() };
    settings.open_store().await?;
    let store = Store::open(&settings.store).map_err(|e| Failure::Usage(e.to_string()))?;
    let session = Session::open(store, &settings.prefix, limits).await.map_err(Failure::failed)?;
    let runner = Runner {
        session,
        cluster: settings.cluster(),
        fresh: args.fresh.then(|| Duration::from_secs(args.fresh_timeout)),
        format: output_format(settings.format),
    };
    match args.query {
        Some(query) => runner.once(&query, &settings).await,
        None if std::io::stdin().is_terminal() => {
            let history = settings.data.join("sql_history");
            let (handle, shared) = (Handle::current(), Arc::new((runner, settings)));
            let ended = tokio::task::spawn_blocking(move || talk(&shared, history, &handle)).await;
            ended.map_err(Failure::failed)?
        }
        None => {
            let mut query = String::new();
            std::io::stdin().take(crate::sql::guard::MAX_BYTES as u64 + 1).read_to_string(&mut query)?;
            runner.once(&query, &settings).await
        }
    }
}

fn output_format(format: Format) -> OutputFormat {
    match format {
        Format::Human | Format::Table => OutputFormat::Table,
        Format::Json => OutputFormat::Json,
        Format::Csv => OutputFormat::Csv,
        Format::Arrow => OutputFormat::Arrow,
    }
}

impl Runner {
    /// Brings the tables up to date, runs the query and prints its result.
    async fn once(&self, query: &str, settings: &Settings) -> Outcome<()> {
        if let Some(deadline) = self.fresh {
            fresh::wait(&self.session, &self.cluster, deadline).await.map_err(|error| match error {
                FreshError::Brokers(error) if error.is_unreachable() => settings.no_broker(error),
                other => Failure::failed(other),
            })?;
        }
        match self.print(query).await {
            Err(error) if !error.is_closed_pipe() => Err(Failure::failed(error)),
            _ => Ok(()),
        }
    }

    async fn print(&self, query: &str) -> Result<u64, SqlError> {
        let limit = self.session.limits().time;
        let printed = tokio::time::timeout(limit, async {
            let mut stream = self.session.query(query).await?;
            let out = BufWriter::new(std::io::stdout());
            let mut writer = ResultWriter::new(self.format, stream.schema(), out)?;
            while let Some(batch) = stream.try_next().await? {
                writer.write(&batch)?;
            }
            writer.finish()
        });
        printed.await.unwrap_or(Err(SqlError::TooLong { hours: limit.as_secs() / 3_600 }))
    }
}

/// One query of the prompt: an error is told and the prompt goes on; Ctrl-C ends the query alone.
async fn answer(shared: &Arc<(Runner, Settings)>, queries: &Runtime, query: String) {
    let (started, mine) = (Instant::now(), Arc::clone(shared));
    let mut work = queries.spawn(async move {
        let (runner, settings) = &*mine;
        runner.session.refresh().await.map_err(Failure::failed)?;
        runner.once(&query, settings).await
    });
    tokio::select! {
        done = &mut work => match done {
            Ok(Ok(())) => println!("Time: {} ms", started.elapsed().as_millis()),
            Ok(Err(failure)) => failure.report(),
            Err(lost) => Failure::failed(lost).report(),
        },
        _ = tokio::signal::ctrl_c() => {
            work.abort();
            eprintln!("cancelled");
        }
    }
}

/// The prompt; on a thread of its own, since it blocks on the keyboard.
fn talk(shared: &Arc<(Runner, Settings)>, history: PathBuf, handle: &Handle) -> Outcome<()> {
    // Threads of their own: a query that computes for long without a pause must not keep Ctrl-C from being heard.
    let queries = tokio::runtime::Builder::new_multi_thread().thread_name("query").enable_all().build()?;
    let ended = converse(shared, &queries, history, handle);
    queries.shutdown_background();
    ended
}

fn converse(shared: &Arc<(Runner, Settings)>, queries: &Runtime, history: PathBuf, handle: &Handle) -> Outcome<()> {
    let (runner, settings) = &**shared;
    let relations = handle.block_on(runner.session.relations()).map_err(Failure::failed)?;
    let mut prompt = Prompt::open(&relations, history).map_err(Failure::failed)?;
    println!("Tables of {}. \\d lists them, \\h helps, Ctrl-D leaves.", settings.store);
    loop {
        match prompt.read() {
            Ok(Input::Query(query)) => handle.block_on(answer(shared, queries, query)),
            Ok(Input::List) => list(runner, None, handle),
            Ok(Input::Describe(name)) => list(runner, Some(&name), handle),
            Ok(Input::Help) => println!("{}", prompt::HELP),
            Ok(Input::Nothing) | Err(ReadlineError::Interrupted) => {}
            Ok(Input::Unknown(command)) => eprintln!("no command {command}; \\h helps"),
            Ok(Input::Quit) | Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(Failure::failed(error)),
        }
    }
}

fn list(runner: &Runner, name: Option<&str>, handle: &Handle) {
    let listed = handle.block_on(async {
        runner.session.refresh().await?;
        runner.session.relations().await
    });
    match listed {
        Ok(relations) => {
            let mut out = std::io::stdout().lock();
            let text = prompt::listing(&relations, name);
            let _ = out.write_all(text.as_bytes());
        }
        Err(error) => Failure::failed(error).report(),
    }
}

//! `hokusai worker`: stages against a Kafka cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::broker::resolve;
use super::common::{KeyFolder, Settings};
use super::exit::{Failure, Outcome, say};
use crate::pipeline::{self, Pipeline, PipelineConfig};
use crate::web::Server;

const EXAMPLES: &str = "\
Examples:
  hokusai topology apply --brokers kafka:9092 --partitions cluster --replication 3
  hokusai worker --brokers kafka:9092 --partitions cluster --keys ./keys --store /mnt/hokusai
  hokusai worker --brokers kafka:9092 --partitions cluster --keys ./keys --stages intake,dedup
  hokusai worker --brokers kafka:9092 --partitions cluster --keys ./keys --stages training,evaluation --profile ./flames
  AWS_REGION=eu-central-1 hokusai worker --brokers kafka:9092 --partitions cluster --keys ./keys --store s3://acme/hokusai

All workers share one key ring (--keys) and one store (--store). Start more workers to scale out: Kafka assigns the
partitions. Ctrl-C or SIGTERM ends a worker cleanly; the others take over.";

/// Arguments that `up` and `worker` share.
#[derive(Debug, Clone, Args)]
pub struct StageArgs {
    /// Where the keys are.
    #[command(flatten)]
    pub keys: KeyFolder,
    /// Longest time between commits under load, in milliseconds
    #[arg(long, env = "HOKUSAI_COMMIT_INTERVAL_MS", default_value_t = 100, value_name = "MS")]
    pub commit_interval: u64,
    /// A contribution whose chunks stay away this long is closed as incomplete, in seconds [default: the topology's]
    #[arg(long, env = "HOKUSAI_CONTRIBUTION_TIMEOUT", value_name = "SECONDS")]
    pub contribution_timeout: Option<u64>,
    /// How often intake marks the time while nothing arrives, in milliseconds
    #[arg(long, env = "HOKUSAI_IDLE_MARK_MS", default_value_t = 30_000, value_name = "MS")]
    pub idle_mark: u64,
    /// Static membership: a name that is this process's own and stays the same over restarts, so that a killed process
    /// is back at once; without it a clean end hands over at once and a kill after the session timeout
    #[arg(long, env = "HOKUSAI_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
    /// The tables are written at the latest after this time, in milliseconds [default: the topology's]
    #[arg(long, env = "HOKUSAI_TABLE_COMMIT_MS", value_name = "MS")]
    pub table_commit: Option<u64>,
    /// Memory that each task with state takes for what is not on disk yet, in MiB; 0 writes every commit to disk, in DATA/state
    #[arg(long, env = "HOKUSAI_STATE_MEMORY_MIB", default_value_t = 16, value_name = "MIB")]
    pub state_memory: usize,
    /// A task's state is put into the shared store after so much changelog, in MiB, and at a clean end, so that another machine
    /// need not read it all; 0 is as often as can be. Not when the store lies in DATA
    #[arg(long, env = "HOKUSAI_SNAPSHOT_AFTER_MIB", default_value_t = 64, value_name = "MIB")]
    pub snapshot_after: u64,
    /// Write a flame graph of every training and evaluation into this folder (training-RUN.svg, evaluation-ID.svg): where its
    /// threads spend the processor's time, sampled 99 times a second. Without it nothing is sampled
    #[arg(long, env = "HOKUSAI_PROFILE", value_name = "DIR")]
    pub profile: Option<PathBuf>,
}

/// Arguments of `worker`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WorkerArgs {
    /// Stages to run [default: all that are built]
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    stages: Vec<String>,
    /// Address of the HTTP server; port 0 picks a free one
    #[arg(long, env = "HOKUSAI_HTTP", default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    http: String,
    #[command(flatten)]
    shared: StageArgs,
}

/// Runs `worker` until a signal.
///
/// # Errors
/// No broker, topics that are not as the topology declares them, or a stage that ends by a failure.
pub async fn run(args: WorkerArgs, settings: Settings) -> Outcome<()> {
    let stop = crate::ops::signals::on_signal();
    if !args.shared.keys.is_given() && !is_loopback(&settings.brokers) {
        return Err(Failure::Usage(format!(
            "the brokers {} are not on this machine and no --keys DIR is given: development keys are for loopback\n\
             help: copy the keys folder that the tenant's workers share, and name it with --keys or HOKUSAI_KEYS",
            settings.brokers
        )));
    }
    std::fs::create_dir_all(&settings.data)?;
    check_store(&settings).await?;
    let http = resolve(&args.http).await?;
    let metrics = crate::ops::metrics::install()?;
    let registering = settings.clone();
    tokio::task::spawn_blocking(move || pipeline::register_schemas(&registering)).await.map_err(Failure::failed)??;
    let pipeline = pipeline(&args.shared, &settings, &args.stages, None)?;
    let server =
        Server::bind(http, pipeline.probe(), metrics).await.map_err(|e| Failure::because(format!("{http}: {e}")))?;
    let address = server.address()?.to_string();
    let (probe, until) = (pipeline.probe(), stop.clone());
    let announce = async move {
        if pipeline::until_ready(probe.as_ref(), &until).await {
            let said = if settings.json() {
                say(json!({"event": "ready", "brokers": settings.brokers, "http": address}))
            } else {
                say(format_args!("ready: brokers {}, http://{address}; Ctrl-C ends", settings.brokers))
            };
            // Nobody has to read it for the work to go on.
            if said.is_err() {
                tracing::debug!("the ready line was not read");
            }
        }
    };
    run_to_end(pipeline, server, announce, &stop).await
}

/// Finds out before anything starts whether the shared store can be used.
///
/// # Errors
/// What is wrong with it, and the way out.
pub async fn check_store(settings: &Settings) -> Outcome<()> {
    let store = settings.open_store().await?;
    store.check_writes().await.map_err(Failure::failed)
}

/// Makes the pipeline; `instance` is the name in the consumer groups unless one was typed.
///
/// # Errors
/// Keys, stages or settings that cannot be used.
pub fn pipeline(args: &StageArgs, settings: &Settings, stages: &[String], instance: Option<&str>) -> Outcome<Pipeline> {
    let config = PipelineConfig {
        installation: settings.installation.clone(),
        stages: stages.to_vec(),
        keys: args.keys.path(settings),
        commit_interval: Duration::from_millis(args.commit_interval.max(1)),
        contribution_timeout: args.contribution_timeout.map(Duration::from_secs),
        idle_mark: Duration::from_millis(args.idle_mark.max(100)),
        table_commit: args.table_commit.map(|ms| Duration::from_millis(ms.max(10))),
        state_memory: args.state_memory.min(1 << 20) << 20,
        snapshot_after: args.snapshot_after.min(1 << 30) << 20,
        instance: args.instance.clone().or_else(|| instance.map(str::to_owned)),
        profile: args.profile.as_deref().map(profile_folder).transpose()?,
    };
    Pipeline::new(&config).map_err(|e| Failure::Usage(format!("{e:#}")))
}

/// `--profile` was once what `--partitions` is.
fn profile_folder(folder: &Path) -> Outcome<PathBuf> {
    if ["single", "cluster"].iter().any(|counts| folder == Path::new(counts)) {
        let name = folder.display();
        return Err(Failure::Usage(format!(
            "--profile names the folder of flame graphs, and {name} looks like partition counts\nhelp: --partitions {name}, or --profile ./{name} for a folder of that name"
        )));
    }
    Ok(folder.to_owned())
}

/// Runs stages and HTTP until `stop` or until a stage fails for good; everything ends before this returns.
///
/// # Errors
/// What made a stage or the HTTP server end.
pub async fn run_to_end(
    pipeline: Pipeline,
    server: Server,
    announce: impl Future<Output = ()> + Send + 'static,
    stop: &CancellationToken,
) -> Outcome<()> {
    let end = stop.child_token();
    let announced = tokio::spawn(announce);
    // HTTP outlives the stages, so that /health tells how they end.
    let http_end = CancellationToken::new();
    let http = tokio::spawn(server.serve(http_end.clone()));
    let ran = pipeline.run(end.clone()).await;
    announced.abort();
    http_end.cancel();
    let served = http.await.map_err(Failure::failed)?;
    ran.map_err(Failure::Failed)?;
    served.map_err(Failure::failed)
}

fn is_loopback(brokers: &str) -> bool {
    brokers.split(',').all(|broker| {
        let host = broker.trim().rsplit_once(':').map_or(broker, |(host, _)| host);
        let host = host.rsplit_once("//").map_or(host, |(_, host)| host);
        host == "localhost" || host.starts_with("127.") || host == "[::1]"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_counts_are_no_folder_of_flame_graphs() {
        let refused = profile_folder(Path::new("cluster"));
        assert!(matches!(refused, Err(Failure::Usage(text)) if text.contains("--partitions")));
        assert_eq!(profile_folder(Path::new("./cluster")).unwrap(), Path::new("./cluster"));
    }

    #[test]
    fn development_keys_are_for_loopback_alone() {
        assert!(is_loopback("127.0.0.1:9092, localhost:9093,[::1]:1,PLAINTEXT://127.0.0.1:9"));
        assert!(!is_loopback("127.0.0.1:9092,kafka:9092"));
        assert!(!is_loopback("localhost.example.com:9092"));
    }
}

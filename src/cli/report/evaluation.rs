//! `hokusai report EVALUATION`: one evaluation, as far as whoever asks may see it.

use std::time::{Duration, Instant};

use clap::Args;

use super::{Output, deliver, each};
use crate::cli::common::{KeyFolder, Settings, blocking};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::opening::{self, Opening, Statements};
use crate::domain::records::{Attribution, Evaluation};
use crate::domain::topics;
use crate::ops::time::rfc3339;
use crate::report::evaluation::{EvaluationReport, Logged};

/// How long the log may lag behind `evaluations`.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `report EVALUATION`.
#[derive(Debug, Args)]
pub(super) struct EvaluationArgs {
    /// Id of the evaluation
    #[arg(value_name = "EVALUATION", required = true)]
    evaluation: Option<String>,
    /// Open it as the benchmark's owner: plots, and the figures of an attempt that was not accepted; audited
    #[arg(long)]
    open: bool,
    /// Why it is opened: stands in the audit
    #[arg(long, value_name = "WHY", requires = "open", default_value = "report")]
    reason: String,
    #[command(flatten)]
    keys: KeyFolder,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: EvaluationArgs, settings: Settings) -> Outcome<()> {
    let id = args.evaluation.unwrap_or_default();
    let mut report = blocking({
        let (settings, id) = (settings.clone(), id.clone());
        move || published(&settings, &id)
    })
    .await?;
    if args.open {
        if report.outcome.is_none() {
            return Err(Failure::because(format!("evaluation {id} was no attempt: there is nothing to open")));
        }
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let Opening { opened, kept, .. } =
            opening::opening(&settings, &args.keys.path(&settings), &id, &args.reason, threads).await?;
        report = report.opened(kept.record, &opened.columns);
    }
    let text =
        if settings.json() { serde_json::to_string(&report).map_err(Failure::failed)? + "\n" } else { report.html() };
    deliver(&text, args.output.output.as_deref())
}

/// What the topics tell of an evaluation.
fn published(settings: &Settings, id: &str) -> Outcome<EvaluationReport> {
    let mut found: Option<(i64, Evaluation)> = None;
    each::<Evaluation>(settings, topics::EVALUATIONS, |at, told| {
        // A request that was no attempt may become one: the counted attempt stands.
        if told.evaluation_id == id && found.as_ref().is_none_or(|(_, known)| known.attempt <= told.attempt) {
            found = Some((at.time, told));
        }
    })?;
    let Some((time, told)) = found else {
        return Err(Failure::because(format!(
            "there is no evaluation {id:?}\nhelp: `hokusai sql 'select evaluation_id, model, status from evaluations'` lists them"
        )));
    };
    let statements = if told.attempt > 0 { Some(logged(settings, id)?) } else { None };
    let statements = statements.map(|Statements { preregistration: laid, outcome }| {
        (
            Logged { index: laid.index, leaf: laid.leaf, said: laid.said },
            Logged { index: outcome.index, leaf: outcome.leaf, said: outcome.said },
        )
    });
    let mut attribution = None;
    each::<Attribution>(settings, topics::ATTRIBUTIONS, |_, told| {
        if told.evaluation_id == id {
            attribution = Some(told);
        }
    })?;
    Ok(EvaluationReport { attribution, ..EvaluationReport::published(rfc3339(time), told, statements) })
}

/// Both statements; an outcome that was just recorded may take a moment to be logged.
fn logged(settings: &Settings, id: &str) -> Outcome<Statements> {
    let start = Instant::now();
    loop {
        match opening::statements(settings, id) {
            Err(Failure::Failed(_)) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(200)),
            answer => return answer,
        }
    }
}

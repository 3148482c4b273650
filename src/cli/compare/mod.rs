//! `hokusai compare`: two models' scores on labelled rows of a file, compared as an evaluation compares them.
//!
//! For whoever wants to recompute what was published, or to know before an attempt is spent on sealed rows. It decides nothing:
//! nothing is preregistered, no attempt is counted, no row is sealed.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use super::common::Settings;
use super::exit::{Failure, Outcome, say};
use crate::stats::evaluation::{Evaluation, MetricReport, Plan, Resampling, Standing, evaluate};
use crate::stats::fixed::{MICRO, floor_real, micro_string, p_value_string, parse_decimal};
use crate::stats::metric::Metric;
use crate::stats::rows::{Frame, Task};

mod table;

const EXAMPLES: &str = "\
Examples:
  hokusai compare scores.csv --label y --baseline old --candidate new --metric auroc
  hokusai compare scores.parquet --task multiclass --label y --baseline a0,a1,a2 --candidate b0,b1,b2
  hokusai compare scores.csv --label y --baseline old --candidate new --stratum region --margin 0.02 --guardrail log_loss=0.01

It decides nothing: nothing is preregistered and no attempt is counted.";

/// What the models predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TaskArg {
    /// Labels 0 and 1, one probability per row
    Binary,
    /// Labels 0 to n-1, n probabilities per row
    Multiclass,
    /// Real labels and predictions
    Regression,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// CSV file with a header, or Parquet file (by its ending)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the models predict
    #[arg(long, value_enum, default_value_t = TaskArg::Binary)]
    task: TaskArg,
    /// Column of the labels
    #[arg(long, value_name = "COLUMN")]
    label: String,
    /// The baseline's column; n columns for n classes
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', required = true)]
    baseline: Vec<String>,
    /// The candidate's column; n columns for n classes
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', required = true)]
    candidate: Vec<String>,
    /// Metric that decides: accuracy, auroc, f1, f1_macro, f1_micro, precision, recall, log_loss, brier, mae, mse, rmse, r2
    /// [default: auroc, f1_macro or rmse, by the task]
    #[arg(long, value_name = "METRIC")]
    metric: Option<String>,
    /// Which attempt on these rows it would be: the level shrinks with it
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    attempt: u64,
    /// What all attempts may spend together
    #[arg(long, default_value = "0.05", value_name = "ALPHA")]
    alpha: String,
    /// Least improvement worth accepting, in the metric's unit
    #[arg(long, default_value = "0", value_name = "DECIMAL")]
    min_effect: String,
    /// Metric that must not get worse by this margin; may be repeated
    #[arg(long, value_name = "METRIC=MARGIN")]
    guardrail: Vec<String>,
    /// Column of the strata; in each the metric must not get worse by --margin
    #[arg(long, value_name = "COLUMN", requires = "margin")]
    stratum: Option<String>,
    /// Margin in each stratum, in the metric's unit
    #[arg(long, value_name = "DECIMAL", requires = "stratum")]
    margin: Option<String>,
    /// Seed of bootstrap and permutations: they are reported, they decide nothing
    #[arg(long, default_value = "0", value_name = "TEXT")]
    seed: String,
    /// Bootstrap replicates and permutations
    #[arg(long, default_value_t = 2_000, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    replicates: u64,
    /// Threads; they change nothing but the time
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

/// Runs `compare`.
///
/// # Errors
/// Exit 2 for arguments that do not fit, exit 1 for a file that cannot be read, exit 4 for rows that cannot be compared.
pub async fn run(args: CompareArgs, settings: Settings) -> Outcome<()> {
    let work = move || {
        let (plan, evaluation) = compared(&args)?;
        if settings.json() {
            return Ok(vec![json_of(&args, &plan, &evaluation).to_string()]);
        }
        Ok::<_, Failure>(text_of(&args, &plan, &evaluation))
    };
    let lines = tokio::task::spawn_blocking(work).await.map_err(Failure::failed)??;
    lines.into_iter().try_for_each(say)
}

fn compared(args: &CompareArgs) -> Outcome<(Plan, Evaluation)> {
    let plan = plan(args)?;
    let columns = table::Columns {
        label: &args.label,
        baseline: &args.baseline,
        candidate: &args.candidate,
        stratum: args.stratum.as_deref(),
    };
    let frame = Frame::new(task(args)?);
    let (rows, strata) = table::read(&args.file, &columns, frame)?;
    let margin = args.margin.as_deref().map(|text| decimal("--margin", text)).transpose()?;
    let plan = Plan { strata: strata.into_iter().map(|name| (name, margin)).collect(), ..plan };
    let standing = Standing {
        // As if: what a preregistered attempt would come to.
        preregistered: true,
        attempt: Some(args.attempt),
        alpha: Some(alpha(args)?),
        retired: false,
        acceptances: 0,
    };
    let seed = {
        use sha2::{Digest, Sha256};
        Sha256::digest(args.seed.as_bytes()).into()
    };
    let resampling = Resampling { replicates: args.replicates, seed, threads: usize::from(args.threads) };
    let evaluation = evaluate(&rows, &plan, &standing, &resampling);
    Ok((plan, evaluation))
}

fn task(args: &CompareArgs) -> Outcome<Task> {
    let (baseline, candidate) = (args.baseline.len(), args.candidate.len());
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    if baseline != candidate {
        return usage("--baseline and --candidate name different numbers of columns");
    }
    match args.task {
        TaskArg::Multiclass if baseline < 2 => {
            usage("--task multiclass needs a column per class in --baseline and --candidate")
        }
        TaskArg::Multiclass => match u16::try_from(baseline) {
            Ok(classes) => Ok(Task::Multiclass(classes)),
            Err(_) => usage("too many classes"),
        },
        TaskArg::Binary | TaskArg::Regression if baseline != 1 => {
            usage("this task has one column of scores per model; help: --task multiclass for several")
        }
        TaskArg::Binary => Ok(Task::Binary),
        TaskArg::Regression => Ok(Task::Regression),
    }
}

fn plan(args: &CompareArgs) -> Outcome<Plan> {
    let task = task(args)?;
    let metric = |name: &str| {
        Metric::from_name(name).filter(|metric| metric.fits(task)).ok_or_else(|| {
            let known: Vec<&str> = Metric::ALL.iter().filter(|metric| metric.fits(task)).map(Metric::name).collect();
            Failure::Usage(format!("{name:?} is no metric of this task; help: one of {}", known.join(", ")))
        })
    };
    let usual = match task {
        Task::Binary => "auroc",
        Task::Multiclass(_) => "f1_macro",
        Task::Regression => "rmse",
    };
    let guardrail = |text: &String| {
        let (name, margin) =
            text.split_once('=').ok_or_else(|| Failure::Usage(format!("--guardrail {text:?}: write METRIC=MARGIN")))?;
        Ok::<_, Failure>((metric(name)?, Some(decimal("--guardrail", margin)?)))
    };
    Ok(Plan {
        primary: metric(args.metric.as_deref().unwrap_or(usual))?,
        minimum_effect: Some(decimal("--min-effect", &args.min_effect)?),
        guardrails: args.guardrail.iter().map(guardrail).collect::<Outcome<_>>()?,
        strata: Vec::new(),
    })
}

/// A decimal of an argument, not negative, in millionths.
fn decimal(argument: &str, text: &str) -> Outcome<i64> {
    match parse_decimal(text, MICRO) {
        Ok(micro) if micro >= 0 => Ok(micro),
        Ok(_) => Err(Failure::Usage(format!("{argument}: {text} is negative"))),
        Err(error) => Err(Failure::Usage(format!("{argument}: {text:?}: {error}"))),
    }
}

fn alpha(args: &CompareArgs) -> Outcome<f64> {
    let micro = decimal("--alpha", &args.alpha)?;
    if (1..MICRO).contains(&micro) && args.attempt > 0 {
        return Ok(micro as f64 / MICRO as f64);
    }
    Err(Failure::Usage("--alpha must lie between 0 and 1, and --attempt starts at 1".to_owned()))
}

/// Rounded down to millionths.
fn down(value: f64) -> String {
    floor_real(value, 1e6).map_or_else(|| "undefined".to_owned(), micro_string)
}

fn json_of(args: &CompareArgs, plan: &Plan, evaluation: &Evaluation) -> Json {
    let metrics: Vec<Json> =
        evaluation.metrics.iter().map(|(metric, report)| metric_json(metric, report.as_ref())).collect();
    let decision = &evaluation.decision;
    let reasons: Vec<Json> =
        decision.reasons.iter().map(|(reason, subject)| json!({"code": reason.code(), "subject": subject})).collect();
    let strata: Vec<Json> = evaluation
        .strata
        .iter()
        .map(|(name, own)| match own {
            Some(Ok(own)) => json!({"stratum": name, "rows": own.rows, "delta": down(own.evidence.delta()),
                "lower_bound": down(own.evidence.non_inferiority_bound(crate::stats::strata::NON_INFERIORITY_LEVEL))}),
            Some(Err(error)) => json!({"stratum": name, "undefined": error.to_string()}),
            None => json!({"stratum": name, "undefined": "no rows"}),
        })
        .collect();
    json!({
        "file": args.file.display().to_string(),
        "primary": plan.primary.name(),
        "attempt": args.attempt,
        "level": decision.level.map(|level| level.to_string()),
        "p_value": decision.p_value.and_then(p_value_string),
        "lower_bound": decision.lower_bound.map(down),
        "would_be_accepted": decision.accepted(),
        "reasons": reasons,
        "metrics": metrics,
        "strata": strata,
        "calibration_error": evaluation.calibration.as_ref().map(|own| down(own.expected_error)),
    })
}

fn metric_json(metric: &Metric, report: Result<&MetricReport, &crate::stats::compare::CompareError>) -> Json {
    let report = match report {
        Ok(report) => report,
        Err(error) => return json!({"metric": metric.name(), "undefined": error.to_string()}),
    };
    let published = report.published.as_ref();
    json!({
        "metric": metric.name(),
        "higher_is_better": report.comparison.higher_is_better,
        "rows": report.comparison.rows,
        "baseline": published.map(|own| &own.baseline),
        "candidate": published.map(|own| &own.candidate),
        "delta": published.map(|own| &own.delta),
        "baseline_bps": published.and_then(|own| own.baseline_bps),
        "candidate_bps": published.and_then(|own| own.candidate_bps),
        "standard_error": down(report.comparison.evidence.standard_error()),
        "p_value": p_value_string(report.comparison.evidence.p_value()),
        "interval_95": report.interval.map(|own| [down(own.lower), down(own.upper)]),
        "permutation_p": report.permutation_p.and_then(p_value_string),
    })
}

fn text_of(args: &CompareArgs, plan: &Plan, evaluation: &Evaluation) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<10} {:>14} {:>14} {:>12} {:>26} {:>12} {:>12}",
        "metric", "baseline", "candidate", "improvement", "95 % (BCa bootstrap)", "p one-sided", "p exchanged"
    )];
    for (metric, report) in &evaluation.metrics {
        lines.push(match report {
            Ok(report) => metric_line(metric, report),
            Err(error) => format!("{:<10} {error}", metric.name()),
        });
    }
    for (name, own) in &evaluation.strata {
        let told = match own {
            Some(Ok(own)) => format!(
                "{} rows, {} improvement {}, lower bound at 95 % {}",
                own.rows,
                plan.primary.name(),
                down(own.evidence.delta()),
                down(own.evidence.non_inferiority_bound(crate::stats::strata::NON_INFERIORITY_LEVEL))
            ),
            Some(Err(error)) => error.to_string(),
            None => "no rows".to_owned(),
        };
        lines.push(format!("stratum {name:?}: {told}"));
    }
    let decision = &evaluation.decision;
    let reasons: Vec<String> = decision
        .reasons
        .iter()
        .map(
            |(reason, subject)| {
                if subject.is_empty() { reason.code().to_owned() } else { format!("{} ({subject})", reason.code()) }
            },
        )
        .collect();
    let verdict = if decision.accepted() {
        "would be accepted".to_owned()
    } else {
        format!("would be refused: {}", reasons.join(", "))
    };
    lines.push(format!(
        "as attempt {} at level {}: p {} and lower bound {} of {}: {verdict}",
        args.attempt,
        decision.level.map_or_else(|| "-".to_owned(), |level| level.to_string()),
        decision.p_value.and_then(p_value_string).unwrap_or_else(|| "-".to_owned()),
        decision.lower_bound.map_or_else(|| "-".to_owned(), down),
        plan.primary.name(),
    ));
    lines
}

fn metric_line(metric: &Metric, report: &MetricReport) -> String {
    let published = report.published.as_ref();
    let text = |of: fn(&crate::stats::metric::Published) -> &String| published.map_or("-", |own| of(own).as_str());
    let interval =
        report.interval.map_or_else(|| "-".to_owned(), |own| format!("{} to {}", down(own.lower), down(own.upper)));
    let p = |p: Option<f64>| p.and_then(p_value_string).unwrap_or_else(|| "-".to_owned());
    format!(
        "{:<10} {:>14} {:>14} {:>12} {:>26} {:>12} {:>12}",
        metric.name(),
        text(|own| &own.baseline),
        text(|own| &own.candidate),
        text(|own| &own.delta),
        interval,
        p(Some(report.comparison.evidence.p_value())),
        p(report.permutation_p),
    )
}

/// The file's ending, in lower case.
fn ending(file: &Path) -> String {
    file.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! Scoring: sealed rows and both models in, every figure of the comparison out. A pure function; threads change nothing but the time.
//!
//! Texts of refusals repeat no value of a row: rows are sealed, and refusals are published.

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::plan::{Case, Plan, alpha, plan, seed};
use super::report::full_record;
use crate::attest::evaluation::FullRecord;
use crate::domain::contract::Spec;
use crate::domain::keys::{MacKey, SealingKey};
use crate::ml::arrow::{frame_of, labels};
use crate::ml::declare::declaration;
use crate::ml::encoding::{Declared, Encode, Kind};
use crate::ml::model::Model;
use crate::ml::{MAX_SCORES, Task};
use crate::sealing::strata::{level_of, stratum_of};
use crate::sealing::vault;
use crate::stages::beside::Refusal;
use crate::stats::evaluation::{self, Evaluation, Resampling, Standing};
use crate::stats::fixed::{MICRO, quantise};
use crate::stats::multiplicity::holm;
use crate::stats::rows::{Frame, PairedRows, Task as Compared};

/// The blobs of an attempt.
#[derive(Debug, Clone)]
pub struct Blobs {
    /// The sealed rows, encrypted.
    pub rows: Bytes,
    /// The baseline's artefact.
    pub baseline: Bytes,
    /// The candidate's artefact.
    pub candidate: Bytes,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Whether the candidate is accepted.
    pub accepted: bool,
    /// Reason codes, sorted, each once; empty when it is accepted.
    pub reasons: Vec<String>,
    /// All figures.
    pub record: FullRecord,
    /// One-sided p of the primary metric, rounded up.
    pub p_value: Option<String>,
    /// The candidate's primary value as a loss in millionths, for the Ladder.
    pub loss: Option<i64>,
    /// The least improvement worth accepting, in millionths: the step of the Ladder.
    pub step: i64,
    /// Whether more of it is better.
    pub higher_is_better: bool,
}

/// Labels and both models' scores in quanta, in the order of the sealed rows.
struct Columns {
    frame: Frame,
    labels: Vec<i64>,
    baseline: Vec<i64>,
    candidate: Vec<i64>,
}

/// The rows with the strata of one column, and what the decision needs to know of them.
struct Level {
    rows: PairedRows,
    plan: evaluation::Plan,
}

fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

/// Scores an attempt.
///
/// # Errors
/// Why it cannot be scored: the attempt has failed, and has spent its level.
pub fn score(
    case: &Case,
    blobs: &Blobs,
    (key, tree_key): (&SealingKey, &MacKey),
    acceptances: u64,
    threads: usize,
) -> Result<Scored, Refusal> {
    let spec = Spec::from_canonical_json(&case.spec).or_else(|e| refuse("BAD_CONTRACT", e))?;
    let plan = plan(&spec, &case.benchmark)?;
    let rows = vault::open(&blobs.rows, &case.benchmark, key, tree_key).or_else(|e| refuse("BENCHMARK_DAMAGED", e))?;
    let columns = columns(&spec, &rows, blobs)?;
    let levels = levels(columns, &plan, &case.benchmark.strata, &rows)?;
    drop(rows);
    let standing =
        Standing { preregistered: true, attempt: Some(case.number), alpha: Some(alpha()), retired: false, acceptances };
    let Some((first, others)) = levels.split_first() else { return refuse("NO_EVALUATION", "nothing was compared") };
    let resampling = Resampling { threads: threads.max(1), ..Resampling::new(seed(case)) };
    let done = compare(first, others, &standing, &resampling);
    let loss = done.ladder_loss(&first.plan);
    Ok(Scored {
        accepted: done.decision.accepted(),
        reasons: codes(&done),
        p_value: done.decision.p_value.and_then(crate::stats::fixed::p_value_string),
        loss,
        step: plan.declared.minimum_effect,
        higher_is_better: plan.declared.primary.higher_is_better(&first.rows),
        record: full_record(&done, &levels.iter().map(|own| (&own.rows, &own.plan)).collect::<Vec<_>>()),
    })
}

fn codes(done: &Evaluation) -> Vec<String> {
    let mut codes: Vec<String> = done.decision.codes().into_iter().map(str::to_owned).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// The comparison over the strata of every column. Each column is a partition of the same rows, so the decision is made once
/// for each, and all must accept; what is resampled does not depend on strata and is done once.
fn compare(first: &Level, others: &[Level], standing: &Standing, resampling: &Resampling) -> Evaluation {
    let mut joined = evaluation::evaluate(&first.rows, &first.plan, standing, resampling);
    for level in others {
        let once = Resampling { replicates: 1, ..*resampling };
        let next = evaluation::evaluate(&level.rows, &level.plan, standing, &once);
        joined.decision.reasons.extend(next.decision.reasons);
        joined.strata.extend(next.strata);
    }
    joined.decision.reasons.sort();
    joined.decision.reasons.dedup();
    let compared = joined
        .strata
        .iter()
        .filter_map(|(name, own)| Some((name.clone(), own.as_ref()?.as_ref().ok()?.evidence.p_value())));
    let (names, p): (Vec<String>, Vec<f64>) = compared.unzip();
    joined.stratum_claims = names.into_iter().zip(holm(&p)).collect();
    joined
}

fn columns(spec: &Spec, rows: &[RecordBatch], blobs: &Blobs) -> Result<Columns, Refusal> {
    let declared = declaration(spec).or_else(|e| refuse("BAD_CONTRACT", e))?;
    let task = &declared.task;
    let quanta = |value: f64| match task {
        Task::Number => quantise(value, MICRO).ok(),
        Task::Classes(_) => Some(value as i64),
    };
    let own = labels(rows, &declared.label, task);
    let own = own.ok().and_then(|labels| labels.into_iter().map(|label| quanta(label?)).collect::<Option<Vec<_>>>());
    let Some(labels) = own else {
        return refuse(
            "BAD_LABEL",
            "a sealed row has no label of the model's task; help: seal rows of the present contract",
        );
    };
    let frame = Frame::new(match task {
        Task::Number => Compared::Regression,
        Task::Classes(classes) if classes.len() > 2 => {
            Compared::Multiclass(u16::try_from(classes.len()).unwrap_or(u16::MAX))
        }
        Task::Classes(_) => Compared::Binary,
    });
    if labels.len().saturating_mul(task.outputs()) > MAX_SCORES {
        return refuse(
            "TOO_LARGE",
            format!("more than {MAX_SCORES} rows times classes; help: seal a sample of the rows"),
        );
    }
    Ok(Columns {
        frame,
        labels,
        baseline: scores(rows, &blobs.baseline, task, ("BASELINE_UNUSABLE", "the baseline"))?,
        candidate: scores(rows, &blobs.candidate, task, ("CANDIDATE_UNUSABLE", "the candidate"))?,
    })
}

/// A model's scores of the sealed rows, quantised once.
fn scores(
    rows: &[RecordBatch],
    artefact: &[u8],
    task: &Task,
    (code, who): (&'static str, &str),
) -> Result<Vec<i64>, Refusal> {
    let model = Model::from_bytes(artefact).or_else(|e| refuse(code, format!("{who} cannot be read: {e}")))?;
    if model.task != *task {
        let help = "help: compare with a version of the same contract's label (--base-version)";
        return refuse(code, format!("{who} predicts something else than the contract's label; {help}"));
    }
    let declared = model.encoding.features.iter().try_fold(Vec::<Declared>::new(), |mut all, feature| {
        let encode = match feature.kind {
            Kind::Number => Encode::Number,
            Kind::Category(_) => Encode::Category,
            Kind::Time(_) => Encode::Time(Vec::new()),
        };
        match all.iter().find(|known| known.column == feature.column) {
            Some(known) if known.encode != encode => return None,
            Some(_) => {}
            None => all.push(Declared { column: feature.column.clone(), encode }),
        }
        Some(all)
    });
    let Some(declared) = declared else { return refuse(code, format!("{who} reads a column in two ways")) };
    let unfit = || {
        let help = "help: seal rows of the contract that it was trained under";
        Refusal::new(
            code,
            format!("{who} reads columns that the sealed rows do not have, or have as another type; {help}"),
        )
    };
    let mut scores = Vec::new();
    // Batch by batch, so that features of one batch at a time are in memory.
    for batch in rows {
        let frame = frame_of(std::slice::from_ref(batch), &declared).map_err(|_| unfit())?;
        for score in model.predict(&frame).map_err(|_| unfit())? {
            let Ok(score) = quantise(score, MICRO) else {
                return refuse(code, format!("{who} gives a score that is no finite number"));
            };
            scores.push(score);
        }
    }
    Ok(scores)
}

/// The rows once for each column of strata, or once without.
fn levels(columns: Columns, plan: &Plan, strata: &[String], rows: &[RecordBatch]) -> Result<Vec<Level>, Refusal> {
    let made = |of: Vec<u32>, strata: &[(String, Option<i64>)]| {
        let Columns { frame, labels, baseline, candidate } = &columns;
        let (labels, baseline, candidate) = (labels.clone(), baseline.clone(), candidate.clone());
        let paired = PairedRows::with_extras(*frame, labels, baseline, candidate, Vec::new(), of);
        // The error's text names a row and its label.
        let rows = paired.or_else(|_| {
            refuse("SCORES_UNUSABLE", "labels or scores lie outside what can be compared; help: probabilities add up to 1, numbers stay within 10^8")
        })?;
        let plan = evaluation::Plan {
            primary: plan.declared.primary.clone(),
            minimum_effect: Some(plan.declared.minimum_effect),
            guardrails: plan.declared.guardrails.clone(),
            strata: strata.to_vec(),
        };
        Ok(Level { rows, plan })
    };
    if plan.columns.is_empty() {
        return Ok(vec![made(vec![0; columns.labels.len()], &[])?]);
    }
    let mut levels = Vec::with_capacity(plan.columns.len());
    for (column, own) in &plan.columns {
        let mut of = Vec::with_capacity(columns.labels.len());
        for batch in rows {
            let Some(cells) = batch.column_by_name(column) else {
                return refuse("STRATA_NOT_SEALED", format!("the sealed rows have no column {column}"));
            };
            for row in 0..batch.num_rows() {
                let Ok(level) = level_of(cells, row) else {
                    return refuse("STRATA_NOT_SEALED", format!("the column {column} makes no strata"));
                };
                let place = stratum_of(strata, column, &level).and_then(|s| own.iter().position(|(name, _)| name == s));
                // A level of no stratum lies beyond all, and refuses the attempt.
                of.push(u32::try_from(place.unwrap_or(own.len())).unwrap_or(u32::MAX));
            }
        }
        levels.push(made(of, own)?);
    }
    Ok(levels)
}

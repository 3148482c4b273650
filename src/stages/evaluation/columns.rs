//! Columns of a comparison: sealed rows and both models in; labels, scores and values of declared metrics in quanta out, with each row's strata.
//!
//! Texts of refusals repeat no value of a row: rows are sealed, and refusals are published.

use arrow::array::RecordBatch;

use super::plan::Plan;
use crate::domain::contract::Spec;
use crate::ml::arrow::{frame_of, labels};
use crate::ml::declare::declaration;
use crate::ml::encoding::EncodingError;
use crate::ml::model::Model;
use crate::ml::{MAX_SCORES, Task};
use crate::rowsql::features;
use crate::rowsql::measure::Measures;
use crate::sealing::strata::{level_of, stratum_of};
use crate::stages::beside::Refusal;
use crate::stats::declare::Named;
use crate::stats::fixed::{MICRO, quantise};
use crate::stats::rows::{CustomValues, Frame, Task as Compared};

/// Labels and both models' scores in the order of the sealed rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Form of labels and scores.
    pub frame: Frame,
    /// A class's number, or a number in quanta of 10⁻⁶.
    pub labels: Vec<i64>,
    /// The baseline's scores in quanta of 10⁻⁶, row by row; of several classes one for each.
    pub baseline: Vec<i64>,
    /// The candidate's.
    pub candidate: Vec<i64>,
    /// For each of the plan's columns of strata: the place of each row's stratum among that column's; beyond all of them for none.
    pub strata: Vec<Vec<u32>>,
    /// Both models' values of each custom metric that the contract declares, in millionths.
    pub custom: Vec<CustomValues>,
}

/// Reason of an attempt in which a metric has no value.
pub const UNDEFINED: &str = "METRIC_UNDEFINED";

fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

/// How scores of a task are compared.
#[must_use]
pub fn frame(task: &Task) -> Frame {
    Frame::new(match task {
        Task::Number => Compared::Regression,
        Task::Classes(classes) if classes.len() > 2 => {
            Compared::Multiclass(u16::try_from(classes.len()).unwrap_or(u16::MAX))
        }
        Task::Classes(_) => Compared::Binary,
    })
}

/// Labels, both models' scores (of their artefacts' bytes) and strata of sealed rows; `sealed` are the strata of the seal.
///
/// # Errors
/// Rows or models that are not of the contract's task, or too many of them.
pub fn columns(
    spec: &Spec,
    plan: &Plan,
    sealed: &[String],
    rows: &[RecordBatch],
    (baseline, candidate): (&[u8], &[u8]),
) -> Result<Columns, Refusal> {
    let declared = declaration(spec).or_else(|e| refuse("BAD_CONTRACT", e))?;
    let task = &declared.task;
    let labels = quanta(rows, &declared.label, task)?;
    if labels.len().saturating_mul(task.outputs() + plan.declared.custom.len()) > MAX_SCORES {
        let help = "help: seal a sample of the rows";
        return refuse("TOO_LARGE", format!("more than {MAX_SCORES} rows times classes and declared metrics; {help}"));
    }
    // A model is whoever's made it: what it may not know, its features and its SQL do not see.
    let blind: Vec<RecordBatch> = rows.iter().map(|batch| without(batch, &declared.label)).collect();
    let baseline = scores(&blind, baseline, task, ("BASELINE_UNUSABLE", "the baseline"))?;
    let candidate = scores(&blind, candidate, task, ("CANDIDATE_UNUSABLE", "the candidate"))?;
    let custom = custom((spec, &plan.declared.custom), rows, &labels, (&baseline, &candidate))?;
    Ok(Columns { frame: frame(task), labels, baseline, candidate, strata: strata(plan, sealed, rows)?, custom })
}

fn without(batch: &RecordBatch, column: &str) -> RecordBatch {
    let mut batch = batch.clone();
    if let Ok(place) = batch.schema_ref().index_of(column) {
        batch.remove_column(place);
    }
    batch
}

/// Both models' values of the custom metrics, batch by batch.
fn custom(
    (spec, declared): (&Spec, &[Named]),
    rows: &[RecordBatch],
    labels: &[i64],
    (baseline, candidate): (&[i64], &[i64]),
) -> Result<Vec<CustomValues>, Refusal> {
    let Some(measures) = Measures::compile(spec).or_else(|e| refuse("BAD_CONTRACT", e))? else { return Ok(Vec::new()) };
    let mut all: Vec<CustomValues> = declared.iter().map(Named::without_values).collect();
    let width = baseline.len().checked_div(labels.len()).unwrap_or(1);
    let mut done = 0;
    for batch in rows {
        let end = done + batch.num_rows();
        let of = |scores: &[i64]| {
            let (labels, scores) = (labels.get(done..end), scores.get(done * width..end * width));
            let own = measures.values(batch, labels.unwrap_or_default(), scores.unwrap_or_default());
            own.or_else(|e| refuse(UNDEFINED, e))
        };
        for (own, (base, cand)) in all.iter_mut().zip(of(baseline)?.into_iter().zip(of(candidate)?)) {
            own.baseline.extend(base);
            own.candidate.extend(cand);
        }
        done = end;
    }
    Ok(all)
}

/// The labels of rows: a class's number, or a number in quanta.
///
/// # Errors
/// A row without a label of the task.
pub fn quanta(rows: &[RecordBatch], label: &str, task: &Task) -> Result<Vec<i64>, Refusal> {
    let quanta = |value: f64| match task {
        Task::Number => quantise(value, MICRO).ok(),
        Task::Classes(_) => Some(value as i64),
    };
    let own = labels(rows, label, task);
    let own = own.ok().and_then(|labels| labels.into_iter().map(|label| quanta(label?)).collect::<Option<Vec<_>>>());
    own.ok_or_else(|| {
        Refusal::new(
            "BAD_LABEL",
            "a sealed row has no label of the model's task; help: seal rows of the present contract",
        )
    })
}

/// A model's scores of the sealed rows, quantised once.
pub fn scores(
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
    let declared = match model.encoding.columns() {
        Ok(declared) => declared,
        Err(column) => return refuse(code, format!("{who} reads the column {column} in two ways")),
    };
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
        let derivation = &model.encoding.derivation;
        let batch = features::derive(derivation, batch.clone())
            .or_else(|e| refuse(code, format!("{who}: {}", e.without_place())))?;
        let frame = frame_of(std::slice::from_ref(&batch), &declared).map_err(|_| unfit())?;
        let scored = model.predict(&frame).map_err(|error| match error {
            // The error's text names a row and what came of it.
            EncodingError::Unusable { .. } => {
                Refusal::new(code, format!("{who} gives no number, or no chances, for a sealed row"))
            }
            _ => unfit(),
        });
        for score in scored? {
            let Ok(score) = quantise(score, MICRO) else {
                return refuse(code, format!("{who} gives a score that is no finite number"));
            };
            scores.push(score);
        }
    }
    Ok(scores)
}

/// The place of each row's stratum in each of the plan's columns.
fn strata(plan: &Plan, sealed: &[String], rows: &[RecordBatch]) -> Result<Vec<Vec<u32>>, Refusal> {
    let mut all = Vec::with_capacity(plan.columns.len());
    for (column, own) in &plan.columns {
        let mut of = Vec::new();
        for batch in rows {
            let Some(cells) = batch.column_by_name(column) else {
                return refuse("STRATA_NOT_SEALED", format!("the sealed rows have no column {column}"));
            };
            for row in 0..batch.num_rows() {
                let Ok(level) = level_of(cells, row) else {
                    return refuse("STRATA_NOT_SEALED", format!("the column {column} makes no strata"));
                };
                let place = stratum_of(sealed, column, &level).and_then(|s| own.iter().position(|(name, _)| name == s));
                // A level of no stratum lies beyond all, and refuses the attempt.
                of.push(u32::try_from(place.unwrap_or(own.len())).unwrap_or(u32::MAX));
            }
        }
        all.push(of);
    }
    Ok(all)
}

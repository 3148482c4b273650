//! Rows → model: a pure function of the run and its rows. Threads have no influence on the bytes.

use ::arrow::array::{AsArray, RecordBatch};
use ::arrow::compute::{cast, filter_record_batch};
use ::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::admission::Open;
use super::answers::External;
use super::rows::Rows;
use super::warm;
use crate::attest::tree::root;
use crate::domain::contract::learning::{Split, SplitWord};
use crate::domain::records::{Dataset as Named, Metric};
use crate::math;
use crate::ml::artefact::{self, MAX_BYTES};
use crate::ml::dataset::{CODE, Dataset, Recipe};
use crate::ml::declare::Declaration;
use crate::ml::encoding::{Encoded, Encoding, Feature, Features};
use crate::ml::fold::{Fold, folds};
use crate::ml::model::{Forest, Model, Predictor};
use crate::ml::{Control, LearnError, Learned, Task, Training, arrow, learner};
use crate::rowsql::features::{self, Fault};
use crate::stages::beside::Refusal;
use crate::stats::auc::Placements;

/// Reason code of SQL that gives no columns.
pub const SQL_FAILED: &str = "SQL_FAILED";

/// What a run made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The model's canonical bytes.
    pub artefact: Vec<u8>,
    /// How many they are.
    pub size: usize,
    /// Their SHA-256, hex.
    pub digest: String,
    /// The rows that it learned from.
    pub dataset: Named,
    /// Digest of the recipe, hex.
    pub recipe_digest: String,
    /// On the validation fold, sorted by name.
    pub metrics: Vec<Metric>,
    /// Iterations that were kept.
    pub iterations: i32,
    /// Columns of its features.
    pub features: Vec<String>,
    /// SHA-256 of what an external trainer answered, hex; none of own learners.
    pub answer: Option<String>,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Rows in canonical order, encoded: what any number of trials may learn from.
pub struct Prepared {
    /// What the rows are called.
    pub named: Named,
    features: Features,
    encoding: Encoding,
    labels: Vec<f64>,
    row_keys: Vec<u64>,
    fold: Fold,
    /// Trees over these features to go on from.
    warm: Option<Forest>,
}

impl Prepared {
    /// The model of a predictor that learned from these rows.
    #[must_use]
    pub fn model(&self, task: &Task, predictor: Predictor) -> Model {
        Model { task: task.clone(), encoding: self.encoding.clone(), predictor }
    }

    /// The encoded features.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The labels: a class's number, or the number itself.
    #[must_use]
    pub fn labels(&self) -> &[f64] {
        &self.labels
    }

    /// Which rows learn and which judge.
    ///
    /// # Errors
    /// Why nothing can be learned from these rows.
    pub fn folds(&self, task: &Task, seed: u64, validation: f64) -> Result<(Vec<u32>, Vec<u32>), Refusal> {
        let (features, labels, row_keys) = (&self.features, &self.labels[..], &self.row_keys[..]);
        let training = Training { features, labels, task, row_keys, fold: &self.fold, seed, threads: 1, warm: None };
        training.check().map_err(|error| Refusal::new(error.code(), error))?;
        Ok(folds(&training, validation))
    }

    /// How columns become features.
    #[must_use]
    pub fn encoding(&self) -> &Encoding {
        &self.encoding
    }
}

/// How to learn.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The learner's name.
    pub algorithm: &'a str,
    /// Its complete parameters.
    pub parameters: &'a Value,
    /// Seed of every random choice.
    pub seed: u64,
    /// Threads; no influence on the result.
    pub threads: usize,
}

/// A model without its encoding, and how good it is.
pub struct Fitted {
    /// What learning gave.
    pub learned: Learned,
    /// On the validation fold, sorted by name.
    pub metrics: Vec<Metric>,
}

impl Fitted {
    /// Loss on the validation fold, as text, so that no reading and writing changes it.
    ///
    /// # Errors
    /// No row judged.
    pub fn loss(&self) -> Result<String, Refusal> {
        let loss = self.learned.validation_loss.filter(|loss| loss.is_finite());
        loss.map(|loss| loss.to_string()).ok_or_else(|| {
            let detail = "no row is in the validation fold; help: more rows, or params.validation";
            Refusal::new("NO_VALIDATION", detail)
        })
    }
}

/// Learns, from a checkpoint of the same run if there is one; the bytes are the same. `None` when `control` stopped it.
///
/// # Errors
/// Why these rows give no model.
pub fn fit(
    rows: &Prepared,
    task: &Task,
    way: &Way<'_>,
    (run_id, checkpoint): (&str, Option<&[u8]>),
    control: &mut dyn Control,
) -> Result<Option<Fitted>, Refusal> {
    let training = Training {
        features: &rows.features,
        labels: &rows.labels,
        task,
        row_keys: &rows.row_keys,
        fold: &rows.fold,
        seed: way.seed,
        threads: way.threads.max(1),
        warm: rows.warm.as_ref(),
    };
    let refused = |error: LearnError| Refusal::new(error.code(), error);
    let learner = learner(way.algorithm).map_err(refused)?;
    let mut learned = learner.learn(&training, way.parameters, checkpoint, control);
    if let Err(LearnError::Checkpoint { problem }) = &learned {
        tracing::warn!(run = run_id, %problem, "a checkpoint cannot be used: the run begins anew");
        learned = learner.learn(&training, way.parameters, None, control);
    }
    let learned = match learned {
        Err(LearnError::Cancelled { .. }) => return Ok(None),
        learned => learned.map_err(refused)?,
    };
    let validation = way.parameters.get("validation").and_then(Value::as_f64).unwrap_or(0.0);
    let (_, judge) = folds(&training, validation);
    let predictions = learned.predictor.predictions(&judged(training.features, &judge), task);
    let scores = predictions.map_err(|error| Refusal::new("BAD_MODEL", error))?;
    let labels: Vec<f64> = judge.iter().filter_map(|&row| rows.labels.get(row as usize).copied()).collect();
    let metrics = metrics(task, &labels, &scores);
    Ok(Some(Fitted { learned, metrics }))
}

/// Learns what a run asks for: see [`fit`].
///
/// # Errors
/// Why these rows give no model.
pub fn learn(
    open: &Open,
    declared: &Declaration,
    rows: &Prepared,
    threads: usize,
    checkpoint: Option<&[u8]>,
    control: &mut dyn Control,
) -> Result<Option<Made>, Refusal> {
    let parameters: Value = serde_json::from_str(&open.parameters)
        .map_err(|_| Refusal::new("BAD_PARAMETER", "the parameters are no JSON"))?;
    let recipe = recipe(open, declared, &parameters, &rows.named)?;
    within_budget(open, &parameters, rows.labels.len())?;
    let (algorithm, seed) = (open.run.algorithm.as_str(), open.run.seed.cast_unsigned());
    let (own, _) = warm::split(&parameters);
    let way = Way { algorithm, parameters: &own, seed, threads };
    let fitted = fit(rows, &declared.task, &way, (&open.run.run_id, checkpoint), control)?;
    let Some(Fitted { learned, mut metrics }) = fitted else { return Ok(None) };
    if open.warm.is_some() {
        // What judges here may have taught the base: which rows did is not known of it.
        metrics.clear();
    }
    if !declared.derivation.steps.is_empty() {
        metrics.extend(learned_rows(rows));
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let artefact = rows.model(&declared.task, learned.predictor).to_bytes();
    if artefact.len() > MAX_BYTES {
        return Err(Refusal::new(
            "TOO_LARGE",
            format!("the model has more than {MAX_BYTES} bytes; help: fewer trees or leaves"),
        ));
    }
    Ok(Some(Made {
        digest: hex(&artefact::digest(&artefact)),
        size: artefact.len(),
        artefact,
        dataset: rows.named.clone(),
        recipe_digest: recipe,
        metrics,
        iterations: i32::try_from(learned.iterations).unwrap_or(i32::MAX),
        features: columns(declared),
        answer: None,
    }))
}

/// The columns that features are made of, sorted, each once.
pub(super) fn columns(declared: &Declaration) -> Vec<String> {
    let mut columns: Vec<String> = declared.features.iter().map(|feature| feature.column.clone()).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// What the contract's steps left: how many rows were learned from, of how many in the dataset.
fn learned_rows(rows: &Prepared) -> Option<Metric> {
    let value = decimal(rows.labels.len() as f64)?;
    Some(Metric { name: "learned_rows".to_owned(), value, rows: rows.named.rows })
}

/// The rows of a fold.
pub(super) fn judged(features: &Features, rows: &[u32]) -> Features {
    let column = |column: &Encoded| {
        let values = rows.iter().filter_map(|&row| column.values.get(row as usize).copied()).collect();
        Encoded { values, codes: column.codes }
    };
    Features { columns: features.columns.iter().map(column).collect(), names: features.names.clone(), rows: rows.len() }
}

/// Puts rows in their canonical order and encodes them, as the model to go on from does if there is one.
///
/// # Errors
/// Why nothing can be learned from these rows.
pub fn prepare(declared: &Declaration, rows: Rows, from: Option<Model>) -> Result<Prepared, Refusal> {
    let bad = |error: &dyn std::fmt::Display| Refusal::new("BAD_DATASET", error);
    let (contributions, receipts) = (rows.contributions, rows.receipts);
    let contributions_root = if receipts.is_empty() { String::new() } else { hex(&root(&receipts)) };
    drop(receipts);
    let dataset = match Dataset::assemble(rows.batches) {
        Err(crate::ml::dataset::DatasetError::Empty) => {
            let help = "help: contribute rows first, or ask again once their receipts are there";
            return Err(Refusal::new("EMPTY_DATASET", format!("no admitted rows; {help}")));
        }
        dataset => dataset.map_err(|e| bad(&e))?,
    };
    let count = i64::try_from(dataset.rows.num_rows()).unwrap_or(i64::MAX);
    let named = Named { digest: hex(&dataset.root), rows: count, contributions, contributions_root };
    encode_for(declared, named, (dataset.rows, dataset.row_keys), from)
}

/// Runs the contract's steps and SQL on rows that stand in their canonical order, and encodes what is left.
///
/// # Errors
/// Why nothing can be learned from these rows.
pub fn encode(
    declared: &Declaration,
    named: Named,
    rows: RecordBatch,
    row_keys: Vec<u64>,
) -> Result<Prepared, Refusal> {
    encode_for(declared, named, (rows, row_keys), None)
}

fn encode_for(
    declared: &Declaration,
    named: Named,
    (rows, row_keys): (RecordBatch, Vec<u64>),
    from: Option<Model>,
) -> Result<Prepared, Refusal> {
    let bad = |error: &dyn std::fmt::Display| Refusal::new("BAD_DATASET", error);
    let (rows, row_keys) = stepped(declared, rows, row_keys)?;
    if row_keys.is_empty() {
        let detail = "the steps of the contract let no row through; help: look at `learning.steps`";
        return Err(Refusal::new("EMPTY_DATASET", detail));
    }
    let rows = features::derive(&declared.derivation, rows).map_err(|fault| failed(fault, &row_keys))?;
    let labels = arrow::labels(std::slice::from_ref(&rows), &declared.label, &declared.task).map_err(|e| bad(&e))?;
    let labels: Option<Vec<f64>> = labels.into_iter().collect();
    let Some(labels) = labels else {
        return Err(Refusal::new(
            "BAD_LABEL",
            "the label of an accepted row is missing, or none of the contract's classes; help: it was accepted under another contract",
        ));
    };
    let fold = fold(declared, &rows, &row_keys)?;
    let (encoding, features) = encoded(declared, rows, from.as_ref().map(|model| &model.encoding))?;
    let warm = from.and_then(|model| if let Predictor::Trees(forest) = model.predictor { Some(forest) } else { None });
    Ok(Prepared { named, features, encoding, labels, row_keys, fold, warm })
}

/// How the contract wants the validation fold cut. The key of a group is taken from its value as text.
fn fold(declared: &Declaration, rows: &RecordBatch, row_keys: &[u64]) -> Result<Fold, Refusal> {
    let Some(Split { by, column }) = &declared.validation else { return Ok(Fold::Rows) };
    let bad = |error: &dyn std::fmt::Display| Refusal::new("BAD_DATASET", error);
    let missing = || bad(&format_args!("column {column} that cuts the validation fold is missing"));
    let found = rows.column_by_name(column).ok_or_else(missing)?;
    Ok(match by {
        SplitWord::Group => {
            let texts = cast(found, &DataType::Utf8).map_err(|e| bad(&e))?;
            let key = |(text, row): (Option<&str>, &u64)| match text.map(|text| Sha256::digest(text.as_bytes())) {
                Some(digest) => digest.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte)),
                None => *row,
            };
            Fold::Groups(texts.as_string::<i32>().iter().zip(row_keys).map(key).collect())
        }
        SplitWord::Newest => {
            let times = cast(found, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(|e| bad(&e))?;
            Fold::Newest(times.as_primitive::<TimestampMicrosecondType>().iter().collect())
        }
    })
}

/// The rows that the contract's steps let through.
fn stepped(
    declared: &Declaration,
    mut rows: RecordBatch,
    mut keys: Vec<u64>,
) -> Result<(RecordBatch, Vec<u64>), Refusal> {
    for step in &declared.derivation.steps {
        let kept = features::kept(&declared.derivation, step, &rows, &keys).map_err(|fault| failed(fault, &keys))?;
        let before = rows.num_rows();
        rows = filter_record_batch(&rows, &kept).map_err(|error| Refusal::new("BAD_DATASET", error))?;
        let mut kept = kept.values().iter();
        keys.retain(|_| kept.next().unwrap_or(false));
        tracing::info!(step = step.name, before, after = rows.num_rows(), "a step has filtered training rows");
    }
    Ok((rows, keys))
}

/// SQL that fails on training rows. A place among them means nothing to anybody: the row's hash does.
fn failed(fault: Fault, keys: &[u64]) -> Refusal {
    let row = fault.row.and_then(|row| keys.get(row)).map(|key| format!("; the row's hash begins with {key:016x}"));
    Refusal::new(SQL_FAILED, format!("{}{}", fault.without_place(), row.unwrap_or_default()))
}

/// Compiles the encoding, or takes a known one, and encodes the rows, column by column: a column that is encoded is dropped before the
/// next one.
fn encoded(
    declared: &Declaration,
    rows: RecordBatch,
    known: Option<&Encoding>,
) -> Result<(Encoding, Features), Refusal> {
    let bad = |error: &dyn std::fmt::Display| Refusal::new("BAD_DATASET", error);
    let (schema, columns, count) = rows.into_parts();
    let mut columns: Vec<_> = columns.into_iter().map(Some).collect();
    let mut encoding = Encoding { features: Vec::new(), derivation: declared.derivation.served() };
    let mut features = Features { columns: Vec::new(), names: Vec::new(), rows: count };
    for own in &declared.features {
        let column = schema.index_of(&own.column).ok().and_then(|place| columns.get_mut(place)?.take());
        let batch = column.map(|column| RecordBatch::try_from_iter_with_nullable([(&own.column, column, true)]));
        let batch = batch.transpose().map_err(|e| bad(&e))?;
        let frame = arrow::frame_of(batch.as_slice(), std::slice::from_ref(own)).map_err(|e| bad(&e))?;
        drop(batch);
        let part = match known {
            Some(known) => warm::part(known, own)?,
            None => Encoding::compile(std::slice::from_ref(own), &frame).map_err(|e| bad(&e))?,
        };
        features.columns.extend(part.encode(&frame).map_err(|e| bad(&e))?.columns);
        encoding.features.extend(part.features);
    }
    encoding.distinct().map_err(|e| bad(&e))?;
    known.map_or(Ok(()), |known| warm::whole(known, &encoding))?;
    features.names = encoding.features.iter().map(Feature::name).collect();
    Ok((encoding, features))
}

/// Digest of a run's recipe on a dataset, hex.
///
/// # Errors
/// Parameters or a search that are no JSON.
pub fn recipe_digest(open: &Open, declared: &Declaration, dataset: &Named) -> Result<String, Refusal> {
    let parameters: Value = serde_json::from_str(&open.parameters)
        .map_err(|_| Refusal::new("BAD_PARAMETER", "the parameters are no JSON"))?;
    recipe(open, declared, &parameters, dataset)
}

/// The recipe of a search holds what was asked for, of which its winner follows.
fn recipe(open: &Open, declared: &Declaration, parameters: &Value, dataset: &Named) -> Result<String, Refusal> {
    let damaged = |_| Refusal::new("BAD_SEARCH", "the search is no JSON");
    let (parameters, search) = match &open.searching {
        None => (parameters.clone(), None),
        Some(searching) => (
            serde_json::from_str(&searching.fixed).map_err(damaged)?,
            Some(serde_json::from_str(&searching.declared).map_err(damaged)?),
        ),
    };
    let recipe = Recipe {
        dataset: dataset.digest.clone(),
        label: declared.label.clone(),
        encoding: declared.features.clone(),
        derivation: declared.derivation.clone(),
        validation: declared.validation.clone(),
        algorithm: open.run.algorithm.clone(),
        parameters,
        search,
        seed: open.run.seed.to_string(),
        base_version: open.run.base_version.clone(),
        code: CODE,
        answer: open.external.as_ref().and_then(External::artefact).map(|artefact| artefact.digest.clone()),
    };
    Ok(hex(&recipe.digest().map_err(|e| Refusal::new("BAD_PARAMETER", e))?))
}

fn within_budget(open: &Open, parameters: &Value, rows: usize) -> Result<(), Refusal> {
    let iterations = parameters.get("iterations").and_then(Value::as_u64).unwrap_or(1);
    let cost = u64::try_from(rows).unwrap_or(u64::MAX).saturating_mul(iterations);
    match open.budget {
        Some(budget) if cost > budget.cast_unsigned() => {
            let detail =
                format!("{rows} rows × {iterations} iterations are more than {budget}; help: fewer iterations");
            Err(Refusal::new("BUDGET_EXCEEDED", detail))
        }
        _ => Ok(()),
    }
}

/// A decimal string of six places in its one form, as the registry takes it.
fn decimal(value: f64) -> Option<String> {
    let text = format!("{value:.6}");
    let text = if text == "-0.000000" { "0.000000".to_owned() } else { text };
    crate::stages::registry::version::is_decimal(&text).then_some(text)
}

/// Metrics of predictions, sorted by name; none for an empty fold.
pub(super) fn metrics(task: &Task, labels: &[f64], predictions: &[f64]) -> Vec<Metric> {
    if labels.is_empty() {
        return Vec::new();
    }
    let rows = i64::try_from(labels.len()).unwrap_or(i64::MAX);
    let mean = |values: Vec<f64>| math::sum(&values) / labels.len() as f64;
    let pairs = || labels.iter().copied().zip(predictions.iter().copied());
    let named: Vec<(&str, Option<f64>)> = match task {
        Task::Number => {
            let squares = mean(pairs().map(|(label, found)| (label - found) * (label - found)).collect());
            vec![
                ("mae", Some(mean(pairs().map(|(label, found)| (label - found).abs()).collect()))),
                ("rmse", Some(math::sqrt(squares))),
            ]
        }
        Task::Classes(classes) if classes.len() > 2 => {
            let chances: Vec<(usize, &[f64])> =
                labels.iter().map(|&label| label as usize).zip(predictions.chunks_exact(classes.len())).collect();
            let best = |row: &[f64]| (0..row.len()).rev().max_by(|&a, &b| at(row, a).total_cmp(&at(row, b)));
            let right = |(label, row): &(usize, &[f64])| f64::from(u8::from(best(row) == Some(*label)));
            vec![
                ("accuracy", Some(mean(chances.iter().map(right).collect()))),
                ("log_loss", Some(mean(chances.iter().map(|(label, row)| loss(at(row, *label))).collect()))),
            ]
        }
        Task::Classes(_) => {
            let right = |(label, found): (f64, f64)| f64::from(u8::from((found >= 0.5) == (label == 1.0)));
            let own = |(label, found): (f64, f64)| loss(if label == 1.0 { found } else { 1.0 - found });
            let whole: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
            // Chances keep their order as their bits: none is negative.
            let ranks: Vec<i64> = predictions.iter().map(|chance| chance.to_bits().cast_signed()).collect();
            vec![
                ("accuracy", Some(mean(pairs().map(right).collect()))),
                ("auroc", Placements::of(&whole, &ranks).area().map(crate::stats::fixed::Ratio::to_f64)),
                ("log_loss", Some(mean(pairs().map(own).collect()))),
            ]
        }
    };
    let metric =
        |(name, value): (&str, Option<f64>)| Some(Metric { name: name.to_owned(), value: decimal(value?)?, rows });
    named.into_iter().filter_map(metric).collect()
}

fn at(row: &[f64], place: usize) -> f64 {
    row.get(place).copied().unwrap_or(0.0)
}

/// −ln of a chance, which is taken for at least 10⁻¹⁵.
fn loss(chance: f64) -> f64 {
    -math::ln(chance.max(1e-15))
}

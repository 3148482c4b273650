//! An external trainer's answer → the run's model: a pure function of the job and of what the answer names.
//!
//! Nothing that the answer says of itself is believed: its bytes are read within limits, it has to take the job's features, and its
//! metrics are measured here, on the job's validation fold.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Float32Type, Float64Type, Int32Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::admission::Open;
use super::job::{Description, MAX_DESCRIPTION, judging};
use super::learn::{Made, columns, hex, judged, metrics, recipe_digest};
use super::outside::fill;
use super::work::{Pace, Shop, persist};
use crate::codec::formats::Format;
use crate::domain::contract::Spec;
use crate::domain::records::Artefact;
use crate::ml::artefact::{self, MAX_BYTES, is_native};
use crate::ml::declare::{Declaration, declaration};
use crate::ml::encoding::{Encoded, Encoding, Features, Kind};
use crate::ml::model::Model;
use crate::ml::onnx;
use crate::ml::onnx::conformance::{Conformance, MAX_FILE};
use crate::ml::onnx::import::ImportError;
use crate::stages::beside::Refusal;

/// Rows that are scored before it is asked whether the run was cancelled.
const BLOCK: usize = 1024;

/// A blob, or why there is none; none when the work was cancelled.
type Fetched = Result<Bytes, Option<Refusal>>;

fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Option<Refusal>> {
    Err(Some(Refusal::new(code, detail)))
}

fn damaged(problem: impl std::fmt::Display) -> Option<Refusal> {
    Some(Refusal::new(
        "JOB_DAMAGED",
        format!(
            "the job in the store: {problem}; help: restore it from a backup of the store, then send the answer again"
        ),
    ))
}

/// What a job's description and encoding say.
struct Asked {
    description: Description,
    encoding: Encoding,
}

/// Makes the run's model of the answer that is looked at.
///
/// # Errors
/// Why the answer cannot be used; none when the work was cancelled.
pub fn import(shop: &Shop, open: &Open, pace: &Pace) -> Result<Made, Option<Refusal>> {
    let Some(external) = &open.external else { return refuse("NO_ANSWER", "the run waits for no answer") };
    let (Some(named), Some(answer)) = (&external.job, external.answers.first()) else {
        return refuse("NO_ANSWER", "the run waits for no answer");
    };
    let Some(given) = &answer.artefact else { return refuse("NO_ANSWER", "the answer names no model") };
    let spec = Spec::from_canonical_json(&open.spec).map_err(|e| Some(Refusal::new("BAD_CONTRACT", e)))?;
    let mut declared = declaration(&spec).map_err(|e| Some(Refusal::new("NOTHING_TO_LEARN", e)))?;
    persist(pace, &open.run.run_id, || fill(&*shop.outside, &mut declared))?;
    let fetch = |blob: &Artefact, most| persist(pace, &open.run.run_id, || shop.outside.fetch(blob, most));
    let bytes = fetch(given, MAX_BYTES as u64)?;
    if given.size != 0 && usize::try_from(given.size).ok() != Some(bytes.len()) {
        return refuse("WRONG_SIZE", format!("the artefact has {} bytes, the answer says {}", bytes.len(), given.size));
    }
    let own = |blob: &Artefact, most| fetch(blob, most).map_err(|e| damaged(e?.detail));
    let asked = asked(&own, named, &declared)?;
    crate::failpoint!("training.importing");
    let model = if is_native(&bytes) {
        native(&bytes, &declared, &asked.encoding).map_err(Some)?
    } else {
        let Some(rows) = &answer.conformance else {
            let help = "help: name `conformance` too, rows of the job's features with the scores that the model's own runtime gives them";
            return refuse("CONFORMANCE_MISSING", format!("the artefact is in no native form; {help}"));
        };
        foreign(&bytes, &fetch(rows, MAX_FILE as u64)?, &declared, &asked.encoding).map_err(Some)?
    };
    drop(bytes);
    let file = &asked.description.rows.file;
    let rows = own(file, u64::try_from(file.size).unwrap_or(0))?;
    let (features, labels) = validation(rows, &asked)?;
    let scores = scores(&model, &features, &declared, pace)?;
    if scores.iter().any(|score| !score.is_finite()) {
        return refuse("NOT_FINITE", "a score on the validation fold is no finite number");
    }
    let artefact = Bytes::from(model.to_bytes());
    let dataset = asked.description.dataset.clone();
    let made = Made {
        digest: hex(&artefact::digest(&artefact)),
        size: artefact.len(),
        artefact: Vec::new(),
        recipe_digest: recipe_digest(open, &declared, &dataset).map_err(Some)?,
        dataset,
        metrics: metrics(&declared.task, &labels, &scores),
        iterations: i32::try_from(external.looked).unwrap_or(i32::MAX).saturating_add(1),
        features: columns(&declared),
        answer: Some(given.digest.clone()),
    };
    persist(pace, &open.run.run_id, || shop.outside.keep(artefact.clone()))?;
    Ok(made)
}

/// The model's scores, in blocks: a model of another program may take a second for a thousand rows, and its run may be cancelled.
fn scores(
    model: &Model,
    features: &Features,
    declared: &Declaration,
    pace: &Pace,
) -> Result<Vec<f64>, Option<Refusal>> {
    let mut all = Vec::with_capacity(features.rows.saturating_mul(declared.task.outputs()));
    let rows: Vec<u32> = (0..u32::try_from(features.rows).unwrap_or(u32::MAX)).collect();
    for block in rows.chunks(BLOCK) {
        if pace.is_cancelled() {
            return Err(None);
        }
        let scores = model.predictor.predictions(&judged(features, block), &declared.task);
        all.extend(scores.map_err(|error| Some(Refusal::new("CONFORMANCE_FAILED", error)))?);
    }
    Ok(all)
}

/// The job as it was put into the store.
fn asked(
    fetch: &dyn Fn(&Artefact, u64) -> Fetched,
    named: &Artefact,
    declared: &Declaration,
) -> Result<Asked, Option<Refusal>> {
    let description: Description = serde_json::from_slice(&fetch(named, MAX_DESCRIPTION as u64)?).map_err(damaged)?;
    let encoding = fetch(&description.encoding, MAX_DESCRIPTION as u64)?;
    let mut encoding = Encoding::from_json(&encoding).map_err(damaged)?;
    encoding.derivation = declared.derivation.served();
    Ok(Asked { description, encoding })
}

/// The platform's own form: it has to take the job's features for the job's task.
fn native(bytes: &[u8], declared: &Declaration, encoding: &Encoding) -> Result<Model, Refusal> {
    let model = Model::from_bytes(bytes).map_err(|error| Refusal::new("BAD_ARTEFACT", error))?;
    if model.task != declared.task {
        let (found, wanted) = (model.task.name(), declared.task.name());
        return Err(Refusal::new(
            "WRONG_TASK",
            format!("the artefact is for {found} of its own classes, the job for {wanted}"),
        ));
    }
    if model.encoding != *encoding {
        let help = "help: take the features of the job, in their order, with its categories";
        return Err(Refusal::new(
            "WRONG_ENCODING",
            format!("the artefact takes other features than the job's; {help}"),
        ));
    }
    Ok(model)
}

/// A model in ONNX: it has to give the scores here that its own runtime gave.
fn foreign(bytes: &[u8], rows: &[u8], declared: &Declaration, encoding: &Encoding) -> Result<Model, Refusal> {
    let refused = |error: ImportError| Refusal::new(error.code(), error);
    let format = if rows.starts_with(b"PAR1") { Format::Parquet } else { Format::Csv };
    let rows = Conformance::read(format, rows, encoding, &declared.task).map_err(refused)?;
    onnx::import::import(bytes, encoding.clone(), declared.task.clone(), &rows).map_err(refused)
}

/// Features and labels of the rows that judge.
fn validation(rows: Bytes, asked: &Asked) -> Result<(Features, Vec<f64>), Option<Refusal>> {
    let said = &asked.description.rows;
    let reader = ParquetRecordBatchReaderBuilder::try_new(rows).map_err(damaged)?.build().map_err(damaged)?;
    let codes = |kind: &Kind| match kind {
        Kind::Category(levels) => u16::try_from(levels.len() + 1).unwrap_or(u16::MAX),
        _ => 0,
    };
    let empty = |kind| Encoded { values: Vec::with_capacity(said.validation), codes: codes(kind) };
    let mut columns: Vec<Encoded> = asked.encoding.features.iter().map(|feature| empty(&feature.kind)).collect();
    let mut labels = Vec::with_capacity(said.validation);
    for batch in reader {
        let batch = batch.map_err(damaged)?;
        let batch = filter_record_batch(&batch, &judging(&batch, &said.fold).map_err(Some)?).map_err(damaged)?;
        take(&batch, asked, &mut columns, &mut labels).map_err(damaged)?;
    }
    Ok((Features { columns, names: said.features.clone(), rows: labels.len() }, labels))
}

fn take(
    batch: &RecordBatch,
    asked: &Asked,
    columns: &mut [Encoded],
    labels: &mut Vec<f64>,
) -> Result<(), &'static str> {
    let said = &asked.description.rows;
    if said.features.len() != columns.len() {
        return Err("features and encoding differ");
    }
    for (name, column) in said.features.iter().zip(columns) {
        let values = batch.column_by_name(name).and_then(|values| values.as_primitive_opt::<Float32Type>());
        column.values.extend(values.ok_or("a feature has no column")?.iter().map(|value| value.unwrap_or(f32::NAN)));
    }
    let label = batch.column_by_name(&said.label).ok_or("the label has no column")?;
    if let Some(classes) = label.as_primitive_opt::<Int32Type>() {
        labels.extend(classes.values().iter().map(|&class| f64::from(class)));
    } else if let Some(numbers) = label.as_primitive_opt::<Float64Type>() {
        labels.extend(numbers.values());
    } else {
        return Err("the label is no number");
    }
    Ok(())
}

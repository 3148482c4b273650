//! What an external trainer gets: encoded rows as Parquet, how they were encoded, and a description that names both by their digests.
//!
//! | blob | holds |
//! |---|---|
//! | description | [`Description`], JSON: the run, what is wanted, limits, digests of the others |
//! | encoding | [`Levels`], JSON: how each feature is made of a column |
//! | rows | Parquet in the dataset's canonical order: a `float` column per feature (null is missing, a category is its number), the label (the class's number, or the number itself), the fold |
//!
//! All are functions of the run and its dataset alone, so whoever goes on with the run writes the same bytes.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::admission::Open;
use super::learn::{Prepared, hex};
use crate::domain::records::{Artefact, Dataset};
use crate::ml::Task;
use crate::ml::artefact::{MAX_BYTES, digest};
use crate::ml::declare::Declaration;
use crate::ml::onnx::conformance::{MAX_ROWS, MIN_ROWS, TOLERANCE};
use crate::stages::beside::Refusal;

/// What a description says it is.
pub const FORMAT: &str = "hokusai-training-job/v1";
/// Largest description or encoding in bytes.
pub const MAX_DESCRIPTION: usize = 64 << 20;
/// Media type of descriptions and encodings.
pub const JSON: &str = "application/json";
/// Media type of ONNX.
const ONNX: &str = "application/onnx";
/// Media type of rows.
pub const PARQUET: &str = "application/vnd.apache.parquet";
/// Rows of the fold that is learned from.
pub const TRAIN: &str = "train";
/// Rows of the fold that judges.
pub const VALIDATION: &str = "validation";
/// Rows that are written at once, and that a row group has.
const BLOCK: usize = 1 << 16;

/// What is wanted of an external trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// [`FORMAT`].
    pub format: String,
    /// Run: the answer names it.
    pub run_id: String,
    /// Id of the request.
    pub request_id: String,
    /// Model.
    pub model: String,
    /// Contract whose columns the features are made of.
    pub contract_digest: String,
    /// Parameters, as they were asked for.
    pub params: Map<String, Value>,
    /// Seed of every random choice.
    pub seed: i64,
    /// Most rows times iterations, if the request names a limit.
    pub budget: Option<i64>,
    /// Version that the model is compared with.
    pub base_version: Option<String>,
    /// Benchmark that it will be evaluated on.
    pub benchmark: Option<String>,
    /// `binary`, `multiclass` or `regression`.
    pub task: String,
    /// The classes by their numbers in the column of the label; empty for a regression.
    pub classes: Vec<String>,
    /// The rows by what they are.
    pub dataset: Dataset,
    /// The rows by where they are.
    pub rows: Rows,
    /// How they were encoded.
    pub encoding: Artefact,
    /// What an answer may be.
    pub answer: Wanted,
}

/// The rows of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The Parquet file.
    pub file: Artefact,
    /// Names of the features' columns, in the order in which a model takes them.
    pub features: Vec<String>,
    /// Name of the label's column.
    pub label: String,
    /// Name of the fold's column: `train` or `validation`.
    pub fold: String,
    /// Rows to learn from.
    pub train: usize,
    /// Rows that judge.
    pub validation: usize,
}

/// What an answer may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Topic that takes answers, without prefix.
    pub topic: String,
    /// Forms that an artefact may have.
    pub media_types: Vec<String>,
    /// Largest artefact in bytes.
    pub max_bytes: usize,
    /// Fewest and most rows that an ONNX artefact has to be given with, scored by its own runtime.
    pub conformance_rows: [usize; 2],
    /// How far its scores here may lie from those, absolutely, and relatively where that is larger than 1.
    pub tolerance: String,
}

/// A job: its blobs, the description last.
pub struct Job {
    /// What the description names.
    pub blobs: Vec<Vec<u8>>,
    /// The description.
    pub description: Vec<u8>,
    /// Its name.
    pub named: Artefact,
}

/// The share of rows that judges, as a run's complete parameters have it.
#[must_use]
pub fn validation(parameters: &Value) -> f64 {
    parameters.get("validation").and_then(Value::as_f64).unwrap_or(0.0)
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::new("BAD_DATASET", format!("the rows cannot be written for an external trainer: {error}"))
}

fn named(bytes: &[u8], media_type: &str) -> Artefact {
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    Artefact { digest: hex(&digest(bytes)), size, media_type: media_type.to_owned() }
}

/// Makes the job of a run.
///
/// # Errors
/// Why nothing can be learned from these rows.
pub fn job(open: &Open, declared: &Declaration, rows: &Prepared) -> Result<Job, Refusal> {
    let parameters: Value = serde_json::from_str(&open.parameters).map_err(failed)?;
    let run = &open.run;
    let (learn, judge) = rows.folds(&declared.task, run.seed.cast_unsigned(), validation(&parameters))?;
    let (train, validation) = (learn.len(), judge.len());
    drop(learn);
    let schema = Columns::new(&rows.features().names, &declared.task);
    let file = schema.write(rows, &judge)?;
    let encoding = serde_json::to_vec_pretty(&rows.encoding().to_json()).map_err(failed)?;
    let classes = match &declared.task {
        Task::Classes(classes) => classes.clone(),
        Task::Number => Vec::new(),
    };
    let Columns { label, fold, .. } = schema;
    let description = Description {
        format: FORMAT.to_owned(),
        run_id: run.run_id.clone(),
        request_id: run.request_id.clone(),
        model: run.model.clone(),
        contract_digest: run.contract_digest.clone(),
        params: parameters.as_object().cloned().unwrap_or_default(),
        seed: run.seed,
        budget: open.budget,
        base_version: run.base_version.clone(),
        benchmark: run.benchmark.clone(),
        task: declared.task.name().to_owned(),
        classes,
        dataset: rows.named.clone(),
        rows: Rows {
            file: named(&file, PARQUET),
            features: rows.features().names.clone(),
            label,
            fold,
            train,
            validation,
        },
        encoding: named(&encoding, JSON),
        answer: Wanted {
            topic: crate::domain::topics::TRAINING_ANSWERS.to_owned(),
            media_types: vec![super::MEDIA_TYPE.to_owned(), ONNX.to_owned()],
            // What either form may have.
            max_bytes: MAX_BYTES.min(crate::ml::onnx::read::MAX_BYTES),
            conformance_rows: [MIN_ROWS, MAX_ROWS],
            tolerance: TOLERANCE.to_string(),
        },
    };
    let description = serde_json::to_vec_pretty(&description).map_err(failed)?;
    if encoding.len().max(description.len()) > MAX_DESCRIPTION {
        return Err(failed(format_args!("its description has more than {MAX_DESCRIPTION} bytes")));
    }
    let named = named(&description, JSON);
    Ok(Job { blobs: vec![file, encoding], description, named })
}

/// The columns of the rows' file.
struct Columns {
    schema: SchemaRef,
    label: String,
    fold: String,
    classes: bool,
}

impl Columns {
    fn new(features: &[String], task: &Task) -> Self {
        // A feature may have the name; then an underscore is put behind ours.
        let free = |name: &str| {
            let mut name = name.to_owned();
            while features.contains(&name) {
                name.push('_');
            }
            name
        };
        let (label, fold, classes) = (free("label"), free("fold"), *task != Task::Number);
        let mut fields: Vec<Field> = features.iter().map(|name| Field::new(name, DataType::Float32, true)).collect();
        fields.push(Field::new(&label, if classes { DataType::Int32 } else { DataType::Float64 }, false));
        fields.push(Field::new(&fold, DataType::Utf8, false));
        Self { schema: Arc::new(Schema::new(fields)), label, fold, classes }
    }

    /// The file: the same bytes for the same rows. `judge` are the ascending positions of the rows that judge.
    fn write(&self, rows: &Prepared, judge: &[u32]) -> Result<Vec<u8>, Refusal> {
        let level = ZstdLevel::try_new(1).map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_created_by("hokusai".to_owned())
            .set_max_row_group_row_count(Some(BLOCK))
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let mut file = Vec::new();
        let mut writer =
            ArrowWriter::try_new_with_options(&mut file, Arc::clone(&self.schema), options).map_err(failed)?;
        let (count, mut judge) = (rows.labels().len(), judge.iter().copied().peekable());
        for first in (0..count).step_by(BLOCK) {
            let range = first..count.min(first + BLOCK);
            let is_judge: Vec<bool> =
                range.clone().map(|row| judge.next_if(|&at| at as usize == row).is_some()).collect();
            writer.write(&self.batch(rows, range, &is_judge)?).map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        Ok(file)
    }

    fn batch(&self, rows: &Prepared, range: std::ops::Range<usize>, is_judge: &[bool]) -> Result<RecordBatch, Refusal> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for feature in &rows.features().columns {
            let values = feature.values.get(range.clone()).unwrap_or_default();
            let value = |value: &f32| (!value.is_nan()).then_some(*value);
            columns.push(Arc::new(values.iter().map(value).collect::<Float32Array>()));
        }
        let labels = rows.labels().get(range).unwrap_or_default();
        columns.push(match self.classes {
            true => Arc::new(Int32Array::from_iter_values(labels.iter().map(|&class| class as i32))),
            false => Arc::new(Float64Array::from_iter_values(labels.iter().copied())),
        });
        let fold = |judges: &bool| if *judges { VALIDATION } else { TRAIN };
        columns.push(Arc::new(StringArray::from_iter_values(is_judge.iter().map(fold))));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)
    }
}

/// Which rows of a batch judge.
///
/// # Errors
/// The column is not there.
pub fn judging(batch: &RecordBatch, fold: &str) -> Result<BooleanArray, Refusal> {
    use arrow::array::AsArray;
    let column = batch.column_by_name(fold).and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| Refusal::new("JOB_DAMAGED", "the rows have no column of the fold"))?;
    Ok(column.iter().map(|fold| Some(fold == Some(VALIDATION))).collect())
}

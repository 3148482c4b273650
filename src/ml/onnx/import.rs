//! A foreign ONNX file becomes a model: compiled for its features and its task, and held to what its own runtime gave.

use super::OnnxError;
pub use super::conformance::Conformance;
use super::conformance::{MIN_ROWS, TOLERANCE};
use super::graph::Program;
use crate::ml::Task;
use crate::ml::artefact::{ArtefactError, MAX_BYTES};
use crate::ml::encoding::{Encoded, Encoding, EncodingError, Feature, Features, Kind};
use crate::ml::model::{Model, Predictor};

/// An ONNX file and the program that it was compiled to.
#[derive(Clone, Debug)]
pub struct Imported {
    bytes: Vec<u8>,
    program: Program,
}

impl PartialEq for Imported {
    fn eq(&self, other: &Self) -> bool {
        // The program follows from the bytes and from the encoding and the task that stand beside them.
        self.bytes == other.bytes
    }
}

/// Why a file was not imported.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ImportError {
    /// The file cannot be run.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The features or the whole are more than an artefact holds.
    #[error("the imported model makes no artefact: {0}")]
    Artefact(ArtefactError),
    /// The conformance rows cannot be used.
    #[error("the conformance rows cannot be used: {0}")]
    Rows(String),
    /// A row for which the model gives no prediction.
    #[error(transparent)]
    Prediction(#[from] EncodingError),
    /// Another result than the one that was given.
    #[error(
        "conformance row {row}{of}: the file says {expected}, here it comes to {found}, which differs by {difference:e} (at most \
         {TOLERANCE:e} is let pass)\nhelp: give the predictions of the very file and features, as its own runtime makes them"
    )]
    Differs {
        /// The worst row, from 1.
        row: usize,
        /// The class, or nothing.
        of: String,
        /// What was given.
        expected: f64,
        /// What it comes to here.
        found: f64,
        /// By how much they differ, relative to what was given where that is larger than 1.
        difference: f64,
    },
}

impl ImportError {
    /// Reason code of a refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Onnx(error) => error.code(),
            Self::Artefact(_) => "TOO_LARGE",
            Self::Rows(_) => "BAD_CONFORMANCE",
            Self::Prediction(_) | Self::Differs { .. } => "CONFORMANCE_FAILED",
        }
    }
}

/// How far chances may lie outside of 0 to 1, and their sum from 1, before they are none: single precision, not another meaning.
const SLACK: f64 = 1e-5;

impl Imported {
    /// Reads, checks and compiles a file.
    ///
    /// # Errors
    /// See [`OnnxError`].
    pub fn of(bytes: &[u8], encoding: &Encoding, task: &Task) -> Result<Self, OnnxError> {
        Ok(Self { program: Program::compile(bytes, encoding, task)?, bytes: bytes.to_vec() })
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Predictions for encoded features, row-major: the chance of the second class, of every class, or the number.
    ///
    /// # Errors
    /// The first row for which it gives no number, or no chances.
    pub fn predictions(&self, features: &Features, task: &Task) -> Result<Vec<f64>, String> {
        let mut all = self.program.outputs(features).map_err(|error| error.to_string())?;
        for (i, row) in all.chunks_exact_mut(task.outputs()).enumerate() {
            let usable = match task {
                Task::Number => row.iter().all(|value| value.is_finite()),
                Task::Classes(_) => chances(row),
            };
            if !usable {
                let wanted = if *task == Task::Number { "a finite number" } else { "chances" };
                return Err(format!("of row {} it makes {row:?}, which is not {wanted}", i + 1));
            }
        }
        Ok(all)
    }
}

/// Brings chances in single precision to chances in double precision; false when they are none.
fn chances(row: &mut [f64]) -> bool {
    if !row.iter().all(|p| (-SLACK..=1.0 + SLACK).contains(p)) {
        return false;
    }
    row.iter_mut().for_each(|p| *p = p.clamp(0.0, 1.0));
    if row.len() == 1 {
        return true;
    }
    let sum: f64 = row.iter().sum();
    if (sum - 1.0).abs() > SLACK {
        return false;
    }
    row.iter_mut().for_each(|p| *p /= sum);
    true
}

/// Imports a file.
///
/// # Errors
/// It cannot be run, or gives something else than its own runtime did.
pub fn import(onnx: &[u8], encoding: Encoding, task: Task, conformance: &Conformance) -> Result<Model, ImportError> {
    let imported = Imported::of(onnx, &encoding, &task)?;
    let features = features(&encoding, conformance, task.outputs())?;
    let found = imported.predictions(&features, &task);
    let found = found.map_err(|problem| EncodingError::Unusable { problem })?;
    let mut worst = (0.0, 0);
    for (i, (&found, &expected)) in found.iter().zip(&conformance.expected).enumerate() {
        let difference = (found - expected).abs() / expected.abs().max(1.0);
        if difference > worst.0 || !difference.is_finite() {
            worst = (difference, i);
        }
    }
    let (difference, at) = worst;
    if difference > TOLERANCE || !difference.is_finite() {
        let (row, class) = (at / task.outputs(), at % task.outputs());
        let of = match &task {
            Task::Classes(classes) if classes.len() > 2 => format!(", class {}", classes[class]),
            _ => String::new(),
        };
        let (expected, found) = (conformance.expected[at], found[at]);
        return Err(ImportError::Differs { row: row + 1, of, expected, found, difference });
    }
    let model = Model { task, encoding, predictor: Predictor::Imported(std::sync::Arc::new(imported)) };
    let bytes = model.to_bytes();
    if bytes.len() > MAX_BYTES {
        return Err(ImportError::Artefact(ArtefactError::Form { at: MAX_BYTES, problem: "too large" }));
    }
    // What a reader will refuse is refused now.
    Model::from_bytes(&bytes).map_err(ImportError::Artefact)
}

/// The conformance rows as features.
fn features(encoding: &Encoding, conformance: &Conformance, outputs: usize) -> Result<Features, ImportError> {
    let Conformance { columns, expected } = conformance;
    let rows = columns.first().map_or(0, Vec::len);
    if columns.len() != encoding.features.len() || columns.iter().any(|column| column.len() != rows) {
        return Err(ImportError::Rows("they have another number of columns than there are features".to_owned()));
    }
    if rows < MIN_ROWS {
        return Err(ImportError::Rows(format!("{rows} rows\nhelp: at least {MIN_ROWS} are wanted")));
    }
    if expected.len() != rows * outputs || expected.iter().any(|value| !value.is_finite()) {
        return Err(ImportError::Rows("not every row has a finite prediction".to_owned()));
    }
    let codes =
        |feature: &Feature| if let Kind::Category(levels) = &feature.kind { levels.len() as u16 + 1 } else { 0 };
    let encoded = encoding.features.iter().zip(columns);
    Ok(Features {
        columns: encoded.map(|(feature, values)| Encoded { values: values.clone(), codes: codes(feature) }).collect(),
        names: encoding.features.iter().map(Feature::name).collect(),
        rows,
    })
}

//! Learning: what is declared becomes encoded features, a learner declared by name makes a model of them, and the
//! model is written as canonical bytes.
//!
//! Everything here is a pure function of its arguments. The same rows in the same order, the same parameters and the
//! same seed give the same bytes of model on any machine and with any number of threads: gradients are summed as integers
//! ([`histogram`]), other sums go through a fixed tree ([`crate::math::sum`]), random draws are counted, not taken in turn
//! ([`random`]), and every transcendental function is [`crate::math`]'s.
//!
//! | file | holds |
//! |---|---|
//! | [`dataset`] | accepted rows in canonical order, their digest, and the recipe that names a run |
//! | [`declare`] | a model's contract → task and declared encoding |
//! | [`derivation`] | what SQL does to rows before they are encoded, as data |
//! | [`frame`] | raw columns as they come from tables or requests |
//! | [`arrow`](self::arrow) | Arrow record batches → raw columns: besides `dataset` the only file that knows Arrow |
//! | [`encoding`], [`describe`] | the declared encoding, compiled: raw columns → `f32` features; its JSON form |
//! | [`boost`], [`parameters`], [`grow`], [`team`], [`split`], [`histogram`], [`bins`], [`objective`] | gradient-boosted trees |
//! | [`linear`], [`lbfgs`] | logistic and linear regression |
//! | [`model`], [`tree`] | what was learned, and how it scores |
//! | [`artefact`] | the model's canonical bytes |
//! | [`onnx`] | export to ONNX, and imported ONNX models |
//! | [`search`] | trials: random search, successive halving |

pub mod arrow;
pub mod artefact;
pub mod bins;
pub mod boost;
pub mod dataset;
pub mod declare;
pub mod derivation;
pub mod describe;
pub mod encoding;
pub mod fold;
pub mod frame;
pub mod grow;
pub mod histogram;
pub mod lbfgs;
pub mod linear;
pub mod model;
pub mod objective;
pub mod onnx;
pub mod parameters;
pub mod random;
pub mod search;
pub mod split;
pub mod team;
pub mod tree;

#[cfg(test)]
pub(crate) mod tests;

use std::ops::ControlFlow;

use crate::ml::encoding::Features;
use crate::ml::fold::Fold;
use crate::ml::model::{Forest, Predictor};

/// Most features after encoding.
pub const MAX_FEATURES: usize = 4096;
/// Most classes of a label.
pub const MAX_CLASSES: usize = 256;
/// Most rows of a data set.
pub const MAX_ROWS: usize = 1 << 30;

/// Most rows times outputs: what is kept per row and class while learning.
pub const MAX_SCORES: usize = 1 << 26;

/// Largest number, either way, that is learned as a label.
pub const MAX_LABEL: f64 = 1e15;

/// Why nothing was learned. Each has a reason code for receipts and events.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LearnError {
    /// No rows to learn from.
    #[error("the data set has no rows with a label\nhelp: contribute rows first, or ask for a later `as_of`")]
    Empty,
    /// Every label is the same.
    #[error(
        "all {rows} labels are the same\nhelp: there is nothing to learn before rows with another label are accepted"
    )]
    OneClass {
        /// Rows with a label.
        rows: usize,
    },
    /// No feature varies.
    #[error(
        "none of the {features} features takes two values\nhelp: look at the contributions' quality, or declare other features"
    )]
    ConstantFeatures {
        /// Encoded features.
        features: usize,
    },
    /// A hyperparameter is unknown or out of range.
    #[error("parameter {name}: {problem}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// No learner of this name.
    #[error("no learner is called {name}\nhelp: one of {}", LEARNERS.map(|l| l.name()).join(", "))]
    UnknownLearner {
        /// The name asked for.
        name: String,
    },
    /// The learner cannot do this task.
    #[error("{learner} cannot learn {task}")]
    Task {
        /// The learner.
        learner: &'static str,
        /// The task.
        task: &'static str,
    },
    /// Features, labels and keys that are not of one length.
    #[error("{labels} labels for {rows} rows and {keys} row keys")]
    Lengths {
        /// Labels.
        labels: usize,
        /// Rows of features.
        rows: usize,
        /// Row keys.
        keys: usize,
    },
    /// A label that is no number of at most 10¹⁵, or no class.
    #[error("row {row}: the label is not a number between -1e15 and 1e15, or is not a class of the task")]
    Label {
        /// Position in the data set.
        row: usize,
    },
    /// Past a limit.
    #[error("{what}: {found} is more than {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A checkpoint of another run, or damaged.
    #[error("the checkpoint does not belong to this run: {problem}\nhelp: start without it")]
    Checkpoint {
        /// What differs.
        problem: String,
    },
    /// Learning cannot go on from what it was told to.
    #[error("learning cannot go on from that model: {problem}")]
    WarmStart {
        /// What does not fit, and the way out.
        problem: String,
    },
    /// Stopped by the caller.
    #[error("cancelled after {iterations} iterations")]
    Cancelled {
        /// Iterations done.
        iterations: u32,
    },
}

impl LearnError {
    /// Reason code of a refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "EMPTY_DATASET",
            Self::OneClass { .. } => "ONE_CLASS",
            Self::ConstantFeatures { .. } => "CONSTANT_FEATURES",
            Self::Parameter { .. } => "BAD_PARAMETER",
            Self::UnknownLearner { .. } => "UNKNOWN_ALGORITHM",
            Self::Task { .. } => "WRONG_TASK",
            Self::Lengths { .. } => "BAD_DATASET",
            Self::Label { .. } => "BAD_LABEL",
            Self::TooLarge { .. } => "TOO_LARGE",
            Self::Checkpoint { .. } => "BAD_CHECKPOINT",
            Self::WarmStart { .. } => "WARM_START_UNUSABLE",
            Self::Cancelled { .. } => "CANCELLED",
        }
    }
}

/// What is to be predicted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One of these classes, in canonical order; the score of two classes is the chance of the second.
    Classes(Vec<String>),
    /// A number.
    Number,
}

impl Task {
    /// Raw scores per row: one for two classes and for a number, else one per class.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes(classes) if classes.len() > 2 => classes.len(),
            _ => 1,
        }
    }
}

/// Rows to learn from, in canonical order.
pub struct Training<'a> {
    /// Encoded features.
    pub features: &'a Features,
    /// Class index, or the number.
    pub labels: &'a [f64],
    /// What the labels mean.
    pub task: &'a Task,
    /// First eight bytes of each row's canonical hash: what is drawn row by row is drawn by them.
    pub row_keys: &'a [u64],
    /// How the validation fold is cut.
    pub fold: &'a Fold,
    /// Key of every random draw.
    pub seed: u64,
    /// Threads, at least 1; has no influence on the result.
    pub threads: usize,
    /// Learning goes on from these trees, over the same encoded features, instead of from nothing.
    pub warm: Option<&'a Forest>,
}

impl Training<'_> {
    /// Checks what every learner needs.
    ///
    /// # Errors
    /// No rows, one class, a label that is no finite number, features that are all constant.
    pub fn check(&self) -> Result<(), LearnError> {
        let rows = self.labels.len();
        let keys = self.fold.rows().filter(|keys| *keys != rows).unwrap_or(self.row_keys.len());
        if self.features.rows != rows || keys != rows {
            return Err(LearnError::Lengths { labels: rows, rows: self.features.rows, keys });
        }
        for (what, found, limit) in [
            ("rows", rows, MAX_ROWS),
            ("features", self.features.columns.len(), MAX_FEATURES),
            ("classes", self.task.outputs(), MAX_CLASSES),
            ("rows × classes", rows.saturating_mul(self.task.outputs()), MAX_SCORES),
        ] {
            if found > limit {
                return Err(LearnError::TooLarge { what, found, limit });
            }
        }
        let Some(&first) = self.labels.first() else {
            return Err(LearnError::Empty);
        };
        if let Task::Classes(names) = self.task
            && let Some(found) = names.iter().map(String::len).find(|length| *length > artefact::MAX_TEXT)
        {
            return Err(LearnError::TooLarge { what: "bytes of a class's name", found, limit: artefact::MAX_TEXT });
        }
        let classes = if let Task::Classes(classes) = self.task { Some(classes.len() as f64) } else { None };
        let fits = |label: f64| match classes {
            Some(classes) => label >= 0.0 && label < classes && label.fract() == 0.0,
            None => label.abs() <= MAX_LABEL,
        };
        if let Some(row) = self.labels.iter().position(|&label| !fits(label)) {
            return Err(LearnError::Label { row });
        }
        if self.labels.iter().all(|&label| label == first) {
            return Err(LearnError::OneClass { rows });
        }
        if !self.features.columns.iter().any(|column| varies(&column.values)) {
            return Err(LearnError::ConstantFeatures { features: self.features.columns.len() });
        }
        Ok(())
    }
}

fn varies(values: &[f32]) -> bool {
    values.windows(2).any(|pair| pair[0].to_bits() != pair[1].to_bits())
}

/// How far a learner has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Iterations done.
    pub iteration: u32,
    /// Iterations at most.
    pub of: u32,
    /// Loss on the validation fold, if there is one.
    pub validation_loss: Option<f64>,
}

/// Called after every iteration: may write a checkpoint, may stop the learner.
pub trait Control {
    /// `checkpoint` makes the bytes from which training resumes.
    fn after(&mut self, progress: Progress, checkpoint: &dyn Fn() -> Vec<u8>) -> ControlFlow<()>;
}

/// Neither checkpoints nor stops.
pub struct Unattended;

impl Control for Unattended {
    fn after(&mut self, _: Progress, _: &dyn Fn() -> Vec<u8>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What learning gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// The model without its encoding.
    pub predictor: Predictor,
    /// Iterations kept, without those of a model that learning went on from.
    pub iterations: u32,
    /// Its loss on the validation fold, if there was one.
    pub validation_loss: Option<f64>,
}

/// A way to learn, declared by name.
pub trait Learner: Sync {
    /// The name in a training request.
    fn name(&self) -> &'static str;

    /// Checks the parameters and fills in the defaults: the result is complete, and stands in the recipe.
    ///
    /// # Errors
    /// An unknown parameter, or a value out of range.
    fn parameters(&self, given: &serde_json::Map<String, serde_json::Value>) -> Result<serde_json::Value, LearnError>;

    /// Learns. `checkpoint` comes from an earlier, interrupted call with the same arguments; the result is the same.
    ///
    /// # Errors
    /// Data that cannot be learned from, bad parameters, a foreign checkpoint, or a stop by `control`.
    fn learn(
        &self,
        training: &Training<'_>,
        parameters: &serde_json::Value,
        checkpoint: Option<&[u8]>,
        control: &mut dyn Control,
    ) -> Result<Learned, LearnError>;
}

/// Every learner.
pub const LEARNERS: [&dyn Learner; 2] = [&boost::Trees, &linear::Linear];

/// The learner of this name.
///
/// # Errors
/// There is none.
pub fn learner(name: &str) -> Result<&'static dyn Learner, LearnError> {
    let found = LEARNERS.into_iter().find(|learner| learner.name() == name);
    found.ok_or_else(|| LearnError::UnknownLearner { name: name.to_owned() })
}

/// Reads and checks parameters of one type: unknown names and wrong types are refused, missing ones take their defaults.
pub(crate) fn parameters_of<P: serde::de::DeserializeOwned>(
    given: &serde_json::Value,
    check: impl FnOnce(&P) -> Result<(), LearnError>,
) -> Result<P, LearnError> {
    let parameters = serde_json::from_value(given.clone()).map_err(|error| {
        let problem = error.to_string();
        let name = problem.split('`').nth(1).unwrap_or("params").to_owned();
        LearnError::Parameter { name, problem }
    })?;
    check(&parameters)?;
    Ok(parameters)
}

/// The complete parameters of a request.
pub(crate) fn completed<P: serde::de::DeserializeOwned + serde::Serialize>(
    given: &serde_json::Map<String, serde_json::Value>,
    check: impl FnOnce(&P) -> Result<(), LearnError>,
) -> Result<serde_json::Value, LearnError> {
    let parameters = parameters_of(&serde_json::Value::Object(given.clone()), check)?;
    serde_json::to_value(parameters)
        .map_err(|error| LearnError::Parameter { name: "params".into(), problem: error.to_string() })
}

/// Refuses a parameter outside `low..=high`.
pub(crate) fn within(name: &str, value: f64, low: f64, high: f64) -> Result<(), LearnError> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(LearnError::Parameter { name: name.to_owned(), problem: format!("{value} is not between {low} and {high}") })
}

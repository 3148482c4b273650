//! Records of training: the request of an outsider, the job that it becomes, and the state of its run.

use serde::{Deserialize, Serialize};

use super::{Artefact, Dataset, Metric, NamedValue, Position, Record};

/// A request to train a candidate, as an outsider sends it on `training.requests`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRequest {
    /// Id of the request: a second request with the same id gets the first one's result.
    pub request_id: String,
    /// Model to improve.
    pub model: String,
    /// Learner by name; `trees` when it is missing.
    pub algorithm: Option<String>,
    /// Parameters of the learner as JSON, sorted by name.
    pub params: Vec<NamedValue>,
    /// A search over parameters as JSON.
    pub search: Option<String>,
    /// Seed of every random choice, from 0.
    pub seed: Option<i64>,
    /// Most rows times iterations that the run may take.
    pub budget: Option<i64>,
    /// Digest of a published dataset; none takes what is accepted when the request is admitted.
    pub as_of: Option<String>,
    /// Version, alias or stage to compare with.
    pub base_version: Option<String>,
    /// Sealed benchmark to be evaluated on: `NAME@VERSION`, or `NAME` for its newest version in force.
    pub benchmark: Option<String>,
    /// Tags of the version that comes of it, sorted by name.
    pub tags: Vec<NamedValue>,
    /// A name that runs which belong together share.
    pub group: Option<String>,
    /// Go on from `base_version` instead of from scratch.
    pub warm_start: Option<bool>,
}
record!(TrainingRequest, "training_request");

/// Why a request that could not be read in full is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRefusal {
    /// Id of the request.
    pub request_id: String,
    /// Model, if it could be read; else empty.
    pub model: String,
    /// Reason code.
    pub code: String,
    /// What is wrong; no value of the request.
    pub detail: String,
}

/// An entry of `training.jobs`: exactly one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingJob {
    /// Run: it follows from the request's id.
    pub run_id: String,
    /// Where the request stands.
    pub position: Position,
    /// The request, well formed.
    pub request: Option<TrainingRequest>,
    /// Or what is wrong with it.
    pub refusal: Option<TrainingRefusal>,
}
record!(TrainingJob, "training_job");

/// Where reading a partition ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicEnd {
    /// Topic without prefix.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Offset behind the last record that counts.
    pub end: i64,
}

/// State of a run; the newest record of a run stands. The one record with offsets of internal topics: they are beside the
/// dataset's digest and enter none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRun {
    /// Run: it follows from the request's id.
    pub run_id: String,
    /// Id of the request.
    pub request_id: String,
    /// Model.
    pub model: String,
    /// `refused`, `admitted`, `running`, `finished` or `failed`.
    pub status: String,
    /// Where its request stands.
    pub position: Position,
    /// Learner; empty when the request was refused before it was known.
    pub algorithm: String,
    /// Complete parameters of the learner as JSON, sorted by name.
    pub params: Vec<NamedValue>,
    /// Seed of every random choice.
    pub seed: i64,
    /// Version that the model is compared with.
    pub base_version: Option<String>,
    /// Tags of the version that comes of it, sorted by name.
    pub tags: Vec<NamedValue>,
    /// A name that runs which belong together share.
    pub group: Option<String>,
    /// Contract whose columns the model reads; empty when refused.
    pub contract_digest: String,
    /// Ends of the topics that the dataset was taken from, sorted.
    pub offsets: Vec<TopicEnd>,
    /// The rows that it learned from.
    pub dataset: Option<Dataset>,
    /// SHA-256 of the recipe's canonical JSON, hex.
    pub recipe_digest: Option<String>,
    /// Iterations done.
    pub iteration: i32,
    /// Iterations at most; 0 before it runs.
    pub iterations: i32,
    /// The trained model, when it is finished.
    pub artefact: Option<Artefact>,
    /// On the validation fold, sorted by name.
    pub metrics: Vec<Metric>,
    /// Reason code when it was refused or failed; empty otherwise.
    pub reason: String,
    /// What is wrong and the way out; empty otherwise.
    pub detail: String,
    /// Sealed benchmark that the model is evaluated on, `NAME@VERSION`.
    #[serde(default)]
    pub benchmark: Option<String>,
    /// Evaluation that the finished run asked for.
    #[serde(default)]
    pub evaluation_id: Option<String>,
}
record!(TrainingRun, "training_run");

impl TrainingRun {
    /// Not admitted: nothing was done.
    pub const REFUSED: &'static str = "refused";
    /// Its dataset is fixed.
    pub const ADMITTED: &'static str = "admitted";
    /// It learns.
    pub const RUNNING: &'static str = "running";
    /// Its model is in the store.
    pub const FINISHED: &'static str = "finished";
    /// It ended without a model.
    pub const FAILED: &'static str = "failed";

    /// Nothing more comes of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), Self::REFUSED | Self::FINISHED | Self::FAILED)
    }
}

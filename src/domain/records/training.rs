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
    /// A search over parameters as JSON; its form is [`Search`](crate::ml::search::Search)'s.
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
    /// Run to be ended. Such a record asks for nothing else: its texts are empty.
    pub cancel: Option<String>,
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

/// The answer of an external trainer, on `training.answers`: a model, or why there will be none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingAnswer {
    /// Run that it answers.
    pub run_id: String,
    /// The model in the store; a size of 0 and an empty media type say nothing.
    pub artefact: Option<Artefact>,
    /// Rows in the store with the scores that the trainer's own runtime gave them; required of a model in ONNX.
    pub conformance: Option<Artefact>,
    /// What the trainer measured itself, values as JSON, sorted by name: never published as ours.
    pub metrics: Vec<NamedValue>,
    /// Why there will be no model. Such an answer has nothing else.
    pub error: Option<String>,
}
record!(TrainingAnswer, "training_answer");

/// An entry of `training.jobs`: exactly one of request, refusal, cancellation, trial and answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingJob {
    /// Run: it follows from the request's id.
    pub run_id: String,
    /// Where the request, cancellation or answer stands.
    pub position: Position,
    /// The request, well formed.
    pub request: Option<TrainingRequest>,
    /// Or what is wrong with it.
    pub refusal: Option<TrainingRefusal>,
    /// The run is to be ended.
    pub cancel: bool,
    /// What came of one of its trials.
    pub trial: Option<TrialResult>,
    /// What an external trainer answered, well formed.
    #[serde(default)]
    pub answer: Option<TrainingAnswer>,
    /// When the record at that position was appended, milliseconds since 1970 UTC; 0 when it is not known.
    #[serde(default)]
    pub requested_at: i64,
}
record!(TrainingJob, "training_job");

/// One trial of a search, to be computed: on `training.trials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingTrial {
    /// Run.
    pub run_id: String,
    /// Where the run's request stands.
    pub position: Position,
    /// Number of the trial, from 0.
    pub number: i32,
    /// Rung, from 0.
    pub rung: i32,
    /// The run was cancelled: nobody waits for the result, and nothing below is set.
    pub cancel: bool,
    /// Model.
    pub model: String,
    /// Contract whose columns are learned from.
    pub contract_digest: String,
    /// RFC 6962 root over the sorted hashes of the rows, hex.
    pub dataset_digest: String,
    /// Ends of the topics that the dataset is taken from, sorted.
    pub offsets: Vec<TopicEnd>,
    /// Match filters of benchmarks whose rows are not learned from.
    pub sealed: Vec<Artefact>,
    /// Learner.
    pub algorithm: String,
    /// Complete parameters as JSON, sorted by name.
    pub parameters: Vec<NamedValue>,
    /// Seed of every random choice: that of the run, so that all trials are judged by the same rows.
    pub seed: i64,
}
record!(TrainingTrial, "training_trial");

/// What came of a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Number of the trial.
    pub number: i32,
    /// Its rung.
    pub rung: i32,
    /// Model.
    pub model: String,
    /// Learner.
    pub algorithm: String,
    /// Complete parameters as JSON, sorted by name.
    pub parameters: Vec<NamedValue>,
    /// Seed.
    pub seed: i64,
    /// Iterations that the learner kept.
    pub iterations: i32,
    /// Loss on the validation fold: the shortest decimal that names the 64-bit number; none when it failed.
    pub loss: Option<String>,
    /// On the validation fold, sorted by name.
    pub metrics: Vec<Metric>,
    /// Reason code when it failed; empty otherwise.
    pub reason: String,
    /// What is wrong; empty otherwise.
    pub detail: String,
}

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
    /// `refused`, `admitted`, `running`, `waiting`, `finished`, `failed` or `cancelled`.
    pub status: String,
    /// Where its request stands.
    pub position: Position,
    /// Learner; empty when the request was refused before it was known.
    pub algorithm: String,
    /// Complete parameters of the learner as JSON, sorted by name; once a search is over, those that won.
    pub params: Vec<NamedValue>,
    /// The search over parameters, JSON; none without one.
    pub search: Option<String>,
    /// Trial that won the search.
    pub trial: Option<i32>,
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
    /// Iterations done, of all trials; of an external trainer, answers that were looked at.
    pub iteration: i32,
    /// Iterations at most; 0 before it runs.
    pub iterations: i32,
    /// The trained model, when it is finished.
    pub artefact: Option<Artefact>,
    /// On the validation fold, sorted by name.
    pub metrics: Vec<Metric>,
    /// Reason code when it was refused, failed or cancelled, or while it waits, why the last answer cannot be used; empty otherwise.
    pub reason: String,
    /// What is wrong and the way out; empty otherwise.
    pub detail: String,
    /// Sealed benchmark that the model is evaluated on, `NAME@VERSION`.
    #[serde(default)]
    pub benchmark: Option<String>,
    /// Evaluation that the finished run asked for.
    #[serde(default)]
    pub evaluation_id: Option<String>,
    /// What an external trainer needs: a description that names all else by its digest; none for own learners.
    #[serde(default)]
    pub job: Option<Artefact>,
    /// When its request was appended, milliseconds since 1970 UTC; 0 when it is not known.
    #[serde(default)]
    pub requested_at: i64,
}
record!(TrainingRun, "training_run");

impl TrainingRun {
    /// Not admitted: nothing was done.
    pub const REFUSED: &'static str = "refused";
    /// Its dataset is fixed.
    pub const ADMITTED: &'static str = "admitted";
    /// It learns.
    pub const RUNNING: &'static str = "running";
    /// Its job is in the store, and waits for the answer of an external trainer.
    pub const WAITING: &'static str = "waiting";
    /// Its model is in the store.
    pub const FINISHED: &'static str = "finished";
    /// It ended without a model.
    pub const FAILED: &'static str = "failed";
    /// It was ended before its end.
    pub const CANCELLED: &'static str = "cancelled";

    /// Nothing more comes of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), Self::REFUSED | Self::FINISHED | Self::FAILED | Self::CANCELLED)
    }
}

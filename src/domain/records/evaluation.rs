//! Records of evaluation: what is asked and acknowledged, and what may be told of the outcome.

use serde::{Deserialize, Serialize};

use super::{Artefact, Dataset, Position, Record};

/// An entry of `evaluation.requests`: exactly one of the optional fields is set. Attempts are counted in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationRequest {
    /// Attempts family: also the record's key.
    pub family: String,
    /// Evaluation: it follows from model, benchmark and recipe.
    pub evaluation_id: String,
    /// A candidate to be evaluated.
    pub attempt: Option<EvaluationAttempt>,
    /// The preregistration stands under a signed tree head: only this releases scoring.
    pub acknowledgement: Option<EvaluationAcknowledgement>,
    /// The attempt is over: written by the stage itself, so that its place among the requests is a fact of the log.
    pub outcome: Option<EvaluationOutcome>,
    /// Whoever asked took the request back, by the record at this place: an attempt that is not scored yet is over.
    #[serde(default)]
    pub cancel: Option<Position>,
}
record!(EvaluationRequest, "evaluation_request");

/// A candidate to be evaluated, with all that is fixed before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationAttempt {
    /// Id of the request behind it.
    pub request_id: String,
    /// Where that request stands.
    pub position: Position,
    /// Run that made the candidate.
    pub run_id: String,
    /// Model.
    pub model: String,
    /// Benchmark, `NAME@VERSION`.
    pub benchmark: String,
    /// Contract whose section `evaluation` says how they are compared.
    pub contract_digest: String,
    /// The candidate's artefact.
    pub candidate: Artefact,
    /// The baseline's artefact.
    pub baseline: Artefact,
    /// The baseline's version.
    pub baseline_version: String,
    /// Digest of the candidate's recipe, hex.
    pub recipe_digest: String,
    /// Rows that the candidate was trained on.
    pub dataset: Option<Dataset>,
    /// When that request was appended, milliseconds since 1970 UTC; 0 when it is not known.
    #[serde(default)]
    pub requested_at: i64,
}

/// The preregistration stands under a signed tree head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationAcknowledgement {
    /// Leaf hash, hex.
    pub leaf: String,
    /// Index of the leaf.
    pub index: i64,
    /// The signed note.
    pub checkpoint: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationOutcome {
    /// Number of the attempt in its family, from 1.
    pub attempt: i64,
    /// `accepted`, `refused` or `failed`.
    pub status: String,
}

/// What may be told of an evaluation, on `evaluations`. The fields that tell by how much are set only when it accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Evaluation.
    pub evaluation_id: String,
    /// Id of the request behind it.
    pub request_id: String,
    /// Run that made the candidate.
    pub run_id: String,
    /// Model.
    pub model: String,
    /// Benchmark, `NAME@VERSION`.
    pub benchmark: String,
    /// Attempts family.
    pub family: String,
    /// SHA-256 of the candidate's artefact, hex.
    pub candidate: String,
    /// SHA-256 of the baseline's artefact, hex.
    pub baseline: String,
    /// The baseline's version.
    pub baseline_version: String,
    /// Digest of the candidate's recipe, hex.
    pub recipe_digest: String,
    /// Number of the attempt in its family, from 1; 0 for a request that was not counted and spent nothing.
    pub attempt: i64,
    /// Level that this attempt may spend, decimal string, rounded down; 0 when it was not counted.
    pub alpha: String,
    /// `accepted`, `refused`, `failed` or `cancelled`.
    pub status: String,
    /// Reason codes, sorted; empty when it is accepted.
    pub reasons: Vec<String>,
    /// Why it was not scored, or the way out; empty otherwise.
    pub detail: String,
    /// Primary metric; empty when it was not counted.
    pub metric: String,
    /// Score on the Ladder in the metric's unit, decimal string; none before anything was scored or without a minimum effect.
    pub ladder_score: Option<String>,
    /// Baseline's value; only when accepted.
    pub baseline_value: Option<String>,
    /// Candidate's value; only when accepted.
    pub candidate_value: Option<String>,
    /// Candidate less baseline in the metric's direction; only when accepted.
    pub delta: Option<String>,
    /// Lower bound of delta at the spent level; only when accepted.
    pub lower: Option<String>,
    /// One-sided p, rounded up; only when accepted.
    pub p_value: Option<String>,
    /// Comparison by stratum; only when accepted.
    pub strata: Vec<EvaluationStratum>,
    /// Leaf hash of the preregistration, hex; empty when it was not counted.
    pub preregistration: String,
    /// SHA-256 of the statement, hex; empty when it was not counted.
    pub statement: String,
}
record!(Evaluation, "evaluation");

/// The paired comparison within one stratum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationStratum {
    /// Name of the stratum, frozen at sealing.
    pub name: String,
    /// Rows in the stratum.
    pub rows: i64,
    /// Candidate less baseline, decimal string; positive is better.
    pub delta: String,
    /// One-sided lower bound of delta at 5 %.
    pub lower: String,
    /// Non-inferiority margin.
    pub margin: String,
    /// Whether the lower bound is above the negative margin.
    pub passed: bool,
}

impl Evaluation {
    /// The candidate is shown to be better.
    pub const ACCEPTED: &'static str = "accepted";
    /// It is not, or the request was no attempt.
    pub const REFUSED: &'static str = "refused";
    /// It could not be scored.
    pub const FAILED: &'static str = "failed";
    /// Whoever asked took the request back before it was scored.
    pub const CANCELLED: &'static str = "cancelled";

    /// Whether an attempt of this status is over without a score, so that there are no figures of it anywhere.
    #[must_use]
    pub fn is_unscored(status: &str) -> bool {
        matches!(status, Self::FAILED | Self::CANCELLED)
    }

    /// The evaluation of a recipe on a benchmark of its model: it follows from them alone, so that asking again meets the first.
    #[must_use]
    pub fn id(model: &str, benchmark: &str, recipe_digest: &str) -> String {
        use sha2::{Digest, Sha256};
        let mut hasher = Sha256::new();
        hasher.update(b"hokusai evaluation\0");
        for part in [model, benchmark, recipe_digest] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        data_encoding::HEXLOWER.encode(hash.first_chunk::<16>().map_or(&hash[..], |half| half))
    }
}

//! The figures of an evaluation, as its statement has or binds them: integers, and decimal strings of integers.

use serde::{Deserialize, Serialize};

use super::jcs::{self, JcsError};
use super::samples::SampledRows;

/// All figures of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FullRecord {
    /// How far scores are from shares; of a binary classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationFacts>,
    /// Rows by who was right; of a classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<RightCounts>,
    /// Lower bound of the primary metric's improvement at the attempt's level; left out without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_ppm: Option<String>,
    /// Every metric of the task that is defined on the rows, in a fixed order.
    pub metrics: Vec<MetricFacts>,
    /// Rows.
    pub n: i64,
    /// Reason codes, each with what it concerns; empty when it is accepted.
    pub reasons: Vec<ReasonFacts>,
    /// What binds each row's label and scores; left out in records that were made before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<SampledRows>,
    /// The primary metric by stratum.
    pub strata: Vec<StratumFacts>,
}

/// Rows by who was right, and what follows from them beside the deciding test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RightCounts {
    /// The baseline alone was right: n₁₀.
    pub baseline_only: i64,
    /// The baseline was right: b.
    pub baseline_right: i64,
    /// The candidate alone was right: n₀₁.
    pub candidate_only: i64,
    /// The candidate was right: c.
    pub candidate_right: i64,
    /// Two-sided mid-p of the discordant rows (Fagerland et al. 2013).
    pub mid_p_e9: String,
    /// 95 % interval of the difference of both shares by Newcombe's method for paired proportions (1998, method 10), rounded outwards.
    pub newcombe_ppm: [String; 2],
}

/// Calibration of both models' scores over bins of equal width (Naeini et al. 2015).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CalibrationFacts {
    /// The baseline's.
    pub baseline: CalibrationErrors,
    /// Bins.
    pub bins: i64,
    /// The candidate's.
    pub candidate: CalibrationErrors,
}

/// How far a model's scores are from the shares of label 1, rounded up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CalibrationErrors {
    /// Mean over rows of their bin's distance.
    pub expected_ppm: String,
    /// The largest distance of a bin.
    pub largest_ppm: String,
}

/// A metric of both models, rounded against the candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MetricFacts {
    /// The baseline's value in basis points, as a contract on a chain takes it; of metrics in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_bps: Option<i64>,
    /// The baseline's value.
    pub baseline_ppm: String,
    /// The candidate's value in basis points; of metrics in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate_bps: Option<i64>,
    /// The candidate's value.
    pub candidate_ppm: String,
    /// The improvement, positive = better.
    pub delta_ppm: String,
    /// 95 % bootstrap interval of the improvement, rounded outwards; left out when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ppm: Option<[String; 2]>,
    /// Lower bound of the improvement, one-sided at 5 %; left out when it is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_ppm: Option<String>,
    /// The metric.
    pub name: String,
    /// One-sided p of the deciding method; left out when it is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_e9: Option<String>,
    /// One-sided p by exchanging rows; left out when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permutation_p_e9: Option<String>,
}

/// A reason with what it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonFacts {
    /// The code.
    pub code: String,
    /// Guardrail or stratum; empty for the attempt itself.
    pub subject: String,
}

/// The primary metric in one stratum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StratumFacts {
    /// The improvement, rounded down.
    pub delta_ppm: String,
    /// Its lower bound, one-sided at 5 %.
    pub lower_ppm: String,
    /// By how much it may be worse.
    pub margin_ppm: String,
    /// The stratum.
    pub name: String,
    /// Its rows.
    pub n: i64,
    /// Holm's adjusted p of "better in this stratum"; left out when it is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_e9: Option<String>,
    /// Whether it is shown not to be worse.
    pub passed: bool,
}

impl FullRecord {
    /// The record as canonical JSON.
    ///
    /// # Errors
    /// A text without canonical form; these have one.
    pub fn to_canonical(&self) -> Result<Vec<u8>, JcsError> {
        jcs::to_canonical(self)
    }
}

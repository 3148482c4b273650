//! Whether a version may be promoted: a total, pure function of recorded facts. What is missing is a refusal with its
//! reason, never a pass.

use crate::attest::trust::{EvaluationRule, Policy};
use crate::domain::records::{ModelVersion, VersionEvaluation};

use super::version::Stage;

/// What a promotion is decided on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// Stage that the version is to come into.
    pub stage: Stage,
    /// The version.
    pub candidate: &'a ModelVersion,
    /// The version that stands there now.
    pub head: Option<&'a ModelVersion>,
    /// A key that may do so asks to let it pass in any case.
    pub waived: bool,
}

/// Why the policy does not let a version through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It has not been in staging.
    NotStaged,
    /// It was never evaluated.
    NotEvaluated,
    /// It was evaluated, but not on the benchmark that counts.
    OtherBenchmark,
    /// No evaluation accepted it.
    EvaluationRefused,
    /// It was accepted against another version than the one in production now.
    StaleBaseline,
}

impl Reason {
    /// Every reason, in the order of the checks.
    pub const ALL: [Self; 5] =
        [Self::NotStaged, Self::NotEvaluated, Self::OtherBenchmark, Self::EvaluationRefused, Self::StaleBaseline];

    /// The code as it stands in audit records and statements.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotStaged => "NOT_STAGED",
            Self::NotEvaluated => "NOT_EVALUATED",
            Self::OtherBenchmark => "OTHER_BENCHMARK",
            Self::EvaluationRefused => "EVALUATION_REFUSED",
            Self::StaleBaseline => "STALE_BASELINE",
        }
    }

    /// What it means, and the way out.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NotStaged => "the policy wants a version to have been in staging; help: promote it to staging first",
            Self::NotEvaluated => {
                "the policy wants an accepted evaluation and there is none; help: evaluate it, or let it pass with --override and the role model.override"
            }
            Self::OtherBenchmark => {
                "it was not evaluated on the benchmark that the policy names; help: evaluate it there"
            }
            Self::EvaluationRefused => "no evaluation accepted it; help: an improvement has to be shown, or overridden",
            Self::StaleBaseline => {
                "it was accepted against another version than the one in production; help: evaluate it against that one"
            }
        }
    }
}

/// Why a version passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Nothing is asked for that stage.
    NotRequired,
    /// This evaluation accepted it.
    AcceptedEvaluation(String),
    /// It passes in spite of the reason.
    Override(Reason),
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotRequired => f.write_str("NOT_REQUIRED"),
            Self::AcceptedEvaluation(id) => write!(f, "ACCEPTED_EVALUATION {id}"),
            Self::Override(reason) => write!(f, "OVERRIDE {}", reason.code()),
        }
    }
}

/// Decides on a promotion.
///
/// # Errors
/// Why the policy does not let it through.
pub fn decide(facts: &Facts<'_>) -> Result<Rule, Reason> {
    match (lets_through(facts), facts.waived) {
        (Err(reason), true) => Ok(Rule::Override(reason)),
        (decided, _) => decided,
    }
}

fn lets_through(facts: &Facts<'_>) -> Result<Rule, Reason> {
    let Facts { policy, candidate, head, .. } = facts;
    if facts.stage != Stage::Production {
        return Ok(Rule::NotRequired);
    }
    if policy.staging_first && !candidate.stages.iter().any(|stage| stage == Stage::Staging.name()) {
        return Err(Reason::NotStaged);
    }
    if policy.evaluation == EvaluationRule::None {
        return Ok(Rule::NotRequired);
    }
    if candidate.evaluations.is_empty() {
        return Err(Reason::NotEvaluated);
    }
    let counts = |e: &&VersionEvaluation| policy.benchmark.as_ref().is_none_or(|benchmark| *benchmark == e.benchmark);
    let on_benchmark: Vec<_> = candidate.evaluations.iter().filter(counts).collect();
    if on_benchmark.is_empty() {
        return Err(Reason::OtherBenchmark);
    }
    let accepted: Vec<_> = on_benchmark.into_iter().filter(|e| e.status == "accepted").collect();
    if accepted.is_empty() {
        return Err(Reason::EvaluationRefused);
    }
    let against_head = |e: &&&VersionEvaluation| head.is_none_or(|head| head.artefact.digest == e.baseline);
    match accepted.iter().rfind(against_head) {
        Some(evaluation) => Ok(Rule::AcceptedEvaluation(evaluation.evaluation_id.clone())),
        None => Err(Reason::StaleBaseline),
    }
}

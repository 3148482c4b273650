//! The decision on an attempt: a total function. Every input that is missing is a refusal with its reason, never a pass.

use super::compare::{CompareError, Comparison};
use super::metric::publish;
use super::multiplicity::attempt_level;
use super::strata::{NonInferiority, non_inferior};

/// Acceptances after which a benchmark version retires.
pub const ACCEPTANCES: u64 = 5;

/// Why an attempt was refused. The codes are published, so they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No preregistration under a signed checkpoint.
    NotPreregistered,
    /// The attempt's position in its family is unknown.
    AttemptUnknown,
    /// The family's α is missing or outside (0, 1).
    AlphaInvalid,
    /// The benchmark version is retired, or has had its acceptances.
    BenchmarkRetired,
    /// The primary metric was not computed.
    PrimaryMissing,
    /// A metric is 0/0 on the rows or does not fit the task.
    MetricUndefined,
    /// A class or the rows on which the models differ are too few for the method.
    BenchmarkTooSmall,
    /// No minimum effect was declared.
    MinimumEffectMissing,
    /// p is not below the attempt's level.
    NotSignificant,
    /// The lower bound is not above 0.
    LowerBoundNotPositive,
    /// The improvement is below the minimum effect.
    BelowMinimumEffect,
    /// A guardrail or stratum has no margin.
    MarginMissing,
    /// A declared guardrail was not observed.
    GuardrailMissing,
    /// A guardrail is not shown to be non-inferior.
    GuardrailInferior,
    /// A frozen stratum was not observed.
    StratumMissing,
    /// A stratum has too few rows of a class.
    StratumTooSmall,
    /// A stratum is not shown to be non-inferior.
    StratumInferior,
}

impl Reason {
    /// The code in records and attestations.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotPreregistered => "NOT_PREREGISTERED",
            Self::AttemptUnknown => "ATTEMPT_UNKNOWN",
            Self::AlphaInvalid => "ALPHA_INVALID",
            Self::BenchmarkRetired => "BENCHMARK_RETIRED",
            Self::PrimaryMissing => "PRIMARY_MISSING",
            Self::MetricUndefined => "METRIC_UNDEFINED",
            Self::BenchmarkTooSmall => "BENCHMARK_TOO_SMALL",
            Self::MinimumEffectMissing => "MINIMUM_EFFECT_MISSING",
            Self::NotSignificant => "NOT_SIGNIFICANT",
            Self::LowerBoundNotPositive => "LOWER_BOUND_NOT_POSITIVE",
            Self::BelowMinimumEffect => "BELOW_MINIMUM_EFFECT",
            Self::MarginMissing => "MARGIN_MISSING",
            Self::GuardrailMissing => "GUARDRAIL_MISSING",
            Self::GuardrailInferior => "GUARDRAIL_INFERIOR",
            Self::StratumMissing => "STRATUM_MISSING",
            Self::StratumTooSmall => "STRATUM_TOO_SMALL",
            Self::StratumInferior => "STRATUM_INFERIOR",
        }
    }
}

/// A result of a comparison, if there is one.
pub type Observed<'a> = Option<&'a Result<Comparison, CompareError>>;

/// What must not get worse.
#[derive(Debug, Clone, Copy)]
pub struct Requirement<'a> {
    /// Name of the guardrail or stratum.
    pub name: &'a str,
    /// Its margin in millionths of the metric's unit.
    pub margin: Option<i64>,
    /// What was observed.
    pub observed: Observed<'a>,
}

/// All that a decision looks at. Whatever is `None` refuses.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Whether a preregistration of this attempt stands under a signed checkpoint.
    pub preregistered: bool,
    /// Position of the attempt in its family, from 1.
    pub attempt: Option<u64>,
    /// What all attempts of the family may spend together.
    pub alpha: Option<f64>,
    /// Whether the benchmark's owner retired this version.
    pub retired: bool,
    /// Acceptances of this version so far.
    pub acceptances: u64,
    /// The primary metric.
    pub primary: Observed<'a>,
    /// The least improvement worth accepting, in millionths of the metric's unit.
    pub minimum_effect: Option<i64>,
    /// Declared guardrails.
    pub guardrails: &'a [Requirement<'a>],
    /// Frozen strata.
    pub strata: &'a [Requirement<'a>],
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The level of this attempt.
    pub level: Option<f64>,
    /// One-sided p-value of the primary metric.
    pub p_value: Option<f64>,
    /// Lower bound of its improvement at confidence 1 − level.
    pub lower_bound: Option<f64>,
    /// Why the attempt is refused, each with the guardrail or stratum that it concerns (empty: the attempt itself). Sorted;
    /// empty if it is accepted.
    pub reasons: Vec<(Reason, String)>,
}

impl Decision {
    /// Whether the candidate is accepted.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The reason codes alone, each once.
    #[must_use]
    pub fn codes(&self) -> Vec<&'static str> {
        let mut codes: Vec<&'static str> = self.reasons.iter().map(|(reason, _)| reason.code()).collect();
        codes.dedup();
        codes
    }
}

/// Decides: accepted iff p < α_t, the same method's lower bound at 1 − α_t is above 0, the improvement as published is at least
/// the minimum effect, every guardrail and every stratum is shown to be non-inferior, and nothing of this is missing.
#[must_use]
pub fn decide(inputs: &Inputs<'_>) -> Decision {
    let mut decision = Decision { level: None, p_value: None, lower_bound: None, reasons: Vec::new() };
    let mut refuse = |reason, subject: &str| decision.reasons.push((reason, subject.to_owned()));
    if !inputs.preregistered {
        refuse(Reason::NotPreregistered, "");
    }
    if inputs.retired || inputs.acceptances >= ACCEPTANCES {
        refuse(Reason::BenchmarkRetired, "");
    }
    let attempt = inputs.attempt.filter(|attempt| *attempt > 0);
    if attempt.is_none() {
        refuse(Reason::AttemptUnknown, "");
    }
    let alpha = inputs.alpha.filter(|alpha| *alpha > 0.0 && *alpha < 1.0);
    if alpha.is_none() {
        refuse(Reason::AlphaInvalid, "");
    }
    decision.level = attempt.zip(alpha).and_then(|(attempt, alpha)| attempt_level(alpha, attempt));
    primary(inputs, &mut decision);
    requirements(inputs.guardrails, false, &mut decision);
    requirements(inputs.strata, true, &mut decision);
    decision.reasons.sort();
    decision
}

fn primary(inputs: &Inputs<'_>, decision: &mut Decision) {
    let mut refuse = |reason| decision.reasons.push((reason, String::new()));
    if inputs.minimum_effect.is_none() {
        refuse(Reason::MinimumEffectMissing);
    }
    let comparison = match inputs.primary {
        None => return refuse(Reason::PrimaryMissing),
        Some(Err(_)) => return refuse(Reason::MetricUndefined),
        Some(Ok(comparison)) => comparison,
    };
    if comparison.too_small() {
        refuse(Reason::BenchmarkTooSmall);
    }
    let p_value = comparison.evidence.p_value();
    decision.p_value = Some(p_value);
    if let Some(level) = decision.level {
        let lower_bound = comparison.evidence.lower_bound(level);
        decision.lower_bound = Some(lower_bound);
        // Comparisons are written so that what is no number refuses.
        if p_value.is_nan() || p_value >= level {
            refuse(Reason::NotSignificant);
        }
        if lower_bound.is_nan() || lower_bound <= 0.0 {
            refuse(Reason::LowerBoundNotPositive);
        }
    }
    if let Some(minimum) = inputs.minimum_effect
        && published_delta(comparison).is_none_or(|delta| delta < i128::from(minimum))
    {
        refuse(Reason::BelowMinimumEffect);
    }
}

/// The improvement in millionths, rounded against the candidate.
fn published_delta(comparison: &Comparison) -> Option<i128> {
    let (baseline, candidate) = (comparison.baseline, comparison.candidate);
    publish(&comparison.metric, comparison.higher_is_better, baseline, candidate).map(|published| published.delta_micro)
}

fn requirements(all: &[Requirement<'_>], strata: bool, decision: &mut Decision) {
    for requirement in all {
        let either = |stratum, guardrail| if strata { stratum } else { guardrail };
        let reason = match (requirement.margin.filter(|margin| *margin >= 0), requirement.observed) {
            (None, _) => Some(Reason::MarginMissing),
            (_, None) => Some(either(Reason::StratumMissing, Reason::GuardrailMissing)),
            (_, Some(Err(_))) => Some(Reason::MetricUndefined),
            (Some(margin), Some(Ok(comparison))) => match non_inferior(comparison, margin as f64 / 1e6) {
                NonInferiority::Shown => None,
                NonInferiority::NotShown => Some(either(Reason::StratumInferior, Reason::GuardrailInferior)),
                NonInferiority::TooSmall => Some(either(Reason::StratumTooSmall, Reason::BenchmarkTooSmall)),
            },
        };
        decision.reasons.extend(reason.map(|reason| (reason, requirement.name.to_owned())));
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;

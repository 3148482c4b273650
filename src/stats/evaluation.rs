//! An evaluation from start to end: both models' scores on the sealed rows in, the full record and what may be told out.

use super::bootstrap::{Interval, REPLICATES, bootstrap};
use super::calibration::{Calibration, calibration};
use super::compare::{CompareError, Comparison, compare, metrics_of};
use super::decision::{Decision, Inputs, Requirement, decide};
use super::ladder::Ladder;
use super::metric::{Metric, Published, publish};
use super::multiplicity::holm;
use super::permutation::paired_permutation;
use super::random::Seed;
use super::rows::{Model, PairedRows};

/// Bins of the reliability table.
const CALIBRATION_BINS: u32 = 10;

/// What was declared before any score was seen: the contract's `evaluation` section and the seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The metric that decides.
    pub primary: Metric,
    /// The least improvement worth accepting, in millionths.
    pub minimum_effect: Option<i64>,
    /// Metrics that must not get worse, with their margins in millionths.
    pub guardrails: Vec<(Metric, Option<i64>)>,
    /// Names of the frozen strata, by their number in the rows, and the primary metric's margin in them.
    pub strata: Vec<(String, Option<i64>)>,
}

/// Where the attempt stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Whether its preregistration stands under a signed checkpoint.
    pub preregistered: bool,
    /// Its position in the family, from 1.
    pub attempt: Option<u64>,
    /// What the family may spend.
    pub alpha: Option<f64>,
    /// Whether the benchmark's version is retired.
    pub retired: bool,
    /// Acceptances of the version so far.
    pub acceptances: u64,
}

/// One metric with everything that is reported of it.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricReport {
    /// Values and evidence.
    pub comparison: Comparison,
    /// Both values and the improvement as they are published.
    pub published: Option<Published>,
    /// 95 % bootstrap interval of the improvement.
    pub interval: Option<Interval>,
    /// One-sided p-value by exchanging rows.
    pub permutation_p: Option<f64>,
}

/// The full record. It is for the benchmark's owner until the version is retired; others see [`Told`].
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Every metric of the task, or why it has none.
    pub metrics: Vec<(Metric, Result<MetricReport, CompareError>)>,
    /// The primary metric by stratum; `None` for a stratum without rows.
    pub strata: Vec<(String, Option<Result<Comparison, CompareError>>)>,
    /// Holm's adjusted p-values of "better in this stratum", for claims of improvement by stratum; in the order of `strata`, without
    /// those that have no comparison.
    pub stratum_claims: Vec<(String, f64)>,
    /// The candidate's reliability, of a binary task.
    pub calibration: Option<Calibration>,
    /// The decision.
    pub decision: Decision,
}

/// Resampling: how much, from which seed, on how many threads. Threads change nothing but the time.
#[derive(Debug, Clone, Copy)]
pub struct Resampling {
    /// Replicates and draws.
    pub replicates: u64,
    /// The declared seed.
    pub seed: [u8; 32],
    /// Threads.
    pub threads: usize,
}

impl Resampling {
    /// The usual number of replicates on one thread.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { replicates: REPLICATES, seed, threads: 1 }
    }
}

/// Evaluates an attempt.
#[must_use]
pub fn evaluate(rows: &PairedRows, plan: &Plan, standing: &Standing, resampling: &Resampling) -> Evaluation {
    let mut wanted = metrics_of(rows.frame().task);
    wanted.extend((0..rows.custom().len()).map(Metric::Custom));
    let compared: Vec<_> = wanted.iter().map(|metric| compare(rows, metric)).collect();
    let strata: Vec<_> = (0..plan.strata.len() as u32)
        .map(|level| rows.stratum(level).map(|own| compare(&own, &plan.primary)))
        .collect();
    // Rows of a stratum that nobody declared would be protected by none.
    let undeclared = !plan.strata.is_empty() && rows.has_strata_beyond(plan.strata.len());
    let decision = decision((rows, plan), standing, &wanted, &compared, &strata, undeclared);
    let seed = |purpose| Seed::derive(purpose, &resampling.seed);
    let defined: Vec<Metric> =
        wanted.iter().zip(&compared).filter(|(_, own)| own.is_ok()).map(|(metric, _)| metric.clone()).collect();
    let intervals = bootstrap(rows, &defined, 0.025, resampling.replicates, seed("bootstrap"), resampling.threads)
        .unwrap_or_default();
    let mut intervals = intervals.into_iter();
    let mut report = |comparison: Comparison| MetricReport {
        published: publish(&comparison.metric, comparison.higher_is_better, comparison.baseline, comparison.candidate),
        interval: intervals.next().flatten(),
        permutation_p: paired_permutation(
            rows,
            &comparison.metric,
            resampling.replicates,
            seed("permutation"),
            resampling.threads,
        )
        .unwrap_or(None),
        comparison,
    };
    Evaluation {
        metrics: wanted.into_iter().zip(compared.into_iter().map(|own| own.map(&mut report))).collect(),
        stratum_claims: stratum_claims(plan, &strata),
        strata: plan.strata.iter().map(|(name, _)| name.clone()).zip(strata).collect(),
        calibration: calibration(rows, Model::Candidate, CALIBRATION_BINS),
        decision,
    }
}

fn stratum_claims(plan: &Plan, strata: &[Option<Compared>]) -> Vec<(String, f64)> {
    let compared = plan.strata.iter().zip(strata).filter_map(|((name, _), own)| {
        let comparison = own.as_ref()?.as_ref().ok()?;
        Some((name.clone(), comparison.evidence.p_value()))
    });
    let (names, p): (Vec<String>, Vec<f64>) = compared.unzip();
    names.into_iter().zip(holm(&p)).collect()
}

type Compared = Result<Comparison, CompareError>;

fn decision(
    (rows, plan): (&PairedRows, &Plan),
    standing: &Standing,
    wanted: &[Metric],
    compared: &[Compared],
    strata: &[Option<Compared>],
    undeclared: bool,
) -> Decision {
    let find = |metric: &Metric| wanted.iter().position(|own| own == metric).and_then(|at| compared.get(at));
    let guardrails: Vec<Requirement<'_>> = plan
        .guardrails
        .iter()
        .map(|(metric, margin)| Requirement { name: metric.name_in(rows), margin: *margin, observed: find(metric) })
        .collect();
    let strata: Vec<Requirement<'_>> = plan
        .strata
        .iter()
        .zip(strata)
        .map(|((name, margin), own)| Requirement { name, margin: *margin, observed: own.as_ref() })
        .chain(undeclared.then_some(Requirement { name: "undeclared", margin: Some(0), observed: None }))
        .collect();
    decide(&Inputs {
        preregistered: standing.preregistered,
        attempt: standing.attempt,
        alpha: standing.alpha,
        retired: standing.retired,
        acceptances: standing.acceptances,
        primary: find(&plan.primary),
        minimum_effect: plan.minimum_effect,
        guardrails: &guardrails,
        strata: &strata,
    })
}

/// What anybody may learn of a refused attempt while the benchmark's version is in use. Levels that shrink cover candidates that
/// were fixed beforehand, not candidates that climb on published scores; so neither scores nor p-values are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Position in the family.
    pub attempt: Option<u64>,
    /// The level that it spent.
    pub level: Option<f64>,
    /// Reason codes, without the strata they concern.
    pub codes: Vec<&'static str>,
    /// The Ladder's score of the family, in millionths of a loss (a metric where more is better counts negative).
    pub ladder: Option<i64>,
}

impl Evaluation {
    /// The candidate's primary value as a loss in millionths, for the Ladder; `None` if it is undefined.
    #[must_use]
    pub fn ladder_loss(&self, plan: &Plan) -> Option<i64> {
        let (_, report) = self.metrics.iter().find(|(metric, _)| *metric == plan.primary)?;
        let comparison = &report.as_ref().ok()?.comparison;
        // Rounded against the candidate: more is better rounds down, a loss rounds up.
        let value = comparison.candidate.rounded(1_000_000, !comparison.higher_is_better)?;
        i64::try_from(if comparison.higher_is_better { -value } else { value }).ok()
    }

    /// Moves the family's Ladder and says what may be told of the attempt if it is refused.
    pub fn told(&self, plan: &Plan, standing: &Standing, ladder: &mut Ladder) -> Told {
        let released = self.ladder_loss(plan).map(|loss| ladder.release(loss)).or(ladder.best());
        Told { attempt: standing.attempt, level: self.decision.level, codes: self.decision.codes(), ladder: released }
    }
}

#[cfg(test)]
#[path = "evaluation_tests.rs"]
mod tests;

//! From figures to what is told: the full record, and the little that a refused attempt may tell.

use super::plan::{Case, level_string};
use super::score::Scored;
use crate::attest::figures::{
    CalibrationErrors, CalibrationFacts, FullRecord, MetricFacts, ReasonFacts, RightCounts, StratumFacts,
};
use crate::domain::records::{Evaluation as Record, EvaluationStratum};
use crate::stats::calibration::calibration;
use crate::stats::compare::Comparison;
use crate::stats::counts::PairedCounts;
use crate::stats::evaluation::{Evaluation, MetricReport, Plan};
use crate::stats::fixed::{ceil_real, floor_real, micro_string, p_value_string};
use crate::stats::metric::{Metric, publish};
use crate::stats::proportion::{PairedTable, newcombe_paired};
use crate::stats::rows::{Model, PairedRows, Task};
use crate::stats::strata::{NON_INFERIORITY_LEVEL, NonInferiority, non_inferior};

fn ppm(value: f64) -> Option<String> {
    floor_real(value, 1e6).map(|number| number.to_string())
}

/// 0.031250000 is 31250000.
fn e9(p: f64) -> Option<String> {
    let digits = p_value_string(p)?.replace('.', "");
    let trimmed = digits.trim_start_matches('0');
    Some(if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() })
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// All figures of a comparison; `levels` are the rows and plans by column of strata.
#[must_use]
pub fn full_record(done: &Evaluation, levels: &[(&PairedRows, &Plan)]) -> FullRecord {
    let rows = levels.first().map(|(rows, _)| *rows);
    let name = |metric: &Metric| rows.map_or_else(|| metric.name().to_owned(), |rows| metric.name_in(rows).to_owned());
    let metrics = done.metrics.iter().filter_map(|(metric, own)| metric_facts(name(metric), own.as_ref().ok()?));
    let strata = levels.iter().flat_map(|(rows, plan)| {
        (0..).zip(&plan.strata).map(move |(level, (name, margin))| (rows, level, name, *margin))
    });
    FullRecord {
        calibration: rows.and_then(calibrated),
        counts: rows.filter(|rows| rows.frame().task != Task::Regression).and_then(right),
        lower_ppm: done.decision.lower_bound.and_then(ppm),
        metrics: metrics.collect(),
        n: rows.map_or(0, |rows| count(rows.len())),
        reasons: (done.decision.reasons.iter())
            .map(|(reason, subject)| ReasonFacts { code: reason.code().to_owned(), subject: subject.clone() })
            .collect(),
        samples: None,
        strata: strata.filter_map(|(rows, level, name, margin)| stratum(done, rows, level, name, margin)).collect(),
    }
}

/// Bins of the calibration that is recorded.
const BINS: u32 = 10;
/// On each side of a two-sided interval of 95 %.
const TAIL: f64 = 0.025;

fn calibrated(rows: &PairedRows) -> Option<CalibrationFacts> {
    let errors = |model| {
        let own = calibration(rows, model, BINS)?;
        let ppm = |error| Some(ceil_real(error, 1e6)?.to_string());
        Some(CalibrationErrors { expected_ppm: ppm(own.expected_error)?, largest_ppm: ppm(own.largest_error)? })
    };
    Some(CalibrationFacts {
        baseline: errors(Model::Baseline)?,
        bins: i64::from(BINS),
        candidate: errors(Model::Candidate)?,
    })
}

fn right(rows: &PairedRows) -> Option<RightCounts> {
    let table = PairedCounts::of(rows).right();
    let (lower, upper) = newcombe_paired(table, TAIL);
    let PairedTable { both, candidate_only, baseline_only, .. } = table;
    let long = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Some(RightCounts {
        baseline_only: long(baseline_only),
        baseline_right: long(both + baseline_only),
        candidate_only: long(candidate_only),
        candidate_right: long(both + candidate_only),
        mid_p_e9: e9(table.discordance().p_mid())?,
        newcombe_ppm: [floor_real(lower, 1e6)?.to_string(), ceil_real(upper, 1e6)?.to_string()],
    })
}

fn metric_facts(name: String, report: &MetricReport) -> Option<MetricFacts> {
    let Comparison { metric, higher_is_better, baseline, candidate, evidence, .. } = &report.comparison;
    let published = publish(metric, *higher_is_better, *baseline, *candidate)?;
    let places = |decimal: &str| {
        let digits: String = decimal.chars().filter(|c| c.is_ascii_digit()).collect();
        let sign = if decimal.starts_with('-') { "-" } else { "" };
        let trimmed = digits.trim_start_matches('0');
        if trimmed.is_empty() { "0".to_owned() } else { format!("{sign}{trimmed}") }
    };
    let interval = report.interval.and_then(|interval| {
        Some([floor_real(interval.lower, 1e6)?.to_string(), ceil_real(interval.upper, 1e6)?.to_string()])
    });
    Some(MetricFacts {
        baseline_bps: published.baseline_bps,
        baseline_ppm: places(&published.baseline),
        candidate_bps: published.candidate_bps,
        candidate_ppm: places(&published.candidate),
        delta_ppm: published.delta_micro.to_string(),
        interval_ppm: interval,
        lower_ppm: ppm(evidence.lower_bound(NON_INFERIORITY_LEVEL)),
        name,
        p_e9: e9(evidence.p_value()),
        permutation_p_e9: report.permutation_p.and_then(e9),
    })
}

fn stratum(done: &Evaluation, rows: &PairedRows, level: u32, name: &str, margin: Option<i64>) -> Option<StratumFacts> {
    let (_, own) = done.strata.iter().find(|(known, _)| known == name)?;
    let comparison = own.as_ref()?.as_ref().ok()?;
    let margin = margin?;
    let claim = done.stratum_claims.iter().find(|(known, _)| known == name);
    Some(StratumFacts {
        delta_ppm: ppm(comparison.evidence.delta())?,
        lower_ppm: ppm(comparison.evidence.non_inferiority_bound(NON_INFERIORITY_LEVEL))?,
        margin_ppm: margin.to_string(),
        name: name.to_owned(),
        n: rows.stratum(level).map_or(0, |own| count(own.len())),
        p_e9: claim.and_then(|(_, p)| e9(*p)),
        passed: non_inferior(comparison, margin as f64 / 1e6) == NonInferiority::Shown,
    })
}

/// What stands in the record of every counted attempt, however it ended.
#[must_use]
pub fn counted(case: &Case) -> Record {
    Record {
        evaluation_id: case.evaluation_id.clone(),
        request_id: case.attempt.request_id.clone(),
        run_id: case.attempt.run_id.clone(),
        model: case.attempt.model.clone(),
        benchmark: case.attempt.benchmark.clone(),
        family: case.family.clone(),
        candidate: case.attempt.candidate.digest.clone(),
        baseline: case.attempt.baseline.digest.clone(),
        baseline_version: case.attempt.baseline_version.clone(),
        recipe_digest: case.attempt.recipe_digest.clone(),
        attempt: i64::try_from(case.number).unwrap_or(i64::MAX),
        alpha: level_string(case.number),
        metric: case.metric.clone(),
        preregistration: case.preregistration.clone(),
        ..Record::default()
    }
}

/// Tells the outcome of a scored attempt: of an accepted one everything, of a refused one its reasons alone.
#[must_use]
pub fn told(record: Record, scored: &Scored) -> Record {
    let status = if scored.accepted { Record::ACCEPTED } else { Record::REFUSED };
    let record = Record { status: status.to_owned(), reasons: scored.reasons.clone(), ..record };
    if !scored.accepted {
        return record;
    }
    let primary = scored.record.metrics.iter().find(|metric| metric.name == record.metric);
    let decimal = |ppm: &String| ppm.parse().ok().map(micro_string);
    let stratum = |facts: &StratumFacts| {
        let decimal = |ppm: &String| decimal(ppm).unwrap_or_default();
        EvaluationStratum {
            name: facts.name.clone(),
            rows: facts.n,
            delta: decimal(&facts.delta_ppm),
            lower: decimal(&facts.lower_ppm),
            margin: decimal(&facts.margin_ppm),
            passed: facts.passed,
        }
    };
    Record {
        baseline_value: primary.and_then(|own| decimal(&own.baseline_ppm)),
        candidate_value: primary.and_then(|own| decimal(&own.candidate_ppm)),
        delta: primary.and_then(|own| decimal(&own.delta_ppm)),
        lower: scored.record.lower_ppm.as_ref().and_then(decimal),
        p_value: scored.p_value.clone(),
        strata: scored.record.strata.iter().map(stratum).collect(),
        ..record
    }
}

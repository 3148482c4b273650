//! The paired comparison that decides, per metric: evidence with its one-sided p-value and its lower bound.
//!
//! | metric | method |
//! |---|---|
//! | accuracy, micro F1 | exact binomial on discordant rows (McNemar) |
//! | AUROC | DeLong in midrank form |
//! | log-loss, Brier, MAE, MSE, custom | paired t of per-row differences |
//! | F1, precision, recall, macro F1, RMSE, R² | delta method on paired influence values |
//!
//! Every delta is an improvement: positive = candidate better, whatever the metric's direction.

use super::auc::{Placements, delong};
use super::counts::PairedCounts;
use super::distribution::{
    clopper_pearson_lower, normal_upper, normal_upper_quantile, student_upper, student_upper_quantile,
};
use super::exact::{Moments, Overflow, on_grid};
use super::fixed::Ratio;
use super::metric::{Metric, Value, row_values};
use super::proportion::{Discordance, tango_lower};
use super::rows::{Model, PairedRows, Task};
use crate::math;
use thiserror::Error;

/// Rows that a class or the discordant cells need where a method counts on them.
pub const SMALLEST_CELL: u64 = 50;

/// Bits of the largest influence value on its grid.
const INFLUENCE_BITS: u32 = 50;

/// Why a metric has no comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CompareError {
    /// The metric is not defined for the model's task, or no such custom metric is there.
    #[error("the metric does not fit the task; help: declare a metric of this task")]
    DoesNotFit,
    /// The metric is 0/0 on these rows: a class without rows, a class that is never predicted, labels that are all equal.
    #[error("the metric is undefined on these rows; help: seal rows of every class")]
    Undefined,
    /// Values beyond the exact sums.
    #[error(transparent)]
    Overflow(#[from] Overflow),
}

/// What is known about the improvement, by the metric's own method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evidence {
    /// Discordant rows, exactly binomial if both models are alike.
    Binomial {
        /// Who was right alone.
        discordance: Discordance,
        /// All rows.
        rows: u64,
    },
    /// A mean of per-row differences.
    Student {
        /// The improvement.
        delta: f64,
        /// Its standard error.
        error: f64,
        /// Degrees of freedom.
        freedom: f64,
    },
    /// An asymptotically normal difference.
    Normal {
        /// The improvement.
        delta: f64,
        /// Its standard error.
        error: f64,
    },
}

impl Evidence {
    /// One-sided p-value of "the candidate is not better". Zero variance gives 1: no evidence is no proof.
    #[must_use]
    pub fn p_value(self) -> f64 {
        match self {
            Self::Binomial { discordance, .. } => discordance.p_candidate_better(),
            Self::Student { error, .. } | Self::Normal { error, .. } if error <= 0.0 => 1.0,
            Self::Student { delta, error, freedom } => student_upper(delta / error, freedom),
            Self::Normal { delta, error } => normal_upper(delta / error),
        }
    }

    /// The improvement's lower bound at one-sided confidence 1 − `alpha`, by the same method as the p-value, so that it is above
    /// 0 exactly when p < `alpha`. With zero variance it is not above 0.
    #[must_use]
    pub fn lower_bound(self, alpha: f64) -> f64 {
        match self {
            Self::Binomial { discordance, rows } => {
                let total = discordance.baseline_only + discordance.candidate_only;
                if total == 0 {
                    return 0.0;
                }
                let share = clopper_pearson_lower(discordance.candidate_only, total, alpha);
                (2.0 * share - 1.0) * total as f64 / rows as f64
            }
            Self::Student { delta, error, .. } | Self::Normal { delta, error } if error <= 0.0 => delta.min(0.0),
            Self::Student { delta, error, freedom } => delta - student_upper_quantile(alpha, freedom) * error,
            Self::Normal { delta, error } => delta - normal_upper_quantile(alpha) * error,
        }
    }

    /// The improvement's lower bound at one-sided confidence 1 − `alpha` where it is held against a margin below 0. The exact test of
    /// [`lower_bound`](Self::lower_bound) takes the share of discordant rows as known, which is right at 0 alone: away from it the score
    /// bound (Tango 1998) stands.
    #[must_use]
    pub fn non_inferiority_bound(self, alpha: f64) -> f64 {
        match self {
            Self::Binomial { discordance, rows } => tango_lower(discordance, rows, alpha),
            Self::Student { .. } | Self::Normal { .. } => self.lower_bound(alpha),
        }
    }

    /// The estimated improvement.
    #[must_use]
    pub fn delta(self) -> f64 {
        match self {
            Self::Binomial { discordance, rows } => {
                (discordance.candidate_only as f64 - discordance.baseline_only as f64) / rows as f64
            }
            Self::Student { delta, .. } | Self::Normal { delta, .. } => delta,
        }
    }

    /// Its standard error.
    #[must_use]
    pub fn standard_error(self) -> f64 {
        match self {
            Self::Binomial { discordance, rows } => {
                let (base, cand) = (discordance.baseline_only as f64, discordance.candidate_only as f64);
                let rows = rows as f64;
                math::sqrt((base + cand - (cand - base) * (cand - base) / rows).max(0.0)) / rows
            }
            Self::Student { error, .. } | Self::Normal { error, .. } => error,
        }
    }
}

/// One metric of both models on the same rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The metric.
    pub metric: Metric,
    /// Whether more of it is better.
    pub higher_is_better: bool,
    /// Rows compared.
    pub rows: u64,
    /// The baseline's value.
    pub baseline: Value,
    /// The candidate's value.
    pub candidate: Value,
    /// What is known about the improvement.
    pub evidence: Evidence,
    /// Rows of the smallest class, where the method needs classes.
    pub smallest_class: Option<u64>,
    /// Rows on which the models differ, where the method needs them.
    pub discordant: Option<u64>,
}

impl Comparison {
    /// Whether a class, or the rows on which the models differ, are too few for the method. Models that differ nowhere are not
    /// too few: they are equal, and p is 1.
    #[must_use]
    pub fn too_small(&self) -> bool {
        self.smallest_class.is_some_and(|rows| rows < SMALLEST_CELL)
            || self.discordant.is_some_and(|rows| rows > 0 && rows < SMALLEST_CELL)
    }
}

/// Compares both models by one metric.
///
/// # Errors
/// See [`CompareError`].
pub fn compare(rows: &PairedRows, metric: &Metric) -> Result<Comparison, CompareError> {
    let known = !matches!(metric, Metric::Custom(position) if *position >= rows.custom().len());
    if !metric.fits(rows.frame().task) || !known {
        return Err(CompareError::DoesNotFit);
    }
    match metric {
        Metric::Accuracy | Metric::F1Micro => accuracy(rows, metric),
        Metric::Auroc => area(rows),
        Metric::F1 | Metric::F1Macro | Metric::Precision | Metric::Recall => of_counts(rows, metric),
        Metric::Rmse | Metric::R2 => of_squares(rows, metric),
        Metric::LogLoss | Metric::Brier | Metric::Mae | Metric::Mse | Metric::Custom(_) => means(rows, metric),
    }
}

fn comparison(rows: &PairedRows, metric: &Metric, values: (Value, Value), evidence: Evidence) -> Comparison {
    Comparison {
        metric: metric.clone(),
        higher_is_better: metric.higher_is_better(rows),
        rows: rows.len() as u64,
        baseline: values.0,
        candidate: values.1,
        evidence,
        smallest_class: None,
        discordant: None,
    }
}

fn accuracy(rows: &PairedRows, metric: &Metric) -> Result<Comparison, CompareError> {
    let counts = PairedCounts::of(rows);
    let value = |model| counts.counts(model).value(metric).ok_or(CompareError::Undefined);
    let discordance = counts.right().discordance();
    let evidence = Evidence::Binomial { discordance, rows: rows.len() as u64 };
    Ok(comparison(rows, metric, (value(Model::Baseline)?, value(Model::Candidate)?), evidence))
}

fn area(rows: &PairedRows) -> Result<Comparison, CompareError> {
    let placements = |model| Placements::of(rows.labels(), rows.column(model));
    let test = delong(&placements(Model::Baseline), &placements(Model::Candidate))?.ok_or(CompareError::Undefined)?;
    let evidence = Evidence::Normal { delta: test.delta, error: math::sqrt(test.variance) };
    Ok(Comparison {
        smallest_class: rows.class_counts().into_iter().min(),
        discordant: Some(test.discordant),
        ..comparison(rows, &Metric::Auroc, (Value::Exact(test.baseline), Value::Exact(test.candidate)), evidence)
    })
}

fn of_counts(rows: &PairedRows, metric: &Metric) -> Result<Comparison, CompareError> {
    let counts = PairedCounts::of(rows);
    let value = |model| counts.counts(model).value(metric).ok_or(CompareError::Undefined);
    let (baseline, candidate) = (value(Model::Baseline)?, value(Model::Candidate)?);
    let error = math::sqrt(counts.delta_variance(metric));
    let evidence = Evidence::Normal { delta: candidate.to_f64() - baseline.to_f64(), error };
    // Precision is a share of the rows that a model picks: a model that picks a few sure ones has no variance to show.
    let picked = [Model::Baseline, Model::Candidate].map(|model| counts.counts(model).predicted.get(1).copied());
    let picked = picked.into_iter().flatten().filter(|_| *metric == Metric::Precision);
    Ok(Comparison {
        smallest_class: rows.class_counts().into_iter().chain(picked).min(),
        discordant: Some(counts.discordant()),
        ..comparison(rows, metric, (baseline, candidate), evidence)
    })
}

/// Per-row improvements of a metric that is a mean of rows, in quanta, and the quanta per unit.
pub(super) fn improvements(rows: &PairedRows, metric: &Metric) -> Option<(Vec<i128>, i128)> {
    let (base, cand) = (row_values(rows, metric, Model::Baseline)?, row_values(rows, metric, Model::Candidate)?);
    let sign = if metric.higher_is_better(rows) { 1 } else { -1 };
    let values = base.values.iter().zip(&cand.values).map(|(base, cand)| sign * (cand - base)).collect();
    Some((values, base.per_unit))
}

fn mean_of(rows: &PairedRows, metric: &Metric, model: Model) -> Result<Value, CompareError> {
    let own = row_values(rows, metric, model).ok_or(CompareError::DoesNotFit)?;
    let moments = Moments::of(own.values.iter().copied())?;
    let ratio = Ratio::new(moments.sum(), own.per_unit.saturating_mul(i128::from(moments.count())));
    ratio.map(Value::Exact).ok_or(CompareError::Undefined)
}

fn means(rows: &PairedRows, metric: &Metric) -> Result<Comparison, CompareError> {
    let (values, per_unit) = improvements(rows, metric).ok_or(CompareError::DoesNotFit)?;
    let moments = Moments::of(values)?;
    let rows_count = moments.count() as f64;
    if moments.count() < 2 {
        return Err(CompareError::Undefined);
    }
    let evidence = Evidence::Student {
        delta: moments.mean() / per_unit as f64,
        error: math::sqrt(moments.variance() / rows_count) / per_unit as f64,
        freedom: rows_count - 1.0,
    };
    let values = (mean_of(rows, metric, Model::Baseline)?, mean_of(rows, metric, Model::Candidate)?);
    Ok(Comparison { discordant: Some(moments.nonzero()), ..comparison(rows, metric, values, evidence) })
}

/// Exact sums behind RMSE and R².
struct Squares {
    rows: f64,
    baseline: f64,
    candidate: f64,
    label_mean: f64,
    label_variance: f64,
}

impl Squares {
    fn of(rows: &PairedRows) -> Result<Self, CompareError> {
        let error = |model| mean_of(rows, &Metric::Mse, model).map(Value::to_f64);
        let unit = rows.frame().unit as f64;
        let labels = Moments::of(rows.labels().iter().map(|label| i128::from(*label)))?;
        let count = labels.count() as f64;
        Ok(Self {
            rows: count,
            baseline: error(Model::Baseline)?,
            candidate: error(Model::Candidate)?,
            label_mean: labels.mean() / unit,
            label_variance: labels.scatter().to_f64() / count / count / unit / unit,
        })
    }

    /// Both values and the improvement.
    fn values(&self, metric: &Metric) -> Option<(f64, f64, f64)> {
        if *metric == Metric::Rmse {
            let (base, cand) = (math::sqrt(self.baseline), math::sqrt(self.candidate));
            return (base > 0.0 && cand > 0.0).then_some((base, cand, base - cand));
        }
        let explained = |error: f64| 1.0 - error / self.label_variance;
        let delta = (self.baseline - self.candidate) / self.label_variance;
        (self.label_variance > 0.0).then(|| (explained(self.baseline), explained(self.candidate), delta))
    }

    /// The paired influence of one row on the improvement.
    fn influence(&self, metric: &Metric, label: f64, baseline: f64, candidate: f64) -> f64 {
        if *metric == Metric::Rmse {
            let part = |own: f64, mean: f64| (own - mean) / (2.0 * math::sqrt(mean));
            return part(baseline, self.baseline) - part(candidate, self.candidate);
        }
        let gained = self.baseline - self.candidate;
        let spread = (label - self.label_mean) * (label - self.label_mean);
        let ratio = gained / self.label_variance;
        ((baseline - candidate - gained) - ratio * (spread - self.label_variance)) / self.label_variance
    }
}

fn of_squares(rows: &PairedRows, metric: &Metric) -> Result<Comparison, CompareError> {
    let squares = Squares::of(rows)?;
    let (baseline, candidate, delta) = squares.values(metric).ok_or(CompareError::Undefined)?;
    let unit = rows.frame().unit as f64;
    let square = |label: i64, score: i64| {
        let error = (score - label) as f64 / unit;
        error * error
    };
    let columns = rows.labels().iter().zip(rows.column(Model::Baseline).iter().zip(rows.column(Model::Candidate)));
    let influence: Vec<f64> = columns
        .clone()
        .map(|(label, (base, cand))| {
            squares.influence(metric, *label as f64 / unit, square(*label, *base), square(*label, *cand))
        })
        .collect();
    let differing = columns.filter(|(label, (base, cand))| (*base - *label).abs() != (*cand - *label).abs()).count();
    let variance = if differing == 0 {
        0.0
    } else {
        let grid = on_grid(&influence, INFLUENCE_BITS).ok_or(CompareError::Undefined)?;
        Moments::of(grid.values.iter().map(|v| i128::from(*v)))?.variance() * grid.quantum * grid.quantum
    };
    let evidence = Evidence::Normal { delta, error: math::sqrt(variance / squares.rows) };
    Ok(Comparison {
        discordant: Some(differing as u64),
        ..comparison(rows, metric, (Value::Real(baseline), Value::Real(candidate)), evidence)
    })
}

/// The improvements by several metrics.
///
/// # Errors
/// See [`CompareError`].
pub fn deltas(rows: &PairedRows, metrics: &[Metric]) -> Result<Vec<f64>, CompareError> {
    metrics.iter().map(|metric| compare(rows, metric).map(|comparison| comparison.evidence.delta())).collect()
}

/// Metrics that are reported for a task beside the declared ones.
#[must_use]
pub fn metrics_of(task: Task) -> Vec<Metric> {
    Metric::ALL.into_iter().filter(|metric| metric.fits(task)).collect()
}

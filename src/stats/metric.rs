//! Metrics: their direction, their per-row values, and what is published of them.

use super::fixed::{Ratio, ceil_real, floor_real, micro_string};
use super::rows::{Model, PairedRows, Task};
use crate::math;

/// Quanta per unit of a per-row loss: log-losses are multiples of 10⁻¹².
pub const FINE: i128 = 1_000_000_000_000;

/// A metric of a model on labelled rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Share of rows whose predicted class is right.
    Accuracy,
    /// Area under the receiver operating characteristic; ties count one half.
    Auroc,
    /// Harmonic mean of precision and recall of class 1.
    F1,
    /// Mean of the classes' F1.
    F1Macro,
    /// F1 over all classes' counts: with one label per row, the accuracy.
    F1Micro,
    /// Share of predicted 1 that are 1.
    Precision,
    /// Share of 1 that are predicted 1.
    Recall,
    /// Mean of −ln(probability of the true class).
    LogLoss,
    /// Mean squared distance between probability and label.
    Brier,
    /// Mean absolute error.
    Mae,
    /// Mean squared error.
    Mse,
    /// Root of the mean squared error.
    Rmse,
    /// Share of the labels' variance that is explained.
    R2,
    /// The mean of a declared custom metric, by its position.
    Custom(usize),
}

impl Metric {
    /// Every metric but custom ones.
    pub const ALL: [Self; 13] = [
        Self::Accuracy,
        Self::Auroc,
        Self::F1,
        Self::F1Macro,
        Self::F1Micro,
        Self::Precision,
        Self::Recall,
        Self::LogLoss,
        Self::Brier,
        Self::Mae,
        Self::Mse,
        Self::Rmse,
        Self::R2,
    ];

    /// The name in contracts and records; `custom` for custom ones.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Auroc => "auroc",
            Self::F1 => "f1",
            Self::F1Macro => "f1_macro",
            Self::F1Micro => "f1_micro",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::LogLoss => "log_loss",
            Self::Brier => "brier",
            Self::Mae => "mae",
            Self::Mse => "mse",
            Self::Rmse => "rmse",
            Self::R2 => "r2",
            Self::Custom(_) => "custom",
        }
    }

    /// The name in records of these rows, where custom metrics have the declared one.
    #[must_use]
    pub fn name_in<'a>(&'a self, rows: &'a PairedRows) -> &'a str {
        match self {
            Self::Custom(position) => rows.custom().get(*position).map_or("custom", |custom| &custom.name),
            known => known.name(),
        }
    }

    /// The built-in metric of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether more is better.
    #[must_use]
    pub fn higher_is_better(&self, rows: &PairedRows) -> bool {
        match self {
            Self::LogLoss | Self::Brier | Self::Mae | Self::Mse | Self::Rmse => false,
            Self::Custom(position) => rows.custom().get(*position).is_some_and(|custom| custom.higher_is_better),
            _ => true,
        }
    }

    /// Whether every value lies in [0, 1], so that basis points may be published and minted.
    #[must_use]
    pub fn in_unit_interval(&self) -> bool {
        !matches!(self, Self::LogLoss | Self::Mae | Self::Mse | Self::Rmse | Self::R2 | Self::Custom(_))
    }

    /// Whether the metric is defined for the task.
    #[must_use]
    pub fn fits(&self, task: Task) -> bool {
        match self {
            Self::Accuracy | Self::F1Macro | Self::F1Micro | Self::LogLoss => task != Task::Regression,
            Self::Auroc | Self::F1 | Self::Precision | Self::Recall | Self::Brier => task == Task::Binary,
            Self::Mae | Self::Mse | Self::Rmse | Self::R2 => task == Task::Regression,
            Self::Custom(_) => true,
        }
    }
}

/// The value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// An exact fraction.
    Exact(Ratio),
    /// A real number: roots and means of fractions.
    Real(f64),
}

impl Value {
    /// Nearest floating-point number.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Exact(ratio) => ratio.to_f64(),
            Self::Real(value) => value,
        }
    }

    /// In units of 1/`scale`, rounded towards minus infinity or plus infinity.
    #[must_use]
    pub fn rounded(self, scale: u32, up: bool) -> Option<i128> {
        match (self, up) {
            (Self::Exact(ratio), false) => ratio.floor(i128::from(scale)),
            (Self::Exact(ratio), true) => ratio.ceil(i128::from(scale)),
            (Self::Real(value), false) => floor_real(value, f64::from(scale)),
            (Self::Real(value), true) => ceil_real(value, f64::from(scale)),
        }
    }
}

/// What is published of both values, rounded against the candidate: where more is better, candidate down and baseline up;
/// of a loss the other way round. So the published delta never exceeds the true one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The baseline in basis points; only for metrics in [0, 1].
    pub baseline_bps: Option<i64>,
    /// The candidate in basis points; only for metrics in [0, 1].
    pub candidate_bps: Option<i64>,
    /// The baseline as a decimal string with six places.
    pub baseline: String,
    /// The candidate as a decimal string with six places.
    pub candidate: String,
    /// The improvement as a decimal string with six places, positive = better: the difference of the two strings.
    pub delta: String,
    /// The same in millionths.
    pub delta_micro: i128,
}

/// Rounds both values for publication; `None` if one does not fit.
#[must_use]
pub fn publish(metric: &Metric, higher_is_better: bool, baseline: Value, candidate: Value) -> Option<Published> {
    let bounded = metric.in_unit_interval();
    // Real values are rounded with a guard, which must not take a perfect baseline above 1.
    let inside = |value: i128, scale: u32| if bounded { value.clamp(0, i128::from(scale)) } else { value };
    let at = |scale| {
        let (base, cand) = (baseline.rounded(scale, higher_is_better)?, candidate.rounded(scale, !higher_is_better)?);
        Some((inside(base, scale), inside(cand, scale)))
    };
    let (base_ppm, cand_ppm) = at(1_000_000)?;
    let bps = if bounded { at(10_000) } else { None };
    let delta = if higher_is_better { cand_ppm - base_ppm } else { base_ppm - cand_ppm };
    Some(Published {
        baseline_bps: bps.and_then(|(base, _)| i64::try_from(base).ok()),
        candidate_bps: bps.and_then(|(_, cand)| i64::try_from(cand).ok()),
        baseline: micro_string(base_ppm),
        candidate: micro_string(cand_ppm),
        delta: micro_string(delta),
        delta_micro: delta,
    })
}

/// One value per row whose mean is the metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowValues {
    /// The values, in quanta.
    pub values: Vec<i128>,
    /// Quanta per unit.
    pub per_unit: i128,
}

/// The per-row values of metrics that are means of rows; `None` for the others.
#[must_use]
pub fn row_values(rows: &PairedRows, metric: &Metric, model: Model) -> Option<RowValues> {
    let unit = i128::from(rows.frame().unit);
    let pairs = || rows.labels().iter().zip(rows.column(model));
    let error = |label: &i64, score: &i64, one: i128| i128::from(*score) - i128::from(*label) * one;
    let (values, per_unit) = match metric {
        Metric::Accuracy | Metric::F1Micro => {
            let hits = rows.labels().iter().zip(rows.predicted(model)).map(|(y, h)| i128::from(*y == i64::from(h)));
            (hits.collect(), 1)
        }
        Metric::Brier => (pairs().map(|(y, p)| error(y, p, unit) * error(y, p, unit)).collect(), unit * unit),
        Metric::Mse => (pairs().map(|(y, p)| error(y, p, 1) * error(y, p, 1)).collect(), unit * unit),
        Metric::Mae => (pairs().map(|(y, p)| error(y, p, 1).abs()).collect(), unit),
        Metric::LogLoss => (log_losses(rows, model), FINE),
        Metric::Custom(position) => {
            let custom = rows.custom().get(*position)?;
            let column = if model == Model::Baseline { &custom.baseline } else { &custom.candidate };
            (column.iter().map(|value| i128::from(*value)).collect(), i128::from(super::fixed::MICRO))
        }
        _ => return None,
    };
    metric.fits(rows.frame().task).then_some(RowValues { values, per_unit })
}

/// −ln of the probability of the true class, in units of 10⁻¹². A probability of 0 counts as 2⁻⁵², as scikit-learn has it.
fn log_losses(rows: &PairedRows, model: Model) -> Vec<i128> {
    let unit = rows.frame().unit;
    let loss = |probability: i64| {
        if probability == 0 {
            return 36_043_653_389_117; // 52 ln 2
        }
        (-math::ln(probability as f64 / unit as f64) * FINE as f64).round_ties_even() as i128
    };
    (0..rows.len())
        .map(|row| {
            let label = rows.labels()[row];
            let scores = rows.scores(model, row);
            match rows.frame().task {
                Task::Binary => {
                    let score = scores.first().copied().unwrap_or(0);
                    loss(if label == 1 { score } else { unit - score })
                }
                _ => loss(usize::try_from(label).ok().and_then(|label| scores.get(label)).copied().unwrap_or(0)),
            }
        })
        .collect()
}

//! What a coalition's model is worth: the primary metric on the game's benchmark rows as an integer, and each row's part of it.
//!
//! Every coalition of a game has the same denominator and the same order of rows. More is always better: losses count negative.
//!
//! | metric | denominator | rows |
//! |---|---|---|
//! | accuracy, Brier, log-loss, MAE, MSE, declared ones | rows × quanta per unit | per-row values |
//! | AUROC | 2PN | placements, positives and negatives apart (DeLong) |
//! | F1, precision, recall, macro F1, RMSE, R² | 10¹² | influence values (delta method) |

use thiserror::Error;

use super::game::MAX_UTILITY;
use super::uncertainty::RowValues;
use crate::math;
use crate::stats::auc::Placements;
use crate::stats::counts::PairedCounts;
use crate::stats::exact::Overflow;
use crate::stats::fixed::quantise;
use crate::stats::metric::{Metric, row_values};
use crate::stats::rows::{CustomValues, Frame, Model, PairedRows, RowsError};

/// Denominator of metrics that are no mean of rows.
const PICO: i64 = 1_000_000_000_000;
/// Quanta per unit of an influence value.
const INFLUENCE: i64 = 1_000_000;
/// The sum of a mean metric under the first model stays below this many quanta, so that others may be a million times worse.
const HEADROOM: i128 = 1 << 40;

/// Why a model has no utility.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UtilityError {
    /// Labels or scores that cannot be compared. The text repeats no label: rows are sealed.
    #[error("labels or scores of the benchmark's rows lie outside what can be compared")]
    Rows,
    /// The metric is not defined on these rows, or for this task.
    #[error(
        "the metric is undefined on the game's benchmark rows; help: let the game use more of them (attribution.benchmarkRows)"
    )]
    Undefined,
    /// A value past 2^60 quanta.
    #[error(
        "the metric is more than a million times worse than without contributors; help: declare the label in a larger unit"
    )]
    Range,
}

impl From<RowsError> for UtilityError {
    fn from(_: RowsError) -> Self {
        Self::Rows
    }
}

impl From<Overflow> for UtilityError {
    fn from(_: Overflow) -> Self {
        Self::Range
    }
}

/// What a model says of the game's benchmark rows.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// Its scores, in quanta.
    pub scores: &'a [i64],
    /// Of a declared metric its value of each row in millionths, with the sign that makes more better; none of a built-in one.
    pub gains: Option<&'a [i64]>,
}

impl<'a, T: AsRef<[i64]> + ?Sized> From<&'a T> for Said<'a> {
    fn from(scores: &'a T) -> Self {
        Self { scores: scores.as_ref(), gains: None }
    }
}

/// The utility of one coalition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utility {
    /// Numerator over [`Measure::denominator`].
    pub numerator: i128,
    /// Values of rows, in quanta: of all, or of the positive ones and of the negative ones.
    pub groups: Vec<Vec<i64>>,
}

/// How models of a game are measured.
#[derive(Debug, Clone)]
pub struct Measure {
    metric: Metric,
    frame: Frame,
    labels: Vec<i64>,
    denominator: i128,
    /// By group: quanta per unit.
    per_unit: Vec<i128>,
    /// What per-row values of a mean are divided by.
    coarse: i128,
}

impl Measure {
    /// A metric on these labels. `first` are the scores of the model without contributors: they set how fine a mean is counted.
    ///
    /// # Errors
    /// The metric is undefined for this model.
    pub fn new<'a>(
        metric: &Metric,
        frame: Frame,
        labels: Vec<i64>,
        first: impl Into<Said<'a>>,
    ) -> Result<Self, UtilityError> {
        let first = first.into();
        // A game knows one metric: a declared one is the first.
        let metric = if matches!(metric, Metric::Custom(_)) { Metric::Custom(0) } else { metric.clone() };
        let mut measure = Self { metric: metric.clone(), frame, labels, denominator: 1, per_unit: vec![1], coarse: 1 };
        let rows = measure.rows(first)?;
        let count = rows.len() as i128;
        if let Some(own) = row_values(&rows, &metric, Model::Candidate) {
            let total: i128 = own.values.iter().map(|value| value.abs()).sum();
            // Powers of ten that divide the unit, so that the denominator stays an integer.
            while total / measure.coarse > HEADROOM && own.per_unit % (measure.coarse * 10) == 0 {
                measure.coarse *= 10;
            }
            measure.per_unit = vec![own.per_unit / measure.coarse];
            measure.denominator = own.per_unit / measure.coarse * count;
        } else if metric == Metric::Auroc {
            let placements = Placements::of(&measure.labels, first.scores);
            let (positives, negatives) = (placements.positive.len() as i128, placements.negative.len() as i128);
            measure.denominator = 2 * positives * negatives;
            measure.per_unit = vec![2 * negatives, 2 * positives];
        } else {
            measure.denominator = i128::from(PICO);
            measure.per_unit = vec![i128::from(INFLUENCE)];
        }
        if measure.denominator <= 0 {
            return Err(UtilityError::Undefined);
        }
        measure.of(first)?;
        Ok(measure)
    }

    /// What numerators are parts of.
    #[must_use]
    pub fn denominator(&self) -> i128 {
        self.denominator
    }

    /// How many rows each group has.
    #[must_use]
    pub fn groups(&self) -> Vec<usize> {
        if self.metric == Metric::Auroc {
            let positives = self.labels.iter().filter(|label| **label == 1).count();
            return vec![positives, self.labels.len() - positives];
        }
        vec![self.labels.len()]
    }

    /// Variance of each player's value that comes from the choice of benchmark rows; `gathered` by group.
    ///
    /// # Errors
    /// A sum that does not fit.
    pub fn variances(&self, gathered: &[RowValues<'_>]) -> Result<Vec<f64>, Overflow> {
        let mut all: Vec<f64> = Vec::new();
        for (values, per_unit) in gathered.iter().zip(&self.per_unit) {
            let own = values.variances(*per_unit)?;
            all.resize(own.len(), 0.0);
            all.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        Ok(all)
    }

    /// Rows whose `strata` say where each one stood.
    fn rows(&self, said: Said<'_>) -> Result<PairedRows, UtilityError> {
        let places = (0..u32::try_from(self.labels.len()).map_err(|_| UtilityError::Rows)?).collect();
        let (labels, scores) = (self.labels.clone(), said.scores.to_vec());
        let custom = |gains: &[i64]| CustomValues {
            name: "gain".to_owned(),
            higher_is_better: true,
            baseline: gains.to_vec(),
            candidate: gains.to_vec(),
        };
        let custom = said.gains.map(custom).into_iter().collect();
        Ok(PairedRows::with_extras(self.frame, labels, scores.clone(), scores, custom, places)?)
    }

    /// The utility of a model by its scores of the rows.
    ///
    /// # Errors
    /// Scores that cannot be compared, a metric that is undefined for them, a value out of range.
    pub fn of<'a>(&self, said: impl Into<Said<'a>>) -> Result<Utility, UtilityError> {
        let said = said.into();
        let rows = self.rows(said)?;
        let utility = if self.metric == Metric::Auroc {
            let Placements { positive, negative } = Placements::of(&self.labels, said.scores);
            Utility { numerator: positive.iter().map(|own| i128::from(*own)).sum(), groups: vec![positive, negative] }
        } else if let Some(own) = row_values(&rows, &self.metric, Model::Candidate) {
            let sign = if self.metric.higher_is_better(&rows) { 1 } else { -1 };
            let coarse = |value: &i128| i64::try_from(sign * (value / self.coarse)).map_err(|_| UtilityError::Range);
            let values = own.values.iter().map(coarse).collect::<Result<Vec<_>, _>>()?;
            let numerator = values.iter().map(|value| i128::from(*value)).sum();
            Utility { numerator, groups: vec![in_place(&rows, values)] }
        } else {
            self.smooth(&rows)?
        };
        if utility.numerator.abs() > MAX_UTILITY { Err(UtilityError::Range) } else { Ok(utility) }
    }

    /// Of a metric that is a smooth function of means.
    fn smooth(&self, rows: &PairedRows) -> Result<Utility, UtilityError> {
        let (value, influence) = match self.metric {
            Metric::Rmse | Metric::R2 => of_squares(rows, &self.metric),
            _ => of_counts(rows, &self.metric),
        }
        .ok_or(UtilityError::Undefined)?;
        let sign = if self.metric.higher_is_better(rows) { 1 } else { -1 };
        let fixed = |value: f64, unit| quantise(value, unit).map(|own| sign * own).map_err(|_| UtilityError::Range);
        let values = influence.into_iter().map(|own| fixed(own, INFLUENCE)).collect::<Result<Vec<_>, _>>()?;
        Ok(Utility { numerator: i128::from(fixed(value, PICO)?), groups: vec![in_place(rows, values)] })
    }
}

/// Values in the order that the rows came in.
fn in_place(rows: &PairedRows, values: Vec<i64>) -> Vec<i64> {
    let mut placed = vec![0; values.len()];
    for (place, value) in rows.strata().iter().zip(values) {
        if let Some(slot) = placed.get_mut(*place as usize) {
            *slot = value;
        }
    }
    placed
}

fn of_counts(rows: &PairedRows, metric: &Metric) -> Option<(f64, Vec<f64>)> {
    let counts = PairedCounts::of(rows).counts(Model::Candidate);
    let value = counts.value(metric)?.to_f64();
    let pairs = rows.labels().iter().zip(rows.predicted(Model::Candidate));
    let influence = |(label, predicted): (&i64, u16)| {
        counts.influence(metric, usize::try_from(*label).unwrap_or(usize::MAX), usize::from(predicted))
    };
    Some((value, pairs.map(influence).collect()))
}

fn of_squares(rows: &PairedRows, metric: &Metric) -> Option<(f64, Vec<f64>)> {
    let unit = rows.frame().unit as f64;
    let real = |quanta: &i64| *quanta as f64 / unit;
    let mean = |values: &[f64]| math::sum(values) / values.len() as f64;
    let pairs = rows.labels().iter().zip(rows.column(Model::Candidate));
    let squares: Vec<f64> = pairs.map(|(y, p)| (real(p) - real(y)) * (real(p) - real(y))).collect();
    let error = mean(&squares);
    if *metric == Metric::Rmse {
        let root = math::sqrt(error);
        return (root > 0.0).then(|| (root, squares.iter().map(|own| (own - error) / (2.0 * root)).collect()));
    }
    let labels: Vec<f64> = rows.labels().iter().map(real).collect();
    let centre = mean(&labels);
    let spread: Vec<f64> = labels.iter().map(|label| (label - centre) * (label - centre)).collect();
    let variance = mean(&spread);
    let ratio = error / variance;
    let influence = |(own, spread): (&f64, &f64)| -((own - error) - ratio * (spread - variance)) / variance;
    (variance > 0.0).then(|| (1.0 - ratio, squares.iter().zip(&spread).map(influence).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::attribution::game::Plan;
    use crate::stats::compare::compare;
    use crate::stats::random::Seed;
    use crate::stats::rows::Task;

    fn scores(seed: &str, rows: usize, noise: u32) -> (Vec<i64>, Vec<i64>) {
        let seed = Seed::derive(seed, b"");
        let mut stream = seed.stream(0);
        (0..rows)
            .map(|_| {
                let label = i64::from(stream.below(3) == 0);
                (label, i64::from(stream.below(600_000)) + label * i64::from(stream.below(noise)))
            })
            .unzip()
    }

    /// One player whose coalition is the candidate: its value is the improvement, and its variance that of the paired test.
    #[test]
    fn the_value_of_a_single_player_is_the_delta_of_the_paired_test_and_its_variance_is_the_tests() {
        for (task, metrics) in [
            (Task::Binary, vec!["accuracy", "auroc", "f1", "f1_macro", "precision", "recall", "log_loss", "brier"]),
            (Task::Regression, vec!["mae", "mse", "rmse", "r2"]),
        ] {
            let (labels, base) = scores("u", 500, 100_000);
            let (_, candidate) = scores("u", 500, 400_000);
            let frame = Frame::new(task);
            let labels: Vec<i64> =
                labels.into_iter().map(|l| if task == Task::Regression { l * 900_000 } else { l }).collect();
            let paired = PairedRows::new(frame, labels.clone(), base.clone(), candidate.clone()).unwrap();
            for name in metrics {
                let metric = Metric::from_name(name).unwrap();
                let measure = Measure::new(&metric, frame, labels.clone(), &base).unwrap();
                let (nobody, all) = (measure.of(&base).unwrap(), measure.of(&candidate).unwrap());
                let plan = Plan::new(1, 2, Seed::derive("p", b"")).unwrap();
                let mut gathered: Vec<RowValues<'_>> =
                    measure.groups().iter().map(|rows| RowValues::new(&plan, *rows)).collect();
                for (coalition, utility) in [(0, &nobody), (1, &all)] {
                    gathered.iter_mut().zip(&utility.groups).for_each(|(own, rows)| own.add(coalition, rows));
                }
                let known = compare(&paired, &metric).unwrap().evidence;
                let value = (all.numerator - nobody.numerator) as f64 / measure.denominator() as f64;
                assert!((value - known.delta()).abs() < 1e-8, "{name}: {value} {known:?}");
                let error = math::sqrt(measure.variances(&gathered).unwrap()[0]);
                // McNemar's error is over n, the sample variance over n − 1.
                assert!((error / known.standard_error() - 1.0).abs() < 3e-3, "{name}: {error} {known:?}");
            }
        }
    }

    #[test]
    fn rows_keep_their_places_whatever_the_model_and_a_loss_counts_negative() {
        let frame = Frame::new(Task::Binary);
        let measure = Measure::new(&Metric::Brier, frame, vec![1, 0, 1], &[500_000; 3]).unwrap();
        let utility = measure.of(&[1_000_000, 1_000_000, 500_000]).unwrap();
        let unit = i64::try_from(measure.denominator() / 3).unwrap();
        assert_eq!(utility.groups, [[0, -unit, -unit / 4]]);
        assert_eq!(utility.numerator, -i128::from(unit + unit / 4));
    }

    #[test]
    fn a_metric_without_both_classes_scores_of_another_length_and_a_hopeless_model_are_refused() {
        let frame = Frame::new(Task::Binary);
        let one_class = Measure::new(&Metric::Auroc, frame, vec![1, 1], &[1, 2]);
        assert_eq!(one_class.unwrap_err(), UtilityError::Undefined);
        let measure = Measure::new(&Metric::Auroc, frame, vec![1, 0], &[1, 2]).unwrap();
        assert_eq!(measure.of(&[1]).unwrap_err(), UtilityError::Rows);
        assert_eq!(measure.of(&[1, -2]).unwrap_err(), UtilityError::Rows);
        let frame = Frame::new(Task::Regression);
        let measure = Measure::new(&Metric::Mse, frame, vec![0; 4], &[1; 4]).unwrap();
        assert_eq!(measure.of(&[90_000_000_000_000; 4]).unwrap_err(), UtilityError::Range);
    }
}

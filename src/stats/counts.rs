//! Counts of predicted classes, and the metrics that are made of them.

use super::fixed::Ratio;
use super::metric::{Metric, Value};
use super::proportion::PairedTable;
use super::rows::{Model, PairedRows};
use crate::math;
use std::collections::BTreeMap;

/// For each class: rows of the class, rows predicted as it, and both at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// All rows.
    pub rows: u64,
    /// Rows of each class.
    pub actual: Vec<u64>,
    /// Rows predicted as each class.
    pub predicted: Vec<u64>,
    /// Rows of each class that are predicted as it.
    pub correct: Vec<u64>,
}

impl Counts {
    /// Counts rows of (label, predicted class), each `weight` times. Classes from `classes` on are left out.
    #[must_use]
    pub fn of(classes: usize, rows: impl IntoIterator<Item = (usize, usize, u64)>) -> Self {
        let mut counts =
            Self { rows: 0, actual: vec![0; classes], predicted: vec![0; classes], correct: vec![0; classes] };
        for (label, predicted, weight) in rows {
            if label < classes && predicted < classes {
                counts.rows += weight;
                counts.actual[label] += weight;
                counts.predicted[predicted] += weight;
                counts.correct[label] += if label == predicted { weight } else { 0 };
            }
        }
        counts
    }

    /// Accuracy, F1 (of class 1, macro, micro), precision or recall; `None` for other metrics and for 0/0.
    ///
    /// The macro mean is over the classes that occur among labels or predictions, as scikit-learn has it.
    #[must_use]
    pub fn value(&self, metric: &Metric) -> Option<Value> {
        let one = |list: &[u64]| i128::from(list.get(1).copied().unwrap_or(0));
        let (actual, predicted, correct) = (one(&self.actual), one(&self.predicted), one(&self.correct));
        let ratio = |numerator, denominator| Ratio::new(numerator, denominator).map(Value::Exact);
        match metric {
            Metric::Accuracy | Metric::F1Micro => {
                ratio(i128::from(self.correct.iter().sum::<u64>()), i128::from(self.rows))
            }
            Metric::F1 => ratio(2 * correct, actual + predicted),
            Metric::Precision => ratio(correct, predicted),
            Metric::Recall => ratio(correct, actual),
            Metric::F1Macro => self.f1_macro().map(Value::Real),
            _ => None,
        }
    }

    /// F1 of one class, if it occurs.
    #[must_use]
    pub fn f1_of(&self, class: usize) -> Option<f64> {
        let occurs = self.actual.get(class)? + self.predicted.get(class)?;
        (occurs > 0).then(|| 2.0 * self.correct[class] as f64 / occurs as f64)
    }

    fn f1_macro(&self) -> Option<f64> {
        let each: Vec<f64> = (0..self.actual.len()).filter_map(|class| self.f1_of(class)).collect();
        (!each.is_empty()).then(|| math::sum(&each) / each.len() as f64)
    }

    /// Mean of the classes' F1, weighted by their rows.
    #[must_use]
    pub fn f1_weighted(&self) -> Option<f64> {
        let each: Vec<f64> =
            (0..self.actual.len()).filter_map(|c| self.f1_of(c).map(|f1| f1 * self.actual[c] as f64)).collect();
        (self.rows > 0).then(|| math::sum(&each) / self.rows as f64)
    }

    /// Mean of the classes' recalls, over the classes that have rows.
    #[must_use]
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let with_rows = || (0..self.actual.len()).filter(|class| self.actual[*class] > 0);
        let recalls: Vec<f64> = with_rows().map(|c| self.correct[c] as f64 / self.actual[c] as f64).collect();
        (!recalls.is_empty()).then(|| math::sum(&recalls) / recalls.len() as f64)
    }

    /// Matthews' correlation of a binary prediction; 0 where a row or column of the table is empty.
    #[must_use]
    pub fn matthews(&self) -> f64 {
        let at = |list: &[u64], class: usize| list.get(class).copied().unwrap_or(0) as f64;
        let (negatives, positives) = (at(&self.actual, 0), at(&self.actual, 1));
        let (no, yes) = (at(&self.predicted, 0), at(&self.predicted, 1));
        let product = negatives * positives * no * yes;
        if product == 0.0 {
            return 0.0;
        }
        let (true_no, true_yes) = (at(&self.correct, 0), at(&self.correct, 1));
        (true_yes * true_no - (yes - true_yes) * (positives - true_yes)) / math::sqrt(product)
    }

    /// How much one row of (label, predicted class) pulls the metric away from its value, times the rows: the influence value
    /// of the delta method. Its mean over the rows is 0.
    pub(super) fn influence(&self, metric: &Metric, label: usize, predicted: usize) -> f64 {
        let rows = self.rows as f64;
        let hit = |class: usize| f64::from(u8::from(label == class && predicted == class));
        let is = |value: usize, class: usize| f64::from(u8::from(value == class));
        let f1 = |class: usize| {
            let occurs = (self.actual[class] + self.predicted[class]) as f64;
            if occurs == 0.0 {
                return 0.0;
            }
            let value = 2.0 * self.correct[class] as f64 / occurs;
            (2.0 * hit(class) - value * (is(label, class) + is(predicted, class))) * rows / occurs
        };
        let (correct, actual, chosen) = (self.correct[1] as f64, self.actual[1] as f64, self.predicted[1] as f64);
        match metric {
            Metric::F1 => f1(1),
            Metric::Precision => (hit(1) - correct / chosen * is(predicted, 1)) * rows / chosen,
            Metric::Recall => (hit(1) - correct / actual * is(label, 1)) * rows / actual,
            _ => {
                let classes = (0..self.actual.len()).filter(|c| self.actual[*c] + self.predicted[*c] > 0).count();
                let both = if label == predicted { f1(label) } else { f1(label) + f1(predicted) };
                both / classes.max(1) as f64
            }
        }
    }
}

/// Rows by (label, baseline's class, candidate's class): all that paired tests of predicted classes need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedCounts {
    classes: usize,
    cells: BTreeMap<(u16, u16, u16), u64>,
}

impl PairedCounts {
    /// Counts the rows of a classification.
    #[must_use]
    pub fn of(rows: &PairedRows) -> Self {
        let mut cells = BTreeMap::new();
        let predicted = rows.predicted(Model::Baseline).into_iter().zip(rows.predicted(Model::Candidate));
        for (label, (baseline, candidate)) in rows.labels().iter().zip(predicted) {
            *cells.entry((*label as u16, baseline, candidate)).or_insert(0) += 1;
        }
        Self { classes: rows.class_counts().len(), cells }
    }

    /// One model's counts.
    #[must_use]
    pub fn counts(&self, model: Model) -> Counts {
        let chosen = |(label, baseline, candidate): (u16, u16, u16)| {
            (usize::from(label), usize::from(if model == Model::Baseline { baseline } else { candidate }))
        };
        let cells = self.cells.iter().map(|(cell, rows)| (chosen(*cell), *rows));
        Counts::of(self.classes, cells.map(|((label, predicted), rows)| (label, predicted, rows)))
    }

    /// Rows by who is right.
    #[must_use]
    pub fn right(&self) -> PairedTable {
        let mut table = PairedTable::default();
        for ((label, baseline, candidate), rows) in &self.cells {
            let cell = match (label == baseline, label == candidate) {
                (true, true) => &mut table.both,
                (true, false) => &mut table.baseline_only,
                (false, true) => &mut table.candidate_only,
                (false, false) => &mut table.neither,
            };
            *cell += rows;
        }
        table
    }

    /// Rows for which the models predict different classes.
    #[must_use]
    pub fn discordant(&self) -> u64 {
        self.cells.iter().filter(|((_, baseline, candidate), _)| baseline != candidate).map(|(_, rows)| rows).sum()
    }

    /// Rows for which the models predict different classes, by (label, baseline's class, candidate's class).
    pub(super) fn moving(&self) -> Vec<((u16, u16, u16), u64)> {
        self.cells.iter().filter(|((_, base, cand), _)| base != cand).map(|(cell, rows)| (*cell, *rows)).collect()
    }

    /// Variance of candidate − baseline by the delta method: that of the rows' paired influence values, over the rows. Exactly 0
    /// if the models predict the same classes.
    #[must_use]
    pub fn delta_variance(&self, metric: &Metric) -> f64 {
        let (base, cand) = (self.counts(Model::Baseline), self.counts(Model::Candidate));
        let rows = base.rows as f64;
        if self.discordant() == 0 || rows < 2.0 {
            return 0.0;
        }
        let influence = |(label, baseline, candidate): &(u16, u16, u16)| {
            cand.influence(metric, usize::from(*label), usize::from(*candidate))
                - base.influence(metric, usize::from(*label), usize::from(*baseline))
        };
        let terms: Vec<(f64, f64)> = self.cells.iter().map(|(cell, count)| (influence(cell), *count as f64)).collect();
        let mean = math::sum(&terms.iter().map(|(value, count)| value * count).collect::<Vec<_>>()) / rows;
        let squares: Vec<f64> = terms.iter().map(|(value, count)| (value - mean) * (value - mean) * count).collect();
        math::sum(&squares) / (rows - 1.0) / rows
    }
}

/// Average precision: Σ (recall step) × precision over the thresholds, best first. `None` without positives.
#[must_use]
pub fn average_precision(labels: &[i64], scores: &[i64]) -> Option<f64> {
    let positives = labels.iter().filter(|label| **label == 1).count();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by_key(|row| std::cmp::Reverse(scores[*row]));
    let (mut seen, mut found, mut terms) = (0_usize, 0_usize, Vec::new());
    for ties in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let new = ties.iter().filter(|row| labels[**row] == 1).count();
        seen += ties.len();
        found += new;
        terms.push(new as f64 * found as f64 / seen as f64);
    }
    (positives > 0).then(|| math::sum(&terms) / positives as f64)
}

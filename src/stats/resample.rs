//! Every metric's improvement on a reweighted benchmark: each replicate of the bootstrap is a weight per row.
//!
//! Scores are sorted once, and a replicate only sums weights: over rows, over classes, over the sorted order. All sums are
//! integers, so a replicate's numbers do not depend on threads; rows stand in the order of their content, so they do not
//! depend on the order in which rows came either.

use super::compare::{CompareError, improvements};
use super::counts::Counts;
use super::metric::{Metric, row_values};
use super::random::Seed;
use super::rows::{Model, PairedRows, Task};
use crate::math;
use std::collections::BTreeMap;
use std::ops::Range;

/// Integers with the number that 1 stands for; their weighted sum fits an `i64` for weights that add up to the rows.
#[derive(Debug, Clone)]
struct Column {
    values: Vec<i64>,
    quantum: f64,
}

impl Column {
    /// Drops low bits until the sums fit: what is resampled is reported, it decides nothing.
    fn fit(values: &[i128], per_unit: i128) -> Self {
        let largest = values.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
        let room = (1_u128 << 62) / (values.len() as u128).max(1);
        let mut shift = 0;
        while (largest >> shift) >= room {
            shift += 1;
        }
        let quantum = (1_u128 << shift) as f64 / per_unit as f64;
        Self { values: values.iter().map(|value| (value >> shift) as i64).collect(), quantum }
    }

    fn weighted(&self, weights: &[u16]) -> i64 {
        self.values.iter().zip(weights).map(|(value, weight)| value * i64::from(*weight)).sum()
    }
}

/// One model's scores in order: what a weighted area under the curve needs.
#[derive(Debug, Clone)]
struct Ranking {
    /// Rows of class 0, by score.
    negatives: Vec<u32>,
    /// Rows of class 1, by score, with the numbers of negatives below, and below or equal.
    positives: Vec<(u32, u32, u32)>,
    /// Placement of each row (see [`super::auc`]).
    placements: Vec<i64>,
}

impl Ranking {
    fn of(labels: &[i64], scores: &[i64]) -> Self {
        let by_score = |class: i64| {
            let mut rows: Vec<u32> = (0..scores.len() as u32).filter(|row| labels[*row as usize] == class).collect();
            rows.sort_by_key(|row| scores[*row as usize]);
            rows
        };
        let (negatives, own) = (by_score(0), by_score(1));
        let score = |row: &u32| scores[*row as usize];
        let mut placements = vec![0; scores.len()];
        let mut positives = Vec::with_capacity(own.len());
        for row in &own {
            let below = negatives.partition_point(|other| score(other) < score(row));
            let upto = negatives.partition_point(|other| score(other) <= score(row));
            placements[*row as usize] = (below + upto) as i64;
            positives.push((*row, below as u32, upto as u32));
        }
        for row in &negatives {
            let below = own.partition_point(|other| score(other) < score(row));
            let upto = own.partition_point(|other| score(other) <= score(row));
            placements[*row as usize] = (2 * own.len() - below - upto) as i64;
        }
        Self { negatives, positives, placements }
    }

    /// Σ over pairs of both weights, twice (once for a tie).
    fn twice_pairs(&self, weights: &[u16], below: &mut Vec<u32>) -> u64 {
        below.clear();
        below.push(0);
        let mut total = 0_u32;
        below.extend(self.negatives.iter().map(|row| {
            total += u32::from(weights[*row as usize]);
            total
        }));
        let pair = |(row, low, high): &(u32, u32, u32)| {
            u64::from(weights[*row as usize]) * (u64::from(below[*low as usize]) + u64::from(below[*high as usize]))
        };
        self.positives.iter().map(pair).sum()
    }
}

/// One metric, made ready.
#[derive(Debug, Clone)]
enum Part {
    Mean(Column),
    Area(Box<[Ranking; 2]>),
    Counts(Metric),
    /// Squared errors of both models, and labels with their squares.
    Squares {
        metric: Metric,
        errors: Box<[Column; 2]>,
        label: Box<[Column; 2]>,
    },
}

/// A benchmark made ready for resampling.
#[derive(Debug, Clone)]
pub struct Resampler {
    strata: Vec<Range<usize>>,
    labels: Vec<u16>,
    predicted: [Vec<u16>; 2],
    classes: usize,
    parts: Vec<Part>,
    rows: usize,
}

/// Memory that a thread uses again for each replicate.
#[derive(Debug, Default)]
pub struct Scratch {
    weights: Vec<u16>,
    below: Vec<u32>,
}

impl Resampler {
    /// Sorts what must be sorted. `stratified`: each class keeps its number of rows (regressions have one stratum).
    ///
    /// # Errors
    /// A metric that does not fit the task.
    pub fn new(rows: &PairedRows, metrics: &[Metric], stratified: bool) -> Result<Self, CompareError> {
        let parts = metrics.iter().map(|metric| part(rows, metric)).collect::<Result<_, _>>()?;
        let classified = rows.frame().task != Task::Regression;
        let mut strata = Vec::new();
        let mut start = 0;
        for same in rows.labels().chunk_by(|a, b| a == b || !(classified && stratified)) {
            strata.push(start..start + same.len());
            start += same.len();
        }
        let predicted = if classified {
            [rows.predicted(Model::Baseline), rows.predicted(Model::Candidate)]
        } else {
            [Vec::new(), Vec::new()]
        };
        let labels = if classified { rows.labels().iter().map(|label| *label as u16).collect() } else { Vec::new() };
        Ok(Self { strata, labels, predicted, classes: rows.class_counts().len(), parts, rows: rows.len() })
    }

    /// Draws replicate `number`: in each stratum as many rows as it has, with replacement.
    fn draw(&self, seed: Seed, number: u64, weights: &mut Vec<u16>) {
        weights.clear();
        weights.resize(self.rows, 0);
        let mut stream = seed.stream(number);
        for stratum in &self.strata {
            let own = &mut weights[stratum.clone()];
            let size = own.len() as u32;
            for _ in 0..size {
                let chosen = &mut own[stream.below(size) as usize];
                *chosen = chosen.saturating_add(1);
            }
        }
    }

    /// The improvements by each metric on replicate `number`; NaN where a metric is 0/0.
    pub fn replicate(&self, seed: Seed, number: u64, scratch: &mut Scratch) -> Vec<f64> {
        let mut weights = std::mem::take(&mut scratch.weights);
        self.draw(seed, number, &mut weights);
        let deltas = self.weighted(&weights, &mut scratch.below);
        scratch.weights = weights;
        deltas
    }

    /// The improvements by each metric when row i counts `weights[i]` times.
    fn weighted(&self, weights: &[u16], below: &mut Vec<u32>) -> Vec<f64> {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let counts = self.parts.iter().any(|part| matches!(part, Part::Counts(_))).then(|| self.counts(weights));
        let mut delta = |part: &Part| match part {
            Part::Mean(column) => column.weighted(weights) as f64 * column.quantum / total as f64,
            Part::Area(models) => {
                let positives: u64 = models[0].positives.iter().map(|p| u64::from(weights[p.0 as usize])).sum();
                let pairs = 2 * positives * (total - positives);
                let [base, cand] = [&models[0], &models[1]].map(|model| model.twice_pairs(weights, below));
                (cand as f64 - base as f64) / pairs as f64
            }
            Part::Counts(metric) => counts.as_ref().map_or(f64::NAN, |counts| counts_delta(counts, metric)),
            Part::Squares { metric, errors, label } => {
                let sums = [&errors[0], &errors[1], &label[0], &label[1]].map(|column| column.weighted(weights));
                squares_delta(metric, sums, errors[0].quantum, [label[0].quantum, label[1].quantum], total as f64)
            }
        };
        self.parts.iter().map(&mut delta).collect()
    }

    fn counts(&self, weights: &[u16]) -> [Counts; 2] {
        [0, 1].map(|model| {
            let mut cells = vec![0_u64; self.classes * self.classes];
            for ((label, predicted), weight) in self.labels.iter().zip(&self.predicted[model]).zip(weights) {
                cells[usize::from(*label) * self.classes + usize::from(*predicted)] += u64::from(*weight);
            }
            let cells = cells.into_iter().enumerate();
            Counts::of(self.classes, cells.map(|(cell, rows)| (cell / self.classes, cell % self.classes, rows)))
        })
    }

    /// The improvements by each metric when row i is left out, for every i: one list per metric, for the jackknife.
    #[must_use]
    pub fn leave_one_out(&self) -> Vec<Vec<f64>> {
        let ones = vec![1_u16; self.rows];
        let counts = (self.classes > 0).then(|| self.counts(&ones));
        self.parts.iter().map(|part| self.without_each(part, &ones, counts.as_ref())).collect()
    }

    fn without_each(&self, part: &Part, ones: &[u16], counts: Option<&[Counts; 2]>) -> Vec<f64> {
        let left = self.rows as f64 - 1.0;
        match part {
            Part::Mean(column) => {
                let sum = column.weighted(ones);
                column.values.iter().map(|value| (sum - value) as f64 * column.quantum / left).collect()
            }
            Part::Area(models) => {
                let positives = models[0].positives.len() as f64;
                let negatives = models[0].negatives.len() as f64;
                let twice =
                    |model: &Ranking| model.positives.iter().map(|p| model.placements[p.0 as usize]).sum::<i64>();
                let gap = twice(&models[1]) - twice(&models[0]);
                let moved = models[1].placements.iter().zip(&models[0].placements).map(|(cand, base)| cand - base);
                let pairs = |label: u16| {
                    if label == 1 { 2.0 * (positives - 1.0) * negatives } else { 2.0 * positives * (negatives - 1.0) }
                };
                moved.zip(&self.labels).map(|(moved, label)| (gap - moved) as f64 / pairs(*label)).collect()
            }
            Part::Counts(metric) => counts.map_or_else(Vec::new, |counts| self.counts_without_each(counts, metric)),
            Part::Squares { metric, errors, label } => {
                let columns = [&errors[0], &errors[1], &label[0], &label[1]];
                let sums = columns.map(|column| column.weighted(ones));
                let quanta = [label[0].quantum, label[1].quantum];
                let without = |row: usize| {
                    let mut sums = sums;
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum -= column.values[row];
                    }
                    squares_delta(metric, sums, errors[0].quantum, quanta, left)
                };
                (0..self.rows).map(without).collect()
            }
        }
    }

    /// Rows of one (label, both predictions) give the same number: it is computed once for each such cell.
    fn counts_without_each(&self, full: &[Counts; 2], metric: &Metric) -> Vec<f64> {
        let mut known: BTreeMap<(u16, u16, u16), f64> = BTreeMap::new();
        let without = |label: u16, predicted: [u16; 2]| {
            let mut counts = full.clone();
            for (own, predicted) in counts.iter_mut().zip(predicted) {
                let (label, predicted) = (usize::from(label), usize::from(predicted));
                own.rows -= 1;
                own.actual[label] -= 1;
                own.predicted[predicted] -= 1;
                own.correct[label] -= u64::from(label == predicted);
            }
            counts_delta(&counts, metric)
        };
        let rows = self.labels.iter().zip(self.predicted[0].iter().zip(&self.predicted[1]));
        rows.map(|(label, (base, cand))| {
            *known.entry((*label, *base, *cand)).or_insert_with(|| without(*label, [*base, *cand]))
        })
        .collect()
    }
}

fn part(rows: &PairedRows, metric: &Metric) -> Result<Part, CompareError> {
    if !metric.fits(rows.frame().task) {
        return Err(CompareError::DoesNotFit);
    }
    Ok(match metric {
        Metric::Auroc => Part::Area(Box::new(
            [Model::Baseline, Model::Candidate].map(|model| Ranking::of(rows.labels(), rows.column(model))),
        )),
        Metric::F1 | Metric::F1Macro | Metric::Precision | Metric::Recall => Part::Counts(metric.clone()),
        Metric::Rmse | Metric::R2 => squares(rows, metric)?,
        _ => {
            let (values, per_unit) = improvements(rows, metric).ok_or(CompareError::DoesNotFit)?;
            Part::Mean(Column::fit(&values, per_unit))
        }
    })
}

fn squares(rows: &PairedRows, metric: &Metric) -> Result<Part, CompareError> {
    let error = |model| row_values(rows, &Metric::Mse, model).ok_or(CompareError::DoesNotFit);
    let (mut base, cand) = (error(Model::Baseline)?, error(Model::Candidate)?);
    // Both models' columns must share one quantum.
    let count = base.values.len();
    base.values.extend(cand.values);
    let mut both = Column::fit(&base.values, base.per_unit);
    let second = Column { values: both.values.split_off(count), quantum: both.quantum };
    // Labels are taken from near their mean, so that squares stay small beside it.
    let labels = rows.labels();
    let sum: i128 = labels.iter().map(|label| i128::from(*label)).sum();
    let mean = sum.div_euclid(labels.len().max(1) as i128);
    let centred: Vec<i128> = labels.iter().map(|label| i128::from(*label) - mean).collect();
    let squared: Vec<i128> = centred.iter().map(|value| value * value).collect();
    let unit = i128::from(rows.frame().unit);
    let label = Box::new([Column::fit(&centred, unit), Column::fit(&squared, unit * unit)]);
    Ok(Part::Squares { metric: metric.clone(), errors: Box::new([both, second]), label })
}

fn counts_delta(counts: &[Counts; 2], metric: &Metric) -> f64 {
    match (counts[0].value(metric), counts[1].value(metric)) {
        (Some(base), Some(cand)) => cand.to_f64() - base.to_f64(),
        _ => f64::NAN,
    }
}

fn squares_delta(metric: &Metric, sums: [i64; 4], error_quantum: f64, label_quanta: [f64; 2], rows: f64) -> f64 {
    let [base, cand, label, squared] = sums.map(|sum| sum as f64);
    let (base, cand) = (base * error_quantum / rows, cand * error_quantum / rows);
    if *metric == Metric::Rmse {
        return math::sqrt(base) - math::sqrt(cand);
    }
    let mean = label * label_quanta[0] / rows;
    (base - cand) / (squared * label_quanta[1] / rows - mean * mean)
}

/// Runs `work` for every number below `count` on `threads` threads, each with a scratch of its own; results in order.
pub(super) fn in_parallel<S, T>(count: u64, threads: usize, work: impl Fn(u64, &mut S) -> T + Sync) -> Vec<T>
where
    S: Default,
    T: Send,
{
    let threads = threads.clamp(1, 64) as u64;
    let share = count.div_ceil(threads).max(1);
    let work = &work;
    let run = move |first: u64| {
        let mut scratch = S::default();
        (first..(first + share).min(count)).map(|number| work(number, &mut scratch)).collect::<Vec<_>>()
    };
    if threads == 1 {
        return run(0);
    }
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| thread * share)
            .filter(|first| *first < count)
            .map(|first| scope.spawn(move || run(first)))
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
impl Resampler {
    /// The improvements under given weights, for tests.
    pub(super) fn under(&self, weights: &[u16]) -> Vec<f64> {
        self.weighted(weights, &mut Vec::new())
    }
}

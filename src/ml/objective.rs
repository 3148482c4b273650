//! What is minimised: gradients, hessians and losses per row.

use crate::math;
use crate::ml::Task;
use crate::ml::histogram::{MAX_GRADIENT, MAX_HESSIAN, pack};
use crate::ml::random::{Purpose, draws};

/// A loss with its gradients.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// Log-loss of two classes; a weight per class.
    Binary([f64; 2]),
    /// Log-loss of more classes through a softmax; a weight per class.
    Softmax(Vec<f64>),
    /// Half the squared error.
    Squared,
}

/// What one unit of the fixed-point gradients and hessians is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Units {
    /// Real gradient per unit.
    pub gradient: f64,
    /// Real hessian per unit.
    pub hessian: f64,
}

/// Rows whose gradients are computed.
#[derive(Clone, Copy)]
pub struct Scored<'a> {
    /// Row-major scores, one per output.
    pub scores: &'a [f64],
    /// Labels.
    pub labels: &'a [f64],
}

/// Where the draws of one iteration's rounding come from.
#[derive(Clone, Copy)]
pub struct Rounding {
    /// Key.
    pub seed: u64,
    /// Iteration.
    pub step: u32,
}

impl Objective {
    /// The objective of a task; `weights` are per class, or empty.
    #[must_use]
    pub fn of(task: &Task, weights: &[f64]) -> Self {
        let weight = |class: usize| weights.get(class).copied().unwrap_or(1.0);
        match task {
            Task::Number => Self::Squared,
            Task::Classes(classes) if classes.len() > 2 => Self::Softmax((0..classes.len()).map(weight).collect()),
            Task::Classes(_) => Self::Binary([weight(0), weight(1)]),
        }
    }

    /// Scores per row.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self {
            Self::Softmax(weights) => weights.len(),
            _ => 1,
        }
    }

    /// The constant scores from which boosting starts.
    #[must_use]
    pub fn base(&self, labels: impl Iterator<Item = f64> + Clone) -> Vec<f32> {
        let share = |weights: &[f64]| {
            let mut rows = vec![0u64; weights.len()];
            for label in labels.clone() {
                if let Some(rows) = rows.get_mut(label as usize) {
                    *rows += 1;
                }
            }
            let weighted: Vec<f64> = rows.iter().zip(weights).map(|(&rows, weight)| rows as f64 * weight).collect();
            let total = math::sum(&weighted);
            weighted.into_iter().map(|rows| (rows / total).clamp(1e-9, 1.0)).collect::<Vec<f64>>()
        };
        match self {
            Self::Binary(weights) => {
                let share = share(weights);
                vec![math::ln(share[1] / share[0]) as f32]
            }
            Self::Softmax(weights) => share(weights).into_iter().map(|share| math::ln(share) as f32).collect(),
            Self::Squared => {
                let labels: Vec<f64> = labels.collect();
                vec![(math::sum(&labels) / labels.len().max(1) as f64) as f32]
            }
        }
    }

    /// Fixed-point gradients of all rows into `out`, one list per output, and their units.
    pub fn gradients(&self, rows: Scored<'_>, rounding: Rounding, threads: usize, out: &mut [Vec<u32>]) -> Units {
        match self {
            Self::Binary(weights) => {
                let heaviest = weights[0].max(weights[1]);
                let units = Units {
                    gradient: heaviest / f64::from(MAX_GRADIENT),
                    hessian: heaviest / 4.0 / f64::from(MAX_HESSIAN),
                };
                by_block(rows, threads, out, |_, rows, out| binary(weights, units, rows, out[0]));
                units
            }
            Self::Softmax(weights) => {
                let heaviest = weights.iter().fold(0.0, |most: f64, &weight| most.max(weight));
                let units = Units {
                    gradient: heaviest / f64::from(MAX_GRADIENT),
                    hessian: heaviest / 2.0 / f64::from(MAX_HESSIAN),
                };
                by_block(rows, threads, out, |_, rows, out| softmax_gradients(weights, units, rows, out));
                units
            }
            Self::Squared => {
                let errors = rows.scores.iter().zip(rows.labels).map(|(score, label)| (score - label).abs());
                let greatest = errors.fold(1e-250, f64::max);
                let units = Units { gradient: greatest / f64::from(MAX_GRADIENT), hessian: 1.0 };
                by_block(rows, threads, out, |first, rows, out| squared(units, first, rounding, rows, out[0]));
                units
            }
        }
    }

    /// The mean loss of these rows; their weights count.
    #[must_use]
    pub fn loss(&self, rows: Scored<'_>) -> f64 {
        let outputs = self.outputs();
        let pairs = rows.scores.chunks_exact(outputs).zip(rows.labels);
        let losses: Vec<f64> = pairs.clone().map(|(scores, &label)| self.row_loss(scores, label)).collect();
        let weights: Vec<f64> = rows.labels.iter().map(|&label| self.weight(label)).collect();
        math::sum(&losses) / math::sum(&weights)
    }

    fn weight(&self, label: f64) -> f64 {
        match self {
            Self::Binary(weights) => weights[usize::from(label > 0.5)],
            Self::Softmax(weights) => weights.get(label as usize).copied().unwrap_or(1.0),
            Self::Squared => 1.0,
        }
    }

    fn row_loss(&self, scores: &[f64], label: f64) -> f64 {
        let weight = self.weight(label);
        match self {
            Self::Binary(_) => weight * (math::softplus(scores[0]) - label * scores[0]),
            Self::Softmax(_) => {
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().fold(0.0, |total, score| total + math::exp(score - most));
                weight * (most + math::ln(total) - scores.get(label as usize).copied().unwrap_or(most))
            }
            Self::Squared => (scores[0] - label) * (scores[0] - label) / 2.0,
        }
    }
}

/// Runs `work` on blocks of rows in parallel; it gets the first row's position and its share of every output.
fn by_block(
    rows: Scored<'_>,
    threads: usize,
    out: &mut [Vec<u32>],
    work: impl Fn(usize, Scored<'_>, &mut [&mut [u32]]) + Sync,
) {
    let outputs = out.len();
    let block = rows.labels.len().div_ceil(threads.max(1)).max(1);
    let mut shares: Vec<Vec<&mut [u32]>> = (0..rows.labels.len().div_ceil(block)).map(|_| Vec::new()).collect();
    for list in out.iter_mut() {
        for (share, part) in shares.iter_mut().zip(list.chunks_mut(block)) {
            share.push(part);
        }
    }
    let blocks = rows.scores.chunks(block * outputs).zip(rows.labels.chunks(block));
    let mut jobs = blocks.map(|(scores, labels)| Scored { scores, labels }).zip(shares).enumerate();
    std::thread::scope(|scope| {
        let own = jobs.next();
        for (i, (rows, mut share)) in jobs {
            let work = &work;
            scope.spawn(move || work(i * block, rows, &mut share));
        }
        if let Some((_, (rows, mut share))) = own {
            work(0, rows, &mut share);
        }
    });
}

/// The nearest whole number, ties to even, of a value below 2³¹: the sum with 1.5 · 2⁵² has it in its lowest bits. Unlike a cast, which
/// must saturate, this is two instructions and works on several rows at once.
#[inline]
fn nearest(value: f64) -> i32 {
    (value + 6_755_399_441_055_744.0).to_bits() as i32
}

/// Rows whose exponentials are computed before anything else is: what follows has no calls and no branches.
const TOGETHER: usize = 256;

fn binary(weights: &[f64; 2], units: Units, rows: Scored<'_>, out: &mut [u32]) {
    let [zero, one] = weights.map(|weight| (weight / units.gradient, weight / units.hessian));
    let more = (one.0 - zero.0, one.1 - zero.1);
    let mut powers = [0.0; TOGETHER];
    let chunks = rows.scores.chunks(TOGETHER).zip(rows.labels.chunks(TOGETHER)).zip(out.chunks_mut(TOGETHER));
    for ((scores, labels), out) in chunks {
        powers.iter_mut().zip(scores).for_each(|(power, score)| *power = math::exp(-score.abs()));
        for (((&score, &label), &power), out) in scores.iter().zip(labels).zip(&powers).zip(out) {
            // The logistic function, as in `math::logistic`.
            let chance = if score >= 0.0 { 1.0 } else { power } / (1.0 + power);
            let gradient = nearest((zero.0 + label * more.0) * (chance - label));
            let hessian = nearest((zero.1 + label * more.1) * (chance * (1.0 - chance)));
            *out = pack(gradient.clamp(-MAX_GRADIENT, MAX_GRADIENT), hessian.clamp(1, MAX_HESSIAN));
        }
    }
}

fn softmax_gradients(weights: &[f64], units: Units, rows: Scored<'_>, out: &mut [&mut [u32]]) {
    let classes = weights.len();
    let factor = classes as f64 / (classes as f64 - 1.0);
    let mut chances = vec![0.0; classes];
    for (row, (scores, &label)) in rows.scores.chunks_exact(classes).zip(rows.labels).enumerate() {
        softmax(scores, &mut chances);
        let weight = weights.get(label as usize).copied().unwrap_or(1.0);
        let (gradients, hessians) = (weight / units.gradient, weight * factor / units.hessian);
        for (class, (&chance, out)) in chances.iter().zip(out.iter_mut()).enumerate() {
            let own = f64::from(u8::from(class == label as usize));
            let gradient = nearest(gradients * (chance - own));
            let hessian = nearest(hessians * (chance * (1.0 - chance)));
            out[row] = pack(gradient.clamp(-MAX_GRADIENT, MAX_GRADIENT), hessian.clamp(1, MAX_HESSIAN));
        }
    }
}

/// Chances of the classes with these scores.
pub fn softmax(scores: &[f64], chances: &mut [f64]) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for (chance, score) in chances.iter_mut().zip(scores) {
        *chance = math::exp(score - most);
        total += *chance;
    }
    chances.iter_mut().for_each(|chance| *chance /= total);
}

/// Residuals have no natural scale, so one outlier makes the unit coarse: rounding up or down by a counted draw keeps sums unbiased.
fn squared(units: Units, first: usize, rounding: Rounding, rows: Scored<'_>, out: &mut [u32]) {
    let per_residual = 1.0 / units.gradient;
    let mut four = [0; 4];
    for (i, ((&score, &label), out)) in rows.scores.iter().zip(rows.labels).zip(out).enumerate() {
        let row = (first + i) as u64;
        if i == 0 || row.is_multiple_of(4) {
            four = draws(rounding.seed, Purpose::Rounding, rounding.step, row / 4);
        }
        let up = f64::from(four[(row % 4) as usize]) / 4_294_967_296.0;
        let gradient = ((score - label) * per_residual + up).floor() as i32;
        *out = pack(gradient.clamp(-MAX_GRADIENT, MAX_GRADIENT), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(packed: &[u32]) -> (f64, f64) {
        packed.iter().fold((0.0, 0.0), |(g, h), &p| (g + f64::from(p as i32 >> 16), h + f64::from(p & 0xffff)))
    }

    #[test]
    fn fixed_point_gradients_are_those_of_the_loss() {
        let labels = [0.0, 1.0, 1.0, 0.0];
        let scores = [0.3, -1.2, 2.0, 5.0];
        let objective = Objective::Binary([1.0, 3.0]);
        let mut out = vec![vec![0; 4]];
        let rows = Scored { scores: &scores, labels: &labels };
        let units = objective.gradients(rows, Rounding { seed: 1, step: 0 }, 2, &mut out);
        for i in 0..4 {
            let step = 1e-5;
            let at = |delta: f64| objective.row_loss(&[scores[i] + delta], labels[i]);
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let (gradient, hessian) = sums(&out[0][i..=i]);
            assert!((gradient * units.gradient - slope).abs() < 1e-4, "{i}: {gradient} {slope}");
            let curve = (at(step) - 2.0 * at(0.0) + at(-step)) / (step * step);
            assert!((hessian * units.hessian - curve).abs() < 1e-4, "{i}: {hessian} {curve}");
        }
    }

    #[test]
    fn a_row_that_is_certain_keeps_a_hessian_and_so_a_place_in_its_leaf() {
        for (objective, scores) in [
            (Objective::Binary([1.0; 2]), vec![60.0, -60.0]),
            (Objective::Softmax(vec![1.0; 3]), vec![60.0, 0.0, 0.0, 0.0, 0.0, 60.0]),
        ] {
            let mut out = vec![vec![0; 2]; objective.outputs()];
            let rows = Scored { scores: &scores, labels: &[1.0, 0.0] };
            objective.gradients(rows, Rounding { seed: 1, step: 0 }, 1, &mut out);
            assert!(out.iter().flatten().all(|packed| packed & 0xffff >= 1), "{objective:?} {out:?}");
        }
    }

    #[test]
    fn gradients_of_a_softmax_sum_to_zero_over_the_classes() {
        let objective = Objective::Softmax(vec![1.0; 3]);
        let mut out = vec![vec![0; 2]; 3];
        let rows = Scored { scores: &[0.1, 0.2, -0.4, 3.0, -1.0, 0.0], labels: &[2.0, 0.0] };
        objective.gradients(rows, Rounding { seed: 1, step: 0 }, 1, &mut out);
        for row in 0..2 {
            let total: i32 = out.iter().map(|list| list[row] as i32 >> 16).sum();
            assert!(total.abs() <= 2);
        }
    }

    #[test]
    fn an_outlier_does_not_silence_small_residuals() {
        // The unit is 1e6 / 32767 ≈ 30; residuals of 1 would all round to 0.
        let mut labels = vec![1.0; 100_000];
        labels.push(-1e6);
        let scores = vec![0.0; labels.len()];
        let mut out = vec![vec![0; labels.len()]];
        let rows = Scored { scores: &scores, labels: &labels };
        let units = Objective::Squared.gradients(rows, Rounding { seed: 3, step: 0 }, 2, &mut out);
        let mean = sums(&out[0][..100_000]).0 * units.gradient / 1e5;
        assert!((mean + 1.0).abs() < 0.1, "{mean}");
        let mut one = vec![vec![0; labels.len()]];
        Objective::Squared.gradients(rows, Rounding { seed: 3, step: 0 }, 1, &mut one);
        assert_eq!(out, one, "rounding does not depend on the number of threads");
    }
}

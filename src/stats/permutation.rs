//! Permutation tests of paired models: under the null hypothesis each row's two scores could be exchanged.
//!
//! Reported beside the decision. For metrics that are means of rows, and for those that only depend on the sums of both models'
//! squared errors (RMSE and R² rise and fall with the difference of the two), exchanging is flipping the sign of a
//! row's difference.

use super::compare::{CompareError, improvements};
use super::counts::{Counts, PairedCounts};
use super::metric::Metric;
use super::random::{Seed, Stream};
use super::resample::in_parallel;
use super::rows::{Model, PairedRows};

/// Rows up to which all sign patterns are enumerated.
const ENUMERATED: usize = 16;

/// One-sided p-value of the improvement by exchanging rows; `None` for the area under the curve, whose check is the bootstrap.
///
/// # Errors
/// A metric that does not fit the task.
pub fn paired_permutation(
    rows: &PairedRows,
    metric: &Metric,
    draws: u64,
    seed: Seed,
    threads: usize,
) -> Result<Option<f64>, CompareError> {
    if !metric.fits(rows.frame().task) {
        return Err(CompareError::DoesNotFit);
    }
    match metric {
        Metric::Auroc => Ok(None),
        Metric::F1 | Metric::F1Macro | Metric::Precision | Metric::Recall => {
            Ok(exchange_predictions(&PairedCounts::of(rows), metric, draws, seed, threads))
        }
        Metric::Rmse | Metric::R2 => signs(rows, &Metric::Mse, draws, seed, threads),
        _ => signs(rows, metric, draws, seed, threads),
    }
}

fn signs(rows: &PairedRows, by: &Metric, draws: u64, seed: Seed, threads: usize) -> Result<Option<f64>, CompareError> {
    let (values, _) = improvements(rows, by).ok_or(CompareError::DoesNotFit)?;
    Ok(Some(sign_flip(&values, draws, seed, threads)))
}

/// P(sum ≥ the observed one) when the sign of each value is a fair coin: enumerated up to 16 values, else (1 + hits)/(1 + draws).
#[must_use]
pub fn sign_flip(values: &[i128], draws: u64, seed: Seed, threads: usize) -> f64 {
    if values.len() <= ENUMERATED {
        let observed: i128 = values.iter().sum();
        let sum = |pattern: u32| {
            values.iter().enumerate().map(|(at, v)| if pattern >> at & 1 == 1 { -v } else { *v }).sum::<i128>()
        };
        let patterns = 1_u32 << values.len();
        return (0..patterns).filter(|pattern| sum(*pattern) >= observed).count() as f64 / f64::from(patterns);
    }
    // A value of 0 has no sign, and flipping those that are chosen takes their double away.
    let moving: Vec<i128> = values.iter().copied().filter(|value| *value != 0).collect();
    let hits = match moving.iter().map(|v| i64::try_from(*v)).collect::<Result<Vec<_>, _>>() {
        Ok(small) if small.iter().all(|v| v.unsigned_abs() < (1 << 62) / small.len() as u64) => {
            count(draws, threads, |stream| flipped_small(&small, stream) <= 0, seed)
        }
        _ => count(draws, threads, |stream| flipped(&moving, stream) <= 0, seed),
    };
    (1 + hits) as f64 / (1 + draws) as f64
}

fn count(draws: u64, threads: usize, hit: impl Fn(&mut Stream) -> bool + Sync, seed: Seed) -> u64 {
    let drawn = in_parallel(draws, threads, |number, (): &mut ()| hit(&mut seed.stream(number)));
    drawn.into_iter().map(u64::from).sum()
}

fn flipped_small(values: &[i64], stream: &mut Stream) -> i64 {
    let mut sum = 0;
    for chunk in values.chunks(32) {
        let bits = stream.bits();
        for (at, value) in chunk.iter().enumerate() {
            sum += value & -i64::from(bits >> at & 1);
        }
    }
    sum
}

fn flipped(values: &[i128], stream: &mut Stream) -> i128 {
    values.iter().filter(|_| stream.bits() & 1 == 1).sum()
}

/// Rows of one label and one pair of predictions are alike, so a draw is how many of each kind are exchanged.
fn exchange_predictions(paired: &PairedCounts, metric: &Metric, draws: u64, seed: Seed, threads: usize) -> Option<f64> {
    let full = [paired.counts(Model::Baseline), paired.counts(Model::Candidate)];
    let delta = |counts: &[Counts; 2]| Some(counts[1].value(metric)?.to_f64() - counts[0].value(metric)?.to_f64());
    let observed = delta(&full)?;
    let moving = paired.moving();
    let hit = |stream: &mut Stream| {
        let mut counts = full.clone();
        for ((label, base, cand), rows) in &moving {
            let exchanged = heads(*rows, stream);
            exchange(&mut counts, usize::from(*label), usize::from(*base), usize::from(*cand), exchanged);
        }
        // A replicate that is 0/0 counts against the candidate.
        delta(&counts).is_none_or(|drawn| drawn >= observed - 1e-12)
    };
    Some((1 + count(draws, threads, hit, seed)) as f64 / (1 + draws) as f64)
}

fn exchange(counts: &mut [Counts; 2], label: usize, base: usize, cand: usize, rows: u64) {
    for (own, lost, won) in [(0, base, cand), (1, cand, base)] {
        let counts = &mut counts[own];
        counts.predicted[lost] -= rows;
        counts.predicted[won] += rows;
        counts.correct[label] -= if label == lost { rows } else { 0 };
        counts.correct[label] += if label == won { rows } else { 0 };
    }
}

/// Heads among `coins` fair coins.
fn heads(coins: u64, stream: &mut Stream) -> u64 {
    let whole: u64 = (0..coins / 32).map(|_| u64::from(stream.bits().count_ones())).sum();
    let rest = coins % 32;
    if rest == 0 { whole } else { whole + u64::from((stream.bits() & ((1 << rest) - 1)).count_ones()) }
}

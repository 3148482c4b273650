//! Bootstrap intervals of an improvement, bias-corrected and accelerated (Efron 1987). They are reported beside the
//! decision and never decide: 2,000 replicates cannot tell a p-value of 10⁻⁵ from one of 10⁻³.

use super::compare::CompareError;
use super::distribution::{normal_lower, normal_upper_quantile};
use super::metric::Metric;
use super::random::Seed;
use super::resample::{Resampler, Scratch, in_parallel};
use super::rows::PairedRows;
use crate::math;

/// Replicates of what is reported.
pub const REPLICATES: u64 = 2_000;

/// A bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Standard deviation of the replicates.
    pub standard_error: f64,
    /// Bias correction z₀.
    pub bias_correction: f64,
    /// Acceleration a.
    pub acceleration: f64,
    /// The quantiles of the replicates that the ends are.
    pub quantiles: (f64, f64),
}

/// Class-stratified paired bootstrap: an interval per metric, `None` where replicates are 0/0 or all on one side.
///
/// `tail` is the probability on each side. The same rows and seed give the same bits, whatever the number of threads.
///
/// # Errors
/// A metric that does not fit the task.
pub fn bootstrap(
    rows: &PairedRows,
    metrics: &[Metric],
    tail: f64,
    replicates: u64,
    seed: Seed,
    threads: usize,
) -> Result<Vec<Option<Interval>>, CompareError> {
    let observed = super::compare::deltas(rows, metrics)?;
    let resampler = Resampler::new(rows, metrics, true)?;
    let drawn =
        in_parallel(replicates, threads, |number, scratch: &mut Scratch| resampler.replicate(seed, number, scratch));
    let jackknife = resampler.leave_one_out();
    let of = |at: usize| drawn.iter().map(|deltas| deltas[at]).collect::<Vec<_>>();
    Ok(observed
        .iter()
        .zip(&jackknife)
        .enumerate()
        .map(|(at, (delta, left))| bca(*delta, &of(at), left, tail))
        .collect())
}

/// The bias-corrected and accelerated interval, as scipy computes it: ties count half in z₀, the acceleration comes from the
/// jackknife, quantiles are interpolated linearly. `None` unless replicates lie on both sides and all are numbers.
#[must_use]
pub fn bca(observed: f64, replicates: &[f64], jackknife: &[f64], tail: f64) -> Option<Interval> {
    let mut sorted = replicates.to_vec();
    if sorted.len() < 2 || sorted.iter().chain(jackknife).any(|value| !value.is_finite()) {
        return None;
    }
    sorted.sort_unstable_by(f64::total_cmp);
    let below = sorted.partition_point(|value| *value < observed);
    let upto = sorted.partition_point(|value| *value <= observed);
    let share = (below + upto) as f64 / (2 * sorted.len()) as f64;
    if share <= 0.0 || share >= 1.0 {
        return None;
    }
    let bias_correction = -normal_upper_quantile(share);
    let acceleration = acceleration(jackknife);
    let quantile = |z: f64| {
        let shifted = bias_correction + z;
        normal_lower(bias_correction + shifted / (1.0 - acceleration * shifted))
    };
    let z = normal_upper_quantile(tail);
    let quantiles = (quantile(-z), quantile(z));
    let mean = math::sum(&sorted) / sorted.len() as f64;
    let squares: Vec<f64> = sorted.iter().map(|value| (value - mean) * (value - mean)).collect();
    Some(Interval {
        lower: interpolated(&sorted, quantiles.0),
        upper: interpolated(&sorted, quantiles.1),
        standard_error: math::sqrt(math::sum(&squares) / (sorted.len() - 1) as f64),
        bias_correction,
        acceleration,
        quantiles,
    })
}

fn acceleration(jackknife: &[f64]) -> f64 {
    let mean = math::sum(jackknife) / jackknife.len().max(1) as f64;
    let gaps = || jackknife.iter().map(|value| mean - value);
    let squares = math::sum(&gaps().map(|gap| gap * gap).collect::<Vec<_>>());
    let cubes = math::sum(&gaps().map(|gap| gap * gap * gap).collect::<Vec<_>>());
    if squares > 0.0 { cubes / (6.0 * squares * math::sqrt(squares)) } else { 0.0 }
}

/// The quantile of sorted values, interpolated linearly between neighbours.
#[must_use]
pub fn interpolated(sorted: &[f64], quantile: f64) -> f64 {
    let position = quantile * (sorted.len().max(1) - 1) as f64;
    let at = position as usize;
    match (sorted.get(at), sorted.get(at + 1)) {
        (Some(low), Some(high)) => low + (high - low) * (position - at as f64),
        (Some(only), None) => *only,
        _ => f64::NAN,
    }
}

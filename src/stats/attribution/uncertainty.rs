//! How sure a player's value is: SE² = sampling (antithetic pairs; 0 if enumerated) + benchmark (per-row values) + seeds.

use super::game::{Coalition, GameError, Plan, Utilities};
use crate::stats::exact::{Moments, Overflow};

/// Variance of each player's value that comes from sampling orders, in the square of the metric's unit: that of the pairs' means.
/// Pairs are independent, the two orders of a pair are not.
///
/// # Errors
/// A utility that is missing or out of range.
pub fn sampling_variance(plan: &Plan, utilities: &Utilities) -> Result<Vec<f64>, GameError> {
    let Some(pairs) = plan.pairs(utilities)? else { return Ok(vec![0.0; plan.players()]) };
    let unit = 2.0 * utilities.denominator as f64;
    pairs
        .into_iter()
        .map(|own| {
            let count = own.len() as f64;
            let moments = Moments::of(own).map_err(|_| GameError::Range(0))?;
            Ok(moments.variance() / count / unit / unit)
        })
        .collect()
}

/// Per-row values of all players, gathered one coalition at a time: values are linear in utilities, so a player's value is the
/// mean of its values on single rows, and their variance is the benchmark's.
///
/// For an AUROC, gather the placements of positives and of negatives apart, with 2N and 2P quanta per unit, and add the variances
/// (DeLong).
#[derive(Debug)]
pub struct RowValues<'a> {
    plan: &'a Plan,
    sums: Vec<Vec<i128>>,
}

impl<'a> RowValues<'a> {
    /// Nothing gathered yet.
    #[must_use]
    pub fn new(plan: &'a Plan, rows: usize) -> Self {
        Self { plan, sums: vec![vec![0; rows]; plan.players()] }
    }

    /// Adds the rows' utilities under a coalition's model, in quanta, in the same order of rows for every coalition.
    pub fn add(&mut self, coalition: Coalition, rows: &[i64]) {
        for (player, sums) in self.sums.iter_mut().enumerate() {
            let weight = self.plan.weight(player, coalition);
            if weight != 0 {
                sums.iter_mut().zip(rows).for_each(|(sum, row)| *sum += weight * i128::from(*row));
            }
        }
    }

    /// Variance of each player's value that comes from the choice of rows; `per_unit` are the quanta of 1.
    ///
    /// # Errors
    /// [`Overflow`] if a sum does not fit.
    pub fn variances(&self, per_unit: i128) -> Result<Vec<f64>, Overflow> {
        let unit = self.plan.divisor() as f64 * per_unit as f64;
        let of = |own: &Vec<i128>| {
            let moments = Moments::of(own.iter().copied())?;
            Ok(moments.variance() / own.len().max(1) as f64 / unit / unit)
        };
        self.sums.iter().map(of).collect()
    }
}

/// A player's value over several seeds of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seeded {
    /// Mean over the seeds.
    pub mean: f64,
    /// Variance of the mean: between seeds, plus the mean of what each seed says of itself.
    pub variance: f64,
}

/// Joins the values of one player under several seeds, each with its own variance (sampling and benchmark). `None` of fewer than
/// two: one seed says nothing of seeds. Benchmark rows are the same for all seeds, so their variance does not shrink.
#[must_use]
pub fn over_seeds(values: &[(f64, f64)]) -> Option<Seeded> {
    if values.len() < 2 || values.iter().any(|(value, variance)| !value.is_finite() || !variance.is_finite()) {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|(value, _)| value).sum::<f64>() / count;
    let between = values.iter().map(|(value, _)| (value - mean) * (value - mean)).sum::<f64>() / (count - 1.0) / count;
    let within = values.iter().map(|(_, variance)| variance).sum::<f64>() / count;
    Some(Seeded { mean, variance: between + within })
}

//! Many tests: attempts on one benchmark, claims by stratum, discovery.

use super::distribution::normal_upper_quantile;
use super::fixed::floor_real;
use crate::math;

/// The level of attempt `attempt` (from 1) when a family of attempts may spend `alpha`: 6α/(π² t²), which sums to α.
///
/// `None` for attempt 0 and for an α outside (0, 1).
#[must_use]
pub fn attempt_level(alpha: f64, attempt: u64) -> Option<f64> {
    if attempt == 0 || !(alpha > 0.0 && alpha < 1.0) {
        return None;
    }
    const SUM: f64 = std::f64::consts::PI * std::f64::consts::PI / 6.0;
    let t = attempt as f64;
    Some(alpha / (SUM * t * t))
}

/// The same level in 10⁻¹², rounded down; 0 where there is none.
#[must_use]
pub fn attempt_level_e12(alpha: f64, attempt: u64) -> i128 {
    attempt_level(alpha, attempt).and_then(|level| floor_real(level, 1e12)).unwrap_or(0).max(0)
}

/// Holm's step-down adjusted p-values, in the order of `p` (Holm 1979).
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (rank, at) in order.iter().enumerate() {
        largest = largest.max((p[*at] * (p.len() - rank) as f64).min(1.0));
        adjusted[*at] = largest;
    }
    adjusted
}

/// Benjamini and Hochberg's adjusted p-values (1995); with `dependent`, Benjamini and Yekutieli's (2001).
#[must_use]
pub fn false_discovery(p: &[f64], dependent: bool) -> Vec<f64> {
    let order = ascending(p);
    let count = p.len() as f64;
    let factor = if dependent { (1..=p.len()).map(|k| 1.0 / k as f64).sum() } else { 1.0 };
    let mut adjusted = vec![0.0; p.len()];
    let mut smallest = 1.0_f64;
    for (rank, at) in order.iter().enumerate().rev() {
        smallest = smallest.min(p[*at] * factor * count / (rank + 1) as f64);
        adjusted[*at] = smallest;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    order
}

/// LORD++ (Ramdas et al. 2017): the level of each test of a stream whose false discovery rate stays below `alpha`. For
/// discovery only; no attempt is accepted by it.
///
/// α_t = w₀ γ_t + (α − w₀) γ_(t−τ₁) + α Σ_(j≥2) γ_(t−τⱼ), with γ_j = 0.0772 ln(max(j, 2)) / (j e^√ln j).
#[must_use]
pub fn lord(p: &[f64], alpha: f64, start: f64) -> Vec<f64> {
    let gamma = |j: usize| {
        let j = j as f64;
        0.077_208_38 * math::ln(j.max(2.0)) / (j * math::exp(math::sqrt(math::ln(j))))
    };
    let mut rejections: Vec<usize> = Vec::new();
    let mut levels = Vec::with_capacity(p.len());
    for (at, p) in p.iter().enumerate() {
        let earned = rejections
            .iter()
            .enumerate()
            .map(|(rank, rejected)| gamma(at - rejected) * if rank == 0 { alpha - start } else { alpha });
        let level = start * gamma(at + 1) + earned.sum::<f64>();
        if *p <= level {
            rejections.push(at);
        }
        levels.push(level);
    }
    levels
}

/// SAFFRON (Ramdas et al. 2018) with threshold `lambda`: like [`lord`], but tests with p > λ cost nothing.
///
/// α_t = min(λ, (1 − λ)(w₀ γ_(t−C₀₊) + (α − w₀) γ_(t−τ₁−C₁₊) + α Σ_(j≥2) γ_(t−τⱼ−Cⱼ₊))), where Cⱼ₊ counts candidates (p ≤ λ) after the
/// j-th rejection, and γ_j = j^(−1.6)/ζ(1.6).
#[must_use]
pub fn saffron(p: &[f64], alpha: f64, start: f64, lambda: f64) -> Vec<f64> {
    const ZETA: f64 = 2.285_765_663_769_187;
    let gamma = |j: usize| math::pow(j as f64, -1.6) / ZETA;
    let candidate = |p: &f64| *p <= lambda;
    let mut rejections: Vec<usize> = Vec::new();
    let mut levels: Vec<f64> = Vec::with_capacity(p.len());
    for (at, own) in p.iter().enumerate() {
        let since = |first: usize| p[first..at].iter().filter(|p| candidate(p)).count();
        let earned = rejections.iter().enumerate().map(|(rank, rejected)| {
            gamma(at - rejected - since(rejected + 1)) * if rank == 0 { alpha - start } else { alpha }
        });
        let level = ((1.0 - lambda) * (start * gamma(at + 1 - since(0)) + earned.sum::<f64>())).min(lambda);
        if *own <= level {
            rejections.push(at);
        }
        levels.push(level);
    }
    levels
}

/// Rows that a paired mean needs to see an improvement of `effect` with probability 1 − `miss` at level `alpha`, when the per-row
/// differences have variance `variance`. `None` unless all are positive.
#[must_use]
pub fn rows_needed(effect: f64, variance: f64, alpha: f64, miss: f64) -> Option<u64> {
    let z = normal_upper_quantile(alpha) + normal_upper_quantile(miss);
    let rows = (z * z * variance / (effect * effect)).ceil();
    (effect > 0.0 && variance > 0.0 && rows.is_finite() && rows < 1e15).then_some(rows as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_spend_less_than_alpha_together_and_never_start_at_zero() {
        let spent: f64 = (1..=100_000).map(|t| attempt_level(0.05, t).unwrap()).sum();
        assert!(spent < 0.05 && spent > 0.049_99, "{spent}");
        assert!((attempt_level(0.05, 18).unwrap() - 9.4e-5).abs() < 1e-6);
        assert!((attempt_level(0.05, 50).unwrap() - 1.2e-5).abs() < 2e-7);
        assert_eq!((attempt_level(0.05, 0), attempt_level(0.0, 1), attempt_level(f64::NAN, 1)), (None, None, None));
    }

    #[test]
    fn half_a_million_rows_see_a_tenth_of_a_point_where_a_tenth_of_rows_differ() {
        // (1.645 + 0.842)² × 0.1 / 0.001² ≈ 618,000
        assert_eq!(rows_needed(0.001, 0.1, 0.05, 0.2), Some(618_256));
        assert_eq!(rows_needed(0.0, 0.1, 0.05, 0.2), None);
    }
}

//! Tests and intervals of proportions: exact McNemar with its cross-checks, and two independent proportions.

use super::distribution::{binomial_probability, binomial_upper, normal_upper, normal_upper_quantile};
use crate::math;

/// Halvings of an interval of length 2 until its ends are neighbours, nearly.
const BISECTIONS: u32 = 52;

/// A paired table of two classifiers: only the discordant cells say which is better (McNemar 1947).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discordance {
    /// Rows that only the baseline has right.
    pub baseline_only: u64,
    /// Rows that only the candidate has right.
    pub candidate_only: u64,
}

impl Discordance {
    /// P(at least as many rows for the candidate), if either is as likely: exact, at any number of rows.
    #[must_use]
    pub fn p_candidate_better(self) -> f64 {
        binomial_upper(self.candidate_only, self.baseline_only + self.candidate_only, 0.5)
    }

    /// Twice the smaller exact tail, at most 1.
    #[must_use]
    pub fn p_two_sided(self) -> f64 {
        let larger = self.baseline_only.max(self.candidate_only);
        (2.0 * binomial_upper(larger, self.baseline_only + self.candidate_only, 0.5)).min(1.0)
    }

    /// Two-sided mid-p: half of the observed table's probability does not count (Fagerland et al. 2013, §"mid-p").
    #[must_use]
    pub fn p_mid(self) -> f64 {
        let (total, larger) = (self.baseline_only + self.candidate_only, self.baseline_only.max(self.candidate_only));
        let tail = binomial_upper(larger, total, 0.5);
        (2.0 * tail - binomial_probability(larger, total, 0.5)).min(1.0)
    }

    /// McNemar's χ² with one degree of freedom and its p, with or without continuity correction; `None` without discordance.
    #[must_use]
    pub fn chi_square(self, corrected: bool) -> Option<(f64, f64)> {
        let total = self.baseline_only + self.candidate_only;
        let distance = self.baseline_only.abs_diff(self.candidate_only) as f64 - f64::from(u8::from(corrected));
        let statistic = distance * distance / total as f64;
        (total > 0).then(|| (statistic, 2.0 * normal_upper(math::sqrt(statistic))))
    }
}

/// Wilson's score interval of a proportion; `tail` is the probability on each side.
#[must_use]
pub fn wilson(successes: u64, trials: u64, tail: f64) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (n, z) = (trials as f64, normal_upper_quantile(tail));
    let p = successes as f64 / n;
    let centre = p + z * z / (2.0 * n);
    let half = z * math::sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n));
    let scale = 1.0 + z * z / n;
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

/// A 2 × 2 table of paired outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairedTable {
    /// Both right.
    pub both: u64,
    /// Only the candidate right.
    pub candidate_only: u64,
    /// Only the baseline right.
    pub baseline_only: u64,
    /// Neither.
    pub neither: u64,
}

impl PairedTable {
    /// The cells that say which is better.
    #[must_use]
    pub fn discordance(self) -> Discordance {
        Discordance { baseline_only: self.baseline_only, candidate_only: self.candidate_only }
    }
}

/// Newcombe's square-and-add interval of (candidate − baseline) for paired proportions (Newcombe 1998, method 10; Fagerland
/// et al. 2014): Wilson intervals, joined with the table's correlation, whose numerator is drawn towards 0 by half the rows.
#[must_use]
pub fn newcombe_paired(table: PairedTable, tail: f64) -> (f64, f64) {
    let [a, b, c, d] = [table.both, table.candidate_only, table.baseline_only, table.neither].map(|n| n as f64);
    let rows = table.both + table.candidate_only + table.baseline_only + table.neither;
    if rows == 0 {
        return (-1.0, 1.0);
    }
    let (p1, p2) = ((a + b) / rows as f64, (a + c) / rows as f64);
    let first = wilson(table.both + table.candidate_only, rows, tail);
    let second = wilson(table.both + table.baseline_only, rows, tail);
    let product = (a + b) * (c + d) * (a + c) * (b + d);
    let numerator = a * d - b * c;
    let corrected = if numerator > 0.0 { (numerator - rows as f64 / 2.0).max(0.0) } else { numerator };
    let correlation = if product == 0.0 { 0.0 } else { corrected / math::sqrt(product) };
    let add = |x: f64, y: f64| math::sqrt((x * x - 2.0 * correlation * x * y + y * y).max(0.0));
    (p1 - p2 - add(p1 - first.0, second.1 - p2), p1 - p2 + add(first.1 - p1, p2 - second.0))
}

/// Lower score bound of (candidate − baseline) for paired proportions (Tango 1998): the difference at which the score test of "not
/// larger", with the other proportions as likely as they can be made under it, has one-sided p = `tail`. Without discordant rows it is
/// −z²/(n + z²), for rows that were not seen to differ may do so yet. −1 without rows.
#[must_use]
pub fn tango_lower(discordance: Discordance, rows: u64, tail: f64) -> f64 {
    if rows == 0 {
        return -1.0;
    }
    let (n, z) = (rows as f64, normal_upper_quantile(tail));
    let (base, cand) = (discordance.baseline_only as f64, discordance.candidate_only as f64);
    // Falls as `delta` grows.
    let exceeds = |delta: f64| {
        // The likeliest chance of a row that the baseline alone has right, if the candidate's is larger by `delta`.
        let (b, c) = ((2.0 * n - cand + base) * delta - cand - base, -base * delta * (1.0 - delta));
        let likeliest = ((math::sqrt((b * b - 8.0 * n * c).max(0.0)) - b) / (4.0 * n)).max(-delta).max(0.0);
        let variance = n * (2.0 * likeliest + delta * (1.0 - delta));
        cand - base - n * delta > z * math::sqrt(variance.max(0.0))
    };
    let (mut below, mut above) = (-1.0, (cand - base) / n);
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(below, above);
        if exceeds(middle) { below = middle } else { above = middle }
    }
    below
}

/// Newcombe's interval of p₂ − p₁ for independent proportions, without continuity correction.
#[must_use]
pub fn newcombe_independent(first: (u64, u64), second: (u64, u64), tail: f64) -> (f64, f64) {
    let share = |(successes, trials): (u64, u64)| successes as f64 / trials.max(1) as f64;
    let (p1, p2) = (share(first), share(second));
    let (w1, w2) = (wilson(first.0, first.1, tail), wilson(second.0, second.1, tail));
    let add = |x: f64, y: f64| math::sqrt(x * x + y * y);
    (p2 - p1 - add(p2 - w2.0, w1.1 - p1), p2 - p1 + add(w2.1 - p2, p1 - w1.0))
}

/// Pooled z of p₂ − p₁ for independent proportions, and its two-sided p.
#[must_use]
pub fn pooled_z(first: (u64, u64), second: (u64, u64)) -> Option<(f64, f64)> {
    let (n1, n2) = (first.1 as f64, second.1 as f64);
    let pooled = (first.0 + second.0) as f64 / (n1 + n2);
    let error = math::sqrt(pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2));
    let z = (second.0 as f64 / n2 - first.0 as f64 / n1) / error;
    z.is_finite().then(|| (z, (2.0 * normal_upper(z.abs())).min(1.0)))
}

/// Fisher's exact two-sided p of two independent proportions: the probability of all tables with the same margins that are no
/// likelier than the observed one (within 10⁻⁷, as usual). `None` without rows.
#[must_use]
pub fn fisher_exact(first: (u64, u64), second: (u64, u64)) -> Option<f64> {
    let (successes, trials) = (first.0.checked_add(second.0)?, first.1.checked_add(second.1)?);
    if trials == 0 || first.0 > first.1 || second.0 > second.1 {
        return None;
    }
    if successes == 0 || successes == trials {
        return Some(1.0);
    }
    // Hypergeometric as a quotient of binomials, at the pooled share (Loader 2000).
    let share = successes as f64 / trials as f64;
    let all = binomial_probability(successes, trials, share);
    let probability = |own: u64| {
        binomial_probability(own, first.1, share) * binomial_probability(successes - own, second.1, share) / all
    };
    let observed = probability(first.0) * (1.0 + 1e-7);
    let tables = successes.saturating_sub(second.1)..=successes.min(first.1);
    let rare: Vec<f64> = tables.map(probability).filter(|own| *own <= observed).collect();
    Some(math::sum(&rare).min(1.0))
}

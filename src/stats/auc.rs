//! The area under the receiver operating characteristic in integers, and DeLong's test of two of them.
//!
//! A *placement* of a positive row is twice the number of negatives that score below it, plus those that tie; of a negative row,
//! twice the number of positives above it, plus those that tie. The area is Σ placements / 2PN, exactly. DeLong's variance is
//! that of the placements (DeLong et al. 1988, in the midrank form of Sun & Xu 2014); all sums are integers.

use super::exact::{Moments, Overflow};
use super::fixed::Ratio;

/// Placements of one model's scores, in the order of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placements {
    /// Of each positive row: 0 to 2N.
    pub positive: Vec<i64>,
    /// Of each negative row: 0 to 2P.
    pub negative: Vec<i64>,
}

impl Placements {
    /// Sorts once: O(n log n). Labels are 1 (positive) or anything else.
    #[must_use]
    pub fn of(labels: &[i64], scores: &[i64]) -> Self {
        let split = |wanted: bool| {
            let chosen = labels.iter().zip(scores).filter(move |(label, _)| (**label == 1) == wanted);
            chosen.map(|(_, score)| *score).collect::<Vec<_>>()
        };
        let (positive, negative) = (split(true), split(false));
        let sorted = |values: &[i64]| {
            let mut values = values.to_vec();
            values.sort_unstable();
            values
        };
        let (low, high) = (sorted(&negative), sorted(&positive));
        let rank = |sorted: &[i64], score: i64| {
            (sorted.partition_point(|other| *other < score) + sorted.partition_point(|other| *other <= score)) as i64
        };
        let twice_positives = 2 * high.len() as i64;
        Self {
            positive: positive.iter().map(|score| rank(&low, *score)).collect(),
            negative: negative.iter().map(|score| twice_positives - rank(&high, *score)).collect(),
        }
    }

    /// The area, Σ placements / 2PN; `None` unless both classes are there.
    #[must_use]
    pub fn area(&self) -> Option<Ratio> {
        let pairs = self.positive.len() as i128 * self.negative.len() as i128;
        Ratio::new(self.positive.iter().map(|p| i128::from(*p)).sum(), 2 * pairs)
    }
}

/// Both areas and the variance of their difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeLong {
    /// The baseline's area.
    pub baseline: Ratio,
    /// The candidate's area.
    pub candidate: Ratio,
    /// Candidate − baseline.
    pub delta: f64,
    /// Variances of baseline and candidate, and their covariance.
    pub covariance: [f64; 3],
    /// Variance of the difference; exactly 0 if no row's placement differs.
    pub variance: f64,
    /// Rows whose placement differs.
    pub discordant: u64,
}

/// DeLong's comparison of two correlated areas; `None` unless there are at least two rows of both classes.
///
/// # Errors
/// [`Overflow`] if a sum does not fit.
pub fn delong(baseline: &Placements, candidate: &Placements) -> Result<Option<DeLong>, Overflow> {
    let (Some(base_area), Some(cand_area)) = (baseline.area(), candidate.area()) else { return Ok(None) };
    let (positives, negatives) = (baseline.positive.len() as f64, baseline.negative.len() as f64);
    if positives < 2.0 || negatives < 2.0 || candidate.positive.len() != baseline.positive.len() {
        return Ok(None);
    }
    let of = |values: &[i64]| Moments::of(values.iter().map(|v| i128::from(*v)));
    let differences = |a: &[i64], b: &[i64]| Moments::of(b.iter().zip(a).map(|(b, a)| i128::from(*b) - i128::from(*a)));
    // A positive's placement counts half negatives: its variance is divided by 4N², and by P for the mean.
    let combine = |positive: Moments, negative: Moments| {
        positive.variance() / (4.0 * negatives * negatives) / positives
            + negative.variance() / (4.0 * positives * positives) / negatives
    };
    let base = combine(of(&baseline.positive)?, of(&baseline.negative)?);
    let cand = combine(of(&candidate.positive)?, of(&candidate.negative)?);
    let moved_positives = differences(&baseline.positive, &candidate.positive)?;
    let moved_negatives = differences(&baseline.negative, &candidate.negative)?;
    let variance = combine(moved_positives, moved_negatives);
    Ok(Some(DeLong {
        baseline: base_area,
        candidate: cand_area,
        delta: (cand_area.numerator - base_area.numerator) as f64 / base_area.denominator as f64,
        covariance: [base, cand, (base + cand - variance) / 2.0],
        variance,
        discordant: moved_positives.nonzero() + moved_negatives.nonzero(),
    }))
}

/// The area with a weight per row: Σ over pairs of w⁺ w⁻ (1, or one half for ties), over W⁺ W⁻. `None` without both classes.
#[must_use]
pub fn weighted_area(labels: &[i64], scores: &[i64], weights: &[u32]) -> Option<Ratio> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by_key(|row| scores[*row]);
    let (mut below, mut positives, mut twice) = (0_u128, 0_u128, 0_u128);
    for ties in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let of = |class: bool| -> u128 {
            ties.iter().filter(|row| (labels[**row] == 1) == class).map(|row| u128::from(weights[*row])).sum()
        };
        let (own, other) = (of(true), of(false));
        twice += own * (2 * below + other);
        below += other;
        positives += own;
    }
    Ratio::new(i128::try_from(twice).ok()?, i128::try_from(2 * positives * below).ok()?)
}

/// Means of the one-against-rest and one-against-one areas of a multiclass model (Hand & Till 2001 for the latter), each
/// class with the same weight. `scores` are row-major. `None` unless every class is there.
#[must_use]
pub fn multiclass_areas(classes: usize, labels: &[i64], scores: &[i64]) -> Option<(f64, f64)> {
    let column = |class: usize| scores.iter().skip(class).step_by(classes).copied().collect::<Vec<_>>();
    let (mut rest, mut pairs) = (Vec::new(), Vec::new());
    for class in 0..classes {
        let own = column(class);
        let against = |label: i64| i64::from(label == class as i64);
        let all: Vec<i64> = labels.iter().map(|label| against(*label)).collect();
        rest.push(Placements::of(&all, &own).area()?.to_f64());
        for other in (0..classes).filter(|other| *other != class) {
            let chosen = || labels.iter().zip(&own).filter(|(y, _)| **y == class as i64 || **y == other as i64);
            let some: Vec<i64> = chosen().map(|(label, _)| against(*label)).collect();
            let score: Vec<i64> = chosen().map(|(_, score)| *score).collect();
            pairs.push(Placements::of(&some, &score).area()?.to_f64());
        }
    }
    let mean = |values: &[f64]| crate::math::sum(values) / values.len() as f64;
    Some((mean(&rest), mean(&pairs)))
}

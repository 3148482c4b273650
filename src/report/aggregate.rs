//! Rows summed up for drawings: no place of a drawing stands for fewer than [`LEAST`] rows, so it tells none of them.
//!
//! All counts and sums are integers; scores are quanta of 10⁻⁶. The drawings illustrate: figures that decide are computed elsewhere, on
//! every row.

use serde::Serialize;

/// Fewest rows that a place of a drawing stands for.
pub const LEAST: usize = 20;

/// Most steps of a curve.
const STEPS: usize = 100;

/// Most bins of a reliability curve.
const BINS: usize = 10;

/// A curve of the receiver operating characteristic, at equal steps of the false-positive rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Roc {
    /// False-positive rate in thousandths, rising from 0 to 1,000.
    pub false_positive: Vec<u32>,
    /// True-positive rate in thousandths at each of them, between the two thresholds next to it; rounded down.
    pub true_positive: Vec<u32>,
}

/// The curve of scores (higher = more likely 1) of rows with labels 0 and 1; none for fewer than [`LEAST`] rows of a class.
#[must_use]
pub fn roc(labels: &[i64], scores: &[i64]) -> Option<Roc> {
    let positives = labels.iter().filter(|label| **label == 1).count();
    let negatives = labels.len() - positives;
    let steps = (positives.min(negatives) / LEAST).min(STEPS);
    if steps == 0 || labels.len() != scores.len() {
        return None;
    }
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|row| std::cmp::Reverse(scores[*row]));
    // Corners of the exact curve: false and true positives above each threshold; equal scores fall together.
    let mut corners = vec![(0_u64, 0_u64)];
    let (mut above, mut last) = ((0, 0), None);
    for row in order {
        if last.is_some_and(|score| score != scores[row]) {
            corners.push(above);
        }
        last = Some(scores[row]);
        if labels[row] == 1 { above.1 += 1 } else { above.0 += 1 }
    }
    corners.push(above);
    let mut roc = Roc { false_positive: Vec::with_capacity(steps + 1), true_positive: Vec::with_capacity(steps + 1) };
    let mut at = 0;
    for step in 0..=steps as u64 {
        // The place is step / steps of the negatives: everything times `steps`, so that it is an integer.
        let (steps, wanted) = (steps as u64, step * negatives as u64);
        while at + 1 < corners.len() && corners[at + 1].0 * steps <= wanted {
            at += 1;
        }
        let (x0, y0) = corners[at];
        let (x1, y1) = corners.get(at + 1).copied().unwrap_or((x0, y0));
        let run = (x1 - x0) * steps;
        // A step begins at the origin even where the best scores are all positive: a curve, not a set of points.
        let extra =
            if run == 0 { 0 } else { u128::from(y1 - y0) * u128::from(wanted - x0 * steps) * 1_000 / u128::from(run) };
        let height = (u128::from(y0) * 1_000 + extra) / positives as u128;
        roc.false_positive.push(u32::try_from(step * 1_000 / steps).unwrap_or(1_000));
        roc.true_positive.push(u32::try_from(height).unwrap_or(1_000).min(1_000));
    }
    Some(roc)
}

/// Rows whose predictions lie next to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// Rows, [`LEAST`] or more.
    pub rows: u64,
    /// Mean of what was predicted, in millionths, rounded down.
    pub predicted: i64,
    /// Mean of what was observed, in millionths, rounded down.
    pub observed: i64,
}

/// Bins of about equal size, rising in what was predicted; rows with the same prediction fall together. Pairs are (predicted, observed)
/// in millionths. None for fewer than [`LEAST`] rows.
#[must_use]
pub fn reliability(mut pairs: Vec<(i64, i64)>) -> Vec<Bin> {
    pairs.sort_unstable();
    let bins = (pairs.len() / LEAST).min(BINS);
    let mut found = Vec::with_capacity(bins);
    let mut begin = 0;
    for bin in 1..=bins {
        let mut end = (pairs.len() * bin / bins).max(begin);
        while end > begin && end < pairs.len() && pairs[end].0 == pairs[end - 1].0 {
            end += 1;
        }
        // The rest is taken along where it would be too small for a bin of its own.
        if pairs.len() - end < LEAST {
            end = pairs.len();
        }
        if end - begin < LEAST {
            continue;
        }
        let own = &pairs[begin..end];
        let mean = |of: fn(&(i64, i64)) -> i64| {
            let sum: i128 = own.iter().map(|pair| i128::from(of(pair))).sum();
            i64::try_from(sum.div_euclid(own.len() as i128)).unwrap_or(i64::MAX)
        };
        found.push(Bin { rows: own.len() as u64, predicted: mean(|pair| pair.0), observed: mean(|pair| pair.1) });
        begin = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_curve_goes_through_the_exact_corners_and_a_tie_is_a_slope() {
        // 40 of each class: the upper half of the positives above everything, the rest tied with all negatives.
        let labels: Vec<i64> = (0..80).map(|row| i64::from(row < 40)).collect();
        let scores: Vec<i64> = (0..80).map(|row| if row < 20 { 9 } else { 5 }).collect();
        let roc = roc(&labels, &scores).unwrap();
        assert_eq!((roc.false_positive, roc.true_positive), (vec![0, 500, 1_000], vec![500, 750, 1_000]));
    }

    #[test]
    fn few_rows_are_not_drawn() {
        let labels: Vec<i64> = (0..100).map(|row| i64::from(row < LEAST as i64 - 1)).collect();
        assert_eq!(roc(&labels, &[1; 100]), None);
        assert_eq!(reliability(vec![(1, 1); LEAST - 1]), []);
    }

    #[test]
    fn rows_with_the_same_prediction_fall_into_one_bin() {
        let mut pairs = vec![(500_000, 1_000_000); 90];
        pairs.extend([(100_000, 0); 10]);
        let bins = reliability(pairs);
        assert_eq!(bins, [Bin { rows: 100, predicted: 460_000, observed: 900_000 }]);
    }

    proptest! {
        #[test]
        fn no_place_stands_for_few_rows_and_curves_rise(rows in proptest::collection::vec((0..2_i64, 0..30_i64), 0..400)) {
            let (labels, scores): (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
            if let Some(roc) = roc(&labels, &scores) {
                prop_assert!(roc.true_positive.windows(2).all(|pair| pair[0] <= pair[1]));
                prop_assert!(roc.false_positive.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert_eq!((roc.true_positive.last(), roc.false_positive.last()), (Some(&1_000), Some(&1_000)));
                prop_assert!((roc.false_positive.len() - 1) * LEAST <= labels.len());
            }
            let bins = reliability(rows.iter().map(|(label, score)| (*score, *label)).collect());
            prop_assert!(bins.iter().all(|bin| bin.rows >= LEAST as u64));
            let counted: u64 = bins.iter().map(|bin| bin.rows).sum();
            prop_assert!(counted == rows.len() as u64 || (bins.is_empty() && rows.len() < LEAST));
            prop_assert!(bins.windows(2).all(|pair| pair[0].predicted < pair[1].predicted || pair[0].predicted <= pair[1].predicted));
        }
    }
}

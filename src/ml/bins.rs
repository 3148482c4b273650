//! Features cut into at most 255 bins: exact quantiles (every value is sorted), so the cuts depend on the values alone.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ml::encoding::{Encoded, Features};

/// The bin of missing values.
pub const MISSING: u8 = 255;
/// Most bins of a feature that are not for missing values.
pub const MAX_BINS: usize = 255;
/// Bins of a histogram.
pub const BINS: usize = 256;

/// How one feature is cut.
#[derive(Clone, Debug, PartialEq)]
pub enum Cut {
    /// Bin i holds values above `thresholds[i - 1]` and at most `thresholds[i]`; the last bin has no upper bound.
    Number(Vec<f32>),
    /// Bin i is code i, below this number.
    Category(u16),
}

impl Cut {
    /// Bins in use.
    #[must_use]
    pub fn bins(&self) -> usize {
        match self {
            Self::Number(thresholds) => thresholds.len() + 1,
            Self::Category(codes) => usize::from(*codes),
        }
    }

    /// The cut of these values.
    #[must_use]
    pub fn of(column: &Encoded) -> Self {
        if column.codes > 0 {
            return Self::Category(column.codes);
        }
        let mut values: Vec<f32> = column.values.iter().copied().filter(|value| !value.is_nan()).collect();
        values.sort_unstable_by(f32::total_cmp);
        Self::Number(quantiles(&values))
    }

    /// The bin of a value.
    #[must_use]
    pub fn bin(&self, value: f32) -> u8 {
        if value.is_nan() {
            return MISSING;
        }
        match self {
            Self::Number(thresholds) => thresholds.partition_point(|&threshold| threshold < value) as u8,
            Self::Category(_) => value as u8,
        }
    }
}

/// Upper bounds of all bins but the last. A value that fills a bin alone gets one; the others share what is left evenly.
fn quantiles(sorted: &[f32]) -> Vec<f32> {
    let groups: Vec<(f32, usize)> = sorted.chunk_by(|a, b| a == b).map(|group| (group[0], group.len())).collect();
    if groups.len() <= MAX_BINS {
        return groups.windows(2).map(|pair| between(pair[0].0, pair[1].0)).collect();
    }
    let mean = sorted.len() / MAX_BINS;
    let is_big = |rows: usize| rows > mean;
    let big = groups.iter().filter(|(_, rows)| is_big(*rows)).count();
    let (mut rows_left, mut bins_left) =
        (groups.iter().filter(|(_, rows)| !is_big(*rows)).map(|(_, rows)| rows).sum::<usize>(), MAX_BINS - big);
    let (mut thresholds, mut filled) = (Vec::with_capacity(MAX_BINS - 1), 0);
    for pair in groups.windows(2) {
        let ((value, rows), (next, next_rows)) = (pair[0], pair[1]);
        if !is_big(rows) {
            filled += rows;
        }
        let target = rows_left.checked_div(bins_left).unwrap_or(usize::MAX).max(1);
        let full = filled >= target || is_big(rows) || (is_big(next_rows) && filled * 2 >= target);
        if full && thresholds.len() + 1 < MAX_BINS {
            thresholds.push(between(value, next));
            if !is_big(rows) {
                rows_left = rows_left.saturating_sub(filled);
                bins_left = bins_left.saturating_sub(1);
            }
            filled = 0;
        }
    }
    thresholds
}

/// A threshold t with a ≤ t < b, half-way if `f32` has such a number.
fn between(a: f32, b: f32) -> f32 {
    let middle = (f64::from(a) / 2.0 + f64::from(b) / 2.0) as f32 + 0.0;
    if middle >= a && middle < b { middle } else { a }
}

/// Rows as bins, row by row: one row's bins share a cache line or two.
#[derive(Clone, Debug)]
pub struct Binned {
    /// Rows × features.
    pub bins: Vec<u8>,
    /// Features.
    pub width: usize,
    /// Rows.
    pub rows: usize,
}

impl Binned {
    /// The bins of `rows` of these features.
    #[must_use]
    pub fn of(features: &Features, cuts: &[Cut], rows: &[u32], threads: usize) -> Self {
        let width = cuts.len();
        let mut bins = vec![0u8; rows.len() * width];
        let block = rows.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            for (bins, rows) in bins.chunks_mut(block * width.max(1)).zip(rows.chunks(block)) {
                scope.spawn(move || fill(features, cuts, rows, bins));
            }
        });
        Self { bins, width, rows: rows.len() }
    }

    /// The bins of one row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bins[row * self.width..(row + 1) * self.width]
    }
}

fn fill(features: &Features, cuts: &[Cut], rows: &[u32], bins: &mut [u8]) {
    let width = cuts.len();
    for (f, (cut, column)) in cuts.iter().zip(&features.columns).enumerate() {
        for (out, &row) in bins.iter_mut().skip(f).step_by(width).zip(rows) {
            *out = cut.bin(column.values[row as usize]);
        }
    }
}

/// The cuts of all features. Each thread takes the next feature that nobody has: numbers take long, categories nothing.
#[must_use]
pub fn cuts(features: &Features, threads: usize) -> Vec<Cut> {
    let next = AtomicUsize::new(0);
    let work = || {
        let taken = std::iter::from_fn(|| {
            let at = next.fetch_add(1, Ordering::Relaxed);
            features.columns.get(at).map(|column| (at, Cut::of(column)))
        });
        taken.collect::<Vec<(usize, Cut)>>()
    };
    let mut all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(features.columns.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().flat_map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        own.into_iter().chain(others).collect::<Vec<_>>()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, cut)| cut).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(values: Vec<f32>) -> Encoded {
        Encoded { values, codes: 0 }
    }

    #[test]
    fn few_values_get_a_bin_each_with_the_threshold_half_way() {
        let cut = Cut::of(&number(vec![3.0, 1.0, f32::NAN, 1.0, 2.0]));
        assert_eq!(cut, Cut::Number(vec![1.5, 2.5]));
        assert_eq!([1.0, 1.5, 1.6, 9.0, f32::NAN].map(|value| cut.bin(value)), [0, 0, 1, 2, MISSING]);
    }

    #[test]
    fn a_threshold_between_neighbouring_numbers_is_the_lower_one() {
        // Half-way between these two `f32` would round to the upper one, and both would share a bin.
        let [low, high] = [0x3f80_0001, 0x3f80_0002].map(f32::from_bits);
        let cut = Cut::of(&number(vec![low, high, f32::NEG_INFINITY, f32::INFINITY]));
        assert_eq!([f32::NEG_INFINITY, low, high, f32::INFINITY].map(|value| cut.bin(value)), [0, 1, 2, 3]);
    }

    #[test]
    fn a_frequent_value_gets_a_bin_alone_and_the_others_are_even() {
        for frequent in [5000.0, 5010.0, 5020.0, 5030.0] {
            let mut values: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
            values.extend(std::iter::repeat_n(frequent, 20_000));
            let cut = Cut::of(&number(values.clone()));
            let mut rows = [0usize; BINS];
            values.iter().for_each(|&value| rows[usize::from(cut.bin(value))] += 1);
            // At most half a bin of its neighbours shares it.
            assert!(rows[usize::from(cut.bin(frequent))] <= 20_021, "{frequent}");
            let others: Vec<usize> = rows.into_iter().filter(|&rows| rows > 0 && rows < 20_000).collect();
            assert!(others.len() >= 250 && others.iter().all(|&rows| rows <= 60), "{others:?}");
        }
    }

    proptest! {
        #[test]
        fn a_bin_is_at_most_its_threshold_and_above_the_one_before(
            values in prop::collection::vec(prop::num::f32::ANY, 1..2000)
        ) {
            let column = number(values.iter().map(|value| value + 0.0).collect());
            let Cut::Number(thresholds) = Cut::of(&column) else { unreachable!() };
            prop_assert!(thresholds.len() < MAX_BINS && thresholds.is_sorted_by(|a, b| a < b));
            for &value in column.values.iter().filter(|value| !value.is_nan()) {
                let bin = usize::from(Cut::Number(thresholds.clone()).bin(value));
                prop_assert!(bin == thresholds.len() || value <= thresholds[bin]);
                prop_assert!(bin == 0 || value > thresholds[bin - 1]);
            }
        }
    }
}

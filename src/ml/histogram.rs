//! Histograms of gradients in fixed point: sums of integers are exact, so neither the order of rows nor the number of
//! threads nor parent minus child can change a bit.
//!
//! A row's gradient (16 bits, signed) and hessian (16 bits) travel in one `u32` and are added in one instruction: the gradient in
//! the upper half of an `i64`, the hessian in the lower. The halves hold the sums of [`FLUSH`] rows; then they are added to wide cells.

use crate::ml::bins::{BINS, Binned, MISSING};

/// Largest gradient.
pub const MAX_GRADIENT: i32 = i16::MAX as i32;
/// Largest hessian.
pub const MAX_HESSIAN: i32 = u16::MAX as i32;
/// Rows after which the halves of packed cells might overflow.
const FLUSH: usize = 65_535;

/// A gradient and a hessian in one word.
#[inline]
#[must_use]
pub fn pack(gradient: i32, hessian: i32) -> u32 {
    (gradient as u32) << 16 | hessian as u32
}

#[inline]
fn widen(packed: u32) -> i64 {
    (i64::from(packed as i32 >> 16) << 32) + i64::from(packed & 0xffff)
}

/// Exact sums of one bin, in units of the objective's scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Sum of gradients.
    pub gradient: i64,
    /// Sum of hessians.
    pub hessian: i64,
}

impl Sums {
    /// Both sums.
    #[inline]
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { gradient: self.gradient + other.gradient, hessian: self.hessian + other.hessian }
    }

    /// What is left without `other`.
    #[inline]
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { gradient: self.gradient - other.gradient, hessian: self.hessian - other.hessian }
    }
}

/// One cell per feature and bin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// By feature. What lies past a feature's bins, but for the bin of missing values, is never touched.
    pub cells: Vec<[Sums; BINS]>,
    /// Bins of each feature, without that of missing values.
    bins: Vec<usize>,
}

/// The cells of a feature with this many bins: with a few values per feature most cells of a node need no work.
#[inline]
fn in_use<T, const N: usize>(cells: &mut [T; N], bins: usize) -> impl Iterator<Item = &mut T> {
    let (values, missing) = cells.split_at_mut(usize::from(MISSING));
    values.iter_mut().take(bins).chain(missing.first_mut())
}

/// Packed cells of one feature. A cache line longer than needed: at a distance of 2 KiB the first bins of all features would compete
/// for the same few lines of the first-level cache.
type Packed = [i64; BINS + 8];

/// One thread's part of a histogram: the sums over its own rows, of all features, in memory that is used again and again.
#[derive(Clone, Debug)]
pub struct Partial {
    packed: Vec<Packed>,
    /// Sums of the rows before the last [`FLUSH`]; empty until a node has so many.
    wide: Vec<[Sums; BINS]>,
    spilled: bool,
    bins: Vec<usize>,
    rows: usize,
}

impl Partial {
    /// All zero, for features with these numbers of bins.
    #[must_use]
    pub fn new(bins: Vec<usize>) -> Self {
        Self { packed: vec![[0; BINS + 8]; bins.len()], wide: Vec::new(), spilled: false, bins, rows: 0 }
    }

    /// Holds the sums over `rows` from now on.
    pub fn fill(&mut self, binned: &Binned, gradients: &[u32], rows: &[u32]) {
        self.rows = rows.len();
        self.clear();
        self.spilled = false;
        for (turn, rows) in rows.chunks(FLUSH).enumerate() {
            if turn > 0 {
                self.spill();
            }
            add(&mut self.packed, binned, gradients, rows);
        }
    }

    fn clear(&mut self) {
        for (packed, &bins) in self.packed.iter_mut().zip(&self.bins) {
            in_use(packed, bins).for_each(|cell| *cell = 0);
        }
    }

    /// Moves packed sums to the wide cells.
    fn spill(&mut self) {
        if !self.spilled {
            self.wide.clear();
            self.wide.resize(self.bins.len(), [Sums::default(); BINS]);
            self.spilled = true;
        }
        for ((cells, packed), &bins) in self.wide.iter_mut().zip(&mut self.packed).zip(&self.bins) {
            for (cell, packed) in in_use(cells, bins).zip(in_use(packed, bins)) {
                *cell = cell.plus(unpack(std::mem::take(packed)));
            }
        }
    }

    /// Changes each used cell of one feature, given its sums.
    #[inline]
    fn each(&self, feature: usize, cells: &mut [Sums; BINS], change: impl Fn(&mut Sums, Sums)) {
        let (bins, missing) = (self.bins[feature], usize::from(MISSING));
        let packed = &self.packed[feature];
        cells[..bins].iter_mut().zip(packed).for_each(|(cell, packed)| change(cell, unpack(*packed)));
        change(&mut cells[missing], unpack(packed[missing]));
        if self.spilled {
            let wide = &self.wide[feature];
            cells[..bins].iter_mut().zip(wide).for_each(|(cell, wide)| *cell = cell.plus(*wide));
            cells[missing] = cells[missing].plus(wide[missing]);
        }
    }

    /// Sums over all rows, and their number.
    #[must_use]
    pub fn total(&self) -> (Sums, usize) {
        let mut cells = [Sums::default(); BINS];
        if !self.bins.is_empty() {
            self.each(0, &mut cells, |cell, sums| *cell = sums);
        }
        (cells.iter().fold(Sums::default(), |total, cell| total.plus(*cell)), self.rows)
    }
}

#[inline]
fn unpack(packed: i64) -> Sums {
    let hessian = packed & 0xffff_ffff;
    Sums { gradient: (packed - hessian) >> 32, hessian }
}

impl Histogram {
    /// All zero, for features with these numbers of bins.
    #[must_use]
    pub fn new(bins: Vec<usize>) -> Self {
        Self { cells: vec![[Sums::default(); BINS]; bins.len()], bins }
    }

    /// Begins anew with one thread's part. This histogram's features are those from `first` on there.
    pub fn set(&mut self, part: &Partial, first: usize) {
        for (feature, cells) in (first..).zip(&mut self.cells) {
            part.each(feature, cells, |cell, sums| *cell = sums);
        }
    }

    /// Adds another thread's part.
    pub fn add(&mut self, part: &Partial, first: usize) {
        for (feature, cells) in (first..).zip(&mut self.cells) {
            part.each(feature, cells, |cell, sums| *cell = cell.plus(sums));
        }
    }

    /// Makes this histogram, a parent's, that of the other child.
    pub fn subtract(&mut self, child: &Self) {
        for ((cells, child), &bins) in self.cells.iter_mut().zip(&child.cells).zip(&self.bins) {
            let missing = usize::from(MISSING);
            for (cell, child) in cells[..bins].iter_mut().zip(&child[..bins]) {
                *cell = cell.minus(*child);
            }
            cells[missing] = cells[missing].minus(child[missing]);
        }
    }
}

/// The loop that training spends its time in.
fn add(packed: &mut [Packed], binned: &Binned, gradients: &[u32], rows: &[u32]) {
    let width = binned.width;
    for &row in rows {
        let row = row as usize;
        let value = widen(gradients[row]);
        let bins = &binned.bins[row * width..row * width + width];
        for (cells, &bin) in packed.iter_mut().zip(bins) {
            let cell = &mut cells[usize::from(bin)];
            *cell = cell.wrapping_add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(binned: &Binned, gradients: &[(i32, i32)], rows: &[u32]) -> Histogram {
        let mut histogram = Histogram::new(vec![255; binned.width]);
        for &row in rows {
            for (cells, &bin) in histogram.cells.iter_mut().zip(binned.row(row as usize)) {
                let (gradient, hessian) = gradients[row as usize];
                let cell = &mut cells[usize::from(bin)];
                *cell = cell.plus(Sums { gradient: gradient.into(), hessian: hessian.into() });
            }
        }
        histogram
    }

    fn filled(binned: &Binned, packed: &[u32], rows: &[u32], parts: &mut [Partial]) -> Histogram {
        let mut histogram = Histogram::new(parts[0].bins.clone());
        let block = rows.len().div_ceil(parts.len()).max(1);
        parts.iter_mut().for_each(|part| part.fill(binned, packed, &[]));
        parts.iter_mut().zip(rows.chunks(block)).for_each(|(part, rows)| part.fill(binned, packed, rows));
        histogram.set(&parts[0], 0);
        parts[1..].iter().for_each(|part| histogram.add(part, 0));
        assert_eq!(parts.iter().map(|part| part.total().1).sum::<usize>(), rows.len());
        histogram
    }

    #[test]
    fn extreme_gradients_in_one_bin_are_summed_exactly_past_the_packed_range() {
        let rows: Vec<u32> = (0..200_000).collect();
        let binned = Binned { bins: vec![7; rows.len()], width: 1, rows: rows.len() };
        for gradient in [MAX_GRADIENT, -MAX_GRADIENT] {
            let gradients = vec![(gradient, MAX_HESSIAN); rows.len()];
            let packed: Vec<u32> = gradients.iter().map(|&(g, h)| pack(g, h)).collect();
            let mut parts = vec![Partial::new(vec![8]); 3];
            for threads in [1, 3, 2] {
                let histogram = filled(&binned, &packed, &rows, &mut parts[..threads]);
                assert_eq!(histogram.cells, plain(&binned, &gradients, &rows).cells);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn sums_are_exact_for_any_thread_count_and_parent_minus_child_is_the_other_child(
            seed in any::<u64>(), rows in 1usize..20_000, threads in 1usize..5
        ) {
            use crate::ml::random::{Purpose, draw};
            let width = 3;
            let at = |i: usize| draw(seed, Purpose::Rows, 0, i as u64);
            let binned = Binned { bins: (0..rows * width).map(|i| at(i) as u8).collect(), width, rows };
            let gradients: Vec<(i32, i32)> = (0..rows)
                .map(|i| ((at(i) >> 20) as i32 % (MAX_GRADIENT + 1), (at(i) >> 40) as i32 % (MAX_HESSIAN + 1)))
                .map(|(g, h)| (g, h.abs()))
                .collect();
            let packed: Vec<u32> = gradients.iter().map(|&(g, h)| pack(g, h)).collect();
            let all: Vec<u32> = (0..rows as u32).collect();
            let (left, right): (Vec<u32>, Vec<u32>) = all.iter().partition(|&&row| at(row as usize) & 1 == 0);
            let mut parts = vec![Partial::new(vec![255; width]); threads];
            let mut parent = filled(&binned, &packed, &all, &mut parts);
            prop_assert_eq!(&parent, &plain(&binned, &gradients, &all));
            let child = filled(&binned, &packed, &left, &mut parts);
            parent.subtract(&child);
            prop_assert_eq!(parent, plain(&binned, &gradients, &right));
        }
    }
}

//! The best split of one node, from its histogram.
//!
//! Gain and leaf values are the second-order ones of Friedman 2001 and Chen & Guestrin 2016 (XGBoost, §2.2); categories are sorted by
//! gradient statistics (Fisher 1958) as LightGBM does (Ke et al. 2017). Every comparison is of sums that are exact; ties go to
//! the lower feature, then the lower bin.

use crate::ml::bins::{BINS, Cut, MISSING};
use crate::ml::histogram::{Histogram, Sums};
use crate::ml::tree::Codes;

/// Which way a feature may move the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monotone {
    /// Any way.
    Free,
    /// Never down as the feature grows.
    Increasing,
    /// Never up.
    Decreasing,
}

/// What restrains splits.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Added to every hessian (L2).
    pub lambda: f64,
    /// Least gain.
    pub min_gain: f64,
    /// Least hessian of a child.
    pub min_hessian: f64,
    /// Least rows of a child, estimated by its share of the hessian.
    pub min_rows: f64,
    /// Rows per unit of hessian in the whole sample; set when a tree is begun.
    pub rows_per_hessian: f64,
    /// Added to the hessian of a category when sorting.
    pub category_smooth: f64,
    /// Added to `lambda` for splits by sets of categories.
    pub category_lambda: f64,
    /// Least rows of a category to be sorted in.
    pub category_rows: f64,
    /// Most categories in a set.
    pub category_set: usize,
    /// Per feature.
    pub monotone: Vec<Monotone>,
    /// Real gradient of one unit.
    pub gradient_unit: f64,
    /// Real hessian of one unit.
    pub hessian_unit: f64,
}

/// Least and greatest value that leaves below a node may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Least.
    pub low: f64,
    /// Greatest.
    pub high: f64,
}

impl Bounds {
    /// No bounds.
    pub const NONE: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };
}

/// Which bins go left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Left {
    /// Bins up to this one.
    UpTo(u8),
    /// These codes.
    Set(Codes),
}

/// A split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// How much the loss falls, in real units.
    pub gain: f64,
    /// Feature.
    pub feature: u16,
    /// What goes left.
    pub left: Left,
    /// Whether missing values go left.
    pub missing_left: bool,
    /// Sums of the left side.
    pub left_sums: Sums,
    /// L2 regularisation of the values of both sides.
    pub lambda: f64,
}

impl Split {
    /// For each bin, whether it goes left.
    #[must_use]
    pub fn table(&self) -> [bool; BINS] {
        let mut table = [false; BINS];
        for (bin, left) in table.iter_mut().enumerate() {
            *left = match self.left {
                Left::UpTo(last) => bin <= usize::from(last),
                Left::Set(codes) => crate::ml::tree::contains(&codes, bin as u8),
            };
        }
        table[usize::from(MISSING)] = self.missing_left;
        table
    }
}

/// Real gradient and hessian.
#[derive(Clone, Copy)]
struct Real {
    gradient: f64,
    hessian: f64,
}

impl Rules {
    fn real(&self, sums: Sums) -> Real {
        Real { gradient: sums.gradient as f64 * self.gradient_unit, hessian: sums.hessian as f64 * self.hessian_unit }
    }

    fn value_of(&self, real: Real, lambda: f64, bounds: Bounds) -> f64 {
        let hessian = real.hessian + lambda;
        if hessian <= 0.0 { 0.0 } else { (-real.gradient / hessian).clamp(bounds.low, bounds.high) }
    }

    /// The value of a leaf with these sums, before the learning rate.
    #[must_use]
    pub fn value(&self, sums: Sums, lambda: f64, bounds: Bounds) -> f64 {
        self.value_of(self.real(sums), lambda, bounds)
    }

    /// Twice the fall of the loss by a leaf of this value.
    fn gain(&self, real: Real, lambda: f64, value: f64) -> f64 {
        -(2.0 * real.gradient * value + (real.hessian + lambda) * value * value)
    }

    fn big_enough(&self, real: Real) -> bool {
        real.hessian >= self.min_hessian && real.hessian * self.rows_per_hessian >= self.min_rows
    }
}

/// Looks through one node's features.
pub struct Search<'a> {
    /// What restrains splits.
    pub rules: &'a Rules,
    /// The number of the histogram's first feature.
    pub first: usize,
    /// How the histogram's features are cut.
    pub cuts: &'a [Cut],
    /// Which of them may be split on.
    pub allowed: &'a [bool],
}

/// One node as its splits are compared.
struct Place<'a> {
    cells: &'a [Sums; BINS],
    feature: u16,
    total: Sums,
    parent_gain: f64,
    bounds: Bounds,
    best: Option<Split>,
}

impl Search<'_> {
    /// The best split of a node with this histogram, these sums and bounds; `None` if none gains.
    #[must_use]
    pub fn best(&self, histogram: &Histogram, total: Sums, bounds: Bounds) -> Option<Split> {
        let real = self.rules.real(total);
        if !self.rules.big_enough(Real { gradient: 0.0, hessian: real.hessian / 2.0 }) {
            return None;
        }
        let value = self.rules.value_of(real, self.rules.lambda, bounds);
        let parent_gain = self.rules.gain(real, self.rules.lambda, value);
        let mut best: Option<Split> = None;
        for (at, (cells, cut)) in histogram.cells.iter().zip(self.cuts).enumerate() {
            if !self.allowed[at] || cut.bins() + usize::from(cells[usize::from(MISSING)].hessian > 0) < 2 {
                continue;
            }
            let feature = (self.first + at) as u16;
            let mut place = Place { cells, feature, total, parent_gain, bounds, best };
            match cut {
                Cut::Number(_) => self.number(&mut place, cut.bins()),
                Cut::Category(_) => self.category(&mut place, cut.bins()),
            }
            best = place.best;
        }
        best.filter(|split| split.gain > self.rules.min_gain.max(0.0))
    }

    /// Considers one division; the parts of `Left` are only made if it is better.
    #[inline]
    fn consider(&self, place: &mut Place<'_>, left: Sums, lambda: f64, make: impl Fn() -> (Left, bool)) -> bool {
        let rules = self.rules;
        let (l, r) = (rules.real(left), rules.real(place.total.minus(left)));
        if !rules.big_enough(l) || !rules.big_enough(r) {
            return false;
        }
        let monotone = rules.monotone[usize::from(place.feature)];
        let (l_value, r_value) = (rules.value_of(l, lambda, place.bounds), rules.value_of(r, lambda, place.bounds));
        if (monotone == Monotone::Increasing && l_value > r_value)
            || (monotone == Monotone::Decreasing && l_value < r_value)
        {
            return true;
        }
        let gain = (rules.gain(l, lambda, l_value) + rules.gain(r, lambda, r_value) - place.parent_gain) / 2.0;
        if gain > place.best.map_or(0.0, |best| best.gain) {
            let (bins, missing_left) = make();
            place.best =
                Some(Split { gain, feature: place.feature, left: bins, missing_left, left_sums: left, lambda });
        }
        true
    }

    fn number(&self, place: &mut Place<'_>, bins: usize) {
        let missing = place.cells[usize::from(MISSING)];
        let no_missing = missing == Sums::default();
        let lambda = self.rules.lambda;
        let mut below = Sums::default();
        for bin in 0..bins {
            below = below.plus(place.cells[bin]);
            if place.cells[bin] == Sums::default() && bin > 0 {
                continue; // the same division as one bin before
            }
            if no_missing {
                // A value that was never missing here goes where most rows go.
                let total = place.total.hessian;
                self.consider(place, below, lambda, || (Left::UpTo(bin as u8), 2 * below.hessian >= total));
            } else {
                self.consider(place, below, lambda, || (Left::UpTo(bin as u8), false));
                self.consider(place, below.plus(missing), lambda, || (Left::UpTo(bin as u8), true));
            }
        }
    }

    /// Categories and "missing" alike are bins to be sorted. Codes without rows here are in no set, so they go right.
    fn category(&self, place: &mut Place<'_>, bins: usize) {
        let rules = self.rules;
        let filled = |bin: &usize| place.cells[*bin] != Sums::default();
        let used: Vec<usize> = (0..bins).chain([usize::from(MISSING)]).filter(filled).collect();
        if used.len() <= 4 {
            for &bin in &used {
                let one = place.cells[bin];
                self.consider(place, one, rules.lambda, || set(&[bin], bin == usize::from(MISSING)));
            }
            return;
        }
        let mut sorted: Vec<(f64, usize)> = used
            .into_iter()
            .map(|bin| (rules.real(place.cells[bin]), bin))
            .filter(|(real, _)| real.hessian * rules.rows_per_hessian >= rules.category_rows)
            .map(|(real, bin)| (real.gradient / (real.hessian + rules.category_smooth), bin))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let ascending: Vec<usize> = sorted.iter().map(|&(_, bin)| bin).collect();
        let descending: Vec<usize> = ascending.iter().rev().copied().collect();
        for order in [ascending, descending] {
            self.prefixes(place, &order);
        }
    }

    fn prefixes(&self, place: &mut Place<'_>, order: &[usize]) {
        let rules = self.rules;
        let lambda = rules.lambda + rules.category_lambda;
        let most = rules.category_set.min(order.len().div_ceil(2));
        let (mut left, mut group) = (Sums::default(), 0.0);
        for count in 1..=most {
            let sums = place.cells[order[count - 1]];
            left = left.plus(sums);
            group += rules.real(sums).hessian * rules.rows_per_hessian;
            if group < rules.category_rows {
                continue;
            }
            let members = &order[..count];
            if self.consider(place, left, lambda, || set(members, members.contains(&usize::from(MISSING)))) {
                group = 0.0;
            }
        }
    }
}

fn set(bins: &[usize], missing_left: bool) -> (Left, bool) {
    let mut codes = Codes::default();
    for &bin in bins.iter().filter(|&&bin| bin != usize::from(MISSING)) {
        codes[bin / 64] |= 1 << (bin % 64);
    }
    (Left::Set(codes), missing_left)
}

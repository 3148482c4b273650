//! Strata are frozen when a benchmark is sealed, before any candidate is seen; afterwards each must not get worse.

use super::compare::{Comparison, SMALLEST_CELL};
use crate::math;

/// One-sided level at which every guardrail and stratum is tested. No correction: all must pass, so the chance that an inferior
/// one slips through is at most this (intersection–union, Berger 1982).
pub const NON_INFERIORITY_LEVEL: f64 = 0.05;

/// A level is a stratum of its own when its planned standard error is at most the margin over this.
pub const MARGIN_OVER_ERROR: f64 = 2.5;

/// The name of what small levels are merged into.
pub const OTHER: &str = "other";

/// A level of a stratification, as it stands in the rows to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Rows of each class in it; empty where classes do not matter.
    pub classes: Vec<u64>,
}

impl Level {
    /// Rows that count for precision: of the smallest class where classes matter.
    #[must_use]
    pub fn effective_rows(&self) -> u64 {
        self.classes.iter().copied().min().unwrap_or(self.rows)
    }

    /// Standard error of an improvement when a row's paired difference has this standard deviation; infinite without rows.
    #[must_use]
    pub fn standard_error(&self, deviation: f64) -> f64 {
        deviation / math::sqrt(self.effective_rows() as f64)
    }

    fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.classes.resize(self.classes.len().max(other.classes.len()), 0);
        for (own, more) in self.classes.iter_mut().zip(&other.classes) {
            *own += more;
        }
    }
}

/// The strata that a seal records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Levels that are strata of their own, by name, then `other` if there is one.
    pub strata: Vec<Level>,
    /// Names of the levels that were merged into `other`.
    pub merged: Vec<String>,
}

impl Frozen {
    /// The stratum of a level; `None` for a level that was not in the sealed rows.
    #[must_use]
    pub fn stratum_of(&self, level: &str) -> Option<usize> {
        let name = if self.merged.iter().any(|merged| merged == level) { OTHER } else { level };
        self.strata.iter().position(|stratum| stratum.name == name)
    }
}

/// Freezes strata: levels whose standard error would exceed margin / 2.5 are merged into `other`; while `other` is too small
/// itself, the smallest remaining level joins it. `None` if even all rows together are too few, or an argument is not positive.
#[must_use]
pub fn freeze(mut levels: Vec<Level>, deviation: f64, margin: f64) -> Option<Frozen> {
    if !(deviation > 0.0 && margin > 0.0 && deviation.is_finite() && margin.is_finite()) || levels.is_empty() {
        return None;
    }
    let large = |level: &Level| {
        level.standard_error(deviation) <= margin / MARGIN_OVER_ERROR
            && level.effective_rows() >= SMALLEST_CELL
            && level.name != OTHER
    };
    levels.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut kept, small): (Vec<Level>, Vec<Level>) = levels.into_iter().partition(large);
    let mut merged: Vec<String> = small.iter().map(|level| level.name.clone()).collect();
    let mut other = Level { name: OTHER.to_owned(), rows: 0, classes: Vec::new() };
    small.iter().for_each(|level| other.merge(level));
    let enough = |level: &Level| {
        level.standard_error(deviation) <= margin / MARGIN_OVER_ERROR && level.effective_rows() >= SMALLEST_CELL
    };
    while !merged.is_empty() && !enough(&other) {
        let smallest = (0..kept.len()).min_by_key(|at| (kept[*at].effective_rows(), *at))?;
        let level = kept.remove(smallest);
        other.merge(&level);
        merged.push(level.name);
    }
    merged.sort();
    if !merged.is_empty() {
        kept.push(other);
    }
    Some(Frozen { strata: kept, merged })
}

/// What non-inferiority says about one guardrail or stratum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonInferiority {
    /// The improvement's lower bound is above −margin.
    Shown,
    /// It is not.
    NotShown,
    /// A class has too few rows for the method, or there are too few rows at all: every method here holds for many.
    TooSmall,
}

/// Tests that the candidate is not worse by `margin` (≥ 0, in the metric's unit) or more.
#[must_use]
pub fn non_inferior(comparison: &Comparison, margin: f64) -> NonInferiority {
    let few = |rows: u64| rows < SMALLEST_CELL;
    if comparison.smallest_class.is_some_and(few) || few(comparison.rows) {
        return NonInferiority::TooSmall;
    }
    // Written so that a bound that is no number fails.
    if margin >= 0.0 && comparison.evidence.non_inferiority_bound(NON_INFERIORITY_LEVEL) > -margin {
        NonInferiority::Shown
    } else {
        NonInferiority::NotShown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &str, rows: u64) -> Level {
        Level { name: name.to_owned(), rows, classes: Vec::new() }
    }

    #[test]
    fn small_levels_become_other_and_are_listed() {
        // 0.3/√n ≤ 0.02/2.5 from n = 1407 on.
        let frozen =
            freeze(vec![level("c", 1_407), level("a", 1_406), level("b", 9_000), level("d", 800)], 0.3, 0.02).unwrap();
        let names: Vec<&str> = frozen.strata.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["b", "c", "other"]);
        assert_eq!(frozen.merged, ["a", "d"]);
        assert_eq!(
            (frozen.stratum_of("a"), frozen.stratum_of("c"), frozen.stratum_of("new")),
            (Some(2), Some(1), None)
        );
    }

    #[test]
    fn fifty_rows_are_a_stratum_and_forty_nine_are_not_however_precise() {
        let frozen = freeze(vec![level("a", 50), level("b", 49), level("c", 49)], 1e-6, 0.02).unwrap();
        assert_eq!(frozen.merged, ["b", "c"]);
        let frozen = freeze(vec![level("a", 50), level("b", 49), level("c", 60)], 1e-6, 0.02).unwrap();
        assert_eq!(frozen.merged, ["a", "b"], "forty-nine are too few for `other` as well");
        let frozen = freeze(vec![level("a", 60), level("b", 25), level("c", 25)], 1e-6, 0.02).unwrap();
        assert_eq!(frozen.merged, ["b", "c"], "fifty are enough for `other`");
    }

    #[test]
    fn other_grows_by_the_smallest_level_until_it_can_be_tested() {
        let frozen = freeze(vec![level("a", 10), level("b", 2_000), level("c", 9_000)], 0.3, 0.02).unwrap();
        assert_eq!(frozen.merged, ["a", "b"]);
        assert_eq!(frozen.strata.iter().map(|s| s.rows).collect::<Vec<_>>(), [9_000, 2_010]);
        assert_eq!(freeze(vec![level("a", 10), level("b", 20)], 0.3, 0.02), None);
        assert_eq!(freeze(vec![level("a", 10)], 0.3, 0.0), None);
    }

    #[test]
    fn the_smaller_class_decides_where_classes_matter() {
        let one =
            |name: &str, classes: [u64; 2]| Level { name: name.to_owned(), rows: 5_000, classes: classes.to_vec() };
        let frozen = freeze(vec![one("a", [4_900, 100]), one("b", [3_000, 2_000])], 0.3, 0.02).unwrap();
        assert_eq!(frozen.merged, ["a"].map(str::to_owned).into_iter().chain(["b".to_owned()]).collect::<Vec<_>>());
        assert_eq!(frozen.strata[0].classes, [7_900, 2_100]);
    }

    #[test]
    fn a_level_that_is_called_other_is_merged_and_not_confused_with_the_rest() {
        let frozen = freeze(vec![level(OTHER, 9_000), level("b", 9_000)], 0.3, 0.02).unwrap();
        assert_eq!(frozen.merged, [OTHER]);
        assert_eq!(frozen.strata.len(), 2);
    }
}

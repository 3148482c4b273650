//! The validation fold: rows that judge and do not teach. Row by row it is drawn by the rows' hashes, so that a row is on the same side
//! whatever stands beside it; where a contract says so, groups stay together, or the newest rows judge.

use sha2::{Digest, Sha256};

use super::Training;
use super::random::{Purpose, draw, share};

/// How the validation fold is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fold {
    /// Row by row.
    Rows,
    /// By the rows' groups, a key each: all rows of a group are on one side.
    Groups(Vec<u64>),
    /// By the rows' times: the latest judge, those without one teach.
    Newest(Vec<Option<i64>>),
}

impl Fold {
    /// For how many rows it is; none for any number.
    #[must_use]
    pub fn rows(&self) -> Option<usize> {
        match self {
            Self::Rows => None,
            Self::Groups(keys) => Some(keys.len()),
            Self::Newest(times) => Some(times.len()),
        }
    }

    /// Binds a checkpoint to it.
    pub(super) fn absorb(&self, hash: &mut Sha256) {
        match self {
            Self::Rows => {}
            Self::Groups(keys) => keys.iter().for_each(|key| hash.update(key.to_le_bytes())),
            Self::Newest(times) => times.iter().for_each(|time| {
                hash.update([u8::from(time.is_some())]);
                hash.update(time.unwrap_or_default().to_le_bytes());
            }),
        }
    }
}

/// Positions of the rows to learn from and of those that only judge: `validation` of them, as nearly as the cut allows.
pub(crate) fn folds(training: &Training<'_>, validation: f64) -> (Vec<u32>, Vec<u32>) {
    let rows = 0..training.labels.len() as u32;
    if validation == 0.0 {
        return (rows.collect(), Vec::new());
    }
    let limit = share(validation);
    let drawn = |keys: &[u64], row: u32| draw(training.seed, Purpose::Validation, 0, keys[row as usize]) < limit;
    let (judge, learn) = match training.fold {
        Fold::Rows => rows.partition(|row| drawn(training.row_keys, *row)),
        Fold::Groups(keys) => rows.partition(|row| drawn(keys, *row)),
        Fold::Newest(times) => {
            let last = last_to_learn(times, validation);
            rows.partition(|row| times[*row as usize].is_some_and(|time| last.is_some_and(|last| time > last)))
        }
    };
    (learn, judge)
}

/// The latest time that teaches. Rows of one time stay together, so fewer than the share may judge, and never more.
fn last_to_learn(times: &[Option<i64>], validation: f64) -> Option<i64> {
    let mut known: Vec<i64> = times.iter().copied().flatten().collect();
    known.sort_unstable();
    let judge = (known.len() as f64 * validation) as usize;
    known.len().checked_sub(judge + 1).and_then(|place| known.get(place)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ml::Task;
    use crate::ml::encoding::Features;

    fn cut(fold: &Fold, rows: usize, seed: u64, validation: f64) -> (Vec<u32>, Vec<u32>) {
        let (labels, row_keys) = (vec![0.0; rows], (0..rows as u64).map(|row| row * 7).collect::<Vec<_>>());
        let features = Features { columns: Vec::new(), names: Vec::new(), rows };
        let task = Task::Number;
        let (labels, row_keys) = (&labels[..], &row_keys[..]);
        folds(
            &Training { features: &features, labels, task: &task, row_keys, fold, seed, threads: 1, warm: None },
            validation,
        )
    }

    proptest! {
        #[test]
        fn every_row_teaches_or_judges_and_rows_of_a_group_do_the_same(
            groups in prop::collection::vec(0_u64..40, 1..400), seed: u64, validation in 0.0..0.9
        ) {
            let (learn, judge) = cut(&Fold::Groups(groups.clone()), groups.len(), seed, validation);
            let mut all = [learn, judge.clone()].concat();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..groups.len() as u32));
            let judges = |row: usize| judge.contains(&(row as u32));
            let first = |group: u64| groups.iter().position(|other| *other == group).unwrap();
            prop_assert!((0..groups.len()).all(|row| judges(row) == judges(first(groups[row]))));
        }

        #[test]
        fn whoever_judges_is_later_than_everybody_who_teaches_and_no_more_than_the_share(
            times in prop::collection::vec(prop::option::of(-50_i64..50), 1..400), seed: u64, validation in 0.0..0.9
        ) {
            let (learn, judge) = cut(&Fold::Newest(times.clone()), times.len(), seed, validation);
            prop_assert_eq!(learn.len() + judge.len(), times.len());
            let time = |row: &u32| times[*row as usize];
            prop_assert!(judge.iter().all(|row| time(row).is_some()));
            prop_assert!(judge.iter().all(|late| learn.iter().all(|early| time(early) < time(late))));
            prop_assert!(judge.len() as f64 <= validation * times.len() as f64);
            prop_assert!(!learn.is_empty());
        }
    }

    #[test]
    fn the_share_that_judges_is_about_what_was_asked_for() {
        let groups = Fold::Groups((0..10_000).map(|row| row / 10).collect());
        let by_group = cut(&groups, 10_000, 1, 0.2).1.len();
        assert!((1_700..2_300).contains(&by_group), "{by_group}");
        let newest = Fold::Newest((0..10_000).rev().map(Some).collect());
        let (learn, judge) = cut(&newest, 10_000, 1, 0.2);
        assert_eq!((judge, learn.len()), ((0..2_000).collect(), 8_000));
        assert_eq!(cut(&newest, 10_000, 2, 0.2).0, learn, "no seed moves a time");
        assert_ne!(cut(&groups, 10_000, 2, 0.2), cut(&groups, 10_000, 1, 0.2));
        let nobody = Fold::Newest(vec![None; 5]);
        assert_eq!(cut(&nobody, 5, 1, 0.5).1, Vec::<u32>::new());
    }
}

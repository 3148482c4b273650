//! Fail points: places around every commit step where a test can make the process die.
//!
//! `HOKUSAI_FAILPOINT=name[@stage][:nth]` aborts the process (as `kill -9` would: no destructor, no flush) when the point of
//! that name is passed for the nth time, counted over the whole process from 1, or over the tasks of one stage for a point of
//! theirs. The points `power.…` are the embedded broker's: before it aborts there, every byte that was not forced to the disk is taken away, as when the machine loses its
//! power. Compiled in debug builds only.

/// A place where a test may end the process; nothing in release builds.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::failpoint::hit($name, None);
    };
    ($name:literal, $stage:expr) => {
        #[cfg(debug_assertions)]
        $crate::failpoint::hit($name, Some($stage));
    };
}

/// Every fail point by name; `HOKUSAI_FAILPOINT` with another name is reported when the first point is passed.
pub const NAMES: &[&str] = &[
    "restore.middle",
    "revoke.drain",
    "commit.before",
    "commit.after_produce",
    "commit.after_offsets",
    "commit.after",
    "state.after_runs",
    "state.after_manifest",
    "snapshot.after_blobs",
    "snapshot.after_manifest",
    "snapshot.installing",
    "warehouse.after_delta_commit",
    "power.before_sync",
    "power.after_sync",
    "attesting.before_keeping",
    "attesting.after_local",
    "attesting.after_store",
    "training.learning",
    "training.offering",
    "training.importing",
    "training.finishing",
    "evaluation.scoring",
    "evaluation.concluding",
    "attribution.playing",
];

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What `HOKUSAI_FAILPOINT` names.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Point {
        pub name: String,
        pub stage: Option<String>,
        pub nth: u64,
    }

    struct Armed {
        point: Point,
        hits: AtomicU64,
    }

    /// Reads `name[@stage][:nth]`; `None` when it names no point.
    pub(super) fn parse(text: &str) -> Option<Point> {
        let (point, nth) = text.split_once(':').unwrap_or((text, "1"));
        let (name, stage) = point.split_once('@').map_or((point, None), |(name, stage)| (name, Some(stage.to_owned())));
        let nth = nth.parse().ok().filter(|n| *n > 0)?;
        super::NAMES.contains(&name).then(|| Point { name: name.to_owned(), stage, nth })
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        ARMED
            .get_or_init(|| {
                let text = std::env::var("HOKUSAI_FAILPOINT").ok().filter(|t| !t.is_empty())?;
                let Some(point) = parse(&text) else {
                    tracing::error!(failpoint = %text, "unknown fail point; help: use one of {:?}", super::NAMES);
                    return None;
                };
                Some(Armed { point, hits: AtomicU64::new(0) })
            })
            .as_ref()
    }

    /// Whether this is the time to end at a point, passed by a task of this stage; counts the passing.
    pub fn reached(name: &str, stage: Option<&str>) -> bool {
        let reached = armed().is_some_and(|armed| {
            let Point { name: own, stage: of, nth } = &armed.point;
            own == name
                && of.as_deref().is_none_or(|of| stage == Some(of))
                && armed.hits.fetch_add(1, Ordering::Relaxed) + 1 == *nth
        });
        if reached {
            tracing::error!(failpoint = name, stage, "fail point reached: the process ends here");
        }
        reached
    }

    /// Passes a fail point; called by [`failpoint!`](crate::failpoint).
    pub fn hit(name: &str, stage: Option<&str>) {
        if reached(name, stage) {
            std::process::abort();
        }
    }
}

#[cfg(debug_assertions)]
pub use armed::{hit, reached};

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::armed::{Point, parse};

    #[test]
    fn a_fail_point_is_named_with_an_optional_stage_and_count() {
        let point = |name: &str, stage: Option<&str>, nth| {
            Some(Point { name: name.to_owned(), stage: stage.map(str::to_owned), nth })
        };
        assert_eq!(parse("commit.before"), point("commit.before", None, 1));
        assert_eq!(parse("commit.after:7"), point("commit.after", None, 7));
        assert_eq!(parse("commit.after@training:2"), point("commit.after", Some("training"), 2));
    }

    #[test]
    fn an_unknown_fail_point_or_a_count_of_zero_arms_nothing() {
        assert_eq!(parse("commit.bofore"), None);
        assert_eq!(parse("commit.before:0"), None);
        assert_eq!(parse("commit.before@training:x"), None);
    }
}

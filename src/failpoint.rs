//! Fail points: places around every commit step where a test can make the process die.
//!
//! `HOKUSAI_FAILPOINT=name[:nth]` aborts the process (as `kill -9` would: no destructor, no flush) when the point of
//! that name is passed for the nth time, counted over the whole process from 1. The points `power.…` are the embedded
//! broker's: before it aborts there, every byte that was not forced to the disk is taken away, as when the machine loses its
//! power. Compiled in debug builds only.

/// A place where a test may end the process; nothing in release builds.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::failpoint::hit($name);
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
    "evaluation.scoring",
];

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        nth: u64,
        hits: AtomicU64,
    }

    /// Reads `name[:nth]`; `None` when it names no point.
    pub(super) fn parse(text: &str) -> Option<(String, u64)> {
        let (name, nth) = text.split_once(':').map_or((text, "1"), |(n, c)| (n, c));
        let nth = nth.parse().ok().filter(|n| *n > 0)?;
        super::NAMES.contains(&name).then(|| (name.to_owned(), nth))
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        ARMED
            .get_or_init(|| {
                let text = std::env::var("HOKUSAI_FAILPOINT").ok().filter(|t| !t.is_empty())?;
                let Some((name, nth)) = parse(&text) else {
                    tracing::error!(failpoint = %text, "unknown fail point; help: use one of {:?}", super::NAMES);
                    return None;
                };
                Some(Armed { name, nth, hits: AtomicU64::new(0) })
            })
            .as_ref()
    }

    /// Whether this is the time to end at a point; counts the passing.
    pub fn reached(name: &str) -> bool {
        let reached = armed()
            .is_some_and(|armed| armed.name == name && armed.hits.fetch_add(1, Ordering::Relaxed) + 1 == armed.nth);
        if reached {
            tracing::error!(failpoint = name, "fail point reached: the process ends here");
        }
        reached
    }

    /// Passes a fail point; called by [`failpoint!`](crate::failpoint).
    pub fn hit(name: &str) {
        if reached(name) {
            std::process::abort();
        }
    }
}

#[cfg(debug_assertions)]
pub use armed::{hit, reached};

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::armed::parse;

    #[test]
    fn a_fail_point_is_named_with_an_optional_count() {
        assert_eq!(parse("commit.before"), Some(("commit.before".to_owned(), 1)));
        assert_eq!(parse("commit.after:7"), Some(("commit.after".to_owned(), 7)));
    }

    #[test]
    fn an_unknown_fail_point_or_a_count_of_zero_arms_nothing() {
        assert_eq!(parse("commit.bofore"), None);
        assert_eq!(parse("commit.before:0"), None);
        assert_eq!(parse("commit.before:x"), None);
    }
}

//! What every integration test stands on: brokers and workers as child processes, clients that are not ours, and waiting without sleeping.
//!
//! * No test waits for a length of time: it polls for a fact with a deadline that is far beyond what the fact needs ([`eventually`]).
//! * Nothing outlives the test binary: each child is known to a watchdog that ends it when this process is gone, however it went ([`keeper`]).
//! * A missing tool is said ("skipped: …") and, under `CI=true`, a failure ([`skip`]).

pub mod broker;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod flow;
pub mod hokusai;
pub mod kafka;
pub mod keeper;
pub mod late;
pub mod raw;
pub mod s3;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Far beyond what anything here takes on a busy two-core machine: only a hang reaches it.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Asks for a fact until it is there; panics with `what` and the last reason when the deadline passes.
pub fn eventually<T>(what: &str, mut fact: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match fact() {
            Ok(value) => return value,
            Err(reason) => assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; last: {reason}"),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Says that something is left out and why; under `CI=true` nothing may be.
pub fn skip(what: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}: {reason}; under CI=true nothing may be skipped");
    println!("skipped: {what}: {reason}");
}

/// Where jars and the Python environment live: `HOKUSAI_CACHE`, or the user's cache folder.
pub fn cache() -> PathBuf {
    std::env::var_os("HOKUSAI_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| ".".into())).join(".cache/hokusai"),
        PathBuf::from,
    )
}

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A free TCP port on loopback. Somebody else may take it before it is used: callers that can, listen on port 0 instead.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// A name that no other test of this run uses.
pub fn unique(base: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{base}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes each named case a test on the embedded broker and a test on Apache Kafka.
#[macro_export]
macro_rules! on_both_brokers {
    ($($case:ident),+ $(,)?) => {
        mod embedded {
            $(#[test] fn $case() { $crate::support::broker::with($crate::support::broker::Kind::Embedded, super::$case); })+
        }
        mod apache_kafka {
            $(#[test] fn $case() { $crate::support::broker::with($crate::support::broker::Kind::ApacheKafka, super::$case); })+
        }
    };
}

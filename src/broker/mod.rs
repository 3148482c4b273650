//! An embedded Kafka broker: one node, durable, transactional, compacting, speaking Kafka's protocol.
//!
//! It exists so that one command on one machine gives exactly-once pipelines with nothing installed; the same
//! clients work unchanged on an Apache Kafka cluster, whose results it is built to equal.
//!
//! ```text
//!  connection ─ frame ─► wire (shape check) ─► api (one file per family)
//!                                               │            │
//!                              topics ─ log ◄───┘            └──► coordinator (groups, transactions)
//!                                        │                              │
//!                                        └────────► flusher ◄───────── meta
//!                                                      │
//!                                                    disk
//! ```
//!
//! Invariants, each told in full in the module that keeps it:
//! - what was acknowledged with `acks=all`, and every ended transaction, survives power loss; and consumers see
//!   only what would survive it ([`flusher`], [`log`]);
//! - a transaction is visible as a whole or not at all ([`coordinator`]);
//! - offsets are never given twice ([`log`]);
//! - no length sent by a client is trusted before it is checked ([`wire`]), no request is answered out of order
//!   ([`connection`]), and no client can make the broker keep unbounded memory ([`Limits`]).
//!
//! The broker runs on threads of its own, because it writes and reads files in place: a slow disk then never
//! holds up the runtime of the program it is embedded in.

mod api;
mod config;
mod connection;
mod coordinator;
mod crowd;
mod disk;
mod error;
mod flusher;
mod log;
mod maintenance;
mod meta;
mod node;
mod server;
mod topic_config;
mod topics;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

pub use config::{BrokerConfig, Fsync, Limits};
pub use error::BrokerError;
pub use node::BrokerStats;
pub use server::Broker;

/// Locks, also after a panic of another holder: every critical section leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Milliseconds of the clock, as Kafka counts time.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

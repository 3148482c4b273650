//! The Kafka runtime: micro-batches, progress, transactions, state with changelog, broadcast, time, rebalance.
//!
//! | module | what |
//! |---|---|
//! | [`stage`] | what a stage is to the runtime |
//! | [`runtime`] | configuration, start and end |
//! | [`client`] | settings of every Kafka client; questions to the cluster |
//! | [`health`], [`metrics`] | what operations see |
//! | [`progress`] | how far a task has read, and where it starts: pure decisions |
//! | [`state`] | small keyed state |
//! | [`runs`] | sorted runs on disk, for state larger than memory |
//! | [`snapshot`] | state in the shared store, for a machine that is new to a partition |
//! | `supervisor`, `tasks`, `control` | one stage in one process: group, rebalance, supervision |
//! | `task`, `reading`, `transaction`, `replay`, `producer`, `recovery`, `restore` | one task: restore, the transaction, what follows an abort |
//! | `consumer`, `broadcast` | reading |
//! | `purge`, [`retention`] | deletes what every declared reader has read; alerts when plaintext waits too long for that |
//! | [`ffi`] | the librdkafka calls that rdkafka lacks |

pub mod client;
pub mod ffi;
pub mod health;
pub mod metrics;
pub mod outside;
pub mod partitioner;
pub mod progress;
pub mod retention;
pub mod runs;
pub mod runtime;
pub mod snapshot;
pub mod stage;
pub mod state;

mod batch;
mod broadcast;
pub(crate) mod consumer;
mod control;
mod producer;
mod purge;
mod reading;
mod recovery;
mod replay;
mod restore;
mod supervisor;
mod task;
mod tasks;
mod transaction;

pub use client::{Admin, Cluster};
pub use health::Health;
pub use purge::{Kept, KeptAnswer};
pub use runtime::{Runtime, RuntimeConfig, RuntimeError, Settings};

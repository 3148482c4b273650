#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
//! Hokusai turns contributed data into proven machine-learning improvements.
//!
//! Contributions, commands and outcomes are Kafka topics; stages validate, tokenise, deduplicate and
//! account for them, each micro-batch in one Kafka transaction. `ARCHITECTURE.md` tells the life of one
//! contribution step by step.
//!
//! Dependencies point one way: `domain` knows nothing of ours; `pii`, `attest` and `codec` know `domain`;
//! `stream` knows `domain` and `codec`; `stages` know the stage trait; only `pipeline` knows all stages.

pub mod attest;
pub mod broker;
pub mod cli;
pub mod codec;
pub mod domain;
pub mod failpoint;
#[cfg(test)]
mod fuzz;
pub mod installation;
pub mod math;
pub mod ml;
pub mod ops;
mod pace;
pub mod pii;
pub mod pipeline;
pub mod recompute;
pub mod report;
pub mod rowsql;
pub mod sealing;
pub mod sql;
pub mod stages;
pub mod stats;
pub mod store;
pub mod stream;
pub mod topology;
pub mod web;

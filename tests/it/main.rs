//! Integration tests: one binary, so that it links once.
//!
//! * [`conformance`]: the same cases against the embedded broker and Apache Kafka 4.1: what one does, the other does.
//! * [`support`]: processes, clients, waiting.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod support;

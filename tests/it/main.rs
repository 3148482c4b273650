//! Integration tests: one binary, so that it links once.
//!
//! * [`conformance`]: the same cases against the embedded broker and Apache Kafka 4.1: what one does, the other does.
//! * [`e2e`]: from a contribution to its receipt, on both brokers, through what other programs rely on.
//! * [`crash`]: kill -9 and fail points under load, and a verifier that recomputes everything.
//! * [`onnx`]: exported models score in onnxruntime as they do here.
//! * [`runtime`]: the stream runtime with toy stages: exactly-once, restore, rebalance, fencing, named stops.
//! * [`topology`]: topics as the topology declares them, on both brokers.
//! * [`support`]: processes, clients, waiting.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod crash;
mod e2e;
mod latency;
mod onnx;
mod runtime;
mod support;
mod topology;

//! The embedded broker is Apache Kafka for its clients: each case runs on both, and both must show the documented outcome.
//!
//! Cases go through librdkafka; raw requests are used where it hides what counts (error codes, fencing, stable offsets). A case collects
//! what it saw and compares it whole, so that a difference shows everything at once.

mod admin;
mod clients;
mod crowd;
mod groups;
mod idempotence;
mod log;
mod malformed;
mod restart;
mod retention;
mod transactions;

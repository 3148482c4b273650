//! The stream runtime on both brokers, with two toy stages: what exactly-once means, case by case.
//!
//! `relay` (stateless, broadcast, marks) passes records of an outsiders' topic on; `sums` (stateful, two keyed inputs)
//! adds amounts up per key and writes one output per input record. So the number of outputs tells lost and duplicated
//! records, and the last output of a key tells whether the state was right.

mod cases;
mod expiry;
mod outage;
mod rebalance;
mod state;
mod stops;
pub mod toy;

//! The Kafka runtime: micro-batches, progress, transactions, state with changelog, broadcast, time, rebalance.

pub mod stage;

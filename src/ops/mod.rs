//! Operations: logs, metrics, health, signals, secrets on disk.

pub mod blobs;
pub mod evaluator;
pub mod filters;
pub mod health;
pub mod log_keeper;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod profile;
pub mod rotation;
pub mod secrets;
pub mod signals;
pub mod time;
pub mod trainer;

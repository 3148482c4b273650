//! Facts and ids: what travels on the topics and what the stages agree on. Pure: depends on nothing of ours.

pub mod contract;
pub mod keys;
pub mod limits;
pub mod quality;
pub mod reason;
pub mod records;
pub mod topics;

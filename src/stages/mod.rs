//! The stages, one file or folder each, by the names of `topology/hokusai.yaml`.

pub mod attesting;
pub mod attribution;
pub mod beside;
pub mod dedup;
pub mod entry;
pub mod evaluation;
pub mod intake;
pub mod keying;
pub mod limits;
pub mod models;
#[cfg(test)]
mod path_tests;
pub mod receipts;
pub mod registry;
#[cfg(test)]
mod testing;
pub mod training;
pub mod trials;
pub mod warehouse;

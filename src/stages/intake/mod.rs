//! Intake: from a chunk as an outsider sent it to screened rows, refusals, and one manifest.

mod checks;
pub mod contract;
mod shape;
mod sql;

#[cfg(test)]
mod tests;

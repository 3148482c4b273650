//! Public topics as Delta tables.

pub mod columns;
pub mod decode;
pub mod error;
mod lane;
pub mod maintenance;
mod records;
pub mod store;
pub mod tables;
pub mod writer;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

//! Personal data: found in a cell, and replaced by tokens.
//!
//! - [`scan`] finds personal data in one cell: one pass over the bytes rules most cells out, then patterns, check
//!   digits ([`checks`]) and context ([`words`], [`column`]) decide.
//! - [`normal`] brings a value to one spelling.
//! - [`screen`] does this for Arrow columns under a contract's policy, and makes the tokens.
//! - [`vote`] tells a column that holds personal data although nobody declared it.
//!
//! Invariants: what becomes of a cell depends on the cell, its column's name and the contract only; no log
//! line, error or count holds a value.

pub mod checks;
pub mod column;
pub mod kinds;
pub mod normal;
pub mod scan;
pub mod screen;
pub mod vote;
pub mod words;

mod birth;
mod candidate;
mod found;
mod generalise;
mod net;
mod people;
mod places;
mod token;

#[cfg(test)]
mod corpus;

pub use generalise::Generalisation;
pub use kinds::PiiType;
pub use screen::{ColumnOutcome, ColumnRule, ColumnScreener, Policy, ScreenError};
pub use vote::Undeclared;

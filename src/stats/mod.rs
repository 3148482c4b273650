//! Paired statistics on sealed benchmarks: what decides whether a candidate replaces the baseline, and who contributed what.
//!
//! Both models score the same rows, so every test is paired. The order of things:
//!
//! 1. [`fixed`]: scores become integers of 10⁻⁶, once;
//! 2. [`rows`]: labels and both models' scores are checked and put into an order of their own;
//! 3. [`metric`], [`counts`], [`auc`]: values of metrics as fractions of integers;
//! 4. [`compare`]: per metric the method that decides, with its one-sided p-value and lower bound;
//! 5. [`bootstrap`], [`permutation`], [`proportion`], [`calibration`], [`folds`]: what is reported beside it;
//! 6. [`strata`], [`multiplicity`], [`decision`]: non-inferiority, the attempt's level, and the decision, which refuses
//!    whatever is missing;
//! 7. [`family`], [`attempts`]: who shares attempts, who is attempt t and may be scored now;
//! 8. [`ladder`], [`evaluation`]: the whole record, and the little that may be told of a refused attempt;
//! 9. [`attribution`]: the accepted improvement's shares.
//!
//! [`declare`] reads a contract's metrics and margins.
//!
//! Everything is pure: no clock, no file, no thread count and no order of rows shows in a result, not even in its last bit.
//! Sums are integers of 128 and 256 bits ([`exact`]); random numbers are functions of a declared seed ([`random`]); floating-point
//! functions come from `crate::math`.

pub mod attempts;
pub mod attribution;
pub mod auc;
pub mod bootstrap;
pub mod calibration;
pub mod compare;
pub mod counts;
pub mod decision;
pub mod declare;
pub mod distribution;
pub mod evaluation;
pub mod exact;
pub mod family;
pub mod fixed;
pub mod folds;
pub mod ladder;
pub mod metric;
pub mod multiplicity;
pub mod permutation;
pub mod proportion;
pub mod random;
pub mod resample;
pub mod rows;
pub mod strata;

#[cfg(test)]
mod null_tests;
#[cfg(test)]
mod vector_tests;

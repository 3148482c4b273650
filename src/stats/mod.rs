//! Paired statistics on sealed benchmarks.
pub mod attribution;
pub mod auc;
pub mod bootstrap;
pub mod calibration;
pub mod compare;
pub mod counts;
pub mod decision;
pub mod distribution;
pub mod evaluation;
pub mod exact;
pub mod fixed;
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
mod vector_tests;

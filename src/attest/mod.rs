//! Records that strangers can verify: Merkle trees, row commitments, strict JSON, signed envelopes, statements, a log of them
//! with signed tree heads, and the offline check.
//!
//! Everything here is pure: no clock, no randomness, no I/O, so the same input gives the same bytes everywhere.

pub mod attribution;
pub mod benchmark;
pub mod bundle;
pub mod checkpoint;
pub mod contributor;
pub mod decision;
pub mod dsse;
pub mod eval_result;
pub mod evaluation;
pub mod figures;
pub mod jcs;
pub mod nodes;
pub mod note;
pub mod predicate;
pub mod receipt;
pub mod roots;
pub mod row;
pub mod samples;
pub mod statement;
pub mod tree;
pub mod trust;
pub mod verify;

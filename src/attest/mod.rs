//! Records that strangers can verify: Merkle trees, row commitments, strict JSON, signed envelopes.
//!
//! Everything here is pure: no clock, no randomness, no I/O, so the same input gives the same bytes everywhere.

pub mod decision;
pub mod dsse;
pub mod jcs;
pub mod row;
pub mod tree;
pub mod trust;

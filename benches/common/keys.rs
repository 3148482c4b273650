//! Synthetic rows for the benchmarks of deduplication.

use hokusai::stages::dedup::index::RowKey;
use hokusai::stages::dedup::owners::OwnerFacts;

/// SplitMix64: keys as uniform as those of an HMAC.
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The hashes of row `i`.
pub fn key(i: u64) -> RowKey {
    let features = (u128::from(mix(2 * i)) << 64) | u128::from(mix(2 * i + 1));
    RowKey { features, tag: mix(i ^ 0xABCD) }
}

/// Whose the rows from `i` on are.
pub fn facts(i: u64) -> OwnerFacts {
    OwnerFacts { ident: u128::from(mix(i)), batch: u128::from(i), contributor: u128::from(i % 7), chunk: 0 }
}

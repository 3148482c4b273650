//! The partition log: segment files of raw record batches, as producers sent them.
//!
//! Invariants:
//! - offsets never go back and are never given twice, whatever is deleted, compacted or torn off;
//! - a batch is stored and served as it came; only its header is rewritten (base offset, leader epoch, append time);
//! - only the last segment is written to. A segment is on the disk, whole, before the next one begins;
//! - readers see what is below the high watermark: on the disk, when fsync gates readers;
//! - `read_committed` readers see what is below the last stable offset: below every open transaction.

pub(crate) mod batch;
pub(crate) mod codec;
pub(crate) mod compact;
pub(crate) mod partition;
pub(crate) mod producers;
pub(crate) mod recover;
pub(crate) mod retention;
pub(crate) mod segment;

#[cfg(test)]
mod tests;

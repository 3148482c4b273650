//! Sealed benchmarks: rows that nobody sees again but the stages evaluation and attribution.
//!
//! [`make`] turns rows that passed the contract into what a seal publishes (root, commitment, frozen strata) and two blobs:
//! the rows, encrypted ([`vault`]), and a filter of keyed hashes by which intake knows a contaminated row ([`filter`]).
//!
//! Invariants:
//! * rows stand in the order of their keyed canonical hashes: neither file, format nor chunks show in the root;
//! * the filter holds hashes of *features* alone: whoever submits (x, 0) and (x, 1) learns that x is sealed, and no label;
//! * a level is named only when [`strata::NAMED`] rows or more have it; nothing else of a row leaves in the clear;
//! * rows, decoded, are held in memory once: their number and bytes are limited before they are gathered.

pub mod filter;
pub mod make;
pub mod rows;
pub mod strata;
pub mod vault;

#[cfg(test)]
mod tests;

/// Decoded bytes of a benchmark's rows.
pub const MAX_BYTES: usize = 512 << 20;

/// Why a benchmark could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// No row is left to be sealed.
    #[error("no row is left to be sealed\nhelp: a benchmark needs rows that pass the model's contract")]
    Empty,
    /// More than a benchmark may have.
    #[error("{what}; a benchmark has at most {most}\nhelp: seal a sample of the rows")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit.
        most: String,
    },
    /// The model has no label.
    #[error(
        "the contract names no label, so there is nothing to measure\nhelp: name it with `label:` in the model's specification"
    )]
    NoLabel,
    /// The classes cannot be told apart.
    #[error(
        "BENCHMARK_TOO_SMALL: {0}\nhelp: every class needs {least} rows or more, and there are two classes at least: no \
         evaluation could accept on fewer",
        least = crate::stats::compare::SMALLEST_CELL
    )]
    TooSmall(String),
    /// A column cannot make strata.
    #[error("column {column} cannot make strata: {why}\nhelp: name feature columns of few values, such as a region")]
    Strata {
        /// Which column.
        column: String,
        /// Why not.
        why: String,
    },
    /// The rows overlap with benchmarks of several families.
    #[error("SEVERAL_FAMILIES: {0}")]
    Families(#[from] crate::stats::family::SeveralFamilies),
    /// A blob is not what it should be.
    #[error(
        "{what} cannot be used: {why}\nhelp: restore the blob from a backup of the store; its digest stands in the record"
    )]
    Blob {
        /// Which blob.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A computation on rows failed.
    #[error("rows cannot be processed: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

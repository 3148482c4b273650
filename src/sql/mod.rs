//! SQL over the tables: a DataFusion session that can read and nothing else.
//!
//! Invariants:
//! * a session reads the tables and views named here and nothing else: no file, no URL, no statement that defines or
//!   changes anything ([`guard`]);
//! * every query sees one version of each table, the newest when it began ([`Session::refresh`]);
//! * memory, spill files and time of a query are bounded ([`Limits`]); results are streamed;
//! * a table that does not exist yet has its columns and no rows; columns that a table does not have yet are null.

pub mod error;
pub mod format;
pub mod fresh;
pub mod guard;
pub mod prompt;
pub mod session;

pub use error::SqlError;
pub use format::{OutputFormat, ResultWriter};
pub use session::{Limits, Session};

#[cfg(test)]
mod tests;

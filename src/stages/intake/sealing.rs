//! Intake's checks outside the stage: for rows that are to be sealed, and must be what a contribution's rows would be.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::contract::{CompiledContract, Compiler};
use super::models::{Keys, Ready};
use super::refusals::{self, Whole};
use super::screen::{self, Failure, Source};
use super::{Limits, decode};
use crate::domain::contract::{Spec, SpecError};
use crate::domain::keys::{KeyRing, MacKey};
use crate::domain::records::{Contribution, Refusal};
use crate::stream::stage::StageError;

/// Why rows cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The contract does not compile.
    #[error(transparent)]
    Contract(#[from] SpecError),
    /// The document is refused as a whole: reason code, and what was expected and seen.
    #[error(
        "{code}: {column}expected {expected}, got {shape}\nhelp: what is sealed has to pass the model's contract as a contribution does"
    )]
    Refused {
        /// Reason code.
        code: &'static str,
        /// `column NAME: `, or nothing.
        column: String,
        /// What was expected.
        expected: String,
        /// The shape of what was seen.
        shape: String,
    },
    /// A computation failed.
    #[error(transparent)]
    Compute(#[from] StageError),
}

impl From<Whole> for CheckError {
    fn from(whole: Whole) -> Self {
        let column = if whole.column.is_empty() { String::new() } else { format!("column {}: ", whole.column) };
        Self::Refused { code: whole.reason.code(), column, expected: whole.expected, shape: whole.shape }
    }
}

/// Rows of a document that passed, as they would leave intake, and what was wrong with the others.
#[derive(Debug)]
pub struct CheckedRows {
    /// The contract's columns with tokens in place of personal data.
    pub rows: RecordBatch,
    /// Number of each row in the document, from 0.
    pub numbers: Vec<u32>,
    /// Keyed hash of each row under the model's key.
    pub row_hashes: Vec<[u8; 16]>,
    /// The same without the label: what intake knows a contaminated row by.
    pub features: Vec<[u8; 16]>,
    /// Hash of the features under the tenant's key for overlaps.
    pub overlaps: Vec<[u8; 16]>,
    /// Rows in the document.
    pub received: usize,
    /// In row order.
    pub refusals: Vec<Refusal>,
}

/// Checks documents against one contract.
#[derive(Debug)]
pub struct RowChecker {
    ready: Ready,
    keys: Keys,
    ring: Arc<KeyRing>,
    overlap: MacKey,
    limits: Limits,
}

impl RowChecker {
    /// A checker for the model that a contract is of.
    ///
    /// # Errors
    /// [`CheckError::Contract`].
    pub fn new(spec: Spec, ring: Arc<KeyRing>) -> Result<Self, CheckError> {
        let contract = Compiler::new().compile(spec)?;
        let keys = Keys::new(&ring, &contract.spec().name);
        let overlap = ring.overlap_key();
        Ok(Self { ready: Ready::new(contract, &ring)?, keys, overlap, ring, limits: Limits::default() })
    }

    /// The contract.
    #[must_use]
    pub fn contract(&self) -> &CompiledContract {
        &self.ready.contract
    }

    /// The key ring.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Checks a document of a format, as if it had been appended to `contributions` at `appended` (milliseconds UTC). Near
    /// duplicates, which a contract may refuse within one chunk, are not looked for.
    ///
    /// # Errors
    /// [`CheckError::Refused`] when nothing of the document can be taken.
    pub fn check(&self, format: &str, payload: Vec<u8>, appended: i64) -> Result<CheckedRows, CheckError> {
        let contract = self.contract();
        let document = Contribution {
            contribution_id: None,
            contributor: String::new(),
            model: contract.spec().name.clone(),
            contract_digest: None,
            format: format.to_owned(),
            chunk: 0,
            chunks: 1,
            payload,
            sealed: None,
            signature: None,
        };
        let decoded = decode::decode(contract, &document, &self.limits)?;
        if let Some(fault) = refusals::schema_faults(contract, &decoded).into_iter().next() {
            return Err(fault.into());
        }
        let source = Source {
            contribution_id: "",
            chunk: 0,
            appended,
            shards: 1,
            row_bytes: self.limits.row_bytes,
            sealed: &[],
        };
        let failures = screen::first_failures(contract, &decoded.batch, &source);
        let mut refused = decode::refusals(contract, &self.keys.model, &decoded).map_err(compute)?;
        if failures.iter().any(|failure| *failure != Failure::None) {
            refused.extend(screen::refusals_of(contract, &self.keys, &decoded, &failures)?);
            refused.sort_by_key(|refusal| refusal.row);
        }
        let (batch, numbers) = screen::passed(&decoded, &failures).map_err(compute)?;
        let protected = self.ready.protection.protect(&batch, appended).map_err(compute)?;
        if let Some(fault) = refusals::undeclared(contract, &protected.undeclared).into_iter().next() {
            return Err(fault.into());
        }
        let encoded = contract.encoder().encode(&protected.canonical).map_err(compute)?;
        let (hashes, overlaps) = (encoded.hash(self.keys.model.rows()), encoded.hash(&self.overlap).features);
        let screened = protected.screened.unwrap_or(protected.canonical);
        // One schema for every document, whether it holds personal data or not.
        let schema = Arc::new(self.ready.protection.screened_schema().clone());
        Ok(CheckedRows {
            rows: RecordBatch::try_new(schema, screened.columns().to_vec()).map_err(compute)?,
            numbers,
            row_hashes: hashes.rows,
            features: hashes.features,
            overlaps,
            received: decoded.received,
            refusals: refused,
        })
    }
}

fn compute(error: impl std::fmt::Display) -> StageError {
    StageError::Compute { what: "checking rows that are to be sealed".to_owned(), detail: error.to_string() }
}

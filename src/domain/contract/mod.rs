//! The contract of a model: what rows are for it, and which of them are good.
//!
//! A model is one YAML document. Where the Open Data Contract Standard v3 has a word, that word is used
//! (`schema`, `properties`, `logicalType`, `required`, `logicalTypeOptions`, `quality` …); the rest is what the
//! standard lacks: label, policies for personal data, reference statistics, what is learned from ([`learning`]), how candidates are
//! compared ([`evaluation`]). A complete example:
//!
//! ```yaml
//! apiVersion: hokusai/v1
//! kind: Model
//! name: flight-delay
//! description: Will a flight arrive more than 15 minutes late?
//! label: late
//! excludeFromIdentity: [record_id]    # kept in the row, left out of its hashes
//! leakage:
//!   - {column: dep_delay, reason: known only after departure}
//! nearDuplicates:
//!   columns: [carrier, distance]
//!   round: {distance: 10}
//!   text: [remark]                    # compared by MinHash over three-word sequences
//! learning:                           # derived from the columns where it says nothing
//!   features:
//!     - {column: carrier, encode: category, categories: 50}   # the 50 most frequent; all others are one
//!     - {column: event_time, encode: time, parts: [month, weekday, hour]}
//!   leaveOut: [remark]
//! evaluation:                         # how candidates are compared
//!   primary: auroc
//!   minimumEffect: 0.002
//!   margins: {auroc: 0.01}            # defaults; a margin that is needed and missing is an error
//!   guardrails: [{metric: log_loss, margin: 0.02}]
//!   strata: [{column: carrier}]
//!   metrics:                          # of one's own: SQL, one number per row (custom_metric)
//!     - {name: cost, direction: lower, value: CASE WHEN late = 1 AND score < 0.3 THEN 5 ELSE score END}
//! refuse: [LABEL_CONFLICT]            # remarks on the receipt otherwise: LABEL_CONFLICT, NEAR_DUP, LEAKAGE_COLUMN
//! schema:                             # exactly one table
//!   - name: flights
//!     properties:
//!       - name: record_id
//!         logicalType: string
//!         unique: true
//!         pii: {policy: none, reason: a number that the carrier counts up}
//!       - name: event_time
//!         logicalType: timestamp      # string integer number boolean date timestamp
//!         required: true
//!       - name: carrier
//!         logicalType: string
//!         required: true
//!         logicalTypeOptions: {pattern: '^[0-9A-Z]{2}$'}
//!       - name: distance
//!         logicalType: integer
//!         unit: miles
//!         allowedNullRate: 0.05
//!         logicalTypeOptions: {minimum: 1, maximum: 6000}
//!         reference: {median: 872, mad: 400, edges: [301, 872, 1587]}
//!       - name: contact
//!         logicalType: string
//!         pii: {policy: hash, type: email_address}
//!       - name: remark
//!         logicalType: string
//!       - name: late
//!         logicalType: integer
//!         logicalTypeOptions: {enum: [0, 1]}
//!         reference: {minority: 0.237}
//!     quality:
//!       - name: far_enough_for_a_jet
//!         expression: carrier <> 'XX' OR distance > 100
//! ```
//!
//! Invariants:
//! * a [`Spec`] that this module hands out has passed [`Spec`]'s own rules; its SQL and its patterns are
//!   compiled, and so checked, where the columns have Arrow types (`stages::intake`);
//! * its digest is SHA-256 of its canonical JSON (RFC 8785), in which a field that has its default does not
//!   stand: a later version may add fields without changing the digest of an old contract;
//! * everything in it is limited in number and size.

pub mod attribution;
pub mod custom_metric;
pub mod evaluation;
mod grammar;
pub mod learning;
mod locate;
mod rules;
pub mod sql;

pub use grammar::*;

use sha2::{Digest, Sha256};

/// Longest text of a model's specification.
pub const MAX_TEXT: usize = 256 * 1024;

/// What is wrong with a specification, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}; help: {help}", self.place())]
pub struct SpecError {
    /// File, as the caller named it; empty when there is none.
    pub file: String,
    /// Line from 1; 0 when unknown.
    pub line: u64,
    /// Column from 1; 0 when unknown.
    pub column: u64,
    /// Path in the document, like `schema[0].properties[2].name`; empty when the document cannot be read.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// The way out.
    pub help: String,
}

impl SpecError {
    /// An error at a path, its line not yet known.
    #[must_use]
    pub fn at(path: impl Into<String>, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { file: String::new(), line: 0, column: 0, path: path.into(), problem: problem.into(), help: help.into() }
    }

    /// The same error with the file and the line at which `text` has the path.
    #[must_use]
    pub fn located(mut self, text: &str, file: &str) -> Self {
        self.file = file.to_owned();
        if let Some((line, column)) = locate::locate(text, &self.path) {
            (self.line, self.column) = (line, column);
        }
        self
    }

    fn place(&self) -> String {
        let mut place = String::new();
        if !self.file.is_empty() || self.line > 0 {
            place = format!("{}:{}:{}: ", self.file, self.line, self.column);
        }
        if !self.path.is_empty() {
            place.push('`');
            place.push_str(&self.path);
            place.push_str("`: ");
        }
        place
    }
}

impl Spec {
    /// The columns, in the order of the document.
    #[must_use]
    pub fn properties(&self) -> &[Property] {
        self.schema.first().map_or(&[], |table| &table.properties)
    }

    /// The rules over several columns, in the order of the document.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        self.schema.first().map_or(&[], |table| &table.quality)
    }

    /// A column by name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties().iter().find(|p| p.name == name)
    }

    /// Reads and checks a YAML document.
    ///
    /// # Errors
    /// [`SpecError`] with file, line, path, and the way out.
    pub fn parse_yaml(text: &str, file: &str) -> Result<Self, SpecError> {
        limit_text(text).map_err(|e| e.located("", file))?;
        let options = serde_saphyr::options! { strict_booleans: true };
        let spec: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let (line, column) = error.location().map_or((0, 0), |l| (l.line(), l.column()));
            let problem = error.without_snippet().to_string();
            let help = "see the grammar of a model's specification in the documentation".to_owned();
            SpecError { file: file.to_owned(), line, column, path: String::new(), problem, help }
        })?;
        spec.check().map_err(|error| error.located(text, file))?;
        Ok(spec)
    }

    /// Reads and checks what [`Spec::canonical_json`] wrote.
    ///
    /// # Errors
    /// [`SpecError`] with the path.
    pub fn from_canonical_json(text: &str) -> Result<Self, SpecError> {
        limit_text(text)?;
        let spec: Self = serde_json::from_str(text).map_err(|error| SpecError {
            line: error.line() as u64,
            column: error.column() as u64,
            ..SpecError::at("", error.to_string(), "the contract may be of a newer version")
        })?;
        spec.check()?;
        spec.check_published()?;
        Ok(spec)
    }

    /// The specification as canonical JSON (RFC 8785), without what has its default.
    ///
    /// # Errors
    /// [`SpecError`] when a number has no JSON form ([`Spec::parse_yaml`] refuses such numbers), or a reference table is still a file.
    pub fn canonical_json(&self) -> Result<String, SpecError> {
        self.check_published()?;
        serde_json_canonicalizer::to_string(self)
            .map_err(|error| SpecError::at("", error.to_string(), "numbers must be finite"))
    }

    /// SHA-256 of the canonical JSON, lower-case hex: the digest that stands in manifests and receipts.
    ///
    /// # Errors
    /// As [`Spec::canonical_json`].
    pub fn contract_digest(&self) -> Result<String, SpecError> {
        Ok(data_encoding::HEXLOWER.encode(&Sha256::digest(self.canonical_json()?.as_bytes())))
    }
}

fn limit_text(text: &str) -> Result<(), SpecError> {
    if text.len() > MAX_TEXT {
        let problem = format!("the text has {} bytes", text.len());
        return Err(SpecError::at("", problem, format!("a specification has at most {MAX_TEXT} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

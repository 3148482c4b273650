//! Personal data in the columns of a batch, by the contract's policies.
//!
//! Two batches come out: one with *normalised* values, which is hashed in memory and never leaves, and one with
//! tokens in their place, which leaves. What becomes of a cell depends on the cell, its column's name and the
//! contract (`pii::screen`), never on its neighbours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;

use crate::domain::contract::{Generalise, Policy, Property, Spec, SpecError};
use crate::domain::keys::KeyRing;
use crate::pii;
use crate::pii::{ColumnRule, ColumnScreener, Generalisation, PiiType, Undeclared};
use crate::rowsql::arrow_type;

/// How each column of a contract is protected.
pub(super) struct Protection {
    /// Screeners keep buffers from batch to batch, and a contract is shared: hence the lock, which is never contended
    /// within a task.
    columns: Mutex<Vec<Option<Column>>>,
    /// Schema of what leaves, in the contract's order.
    screened: Schema,
}

struct Column {
    screener: ColumnScreener,
    /// Findings are counted, the column is kept as it is.
    keep: bool,
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection").field("screened", &self.screened).finish_non_exhaustive()
    }
}

/// A batch, protected.
pub(super) struct Protected {
    /// Values normalised, before tokens: what is hashed.
    pub canonical: RecordBatch,
    /// Tokens in place of personal data: what leaves. None when it is the same as `canonical`.
    pub screened: Option<RecordBatch>,
    /// Findings by type.
    pub found: BTreeMap<String, i64>,
    /// Columns, by position, that the contract must settle before any of it leaves.
    pub undeclared: Vec<(usize, Undeclared)>,
}

impl Protection {
    /// Protection under the ring's current token key.
    ///
    /// # Errors
    /// When a declared type of personal data is not known.
    pub(super) fn new(spec: &Spec, keys: &KeyRing) -> Result<Self, SpecError> {
        let mut columns = Vec::with_capacity(spec.properties().len());
        let mut fields = Vec::with_capacity(spec.properties().len());
        for (i, property) in spec.properties().iter().enumerate() {
            let declared = declared_type(property, &format!("schema[0].properties[{i}].pii.type"))?;
            let is_label = spec.label.as_ref() == Some(&property.name);
            let keep = property.pii.policy == Policy::Keep;
            let column = (property.pii.policy != Policy::None && !is_label).then(|| Column {
                screener: ColumnScreener::new(keys, &property.name, rule(property, declared)),
                keep,
            });
            let input = arrow_type(property.logical_type);
            let output =
                column.as_ref().filter(|c| !c.keep).map_or_else(|| input.clone(), |c| c.screener.output_type(&input));
            fields.push(Field::new(&property.name, output, true));
            columns.push(column);
        }
        Ok(Self { columns: Mutex::new(columns), screened: Schema::new(fields) })
    }

    /// Schema of what leaves: the contract's columns, text where tokens may stand.
    pub(super) fn screened_schema(&self) -> &Schema {
        &self.screened
    }

    /// Protects rows whose record was appended at `appended` (milliseconds UTC).
    pub(super) fn protect(&self, batch: &RecordBatch, appended: i64) -> Result<Protected, ArrowError> {
        let mut columns = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut canonical, mut screened) = (batch.columns().to_vec(), batch.columns().to_vec());
        let (mut found, mut undeclared, mut tokens) = (BTreeMap::new(), Vec::new(), false);
        for (i, column) in columns.iter_mut().enumerate() {
            let (Some(column), Some(cells)) = (column, batch.columns().get(i)) else { continue };
            column.screener.appended(appended);
            let outcome = column.screener.screen(cells).map_err(|error| ArrowError::ComputeError(error.to_string()))?;
            for (kind, count) in outcome.counts {
                *found.entry(kind.name().to_owned()).or_default() += i64::try_from(count).unwrap_or(i64::MAX);
            }
            if column.keep {
                continue;
            }
            undeclared.extend(outcome.undeclared.map(|what| (i, what)));
            tokens |= !Arc::ptr_eq(&outcome.tokenised, &outcome.normalised);
            canonical[i] = outcome.normalised;
            screened[i] = outcome.tokenised;
        }
        let canonical = named(batch, canonical)?;
        let screened = tokens.then(|| named(batch, screened)).transpose()?;
        Ok(Protected { screened, canonical, found, undeclared })
    }
}

/// The type of personal data that a column is declared to hold.
pub(super) fn declared_type(property: &Property, path: &str) -> Result<Option<PiiType>, SpecError> {
    let Some(name) = &property.pii.kind else { return Ok(None) };
    let known = || PiiType::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let unknown =
        || SpecError::at(path, format!("`{name}` is no type of personal data"), format!("one of {}", known()));
    PiiType::from_name(name).map(Some).ok_or_else(unknown)
}

fn rule(property: &Property, declared: Option<PiiType>) -> ColumnRule {
    let policy = match (property.pii.policy, property.pii.to) {
        (Policy::Drop, _) => pii::Policy::Drop,
        (Policy::Generalise, Some(Generalise::Zip3)) => pii::Policy::Generalise(Generalisation::Zip3),
        (Policy::Generalise, Some(Generalise::BirthYear)) => pii::Policy::Generalise(Generalisation::BirthYear),
        (Policy::Generalise, Some(Generalise::Net24)) => pii::Policy::Generalise(Generalisation::Ip24),
        // What is kept is looked at too, to be counted; a policy that does not generalise to anything hashes.
        (Policy::Hash | Policy::Keep | Policy::None | Policy::Generalise, _) => pii::Policy::Hash,
    };
    ColumnRule { policy, declared }
}

/// The columns under the names of `batch`, with the types that they have now.
fn named(batch: &RecordBatch, columns: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
    let fields = batch.schema_ref().fields().iter().zip(&columns);
    let fields: Vec<_> =
        fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

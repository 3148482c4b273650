//! What SQL makes of rows before they are encoded: declared here as data, run by `features`, which knows SQL.
//!
//! It stands in the recipe with the digests of its tables, and in the artefact with the tables themselves, so that a model scores rows
//! without anything but its artefact.

use std::sync::Arc;

use serde::Serialize;

use crate::domain::contract::learning::Learning;
use crate::domain::contract::{LogicalType, Spec};
use crate::ml::artefact;

/// Largest canonical form of one reference table in bytes.
pub const MAX_TABLE: usize = 4 << 20;
/// Largest canonical form of all reference tables of a model in bytes: its artefacts hold them.
pub const MAX_TABLES: usize = 8 << 20;

/// A column and its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Type of its values.
    pub kind: LogicalType,
}

/// A reference table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Field>,
    /// SHA-256 of its canonical form, hex.
    pub digest: String,
    /// Its canonical form; empty until it is fetched.
    #[serde(skip)]
    pub bytes: Arc<[u8]>,
}

/// A SELECT over rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Select {
    /// What errors call it.
    pub name: String,
    /// The columns of `rows` that it sees.
    pub reads: Vec<Field>,
    /// Its text.
    pub text: String,
    /// What it adds to every row; nothing for a step.
    pub columns: Vec<Field>,
}

/// All that SQL does for a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Derivation {
    /// Tables that SELECTs may join.
    pub tables: Vec<Table>,
    /// What adds columns to every row.
    pub selects: Vec<Select>,
    /// What lets training rows through; never in an artefact.
    pub steps: Vec<Select>,
}

impl Derivation {
    /// What a contract declares.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        let none = Learning::default();
        let said = spec.learning.as_ref().unwrap_or(&none);
        let read = |name: &String| {
            let property = spec.property(name)?;
            Some(Field { name: name.clone(), kind: property.logical_type })
        };
        let typed = |columns: &[crate::domain::contract::sql::TypedColumn]| {
            columns.iter().map(|column| Field { name: column.name.clone(), kind: column.logical_type }).collect()
        };
        // A table that nothing reads is none.
        let read_by_any = !(said.sql.is_empty() && said.steps.is_empty());
        let tables = said.references.iter().filter(|_| read_by_any).map(|table| Table {
            name: table.name.clone(),
            columns: typed(&table.columns),
            digest: table.digest.clone().unwrap_or_default(),
            bytes: Arc::default(),
        });
        let selects = said.sql.iter().map(|sql| Select {
            name: sql.name.clone(),
            reads: sql.reads.iter().filter_map(read).collect(),
            text: sql.select.clone(),
            columns: typed(&sql.columns),
        });
        let steps = said.steps.iter().map(|step| Select {
            name: step.name.clone(),
            reads: step.reads.iter().filter_map(read).collect(),
            text: step.select.clone(),
            columns: Vec::new(),
        });
        Self { tables: tables.collect(), selects: selects.collect(), steps: steps.collect() }
    }

    /// Nothing is done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.selects.is_empty() && self.steps.is_empty()
    }

    /// What an artefact holds: what scoring needs, and the tables of steps, so that whoever has artefact and recipe can learn again.
    #[must_use]
    pub fn served(&self) -> Self {
        Self { tables: self.tables.clone(), selects: self.selects.clone(), steps: Vec::new() }
    }

    /// Whether a column is one that it adds.
    #[must_use]
    pub fn adds(&self, column: &str) -> bool {
        self.selects.iter().flat_map(|select| &select.columns).any(|field| field.name == column)
    }

    /// The columns of rows that its SELECTs see, each once; with `steps` also those of the steps.
    #[must_use]
    pub fn reads(&self, steps: bool) -> Vec<&Field> {
        let mut all: Vec<&Field> = Vec::new();
        let steps = self.steps.iter().filter(|_| steps);
        for field in self.selects.iter().chain(steps).flat_map(|select| &select.reads) {
            if !all.iter().any(|known| known.name == field.name) {
                all.push(field);
            }
        }
        all
    }

    /// Gives a table its bytes; whether they are those of its digest.
    pub fn fill(table: &mut Table, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= MAX_TABLE && data_encoding::HEXLOWER.encode(&artefact::digest(bytes)) == table.digest;
        if fits {
            table.bytes = bytes.into();
        }
        fits
    }
}

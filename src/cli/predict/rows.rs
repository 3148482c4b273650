//! Which columns a model reads, as which types, and whether a file's rows have them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::cli::model::artefact::Loaded;
use crate::codec::formats::Decoded;
use crate::domain::contract::{LogicalType, Spec};
use crate::ml::encoding::{Declared, Encode};
use crate::rowsql::{UTC, arrow_type};

/// The columns that a model reads.
pub(super) struct Wanted<'a> {
    schema: SchemaRef,
    columns: Vec<Declared>,
    contract: Option<&'a Spec>,
}

impl<'a> Wanted<'a> {
    /// As the artefact's encoding has them, with the types of the contract where there is one.
    ///
    /// # Errors
    /// The contract has no such column, or one of a type that the encoding does not take.
    pub(super) fn of(loaded: &'a Loaded) -> Result<Self, String> {
        let contract = loaded.contract.as_ref();
        let encoding = &loaded.model.encoding;
        let derivation = &encoding.derivation;
        let columns = encoding.columns().map_err(|column| format!("it reads the column {column} in two ways"))?;
        let mut fields: Vec<Field> = Vec::new();
        for read in derivation.reads(false) {
            let kind = contract.and_then(|spec| spec.property(&read.name)).map_or(read.kind, |own| own.logical_type);
            fields.push(Field::new(&read.name, arrow_type(kind), true));
        }
        for Declared { column, encode } in columns.iter().filter(|declared| !derivation.adds(&declared.column)) {
            if fields.iter().all(|known| known.name() != column) {
                fields.push(Field::new(column, data_type(column, encode, contract)?, true));
            }
        }
        if columns.is_empty() {
            return Err("it reads no column".to_owned());
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), columns, contract })
    }

    /// Types to decode a file's columns to.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns with the kind of their encoding.
    pub(super) fn columns(&self) -> &[Declared] {
        &self.columns
    }

    /// Whether every row has what the model reads, and nothing is there that nobody knows. `before` rows came before these.
    ///
    /// # Errors
    /// What is wrong, and the way out.
    pub(super) fn check(&self, decoded: &Decoded, before: u64, ignore_extra: bool) -> Result<(), String> {
        if !decoded.missing_columns.is_empty() {
            let help = "help: the model reads them; rows without a value leave it empty (JSON: null)";
            return Err(format!("there is no column {}\n{help}", decoded.missing_columns.join(", ")));
        }
        let known = |name: &String| self.contract.is_some_and(|spec| spec.property(name).is_some());
        let extra: Vec<&str> = decoded.extra_columns.iter().filter(|name| !known(name)).map(String::as_str).collect();
        if !ignore_extra && !extra.is_empty() {
            let who = if self.contract.is_some() { "contract" } else { "model" };
            let help = "help: remove them, or leave them alone with --ignore-extra";
            return Err(format!("the {who} does not know the columns {}\n{help}", extra.join(", ")));
        }
        let Some(reject) = decoded.rejects.first() else { return Ok(()) };
        let row = before + u64::from(reject.row) + 1;
        let column = if reject.column.is_empty() { String::new() } else { format!("column {}: ", reject.column) };
        Err(format!("row {row}: {column}expected {}, found {}\nhelp: correct the file", reject.expected, reject.shape))
    }
}

fn data_type(column: &str, encode: &Encode, contract: Option<&Spec>) -> Result<DataType, String> {
    let Some(spec) = contract else {
        return Ok(match encode {
            Encode::Number => DataType::Float64,
            Encode::Category | Encode::Categories(_) => DataType::Utf8,
            Encode::Time(_) => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        });
    };
    let property = spec.property(column).ok_or_else(|| {
        format!("it reads the column {column}, which its contract does not have\nhelp: it was registered under another contract")
    })?;
    let kind = property.logical_type;
    let fits = match encode {
        Encode::Number => kind.is_numeric() || kind == LogicalType::Boolean,
        Encode::Category | Encode::Categories(_) => matches!(kind, LogicalType::String | LogicalType::Integer),
        Encode::Time(_) => matches!(kind, LogicalType::Date | LogicalType::Timestamp),
    };
    if !fits {
        let how = match encode {
            Encode::Number => "a number",
            Encode::Category | Encode::Categories(_) => "a category",
            Encode::Time(_) => "a time",
        };
        return Err(format!("it reads the column {column} as {how}, and the contract has it as {}", kind.name()));
    }
    Ok(arrow_type(kind))
}

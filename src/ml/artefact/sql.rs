//! SQL in an artefact: reference tables in full, and the SELECTs that add columns.

use super::{Read, Reader, Writer, digest};
use crate::domain::contract::LogicalType;
use crate::domain::contract::sql::{MAX_REFERENCES, MAX_SELECTS};
use crate::ml::MAX_FEATURES;
use crate::ml::derivation::{Derivation, Field, MAX_TABLE, MAX_TABLES, Select, Table};

/// Types of columns, by their number in an artefact.
const KINDS: [LogicalType; 6] = [
    LogicalType::String,
    LogicalType::Integer,
    LogicalType::Number,
    LogicalType::Boolean,
    LogicalType::Date,
    LogicalType::Timestamp,
];

impl Writer {
    fn fields(&mut self, fields: &[Field]) {
        self.list(fields, |out, field| {
            out.text(&field.name);
            out.u8(KINDS.iter().position(|kind| *kind == field.kind).unwrap_or(0) as u8);
        });
    }

    pub(super) fn table(&mut self, table: &Table) {
        self.text(&table.name);
        self.fields(&table.columns);
        self.u32(table.bytes.len() as u32);
        self.0.extend(&*table.bytes);
    }

    pub(super) fn select(&mut self, select: &Select) {
        self.text(&select.name);
        self.fields(&select.reads);
        self.text(&select.text);
        self.fields(&select.columns);
    }
}

impl Reader<'_> {
    fn fields(&mut self) -> Read<Vec<Field>> {
        self.list(MAX_FEATURES, 5, |input| {
            let name = input.text()?;
            let kind = usize::from(input.u8()?);
            let kind = *KINDS.get(kind).ok_or_else(|| input.wrong("unknown type of a column"))?;
            Ok(Field { name, kind })
        })
    }

    /// Whether the SQL may run, and the tables are in their form, is for whoever runs it to say.
    pub(super) fn derivation(&mut self) -> Read<Derivation> {
        let tables = self.list(MAX_REFERENCES, 12, |input| {
            let (name, columns) = (input.text()?, input.fields()?);
            let length = input.u32()? as usize;
            if length > MAX_TABLE {
                return Err(input.wrong("a reference table is too large"));
            }
            let bytes = input.take(length)?;
            let digest = data_encoding::HEXLOWER.encode(&digest(bytes));
            Ok(Table { name, columns, digest, bytes: bytes.into() })
        })?;
        let selects = self.list(MAX_SELECTS, 16, |input| {
            let (name, reads) = (input.text()?, input.fields()?);
            Ok(Select { name, reads, text: input.text()?, columns: input.fields()? })
        })?;
        if selects.is_empty() && tables.is_empty() {
            return Err(self.wrong("format version 2 without SQL"));
        }
        if tables.iter().map(|table| table.bytes.len()).sum::<usize>() > MAX_TABLES {
            return Err(self.wrong("its reference tables are too large together"));
        }
        Ok(Derivation { tables, selects, steps: Vec::new() })
    }
}

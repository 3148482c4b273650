//! Rows that come one value at a time (JSON, CSV) → columns of the contract.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ::arrow::array::{
    ArrayRef, BooleanArray, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use ::arrow::compute::{filter_record_batch, not};
use ::arrow::datatypes::{DataType, SchemaRef};
use ::arrow::error::ArrowError;

use super::cell::{self, Cell, expected};
use super::{Decoded, Format, FormatError, Limits, RowReject, Unfit};
use crate::domain::reason::Reason;

const MAX_EXTRA: usize = 256;
const MAX_EXTRA_CHARS: usize = 256;
/// Bytes that a cell takes besides its text: a value or an offset, and its validity.
const CELL: usize = 9;

enum Column {
    Boolean(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Column {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int64 => Self::Int(Int64Builder::new()),
            DataType::Float64 => Self::Float(Float64Builder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(_, zone) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone()))
            }
            _ => Self::Text(StringBuilder::new()),
        }
    }

    /// Appends a value of JSON; false when it does not fit, then null was appended.
    fn push(&mut self, cell: Cell<'_>) -> bool {
        #[allow(clippy::cast_precision_loss)] // a number column takes the nearest float, as a parser would
        match (self, cell) {
            (Self::Boolean(b), Cell::Bool(value)) => b.append_value(value),
            (Self::Boolean(b), other) => return null(other, || b.append_null()),
            (Self::Int(b), Cell::Int(value)) => b.append_value(value),
            (Self::Int(b), Cell::Float(value)) => return some(cell::whole(value), |v| b.append_option(v)),
            (Self::Int(b), other) => return null(other, || b.append_null()),
            (Self::Float(b), Cell::Float(value)) if value.is_finite() => b.append_value(value),
            (Self::Float(b), Cell::Int(value)) => b.append_value(value as f64),
            (Self::Float(b), Cell::UInt(value)) => b.append_value(value as f64),
            (Self::Float(b), other) => return null(other, || b.append_null()),
            (Self::Text(b), Cell::Text(value)) => b.append_value(value),
            (Self::Text(b), other) => return null(other, || b.append_null()),
            (Self::Date(b), Cell::Text(value)) => return some(cell::date(value), |v| b.append_option(v)),
            (Self::Date(b), other) => return null(other, || b.append_null()),
            (Self::Timestamp(b), Cell::Text(value)) => return some(cell::timestamp(value), |v| b.append_option(v)),
            (Self::Timestamp(b), other) => return null(other, || b.append_null()),
        }
        true
    }

    /// Appends a text that stands for a value of any type; false when it does not fit, then null was appended.
    fn push_text(&mut self, text: &str) -> bool {
        if text.is_empty() {
            return self.push(Cell::Null);
        }
        match self {
            Self::Boolean(b) => some(cell::boolean(text), |v| b.append_option(v)),
            Self::Int(b) => some(cell::integer(text), |v| b.append_option(v)),
            Self::Float(b) => some(cell::float(text), |v| b.append_option(v)),
            Self::Text(_) | Self::Date(_) | Self::Timestamp(_) => self.push(Cell::Text(text)),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Boolean(mut b) => Arc::new(b.finish()),
            Self::Int(mut b) => Arc::new(b.finish()),
            Self::Float(mut b) => Arc::new(b.finish()),
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Date(mut b) => Arc::new(b.finish()),
            Self::Timestamp(mut b) => Arc::new(b.finish()),
        }
    }
}

fn some<T>(value: Option<T>, append: impl FnOnce(Option<T>)) -> bool {
    let fits = value.is_some();
    append(value);
    fits
}

fn null(cell: Cell<'_>, append: impl FnOnce()) -> bool {
    append();
    matches!(cell, Cell::Null)
}

/// Columns that the contract does not name, in the document's order, bounded.
#[derive(Default)]
pub(super) struct Extra {
    names: Vec<String>,
    known: HashSet<String>,
}

impl Extra {
    pub(super) fn add(&mut self, name: &str) {
        if self.names.len() < MAX_EXTRA && !self.known.contains(name) {
            self.known.insert(name.to_owned());
            self.names.push(name.chars().take(MAX_EXTRA_CHARS).collect());
        }
    }

    pub(super) fn into_names(self) -> Vec<String> {
        self.names
    }
}

/// The rows of a document while they are read.
pub(super) struct Rows<'t> {
    format: Format,
    target: &'t SchemaRef,
    limits: &'t Limits,
    columns: Vec<Column>,
    numbers: HashMap<&'t str, usize>,
    /// Row (from 1) in which a column got its last value.
    filled: Vec<usize>,
    rows: usize,
    bytes: usize,
    rejects: Vec<RowReject>,
    /// Column (in the contract's order) of the present row's reject.
    worst: Option<usize>,
    /// The present row's cells that do not fit.
    unfit: Unfit,
    extra: Extra,
}

impl<'t> Rows<'t> {
    pub(super) fn new(format: Format, target: &'t SchemaRef, limits: &'t Limits) -> Self {
        let fields = target.fields();
        Self {
            format,
            target,
            limits,
            columns: fields.iter().map(|field| Column::new(field.data_type())).collect(),
            numbers: fields.iter().enumerate().map(|(i, field)| (field.name().as_str(), i)).collect(),
            filled: vec![0; fields.len()],
            rows: 0,
            bytes: 0,
            rejects: Vec::new(),
            worst: None,
            unfit: Unfit::default(),
            extra: Extra::default(),
        }
    }

    /// Number of a column; `hint` is where it probably is. Unknown names are kept as extra columns.
    pub(super) fn column(&mut self, name: &str, hint: usize) -> Option<usize> {
        if self.target.fields().get(hint).is_some_and(|field| field.name() == name) {
            return Some(hint);
        }
        let known = self.numbers.get(name).copied();
        if known.is_none() {
            self.extra.add(name);
        }
        known
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Begins a row.
    pub(super) fn begin(&mut self) -> Result<(), FormatError> {
        if self.rows >= self.limits.rows {
            return Err(FormatError::TooLarge { what: "rows are", limit: self.limits.rows });
        }
        self.rows += 1;
        (self.worst, self.unfit) = (None, Unfit::default());
        self.take(self.columns.len() * CELL)
    }

    fn take(&mut self, bytes: usize) -> Result<(), FormatError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.decoded_bytes {
            return Err(FormatError::TooLarge { what: "decoded bytes are", limit: self.limits.decoded_bytes });
        }
        Ok(())
    }

    /// Puts a value of JSON into a column of the present row.
    pub(super) fn put(&mut self, column: usize, cell: Cell<'_>) -> Result<(), FormatError> {
        if let Cell::Text(text) = cell {
            self.take(text.len())?;
        }
        if self.is_filled(column) {
            self.reject_cell(column, &cell.text(), "one value", "two values".to_owned());
        } else if !self.columns[column].push(cell) {
            self.reject_cell(column, &cell.text(), expected(self.target.field(column).data_type()), cell.shape());
        }
        self.filled[column] = self.rows;
        Ok(())
    }

    /// Puts a text that stands for a value of the column's type into the present row; empty is null.
    pub(super) fn put_text(&mut self, column: usize, text: &str) -> Result<(), FormatError> {
        self.take(text.len())?;
        if !self.columns[column].push_text(text) {
            self.reject_cell(column, text, expected(self.target.field(column).data_type()), cell::text_shape(text));
        }
        self.filled[column] = self.rows;
        Ok(())
    }

    fn is_filled(&self, column: usize) -> bool {
        self.filled[column] == self.rows
    }

    /// The first column in the contract's order is the row's reason, in whatever order the document has them.
    fn reject_cell(&mut self, column: usize, text: &str, expected: &str, shape: String) {
        self.unfit.add(column, text);
        match self.worst {
            Some(worst) if worst <= column => {
                if let Some(reject) = self.rejects.last_mut() {
                    reject.unfit = self.unfit;
                }
                return;
            }
            Some(_) => drop(self.rejects.pop()),
            None => {}
        }
        self.worst = Some(column);
        let name = self.target.field(column).name().clone();
        self.push_reject(Reason::TypeMismatch, name, expected.to_owned(), shape);
    }

    /// Refuses the present row as a whole, before any of its cells was put.
    pub(super) fn reject_row(
        &mut self,
        reason: Reason,
        cells: impl Iterator<Item = impl AsRef<str>>,
        expected: String,
        shape: String,
    ) {
        cells.enumerate().for_each(|(number, text)| self.unfit.add(number, text.as_ref()));
        self.worst = Some(0);
        self.push_reject(reason, String::new(), expected, shape);
    }

    fn push_reject(&mut self, reason: Reason, column: String, expected: String, shape: String) {
        let row = u32::try_from(self.rows.saturating_sub(1)).unwrap_or(u32::MAX);
        self.rejects.push(RowReject { row, reason, column, expected, shape, unfit: self.unfit });
    }

    /// Ends the present row: columns without a value are null.
    pub(super) fn end(&mut self) {
        for (column, filled) in self.columns.iter_mut().zip(&mut self.filled) {
            if *filled != self.rows {
                column.push(Cell::Null);
            }
        }
    }

    /// The rows that fit. `missing` decides from a column's name, and whether any row had it, that the document lacks it.
    pub(super) fn finish(self, missing: impl Fn(&str, bool) -> bool) -> Result<Decoded, FormatError> {
        let names = self.target.fields().iter().zip(&self.filled);
        let missing_columns = names
            .filter(|(field, filled)| missing(field.name(), **filled > 0))
            .map(|(field, _)| field.name().clone())
            .collect();
        let arrays = self.columns.into_iter().map(Column::finish).collect();
        let options = ::arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        let format = self.format;
        let built = RecordBatch::try_new_with_options(self.target.clone(), arrays, &options)
            .and_then(|batch| without_rejects(batch, &self.rejects));
        let Split { batch, rows, rejected } =
            built.map_err(|_| FormatError::parse(format, "its columns do not fit together"))?;
        Ok(Decoded {
            batch,
            rows,
            received: self.rows,
            rejects: self.rejects,
            rejected,
            extra_columns: self.extra.into_names(),
            missing_columns,
        })
    }
}

/// The rows of a document, apart.
pub(super) struct Split {
    /// Those that fit.
    pub(super) batch: RecordBatch,
    /// Their numbers.
    pub(super) rows: Vec<u32>,
    /// Those that do not.
    pub(super) rejected: RecordBatch,
}

/// Takes refused rows out.
pub(super) fn without_rejects(batch: RecordBatch, rejects: &[RowReject]) -> Result<Split, ArrowError> {
    let count = u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
    if rejects.is_empty() {
        let rejected = batch.slice(0, 0);
        return Ok(Split { batch, rows: (0..count).collect(), rejected });
    }
    let mut keep = vec![true; batch.num_rows()];
    for reject in rejects {
        if let Some(keep) = keep.get_mut(reject.row as usize) {
            *keep = false;
        }
    }
    let rows = (0..count).zip(&keep).filter(|(_, keep)| **keep).map(|(row, _)| row).collect();
    let keep = BooleanArray::from(keep);
    let rejected = filter_record_batch(&batch, &not(&keep)?)?;
    Ok(Split { batch: filter_record_batch(&batch, &keep)?, rows, rejected })
}

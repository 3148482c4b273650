//! How results are written: for people (aligned table) and for programs (CSV, JSON lines, Arrow).
//!
//! | kind | JSON | CSV and table |
//! |---|---|---|
//! | null | `null` | empty (a CSV text that is empty is `""`) |
//! | text | string | as it is |
//! | integer, decimal | number, all digits | the same |
//! | float | number, shortest form that reads back; NaN and infinities are `null` | the same; `NaN`, `inf` |
//! | timestamp | `"2026-01-31T12:00:00.000001Z"`, UTC | the same |
//! | date | `"2026-01-31"` | the same |
//! | binary | string, lower-case hex | the same |
//! | list, struct | array, object | as in JSON |
//!
//! Every form streams: of the aligned table, [`PAGE`] rows are held at a time to find the width of the columns.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{EncoderOptions, LineDelimited, NullableEncoder, Writer, WriterBuilder, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::error::SqlError;

/// Rows of an aligned table that share the width of their columns.
pub const PAGE: usize = 1_000;

/// The form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// Aligned columns for people.
    Table,
    /// RFC 4180 with a header line, lines end in LF.
    Csv,
    /// One object per row and line.
    Json,
    /// Arrow IPC stream.
    Arrow,
}

/// Writes a result batch by batch.
pub struct ResultWriter<W: Write> {
    schema: SchemaRef,
    rows: u64,
    form: Form<W>,
}

enum Form<W: Write> {
    Table { out: W, held: Vec<RecordBatch>, widths: Vec<usize>, headed: bool },
    Csv(W),
    Json(Box<Writer<W, LineDelimited>>),
    Arrow(Box<StreamWriter<W>>),
}

impl<W: Write> ResultWriter<W> {
    /// Begins a result.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(format: OutputFormat, schema: SchemaRef, mut out: W) -> Result<Self, SqlError> {
        let schema = unique_names(&schema);
        let form = match format {
            OutputFormat::Table => Form::Table { out, held: Vec::new(), widths: Vec::new(), headed: false },
            OutputFormat::Csv => {
                let names: Vec<_> = schema.fields().iter().map(|field| csv_text(field.name())).collect();
                writeln!(out, "{}", names.join(","))?;
                Form::Csv(out)
            }
            OutputFormat::Json => {
                Form::Json(Box::new(WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out)))
            }
            OutputFormat::Arrow => Form::Arrow(Box::new(StreamWriter::try_new(out, &schema).map_err(output)?)),
        };
        Ok(Self { schema, rows: 0, form })
    }

    /// Rows written so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        self.rows += batch.num_rows() as u64;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), batch.columns().to_vec(), &options)?;
        match &mut self.form {
            Form::Csv(out) => write_csv(&batch, out),
            Form::Json(writer) => writer.write(&batch).map_err(output),
            Form::Arrow(writer) => writer.write(&batch).map_err(output),
            Form::Table { out, held, widths, headed } => {
                held.push(batch);
                if held.iter().map(RecordBatch::num_rows).sum::<usize>() >= PAGE {
                    write_page(&self.schema, &std::mem::take(held), widths, headed, out)?;
                }
                Ok(())
            }
        }
    }

    /// Ends the result.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn finish(self) -> Result<u64, SqlError> {
        match self.form {
            Form::Csv(mut out) => out.flush()?,
            Form::Json(mut writer) => {
                writer.finish().map_err(output)?;
                writer.into_inner().flush()?;
            }
            Form::Arrow(mut writer) => writer.finish().map_err(output)?,
            Form::Table { mut out, held, mut widths, mut headed } => {
                write_page(&self.schema, &held, &mut widths, &mut headed, &mut out)?;
                let noun = if self.rows == 1 { "row" } else { "rows" };
                writeln!(out, "({} {noun})", self.rows)?;
                out.flush()?;
            }
        }
        Ok(self.rows)
    }
}

/// An error of Arrow's writers that is one of the output stays one (a closed pipe is no failure).
fn output(error: ArrowError) -> SqlError {
    match error {
        ArrowError::IoError(_, source) => SqlError::Output(source),
        ArrowError::ExternalError(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => SqlError::Output(*source),
            Err(other) => SqlError::from(ArrowError::ExternalError(other)),
        },
        other => SqlError::from(other),
    }
}

/// Two columns of one name (`select * from a join b`) get different ones, so that no JSON object has a key twice.
fn unique_names(schema: &SchemaRef) -> SchemaRef {
    let mut seen = HashSet::new();
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            let mut name = field.name().clone();
            let mut number = 1;
            while !seen.insert(name.clone()) {
                number += 1;
                name = format!("{}_{number}", field.name());
            }
            field.as_ref().clone().with_name(name)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// A column as texts, cell by cell.
enum Cells<'a> {
    Text(&'a ArrayRef),
    Plain(ArrayFormatter<'a>),
    Json(NullableEncoder<'a>),
}

impl<'a> Cells<'a> {
    fn new(
        field: &'a FieldRef,
        array: &'a ArrayRef,
        display: &'a FormatOptions<'a>,
        json: &'a EncoderOptions,
    ) -> Result<Self, ArrowError> {
        Ok(match array.data_type() {
            DataType::Utf8 => Self::Text(array),
            data_type if data_type.is_nested() => Self::Json(make_encoder(field, array, json)?),
            _ => Self::Plain(ArrayFormatter::try_new(array.as_ref(), display)?),
        })
    }

    fn get(&mut self, row: usize) -> Cow<'a, str> {
        match self {
            Self::Text(array) => Cow::Borrowed(array.as_string::<i32>().value(row)),
            Self::Plain(formatter) => Cow::Owned(formatter.value(row).to_string()),
            Self::Json(encoder) => {
                let mut bytes = Vec::new();
                encoder.encode(row, &mut bytes);
                Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
            }
        }
    }
}

/// Calls `each` with every cell of a batch, row by row; none is null.
fn for_each_cell(
    batch: &RecordBatch,
    mut each: impl FnMut(usize, usize, Option<Cow<'_, str>>) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let display = FormatOptions::default();
    let json = EncoderOptions::default().with_explicit_nulls(true);
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let mut cells = columns
        .map(|(field, array)| Ok((array, Cells::new(field, array, &display, &json)?)))
        .collect::<Result<Vec<_>, ArrowError>>()?;
    for row in 0..batch.num_rows() {
        for (column, (array, cells)) in cells.iter_mut().enumerate() {
            let cell = if array.is_null(row) { None } else { Some(cells.get(row)) };
            each(row, column, cell)?;
        }
    }
    Ok(())
}

fn csv_text(text: &str) -> Cow<'_, str> {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

fn write_csv(batch: &RecordBatch, out: &mut impl Write) -> Result<(), SqlError> {
    let last = batch.num_columns().saturating_sub(1);
    for_each_cell(batch, |_, column, cell| {
        let end = if column == last { "\n" } else { "," };
        let text = cell.as_deref().map_or(Cow::Borrowed(""), csv_text);
        Ok(write!(out, "{text}{end}")?)
    })
}

/// Control characters would break the columns, and could drive a terminal.
fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(
            text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

fn write_page(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    widths: &mut Vec<usize>,
    headed: &mut bool,
    out: &mut impl Write,
) -> Result<(), SqlError> {
    let names: Vec<String> = schema.fields().iter().map(|field| printable(field.name()).into_owned()).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in batches {
        for_each_cell(batch, |_, column, cell| {
            if column == 0 {
                rows.push(Vec::with_capacity(names.len()));
            }
            if let Some(row) = rows.last_mut() {
                row.push(cell.map(|text| printable(&text).into_owned()).unwrap_or_default());
            }
            Ok(())
        })?;
    }
    widths.resize(names.len(), 0);
    for row in rows.iter().chain([&names]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if !std::mem::replace(headed, true) {
        write_row(out, &names, widths, |_| false)?;
        let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(out, "{}", rules.join("+"))?;
    }
    for row in &rows {
        write_row(out, row, widths, |column| schema.field(column).data_type().is_numeric())?;
    }
    Ok(())
}

fn write_row(
    out: &mut impl Write,
    row: &[String],
    widths: &[usize],
    right: impl Fn(usize) -> bool,
) -> std::io::Result<()> {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, &width))| {
        if right(column) { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") }
    });
    writeln!(out, "{}", cells.collect::<Vec<_>>().join("|").trim_end())
}

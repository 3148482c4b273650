//! Decoded records → columns, in the order of the tables' schemas.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::error::ArrowError;

use super::decode::Header;
use super::tables::Table;
use crate::attest::dsse::Envelope;
use crate::attest::statement::{Predicate, Statement};
use crate::domain::records::{
    Attestation, Audit, ChunkId, Contribution, DeadLetter, Quality, Receipt, Refusal, Refused,
};

pub(super) mod attributions;
pub(super) mod evaluations;
pub(super) mod models;
pub(super) mod runs;

type Built = Result<RecordBatch, ArrowError>;

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}

fn some_text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn long(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn some_long(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

fn some_integer(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.collect::<Int32Array>())
}

fn double(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn some_double(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

fn boolean(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}

/// Milliseconds of the wire as microseconds UTC.
fn time(values: impl Iterator<Item = i64>) -> ArrayRef {
    some_time(values.map(Some))
}

fn some_time(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let micros = values.map(|value| value.map(|milliseconds| milliseconds.saturating_mul(1_000)));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn batch(table: Table, columns: Vec<ArrayRef>) -> Built {
    RecordBatch::try_new(table.schema(), columns)
}

pub(super) fn contributions(headers: &[Header]) -> Built {
    let of = |field: fn(&Contribution) -> Option<&str>| {
        some_text(headers.iter().map(move |h| h.contribution.as_ref().and_then(field)))
    };
    let number =
        |field: fn(&Contribution) -> i64| some_long(headers.iter().map(move |h| h.contribution.as_ref().map(field)));
    batch(
        Table::Contributions,
        vec![
            of(|c| c.contribution_id.as_deref()),
            of(|c| Some(&c.contributor)),
            of(|c| Some(&c.model)),
            of(|c| c.contract_digest.as_deref()),
            of(|c| Some(&c.format)),
            number(|c| c.chunk),
            number(|c| c.chunks),
            some_long(headers.iter().map(|h| h.contribution.as_ref().map(|_| h.payload_bytes))),
            some_text(headers.iter().map(|h| h.chunk_digest.as_deref())),
            long(headers.iter().map(|h| h.record_bytes)),
            boolean(headers.iter().map(|h| h.contribution.is_some())),
            time(headers.iter().map(|h| h.appended)),
            some_integer(headers.iter().map(|h| Some(h.partition))),
            long(headers.iter().map(|h| h.offset)),
            of(|c| c.sealed.as_deref()),
        ],
    )
}

pub(super) fn refusals(refused: &[Refused]) -> Built {
    let rows: Vec<(&Refused, &Refusal)> =
        refused.iter().flat_map(|record| record.refusals.iter().map(move |refusal| (record, refusal))).collect();
    let id = |field: fn(&ChunkId) -> &str| text(rows.iter().map(move |(record, _)| field(&record.id)));
    let of = |field: fn(&Refusal) -> &str| text(rows.iter().map(move |(_, refusal)| field(refusal)));
    batch(
        Table::Refusals,
        vec![
            id(|id| &id.contribution_id),
            id(|id| &id.contributor),
            id(|id| &id.model),
            id(|id| &id.contract_digest),
            long(rows.iter().map(|(record, _)| record.id.chunk)),
            id(|id| &id.chunk_digest),
            text(rows.iter().map(|(record, _)| record.stage.as_str())),
            long(rows.iter().map(|(_, refusal)| refusal.row)),
            of(|r| &r.code),
            of(|r| &r.column),
            of(|r| &r.rule),
            of(|r| &r.expected),
            of(|r| &r.shape),
            of(|r| &r.row_digest),
            some_integer(rows.iter().map(|(record, _)| record.position.as_ref().map(|p| p.partition))),
            some_long(rows.iter().map(|(record, _)| record.position.as_ref().map(|p| p.offset))),
        ],
    )
}

/// A list column: `lengths` says how many of the struct's rows belong to each row of the table.
fn list(
    data_type: &DataType,
    lengths: impl Iterator<Item = usize>,
    columns: Vec<ArrayRef>,
) -> Result<ArrayRef, ArrowError> {
    let element = element_of(data_type)?;
    let values: ArrayRef = match element.data_type() {
        DataType::Struct(fields) => Arc::new(StructArray::try_new(fields.clone(), columns, None)?),
        _ => columns.into_iter().next().ok_or_else(|| ArrowError::SchemaError("a list needs its values".to_owned()))?,
    };
    Ok(Arc::new(ListArray::try_new(element, OffsetBuffer::from_lengths(lengths), values, None)?))
}

fn element_of(data_type: &DataType) -> Result<FieldRef, ArrowError> {
    match data_type {
        DataType::List(element) => Ok(Arc::clone(element)),
        other => Err(ArrowError::SchemaError(format!("{other} is no list"))),
    }
}

fn fields_of(field: &Field) -> Result<Fields, ArrowError> {
    match field.data_type() {
        DataType::Struct(fields) => Ok(fields.clone()),
        other => Err(ArrowError::SchemaError(format!("{other} is no struct"))),
    }
}

pub(super) fn receipts(receipts: &[Receipt]) -> Built {
    let of = |field: fn(&Receipt) -> &str| text(receipts.iter().map(field));
    let number = |field: fn(&Receipt) -> i64| long(receipts.iter().map(field));
    let schema = Table::Receipts.schema();
    let refused = list(
        schema.field_with_name("refused")?.data_type(),
        receipts.iter().map(|r| r.refused.len()),
        vec![
            text(receipts.iter().flat_map(|r| &r.refused).map(|c| c.reason.as_str())),
            long(receipts.iter().flat_map(|r| &r.refused).map(|c| c.count)),
        ],
    )?;
    let pii = list(
        schema.field_with_name("pii")?.data_type(),
        receipts.iter().map(|r| r.pii.len()),
        vec![
            text(receipts.iter().flat_map(|r| &r.pii).map(|c| c.kind.as_str())),
            long(receipts.iter().flat_map(|r| &r.pii).map(|c| c.count)),
        ],
    )?;
    let bound = list(
        schema.field_with_name("bound")?.data_type(),
        receipts.iter().map(|r| r.bound.len()),
        vec![
            long(receipts.iter().flat_map(|r| &r.bound).map(|c| c.chunk)),
            text(receipts.iter().flat_map(|r| &r.bound).map(|c| c.chunk_digest.as_str())),
            long(receipts.iter().flat_map(|r| &r.bound).map(|c| c.rows)),
            text(receipts.iter().flat_map(|r| &r.bound).map(|c| c.root.as_str())),
        ],
    )?;
    let quality: Vec<&Quality> = receipts.iter().map(|r| &r.quality).collect();
    batch(
        Table::Receipts,
        vec![
            of(|r| &r.contribution_id),
            of(|r| &r.contributor),
            of(|r| &r.model),
            of(|r| &r.contract_digest),
            of(|r| &r.status),
            number(|r| r.received),
            number(|r| r.accepted),
            refused,
            quality_column(schema.field_with_name("quality")?, &quality)?,
            pii,
            of(|r| &r.merkle_root),
            number(|r| r.merkle_rows),
            number(|r| r.chunks),
            bound,
            of(|r| &r.chunks_digest),
            time(receipts.iter().map(|r| r.last_appended)),
            boolean(receipts.iter().map(|r| r.contributor_verified)),
            some_text(receipts.iter().map(|r| r.contributor_signature.as_deref())),
            of(|r| &r.leaf),
        ],
    )
}

fn quality_column(field: &Field, quality: &[&Quality]) -> Result<ArrayRef, ArrowError> {
    let fields = fields_of(field)?;
    let type_of = |name: &str| {
        let found = fields.find(name).map(|(_, field)| field.data_type().clone());
        found.ok_or_else(|| ArrowError::SchemaError(format!("quality has no {name}")))
    };
    let flags = list(
        &type_of("flags")?,
        quality.iter().map(|q| q.flags.len()),
        vec![text(quality.iter().flat_map(|q| &q.flags).map(String::as_str))],
    )?;
    let all = || quality.iter().flat_map(|q| &q.dimensions);
    let dimensions = list(
        &type_of("dimensions")?,
        quality.iter().map(|q| q.dimensions.len()),
        vec![
            text(all().map(|d| d.name.as_str())),
            double(all().map(|d| d.value)),
            double(all().map(|d| d.weight)),
            double(all().map(|d| d.loss)),
            boolean(all().map(|d| d.measured)),
        ],
    )?;
    let columns = vec![
        text(quality.iter().map(|q| q.formula.as_str())),
        some_double(quality.iter().map(|q| q.score)),
        some_double(quality.iter().map(|q| q.validity_lower)),
        text(quality.iter().map(|q| q.gate.as_str())),
        flags,
        dimensions,
    ];
    Ok(Arc::new(StructArray::try_new(fields, columns, None)?))
}

pub(super) fn dead_letters(letters: &[DeadLetter]) -> Built {
    let of = |field: fn(&DeadLetter) -> &str| text(letters.iter().map(field));
    batch(
        Table::DeadLetters,
        vec![
            of(|l| &l.stage),
            of(|l| &l.position.topic),
            some_integer(letters.iter().map(|l| Some(l.position.partition))),
            long(letters.iter().map(|l| l.position.offset)),
            of(|l| &l.reason),
            of(|l| &l.detail),
            long(letters.iter().map(|l| l.size)),
            of(|l| &l.digest),
            some_text(letters.iter().map(|l| l.sealed_to.as_deref())),
        ],
    )
}

pub(super) fn audit(entries: &[Audit]) -> Built {
    let of = |field: fn(&Audit) -> &str| text(entries.iter().map(field));
    batch(
        Table::Audit,
        vec![
            of(|a| &a.actor),
            of(|a| &a.action),
            of(|a| &a.resource),
            boolean(entries.iter().map(|a| a.allowed)),
            of(|a| &a.reason),
            some_text(entries.iter().map(|a| a.position.as_ref().map(|p| p.topic.as_str()))),
            some_integer(entries.iter().map(|a| a.position.as_ref().map(|p| p.partition))),
            some_long(entries.iter().map(|a| a.position.as_ref().map(|p| p.offset))),
            some_text(entries.iter().map(|a| a.command_id.as_deref())),
            some_long(entries.iter().map(|a| a.revision)),
        ],
    )
}

/// What a table shows of an attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attested {
    index: i64,
    leaf: String,
    predicate_type: String,
    subject: String,
    contribution_id: Option<String>,
    keyid: Option<String>,
    statement: String,
}

impl Attested {
    /// Reads a record of `attestations`; none when it holds no statement of this version.
    pub(super) fn of(record: &Attestation) -> Option<Self> {
        let envelope = Envelope::from_json(&record.envelope).ok()?;
        let statement = Statement::read(&envelope.payload).ok()?;
        let contribution_id = match &statement.predicate {
            Predicate::Contribution(receipt) => Some(receipt.contribution_id.clone()),
            _ => None,
        };
        Some(Self {
            index: record.index,
            leaf: record.leaf.clone(),
            predicate_type: statement.predicate.uri().to_owned(),
            subject: statement.subject.name,
            contribution_id,
            keyid: envelope.signatures.into_iter().next().map(|signature| signature.keyid),
            statement: String::from_utf8(envelope.payload).ok()?,
        })
    }
}

pub(super) fn attestations(entries: &[Attested]) -> Built {
    let of = |field: fn(&Attested) -> &str| text(entries.iter().map(field));
    batch(
        Table::Attestations,
        vec![
            long(entries.iter().map(|e| e.index)),
            of(|e| &e.leaf),
            of(|e| &e.predicate_type),
            of(|e| &e.subject),
            some_text(entries.iter().map(|e| e.contribution_id.as_deref())),
            some_text(entries.iter().map(|e| e.keyid.as_deref())),
            of(|e| &e.statement),
        ],
    )
}

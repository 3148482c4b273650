//! Records of public topics → Arrow batches of the tables.
//!
//! Accepted rows stay columnar: the Arrow batch of the record gets its fixed columns and is kept as it is. The other
//! topics are decoded record by record and become columns when the batch is taken.
//!
//! A record that cannot be read is told as [`Unreadable`] and skipped; on `contributions`, where outsiders write, it
//! becomes a row with `readable = false`. What it holds is nowhere repeated.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::ipc::reader::StreamReader;
use data_encoding::HEXLOWER;

use super::columns::contract_field;
use super::error::WarehouseError;
use super::records;
use super::tables::Table;
use crate::codec::contribution;
use crate::codec::wire::{Wire, WireError};
use crate::domain::keys::{LiveKeys, ModelKeys};
use crate::domain::records::{
    Accepted, Attestation, Attribution, Audit, ChunkId, Contribution, DeadLetter, Evaluation, Model, Receipt, Refused,
    TrainingJob, TrainingRun, TrialResult,
};

/// Rows of one record at most; intake's own limit.
const MAX_ROWS: usize = 65_536;

/// Model keys kept at hand; names come from outsiders, so there is a bound.
const MAX_MODELS: usize = 1_024;

/// A record as the consumer hands it over.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Append time, milliseconds UTC.
    pub timestamp: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; none is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Why a record gave no rows.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The same bytes may be readable later (schema registry out of reach).
    #[error("{0}")]
    Retry(WireError),
    /// Not a record of this topic; skipped.
    #[error("{0}")]
    Skipped(String),
}

impl From<WireError> for Unreadable {
    fn from(error: WireError) -> Self {
        if error.is_retriable() { Self::Retry(error) } else { Self::Skipped(error.to_string()) }
    }
}

/// Header of a contributed chunk: everything but the payload.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Header {
    pub contribution: Option<Contribution>,
    pub payload_bytes: i64,
    /// None when the payload is sealed: only intake opens it.
    pub chunk_digest: Option<String>,
    pub record_bytes: i64,
    pub appended: i64,
    pub partition: i32,
    pub offset: i64,
}

#[derive(Debug)]
enum Pending {
    Contributions(Vec<Header>),
    Rows(Vec<RecordBatch>),
    Refusals(Vec<Refused>),
    Receipts(Vec<Receipt>),
    DeadLetters(Vec<DeadLetter>),
    Audit(Vec<Audit>),
    ModelRevisions(Vec<Model>),
    Attestations(Vec<records::Attested>),
    RunStates(Vec<TrainingRun>),
    TrialResults(Vec<(String, TrialResult)>),
    Evaluations(Vec<Evaluation>),
    Attributions(Vec<Attribution>),
}

/// Decodes the records of one table's topic and holds them until they are taken.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    wire: Wire,
    keys: LiveKeys,
    models: HashMap<String, ModelKeys>,
    pending: Pending,
}

impl Decoder {
    /// A decoder with nothing pending.
    #[must_use]
    pub fn new(table: Table, wire: Wire, keys: LiveKeys) -> Self {
        Self { table, wire, keys, models: HashMap::new(), pending: Pending::of(table) }
    }

    /// Decodes a record; returns how many rows it gives.
    ///
    /// # Errors
    /// [`Unreadable`]: nothing was taken in.
    pub fn push(&mut self, record: &Incoming<'_>) -> Result<usize, Unreadable> {
        if let Pending::Contributions(_) = self.pending {
            let header = self.header(record)?;
            if let Pending::Contributions(headers) = &mut self.pending {
                headers.push(header);
            }
            return Ok(1);
        }
        let Some(value) = record.value else { return Ok(0) };
        match &mut self.pending {
            Pending::Contributions(_) => Ok(0),
            Pending::Rows(batches) => {
                let accepted: Accepted = self.wire.decode(value)?;
                let before = batches.len();
                for batch in read_rows(&accepted)? {
                    batches.push(batch);
                }
                Ok(batches.iter().skip(before).map(RecordBatch::num_rows).sum())
            }
            Pending::Refusals(refused) => {
                let record: Refused = self.wire.decode(value)?;
                let rows = record.refusals.len();
                refused.push(record);
                Ok(rows)
            }
            Pending::Receipts(receipts) => keep(receipts, self.wire.decode(value)?),
            Pending::DeadLetters(letters) => {
                let letter: DeadLetter = self.wire.decode(value)?;
                // One row for each record, however many letters it is spread over; none of its sealed bytes.
                if letter.part > 0 { Ok(0) } else { keep(letters, DeadLetter { sealed: None, ..letter }) }
            }
            Pending::Audit(entries) => keep(entries, self.wire.decode(value)?),
            Pending::ModelRevisions(models) => keep(models, self.wire.decode(value)?),
            Pending::RunStates(runs) => keep(runs, self.wire.decode(value)?),
            Pending::TrialResults(results) => {
                let job: TrainingJob = self.wire.decode(value)?;
                // Requests and cancellations show in the runs.
                job.trial.map_or(Ok(0), |result| keep(results, (job.run_id, result)))
            }
            Pending::Evaluations(records) => keep(records, self.wire.decode(value)?),
            Pending::Attributions(records) => keep(records, self.wire.decode(value)?),
            Pending::Attestations(entries) => {
                let record: Attestation = self.wire.decode(value)?;
                let read = records::Attested::of(&record);
                keep(entries, read.ok_or_else(|| Unreadable::Skipped("its envelope holds no statement".to_owned()))?)
            }
        }
    }

    /// What was decoded since the last call, as batches of the table.
    ///
    /// # Errors
    /// [`WarehouseError::Arrow`]: a defect.
    pub fn take(&mut self) -> Result<Vec<RecordBatch>, WarehouseError> {
        let batch = match std::mem::replace(&mut self.pending, Pending::of(self.table)) {
            Pending::Rows(batches) => return Ok(batches),
            Pending::Contributions(headers) => records::contributions(&headers),
            Pending::Refusals(refused) => records::refusals(&refused),
            Pending::Receipts(receipts) => records::receipts(&receipts),
            Pending::DeadLetters(letters) => records::dead_letters(&letters),
            Pending::Audit(entries) => records::audit(&entries),
            Pending::ModelRevisions(models) => records::models::revisions(&models),
            Pending::Attestations(entries) => records::attestations(&entries),
            Pending::RunStates(runs) => records::runs::states(&runs),
            Pending::TrialResults(results) => records::runs::trials(&results),
            Pending::Evaluations(told) => records::evaluations::told(&told),
            Pending::Attributions(told) => records::attributions::told(&told),
        };
        let batch = batch.map_err(|e| WarehouseError::arrow(self.table, "a batch", e))?;
        Ok(if batch.num_rows() == 0 { Vec::new() } else { vec![batch] })
    }

    fn header(&mut self, record: &Incoming<'_>) -> Result<Header, Unreadable> {
        let value = record.value.unwrap_or_default();
        let mut header = Header {
            record_bytes: i64::try_from(value.len()).unwrap_or(i64::MAX),
            appended: record.timestamp,
            partition: record.partition,
            offset: record.offset,
            ..Header::default()
        };
        match contribution::decode(&self.wire, value) {
            Ok(mut contribution) => {
                let payload = std::mem::take(&mut contribution.payload);
                header.payload_bytes = i64::try_from(payload.len()).unwrap_or(i64::MAX);
                if contribution.sealed.is_none() {
                    let digest = self.model(&contribution.model).chunk_digest(&payload);
                    header.chunk_digest = Some(HEXLOWER.encode(&digest));
                }
                if contribution.contribution_id.is_none() {
                    contribution.contribution_id = record.key.and_then(id_of_key);
                }
                header.contribution = Some(contribution);
                Ok(header)
            }
            Err(error) if error.is_retriable() => Err(Unreadable::Retry(error)),
            Err(_) => Ok(header),
        }
    }

    fn model(&mut self, model: &str) -> &ModelKeys {
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(model) {
            self.models.clear();
        }
        let keys = &self.keys;
        self.models.entry(model.to_owned()).or_insert_with(|| keys.ring().model(model))
    }
}

/// Without `contribution_id` the record's key is the id.
fn id_of_key(key: &[u8]) -> Option<String> {
    let fits = !key.is_empty() && key.len() <= crate::domain::limits::MAX_ID;
    std::str::from_utf8(key).ok().filter(|_| fits).map(str::to_owned)
}

fn keep<T>(records: &mut Vec<T>, record: T) -> Result<usize, Unreadable> {
    records.push(record);
    Ok(1)
}

impl Pending {
    fn of(table: Table) -> Self {
        match table {
            Table::Contributions => Self::Contributions(Vec::new()),
            Table::Rows => Self::Rows(Vec::new()),
            Table::Refusals => Self::Refusals(Vec::new()),
            Table::Receipts => Self::Receipts(Vec::new()),
            Table::DeadLetters => Self::DeadLetters(Vec::new()),
            Table::Audit => Self::Audit(Vec::new()),
            Table::ModelRevisions => Self::ModelRevisions(Vec::new()),
            Table::Attestations => Self::Attestations(Vec::new()),
            Table::RunStates => Self::RunStates(Vec::new()),
            Table::TrialResults => Self::TrialResults(Vec::new()),
            Table::Evaluations => Self::Evaluations(Vec::new()),
            Table::Attributions => Self::Attributions(Vec::new()),
        }
    }
}

fn read_rows(accepted: &Accepted) -> Result<Vec<RecordBatch>, Unreadable> {
    // The text of an Arrow error may hold a value.
    let broken = |what: &str| Unreadable::Skipped(format!("its Arrow batch {what}"));
    let reader = StreamReader::try_new(Cursor::new(&accepted.batch), None).map_err(|_| broken("has no schema"))?;
    let mut batches = Vec::new();
    let mut rows = 0;
    for batch in reader {
        let batch = batch.map_err(|_| broken("cannot be read"))?;
        rows += batch.num_rows();
        if rows > MAX_ROWS {
            return Err(broken("has more rows than a chunk may have"));
        }
        if batch.num_rows() > 0 {
            batches.push(row_batch(accepted, &batch).map_err(|_| broken("lacks its fixed columns"))?);
        }
    }
    Ok(batches)
}

/// Fixed columns, then the contract's columns in the types of the table.
fn row_batch(accepted: &Accepted, batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let ChunkId { contribution_id, contributor, model, contract_digest, chunk, chunk_digest, .. } = &accepted.id;
    let rows = batch.num_rows();
    let own = |name: &str| {
        let column = batch.column_by_name(name);
        column.ok_or_else(|| arrow::error::ArrowError::SchemaError(format!("no column {name}")))
    };
    let mut fields: Vec<Arc<Field>> = Table::Rows.schema().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(repeated(contribution_id, rows)),
        Arc::new(repeated(contributor, rows)),
        Arc::new(repeated(model, rows)),
        Arc::new(repeated(contract_digest, rows)),
        Arc::new(arrow::array::Int64Array::from_value(*chunk, rows)),
        Arc::new(repeated(chunk_digest, rows)),
        Arc::new(arrow::array::Int32Array::from_value(accepted.shard, rows)),
        cast(own("_row")?, &DataType::Int64)?,
        Arc::new(hex(own("_row_hash")?)?),
    ];
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if field.name().starts_with('_') && ["_row", "_row_hash", "_feature_hash"].contains(&field.name().as_str()) {
            continue;
        }
        let field = contract_field(field);
        let column = match column.data_type() == field.data_type() {
            true => Arc::clone(column),
            false => cast(column, field.data_type())?,
        };
        fields.push(Arc::new(field));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(Fields::from(fields))), columns)
}

fn repeated(text: &str, rows: usize) -> StringArray {
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(text.len(), rows));
    StringArray::new(offsets, Buffer::from(text.repeat(rows).into_bytes()), None)
}

fn hex(column: &ArrayRef) -> Result<StringArray, arrow::error::ArrowError> {
    let wrong = || arrow::error::ArrowError::SchemaError("not a fixed-size binary column".to_owned());
    let binary = column.as_fixed_size_binary_opt().ok_or_else(wrong)?;
    let bytes: usize = usize::try_from(binary.value_length()).map_err(|_| wrong())?;
    let mut text = String::with_capacity(binary.len() * bytes * 2);
    for value in binary.iter() {
        HEXLOWER.encode_append(value.unwrap_or_default(), &mut text);
    }
    let lengths = (0..binary.len()).map(|at| if binary.is_null(at) { 0 } else { bytes * 2 });
    StringArray::try_new(OffsetBuffer::from_lengths(lengths), Buffer::from(text.into_bytes()), binary.nulls().cloned())
}

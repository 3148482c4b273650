//! Parquet and Arrow: a file that fits into one chunk goes as it is; of a larger one the rows become Arrow IPC streams
//! (LZ4), which are cheap to write here and to read in intake.
//!
//! The files are the user's own: their decoders are trusted with what a file declares, but neither with ending the
//! program nor with telling what they found.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;

use super::super::{guard::guarded, ipc};
use super::{SplitError, changed};
use crate::domain::limits::{MAX_CHUNK_DECODED, MAX_CHUNK_ROWS, MAX_CHUNK_WIRE};

const BATCH: usize = 8192;
const ARROW_FILE: &[u8] = b"ARROW1";

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parquet,
    Arrow,
}

/// Row counts of the chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    kind: Kind,
    rows: Vec<usize>,
    /// The file is the one chunk.
    whole: bool,
}

impl Chunks {
    /// Cuts a Parquet file.
    pub(super) fn parquet(path: &Path) -> Result<Self, SplitError> {
        Self::cut(Kind::Parquet, path)
    }

    /// Cuts an Arrow IPC file or stream.
    pub(super) fn arrow(path: &Path) -> Result<Self, SplitError> {
        Self::cut(Kind::Arrow, path)
    }

    fn cut(kind: Kind, path: &Path) -> Result<Self, SplitError> {
        let mut rows = Rows::open(kind, path)?;
        let mut gathered = Gathered::new(&rows.schema);
        while let Some(batch) = rows.batch()? {
            for size in row_sizes(&batch) {
                gathered.add(size)?;
            }
        }
        let (all, bytes) = (gathered.all, gathered.bytes);
        let fits = std::fs::metadata(path)?.len() <= MAX_CHUNK_WIRE as u64
            && all <= MAX_CHUNK_ROWS
            && bytes <= MAX_CHUNK_DECODED / 2;
        let whole = fits && is_read_as_it_is(kind, path)?;
        let rows = match (all, whole) {
            (0, _) => Vec::new(),
            (_, true) => vec![all],
            (_, false) => gathered.finish(),
        };
        Ok(Self { kind, rows, whole })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the chunks are Arrow, whatever the file is.
    pub(super) fn is_arrow(&self) -> bool {
        !self.whole || self.kind == Kind::Arrow
    }

    pub(super) fn payloads<'a>(
        &'a self,
        path: &Path,
    ) -> Box<dyn Iterator<Item = Result<Vec<u8>, SplitError>> + Send + 'a> {
        if self.whole {
            return Box::new(std::iter::once(std::fs::read(path).map_err(SplitError::from)));
        }
        match Rows::open(self.kind, path) {
            Err(error) => Box::new(std::iter::once(Err(error))),
            Ok(mut rows) => Box::new(self.rows.iter().map(move |count| rows.take(*count))),
        }
    }
}

/// Intake reads fewer compressions of Parquet than there are.
fn is_read_as_it_is(kind: Kind, path: &Path) -> Result<bool, SplitError> {
    if kind == Kind::Arrow {
        return Ok(true);
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?).map_err(|_| malformed(kind))?;
    let mut chunks = builder.metadata().row_groups().iter().flat_map(|group| group.columns());
    Ok(chunks.all(|chunk| {
        let compression = chunk.compression();
        matches!(
            compression,
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) | Compression::LZ4_RAW
        )
    }))
}

fn malformed(kind: Kind) -> SplitError {
    let format = if kind == Kind::Parquet { "Parquet" } else { "Arrow IPC" };
    // The readers' own texts may repeat what they found.
    let detail = "it is damaged, or has a column of a type that is not read".to_owned();
    SplitError::Malformed { format, detail, help: "write the file again; the submission reads what pyarrow writes" }
}

/// Row counts of chunks, gathered from the sizes of rows.
struct Gathered {
    room: usize,
    rows: Vec<usize>,
    /// Rows and bytes of the chunk that is being filled.
    open: (usize, usize),
    all: usize,
    bytes: usize,
}

impl Gathered {
    fn new(schema: &Schema) -> Self {
        // What a stream has besides its values: the schema, and the padding of buffers.
        let besides = (8 << 10) + 1024 * schema.fields().len();
        let room = MAX_CHUNK_WIRE.saturating_sub(besides).max(MAX_CHUNK_WIRE / 4);
        Self { room, rows: Vec::new(), open: (0, 0), all: 0, bytes: 0 }
    }

    fn add(&mut self, size: usize) -> Result<(), SplitError> {
        self.all += 1;
        self.bytes = self.bytes.saturating_add(size);
        if size > self.room {
            let what = format!("row {}", self.all);
            return Err(SplitError::TooLarge { what, help: "leave out what is not in the contract" });
        }
        let (rows, bytes) = self.open;
        self.open = if rows < MAX_CHUNK_ROWS && bytes + size <= self.room {
            (rows + 1, bytes + size)
        } else {
            self.rows.push(rows);
            (1, size)
        };
        Ok(())
    }

    fn finish(mut self) -> Vec<usize> {
        self.rows.push(self.open.0);
        self.rows
    }
}

/// The rows of a columnar file in plain types, read from the first on.
struct Rows {
    kind: Kind,
    batches: Batches,
    schema: SchemaRef,
    /// Rows that were read and not yet taken.
    left: Option<RecordBatch>,
    taken: usize,
}

impl Rows {
    fn open(kind: Kind, path: &Path) -> Result<Self, SplitError> {
        let (schema, batches) = guarded(|| open(kind, path)).unwrap_or_else(|| Err(malformed(kind)))?;
        Ok(Self { kind, batches, schema: Arc::new(plain_schema(&schema)), left: None, taken: 0 })
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, SplitError> {
        let (batches, schema) = (&mut self.batches, &self.schema);
        match guarded(|| batches.next().map(|batch| batch.and_then(|batch| plain(&batch, schema)))) {
            Some(None) => Ok(None),
            Some(Some(Ok(batch))) => Ok(Some(batch)),
            None | Some(Some(Err(_))) => Err(malformed(self.kind)),
        }
    }

    /// The next `rows` rows as an Arrow IPC stream.
    fn take(&mut self, rows: usize) -> Result<Vec<u8>, SplitError> {
        let mut parts = Vec::new();
        let mut wanted = rows;
        while wanted > 0 {
            let batch = match self.left.take() {
                Some(batch) => batch,
                None => self.batch()?.ok_or_else(changed)?,
            };
            let here = batch.num_rows().min(wanted);
            if here < batch.num_rows() {
                self.left = Some(batch.slice(here, batch.num_rows() - here));
            }
            wanted -= here;
            parts.push(batch.slice(0, here));
        }
        let whole = concat_batches(&self.schema, &parts).map_err(|_| malformed(self.kind))?;
        let payload = ipc::write(&whole, ipc::Compression::Lz4).map_err(|_| malformed(self.kind))?;
        if payload.len() > MAX_CHUNK_WIRE {
            let what = format!("the chunk from row {} on", self.taken + 1);
            return Err(SplitError::TooLarge { what, help: "leave nested columns out" });
        }
        self.taken += rows;
        Ok(payload)
    }
}

fn open(kind: Kind, path: &Path) -> Result<(SchemaRef, Batches), SplitError> {
    let mut file = File::open(path)?;
    if kind == Kind::Parquet {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|_| malformed(kind))?;
        let schema = builder.schema().clone();
        let reader = builder.with_batch_size(BATCH).build().map_err(|_| malformed(kind))?;
        return Ok((schema, Box::new(reader)));
    }
    let mut head = Vec::new();
    file.by_ref().take(ARROW_FILE.len() as u64).read_to_end(&mut head)?;
    let file = BufReader::new(File::open(path)?);
    if head == ARROW_FILE {
        let reader = FileReader::try_new(file, None).map_err(|_| malformed(kind))?;
        return Ok((reader.schema(), Box::new(reader)));
    }
    let reader = StreamReader::try_new(file, None).map_err(|_| malformed(kind))?;
    Ok((reader.schema(), Box::new(reader)))
}

/// Dictionaries and views would be written with all that they refer to, however few rows are taken.
fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

fn plain_schema(schema: &Schema) -> Schema {
    // The file's metadata is not the rows', and the order of its entries is not fixed.
    let plain = |field: &Arc<Field>| Field::new(field.name(), plain_type(field.data_type()), field.is_nullable());
    Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>())
}

fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let plain = |(column, field): (&ArrayRef, &Arc<Field>)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(plain).collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Bytes that each row takes in a stream, uncompressed.
fn row_sizes(batch: &RecordBatch) -> Vec<usize> {
    let mut sizes = vec![1; batch.num_rows()];
    for column in batch.columns() {
        match column.data_type() {
            DataType::Utf8 => add_lengths(&mut sizes, column.as_string::<i32>().value_offsets()),
            DataType::Binary => add_lengths(&mut sizes, column.as_binary::<i32>().value_offsets()),
            DataType::LargeUtf8 => add_lengths(&mut sizes, column.as_string::<i64>().value_offsets()),
            DataType::LargeBinary => add_lengths(&mut sizes, column.as_binary::<i64>().value_offsets()),
            found => {
                let width = match found.primitive_width() {
                    Some(width) => width + 1,
                    None if matches!(found, DataType::Boolean | DataType::Null) => 1,
                    // Nested columns: no contract has them; twice their average will do.
                    None => 2 * column.to_data().get_slice_memory_size().unwrap_or(0) / sizes.len().max(1) + 16,
                };
                sizes.iter_mut().for_each(|size| *size += width);
            }
        }
    }
    sizes
}

fn add_lengths<O: Copy + Into<i64>>(sizes: &mut [usize], offsets: &[O]) {
    for (size, ends) in sizes.iter_mut().zip(offsets.windows(2)) {
        *size += 9 + usize::try_from(ends[1].into() - ends[0].into()).unwrap_or(0);
    }
}

//! Parquet and Arrow: rows are read in batches and encoded again as documents that fit.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::SplitError;
use crate::domain::limits::{MAX_CHUNK_DECODED, MAX_CHUNK_ROWS, MAX_CHUNK_WIRE};

/// Rows that are encoded together at first; halved until they fit.
const ROWS: usize = 32_768;
/// Encoded chunks are kept for sending while they are smaller than this together.
const KEEP: usize = 64 << 20;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, SplitError>> + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parquet,
    Arrow,
}

/// Row counts of the chunks, and the chunks themselves while they are few.
#[derive(Debug)]
pub(super) struct Chunks {
    kind: Kind,
    rows: Vec<usize>,
    /// The chunks' bytes; none when they are too many to keep.
    kept: Option<Vec<Vec<u8>>>,
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
        let mut chunks = Self { kind, rows: Vec::new(), kept: Some(Vec::new()) };
        if let Some(whole) = as_it_is(kind, path)? {
            chunks.rows.push(whole.0);
            chunks.kept = Some(vec![whole.1]);
            return Ok(chunks);
        }
        let mut size = 0;
        for batch in Regrouped::new(batches(kind, path)?, ROWS) {
            for piece in fitting(kind, &batch?)? {
                chunks.rows.push(piece.0);
                size += piece.1.len();
                match &mut chunks.kept {
                    Some(kept) if size <= KEEP => kept.push(piece.1),
                    kept => *kept = None,
                }
            }
        }
        Ok(chunks)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    pub(super) fn payloads<'a>(
        &'a self,
        path: &Path,
    ) -> Box<dyn Iterator<Item = Result<Vec<u8>, SplitError>> + Send + 'a> {
        if let Some(kept) = &self.kept {
            return Box::new(kept.iter().cloned().map(Ok));
        }
        match batches(self.kind, path) {
            Err(error) => Box::new(std::iter::once(Err(error))),
            Ok(batches) => Box::new(self.encode_again(batches)),
        }
    }

    /// Encodes the same rows again: the counts are known, so nothing is tried twice.
    fn encode_again(&self, batches: Batches) -> impl Iterator<Item = Result<Vec<u8>, SplitError>> + Send {
        let kind = self.kind;
        let mut regrouped = Regrouped::new(batches, ROWS);
        let mut rest: Option<RecordBatch> = None;
        self.rows.iter().map(move |rows| {
            let batch = match rest.take() {
                Some(rest) if rest.num_rows() > 0 => rest,
                _ => regrouped.next().ok_or_else(changed)??,
            };
            if batch.num_rows() < *rows {
                return Err(changed());
            }
            rest = Some(batch.slice(*rows, batch.num_rows() - rows));
            encode(kind, &batch.slice(0, *rows))
        })
    }
}

fn changed() -> SplitError {
    SplitError::Io(std::io::Error::other("the file was changed while it was sent"))
}

/// A file that fits into one chunk goes as it is: (rows, bytes).
fn as_it_is(kind: Kind, path: &Path) -> Result<Option<(usize, Vec<u8>)>, SplitError> {
    if std::fs::metadata(path)?.len() > MAX_CHUNK_WIRE as u64 {
        return Ok(None);
    }
    let (mut rows, mut decoded) = (0, 0);
    for batch in batches(kind, path)? {
        let batch = batch?;
        rows += batch.num_rows();
        decoded += batch.get_array_memory_size();
        if rows > MAX_CHUNK_ROWS || decoded > MAX_CHUNK_DECODED / 2 {
            return Ok(None);
        }
    }
    if rows == 0 {
        return Err(SplitError::Empty);
    }
    Ok(Some((rows, std::fs::read(path)?)))
}

/// Encodes a batch, in as many pieces as it takes: (rows, bytes) each.
fn fitting(kind: Kind, batch: &RecordBatch) -> Result<Vec<(usize, Vec<u8>)>, SplitError> {
    let rows = batch.num_rows();
    if batch.get_array_memory_size() <= MAX_CHUNK_DECODED / 2 || rows == 1 {
        let bytes = encode(kind, batch)?;
        if bytes.len() <= MAX_CHUNK_WIRE {
            return Ok(vec![(rows, bytes)]);
        }
    }
    if rows <= 1 {
        return Err(SplitError::TooLarge { what: "a row".to_owned(), help: "leave out what is not in the contract" });
    }
    // Slices share buffers, and so would their sizes: each half is copied.
    let half = |from: usize, to: usize| concat_batches(&batch.schema(), [&batch.slice(from, to - from)]);
    let mut pieces = fitting(kind, &half(0, rows / 2).map_err(|e| malformed(kind, &e))?)?;
    pieces.extend(fitting(kind, &half(rows / 2, rows).map_err(|e| malformed(kind, &e))?)?);
    Ok(pieces)
}

fn encode(kind: Kind, batch: &RecordBatch) -> Result<Vec<u8>, SplitError> {
    let mut bytes = Vec::new();
    match kind {
        Kind::Parquet => {
            let level = ZstdLevel::try_new(1).map_err(|e| malformed(kind, &e))?;
            let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
            let mut writer =
                ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).map_err(|e| malformed(kind, &e))?;
            writer.write(batch).and_then(|()| writer.close().map(drop)).map_err(|e| malformed(kind, &e))?;
        }
        Kind::Arrow => {
            let options = IpcWriteOptions::default()
                .try_with_compression(Some(CompressionType::ZSTD))
                .map_err(|e| malformed(kind, &e))?;
            let mut writer = StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options)
                .map_err(|e| malformed(kind, &e))?;
            writer.write(batch).and_then(|()| writer.finish()).map_err(|e| malformed(kind, &e))?;
        }
    }
    Ok(bytes)
}

fn batches(kind: Kind, path: &Path) -> Result<Batches, SplitError> {
    let file = File::open(path)?;
    let wrong = move |e: &dyn std::fmt::Display| malformed(kind, e);
    match kind {
        Kind::Parquet => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file)
                .and_then(|builder| builder.with_batch_size(8192).build())
                .map_err(|e| wrong(&e))?;
            Ok(Box::new(reader.map(move |batch| batch.map_err(|e| wrong(&e)))))
        }
        Kind::Arrow => {
            let mut file = BufReader::new(file);
            if let Ok(reader) = FileReader::try_new(&mut file, None) {
                drop(reader);
                let reader = FileReader::try_new_buffered(File::open(path)?, None).map_err(|e| wrong(&e))?;
                return Ok(Box::new(reader.map(move |batch| batch.map_err(|e| wrong(&e)))));
            }
            file.rewind()?;
            let reader = StreamReader::try_new(file, None).map_err(|e| wrong(&e))?;
            Ok(Box::new(reader.map(move |batch| batch.map_err(|e| wrong(&e)))))
        }
    }
}

fn malformed(kind: Kind, error: &dyn std::fmt::Display) -> SplitError {
    let format = if kind == Kind::Parquet { "Parquet" } else { "Arrow IPC" };
    // A reader's text may repeat what it found: it is cut short.
    let detail = error.to_string().chars().take(200).collect();
    SplitError::Malformed { format, detail, help: "write the file again; the submission reads what pyarrow writes" }
}

/// Batches of exactly `rows` rows (the last one may be shorter), however the file was written.
struct Regrouped {
    batches: Batches,
    rows: usize,
    schema: Option<SchemaRef>,
    waiting: Vec<RecordBatch>,
    count: usize,
}

impl Regrouped {
    fn new(batches: Batches, rows: usize) -> Self {
        Self { batches, rows, schema: None, waiting: Vec::new(), count: 0 }
    }

    fn flush(&mut self) -> Result<RecordBatch, SplitError> {
        let schema = self.schema.clone().ok_or(SplitError::Empty)?;
        let joined = concat_batches(&schema, &self.waiting).map_err(|e| malformed(Kind::Arrow, &e))?;
        let take = self.rows.min(joined.num_rows());
        let rest = joined.slice(take, joined.num_rows() - take);
        self.count = rest.num_rows();
        self.waiting = if self.count > 0 { vec![rest] } else { Vec::new() };
        let part = joined.slice(0, take);
        // A copy of its own, so that its size is its own.
        concat_batches(&schema, [&part]).map_err(|e| malformed(Kind::Arrow, &e))
    }
}

impl Iterator for Regrouped {
    type Item = Result<RecordBatch, SplitError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.count < self.rows {
            match self.batches.next() {
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(batch)) => {
                    self.schema.get_or_insert_with(|| Arc::clone(batch.schema_ref()));
                    self.count += batch.num_rows();
                    self.waiting.push(batch);
                }
                None if self.count == 0 => return None,
                None => return Some(self.flush()),
            }
        }
        Some(self.flush())
    }
}

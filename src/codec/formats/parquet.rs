//! Parquet files. What the metadata and the page headers declare is added up before a page is decompressed.

use ::arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Type as Physical};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use super::columns::Columns;
use super::pages::{self, PageSizes};
use super::{Decoded, Format, FormatError, Limits};

/// What one batch may take while it is decoded, when a stored value stands for many rows.
const BATCH_BYTES: u64 = 128 << 20;

fn wrong(detail: impl Into<String>) -> FormatError {
    FormatError::parse(Format::Parquet, detail)
}

pub(super) fn decode(document: &[u8], target: &SchemaRef, limits: &Limits) -> Result<Decoded, FormatError> {
    // The Arrow schema that writers embed may ask for views or dictionaries; the file's own types say it all.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(false);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(Bytes::copy_from_slice(document), options)
        .map_err(|_| wrong("its footer cannot be read"))?;
    let schema = builder.schema().clone();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let mut columns = Columns::new(Format::Parquet, target, limits, names)?;
    // A nested column of the contract's name is read, too: every row is refused with its shape.
    let wanted: Vec<usize> =
        (0..schema.fields().len()).filter(|i| target.column_with_name(schema.field(*i).name()).is_some()).collect();
    if let Some(nested) = wanted.iter().map(|i| schema.field(*i)).find(|field| is_deep(field.data_type(), 0)) {
        return Err(wrong(format!("column {} is nested too deeply", nested.name())));
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let rows = batch_rows(document, builder.metadata(), &mask, limits)?;
    let reader =
        builder.with_projection(mask).with_batch_size(rows).build().map_err(|_| wrong("its columns cannot be read"))?;
    for batch in reader {
        columns.push(&batch.map_err(|_| wrong("a page cannot be read"))?)?;
    }
    columns.finish()
}

/// Lists of lists multiply; no column of a contract is nested at all.
fn is_deep(data_type: &DataType, depth: usize) -> bool {
    if depth > 2 {
        return true;
    }
    match data_type {
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::Map(f, _) => {
            is_deep(f.data_type(), depth + 1)
        }
        DataType::Struct(fields) => fields.iter().any(|f| is_deep(f.data_type(), depth + 1)),
        _ => false,
    }
}

/// Checks what the file declares; gives the number of rows that may be decoded at once.
fn batch_rows(
    document: &[u8],
    metadata: &ParquetMetaData,
    mask: &ProjectionMask,
    limits: &Limits,
) -> Result<usize, FormatError> {
    let mut rows = 0_u64;
    let mut bytes = 0_u64;
    let mut repeatable = 0_u64;
    for group in metadata.row_groups() {
        let declared =
            u64::try_from(group.num_rows()).map_err(|_| wrong("a row group has a negative number of rows"))?;
        rows = rows.saturating_add(declared);
        let mut widest = 0_u64;
        for (leaf, column) in group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf)) {
            let found = chunk(document, column).map_err(|what| wrong(format!("column {}: {what}", leaf + 1)))?;
            bytes = bytes.saturating_add(found.uncompressed);
            if matches!(column.column_type(), Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY) {
                widest = widest.saturating_add(found.repeatable);
            }
        }
        repeatable = repeatable.max(widest);
    }
    let limit = |what: &'static str, limit: usize| FormatError::TooLarge { what, limit };
    if rows > limits.rows as u64 {
        return Err(limit("rows are", limits.rows));
    }
    if bytes > limits.decoded_bytes as u64 {
        return Err(limit("uncompressed bytes of the pages are", limits.decoded_bytes));
    }
    let fitting = BATCH_BYTES / repeatable.max(1);
    Ok(usize::try_from(fitting).unwrap_or(usize::MAX).clamp(1, limits.rows.max(1)))
}

fn chunk(document: &[u8], column: &ColumnChunkMetaData) -> Result<PageSizes, &'static str> {
    match column.compression() {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) | Compression::LZ4_RAW => {}
        // Their decoders go on for as long as the data does.
        _ => return Err("its compression is not read; help: write it uncompressed or with snappy, zstd or lz4_raw"),
    }
    if column.file_path().is_some() {
        return Err("its data is said to be in another file");
    }
    let first = column.dictionary_page_offset().map_or(column.data_page_offset(), |d| d.min(column.data_page_offset()));
    let (start, length) = (usize::try_from(first), usize::try_from(column.compressed_size()));
    let (Ok(start), Ok(length)) = (start, length) else { return Err("its position is negative") };
    let end = start.checked_add(length).ok_or("its data is beyond the end of the file")?;
    pages::sizes(document.get(start..end).ok_or("its data is beyond the end of the file")?)
}

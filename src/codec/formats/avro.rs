//! Avro object container files.
//!
//! Blocks are decompressed here, bounded, and each record is checked against the file's schema (see
//! [`Shape`]); the columnar decoder then gets a file that cannot surprise it: one uncompressed
//! block of records that are all there.

use std::io::Cursor;

use ::arrow::datatypes::SchemaRef;
use apache_avro::{Codec, DeflateSettings, Schema};
use arrow_avro::reader::ReaderBuilder;

use super::columns::Columns;
use super::{Decoded, Format, FormatError, Limits};
use crate::codec::shape::Shape;

const MAGIC: &[u8] = b"Obj\x01";
const SYNC: usize = 16;

fn wrong(detail: impl Into<String>) -> FormatError {
    FormatError::parse(Format::Avro, detail)
}

pub(super) fn decode(document: &[u8], target: &SchemaRef, limits: &Limits) -> Result<Decoded, FormatError> {
    let file = Container::read(document)?;
    let schema = Schema::parse_str(file.schema).map_err(|_| wrong("its schema cannot be parsed"))?;
    let Schema::Record(_) = &schema else { return Err(wrong("its schema is no record")) };
    let shape = Shape::of(&schema).map_err(wrong)?;
    let (count, records) = file.records(&shape, limits)?;
    let plain = container(file.schema, count, &records);
    let reader = ReaderBuilder::new().with_batch_size(limits.rows.max(1)).build(Cursor::new(plain));
    let reader = reader.map_err(|_| wrong("its schema has a type that cannot be read"))?;
    let names = reader.schema();
    let mut columns = Columns::new(Format::Avro, target, limits, names.fields().iter().map(|f| f.name().as_str()))?;
    for batch in reader {
        columns.push(&batch.map_err(|_| wrong("a record does not fit its schema"))?)?;
    }
    columns.finish()
}

/// The parts of a container file, borrowed.
struct Container<'a> {
    schema: &'a str,
    codec: Codec,
    sync: &'a [u8],
    blocks: &'a [u8],
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(|| wrong("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn long(&mut self) -> Result<i64, FormatError> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or(0);
            bits |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        Err(wrong("a number is too long"))
    }

    fn length(&mut self) -> Result<usize, FormatError> {
        usize::try_from(self.long()?).map_err(|_| wrong("a length is negative"))
    }
}

impl<'a> Container<'a> {
    fn read(document: &'a [u8]) -> Result<Self, FormatError> {
        let mut bytes = Bytes(document.strip_prefix(MAGIC).ok_or_else(|| wrong("it does not begin with Obj"))?);
        let (mut schema, mut codec) = (None, Codec::Null);
        loop {
            let mut entries = bytes.long()?;
            if entries == 0 {
                break;
            }
            if entries < 0 {
                entries = entries.checked_neg().ok_or_else(|| wrong("a count is out of range"))?;
                bytes.long()?;
            }
            for _ in 0..entries {
                let length = bytes.length()?;
                let name = bytes.take(length)?;
                let length = bytes.length()?;
                let value = bytes.take(length)?;
                match (name, value) {
                    (b"avro.schema", value) => schema = std::str::from_utf8(value).ok(),
                    (b"avro.codec", b"null") => codec = Codec::Null,
                    (b"avro.codec", b"deflate") => codec = Codec::Deflate(DeflateSettings::default()),
                    (b"avro.codec", b"snappy") => codec = Codec::Snappy,
                    (b"avro.codec", _) => {
                        return Err(wrong("its codec is not read; help: write it with null, deflate or snappy"));
                    }
                    _ => {}
                }
            }
        }
        let sync = bytes.take(SYNC)?;
        let schema = schema.ok_or_else(|| wrong("it has no schema"))?;
        Ok(Self { schema, codec, sync, blocks: bytes.0 })
    }

    /// The records of all blocks, uncompressed and checked one by one.
    fn records(&self, shape: &Shape, limits: &Limits) -> Result<(usize, Vec<u8>), FormatError> {
        let (mut count, mut records) = (0_usize, Vec::new());
        let mut bytes = Bytes(self.blocks);
        while !bytes.0.is_empty() {
            let declared = bytes.length()?;
            let length = bytes.length()?;
            let mut block = bytes.take(length)?.to_vec();
            if bytes.take(SYNC)? != self.sync {
                return Err(wrong("a block does not end with the sync marker"));
            }
            count = count.saturating_add(declared);
            if count > limits.rows {
                return Err(FormatError::TooLarge { what: "rows are", limit: limits.rows });
            }
            self.codec.decompress(&mut block).map_err(|_| wrong("a block cannot be decompressed"))?;
            if records.len() + block.len() > limits.decoded_bytes {
                return Err(FormatError::TooLarge { what: "decoded bytes are", limit: limits.decoded_bytes });
            }
            let mut rest = block.as_slice();
            for _ in 0..declared {
                let left = shape.check_prefix(rest).map_err(wrong)?;
                rest = &rest[rest.len() - left..];
            }
            if !rest.is_empty() {
                return Err(wrong("a block is longer than its records"));
            }
            records.append(&mut block);
        }
        Ok((count, records))
    }
}

/// A container file with one uncompressed block.
fn container(schema: &str, count: usize, records: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    put_long(&mut file, 1);
    put_bytes(&mut file, b"avro.schema");
    put_bytes(&mut file, schema.as_bytes());
    put_long(&mut file, 0);
    file.extend_from_slice(&[0; SYNC]);
    if count > 0 {
        put_long(&mut file, count);
        put_bytes(&mut file, records);
        file.extend_from_slice(&[0; SYNC]);
    }
    file
}

fn put_bytes(file: &mut Vec<u8>, bytes: &[u8]) {
    put_long(file, bytes.len());
    file.extend_from_slice(bytes);
}

fn put_long(file: &mut Vec<u8>, value: usize) {
    // Zig-zag of a number that is not negative.
    let mut bits = (value as u64) << 1;
    while bits >= 0x80 {
        file.push((bits as u8 & 0x7F) | 0x80);
        bits >>= 7;
    }
    file.push(bits as u8);
}

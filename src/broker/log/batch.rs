//! Record batches, format v2: reading and checking them, rewriting their header, making control batches.
//!
//! The layout is Apache Kafka's (`RecordBatch` in the protocol guide): 61 bytes of header, then the records,
//! compressed together or not. The CRC covers everything from the attributes on, so base offset and leader
//! epoch can be rewritten freely.

use super::codec::{Codec, CodecError};

/// Bytes of a batch header.
pub(crate) const HEADER: usize = 61;
/// Bytes of offset and length, which the length field does not count.
pub(crate) const LENGTH_PREFIX: usize = 12;
/// No producer id, timestamp or offset.
pub(crate) const NONE: i64 = -1;

const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;

const CODEC_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

/// What a batch header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub base_offset: i64,
    /// Bytes of the whole batch, length prefix included.
    pub size: usize,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records: i32,
}

/// `N` bytes of `bytes` from `at`, zeroes where it is too short (callers check the length first).
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|slice| slice.try_into().ok()).unwrap_or([0; N])
}

impl Header {
    /// Reads a header; `None` when there are not enough bytes or the length cannot be one of a v2 batch.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER {
            return None;
        }
        let length = usize::try_from(i32::from_be_bytes(field(bytes, 8))).ok()?;
        let size = length.checked_add(LENGTH_PREFIX)?;
        (size >= HEADER).then(|| Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            size,
            magic: i8::from_be_bytes(field(bytes, 16)),
            crc: u32::from_be_bytes(field(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, BASE_TIMESTAMP_AT)),
            max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            records: i32::from_be_bytes(field(bytes, 57)),
        })
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    pub(crate) fn codec(&self) -> Option<Codec> {
        Codec::from_bits(self.attributes & CODEC_MASK)
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub(crate) fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// When compaction may drop the tombstones and markers of this batch.
    pub(crate) fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// The sequence number of the last record; sequence numbers wrap around to 0.
    pub(crate) fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }
}

/// Whether the bytes of one whole batch match its checksum.
pub(crate) fn crc_matches(batch: &[u8], header: &Header) -> bool {
    batch.len() >= HEADER && crc32c::crc32c(&batch[ATTRIBUTES_AT..]) == header.crc
}

/// Writes base offset and leader epoch, which the CRC does not cover.
pub(crate) fn place(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Marks the batch as stamped by the log at `now`, and renews its CRC.
pub(crate) fn stamp_append_time(batch: &mut [u8], header: &Header, now: i64) {
    set_attributes(batch, header.attributes | LOG_APPEND_TIME);
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&now.to_be_bytes());
    renew_crc(batch);
}

/// Clears a producer's claim that the log stamped the batch, writes the true maximum, and renews the CRC.
pub(crate) fn stamp_create_time(batch: &mut [u8], header: &Header, max_timestamp: i64) {
    set_attributes(batch, header.attributes & !LOG_APPEND_TIME);
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.to_be_bytes());
    renew_crc(batch);
}

fn set_attributes(batch: &mut [u8], attributes: i16) {
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
}

fn renew_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

/// The header of `header` with other contents behind it; size and CRC are made to fit.
pub(crate) fn assemble(header: &Header, leader_epoch: i32, payload: &[u8]) -> Vec<u8> {
    let size = HEADER + payload.len();
    let mut batch = Vec::with_capacity(size);
    batch.extend_from_slice(&header.base_offset.to_be_bytes());
    batch.extend_from_slice(&((size - LENGTH_PREFIX) as i32).to_be_bytes());
    batch.extend_from_slice(&leader_epoch.to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&header.attributes.to_be_bytes());
    batch.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    batch.extend_from_slice(&header.base_timestamp.to_be_bytes());
    batch.extend_from_slice(&header.max_timestamp.to_be_bytes());
    batch.extend_from_slice(&header.producer_id.to_be_bytes());
    batch.extend_from_slice(&header.producer_epoch.to_be_bytes());
    batch.extend_from_slice(&header.base_sequence.to_be_bytes());
    batch.extend_from_slice(&header.records.to_be_bytes());
    batch.extend_from_slice(payload);
    renew_crc(&mut batch);
    batch
}

/// The attributes of `attributes` with another codec.
pub(crate) fn with_codec(attributes: i16, codec: Codec) -> i16 {
    attributes & !CODEC_MASK | codec.bits()
}

/// The attributes of `attributes` without codec, transaction and delete horizon.
pub(crate) fn plain(attributes: i16) -> i16 {
    attributes & !(CODEC_MASK | TRANSACTIONAL | DELETE_HORIZON)
}

/// The attributes of `attributes` with a delete horizon.
pub(crate) fn with_delete_horizon(attributes: i16) -> i16 {
    attributes | DELETE_HORIZON
}

/// The marker that ends a producer's transaction in one partition.
pub(crate) fn marker(producer_id: i64, producer_epoch: i16, commit: bool, coordinator_epoch: i32, now: i64) -> Vec<u8> {
    let mut value = Vec::with_capacity(6);
    value.extend_from_slice(&0_i16.to_be_bytes());
    value.extend_from_slice(&coordinator_epoch.to_be_bytes());
    let key = [0, 0, 0, u8::from(commit)];
    let mut payload = Vec::with_capacity(20);
    write_record(&mut payload, 0, 0, Some(&key), Some(&value));
    let header = Header {
        base_offset: 0,
        size: 0,
        magic: 2,
        crc: 0,
        attributes: TRANSACTIONAL | CONTROL,
        last_offset_delta: 0,
        base_timestamp: now,
        max_timestamp: now,
        producer_id,
        producer_epoch,
        base_sequence: -1,
        records: 1,
    };
    assemble(&header, 0, &payload)
}

/// Whether a control batch commits; `None` when it is some other control record.
pub(crate) fn marker_commits(batch: &[u8]) -> Option<bool> {
    let record = Records::new(batch.get(HEADER..)?).next()?.ok()?;
    match record.key? {
        [_, _, 0, 0, ..] => Some(false),
        [_, _, 0, 1, ..] => Some(true),
        _ => None,
    }
}

/// One record inside a decompressed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    /// Whether the value is null, which deletes the key under compaction.
    pub is_tombstone: bool,
    /// The value and the headers as they are encoded, for copying.
    rest: &'a [u8],
}

/// The bytes behind a batch header are not records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch does not consist of whole records")]
pub(crate) struct BrokenRecords;

/// The records of a decompressed batch, one after the other. Ends after the first broken one.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    fn read(&mut self) -> Option<Record<'a>> {
        let length = usize::try_from(varint(&mut self.rest)?).ok()?;
        let (mut record, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        record = record.get(1..)?;
        let timestamp_delta = varint(&mut record)?;
        let offset_delta = i32::try_from(varint(&mut record)?).ok()?;
        let key = sized(&mut record)?;
        let encoded = record;
        let is_tombstone = sized(&mut record)?.is_none();
        let headers = varint(&mut record)?;
        if headers < 0 {
            return None;
        }
        for _ in 0..headers {
            sized(&mut record)??;
            sized(&mut record)?;
        }
        record.is_empty().then_some(Record { timestamp_delta, offset_delta, key, is_tombstone, rest: encoded })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BrokenRecords>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record.ok_or(BrokenRecords))
    }
}

/// Writes a record with the timestamp delta given instead of its own.
pub(crate) fn copy_record(out: &mut Vec<u8>, record: &Record<'_>, timestamp_delta: i64) {
    let mut body = Vec::with_capacity(24 + record.key.map_or(0, <[u8]>::len));
    body.push(0);
    put_varint(&mut body, timestamp_delta);
    put_varint(&mut body, i64::from(record.offset_delta));
    put_sized(&mut body, record.key);
    put_varint(out, (body.len() + record.rest.len()) as i64);
    out.extend_from_slice(&body);
    out.extend_from_slice(record.rest);
}

/// Writes a record without headers.
pub(crate) fn write_record(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) {
    let mut rest = Vec::with_capacity(8 + value.map_or(0, <[u8]>::len));
    put_sized(&mut rest, value);
    put_varint(&mut rest, 0);
    let record = Record { timestamp_delta, offset_delta, key, is_tombstone: value.is_none(), rest: &rest };
    copy_record(out, &record, timestamp_delta);
}

fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// A length and that many bytes; `Some(None)` is null.
fn sized<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let (found, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(found))
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_sized(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

/// What a topic demands of the batches appended to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demands {
    pub max_bytes: usize,
    pub keys_required: bool,
    pub append_time: bool,
    /// Largest lead of a record's timestamp over the clock, in milliseconds.
    pub max_ahead: i64,
    /// Largest lag of a record's timestamp behind the clock, in milliseconds.
    pub max_behind: i64,
    pub decompressed_bytes: usize,
    /// The codec the topic wants, when it does not keep the producer's.
    pub recompress: Option<Codec>,
}

/// Why a batch is refused, in Apache Kafka's terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the batch does not match its checksum")]
    Corrupt,
    #[error("message format v0 and v1 are not supported; help: use a client of Kafka 0.11 or later")]
    OldFormat,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("Compacted topic cannot accept message without key.")]
    MissingKey(Vec<i32>),
    #[error("the batch of {0} bytes exceeds the topic's max.message.bytes")]
    TooLarge(usize),
    #[error("the timestamp {0} is too far from the broker's clock")]
    Timestamp(i64),
    #[error("the records cannot be decompressed: {0}")]
    Codec(#[from] CodecError),
}

/// A batch that may be appended once offset and epoch are placed.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub bytes: Vec<u8>,
    pub header: Header,
}

/// Checks one batch against the rules of Apache Kafka's `LogValidator`, and stamps its time.
pub(crate) fn accept(bytes: &[u8], demands: &Demands, now: i64) -> Result<Accepted, Refusal> {
    let magic = bytes.get(16).copied();
    if magic.is_some_and(|magic| magic < 2) {
        return Err(Refusal::OldFormat);
    }
    let header = Header::parse(bytes).ok_or(Refusal::Corrupt)?;
    if header.size > bytes.len() {
        return Err(Refusal::Corrupt);
    }
    if header.size < bytes.len() {
        return Err(Refusal::Invalid("Produce requests with version 3 or later must contain exactly one record batch"));
    }
    if header.magic != 2 {
        return Err(Refusal::Invalid("unknown record batch format"));
    }
    if bytes.len() > demands.max_bytes {
        return Err(Refusal::TooLarge(bytes.len()));
    }
    if !crc_matches(bytes, &header) {
        return Err(Refusal::Corrupt);
    }
    check_header(&header)?;
    let codec = header.codec().ok_or(Refusal::Invalid("unknown compression codec"))?;
    let payload = codec.decompress(&bytes[HEADER..], demands.decompressed_bytes)?;
    let max_timestamp = check_records(&payload, &header, demands, now)?;
    let mut batch = match demands.recompress {
        Some(wanted) if wanted != codec => {
            let header = Header { attributes: with_codec(header.attributes, wanted), ..header };
            assemble(&header, 0, &wanted.compress(&payload)?)
        }
        _ => bytes.to_vec(),
    };
    let header = Header::parse(&batch).ok_or(Refusal::Corrupt)?;
    if demands.append_time {
        stamp_append_time(&mut batch, &header, now);
    } else if header.is_log_append_time() || header.max_timestamp != max_timestamp {
        stamp_create_time(&mut batch, &header, max_timestamp);
    }
    let header = Header::parse(&batch).ok_or(Refusal::Corrupt)?;
    Ok(Accepted { bytes: batch, header })
}

fn check_header(header: &Header) -> Result<(), Refusal> {
    if header.is_control() {
        return Err(Refusal::Invalid("clients are not allowed to write control records"));
    }
    if header.attributes & DELETE_HORIZON != 0 {
        return Err(Refusal::Invalid("clients are not allowed to set the delete horizon"));
    }
    if header.records <= 0 || header.last_offset_delta != header.records - 1 {
        return Err(Refusal::Invalid("the record count does not match the last offset"));
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(Refusal::Invalid("an idempotent batch needs an epoch and a sequence number"));
    }
    if header.is_transactional() && header.producer_id < 0 {
        return Err(Refusal::Invalid("a transactional batch needs a producer id"));
    }
    Ok(())
}

/// Walks the records; returns their largest timestamp.
fn check_records(payload: &[u8], header: &Header, demands: &Demands, now: i64) -> Result<i64, Refusal> {
    let (mut count, mut max_timestamp, mut missing) = (0, NONE, Vec::new());
    for record in Records::new(payload) {
        let record = record.map_err(|_| Refusal::Invalid("the batch does not consist of whole records"))?;
        if record.offset_delta != count {
            return Err(Refusal::Invalid("the offsets of the records are not consecutive"));
        }
        if demands.keys_required && record.key.is_none() {
            missing.push(count);
        }
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        let off = timestamp.saturating_sub(now);
        if !demands.append_time
            && timestamp != NONE
            && (off > demands.max_ahead || off < demands.max_behind.saturating_neg())
        {
            return Err(Refusal::Timestamp(timestamp));
        }
        max_timestamp = max_timestamp.max(timestamp);
        count += 1;
    }
    if count != header.records {
        return Err(Refusal::Invalid("the record count does not match the records"));
    }
    if missing.is_empty() { Ok(max_timestamp) } else { Err(Refusal::MissingKey(missing)) }
}

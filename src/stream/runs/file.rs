//! One run: records sorted by key, in blocks of 4 KiB.
//!
//! ```text
//!  header block │ data block 0 │ data block 1 │ … │ footer: fence pointers, filters
//! ```
//!
//! | block | holds |
//! |---|---|
//! | header | magic, format version, widths, map, partition, changelog offset, records, footer's length and CRC-32C, topic id |
//! | data | as many whole records as fit, zeros, CRC-32C of all before it |
//! | footer | first 8 key bytes of each data block; per filter its first block and its bytes ([`Filter`]) |
//!
//! Integers are big-endian. A run is written under another name, synced and renamed. Opening reads header and footer;
//! a data block is checked whenever it is read.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::filter::{Filter, take};
use super::{At, DiskError, FORMAT, Identity, Shape, Visit, head, sync_folder};

/// Bytes of a block.
const BLOCK: usize = 4_096;
/// Bytes of a block before its checksum.
const BODY: usize = BLOCK - 4;
const MAGIC: &[u8; 8] = b"HOKU-RUN";
/// Distinct heads per filter: bounds the memory that building one takes, some 35 bytes each.
const FILTER_HEADS: usize = 1 << 19;
/// Blocks that a sequential reader takes at once.
const READ_AHEAD: usize = 64;

/// A data block in memory.
type Block = [u8; BLOCK];

/// Extension of files that are being written.
pub(super) const UNFINISHED: &str = "new";

/// A filter and the first block that it stands for.
#[derive(Debug)]
struct Part {
    first_block: u32,
    filter: Filter,
}

/// An open run.
#[derive(Debug)]
pub(super) struct Run {
    path: PathBuf,
    file: File,
    shape: Shape,
    records: u64,
    fences: Vec<u64>,
    parts: Vec<Part>,
    footer: u64,
}

fn per_block(shape: Shape) -> usize {
    BODY / shape.record().max(1)
}

impl Run {
    /// Opens a run and checks that it is the one meant: of this map and identity, and not beyond `next_offset` of the changelog.
    pub fn open(path: &Path, shape: Shape, identity: &Identity, next_offset: i64) -> Result<Self, DiskError> {
        let file = File::open(path).at(path)?;
        let size = file.metadata().at(path)?.len();
        let damaged = |detail: &str| DiskError::damaged(path, detail);
        let mut block: Block = [0; BLOCK];
        file.read_exact_at(&mut block, 0).map_err(|_| damaged("no header"))?;
        let body = checked(&block).ok_or_else(|| damaged("checksum of the header"))?;
        let header = Header::decode(body).map_err(damaged)?;
        if header.format > FORMAT {
            let (found, known) = (header.format.into(), FORMAT.into());
            return Err(DiskError::Newer { path: path.to_owned(), found, known });
        }
        if !header.is_of(shape, identity) || header.offset > next_offset {
            return Err(damaged("it belongs to another state"));
        }
        let blocks = header.records.div_ceil(per_block(shape) as u64);
        let expected = blocks.checked_add(1).and_then(|b| b.checked_mul(BLOCK as u64));
        let expected = expected.and_then(|bytes| Some((bytes, bytes.checked_add(header.footer)?)));
        let Some((footer_at, _)) = expected.filter(|(_, all)| *all == size) else { return Err(damaged("its length")) };
        // The length is that of the file, so what is allocated here is there.
        let mut footer = vec![0; usize::try_from(header.footer).map_err(|_| damaged("its footer"))?];
        file.read_exact_at(&mut footer, footer_at).at(path)?;
        if crc32c::crc32c(&footer) != header.footer_crc {
            return Err(damaged("checksum of the footer"));
        }
        let (fences, parts) = decode_footer(&footer, blocks).map_err(damaged)?;
        Ok(Self { path: path.to_owned(), file, shape, records: header.records, fences, parts, footer: header.footer })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records in it.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes in memory.
    pub fn memory(&self) -> u64 {
        8 * self.fences.len() as u64 + self.parts.iter().map(|p| p.filter.bytes() + 64).sum::<u64>()
    }

    /// Bytes on disk.
    pub fn disk(&self) -> u64 {
        (1 + self.fences.len() as u64) * BLOCK as u64 + self.footer
    }

    /// Whether records with this head may be there; no disk is touched.
    fn may_hold(&self, head: u64) -> bool {
        let first = |part: &Part| self.fences.get(part.first_block as usize).copied().unwrap_or(u64::MAX);
        let after = self.parts.partition_point(|part| first(part) <= head);
        after.checked_sub(1).and_then(|i| self.parts.get(i)).is_some_and(|part| part.filter.passes(head))
    }

    /// The blocks that records with this head can stand in.
    fn candidates(&self, head: u64) -> std::ops::Range<usize> {
        let first_at_or_after = self.fences.partition_point(|fence| *fence < head);
        let equal = self.fences.get(first_at_or_after..).unwrap_or_default().partition_point(|fence| *fence == head);
        first_at_or_after.saturating_sub(1)..first_at_or_after + equal
    }

    /// Reads blocks and hands out the records of each, checked.
    fn read(&self, first: usize, blocks: &mut [Block]) -> Result<(), DiskError> {
        let at = (first as u64 + 1) * BLOCK as u64;
        self.file.read_exact_at(blocks.as_flattened_mut(), at).at(&self.path)?;
        match blocks.iter().all(|block| checked(block).is_some()) {
            true => Ok(()),
            false => Err(self.distrust(format!("checksum of a block from {first} on"))),
        }
    }

    /// The run is damaged: without a manifest the next start makes the state anew.
    fn distrust(&self, detail: String) -> DiskError {
        let _ = std::fs::remove_file(self.path.with_file_name(super::manifest::NAME));
        DiskError::damaged(&self.path, detail)
    }

    /// Records that stand in a block.
    fn records_of<'b>(&self, number: usize, block: &'b Block) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let before = number as u64 * per_block(self.shape) as u64;
        let there = usize::try_from(self.records.saturating_sub(before)).unwrap_or(usize::MAX);
        block.get(..BODY).unwrap_or_default().chunks_exact(self.shape.record()).take(there)
    }

    /// Calls `visit` with the record of `key`, if there is one, then with the other records whose keys begin as `key` does in its first
    /// `prefix` bytes (8 or more), in key order, until it returns false. Returns whether it may go on.
    pub fn search<E: From<DiskError>>(&self, key: &[u8], prefix: usize, visit: &mut Visit<'_, E>) -> Result<bool, E> {
        let head = head(key);
        if !self.may_hold(head) {
            return Ok(true);
        }
        let candidates = self.candidates(head);
        let mut block: [Block; 1] = [[0; BLOCK]];
        if let Some(number) = self.block_of(key, candidates.clone(), &mut block)?
            && let [block] = &block
            && let Some(record) = self.records_of(number, block).find(|record| record.starts_with(key))
            && let Some((key, value)) = record.split_at_checked(self.shape.key)
            && !visit(key, value)?
        {
            return Ok(false);
        }
        if prefix >= self.shape.key {
            return Ok(true);
        }
        let alone = candidates.len() == 1;
        for number in candidates {
            if !alone {
                self.read(number, &mut block)?;
            }
            let [block] = &block;
            for record in self.records_of(number, block) {
                let Some((found, value)) = record.split_at_checked(self.shape.key) else { continue };
                let same = found.get(..prefix) == key.get(..prefix);
                if same && found != key && !visit(found, value)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Reads the one block in which `key` stands if it stands anywhere; blocks that begin alike are told apart by a binary search.
    fn block_of(
        &self,
        key: &[u8],
        candidates: std::ops::Range<usize>,
        block: &mut [Block; 1],
    ) -> Result<Option<usize>, DiskError> {
        let (mut low, mut high) = (candidates.start, candidates.end);
        let mut in_memory = None;
        while high.saturating_sub(low) > 1 {
            let middle = low + (high - low) / 2;
            self.read(middle, block)?;
            in_memory = Some(middle);
            let first = block.first().and_then(|block| block.get(..self.shape.key)).unwrap_or_default();
            if first <= key { low = middle } else { high = middle }
        }
        if low >= high {
            return Ok(None);
        }
        if in_memory != Some(low) {
            self.read(low, block)?;
        }
        Ok(Some(low))
    }
}

/// What stands in front of a run.
struct Header {
    format: u16,
    key: u16,
    value: u16,
    name: [u8; 16],
    partition: i32,
    offset: i64,
    records: u64,
    footer: u64,
    footer_crc: u32,
    topic_id: Vec<u8>,
}

fn name_bytes(shape: Shape) -> [u8; 16] {
    let mut name = [0; 16];
    shape.name.bytes().zip(&mut name).for_each(|(from, to)| *to = from);
    name
}

impl Header {
    fn is_of(&self, shape: Shape, identity: &Identity) -> bool {
        usize::from(self.key) == shape.key
            && usize::from(self.value) == shape.value
            && self.name == name_bytes(shape)
            && self.partition == identity.partition
            && self.topic_id == identity.topic_id.as_bytes()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.format.to_be_bytes());
        out.extend_from_slice(&self.key.to_be_bytes());
        out.extend_from_slice(&self.value.to_be_bytes());
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.records.to_be_bytes());
        out.extend_from_slice(&self.footer.to_be_bytes());
        out.extend_from_slice(&self.footer_crc.to_be_bytes());
        out.extend_from_slice(&u16::try_from(self.topic_id.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&self.topic_id);
        out
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let at = &mut bytes;
        if take::<8>(at)? != *MAGIC {
            return Err("no run");
        }
        let mut header = Self {
            format: u16::from_be_bytes(take(at)?),
            key: u16::from_be_bytes(take(at)?),
            value: u16::from_be_bytes(take(at)?),
            name: take(at)?,
            partition: i32::from_be_bytes(take(at)?),
            offset: i64::from_be_bytes(take(at)?),
            records: u64::from_be_bytes(take(at)?),
            footer: u64::from_be_bytes(take(at)?),
            footer_crc: u32::from_be_bytes(take(at)?),
            topic_id: Vec::new(),
        };
        let length = usize::from(u16::from_be_bytes(take(at)?));
        header.topic_id = at.get(..length).ok_or("cut short")?.to_vec();
        Ok(header)
    }
}

/// A block's bytes before its checksum, when that is right.
fn checked(block: &Block) -> Option<&[u8]> {
    let (body, crc) = block.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_be_bytes(*crc)).then_some(body)
}

fn seal(block: &mut Block) {
    if let Some((body, crc)) = block.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(body).to_be_bytes();
    }
}

fn encode_footer(fences: &[u64], parts: &[Part]) -> Vec<u8> {
    let filters: u64 = parts.iter().map(|p| p.filter.bytes() + 32).sum();
    let mut out = Vec::with_capacity(fences.len() * 8 + usize::try_from(filters).unwrap_or(0));
    fences.iter().for_each(|fence| out.extend_from_slice(&fence.to_be_bytes()));
    for part in parts {
        out.extend_from_slice(&part.first_block.to_be_bytes());
        part.filter.encode(&mut out);
    }
    out
}

fn decode_footer(footer: &[u8], blocks: u64) -> Result<(Vec<u64>, Vec<Part>), &'static str> {
    let length = usize::try_from(blocks).ok().and_then(|b| b.checked_mul(8)).ok_or("too many blocks")?;
    let (fences, mut rest) = footer.split_at_checked(length).ok_or("cut short")?;
    let fences: Vec<u64> = fences.as_chunks::<8>().0.iter().map(|f| u64::from_be_bytes(*f)).collect();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let first_block = u32::from_be_bytes(take(&mut rest)?);
        parts.push(Part { first_block, filter: Filter::decode(&mut rest)? });
    }
    if !fences.is_sorted() || !parts.is_sorted_by_key(|part| part.first_block) {
        return Err("fence pointers out of order");
    }
    if parts.first().is_some_and(|part| part.first_block != 0) || (parts.is_empty() && blocks > 0) {
        return Err("blocks without a filter");
    }
    Ok((fences, parts))
}

/// Writes a run.
pub(super) struct RunWriter {
    path: PathBuf,
    unfinished: PathBuf,
    out: BufWriter<File>,
    shape: Shape,
    block: Box<Block>,
    filled: usize,
    records: u64,
    fences: Vec<u64>,
    parts: Vec<Part>,
    heads: Vec<u64>,
    part_from: u32,
}

impl RunWriter {
    /// Begins a run that will stand at `path`.
    pub fn create(path: &Path, shape: Shape) -> Result<Self, DiskError> {
        let unfinished = path.with_extension(UNFINISHED);
        let file = File::create(&unfinished).at(&unfinished)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        // The header is known at the end.
        out.write_all(&[0; BLOCK]).at(&unfinished)?;
        Ok(Self {
            path: path.to_owned(),
            unfinished,
            out,
            shape,
            block: Box::new([0; BLOCK]),
            filled: 0,
            records: 0,
            fences: Vec::new(),
            parts: Vec::new(),
            heads: Vec::new(),
            part_from: 0,
        })
    }

    /// Appends a record; keys ascend.
    pub fn push(&mut self, record: &[u8]) -> Result<(), DiskError> {
        let width = self.shape.record();
        let head = head(record.get(..self.shape.key).unwrap_or(record));
        if self.filled == 0 {
            self.begin_block(head);
        }
        let at = self.filled * width;
        if let (Some(slot), Some(record)) = (self.block.get_mut(at..at + width), record.get(..width)) {
            slot.copy_from_slice(record);
        }
        if self.heads.last() != Some(&head) {
            self.heads.push(head);
        }
        (self.filled, self.records) = (self.filled + 1, self.records + 1);
        if self.filled == per_block(self.shape) { self.end_block() } else { Ok(()) }
    }

    fn begin_block(&mut self, head: u64) {
        // A filter ends only between two heads, so that all records of a head stand behind one filter.
        if self.heads.len() >= FILTER_HEADS && self.heads.last() != Some(&head) {
            self.end_part();
        }
        self.fences.push(head);
    }

    fn end_part(&mut self) {
        if !self.heads.is_empty() {
            self.parts.push(Part { first_block: self.part_from, filter: Filter::new(&self.heads) });
            self.heads.clear();
        }
        self.part_from = u32::try_from(self.fences.len()).unwrap_or(u32::MAX);
    }

    fn end_block(&mut self) -> Result<(), DiskError> {
        seal(&mut self.block);
        self.out.write_all(self.block.as_slice()).at(&self.unfinished)?;
        self.block.fill(0);
        self.filled = 0;
        Ok(())
    }

    /// Ends the run and opens it: synced, under its name. `offset` is up to where it holds the changelog.
    pub fn finish(mut self, identity: &Identity, offset: i64) -> Result<Run, DiskError> {
        if self.filled > 0 {
            self.end_block()?;
        }
        self.end_part();
        let footer = encode_footer(&self.fences, &self.parts);
        self.out.write_all(&footer).at(&self.unfinished)?;
        let header = Header {
            format: FORMAT,
            key: u16::try_from(self.shape.key).unwrap_or(0),
            value: u16::try_from(self.shape.value).unwrap_or(0),
            name: name_bytes(self.shape),
            partition: identity.partition,
            offset,
            records: self.records,
            footer: footer.len() as u64,
            footer_crc: crc32c::crc32c(&footer),
            topic_id: identity.topic_id.as_bytes().to_vec(),
        };
        self.block.fill(0);
        header.encode().iter().zip(self.block.iter_mut()).for_each(|(from, to)| *to = *from);
        seal(&mut self.block);
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error).at(&self.unfinished)?;
        file.write_all_at(self.block.as_slice(), 0).at(&self.unfinished)?;
        file.sync_all().at(&self.unfinished)?;
        std::fs::rename(&self.unfinished, &self.path).at(&self.path)?;
        sync_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        let file = File::open(&self.path).at(&self.path)?;
        let footer = footer.len() as u64;
        let Self { path, shape, records, fences, parts, .. } = self;
        Ok(Run { path, file, shape, records, fences, parts, footer })
    }
}

/// Reads a run from its first record to its last.
pub(super) struct RunReader<'r> {
    run: &'r Run,
    blocks: Vec<Block>,
    /// Data blocks that were read.
    read: usize,
    /// Where the record at hand stands: block in memory, byte in it.
    block: usize,
    byte: usize,
    /// Records not handed out yet.
    left: u64,
}

impl<'r> RunReader<'r> {
    /// A reader; [`RunReader::fill`] first.
    pub fn new(run: &'r Run) -> Self {
        Self { run, blocks: Vec::new(), read: 0, block: 0, byte: 0, left: run.records }
    }

    /// The record at hand; none at the end.
    pub fn peek(&self) -> Option<&[u8]> {
        let record = self.byte..self.byte + self.run.shape.record();
        self.blocks.get(self.block)?.get(record).filter(|_| self.left > 0)
    }

    /// Goes on to the next record.
    pub fn advance(&mut self) -> Result<(), DiskError> {
        self.left = self.left.saturating_sub(1);
        self.byte += self.run.shape.record();
        if self.byte + self.run.shape.record() > BODY {
            (self.block, self.byte) = (self.block + 1, 0);
        }
        self.fill()
    }

    /// Reads the next blocks when all in memory are used up.
    pub fn fill(&mut self) -> Result<(), DiskError> {
        if self.block < self.blocks.len() || self.left == 0 {
            return Ok(());
        }
        let blocks = self.run.fences.len().saturating_sub(self.read).min(READ_AHEAD);
        self.blocks.resize(blocks, [0; BLOCK]);
        self.run.read(self.read, &mut self.blocks)?;
        (self.read, self.block) = (self.read + blocks, 0);
        Ok(())
    }
}

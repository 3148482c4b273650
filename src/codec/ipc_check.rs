//! What an Arrow IPC stream or file declares, checked against the bytes that are there before a decoder sees it.
//!
//! The decoder trusts declared lengths: it allocates metadata and bodies of the declared size and slices buffers
//! without asking. Here every message is walked over: lengths lie within the document, buffers within their body,
//! rows and uncompressed bytes within the budget. LZ4 frames carry no size that binds the decoder, so their
//! sequences are added up.

use arrow::ipc::{CompressionType, MessageHeader, root_as_message};

const MAGIC: &[u8] = b"ARROW1";
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// Uncompressed length of a buffer that is stored as it is.
const STORED: i64 = -1;
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4D, 0x18];

/// What a document may declare.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Rows of all batches together.
    pub(super) rows: usize,
    /// Bytes of all buffers together, uncompressed.
    pub(super) bytes: usize,
}

/// What is wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Broken(&'static str),
    Rows,
    Bytes,
}

/// Checks a document; gives the stream in it (a file carries one behind its magic bytes).
pub(super) fn check(document: &[u8], budget: Budget) -> Result<&[u8], Fault> {
    let is_file = document.starts_with(MAGIC);
    let stream = if is_file { behind_magic(document).ok_or(Fault::Broken("it ends too early"))? } else { document };
    let mut walk = Walk { budget, schema: false };
    let mut rest = stream;
    loop {
        let Some((head, behind)) = rest.split_at_checked(4) else {
            // A stream may end without an end marker, between messages.
            return if rest.is_empty() && walk.schema { Ok(stream) } else { Err(Fault::Broken("it ends too early")) };
        };
        if head != CONTINUATION {
            // The footer of a file that was written without an end marker.
            let end = stream.len() - rest.len();
            return if is_file && walk.schema {
                Ok(&stream[..end])
            } else {
                Err(Fault::Broken("a message has no start"))
            };
        }
        let (length, behind) = behind.split_at_checked(4).ok_or(Fault::Broken("it ends too early"))?;
        let length = length.iter().rev().fold(0_usize, |n, byte| (n << 8) | usize::from(*byte));
        if length == 0 {
            let end = stream.len() - behind.len();
            return if walk.schema { Ok(&stream[..end]) } else { Err(Fault::Broken("it has no schema")) };
        }
        let (metadata, behind) = behind.split_at_checked(length).ok_or(Fault::Broken("a message is cut off"))?;
        rest = walk.message(metadata, behind)?;
    }
}

/// The stream in a file: its magic bytes are padded to the writer's alignment, 8 to 64 bytes.
fn behind_magic(document: &[u8]) -> Option<&[u8]> {
    let mut start = 8;
    while start < 64 && document.get(start..start + 8)? == [0; 8] {
        start += 8;
    }
    document.get(start..)
}

struct Walk {
    budget: Budget,
    schema: bool,
}

impl Walk {
    fn message<'a>(&mut self, metadata: &[u8], behind: &'a [u8]) -> Result<&'a [u8], Fault> {
        let message = root_as_message(metadata).map_err(|_| Fault::Broken("a message is no flatbuffer of Arrow"))?;
        let length =
            usize::try_from(message.bodyLength()).map_err(|_| Fault::Broken("a body has a negative length"))?;
        let (body, rest) = behind.split_at_checked(length).ok_or(Fault::Broken("a body is cut off"))?;
        match message.header_type() {
            MessageHeader::Schema if !self.schema => self.schema = true,
            MessageHeader::RecordBatch if self.schema => {
                let batch = message.header_as_record_batch().ok_or(Fault::Broken("a batch has no header"))?;
                let rows =
                    usize::try_from(batch.length()).map_err(|_| Fault::Broken("a batch has a negative length"))?;
                self.budget.rows = self.budget.rows.checked_sub(rows).ok_or(Fault::Rows)?;
                self.batch(&batch, body)?;
            }
            MessageHeader::DictionaryBatch if self.schema => {
                let dictionary = message.header_as_dictionary_batch().and_then(|d| d.data());
                self.batch(&dictionary.ok_or(Fault::Broken("a dictionary has no header"))?, body)?;
            }
            _ => return Err(Fault::Broken("a message is not where it belongs")),
        }
        Ok(rest)
    }

    fn batch(&mut self, batch: &arrow::ipc::RecordBatch<'_>, body: &[u8]) -> Result<(), Fault> {
        let nodes = batch.nodes().ok_or(Fault::Broken("a batch has no nodes"))?;
        for node in nodes {
            // A column of nulls has no buffer that would bound its length.
            let rows = usize::try_from(node.length()).map_err(|_| Fault::Broken("a column has a negative length"))?;
            if rows > self.budget.bytes {
                return Err(Fault::Bytes);
            }
            if node.null_count() < 0 || node.null_count() > node.length() {
                return Err(Fault::Broken("a column has an impossible number of nulls"));
            }
        }
        let codec = batch.compression().map(|compression| compression.codec());
        for buffer in batch.buffers().ok_or(Fault::Broken("a batch has no buffers"))? {
            let (offset, length) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
            let (Ok(offset), Ok(length)) = (offset, length) else {
                return Err(Fault::Broken("a buffer has a negative place"));
            };
            let end = offset.checked_add(length).ok_or(Fault::Broken("a buffer is beyond its body"))?;
            let bytes = body.get(offset..end).ok_or(Fault::Broken("a buffer is beyond its body"))?;
            let size = match codec {
                _ if length == 0 => 0,
                None => length,
                Some(codec) => uncompressed(codec, bytes)?,
            };
            self.budget.bytes = self.budget.bytes.checked_sub(size).ok_or(Fault::Bytes)?;
        }
        Ok(())
    }
}

/// Bytes of a compressed buffer once it is decompressed.
fn uncompressed(codec: CompressionType, buffer: &[u8]) -> Result<usize, Fault> {
    let (declared, data) = buffer.split_first_chunk::<8>().ok_or(Fault::Broken("a compressed buffer is too short"))?;
    let declared = i64::from_le_bytes(*declared);
    if declared == STORED {
        return Ok(data.len());
    }
    let declared = usize::try_from(declared).map_err(|_| Fault::Broken("a buffer has a negative length"))?;
    match codec {
        // The decoder gets a buffer of the declared size and cannot write past it.
        CompressionType::ZSTD => Ok(declared),
        CompressionType::LZ4_FRAME if declared == 0 => Ok(0),
        CompressionType::LZ4_FRAME => {
            let found = lz4_frame(data).ok_or(Fault::Broken("an LZ4 frame is broken"))?;
            if found == declared { Ok(declared) } else { Err(Fault::Broken("an LZ4 frame is not as long as declared")) }
        }
        _ => Err(Fault::Broken("an unknown compression")),
    }
}

/// Decompressed length of one LZ4 frame (LZ4 frame format 1.6), by adding up its sequences.
fn lz4_frame(data: &[u8]) -> Option<usize> {
    let rest = data.strip_prefix(&LZ4_MAGIC)?;
    let flags = *rest.first()?;
    let (has_block_checksums, has_content_size) = (flags & 0x10 != 0, flags & 0x08 != 0);
    let (has_content_checksum, has_dictionary) = (flags & 0x04 != 0, flags & 0x01 != 0);
    // FLG, BD, content size, dictionary id, header checksum
    let header = 2 + if has_content_size { 8 } else { 0 } + if has_dictionary { 4 } else { 0 } + 1;
    let mut rest = rest.get(header..)?;
    let mut total = 0_usize;
    loop {
        let (size, behind) = rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            // Nothing follows but the checksum: a second frame would be decoded as well.
            return (behind.len() == if has_content_checksum { 4 } else { 0 }).then_some(total);
        }
        let length = usize::try_from(size & 0x7FFF_FFFF).ok()?;
        let (block, behind) = behind.split_at_checked(length)?;
        let found = if size & 0x8000_0000 != 0 { length } else { lz4_block(block)? };
        total = total.checked_add(found)?;
        rest = behind.get(if has_block_checksums { 4 } else { 0 }..)?;
    }
}

fn lz4_block(mut block: &[u8]) -> Option<usize> {
    let mut total = 0_usize;
    loop {
        let (token, rest) = block.split_first()?;
        let (literals, rest) = lz4_length(token >> 4, rest)?;
        total = total.checked_add(literals)?;
        block = rest.get(literals..)?;
        if block.is_empty() {
            return Some(total);
        }
        let (matched, rest) = lz4_length(token & 0x0F, block.get(2..)?)?;
        total = total.checked_add(matched)?.checked_add(4)?;
        block = rest;
    }
}

fn lz4_length(nibble: u8, mut rest: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let (byte, behind) = rest.split_first()?;
            rest = behind;
            length = length.checked_add(usize::from(*byte))?;
            if *byte != 255 {
                break;
            }
        }
    }
    Some((length, rest))
}

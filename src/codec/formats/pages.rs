//! The pages of a Parquet column chunk, looked at without decompressing them.
//!
//! A page declares its uncompressed size, and the decoder allocates what is declared; a dictionary or a prefix may be
//! repeated for every row. Both are read here from the page headers (Thrift compact protocol), so that a document is
//! refused before it is decoded.

/// What the pages of a column chunk declare together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PageSizes {
    /// Bytes of all pages, uncompressed.
    pub(super) uncompressed: u64,
    /// No single value is longer than this, where one stored value may stand for many rows; 0 where none may.
    pub(super) repeatable: u64,
}

const DICTIONARY_PAGE: i64 = 2;
const DELTA_BYTE_ARRAY: i64 = 7;
/// More pages than a chunk of 4 MiB has in any sensible file.
const MAX_PAGES: usize = 1 << 16;
const MAX_DEPTH: usize = 16;

/// Reads the page headers of a column chunk.
pub(super) fn sizes(mut chunk: &[u8]) -> Result<PageSizes, &'static str> {
    let mut sizes = PageSizes::default();
    for _ in 0..MAX_PAGES {
        if chunk.is_empty() {
            return Ok(sizes);
        }
        let (header, rest) = header(chunk)?;
        let compressed = usize::try_from(header.compressed).map_err(|_| "a page has a negative size")?;
        let uncompressed = u64::try_from(header.uncompressed).map_err(|_| "a page has a negative size")?;
        chunk = rest.get(compressed..).ok_or("a page is longer than its column chunk")?;
        sizes.uncompressed = sizes.uncompressed.saturating_add(uncompressed);
        if header.kind == DICTIONARY_PAGE || header.encoding == Some(DELTA_BYTE_ARRAY) {
            sizes.repeatable = sizes.repeatable.max(uncompressed);
        }
    }
    Err("a column chunk has too many pages")
}

#[derive(Debug, Default)]
struct Header {
    kind: i64,
    uncompressed: i64,
    compressed: i64,
    encoding: Option<i64>,
}

fn header(bytes: &[u8]) -> Result<(Header, &[u8]), &'static str> {
    let mut found = Header { kind: -1, uncompressed: -1, compressed: -1, encoding: None };
    let mut thrift = Thrift { rest: bytes };
    thrift.structure(0, &mut |path, value| match path {
        [1] => found.kind = value,
        [2] => found.uncompressed = value,
        [3] => found.compressed = value,
        // DataPageHeader.encoding, DataPageHeaderV2.encoding
        [5, 2] | [8, 4] => found.encoding = Some(value),
        _ => {}
    })?;
    Ok((found, thrift.rest))
}

/// Thrift's compact protocol, as far as it takes to walk over a structure.
struct Thrift<'a> {
    rest: &'a [u8],
}

impl Thrift<'_> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let (first, rest) = self.rest.split_first().ok_or("a page header ends too early")?;
        self.rest = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number in a page header is too long")
    }

    fn zigzag(&mut self) -> Result<i64, &'static str> {
        let bits = self.varint()?;
        Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
    }

    fn skip(&mut self, bytes: u64) -> Result<(), &'static str> {
        let bytes = usize::try_from(bytes).map_err(|_| "a page header ends too early")?;
        self.rest = self.rest.get(bytes..).ok_or("a page header ends too early")?;
        Ok(())
    }

    /// Walks over a structure; whole numbers are told with the path of their field ids.
    fn structure(&mut self, outer: i64, found: &mut dyn FnMut(&[i64], i64)) -> Result<(), &'static str> {
        let mut id = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => self.zigzag()?,
                delta => id + i64::from(delta),
            };
            let path = [outer, id];
            let path = if outer == 0 { &path[1..] } else { &path[..] };
            match head & 0x0F {
                4..=6 => {
                    let value = self.zigzag()?;
                    found(path, value);
                }
                12 if outer == 0 => self.structure(id, found)?,
                kind => self.value(kind, 0)?,
            }
        }
    }

    /// Skips a value.
    fn value(&mut self, kind: u8, depth: usize) -> Result<(), &'static str> {
        if depth > MAX_DEPTH {
            return Err("a page header is nested too deeply");
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.skip(1),
            4..=6 => self.zigzag().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => self.list(depth),
            12 => loop {
                let head = self.byte()?;
                if head == 0 {
                    return Ok(());
                }
                if head >> 4 == 0 {
                    self.zigzag()?;
                }
                self.value(head & 0x0F, depth + 1)?;
            },
            _ => Err("a page header has a field of an unknown type"),
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), &'static str> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        let kind = head & 0x0F;
        if kind < 3 {
            // Booleans take a byte each in a list.
            return self.skip(count);
        }
        for _ in 0..count {
            self.value(kind, depth + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_data_page_header_is_walked_over() {
        // type=0, uncompressed=300, compressed=3, data_page_header{num_values=7, encoding=7, 0, 0}
        let bytes = [0x15, 0, 0x15, 0xD8, 4, 0x15, 6, 0x2C, 0x15, 14, 0x15, 14, 0x15, 0, 0x15, 0, 0, 0, 9, 9, 9];
        assert_eq!(sizes(&bytes).unwrap(), PageSizes { uncompressed: 300, repeatable: 300 });
        assert!(sizes(&bytes[..20]).unwrap_err().contains("longer than its column chunk"));
        assert!(sizes(&bytes[..9]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = sizes(&bytes);
        }
    }
}

//! JSON: an array of objects, or objects one after the other (one per line), cut between objects.

use std::io::BufRead;

use super::{Cut, Gatherer, Range, SplitError};
use crate::domain::limits::{MAX_CHUNK_WIRE, MAX_NESTING};

const HELP: &str = "write an array of objects, or one object per line";

/// Cuts a JSON document. Only brackets and strings are looked at; intake parses what is inside.
pub(super) fn cut(mut file: impl BufRead) -> Result<Cut, SplitError> {
    let mut scanner = Scanner::default();
    let mut gatherer = Gatherer::new(2);
    loop {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        for byte in buffer {
            if let Some(object) = scanner.take(*byte)? {
                gatherer.add(object, 1, || format!("the object at byte {}", object.from), HELP)?;
            }
        }
        let used = buffer.len();
        file.consume(used);
    }
    let in_array = scanner.finish()?;
    let (before, after): (Vec<u8>, &'static [u8]) = if in_array { (vec![b'['], b"]") } else { (Vec::new(), b"\n") };
    Ok(Cut::Ranges { before, ranges: gatherer.finish(), after })
}

/// Where the scanner stands outside of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Between {
    /// Nothing but white space so far.
    #[default]
    Start,
    /// In the array; an object may come.
    ArrayObject,
    /// In the array, behind an object.
    ArrayComma,
    /// Behind the array.
    ArrayEnd,
    /// Objects without an array.
    Lines,
}

#[derive(Debug, Default)]
struct Scanner {
    at: u64,
    between: Between,
    /// Depth inside the present object; 0 outside.
    depth: usize,
    start: u64,
    string: bool,
    escaped: bool,
    objects: bool,
}

impl Scanner {
    /// Takes a byte; the range of an object that it ends.
    fn take(&mut self, byte: u8) -> Result<Option<Range>, SplitError> {
        let at = self.at;
        self.at += 1;
        if self.depth == 0 {
            self.outside(byte, at)?;
            return Ok(None);
        }
        if at - self.start > MAX_CHUNK_WIRE as u64 {
            return Err(SplitError::TooLarge { what: format!("the object at byte {}", self.start), help: HELP });
        }
        if self.string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.string = false,
                _ => {}
            }
            return Ok(None);
        }
        match byte {
            b'"' => self.string = true,
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth > MAX_NESTING {
                    return Err(malformed(format!("nested deeper than {MAX_NESTING} at byte {at}")));
                }
            }
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        if self.depth > 0 {
            return Ok(None);
        }
        self.objects = true;
        Ok(Some(Range { from: self.start, to: self.at }))
    }

    fn outside(&mut self, byte: u8, at: u64) -> Result<(), SplitError> {
        // A byte-order mark may stand in front.
        if byte.is_ascii_whitespace() || (at < 3 && matches!(byte, 0xEF | 0xBB | 0xBF)) {
            return Ok(());
        }
        self.between = match (self.between, byte) {
            (Between::Start, b'[') => Between::ArrayObject,
            (Between::Start | Between::Lines, b'{') => Between::Lines,
            (Between::ArrayObject, b'{') => Between::ArrayComma,
            (Between::ArrayComma, b',') => Between::ArrayObject,
            (Between::ArrayComma, b']') => Between::ArrayEnd,
            (Between::ArrayObject, b']') if !self.objects => Between::ArrayEnd,
            _ => return Err(malformed(format!("no object where one is expected, at byte {at}"))),
        };
        if byte == b'{' {
            (self.depth, self.start) = (1, at);
        }
        Ok(())
    }

    /// Whether the objects stood in an array.
    fn finish(self) -> Result<bool, SplitError> {
        match self.between {
            _ if self.depth > 0 => Err(malformed(format!("the object at byte {} never ends", self.start))),
            Between::Start => Err(SplitError::Empty),
            Between::ArrayObject | Between::ArrayComma => Err(malformed("the array never ends".to_owned())),
            Between::ArrayEnd => Ok(true),
            Between::Lines => Ok(false),
        }
    }
}

fn malformed(detail: String) -> SplitError {
    SplitError::Malformed { format: "JSON", detail, help: HELP }
}

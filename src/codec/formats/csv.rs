//! CSV after RFC 4180: UTF-8, comma, a header, `"` quotes with `""` inside, CRLF or LF. Empty fields are null.
//!
//! A row with another number of fields than the header refuses itself alone; a broken quote refuses the document,
//! because nobody knows where its row ends.

use std::borrow::Cow;
use std::collections::HashSet;

use ::arrow::datatypes::SchemaRef;

use super::rows::Rows;
use super::{Decoded, Format, FormatError, Limits};
use crate::domain::reason::Reason;

/// More columns than any contract has.
const MAX_COLUMNS: usize = 16_384;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

pub(super) fn decode(document: &[u8], target: &SchemaRef, limits: &Limits) -> Result<Decoded, FormatError> {
    let wrong = |detail: String| FormatError::parse(Format::Csv, detail);
    let document = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(document);
    let text = std::str::from_utf8(document)
        .map_err(|e| wrong(format!("it is not UTF-8 from byte {} on", e.valid_up_to())))?;
    let mut rows = Rows::new(Format::Csv, target, limits);
    let mut records = Records::new(text);
    let mut header = Vec::new();
    if !records.next(&mut header).map_err(wrong)? {
        return Err(wrong("it has no header".to_owned()));
    }
    let mut names = HashSet::new();
    if let Some(twice) = header.iter().position(|name| !names.insert(name.as_ref())) {
        return Err(wrong(format!("column {} of the header has the name of another", twice + 1)));
    }
    let columns: Vec<Option<usize>> = header.iter().enumerate().map(|(i, name)| rows.column(name, i)).collect();
    let width = columns.len();
    let mut fields = Vec::with_capacity(width);
    while records.next(&mut fields).map_err(wrong)? {
        rows.begin()?;
        if fields.len() == width {
            for (column, field) in columns.iter().zip(&fields) {
                if let Some(column) = column {
                    rows.put_text(*column, field)?;
                }
            }
        } else {
            rows.reject_row(
                Reason::ParseCsv,
                fields.iter(),
                format!("{width} fields, as in the header"),
                format!("{} fields", fields.len()),
            );
        }
        rows.end();
    }
    rows.finish(|name, _| !names.contains(name))
}

/// The records of a CSV text, one after the other, borrowed where nothing is escaped.
struct Records<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Records<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// Reads the next record into `fields`; false at the end. Empty lines are no records.
    fn next(&mut self, fields: &mut Vec<Cow<'a, str>>) -> Result<bool, String> {
        fields.clear();
        let bytes = self.text.as_bytes();
        loop {
            match &bytes[self.at..] {
                [] => return Ok(false),
                [b'\n', ..] => self.skip_line(1),
                [b'\r', b'\n', ..] => self.skip_line(2),
                _ => break,
            }
        }
        loop {
            if fields.len() >= MAX_COLUMNS {
                return Err(format!("line {}: more than {MAX_COLUMNS} fields", self.line));
            }
            let field = if bytes.get(self.at) == Some(&b'"') { self.quoted()? } else { self.plain() };
            fields.push(field);
            match &bytes[self.at..] {
                [b',', ..] => self.at += 1,
                [b'\n', ..] => {
                    self.skip_line(1);
                    return Ok(true);
                }
                [b'\r', b'\n', ..] => {
                    self.skip_line(2);
                    return Ok(true);
                }
                [] => return Ok(true),
                _ => return Err(format!("line {}: text behind a closing quote", self.line)),
            }
        }
    }

    fn skip_line(&mut self, bytes: usize) {
        self.at += bytes;
        self.line += 1;
    }

    fn plain(&mut self) -> Cow<'a, str> {
        let rest = &self.text.as_bytes()[self.at..];
        let mut end = rest.iter().position(|byte| matches!(byte, b',' | b'\n')).unwrap_or(rest.len());
        if rest.get(end) == Some(&b'\n') && end > 0 && rest[end - 1] == b'\r' {
            end -= 1;
        }
        let field = &self.text[self.at..self.at + end];
        self.at += end;
        Cow::Borrowed(field)
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, String> {
        let bytes = self.text.as_bytes();
        let opened = self.line;
        let start = self.at + 1;
        let mut from = start;
        let mut unescaped: Option<String> = None;
        loop {
            let Some(quote) = bytes[from..].iter().position(|byte| *byte == b'"').map(|i| from + i) else {
                return Err(format!("line {opened}: a quote is not closed"));
            };
            self.line += bytes[from..quote].iter().filter(|byte| **byte == b'\n').count();
            if bytes.get(quote + 1) != Some(&b'"') {
                self.at = quote + 1;
                return Ok(match unescaped {
                    None => Cow::Borrowed(&self.text[start..quote]),
                    Some(mut text) => {
                        text.push_str(&self.text[from..quote]);
                        Cow::Owned(text)
                    }
                });
            }
            unescaped.get_or_insert_default().push_str(&self.text[from..=quote]);
            from = quote + 2;
        }
    }
}

/// Finds the ends of records in bytes that come in pieces, without looking at fields.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::codec) struct Splitter {
    state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// At the first byte of a field: only here a quote opens.
    #[default]
    Start,
    Plain,
    Quoted,
    /// Behind a quote within a quoted field: the end of it, or the first half of an escaped one.
    Closing,
}

impl Splitter {
    /// Position behind the next end of a record (its line feed) in `piece`; none when the record goes on.
    pub(in crate::codec) fn end(&mut self, piece: &[u8]) -> Option<usize> {
        for (i, byte) in piece.iter().enumerate() {
            self.state = match (self.state, byte) {
                (State::Quoted, b'"') => State::Closing,
                (State::Quoted, _) => State::Quoted,
                (_, b'\n') => {
                    self.state = State::Start;
                    return Some(i + 1);
                }
                (_, b',') => State::Start,
                (State::Start | State::Closing, b'"') => State::Quoted,
                (State::Closing, _) => State::Closing,
                _ => State::Plain,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<Vec<String>>, String> {
        let mut records = Records::new(text);
        let (mut all, mut fields) = (Vec::new(), Vec::new());
        while records.next(&mut fields)? {
            all.push(fields.iter().map(|f| f.to_string()).collect());
        }
        Ok(all)
    }

    #[test]
    fn quotes_line_ends_and_empty_lines_are_read_as_rfc_4180_says() {
        let text = "a,b\r\n\n\"x, \"\"y\"\"\nz\",\"\"\n,\nlast,\"q\"";
        let expected = [["a", "b"], ["x, \"y\"\nz", ""], ["", ""], ["last", "q"]];
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read("a\rb,c").unwrap(), [["a\rb", "c"]]);
        assert_eq!(read("x,5\" pipe\n").unwrap(), [["x", "5\" pipe"]]);
        let mut splitter = Splitter::default();
        assert_eq!(splitter.end(b"x,5\" pipe\ny"), Some(10));
    }

    #[test]
    fn broken_quotes_name_their_line() {
        assert_eq!(read("a\nb\n\"c\nd").unwrap_err(), "line 3: a quote is not closed");
        assert_eq!(read("a\n\"b\"c\n").unwrap_err(), "line 2: text behind a closing quote");
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(table in proptest::collection::vec(proptest::collection::vec("[a-z\",\r\n é]{0,6}", 3), 1..6)) {
            let line = |row: &Vec<String>| row.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            let text: String = table.iter().map(|row| line(row) + "\r\n").collect();
            prop_assert_eq!(read(&text).unwrap(), table.clone());
            // The splitter finds as many records, whatever the pieces are.
            for size in [1, 3, 1000] {
                let (mut splitter, mut found) = (Splitter::default(), 0);
                for mut piece in text.as_bytes().chunks(size) {
                    while let Some(end) = splitter.end(piece) {
                        found += 1;
                        piece = &piece[end..];
                    }
                }
                prop_assert_eq!(found, table.len());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\",\n\ra]{0,30}") {
            let _ = read(&text);
        }
    }
}

//! JSON: an array of objects, or objects one after the other (NDJSON). Values go straight into columns, without a tree.

use std::fmt;

use ::arrow::datatypes::SchemaRef;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::cell::Cell;
use super::rows::Rows;
use super::{Decoded, Format, FormatError, Limits};
use crate::codec::json::{check_depth, describe};
use crate::domain::reason::Reason;

pub(super) fn decode(document: &[u8], target: &SchemaRef, limits: &Limits) -> Result<Decoded, FormatError> {
    let wrong = |detail: String| FormatError::parse(Format::Json, detail);
    check_depth(document, limits.depth)
        .map_err(|_| FormatError::TooLarge { what: "levels of nesting are", limit: limits.depth })?;
    let document = document.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(document);
    let mut reader = Reader { rows: Rows::new(Format::Json, target, limits), fault: None };
    match document.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => {
            let mut parser = serde_json::Deserializer::from_slice(document);
            let parsed = ArrayOf(&mut reader).deserialize(&mut parser).and_then(|()| parser.end());
            reader.check(parsed, 0)?;
        }
        Some(b'{') => {
            let (mut rest, mut number) = (document.trim_ascii_start(), 1);
            while !rest.is_empty() {
                let (row, behind) = rest.split_at(row_end(rest));
                let mut parser = serde_json::Deserializer::from_slice(row);
                let parsed = Row(&mut reader).deserialize(&mut parser).and_then(|()| parser.end());
                reader.check(parsed, number)?;
                (rest, number) = (behind.trim_ascii_start(), number + 1);
            }
        }
        Some(_) => return Err(wrong("it is neither an array of objects nor one object per line".to_owned())),
        None => return Err(wrong("it is empty".to_owned())),
    }
    let empty = reader.rows.is_empty();
    reader.rows.finish(|_, seen| !seen && !empty)
}

/// End of the first value of a sequence: of an object its last bracket, of anything else its line.
fn row_end(text: &[u8]) -> usize {
    if text.first() != Some(&b'{') {
        return text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (i, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

struct Reader<'t> {
    rows: Rows<'t>,
    /// Why parsing was ended from within.
    fault: Option<FormatError>,
}

impl Reader<'_> {
    /// `row` is the number of the object in a sequence, 0 for an array.
    fn check(&mut self, parsed: serde_json::Result<()>, row: usize) -> Result<(), FormatError> {
        match (self.fault.take(), parsed) {
            (Some(fault), _) => Err(fault),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) if row == 0 => Err(FormatError::parse(Format::Json, describe(&error))),
            (None, Err(error)) => Err(FormatError::parse(Format::Json, format!("row {row}: {}", describe(&error)))),
        }
    }

    fn guard<E: de::Error>(&mut self, result: Result<(), FormatError>) -> Result<(), E> {
        result.map_err(|fault| {
            self.fault = Some(fault);
            E::custom("ended")
        })
    }
}

struct ArrayOf<'r, 't>(&'r mut Reader<'t>);

impl<'de> DeserializeSeed<'de> for ArrayOf<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ArrayOf<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(Row(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// One row. What is no object refuses itself alone.
struct Row<'r, 't>(&'r mut Reader<'t>);

impl Row<'_, '_> {
    fn refuse<E: de::Error>(self, cell: Cell<'_>) -> Result<(), E> {
        let begun = self.0.rows.begin();
        self.0.guard(begun)?;
        let cells = std::iter::once(cell.text());
        self.0.rows.reject_row(Reason::TypeMismatch, cells, "an object".to_owned(), cell.shape());
        self.0.rows.end();
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Row<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        let reader = self.0;
        let begun = reader.rows.begin();
        reader.guard(begun)?;
        let mut hint = 0;
        while let Some(column) = cells.next_key_seed(Key { rows: &mut reader.rows, hint })? {
            match column {
                Some(column) => {
                    hint = column + 1;
                    cells.next_value_seed(Value { reader: &mut *reader, column })?;
                }
                None => {
                    cells.next_value::<IgnoredAny>()?;
                }
            }
        }
        reader.rows.end();
        Ok(())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.refuse(Cell::Null)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.refuse(Cell::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.refuse(Cell::Int(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.refuse(Cell::UInt(value))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.refuse(Cell::Float(value))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.refuse(Cell::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.refuse(Cell::Array)
    }
}

/// The name of a column → its number.
struct Key<'r, 't> {
    rows: &'r mut Rows<'t>,
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name")
    }
    fn visit_str<E: de::Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.rows.column(name, self.hint))
    }
}

struct Value<'r, 't> {
    reader: &'r mut Reader<'t>,
    column: usize,
}

impl Value<'_, '_> {
    fn put<E: de::Error>(self, cell: Cell<'_>) -> Result<(), E> {
        let put = self.reader.rows.put(self.column, cell);
        self.reader.guard(put)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.put(Cell::Null)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.put(Cell::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.put(Cell::Int(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.put(Cell::Int(value)),
            Err(_) => self.put(Cell::UInt(value)),
        }
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.put(Cell::Float(value))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.put(Cell::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.put(Cell::Array)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.put(Cell::Object)
    }
}

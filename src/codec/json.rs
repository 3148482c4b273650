//! Plain JSON ⇄ Avro values along a schema: what outsiders send with `kcat`, and what `watch` shows.
//!
//! JSON of outsiders is bounded before it is parsed (size by the caller, nesting here), keys stand once, unknown
//! fields are refused by name (a misspelt optional field would otherwise be lost silently), and no error text
//! repeats a value.

use std::collections::HashMap;
use std::fmt;

use apache_avro::Schema;
use apache_avro::schema::{Name, NamespaceRef, RecordSchema};
use apache_avro::types::Value as Avro;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

/// How deep JSON of outsiders may be nested.
pub const MAX_DEPTH: usize = 32;

/// Checks the nesting of a JSON text without parsing it.
///
/// # Errors
/// When arrays and objects are nested deeper than `limit`.
pub fn check_depth(text: &[u8], limit: usize) -> Result<(), String> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return Err(format!("nested deeper than {limit} levels"));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Parses JSON in which every key of an object stands once. The nesting is checked before.
///
/// # Errors
/// What is wrong with the text, without any value of it.
pub fn parse_strict(text: &[u8], max_depth: usize) -> Result<Json, String> {
    check_depth(text, max_depth)?;
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut parser).map_err(|e| describe(&e))?;
    parser.end().map_err(|e| describe(&e))?;
    Ok(value)
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Json;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Json;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict)?;
            if object.insert(key, value).is_some() {
                return Err(de::Error::custom("duplicate field"));
            }
        }
        Ok(Json::Object(object))
    }
}

/// What is wrong with a JSON text, without any of it.
#[must_use]
pub fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the text ends too early",
        serde_json::error::Category::Syntax => "not valid JSON",
        serde_json::error::Category::Data => "a value is not of its field's type, or a field stands twice",
        serde_json::error::Category::Io => "cannot be read",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// An Avro value as JSON: bytes as base64, unions as their content.
#[must_use]
pub fn from_avro(value: Avro) -> Json {
    match value {
        Avro::Record(fields) => Json::Object(fields.into_iter().map(|(name, v)| (name, from_avro(v))).collect()),
        Avro::Array(items) => Json::Array(items.into_iter().map(from_avro).collect()),
        Avro::Map(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(name, v)| (name, from_avro(v))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(entries.into_iter().collect())
        }
        Avro::Union(_, inner) => from_avro(*inner),
        Avro::Bytes(bytes) | Avro::Fixed(_, bytes) => Json::String(STANDARD.encode(bytes)),
        other => Json::try_from(other).unwrap_or(Json::Null),
    }
}

/// JSON along a schema as an Avro value. `names` are the schema's named types.
///
/// # Errors
/// The path of the first value that does not fit and what was expected; never the value.
pub fn to_avro(schema: &Schema, names: &HashMap<Name, &Schema>, json: Json) -> Result<Avro, String> {
    Reader { names }.value(schema, None, json).map_err(|Misfit { mut path, what }| {
        path.reverse();
        if path.is_empty() { what } else { format!("field {}: {what}", path.join(".")) }
    })
}

struct Misfit {
    path: Vec<String>,
    what: String,
}

impl Misfit {
    fn new(what: impl Into<String>) -> Self {
        Self { path: Vec::new(), what: what.into() }
    }

    fn within(mut self, part: impl Into<String>) -> Self {
        self.path.push(part.into());
        self
    }
}

struct Reader<'s> {
    names: &'s HashMap<Name, &'s Schema>,
}

impl Reader<'_> {
    fn value(&self, schema: &Schema, namespace: NamespaceRef<'_>, json: Json) -> Result<Avro, Misfit> {
        let wrong = |expected: &str, json: &Json| Misfit::new(format!("expected {expected}, found {}", kind(json)));
        match (schema, json) {
            (Schema::Null, Json::Null) => Ok(Avro::Null),
            (Schema::Boolean, Json::Bool(b)) => Ok(Avro::Boolean(b)),
            (Schema::Int, Json::Number(n)) => match n.as_i64().and_then(|n| i32::try_from(n).ok()) {
                Some(n) => Ok(Avro::Int(n)),
                None => Err(Misfit::new("expected a whole number of 32 bits")),
            },
            (Schema::Long, Json::Number(n)) => match n.as_i64() {
                Some(n) => Ok(Avro::Long(n)),
                None => Err(Misfit::new("expected a whole number of 64 bits")),
            },
            (Schema::Double, Json::Number(n)) => {
                n.as_f64().map(Avro::Double).ok_or_else(|| Misfit::new("out of range"))
            }
            (Schema::String, Json::String(s)) => Ok(Avro::String(s)),
            (Schema::Bytes, Json::String(s)) => {
                STANDARD.decode(s).map(Avro::Bytes).map_err(|_| Misfit::new("is not valid base64 (RFC 4648, padded)"))
            }
            (Schema::Enum(of), Json::String(s)) => match of.symbols.iter().position(|symbol| *symbol == s) {
                Some(index) => Ok(Avro::Enum(u32::try_from(index).unwrap_or(u32::MAX), s)),
                None => Err(Misfit::new(format!("expected one of {}", of.symbols.join(", ")))),
            },
            (Schema::Array(array), Json::Array(items)) => {
                let read = |(i, item)| self.value(&array.items, namespace, item).map_err(|e| e.within(i));
                let items = items.into_iter().enumerate().map(|(i, item)| (i.to_string(), item));
                items.map(read).collect::<Result<_, _>>().map(Avro::Array)
            }
            (Schema::Union(union), json) => {
                let wants_null = json.is_null();
                for (index, variant) in union.variants().iter().enumerate() {
                    if matches!(variant, Schema::Null) == wants_null {
                        let index = u32::try_from(index).unwrap_or(u32::MAX);
                        return Ok(Avro::Union(index, Box::new(self.value(variant, namespace, json)?)));
                    }
                }
                Err(Misfit::new("no branch of the union fits"))
            }
            (Schema::Record(record), Json::Object(fields)) => self.record(record, namespace, fields),
            (Schema::Ref { name }, json) => match self.names.get(&*name.fully_qualified_name(namespace)) {
                Some(schema) => self.value(schema, namespace, json),
                None => Err(Misfit::new("the schema is not complete")),
            },
            (schema, json) => Err(wrong(expected(schema), &json)),
        }
    }

    fn record(
        &self,
        record: &RecordSchema,
        namespace: NamespaceRef<'_>,
        mut json: serde_json::Map<String, Json>,
    ) -> Result<Avro, Misfit> {
        let name = record.name.fully_qualified_name(namespace);
        let mut values = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let value = match (json.shift_remove(&field.name), &field.default) {
                (Some(value), _) => value,
                (None, Some(default)) => default.clone(),
                (None, None) => return Err(Misfit::new("is required").within(&field.name)),
            };
            let value = self.value(&field.schema, name.namespace(), value).map_err(|e| e.within(&field.name))?;
            values.push((field.name.clone(), value));
        }
        match json.keys().next() {
            None => Ok(Avro::Record(values)),
            Some(unknown) => Err(Misfit::new(unknown_field(unknown, record.fields.iter().map(|f| f.name.as_str())))),
        }
    }
}

/// Says that a field is unknown, and names the ones that there are.
pub(super) fn unknown_field<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let name = if is_plain_name(name) { format!("{name:?}") } else { UNREPEATED.to_owned() };
    let known = known.collect::<Vec<_>>().join(", ");
    format!("unknown field {name}; help: the fields are {known}")
}

/// What stands for a name that comes from outside and may hold personal data.
pub(super) const UNREPEATED: &str = "(a name that is not repeated here)";

/// Longest name that is repeated.
const MAX_SHOWN_NAME: usize = 64;

/// Whether a name that comes from outside may be repeated in an error or a refusal: an identifier without a long number.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    let mut run = 0;
    let long_number = name.bytes().any(|b| {
        run = if b.is_ascii_digit() { run + 1 } else { 0 };
        run > 4
    });
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && !long_number
        && name.len() <= MAX_SHOWN_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Kind of a JSON value.
pub(super) fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

fn expected(schema: &Schema) -> &'static str {
    match schema {
        Schema::Null => "null",
        Schema::Boolean => "a boolean",
        Schema::Int | Schema::Long => "a whole number",
        Schema::Double => "a number",
        Schema::String => "a text",
        Schema::Bytes => "a text in base64",
        Schema::Enum(_) => "a text",
        Schema::Array(_) => "an array",
        Schema::Record(_) => "an object",
        _ => "another type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_do_not_count_as_nesting() {
        assert!(check_depth(br#"{"a":"[[[[[[\"[[[["}"#, 1).is_ok());
        assert!(check_depth(b"[[[]]]", 2).is_err());
        assert!(check_depth(b"[[],[]]", 2).is_ok());
    }

    #[test]
    fn a_field_that_stands_twice_is_refused_at_any_depth() {
        assert!(parse_strict(br#"{"a":{"b":1,"b":2}}"#, 32).unwrap_err().contains("stands twice"));
        assert_eq!(parse_strict(br#"{"a":[1,null,"x"]}"#, 32).unwrap().to_string(), r#"{"a":[1,null,"x"]}"#);
        assert!(parse_strict(b"{} {}", 32).is_err());
    }
}

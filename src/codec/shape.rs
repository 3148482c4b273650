//! Structure check of an Avro datum: walks the bytes along the schema without allocating anything.
//!
//! A decoder may trust a datum that passed: every declared length lies within the bytes that are there, strings are
//! UTF-8, union and enum indexes exist, nesting and item counts are bounded, and nothing is left over. (apache-avro
//! by itself allocates what a length *declares*, and reads past the end as null or false.)

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, NamespaceRef, UuidSchema};

/// Nesting of records, arrays and unions together.
const MAX_DEPTH: usize = 64;
/// Items of all arrays and maps of one datum together.
const MAX_ITEMS: usize = 1 << 20;

#[derive(Debug)]
enum Node {
    Fixed(usize),
    Bool,
    Varint { bits32: bool },
    Bytes,
    Text,
    Enum(usize),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(String, usize)>),
}

/// The structure of a schema, compiled.
#[derive(Debug)]
pub(super) struct Shape {
    nodes: Vec<Node>,
    root: usize,
}

impl Shape {
    /// Compiles a schema.
    pub(super) fn of(schema: &Schema) -> Result<Self, String> {
        let mut compiler = Compiler { nodes: Vec::new(), names: HashMap::new() };
        let root = compiler.node(schema, None)?;
        Ok(Self { nodes: compiler.nodes, root })
    }

    /// Checks that `datum` is exactly one datum of the schema.
    pub(super) fn check(&self, datum: &[u8]) -> Result<(), String> {
        let rest = self.check_prefix(datum)?;
        if rest != 0 {
            return Err(format!("{rest} bytes are left over behind the record"));
        }
        Ok(())
    }

    /// Checks that `datum` starts with a datum of the schema; gives the number of bytes behind it.
    pub(super) fn check_prefix(&self, datum: &[u8]) -> Result<usize, String> {
        let mut walk = Walk { nodes: &self.nodes, rest: datum, items: 0, path: Vec::new() };
        match walk.node(self.root, 0) {
            Ok(()) => Ok(walk.rest.len()),
            Err(what) if walk.path.is_empty() => Err(what.to_owned()),
            Err(what) => Err(format!("field {}: {what}", walk.path.join("."))),
        }
    }
}

struct Compiler {
    nodes: Vec<Node>,
    names: HashMap<Name, usize>,
}

impl Compiler {
    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// A named type gets its place before its content, so that it may contain itself.
    fn named(&mut self, name: &Name, namespace: NamespaceRef<'_>, node: Node) -> usize {
        let id = self.push(node);
        self.names.insert(name.fully_qualified_name(namespace).into_owned(), id);
        id
    }

    fn node(&mut self, schema: &Schema, namespace: NamespaceRef<'_>) -> Result<usize, String> {
        let node = match schema {
            Schema::Null => Node::Fixed(0),
            Schema::Boolean => Node::Bool,
            Schema::Int | Schema::Date | Schema::TimeMillis => Node::Varint { bits32: true },
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Node::Varint { bits32: false },
            Schema::Float => Node::Fixed(4),
            Schema::Double => Node::Fixed(8),
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::Text,
            Schema::Array(array) => Node::Array(self.node(&array.items, namespace)?),
            Schema::Map(map) => Node::Map(self.node(&map.types, namespace)?),
            Schema::Union(union) => {
                Node::Union(union.variants().iter().map(|v| self.node(v, namespace)).collect::<Result<_, _>>()?)
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                return Ok(self.named(&fixed.name, namespace, Node::Fixed(fixed.size)));
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Bytes,
                InnerDecimalSchema::Fixed(fixed) => {
                    return Ok(self.named(&fixed.name, namespace, Node::Fixed(fixed.size)));
                }
            },
            Schema::Enum(of) => return Ok(self.named(&of.name, namespace, Node::Enum(of.symbols.len()))),
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace).into_owned();
                return self.names.get(&name).copied().ok_or_else(|| format!("type {name:?} is not defined"));
            }
            Schema::Record(record) => {
                let id = self.named(&record.name, namespace, Node::Record(Vec::new()));
                let name = record.name.fully_qualified_name(namespace).into_owned();
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push((field.name.clone(), self.node(&field.schema, name.namespace())?));
                }
                self.nodes[id] = Node::Record(fields);
                return Ok(id);
            }
        };
        Ok(self.push(node))
    }
}

struct Walk<'a, 's> {
    nodes: &'s [Node],
    rest: &'a [u8],
    items: usize,
    path: Vec<&'s str>,
}

type Checked<T> = Result<T, &'static str>;

impl Walk<'_, '_> {
    fn skip(&mut self, bytes: usize) -> Checked<()> {
        self.rest = self.rest.get(bytes..).ok_or("the record ends within a value")?;
        Ok(())
    }

    fn varint(&mut self, bits32: bool) -> Checked<i64> {
        let mut bits = 0_u64;
        for shift in 0..10_u32 {
            let (first, rest) = self.rest.split_first().ok_or("the record ends within a number")?;
            self.rest = rest;
            if shift == 9 && *first > 1 {
                break;
            }
            bits |= u64::from(first & 0x7F) << (shift * 7);
            if first & 0x80 == 0 {
                let value = (bits >> 1).cast_signed() ^ -(bits & 1).cast_signed();
                if bits32 && i32::try_from(value).is_err() {
                    return Err("a number is too large for an int");
                }
                return Ok(value);
            }
        }
        Err("a number has too many bytes")
    }

    fn bytes(&mut self) -> Checked<&[u8]> {
        let length = usize::try_from(self.varint(false)?).map_err(|_| "a length is negative")?;
        if length > self.rest.len() {
            return Err("a declared length is beyond the end of the record");
        }
        let (value, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(value)
    }

    fn blocks(&mut self, keys: bool, item: usize, depth: usize) -> Checked<()> {
        loop {
            let mut count = self.varint(false)?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                count = count.checked_neg().ok_or("a block count is out of range")?;
                self.varint(false)?;
            }
            let count = usize::try_from(count).map_err(|_| "a block count is out of range")?;
            self.items = self.items.saturating_add(count);
            if count > self.rest.len() {
                return Err("a declared count is beyond the end of the record");
            }
            if self.items > MAX_ITEMS {
                return Err("more than 1,048,576 items in one record");
            }
            for _ in 0..count {
                if keys {
                    std::str::from_utf8(self.bytes()?).map_err(|_| "a key is not UTF-8")?;
                }
                self.node(item, depth)?;
            }
        }
    }

    fn node(&mut self, id: usize, depth: usize) -> Checked<()> {
        if depth > MAX_DEPTH {
            return Err("nested deeper than 64 levels");
        }
        let nodes = self.nodes;
        let Some(node) = nodes.get(id) else { return Err("the schema is not complete") };
        match node {
            Node::Fixed(size) => self.skip(*size),
            Node::Bool => match self.rest.split_first() {
                Some((0 | 1, rest)) => {
                    self.rest = rest;
                    Ok(())
                }
                Some(_) => Err("a boolean is neither 0 nor 1"),
                None => Err("the record ends within a boolean"),
            },
            Node::Varint { bits32 } => self.varint(*bits32).map(drop),
            Node::Bytes => self.bytes().map(drop),
            Node::Text => std::str::from_utf8(self.bytes()?).map(drop).map_err(|_| "a text is not UTF-8"),
            Node::Enum(symbols) => match usize::try_from(self.varint(true)?) {
                Ok(index) if index < *symbols => Ok(()),
                _ => Err("an enum has no such symbol"),
            },
            Node::Array(item) => self.blocks(false, *item, depth + 1),
            Node::Map(item) => self.blocks(true, *item, depth + 1),
            Node::Union(variants) => {
                let index = usize::try_from(self.varint(false)?).ok();
                let variant = index.and_then(|i| variants.get(i)).ok_or("a union has no such branch")?;
                self.node(*variant, depth + 1)
            }
            Node::Record(fields) => {
                for (name, field) in fields {
                    self.path.push(name);
                    self.node(*field, depth + 1)?;
                    self.path.pop();
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(json: &str) -> Shape {
        Shape::of(&Schema::parse_str(json).unwrap()).unwrap()
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_anything_is_allocated() {
        let shape = shape(r#""bytes""#);
        // 2^40 as zig-zag varint
        assert!(shape.check(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x40]).unwrap_err().contains("beyond the end"));
        assert!(shape.check(&[4, 1, 2]).is_ok());
        assert!(shape.check(&[1]).unwrap_err().contains("negative"));
    }

    #[test]
    fn a_truncated_record_names_its_field() {
        let shape = shape(
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"boolean"},{"name":"b","type":"double"}]}"#,
        );
        assert_eq!(shape.check(&[1]).unwrap_err(), "field b: the record ends within a value");
        assert!(shape.check(&[7, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err().starts_with("field a"));
        assert!(shape.check(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 9]).unwrap_err().contains("1 bytes are left over"));
    }

    #[test]
    fn a_type_that_contains_itself_is_bounded_in_depth() {
        let shape = shape(r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#);
        assert!(shape.check(&[2, 2, 0]).is_ok());
        assert!(shape.check(&[2; 1000]).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn an_array_of_nothing_cannot_claim_a_billion_items() {
        let shape = shape(r#"{"type":"array","items":"null"}"#);
        assert!(shape.check(&[0x80, 0xA8, 0xD6, 0xB9, 0x07, 0]).unwrap_err().contains("count"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let shape = shape(r#"{"type":"record","name":"R","fields":[
                {"name":"a","type":["null","string",{"type":"array","items":"R"}]},
                {"name":"m","type":{"type":"map","values":"long"}},
                {"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}}]}"#);
            let _ = shape.check(&bytes);
        }
    }
}

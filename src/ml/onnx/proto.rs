//! The few messages of ONNX's `onnx.proto` that a model needs, written field by field (Protocol Buffers, "Encoding").

/// Bytes of one message.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

/// Element types of `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Element {
    /// 32-bit float.
    Float = 1,
    /// 64-bit integer.
    Int64 = 7,
    /// Text.
    String = 8,
    /// 64-bit float.
    Double = 11,
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number.
    #[must_use]
    pub fn int(mut self, field: u32, value: i64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value as u64);
        self
    }

    /// Bytes, a text or a message.
    #[must_use]
    pub fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    /// A text.
    #[must_use]
    pub fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// A message.
    #[must_use]
    pub fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// Packed numbers.
    #[must_use]
    pub fn ints(self, field: u32, values: &[i64]) -> Self {
        let mut packed = Self::default();
        values.iter().for_each(|&value| packed.varint(value as u64));
        self.message(field, &packed)
    }

    /// Packed floats.
    #[must_use]
    pub fn floats(self, field: u32, values: &[f32]) -> Self {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(field, &packed)
    }
}

/// `AttributeProto`.
pub enum Attribute<'a> {
    /// INT.
    Int(i64),
    /// STRING.
    Text(&'a str),
    /// FLOATS.
    Floats(&'a [f32]),
    /// INTS.
    Ints(&'a [i64]),
    /// STRINGS.
    Texts(Vec<&'a str>),
}

impl Attribute<'_> {
    fn message(&self, name: &str) -> Message {
        let own = Message::default().text(1, name);
        match self {
            Self::Int(value) => own.int(3, *value).int(20, 2),
            Self::Text(value) => own.text(4, value).int(20, 3),
            Self::Floats(values) => own.floats(7, values).int(20, 6),
            Self::Ints(values) => own.ints(8, values).int(20, 7),
            Self::Texts(values) => values.iter().fold(own, |own, value| own.text(9, value)).int(20, 8),
        }
    }
}

/// `NodeProto`.
pub fn node(
    domain: &str,
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[(&str, Attribute<'_>)],
) -> Message {
    let mut node = Message::default();
    node = inputs.iter().fold(node, |node, name| node.text(1, name));
    node = outputs.iter().fold(node, |node, name| node.text(2, name));
    node = node.text(3, outputs.first().unwrap_or(&op)).text(4, op);
    node = attributes.iter().fold(node, |node, (name, attribute)| node.message(5, &attribute.message(name)));
    node.text(7, domain)
}

/// `TensorProto` of 64-bit integers.
pub fn ints(name: &str, values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, Element::Int64, values.len(), &raw)
}

/// `TensorProto` of 32-bit floats.
pub fn floats(name: &str, values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, Element::Float, values.len(), &raw)
}

/// `TensorProto` of 64-bit floats.
pub fn doubles(name: &str, values: &[f64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, Element::Double, values.len(), &raw)
}

fn tensor(name: &str, element: Element, length: usize, raw: &[u8]) -> Message {
    Message::default().ints(1, &[length as i64]).int(2, element as i64).text(8, name).bytes(9, raw)
}

/// `ValueInfoProto` of a tensor [N, `width`], or [N] without a width.
pub fn value(name: &str, element: Element, width: Option<usize>) -> Message {
    let rows = Message::default().text(2, "N");
    let mut shape = Message::default().message(1, &rows);
    if let Some(width) = width {
        shape = shape.message(1, &Message::default().int(1, width as i64));
    }
    let tensor = Message::default().int(1, element as i64).message(2, &shape);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_as_in_the_examples_of_the_specification() {
        assert_eq!(Message::default().int(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").0, *b"\x12\x07testing");
        assert_eq!(Message::default().ints(6, &[3, 270, 86_942]).0, [0x32, 6, 3, 0x8e, 2, 0x9e, 0xa7, 5]);
        assert_eq!(Message::default().int(1, -2).0.len(), 11);
    }
}

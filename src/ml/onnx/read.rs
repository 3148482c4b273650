//! `onnx.proto` as far as an imported model needs it, read from an outsider's bytes. What is read borrows from them; lists take at
//! most eight times the bytes that they are read from.

use super::OnnxError;
use super::tensor::{Kind, MAX_RANK, Tensor};
use super::wire::{Fields, Value};

/// Largest file in bytes.
pub const MAX_BYTES: usize = 32 << 20;
/// Most nodes of a graph.
pub const MAX_NODES: usize = 4096;
/// Most constants, inputs or outputs of a graph.
pub const MAX_VALUES: usize = 4096;
/// Most elements of all constants: those of the largest file of singles.
pub const MAX_CONSTANTS: usize = MAX_BYTES / 4;
/// Most inputs, outputs or attributes of a node.
pub const MAX_ARGUMENTS: usize = 4096;

type Read<T> = Result<T, OnnxError>;

/// `ModelProto`.
#[derive(Debug, Default)]
pub struct Model<'a> {
    /// Domain ("" is `ai.onnx`) and version.
    pub opsets: Vec<(&'a str, i64)>,
    /// The graph.
    pub graph: Graph<'a>,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub struct Graph<'a> {
    /// Operators.
    pub nodes: Vec<Node<'a>>,
    /// Constants.
    pub constants: Vec<Raw<'a>>,
    /// Declared inputs; older files have the constants among them.
    pub inputs: Vec<Declared<'a>>,
    /// Declared outputs.
    pub outputs: Vec<Declared<'a>>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub struct Node<'a> {
    /// Names of what it reads; an empty one is left out.
    pub inputs: Vec<&'a str>,
    /// Names of what it makes.
    pub outputs: Vec<&'a str>,
    /// Its own name.
    pub name: &'a str,
    /// Operator.
    pub op: &'a str,
    /// Domain of the operator.
    pub domain: &'a str,
    /// Attributes.
    pub attributes: Vec<Attribute<'a>>,
}

/// `AttributeProto`.
#[derive(Debug, Default)]
pub struct Attribute<'a> {
    /// Its name.
    pub name: &'a str,
    /// FLOAT.
    pub float: Option<f32>,
    /// INT.
    pub int: Option<i64>,
    /// STRING.
    pub text: Option<&'a [u8]>,
    /// TENSOR.
    pub tensor: Option<Raw<'a>>,
    /// FLOATS.
    pub floats: Vec<f32>,
    /// INTS.
    pub ints: Vec<i64>,
    /// STRINGS.
    pub texts: Vec<&'a [u8]>,
}

/// `ValueInfoProto`.
#[derive(Debug, Default, Clone)]
pub struct Declared<'a> {
    /// Its name.
    pub name: &'a str,
    /// `TensorProto.DataType` of a tensor; none of a sequence or a map.
    pub element: Option<i64>,
    /// A sequence, as ZipMap makes it.
    pub sequence: bool,
    /// Dimensions that are numbers; none where it is a name or unknown.
    pub shape: Vec<Option<i64>>,
}

/// `TensorProto`, its data not yet read.
#[derive(Debug, Default)]
pub struct Raw<'a> {
    /// Its name.
    pub name: &'a str,
    dims: Vec<i64>,
    element: i64,
    data: Vec<(u64, Value<'a>)>,
    outside: bool,
}

fn push<T>(list: &mut Vec<T>, item: T, what: &'static str, limit: usize) -> Read<()> {
    if list.len() >= limit {
        return Err(OnnxError::Limit { what, limit });
    }
    list.push(item);
    Ok(())
}

fn unsupported<T>(what: &str, help: &str) -> Read<T> {
    Err(OnnxError::Unsupported(format!("{what}\nhelp: {help}")))
}

/// Reads a `ModelProto`.
///
/// # Errors
/// Bytes that are none, past a limit, or that need what is not read here.
pub fn model(bytes: &[u8]) -> Read<Model<'_>> {
    if bytes.len() > MAX_BYTES {
        return Err(OnnxError::Limit { what: "bytes", limit: MAX_BYTES });
    }
    let (mut model, mut found) = (Model::default(), false);
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.field()? {
        match field {
            7 if found => return Err(OnnxError::Form("it has two graphs".to_owned())),
            7 => (model.graph, found) = (graph(value.bytes()?)?, true),
            8 => push(&mut model.opsets, opset(value.bytes()?)?, "operator sets", 64)?,
            25 => return unsupported("it defines functions", "export it with its functions inlined"),
            _ => {}
        }
    }
    if found { Ok(model) } else { Err(OnnxError::Form("it has no graph".to_owned())) }
}

fn opset(bytes: &[u8]) -> Read<(&str, i64)> {
    let (mut domain, mut version) = ("", 0);
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.field()? {
        match field {
            1 => domain = value.text()?,
            2 => version = value.int()?,
            _ => {}
        }
    }
    Ok((if domain == "ai.onnx" { "" } else { domain }, version))
}

fn graph(bytes: &[u8]) -> Read<Graph<'_>> {
    let mut graph = Graph::default();
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.field()? {
        match field {
            1 => push(&mut graph.nodes, node(value.bytes()?)?, "nodes", MAX_NODES)?,
            5 => push(&mut graph.constants, tensor(value.bytes()?)?, "constants", MAX_VALUES)?,
            11 => push(&mut graph.inputs, declared(value.bytes()?)?, "inputs", 2 * MAX_VALUES)?,
            12 => push(&mut graph.outputs, declared(value.bytes()?)?, "outputs", MAX_VALUES)?,
            15 => return unsupported("it has sparse constants", "export it with dense ones"),
            _ => {}
        }
    }
    Ok(graph)
}

fn node(bytes: &[u8]) -> Read<Node<'_>> {
    let mut node = Node::default();
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.field()? {
        match field {
            1 => push(&mut node.inputs, value.text()?, "inputs of a node", MAX_ARGUMENTS)?,
            2 => push(&mut node.outputs, value.text()?, "outputs of a node", MAX_ARGUMENTS)?,
            3 => node.name = value.text()?,
            4 => node.op = value.text()?,
            5 => push(&mut node.attributes, attribute(value.bytes()?)?, "attributes of a node", 256)?,
            7 => node.domain = value.text()?,
            _ => {}
        }
    }
    if node.domain == "ai.onnx" {
        node.domain = "";
    }
    Ok(node)
}

fn attribute(bytes: &[u8]) -> Read<Attribute<'_>> {
    let mut own = Attribute::default();
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.field()? {
        match (field, value) {
            (1, _) => own.name = value.text()?,
            (2, Value::Fixed32(bytes)) => own.float = Some(f32::from_le_bytes(bytes)),
            (3, _) => own.int = Some(value.int()?),
            (4, _) => own.text = Some(value.bytes()?),
            (5, _) => own.tensor = Some(tensor(value.bytes()?)?),
            (6 | 11, _) => {
                return unsupported(
                    "it has a graph in an attribute (If, Loop, Scan)",
                    "export it without control flow",
                );
            }
            (7, _) => value.floats(&mut own.floats)?,
            (8, _) => value.ints(&mut own.ints)?,
            (9, _) => own.texts.push(value.bytes()?),
            _ => {}
        }
    }
    Ok(own)
}

fn declared(bytes: &[u8]) -> Read<Declared<'_>> {
    let mut own = Declared::default();
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.field()? {
        match field {
            1 => own.name = value.text()?,
            2 => {
                let mut kinds = Fields::of(value.bytes()?);
                while let Some((field, value)) = kinds.field()? {
                    match field {
                        1 => (own.element, own.shape) = tensor_type(value.bytes()?)?,
                        4 => own.sequence = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(own)
}

fn tensor_type(bytes: &[u8]) -> Read<(Option<i64>, Vec<Option<i64>>)> {
    let (mut element, mut shape) = (None, Vec::new());
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.field()? {
        match field {
            1 => element = Some(value.int()?),
            2 => {
                let mut dims = Fields::of(value.bytes()?);
                while let Some((field, value)) = dims.field()? {
                    if field != 1 {
                        continue;
                    }
                    let (mut size, mut parts) = (None, Fields::of(value.bytes()?));
                    while let Some((field, value)) = parts.field()? {
                        if field == 1 {
                            size = Some(value.int()?);
                        }
                    }
                    push(&mut shape, size, "dimensions of a tensor", MAX_RANK)?;
                }
            }
            _ => {}
        }
    }
    Ok((element, shape))
}

fn tensor(bytes: &[u8]) -> Read<Raw<'_>> {
    let mut own = Raw::default();
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.field()? {
        match field {
            1 => {
                value.ints(&mut own.dims)?;
                if own.dims.len() > MAX_RANK {
                    return Err(OnnxError::Limit { what: "dimensions of a tensor", limit: MAX_RANK });
                }
            }
            2 => own.element = value.int()?,
            8 => own.name = value.text()?,
            4 | 5 | 7 | 9 | 10 => own.data.push((field, value)),
            13 => own.outside = true,
            14 => own.outside |= value.int()? != 0,
            _ => {}
        }
    }
    Ok(own)
}

impl Raw<'_> {
    /// The tensor with its data.
    ///
    /// # Errors
    /// Data that lie elsewhere, are of another number than the dimensions say or than are `left` of [`MAX_CONSTANTS`], or of a type
    /// that is not computed with.
    pub fn read(&self, left: &mut usize) -> Read<Tensor> {
        let name = self.name;
        if self.outside {
            return unsupported(&format!("the data of {name} lie outside of the file"), "save the model as one file");
        }
        let Some(kind) = Kind::of(self.element) else {
            return unsupported(
                &format!("{name} has elements of type {}", self.element),
                "floats, doubles and integers are read",
            );
        };
        let shape: Option<Vec<usize>> = self.dims.iter().map(|&size| usize::try_from(size).ok()).collect();
        let count = shape.iter().flatten().try_fold(1usize, |all, &size| all.checked_mul(size));
        let (Some(shape), Some(count)) = (shape, count.filter(|&count| count <= *left)) else {
            return Err(OnnxError::Limit { what: "elements of constants", limit: MAX_CONSTANTS });
        };
        let data = self.numbers(kind, count)?;
        if data.len() != count {
            return Err(OnnxError::Form(format!(
                "{name} has {} elements and dimensions for another number",
                data.len()
            )));
        }
        *left -= count;
        Ok(Tensor::constant(kind, shape, data))
    }

    /// Its elements; no more than that many are made before it is told that there are too many.
    fn numbers(&self, kind: Kind, most: usize) -> Read<Vec<f64>> {
        let (mut ints, mut floats, mut doubles) = (Vec::new(), Vec::new(), Vec::new());
        let fits = |(field, value): (u64, Value<'_>)| match (field, self.element) {
            // Each element of a packed list of varints ends with a byte below 128; one alone is one.
            (5 | 7, _) => value.bytes().map_or(1, |bytes| bytes.iter().filter(|byte| **byte < 0x80).count()) <= most,
            (9, 9) => value.bytes().is_ok_and(|bytes| bytes.len() <= most),
            _ => true,
        };
        for &(field, value) in &self.data {
            if !fits((field, value)) || ints.len() > most {
                return Err(OnnxError::Form(format!("{} has more elements than its dimensions say", self.name)));
            }
            match (field, self.element) {
                (4, 1) | (9, 1) => value.floats(&mut floats)?,
                (10, 11) | (9, 11) => value.doubles(&mut doubles)?,
                (5, 6 | 9) | (7, 7) => value.ints(&mut ints)?,
                (9, 6) => ints.extend(chunks::<4>(value)?.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes)))),
                (9, 7) => ints.extend(chunks::<8>(value)?.iter().map(|bytes| i64::from_le_bytes(*bytes))),
                (9, 9) => ints.extend(value.bytes()?.iter().map(|&byte| i64::from(byte))),
                _ => {
                    return Err(OnnxError::Form(format!("the data of {} are of another type than it says", self.name)));
                }
            }
        }
        doubles.extend(floats.into_iter().map(f64::from));
        doubles.extend(ints.into_iter().map(|int| kind.round(int as f64)));
        Ok(doubles)
    }
}

fn chunks<const N: usize>(value: Value<'_>) -> Read<&[[u8; N]]> {
    let (chunks, rest) = value.bytes()?.as_chunks::<N>();
    if rest.is_empty() { Ok(chunks) } else { Err(OnnxError::Form("data of a tensor are cut short".to_owned())) }
}

impl<'a> Node<'a> {
    fn attribute(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|own| own.name == name)
    }

    /// What errors call it.
    #[must_use]
    pub fn called(&self) -> String {
        let made = self.outputs.first().copied().unwrap_or("?");
        if self.name.is_empty() { format!("the node that makes {made}") } else { self.name.to_owned() }
    }

    /// Whether it has this attribute.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// An INT, or what it is when left out.
    #[must_use]
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|own| own.int).unwrap_or(default)
    }

    /// A FLOAT, or what it is when left out.
    #[must_use]
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|own| own.float).unwrap_or(default)
    }

    /// A STRING, or what it is when left out.
    #[must_use]
    pub fn text(&self, name: &str, default: &'static str) -> &[u8] {
        self.attribute(name).and_then(|own| own.text).unwrap_or(default.as_bytes())
    }

    /// INTS; none when left out.
    #[must_use]
    pub fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map_or(&[], |own| &own.ints)
    }

    /// FLOATS; none when left out.
    #[must_use]
    pub fn floats(&self, name: &str) -> &[f32] {
        self.attribute(name).map_or(&[], |own| &own.floats)
    }

    /// STRINGS; none when left out.
    #[must_use]
    pub fn texts(&self, name: &str) -> &[&'a [u8]] {
        self.attribute(name).map_or(&[], |own| &own.texts)
    }

    /// A TENSOR.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Raw<'a>> {
        self.attribute(name).and_then(|own| own.tensor.as_ref())
    }
}

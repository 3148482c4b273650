//! The model's canonical bytes: one form for one model, so that its SHA-256 names it.
//!
//! All integers little-endian, texts and lists with a `u32` length, floats as their bits. The file:
//! magic `HKML`, format version, task, encoding, predictor (trees, weights, or the bytes of an imported ONNX model). A model whose rows
//! go through SQL first has format version 2: behind the encoding stand the reference tables in full and the SELECTs (its pre-training
//! steps are no part of it). What is read is checked in full (limits before allocation, form of every tree, canonical order of levels,
//! finite numbers, no byte left over), so that a foreign file is an error, never a panic or a surprise at scoring.

mod sql;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::ml::bins::{Binned, Cut};
use crate::ml::dataset::CODE;
use crate::ml::derivation::Derivation;
use crate::ml::encoding::{Encoding, Feature, Kind, MAX_LEVELS, TimePart};
use crate::ml::linear::{Design, MAX_COEFFICIENTS, Weights};
use crate::ml::model::{Forest, Model, Predictor};
use crate::ml::onnx::OnnxError;
use crate::ml::onnx::import::Imported;
use crate::ml::parameters::Parameters;
use crate::ml::tree::{Node, Test, Tree};
use crate::ml::{MAX_CLASSES, MAX_FEATURES, Task, Training};

/// The format's version.
pub const VERSION: u16 = 1;
/// The format's version of a model with SQL.
pub const SQL_VERSION: u16 = 2;
/// Largest artefact in bytes.
pub const MAX_BYTES: usize = 64 << 20;
const MAGIC: &[u8; 4] = b"HKML";
const CHECKPOINT: &[u8; 4] = b"HKCP";
/// Longest name or level in bytes.
pub const MAX_TEXT: usize = 4096;
/// Most trees.
pub const MAX_TREES: usize = 1 << 20;
const MAX_LEAVES: usize = 4096;

/// Why bytes are no artefact.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArtefactError {
    /// Not an artefact at all.
    #[error("this is no model artefact: it does not begin with HKML\nhelp: export one with `hokusai model export`")]
    Magic,
    /// Of another version.
    #[error(
        "the artefact has format version {0}, this program reads {VERSION} and {SQL_VERSION}\nhelp: use the program that wrote it, or a newer one"
    )]
    Version(u16),
    /// The imported model in it cannot be run.
    #[error(transparent)]
    Imported(OnnxError),
    /// Cut short, too long, or out of form.
    #[error("byte {at}: {problem}\nhelp: the artefact is damaged: fetch it again by its digest")]
    Form {
        /// Where reading stopped.
        at: usize,
        /// What is wrong there.
        problem: &'static str,
    },
}

/// Whether bytes claim to be an artefact of this format.
#[must_use]
pub fn is_native(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The digest that names a model's bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Model {
    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(MAGIC.to_vec());
        let derivation = &self.encoding.derivation;
        let sql = !(derivation.selects.is_empty() && derivation.tables.is_empty());
        out.u16(if sql { SQL_VERSION } else { VERSION });
        match &self.task {
            Task::Number => out.u8(0),
            Task::Classes(classes) => {
                out.u8(1);
                out.list(classes, |out, class| out.text(class));
            }
        }
        out.list(&self.encoding.features, Writer::feature);
        if sql {
            out.list(&derivation.tables, Writer::table);
            out.list(&derivation.selects, Writer::select);
        }
        match &self.predictor {
            Predictor::Trees(forest) => {
                out.u8(0);
                out.forest(forest);
            }
            Predictor::Linear(weights) => {
                out.u8(1);
                out.weights(weights);
            }
            Predictor::Imported(imported) => {
                out.u8(2);
                out.u32(imported.bytes().len() as u32);
                out.0.extend(imported.bytes());
            }
        }
        out.0
    }

    /// Reads and checks an artefact.
    ///
    /// # Errors
    /// Anything but the bytes that [`Model::to_bytes`] gives for some model.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArtefactError> {
        let mut input = Reader { bytes, at: 0 };
        if bytes.len() > MAX_BYTES {
            return Err(input.wrong("too large"));
        }
        if input.take(4).ok() != Some(&MAGIC[..]) {
            return Err(ArtefactError::Magic);
        }
        let version = input.u16()?;
        if version != VERSION && version != SQL_VERSION {
            return Err(ArtefactError::Version(version));
        }
        let task = input.task()?;
        let features = input.list(MAX_FEATURES, 6, Reader::feature)?;
        let mut names: Vec<String> = features.iter().map(Feature::name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(input.wrong("two features have one name"));
        }
        let derivation = if version == SQL_VERSION { input.derivation()? } else { Derivation::default() };
        let encoding = Encoding { features, derivation };
        let predictor = match input.u8()? {
            0 => Predictor::Trees(input.forest(&encoding, task.outputs())?),
            1 => Predictor::Linear(input.weights(&encoding, task.outputs())?),
            2 => {
                let length = input.u32()? as usize;
                let imported = Imported::of(input.take(length)?, &encoding, &task).map_err(ArtefactError::Imported)?;
                Predictor::Imported(Arc::new(imported))
            }
            _ => return Err(input.wrong("unknown kind of model")),
        };
        input.end()?;
        Ok(Self { task, encoding, predictor })
    }
}

/// Bytes of a tree in an artefact.
pub(crate) fn tree_bytes(tree: &Tree) -> usize {
    12 + 15 * tree.nodes.len() + 32 * tree.sets.len() + 4 * tree.leaves.len()
}

/// The bytes of a checkpoint that belongs to the run with this digest.
#[must_use]
pub fn write_checkpoint(forest: &Forest, run: [u8; 32]) -> Vec<u8> {
    let mut out = Writer(CHECKPOINT.to_vec());
    out.u16(VERSION);
    out.0.extend(run);
    out.forest(forest);
    let sum = digest(&out.0);
    out.0.extend(sum);
    out.0
}

/// The trees of a checkpoint of the run with this digest.
///
/// # Errors
/// Damage, another format, another run.
pub fn read_checkpoint(bytes: &[u8], run: [u8; 32]) -> Result<Forest, String> {
    let (body, sum) = bytes.split_last_chunk::<32>().ok_or("too short")?;
    if digest(body) != *sum {
        return Err("its checksum does not match".to_owned());
    }
    let mut input = Reader { bytes: body, at: 0 };
    let (magic, version) = (input.take(4), input.u16());
    if magic.ok() != Some(&CHECKPOINT[..]) || version != Ok(VERSION) {
        return Err("its format is another one".to_owned());
    }
    if input.take(32).ok() != Some(&run[..]) {
        return Err("it is of another run".to_owned());
    }
    // Whether the trees fit the features is for the learner to say.
    let forest = input.any_forest().map_err(|error| error.to_string())?;
    input.end().map_err(|error| error.to_string())?;
    Ok(forest)
}

/// What a checkpoint is bound to: the rows as bins and where these are cut, their labels, the parameters, the seed.
pub(crate) fn run_digest(training: &Training<'_>, parameters: &Parameters, binned: &Binned, cuts: &[Cut]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("hokusai training run 2\0{CODE}\0"));
    hash.update(format!("{parameters:?}\0{:?}\0{}\0{}\0", training.task, training.seed, binned.rows));
    for label in training.labels {
        hash.update(label.to_bits().to_le_bytes());
    }
    for key in training.row_keys {
        hash.update(key.to_le_bytes());
    }
    training.fold.absorb(&mut hash);
    for cut in cuts {
        match cut {
            Cut::Number(thresholds) => {
                hash.update((thresholds.len() as u64).to_le_bytes());
                thresholds.iter().for_each(|threshold| hash.update(threshold.to_bits().to_le_bytes()));
            }
            Cut::Category(codes) => hash.update((u64::MAX - u64::from(*codes)).to_le_bytes()),
        }
    }
    hash.update(&binned.bins);
    if let Some(forest) = training.warm {
        let mut out = Writer(Vec::new());
        out.forest(forest);
        hash.update(out.0);
    }
    hash.finalize().into()
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    fn f64(&mut self, value: f64) {
        self.0.extend(value.to_bits().to_le_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.u32(items.len() as u32);
        items.iter().for_each(|item| each(self, item));
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
    }

    fn feature(&mut self, feature: &Feature) {
        self.text(&feature.column);
        match &feature.kind {
            Kind::Number => self.u8(0),
            Kind::Category(levels) => {
                self.u8(1);
                self.list(levels, |out, level| out.text(level));
            }
            Kind::Time(part) => {
                self.u8(2);
                self.u8(*part as u8);
            }
        }
    }

    fn forest(&mut self, forest: &Forest) {
        self.list(&forest.base, |out, base| out.f32(*base));
        self.list(&forest.trees, Self::tree);
    }

    fn tree(&mut self, tree: &Tree) {
        self.list(&tree.nodes, |out, node| {
            out.u16(node.feature);
            out.u8(u8::from(node.missing_left) | u8::from(matches!(node.test, Test::In(_))) << 1);
            match node.test {
                Test::AtMost(threshold) => out.f32(threshold),
                Test::In(set) => out.u32(set),
            }
            out.u32(node.left as u32);
            out.u32(node.right as u32);
        });
        self.list(&tree.sets, |out, set| set.iter().for_each(|word| out.0.extend(word.to_le_bytes())));
        self.list(&tree.leaves, |out, leaf| out.f32(*leaf));
    }

    fn weights(&mut self, weights: &Weights) {
        self.list(&weights.design, |out, design| match design {
            Design::Number { mean, scale } => {
                out.u8(0);
                out.f64(*mean);
                out.f64(*scale);
            }
            Design::Category { codes } => {
                out.u8(1);
                out.u16(*codes);
            }
        });
        self.list(&weights.intercepts, |out, value| out.f64(*value));
        self.list(&weights.coefficients, |out, value| out.f64(*value));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Read<T> = Result<T, ArtefactError>;

impl<'a> Reader<'a> {
    fn wrong(&self, problem: &'static str) -> ArtefactError {
        ArtefactError::Form { at: self.at, problem }
    }

    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or_else(|| self.wrong("the file ends too early"))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.wrong("the file ends too early"))
    }

    fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn f32(&mut self) -> Read<f32> {
        Ok(f32::from_bits(self.u32()?))
    }

    fn finite(&mut self) -> Read<f64> {
        let value = f64::from_bits(u64::from_le_bytes(self.array()?));
        if value.is_finite() { Ok(value) } else { Err(self.wrong("a number is not finite")) }
    }

    /// A list of at most `most` items of at least `least` bytes each: memory is only taken for what the file can hold.
    fn list<T>(&mut self, most: usize, least: usize, mut each: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let count = self.u32()? as usize;
        if count > most || count * least > self.bytes.len() - self.at {
            return Err(self.wrong("a list is too long"));
        }
        (0..count).map(|_| each(self)).collect()
    }

    fn text(&mut self) -> Read<String> {
        let length = self.u32()? as usize;
        if length > MAX_TEXT {
            return Err(self.wrong("a text is too long"));
        }
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    fn end(&self) -> Read<()> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.wrong("bytes are left over")) }
    }

    fn sorted(&mut self, most: usize) -> Read<Vec<String>> {
        let texts = self.list(most, 4, Self::text)?;
        if texts.is_sorted_by(|a, b| a < b) { Ok(texts) } else { Err(self.wrong("texts are not in canonical order")) }
    }

    fn task(&mut self) -> Read<Task> {
        match self.u8()? {
            0 => Ok(Task::Number),
            1 => {
                let classes = self.list(MAX_CLASSES, 4, Self::text)?;
                let distinct: std::collections::HashSet<&String> = classes.iter().collect();
                if distinct.len() < 2 || distinct.len() < classes.len() {
                    return Err(self.wrong("a classifier has at least two classes, each once"));
                }
                Ok(Task::Classes(classes))
            }
            _ => Err(self.wrong("unknown task")),
        }
    }

    fn feature(&mut self) -> Read<Feature> {
        let column = self.text()?;
        let kind = match self.u8()? {
            0 => Kind::Number,
            1 => Kind::Category(self.sorted(MAX_LEVELS)?),
            2 => {
                let part = usize::from(self.u8()?);
                Kind::Time(*TimePart::ALL.get(part).ok_or_else(|| self.wrong("unknown part of a time"))?)
            }
            _ => return Err(self.wrong("unknown kind of feature")),
        };
        Ok(Feature { column, kind })
    }

    fn forest(&mut self, encoding: &Encoding, outputs: usize) -> Read<Forest> {
        let forest = self.any_forest()?;
        if forest.base.len() != outputs || forest.trees.len() % outputs != 0 {
            return Err(self.wrong("another number of outputs than the task has"));
        }
        let categories: Vec<bool> =
            encoding.features.iter().map(|feature| matches!(feature.kind, Kind::Category(_))).collect();
        for tree in &forest.trees {
            tree.check(&categories).map_err(|problem| self.wrong(problem))?;
        }
        Ok(forest)
    }

    fn any_forest(&mut self) -> Read<Forest> {
        let base = self.list(MAX_CLASSES, 4, Self::f32)?;
        if !base.iter().all(|base| base.is_finite()) {
            return Err(self.wrong("a base score is not finite"));
        }
        Ok(Forest { base, trees: self.list(MAX_TREES, 16, Self::tree)? })
    }

    fn tree(&mut self) -> Read<Tree> {
        Ok(Tree {
            nodes: self.list(MAX_LEAVES, 15, Self::node)?,
            sets: self.list(MAX_LEAVES, 32, |input| {
                let mut set = [0; 4];
                for word in &mut set {
                    *word = u64::from_le_bytes(input.array()?);
                }
                if set[3] >> 63 == 1 { Err(input.wrong("255 is no code")) } else { Ok(set) }
            })?,
            leaves: self.list(MAX_LEAVES, 4, Self::f32)?,
        })
    }

    fn node(&mut self) -> Read<Node> {
        let feature = self.u16()?;
        let flags = self.u8()?;
        let test = match flags >> 1 {
            0 => Test::AtMost(self.f32()?),
            1 => Test::In(self.u32()?),
            _ => return Err(self.wrong("unknown flags of a node")),
        };
        let (left, right) = (self.u32()? as i32, self.u32()? as i32);
        Ok(Node { feature, missing_left: flags & 1 == 1, test, left, right })
    }

    fn weights(&mut self, encoding: &Encoding, outputs: usize) -> Read<Weights> {
        let design = self.list(MAX_FEATURES, 3, |input| match input.u8()? {
            0 => {
                let (mean, scale) = (input.finite()?, input.finite()?);
                if scale > 0.0 {
                    Ok(Design::Number { mean, scale })
                } else {
                    Err(input.wrong("a scale is not positive"))
                }
            }
            1 => Ok(Design::Category { codes: input.u16()? }),
            _ => Err(input.wrong("unknown kind of column")),
        })?;
        let fits = |(feature, design): (&Feature, &Design)| match (&feature.kind, design) {
            (Kind::Category(levels), Design::Category { codes }) => levels.len() + 1 == usize::from(*codes),
            (Kind::Number | Kind::Time(_), Design::Number { .. }) => true,
            _ => false,
        };
        if design.len() != encoding.features.len() || !encoding.features.iter().zip(&design).all(fits) {
            return Err(self.wrong("columns and features differ"));
        }
        let weights = Weights {
            design,
            intercepts: self.list(MAX_CLASSES, 8, Self::finite)?,
            coefficients: self.list(MAX_COEFFICIENTS, 8, Self::finite)?,
        };
        if weights.intercepts.len() != outputs || weights.coefficients.len() != outputs * weights.width() {
            return Err(self.wrong("another number of coefficients than columns"));
        }
        Ok(weights)
    }
}

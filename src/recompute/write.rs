//! Writes the inputs of an evaluation: what its benchmark's owner discloses, file by file. The manifest comes last, so that a folder
//! that was left half written is none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use serde::Serialize;
use serde_json::{Map, Value};

use super::folder::{
    BASELINE, BENCHMARK, CANDIDATE, CONTRACT, ColumnType, FORMAT, FileFacts, MANIFEST, MAX_TRAINING, Manifest,
    PREREGISTRATION, RECEIPTS, RECIPE, RECORD, RecipeFile, RowLine, SAMPLES, SampleLine, TRAINING, digest, word,
};
use crate::attest::benchmark::{BenchmarkTree, label_salt};
use crate::attest::samples::SampleSalts;
use crate::attest::tree::Hash;
use crate::codec::ipc::{self, Compression};
use crate::domain::keys::MacKey;
use crate::sealing::rows::RowWriter;
use crate::stages::beside::Refusal;
use crate::stages::evaluation::kept::Kept;
use crate::stages::evaluation::plan::Case;
use crate::stages::evaluation::samples::Sampled;
use crate::stages::evaluation::score::{Blobs, Opened};

/// Why inputs were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something cannot be put into words.
    #[error("{0}")]
    Form(String),
}

impl From<Refusal> for WriteError {
    fn from(refusal: Refusal) -> Self {
        Self::Form(format!("{}: {}", refusal.code, refusal.detail))
    }
}

fn form(error: impl std::fmt::Display) -> WriteError {
    WriteError::Form(error.to_string())
}

/// What is disclosed of an evaluation.
#[derive(Debug)]
pub struct Disclosed<'a> {
    /// The preregistration's signed bytes.
    pub preregistration: &'a [u8],
    /// The full record, of a refused attempt.
    pub kept: Option<&'a Kept>,
    /// The facts that the scoring rested on.
    pub case: &'a Case,
    /// Acceptances of the benchmark before it.
    pub acceptances: u64,
    /// Both artefacts.
    pub blobs: &'a Blobs,
    /// Rows, labels, scores.
    pub opened: &'a Opened,
    /// The tenant's tree key: salts.
    pub tree_key: &'a MacKey,
    /// How the candidate was learned.
    pub training: Option<Learned>,
}

/// How a candidate was learned, and from what.
#[derive(Debug)]
pub struct Learned {
    /// The recipe.
    pub recipe: RecipeFile,
    /// The training rows.
    pub rows: RecordBatch,
    /// Leaf hashes of the receipts behind them, sorted; none when they are not known.
    pub receipts: Vec<Hash>,
}

struct Writing<'a> {
    folder: &'a Path,
    tell: &'a dyn Fn(&str),
    files: RefCell<BTreeMap<String, FileFacts>>,
}

/// Writes the inputs up to a level; `tell` is called with each file's name. Returns how many there are.
///
/// # Errors
/// [`WriteError`].
pub fn write(folder: &Path, level: u8, said: &Disclosed<'_>, tell: &dyn Fn(&str)) -> Result<usize, WriteError> {
    std::fs::create_dir_all(folder)?;
    let to = Writing { folder, tell, files: RefCell::default() };
    to.bytes(PREREGISTRATION, said.preregistration)?;
    to.bytes(CONTRACT, said.case.spec.as_bytes())?;
    if let Some(kept) = said.kept {
        to.json(RECORD, kept)?;
    }
    samples(said, &to)?;
    if level >= 2 {
        rows(said, &to)?;
        to.bytes(BASELINE, &said.blobs.baseline)?;
        to.bytes(CANDIDATE, &said.blobs.candidate)?;
    }
    if let Some(Learned { recipe, rows, receipts }) = said.training.as_ref().filter(|_| level >= 3) {
        to.json(RECIPE, recipe)?;
        if !receipts.is_empty() {
            let hex = |leaf: &Hash| data_encoding::HEXLOWER.encode(leaf);
            to.file(RECEIPTS, |out| receipts.iter().try_for_each(|leaf| line(out, &hex(leaf))))?;
        }
        let bytes = ipc::write(rows, Compression::Zstd).map_err(form)?;
        if bytes.len() as u64 > MAX_TRAINING {
            let help = "help: --level 2";
            return Err(form(format!(
                "{} bytes of training rows; at most {MAX_TRAINING} are read\n{help}",
                bytes.len()
            )));
        }
        to.bytes(TRAINING, &bytes)?;
    }
    let files = to.files.borrow().clone();
    let count = files.len() + 1;
    to.json(MANIFEST, &manifest(said, level, files)?)?;
    Ok(count)
}

impl Writing<'_> {
    fn file(&self, name: &str, fill: impl FnOnce(&mut dyn Write) -> Result<(), WriteError>) -> Result<(), WriteError> {
        (self.tell)(name);
        let path = self.folder.join(name);
        let mut file = BufWriter::new(File::create(&path)?);
        fill(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let (sha256, size) = digest(&path, u64::MAX).map_err(|e| form(e.detail))?;
        self.files.borrow_mut().insert(name.to_owned(), FileFacts { sha256, size });
        Ok(())
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        self.file(name, |out| Ok(out.write_all(bytes)?))
    }

    fn json(&self, name: &str, value: &impl Serialize) -> Result<(), WriteError> {
        self.bytes(name, &serde_json::to_vec_pretty(value).map_err(form)?)
    }
}

fn line(out: &mut dyn Write, value: &impl Serialize) -> Result<(), WriteError> {
    out.write_all(&serde_json_canonicalizer::to_vec(value).map_err(form)?)?;
    Ok(out.write_all(b"\n")?)
}

fn manifest(said: &Disclosed<'_>, level: u8, files: BTreeMap<String, FileFacts>) -> Result<Manifest, WriteError> {
    let root = data_encoding::HEXLOWER.decode(said.case.benchmark.rows_root.as_bytes()).map_err(form)?;
    let root = root.try_into().map_err(|_| form("the benchmark's root is no hash"))?;
    let schema = said.opened.rows.first().map(RecordBatch::schema);
    let fields = schema.iter().flat_map(|schema| schema.fields().iter());
    let column = |field: &arrow::datatypes::FieldRef| {
        let kind = word(field.data_type()).ok_or_else(|| form("a column of a type that no sealed row has"))?;
        Ok(ColumnType { name: field.name().clone(), kind: kind.to_owned() })
    };
    Ok(Manifest {
        acceptances: said.acceptances,
        columns: fields.map(column).collect::<Result<_, WriteError>>()?,
        evaluation_id: said.case.evaluation_id.clone(),
        files,
        format: FORMAT.to_owned(),
        label_salt: data_encoding::HEXLOWER.encode(&label_salt(said.tree_key, &root)),
        level,
    })
}

fn samples(said: &Disclosed<'_>, to: &Writing<'_>) -> Result<(), WriteError> {
    let opened = said.opened;
    let sampled = Sampled::new(&opened.spec, &opened.plan, &opened.rows, &opened.leaves, &opened.columns)?;
    let salts = SampleSalts::new(said.tree_key, &said.case.evaluation_id);
    to.file(SAMPLES, |out| {
        sampled.each(|sample| {
            let salt = data_encoding::HEXLOWER.encode(&salts.salt(sample.i));
            line(out, &SampleLine { salt, sample })
        })
    })
}

fn rows(said: &Disclosed<'_>, to: &Writing<'_>) -> Result<(), WriteError> {
    let tree = BenchmarkTree::new(said.tree_key);
    to.file(BENCHMARK, |out| {
        let mut place = 0;
        for batch in &said.opened.rows {
            let mut writer = RowWriter::new(batch.schema_ref()).map_err(form)?;
            for row in 0..batch.num_rows() {
                let json = writer.write(batch, row).map_err(form)?;
                let row: Map<String, Value> = serde_json::from_slice(json).map_err(form)?;
                line(out, &RowLine { row, salt: data_encoding::HEXLOWER.encode(&tree.salt(place)) })?;
                place += 1;
            }
        }
        Ok(())
    })
}

//! The inputs of an evaluation as plain files of one folder.
//!
//! | level | file | what | bound by |
//! |---|---|---|---|
//! | | `inputs.json` | [`Manifest`]: which files, their digests, what the statement does not say | nothing: it is believed in nothing that counts |
//! | 1 | `preregistration.json` | the preregistration's signed bytes | the outcome's `preRegistration` |
//! | 1 | `contract.json` | the contract, canonical JSON | the preregistration's `contractDigest` |
//! | 1 | `record.json` | of a refused attempt: evaluation id, full record, salt | the outcome's `withheld` |
//! | 1 | `samples.jsonl` | by sealed row: `{"salt":…,"sample":…}` ([`Sample`]) | the record's `samples`, the label commitment and the rows root |
//! | 2 | `benchmark.jsonl` | by sealed row: `{"row":…,"salt":…}` | the leaf hashes in the samples |
//! | 2 | `baseline.model`, `candidate.model` | the artefacts | their digests |
//! | 3 | `training.arrow` | row hash, features and label of every training row, an Arrow IPC stream | the candidate's dataset root |
//! | 3 | `recipe.json` | [`RecipeFile`]: learner, parameters, seed | the candidate's recipe digest; of a search the winner's parameters by playing it |
//! | 3 | `receipts.jsonl` | leaf hashes of the receipts behind the rows, hex, sorted | the candidate's receipts |
//!
//! Every file comes from somebody: sizes are looked at before anything is read, lines and rows are counted, and what is not one of
//! these names is not opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Mismatch, artefact};
use crate::attest::samples::Sample;
use crate::ml::artefact::MAX_BYTES as MAX_MODEL;

/// What a manifest says it is.
pub const FORMAT: &str = "hokusai-evaluation-inputs/v1";
/// The manifest.
pub const MANIFEST: &str = "inputs.json";
/// The preregistration's signed bytes.
pub const PREREGISTRATION: &str = "preregistration.json";
/// The contract.
pub const CONTRACT: &str = "contract.json";
/// The full record of a refused attempt.
pub const RECORD: &str = "record.json";
/// Labels and scores.
pub const SAMPLES: &str = "samples.jsonl";
/// The sealed rows.
pub const BENCHMARK: &str = "benchmark.jsonl";
/// The baseline's artefact.
pub const BASELINE: &str = "baseline.model";
/// The candidate's artefact.
pub const CANDIDATE: &str = "candidate.model";
/// The training rows.
pub const TRAINING: &str = "training.arrow";
/// The recipe.
pub const RECIPE: &str = "recipe.json";
/// Leaf hashes of the receipts behind the training rows.
pub const RECEIPTS: &str = "receipts.jsonl";

/// Largest small file in bytes.
const MAX_SMALL: u64 = 4 << 20;
/// Largest file of training rows in bytes: it is read whole.
pub const MAX_TRAINING: u64 = 2 << 30;
/// Largest file of samples or sealed rows in bytes: it is read line by line.
const MAX_LINES: u64 = 64 << 30;
/// Longest line in bytes.
const MAX_LINE: u64 = 4 << 20;
/// Most columns.
const MAX_COLUMNS: usize = 4_096;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Manifest {
    /// Acceptances of the benchmark before the attempt.
    pub acceptances: u64,
    /// Columns of the sealed rows with their types.
    pub columns: Vec<ColumnType>,
    /// The evaluation.
    pub evaluation_id: String,
    /// By name: digest and size.
    pub files: BTreeMap<String, FileFacts>,
    /// [`FORMAT`].
    pub format: String,
    /// Salt of the label commitment, hex.
    pub label_salt: String,
    /// How far the files reach.
    pub level: u8,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// SHA-256, hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// A column of the sealed rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnType {
    /// Its name.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date` or `timestamp`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A line of [`SAMPLES`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleLine {
    /// 16 bytes, hex.
    pub salt: String,
    /// The sample.
    pub sample: Sample,
}

/// A line of [`BENCHMARK`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowLine {
    /// The row, as it stands in its leaf.
    pub row: Map<String, Value>,
    /// 16 bytes, hex.
    pub salt: String,
}

/// How the candidate was learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RecipeFile {
    /// The learner's name.
    pub algorithm: String,
    /// Version that the model was to be compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<String>,
    /// Its complete parameters; of a search, those that won.
    pub parameters: Map<String, Value>,
    /// The search, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchFile>,
    /// Seed of every random choice.
    pub seed: i64,
}

/// A search over parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SearchFile {
    /// What was asked for.
    pub declared: Value,
    /// The request's own complete parameters.
    pub fixed: Map<String, Value>,
}

/// Word for an Arrow type; none for one that no sealed row has.
#[must_use]
pub fn word(kind: &DataType) -> Option<&'static str> {
    Some(match kind {
        DataType::Utf8 => "string",
        DataType::Int64 => "integer",
        DataType::Float64 => "number",
        DataType::Boolean => "boolean",
        DataType::Date32 => "date",
        DataType::Timestamp(TimeUnit::Microsecond, _) => "timestamp",
        _ => return None,
    })
}

/// An opened folder whose files are as its manifest says.
#[derive(Debug)]
pub struct Inputs {
    folder: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
}

/// Most bytes of a file by its name; none for a name that is none of ours.
fn most(name: &str) -> Option<u64> {
    Some(match name {
        PREREGISTRATION | CONTRACT | RECIPE => MAX_SMALL,
        RECORD => crate::stages::evaluation::kept::MAX_BYTES,
        BASELINE | CANDIDATE => MAX_MODEL as u64,
        TRAINING => MAX_TRAINING,
        SAMPLES | BENCHMARK | RECEIPTS => MAX_LINES,
        _ => return None,
    })
}

impl Inputs {
    /// Opens a folder; none when it has no manifest.
    ///
    /// # Errors
    /// A manifest that is none, or a file that is not as it says.
    pub fn open(folder: &Path) -> Result<Option<Self>, Mismatch> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        let text = read(&path, MAX_SMALL)?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|e| artefact(format!("{MANIFEST}: line {}: {e}", e.line())))?;
        let inputs = Self { folder: folder.to_owned(), manifest };
        inputs.check()?;
        Ok(Some(inputs))
    }

    fn check(&self) -> Result<(), Mismatch> {
        let Manifest { format, columns, files, .. } = &self.manifest;
        if format != FORMAT {
            return Err(artefact(format!("{MANIFEST}: it is no {FORMAT}; help: a newer version may read it")));
        }
        if columns.len() > MAX_COLUMNS {
            return Err(artefact(format!("{MANIFEST}: more than {MAX_COLUMNS} columns")));
        }
        for (name, facts) in files {
            let Some(most) = most(name) else {
                return Err(artefact(format!("{MANIFEST}: a file that is none of the inputs")));
            };
            let (digest, size) = digest(&self.folder.join(name), most)?;
            if size != facts.size || digest != facts.sha256 {
                let said = &facts.sha256;
                return Err(artefact(format!("{name}: {size} bytes, SHA-256 {digest}; {MANIFEST} says {said}")));
            }
        }
        Ok(())
    }

    /// Whether the folder holds a file.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.manifest.files.contains_key(name)
    }

    /// A file, whole.
    ///
    /// # Errors
    /// It is not there, or larger than such a file may be.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Mismatch> {
        if !self.has(name) {
            return Err(artefact(format!(
                "{name} is not among the inputs; help: write them again at a higher --level"
            )));
        }
        read(&self.folder.join(name), most(name).unwrap_or(0))
    }

    /// Shows each line of a file as what it has to be; there have to be exactly `rows`.
    ///
    /// # Errors
    /// Another number of lines, a line that is not its own canonical form, or what `each` returns.
    pub fn lines<T: Serialize + serde::de::DeserializeOwned>(
        &self,
        name: &str,
        rows: u64,
        each: &mut dyn FnMut(u64, T) -> Result<(), Mismatch>,
    ) -> Result<(), Mismatch> {
        let mut reader = BufReader::with_capacity(1 << 16, file(&self.folder.join(name))?);
        let mut line = Vec::new();
        for number in 0..=rows {
            line.clear();
            let wrong = |what: &dyn std::fmt::Display| artefact(format!("{name}:{}: {what}", number + 1));
            let read = reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(|e| wrong(&e))?;
            match (read, number == rows) {
                (0, true) => return Ok(()),
                (0, false) => return Err(artefact(format!("{name}: {number} rows; {rows} are bound"))),
                (_, true) => return Err(artefact(format!("{name}: more than the {rows} rows that are bound"))),
                (long, _) if long as u64 > MAX_LINE => return Err(wrong(&"a line of more than 4 MiB")),
                _ => {}
            }
            let text = line.strip_suffix(b"\n").ok_or_else(|| wrong(&"the line does not end"))?;
            let value: T = serde_json::from_slice(text).map_err(|_| wrong(&"not of the form of such a row"))?;
            if serde_json_canonicalizer::to_vec(&value).ok().as_deref() != Some(text) {
                return Err(wrong(&"not in canonical form (RFC 8785)"));
            }
            each(number, value)?;
        }
        Ok(())
    }

    /// Columns of the sealed rows as Arrow has them; of `only` alone when it is given.
    ///
    /// # Errors
    /// A type that no sealed row has, a name twice, or none of that name.
    pub fn schema(&self, only: Option<&str>) -> Result<SchemaRef, Mismatch> {
        let wrong = |what: &str| artefact(format!("{MANIFEST}: {what}"));
        let mut fields: Vec<Field> = Vec::new();
        for column in self.manifest.columns.iter().filter(|column| only.is_none_or(|only| column.name == only)) {
            let kind = match column.kind.as_str() {
                "string" => DataType::Utf8,
                "integer" => DataType::Int64,
                "number" => DataType::Float64,
                "boolean" => DataType::Boolean,
                "date" => DataType::Date32,
                "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                _ => return Err(wrong("a column of a type that no sealed row has")),
            };
            fields.push(Field::new(&column.name, kind, true));
        }
        let mut names: Vec<&String> = fields.iter().map(Field::name).collect();
        names.sort_unstable();
        if fields.is_empty() || names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(wrong("a column is missing or stands twice"));
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// A hex salt of so many bytes.
///
/// # Errors
/// It is none.
pub fn salt<const N: usize>(hex: &str) -> Result<[u8; N], Mismatch> {
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| artefact(format!("a salt that is not {N} bytes in lower-case hex")))
}

/// A plain file: others, such as pipes, would make the check wait.
fn file(path: &Path) -> Result<File, Mismatch> {
    let wrong = |e: &dyn std::fmt::Display| artefact(format!("{}: {e}", path.display()));
    if !std::fs::metadata(path).map_err(|e| wrong(&e))?.is_file() {
        return Err(wrong(&"not a file"));
    }
    File::open(path).map_err(|e| wrong(&e))
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, Mismatch> {
    let mut bytes = Vec::new();
    let wrong = |e: io::Error| artefact(format!("{}: {e}", path.display()));
    file(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > most {
        return Err(artefact(format!("{}: more than {most} bytes", path.display())));
    }
    Ok(bytes)
}

/// SHA-256 and size of a file of at most so many bytes, read piece by piece.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn digest(path: &Path, most: u64) -> Result<(String, u64), Mismatch> {
    let wrong = |e: io::Error| artefact(format!("{}: {e}", path.display()));
    let mut reader = file(path)?.take(most.saturating_add(1));
    let (mut hasher, mut size, mut piece) = (Sha256::new(), 0_u64, vec![0; 1 << 16]);
    loop {
        let count = reader.read(&mut piece).map_err(wrong)?;
        let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else { break };
        hasher.update(read);
        size += read.len() as u64;
    }
    if size > most {
        return Err(artefact(format!("{}: more than {most} bytes", path.display())));
    }
    Ok((data_encoding::HEXLOWER.encode(&hasher.finalize()), size))
}

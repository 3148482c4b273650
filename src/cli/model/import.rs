//! `model register --artefact FILE.onnx`: a model of another program becomes one that is scored, evaluated and verified here.

use std::path::{Path, PathBuf};

use clap::Args;

use super::artefact::{Loaded, at_most};
use super::{Failure, Outcome};
use crate::codec::formats::Format;
use crate::domain::contract::Spec;
use crate::ml::Task;
use crate::ml::declare::declaration;
use crate::ml::encoding::Encoding;
use crate::ml::onnx::conformance::{Conformance, MAX_FILE};
use crate::ml::onnx::import::import;
use crate::ml::onnx::read;
use crate::store::Digest;

/// Largest file of an encoding in bytes.
const MAX_ENCODING: u64 = 64 << 20;

/// What is given beside an ONNX file.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ImportArgs {
    /// Of an ONNX artefact: JSON that says how its input's columns are made, as `model export --encoding` writes it
    #[arg(long, value_name = "FILE", requires_all = ["artefact", "conformance"], conflicts_with = "columns")]
    encoding: Option<PathBuf>,
    /// Of an ONNX artefact: its input's columns in order, if all are plain numbers
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',', requires_all = ["artefact", "conformance"])]
    columns: Vec<String>,
    /// Of an ONNX artefact: CSV or Parquet with at least 32 rows of its input and, as `prediction` or `p_CLASS`, what its own runtime made of them
    #[arg(long, value_name = "FILE", requires = "artefact")]
    conformance: Option<PathBuf>,
}

/// Whether a file is to be taken for ONNX: by its name, or because it can be read as such.
fn is_onnx(file: &Path, bytes: Option<&[u8]>) -> bool {
    let named = file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"));
    named || bytes.is_some_and(|bytes| read::model(bytes).is_ok_and(|model| !model.graph.nodes.is_empty()))
}

/// The ONNX model in a file, imported; none when it is of another form.
///
/// # Errors
/// ONNX without what it takes to import it, or that is refused.
pub(super) fn imported(file: &Path, given: &ImportArgs, contract: Option<&Spec>) -> Outcome<Option<Loaded>> {
    let shown = file.display();
    let bytes = at_most(file, read::MAX_BYTES as u64)?;
    let Some(conformance) = &given.conformance else {
        if !is_onnx(file, bytes.as_deref()) {
            return Ok(None);
        }
        return Err(Failure::Refused(format!(
            "{shown}: an ONNX model is registered once it has shown that it gives here what its own runtime gives\nhelp: name its \
             input's columns with --columns A,B or --encoding FILE, and at least 32 rows of them with the predictions with --conformance FILE"
        )));
    };
    let Some(bytes) = bytes else {
        return Err(Failure::Refused(format!("{shown}: larger than an ONNX model may be ({} bytes)", read::MAX_BYTES)));
    };
    let encoding = encoding(given)?;
    let task = task(contract)?;
    let rows = conformance.display();
    let known = at_most(conformance, MAX_FILE as u64)?
        .ok_or_else(|| Failure::Refused(format!("{rows}: larger than conformance rows may be ({MAX_FILE} bytes)")))?;
    let format = if known.starts_with(b"PAR1") { Format::Parquet } else { Format::Csv };
    let refused = |error| Failure::Refused(format!("{shown}: {error}"));
    let conformance = Conformance::read(format, &known, &encoding, &task)
        .map_err(|error| Failure::Refused(format!("{rows}: {error}")))?;
    let model = import(&bytes, encoding, task, &conformance).map_err(refused)?;
    let bytes = model.to_bytes();
    Ok(Some(Loaded { model, digest: Digest::of(&bytes), bytes, name: shown.to_string(), contract: None }))
}

fn encoding(given: &ImportArgs) -> Outcome<Encoding> {
    let Some(file) = &given.encoding else {
        if given.columns.is_empty() {
            return Err(Failure::Usage("--conformance needs --encoding FILE, or --columns A,B".to_owned()));
        }
        return Encoding::numbers(given.columns.clone()).map_err(|e| Failure::Refused(format!("--columns: {e}")));
    };
    let shown = file.display();
    let json = at_most(file, MAX_ENCODING)?.ok_or_else(|| Failure::Refused(format!("{shown}: too large")))?;
    Encoding::from_json(&json).map_err(|problem| {
        let help = "help: `hokusai model export MODEL@VERSION --encoding FILE` writes one of that form";
        Failure::Refused(format!("{shown}: {problem}\n{help}"))
    })
}

fn task(contract: Option<&Spec>) -> Outcome<Task> {
    let contract = contract.ok_or_else(|| {
        Failure::Refused(
            "the model has no such contract\nhelp: `hokusai model show` lists a model's contracts".to_owned(),
        )
    })?;
    Ok(declaration(contract).map_err(Failure::failed)?.task)
}

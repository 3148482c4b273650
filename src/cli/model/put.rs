//! What an artefact's file is checked for before its bytes are in the store.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::artefact::{Loaded, of_file};
use super::blocking;
use super::import::{ImportArgs, imported};
use crate::cli::common::Settings;
use crate::cli::exit::{Failure, Outcome};
use crate::domain::contract::Spec;
use crate::ml::artefact::is_native;
use crate::store::StoreError;

/// Largest artefact that is not native.
const MAX_FOREIGN: u64 = 4 << 30;

/// What was put into the store.
#[derive(Debug)]
pub(super) struct Put {
    pub digest: String,
    pub size: i64,
    /// Columns that a native artefact reads, in its order; none of another.
    pub columns: Option<Vec<String>>,
}

/// Checks an artefact's file and puts its bytes into the store: a native one is read in full before, and has to read columns of the
/// contract alone; ONNX is imported and then is a native one; of another only the size is known.
///
/// # Errors
/// The file or the store cannot be used, or (exit 4) the artefact is refused.
pub(super) async fn put(settings: &Settings, file: &Path, contract: Option<&Spec>, given: ImportArgs) -> Outcome<Put> {
    let shown = file.display();
    let found = blocking({
        let (file, contract) = (file.to_owned(), contract.cloned());
        move || checked(&file, &given, contract.as_ref())
    })
    .await?;
    let size = std::fs::metadata(file).map_err(|e| Failure::because(format!("{shown}: {e}")))?.len();
    let blobs = settings.open_store().await?.blobs();
    let failed = |error: StoreError| Failure::because(format!("{shown}: {error}"));
    let Some(native) = found else {
        if size > MAX_FOREIGN {
            return Err(Failure::Refused(format!("{shown}: {size} bytes; an artefact has at most {MAX_FOREIGN}")));
        }
        let (digest, size) = blobs.put_file(file).await.map_err(failed)?;
        return Ok(Put { digest: digest.to_string(), size: i64::try_from(size).unwrap_or(i64::MAX), columns: None });
    };
    let mut columns: Vec<String> = Vec::new();
    for feature in &native.model.encoding.features {
        if !columns.contains(&feature.column) {
            columns.push(feature.column.clone());
        }
    }
    let reads = native.model.encoding.derivation.reads(false).into_iter().map(|read| &read.name);
    let known = |spec: &Spec, name: &str| spec.property(name).is_some() || spec.sql_column(name).is_some();
    let stranger = |spec| columns.iter().chain(reads).find(|name| !known(spec, name));
    if let Some(stranger) = contract.and_then(stranger) {
        return Err(Failure::Refused(format!(
            "{shown}: it reads the column {stranger}, which the contract does not have\nhelp: name the contract that it was trained \
             under with --contract"
        )));
    }
    let size = i64::try_from(native.bytes.len()).unwrap_or(i64::MAX);
    let digest = blobs.put(native.bytes.into()).await.map_err(failed)?;
    Ok(Put { digest: digest.to_string(), size, columns: Some(columns) })
}

/// The native artefact in a file, or the one that an ONNX file becomes; none when it is of another form.
fn checked(file: &Path, given: &ImportArgs, contract: Option<&Spec>) -> Outcome<Option<Loaded>> {
    let at = |e: std::io::Error| Failure::because(format!("{}: {e}", file.display()));
    if !std::fs::metadata(file).map_err(at)?.is_file() {
        return Err(Failure::Refused(format!("{}: not a file", file.display())));
    }
    let mut start = Vec::new();
    File::open(file).map_err(at)?.take(8).read_to_end(&mut start).map_err(at)?;
    if start.is_empty() {
        return Err(Failure::Refused(format!("{}: the file is empty", file.display())));
    }
    if is_native(&start) { of_file(file).map(Some) } else { imported(file, given, contract) }
}

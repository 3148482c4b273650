//! Artefacts: where a version's bytes are found, and what is checked before anything believes them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{blocking, one, version};
use crate::cli::common::Settings;
use crate::cli::exit::{Failure, Outcome};
use crate::domain::contract::Spec;
use crate::domain::records::Artefact;
use crate::ml::artefact::{MAX_BYTES, is_native};
use crate::ml::model::Model;
use crate::rowsql::features;
use crate::store::{Digest, StoreError};

/// Media type of a native artefact.
pub const NATIVE: &str = "application/vnd.hokusai.model";

/// A model and where it comes from.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// Its canonical bytes.
    pub bytes: Vec<u8>,
    /// SHA-256 of them.
    pub digest: Digest,
    /// What it was asked for as: a file, or MODEL@VERSION with the version's number.
    pub name: String,
    /// The contract whose columns it reads; none for a file.
    pub contract: Option<Spec>,
}

/// The model that a command means: a registered version or a file.
#[derive(Debug, Args)]
pub struct Which {
    /// Registered version: its number, an alias, `staging` or `production` behind the model's name
    #[arg(
        id = "which",
        value_name = "MODEL@VERSION",
        required_unless_present = "artefact",
        conflicts_with = "artefact"
    )]
    pub version: Option<String>,
    /// A native artefact's file instead: needs no broker
    #[arg(long, value_name = "FILE")]
    pub artefact: Option<PathBuf>,
}

impl Which {
    /// Finds, checks and reads it.
    ///
    /// # Errors
    /// No such version, no bytes in the store, or (exit 4) bytes that are no native artefact.
    pub async fn load(&self, settings: &Settings) -> Outcome<Loaded> {
        match (&self.version, &self.artefact) {
            (Some(version), None) => registered(settings, version).await,
            (None, Some(file)) => {
                let file = file.clone();
                blocking(move || of_file(&file)).await
            }
            _ => Err(Failure::Usage("MODEL@VERSION, or --artefact FILE, and not both".to_owned())),
        }
    }
}

async fn registered(settings: &Settings, asked: &str) -> Outcome<Loaded> {
    let Some((name, wanted)) = asked.split_once('@').filter(|(name, wanted)| !name.is_empty() && !wanted.is_empty())
    else {
        return Err(Failure::Usage(format!(
            "{asked}: MODEL@VERSION is wanted\nhelp: as in flight-delay@1.2.0 or flight-delay@production"
        )));
    };
    let model = blocking({
        let (settings, name) = (settings.clone(), name.to_owned());
        move || one(&settings, &name)
    })
    .await?;
    let found = version(&model, wanted)?;
    let name = format!("{}@{}", model.model, found.version);
    let contract = model.contracts.iter().find(|c| c.digest == found.contract_digest);
    let contract = contract.map(|c| Spec::from_canonical_json(&c.spec)).transpose().map_err(Failure::failed)?;
    let Artefact { digest, size, media_type } = &found.artefact;
    if u64::try_from(*size).is_ok_and(|size| size > MAX_BYTES as u64) {
        return Err(foreign(&name, &format!("has {size} bytes, a native artefact at most {MAX_BYTES}"), media_type));
    }
    let digest: Digest = digest.parse().map_err(|e| Failure::because(format!("{name}: its digest: {e}")))?;
    let store = settings.open_store().await?;
    let bytes = store.blobs().get(digest, MAX_BYTES as u64).await.map_err(|error| match error {
        StoreError::Missing { .. } => Failure::because(format!(
            "{name}: {error}\nhelp: `hokusai model register --artefact` puts the bytes into the store that --store names: is it \
             that one? A version registered by --digest alone has none"
        )),
        error => Failure::because(format!("{name}: {error}")),
    })?;
    if !is_native(&bytes) {
        return Err(foreign(&name, "is no native artefact", media_type));
    }
    read(bytes.to_vec(), name, contract)
}

fn foreign(name: &str, what: &str, media_type: &str) -> Failure {
    Failure::Refused(format!(
        "{name} {what} (its media type is {media_type})\nhelp: a model of another form is run by its own runtime; ONNX can be imported with `hokusai model register --conformance`"
    ))
}

pub(super) fn of_file(file: &Path) -> Outcome<Loaded> {
    let name = file.display().to_string();
    let bytes = at_most(file, MAX_BYTES as u64)?
        .ok_or_else(|| Failure::Refused(format!("{name}: larger than an artefact may be ({MAX_BYTES} bytes)")))?;
    read(bytes, name, None)
}

/// A file's bytes; none when there are more than `most`.
pub(super) fn at_most(file: &Path, most: u64) -> Outcome<Option<Vec<u8>>> {
    let at = |e: std::io::Error| Failure::because(format!("{}: {e}", file.display()));
    let mut bytes = Vec::new();
    File::open(file).map_err(at)?.take(most + 1).read_to_end(&mut bytes).map_err(at)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

fn read(bytes: Vec<u8>, name: String, contract: Option<Spec>) -> Outcome<Loaded> {
    let model = Model::from_bytes(&bytes).map_err(|error| Failure::Refused(format!("{name}: {error}")))?;
    // Whoever made the file may have written any SQL into it.
    features::check(&model.encoding.derivation).map_err(|(_, fault)| Failure::Refused(format!("{name}: {fault}")))?;
    Ok(Loaded { model, digest: Digest::of(&bytes), bytes, name, contract })
}

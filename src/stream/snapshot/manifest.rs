//! What a snapshot is made of: one line of JSON, and its SHA-256 in hex on a second line.

use serde::{Deserialize, Serialize};

use super::SnapshotError;
use crate::store::Digest;
use crate::stream::runs::Identity;

/// Format version of the manifest; it stands in its name.
pub const FORMAT: u64 = 1;
/// Bytes of a manifest.
pub const MOST_BYTES: u64 = 1 << 20;
/// Files of a snapshot.
const MOST_FILES: usize = 4096;

/// A file of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name in the task's folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, hex.
    pub digest: String,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version of this.
    pub format: u64,
    /// Stage, without prefix.
    pub stage: String,
    /// Kafka's id of the changelog.
    pub topic_id: String,
    /// Partition of the changelog.
    pub partition: i32,
    /// Offset of the first record of the changelog that is not in the state.
    pub next_offset: i64,
    /// Form of the files.
    pub form: String,
    /// Version of the form.
    pub form_version: u16,
    /// The files; the one that names the others is the last.
    pub files: Vec<File>,
}

/// Folder of a task's snapshots in the store; `stage` with prefix.
pub fn folder(stage: &str, partition: i32) -> String {
    format!("snapshots/{stage}/{partition}")
}

/// A manifest's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Path in the store.
    pub path: String,
    /// Kafka's id of the changelog.
    pub topic_id: String,
    /// As of when.
    pub next_offset: i64,
    /// Format version.
    pub format: u64,
}

impl Name {
    /// Reads a path below [`folder`]; none for what is no manifest.
    pub fn parse(folder: &str, path: &str) -> Option<Self> {
        let (topic_id, file) = path.strip_prefix(folder)?.strip_prefix('/')?.split_once('/')?;
        let (offset, format) = file.strip_suffix(".json")?.split_once("-v")?;
        let next_offset = offset.parse().ok()?;
        Some(Self { path: path.to_owned(), topic_id: topic_id.to_owned(), next_offset, format: format.parse().ok()? })
    }
}

impl Manifest {
    /// Where it lies in the store.
    pub fn path(&self, folder: &str) -> String {
        format!("{folder}/{}/{:020}-v{}.json", self.topic_id, self.next_offset, self.format)
    }

    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(format!("\n{digest}\n").as_bytes());
        Ok(bytes)
    }

    /// Reads a manifest and checks that it is what its name says, of this state, and harmless.
    pub fn decode(bytes: &[u8], name: &Name) -> Result<Self, SnapshotError> {
        let damaged = |detail: &str| SnapshotError::Damaged(detail.to_owned());
        if name.format > FORMAT {
            return Err(SnapshotError::Newer { what: "snapshot format", found: name.format, known: FORMAT });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("no text"))?;
        let (line, digest) = text.split_once('\n').ok_or_else(|| damaged("no second line"))?;
        if digest.strip_suffix('\n') != Some(&Digest::of(line.as_bytes()).to_string()) {
            return Err(damaged("its SHA-256"));
        }
        let manifest: Self = serde_json::from_str(line).map_err(|e| damaged(&e.to_string()))?;
        let said = (manifest.format, &manifest.topic_id, manifest.next_offset);
        if said != (name.format, &name.topic_id, name.next_offset) {
            return Err(damaged("it is not the one of its name"));
        }
        let plain = |name: &str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !name.is_empty() && !name.starts_with('.') && name.len() <= 100 && name.chars().all(legal) && name != "LOCK"
        };
        let mut names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != manifest.files.len() || names.is_empty() || names.len() > MOST_FILES {
            return Err(damaged("its number of files"));
        }
        match names.iter().all(|name| plain(name)) && manifest.files.iter().all(|file| file.digest().is_some()) {
            true => Ok(manifest),
            false => Err(damaged("the name of a file")),
        }
    }

    /// Checks that it is of this state.
    pub fn check(&self, identity: &Identity, form: (&'static str, u16)) -> Result<(), SnapshotError> {
        let Identity { stage, topic_id, partition } = identity;
        if (&self.stage, &self.topic_id, &self.partition) != (stage, topic_id, partition) {
            let whose = format!("{} {} of topic {}", self.stage, self.partition, self.topic_id);
            return Err(SnapshotError::Foreign(whose));
        }
        if self.form != form.0 {
            return Err(SnapshotError::Foreign(format!("its files are {}, this stage has {}", self.form, form.0)));
        }
        if self.form_version > form.1 {
            let (found, known) = (self.form_version.into(), form.1.into());
            return Err(SnapshotError::Newer { what: form.0, found, known });
        }
        Ok(())
    }
}

impl File {
    pub fn digest(&self) -> Option<Digest> {
        self.digest.parse().ok()
    }
}

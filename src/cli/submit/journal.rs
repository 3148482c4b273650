//! How far a contribution was sent: what makes `submit` resumable.
//!
//! One small file per contribution in `DATA/submissions`. It is an optimisation, never the truth: a chunk that is sent
//! twice is a replay that changes nothing, so a lost or stale journal costs time, not correctness. A journal counts
//! for one topic incarnation only (topic id), so that a new broker gets everything again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How far one contribution was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Kafka's id of the topic that the chunks went to.
    pub topic_id: String,
    /// Digest of the chunk plan: other chunks are another sending.
    pub plan: String,
    /// Chunks `0..sent` are acknowledged.
    pub sent: i64,
}

/// The file of one contribution's journal.
#[derive(Debug)]
pub struct JournalFile(PathBuf);

impl JournalFile {
    /// The journal of a contribution id. The file's name is a digest: an id is an outsider's text.
    #[must_use]
    pub fn of(data: &Path, contribution_id: &str) -> Self {
        use sha2::{Digest, Sha256};
        let name = data_encoding::HEXLOWER.encode(&Sha256::digest(contribution_id.as_bytes()));
        Self(data.join("submissions").join(format!("{name}.json")))
    }

    /// What was written, if anything readable was.
    #[must_use]
    pub fn read(&self) -> Option<Journal> {
        serde_json::from_slice(&std::fs::read(&self.0).ok()?).ok()
    }

    /// Writes the journal, atomically.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, journal: &Journal) -> std::io::Result<()> {
        if let Some(folder) = self.0.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let temporary = self.0.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(journal)?)?;
        std::fs::rename(temporary, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_reads_back_and_ids_never_name_paths() {
        let folder = tempfile::tempdir().unwrap();
        let file = JournalFile::of(folder.path(), "../../etc/passwd");
        assert!(file.read().is_none());
        let journal = Journal { topic_id: "t".to_owned(), plan: "p".to_owned(), sent: 3 };
        file.write(&journal).unwrap();
        assert_eq!(file.read(), Some(journal));
        assert!(file.0.starts_with(folder.path().join("submissions")));
    }
}

//! Tree heads of a log (C2SP `tlog-checkpoint`) and proofs that travel with one (C2SP `tlog-proof`).
//!
//! A checkpoint is a signed note over exactly three lines: the log's origin, the number of leaves in decimal, the root in base64.
//! Extension lines are refused: this log writes none. A proof file is the leaf's index, its path from the leaf up, an empty
//! line and the checkpoint:
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 4
//! base64(hash), one line each
//!
//! origin
//! …
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

use super::note::{Note, NoteError, is_name};
use super::tree::{Hash, TreeError, verify_inclusion};

/// First line of a proof file.
const PROOF: &str = "c2sp.org/tlog-proof@v1";
/// Hashes that a path may have: as many as a tree of 2^63 leaves needs.
const MAX_PATH: usize = 63;

/// Why a checkpoint or proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not the lines of a checkpoint.
    #[error("not a checkpoint: {0}")]
    Form(&'static str),
    /// Not the lines of a proof.
    #[error("not a tlog-proof: {0}")]
    Proof(&'static str),
}

/// What a log says of itself: so many leaves under this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log: unlike every other log's, the same for its whole life.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Signs the checkpoint with the log's key; the key bears the origin as its name.
    ///
    /// # Errors
    /// [`NoteError::Form`] for an origin that cannot name a key.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, NoteError> {
        Note::sign(&self.text(), &self.origin, key)
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`CheckpointError::Form`].
    pub fn of(note: &Note) -> Result<Self, CheckpointError> {
        let form = CheckpointError::Form;
        let mut lines = note.text().split('\n');
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let origin = origin.filter(|o| is_name(o)).ok_or(form("no origin"))?;
        let size = size.and_then(decimal).ok_or(form("no size"))?;
        let root = root.and_then(hash).ok_or(form("no root of 32 bytes"))?;
        if lines.next() != Some("") || lines.next().is_some() {
            return Err(form("more than three lines"));
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }

    /// Reads a signed checkpoint. No signature is verified.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(bytes)?;
        Ok((Self::of(&note)?, note))
    }
}

/// A number without sign and leading zero.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// A leaf's place in a log, with the checkpoint that covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Index of the leaf.
    pub index: u64,
    /// Sibling hashes from the leaf up.
    pub path: Vec<Hash>,
    /// What covers it.
    pub checkpoint: Checkpoint,
    /// The same, signed.
    pub note: Note,
}

impl TlogProof {
    /// Reads a proof file. Neither the path nor a signature is verified.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let wrong = CheckpointError::Proof;
        if bytes.len() > super::note::MAX_BYTES {
            return Err(NoteError::TooLarge(bytes.len()).into());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
        let (head, rest) = text.split_once("\n\n").ok_or(wrong("no empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(PROOF) {
            return Err(wrong("another first line"));
        }
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(wrong("no index"))?;
        let mut path = Vec::new();
        for line in lines {
            if path.len() == MAX_PATH {
                return Err(wrong("more hashes than any path has"));
            }
            path.push(hash(line).ok_or(wrong("a line that is no hash"))?);
        }
        let (checkpoint, note) = Checkpoint::parse(rest.as_bytes())?;
        Ok(Self { index, path, checkpoint, note })
    }

    /// Checks that a leaf (by its hash) is where the proof says it is. The checkpoint's signature is another matter.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn verify(&self, leaf: &Hash) -> Result<(), TreeError> {
        verify_inclusion(leaf, self.index, self.checkpoint.size, &self.path, &self.checkpoint.root)
    }
}

impl std::fmt::Display for TlogProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{PROOF}\nindex {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.note)
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::NoteKey;
    use super::super::tree::leaf_hash;
    use super::*;
    use proptest::prelude::*;

    fn cases() -> Vec<serde_json::Value> {
        serde_json::from_str(include_str!("../../tests/vectors/attestation/tlog_proof.json")).unwrap()
    }

    #[test]
    fn proofs_of_another_implementation_verify_and_read_back() {
        for case in cases() {
            let text = case["tlog_proof"].as_str().unwrap();
            let proof = TlogProof::parse(text.as_bytes()).unwrap();
            assert_eq!(proof.to_string(), text);
            assert_eq!(proof.checkpoint.origin, case["origin"]);
            let leaf = data_encoding::HEXLOWER.decode(case["leaf_hex"].as_str().unwrap().as_bytes()).unwrap();
            assert_eq!(proof.verify(&leaf_hash(&leaf)), Ok(()));
            assert!(proof.verify(&leaf_hash(b"another")).is_err());
            let log = NoteKey::parse(case["log_vkey"].as_str().unwrap()).unwrap();
            assert_eq!(proof.note.verify(&log), Ok(0));
        }
    }

    #[test]
    fn a_checkpoint_has_one_form() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let checkpoint = Checkpoint { origin: "example.org/log".to_owned(), size: 12, root: [7; 32] };
        let good = checkpoint.sign(&key).unwrap().to_string();
        assert_eq!(Checkpoint::parse(good.as_bytes()).unwrap().0, checkpoint);
        for bad in [
            good.replace("\n12\n", "\n012\n"),
            good.replace("\n12\n", "\n+12\n"),
            good.replace("\n12\n", "\n-1\n"),
            good.replace("\n12\n", "\n12\nmore\n"),
            good.replace("BwcH", "Bwc"),
            good.replacen("example.org/log", "", 1),
        ] {
            assert!(Checkpoint::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_error_and_never_a_panic(bytes: Vec<u8>, text in ".*") {
            let _ = (TlogProof::parse(&bytes), TlogProof::parse(text.as_bytes()), Checkpoint::parse(text.as_bytes()));
        }

        #[test]
        fn a_damaged_proof_never_proves_anything_else(at in 0_usize..300, byte: u8) {
            let text = cases()[0]["tlog_proof"].as_str().unwrap().to_owned();
            let leaf = data_encoding::HEXLOWER.decode(cases()[0]["leaf_hex"].as_str().unwrap().as_bytes()).unwrap();
            let key = NoteKey::parse(cases()[0]["log_vkey"].as_str().unwrap()).unwrap();
            let mut bytes = text.clone().into_bytes();
            bytes[at] = byte;
            if let Ok(proof) = TlogProof::parse(&bytes)
                && proof.verify(&leaf_hash(&leaf)).is_ok()
                && proof.note.verify(&key).is_ok()
            {
                // What still verifies says the same: only lines of other keys may have changed.
                let original = TlogProof::parse(text.as_bytes()).unwrap();
                prop_assert_eq!((proof.index, proof.path, proof.checkpoint), (original.index, original.path, original.checkpoint));
            }
        }
    }
}

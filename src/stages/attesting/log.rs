//! The log's state: what appending, proving and signing need, as entries of one key-value store.
//!
//! | key | entry |
//! |---|---|
//! | `f` | [`CompactRange`]: size and right edge |
//! | `n` level (u8), index (u64be) | root of a perfect subtree: what proofs are made of |
//! | `i` leaf | index of a leaf (u64be): no leaf twice |
//! | `p` | leaves under the newest published tree head (u64be) |
//! | `a` index (u64be) | [`Awaited`] as JSON: who is told once a tree head covers that leaf |
//! | `k` | [`Identity`] as JSON: the log's name and the keys in force |
//!
//! Every value begins with a version byte.

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attest::dsse::key_id;
use crate::attest::nodes::Nodes;
use crate::attest::tree::{CompactRange, Hash};
use crate::stream::stage::StageError;
use crate::stream::state::KeyValue;

const VERSION: u8 = 1;

/// A key in force, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyInForce {
    /// Its id, as in envelopes.
    pub keyid: String,
    /// First index that it signs.
    pub from: u64,
}

/// The log's name, given once, and its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Name of the log.
    pub origin: String,
    /// Signs statements.
    pub attester: KeyInForce,
    /// Signs tree heads.
    pub log: KeyInForce,
}

impl Identity {
    /// A log that begins with these keys. Its name holds a digest of its first key, so that no other log bears it.
    #[must_use]
    pub fn begin(tenant: &str, attester: &VerifyingKey, log: &VerifyingKey) -> Self {
        let digest: [u8; 32] = Sha256::digest(log.as_bytes()).into();
        let name = data_encoding::HEXLOWER.encode(digest.first_chunk::<8>().map_or(&digest[..], |head| &head[..]));
        let key = |key| KeyInForce { keyid: key_id(key), from: 0 };
        Self { origin: format!("hokusai/{tenant}/{name}"), attester: key(attester), log: key(log) }
    }
}

/// Who is told once a tree head covers a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Awaited {
    /// Attempts family: key of `evaluation.requests`.
    pub family: String,
    /// The evaluation.
    pub evaluation_id: String,
}

/// Typed access to the state.
pub struct Log<'a>(pub &'a mut KeyValue);

/// The same, for reading.
pub struct View<'a>(pub &'a KeyValue);

fn node_key(level: u8, index: u64) -> Vec<u8> {
    [&[b'n', level], &index.to_be_bytes()[..]].concat()
}

/// Prefix of [`Awaited`].
const AWAITED: &[u8] = b"a";

/// Acknowledgements of one transaction.
pub const MAX_TOLD: usize = 1_000;

fn awaited_key(index: u64) -> Vec<u8> {
    [AWAITED, &index.to_be_bytes()[..]].concat()
}

fn leaf_key(leaf: &Hash) -> Vec<u8> {
    [b"i", &leaf[..]].concat()
}

fn damaged(what: &str, detail: impl Into<String>) -> StageError {
    StageError::State { what: format!("the log's {what}"), detail: detail.into() }
}

impl View<'_> {
    fn get(&self, what: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StageError> {
        let Some(bytes) = self.0.get(key)? else { return Ok(None) };
        match bytes.split_first() {
            Some((&VERSION, value)) => Ok(Some(value.to_vec())),
            Some((version, _)) => Err(damaged(what, format!("format version {version}, this program reads {VERSION}"))),
            None => Err(damaged(what, "empty")),
        }
    }

    fn number(&self, what: &str, key: &[u8]) -> Result<Option<u64>, StageError> {
        let bytes = self.get(what, key)?;
        bytes.map(|b| b.try_into().map(u64::from_be_bytes).map_err(|_| damaged(what, "not eight bytes"))).transpose()
    }

    /// Size and right edge.
    ///
    /// # Errors
    /// When the state is damaged or the disk fails, as everywhere here.
    pub fn frontier(&self) -> Result<CompactRange, StageError> {
        match self.get("right edge", b"f")? {
            Some(bytes) => CompactRange::from_bytes(&bytes).map_err(|e| damaged("right edge", e.to_string())),
            None => Ok(CompactRange::new()),
        }
    }

    /// Leaves under the newest published tree head.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn published(&self) -> Result<u64, StageError> {
        Ok(self.number("published size", b"p")?.unwrap_or(0))
    }

    /// The log's name and keys; none before it has begun.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn identity(&self) -> Result<Option<Identity>, StageError> {
        let bytes = self.get("name and keys", b"k")?;
        bytes.map(|b| serde_json::from_slice(&b).map_err(|e| damaged("name and keys", e.to_string()))).transpose()
    }

    /// Where a leaf stands in the log, if it does.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn index(&self, leaf: &Hash) -> Result<Option<u64>, StageError> {
        self.number("index of a leaf", &leaf_key(leaf))
    }

    /// Whether anybody waits for a tree head over a leaf.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn awaits(&self) -> Result<bool, StageError> {
        Ok(!self.0.scan_prefix(AWAITED, 1)?.is_empty())
    }

    /// Who waits for a tree head over which leaf, in the order of the leaves; at most [`MAX_TOLD`].
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn awaited(&self) -> Result<Vec<(u64, Awaited)>, StageError> {
        let wrong = || damaged("acknowledgements", "one cannot be read");
        let read = |(key, value): (bytes::Bytes, bytes::Bytes)| {
            let index = key.get(1..).and_then(|k| k.try_into().ok()).map(u64::from_be_bytes).ok_or_else(wrong)?;
            match value.split_first() {
                Some((&VERSION, json)) => Ok((index, serde_json::from_slice(json).map_err(|_| wrong())?)),
                _ => Err(wrong()),
            }
        };
        self.0.scan_prefix(AWAITED, MAX_TOLD)?.into_iter().map(read).collect()
    }
}

impl Nodes for View<'_> {
    type Error = StageError;

    fn node(&self, level: u8, index: u64) -> Result<Hash, StageError> {
        let bytes = self.get("nodes", &node_key(level, index))?.ok_or_else(|| damaged("nodes", "one is missing"))?;
        bytes.try_into().map_err(|_| damaged("nodes", "one has not 32 bytes"))
    }
}

impl Log<'_> {
    /// The state for reading.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View(self.0)
    }

    fn put(&mut self, key: Vec<u8>, value: &[u8]) -> Result<(), StageError> {
        self.0.put(key, [&[VERSION], value].concat())
    }

    /// Appends a leaf that is not in the log; returns its index.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn append(&mut self, leaf: Hash) -> Result<u64, StageError> {
        let mut frontier = self.view().frontier()?;
        let index = frontier.size();
        let mut completed = Vec::new();
        frontier.push_each(leaf, |level, index, node| completed.push((node_key(level, index), *node)));
        for (key, node) in completed {
            self.put(key, &node)?;
        }
        self.put(leaf_key(&leaf), &index.to_be_bytes())?;
        self.put(b"f".to_vec(), &frontier.to_bytes())?;
        Ok(index)
    }

    /// Writes how much is published.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn put_published(&mut self, size: u64) -> Result<(), StageError> {
        self.put(b"p".to_vec(), &size.to_be_bytes())
    }

    /// Remembers who is to be told of a leaf.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn put_awaited(&mut self, index: u64, awaited: &Awaited) -> Result<(), StageError> {
        let json = serde_json::to_vec(awaited).map_err(|e| damaged("acknowledgements", e.to_string()))?;
        self.put(awaited_key(index), &json)
    }

    /// Somebody was told of a leaf.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn delete_awaited(&mut self, index: u64) -> Result<(), StageError> {
        self.0.delete(awaited_key(index))
    }

    /// Writes the log's name and keys.
    ///
    /// # Errors
    /// See [`View::frontier`].
    pub fn put_identity(&mut self, identity: &Identity) -> Result<(), StageError> {
        let json = serde_json::to_vec(identity).map_err(|e| damaged("name and keys", e.to_string()))?;
        self.put(b"k".to_vec(), &json)
    }
}

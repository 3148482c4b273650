//! What receipts remembers of a contribution.

use sha2::{Digest, Sha256};

use super::codec::fields;
use crate::codec::wire::WireError;
use crate::domain::records::{ChunkId, Count, Manifest, QualitySums, Verdict};

/// 128 bits of SHA-256 over length-prefixed texts: tells content apart in the state, leaves the platform nowhere.
pub type Ident = [u8; 16];

fn ident(parts: &[&str]) -> Ident {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let hash: [u8; 32] = hasher.finalize().into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// Who sent a contribution for what, in how many chunks: fixed by its first manifest.
#[must_use]
pub fn party(contributor: &str, model: &str, chunks: i64) -> Ident {
    ident(&["party", contributor, model, &chunks.to_string()])
}

/// The bytes of a chunk, by their keyed digest.
#[must_use]
pub fn content(chunk_digest: &str) -> Ident {
    ident(&["content", chunk_digest])
}

/// A chunk as dedup tells it apart: its verdicts bear the same ident.
#[must_use]
pub fn screened(id: &ChunkId) -> Ident {
    ident(&["screened", &id.contributor, &id.model, &id.contract_digest, &id.chunk_digest, &id.passed])
}

/// How far a contribution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Manifests are missing.
    Open,
    /// All manifests are there; verdicts may be missing.
    Complete,
    /// The timeout passed before all manifests were there.
    TimedOut,
    /// Too many contributions were open when it came.
    Crowded,
}

impl Phase {
    fn code(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Complete => 1,
            Self::TimedOut => 2,
            Self::Crowded => 3,
        }
    }
}

impl super::codec::Field for Phase {
    fn put(&self, out: &mut Vec<u8>) {
        self.code().put(out);
    }
    fn take(from: &mut super::codec::Reader<'_>) -> Result<Self, &'static str> {
        let code = u8::take(from)?;
        let known = [Self::Open, Self::Complete, Self::TimedOut, Self::Crowded];
        known.into_iter().find(|p| p.code() == code).ok_or("a phase that this version does not know")
    }
}

/// A contribution without a receipt yet. Its size does not depend on the number of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// How far it is.
    pub phase: Phase,
    /// Who contributes.
    pub contributor: String,
    /// For which model.
    pub model: String,
    /// The contract of its chunks; empty until a chunk names one.
    pub contract_digest: String,
    /// Chunks expected.
    pub chunks: u32,
    /// Chunks whose manifest is there.
    pub bound: u32,
    /// Chunks whose manifest and verdicts are there.
    pub done: u32,
    /// Highest append time among the chunks.
    pub last_appended: i64,
    /// When its timer is due; 0 without a timer.
    pub timer: i64,
    /// Rows received.
    pub received: i64,
    /// Rows that intake refused.
    pub refused: Vec<Count>,
    /// PII found.
    pub pii: Vec<Count>,
    /// Merged sums of the chunks.
    pub quality: QualitySums,
    /// What stands for the contributor outside the platform, as the first chunk has it.
    pub pseudonyms: Vec<String>,
    /// How every chunk so far was signed; empty when one was not, or in another way.
    pub signature: String,
    /// Highest natural collision rate among the sealed benchmarks that its rows were compared with, in millionths.
    pub collision_ppm: i64,
}

impl super::codec::Field for Header {
    fn put(&self, out: &mut Vec<u8>) {
        self.phase.put(out);
        self.contributor.put(out);
        self.model.put(out);
        self.contract_digest.put(out);
        self.chunks.put(out);
        self.bound.put(out);
        self.done.put(out);
        self.last_appended.put(out);
        self.timer.put(out);
        self.received.put(out);
        self.refused.put(out);
        self.pii.put(out);
        self.quality.put(out);
        self.pseudonyms.put(out);
        self.signature.put(out);
        self.collision_ppm.put(out);
    }
    fn take(from: &mut super::codec::Reader<'_>) -> Result<Self, &'static str> {
        use super::codec::Field;
        Ok(Self {
            phase: Field::take(from)?,
            contributor: Field::take(from)?,
            model: Field::take(from)?,
            contract_digest: Field::take(from)?,
            chunks: Field::take(from)?,
            bound: Field::take(from)?,
            done: Field::take(from)?,
            last_appended: Field::take(from)?,
            timer: Field::take(from)?,
            received: Field::take(from)?,
            refused: Field::take(from)?,
            pii: Field::take(from)?,
            quality: Field::take(from)?,
            // Version 1 knew neither.
            pseudonyms: if from.version() > 1 { Field::take(from)? } else { Vec::new() },
            signature: if from.version() > 1 { Field::take(from)? } else { String::new() },
            // Version 2 knew no benchmarks.
            collision_ppm: if from.version() > 2 { Field::take(from)? } else { 0 },
        })
    }
}

impl Header {
    /// A contribution of which the first manifest is at hand.
    #[must_use]
    pub fn new(first: &Manifest, chunks: u32) -> Self {
        Self {
            phase: Phase::Open,
            contributor: first.id.contributor.clone(),
            model: first.id.model.clone(),
            contract_digest: String::new(),
            chunks,
            bound: 0,
            done: 0,
            last_appended: i64::MIN,
            timer: 0,
            received: 0,
            refused: Vec::new(),
            pii: Vec::new(),
            quality: QualitySums::default(),
            pseudonyms: first.contributor_pseudonyms.clone(),
            signature: first.contributor_signature.clone().unwrap_or_default(),
            collision_ppm: 0,
        }
    }

    /// The chunk at hand is of the same sender, model and number of chunks.
    #[must_use]
    pub fn is_of(&self, manifest: &Manifest) -> bool {
        self.contributor == manifest.id.contributor
            && self.model == manifest.id.model
            && i64::from(self.chunks) == manifest.chunks
    }
}

/// What is kept of a contribution that has its receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// See [`party`].
    pub party: Ident,
    /// Chunks expected.
    pub chunks: u32,
    /// The only chunk; several stand on pages of their own.
    pub only: Option<Held>,
}
fields!(Closed { party, chunks, only });

/// What is kept of a chunk that a receipt binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// See [`content`].
    pub content: Ident,
    /// See [`screened`].
    pub screened: Ident,
}
fields!(Held { content, screened });

/// An entry under a contribution's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contribution {
    /// Without a receipt yet.
    Pending(Box<Header>),
    /// With its receipt.
    Closed(Closed),
}

impl super::codec::Field for Contribution {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Pending(header) => {
                false.put(out);
                header.put(out);
            }
            Self::Closed(closed) => {
                true.put(out);
                closed.put(out);
            }
        }
    }
    fn take(from: &mut super::codec::Reader<'_>) -> Result<Self, &'static str> {
        Ok(if bool::take(from)? {
            Self::Closed(Closed::take(from)?)
        } else {
            Self::Pending(Box::new(Header::take(from)?))
        })
    }
}

/// Rows that a shard got, or has judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Hash shard.
    pub shard: i32,
    /// Rows.
    pub rows: i64,
}
fields!(Shard { shard, rows });

/// A part of a shard's rows that has its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Hash shard.
    pub shard: i32,
    /// Part number.
    pub part: i32,
    /// Parts of the shard.
    pub parts: i32,
    /// Rows of the part.
    pub rows: i64,
}
fields!(Part { shard, part, parts, rows });

/// The verdicts on a chunk so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// The parts judged.
    pub parts: Vec<Part>,
    /// Rows accepted.
    pub accepted: i64,
    /// Duplicates by reason.
    pub duplicates: Vec<Count>,
    /// Label conflicts among the accepted rows.
    pub label_conflicts: i64,
}
fields!(Verdicts { parts, accepted, duplicates, label_conflicts });

impl Verdicts {
    /// Adds a verdict; false when the part was judged before.
    pub fn add(&mut self, verdict: &Verdict) -> bool {
        let at = self.parts.binary_search_by_key(&(verdict.shard, verdict.part), |p| (p.shard, p.part));
        let Err(at) = at else { return false };
        let duplicates: i64 = verdict.duplicates.iter().map(|d| d.count).sum();
        let part = Part {
            shard: verdict.shard,
            part: verdict.part,
            parts: verdict.parts,
            rows: verdict.accepted + duplicates,
        };
        self.parts.insert(at, part);
        self.accepted += verdict.accepted;
        self.label_conflicts += verdict.label_conflicts;
        crate::domain::quality::merge_counts(&mut self.duplicates, &verdict.duplicates);
        true
    }

    /// Every shard that got rows has judged all of them.
    ///
    /// # Errors
    /// When the shards judged other rows than they got.
    pub fn cover(&self, shards: &[Shard]) -> Result<bool, String> {
        let mut parts = self.parts.iter().peekable();
        for expected in shards {
            let mut judged = (0, 0, 0);
            while let Some(part) = parts.next_if(|p| p.shard <= expected.shard) {
                if part.shard < expected.shard {
                    return Err(format!("shard {} judged rows that intake did not send there", part.shard));
                }
                judged = (judged.0 + 1, part.parts, judged.2 + part.rows);
            }
            let (found, stated, rows) = judged;
            if found == 0 || found < stated {
                return Ok(false);
            }
            if rows != expected.rows {
                let expected_rows = expected.rows;
                return Err(format!("shard {} judged {rows} rows, intake sent {expected_rows}", expected.shard));
            }
        }
        match parts.next() {
            Some(part) => Err(format!("shard {} judged rows that intake did not send there", part.shard)),
            None => Ok(true),
        }
    }
}

/// A chunk that is bound to its contribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Keyed digest of the chunk as sent, hex.
    pub chunk_digest: String,
    /// Which of its rows passed.
    pub passed: String,
    /// See [`screened`].
    pub screened: Ident,
    /// Root over its screened rows, hex; empty without rows.
    pub root: String,
    /// Rows by shard, sorted.
    pub shards: Vec<Shard>,
    /// What dedup said so far.
    pub verdicts: Verdicts,
}
fields!(Chunk { chunk_digest, passed, screened, root, shards, verdicts });

impl Chunk {
    /// The account of a manifest.
    #[must_use]
    pub fn new(manifest: &Manifest, verdicts: Verdicts) -> Self {
        let mut shards: Vec<_> = manifest.shards.iter().map(|s| Shard { shard: s.shard, rows: s.rows }).collect();
        shards.sort_unstable_by_key(|s| s.shard);
        Self {
            chunk_digest: manifest.id.chunk_digest.clone(),
            passed: manifest.id.passed.clone(),
            screened: screened(&manifest.id),
            root: manifest.chunk_root.clone(),
            shards,
            verdicts,
        }
    }

    /// Rows that intake sent to dedup: the leaves under the chunk's root.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.shards.iter().map(|s| s.rows).sum()
    }
}

/// What a time mark said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Up to when the source is written out.
    pub time: i64,
    /// It had nothing left to read.
    pub at_end: bool,
}
fields!(Heard { time, at_end });

/// The clock of the marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock {
    /// Sources that there are, as the marks say.
    pub sources: i32,
    /// Everything before it is there; never falls.
    pub watermark: i64,
}
fields!(Clock { sources, watermark });

/// An event whose record could be read but makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Not a record of the topic.
    #[error(transparent)]
    Unreadable(#[from] WireError),
    /// A record whose numbers contradict each other.
    #[error("contribution {contribution:?}: {detail}")]
    Inconsistent {
        /// Which contribution.
        contribution: String,
        /// What contradicts.
        detail: String,
    },
    /// A record that says nothing.
    #[error("{0}")]
    Empty(&'static str),
}

//! Owners of rows: chunks of contributions, interned as numbers.
//!
//! An owner is one exact chunk: contribution, contributor, model, contract, number, digest and which rows passed. The same
//! tuple again is a replay. Rows compare by number; what is kept of an owner are hashes of the names and no names.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::index::HashedMap;
use crate::domain::records::{ChunkId, Release, ReleasedChunk};

/// What is known of an owner from its chunk id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerFacts {
    /// The exact chunk.
    pub ident: u128,
    /// Its contribution, as this contributor sent it.
    pub batch: u128,
    /// Who contributed.
    pub contributor: u128,
    /// Number of the chunk.
    pub chunk: u32,
}

impl OwnerFacts {
    /// The facts of a chunk.
    #[must_use]
    pub fn of(id: &ChunkId) -> Self {
        Self {
            ident: digest(&[
                &id.contribution_id,
                &id.contributor,
                &id.model,
                &id.contract_digest,
                &id.chunk.to_string(),
                &id.chunk_digest,
                &id.passed,
            ]),
            batch: digest(&[&id.contribution_id, &id.contributor]),
            contributor: digest(&[&id.contributor]),
            chunk: u32::try_from(id.chunk).unwrap_or(u32::MAX),
        }
    }

    /// The ident of a released chunk.
    #[must_use]
    pub fn released(release: &Release, chunk: &ReleasedChunk) -> u128 {
        digest(&[
            &release.contribution_id,
            &release.contributor,
            &release.model,
            &release.contract_digest,
            &chunk.chunk.to_string(),
            &chunk.chunk_digest,
            &chunk.passed,
        ])
    }
}

/// 128 bits of SHA-256 over length-prefixed texts. Names are known to everybody who can read the topic, and the state
/// never leaves the platform: nothing is hidden by it, and no key is needed.
fn digest(parts: &[&str]) -> u128 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let hash: [u8; 32] = hasher.finalize().into();
    hash.first_chunk::<16>().map_or(0, |half| u128::from_be_bytes(*half))
}

/// How the rows of one part of a chunk fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartVerdict {
    /// Parts that the chunk's rows of this shard came in.
    pub parts: u32,
    /// Rows seen for the first time.
    pub accepted: u32,
    /// Rows of the same contribution.
    pub in_batch: u32,
    /// The contributor's own rows, from another contribution.
    pub in_pool: u32,
    /// Rows that somebody else had contributed.
    pub other_owner: u32,
    /// Rows whose features stand earlier with another label: accepted, unless their contract refuses them.
    pub label_conflicts: u32,
}

impl PartVerdict {
    /// Width of a verdict as bytes.
    pub const BYTES: usize = 24;

    /// The verdict's numbers, in the order of every format.
    #[must_use]
    pub fn words(&self) -> [u32; 6] {
        [self.parts, self.accepted, self.in_batch, self.in_pool, self.other_owner, self.label_conflicts]
    }

    /// The verdict of these numbers.
    #[must_use]
    pub fn of_words([parts, accepted, in_batch, in_pool, other_owner, label_conflicts]: [u32; 6]) -> Self {
        Self { parts, accepted, in_batch, in_pool, other_owner, label_conflicts }
    }
}

/// What is kept of an owner under its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its contribution, as its contributor sent it.
    pub batch: u128,
    /// Who contributed.
    pub contributor: u128,
    /// Number of the chunk.
    pub chunk: u32,
    /// It gave its rows up.
    pub released: bool,
}

impl Owner {
    /// Width of an owner as bytes.
    pub const BYTES: usize = 37;

    /// An owner that has just come.
    #[must_use]
    pub fn new(facts: &OwnerFacts) -> Self {
        Self { batch: facts.batch, contributor: facts.contributor, chunk: facts.chunk, released: false }
    }

    /// How it relates to a chunk.
    #[must_use]
    pub fn relation(&self, facts: &OwnerFacts) -> Relation {
        if self.batch == facts.batch {
            Relation::SameContribution(self.chunk)
        } else if self.contributor == facts.contributor {
            Relation::SameContributor
        } else {
            Relation::Other
        }
    }

    /// The owner as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let fields = self.batch.to_be_bytes().into_iter().chain(self.contributor.to_be_bytes());
        let fields = fields.chain(self.chunk.to_be_bytes()).chain([u8::from(self.released)]);
        fields.zip(&mut bytes).for_each(|(from, to)| *to = from);
        bytes
    }

    /// Reads what [`Owner::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let word =
            |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk::<16>).map_or(0, |b| u128::from_be_bytes(*b));
        let chunk = bytes.get(32..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |b| u32::from_be_bytes(*b));
        Self { batch: word(0), contributor: word(16), chunk, released: bytes.last() == Some(&1) }
    }
}

/// How an earlier owner of a row relates to the chunk at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same contribution; the number of the chunk where the row stands.
    SameContribution(u32),
    /// Another contribution of the same contributor.
    SameContributor,
    /// Somebody else.
    Other,
}

/// Owners and verdicts that came or changed last, in memory; older ones stand in sorted runs ([`super::state`]).
#[derive(Debug, Default)]
pub struct Owners {
    /// Numbers of exact chunks.
    pub numbers: HashedMap<u32>,
    /// Owners by number.
    pub table: BTreeMap<u32, Owner>,
    /// Verdicts by owner and part.
    pub verdicts: BTreeMap<(u32, u32), PartVerdict>,
}

impl Owners {
    /// Nothing is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.table.is_empty() && self.verdicts.is_empty()
    }

    /// Adds an owner under its number.
    pub fn add(&mut self, number: u32, facts: &OwnerFacts) {
        self.numbers.insert(facts.ident, number);
        self.table.insert(number, Owner::new(facts));
    }

    /// Bytes in memory: the map by its capacity, the trees by nodes that are half full.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let buckets = self.numbers.capacity() as u64 * 8 / 7 * (size_of::<(u128, u32)>() as u64 + 1);
        let trees =
            self.table.len() * size_of::<(u32, Owner)>() + self.verdicts.len() * size_of::<((u32, u32), PartVerdict)>();
        buckets + 2 * trees as u64
    }
}

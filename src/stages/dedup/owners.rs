//! Owners of rows: chunks of contributions, interned as numbers.
//!
//! An owner is one exact chunk: contribution, contributor, model, contract, number, digest and which rows passed. The same
//! tuple again is a replay. Rows compare by number; what is kept of an owner are hashes of the names and no names.

use std::collections::HashMap;

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

#[derive(Debug, Clone, Copy)]
struct Owner {
    batch: u128,
    contributor: u32,
    chunk: u32,
    released: bool,
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

/// The table of owners.
#[derive(Debug, Default)]
pub struct Owners {
    by_ident: HashedMap<u32>,
    table: Vec<Owner>,
    contributors: HashedMap<u32>,
    verdicts: HashMap<(u32, u32), PartVerdict>,
}

impl Owners {
    /// The number of the next owner.
    #[must_use]
    pub fn next(&self) -> u32 {
        u32::try_from(self.table.len()).unwrap_or(u32::MAX)
    }

    /// The number of an exact chunk.
    #[must_use]
    pub fn number(&self, ident: u128) -> Option<u32> {
        self.by_ident.get(&ident).copied()
    }

    /// Adds an owner under the next number.
    pub fn add(&mut self, facts: &OwnerFacts) -> u32 {
        let number = self.next();
        let next = u32::try_from(self.contributors.len()).unwrap_or(u32::MAX);
        let contributor = *self.contributors.entry(facts.contributor).or_insert(next);
        self.by_ident.insert(facts.ident, number);
        self.table.push(Owner { batch: facts.batch, contributor, chunk: facts.chunk, released: false });
        number
    }

    /// The verdict on a part of a chunk.
    #[must_use]
    pub fn verdict(&self, owner: u32, part: u32) -> Option<PartVerdict> {
        self.verdicts.get(&(owner, part)).copied()
    }

    /// Remembers a verdict.
    pub fn set_verdict(&mut self, key: (u32, u32), verdict: PartVerdict) {
        self.verdicts.insert(key, verdict);
    }

    /// The owner gave its rows up.
    #[must_use]
    pub fn is_released(&self, owner: u32) -> bool {
        self.table.get(owner as usize).is_some_and(|o| o.released)
    }

    /// The owner gives its rows up.
    pub fn release(&mut self, owner: u32) {
        if let Some(owner) = self.table.get_mut(owner as usize) {
            owner.released = true;
        }
    }

    /// How an earlier owner relates to a chunk; none when there is no such owner.
    #[must_use]
    pub fn relation(&self, earlier: u32, facts: &OwnerFacts) -> Option<Relation> {
        let owner = self.table.get(earlier as usize)?;
        Some(if owner.batch == facts.batch {
            Relation::SameContribution(owner.chunk)
        } else if self.contributors.get(&facts.contributor) == Some(&owner.contributor) {
            Relation::SameContributor
        } else {
            Relation::Other
        })
    }

    /// Bytes that the tables hold, by their capacity.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let buckets = |capacity: usize, bucket: usize| capacity as u64 * 8 / 7 * (bucket as u64 + 1);
        buckets(self.by_ident.capacity() + self.contributors.capacity(), size_of::<(u128, u32)>())
            + buckets(self.verdicts.capacity(), size_of::<((u32, u32), PartVerdict)>())
            + (self.table.capacity() * size_of::<Owner>()) as u64
    }
}

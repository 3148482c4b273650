//! The stage's state: attempts of each family as the events that counted, and what is still to be done.
//!
//! | key | entry |
//! |---|---|
//! | `e` family (32 bytes), number (u64be) | [`Noted`]: an event of the family; their fold is `stats::attempts` |
//! | `c` evaluation id | [`Case`] of an attempt that is not over |
//! | `i` evaluation id | known: it was counted |
//! | `s` offset of the record that released it (i64be) | [`Due`]: to be scored |
//! | `l` SHA-256 of benchmark and metric | best release of its Ladder (i64be) |
//!
//! Every value begins with a version byte.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::plan::Case;
use crate::stages::entry;
use crate::stats::attempts::{End, Event, Family, MAX_ATTEMPTS, Request, Step};
use crate::stream::stage::StageError;
use crate::stream::state::KeyValue;

const VERSION: u8 = 1;

/// Rows root of the first benchmark in a chain of overlaps.
pub type FamilyId = [u8; 32];

/// An event of a family that changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Noted {
    /// An attempt was counted.
    Requested {
        /// Id that the asker chose.
        request_id: String,
        /// Digest of the recipe.
        recipe: String,
        /// Key of the benchmark.
        benchmark: String,
    },
    /// Its preregistration stands under a signed tree head.
    Acknowledged {
        /// The attempt.
        attempt: u64,
        /// Index of the leaf.
        leaf_index: u64,
    },
    /// Whoever asked took an attempt back: it is over, unless it was being scored.
    Cancelled {
        /// Id that the asker chose.
        request_id: String,
    },
    /// An attempt is over.
    Ended {
        /// The attempt.
        attempt: u64,
        /// `accepted`, `refused` or `failed`.
        status: String,
    },
    /// A benchmark takes no further attempts.
    Retired {
        /// Key of the benchmark.
        benchmark: String,
    },
}

impl Noted {
    fn event(self) -> Option<Event> {
        Some(match self {
            Self::Requested { request_id, recipe, benchmark } => {
                Event::Requested(Request { request_id, recipe, benchmark })
            }
            Self::Acknowledged { attempt, leaf_index } => Event::Acknowledged { attempt, leaf_index },
            Self::Cancelled { request_id } => Event::Cancelled { request_id },
            Self::Ended { attempt, status } => Event::Ended { attempt, end: end(&status)? },
            Self::Retired { benchmark } => Event::Retired { benchmark },
        })
    }
}

/// How an attempt of this status was ended by its outcome. A cancelled one has none: its cancellation stands in the log.
#[must_use]
pub fn end(status: &str) -> Option<End> {
    match status {
        "accepted" => Some(End::Accepted),
        "refused" => Some(End::Refused),
        "failed" => Some(End::Failed),
        _ => None,
    }
}

/// An attempt that may be scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Due {
    /// The evaluation.
    pub evaluation_id: String,
    /// Acceptances of the benchmark before it.
    pub acceptances: u64,
    /// How often a worker began to score it.
    pub begun: u32,
}

/// A family as it is, and how many events it has.
#[derive(Debug, Default)]
struct Folded {
    family: Family,
    events: u64,
}

/// Typed access to the state, with the families of one batch folded once.
pub struct Ledger<'a> {
    state: &'a mut KeyValue,
    families: BTreeMap<FamilyId, Folded>,
}

/// A family's id from its hex form.
#[must_use]
pub fn family_id(hex: &str) -> Option<FamilyId> {
    data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

fn damaged(what: &str, detail: impl Into<String>) -> StageError {
    StageError::State { what: format!("evaluation's {what}"), detail: detail.into() }
}

fn encode(what: &str, value: &impl Serialize) -> Result<Vec<u8>, StageError> {
    entry::encode(VERSION, &format_args!("evaluation's {what}"), value)
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StageError> {
    entry::decode(VERSION, &format_args!("evaluation's {what}"), bytes)
}

fn named(prefix: u8, id: &str) -> Vec<u8> {
    [&[prefix], id.as_bytes()].concat()
}

fn due_key(offset: i64) -> Vec<u8> {
    [&b"s"[..], &offset.to_be_bytes()].concat()
}

/// The attempt that was released first and is not scored yet, with its key.
///
/// # Errors
/// When the state is damaged or the disk fails, as everywhere here.
pub fn oldest(state: &KeyValue) -> Result<Option<(Vec<u8>, Due)>, StageError> {
    let found = state.scan_prefix(b"s", 1)?.into_iter().next();
    found.map(|(key, value)| Ok((key.to_vec(), decode("attempts to score", &value)?))).transpose()
}

impl<'a> Ledger<'a> {
    /// The state of a transaction.
    pub fn new(state: &'a mut KeyValue) -> Self {
        Self { state, families: BTreeMap::new() }
    }

    /// Whether an evaluation was counted.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn knows(&self, evaluation_id: &str) -> Result<bool, StageError> {
        Ok(self.state.get(&named(b'i', evaluation_id))?.is_some())
    }

    /// The case of an attempt that is not over.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn case(&self, evaluation_id: &str) -> Result<Option<Case>, StageError> {
        let bytes = self.state.get(&named(b'c', evaluation_id))?;
        bytes.map(|bytes| decode("attempts", &bytes)).transpose()
    }

    /// Notes the case of an attempt that was just counted.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn open(&mut self, case: &Case) -> Result<(), StageError> {
        self.state.put(named(b'i', &case.evaluation_id), vec![VERSION])?;
        self.state.put(named(b'c', &case.evaluation_id), encode("attempts", case)?)
    }

    /// An attempt was scored: nothing more is kept of its case.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn close(&mut self, due: &[u8], evaluation_id: &str) -> Result<(), StageError> {
        self.state.delete(due.to_vec())?;
        self.forget(evaluation_id)
    }

    /// An attempt that was not to be scored yet is over: nothing more is kept of its case.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn forget(&mut self, evaluation_id: &str) -> Result<(), StageError> {
        self.state.delete(named(b'c', evaluation_id))
    }

    /// Notes that an attempt may be scored, or how often that was begun.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn put_due(&mut self, key: Vec<u8>, due: &Due) -> Result<(), StageError> {
        self.state.put(key, encode("attempts to score", due)?)
    }

    /// Key of what the record at an offset released.
    #[must_use]
    pub fn due_at(offset: i64) -> Vec<u8> {
        due_key(offset)
    }

    fn folded(&mut self, id: &FamilyId) -> Result<&mut Folded, StageError> {
        if !self.families.contains_key(id) {
            let most = usize::try_from(MAX_ATTEMPTS * 4).unwrap_or(usize::MAX);
            let prefix = [b"e", &id[..]].concat();
            let mut folded = Folded::default();
            for (_, value) in self.state.scan_prefix(&prefix, most)? {
                let noted: Noted = decode("events", &value)?;
                folded.family.fold(noted.event().ok_or_else(|| damaged("events", "an unknown status"))?);
                folded.events += 1;
            }
            self.families.insert(*id, folded);
        }
        self.families.get_mut(id).ok_or_else(|| damaged("events", "lost"))
    }

    /// A family as it is.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn family(&mut self, id: &FamilyId) -> Result<&Family, StageError> {
        Ok(&self.folded(id)?.family)
    }

    /// Folds an event into its family, notes it if it changed anything, and says what is to be done.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn fold(&mut self, id: &FamilyId, noted: Noted) -> Result<Vec<Step>, StageError> {
        let folded = self.folded(id)?;
        let Some(event) = noted.clone().event() else { return Ok(Vec::new()) };
        let before = folded.family.clone();
        let steps = folded.family.fold(event);
        if folded.family == before {
            return Ok(steps);
        }
        let key = [b"e", &id[..], &folded.events.to_be_bytes()].concat();
        folded.events += 1;
        self.state.put(key, encode("events", &noted)?)?;
        Ok(steps)
    }

    /// Best release of a benchmark's Ladder so far.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn ladder(&self, benchmark: &str, metric: &str) -> Result<Option<i64>, StageError> {
        let Some(bytes) = self.state.get(&ladder_key(benchmark, metric))? else { return Ok(None) };
        let best = bytes.split_first().filter(|(version, _)| **version == VERSION);
        let best = best.and_then(|(_, best)| best.try_into().ok()).map(i64::from_be_bytes);
        best.map(Some).ok_or_else(|| damaged("Ladders", "not of this version, or not eight bytes"))
    }

    /// Notes the best release of a benchmark's Ladder.
    ///
    /// # Errors
    /// See [`oldest`].
    pub fn put_ladder(&mut self, benchmark: &str, metric: &str, best: i64) -> Result<(), StageError> {
        self.state.put(ladder_key(benchmark, metric), [&[VERSION], &best.to_be_bytes()[..]].concat())
    }
}

fn ladder_key(benchmark: &str, metric: &str) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(benchmark);
    hasher.update([0]);
    hasher.update(metric);
    [&b"l"[..], &hasher.finalize()].concat()
}

//! What is known of one transactional id, and which steps its phases allow.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError as E;
use serde::{Deserialize, Serialize};

use crate::broker::coordinator::offsets::{Committed, Place};
use crate::broker::flusher::Ticket;

/// Where a transaction stands, by the name Kafka gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    pub(super) fn is_deciding(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// One transactional id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Transaction {
    pub producer_id: i64,
    pub epoch: i16,
    /// The epoch before the last bump that a producer asked for; a repeated request shows it.
    pub(super) previous_epoch: i16,
    pub timeout_ms: i64,
    pub phase: Phase,
    pub partitions: BTreeSet<Place>,
    pub(super) groups: BTreeSet<String>,
    pub(super) offsets: BTreeMap<String, Vec<(Place, Committed)>>,
    pub started_at: i64,
    pub(super) updated_at: i64,
    /// The flush that covers the last append.
    #[serde(skip)]
    pub(super) appended: Option<Ticket>,
    /// Markers that the disk may not have yet. The record of a completion can be on the disk before them: without this list a
    /// loss of power between the two would leave a committed transaction open in some partitions, as if nobody had decided it.
    #[serde(default)]
    pub(super) markers: Vec<Marker>,
    /// The flush that covers the last of them.
    #[serde(skip)]
    pub(super) marked: Option<Ticket>,
}

/// How a transaction ended in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub place: Place,
    /// Where the marker stands.
    pub offset: i64,
    pub producer_id: i64,
    pub epoch: i16,
    pub commit: bool,
}

impl Transaction {
    pub(super) fn new() -> Self {
        Self {
            producer_id: -1,
            epoch: -1,
            previous_epoch: -1,
            timeout_ms: 0,
            phase: Phase::Empty,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            offsets: BTreeMap::new(),
            started_at: -1,
            updated_at: 0,
            appended: None,
            markers: Vec::new(),
            marked: None,
        }
    }

    pub(super) fn check(&self, producer: Producer, fenced: E) -> Result<(), E> {
        if self.producer_id != producer.id {
            return Err(E::InvalidProducerIdMapping);
        }
        if self.epoch != producer.epoch {
            return Err(fenced);
        }
        Ok(())
    }

    pub(super) fn begin_if_idle(&mut self, now: i64) {
        if self.phase != Phase::Ongoing {
            self.phase = Phase::Ongoing;
            self.started_at = now;
        }
        self.updated_at = now;
    }

    /// The producer that may use it now.
    pub(super) fn producer(&self) -> Producer {
        Producer { id: self.producer_id, epoch: self.epoch }
    }

    pub(super) fn deadline(&self) -> Option<i64> {
        (self.phase == Phase::Ongoing).then_some(self.started_at + self.timeout_ms)
    }
}

/// A producer as it names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Producer {
    pub id: i64,
    pub epoch: i16,
}

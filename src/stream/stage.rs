//! What a stage is to the runtime: a small pure type.
//!
//! A *task* is one stage on one partition number of its inputs. The runtime hands a task micro-batches of one
//! input partition each; the stage turns (batch + state) into (output records + buffered state changes). All
//! of it, with dead letters, progress and offsets, is committed in one Kafka transaction.
//!
//! Invariants of every stage:
//! * a result depends on the committed records of the task's inputs in offset order, on the key ring, and on
//!   broadcast facts whose digest stands in the result; on no clock, map order or batch border: cutting the same
//!   records into other batches gives the same records out;
//! * [`Stage::process`] has no effect besides its outputs and the buffered state: it may be called again with
//!   the same batch after an abort or after a broadcast input was caught up;
//! * a record that the stage cannot read goes to the dead letters ([`Outputs::dead_letter`]), never to an error.

use std::path::PathBuf;

use bytes::Bytes;

pub use super::batch::{Batch, Message};
use super::runs::{DiskError, Identity};
use crate::codec::wire::{Wire, WireError};
use crate::domain::records::{DeadLetter, Position, Progress, Record};

/// Where an output record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The partition that murmur2 of the key gives (as Kafka's Java client does).
    ByKey,
    /// This partition.
    Partition(i32),
}

/// An output record, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRecord {
    /// Topic without prefix.
    pub topic: &'static str,
    /// Partition.
    pub destination: Destination,
    /// Key.
    pub key: Bytes,
    /// Value; none is a tombstone.
    pub value: Option<Bytes>,
}

/// What a stage makes of a batch; committed in one transaction or not at all.
#[derive(Debug)]
pub struct Outputs<'w> {
    wire: &'w Wire,
    records: Vec<OutputRecord>,
    dead_letters: Vec<DeadLetter>,
}

impl<'w> Outputs<'w> {
    /// No outputs yet; `wire` encodes records.
    #[must_use]
    pub fn new(wire: &'w Wire) -> Self {
        Self { wire, records: Vec::new(), dead_letters: Vec::new() }
    }

    /// Emits a record.
    ///
    /// # Errors
    /// When the record does not fit its schema: a defect of the stage.
    pub fn send<R: Record>(
        &mut self,
        topic: &'static str,
        destination: Destination,
        key: &[u8],
        record: &R,
    ) -> Result<(), StageError> {
        let value = Some(Bytes::from(self.wire.encode(record)?));
        self.records.push(OutputRecord { topic, destination, key: Bytes::copy_from_slice(key), value });
        Ok(())
    }

    /// Emits a value that is encoded already.
    pub fn send_bytes(&mut self, topic: &'static str, destination: Destination, key: &[u8], value: impl Into<Bytes>) {
        let value = Some(value.into());
        self.records.push(OutputRecord { topic, destination, key: Bytes::copy_from_slice(key), value });
    }

    /// Emits a tombstone: the key's record is gone from a compacted topic.
    pub fn tombstone(&mut self, topic: &'static str, destination: Destination, key: &[u8]) {
        self.records.push(OutputRecord { topic, destination, key: Bytes::copy_from_slice(key), value: None });
    }

    /// Puts a record that cannot be read aside. `detail` must hold no byte of the record. The runtime adds stage, size, keyed
    /// digest and the record, sealed.
    pub fn dead_letter(&mut self, batch: &Batch, message: &Message<'_>, reason: &str, detail: String) {
        self.dead_letters.push(DeadLetter {
            position: Position {
                topic: batch.topic().to_owned(),
                partition: batch.partition(),
                offset: message.offset,
            },
            reason: reason.to_owned(),
            detail,
            size: message.value.map_or(0, |v| i64::try_from(v.len()).unwrap_or(i64::MAX)),
            parts: 1,
            ..DeadLetter::default()
        });
    }

    /// The wire format, for a stage that decodes its inputs.
    #[must_use]
    pub fn wire(&self) -> &'w Wire {
        self.wire
    }

    /// What was emitted: records and dead letters.
    #[must_use]
    pub fn into_parts(self) -> (Vec<OutputRecord>, Vec<DeadLetter>) {
        (self.records, self.dead_letters)
    }
}

/// What a stage may know besides its batch and state.
#[derive(Debug)]
pub struct Context<'a> {
    /// The task's partition number.
    pub partition: i32,
    /// The broadcast inputs were read to their present end for this very call; before it, a stage that misses a
    /// broadcast fact answers [`StageError::NeedsBroadcast`] and is called again.
    pub broadcast_is_current: bool,
    /// Partition counts of all topics of the topology, sorted by name (without prefix).
    pub partitions: &'a std::collections::BTreeMap<String, i32>,
}

impl Context<'_> {
    /// Partitions of a topic; 1 when the topology does not know it (which its validation excludes).
    #[must_use]
    pub fn partitions_of(&self, topic: &str) -> i32 {
        self.partitions.get(topic).copied().unwrap_or(1)
    }
}

/// A recorded fact about a task's input, offered to [`Stage::mark`] at most once a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The task's partition of the lead input.
    pub source: i32,
    /// Partitions of the lead input.
    pub sources: i32,
    /// Highest record timestamp that is committed by this task or in this transaction; 0 before the first.
    pub high_time: i64,
    /// Everything up to the partition's present end is processed.
    pub at_end: bool,
}

/// A stage: see the module's invariants.
pub trait Stage: Send + 'static {
    /// State of one task; `()` for a stateless stage.
    type State: State;

    /// Name as in the topology.
    fn name(&self) -> &'static str;

    /// Empty state of a task.
    fn state(&self) -> Self::State;

    /// Folds a record of a broadcast input into the stage; the latest record of a key stands, none removes it.
    /// Unreadable records are reported (dead letter `broadcast`) and leave the earlier value.
    ///
    /// # Errors
    /// What makes the record unreadable.
    fn broadcast(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>, wire: &Wire) -> Result<(), StageError> {
        let _ = (topic, key, value, wire);
        Ok(())
    }

    /// Turns a batch into outputs and buffered state changes.
    ///
    /// # Errors
    /// [`StageError::NeedsBroadcast`] asks for a retry with current broadcast inputs; everything else aborts the
    /// transaction, and after the second time the batch is bisected down to the record, which goes to the dead letters.
    fn process(
        &mut self,
        context: &Context<'_>,
        state: &mut Self::State,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError>;

    /// Whether something is owed that rests on committed state: then a transaction begins even when no record has come. Asked only
    /// while no transaction is open, after every commit and once a second, or more often while [`Stage::works_beside`].
    ///
    /// # Errors
    /// When the state cannot be read.
    fn owes(&self, state: &Self::State) -> Result<bool, StageError> {
        let _ = state;
        Ok(false)
    }

    /// Whether work goes on beside the task: then [`Stage::owes`] is asked twenty times a second, so that what the work finds is told
    /// soon after.
    fn works_beside(&self) -> bool {
        false
    }

    /// Called first in every transaction: the state holds committed changes only. Here a stage may do what must come after a
    /// commit and before anything else (attesting signs and stores what is committed). Whatever it does outside the
    /// transaction must come out the same when it is done again after an abort.
    ///
    /// # Errors
    /// [`StageError::Outside`] aborts and tries again; [`StageError::Halt`] stops the task by name.
    fn settle(
        &mut self,
        context: &Context<'_>,
        state: &mut Self::State,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let _ = (context, state, out);
        Ok(())
    }

    /// Whether the runtime calls [`Stage::mark`].
    const MARKS: bool = false;

    /// Writes time marks: the one use of a timer. Called after a batch, at most once a second, and while idle.
    ///
    /// # Errors
    /// As [`Stage::process`].
    fn mark(&mut self, context: &Context<'_>, tick: &Tick, out: &mut Outputs<'_>) -> Result<(), StageError> {
        let _ = (context, tick, out);
        Ok(())
    }
}

/// A change of state as it is logged in the changelog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Key: the changelog is compacted by it.
    pub key: Bytes,
    /// Value; none deletes the key.
    pub value: Option<Bytes>,
}

/// Size of a task's committed state, for metrics and limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateSize {
    /// Keys or rows.
    pub entries: u64,
    /// Approximate bytes in memory.
    pub bytes: u64,
    /// Bytes on this machine's disk.
    pub disk: u64,
}

/// Where a task may keep committed state on this machine, and what names it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A folder of the task's own.
    pub folder: PathBuf,
    /// Whose state it is: what is found of another identity is not used.
    pub identity: Identity,
    /// Bytes of memory for what is not on disk yet, and for caches.
    pub memory: usize,
    /// Begin with nothing: what is there was found not to fit the changelog.
    pub fresh: bool,
}

/// As of when state is: everything in the changelog before an offset, and nothing from there on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Offset of the first record of the changelog that is not in the state.
    pub next_offset: i64,
    /// The task's progress there: the runtime's, kept with the state because the changelog before is not read again.
    pub progress: Vec<Progress>,
}

/// The files of a state on disk, on their way to the shared store: see [`State::snapshot`].
pub struct Snapshot {
    /// Everything in the changelog before this offset is in them, and nothing from there on.
    pub next_offset: i64,
    /// Their names in the folder that was given; the one that names the others is the last.
    pub files: Vec<String>,
    /// Makes what is not there yet: long work, which is not for the task's thread.
    pub rest: Option<Box<dyn FnOnce() -> Result<(), DiskError> + Send>>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("next_offset", &self.next_offset).field("files", &self.files).finish()
    }
}

/// State of one task. Changes are buffered per transaction, applied after its commit and dropped on abort;
/// reads see committed state and the buffered changes.
pub trait State: Send + 'static {
    /// There is nothing to keep: the stage has no changelog.
    const STATELESS: bool = false;

    /// Applies one committed change read from the changelog.
    ///
    /// # Errors
    /// When the change is not of this version or damaged.
    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StageError>;

    /// The buffered changes as changelog records, in the order in which they must be applied.
    fn changes(&mut self) -> Vec<Change>;

    /// The transaction committed: buffered changes become committed state.
    fn commit(&mut self);

    /// The transaction aborted: buffered changes are dropped.
    fn abort(&mut self);

    /// Size of the committed state.
    fn size(&self) -> StateSize;

    /// Opens what this machine keeps of the committed state, and says as of when that is. The changelog from there on is
    /// then restored; without a checkpoint all of it. By default state lives in memory only.
    ///
    /// # Errors
    /// When it is of a newer version or the disk fails.
    fn open(&mut self, place: &Place) -> Result<Option<Checkpoint>, StageError> {
        let _ = place;
        Ok(None)
    }

    /// The changelog was read to its end: the state is whole, or an error says that it cannot be.
    ///
    /// # Errors
    /// When what was restored does not add up.
    fn restored(&mut self) -> Result<(), StageError> {
        Ok(())
    }

    /// Memory is full, or work on disk waits: [`State::checkpoint`] is wanted. Asked after every commit and restored record.
    fn wants_checkpoint(&self) -> bool {
        false
    }

    /// Form of the files on disk and its version: a snapshot of another form is not for this state.
    const FORM: Option<(&'static str, u16)> = None;

    /// Puts the files of the state on disk, as of the last checkpoint, into an empty folder of the same file system: links or
    /// copies, which nothing changes any more. None when there is nothing on disk.
    ///
    /// # Errors
    /// When the disk fails.
    fn snapshot(&self, to: &std::path::Path) -> Result<Option<Snapshot>, StageError> {
        let _ = to;
        Ok(None)
    }

    /// Writes committed state to disk, where it then is as of `at`. Never called while changes are buffered.
    ///
    /// # Errors
    /// When the disk fails: the task starts anew from what is there.
    fn checkpoint(&mut self, at: &Checkpoint) -> Result<(), StageError> {
        let _ = at;
        Ok(())
    }
}

impl State for () {
    const STATELESS: bool = true;

    fn restore(&mut self, _key: &[u8], _value: Option<&[u8]>) -> Result<(), StageError> {
        Ok(())
    }
    fn changes(&mut self) -> Vec<Change> {
        Vec::new()
    }
    fn commit(&mut self) {}
    fn abort(&mut self) {}
    fn size(&self) -> StateSize {
        StateSize::default()
    }
}

/// Why a stage could not process a batch.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A broadcast fact is missing and the broadcast inputs may be behind.
    #[error("a broadcast input may be behind")]
    NeedsBroadcast,
    /// A record could not be encoded or a state change not decoded.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// State read back from a changelog or store is damaged or of another version.
    #[error("state of {what} cannot be read: {detail}; help: restore the changelog topic or reset the stage")]
    State {
        /// Which entry.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// State on this machine's disk cannot be used: no record is to blame, and the task starts anew.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// This worker lacks a fact that another one had already: no record is to blame, and the task starts anew.
    #[error("{what}; help: {help}")]
    Behind {
        /// What it lacks.
        what: String,
        /// The way out.
        help: String,
    },
    /// Something outside the log is out of reach: the same again may work.
    #[error("{0}")]
    Outside(String),
    /// The stage must not go on until somebody acts.
    #[error("{what}; help: {help}")]
    Halt {
        /// What was found.
        what: String,
        /// The way out.
        help: String,
    },
    /// A limit of the stage is reached.
    #[error("{what} is limited to {limit}; help: {help}")]
    Limit {
        /// What is limited.
        what: String,
        /// The limit.
        limit: u64,
        /// The way out.
        help: String,
    },
    /// The stage's own computation failed (DataFusion, Arrow).
    #[error("{what}: {detail}")]
    Compute {
        /// What was computed.
        what: String,
        /// What went wrong; holds no value of a row.
        detail: String,
    },
}

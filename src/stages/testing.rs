//! A task without Kafka, for the tests of stages: batches in, outputs out, state committed, aborted or restored.

use std::collections::BTreeMap;

use crate::codec::wire::Wire;
use crate::domain::records::{DeadLetter, Record};
use crate::stream::runs::Identity;
use crate::stream::runs::manifest;
use crate::stream::stage::{
    Batch, Change, Checkpoint, Context, Destination, OutputRecord, Outputs, Place, Stage, StageError, State,
};

/// A folder on which a task keeps its state, and what was in it before the last checkpoint.
pub struct Disk {
    folder: tempfile::TempDir,
    before: tempfile::TempDir,
    memory: usize,
}

/// How a task ends before it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As asked: its state goes to disk.
    Clean,
    /// Killed.
    Killed,
    /// Killed in the last checkpoint: the runs are written, the manifest is the old one.
    BeforeManifest,
    /// Killed, and the first file of its folder is cut short.
    Torn,
    /// Killed, and started on a machine that knows nothing.
    Elsewhere,
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // A merge may end its file meanwhile, and give it its name.
        if let Err(error) = std::fs::copy(file.path(), to.join(file.file_name())) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

/// A task of a stage.
pub struct Task<S: Stage> {
    pub stage: S,
    pub state: S::State,
    pub wire: Wire,
    pub partition: i32,
    pub partitions: BTreeMap<String, i32>,
    pub changelog: Vec<Change>,
    pub outputs: Vec<OutputRecord>,
    pub dead_letters: Vec<DeadLetter>,
    disk: Option<Disk>,
}

impl<S: Stage> Task<S> {
    /// A task with state on disk and so many bytes of memory for what is not there yet.
    pub fn on_disk(stage: S, partition: i32, partitions: &[(&str, i32)], memory: usize) -> Self {
        let mut task = Self::new(stage, partition, partitions);
        let folder = || tempfile::tempdir().unwrap();
        task.disk = Some(Disk { folder: folder(), before: folder(), memory });
        task.restart().unwrap();
        task
    }

    fn place(&self) -> Option<Place> {
        let identity =
            Identity { stage: self.stage.name().to_owned(), topic_id: "t".to_owned(), partition: self.partition };
        let disk = self.disk.as_ref()?;
        Some(Place { folder: disk.folder.path().to_owned(), identity, memory: disk.memory, fresh: false })
    }

    fn checkpoint(&mut self) -> Result<(), StageError> {
        if let Some(disk) = &mut self.disk {
            disk.before = tempfile::tempdir().unwrap();
            copy(disk.folder.path(), disk.before.path());
        }
        self.state.checkpoint(&Checkpoint { next_offset: self.changelog.len() as i64, progress: Vec::new() })
    }

    /// Ends the task in some way and starts it again.
    pub fn end(&mut self, end: End) -> Result<(), StageError> {
        if end == End::Clean {
            self.checkpoint()?;
        }
        self.state = self.stage.state();
        if let Some(disk) = &mut self.disk {
            match end {
                End::Clean | End::Killed => {}
                End::BeforeManifest => copy(disk.before.path(), disk.folder.path()),
                End::Torn => {
                    let files = std::fs::read_dir(disk.folder.path()).unwrap().map(|f| f.unwrap().path());
                    let victim = files.filter(|f| !f.ends_with("LOCK") && !f.ends_with(manifest::NAME)).min();
                    if let Some(victim) = victim {
                        let bytes = std::fs::read(&victim).unwrap();
                        std::fs::write(&victim, &bytes[..bytes.len() / 2]).unwrap();
                    }
                }
                End::Elsewhere => disk.folder = tempfile::tempdir().unwrap(),
            }
        }
        self.restart()
    }

    pub fn new(stage: S, partition: i32, partitions: &[(&str, i32)]) -> Self {
        let state = stage.state();
        let partitions = partitions.iter().map(|(topic, n)| ((*topic).to_owned(), *n)).collect();
        Self {
            stage,
            state,
            wire: Wire::default(),
            partition,
            partitions,
            changelog: Vec::new(),
            outputs: Vec::new(),
            dead_letters: Vec::new(),
            disk: None,
        }
    }

    /// Processes a batch inside the present transaction; outputs are handed out, not kept.
    pub fn process(&mut self, batch: &Batch) -> Result<(Vec<OutputRecord>, Vec<DeadLetter>), StageError> {
        let mut out = Outputs::new(&self.wire);
        let context = Context { partition: self.partition, broadcast_is_current: true, partitions: &self.partitions };
        self.stage.process(&context, &mut self.state, batch, &mut out)?;
        Ok(out.into_parts())
    }

    /// What comes first in a transaction.
    fn settle(&mut self) -> Result<Vec<OutputRecord>, StageError> {
        let mut out = Outputs::new(&self.wire);
        let context = Context { partition: self.partition, broadcast_is_current: false, partitions: &self.partitions };
        self.stage.settle(&context, &mut self.state, &mut out)?;
        Ok(out.into_parts().0)
    }

    /// Transactions without records, until nothing is owed any more.
    pub fn settle_all(&mut self) -> Result<(), StageError> {
        while self.stage.owes(&self.state)? {
            self.commit(&[])?;
        }
        Ok(())
    }

    /// Processes batches in one transaction and commits it.
    pub fn commit(&mut self, batches: &[Batch]) -> Result<(), StageError> {
        let settled = self.settle()?;
        self.outputs.extend(settled);
        for batch in batches {
            let (records, dead_letters) = self.process(batch)?;
            self.outputs.extend(records);
            self.dead_letters.extend(dead_letters);
        }
        self.changelog.extend(self.state.changes());
        self.state.commit();
        if self.state.wants_checkpoint() { self.checkpoint() } else { Ok(()) }
    }

    /// Processes batches in one transaction and aborts it.
    pub fn abort(&mut self, batches: &[Batch]) {
        let _ = self.settle();
        for batch in batches {
            let _ = self.process(batch);
        }
        let _ = self.state.changes();
        self.state.abort();
    }

    /// Loses the state and restores it from what is on disk and from the (compacted) changelog.
    pub fn restart(&mut self) -> Result<(), StageError> {
        self.state = self.stage.state();
        let opened = match self.place() {
            Some(place) => self.state.open(&place)?,
            None => None,
        };
        let from = opened.map_or(0, |checkpoint| usize::try_from(checkpoint.next_offset).unwrap());
        assert!(from <= self.changelog.len(), "state on disk is never ahead of what is committed");
        let left = compacted(&self.changelog);
        for (offset, change) in left.into_iter().filter(|(offset, _)| *offset >= from) {
            self.state.restore(&change.key, change.value.as_deref())?;
            if self.state.wants_checkpoint() {
                self.state.checkpoint(&Checkpoint { next_offset: offset as i64 + 1, progress: Vec::new() })?;
            }
        }
        self.state.restored()
    }

    /// The decoded outputs of a topic, in order, with their destinations and keys.
    pub fn sent<R: Record>(&self, topic: &str) -> Vec<(Destination, Vec<u8>, R)> {
        let of_topic = self.outputs.iter().filter(|r| r.topic == topic);
        of_topic
            .map(|r| (r.destination, r.key.to_vec(), self.wire.decode(r.value.as_ref().unwrap()).unwrap()))
            .collect()
    }

    /// The values alone.
    pub fn values<R: Record>(&self, topic: &str) -> Vec<R> {
        self.sent(topic).into_iter().map(|(_, _, record)| record).collect()
    }
}

/// What compaction leaves of a changelog: the latest change of each key, in log order, with its offset.
pub fn compacted(changelog: &[Change]) -> Vec<(usize, Change)> {
    let latest: BTreeMap<_, _> = changelog.iter().enumerate().map(|(i, c)| (c.key.clone(), i)).collect();
    changelog.iter().cloned().enumerate().filter(|(i, c)| latest[&c.key] == *i).collect()
}

/// A batch of values, from an offset on, all with one timestamp.
pub fn batch<R: Record>(topic: &str, partition: i32, first: i64, timestamp: i64, records: &[R]) -> Batch {
    let wire = Wire::default();
    let mut batch = Batch::new(topic, partition);
    for (offset, record) in (first..).zip(records) {
        batch.push(offset, timestamp, None, Some(&wire.encode(record).unwrap()));
    }
    batch
}

//! A task without Kafka, for the tests of stages: batches in, outputs out, state committed, aborted or restored.

use std::collections::BTreeMap;

use crate::codec::wire::Wire;
use crate::domain::records::{DeadLetter, Record};
use crate::stream::stage::{Batch, Change, Context, Destination, OutputRecord, Outputs, Stage, StageError, State};

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
}

impl<S: Stage> Task<S> {
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
        }
    }

    /// Processes a batch inside the present transaction; outputs are handed out, not kept.
    pub fn process(&mut self, batch: &Batch) -> Result<(Vec<OutputRecord>, Vec<DeadLetter>), StageError> {
        let mut out = Outputs::new(&self.wire);
        let context = Context { partition: self.partition, broadcast_is_current: true, partitions: &self.partitions };
        self.stage.process(&context, &mut self.state, batch, &mut out)?;
        Ok(out.into_parts())
    }

    /// Processes batches in one transaction and commits it.
    pub fn commit(&mut self, batches: &[Batch]) -> Result<(), StageError> {
        for batch in batches {
            let (records, dead_letters) = self.process(batch)?;
            self.outputs.extend(records);
            self.dead_letters.extend(dead_letters);
        }
        self.changelog.extend(self.state.changes());
        self.state.commit();
        Ok(())
    }

    /// Processes batches in one transaction and aborts it.
    pub fn abort(&mut self, batches: &[Batch]) {
        for batch in batches {
            let _ = self.process(batch);
        }
        let _ = self.state.changes();
        self.state.abort();
    }

    /// Loses the state and restores it from the (compacted) changelog.
    pub fn restart(&mut self) -> Result<(), StageError> {
        self.state = self.stage.state();
        for change in compacted(&self.changelog) {
            self.state.restore(&change.key, change.value.as_deref())?;
        }
        Ok(())
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

/// What compaction leaves of a changelog: the latest change of each key, in log order.
pub fn compacted(changelog: &[Change]) -> Vec<Change> {
    let latest: BTreeMap<_, _> = changelog.iter().enumerate().map(|(i, c)| (c.key.clone(), i)).collect();
    changelog.iter().enumerate().filter(|(i, c)| latest[&c.key] == *i).map(|(_, c)| c.clone()).collect()
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

//! What goes out of an open transaction: a stage's outputs, and dead letters with what makes them complete.

use super::{Failure, Open, cannot_write};
use crate::domain::records::{DeadLetter, Position, Record};
use crate::domain::topics;
use crate::stream::partitioner::partition_of;
use crate::stream::replay::GivenUp;
use crate::stream::stage::{Batch, Destination, OutputRecord, Stage};
use crate::stream::task::Task;

impl<S: Stage> Task<'_, S> {
    pub(super) fn send(
        &self,
        topic: &str,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
        open: &mut Open,
    ) -> Result<(), Failure> {
        self.producer.send(topic, partition, key, value)?;
        open.records_out += 1;
        open.bytes_out += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        Ok(())
    }

    pub(super) fn send_outputs(&mut self, records: &[OutputRecord], open: &mut Open) -> Result<(), Failure> {
        let limit = self.shared.settings.max_record_bytes;
        for record in records {
            let size = record.key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len);
            if size > limit {
                let detail = format!("an output for {} has {size} bytes, the limit is {limit}", record.topic);
                return Err(Failure::Blamed(GivenUp { reason: "OUTPUT_TOO_LARGE", detail }));
            }
            let partition = match record.destination {
                Destination::Partition(partition) => partition,
                Destination::ByKey => {
                    partition_of(&record.key, self.partitions.get(record.topic).copied().unwrap_or(1))
                }
            };
            if !self.full_names.contains_key(record.topic) {
                self.full_names.insert(record.topic, self.shared.cluster.topic(record.topic));
            }
            let full = self.full_names.get(record.topic).map_or(record.topic, String::as_str);
            self.send(full, partition, &record.key, record.value.as_deref(), open)?;
        }
        Ok(())
    }

    /// Completes dead letters with stage, keyed digest and sealed record, and queues them.
    pub(super) fn send_dead_letters(
        &self,
        letters: Vec<DeadLetter>,
        batch: Option<&Batch>,
        open: &mut Open,
    ) -> Result<(), Failure> {
        if letters.is_empty() {
            return Ok(());
        }
        let topic = self.shared.cluster.topic(topics::DEAD_LETTERS);
        let partitions = self.partitions.get(topics::DEAD_LETTERS).copied().unwrap_or(1);
        let messages: Vec<_> = batch.map(|b| b.iter().collect()).unwrap_or_default();
        for mut letter in letters {
            letter.stage = self.plan.name.to_owned();
            if let Ok(found) = messages.binary_search_by_key(&letter.position.offset, |m| m.offset)
                && let Some(message) = messages.get(found)
            {
                let value = message.value.unwrap_or_default();
                letter.size = i64::try_from(value.len()).unwrap_or(i64::MAX);
                letter.digest = (self.shared.digest)(value);
                for part in (self.shared.aside)(letter, message.key, message.value) {
                    self.send_dead_letter(&topic, partitions, &part, open)?;
                }
            } else {
                self.send_dead_letter(&topic, partitions, &letter, open)?;
            }
            open.dead_letters += 1;
        }
        Ok(())
    }

    fn send_dead_letter(
        &self,
        topic: &str,
        partitions: i32,
        letter: &DeadLetter,
        open: &mut Open,
    ) -> Result<(), Failure> {
        let Position { topic: at, partition, offset } = &letter.position;
        let key = format!("{at}-{partition}-{offset}");
        let value = self.encode(letter)?;
        self.send(topic, partition_of(key.as_bytes(), partitions), key.as_bytes(), Some(&value), open)
    }

    pub(super) fn encode<R: Record>(&self, record: &R) -> Result<Vec<u8>, Failure> {
        self.shared.wire.encode(record).map_err(|e| cannot_write(format!("{} of {}", R::SCHEMA, self.id), &e))
    }
}

/// The dead letter of a record that the task gave up.
pub(super) fn given_up_letter(batch: &Batch, offset: i64, cause: &GivenUp) -> DeadLetter {
    DeadLetter {
        position: Position { topic: batch.topic().to_owned(), partition: batch.partition(), offset },
        reason: cause.reason.to_owned(),
        detail: cause.detail.clone(),
        parts: 1,
        ..DeadLetter::default()
    }
}

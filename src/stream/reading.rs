//! What a task reads: batches that were aborted before, else what its inputs' queues hold, in turn and without waiting.
//!
//! Invariants:
//! * a record is read once and in order: one that comes again ends the task, a hole right after a seek is sought again;
//! * what a batch covers is an interval from where the last one ended, holes included.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::control::Ended;
use super::ffi;
use super::progress::Interval;
use super::replay::Work;
use super::stage::{Batch, Stage};
use super::task::Task;

impl<S: Stage> Task<'_, S> {
    /// The next batch: one that was aborted before, else records from the inputs in turn.
    pub(super) fn next_work(&mut self, transaction_is_empty: bool) -> Result<Option<Work>, Ended> {
        if !self.replay.is_empty() {
            return Ok(self.replay.next(transaction_is_empty));
        }
        for turn in 0..self.inputs.len() {
            let index = (self.next_input + turn) % self.inputs.len();
            if let Some(work) = self.read_batch(index)? {
                self.next_input = index + 1;
                return Ok(Some(work));
            }
        }
        Ok(None)
    }

    /// Takes what an input has, up to the limits of a batch; never waits.
    fn read_batch(&mut self, index: usize) -> Result<Option<Work>, Ended> {
        let settings = &self.shared.settings;
        let (Some(attachment), Some(input)) = (&self.attachment, self.inputs.get_mut(index)) else { return Ok(None) };
        let Some(queue) = attachment.queues.get(index) else { return Ok(None) };
        let mut batch = Batch::new(&input.facts.topic, input.facts.partition);
        let from = input.read;
        let mut drained = false;
        while batch.len() < settings.max_batch_records && batch.bytes() < settings.max_batch_bytes {
            match queue.poll(Duration::ZERO) {
                None => {
                    drained = true;
                    break;
                }
                Some(Ok(message)) => {
                    let offset = message.offset();
                    if offset < input.read {
                        let what =
                            format!("{}-{}: offset {offset} came again", input.facts.topic, input.facts.partition);
                        return Err(Ended::Failed(what));
                    }
                    if !input.arrival.judge(input.read, offset) {
                        tracing::debug!(task = %self.id, topic = %input.facts.topic, offset, sought = input.read, "a hole: sought again");
                        let (full, partition) = (input.facts.full.as_str(), input.facts.partition);
                        let again = attachment.handle.start(full, partition, input.read);
                        again.map_err(|e| Ended::Failed(format!("{full}-{partition}: {e}")))?;
                        break;
                    }
                    let timestamp = message.timestamp().to_millis().unwrap_or(0);
                    batch.push(offset, timestamp, message.key(), message.payload());
                    input.read = offset + 1;
                    input.at_end = false;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => input.at_end = true,
                Some(Err(error)) => match error.rdkafka_error_code() {
                    // The decision where to start names the cause: expired, truncated, recreated.
                    Some(
                        RDKafkaErrorCode::AutoOffsetReset
                        | RDKafkaErrorCode::OffsetOutOfRange
                        | RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopicId
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownPartition,
                    ) => {
                        return Err(Ended::Failed(format!("{}-{}: {error}", input.facts.topic, input.facts.partition)));
                    }
                    _ => tracing::debug!(task = %self.id, %error, "reading goes on"),
                },
            }
        }
        let client = attachment.handle.consumer().client();
        if drained && !batch.is_empty() {
            // The position also covers transaction markers behind the last record.
            let position = ffi::position(client, &input.facts.full, input.facts.partition);
            input.read = position.unwrap_or(0).max(input.read);
        }
        if batch.is_empty() {
            return Ok(None);
        }
        if let Some(end) = ffi::cached_high_watermark(client, &input.facts.full, input.facts.partition) {
            self.metrics.lag(index, end - input.read);
        }
        let interval = Interval { from, to: input.read, records: batch.len() };
        Ok(Some(Work::new(index, batch, interval)))
    }
}

//! Reads a partition of ours to its present end, from its start or from where local state ends: changelogs and progress.
//!
//! The end is the high watermark, taken *after* the caller has fenced its predecessor. What lies between the last
//! stable offset and that end belongs to open transactions of other tasks (several share `hokusai.progress`), and
//! a record of ours may lie among it. So: wait until the last stable offset has reached the end, then read until the
//! consumer reports the end of the partition, which it then does at or after that offset. Counting offsets would not do:
//! compaction and transaction markers leave holes at the end, too.

use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Admin, ClientError, End, FetchBounds, Logged};
use super::stage::StageError;

/// Why a partition could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The cluster did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Reading failed.
    #[error("{topic}-{partition} cannot be read: {source}; help: is the broker healthy? the task tries again")]
    Read { topic: String, partition: i32, source: KafkaError },
    /// Local state is of offsets that the log does not hold.
    #[error("{topic}-{partition} holds the offsets {start} to {end}, local state goes on from {from}")]
    Outside { topic: String, partition: i32, start: i64, end: i64, from: i64 },
    /// A record does not fit the state.
    #[error("{topic}-{partition} at offset {offset}: {source}")]
    State { topic: String, partition: i32, offset: i64, source: StageError },
    /// The caller has to do something else.
    #[error("interrupted")]
    Interrupted,
}

/// How long one poll may wait: bounds the reaction to an interruption.
const POLL: Duration = Duration::from_millis(50);

/// Reads one partition (topic without prefix) to its present end: from its start, or `from` an offset that must be in it.
/// Each record comes with its offset; returns the end.
pub(crate) fn read_to_end(
    admin: &Admin,
    topic: &str,
    partition: i32,
    from: Option<i64>,
    interrupted: &dyn Fn() -> bool,
    mut on_record: impl FnMut(i64, &[u8], Option<&[u8]>) -> Result<(), StageError>,
) -> Result<i64, RestoreError> {
    let place = [(topic.to_owned(), partition)];
    let end = admin.offsets(&place, End::HighWatermark)?.first().copied().unwrap_or(0);
    let start = admin.offsets(&place, End::Start)?.first().copied().unwrap_or(0);
    if let Some(from) = from.filter(|from| !(start..=end).contains(from)) {
        return Err(RestoreError::Outside { topic: topic.to_owned(), partition, start, end, from });
    }
    let start = from.unwrap_or(start);
    if start >= end {
        return Ok(end);
    }
    wait_until_stable(admin, &place, end, interrupted)?;
    let full = admin.cluster().topic(topic);
    let read = |source| RestoreError::Read { topic: topic.to_owned(), partition, source };
    let bounds = FetchBounds { wait: Duration::from_millis(100), ..FetchBounds::default() };
    let consumer: BaseConsumer<Logged> = admin.cluster().reader(&bounds).create_with_context(Logged).map_err(read)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&full, partition, Offset::Offset(start)).map_err(read)?;
    consumer.assign(&list).map_err(read)?;
    let mut failing_since: Option<Instant> = None;
    loop {
        if interrupted() {
            return Err(RestoreError::Interrupted);
        }
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                failing_since = None;
                let offset = message.offset();
                let wrap = |source| RestoreError::State { topic: topic.to_owned(), partition, offset, source };
                on_record(offset, message.key().unwrap_or_default(), message.payload()).map_err(wrap)?;
                if offset + 1 >= end {
                    return Ok(end);
                }
                if offset >= start + (end - start) / 2 {
                    crate::failpoint!("restore.middle");
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(end),
            Some(Err(source)) => give_up_after(&mut failing_since, source).map_err(read)?,
        }
    }
}

/// librdkafka heals most errors by itself: only one that lasts is passed on.
fn give_up_after(since: &mut Option<Instant>, error: KafkaError) -> Result<(), KafkaError> {
    tracing::debug!(%error, "restore reads on after an error");
    let first = since.get_or_insert_with(Instant::now);
    if first.elapsed() > Duration::from_secs(10) { Err(error) } else { Ok(()) }
}

/// Open transactions of other tasks are short, and the broker ends those of dead ones.
fn wait_until_stable(
    admin: &Admin,
    place: &[(String, i32)],
    end: i64,
    interrupted: &dyn Fn() -> bool,
) -> Result<(), RestoreError> {
    while admin.offsets(place, End::LastStable)?.first().copied().unwrap_or(end) < end {
        if interrupted() {
            return Err(RestoreError::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

//! Readers of purged topics outside the stages: where they are, and who holds a purge back.
//!
//! Such a reader is declared in the topology. Its position is what its consumer group has committed; a partition without a
//! committed offset counts as unread, so that a reader that has not begun yet, or whose offsets have expired, loses nothing. A
//! reader that stalls keeps the brokers' disks from being freed. That is visible, in this order: `hokusai_reader_lag_records`,
//! `hokusai_reader_overdue`, a warning in the log with READER_OVERDUE, and `hokusai doctor`. It does not turn `/health`
//! red: starting workers anew does not make somebody else's program read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Admin, ClientError, End, FetchBounds, Logged};
use crate::topology::ReaderSpec;

/// How long one look at a partition's records may take.
const LOOK: Duration = Duration::from_secs(5);

/// What of one partition waits for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Topic without prefix.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// What the reader has committed: the next offset it wants; none when it never did, or its offsets have expired.
    pub position: Option<i64>,
    /// Offsets from there (or from the start of the log) to the end of what is committed.
    pub records: i64,
    /// A record waits longer than the reader's patience.
    pub overdue: bool,
}

/// Offsets that the group of a stage or reader has committed, in the order of `places` (topics without prefix).
pub(crate) fn committed(admin: &Admin, name: &str, places: &[(String, i32)]) -> Result<Vec<Option<i64>>, ClientError> {
    let cluster = admin.cluster();
    let config = cluster.consumer(&cluster.group(name), &FetchBounds::default());
    let consumer: BaseConsumer<Logged> =
        config.create_with_context(Logged).map_err(|source| ClientError::Create { source })?;
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition(&cluster.topic(topic), *partition);
    }
    let committed = consumer.committed_offsets(list, LOOK).map_err(|source| asked(admin, source))?;
    let find = |(topic, partition): &(String, i32)| match committed
        .find_partition(&cluster.topic(topic), *partition)?
        .offset()
    {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    Ok(places.iter().map(find).collect())
}

/// What waits for a reader, by partition. Blocking.
///
/// # Errors
/// When no broker answers or a topic does not exist.
pub fn waits(admin: &Admin, reader: &ReaderSpec) -> Result<Vec<Wait>, ClientError> {
    let topics: Vec<&str> = reader.topics.iter().map(String::as_str).collect();
    let ends = admin.end_offsets(&topics)?;
    let places: Vec<(String, i32)> = ends.iter().map(|end| (end.topic.clone(), end.partition)).collect();
    let positions = committed(admin, &reader.name, &places)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = i64::try_from(now.saturating_sub(reader.patience).as_millis()).unwrap_or(0);
    let young = admin.offsets(&places, End::Since(since))?;
    let mut waits = Vec::with_capacity(ends.len());
    for ((end, position), young) in ends.into_iter().zip(positions).zip(young) {
        let from = position.unwrap_or(end.start).max(end.start);
        let old_before = if young < 0 { end.end } else { young.min(end.end) };
        waits.push(Wait {
            overdue: from < old_before && holds_a_record(admin, &end.topic, end.partition, from, old_before)?,
            records: (end.end - from).max(0),
            topic: end.topic,
            partition: end.partition,
            position,
        });
    }
    Ok(waits)
}

/// Sets the metrics and writes the log of one look.
pub(crate) fn tell(reader: &ReaderSpec, waits: &[Wait]) {
    for topic in &reader.topics {
        let of_topic: Vec<&Wait> = waits.iter().filter(|wait| wait.topic == *topic).collect();
        let records: i64 = of_topic.iter().map(|wait| wait.records).sum();
        let overdue = of_topic.iter().any(|wait| wait.overdue);
        let labels = [("reader", reader.name.clone()), ("topic", topic.clone())];
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!(super::metrics::READER_LAG, &labels).set(records as f64);
        metrics::gauge!(super::metrics::READER_OVERDUE, &labels).set(f64::from(u8::from(overdue)));
        if overdue {
            tracing::warn!(
                reader = %reader.name, topic = %topic, records,
                "READER_OVERDUE: a reader outside the stages holds the purge of this topic back; help: start it again, or take \
                 it out of the topology's `readers`"
            );
        }
    }
}

/// Whether there is a record among these offsets: transaction markers and aborted records are none.
fn holds_a_record(admin: &Admin, topic: &str, partition: i32, from: i64, before: i64) -> Result<bool, ClientError> {
    let cluster = admin.cluster();
    let consumer: BaseConsumer<Logged> = cluster
        .reader(&FetchBounds::to_end())
        // A purge may overtake this look.
        .set("auto.offset.reset", "earliest")
        .create_with_context(Logged)
        .map_err(|source| ClientError::Create { source })?;
    let mut list = TopicPartitionList::new();
    let assigned = list
        .add_partition_offset(&cluster.topic(topic), partition, Offset::Offset(from))
        .and_then(|()| consumer.assign(&list));
    assigned.map_err(|source| asked(admin, source))?;
    let deadline = Instant::now() + LOOK;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => return Ok(message.offset() < before),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(false),
            Some(Err(error)) => return Err(asked(admin, error)),
            None => {}
        }
    }
    // Nothing came and no end was reached: what cannot be read is not called read.
    Ok(true)
}

fn asked(admin: &Admin, source: KafkaError) -> ClientError {
    ClientError::Ask { what: "readers outside", brokers: admin.cluster().brokers.clone(), source }
}

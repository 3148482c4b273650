//! Fetch: what there is now, or as soon as there is something.
//!
//! There are no fetch sessions: every request names all its partitions, as clients do when they are told session 0.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::{Head, encode};
use crate::broker::connection::{Answer, Context, Ended};
use crate::broker::log::partition::{Isolation, LEADER_EPOCH, Offsets, Partition, ReadError};
use crate::broker::node::Node;
use crate::broker::topics::{Topic, TopicId};

/// Longest wait a client may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Answers a consumer's fetch.
pub(super) async fn fetch(context: &Context, head: Head, request: FetchRequest) -> Result<Answer, Ended> {
    let node = &context.node;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    let deadline = Instant::now() + wait;
    let wanted = Wanted::resolve(node, head.version, &request);
    let enough = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut reader = Reader {
        id: node.counters.readers.fetch_add(1, Relaxed),
        notify: Arc::new(Notify::new()),
        partitions: Vec::new(),
    };
    loop {
        let reserved = context.reserve_records(wanted.estimate()).await?;
        let found = wanted.read(node);
        if found.is_final || found.bytes >= enough || Instant::now() >= deadline {
            node.counters.fetched_bytes.fetch_add(found.bytes as u64, Relaxed);
            let frame = encode(head, &FetchResponse::default().with_responses(found.topics))?;
            return Ok(Answer::Records(frame, reserved));
        }
        drop((found, reserved));
        if reader.partitions.is_empty() {
            // Register first, then look once more: nothing that arrives in between is missed.
            reader.register(&wanted);
            continue;
        }
        let _ = timeout_at(deadline, reader.notify.notified()).await;
        reader.register(&wanted);
    }
}

/// A waiting fetch; it takes itself off every partition's list when it ends.
struct Reader {
    id: u64,
    notify: Arc<Notify>,
    partitions: Vec<Arc<Partition>>,
}

impl Reader {
    fn register(&mut self, wanted: &Wanted) {
        self.forget();
        self.partitions = wanted.partitions().map(Arc::clone).collect();
        for partition in &self.partitions {
            partition.wait(self.id, &self.notify);
        }
    }

    fn forget(&mut self) {
        for partition in self.partitions.drain(..) {
            partition.forget_waiter(self.id);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A request with its partitions looked up once.
struct Wanted {
    topics: Vec<WantedTopic>,
    isolation: Isolation,
    max_bytes: usize,
    version: i16,
}

struct WantedTopic {
    request: FetchTopic,
    partitions: Vec<(FetchPartition, Result<Arc<Partition>, E>)>,
}

struct Found {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    /// Some partition has an error, which is told without waiting.
    is_final: bool,
}

impl Wanted {
    fn resolve(node: &Node, version: i16, request: &FetchRequest) -> Self {
        let topics = request.topics.iter().map(|topic| {
            let found: Option<Arc<Topic>> = match version >= 13 {
                true => TopicId::from_wire(topic.topic_id).and_then(|id| node.topics.by_id(id)),
                false => node.topics.get(&topic.topic),
            };
            let unknown_topic = if version >= 13 { E::UnknownTopicId } else { E::UnknownTopicOrPartition };
            let partitions = topic.partitions.iter().map(|partition| {
                let found = match &found {
                    None => Err(unknown_topic),
                    Some(found) => found.partition(partition.partition).ok_or(E::UnknownTopicOrPartition),
                };
                (partition.clone(), found.and_then(|found| check_epoch(partition.current_leader_epoch).map(|()| found)))
            });
            WantedTopic { request: topic.clone(), partitions: partitions.collect() }
        });
        let isolation =
            if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(node.config.limits.fetch_bytes);
        Self { topics: topics.collect(), isolation, max_bytes, version }
    }

    /// How many bytes a read will take at most, about.
    fn estimate(&self) -> usize {
        let mut total = 0_usize;
        for (wanted, partition) in self.topics.iter().flat_map(|topic| &topic.partitions) {
            if let Ok(partition) = partition {
                let most = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
                total = total.saturating_add(partition.readable(wanted.fetch_offset).min(most));
            }
        }
        total.min(self.max_bytes)
    }

    fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|(_, partition)| partition.as_ref().ok())
    }

    fn read(&self, node: &Node) -> Found {
        let mut found = Found {
            topics: Vec::with_capacity(self.topics.len()),
            bytes: 0,
            is_final: self.partitions().next().is_none(),
        };
        for topic in &self.topics {
            let answers = topic.partitions.iter().map(|(wanted, partition)| match partition {
                Ok(partition) => self.read_one(wanted, partition, &mut found.bytes),
                Err(error) => failed(wanted.partition, *error),
            });
            let answers: Vec<_> = answers.collect();
            found.is_final |= answers.iter().any(|answer| answer.error_code != 0);
            let answer = FetchableTopicResponse::default().with_partitions(answers);
            found.topics.push(match self.version >= 13 {
                true => answer.with_topic_id(topic.request.topic_id),
                false => answer.with_topic(topic.request.topic.clone()),
            });
        }
        found.is_final |= node.flusher.failed();
        found
    }

    fn read_one(&self, wanted: &FetchPartition, partition: &Partition, bytes: &mut usize) -> PartitionData {
        let room = self.max_bytes.saturating_sub(*bytes);
        let max_bytes = usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(room);
        // The first batch of an answer comes whole, however large: a consumer must be able to go on.
        match partition.read(wanted.fetch_offset, self.isolation, max_bytes, *bytes == 0) {
            Ok(fetched) => {
                *bytes += fetched.records.len();
                let aborted = (self.isolation == Isolation::ReadCommitted).then(|| {
                    let tell = |aborted: &crate::broker::log::producers::Aborted| {
                        AbortedTransaction::default()
                            .with_producer_id(ProducerId(aborted.producer_id))
                            .with_first_offset(aborted.first_offset)
                    };
                    fetched.aborted.iter().map(tell).collect()
                });
                answer(wanted.partition, &fetched.offsets, self.version)
                    .with_aborted_transactions(aborted)
                    .with_records(Some(fetched.records))
            }
            Err(ReadError::OutOfRange) => failed(wanted.partition, E::OffsetOutOfRange),
            Err(ReadError::Io(error)) => {
                tracing::error!(%error, topic = partition.topic, partition = partition.index, "a log cannot be read");
                failed(wanted.partition, E::KafkaStorageError)
            }
        }
    }
}

/// Whether the leader epoch a client knows is the one there is; -1 asks for no check.
pub(super) fn check_epoch(epoch: i32) -> Result<(), E> {
    match epoch {
        epoch if epoch > LEADER_EPOCH => Err(E::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

fn answer(index: i32, offsets: &Offsets, version: i16) -> PartitionData {
    let answer = PartitionData::default()
        .with_partition_index(index)
        .with_high_watermark(offsets.high_watermark)
        .with_last_stable_offset(offsets.last_stable);
    if version >= 5 { answer.with_log_start_offset(offsets.log_start) } else { answer }
}

fn failed(index: i32, error: E) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(error.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}

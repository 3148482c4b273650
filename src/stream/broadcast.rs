//! Broadcast inputs: small compacted topics that every task of the process sees whole.
//!
//! One reader per process and topic folds the latest record of each key. Tasks follow at their own pace by sequence
//! number, so a stage sees each change once, in one order, before its next batch.
//!
//! What "read to the end" means is exact: `synced` of a partition is an offset below which every record has been folded.
//! The position alone cannot tell, because compaction and markers leave holes at the end; an end-of-partition event
//! can, when the end was asked for before the fetch that reports it. So the reader, when asked for more than it
//! knows, takes the last stable offset, seeks to its own position and waits for that event (librdkafka drops events
//! from before a seek).

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Admin, ClientError, End, FetchBounds, Logged};
use super::ffi;

/// Why a broadcast input is not current.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BroadcastError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the broadcast topic {topic} cannot be read: {source}")]
    Kafka { topic: String, source: KafkaError },
    #[error("the broadcast topic {topic} was not read to its end in time; help: is the broker healthy?")]
    Late { topic: String },
    #[error("the broadcast topic {topic} holds more than {MAX_KEYS} keys; help: it is for small facts")]
    TooLarge { topic: String },
}

/// A broadcast topic may hold this many keys; past it the stages that read it do not go on.
const MAX_KEYS: usize = 1_000_000;

/// How long the reader sleeps when nothing arrives: bounds how late it notices that somebody waits.
const POLL: Duration = Duration::from_millis(100);

/// The latest record of a key.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub key: Arc<[u8]>,
    pub value: Option<Arc<[u8]>>,
    pub partition: i32,
    pub offset: i64,
}

#[derive(Default)]
struct Inner {
    by_key: BTreeMap<Arc<[u8]>, (u64, Fact)>,
    by_sequence: BTreeMap<u64, Arc<[u8]>>,
    sequence: u64,
    synced: BTreeMap<i32, i64>,
    /// Up to where somebody waits for a partition to be read.
    wanted: BTreeMap<i32, i64>,
}

/// One folded broadcast topic.
pub(crate) struct Broadcast {
    pub topic: String,
    admin: Arc<Admin>,
    inner: Mutex<Inner>,
    progressed: Condvar,
}

impl Broadcast {
    /// `topic` without prefix; nothing is read before [`Broadcast::read`].
    pub fn new(admin: Arc<Admin>, topic: &str) -> Self {
        Self { topic: topic.to_owned(), admin, inner: Mutex::default(), progressed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kafka(&self, source: KafkaError) -> BroadcastError {
        BroadcastError::Kafka { topic: self.topic.clone(), source }
    }

    /// Changes after sequence number `seen`, in order; sets `seen` to the newest.
    pub fn changes(&self, seen: &mut u64) -> Vec<Fact> {
        let inner = self.lock();
        if *seen >= inner.sequence {
            return Vec::new();
        }
        let after = (std::ops::Bound::Excluded(*seen), std::ops::Bound::Unbounded);
        let keys = inner.by_sequence.range(after);
        let found = keys.filter_map(|(_, key)| inner.by_key.get(key).map(|(_, fact)| fact.clone())).collect();
        *seen = inner.sequence;
        found
    }

    /// Waits until the topic is folded up to the end that it has now.
    pub fn catch_up(&self, limit: Duration, interrupted: &dyn Fn() -> bool) -> Result<(), BroadcastError> {
        let places = self.places()?;
        let ends = self.admin.offsets(&places, End::HighWatermark)?;
        let targets: Vec<(i32, i64)> = places.iter().map(|(_, p)| *p).zip(ends).collect();
        let deadline = Instant::now() + limit;
        let mut inner = self.lock();
        loop {
            if inner.by_key.len() > MAX_KEYS {
                return Err(BroadcastError::TooLarge { topic: self.topic.clone() });
            }
            let behind: Vec<_> =
                targets.iter().filter(|(p, end)| inner.synced.get(p).is_none_or(|s| s < end)).copied().collect();
            if behind.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline || interrupted() {
                return Err(BroadcastError::Late { topic: self.topic.clone() });
            }
            for (partition, end) in behind {
                let wanted = inner.wanted.entry(partition).or_insert(end);
                *wanted = end.max(*wanted);
            }
            let waited = self.progressed.wait_timeout(inner, Duration::from_millis(50));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn places(&self) -> Result<Vec<(String, i32)>, ClientError> {
        let described = self.admin.describe(&[&self.topic])?;
        let found = described.first().filter(|d| d.id.is_some()).ok_or_else(|| self.admin.no_topic(&self.topic))?;
        Ok((0..found.partitions).map(|p| (self.topic.clone(), p)).collect())
    }

    /// Reads until `stop`; after an error it has to be called again.
    pub fn read(&self, stop: &dyn Fn() -> bool) -> Result<(), BroadcastError> {
        let consumer = self.open()?;
        let full = self.admin.cluster().topic(&self.topic);
        // Partitions whose end is being confirmed, and the last stable offset that was taken before.
        let mut confirming: BTreeMap<i32, i64> = BTreeMap::new();
        while !stop() {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    self.fold(&message);
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let position = ffi::position(consumer.client(), &full, partition);
                    let end = confirming.remove(&partition).max(position);
                    self.synced(partition, end.unwrap_or(0));
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(self.kafka(error)),
                Some(Err(error)) => tracing::debug!(%error, topic = %self.topic, "the broadcast reader goes on"),
            }
            self.confirm(&consumer, &full, &mut confirming)?;
        }
        Ok(())
    }

    /// A reader of all partitions from their start: after a failure everything is folded again, which changes nothing.
    fn open(&self) -> Result<BaseConsumer<Logged>, BroadcastError> {
        let places = self.places()?;
        let starts = self.admin.offsets(&places, End::Start)?;
        let cluster = self.admin.cluster();
        let bounds = FetchBounds { wait: Duration::from_millis(250), ..FetchBounds::default() };
        let kafka = |source| self.kafka(source);
        let consumer: BaseConsumer<Logged> = cluster.reader(&bounds).create_with_context(Logged).map_err(kafka)?;
        let mut list = TopicPartitionList::with_capacity(places.len());
        for ((topic, partition), start) in places.iter().zip(starts) {
            list.add_partition_offset(&cluster.topic(topic), *partition, Offset::Offset(start)).map_err(kafka)?;
            self.synced(*partition, start);
        }
        consumer.assign(&list).map_err(kafka)?;
        Ok(consumer)
    }

    fn fold(&self, message: &impl Message) {
        let key: Arc<[u8]> = message.key().unwrap_or_default().into();
        let (partition, offset) = (message.partition(), message.offset());
        let fact = Fact { key: Arc::clone(&key), value: message.payload().map(Arc::from), partition, offset };
        let mut inner = self.lock();
        inner.sequence += 1;
        let sequence = inner.sequence;
        if inner.by_key.len() <= MAX_KEYS {
            if let Some((old, _)) = inner.by_key.insert(Arc::clone(&key), (sequence, fact)) {
                inner.by_sequence.remove(&old);
            }
            inner.by_sequence.insert(sequence, key);
        }
        drop(inner);
        self.synced(partition, offset + 1);
    }

    fn synced(&self, partition: i32, next: i64) {
        let mut inner = self.lock();
        let synced = inner.synced.entry(partition).or_insert(0);
        *synced = next.max(*synced);
        let synced = *synced;
        if inner.wanted.get(&partition).is_some_and(|end| *end <= synced) {
            inner.wanted.remove(&partition);
        }
        drop(inner);
        self.progressed.notify_all();
    }

    /// Where somebody waits for an end that is not known to be read: seeks to the present position, so that the end of
    /// the partition is reported once more.
    fn confirm(
        &self,
        consumer: &BaseConsumer<Logged>,
        full: &str,
        confirming: &mut BTreeMap<i32, i64>,
    ) -> Result<(), BroadcastError> {
        let open: Vec<i32> = {
            let inner = self.lock();
            inner.wanted.keys().filter(|p| !confirming.contains_key(p)).copied().collect()
        };
        for partition in open {
            let position = ffi::position(consumer.client(), full, partition).unwrap_or(0);
            self.synced(partition, position);
            let Some((synced, wanted)) = ({
                let inner = self.lock();
                inner.synced.get(&partition).copied().zip(inner.wanted.get(&partition).copied())
            }) else {
                continue;
            };
            let stable = self.admin.offsets(&[(self.topic.clone(), partition)], End::LastStable)?;
            let stable = stable.first().copied().unwrap_or(0);
            if stable >= wanted && stable > synced {
                let sought = consumer.seek(full, partition, Offset::Offset(synced), Duration::from_secs(1));
                if sought.is_ok() {
                    confirming.insert(partition, stable);
                }
            }
        }
        Ok(())
    }
}

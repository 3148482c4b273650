//! Reads committed records of a topic outside any consumer group: for `watch`, `model` and `submit --wait`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::common::Settings;
use super::exit::{Failure, Outcome};
use crate::domain::records::Record;
use crate::stream::client::{FetchBounds, Logged};

/// How long a broker may take to answer a request about metadata.
pub const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Where reading starts.
#[derive(Debug, Clone)]
pub enum Start {
    /// At the oldest record.
    Beginning,
    /// Behind the newest record.
    End,
    /// At these offsets; a partition that is not named starts at its oldest record.
    Offsets(BTreeMap<i32, i64>),
}

/// What a poll brought.
#[derive(Debug)]
pub enum Polled<'a> {
    /// A committed record.
    Record(BorrowedMessage<'a>),
    /// A partition's present end was reached.
    End,
    /// Nothing came in time.
    Nothing,
}

/// A reader of all partitions of a topic, or of some.
pub struct Reader {
    consumer: BaseConsumer<Logged>,
    topic: String,
    unread: BTreeSet<i32>,
}

impl Reader {
    /// Opens a topic; `topic` without prefix.
    ///
    /// # Errors
    /// No broker, or no such topic.
    pub fn open(settings: &Settings, topic: &str, start: &Start) -> Outcome<Self> {
        Self::bounded(settings, topic, start, &FetchBounds::default())
    }

    /// Opens a topic that is read to its present end and no further.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn scan(settings: &Settings, topic: &str, start: &Start) -> Outcome<Self> {
        Self::bounded(settings, topic, start, &FetchBounds::to_end())
    }

    fn bounded(settings: &Settings, topic: &str, start: &Start, bounds: &FetchBounds) -> Outcome<Self> {
        let name = settings.topic(topic);
        let consumer: BaseConsumer<Logged> = settings
            .cluster()
            .reader(bounds)
            // Retention may overtake a reader: it goes on with what is there.
            .set("auto.offset.reset", "earliest")
            .create_with_context(Logged)
            .map_err(|e| Failure::Usage(e.to_string()))?;
        let metadata = consumer.fetch_metadata(Some(&name), METADATA_TIMEOUT).map_err(|e| settings.no_broker(e))?;
        let partitions = metadata.topics().iter().flat_map(|t| t.partitions().iter().map(|p| p.id()));
        let unread: BTreeSet<i32> = partitions.collect();
        if unread.is_empty() {
            return Err(no_topic(&name, settings));
        }
        let mut list = TopicPartitionList::new();
        for partition in &unread {
            let from = match start {
                Start::Beginning => Offset::Beginning,
                Start::End => Offset::End,
                Start::Offsets(offsets) => offsets.get(partition).map_or(Offset::Beginning, |o| Offset::Offset(*o)),
            };
            list.add_partition_offset(&name, *partition, from).map_err(Failure::failed)?;
        }
        consumer.assign(&list).map_err(Failure::failed)?;
        Ok(Self { consumer, topic: name, unread })
    }

    /// Every partition was read to the end that it had when the reader came there.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.unread.is_empty()
    }

    /// The next record, if one comes within `timeout`.
    ///
    /// # Errors
    /// What the client cannot mend by itself; lost connections are logged and waited out.
    pub fn poll(&mut self, timeout: Duration) -> Outcome<Polled<'_>> {
        match self.consumer.poll(timeout) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => Ok(Polled::Record(message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.unread.remove(&partition);
                Ok(Polled::End)
            }
            Some(Err(error)) if is_passing(&error) => {
                tracing::warn!(%error, "the brokers are out of reach; trying on");
                Ok(Polled::Nothing)
            }
            Some(Err(error)) => Err(Failure::because(format!("{}: {error}", self.topic))),
        }
    }

    /// Calls `each` for every record up to the present end.
    ///
    /// # Errors
    /// As [`Reader::poll`], and what `each` returns.
    pub fn for_each_to_end(mut self, mut each: impl FnMut(&BorrowedMessage<'_>) -> Outcome<()>) -> Outcome<()> {
        while !self.at_end() {
            if let Polled::Record(message) = self.poll(Duration::from_millis(200))? {
                each(&message)?;
            }
        }
        Ok(())
    }
}

/// The records of a compacted topic as it has them now, by key.
///
/// # Errors
/// No broker, no topic, or a record that cannot be read.
pub fn latest<R: Record>(settings: &Settings, topic: &str) -> Outcome<BTreeMap<String, R>> {
    let mut latest = BTreeMap::new();
    Reader::scan(settings, topic, &Start::Beginning)?.for_each_to_end(|message| {
        let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        match message.payload() {
            None => latest.remove(&key),
            Some(payload) => latest.insert(key, settings.wire.decode(payload).map_err(Failure::failed)?),
        };
        Ok(())
    })?;
    Ok(latest)
}

/// Present ends of a topic's partitions, as a reader of committed records sees them.
///
/// # Errors
/// No broker, or no such topic.
pub fn ends(settings: &Settings, topic: &str) -> Outcome<BTreeMap<i32, i64>> {
    let admin = settings.cluster().admin().map_err(|e| settings.unreachable(e))?;
    let ends = admin.end_offsets(&[topic]).map_err(|e| settings.unreachable(e))?;
    Ok(ends.into_iter().map(|end| (end.partition, end.end)).collect())
}

/// The same of two topics, asked for one after the other.
///
/// # Errors
/// As [`ends`].
pub fn ends_of_two(settings: &Settings, topics: [&str; 2]) -> Outcome<[BTreeMap<i32, i64>; 2]> {
    let admin = settings.cluster().admin().map_err(|e| settings.unreachable(e))?;
    let of = |topic| -> Outcome<BTreeMap<i32, i64>> {
        let ends = admin.end_offsets(&[topic]).map_err(|e| settings.unreachable(e))?;
        Ok(ends.into_iter().map(|end| (end.partition, end.end)).collect())
    };
    let [first, second] = topics;
    Ok([of(first)?, of(second)?])
}

fn no_topic(name: &str, settings: &Settings) -> Failure {
    Failure::because(format!(
        "there is no topic {name} at {}\nhelp: `hokusai topology` lists the topics, `hokusai topology apply` makes them",
        settings.brokers
    ))
}

/// Connections come and go; the client goes on by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::OperationTimedOut | Code::Resolve)
    )
}

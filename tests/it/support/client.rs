//! A Kafka client that is not ours: librdkafka, with the few verbs that the tests speak in.

use super::broker::Broker;
use super::{DEADLINE, eventually};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Timestamp};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

/// What a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is committed.
    Committed,
    /// Everything.
    Uncommitted,
}

/// One record as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The timestamp and who set it.
    pub timestamp: Timestamp,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}

/// Waits for a future of the admin client.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    });
    RUNTIME.block_on(future)
}

/// Settings for any client of this broker.
pub fn config(broker: &Broker, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.bootstrap).set("topic.metadata.refresh.interval.ms", "500");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

/// Whether a broker answers there.
pub fn answers(bootstrap: &str) -> Result<(), String> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("log_level", "0")
        .create()
        .map_err(|e| e.to_string())?;
    let metadata = client.fetch_metadata(None, Duration::from_secs(2)).map_err(|e| e.to_string())?;
    if metadata.brokers().is_empty() { Err("no broker in the metadata".into()) } else { Ok(()) }
}

/// The admin client.
pub fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    config(broker, &[]).create().expect("an admin client")
}

/// Options for admin requests.
pub fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE))
}

/// Creates a topic of a unique name and waits until it can be written. Records stay for ever unless the settings say otherwise: many
/// tests write times of the past.
pub fn topic(broker: &Broker, base: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
    let name = super::unique(base);
    let mut all = settings.to_vec();
    if !settings.iter().any(|(key, _)| *key == "retention.ms") {
        all.push(("retention.ms", "-1"));
    }
    create_topic(broker, &name, partitions, &all).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    name
}

/// Creates a topic; the broker's error otherwise.
pub fn create_topic(
    broker: &Broker,
    name: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<(), RDKafkaErrorCode> {
    let mut new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        new = new.set(key, value);
    }
    let results = wait(admin(broker).create_topics([&new], &admin_options())).expect("an answer to create topics");
    results.into_iter().next().expect("one result").map_err(|(_, code)| code)?;
    eventually("the new topic's leaders", || {
        let client: BaseConsumer = config(broker, &[]).create().map_err(|e| e.to_string())?;
        let metadata = client.fetch_metadata(Some(name), Duration::from_secs(5)).map_err(|e| e.to_string())?;
        let ready = metadata
            .topics()
            .iter()
            .flat_map(|t| t.partitions())
            .filter(|p| p.leader() >= 0 && p.error().is_none())
            .count();
        if ready == usize::try_from(partitions).unwrap_or(0) { Ok(()) } else { Err(format!("{ready} of {partitions}")) }
    });
    Ok(())
}

/// What became of each record sent, in the order of the broker's answers.
#[derive(Debug, Default)]
pub struct Deliveries(Mutex<Vec<Result<(i32, i64), RDKafkaErrorCode>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        self.0.lock().expect("no panic while it was held").push(result);
    }
}

/// A producer that remembers what became of its records.
pub struct Producer(pub BaseProducer<Deliveries>);

/// A record to send.
#[derive(Debug, Clone, Default)]
pub struct Send<'a> {
    /// The partition, or the client's partitioner.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970, or now.
    pub timestamp: Option<i64>,
    /// Headers.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl Producer {
    /// A plain producer.
    pub fn new(broker: &Broker, settings: &[(&str, &str)]) -> Self {
        let mut config =
            config(broker, &[("linger.ms", "2"), ("message.timeout.ms", "60000"), ("message.max.bytes", "20000000")]);
        for (name, value) in settings {
            config.set(*name, *value);
        }
        Self(config.create_with_context(Deliveries::default()).expect("a producer"))
    }

    /// A transactional producer, initialised.
    pub fn transactional(broker: &Broker, id: &str) -> Self {
        let producer = Self::new(broker, &[("transactional.id", id), ("transaction.timeout.ms", "60000")]);
        producer.0.init_transactions(DEADLINE).unwrap_or_else(|e| panic!("init_transactions({id}): {e}"));
        producer
    }

    /// Queues a record.
    pub fn send(&self, topic: &str, send: &Send<'_>) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic);
        if let Some(partition) = send.partition {
            record = record.partition(partition);
        }
        if let Some(key) = send.key {
            record = record.key(key);
        }
        if let Some(value) = send.value {
            record = record.payload(value);
        }
        if let Some(timestamp) = send.timestamp {
            record = record.timestamp(timestamp);
        }
        if !send.headers.is_empty() {
            let headers = send
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: *value }));
            record = record.headers(headers);
        }
        self.0.send(record).map_err(|(error, _)| error)
    }

    /// Sends texts to one partition and waits for the broker's answers.
    pub fn texts<T: AsRef<str>>(
        &self,
        topic: &str,
        partition: i32,
        texts: impl IntoIterator<Item = T>,
    ) -> Vec<Result<(i32, i64), RDKafkaErrorCode>> {
        for text in texts {
            let send = Send { partition: Some(partition), value: Some(text.as_ref().as_bytes()), ..Send::default() };
            self.send(topic, &send).expect("the queue has room");
        }
        self.settle()
    }

    /// Waits for the broker's answers and takes them.
    pub fn settle(&self) -> Vec<Result<(i32, i64), RDKafkaErrorCode>> {
        let start = Instant::now();
        while self.0.in_flight_count() > 0 {
            assert!(start.elapsed() < DEADLINE, "records without an answer");
            self.0.poll(Duration::from_millis(1));
        }
        self.0.poll(Duration::ZERO);
        std::mem::take(&mut *self.0.context().0.lock().expect("no panic while it was held"))
    }

    /// Begins a transaction.
    pub fn begin(&self) {
        self.0.begin_transaction().expect("a transaction begins");
    }

    /// Commits.
    pub fn commit(&self) -> Result<(), KafkaError> {
        self.0.commit_transaction(DEADLINE)
    }

    /// Aborts.
    pub fn abort(&self) -> Result<(), KafkaError> {
        self.0.abort_transaction(DEADLINE)
    }
}

/// The client says that it lost a broker, or waited for one in vain, and comes back by itself: brokers are stopped here, and machines busy.
pub fn passes(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
        )
    )
}

/// The number of partitions.
pub fn partitions(broker: &Broker, topic: &str) -> usize {
    let client: BaseConsumer = config(broker, &[]).create().expect("a client");
    let metadata = client.fetch_metadata(Some(topic), DEADLINE).unwrap_or_else(|e| panic!("{topic}: {e}"));
    metadata.topics().iter().map(|t| t.partitions().len()).sum()
}

/// All records of a topic from its beginning to its present end (of the last stable offset for a committed reader), by partition and offset.
pub fn read(broker: &Broker, topic: &str, isolation: Isolation) -> Vec<Record> {
    let count = partitions(broker, topic);
    assert!(count > 0, "{topic} is not there");
    let level = if isolation == Isolation::Committed { "read_committed" } else { "read_uncommitted" };
    let consumer: BaseConsumer = config(
        broker,
        &[
            ("group.id", &super::unique("reader")),
            ("isolation.level", level),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("fetch.wait.max.ms", "50"),
            ("check.crcs", "true"),
        ],
    )
    .create()
    .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..count {
        assignment
            .add_partition_offset(topic, i32::try_from(partition).expect("few partitions"), Offset::Beginning)
            .expect("a valid offset");
    }
    consumer.assign(&assignment).expect("an assignment");
    let (mut records, mut open) =
        (Vec::new(), (0..count).map(|p| i32::try_from(p).expect("few")).collect::<BTreeSet<_>>());
    let start = Instant::now();
    while !open.is_empty() {
        assert!(start.elapsed() < DEADLINE, "{topic}: no end reached in partitions {open:?}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(Record::of(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => assert!(passes(&error), "{topic}: {error}"),
            None => {}
        }
    }
    records.sort_by_key(|r| (r.partition, r.offset));
    records
}

/// The values of [`read`] by partition and offset.
pub fn read_values(
    broker: &Broker,
    topic: &str,
    isolation: Isolation,
) -> std::collections::BTreeMap<(i32, i64), Vec<u8>> {
    let records = read(broker, topic, isolation).into_iter();
    records.map(|record| ((record.partition, record.offset), record.value.unwrap_or_default())).collect()
}

/// The texts of [`read`].
pub fn read_texts(broker: &Broker, topic: &str, isolation: Isolation) -> Vec<String> {
    read(broker, topic, isolation).iter().map(Record::text).collect()
}

/// First and next offset of a partition (of all records, committed or not).
pub fn watermarks(broker: &Broker, topic: &str, partition: i32) -> (i64, i64) {
    let client: BaseConsumer = config(broker, &[]).create().expect("a client");
    client.fetch_watermarks(topic, partition, DEADLINE).unwrap_or_else(|e| panic!("{topic}-{partition}: {e}"))
}

//! The broker as a real client (librdkafka) sees it.

mod clients;
mod conformance;
mod durability;
mod groups;
mod hostile;
mod logs;
mod raw;
mod transactions;

use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Broker, BrokerConfig};

/// Nothing in these tests takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker with its runtime and folder.
struct Cluster {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    broker: Option<Broker>,
    adjust: fn(&mut BrokerConfig),
}

impl Cluster {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(adjust: fn(&mut BrokerConfig)) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut cluster = Self { folder: tempfile::tempdir().unwrap(), runtime, broker: None, adjust };
        cluster.up();
        cluster
    }

    fn config(&self) -> BrokerConfig {
        let mut config = BrokerConfig::new(self.folder.path(), "127.0.0.1:0".parse().unwrap());
        (self.adjust)(&mut config);
        config
    }

    fn up(&mut self) {
        self.broker = Some(self.runtime.block_on(Broker::start(self.config())).unwrap());
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    fn restart(&mut self) {
        let broker = self.broker.take().unwrap();
        self.runtime.block_on(broker.shutdown());
        self.up();
    }

    fn lose_power_and_restart(&mut self) {
        let broker = self.broker.take().unwrap();
        self.runtime.block_on(broker.lose_power()).unwrap();
        self.up();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn client(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.broker().address().to_string());
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client(&[]).create().unwrap()
    }

    fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        let results = self.runtime.block_on(self.admin().create_topics(&[topic], &AdminOptions::new())).unwrap();
        results[0].as_ref().unwrap();
    }

    fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        self.client(&[("linger.ms", "1"), ("enable.idempotence", "true")]).extend_with(settings).create().unwrap()
    }

    fn transactional(&self, id: &str) -> BaseProducer {
        let producer = self.producer(&[("transactional.id", id), ("transaction.timeout.ms", "10000")]);
        producer.init_transactions(PATIENCE).unwrap();
        producer
    }

    fn consumer(&self, settings: &[(&str, &str)]) -> BaseConsumer {
        let defaults = [
            ("group.id", "g"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "100"),
            ("enable.partition.eof", "true"),
        ];
        self.client(&defaults).extend_with(settings).create().unwrap()
    }

    /// Everything a reader sees of one partition, up to its end: offset, key, value.
    fn read_all(&self, topic: &str, partition: i32, isolation: &str) -> Vec<(i64, String, String)> {
        let consumer = self.consumer(&[("isolation.level", isolation)]);
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let mut found = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the end of {topic}/{partition} was not reached");
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return found,
                Some(Err(error)) => panic!("{error}"),
                Some(Ok(message)) => found.push((message.offset(), shown(message.key()), shown(message.payload()))),
            }
        }
    }

    fn values(&self, topic: &str, isolation: &str) -> Vec<String> {
        self.read_all(topic, 0, isolation).into_iter().map(|(_, _, value)| value).collect()
    }

    fn watermarks(&self, topic: &str) -> (i64, i64) {
        self.consumer(&[]).fetch_watermarks(topic, 0, PATIENCE).unwrap()
    }
}

trait Extend {
    fn extend_with(self, settings: &[(&str, &str)]) -> Self;
}

impl Extend for ClientConfig {
    fn extend_with(mut self, settings: &[(&str, &str)]) -> Self {
        for (key, value) in settings {
            self.set(*key, *value);
        }
        self
    }
}

fn shown(bytes: Option<&[u8]>) -> String {
    bytes.map_or("-".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn send(producer: &BaseProducer, topic: &str, key: &str, value: &str) {
    producer.send(BaseRecord::to(topic).partition(0).key(key).payload(value)).map_err(|(error, _)| error).unwrap();
}

/// Waits until everything sent is delivered.
fn drain(producer: &BaseProducer) {
    let deadline = Instant::now() + PATIENCE;
    while producer.in_flight_count() > 0 {
        assert!(Instant::now() < deadline, "not delivered in time");
        producer.poll(Duration::from_millis(1));
    }
}

/// Aborts as a client has to: what is under way first.
fn abort(producer: &BaseProducer) {
    drain(producer);
    producer.abort_transaction(PATIENCE).unwrap();
}

/// Polls until `done` says so.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! How Hokusai talks to a Kafka cluster: one place that knows the settings of every client.
//!
//! Settings that the exactly-once guarantee rests on are applied last: pass-through settings cannot weaken them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::ffi;
pub use super::ffi::{Description, End};

/// How long one question to the cluster may take before it is asked again or given up.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the cluster could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A setting was refused by librdkafka.
    #[error(
        "a Kafka client cannot be created: {source}; help: check --brokers and the pass-through settings (--kafka NAME=VALUE)"
    )]
    Create {
        /// What librdkafka says.
        source: KafkaError,
    },
    /// No broker answered, or it refused the question.
    #[error("{brokers} did not answer ({what}): {source}; help: is a broker running there? try `hokusai doctor`")]
    Ask {
        /// What was asked.
        what: &'static str,
        /// Whom.
        brokers: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// A topic does not exist.
    #[error("the topic {topic} does not exist on {brokers}; help: run `hokusai topology apply`")]
    NoTopic {
        /// Full name.
        topic: String,
        /// Where it was looked for.
        brokers: String,
    },
    /// A topic could not be created.
    #[error("the topic {topic} cannot be created: {code}; help: check the broker's limits and permissions")]
    NotCreated {
        /// Full name.
        topic: String,
        /// What the broker says.
        code: RDKafkaErrorCode,
    },
}

impl ClientError {
    /// No broker could be reached at all (exit code 3 of the command line).
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        let Self::Ask { source, .. } = self else { return false };
        matches!(
            source.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::RequestTimedOut
            )
        ) || matches!(source, KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))
    }
}

/// How much a consumer may prefetch.
#[derive(Debug, Clone)]
pub struct FetchBounds {
    /// `queued.max.messages.kbytes`: per partition when partition queues are split, else for the whole consumer.
    pub queue_kbytes: u32,
    /// `queued.min.messages`: fetch more while fewer than this are queued.
    pub queue_messages: u32,
    /// `fetch.wait.max.ms`: how long the broker holds an empty fetch; records end the wait at once.
    pub wait: Duration,
}

impl Default for FetchBounds {
    fn default() -> Self {
        Self { queue_kbytes: 8 * 1024, queue_messages: 10_000, wait: Duration::from_millis(500) }
    }
}

impl FetchBounds {
    /// Of a reader that stops at the present end: the broker says that it is there after one fetch that finds nothing, so the wait of
    /// that fetch is what such a reader costs at least.
    #[must_use]
    pub fn to_end() -> Self {
        Self { wait: Duration::from_millis(20), ..Self::default() }
    }
}

/// Times of a transactional producer.
#[derive(Debug, Clone)]
pub struct TransactionTimes {
    /// `transaction.timeout.ms`: the broker aborts a transaction whose owner is silent for so long.
    pub timeout: Duration,
}

impl Default for TransactionTimes {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10) }
    }
}

/// A Kafka cluster as one tenant sees it.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Prefix of topics, groups and transactional ids; empty by default. One tenant = one prefix.
    pub prefix: String,
    /// librdkafka settings passed through (SASL, TLS).
    pub kafka: Vec<(String, String)>,
}

impl Cluster {
    /// A cluster without pass-through settings.
    #[must_use]
    pub fn new(brokers: &str, prefix: &str) -> Self {
        Self { brokers: brokers.to_owned(), prefix: prefix.to_owned(), kafka: Vec::new() }
    }

    /// Full name of a topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Name of a topic without prefix.
    #[must_use]
    pub fn plain<'t>(&self, topic: &'t str) -> &'t str {
        topic.strip_prefix(&self.prefix).unwrap_or(topic)
    }

    /// Name of a stage's consumer group, and the start of its transactional ids.
    #[must_use]
    pub fn group(&self, stage: &str) -> String {
        format!("{}hokusai-{stage}", self.prefix)
    }

    /// What every client of the cluster is configured with.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "hokusai")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "1000")
            .set("retry.backoff.ms", "10")
            .set("retry.backoff.max.ms", "500")
            .set("log.connection.close", "false");
        for (name, value) in &self.kafka {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers).set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// A `read_committed` consumer that never commits on its own, stops with an error where its offset is gone, and
    /// reports the end of a partition. For manual `assign` as well as for `subscribe`.
    #[must_use]
    pub fn consumer(&self, group: &str, bounds: &FetchBounds) -> ClientConfig {
        let mut config = self.client_config();
        config
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", bounds.wait.as_millis().to_string())
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.max.messages.kbytes", bounds.queue_kbytes.to_string())
            .set("queued.min.messages", bounds.queue_messages.to_string());
        config
    }

    /// A reader outside of any group: assign it by hand.
    #[must_use]
    pub fn reader(&self, bounds: &FetchBounds) -> ClientConfig {
        self.consumer(&self.group("reader"), bounds)
    }

    /// An idempotent producer; with a transactional id, one for exactly-once.
    #[must_use]
    pub fn producer(&self, transactional_id: Option<&str>, times: &TransactionTimes) -> ClientConfig {
        let mut config = self.client_config();
        let timeout = times.timeout.as_millis().to_string();
        config
            .set("linger.ms", "0")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.kbytes", "65536")
            .set("message.timeout.ms", &timeout)
            .set("enable.idempotence", "true")
            .set("acks", "all");
        if let Some(id) = transactional_id {
            config.set("transactional.id", id).set("transaction.timeout.ms", &timeout);
        }
        config
    }

    /// A client for questions and for the creation of topics.
    ///
    /// # Errors
    /// When a setting is refused.
    pub fn admin(&self) -> Result<Admin, ClientError> {
        let client =
            self.client_config().create_with_context(Logged).map_err(|source| ClientError::Create { source })?;
        Ok(Admin { cluster: self.clone(), client })
    }
}

/// Takes librdkafka's log lines into `tracing`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Logged {}

pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(target: "hokusai::kafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "hokusai::kafka", facility, "{message}"),
    }
}

pub(crate) fn log_error(error: &KafkaError, reason: &str) {
    // The end of a partition comes this way too: it is no error.
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
        return;
    }
    tracing::debug!(target: "hokusai::kafka", %error, "{reason}");
}

/// First readable and end offset of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionEnds {
    /// Topic without prefix.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// First offset that can still be read.
    pub start: i64,
    /// One past the last record.
    pub end: i64,
}

fn is_about_leaders(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::FencedLeaderEpoch | Code::UnknownLeaderEpoch
        )
    ) || matches!(error, KafkaError::AdminOp(Code::NotLeaderForPartition | Code::LeaderNotAvailable))
}

/// Asks a cluster about topics and offsets, and creates topics. Blocking.
pub struct Admin {
    cluster: Cluster,
    client: AdminClient<Logged>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("brokers", &self.cluster.brokers).finish_non_exhaustive()
    }
}

impl Admin {
    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// rdkafka's own admin client, for what is not wrapped here.
    #[must_use]
    pub fn client(&self) -> &AdminClient<Logged> {
        &self.client
    }

    fn ask<T>(&self, what: &'static str, answer: Result<T, KafkaError>) -> Result<T, ClientError> {
        answer.map_err(|source| ClientError::Ask { what, brokers: self.cluster.brokers.clone(), source })
    }

    /// Ids and partition counts of topics (names without prefix, descriptions with); missing topics have no id.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn describe(&self, topics: &[&str]) -> Result<Vec<Description>, ClientError> {
        let names: Vec<String> = topics.iter().map(|t| self.cluster.topic(t)).collect();
        self.ask("describe topics", ffi::describe_topics(self.client.inner(), &names, ASK_TIMEOUT))
    }

    /// Offsets of one end of each partition (topics without prefix), in the order asked for.
    ///
    /// # Errors
    /// When no broker answers or a partition does not exist.
    pub fn offsets(&self, partitions: &[(String, i32)], end: End) -> Result<Vec<i64>, ClientError> {
        Ok(self.list(partitions, end)?.into_iter().map(|(offset, _)| offset).collect())
    }

    /// When the oldest record of each partition was appended, in milliseconds, as its topic's timestamps say; none for empty ones.
    ///
    /// # Errors
    /// As [`Admin::offsets`].
    pub fn oldest(&self, partitions: &[(String, i32)]) -> Result<Vec<Option<i64>>, ClientError> {
        let found = self.list(partitions, End::Since(0))?;
        Ok(found.into_iter().map(|(offset, time)| (offset >= 0 && time >= 0).then_some(time)).collect())
    }

    fn list(&self, partitions: &[(String, i32)], end: End) -> Result<Vec<(i64, i64)>, ClientError> {
        let full: Vec<(String, i32)> = partitions.iter().map(|(t, p)| (self.cluster.topic(t), *p)).collect();
        let deadline = Instant::now() + ASK_TIMEOUT;
        let mut refreshed = false;
        loop {
            match ffi::list_offsets(self.client.inner(), &full, end, ASK_TIMEOUT) {
                // A new topic's leaders, or those of a broker that has just gone, are known a moment later.
                Err(error) if is_about_leaders(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                // The client remembers a topic as it was before it grew, and would for minutes.
                Err(KafkaError::AdminOp(RDKafkaErrorCode::UnknownPartition)) if !refreshed => {
                    refreshed = true;
                    let topics: BTreeSet<&str> = full.iter().map(|(topic, _)| topic.as_str()).collect();
                    for topic in topics {
                        self.ask("metadata", self.client.inner().fetch_metadata(Some(topic), ASK_TIMEOUT))?;
                    }
                }
                answer => return self.ask("list offsets", answer),
            }
        }
    }

    /// First and end offsets (for a `read_committed` reader) of all partitions of topics; names without prefix.
    ///
    /// # Errors
    /// When no broker answers or a topic does not exist.
    pub fn end_offsets(&self, topics: &[&str]) -> Result<Vec<PartitionEnds>, ClientError> {
        let described = self.describe(topics)?;
        let mut places = Vec::new();
        for (name, description) in topics.iter().zip(&described) {
            if description.id.is_none() {
                return Err(self.no_topic(name));
            }
            places.extend((0..description.partitions).map(|p| ((*name).to_owned(), p)));
        }
        let starts = self.offsets(&places, End::Start)?;
        let ends = self.offsets(&places, End::LastStable)?;
        let ends = places.into_iter().zip(starts.into_iter().zip(ends));
        Ok(ends.map(|((topic, partition), (start, end))| PartitionEnds { topic, partition, start, end }).collect())
    }

    pub(crate) fn no_topic(&self, name: &str) -> ClientError {
        ClientError::NoTopic { topic: self.cluster.topic(name), brokers: self.cluster.brokers.clone() }
    }

    /// Creates those of the topics that do not exist: name without prefix, partitions, settings. Existing topics stay
    /// as they are.
    ///
    /// # Errors
    /// When no broker answers or a topic is refused.
    pub async fn ensure_topics(&self, topics: &[(&str, i32, BTreeMap<&str, String>)]) -> Result<(), ClientError> {
        let names: Vec<String> = topics.iter().map(|(name, ..)| self.cluster.topic(name)).collect();
        let wanted: Vec<NewTopic<'_>> = topics
            .iter()
            .zip(&names)
            .map(|((_, partitions, settings), name)| {
                let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(-1));
                settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(ASK_TIMEOUT)).request_timeout(Some(ASK_TIMEOUT));
        let results = self.client.create_topics(&wanted, &options).await;
        for result in self.ask("create topics", results)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(ClientError::NotCreated { topic, code }),
            }
        }
        Ok(())
    }
}

//! A task's transactional producer, and what its errors mean.
//!
//! One commit, in this order; a fail point stands between any two steps:
//!
//! ```text
//! begin → send outputs … → [commit.before] → wait for every delivery → [commit.after_produce]
//!       → send offsets (group metadata taken now) → [commit.after_offsets] → commit → [commit.after]
//! ```
//!
//! Waiting is a loop of `poll(0)` and short sleeps until nothing is in flight: `flush` polls in slices of 100 ms and would make
//! every commit cost that much. An abort first waits for what is in flight too, because `abort_transaction` does not
//! serve the queue. All calls block: they belong on the task's own thread.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::util::Timeout;

use super::client::{ClientError, Cluster, TransactionTimes, log_error, log_line};

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// Do the same again: nothing happened.
    Retry,
    /// Abort the transaction and process its batches again: the cause lies outside of them.
    AbortTransaction,
    /// Abort, and look for the record that caused it.
    DeadLetter,
    /// Somebody else owns the task now: end it. A normal event.
    Fenced,
    /// This producer is unusable: start the task anew from what is committed.
    Fatal,
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
}

fn is_about_a_record(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp
    )
}

/// Classifies an error of a producer call or of a delivery.
pub(crate) fn classify(error: &KafkaError) -> ErrorClass {
    if let KafkaError::Transaction(error) = error {
        return classify_transaction(error.code(), error.is_fatal(), error.is_retriable(), error.txn_requires_abort());
    }
    match error.rdkafka_error_code() {
        Some(code) if is_about_a_record(code) => ErrorClass::DeadLetter,
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced) => ErrorClass::Fenced,
        Some(RDKafkaErrorCode::QueueFull) => ErrorClass::Retry,
        Some(RDKafkaErrorCode::Fatal) | None => ErrorClass::Fatal,
        Some(_) => ErrorClass::AbortTransaction,
    }
}

/// Fencing can come as a fatal error, or as one that asks for an abort which then fails: only the fatal one is final.
fn classify_transaction(code: RDKafkaErrorCode, fatal: bool, retriable: bool, abort: bool) -> ErrorClass {
    match (fatal, retriable, abort) {
        (true, ..) if is_fenced(code) => ErrorClass::Fenced,
        (true, ..) => ErrorClass::Fatal,
        (_, true, _) => ErrorClass::Retry,
        (.., true) if is_about_a_record(code) => ErrorClass::DeadLetter,
        (.., true) => ErrorClass::AbortTransaction,
        _ if is_fenced(code) => ErrorClass::Fenced,
        _ => ErrorClass::Fatal,
    }
}

/// A failed step of a transaction.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct ProduceError {
    pub step: &'static str,
    pub class: ErrorClass,
    pub source: KafkaError,
}

/// Remembers the first delivery of a transaction that failed, and how far the task's own log was written.
#[derive(Default)]
struct Deliveries {
    first_error: Mutex<Option<KafkaError>>,
    /// Offset after the last record of the changelog that was delivered; 0 before the first.
    log_end: AtomicI64,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    /// 1 for records of the changelog.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, to_log: usize) {
        match result {
            Ok(message) if to_log == 1 => {
                self.log_end.fetch_max(message.offset().saturating_add(1), Ordering::AcqRel);
            }
            Ok(_) => {}
            Err((error, _)) => {
                let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// Whether the caller must stop waiting for the broker.
pub(crate) type Interrupted<'a> = &'a dyn Fn() -> bool;

/// How long one blocking call waits before the caller is asked whether to go on.
const SLICE: Duration = Duration::from_secs(1);

/// Serves the producer, then sleeps: shortly at first, for lone records, and longer under load. rdkafka's own `poll(1 ms)`
/// would not sleep at all: it asks librdkafka to wait for the whole milliseconds that are left, which are none, until
/// the time is over (measured: a tenth of all CPU under load).
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_micros(50))
    }
}

impl Pause {
    const LONGEST: Duration = Duration::from_micros(800);

    fn take(&mut self, producer: &BaseProducer<Deliveries>) {
        producer.poll(Timeout::After(Duration::ZERO));
        if producer.in_flight_count() > 0 {
            std::thread::sleep(self.0);
            self.0 = (self.0 * 2).min(Self::LONGEST);
        }
    }
}

/// A transactional producer; at most one transaction is open.
pub(crate) struct TxnProducer {
    producer: BaseProducer<Deliveries>,
    message_timeout: Duration,
    some_topic: String,
    /// Full name of the changelog.
    log: Option<String>,
}

impl TxnProducer {
    /// Creates the producer; it is of no use before [`TxnProducer::init`]. `log` is the full name of the task's changelog.
    pub fn create(
        cluster: &Cluster,
        id: &str,
        times: &TransactionTimes,
        log: Option<String>,
    ) -> Result<Self, ClientError> {
        let producer = cluster
            .producer(Some(id), times)
            .create_with_context(Deliveries::default())
            .map_err(|source| ClientError::Create { source })?;
        let some_topic = cluster.topic(crate::domain::topics::DEAD_LETTERS);
        Ok(Self { producer, message_timeout: times.timeout, some_topic, log })
    }

    fn fail(&self, step: &'static str, source: KafkaError) -> ProduceError {
        let mut class = classify(&source);
        if let Some((code, _)) = self.producer.client().fatal_error() {
            class = if is_fenced(code) { ErrorClass::Fenced } else { ErrorClass::Fatal };
        }
        ProduceError { step, class, source }
    }

    /// Repeats a call while its error says that this helps and the caller does not interrupt.
    fn retry(
        &self,
        step: &'static str,
        interrupted: Interrupted<'_>,
        mut call: impl FnMut() -> Result<(), KafkaError>,
    ) -> Result<(), ProduceError> {
        loop {
            let Err(source) = call() else { return Ok(()) };
            let error = self.fail(step, source);
            if error.class != ErrorClass::Retry || interrupted() {
                return Err(error);
            }
            tracing::debug!(step, error = %error.source, "again");
            self.producer.poll(Duration::from_millis(20));
        }
    }

    /// Fences the predecessor and ends its open transaction.
    pub fn init(&self, interrupted: Interrupted<'_>) -> Result<(), ProduceError> {
        // Without a connection librdkafka looks for the coordinator in vain and then only every 500 ms. This waits
        // for the connection; its answer does not matter.
        let metadata = self.producer.client().fetch_metadata(Some(&self.some_topic), SLICE);
        tracing::trace!(connected = metadata.is_ok(), "before init_transactions");
        self.retry("init_transactions", interrupted, || self.producer.init_transactions(SLICE))
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), ProduceError> {
        self.first_error().take();
        self.producer.begin_transaction().map_err(|e| self.fail("begin_transaction", e))
    }

    fn first_error(&self) -> std::sync::MutexGuard<'_, Option<KafkaError>> {
        self.producer.context().first_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a record; waits while the local queue is full.
    pub fn send(&self, topic: &str, partition: i32, key: &[u8], value: Option<&[u8]>) -> Result<(), ProduceError> {
        let to_log = usize::from(self.log.as_deref() == Some(topic));
        let mut record = BaseRecord::with_opaque_to(topic, to_log).partition(partition).key(key);
        record.payload = value;
        let deadline = Instant::now() + self.message_timeout;
        let mut pause = Pause::default();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((source, again)) => {
                    let error = self.fail("produce", source);
                    if error.class != ErrorClass::Retry || Instant::now() > deadline {
                        return Err(error);
                    }
                    pause.take(&self.producer);
                    record = again;
                }
            }
        }
    }

    /// Waits until nothing is in flight: at most until the deliveries time out.
    fn drain(&self) {
        let deadline = Instant::now() + self.message_timeout + SLICE;
        let mut pause = Pause::default();
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            pause.take(&self.producer);
        }
    }

    /// Waits for all deliveries.
    pub fn delivered(&self) -> Result<(), ProduceError> {
        self.drain();
        match self.first_error().take() {
            Some(source) => Err(self.fail("delivery", source)),
            None if self.producer.in_flight_count() > 0 => {
                Err(self.fail("delivery", KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)))
            }
            None => Ok(()),
        }
    }

    /// Adds the inputs' offsets to the transaction.
    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        interrupted: Interrupted<'_>,
    ) -> Result<(), ProduceError> {
        self.retry("send_offsets_to_transaction", interrupted, || {
            self.producer.send_offsets_to_transaction(offsets, group, SLICE)
        })
    }

    /// Commits. All deliveries must be in: see [`TxnProducer::delivered`].
    pub fn commit(&self, interrupted: Interrupted<'_>) -> Result<(), ProduceError> {
        self.retry("commit_transaction", interrupted, || self.producer.commit_transaction(SLICE))
    }

    /// Aborts: forgets what was not sent yet, waits for what was, then aborts.
    pub fn abort(&self, interrupted: Interrupted<'_>) -> Result<(), ProduceError> {
        self.producer.purge(PurgeConfig::default().queue());
        self.drain();
        self.retry("abort_transaction", interrupted, || self.producer.abort_transaction(SLICE))
    }

    /// Offset after the last record of the changelog that was delivered; 0 before the first.
    pub fn log_end(&self) -> i64 {
        self.producer.context().log_end.load(Ordering::Acquire)
    }

    /// Serves log lines and errors while the task is idle.
    pub fn serve(&self) {
        self.producer.poll(Timeout::After(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fencing_is_told_apart_from_what_an_abort_or_a_retry_heals() {
        use RDKafkaErrorCode as Code;
        for (code, fatal, retriable, abort, class) in [
            (Code::Fenced, true, false, false, ErrorClass::Fenced),
            (Code::ProducerFenced, true, false, false, ErrorClass::Fenced),
            (Code::InvalidProducerEpoch, false, false, true, ErrorClass::AbortTransaction),
            (Code::InvalidProducerIdMapping, false, false, true, ErrorClass::AbortTransaction),
            (Code::InvalidProducerIdMapping, true, false, false, ErrorClass::Fatal),
            (Code::IllegalGeneration, false, false, true, ErrorClass::AbortTransaction),
            (Code::OperationTimedOut, false, true, false, ErrorClass::Retry),
            (Code::MessageSizeTooLarge, false, false, true, ErrorClass::DeadLetter),
            (Code::State, false, false, false, ErrorClass::Fatal),
        ] {
            assert_eq!(classify_transaction(code, fatal, retriable, abort), class, "{code:?}");
        }
    }

    #[test]
    fn a_delivery_is_blamed_on_the_record_only_when_the_record_is_to_blame() {
        let class = |code| classify(&KafkaError::MessageProduction(code));
        assert_eq!(class(RDKafkaErrorCode::MessageSizeTooLarge), ErrorClass::DeadLetter);
        assert_eq!(class(RDKafkaErrorCode::MessageTimedOut), ErrorClass::AbortTransaction);
        assert_eq!(class(RDKafkaErrorCode::QueueFull), ErrorClass::Retry);
        assert_eq!(class(RDKafkaErrorCode::Fenced), ErrorClass::Fenced);
    }
}

//! A stage's group consumer: rebalance events are noted in a mailbox, and the stage's own thread acts on them.
//!
//! Each assigned partition gets a queue of its own, so that a task reads without a detour and librdkafka stops
//! fetching a partition whose task is behind (`queued.max.messages.kbytes` then counts per partition).
//!
//! Invariants:
//! * the rebalance callback never blocks and never assigns: it only notes; while closing it just lets go;
//! * after `assign` every partition is paused before anything can be read; a task seeks to where it starts and then
//!   resumes, so no record can be read from a wrong offset or through the wrong queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::client::{ClientError, Cluster, FetchBounds, log_error, log_line};

/// What the group told this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupEvent {
    /// These partitions (full topic names) are yours now.
    Assigned(Vec<(String, i32)>),
    /// Give all partitions back.
    Revoked,
}

/// Notes what the group says.
#[derive(Default)]
pub(crate) struct GroupContext {
    mailbox: Mutex<VecDeque<GroupEvent>>,
    closing: AtomicBool,
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Acquire) {
            if let Err(error) = consumer.unassign() {
                tracing::debug!(%error, "unassign while closing");
            }
            return;
        }
        let event = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                GroupEvent::Assigned(list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect())
            }
            _ => GroupEvent::Revoked,
        };
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }
}

/// Wakes a task: a partition has records, or the stage has a command.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub fn raise(&self) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits until raised or for `timeout`, and lowers it.
    pub fn wait(&self, timeout: Duration) {
        let guard = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(guard, timeout, |raised| !*raised);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

pub(crate) type Queue = PartitionQueue<GroupContext>;

/// The consumer of one stage in one process.
pub(crate) struct GroupConsumer {
    consumer: Arc<BaseConsumer<GroupContext>>,
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        // Should a stuck task still hold the consumer, the group must not wait for it.
        self.consumer.context().closing.store(true, Ordering::Release);
        self.consumer.unsubscribe();
    }
}

impl GroupConsumer {
    /// Joins the stage's group; topics by full name.
    pub fn join(
        cluster: &Cluster,
        stage: &str,
        topics: &[String],
        instance: Option<&str>,
        bounds: &FetchBounds,
    ) -> Result<Self, ClientError> {
        let mut config = cluster.consumer(&cluster.group(stage), bounds);
        config
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "500")
            // New partitions of outsiders' topics are read this soon; a keyed topic that grew is noticed by the supervisor.
            .set("topic.metadata.refresh.interval.ms", "5000");
        if let Some(instance) = instance {
            config.set("group.instance.id", format!("{instance}-{stage}"));
        }
        let create = |source| ClientError::Create { source };
        let consumer: BaseConsumer<GroupContext> =
            config.create_with_context(GroupContext::default()).map_err(create)?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(create)?;
        Ok(Self { consumer: Arc::new(consumer) })
    }

    /// Serves the group for up to `timeout`: notes rebalances, returns errors of the consumer as a whole.
    pub fn serve(&self, timeout: Duration) -> Result<(), KafkaError> {
        match self.consumer.poll(timeout) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(()),
            // Before the partition queues are split nothing can be read: everything is paused.
            Some(Ok(message)) => {
                use rdkafka::Message;
                tracing::debug!(topic = message.topic(), offset = message.offset(), "a record outside of its queue");
                Ok(())
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// The oldest unread event.
    pub fn event(&self) -> Option<GroupEvent> {
        self.consumer.context().mailbox.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Takes partitions over, paused; `starts` are the first offsets of their logs. Logical offsets would not do: the
    /// answer to librdkafka's question for their value can overtake the task's seek and undo it.
    pub fn take(&self, partitions: &[(String, i32)], starts: &[i64]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for ((topic, partition), start) in partitions.iter().zip(starts) {
            list.add_partition_offset(topic, *partition, Offset::Offset(*start))?;
        }
        self.consumer.assign(&list)?;
        self.consumer.pause(&list)
    }

    /// Gives each partition a queue of its own.
    pub fn queues(&self, partitions: &[(&str, i32)]) -> Result<Vec<Queue>, KafkaError> {
        partitions
            .iter()
            .map(|(topic, partition)| {
                let missing = || KafkaError::Subscription(format!("{topic}-{partition} has no queue"));
                self.consumer.split_partition_queue(topic, *partition).ok_or_else(missing)
            })
            .collect()
    }

    /// Gives all partitions back to the group.
    pub fn let_go(&self) -> Result<(), KafkaError> {
        self.consumer.unassign()
    }

    /// A handle for a task.
    pub fn handle(&self) -> ConsumerHandle {
        ConsumerHandle(Arc::clone(&self.consumer))
    }
}

/// What a task may do with its stage's consumer.
#[derive(Clone)]
pub(crate) struct ConsumerHandle(Arc<BaseConsumer<GroupContext>>);

impl ConsumerHandle {
    /// Starts reading a partition at `offset`.
    pub fn start(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        let deadline = Instant::now() + Duration::from_secs(10);
        // Right after `assign` the partition may not have been started by librdkafka's own thread yet.
        while let Err(error) = self.0.seek(topic, partition, Offset::Offset(offset), Duration::from_secs(2)) {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, partition);
        self.0.resume(&list)
    }

    /// The inner consumer, for group metadata and positions.
    pub fn consumer(&self) -> &BaseConsumer<GroupContext> {
        &self.0
    }

    /// Offsets that the group has committed; `None` for those it has not.
    pub fn committed(&self, partitions: &[(String, i32)]) -> Result<Vec<Option<i64>>, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let committed = self.0.committed_offsets(list, Duration::from_secs(5))?;
        let find = |(topic, partition): &(String, i32)| match committed.find_partition(topic, *partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok(partitions.iter().map(find).collect())
    }
}

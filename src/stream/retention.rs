//! Plaintext that waits: an alert when the oldest record of a topic reaches half of the topic's hard limit.
//!
//! A purged topic is purged behind its readers; its `retain` only bounds how long plaintext lies there when nobody reads. Past it
//! contributions are deleted unread, so at half of it somebody is told: by a record on `alerts`, a metric, and `hokusai doctor`.
//!
//! Invariants:
//! * an alert is an observed fact, recorded once: whoever tells fences every other process first, then reads what was told,
//!   and writes in a transaction. Nothing is kept in memory that a restart would lose;
//! * a backlog is told of once: again only when the oldest record is one that was appended after the last alert.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Admin, ClientError, FetchBounds, Logged, TransactionTimes};
use super::metrics::OLDEST;
use super::partitioner::partition_of;
use super::producer::{ProduceError, TxnProducer};
use crate::codec::wire::{Wire, WireError};
use crate::domain::records::Alert;
use crate::domain::topics::ALERTS;
use crate::topology::{Cleanup, Topology};

/// How long the alerts may take to be read.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Kind of these alerts.
const KIND: &str = "lag";

/// The oldest record of a partition whose topic has a hard limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    /// Topic without prefix.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// When the record was appended, in milliseconds; none when the partition is empty.
    pub appended: Option<i64>,
    /// The topic's hard limit.
    pub retain: Duration,
}

impl Oldest {
    /// How old the record is at `now` (milliseconds); zero without a record.
    #[must_use]
    pub fn age(&self, now: i64) -> Duration {
        let age = self.appended.map_or(0, |appended| now.saturating_sub(appended));
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }

    /// Half of the limit is over.
    #[must_use]
    pub fn is_late(&self, now: i64) -> bool {
        self.appended.is_some() && self.age(now) >= self.retain / 2
    }

    /// Late, and not told of yet: the last alert, if any, is older than the record.
    fn is_news(&self, now: i64, told: Option<i64>) -> bool {
        self.is_late(now) && told.is_none_or(|told| self.appended.is_some_and(|appended| appended > told))
    }

    fn subject(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    fn alert(&self, now: i64) -> Alert {
        Alert {
            subject: self.subject(),
            severity: "warning".to_owned(),
            kind: KIND.to_owned(),
            detail: format!(
                "the oldest record is {} s old and not purged, because its readers have not kept it yet; after {} s it is deleted unread",
                self.age(now).as_secs(),
                self.retain.as_secs()
            ),
            event_time: now,
        }
    }
}

/// This machine's time, in milliseconds.
#[must_use]
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Active topics that are purged under a hard limit, by name.
fn limited(topology: &Topology) -> Vec<(String, Duration)> {
    let purged = topology.topics().iter().filter(|topic| topic.active && topic.cleanup == Cleanup::Purged);
    purged.filter_map(|topic| Some((topic.name.clone(), topic.retain?))).collect()
}

/// The oldest record of every partition that a hard limit stands over. Blocking.
///
/// # Errors
/// When no broker answers or a topic is missing.
pub fn oldest(admin: &Admin, topology: &Topology) -> Result<Vec<Oldest>, ClientError> {
    look_at(admin, &limited(topology))
}

fn look_at(admin: &Admin, limited: &[(String, Duration)]) -> Result<Vec<Oldest>, ClientError> {
    let mut all = Vec::new();
    for (topic, retain) in limited {
        let described = admin.describe(&[topic])?;
        let found = described.first().filter(|d| d.id.is_some()).ok_or_else(|| admin.no_topic(topic))?;
        let places: Vec<(String, i32)> = (0..found.partitions).map(|p| (topic.clone(), p)).collect();
        for ((topic, partition), appended) in places.iter().cloned().zip(admin.oldest(&places)?) {
            all.push(Oldest { topic, partition, appended, retain: *retain });
        }
    }
    Ok(all)
}

#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Produce(#[from] ProduceError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("{ALERTS} cannot be read: {0}")]
    Read(#[from] KafkaError),
    #[error("{ALERTS} was not read to its end in {} s", READ_LIMIT.as_secs())]
    Late,
}

/// Looks at the oldest records now and then, and tells once.
pub(crate) struct Watch {
    admin: Arc<Admin>,
    wire: Arc<Wire>,
    limited: Vec<(String, Duration)>,
    /// Time of the last alert by subject, as far as this process has seen: spares reading the topic at every look.
    told: BTreeMap<String, i64>,
}

impl Watch {
    pub fn new(admin: Arc<Admin>, wire: Arc<Wire>, topology: &Topology) -> Self {
        Self { admin, wire, limited: limited(topology), told: BTreeMap::new() }
    }

    /// Looks eight times within the shortest limit.
    pub fn often_enough(&self, interval: Duration) -> Duration {
        let shortest = self.limited.iter().map(|(_, retain)| *retain / 8).min();
        shortest.map_or(interval, |eighth| interval.min(eighth.max(Duration::from_millis(100))))
    }

    /// Takes one look. Nothing that goes wrong here holds anything up: the next look tries again.
    pub fn look(&mut self, stop: &dyn Fn() -> bool) {
        let oldest = match look_at(&self.admin, &self.limited) {
            Ok(oldest) => oldest,
            Err(error) => {
                tracing::debug!(%error, "the age of the oldest records is not known this time");
                return;
            }
        };
        let now = now();
        for record in &oldest {
            let (topic, partition) = (record.topic.clone(), record.partition.to_string());
            metrics::gauge!(OLDEST, "topic" => topic, "partition" => partition).set(record.age(now).as_secs_f64());
        }
        if oldest.iter().any(|record| self.is_news(record, now))
            && let Err(error) = self.tell(&oldest, now, stop)
        {
            tracing::warn!(%error, "plaintext waits for long, and the alert was not written this time");
        }
    }

    fn is_news(&self, record: &Oldest, now: i64) -> bool {
        record.is_news(now, self.told.get(&record.subject()).copied())
    }

    fn tell(&mut self, oldest: &[Oldest], now: i64, stop: &dyn Fn() -> bool) -> Result<(), TellError> {
        let cluster = self.admin.cluster();
        // One id for the tenant: a process that tells at the same time is fenced, and finds this alert at its next look.
        let id = cluster.group("retention-alerts");
        let producer = TxnProducer::create(cluster, &id, &TransactionTimes::default(), None)?;
        producer.init(stop)?;
        self.told = self.read()?;
        let news: Vec<Alert> = oldest.iter().filter(|r| self.is_news(r, now)).map(|r| r.alert(now)).collect();
        if news.is_empty() {
            return Ok(());
        }
        let (full, partitions) = (cluster.topic(ALERTS), self.partitions()?);
        producer.begin()?;
        for alert in &news {
            let key = alert.subject.as_bytes();
            producer.send(&full, partition_of(key, partitions), key, Some(&self.wire.encode(alert)?))?;
        }
        producer.delivered()?;
        producer.commit(stop)?;
        for alert in news {
            tracing::warn!(subject = %alert.subject, "{}; help: do intake and the warehouse run and keep up? `hokusai doctor`", alert.detail);
            self.told.insert(alert.subject, alert.event_time);
        }
        Ok(())
    }

    fn partitions(&self) -> Result<i32, ClientError> {
        let described = self.admin.describe(&[ALERTS])?;
        let found = described.first().filter(|d| d.id.is_some()).ok_or_else(|| self.admin.no_topic(ALERTS))?;
        Ok(found.partitions)
    }

    /// Time of the newest alert of each subject.
    fn read(&self) -> Result<BTreeMap<String, i64>, TellError> {
        let (cluster, ends) = (self.admin.cluster(), self.admin.end_offsets(&[ALERTS])?);
        let (full, mut list, mut open) = (cluster.topic(ALERTS), TopicPartitionList::new(), BTreeSet::new());
        for end in ends.iter().filter(|end| end.end > end.start) {
            list.add_partition_offset(&full, end.partition, Offset::Offset(end.start))?;
            open.insert(end.partition);
        }
        let consumer: BaseConsumer<Logged> =
            cluster.reader(&FetchBounds::to_end()).create_with_context(Logged).map_err(TellError::Read)?;
        consumer.assign(&list)?;
        let (deadline, mut told) = (Instant::now() + READ_LIMIT, BTreeMap::<String, i64>::new());
        while !open.is_empty() {
            if Instant::now() > deadline {
                return Err(TellError::Late);
            }
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                // The ends were asked for before: what is reported as an end is behind them.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(message)) => {
                    let alert = self.wire.decode::<Alert>(message.payload().unwrap_or_default());
                    if let Ok(alert) = alert.map_err(|error| tracing::debug!(%error, "an unreadable alert"))
                        && alert.kind == KIND
                    {
                        let told = told.entry(alert.subject).or_insert(alert.event_time);
                        *told = alert.event_time.max(*told);
                    }
                }
            }
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn record(appended: Option<i64>) -> Oldest {
        Oldest { topic: "contributions".into(), partition: 1, appended, retain: Duration::from_secs(7 * 86_400) }
    }

    #[test]
    fn half_of_the_limit_is_late_and_an_empty_partition_never_is() {
        assert!(!record(Some(0)).is_late(7 * DAY / 2 - 1));
        assert!(record(Some(0)).is_late(7 * DAY / 2));
        assert!(!record(None).is_late(i64::MAX));
        assert!(!record(Some(100 * DAY)).is_late(0), "a record of the future is young");
    }

    #[test]
    fn a_backlog_is_news_once_until_a_record_that_came_after_the_alert_is_late_itself() {
        let (early, alert, late) = (record(Some(0)), 4 * DAY, record(Some(5 * DAY)));
        assert!(early.is_news(alert, None));
        assert!(!early.is_news(6 * DAY, Some(alert)));
        assert!(!record(Some(3 * DAY)).is_news(8 * DAY, Some(alert)), "it was part of the backlog that was told");
        assert!(!late.is_news(6 * DAY, Some(alert)));
        assert!(late.is_news(9 * DAY, Some(alert)));
    }

    #[test]
    fn the_built_in_topology_limits_the_plaintext_of_contributions_alone() {
        let limited = limited(&Topology::builtin().unwrap());
        assert_eq!(limited, [("contributions".to_owned(), Duration::from_secs(7 * 86_400))]);
    }
}

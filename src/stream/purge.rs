//! Deletes records of internal topics behind their slowest declared reader, as Kafka Streams does with repartition topics.
//!
//! Time retention would delete records that a stopped stage has not read yet. So such topics keep everything, and what
//! every declared reader has committed is deleted from time to time (`DeleteRecords`).
//!
//! Invariants:
//! * a reader outside the stages is where its group's committed offsets say ([`super::outside`]);
//! * the position of a reader that runs in this process is what its task has committed, and that of a reader whose positions stand
//!   elsewhere (the warehouse: in its tables) what stands there, not what their groups' offsets say: those can be reset from outside;
//! * a partition is purged only by a process that runs one of its readers, and only when every reader's position is known;
//! * plaintext waits for its grace: records younger than that stay, whoever has read them; behind it they go soon, however short it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::AdminOptions;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Admin, ClientError, Description, End};
use super::outside;
use super::retention::Watch;
use crate::topology::{Cleanup, ReaderSpec, Topology};

/// Tells how far a reader has kept the partitions of a topic, by number: the next offset of each. A partition that is left out
/// was not read. An error is its text.
pub type Kept = Arc<dyn Fn(Description) -> KeptAnswer + Send + Sync>;
/// See [`Kept`].
pub type KeptAnswer = futures::future::BoxFuture<'static, Result<BTreeMap<i32, i64>, String>>;

/// Why a topic was not purged.
#[derive(Debug, thiserror::Error)]
enum PurgeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("where {reader} stands is not known: {detail}")]
    Kept { reader: String, detail: String },
}

/// What tasks of this process have committed: by topic and partition, the next offset of each stage.
#[derive(Debug, Default)]
pub(crate) struct Positions(Mutex<BTreeMap<(String, i32), BTreeMap<String, i64>>>);

impl Positions {
    /// Notes that a stage has committed everything before `next`.
    pub fn note(&self, stage: &str, topic: &str, partition: i32, next: i64) {
        let mut positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match positions.get_mut(&(topic.to_owned(), partition)).and_then(|stages| stages.get_mut(stage)) {
            Some(known) => *known = next,
            None => {
                positions.entry((topic.to_owned(), partition)).or_default().insert(stage.to_owned(), next);
            }
        }
    }

    fn of_topic(&self, topic: &str) -> Vec<(i32, BTreeMap<String, i64>)> {
        let positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_topic = positions.iter().filter(|((t, _), _)| t == topic);
        of_topic.map(|((_, partition), stages)| (*partition, stages.clone())).collect()
    }
}

/// A topic that is purged, and behind whom.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Purged {
    topic: String,
    readers: Vec<String>,
    grace: Option<Duration>,
}

/// The topics that the topology wants purged, with the stages of this version and the programs outside that read them.
fn purged(topology: &Topology) -> Vec<Purged> {
    let purged = topology.topics().iter().filter(|t| t.active && t.cleanup == Cleanup::Purged);
    let with_readers = purged.map(|topic| {
        let reads = |inputs: &[String]| inputs.contains(&topic.name);
        let readers: Vec<_> = topology.stages().iter().filter(|s| s.implemented && reads(&s.inputs)).collect();
        let outside =
            topology.readers().iter().filter(|reader| reads(&reader.topics)).map(|reader| reader.name.clone());
        // Without a stage there is nobody who would purge.
        let names = readers.iter().map(|s| s.name.clone());
        let names = if readers.is_empty() { Vec::new() } else { names.chain(outside).collect() };
        Purged {
            topic: topic.name.clone(),
            grace: readers.iter().filter_map(|s| s.settings.plaintext_grace).max(),
            readers: names,
        }
    });
    with_readers.filter(|purged| !purged.readers.is_empty()).collect()
}

/// Up to where a partition is purged; none when somebody's position is unknown or there is nothing to delete.
fn purge_to(readers: &[Option<i64>], old_enough: Option<i64>, log_start: i64) -> Option<i64> {
    let slowest = readers.iter().copied().collect::<Option<Vec<i64>>>()?.into_iter().min()?;
    let to = old_enough.map_or(slowest, |limit| limit.min(slowest));
    (to > log_start).then_some(to)
}

/// Looks at least twice within the shortest grace, so that plaintext does not outlive it for long.
fn often_enough(interval: Duration, topics: &[Purged]) -> Duration {
    let shortest = topics.iter().filter_map(|purged| purged.grace).min();
    shortest.map_or(interval, |grace| interval.min(grace / 2)).max(Duration::from_millis(100).min(interval))
}

/// Purges now and then.
pub(crate) struct Purger {
    admin: Arc<Admin>,
    positions: Arc<Positions>,
    topics: Vec<Purged>,
    kept: BTreeMap<String, Kept>,
    watch: Watch,
    outside: Vec<ReaderSpec>,
    interval: Duration,
    /// Where what tells of kept positions runs.
    handle: tokio::runtime::Handle,
}

impl Purger {
    /// Must be called within a tokio runtime.
    pub fn new(
        admin: Arc<Admin>,
        positions: Arc<Positions>,
        kept: BTreeMap<String, Kept>,
        watch: Watch,
        topology: &Topology,
        interval: Duration,
    ) -> Self {
        let topics = purged(topology);
        let interval = watch.often_enough(often_enough(interval, &topics));
        let outside = topology.readers().to_vec();
        Self { admin, positions, topics, kept, watch, outside, interval, handle: tokio::runtime::Handle::current() }
    }

    /// Purges every interval until `stop`; blocks.
    pub fn run(mut self, stop: &dyn Fn() -> bool) {
        let mut purged = Instant::now();
        while !stop() {
            std::thread::sleep(Duration::from_millis(100).min(self.interval));
            if purged.elapsed() < self.interval {
                continue;
            }
            purged = Instant::now();
            for topic in &self.topics {
                if let Err(error) = self.purge(topic) {
                    tracing::debug!(topic = %topic.topic, %error, "not purged this time");
                }
            }
            self.watch.look(stop);
            for reader in &self.outside {
                match outside::waits(&self.admin, reader) {
                    Ok(waits) => outside::tell(reader, &waits),
                    Err(error) => tracing::debug!(reader = %reader.name, %error, "not looked at this time"),
                }
            }
        }
    }

    fn purge(&self, purged: &Purged) -> Result<(), PurgeError> {
        let known = self.positions.of_topic(&purged.topic);
        if known.is_empty() {
            return Ok(());
        }
        let places: Vec<(String, i32)> = known.iter().map(|(p, _)| (purged.topic.clone(), *p)).collect();
        let starts = self.admin.offsets(&places, End::Start)?;
        let old_enough = self.old_enough(purged, &places)?;
        let elsewhere: BTreeMap<&str, Vec<Option<i64>>> = purged
            .readers
            .iter()
            .filter(|reader| known.iter().any(|(_, stages)| !stages.contains_key(*reader)))
            .map(|reader| Ok((reader.as_str(), self.elsewhere(reader, &purged.topic, &places)?)))
            .collect::<Result<_, PurgeError>>()?;
        let mut list = TopicPartitionList::new();
        for (index, (partition, stages)) in known.iter().enumerate() {
            let position = |reader: &String| {
                let elsewhere =
                    || elsewhere.get(reader.as_str()).and_then(|offsets| offsets.get(index).copied().flatten());
                stages.get(reader).copied().or_else(elsewhere)
            };
            let readers: Vec<Option<i64>> = purged.readers.iter().map(position).collect();
            let start = starts.get(index).copied().unwrap_or(i64::MAX);
            if let Some(to) = purge_to(&readers, old_enough.get(index).copied().flatten(), start) {
                let added = list.add_partition_offset(
                    &self.admin.cluster().topic(&purged.topic),
                    *partition,
                    Offset::Offset(to),
                );
                self.ask(added)?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
        self.ask(futures::executor::block_on(self.admin.client().delete_records(&list, &options)))?;
        tracing::debug!(topic = %purged.topic, partitions = list.count(), "purged behind the slowest reader");
        Ok(())
    }

    fn ask<T>(&self, answer: Result<T, KafkaError>) -> Result<T, ClientError> {
        let brokers = self.admin.cluster().brokers.clone();
        answer.map_err(|source| ClientError::Ask { what: "purge", brokers, source })
    }

    /// For each partition the first offset that is younger than the grace; none without a grace.
    fn old_enough(&self, purged: &Purged, places: &[(String, i32)]) -> Result<Vec<Option<i64>>, ClientError> {
        let Some(grace) = purged.grace else { return Ok(vec![None; places.len()]) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(now.saturating_sub(grace).as_millis()).unwrap_or(0);
        let young = self.admin.offsets(places, End::Since(since))?;
        // No record is that young: everything is old enough.
        Ok(young.into_iter().map(|offset| (offset >= 0).then_some(offset)).collect())
    }

    /// Where a reader stands that is no task of this process.
    fn elsewhere(&self, reader: &str, topic: &str, places: &[(String, i32)]) -> Result<Vec<Option<i64>>, PurgeError> {
        let Some(kept) = self.kept.get(reader) else { return Ok(outside::committed(&self.admin, reader, places)?) };
        let described = self.admin.describe(&[topic])?.into_iter().next();
        let asked = self.handle.block_on(kept(described.ok_or_else(|| self.admin.no_topic(topic))?));
        let kept = asked.map_err(|detail| PurgeError::Kept { reader: reader.to_owned(), detail })?;
        Ok(places.iter().map(|(_, partition)| kept.get(partition).copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_deleted_that_a_reader_has_not_committed() {
        assert_eq!(purge_to(&[Some(7), Some(5)], None, 0), Some(5));
        assert_eq!(purge_to(&[Some(7), None], None, 0), None, "an unknown reader has read nothing");
        assert_eq!(purge_to(&[], None, 0), None);
        assert_eq!(purge_to(&[Some(5)], None, 5), None, "nothing to delete");
    }

    #[test]
    fn plaintext_stays_for_its_grace_and_no_longer_than_its_reader_needs() {
        assert_eq!(purge_to(&[Some(7)], Some(3), 0), Some(3));
        assert_eq!(purge_to(&[Some(7)], Some(30), 0), Some(7));
        assert_eq!(purge_to(&[Some(7)], Some(0), 0), None);
    }

    #[test]
    fn a_short_grace_is_looked_at_more_often() {
        let of = |grace: Option<u64>| {
            let grace = grace.map(Duration::from_secs);
            often_enough(Duration::from_secs(60), &[Purged { topic: "t".into(), readers: vec![], grace }])
        };
        assert_eq!(of(None), Duration::from_secs(60));
        assert_eq!(of(Some(3_600)), Duration::from_secs(60));
        assert_eq!(of(Some(2)), Duration::from_secs(1));
        assert_eq!(of(Some(0)), Duration::from_millis(100));
    }

    #[test]
    fn the_built_in_topology_purges_the_internal_topics_behind_the_stages_that_read_them() {
        let topics = purged(&Topology::builtin().unwrap());
        let readers = |name: &str| topics.iter().find(|t| t.topic == name).map(|t| t.readers.clone());
        assert_eq!(readers("contributions.screened"), Some(vec!["dedup".to_owned()]));
        assert_eq!(readers("contributions.manifests"), Some(vec!["receipts".to_owned()]));
        let contributions = topics.iter().find(|t| t.topic == "contributions").unwrap();
        assert_eq!(contributions.grace, Some(Duration::from_secs(3_600)));
        let outside = "version: 1\nextends: builtin\nreaders: [{name: audit, topics: [contributions.screened]}]\n";
        let topics = purged(&Topology::parse("t.yaml", outside).unwrap());
        let screened = topics.iter().find(|t| t.topic == "contributions.screened").map(|t| t.readers.clone());
        assert_eq!(screened, Some(vec!["dedup".to_owned(), "audit".to_owned()]));
        assert!(readers("receipts").is_none() && readers("registry.events").is_none());
    }
}

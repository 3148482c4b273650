//! The warehouse at work: one thread that reads the group's partitions and hands their records to the lanes.
//!
//! ```text
//! group consumer ──► partition queues (bounded) ──► lane of the table ──► Delta commit ──► group offsets (lag only)
//!        │ assigned: lanes open their tables, partitions start at the tables' positions
//!        └ revoked: lanes commit what they hold (one deadline), then let go
//! ```
//!
//! The thread is the only owner of the lanes, so a commit and a rebalance cannot meet. Back-pressure is the queues'
//! bound: while a table commits nothing is read. Compaction runs beside it, with its own handle on the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::WarehouseConfig;
use super::decode::{Decoder, Incoming};
use super::error::WarehouseError;
use super::lane::{COMMIT_SECONDS, FAILURES, Lane, ROWS, Taken, UNREADABLE};
use super::maintenance;
use super::store::Store;
use super::tables::Table;
use crate::stream::client::{Admin, Description, End, FetchBounds};
use crate::stream::consumer::{GroupConsumer, GroupEvent, Queue, Signal};
use crate::stream::ffi;
use crate::stream::health::{StageState, TaskId, TaskState};
use crate::stream::metrics::LAG;

/// Name of the stage and of its group.
pub(super) const STAGE: &str = "warehouse";

/// How long the thread sleeps when nothing comes.
const IDLE: Duration = Duration::from_millis(100);
/// Records read before rebalances, thresholds and shutdown are looked at again.
const BURST: usize = 1_024;
/// Bound of each partition's queue.
const QUEUE_KBYTES: u32 = 4 * 1024;
/// How long giving partitions back may take.
const REVOKE_DEADLINE: Duration = Duration::from_secs(20);
/// How often positions, lag and maintenance are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long the answer to a lost connection waits.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Commits of a table before its files are counted.
const COMMITS_PER_COMPACTION: u32 = 16;
/// How often files are deleted that nobody needs.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);

/// One partition that this process reads.
struct Source {
    lane: usize,
    partition: i32,
    queue: Queue,
}

/// The thread's state.
pub(super) struct Reader {
    config: WarehouseConfig,
    store: Store,
    runtime: Handle,
    admin: Admin,
    consumer: GroupConsumer,
    signal: Arc<Signal>,
    lanes: Vec<Lane>,
    sources: Vec<Source>,
    /// Partitions that the group has given and that are not taken over yet.
    assigned: Option<Vec<(String, i32)>>,
    commits: BTreeMap<Table, u32>,
    crowded: BTreeSet<Table>,
    maintenance: Option<JoinHandle<()>>,
    vacuumed: Instant,
    looked: Instant,
}

impl Reader {
    /// Joins the group.
    pub(super) fn join(config: WarehouseConfig, runtime: Handle) -> Result<Self, WarehouseError> {
        describe_metrics();
        let store = Store::open(&config.store)?;
        let topic = |table: Table| config.cluster.topic(table.topic());
        let topics: Vec<String> = Table::ALL.into_iter().map(topic).collect();
        let bounds = FetchBounds { queue_kbytes: QUEUE_KBYTES, queue_messages: 1_000, ..FetchBounds::default() };
        let consumer = GroupConsumer::join(&config.cluster, STAGE, &topics, config.instance.as_deref(), &bounds)?;
        let admin = config.cluster.admin()?;
        let decoder = |table| Decoder::new(table, config.wire.clone(), config.keys.clone());
        let lanes = Table::ALL.into_iter().map(|table| Lane::new(table, topic(table), decoder(table))).collect();
        config.health.stage(STAGE, StageState::Joining);
        let now = Instant::now();
        Ok(Self {
            config,
            store,
            runtime,
            admin,
            consumer,
            signal: Arc::new(Signal::default()),
            lanes,
            sources: Vec::new(),
            assigned: None,
            commits: BTreeMap::new(),
            crowded: BTreeSet::new(),
            maintenance: None,
            vacuumed: now,
            looked: now,
        })
    }

    /// Reads until `shutdown`, then commits what it holds and leaves the group.
    pub(super) fn run(mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            let served = self.serve();
            let read = self.read();
            let now = Instant::now();
            self.commit_due(now);
            self.wake(now);
            if now.duration_since(self.looked) >= HOUSEKEEPING {
                self.looked = now;
                self.keep_house(now);
            }
            match served {
                Err(error) => {
                    tracing::warn!(%error, "the brokers are out of reach; trying on");
                    self.signal.wait(TRY_AGAIN);
                }
                Ok(()) if read == 0 => self.signal.wait(IDLE),
                Ok(()) => {}
            }
        }
        self.note_reached();
        self.commit_all("at the end");
        self.sources.clear();
        if let Some(task) = self.maintenance.take() {
            task.abort();
        }
        self.config.health.stage(STAGE, StageState::Ended);
    }

    fn serve(&mut self) -> Result<(), WarehouseError> {
        let served = self.consumer.serve(Duration::ZERO);
        while let Some(event) = self.consumer.event() {
            match event {
                GroupEvent::Assigned(partitions) => self.assigned = Some(partitions),
                GroupEvent::Revoked => self.revoked()?,
            }
        }
        if let Some(partitions) = self.assigned.take()
            && let Err(error) = self.take_over(&partitions)
        {
            self.config.health.stage(STAGE, StageState::Retrying { cause: error.to_string() });
            self.assigned = Some(partitions);
            return Err(error);
        }
        match served {
            Err(error) if is_out_of_range(&error) => {
                self.take_anew();
                Ok(())
            }
            Err(source) => Err(WarehouseError::Kafka { what: "the group could not be served".to_owned(), source }),
            Ok(()) => Ok(()),
        }
    }

    fn take_over(&mut self, partitions: &[(String, i32)]) -> Result<(), WarehouseError> {
        let cluster = &self.config.cluster;
        let plain: Vec<(String, i32)> = partitions.iter().map(|(t, p)| (cluster.plain(t).to_owned(), *p)).collect();
        let starts = self.admin.offsets(&plain, End::Start)?;
        let refused = |source| WarehouseError::Kafka { what: "partitions could not be taken over".to_owned(), source };
        self.consumer.take(partitions, &starts).map_err(refused)?;
        let places: Vec<(&str, i32)> =
            partitions.iter().map(|(topic, partition)| (topic.as_str(), *partition)).collect();
        let queues = self.consumer.queues(&places).map_err(refused)?;
        for ((topic, partition), mut queue) in partitions.iter().zip(queues) {
            let Some(lane) = self.lanes.iter().position(|lane| lane.topic() == topic) else { continue };
            let signal = Arc::clone(&self.signal);
            queue.set_nonempty_callback(move || signal.raise());
            self.sources.push(Source { lane, partition: *partition, queue });
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.assign(&[*partition]);
                self.config.health.set(&task(lane.table(), *partition), TaskState::Restoring);
            }
        }
        tracing::info!(partitions = partitions.len(), "warehouse: partitions assigned");
        self.config.health.stage(STAGE, StageState::Member);
        Ok(())
    }

    /// Consuming → committed or dropped → let go, under one deadline.
    fn revoked(&mut self) -> Result<(), WarehouseError> {
        self.assigned = None;
        self.note_reached();
        self.commit_all("before partitions are given back");
        self.sources.clear();
        for lane in &mut self.lanes {
            let partitions: Vec<i32> = lane.owned().iter().copied().collect();
            lane.revoke(&partitions);
            for partition in partitions {
                self.config.health.gone(&task(lane.table(), partition));
            }
        }
        tracing::info!("warehouse: partitions given back");
        let refused = |source| WarehouseError::Kafka { what: "partitions could not be given back".to_owned(), source };
        self.consumer.let_go().map_err(refused)
    }

    /// Takes records in from all queues, a few of each in turn; returns how many there were.
    fn read(&mut self) -> usize {
        let mut read = 0;
        let mut failed = Vec::new();
        let mut is_stopped = false;
        let share = (BURST / self.sources.len().max(1)).max(1);
        for source in &self.sources {
            let Some(lane) = self.lanes.get_mut(source.lane) else { continue };
            for _ in 0..share {
                if lane.is_due(&self.config.thresholds, Instant::now()) {
                    break;
                }
                let message = match source.queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => message,
                    Some(Err(KafkaError::PartitionEOF(_))) => continue,
                    Some(Err(error)) if is_out_of_range(&error) => {
                        is_stopped = true;
                        break;
                    }
                    Some(Err(error)) => {
                        failed.push((source.lane, error.to_string()));
                        break;
                    }
                    None => break,
                };
                read += 1;
                let record = Incoming {
                    partition: source.partition,
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis().unwrap_or(0),
                    key: message.key(),
                    value: message.payload(),
                };
                if let Taken::Later(cause) = lane.take(&record) {
                    failed.push((source.lane, cause));
                    break;
                }
            }
        }
        for (lane, cause) in failed {
            self.rest(lane, WarehouseError::Input { topic: self.topic_of(lane), detail: cause });
        }
        if is_stopped {
            self.take_anew();
        }
        read
    }

    fn topic_of(&self, lane: usize) -> String {
        self.lanes.get(lane).map(|lane| lane.topic().to_owned()).unwrap_or_default()
    }

    fn commit_due(&mut self, now: Instant) {
        for at in 0..self.lanes.len() {
            if self.lanes.get(at).is_some_and(|lane| lane.is_due(&self.config.thresholds, now)) {
                self.note_reached_of(at);
                self.commit(at);
            }
        }
    }

    fn commit_all(&mut self, when: &str) {
        let deadline = Instant::now() + REVOKE_DEADLINE;
        for at in 0..self.lanes.len() {
            if !self.lanes.get(at).is_some_and(Lane::is_dirty) {
                continue;
            }
            if Instant::now() >= deadline {
                tracing::warn!(when, "no time left to commit: the rest is read again");
                return;
            }
            self.commit(at);
        }
    }

    fn commit(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let committed = self.runtime.block_on(async { tokio::time::timeout(REVOKE_DEADLINE, lane.commit()).await });
        let table = lane.table();
        match committed {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(committed))) => {
                crate::failpoint!("warehouse.after_delta_commit");
                self.commit_group_offsets(at, &committed.positions);
                // Also those that have no position yet because they are empty: nothing of theirs is pending either.
                for partition in self.lanes.get(at).into_iter().flat_map(Lane::owned) {
                    self.config.health.committed(&task(table, *partition));
                }
                if committed.rows > 0 {
                    *self.commits.entry(table).or_default() += 1;
                }
            }
            Ok(Err(error)) => self.rest(at, error),
            Err(_) => self.rest(at, WarehouseError::Slow { table: table.name(), seconds: REVOKE_DEADLINE.as_secs() }),
        }
    }

    /// For lag tools only: where reading starts is decided by the tables.
    fn commit_group_offsets(&self, at: usize, positions: &BTreeMap<i32, i64>) {
        let Some(lane) = self.lanes.get(at) else { return };
        let mut list = TopicPartitionList::with_capacity(positions.len());
        let added = positions.iter().try_for_each(|(partition, next)| {
            list.add_partition_offset(lane.topic(), *partition, Offset::Offset(*next))
        });
        let committed = added.and_then(|()| self.consumer.handle().consumer().commit(&list, CommitMode::Async));
        if let Err(error) = committed {
            tracing::debug!(%error, topic = lane.topic(), "group offsets were not committed");
        }
    }

    /// Lets a lane rest and its partitions wait.
    fn rest(&mut self, at: usize, failure: WarehouseError) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let state = match failure.stop() {
            Some(stop) => TaskState::Stopped(stop),
            None => TaskState::Retrying { cause: failure.to_string() },
        };
        let mut list = TopicPartitionList::with_capacity(lane.owned().len());
        for partition in lane.owned() {
            list.add_partition(lane.topic(), *partition);
            self.config.health.set(&task(lane.table(), *partition), state.clone());
        }
        if let Err(error) = self.consumer.handle().consumer().pause(&list) {
            tracing::debug!(%error, topic = lane.topic(), "partitions were not paused");
        }
        lane.rest(failure, Instant::now());
    }

    /// An offset was out of range somewhere. librdkafka has stopped that partition for good, and refuses to seek in it until it is
    /// assigned again, which members of this protocol can do with all partitions only. Each lane then looks at its positions again;
    /// one whose table has lost records stops by name.
    fn take_anew(&mut self) {
        self.note_reached();
        self.commit_all("before partitions are taken anew");
        let place = |source: &Source| Some((self.lanes.get(source.lane)?.topic().to_owned(), source.partition));
        let partitions: Vec<_> = self.sources.iter().filter_map(place).collect();
        tracing::warn!(
            partitions = partitions.len(),
            "warehouse: an offset is out of range; partitions are taken anew"
        );
        self.sources.clear();
        self.assigned = Some(partitions);
    }

    fn wake(&mut self, now: Instant) {
        for at in 0..self.lanes.len() {
            if self.lanes.get(at).is_some_and(|lane| lane.is_waking(now))
                && let Err(failure) = self.open(at)
            {
                self.rest(at, failure);
            }
        }
    }

    /// Opens a lane's table and starts its partitions where the table ends.
    fn open(&mut self, at: usize) -> Result<(), WarehouseError> {
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
        let plain = lane.table().topic();
        let described = self.admin.describe(&[plain])?.into_iter().next();
        let Some(Description { id: Some(id), .. }) = described else {
            return Err(WarehouseError::Input {
                topic: lane.topic().to_owned(),
                detail: "it does not exist".to_owned(),
            });
        };
        let positions = self.runtime.block_on(lane.open(&self.store, Some(&id)))?;
        let places: Vec<(String, i32)> = positions.keys().map(|partition| (plain.to_owned(), *partition)).collect();
        let starts = self.admin.offsets(&places, End::Start)?;
        let ends = self.admin.offsets(&places, End::HighWatermark)?;
        for ((partition, position), (low, high)) in positions.into_iter().zip(starts.into_iter().zip(ends)) {
            let from = lane.start(partition, position, low, high)?;
            self.consumer.handle().start(lane.topic(), partition, from).map_err(|source| WarehouseError::Kafka {
                what: format!("{}-{partition} could not be read from offset {from}", lane.topic()),
                source,
            })?;
            self.config.health.set(&task(lane.table(), partition), TaskState::Running);
        }
        tracing::info!(table = lane.table().name(), next = ?lane.next(), "table open");
        // What many short lives have left behind.
        self.crowded.insert(lane.table());
        Ok(())
    }

    fn keep_house(&mut self, now: Instant) {
        self.note_reached();
        self.note_lag();
        for (table, commits) in &mut self.commits {
            if *commits >= COMMITS_PER_COMPACTION {
                *commits = 0;
                self.crowded.insert(*table);
            }
        }
        if self.maintenance.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let store = self.store.clone();
        if let Some(table) = self.crowded.pop_first() {
            self.maintenance = Some(self.runtime.spawn(compact(store, table)));
        } else if now.duration_since(self.vacuumed) >= VACUUM_EVERY {
            self.vacuumed = now;
            self.maintenance = Some(self.runtime.spawn(vacuum(store)));
        }
    }

    fn note_reached(&mut self) {
        for at in 0..self.lanes.len() {
            self.note_reached_of(at);
        }
    }

    /// Behind the last record there may be transaction markers: the client's position is behind them too.
    fn note_reached_of(&mut self, at: usize) {
        let handle = self.consumer.handle();
        let Some(lane) = self.lanes.get_mut(at) else { return };
        for source in self.sources.iter().filter(|source| source.lane == at) {
            if let Some(next) = ffi::position(handle.consumer().client(), lane.topic(), source.partition) {
                lane.reach(source.partition, next);
            }
        }
        if lane.is_dirty() {
            for partition in lane.owned() {
                self.config.health.busy(&task(lane.table(), *partition));
            }
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn note_lag(&self) {
        let handle = self.consumer.handle();
        for source in &self.sources {
            let Some(lane) = self.lanes.get(source.lane) else { continue };
            let end = ffi::cached_high_watermark(handle.consumer().client(), lane.topic(), source.partition);
            if let (Some(end), Some(next)) = (end, lane.next().get(&source.partition)) {
                let (topic, partition) = (lane.table().topic(), source.partition.to_string());
                let gauge = metrics::gauge!(LAG, "stage" => STAGE, "topic" => topic, "partition" => partition);
                gauge.set((end - next).max(0) as f64);
            }
        }
    }
}

/// The next offset to read is not in the log (any more): there is no policy that would choose another one.
fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))
}

fn describe_metrics() {
    metrics::describe_counter!(ROWS, metrics::Unit::Count, "Rows committed to a table");
    metrics::describe_counter!(FAILURES, metrics::Unit::Count, "Times a table failed and was opened afresh");
    metrics::describe_counter!(
        UNREADABLE,
        metrics::Unit::Count,
        "Records left out of a table because they cannot be read"
    );
    metrics::describe_histogram!(
        COMMIT_SECONDS,
        metrics::Unit::Seconds,
        "From the first file of a Delta commit to its end"
    );
}

fn task(table: Table, partition: i32) -> TaskId {
    TaskId { stage: STAGE, topic: Some(table.topic().to_owned()), partition }
}

async fn compact(store: Store, table: Table) {
    match maintenance::compact(&store, table).await {
        Ok(done) if done.merged > 0 => {
            tracing::info!(table = table.name(), merged = done.merged, into = done.into, "small files merged");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(table = table.name(), %error, "small files were not merged"),
    }
}

async fn vacuum(store: Store) {
    for table in Table::ALL {
        match maintenance::vacuum(&store, table).await {
            Ok(done) if done.deleted > 0 => {
                tracing::info!(table = table.name(), deleted = done.deleted, "files deleted")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(table = table.name(), %error, "files were not deleted"),
        }
    }
}

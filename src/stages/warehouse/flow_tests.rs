//! Promises of the running warehouse, against the embedded broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use rdkafka::Offset;
use rdkafka::admin::AdminOptions;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fixtures::{accepted, receipt};
use super::store::Store;
use super::tables::Table;
use super::{Thresholds, Warehouse, WarehouseConfig, WarehouseError};
use crate::broker::{Broker, BrokerConfig};
use crate::codec::wire::Wire;
use crate::domain::keys::{KeyRing, LiveKeys};
use crate::sql::fresh::{self, FreshError};
use crate::sql::{Limits, Session};
use crate::stream::client::{Cluster, TransactionTimes};
use crate::stream::health::{Health, TaskState};

const PREFIX: &str = "t.";
const PATIENCE: Duration = Duration::from_secs(40);

struct Place {
    broker: Broker,
    cluster: Cluster,
    folder: tempfile::TempDir,
    keys: LiveKeys,
}

impl Place {
    async fn new(partitions: i32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = BrokerConfig::new(folder.path().join("broker"), "127.0.0.1:0".parse().unwrap());
        let broker = Broker::start(config).await.unwrap();
        let cluster = Cluster::new(&broker.address().to_string(), PREFIX);
        let place = Self { broker, cluster, folder, keys: KeyRing::generate("test").unwrap().into() };
        place.topics(&Table::ALL.map(Table::topic), partitions).await;
        place
    }

    async fn topics(&self, names: &[&str], partitions: i32) {
        let wanted: Vec<_> = names.iter().map(|name| (*name, partitions, BTreeMap::new())).collect();
        let admin = self.cluster.admin().unwrap();
        admin.ensure_topics(&wanted).await.unwrap();
    }

    fn store(&self) -> Store {
        Store::open(self.folder.path().join("store").to_str().unwrap()).unwrap()
    }

    fn start(&self) -> Running {
        let health = Health::default();
        let config = WarehouseConfig {
            cluster: self.cluster.clone(),
            store: self.folder.path().join("store").to_str().unwrap().to_owned(),
            wire: Wire::default(),
            keys: self.keys.clone(),
            thresholds: Thresholds { age: Duration::from_millis(50), ..Thresholds::default() },
            instance: None,
            health: health.clone(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(Warehouse::new(config).run(shutdown.clone()));
        Running { health, shutdown, task }
    }

    fn producer(&self, id: &str) -> BaseProducer {
        let times = TransactionTimes::default();
        let producer: BaseProducer = self.cluster.producer(Some(id), &times).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer
    }

    async fn session(&self) -> Session {
        Session::open(self.store(), PREFIX, Limits::default()).await.unwrap()
    }

    async fn fresh(&self) -> Session {
        let session = self.session().await;
        fresh::wait(&session, &self.cluster, PATIENCE).await.unwrap();
        session
    }
}

struct Running {
    health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), WarehouseError>>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Health) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.health) {
            assert!(Instant::now() < deadline, "not in time: {what}: {:?}", self.health.tasks());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Sends values in one transaction, each to the partition given.
fn send(producer: &BaseProducer, topic: &str, values: &[(i32, Vec<u8>)], commit: bool) {
    let topic = format!("{PREFIX}{topic}");
    producer.begin_transaction().unwrap();
    for (partition, value) in values {
        producer.send(BaseRecord::<(), [u8]>::to(&topic).partition(*partition).payload(value)).unwrap();
    }
    if commit {
        producer.commit_transaction(PATIENCE).unwrap();
    } else {
        producer.flush(PATIENCE).unwrap();
        producer.abort_transaction(PATIENCE).unwrap();
    }
}

fn rows(contribution: usize, count: i64) -> Vec<u8> {
    let delay: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    Wire::default().encode(&accepted(&format!("c{contribution}"), "m", vec![("delay", delay)])).unwrap()
}

async fn count(session: &Session, sql: &str) -> i64 {
    let batches: Vec<_> = session.query(sql).await.unwrap().try_collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_records_arrive_once_over_markers_aborts_and_restarts_whatever_the_group_offsets_say() {
    let place = Place::new(2).await;
    let producer = place.producer("one");
    for round in 0..3 {
        let running = place.start();
        send(&producer, Table::Rows.topic(), &[(0, rows(round, 5)), (1, rows(round + 10, 5))], true);
        send(&producer, Table::Rows.topic(), &[(0, rows(99, 5)), (1, rows(99, 5))], false);
        let value = Wire::default().encode(&receipt(&format!("c{round}"), "admitted")).unwrap();
        send(&producer, Table::Receipts.topic(), &[(0, value)], true);
        let session = place.fresh().await;
        assert_eq!(count(&session, "select count(*) from rows").await, (i64::try_from(round).unwrap() + 1) * 10);
        assert_eq!(count(&session, "select count(*) from rows where contribution_id = 'c99'").await, 0);
        running.stop().await;
        // Next time: offsets of the group gone, then wrong.
        let group = place.cluster.group("warehouse");
        if round == 0 {
            let admin = place.cluster.admin().unwrap();
            admin.client().delete_groups(&[&group], &AdminOptions::new()).await.unwrap();
        } else {
            use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
            let consumer: BaseConsumer = place.cluster.consumer(&group, &Default::default()).create().unwrap();
            let mut list = TopicPartitionList::new();
            let topic = place.cluster.topic(Table::Rows.topic());
            list.add_partition_offset(&topic, 0, Offset::Offset(0)).unwrap();
            consumer.commit(&list, CommitMode::Sync).unwrap();
        }
    }
    let session = place.fresh().await;
    assert_eq!(count(&session, "select count(distinct contribution_id) from rows").await, 6);
    assert_eq!(count(&session, "select count(*) from receipts").await, 3);
    place.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_partition_beside_a_full_one_is_not_taken_for_stuck() {
    let place = Place::new(2).await;
    let running = place.start();
    send(&place.producer("one"), Table::Rows.topic(), &[(0, rows(1, 5))], true);
    place.fresh().await;
    let busy = |health: &Health| health.tasks().values().any(|status| status.busy_for.is_some());
    running.until("nothing is pending once the rows are in the table", |health| !busy(health)).await;
    running.stop().await;
    place.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_come_and_go_share_the_tables_and_no_row_is_lost_or_doubled() {
    let place = Place::new(4).await;
    let producer = place.producer("one");
    let mut running = vec![place.start()];
    let mut sent = 0;
    for round in 0..12_usize {
        let values: Vec<_> = (0..4).map(|partition| (partition, rows(round * 4 + partition as usize, 3))).collect();
        send(&producer, Table::Rows.topic(), &values, true);
        sent += 12;
        match round {
            2 | 5 => running.push(place.start()),
            7 | 9 => running.remove(0).stop().await,
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let session = place.fresh().await;
    assert_eq!(count(&session, "select count(*) from rows").await, sent);
    assert_eq!(count(&session, "select count(*) from (select distinct contribution_id, row from rows)").await, sent);
    for one in running {
        one.stop().await;
    }
    place.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_stops_its_table_by_name_while_the_others_go_on() {
    let place = Place::new(1).await;
    let producer = place.producer("one");
    let running = place.start();
    send(&producer, Table::Rows.topic(), &[(0, rows(1, 5))], true);
    place.fresh().await;
    running.stop().await;

    let admin = place.cluster.admin().unwrap();
    let topic = place.cluster.topic(Table::Rows.topic());
    admin.client().delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
    place.topics(&[Table::Rows.topic()], 1).await;
    let running = place.start();
    let stopped = |health: &Health| {
        let tasks = health.tasks();
        let mut states = tasks.values().map(|status| &status.state);
        states.clone().any(|state| matches!(state, TaskState::Stopped(_)))
            && states.all(|state| matches!(state, TaskState::Running | TaskState::Stopped(_)))
    };
    running.until("the table stops", stopped).await;
    let problems = running.health.problems();
    assert!(problems.len() == 1 && problems[0].contains("TOPIC_RECREATED"), "{problems:?}");

    let producer = place.producer("two");
    let value = Wire::default().encode(&receipt("c1", "admitted")).unwrap();
    send(&producer, Table::Receipts.topic(), &[(0, value)], true);
    send(&producer, Table::Rows.topic(), &[(0, rows(2, 5))], true);
    let session = place.session().await;
    let other = fresh::wait(&session, &place.cluster, PATIENCE).await.unwrap_err();
    assert!(matches!(other, FreshError::OtherTopic { table: "rows", .. }), "{other}");
    let deadline = Instant::now() + PATIENCE;
    while count(&session, "select count(*) from receipts").await != 1 {
        assert!(Instant::now() < deadline, "receipts stand still");
        session.refresh().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The way out that the error names, without a restart.
    std::fs::rename(place.folder.path().join("store/tables/rows"), place.folder.path().join("old")).unwrap();
    let session = place.fresh().await;
    assert_eq!(count(&session, "select count(*) from rows where contribution_id = 'c2'").await, 5);
    assert!(running.health.problems().is_empty());
    running.stop().await;
    place.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_were_deleted_unread_stop_their_table_by_name() {
    let place = Place::new(1).await;
    let producer = place.producer("one");
    let running = place.start();
    send(&producer, Table::Rows.topic(), &[(0, rows(1, 5))], true);
    place.fresh().await;
    running.stop().await;
    for round in 2..5 {
        send(&producer, Table::Rows.topic(), &[(0, rows(round, 5))], true);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&place.cluster.topic(Table::Rows.topic()), 0, Offset::Offset(5)).unwrap();
    let admin = place.cluster.admin().unwrap();
    admin.client().delete_records(&list, &AdminOptions::new()).await.unwrap();
    let running = place.start();
    running.until("the table stops", |health| !health.problems().is_empty()).await;
    let problems = running.health.problems();
    assert!(problems[0].contains("OFFSET_EXPIRED") && problems[0].contains("help:"), "{problems:?}");
    running.stop().await;
    place.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_records_are_deleted_under_its_reader_is_read_on_from_what_is_left() {
    let place = Place::new(2).await;
    let producer = place.producer("one");
    let running = place.start();
    send(&producer, Table::Rows.topic(), &[(0, rows(1, 5))], true);
    place.fresh().await;
    // Nobody can read what stands in an open transaction: it is deleted unread, and the reader's next offset is gone.
    let topic = place.cluster.topic(Table::Rows.topic());
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<(), [u8]>::to(&topic).partition(1).payload(&rows(2, 5))).unwrap();
    producer.flush(PATIENCE).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 1, Offset::End).unwrap();
    let admin = place.cluster.admin().unwrap();
    admin.client().delete_records(&list, &AdminOptions::new()).await.unwrap();
    producer.abort_transaction(PATIENCE).unwrap();

    send(&producer, Table::Rows.topic(), &[(1, rows(3, 5))], true);
    let session = place.fresh().await;
    assert_eq!(count(&session, "select count(*) from rows where contribution_id = 'c3'").await, 5);
    running.stop().await;
    place.broker.shutdown().await;
}

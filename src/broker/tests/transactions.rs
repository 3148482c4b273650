//! Atomicity, isolation, fencing.

use super::*;
use rdkafka::consumer::ConsumerGroupMetadata;

#[test]
fn aborted_records_never_reach_a_committed_reader() {
    let cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let producer = cluster.transactional("tx");
    let plain = cluster.producer(&[]);
    let mut expected = Vec::new();
    for number in 0..20 {
        producer.begin_transaction().unwrap();
        for part in 0..3 {
            send(&producer, "t", "k", &format!("{number}.{part}"));
            drain(&producer);
            send(&plain, "t", "k", &format!("plain {number}.{part}"));
            drain(&plain);
        }
        let commit = number % 3 != 1;
        for part in 0..3 {
            if commit {
                expected.push(format!("{number}.{part}"));
            }
            expected.push(format!("plain {number}.{part}"));
        }
        match commit {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => abort(&producer),
        }
    }
    assert_eq!(cluster.values("t", "read_committed"), expected);
    assert_eq!(cluster.values("t", "read_uncommitted").len(), 120);
}

#[test]
fn an_open_transaction_holds_committed_readers_back_and_no_others() {
    let cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let producer = cluster.transactional("tx");
    let plain = cluster.producer(&[]);
    send(&plain, "t", "k", "before");
    drain(&plain);
    producer.begin_transaction().unwrap();
    send(&producer, "t", "k", "inside");
    drain(&producer);
    send(&plain, "t", "k", "behind");
    drain(&plain);
    assert_eq!(cluster.values("t", "read_committed"), ["before"]);
    assert_eq!(cluster.values("t", "read_uncommitted"), ["before", "inside", "behind"]);
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(cluster.values("t", "read_committed"), ["before", "inside", "behind"]);
}

#[test]
fn a_successor_fences_its_predecessor_and_ends_its_transaction_at_once() {
    let cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let old = cluster.transactional("tx");
    old.begin_transaction().unwrap();
    send(&old, "t", "k", "old");
    drain(&old);
    let new = cluster.transactional("tx");
    assert_eq!(cluster.values("t", "read_committed"), Vec::<String>::new());
    new.begin_transaction().unwrap();
    send(&new, "t", "k", "new");
    new.commit_transaction(PATIENCE).unwrap();
    let error = old.commit_transaction(PATIENCE).unwrap_err();
    let fatal = matches!(&error, rdkafka::error::KafkaError::Transaction(error) if error.is_fatal());
    assert!(fatal, "{error}");
    assert_eq!(cluster.values("t", "read_committed"), ["new"]);
}

#[test]
fn a_transaction_that_outlives_its_timeout_is_aborted_and_readers_go_on() {
    let cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let stuck = cluster.producer(&[
        ("transactional.id", "tx"),
        ("transaction.timeout.ms", "1000"),
        ("message.timeout.ms", "1000"),
    ]);
    stuck.init_transactions(PATIENCE).unwrap();
    stuck.begin_transaction().unwrap();
    send(&stuck, "t", "k", "stuck");
    drain(&stuck);
    let plain = cluster.producer(&[]);
    send(&plain, "t", "k", "behind");
    drain(&plain);
    until("the timeout", || cluster.values("t", "read_committed") == ["behind"]);
}

fn metadata(consumer: &BaseConsumer) -> ConsumerGroupMetadata {
    consumer.group_metadata().unwrap()
}

fn committed(cluster: &Cluster) -> Offset {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition("in", 0);
    cluster.consumer(&[]).committed_offsets(wanted, PATIENCE).unwrap().elements()[0].offset()
}

#[test]
fn offsets_of_a_transaction_count_when_it_commits_and_not_when_it_aborts() {
    let cluster = Cluster::start();
    cluster.create_topic("in", 1, &[]);
    cluster.create_topic("out", 1, &[]);
    let source = cluster.producer(&[]);
    send(&source, "in", "k", "v");
    drain(&source);
    let consumer = cluster.consumer(&[]);
    consumer.subscribe(&["in"]).unwrap();
    until("a record", || matches!(consumer.poll(Duration::from_millis(20)), Some(Ok(_))));
    let producer = cluster.transactional("tx");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("in", 0, Offset::Offset(1)).unwrap();
    for (commit, expected) in [(false, Offset::Invalid), (true, Offset::Offset(1))] {
        producer.begin_transaction().unwrap();
        send(&producer, "out", "k", "v");
        producer.send_offsets_to_transaction(&offsets, &metadata(&consumer), PATIENCE).unwrap();
        match commit {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => abort(&producer),
        }
        assert_eq!(committed(&cluster), expected);
    }
    assert_eq!(cluster.values("out", "read_committed"), ["v"]);
}

#[test]
fn offsets_of_a_member_of_an_older_generation_are_refused() {
    let cluster = Cluster::start();
    cluster.create_topic("in", 1, &[]);
    let consumer = cluster.consumer(&[]);
    consumer.subscribe(&["in"]).unwrap();
    until("an assignment", || {
        consumer.poll(Duration::from_millis(20));
        consumer.assignment().unwrap().count() == 1
    });
    let stale = metadata(&consumer);
    drop(consumer);
    let producer = cluster.transactional("tx");
    producer.begin_transaction().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("in", 0, Offset::Offset(1)).unwrap();
    let error = producer.send_offsets_to_transaction(&offsets, &stale, PATIENCE).unwrap_err();
    let abortable = matches!(&error, rdkafka::error::KafkaError::Transaction(error) if error.txn_requires_abort());
    assert!(abortable, "{error}");
    producer.abort_transaction(PATIENCE).unwrap();
    assert_eq!(committed(&cluster), Offset::Invalid);
}

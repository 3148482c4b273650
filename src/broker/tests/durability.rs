//! What survives a restart, a kill, and the loss of power.

use super::*;

#[test]
fn everything_acknowledged_survives_power_loss() {
    let mut cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let producer = cluster.producer(&[]);
    let sent: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
    for value in &sent {
        send(&producer, "t", "k", value);
    }
    drain(&producer);
    cluster.lose_power_and_restart();
    assert_eq!(cluster.values("t", "read_committed"), sent);
}

#[test]
fn a_committed_transaction_survives_power_loss_and_an_open_one_can_be_aborted_after_it() {
    let mut cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let producer = cluster.transactional("tx");
    producer.begin_transaction().unwrap();
    send(&producer, "t", "k", "committed");
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "t", "k", "open");
    drain(&producer);
    cluster.lose_power_and_restart();
    drop(producer);
    let successor = cluster.transactional("tx");
    successor.begin_transaction().unwrap();
    send(&successor, "t", "k", "after");
    successor.commit_transaction(PATIENCE).unwrap();
    assert_eq!(cluster.values("t", "read_committed"), ["committed", "after"]);
    assert_eq!(cluster.values("t", "read_uncommitted"), ["committed", "open", "after"]);
}

#[test]
fn a_commit_whose_marker_the_disk_lost_is_a_commit_in_every_partition() {
    let mut cluster = Cluster::start();
    cluster.create_topic("t", 2, &[]);
    let producer = cluster.transactional("tx");
    producer.begin_transaction().unwrap();
    for (partition, value) in ["first", "second"].into_iter().enumerate() {
        let record = BaseRecord::to("t").key("k").payload(value).partition(i32::try_from(partition).unwrap());
        producer.send(record).unwrap();
    }
    drain(&producer);
    let log = only_log(cluster.path());
    let records = std::fs::metadata(&log).unwrap().len();
    producer.commit_transaction(PATIENCE).unwrap();
    let broker = cluster.broker.take().unwrap();
    cluster.runtime.block_on(broker.shutdown());
    // The completion reached the disk, one marker did not.
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(records).unwrap();
    for _ in 0..2 {
        cluster.up();
        for (partition, value) in [(0, "first"), (1, "second")] {
            let read = cluster.read_all("t", partition, "read_committed");
            assert_eq!(read.into_iter().map(|(_, _, value)| value).collect::<Vec<_>>(), [value]);
        }
        let broker = cluster.broker.take().unwrap();
        cluster.runtime.block_on(broker.shutdown());
    }
}

#[test]
fn offsets_acknowledged_within_a_transaction_are_not_lost_with_the_power() {
    let mut cluster = Cluster::start_with(|config| {
        static PORT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        config.listen = PORT.get_or_init(free_port).parse().unwrap();
    });
    cluster.create_topic("t", 1, &[]);
    let consumer = cluster.consumer(&[]);
    let producer = cluster.transactional("tx");
    producer.begin_transaction().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 0, Offset::Offset(7)).unwrap();
    let group = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&offsets, &group, PATIENCE).unwrap();
    cluster.lose_power_and_restart();
    producer.commit_transaction(PATIENCE).unwrap();
    let committed = consumer.committed_offsets(offsets, PATIENCE).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(7));
}

#[test]
fn topics_settings_and_committed_offsets_survive_a_restart() {
    let mut cluster = Cluster::start();
    cluster.create_topic("t", 3, &[("cleanup.policy", "compact")]);
    let consumer = cluster.consumer(&[]);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 2, Offset::Offset(7)).unwrap();
    consumer.commit(&offsets, rdkafka::consumer::CommitMode::Sync).unwrap();
    cluster.restart();
    let consumer = cluster.consumer(&[]);
    let committed = consumer.committed_offsets(offsets, PATIENCE).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(7));
    let metadata = consumer.fetch_metadata(Some("t"), PATIENCE).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 3);
    let resource = rdkafka::admin::ResourceSpecifier::Topic("t");
    let described =
        cluster.runtime.block_on(cluster.admin().describe_configs([&resource], &AdminOptions::new())).unwrap();
    let described = described.into_iter().next().unwrap().unwrap();
    assert_eq!(described.get("cleanup.policy").unwrap().value.as_deref(), Some("compact"));
}

#[test]
fn a_producer_goes_on_after_the_broker_came_back_without_loss_or_duplicate() {
    let mut cluster = Cluster::start_with(|config| {
        // The same port again, so that the client finds the broker.
        config.listen = PORT.get_or_init(free_port).parse().unwrap();
    });
    cluster.create_topic("t", 1, &[]);
    let producer = cluster.producer(&[("reconnect.backoff.max.ms", "100")]);
    for number in 0..300 {
        send(&producer, "t", "k", &number.to_string());
        if number % 100 == 99 {
            cluster.lose_power_and_restart();
        }
        producer.poll(Duration::ZERO);
    }
    drain(&producer);
    let expected: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(cluster.values("t", "read_committed"), expected);
}

static PORT: std::sync::OnceLock<String> = std::sync::OnceLock::new();

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_torn_last_batch_is_cut_off_at_every_byte_and_nothing_else_is_lost() {
    let mut cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let producer = cluster.producer(&[]);
    send(&producer, "t", "k", "first");
    drain(&producer);
    let log = only_log(cluster.path());
    let before = std::fs::metadata(&log).unwrap().len();
    send(&producer, "t", "k", "second");
    drain(&producer);
    let broker = cluster.broker.take().unwrap();
    cluster.runtime.block_on(broker.shutdown());
    let whole = std::fs::read(&log).unwrap();
    for cut in (before..whole.len() as u64).step_by(7) {
        std::fs::write(&log, &whole[..cut as usize]).unwrap();
        cluster.up();
        assert_eq!(cluster.watermarks("t"), (0, 1), "cut at {cut}");
        let broker = cluster.broker.take().unwrap();
        cluster.runtime.block_on(broker.shutdown());
        assert_eq!(std::fs::metadata(&log).unwrap().len(), before);
    }
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&log, &flipped).unwrap();
    cluster.up();
    assert_eq!(cluster.values("t", "read_committed"), ["first"]);
}

fn only_log(folder: &Path) -> std::path::PathBuf {
    let topic = std::fs::read_dir(folder.join("topics")).unwrap().next().unwrap().unwrap().path();
    topic.join("0/00000000000000000000.log")
}

#[test]
fn a_second_broker_on_the_same_folder_is_refused() {
    let cluster = Cluster::start();
    let second = cluster.runtime.block_on(Broker::start(cluster.config()));
    assert!(matches!(second, Err(crate::broker::BrokerError::Locked { .. })));
}

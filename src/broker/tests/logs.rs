//! Retention, compaction and deletion, as a reader sees them.

use super::*;
use std::collections::BTreeMap;

fn eager(config: &mut BrokerConfig) {
    config.maintenance_interval = Duration::from_millis(50);
}

#[test]
fn deleted_records_are_gone_and_offsets_go_on_even_after_power_loss() {
    let mut cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let producer = cluster.producer(&[]);
    for number in 0..10 {
        send(&producer, "t", "k", &number.to_string());
    }
    drain(&producer);
    let mut up_to = TopicPartitionList::new();
    up_to.add_partition_offset("t", 0, Offset::Offset(7)).unwrap();
    cluster.runtime.block_on(cluster.admin().delete_records(&up_to, &AdminOptions::new())).unwrap();
    assert_eq!(cluster.watermarks("t"), (7, 10));
    cluster.lose_power_and_restart();
    assert_eq!(cluster.watermarks("t"), (7, 10));
    assert_eq!(cluster.values("t", "read_committed"), ["7", "8", "9"]);
}

#[test]
fn what_is_deleted_up_to_the_end_leaves_the_disk_and_offsets_go_on_even_after_power_loss() {
    let mut cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let producer = cluster.producer(&[]);
    for _ in 0..10 {
        send(&producer, "t", "k", "zaphod");
    }
    drain(&producer);
    let on_disk = |cluster: &Cluster| {
        let (mut open, mut found) = (vec![cluster.path().to_owned()], false);
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                found |= std::fs::read(path).unwrap().windows(6).any(|window| window == b"zaphod");
            }
        }
        found
    };
    assert!(on_disk(&cluster));
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("t", 0, Offset::End).unwrap();
    cluster.runtime.block_on(cluster.admin().delete_records(&all, &AdminOptions::new())).unwrap();
    assert!(!on_disk(&cluster));
    cluster.lose_power_and_restart();
    assert_eq!(cluster.watermarks("t"), (10, 10));
    let producer = cluster.producer(&[]);
    send(&producer, "t", "k", "after");
    drain(&producer);
    assert_eq!((cluster.watermarks("t"), cluster.values("t", "read_committed")), ((10, 11), vec!["after".to_owned()]));
}

#[test]
fn retention_goes_by_the_records_own_time_and_keeps_the_next_offset() {
    let mut cluster = Cluster::start_with(eager);
    cluster.create_topic("old", 1, &[]);
    cluster.create_topic("kept", 1, &[("retention.ms", "-1")]);
    let producer = cluster.producer(&[]);
    for topic in ["old", "kept"] {
        for _ in 0..5 {
            producer
                .send(BaseRecord::to(topic).key("k").payload("v").timestamp(1_690_000_000_000))
                .map_err(|(error, _)| error)
                .unwrap();
        }
    }
    drain(&producer);
    until("retention", || cluster.watermarks("old") == (5, 5));
    assert_eq!(cluster.watermarks("kept"), (0, 5));
    cluster.lose_power_and_restart();
    assert_eq!(cluster.watermarks("old"), (5, 5));
}

#[test]
fn retention_by_size_keeps_at_least_the_bytes_asked_for() {
    let cluster = Cluster::start_with(eager);
    cluster.create_topic("t", 1, &[("segment.bytes", "10000"), ("retention.bytes", "30000")]);
    let producer = cluster.producer(&[]);
    for _ in 0..200 {
        send(&producer, "t", "k", &"x".repeat(900));
        drain(&producer);
    }
    until("retention", || cluster.watermarks("t").0 > 140);
    let (low, high) = cluster.watermarks("t");
    assert_eq!(high, 200);
    assert!((high - low) * 900 >= 29_000, "{low}");
}

#[test]
fn compaction_keeps_the_last_value_of_every_key_at_its_offset() {
    let mut cluster = Cluster::start_with(eager);
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "4000"), ("min.cleanable.dirty.ratio", "0.01")];
    for codec in ["none", "lz4", "zstd", "snappy", "gzip"] {
        cluster.create_topic(codec, 1, &settings);
        let producer = cluster.producer(&[("compression.type", codec)]);
        let mut model: BTreeMap<String, (i64, String)> = BTreeMap::new();
        for number in 0..1_000_i64 {
            let (key, value) = ((number * number % 13).to_string(), format!("{number} {}", "x".repeat(30)));
            send(&producer, codec, &key, &value);
            if number % 7 == 0 {
                drain(&producer);
            }
            model.insert(key, (number, value));
        }
        drain(&producer);
        until("compaction", || cluster.read_all(codec, 0, "read_committed").len() < 300);
        cluster.restart();
        let read = cluster.read_all(codec, 0, "read_committed");
        assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let mut folded = BTreeMap::new();
        for (offset, key, value) in read {
            folded.insert(key, (offset, value));
        }
        assert_eq!(folded, model, "{codec}");
        assert_eq!(cluster.watermarks(codec), (0, 1_000));
    }
}

#[test]
fn compaction_drops_aborted_records_and_in_time_their_markers_and_tombstones() {
    let cluster = Cluster::start_with(eager);
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "3000"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
    ];
    cluster.create_topic("t", 1, &settings);
    let producer = cluster.transactional("tx");
    for number in 0..60 {
        producer.begin_transaction().unwrap();
        send(&producer, "t", &format!("k{}", number % 5), &format!("{number} {}", "x".repeat(40)));
        match number % 2 {
            0 => producer.commit_transaction(PATIENCE).unwrap(),
            _ => abort(&producer),
        }
    }
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<str, str>::to("t").partition(0).key("k0")).map_err(|(error, _)| error).unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
    for number in 0..40 {
        producer.begin_transaction().unwrap();
        send(&producer, "t", "filler", &format!("{number} {}", "x".repeat(100)));
        producer.commit_transaction(PATIENCE).unwrap();
    }
    until("compaction", || {
        let read = cluster.read_all("t", 0, "read_uncommitted");
        read.iter().filter(|(_, key, _)| key.starts_with('k')).count() == 4
    });
    let committed: Vec<_> =
        cluster.read_all("t", 0, "read_committed").into_iter().filter(|(_, key, _)| key.starts_with('k')).collect();
    let keys: Vec<&str> = committed.iter().map(|(_, key, _)| key.as_str()).collect();
    assert_eq!(keys, ["k2", "k4", "k1", "k3"]);
    assert!(committed.iter().all(|(_, _, value)| value.split(' ').next().unwrap().parse::<i32>().unwrap() % 2 == 0));
}

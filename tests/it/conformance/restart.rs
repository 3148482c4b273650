//! A restart keeps everything. The embedded broker is killed with -9, Apache Kafka is asked to stop: both come back with the same log.

use super::log::list_offsets;
use crate::support::broker::{Kind, Own};
use crate::support::client::{Isolation, Producer, Send, admin, admin_options, config, read, topic, wait};
use crate::support::raw::Raw;
use crate::support::{DEADLINE, eventually, unique};
use rdkafka::admin::ResourceSpecifier;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

#[test]
fn embedded_restart_keeps_everything() {
    restart_keeps_everything(Kind::Embedded);
}

#[test]
fn apache_kafka_restart_keeps_everything() {
    restart_keeps_everything(Kind::ApacheKafka);
}

fn restart_keeps_everything(kind: Kind) {
    let Some(mut own) = Own::start(kind) else { return };
    let broker = own.broker();
    let topic = topic(&broker, "kept", 2, &[("retention.ms", "-1"), ("max.message.bytes", "3000000")]);
    let (group, open_id, done_id) = (unique("group"), unique("tx-open"), unique("tx-done"));

    let plain = Producer::new(&broker, &[("compression.type", "zstd")]);
    for n in 0..100_i64 {
        let value = format!("plain {n}");
        plain
            .send(
                &topic,
                &Send {
                    partition: Some(0),
                    key: Some(b"k"),
                    value: Some(value.as_bytes()),
                    timestamp: Some(1_700_000_000_000 + n),
                    ..Send::default()
                },
            )
            .unwrap();
    }
    plain.settle();
    let done = Producer::transactional(&broker, &done_id);
    for (value, commit) in [("aborted", false), ("committed", true)] {
        done.begin();
        done.texts(&topic, 1, [value]);
        if commit { done.commit().unwrap() } else { done.abort().unwrap() }
    }
    let open = Producer::transactional(&broker, &open_id);
    open.begin();
    open.texts(&topic, 1, ["open"]);
    plain.texts(&topic, 1, ["behind the open one"]);
    commit_offset(&broker, &group, &topic, 42);
    delete_records(&broker, &topic, 10);
    let before = read(&broker, &topic, Isolation::Uncommitted);

    own.restart();

    assert_eq!(read(&broker, &topic, Isolation::Uncommitted), before);
    let mut raw = Raw::connect(&broker);
    let start = eventually("an elected leader", || match list_offsets(&mut raw, &topic, -2, Isolation::Uncommitted) {
        (code, start, _) if code == "None" => Ok(start),
        (code, ..) => Err(code),
    });
    assert_eq!(start, 10, "the log's start");
    assert_eq!(
        list_offsets(&mut raw, &topic, 1_700_000_000_050, Isolation::Uncommitted),
        ("None".into(), 50, 1_700_000_000_050),
        "the time index"
    );
    assert_eq!(committed(&broker, &group, &topic), Offset::Offset(42));
    let seen = read(&broker, &topic, Isolation::Committed)
        .into_iter()
        .filter(|r| r.partition == 1)
        .map(|r| r.text())
        .collect::<Vec<_>>();
    assert_eq!(seen, ["committed"], "aborted stays hidden, the open transaction still holds back what is behind it");
    let mut settings =
        wait(admin(&broker).describe_configs(&[ResourceSpecifier::Topic(&topic)], &admin_options())).unwrap();
    let settings = settings.remove(0).unwrap();
    assert_eq!(settings.get("max.message.bytes").and_then(|e| e.value.clone()).as_deref(), Some("3000000"));

    drop(open);
    let successor = Producer::transactional(&broker, &open_id);
    successor.begin();
    successor.texts(&topic, 1, ["successor"]);
    successor.commit().unwrap();
    let seen = eventually("the successor's commit", || {
        let seen: Vec<_> = read(&broker, &topic, Isolation::Committed)
            .into_iter()
            .filter(|r| r.partition == 1)
            .map(|r| r.text())
            .collect();
        if seen.len() == 3 { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(seen, ["committed", "behind the open one", "successor"]);
}

fn delete_records(broker: &crate::support::broker::Broker, topic: &str, to: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(to)).unwrap();
    wait(admin(broker).delete_records(&list, &admin_options())).unwrap().elements()[0].error().unwrap();
}

fn commit_offset(broker: &crate::support::broker::Broker, group: &str, topic: &str, offset: i64) {
    let consumer: BaseConsumer = config(broker, &[("group.id", group)]).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

fn committed(broker: &crate::support::broker::Broker, group: &str, topic: &str) -> Offset {
    let consumer: BaseConsumer = config(broker, &[("group.id", group)]).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    consumer.committed_offsets(list, DEADLINE).unwrap().elements()[0].offset()
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let Some(own) = Own::start(Kind::Embedded) else { return };
    let Own::Embedded { data, .. } = &own else { unreachable!("asked for the embedded one") };
    let folder = data.path().join("broker");
    let second = crate::support::hokusai::command(&[
        "broker",
        "--data",
        &folder.to_string_lossy(),
        "--listen",
        "127.0.0.1:0",
        "--format",
        "json",
    ]);
    let second = crate::support::hokusai::finish(second);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains(&*folder.to_string_lossy()), "names the folder: {}", second.err);
    assert!(second.err.contains("help:"), "names a way out: {}", second.err);
}

//! What could not be read is kept for the operator alone, and can be sent again when the plaintext is gone.

use crate::on_both_own_clusters;
use crate::support::client::{Isolation, Producer, Send, admin, admin_options, partitions, read, wait};
use crate::support::cluster::Cluster;
use crate::support::eventually;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

on_both_own_clusters! {
    a_dead_letter_is_sent_again_after_its_plaintext_is_gone,
}

const RECORD: &[u8] = b"\xff no contribution, but zaphod.letter@example.com stands in it";

fn listed(cluster: &Cluster, count: usize) -> Vec<Value> {
    eventually("the dead letters", || {
        let letters = cluster.lines(&["dead-letters", "list"]);
        if letters.len() == count { Ok(letters) } else { Err(format!("{letters:?}")) }
    })
}

/// Deletes everything that stands on `contributions` now.
fn purge(cluster: &Cluster) {
    let topic = cluster.topic("contributions");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions(&cluster.broker, &topic) {
        let partition = i32::try_from(partition).expect("few partitions");
        list.add_partition_offset(&topic, partition, Offset::End).expect("a valid offset");
    }
    wait(admin(&cluster.broker).delete_records(&list, &admin_options())).expect("records are deleted");
    assert!(read(&cluster.broker, &topic, Isolation::Committed).is_empty());
}

fn a_dead_letter_is_sent_again_after_its_plaintext_is_gone(cluster: Cluster) {
    let topic = cluster.topic("contributions");
    let producer = Producer::new(&cluster.broker, &[]);
    producer.send(&topic, &Send { key: Some(b"its key"), value: Some(RECORD), ..Send::default() }).expect("room");
    assert!(producer.settle().iter().all(Result::is_ok));
    let letter = listed(&cluster, 1).remove(0);
    let expected = (Some("intake"), Some(RECORD.len() as u64), Some("o1"), Some(false));
    let found =
        (letter["stage"].as_str(), letter["size"].as_u64(), letter["sealed_to"].as_str(), letter["retried"].as_bool());
    assert_eq!(found, expected, "{letter}");
    assert!(!letter.to_string().contains("zaphod"), "{letter}");
    purge(&cluster);
    let position = letter["position"].as_str().expect("a position").to_owned();
    let unknown = cluster.run(&["dead-letters", "retry", "--position", "contributions/0/999999"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    let retried = cluster.lines(&["dead-letters", "retry", "--position", &position]).remove(0);
    assert_eq!((retried["position"].as_str(), retried["status"].as_str()), (Some(position.as_str()), Some("retried")));
    let again = read(&cluster.broker, &topic, Isolation::Committed);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].key.as_deref(), again[0].value.as_deref()), (Some(&b"its key"[..]), Some(RECORD)));
    // It still cannot be read: it has its second letter. All that was not retried yet is that one.
    let letters = listed(&cluster, 2);
    let first = letters.iter().find(|l| l["position"] == position.as_str()).expect("the first letter");
    assert_eq!(first["retried"], true);
    let all = cluster.lines(&["dead-letters", "retry", "--all"]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_ne!(all[0]["position"], position.as_str());
    let audited = "select count(*) as n from audit where action = 'dead-letters.retry' and allowed";
    assert_eq!(cluster.count(audited), 2);
    let told = cluster.watch("dead-letters");
    assert!(
        told.iter().all(|r| r["value"]["sealed"].as_str().is_some_and(|text| text.starts_with("masked"))),
        "{told:?}"
    );
}

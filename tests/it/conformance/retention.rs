//! What brokers do at leisure: retention by time and size, compaction. Looked at through what a reader can still read.

use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{Isolation, Producer, Record, Send, read, topic, watermarks};
use crate::support::{eventually, unique};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

on_both_brokers! {
    retention_goes_by_the_records_own_time,
    without_retention_old_records_stay,
    retention_by_size_keeps_the_newest,
    compaction_keeps_the_last_value_of_every_key,
    compaction_never_shows_what_was_aborted,
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("a near year")
}

fn send(producer: &Producer, topic: &str, key: Option<&str>, value: Option<&[u8]>, time: i64) {
    let send =
        Send { partition: Some(0), key: key.map(str::as_bytes), value, timestamp: Some(time), ..Send::default() };
    producer.send(topic, &send).expect("the queue has room");
    assert!(producer.settle().iter().all(Result::is_ok));
}

fn retention_goes_by_the_records_own_time(broker: &Broker) {
    let topic = topic(broker, "old", 1, &[("retention.ms", "3600000"), ("segment.ms", "1000")]);
    let producer = Producer::new(broker, &[]);
    let day = 86_400_000;
    send(&producer, &topic, None, Some(b"yesterday"), now() - day);
    send(&producer, &topic, None, Some(b"also yesterday"), now() - day + 1);
    eventually("the end of yesterday", || match watermarks(broker, &topic, 0) {
        (2, 2) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    send(&producer, &topic, None, Some(b"today"), now());
    let seen: Vec<_> = read(broker, &topic, Isolation::Committed).iter().map(|r| (r.offset, r.text())).collect();
    assert_eq!(seen, [(2, "today".to_owned())], "offsets go on, the fresh record stays");
}

fn without_retention_old_records_stay(broker: &Broker) {
    let forever = topic(broker, "forever", 1, &[("retention.ms", "-1"), ("segment.ms", "1000")]);
    let mayfly = topic(broker, "mayfly", 1, &[("retention.ms", "1000"), ("segment.ms", "1000")]);
    let producer = Producer::new(broker, &[]);
    for topic in [&forever, &mayfly] {
        send(&producer, topic, None, Some(b"1970"), 1);
    }
    eventually("retention's visit", || match watermarks(broker, &mayfly, 0) {
        (1, 1) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(watermarks(broker, &forever, 0), (0, 1));
}

fn retention_by_size_keeps_the_newest(broker: &Broker) {
    // 1 MiB is the smallest segment that Apache Kafka 4 allows.
    let topic = topic(
        broker,
        "size",
        1,
        &[("retention.bytes", "2097152"), ("segment.bytes", "1048576"), ("retention.ms", "-1")],
    );
    let producer = Producer::new(broker, &[("compression.type", "none")]);
    let value = vec![b'x'; 100_000];
    for _ in 0..60 {
        send(&producer, &topic, None, Some(&value), now());
    }
    let start = eventually("a start that moved and rests", || {
        let records = read(broker, &topic, Isolation::Committed);
        match watermarks(broker, &topic, 0) {
            (start, 60) if start >= 20 && start + i64::try_from(records.len()).unwrap() == 60 => Ok(start),
            other => Err(format!("{other:?}, {} records", records.len())),
        }
    });
    assert!(start <= 40, "at least two megabytes stay: {start}");
}

fn fold(records: &[Record]) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for record in records {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        match &record.value {
            Some(_) => state.insert(key, record.text()),
            None => state.remove(&key),
        };
    }
    state
}

const COMPACT: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.ms", "500"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "60000"),
    ("min.compaction.lag.ms", "0"),
];

/// Rolls the segment and waits until fewer records than `before` are left.
fn compacted(broker: &Broker, topic: &str, before: usize) -> Vec<Record> {
    let producer = Producer::new(broker, &[]);
    let mut beat = 0_i64;
    eventually("compaction", || {
        send(&producer, topic, Some("beat"), Some(beat.to_string().as_bytes()), now() + beat * 1_000);
        beat += 1;
        std::thread::sleep(std::time::Duration::from_millis(300));
        let records: Vec<_> = read(broker, topic, Isolation::Committed)
            .into_iter()
            .filter(|r| r.key.as_deref() != Some(b"beat"))
            .collect();
        if records.len() < before { Ok(records) } else { Err(format!("{} records", records.len())) }
    })
}

fn compaction_keeps_the_last_value_of_every_key(broker: &Broker) {
    let topic = topic(broker, "compact", 1, COMPACT);
    let producer = Producer::new(broker, &[]);
    for round in 0..20 {
        for key in 0..10 {
            let value = format!("{key}/{round}");
            send(&producer, &topic, Some(&format!("key-{key}")), Some(value.as_bytes()), now());
        }
    }
    send(&producer, &topic, Some("key-3"), None, now());
    let before = read(broker, &topic, Isolation::Committed);
    let after = compacted(broker, &topic, before.len());
    assert_eq!(fold(&after), fold(&before));
    let kept: Vec<_> = after.iter().map(|r| (r.offset, r.key.clone(), r.value.clone())).collect();
    let were: Vec<_> = before.iter().map(|r| (r.offset, r.key.clone(), r.value.clone())).collect();
    assert!(kept.iter().all(|r| were.contains(r)), "what stays keeps its offset, key and value");
    assert!(kept.windows(2).all(|w| w[0].0 < w[1].0), "and its order");
}

fn compaction_never_shows_what_was_aborted(broker: &Broker) {
    let topic = topic(broker, "compact-tx", 1, COMPACT);
    let producer = Producer::transactional(broker, &unique("tx"));
    for round in 0..12 {
        producer.begin();
        for key in ["a", "b"] {
            let value = format!("{key}/{round}");
            send(&producer, &topic, Some(key), Some(value.as_bytes()), now());
        }
        if round % 3 == 2 { producer.abort().unwrap() } else { producer.commit().unwrap() }
    }
    let wanted: BTreeMap<String, String> =
        [("a", "a/10"), ("b", "b/10")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(fold(&read(broker, &topic, Isolation::Committed)), wanted);
    let after = compacted(broker, &topic, 16);
    assert_eq!(fold(&after), wanted);
}

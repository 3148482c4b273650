//! Producing and consuming: codecs, sizes, times, limits.

use super::*;

#[test]
fn every_codec_comes_back_as_it_was_sent() {
    let cluster = Cluster::start();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        cluster.create_topic(codec, 1, &[]);
        let producer = cluster.producer(&[("compression.type", codec), ("linger.ms", "20")]);
        let sent: Vec<String> = (0..500).map(|number| format!("value {number} {}", "x".repeat(100))).collect();
        for value in &sent {
            send(&producer, codec, "k", value);
        }
        drain(&producer);
        assert_eq!(cluster.values(codec, "read_uncommitted"), sent, "{codec}");
    }
}

#[test]
fn a_record_of_five_megabytes_passes_when_the_topic_allows_it_and_is_refused_when_not() {
    let cluster = Cluster::start();
    cluster.create_topic("large", 1, &[("max.message.bytes", "6000000")]);
    cluster.create_topic("small", 1, &[]);
    let producer = cluster.producer(&[("message.max.bytes", "6000000")]);
    let value = "x".repeat(5_000_000);
    send(&producer, "large", "k", &value);
    send(&producer, "large", "k", "after");
    drain(&producer);
    let read = cluster.values("large", "read_committed");
    assert_eq!((read[0].len(), read[1].as_str()), (5_000_000, "after"));
    send(&producer, "small", "k", &value);
    drain(&producer);
    assert_eq!(cluster.watermarks("small"), (0, 0));
}

#[test]
fn offsets_are_found_by_time_in_both_kinds_of_topic() {
    let cluster = Cluster::start();
    cluster.create_topic("created", 1, &[]);
    cluster.create_topic("appended", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let producer = cluster.producer(&[]);
    let base = 1_700_000_000_000;
    for number in 0..1_000 {
        for topic in ["created", "appended"] {
            producer
                .send(BaseRecord::to(topic).key("k").payload("v").timestamp(base + number * 10))
                .map_err(|(error, _)| error)
                .unwrap();
        }
    }
    drain(&producer);
    let consumer = cluster.consumer(&[]);
    let find = |topic: &str, time: i64| {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(topic, 0, Offset::Offset(time)).unwrap();
        let found = consumer.offsets_for_times(wanted, PATIENCE).unwrap();
        found.elements()[0].offset()
    };
    assert_eq!(find("created", base), Offset::Offset(0));
    assert_eq!(find("created", base + 5_001), Offset::Offset(501));
    assert_eq!(find("created", base + 9_990), Offset::Offset(999));
    assert_eq!(find("created", base + 9_991), Offset::End);
    assert_eq!(find("appended", base + 9_991), Offset::Offset(0), "the clock is later than the records claim");
}

#[test]
fn an_unknown_topic_is_an_error_and_not_created() {
    let cluster = Cluster::start();
    let consumer = cluster.consumer(&[]);
    let metadata = consumer.fetch_metadata(Some("nowhere"), PATIENCE).unwrap();
    assert!(metadata.topics()[0].error().is_some());
    assert_eq!(consumer.fetch_metadata(None, PATIENCE).unwrap().topics().len(), 0);
}

#[test]
fn passwords_are_checked_when_users_are_configured() {
    let cluster = Cluster::start_with(|config| config.sasl_plain = Some(vec![("ann".into(), "secret".into())]));
    let login = |password: &str| {
        let settings = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "ann"),
            ("sasl.password", password),
        ];
        let consumer: BaseConsumer = cluster.client(&settings).create().unwrap();
        consumer.fetch_metadata(None, Duration::from_secs(3)).is_ok()
    };
    assert!(login("secret"));
    assert!(!login("guess"));
    let stranger: BaseConsumer = cluster.client(&[]).create().unwrap();
    assert!(stranger.fetch_metadata(None, Duration::from_secs(1)).is_err());
}

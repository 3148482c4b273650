//! Produce, fetch, offsets by time, timestamps, codecs, large records, truncation by request.

use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{
    self, Isolation, Producer, Send, admin, admin_options, read, read_texts, topic, wait, watermarks,
};
use crate::support::raw::{Raw, Stamp, batch, error, text};
use crate::support::{DEADLINE, eventually};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest, ProduceRequest, TopicName};
use kafka_protocol::records::{Compression, RecordBatchDecoder};
use rdkafka::Timestamp;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

on_both_brokers! {
    keys_values_headers_and_tombstones_come_back_as_they_went,
    offsets_count_from_zero_without_gaps_in_each_partition,
    offsets_are_found_by_time,
    create_time_is_the_producers,
    log_append_time_is_the_brokers,
    every_codec_is_readable_and_stored_as_it_came,
    five_megabytes_pass_when_the_topic_allows_them,
    a_record_above_the_topics_limit_is_refused,
    delete_records_moves_the_start_and_a_reader_below_it_is_told,
    a_fetch_waits_for_data_and_ends_when_it_comes,
    a_fetch_beyond_the_end_is_out_of_range,
    a_fetch_smaller_than_the_first_batch_still_gets_it,
    a_corrupt_batch_is_refused,
    unknown_topics_are_named_and_not_created,
}

const BASE: i64 = 1_700_000_000_000;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis())
        .expect("before the year 292 million")
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A produce request of one batch: the error and the base offset.
pub fn produce(raw: &mut Raw, topic: &str, partition: i32, records: Bytes) -> (String, i64) {
    produce_as(raw, None, topic, partition, records)
}

/// The same inside a transaction.
pub fn produce_as(
    raw: &mut Raw,
    transactional: Option<&str>,
    topic: &str,
    partition: i32,
    records: Bytes,
) -> (String, i64) {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let request = ProduceRequest::default()
        .with_transactional_id(transactional.map(|id| text(id).into()))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]),
        ]);
    let response = raw.call(9, &request);
    let partition = &response.responses[0].partition_responses[0];
    (error(partition.error_code), partition.base_offset)
}

/// What one partition's fetch showed.
#[derive(Debug, PartialEq)]
pub struct Fetched {
    /// The error.
    pub error: String,
    /// One past the last record.
    pub high_watermark: i64,
    /// One past the last record that no open transaction holds back.
    pub last_stable: i64,
    /// The first record.
    pub start: i64,
    /// Aborted transactions: first offsets.
    pub aborted: Vec<i64>,
    /// Offsets and values; control records as `commit`/`abort` marks.
    pub records: Vec<(i64, String)>,
    /// Compression of each batch.
    pub codecs: Vec<Compression>,
}

/// A fetch of one partition.
pub fn fetch(
    raw: &mut Raw,
    topic: &str,
    offset: i64,
    isolation: Isolation,
    max_bytes: i32,
    wait: (i32, i32),
) -> Fetched {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(max_bytes)
        .with_current_leader_epoch(-1)
        .with_log_start_offset(-1);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait.0)
        .with_min_bytes(wait.1)
        .with_max_bytes(max_bytes)
        .with_isolation_level(i8::from(isolation == Isolation::Committed))
        .with_session_epoch(-1)
        .with_topics(vec![FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition])]);
    let mut response = raw.call(11, &request);
    let partition = response.responses.remove(0).partitions.remove(0);
    let mut data = partition.records.unwrap_or_default();
    let sets =
        if data.is_empty() { Vec::new() } else { RecordBatchDecoder::decode_all(&mut data).expect("whole batches") };
    let records = sets.iter().flat_map(|set| &set.records).map(|record| {
        let value = if record.control {
            let key = record.key.as_deref().unwrap_or_default();
            if key.get(3) == Some(&1) { "commit".to_owned() } else { "abort".to_owned() }
        } else {
            String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
        };
        (record.offset, value)
    });
    Fetched {
        error: error(partition.error_code),
        high_watermark: partition.high_watermark,
        last_stable: partition.last_stable_offset,
        start: partition.log_start_offset,
        aborted: partition.aborted_transactions.unwrap_or_default().iter().map(|a| a.first_offset).collect(),
        records: records.collect(),
        codecs: sets.iter().map(|set| set.compression).collect(),
    }
}

/// Everything in partition 0 now.
pub fn fetch_all(raw: &mut Raw, topic: &str, isolation: Isolation) -> Fetched {
    fetch(raw, topic, 0, isolation, 8 << 20, (10, 0))
}

/// The offset of the first record at or after a time (−1 end, −2 start): error, offset, timestamp.
pub fn list_offsets(raw: &mut Raw, topic: &str, timestamp: i64, isolation: Isolation) -> (String, i64, i64) {
    let partition =
        ListOffsetsPartition::default().with_partition_index(0).with_timestamp(timestamp).with_current_leader_epoch(-1);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(i8::from(isolation == Isolation::Committed))
        .with_topics(vec![ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition])]);
    let response = raw.call(7, &request);
    let partition = &response.topics[0].partitions[0];
    (error(partition.error_code), partition.offset, partition.timestamp)
}

fn keys_values_headers_and_tombstones_come_back_as_they_went(broker: &Broker) {
    let topic = topic(broker, "roundtrip", 1, &[]);
    let producer = Producer::new(broker, &[]);
    let binary = [0_u8, 255, 1, 254];
    let sends = [
        Send {
            partition: Some(0),
            key: Some(b"k"),
            value: Some(b"v"),
            headers: vec![("trace", Some(&binary)), ("empty", Some(b"")), ("null", None)],
            ..Send::default()
        },
        Send { partition: Some(0), key: Some(b"gone"), value: None, ..Send::default() },
        Send { partition: Some(0), key: None, value: Some(b""), ..Send::default() },
    ];
    for send in &sends {
        producer.send(&topic, send).unwrap();
    }
    assert_eq!(producer.settle(), [Ok((0, 0)), Ok((0, 1)), Ok((0, 2))]);
    let seen: Vec<_> =
        read(broker, &topic, Isolation::Committed).into_iter().map(|r| (r.key, r.value, r.headers)).collect();
    let expected = [
        (
            Some(b"k".to_vec()),
            Some(b"v".to_vec()),
            vec![
                ("trace".to_owned(), Some(binary.to_vec())),
                ("empty".to_owned(), Some(Vec::new())),
                ("null".to_owned(), None),
            ],
        ),
        (Some(b"gone".to_vec()), None, vec![]),
        (None, Some(Vec::new()), vec![]),
    ];
    assert_eq!(seen, expected);
}

fn offsets_count_from_zero_without_gaps_in_each_partition(broker: &Broker) {
    let topic = topic(broker, "offsets", 3, &[]);
    let producer = Producer::new(broker, &[("linger.ms", "0")]);
    for round in 0..50 {
        for partition in 0..3 {
            let value = format!("{partition}/{round}");
            producer
                .send(&topic, &Send { partition: Some(partition), value: Some(value.as_bytes()), ..Send::default() })
                .unwrap();
        }
    }
    producer.settle();
    let seen: Vec<_> =
        read(broker, &topic, Isolation::Uncommitted).iter().map(|r| (r.partition, r.offset, r.text())).collect();
    let expected: Vec<_> = (0..3).flat_map(|p| (0..50).map(move |n| (p, n, format!("{p}/{n}")))).collect();
    assert_eq!(seen, expected);
    assert_eq!(watermarks(broker, &topic, 1), (0, 50));
}

fn offsets_are_found_by_time(broker: &Broker) {
    let topic = topic(broker, "by-time", 1, &[("retention.ms", "-1")]);
    let producer = Producer::new(broker, &[("linger.ms", "0")]);
    // Out of order on purpose: the answer is the first record whose time is not earlier.
    for (index, time) in [10, 20, 40, 30, 50].into_iter().enumerate() {
        let value = index.to_string();
        producer
            .send(
                &topic,
                &Send {
                    partition: Some(0),
                    value: Some(value.as_bytes()),
                    timestamp: Some(BASE + time),
                    ..Send::default()
                },
            )
            .unwrap();
        producer.settle();
    }
    let mut raw = Raw::connect(broker);
    let mut at = |time: i64| {
        let (error, offset, timestamp) = list_offsets(&mut raw, &topic, time, Isolation::Uncommitted);
        (error, offset, if timestamp > 0 { timestamp - BASE } else { timestamp })
    };
    let none = || "None".to_owned();
    let seen = [
        at(BASE),
        at(BASE + 10),
        at(BASE + 11),
        at(BASE + 21),
        at(BASE + 30),
        at(BASE + 41),
        at(BASE + 51),
        at(-2),
        at(-1),
        at(-3),
    ];
    let expected = [
        (none(), 0, 10),
        (none(), 0, 10),
        (none(), 1, 20),
        (none(), 2, 40),
        (none(), 2, 40),
        (none(), 4, 50),
        (none(), -1, -1),
        (none(), 0, -1),
        (none(), 5, -1),
        (none(), 4, 50),
    ];
    assert_eq!(seen, expected);

    let consumer: BaseConsumer = client::config(broker, &[("group.id", "by-time")]).create().unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(&topic, 0, Offset::Offset(BASE + 41)).unwrap();
    let found = consumer.offsets_for_times(asked, DEADLINE).unwrap();
    assert_eq!(found.elements()[0].offset(), Offset::Offset(4));
}

fn create_time_is_the_producers(broker: &Broker) {
    let topic = topic(broker, "create-time", 1, &[("retention.ms", "-1")]);
    let producer = Producer::new(broker, &[]);
    producer
        .send(&topic, &Send { partition: Some(0), value: Some(b"x"), timestamp: Some(BASE), ..Send::default() })
        .unwrap();
    producer.settle();
    assert_eq!(read(broker, &topic, Isolation::Committed)[0].timestamp, Timestamp::CreateTime(BASE));
}

fn log_append_time_is_the_brokers(broker: &Broker) {
    let topic = topic(broker, "append-time", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let producer = Producer::new(broker, &[("compression.type", "lz4")]);
    let before = now();
    for value in ["a", "b"] {
        producer
            .send(
                &topic,
                &Send { partition: Some(0), value: Some(value.as_bytes()), timestamp: Some(BASE), ..Send::default() },
            )
            .unwrap();
    }
    producer.settle();
    let after = now();
    let records = read(broker, &topic, Isolation::Committed);
    assert_eq!(records.len(), 2);
    for record in &records {
        match record.timestamp {
            Timestamp::LogAppendTime(time) => assert!((before..=after).contains(&time), "{before} ≤ {time} ≤ {after}"),
            other => panic!("{other:?}"),
        }
    }
    let mut raw = Raw::connect(broker);
    let (error, offset, time) = list_offsets(&mut raw, &topic, before, Isolation::Uncommitted);
    assert_eq!((error.as_str(), offset), ("None", 0));
    assert!((before..=after).contains(&time));
}

fn every_codec_is_readable_and_stored_as_it_came(broker: &Broker) {
    let value = "a value that compresses well ".repeat(40);
    let mut seen = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = topic(broker, codec, 1, &[]);
        let producer = Producer::new(broker, &[("compression.type", codec), ("linger.ms", "20")]);
        producer.texts(&topic, 0, vec![&value; 20]);
        let texts = read_texts(broker, &topic, Isolation::Committed);
        assert_eq!(texts, vec![value.clone(); 20], "{codec}");
        let fetched = fetch_all(&mut Raw::connect(broker), &topic, Isolation::Uncommitted);
        seen.push((codec, fetched.codecs[0]));
    }
    let expected = [
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];
    assert_eq!(seen, expected);
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn five_megabytes_pass_when_the_topic_allows_them(broker: &Broker) {
    let topic = topic(broker, "large", 1, &[("max.message.bytes", "6000000")]);
    let producer = Producer::new(broker, &[]);
    let value = noise(5_000_000);
    for _ in 0..3 {
        producer.send(&topic, &Send { partition: Some(0), value: Some(&value), ..Send::default() }).unwrap();
    }
    assert_eq!(producer.settle(), [Ok((0, 0)), Ok((0, 1)), Ok((0, 2))]);
    let records = read(broker, &topic, Isolation::Committed);
    assert_eq!(records.iter().map(|r| r.value.as_deref() == Some(&value[..])).collect::<Vec<_>>(), [true; 3]);
}

fn a_record_above_the_topics_limit_is_refused(broker: &Broker) {
    let topic = topic(broker, "limit", 1, &[]);
    let producer = Producer::new(broker, &[]);
    let value = noise(2_000_000);
    producer.send(&topic, &Send { partition: Some(0), value: Some(&value), ..Send::default() }).unwrap();
    assert_eq!(producer.settle(), [Err(RDKafkaErrorCode::MessageSizeTooLarge)]);
    assert_eq!(producer.texts(&topic, 0, ["small"]), [Ok((0, 0))], "the topic lives on");
}

fn delete_records_moves_the_start_and_a_reader_below_it_is_told(broker: &Broker) {
    let topic = topic(broker, "purged", 1, &[]);
    let producer = Producer::new(broker, &[]);
    producer.texts(&topic, 0, (0..10).map(|n| n.to_string()));
    let delete = |offset| {
        let mut to = TopicPartitionList::new();
        to.add_partition_offset(&topic, 0, offset).unwrap();
        let result = wait(admin(broker).delete_records(&to, &admin_options())).unwrap();
        let element = &result.elements()[0];
        (element.error().map_err(|e| e.rdkafka_error_code()), element.offset())
    };
    assert_eq!(delete(Offset::Offset(4)), (Ok(()), Offset::Offset(4)));
    assert_eq!(watermarks(broker, &topic, 0), (4, 10));
    assert_eq!(read_texts(broker, &topic, Isolation::Committed), ["4", "5", "6", "7", "8", "9"]);
    assert_eq!(delete(Offset::Offset(2)), (Ok(()), Offset::Offset(4)), "the start never moves back");
    assert_eq!(delete(Offset::Offset(11)).0, Err(Some(RDKafkaErrorCode::OffsetOutOfRange)), "beyond the end");

    let mut raw = Raw::connect(broker);
    let below = fetch(&mut raw, &topic, 1, Isolation::Uncommitted, 1 << 20, (10, 0));
    assert_eq!((below.error.as_str(), below.records.len()), ("OffsetOutOfRange", 0));

    let consumer: BaseConsumer = client::config(
        broker,
        &[("group.id", "purged"), ("auto.offset.reset", "error"), ("enable.auto.commit", "false")],
    )
    .set_log_level(RDKafkaLogLevel::Emerg)
    .create()
    .unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&topic, 0, Offset::Offset(1)).unwrap();
    consumer.assign(&from).unwrap();
    let told = eventually("the consumer's error", || match consumer.poll(Duration::from_millis(100)) {
        Some(Err(KafkaError::MessageConsumption(code))) => Ok(code),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(told, RDKafkaErrorCode::AutoOffsetReset);

    assert_eq!(delete(Offset::End), (Ok(()), Offset::Offset(10)), "−1 is the end");
    assert_eq!(watermarks(broker, &topic, 0), (10, 10));
    assert_eq!(producer.texts(&topic, 0, ["next"]), [Ok((0, 10))]);
    assert_eq!(list_offsets(&mut raw, &topic, -2, Isolation::Uncommitted), ("None".into(), 10, -1));
}

fn a_fetch_waits_for_data_and_ends_when_it_comes(broker: &Broker) {
    let topic = topic(broker, "long-poll", 1, &[]);
    let mut raw = Raw::connect(broker);
    let start = Instant::now();
    let empty = fetch(&mut raw, &topic, 0, Isolation::Uncommitted, 1 << 20, (300, 1));
    assert_eq!((empty.error.as_str(), empty.records.len()), ("None", 0));
    assert!(start.elapsed() >= Duration::from_millis(290), "an empty fetch waits for max_wait_ms");
    let fetched = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| fetch(&mut Raw::connect(broker), &topic, 0, Isolation::Uncommitted, 1 << 20, (60_000, 1)));
        Producer::new(broker, &[]).texts(&topic, 0, ["news"]);
        waiting.join().expect("a response")
    });
    assert_eq!(fetched.records, [(0, "news".to_owned())]);
    assert!(start.elapsed() < Duration::from_secs(50), "it did not wait for the whole minute");
}

fn a_fetch_beyond_the_end_is_out_of_range(broker: &Broker) {
    let topic = topic(broker, "beyond", 1, &[]);
    Producer::new(broker, &[]).texts(&topic, 0, ["one"]);
    let mut raw = Raw::connect(broker);
    let mut at = |offset| fetch(&mut raw, &topic, offset, Isolation::Uncommitted, 1 << 20, (10, 0)).error;
    assert_eq!([at(0), at(1), at(2), at(-5)], ["None", "None", "OffsetOutOfRange", "OffsetOutOfRange"]);
}

fn a_fetch_smaller_than_the_first_batch_still_gets_it(broker: &Broker) {
    let topic = topic(broker, "small-fetch", 1, &[]);
    let value = "x".repeat(10_000);
    let mut raw = Raw::connect(broker);
    for _ in 0..2 {
        produce(&mut raw, &topic, 0, batch(Stamp::NONE, &[&value], Compression::None, BASE));
    }
    let fetched = fetch(&mut raw, &topic, 0, Isolation::Uncommitted, 100, (10, 1));
    assert_eq!(fetched.records, [(0, value)]);
    assert_eq!(fetched.high_watermark, 2);
}

fn a_corrupt_batch_is_refused(broker: &Broker) {
    let topic = topic(broker, "corrupt", 1, &[]);
    let mut raw = Raw::connect(broker);
    let mut bytes = batch(Stamp::NONE, &["value"], Compression::None, BASE).to_vec();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    let (error, _) = produce(&mut raw, &topic, 0, Bytes::from(bytes));
    assert_eq!(error, "CorruptMessage");
    assert_eq!(watermarks(broker, &topic, 0), (0, 0));
    let good = batch(Stamp::NONE, &["value"], Compression::None, BASE);
    assert_eq!(produce(&mut raw, &topic, 0, good), ("None".into(), 0));
}

fn unknown_topics_are_named_and_not_created(broker: &Broker) {
    let name = crate::support::unique("nowhere");
    let mut raw = Raw::connect(broker);
    let (produced, _) = produce(&mut raw, &name, 0, batch(Stamp::NONE, &["x"], Compression::None, BASE));
    let fetched = fetch_all(&mut raw, &name, Isolation::Uncommitted).error;
    let (listed, ..) = list_offsets(&mut raw, &name, -1, Isolation::Uncommitted);
    assert_eq!([produced, fetched, listed], ["UnknownTopicOrPartition"; 3]);
    let known = topic(broker, "known", 1, &[]);
    assert_eq!(
        produce(&mut raw, &known, 7, batch(Stamp::NONE, &["x"], Compression::None, BASE)).0,
        "UnknownTopicOrPartition"
    );

    let producer = Producer::new(broker, &[("message.timeout.ms", "5000")]);
    producer.send(&name, &Send { value: Some(b"x"), ..Send::default() }).unwrap();
    let outcome = producer.settle();
    assert!(
        matches!(
            outcome[..],
            [Err(RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::MessageTimedOut)]
        ),
        "{outcome:?}"
    );
    let client: BaseConsumer = client::config(broker, &[]).create().unwrap();
    let all = client.fetch_metadata(None, DEADLINE).unwrap();
    assert!(all.topics().iter().all(|t| t.name() != name), "asking created it");
}

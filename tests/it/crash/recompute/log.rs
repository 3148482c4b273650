//! The three topics as a declared reader outside the stages takes them in.

use crate::support::broker::Broker;
use crate::support::client::{config, partitions, passes};
use crate::support::flow::{datum, schema};
use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use arrow::array::{Array as _, AsArray as _};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The purged topics, without prefix.
pub const TOPICS: [&str; 3] = ["contributions.screened", "contributions.manifests", "contributions.verdicts"];

/// The declaration of the reader, for a topology file.
pub const DECLARATION: &str = "readers:
  - name: audit
    about: recomputes receipts
    topics: [contributions.screened, contributions.manifests, contributions.verdicts]
    patience: 1s
";

/// What was committed, by topic in the order of partition and offset.
#[derive(Debug, Default)]
pub struct Log {
    /// Records of `contributions.screened` by partition.
    pub screened: BTreeMap<i32, Vec<Screened>>,
    /// Manifests; the marks are left out.
    pub manifests: Vec<Value>,
    /// Verdicts.
    pub verdicts: Vec<Value>,
}

/// A record of `contributions.screened`.
#[derive(Debug)]
pub enum Screened {
    /// Rows of one chunk, as [row hash, feature hash], and the record without its batch.
    Rows(Value, Vec<[u128; 2]>),
    /// A release mark.
    Release(Value),
}

/// Reads as the declared reader: takes records in, then commits their offsets, until `stop` is set and the topics' ends are reached.
pub fn follow(broker: &Broker, topic: impl Fn(&str) -> String, stop: &AtomicBool) -> Log {
    let group = format!("{}hokusai-audit", topic(""));
    let settings = [
        ("group.id", group.as_str()),
        ("isolation.level", "read_committed"),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
        ("fetch.wait.max.ms", "50"),
    ];
    let consumer: BaseConsumer = config(broker, &settings).create().expect("a consumer");
    // From the very first record on: if one was purged before, this reader finds out.
    let mut next = BTreeMap::new();
    for name in TOPICS.map(&topic) {
        for partition in 0..partitions(broker, &name) {
            next.insert((name.clone(), i32::try_from(partition).expect("few partitions")), 0_i64);
        }
    }
    consumer.assign(&offsets(&next)).expect("an assignment");
    let (mut records, mut open) = (BTreeMap::new(), next.len());
    let (mut uncommitted, mut stopping) = (false, false);
    while !(stopping && open == 0) {
        if !stopping && stop.load(Ordering::SeqCst) {
            // Assigned anew, it hears of every partition's end once more.
            (stopping, open) = (true, next.len());
            consumer.assign(&offsets(&next)).expect("an assignment");
        }
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => {
                let place = (message.topic().to_owned(), message.partition());
                next.insert(place.clone(), message.offset() + 1);
                let value = message.payload().expect("no tombstones on these topics").to_owned();
                assert!(records.insert((place, message.offset()), value).is_none(), "a record was read twice");
                uncommitted = true;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open = open.saturating_sub(1),
            Some(Err(error)) => assert!(passes(&error), "the reader outside: {error}"),
            None if uncommitted => {
                consumer.commit(&offsets(&next), CommitMode::Sync).expect("its offsets are committed");
                uncommitted = false;
            }
            None => {}
        }
    }
    consumer.commit(&offsets(&next), CommitMode::Sync).expect("its offsets are committed");
    decode(&TOPICS.map(&topic), records)
}

fn offsets(next: &BTreeMap<(String, i32), i64>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in next {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("a valid offset");
    }
    list
}

fn decode(names: &[String; 3], records: BTreeMap<((String, i32), i64), Vec<u8>>) -> Log {
    let schemas = ["screened", "manifest", "verdict"].map(schema);
    let mut log = Log::default();
    for (((topic, partition), _), bytes) in records {
        let which = names.iter().position(|name| *name == topic).expect("one of the topics");
        let value = datum(&schemas[which], &bytes);
        match which {
            0 => log.screened.entry(partition).or_default().push(screened(&value)),
            1 => log.manifests.extend(json(field(&value, "manifest")).filter(|manifest| !manifest.is_null())),
            _ => log.verdicts.extend(json(&value)),
        }
    }
    log
}

fn json(value: &Avro) -> Option<Value> {
    value.clone().try_into().ok()
}

/// A field of a record, also through a union.
fn field<'v>(value: &'v Avro, name: &str) -> &'v Avro {
    match value {
        Avro::Union(_, inner) => field(inner, name),
        Avro::Record(fields) => &fields.iter().find(|(field, _)| field == name).expect("a field of the schema").1,
        other => panic!("no record with {name}: {other:?}"),
    }
}

fn screened(value: &Avro) -> Screened {
    let Avro::Union(_, rows) = field(value, "rows") else { panic!("a union") };
    if **rows == Avro::Null {
        return Screened::Release(json(field(value, "release")).expect("JSON"));
    }
    let Avro::Bytes(batch) = field(rows, "batch") else { panic!("bytes") };
    let head = ["id", "shard", "part", "parts", "rows", "refuse_label_conflicts"];
    let head = head.map(|name| (name.to_owned(), json(field(rows, name)).expect("JSON")));
    Screened::Rows(head.into_iter().collect::<serde_json::Map<_, _>>().into(), hashes(batch))
}

/// Hashes of the rows of an Arrow stream.
fn hashes(batch: &[u8]) -> Vec<[u128; 2]> {
    let reader = arrow::ipc::reader::StreamReader::try_new(batch, None).expect("an Arrow stream");
    let mut hashes = Vec::new();
    for batch in reader {
        let batch = batch.expect("a batch");
        let column = |name: &str| batch.column_by_name(name).expect("a column").as_fixed_size_binary();
        let number = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().expect("16 bytes"));
        let (rows, features) = (column("_row_hash"), column("_feature_hash"));
        hashes.extend((0..rows.len()).map(|at| [number(rows.value(at)), number(features.value(at))]));
    }
    hashes
}

/// A record as it stands on its topic: the frame of a single object (two bytes, the schema's fingerprint), then the datum.
pub fn encode(schema: &Schema, value: &Value) -> Vec<u8> {
    let mut bytes = vec![0xC3, 0x01];
    bytes.extend(schema.fingerprint::<apache_avro::rabin::Rabin>().bytes);
    let value = avro(value).resolve(schema).expect("a value of the schema");
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(schema).build().expect("a writer");
    writer.write_value(&mut bytes, value).expect("a datum");
    bytes
}

fn avro(value: &Value) -> Avro {
    match value {
        Value::Null => Avro::Null,
        Value::Bool(flag) => Avro::Boolean(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Avro::Long(whole),
            None => Avro::Double(number.as_f64().expect("a number")),
        },
        Value::String(text) => Avro::String(text.clone()),
        Value::Array(list) => Avro::Array(list.iter().map(avro).collect()),
        Value::Object(fields) => Avro::Map(fields.iter().map(|(name, value)| (name.clone(), avro(value))).collect()),
    }
}

//! Contributions as any Kafka client sends them, and receipts as any Kafka client reads them.

use super::broker::Broker;
use super::client::{Isolation, Producer, Record, Send, config, passes};
use super::cluster::Cluster;
use super::{eventually, root};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

/// A small shop: a number with a range, an enumeration, an e-mail, free text, a label.
pub fn shop_spec(model: &str) -> String {
    format!(
        "apiVersion: hokusai/v1
kind: Model
name: {model}
description: Will the customer buy again?
label: again
schema:
  - name: orders
    properties:
      - name: order
        logicalType: integer
        required: true
        logicalTypeOptions: {{minimum: 0}}
      - name: amount
        logicalType: number
        required: true
        logicalTypeOptions: {{minimum: 0, maximum: 1000}}
      - name: plan
        logicalType: string
        required: true
        logicalTypeOptions: {{enum: [basic, premium]}}
      - name: email
        logicalType: string
        pii: {{policy: hash, type: email_address}}
      - name: note
        logicalType: string
      - name: again
        logicalType: integer
        logicalTypeOptions: {{enum: [0, 1]}}
"
    )
}

/// A model of its own for a test: its name and its contract's digest.
pub fn shop(cluster: &Cluster) -> (String, String) {
    let model = super::unique("shop");
    let digest = cluster.apply(&model, &shop_spec(&model));
    (model, digest)
}

/// A row that the shop's contract accepts; every number gives another row.
pub fn row(order: i64) -> Value {
    json!({
        "order": order,
        "amount": f64::from(i32::try_from(order % 900).expect("below 900")) + 0.5,
        "plan": if order % 3 == 0 { "premium" } else { "basic" },
        "email": format!("customer{order}@example.com"),
        "note": format!("order {order} went well"),
        "again": order % 2,
    })
}

/// Many of them.
pub fn rows(orders: std::ops::Range<i64>) -> Vec<Value> {
    orders.map(row).collect()
}

/// A contribution of JSON rows.
pub fn contribution(id: &str, contributor: &str, model: &str, rows: &[Value]) -> Value {
    json!({"contribution_id": id, "contributor": contributor, "model": model, "format": "json", "rows": rows})
}

/// Produces values on `contributions`, without keys.
pub fn contribute(cluster: &Cluster, values: &[Value]) {
    let producer = Producer::new(&cluster.broker, &[]);
    for value in values {
        contribute_bytes(cluster, &producer, None, value.to_string().as_bytes());
    }
}

/// Produces bytes on `contributions`.
pub fn contribute_bytes(cluster: &Cluster, producer: &Producer, key: Option<&str>, value: &[u8]) {
    let send = Send { key: key.map(str::as_bytes), value: Some(value), ..Send::default() };
    producer.send(&cluster.topic("contributions"), &send).expect("the queue has room");
    assert!(producer.settle().iter().all(Result::is_ok), "the contribution is on the topic");
}

static RECEIPT: LazyLock<apache_avro::Schema> = LazyLock::new(|| schema("receipt"));

/// A published schema.
pub fn schema(name: &str) -> apache_avro::Schema {
    let path = root().join(format!("schemas/{name}.avsc"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    apache_avro::Schema::parse_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A value in Avro single-object encoding, decoded with the published schema and nothing of ours.
pub fn decode(schema: &apache_avro::Schema, value: &[u8]) -> Value {
    datum(schema, value).try_into().expect("JSON")
}

/// The same, as the Avro library gives it.
pub fn datum(schema: &apache_avro::Schema, value: &[u8]) -> apache_avro::types::Value {
    assert_eq!(value.get(..2), Some(&[0xC3, 0x01][..]), "single-object encoding");
    let mut body = &value[10..];
    apache_avro::reader::datum::GenericDatumReader::builder(schema)
        .build()
        .and_then(|r| r.read_value(&mut body))
        .expect("a record of this schema")
}

/// All receipts on the topic, oldest first.
pub fn receipts(broker: &Broker, topic: &str) -> Vec<(Record, Value)> {
    let records = super::client::read(broker, topic, Isolation::Committed);
    records
        .into_iter()
        .filter(|r| r.value.is_some())
        .map(|r| {
            let value = decode(&RECEIPT, r.value.as_deref().expect("filtered"));
            (r, value)
        })
        .collect()
}

/// Follows the receipts of a cluster.
pub struct Receipts {
    consumer: BaseConsumer,
    /// By contribution id, in the order they came; more than one is a broken promise.
    pub seen: BTreeMap<String, Vec<Value>>,
}

impl Receipts {
    /// From the topic's beginning.
    pub fn follow(cluster: &Cluster) -> Self {
        Self::follow_topic(&cluster.broker, &cluster.topic("receipts"))
    }

    /// From the topic's beginning, by its name.
    pub fn follow_topic(broker: &Broker, topic: &str) -> Self {
        let settings = [
            ("group.id", "receipts-reader"),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("fetch.wait.max.ms", "10"),
        ];
        let consumer: BaseConsumer = config(broker, &settings).create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in 0..super::client::partitions(broker, topic) {
            let partition = i32::try_from(partition).expect("few partitions");
            all.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&all).expect("an assignment");
        Self { consumer, seen: BTreeMap::new() }
    }

    /// Takes what has come.
    pub fn poll(&mut self, wait: Duration) {
        if let Some(message) = self.consumer.poll(wait) {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    assert!(passes(&error), "receipts: {error}");
                    return;
                }
            };
            let Some(value) = message.payload() else { return };
            let receipt = decode(&RECEIPT, value);
            let id = receipt["contribution_id"].as_str().expect("an id").to_owned();
            assert_eq!(message.key(), Some(id.as_bytes()), "a receipt's key is its contribution");
            self.seen.entry(id).or_default().push(receipt);
        }
    }

    /// Waits for the receipt of a contribution.
    pub fn of(&mut self, id: &str) -> Value {
        eventually(&format!("the receipt of {id}"), || {
            for _ in 0..100 {
                if let Some(found) = self.seen.get(id) {
                    return Ok(found[0].clone());
                }
                self.poll(Duration::from_millis(20));
            }
            Err(format!("{} other receipts", self.seen.len()))
        })
    }
}

/// Waits for one receipt.
pub fn receipt(cluster: &Cluster, id: &str) -> Value {
    Receipts::follow(cluster).of(id)
}

/// The refusals of a receipt: reason → rows.
pub fn refused(receipt: &Value) -> BTreeMap<String, i64> {
    let list = receipt["refused"].as_array().unwrap_or_else(|| panic!("no refused in {receipt}"));
    list.iter()
        .map(|r| (r["reason"].as_str().expect("a reason").to_owned(), r["count"].as_i64().expect("a count")))
        .collect()
}

/// Status, received, accepted and the refusals; and that they add up.
pub fn account(receipt: &Value) -> (String, i64, i64, BTreeMap<String, i64>) {
    let number = |name: &str| receipt[name].as_i64().unwrap_or_else(|| panic!("no {name} in {receipt}"));
    let (received, accepted, refused) = (number("received"), number("accepted"), refused(receipt));
    assert_eq!(received, accepted + refused.values().sum::<i64>(), "received = accepted + Σ refused: {receipt}");
    (receipt["status"].as_str().expect("a status").to_owned(), received, accepted, refused)
}

/// `{reason: count}` for comparisons.
pub fn reasons<const N: usize>(list: [(&str, i64); N]) -> BTreeMap<String, i64> {
    list.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
}

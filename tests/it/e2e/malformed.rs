//! Nothing that outsiders send is believed: whatever is wrong with a record, it gets a dead letter or a refusal with its position
//! and a reason, and the stages go on.

use super::formats::document;
use crate::on_every_cluster;
use crate::support::client::{Producer, Send};
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribution, reasons, row, rows, schema};
use crate::support::{eventually, unique};
use apache_avro::rabin::Rabin;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use base64::Engine as _;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::Arc;

on_every_cluster! {
    whatever_is_malformed_gets_its_reason_and_the_stages_go_on,
}

/// What has to become of a record.
enum Fate {
    /// A dead letter whose detail says this.
    DeadLetter(&'static str),
    /// A receipt with these refusals and so many accepted rows.
    Refused(i64, &'static [(&'static str, i64)]),
}
use Fate::{DeadLetter, Refused};

struct Case {
    name: &'static str,
    key: Option<String>,
    value: Vec<u8>,
    fate: Fate,
}

/// The cases of one run, with ids of their own.
struct Cases {
    model: String,
    cases: Vec<(String, Case)>,
}

impl Cases {
    fn add(&mut self, name: &'static str, fate: Fate, value: impl FnOnce(&str, &str) -> Vec<u8>) {
        let id = unique(&name.replace(' ', "-"));
        let value = value(&id, &self.model);
        self.cases.push((id, Case { name, key: None, value, fate }));
    }

    /// A chunk of JSON rows in an envelope with other fields.
    fn envelope(&mut self, name: &'static str, fate: Fate, fields: Value) {
        self.add(name, fate, |id, model| {
            let mut value = contribution(id, "mallory", model, &[row(1)]);
            for (field, content) in fields.as_object().expect("fields") {
                value[field] = content.clone();
            }
            value.to_string().into_bytes()
        });
    }

    /// A chunk of these JSON rows.
    fn rows(&mut self, name: &'static str, fate: Fate, rows: &[Value]) {
        self.add(name, fate, |id, model| contribution(id, "mallory", model, rows).to_string().into_bytes());
    }

    /// A payload in some format.
    fn payload(&mut self, name: &'static str, fate: Fate, format: &str, payload: &[u8]) {
        self.add(name, fate, |id, model| {
            let payload = base64::engine::general_purpose::STANDARD.encode(payload);
            json!({"contribution_id": id, "contributor": "mallory", "model": model, "format": format, "payload": payload})
                .to_string()
                .into_bytes()
        });
    }

    /// Avro bytes of a valid contribution, changed.
    fn avro(&mut self, name: &'static str, fate: Fate, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        self.add(name, fate, |id, model| change(single_object(id, model)));
    }
}

/// A contribution as an Avro client writes it: single-object encoding with the published schema.
fn single_object(id: &str, model: &str) -> Vec<u8> {
    let schema = schema("contribution");
    let value = json!({
        "contribution_id": {"string": id}, "contributor": "mallory", "model": model, "contract_digest": null,
        "format": "json", "chunk": 0, "chunks": 1,
    });
    let mut record = apache_avro::types::Record::new(&schema).expect("a record");
    let text = |t: &str| apache_avro::types::Value::String(t.to_owned());
    record.put("contribution_id", apache_avro::types::Value::Union(1, Box::new(text(id))));
    for name in ["contributor", "model", "format"] {
        record.put(name, text(value[name].as_str().expect("text")));
    }
    record.put("contract_digest", apache_avro::types::Value::Union(0, Box::new(apache_avro::types::Value::Null)));
    record.put("chunk", apache_avro::types::Value::Long(0));
    record.put("chunks", apache_avro::types::Value::Long(1));
    record.put("payload", apache_avro::types::Value::Bytes(json!([row(1)]).to_string().into_bytes()));
    let datum = apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
        .build()
        .and_then(|writer| writer.write_value_to_vec(record))
        .expect("a datum");
    let mut bytes = vec![0xC3, 0x01];
    bytes.extend_from_slice(&schema.fingerprint::<Rabin>().bytes);
    bytes.extend(datum);
    bytes
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect())
        .expect("a batch")
}

fn parquet_of(batch: &RecordBatch, compression: Compression) -> Vec<u8> {
    let properties = WriterProperties::builder().set_compression(compression).set_dictionary_enabled(false).build();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a writer");
    writer.write(batch).expect("Parquet");
    writer.close().expect("a footer");
    bytes
}

fn arrow_of(batch: &RecordBatch) -> Vec<u8> {
    let options = arrow::ipc::writer::IpcWriteOptions::default()
        .try_with_compression(Some(arrow::ipc::CompressionType::ZSTD))
        .expect("zstd");
    let mut bytes = Vec::new();
    let mut writer =
        arrow::ipc::writer::StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options).expect("a writer");
    writer.write(batch).expect("Arrow");
    writer.finish().expect("an end");
    bytes
}

/// 120 MB of one letter in a few KiB.
fn bomb() -> RecordBatch {
    let text = "x".repeat(4 << 20);
    batch(vec![("note", Arc::new(StringArray::from_iter_values((0..30).map(|_| text.as_str()))))])
}

/// The shop's columns with another `amount`.
fn amounts(first: i64, amounts: Float64Array) -> RecordBatch {
    let n = amounts.len();
    let orders = Int64Array::from_iter_values((first..).take(n));
    batch(vec![
        ("order", Arc::new(orders)),
        ("amount", Arc::new(amounts)),
        ("plan", Arc::new(StringArray::from_iter_values((0..n).map(|_| "basic")))),
        ("again", Arc::new(Int64Array::from_iter_values((0..n).map(|_| 1)))),
    ])
}

fn avro_bomb() -> Vec<u8> {
    let schema =
        apache_avro::Schema::parse_str(r#"{"type":"record","name":"r","fields":[{"name":"note","type":"string"}]}"#)
            .expect("a schema");
    let codec = apache_avro::Codec::Deflate(apache_avro::DeflateSettings::default());
    let mut writer = apache_avro::Writer::with_codec(&schema, Vec::new(), codec).expect("a writer");
    let text = "x".repeat(4 << 20);
    for _ in 0..25 {
        let mut record = apache_avro::types::Record::new(&schema).expect("a record");
        record.put("note", text.as_str());
        writer.append_value(record).expect("a record of this schema");
    }
    writer.into_inner().expect("bytes")
}

/// 120 MB of zeros: nobody said that it would be compressed.
fn gzip_bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..120 {
        encoder.write_all(&vec![0; 1 << 20]).expect("room");
    }
    encoder.finish().expect("an end")
}

fn with(name: &str, value: Value) -> Value {
    let mut changed = row(1);
    changed[name] = value;
    changed
}

fn envelopes(cases: &mut Cases) {
    cases.add("an empty record", DeadLetter(""), |_, _| vec![]);
    cases.add("no record at all", DeadLetter("neither Avro"), |_, _| b"PAR1 this is no envelope".to_vec());
    cases.avro("truncated Avro", DeadLetter("not a contribution record"), |bytes| bytes[..bytes.len() / 2].to_vec());
    cases.avro("padded Avro", DeadLetter("not a contribution record"), |bytes| [bytes, vec![0; 3]].concat());
    cases.avro("a fingerprint of no schema", DeadLetter("fingerprint"), |mut bytes| {
        bytes[2..10].fill(0xAB);
        bytes
    });
    cases.avro("a schema id of no registry", DeadLetter("no schema registry is configured"), |bytes| {
        [&[0, 0, 0, 0, 99][..], &bytes[10..]].concat()
    });
    cases.avro("the fingerprint of another record", DeadLetter("it is a receipt record"), |mut bytes| {
        bytes[2..10].copy_from_slice(&schema("receipt").fingerprint::<Rabin>().bytes);
        bytes
    });
    cases.avro("valid Avro", Refused(1, &[]), |bytes| bytes);
    cases.add("ten megabytes of nesting", DeadLetter("nested deeper"), |_, _| {
        let depth = 5_000_000;
        ["{\"rows\":", &"[".repeat(depth), &"]".repeat(depth), "}"].concat().into_bytes()
    });
    cases.add("thirty megabytes of one text", DeadLetter("beyond the limit"), |_, _| {
        format!(r#"{{"contributor":"{}"}}"#, "x".repeat(30 << 20)).into_bytes()
    });
    cases.add("three megabytes of nesting", DeadLetter("nested deeper"), |id, model| {
        let deep = ["[".repeat(1_500_000), "]".repeat(1_500_000)].concat();
        format!(r#"{{"contribution_id":"{id}","contributor":"m","model":"{model}","rows":{deep}}}"#).into_bytes()
    });
    cases.add("a field twice", DeadLetter("duplicate field"), |id, model| {
        format!(r#"{{"contribution_id":"{id}","contributor":"m","model":"{model}","model":"x","rows":[]}}"#)
            .into_bytes()
    });
    cases.add("NaN in JSON", DeadLetter("not a contribution record"), |id, model| {
        format!(r#"{{"contribution_id":"{id}","contributor":"m","model":"{model}","rows":[{{"amount":NaN}}]}}"#)
            .into_bytes()
    });
    cases.envelope("chunk −1", DeadLetter("chunk is not within"), json!({"chunk": -1}));
    cases.envelope("chunk 1 of 1", DeadLetter("chunk is not within"), json!({"chunk": 1, "chunks": 1}));
    cases.envelope("no chunks", DeadLetter("chunks is not within"), json!({"chunks": 0}));
    cases.envelope(
        "too many chunks",
        DeadLetter("chunks is not within"),
        json!({"chunks": i64::MAX, "chunk": i64::MAX - 1}),
    );
    cases.envelope("chunk beyond 64 bits", DeadLetter("not a contribution record"), json!({"chunk": u64::MAX}));
    cases.envelope("chunk as text", DeadLetter("not a contribution record"), json!({"chunk": "0"}));
    cases.envelope("chunk with a fraction", DeadLetter("not a contribution record"), json!({"chunk": 0.5}));
    cases.envelope(
        "a payload that is no base64",
        DeadLetter("base64"),
        json!({"rows": null, "format": "csv", "payload": "%"}),
    );
    cases.envelope("rows and payload", DeadLetter("both rows and payload"), json!({"payload": "YQ=="}));
    cases.envelope("an unknown model", Refused(0, &[("UNKNOWN_MODEL", 1)]), json!({"model": "nobody-knows-it"}));
    cases.envelope(
        "an unknown contract",
        Refused(0, &[("UNKNOWN_CONTRACT", 1)]),
        json!({"contract_digest": "ab".repeat(32)}),
    );
    cases.envelope(
        "an unknown format",
        Refused(0, &[("PARSE_FORMAT", 1)]),
        json!({"rows": null, "format": "xml", "payload": "YQ=="}),
    );
    cases.rows("a key that contradicts", Refused(0, &[("KEY_MISMATCH", 1)]), &[row(1)]);
    cases.cases.last_mut().expect("a case").1.key = Some("another".to_owned());
}

fn documents(cases: &mut Cases) {
    let csv = |text: &str| text.as_bytes().to_vec();
    cases.payload(
        "CSV that is not UTF-8",
        Refused(0, &[("PARSE_CSV", 1)]),
        "csv",
        b"order,amount,plan,again\n1,1,ba\xffsic,1\n",
    );
    cases.payload(
        "an open quote",
        Refused(0, &[("PARSE_CSV", 1)]),
        "csv",
        &csv("order,amount,plan,again\n\"1,1,basic,1\n"),
    );
    cases.payload(
        "a column twice in CSV",
        Refused(0, &[("PARSE_CSV", 1)]),
        "csv",
        &csv("order,amount,plan,again,plan\n1,1,basic,1,basic\n"),
    );
    cases.payload(
        "NaN and infinities in CSV",
        Refused(1, &[("TYPE_MISMATCH", 3)]),
        "csv",
        &csv("order,amount,plan,again\n1,NaN,basic,1\n2,inf,basic,1\n3,-Infinity,basic,1\n4,1,basic,1\n"),
    );
    cases.payload("a number beyond floats in JSON", Refused(0, &[("PARSE_JSON", 1)]), "json", br#"[{"amount":1e999}]"#);
    cases.payload(
        "deep rows",
        Refused(0, &[("TOO_LARGE", 1)]),
        "json",
        ["[".repeat(400), "]".repeat(400)].concat().as_bytes(),
    );
    let floats = Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2.0]);
    cases.payload(
        "NaN and infinities in Parquet",
        Refused(1, &[("TYPE_MISMATCH", 3)]),
        "parquet",
        &parquet_of(&amounts(100, floats.clone()), Compression::UNCOMPRESSED),
    );
    cases.payload(
        "NaN and infinities in Arrow",
        Refused(1, &[("TYPE_MISMATCH", 3)]),
        "arrow",
        &arrow_of(&amounts(200, floats)),
    );
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).expect("a level"));
    cases.payload("a Parquet bomb", Refused(0, &[("TOO_LARGE", 1)]), "parquet", &parquet_of(&bomb(), zstd));
    cases.payload("a gzip bomb", Refused(0, &[("PARSE_CSV", 1)]), "csv", &gzip_bomb());
    cases.payload("an Arrow bomb", Refused(0, &[("TOO_LARGE", 1)]), "arrow", &arrow_of(&bomb()));
    cases.payload("an Avro bomb", Refused(0, &[("TOO_LARGE", 1)]), "avro", &avro_bomb());
    for (name, format, reason) in [
        ("a cut Parquet file", "parquet", &[("PARSE_PARQUET", 1)]),
        ("a cut Arrow stream", "arrow", &[("PARSE_ARROW", 1)]),
        ("a cut Avro file", "avro", &[("PARSE_AVRO", 1)]),
    ] {
        let bytes = document(format, &rows(0..50));
        cases.payload(name, Refused(0, reason), format, &bytes[..bytes.len() - 20]);
    }
    let twice = batch(vec![
        ("plan", Arc::new(StringArray::from(vec!["basic"]))),
        ("plan", Arc::new(StringArray::from(vec!["basic"]))),
    ]);
    cases.payload("a column twice in Arrow", Refused(0, &[("PARSE_ARROW", 1)]), "arrow", &arrow_of(&twice));
    let many = ["order,amount,plan,again\n", &"1,1,basic,1\n".repeat(70_000)].concat();
    cases.payload("seventy thousand rows", Refused(0, &[("TOO_LARGE", 1)]), "csv", many.as_bytes());
    let long = with("note", json!("x".repeat(5 << 20)));
    cases.rows("a chunk beyond four megabytes", Refused(0, &[("TOO_LARGE", 1)]), &[long]);
    let names: Vec<String> = (0..20_000).map(|i| format!("c{i}")).collect();
    cases.payload(
        "twenty thousand columns",
        Refused(0, &[("PARSE_CSV", 1)]),
        "csv",
        format!("{}\n", names.join(",")).as_bytes(),
    );
    let mut wide = row(1);
    names.iter().for_each(|name| wide[name] = json!(1));
    cases.rows("twenty thousand keys", Refused(0, &[("SCHEMA_EXTRA_COLUMN", 1)]), &[wide]);
}

fn cells(cases: &mut Cases) {
    cases.rows(
        "wrong types",
        Refused(1, &[("TYPE_MISMATCH", 5)]),
        &[
            with("order", json!("one")),
            with("order", json!(1.5)),
            with("amount", json!([1])),
            with("plan", json!({"a": 1})),
            json!(17),
            row(1),
        ],
    );
    cases.rows(
        "times before the era",
        Refused(1, &[("RANGE_LOW", 1), ("TYPE_MISMATCH", 1)]),
        &[with("at", json!("1066-10-14T09:00:00Z")), with("at", json!(-5)), with("at", json!("2024-05-01T00:00:00Z"))],
    );
    cases.rows("times to come", Refused(0, &[("TS_FUTURE", 1)]), &[with("at", json!("9999-12-31T23:59:59Z"))]);
    cases.add("a key twice in a row", Refused(0, &[("TYPE_MISMATCH", 1)]), |id, model| {
        let text = contribution(id, "mallory", model, &[row(1)]).to_string();
        text.replace("\"amount\":", "\"amount\":7,\"amount\":").into_bytes()
    });
    // Every address becomes a token several times as long: the rows leave in many records, and none is too large.
    let dense: Vec<Value> = (0..30)
        .map(|i| {
            let mut value = row(20_000 + i);
            value["note"] = json!("a@b.co ".repeat(12_000));
            value
        })
        .collect();
    cases.rows("rows that grow beyond a record", Refused(30, &[]), &dense);
    let mut long = row(1);
    long["note"] = json!("x".repeat(100 << 10));
    cases.rows("a row that fits no record", Refused(1, &[("TOO_LARGE", 1)]), &[long, row(2)]);
    let bad: Vec<Value> = (0..20_000).map(|_| json!({"order": 1, "amount": -1, "plan": "basic", "again": 1})).collect();
    cases.rows("twenty thousand refusals", Refused(0, &[("RANGE_LOW", 20_000)]), &bad);
    cases.rows("no rows", Refused(0, &[]), &[]);
    cases.payload("a header and no rows", Refused(0, &[]), "csv", b"order,amount,plan,again\n");
    cases.payload(
        "a Parquet file without rows",
        Refused(0, &[]),
        "parquet",
        &parquet_of(&amounts(0, Float64Array::from(Vec::<f64>::new())), Compression::UNCOMPRESSED),
    );
}

fn spec(model: &str) -> String {
    let with_time = "      - name: at\n        logicalType: timestamp\n        logicalTypeOptions: {minimum: '2000-01-01T00:00:00Z'}\n      - name: note\n";
    crate::support::flow::shop_spec(model).replace("      - name: note\n", with_time)
}

fn whatever_is_malformed_gets_its_reason_and_the_stages_go_on(cluster: &Cluster) {
    // Each case has a model of its own where rows count as accepted: nobody else's rows are in its way.
    let mut all = Vec::new();
    for fill in [envelopes, documents, cells] {
        let model = unique("malformed");
        cluster.apply(&model, &spec(&model));
        let mut cases = Cases { model, cases: Vec::new() };
        fill(&mut cases);
        all.extend(cases.cases.into_iter().map(|case| (cases.model.clone(), case)));
    }
    let settings =
        [("message.max.bytes", "40000000"), ("compression.type", "zstd"), ("queue.buffering.max.kbytes", "200000")];
    let producer = Producer::new(&cluster.broker, &settings);
    let topic = cluster.topic("contributions");
    let mut sent = Vec::new();
    for (n, (_, (id, case))) in all.iter().enumerate() {
        let send = Send {
            partition: Some(i32::try_from(n % 2).expect("small")),
            key: case.key.as_deref().map(str::as_bytes),
            value: Some(&case.value),
            ..Send::default()
        };
        producer.send(&topic, &send).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let position = producer.settle().pop().expect("an answer");
        sent.push((id, case, position.unwrap_or_else(|e| panic!("{}: {e}", case.name))));
    }
    // Behind all of them, on each partition: the stage has gone on.
    let mut receipts = Receipts::follow(cluster);
    let model = unique("behind");
    cluster.apply(&model, &spec(&model));
    for partition in 0..2 {
        let id = unique("behind");
        let value = contribution(&id, "alice", &model, &rows(10 * i64::from(partition)..10 * i64::from(partition) + 5));
        producer.texts(&topic, partition, [value.to_string()]);
        assert_eq!(account(&receipts.of(&id)), ("admitted".into(), 5, 5, reasons([])), "behind partition {partition}");
    }
    let (letters, refusals) = (cluster.watch("dead-letters"), cluster.watch("contributions.refused"));
    let at = |record: &Value, (partition, offset): (i32, i64)| {
        let position = &record["value"]["position"];
        position["topic"] == "contributions" && position["partition"] == partition && position["offset"] == offset
    };
    for (id, case, position) in sent {
        // What is too large for one record comes in parts.
        let first = |letter: &&Value| at(letter, position) && letter["value"]["part"] == 0;
        let of_it: Vec<&Value> = letters.iter().filter(first).collect();
        match &case.fate {
            DeadLetter(detail) => {
                assert_eq!(of_it.len(), 1, "{}: {of_it:?}", case.name);
                let (reason, text) =
                    (&of_it[0]["value"]["reason"], of_it[0]["value"]["detail"].as_str().expect("text"));
                assert!(reason == "unreadable" || reason == "empty", "{}: {reason}", case.name);
                assert!(text.contains(detail), "{}: {text}", case.name);
                assert!(!receipts.seen.contains_key(id), "{}: no receipt for what is no contribution", case.name);
            }
            Refused(accepted, expected) => {
                assert!(of_it.is_empty(), "{}: {of_it:?}", case.name);
                let receipt = receipts.of(id);
                let expected: std::collections::BTreeMap<_, _> =
                    expected.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect();
                let total: i64 = expected.values().sum();
                let status = if *accepted > 0 { "admitted" } else { "refused" };
                assert_eq!(
                    account(&receipt),
                    (status.to_owned(), accepted + total, *accepted, expected.clone()),
                    "{}",
                    case.name
                );
                let told = refusals
                    .iter()
                    .filter(|r| at(r, position))
                    .flat_map(|r| r["value"]["refusals"].as_array().expect("refusals"));
                let told: std::collections::BTreeSet<&str> =
                    told.map(|r| r["code"].as_str().expect("a code")).collect();
                assert_eq!(told, expected.keys().map(String::as_str).collect(), "{}: told at its position", case.name);
            }
        }
    }
    eventually("green health", || match cluster.process.get("/health") {
        (200, _) => Ok(()),
        (status, text) => Err(format!("{status} {text}")),
    });
}

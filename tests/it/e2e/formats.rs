//! The same rows in any format and any number of chunks are the same rows: same counts, same quality, same PII.

use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribute, contribution, reasons, rows, shop};
use crate::support::unique;
use apache_avro::types::Value as Avro;
use arrow::array::RecordBatch;
use arrow::json::ReaderBuilder;
use base64::Engine as _;
use serde_json::{Value, json};
use std::sync::Arc;

on_every_cluster! {
    the_same_rows_in_every_format_get_the_same_account,
    the_same_rows_in_one_or_many_chunks_get_the_same_account,
    submit_takes_files_of_every_format,
}

const ROWS: i64 = 300;

fn batch(values: &[Value]) -> RecordBatch {
    use arrow::datatypes::{DataType, Field, Schema};
    let field = |name: &str, kind| Field::new(name, kind, true);
    let schema = Arc::new(Schema::new(vec![
        field("order", DataType::Int64),
        field("amount", DataType::Float64),
        field("plan", DataType::Utf8),
        field("email", DataType::Utf8),
        field("note", DataType::Utf8),
        field("again", DataType::Int64),
    ]));
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(values.len()).build_decoder().expect("a decoder");
    decoder.serialize(values).expect("rows of this schema");
    decoder.flush().expect("rows").expect("a batch")
}

/// The rows as a document of the format.
pub fn document(format: &str, values: &[Value]) -> Vec<u8> {
    let batch = batch(values);
    let mut bytes = Vec::new();
    match format {
        "csv" => arrow::csv::Writer::new(&mut bytes).write(&batch).expect("CSV"),
        "parquet" => {
            let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
            writer.write(&batch).expect("Parquet");
            writer.close().expect("a footer");
        }
        "arrow" => {
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).expect("a writer");
            writer.write(&batch).expect("Arrow");
            writer.finish().expect("an end");
        }
        "avro" => bytes = avro(values),
        "json" => bytes = Value::Array(values.to_vec()).to_string().into_bytes(),
        other => panic!("{other}"),
    }
    bytes
}

fn avro(values: &[Value]) -> Vec<u8> {
    let fields = [
        ("order", "long"),
        ("amount", "double"),
        ("plan", "string"),
        ("email", "string"),
        ("note", "string"),
        ("again", "long"),
    ];
    let declared: Vec<Value> =
        fields.iter().map(|(name, kind)| json!({"name": name, "type": ["null", kind]})).collect();
    let schema = json!({"type": "record", "name": "order", "fields": declared});
    let schema = apache_avro::Schema::parse_str(&schema.to_string()).expect("a schema");
    let mut writer = apache_avro::Writer::new(&schema, Vec::new()).expect("a writer");
    for value in values {
        let mut record = apache_avro::types::Record::new(&schema).expect("a record");
        for (name, kind) in fields {
            let value = match kind {
                "long" => Avro::Long(value[name].as_i64().expect("a number")),
                "double" => Avro::Double(value[name].as_f64().expect("a number")),
                _ => Avro::String(value[name].as_str().expect("text").to_owned()),
            };
            record.put(name, Avro::Union(1, Box::new(value)));
        }
        writer.append_value(record).expect("a record of this schema");
    }
    writer.into_inner().expect("bytes")
}

/// What must not depend on format or chunks.
fn essence(receipt: &Value) -> Value {
    json!({"account": account(receipt), "quality": receipt["quality"], "pii": receipt["pii"]})
}

fn the_same_rows_in_every_format_get_the_same_account(cluster: &Cluster) {
    let values = rows(0..ROWS);
    let mut receipts = Receipts::follow(cluster);
    let mut seen = Vec::new();
    for format in ["json", "csv", "parquet", "arrow", "avro"] {
        let (model, _) = shop(cluster);
        let id = unique(format);
        let value = if format == "json" {
            contribution(&id, "alice", &model, &values)
        } else {
            let payload = base64::engine::general_purpose::STANDARD.encode(document(format, &values));
            json!({"contribution_id": id, "contributor": "alice", "model": model, "format": format, "payload": payload})
        };
        contribute(cluster, &[value]);
        let receipt = receipts.of(&id);
        assert_eq!(account(&receipt), ("admitted".into(), ROWS, ROWS, reasons([])), "{format}");
        seen.push((format, essence(&receipt)));
    }
    for (format, essence) in &seen[1..] {
        assert_eq!(essence, &seen[0].1, "{format} differs from {}", seen[0].0);
    }
}

fn the_same_rows_in_one_or_many_chunks_get_the_same_account(cluster: &Cluster) {
    let mut values = rows(0..ROWS);
    values[7]["plan"] = json!("gold");
    values[200] = values[20].clone();
    let mut receipts = Receipts::follow(cluster);
    let mut seen = Vec::new();
    for size in [300, 100, 7] {
        let (model, _) = shop(cluster);
        let id = unique("chunked");
        let chunks: Vec<&[Value]> = values.chunks(size).collect();
        let records: Vec<Value> = chunks
            .iter()
            .enumerate()
            .map(|(k, rows)| {
                let mut value = contribution(&id, "alice", &model, rows);
                value["chunk"] = json!(k);
                value["chunks"] = json!(chunks.len());
                value
            })
            .collect();
        contribute(cluster, &records);
        seen.push((size, essence(&receipts.of(&id))));
    }
    for (size, essence) in &seen[1..] {
        assert_eq!(essence, &seen[0].1, "chunks of {size} rows");
    }
}

fn submit_takes_files_of_every_format(cluster: &Cluster) {
    let values = rows(0..ROWS);
    let mut seen = Vec::new();
    for format in ["json", "csv", "parquet", "arrow", "avro", "jsonl"] {
        let (model, _) = shop(cluster);
        let path = cluster.scratch().join(format!("{}.{format}", unique("rows")));
        let bytes = if format == "jsonl" {
            values.iter().map(|v| format!("{v}\n")).collect::<String>().into_bytes()
        } else {
            document(format, &values)
        };
        std::fs::write(&path, bytes).expect("a file");
        let lines =
            cluster.lines(&["submit", &path.to_string_lossy(), "--model", &model, "--contributor", "alice", "--wait"]);
        assert_eq!(lines.len(), 1, "{format}: one line per contribution: {lines:?}");
        assert_eq!(account(&lines[0]), ("admitted".into(), ROWS, ROWS, reasons([])), "{format}");
        seen.push((format, essence(&lines[0])));
    }
    for (format, essence) in &seen[1..] {
        assert_eq!(essence, &seen[0].1, "{format} differs from {}", seen[0].0);
    }
}

//! The stage as the runtime sees it: records in, records out.

use std::collections::BTreeMap;

use arrow::csv::WriterBuilder;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{
    NOW, apply, chunk, manifests, model, refusals, row, row_hashes, screened, send, spec, task, with,
};
use crate::codec::wire::Wire;
use crate::domain::records::{Contribution, Manifest, ManifestEvent, Refusal, ScreenedEvent};
use crate::domain::topics;
use crate::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError, Tick};

/// The one manifest and the one refusal of a chunk that is refused as a whole.
fn refused_whole(records: &[(Option<&str>, Value)]) -> (Manifest, Refusal) {
    let mut task = task();
    send(&mut task, records);
    let (manifests, refusals) = (manifests(&task), refusals(&task));
    assert_eq!((manifests.len(), refusals.len(), screened(&task).len()), (1, 1, 0), "{refusals:?}");
    let (manifest, refusal) = (manifests[0].clone(), refusals[0].clone());
    assert_eq!(refusal.row, -1);
    assert_eq!(
        manifest.refused.iter().map(|c| (c.name.as_str(), c.count)).collect::<Vec<_>>(),
        [(refusal.code.as_str(), manifest.received)]
    );
    assert!(!refusal.rule.is_empty() && !refusal.expected.is_empty() && !refusal.shape.is_empty(), "{refusal:?}");
    (manifest, refusal)
}

#[test]
fn a_chunk_becomes_rows_by_shard_refusals_and_one_manifest() {
    let mut task = task();
    let mut rows: Vec<_> = (0..200).map(row).collect();
    rows[7] = with(rows[7].clone(), json!({"age": 777}));
    rows[9] = with(rows[9].clone(), json!({"plan": "gold??"}));
    rows[11] = with(rows[11].clone(), json!({"age": "4111111111111111x"}));
    send(&mut task, &[(None, chunk(&rows))]);
    let manifest = &manifests(&task)[0];
    assert_eq!((manifest.received, manifest.chunks, manifest.appended), (200, 1, NOW));
    let refused: Vec<_> = manifest.refused.iter().map(|c| (c.name.as_str(), c.count)).collect();
    assert_eq!(refused, [("ENUM_UNKNOWN", 1), ("RANGE_HIGH", 1), ("TYPE_MISMATCH", 1)]);
    assert_eq!(manifest.shards.iter().map(|s| s.rows).sum::<i64>(), 197);
    assert_eq!((manifest.position.partition, manifest.position.offset), (0, 100));
    assert_eq!(manifest.quality.valid, 197);
    assert_eq!(manifest.chunk_root.len(), 64);
    for (destination, key, event) in task.sent::<ScreenedEvent>(topics::SCREENED) {
        let rows = event.rows.unwrap();
        assert_eq!((destination, key), (Destination::Partition(rows.shard), rows.shard.to_string().into_bytes()));
        assert_eq!((rows.id.clone(), rows.part, rows.parts), (manifest.id.clone(), 0, 1));
    }
    let refusals = refusals(&task);
    assert_eq!(
        refusals.iter().map(|r| (r.row, r.column.as_str())).collect::<Vec<_>>(),
        [(7, "age"), (9, "plan"), (11, "age")]
    );
    assert_eq!((refusals[0].rule.as_str(), refusals[0].expected.as_str()), ("maximum", "at most 120"));
    assert_eq!(refusals[0].row_digest.len(), 64);
}

#[test]
fn no_output_holds_a_value_of_a_refused_row_or_personal_data() {
    let canary = "zqxCanary77";
    let mut task = task();
    let mut rows: Vec<_> = (0..20).map(row).collect();
    rows[1] = with(rows[1].clone(), json!({"age": canary}));
    rows[2] = with(rows[2].clone(), json!({"plan": canary, "comment": canary}));
    rows[3] = with(rows[3].clone(), json!({"country": canary, "email": format!("{canary}@x.org")}));
    rows[4] = with(rows[4].clone(), json!({"event_time": canary}));
    rows[5] = with(rows[5].clone(), json!({"churned": null, "comment": canary}));
    rows[6] = with(rows[6].clone(), json!({"comment": format!("mail {canary}@example.org")}));
    rows[7] = with(rows[7].clone(), json!({"email": format!("{canary}@example.org")}));
    rows[8] = with(rows[8].clone(), json!({"balance": [canary]}));
    let headerless = format!("{canary},1,{canary}@x.org\n2,3,4\n");
    let csv = data_encoding::BASE64.encode(headerless.as_bytes());
    let records = [
        (None, chunk(&rows)),
        (
            None,
            with(chunk(&[]), json!({"contribution_id": "c-2", "rows": null, "format": "csv", "payload": csv.clone()})),
        ),
        (
            None,
            with(
                chunk(&[]),
                json!({"contribution_id": "c-3", "rows": null, "format": "parquet", "payload": csv.clone()}),
            ),
        ),
        (
            None,
            with(chunk(&[]), json!({"contribution_id": "c-4", "rows": null, "format": "avro", "payload": csv.clone()})),
        ),
        (
            None,
            with(
                chunk(&[]),
                json!({"contribution_id": "c-5", "rows": null, "format": "arrow", "payload": csv.clone()}),
            ),
        ),
        (None, with(chunk(&[]), json!({"contribution_id": "c-6", "rows": null, "format": canary, "payload": csv}))),
        (None, with(chunk(&[with(row(1), json!({"zqxCanary77@x.org": 1}))]), json!({"contribution_id": "c-7"}))),
        (None, Value::String(canary.to_owned())),
        (None, with(chunk(&[]), json!({"chunk": canary}))),
        (None, with(chunk(&[]), json!({"zqxCanary77@x.org": 1}))),
    ];
    send(&mut task, &records);
    assert_eq!((manifests(&task).len(), task.dead_letters.len()), (7, 3));
    for output in &task.outputs {
        let bytes = String::from_utf8_lossy(output.value.as_ref().unwrap()).to_lowercase();
        assert!(!bytes.contains("zqxcanary"), "{}: {bytes}", output.topic);
    }
    assert!(!format!("{:?}", task.dead_letters).to_lowercase().contains("zqxcanary"));
}

#[test]
fn cutting_the_records_into_other_batches_gives_the_same_bytes() {
    let records: Vec<_> = (0..6)
        .map(|c| with(chunk(&(c..c + 40).map(row).collect::<Vec<_>>()), json!({"contribution_id": format!("c-{c}")})))
        .collect();
    let run = |size: usize| {
        let mut task = task();
        for (i, part) in records.chunks(size).enumerate() {
            let mut batch = Batch::new(topics::CONTRIBUTIONS, 0);
            for (offset, value) in ((i * size) as i64..).zip(part) {
                batch.push(offset, NOW, None, Some(value.to_string().as_bytes()));
            }
            task.commit(&[batch]).unwrap();
        }
        task.outputs
    };
    assert_eq!(run(1), run(6));
    assert_eq!(run(4), run(6));
}

fn csv_of(rows: &[Value]) -> Vec<u8> {
    let names: Vec<_> = rows[0].as_object().unwrap().keys().cloned().collect();
    let field = |value: &Value| match value {
        Value::String(text) => format!("\"{text}\""),
        other => other.to_string(),
    };
    let lines = rows.iter().map(|row| names.iter().map(|name| field(&row[name])).collect::<Vec<_>>().join(","));
    std::iter::once(names.join(",")).chain(lines).collect::<Vec<_>>().join("\n").into_bytes()
}

pub(super) fn encoded(format: &str, rows: &[Value]) -> Vec<u8> {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    let field = |(name, data_type): (&str, DataType)| Field::new(name, data_type, true);
    let types = [
        ("record_id", DataType::Utf8),
        ("event_time", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("age", DataType::Int32),
        ("balance", DataType::Float64),
        ("plan", DataType::Utf8),
        ("country", DataType::Utf8),
        ("email", DataType::Utf8),
        ("comment", DataType::Utf8),
        ("churned", DataType::Boolean),
    ];
    let schema = std::sync::Arc::new(Schema::new(types.map(field).to_vec()));
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().unwrap();
    decoder.serialize(rows).unwrap();
    let batch = decoder.flush().unwrap().unwrap();
    let mut out = Vec::new();
    match format {
        "parquet" => {
            let mut writer = parquet::arrow::ArrowWriter::try_new(&mut out, schema, None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
        }
        "arrow" => {
            let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut out, &schema).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        }
        "avro" => {
            let mut writer = arrow_avro::writer::AvroWriter::new(&mut out, schema.as_ref().clone()).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        }
        _ => {
            let mut writer = WriterBuilder::new().with_header(true).build(&mut out);
            writer.write(&batch).unwrap();
        }
    }
    out
}

#[test]
fn the_same_rows_have_the_same_hashes_in_every_format() {
    let rows: Vec<_> = (0..50).map(row).collect();
    let mut json = task();
    send(&mut json, &[(None, chunk(&rows))]);
    let (expected, quality) = (row_hashes(&json), manifests(&json)[0].quality.clone());
    assert_eq!(expected.len(), 50);
    for (format, payload) in [
        ("csv", csv_of(&rows)),
        ("csv", encoded("csv", &rows)),
        ("parquet", encoded("parquet", &rows)),
        ("arrow", encoded("arrow", &rows)),
        ("avro", encoded("avro", &rows)),
    ] {
        let mut task = task();
        let payload = data_encoding::BASE64.encode(&payload);
        send(&mut task, &[(None, with(chunk(&[]), json!({"rows": null, "format": format, "payload": payload})))]);
        assert_eq!(row_hashes(&task), expected, "{format}: {:?}", refusals(&task));
        assert_eq!(manifests(&task)[0].quality, quality, "{format}");
        assert_eq!(manifests(&task)[0].chunk_root, manifests(&json)[0].chunk_root, "{format}");
    }
}

#[test]
fn the_id_is_the_field_else_the_key_else_derived() {
    let mut task = task();
    let anonymous = with(chunk(&[row(1)]), json!({"contribution_id": null}));
    let records = [
        (None, chunk(&[row(1)])),
        (Some("c-1"), chunk(&[row(1)])),
        (Some("from-key"), anonymous.clone()),
        (None, anonymous.clone()),
        (None, anonymous.clone()),
        (None, with(anonymous, json!({"contributor": "other"}))),
    ];
    send(&mut task, &records);
    let ids: Vec<_> = manifests(&task).into_iter().map(|m| m.id.contribution_id).collect();
    assert_eq!(ids[..3], ["c-1", "c-1", "from-key"]);
    assert_eq!(ids[3].len(), 52);
    assert_eq!(ids[3], ids[4]);
    assert_ne!(ids[3], ids[5]);
    assert!(refusals(&task).is_empty());
}

#[test]
fn a_key_that_contradicts_the_id_is_refused_under_the_id() {
    let (manifest, refusal) = refused_whole(&[(Some("other"), chunk(&[row(1)]))]);
    assert_eq!((refusal.code.as_str(), manifest.id.contribution_id.as_str()), ("KEY_MISMATCH", "c-1"));
}

#[test]
fn several_chunks_without_an_id_are_refused_each_on_its_own() {
    let value = with(chunk(&[row(1)]), json!({"contribution_id": null, "chunk": 1, "chunks": 3}));
    let (manifest, refusal) = refused_whole(&[(None, value.clone())]);
    assert_eq!((refusal.code.as_str(), manifest.chunks, manifest.id.chunk), ("ID_MISSING", 1, 0));
    let mut task = task();
    send(&mut task, &[(None, value.clone()), (None, value)]);
    let ids: Vec<_> = manifests(&task).into_iter().map(|m| m.id.contribution_id).collect();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn an_unknown_model_asks_for_current_models_once_and_is_refused_then() {
    let (manifest, refusal) = refused_whole(&[(None, with(chunk(&[row(1)]), json!({"model": "nobody"})))]);
    assert_eq!((refusal.code.as_str(), manifest.id.contract_digest.as_str()), ("UNKNOWN_MODEL", ""));
    let (_, refusal) = refused_whole(&[(None, with(chunk(&[row(1)]), json!({"contract_digest": "ab".repeat(32)})))]);
    assert_eq!(refusal.code, "UNKNOWN_CONTRACT");
    let mut task = task();
    let mut batch = Batch::new(topics::CONTRIBUTIONS, 0);
    batch.push(0, NOW, None, Some(with(chunk(&[row(1)]), json!({"model": "nobody"})).to_string().as_bytes()));
    let wire = Wire::default();
    let context = Context { partition: 0, broadcast_is_current: false, partitions: &BTreeMap::new() };
    let result = task.stage.process(&context, &mut (), &batch, &mut Outputs::new(&wire));
    assert!(matches!(result, Err(StageError::NeedsBroadcast)));
}

#[test]
fn a_named_contract_is_used_even_when_it_is_no_longer_in_force() {
    let old = spec("maximum: 120", "maximum: 200").contract_digest().unwrap();
    let mut task = task();
    let rows = [with(row(1), json!({"age": 150}))];
    let named = with(chunk(&rows), json!({"contract_digest": old}));
    send(&mut task, &[(None, chunk(&rows)), (None, named)]);
    let manifests = manifests(&task);
    assert_eq!(manifests[0].refused[0].name, "RANGE_HIGH");
    assert_eq!((manifests[1].refused.len(), manifests[1].id.contract_digest.as_str()), (0, old.as_str()));
    assert_eq!(manifests[0].id.contract_digest, spec("", "").contract_digest().unwrap());
}

#[test]
fn a_document_that_is_none_counts_as_one_row() {
    for (format, code) in [
        ("csv", "PARSE_CSV"),
        ("parquet", "PARSE_PARQUET"),
        ("arrow", "PARSE_ARROW"),
        ("avro", "PARSE_AVRO"),
        ("json", "PARSE_JSON"),
        ("xml", "PARSE_FORMAT"),
    ] {
        let payload = data_encoding::BASE64.encode(b"\"\xff\x00 no document");
        let (manifest, refusal) =
            refused_whole(&[(None, with(chunk(&[]), json!({"rows": null, "format": format, "payload": payload})))]);
        assert_eq!((refusal.code.as_str(), manifest.received), (code, 1));
        assert!(!manifest.quality.incompatible_schema);
    }
}

#[test]
fn unknown_and_missing_columns_refuse_the_chunk_by_name() {
    let rows: Vec<_> = (0..5).map(|i| with(row(i), json!({"salary": 1}))).collect();
    let (manifest, refusal) = refused_whole(&[(None, chunk(&rows))]);
    assert_eq!(
        (refusal.code.as_str(), refusal.column.as_str(), manifest.received),
        ("SCHEMA_EXTRA_COLUMN", "salary", 5)
    );
    assert!(manifest.quality.incompatible_schema);
    let rows: Vec<_> = (0..5).map(|i| with(row(i), json!({"plan": null}))).collect();
    let (_, refusal) = refused_whole(&[(None, chunk(&rows))]);
    assert_eq!((refusal.code.as_str(), refusal.column.as_str()), ("SCHEMA_MISSING_COLUMN", "plan"));
    let rows: Vec<_> = (0..5).map(|i| with(row(i), json!({"closed_at": 1}))).collect();
    let (_, refusal) = refused_whole(&[(None, chunk(&rows))]);
    assert_eq!((refusal.code.as_str(), refusal.rule.as_str()), ("SCHEMA_EXTRA_COLUMN", "leakage"));
    assert!(refusal.expected.contains("only those who left have it"));
}

#[test]
fn optional_columns_may_be_left_out() {
    let mut task = task();
    let rows: Vec<_> = (0..5).map(|i| with(row(i), json!({"country": null, "balance": null}))).collect();
    send(&mut task, &[(None, chunk(&rows))]);
    assert!(refusals(&task).is_empty());
    assert_eq!(manifests(&task)[0].quality.valid, 5);
}

#[test]
fn extra_columns_can_be_ignored_by_contract() {
    let mut task = task();
    apply(&mut task, &[&spec("label: churned", "label: churned\nextraColumns: ignore")]);
    send(&mut task, &[(None, chunk(&[with(row(1), json!({"salary": 1}))]))]);
    assert!(refusals(&task).is_empty());
}

#[test]
fn a_record_that_cannot_be_read_is_a_dead_letter_and_its_neighbours_live() {
    let mut task = task();
    let mut batch = Batch::new(topics::CONTRIBUTIONS, 0);
    let good = chunk(&[row(1)]).to_string();
    batch.push(0, NOW, None, Some(&good.as_bytes()[..good.len() / 2]));
    batch.push(1, NOW, None, None);
    batch.push(2, NOW, None, Some(b"\xc3\x01 not a record"));
    batch.push(3, NOW, None, Some(good.as_bytes()));
    task.commit(&[batch]).unwrap();
    assert_eq!(
        task.dead_letters.iter().map(|d| (d.position.offset, d.reason.as_str())).collect::<Vec<_>>(),
        [(0, "unreadable"), (1, "empty"), (2, "unreadable")]
    );
    assert_eq!(manifests(&task).len(), 1);
}

#[test]
fn a_contract_that_is_not_its_digest_leaves_the_earlier_one_in_force() {
    let mut task = task();
    let mut broken = model(&[&spec("", "")]);
    broken.contracts[0].digest = "00".repeat(32);
    broken.contract_digest = "00".repeat(32);
    let record = task.wire.encode(&broken).unwrap();
    let error = task.stage.broadcast(topics::MODELS, b"signup-churn", Some(&record), &task.wire).unwrap_err();
    assert!(error.to_string().contains("signup-churn"));
    send(&mut task, &[(None, chunk(&[row(1)]))]);
    assert!(refusals(&task).is_empty());
}

#[test]
fn marks_go_to_every_partition_of_the_manifests() {
    let mut task = task();
    let context = Context { partition: 2, broadcast_is_current: true, partitions: &task.partitions };
    let mut out = Outputs::new(&task.wire);
    let tick = Tick { source: 2, sources: 5, high_time: 77, at_end: true };
    task.stage.mark(&context, &tick, &mut out).unwrap();
    let (records, _) = out.into_parts();
    assert_eq!(records.iter().map(|r| r.destination).collect::<Vec<_>>(), [0, 1, 2].map(Destination::Partition));
    let event: ManifestEvent = task.wire.decode(records[0].value.as_ref().unwrap()).unwrap();
    let mark = event.mark.unwrap();
    assert_eq!((mark.source, mark.sources, mark.high_time, mark.at_end, event.manifest), (2, 5, 77, true, None));
}

fn any_cell() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(Value::Null),
        4 => any::<i64>().prop_map(Value::from),
        4 => any::<f64>().prop_map(Value::from),
        2 => any::<bool>().prop_map(Value::from),
        4 => "\\PC{0,12}".prop_map(Value::from),
        2 => "[0-9@.+: -]{0,20}".prop_map(Value::from),
        2 => Just(json!("2024-02-29T23:59:60Z")),
        1 => Just(json!({"nested": [1, "x"]})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_the_cells_hold_every_row_is_accounted_for(
        cells in prop::collection::vec((0usize..12, 0usize..9, any_cell()), 0..30),
    ) {
        let names = ["record_id", "event_time", "age", "balance", "plan", "country", "email", "comment", "churned"];
        let mut rows: Vec<_> = (0..12).map(row).collect();
        for (at, column, cell) in cells {
            rows[at].as_object_mut().unwrap().insert(names[column].to_owned(), cell);
        }
        let mut task = task();
        send(&mut task, &[(None, chunk(&rows))]);
        prop_assert!(task.dead_letters.is_empty());
        let manifest = manifests(&task).remove(0);
        let refused: i64 = manifest.refused.iter().map(|c| c.count).sum();
        let passed: i64 = manifest.shards.iter().map(|s| s.rows).sum();
        prop_assert_eq!((manifest.received, refused + passed), (12, 12));
        prop_assert_eq!(manifest.quality.valid, passed);
        prop_assert_eq!(refusals(&task).len() as i64, refused);
        prop_assert_eq!(row_hashes(&task).len() as i64, passed);
    }
}

#[test]
fn the_account_of_a_chunk_is_frozen() {
    let mut task = task();
    let mut rows: Vec<_> = (0..30).map(row).collect();
    rows[3] = with(rows[3].clone(), json!({"age": 121}));
    let value = Contribution {
        contribution_id: Some("golden".to_owned()),
        contributor: "acme".to_owned(),
        model: "signup-churn".to_owned(),
        contract_digest: None,
        format: "json".to_owned(),
        chunk: 1,
        chunks: 2,
        payload: Value::from(rows).to_string().into_bytes(),
        sealed: None,
        signature: None,
    };
    let mut batch = Batch::new(topics::CONTRIBUTIONS, 7);
    batch.push(42, NOW, None, Some(&task.wire.encode(&value).unwrap()));
    task.commit(&[batch]).unwrap();
    let found = json!({"manifest": manifests(&task)[0], "refusals": refusals(&task)});
    let golden: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert_eq!(found, golden, "{}", serde_json::to_string_pretty(&found).unwrap());
}

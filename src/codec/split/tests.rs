use super::*;
use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

fn plan(name: &str, content: &[u8]) -> (tempfile::TempDir, Result<Plan, SplitError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let plan = Plan::open(&path, None);
    (folder, plan)
}

fn payloads(plan: &Plan) -> Vec<Vec<u8>> {
    plan.payloads().map(Result::unwrap).collect()
}

#[test]
fn every_csv_chunk_is_a_complete_document_and_no_record_is_torn() {
    let mut text = String::from("id,text\n");
    for id in 0..150_000 {
        text.push_str(&format!("{id},\"line one\nline \"\"two\"\", {id}\"\n"));
    }
    let (_folder, plan) = plan("rows.csv", text.as_bytes());
    let plan = plan.unwrap();
    let chunks = payloads(&plan);
    assert_eq!(chunks.len(), plan.chunks());
    assert!(chunks.len() >= 3, "65,536 rows a chunk");
    let mut next = 0;
    for chunk in &chunks {
        assert!(chunk.len() <= MAX_CHUNK_WIRE);
        let mut reader = arrow::csv::ReaderBuilder::new(Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("text", DataType::Utf8, true),
        ])))
        .with_header(true)
        .build(&chunk[..])
        .unwrap();
        for batch in &mut reader {
            for id in batch.unwrap().column(0).as_any().downcast_ref::<Int64Array>().unwrap().values() {
                assert_eq!(*id, next);
                next += 1;
            }
        }
    }
    assert_eq!(next, 150_000);
}

#[test]
fn json_arrays_and_lines_are_cut_between_objects() {
    let array = br#"[ {"a": "} ] \" {"}, {"b": [1, {"c": 2}]} ]"#;
    let (_folder, cut) = plan("rows.json", array);
    let whole = payloads(&cut.unwrap());
    assert_eq!(whole.len(), 1);
    let parsed: serde_json::Value = serde_json::from_slice(&whole[0]).unwrap();
    assert_eq!(parsed.as_array().unwrap().len(), 2);

    let lines: String = (0..70_000).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    let (_folder, cut) = plan("rows.jsonl", lines.as_bytes());
    let counts: Vec<usize> = payloads(&cut.unwrap()).iter().map(|c| c.iter().filter(|b| **b == b'{').count()).collect();
    assert_eq!(counts, [65_536, 70_000 - 65_536]);
}

#[test]
fn what_is_no_document_is_refused_with_its_place() {
    for (name, content) in [
        ("open.json", &b"[{\"a\": 1}"[..]),
        ("torn.json", b"{\"a\": "),
        ("text.json", b"hello"),
        ("comma.json", b"[{\"a\": 1},]"),
        ("not.avro", b"PAR1"),
        ("not.parquet", b"hello"),
        ("not.arrow", b"hello"),
    ] {
        let (_folder, cut) = plan(name, content);
        assert!(matches!(cut, Err(SplitError::Malformed { .. })), "{name}: {cut:?}");
    }
    for (name, content) in
        [("empty.csv", &b""[..]), ("header.csv", b"a,b\n"), ("empty.json", b" "), ("none.json", b"[]")]
    {
        let (_folder, cut) = plan(name, content);
        assert!(matches!(cut, Err(SplitError::Empty)), "{name}: {cut:?}");
    }
    let (_folder, cut) = plan("rows.txt", b"a\n1\n");
    assert!(matches!(cut, Err(SplitError::UnknownFormat)));
}

fn batch(rows: usize) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("t", DataType::Utf8, false)]);
    let numbers = Int64Array::from_iter_values(0..rows as i64);
    // Text that does not compress, so that chunks reach their limit.
    let texts = StringArray::from_iter_values((0..rows as u64).map(|n| {
        (0..20).map(|k| format!("{:016x}", (n * 31 + k).wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect::<String>()
    }));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers), Arc::new(texts)]).unwrap()
}

#[test]
fn a_parquet_file_is_cut_into_complete_files_that_hold_its_rows_in_order() {
    let rows = batch(60_000);
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let (_folder, cut) = plan("rows.parquet", &bytes);
    let plan = cut.unwrap();
    let chunks = payloads(&plan);
    assert!(chunks.len() > 1);
    let mut next = 0;
    for chunk in chunks {
        assert!(chunk.len() <= MAX_CHUNK_WIRE);
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(chunk));
        for batch in reader.unwrap().build().unwrap() {
            for n in batch.unwrap().column(0).as_any().downcast_ref::<Int64Array>().unwrap().values() {
                assert_eq!(*n, next);
                next += 1;
            }
        }
    }
    assert_eq!(next, 60_000);
}

#[test]
fn encoding_again_gives_the_chunks_that_were_planned() {
    let rows = batch(40_000);
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut bytes, &rows.schema()).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().unwrap();
    let (_folder, cut) = plan("rows.arrow", &bytes);
    let mut plan = cut.unwrap();
    let kept = payloads(&plan);
    assert!(kept.len() > 1);
    if let Cut::Columnar(chunks) = &mut plan.cut {
        chunks.forget();
    }
    assert_eq!(payloads(&plan), kept);
}

#[test]
fn an_avro_container_is_cut_between_its_blocks() {
    let schema = apache_avro::Schema::parse_str(
        r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"},{"name":"t","type":"string"}]}"#,
    )
    .unwrap();
    let mut writer = apache_avro::Writer::new(&schema, Vec::new()).unwrap();
    for n in 0..70_000_i64 {
        let mut record = apache_avro::types::Record::new(writer.schema()).unwrap();
        record.put("n", n);
        record.put("t", "x".repeat(100));
        writer.append_value(record).unwrap();
    }
    let bytes = writer.into_inner().unwrap();
    let (_folder, cut) = plan("rows.avro", &bytes);
    let chunks = payloads(&cut.unwrap());
    assert!(chunks.len() > 1);
    let count: usize =
        chunks.iter().map(|chunk| apache_avro::Reader::new(&chunk[..]).unwrap().map(Result::unwrap).count()).sum();
    assert_eq!(count, 70_000);
}

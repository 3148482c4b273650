use super::*;
use crate::codec::formats;
use arrow::array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use parquet::basic::{Compression, GzipLevel};
use parquet::file::properties::WriterProperties;
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

fn parquet(batch: &RecordBatch, compression: Compression) -> Vec<u8> {
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn arrow_file(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn arrow_stream(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

/// The rows of all chunks as intake decodes them.
fn rows(plan: &Plan) -> RecordBatch {
    let target =
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8, true)]));
    let format = plan.format().parse().unwrap();
    let decoded: Vec<RecordBatch> = payloads(plan)
        .iter()
        .map(|chunk| formats::decode(format, chunk, &target, &formats::Limits::default()).unwrap())
        .inspect(|decoded| assert!(decoded.rejects.is_empty() && decoded.extra_columns.is_empty()))
        .map(|decoded| decoded.batch)
        .collect();
    arrow::compute::concat_batches(&target, &decoded).unwrap()
}

#[test]
fn columnar_files_are_cut_into_arrow_streams_that_hold_their_rows_in_order() {
    let all = batch(40_000);
    for (name, content) in [
        ("a.parquet", parquet(&all, Compression::SNAPPY)),
        ("a.arrow", arrow_file(&all)),
        ("a.arrows", arrow_stream(&all)),
    ] {
        let (_folder, cut) = plan(name, &content);
        let plan = cut.unwrap();
        assert_eq!(plan.format(), "arrow");
        assert!(plan.chunks() > 2, "{name}: {}", plan.chunks());
        assert!(payloads(&plan).iter().all(|chunk| chunk.len() <= MAX_CHUNK_WIRE));
        assert_eq!(payloads(&plan), payloads(&plan), "{name}");
        assert_eq!(rows(&plan).columns(), all.columns(), "{name}");
    }
}

#[test]
fn columnar_files_that_fit_are_sent_as_they_are() {
    let all = batch(1_000);
    for (name, format, content) in [
        ("a.pq", "parquet", parquet(&all, Compression::UNCOMPRESSED)),
        ("a.feather", "arrow", arrow_file(&all)),
        ("a.ipc", "arrow", arrow_stream(&all)),
    ] {
        let (_folder, cut) = plan(name, &content);
        let plan = cut.unwrap();
        assert_eq!((plan.format(), plan.chunks()), (format, 1), "{name}");
        assert_eq!(payloads(&plan), [content]);
        assert_eq!(rows(&plan).columns(), all.columns());
    }
    // Intake does not read gzip: such a file is written anew, however small.
    let (_folder, cut) = plan("a.parquet", &parquet(&all, Compression::GZIP(GzipLevel::default())));
    let plan = cut.unwrap();
    assert_eq!((plan.format(), plan.chunks()), ("arrow", 1));
    assert_eq!(rows(&plan).columns(), all.columns());
}

#[test]
fn many_short_rows_are_cut_at_the_limit_of_rows_and_dictionaries_are_not_repeated() {
    let words: DictionaryArray<Int32Type> = (0..140_000).map(|n| ["even", "odd"][n % 2]).collect();
    let numbers = Int64Array::from_iter_values(0..140_000);
    let all = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef), ("t", Arc::new(words))]).unwrap();
    let (_folder, cut) = plan("a.arrow", &arrow_file(&all));
    let plan = cut.unwrap();
    assert_eq!(plan.chunks(), 3);
    assert_eq!(rows(&plan).num_rows(), 140_000);
}

#[test]
fn a_file_that_is_written_to_in_between_is_an_error() {
    let (folder, cut) = plan("rows.csv", b"n\n1\n");
    let plan = cut.unwrap();
    std::fs::write(folder.path().join("rows.csv"), b"n\n1\n2\n").unwrap();
    assert!(plan.payloads().next().unwrap().unwrap_err().to_string().contains("was changed"));
}

#[test]
fn a_quote_within_a_field_does_not_swallow_the_rest() {
    let text: String = (0..70_000).map(|n| format!("{n},5\" pipe\n")).collect();
    let (_folder, cut) = plan("rows.csv", format!("n,t\n{text}").as_bytes());
    let plan = cut.unwrap();
    assert_eq!((plan.chunks(), rows(&plan).num_rows()), (2, 70_000));
}

#[test]
fn objects_over_several_lines_are_rows_too() {
    let (_folder, cut) = plan("rows.json", b"{\"n\": 1,\n \"t\": \"a\\\"}\"}\n{\n\"n\": 2} {\"t\": \"b\"}");
    assert_eq!(rows(&cut.unwrap()).num_rows(), 3);
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

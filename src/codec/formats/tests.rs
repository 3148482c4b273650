use super::*;
use ::arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, StringArray, StringViewArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use ::arrow::datatypes::{Field, Int32Type, Int64Type, Schema};
use ::arrow::ipc::CompressionType;
use ::arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, GzipLevel, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use apache_avro::types::Value as Avro;
use std::sync::Arc;

pub(crate) fn target() -> SchemaRef {
    let zone: Arc<str> = "UTC".into();
    Arc::new(Schema::new(vec![
        Field::new("flag", DataType::Boolean, true),
        Field::new("count", DataType::Int64, true),
        Field::new("score", DataType::Float64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some(zone)), true),
    ]))
}

/// Two rows and one of nulls.
fn rows() -> RecordBatch {
    let at = TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_456), None, Some(-1)]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int64Array::from(vec![Some(42), None, Some(-7)])),
        Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), None, Some(1e-300)])),
        Arc::new(StringArray::from(vec![Some("Zürich, \"X\"\n"), None, Some("b")])),
        Arc::new(Date32Array::from(vec![Some(19_675), None, Some(-1)])),
        Arc::new(at),
    ];
    RecordBatch::try_new(target(), columns).unwrap()
}

fn run(format: Format, document: &[u8]) -> Result<Decoded, FormatError> {
    decode(format, document, &target(), &Limits::default())
}

fn parquet(batch: &RecordBatch, compression: Compression) -> Vec<u8> {
    let mut file = Vec::new();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file
}

fn ipc_stream(batch: &RecordBatch, codec: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn ipc_file(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

const AVRO_SCHEMA: &str = r#"{"type":"record","name":"Row","fields":[
    {"name":"flag","type":["null","boolean"]},{"name":"count","type":["null","long"]},
    {"name":"score","type":["null","double"]},{"name":"name","type":["null","string"]},
    {"name":"day","type":["null",{"type":"int","logicalType":"date"}]},
    {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]}]}"#;

fn avro(codec: Codec) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(AVRO_SCHEMA).unwrap();
    let mut writer = apache_avro::Writer::with_codec(&schema, Vec::new(), codec).unwrap();
    let row = |values: [Option<Avro>; 6]| {
        let names = ["flag", "count", "score", "name", "day", "at"];
        let union = |v: Option<Avro>| match v {
            None => Avro::Union(0, Box::new(Avro::Null)),
            Some(v) => Avro::Union(1, Box::new(v)),
        };
        Avro::Record(names.iter().zip(values).map(|(n, v)| ((*n).to_owned(), union(v))).collect())
    };
    let text = |s: &str| Avro::String(s.to_owned());
    let first = [
        Avro::Boolean(true),
        Avro::Long(42),
        Avro::Double(0.1 + 0.2),
        text("Zürich, \"X\"\n"),
        Avro::Date(19_675),
        Avro::TimestampMicros(1_700_000_000_123_456),
    ];
    let last = [
        Avro::Boolean(false),
        Avro::Long(-7),
        Avro::Double(1e-300),
        text("b"),
        Avro::Date(-1),
        Avro::TimestampMicros(-1),
    ];
    writer.append_value(row(first.map(Some))).unwrap();
    writer.append_value(row([const { None }; 6])).unwrap();
    writer.append_value(row(last.map(Some))).unwrap();
    writer.into_inner().unwrap()
}

use apache_avro::Codec;

const JSON: &str = r#"[
 {"flag":true,"count":42,"score":0.30000000000000004,"name":"Zürich, \"X\"\n","day":"2023-11-14","at":"2023-11-14T22:13:20.123456Z"},
 {"name":null},
 {"at":"1970-01-01 00:59:59.999999+01:00","day":"1969-12-31","count":-7.0,"flag":false,"score":1e-300,"name":"b"}]"#;

const CSV: &str = "flag,count,score,name,day,at\r
true,42,0.30000000000000004,\"Zürich, \"\"X\"\"\n\",2023-11-14,2023-11-14 22:13:20.123456\r
,,,,,\r
FALSE,-7.0,1e-300,b,1969-12-31,1969-12-31T23:59:59.999999\r
";

pub(crate) fn documents() -> Vec<(Format, Vec<u8>)> {
    let lines = JSON.trim_matches(['[', ']']).replace("},\n", "}\n");
    vec![
        (Format::Json, JSON.into()),
        (Format::Json, lines.into()),
        (Format::Csv, CSV.into()),
        (Format::Csv, format!("\u{feff}{}", CSV.replace("\r\n", "\n").trim_end()).into()),
        (Format::Parquet, parquet(&rows(), Compression::UNCOMPRESSED)),
        (Format::Parquet, parquet(&rows(), Compression::SNAPPY)),
        (Format::Parquet, parquet(&rows(), Compression::ZSTD(ZstdLevel::default()))),
        (Format::Arrow, ipc_stream(&rows(), None)),
        (Format::Arrow, ipc_stream(&rows(), Some(CompressionType::LZ4_FRAME))),
        (Format::Arrow, ipc_stream(&rows(), Some(CompressionType::ZSTD))),
        (Format::Arrow, ipc_file(&rows())),
        (Format::Avro, avro(Codec::Null)),
        (Format::Avro, avro(Codec::Deflate(apache_avro::DeflateSettings::default()))),
        (Format::Avro, avro(Codec::Snappy)),
    ]
}

#[test]
fn the_same_rows_are_the_same_batch_in_every_format() {
    for (i, (format, document)) in documents().into_iter().enumerate() {
        let decoded = run(format, &document).unwrap_or_else(|e| panic!("{i} {format}: {e}"));
        assert_eq!(decoded.batch, rows(), "{i} {format}");
        assert_eq!((decoded.rows, decoded.received), (vec![0, 1, 2], 3), "{i} {format}");
        assert_eq!(decoded.rejects, [], "{i} {format}");
        assert!(decoded.extra_columns.is_empty() && decoded.missing_columns.is_empty(), "{i} {format}");
    }
}

#[test]
fn damaged_documents_are_refused_or_read_but_never_panic() {
    for (format, document) in documents() {
        for at in (0..document.len()).step_by(1 + document.len() / 700) {
            let _ = run(format, &document[..at]);
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = document.clone();
                damaged[at] ^= flip;
                let _ = run(format, &damaged);
            }
        }
        // A document of one format is none of another.
        for other in Format::ALL.into_iter().filter(|other| *other != format && *other != Format::Csv) {
            assert_eq!(run(other, &document).unwrap_err().reason(), other.reason(), "{format} as {other}");
        }
    }
}

fn summary(decoded: &Decoded) -> Vec<(u32, &str, &str, &str)> {
    decoded.rejects.iter().map(|r| (r.row, r.column.as_str(), r.expected.as_str(), r.shape.as_str())).collect()
}

#[test]
fn a_value_of_another_type_refuses_its_row_and_the_rest_goes_on() {
    let json = r#"[{"count":1},{"count":"4111111111111111","score":"x"},{"count":2},{"count":3.5},{"count":18446744073709551615},
        {"name":7},{"flag":0},{"day":"14.11.2023"},{"at":1700000000},{"score":[1]},{"name":{"a":1}},7,null,{"count":4}]"#;
    let decoded = run(Format::Json, json.as_bytes()).unwrap();
    assert_eq!(
        summary(&decoded),
        [
            (1, "count", "integer of 64 bits", "string, 16 digits"),
            (3, "count", "integer of 64 bits", "number with a fraction"),
            (4, "count", "integer of 64 bits", "integer, 20 digits"),
            (5, "name", "string", "integer, 1 digit"),
            (6, "flag", "boolean", "integer, 1 digit"),
            (7, "day", "date as YYYY-MM-DD", "string, 10 characters: 8 digits, 0 letters, 2 others"),
            (8, "at", "timestamp in ISO 8601", "integer, 10 digits"),
            (9, "score", "finite number", "array"),
            (10, "name", "string", "object"),
            (11, "", "an object", "integer, 1 digit"),
            (12, "", "an object", "null"),
        ]
    );
    assert_eq!((decoded.rows.as_slice(), decoded.received), (&[0, 2, 13][..], 14));
    assert_eq!(decoded.batch.column(1).as_primitive::<Int64Type>().values(), &[1, 2, 4]);
    assert!(decoded.rejects.iter().all(|r| r.reason == Reason::TypeMismatch));
}

#[test]
fn the_first_column_of_the_contract_is_the_reason_in_whatever_order_the_document_has_them() {
    for json in [r#"[{"flag":1,"count":"x"}]"#, r#"[{"count":"x","flag":1}]"#] {
        assert_eq!(run(Format::Json, json.as_bytes()).unwrap().rejects[0].column, "flag");
    }
    let twice = run(Format::Json, br#"[{"count":1,"count":2},{"count":3}]"#).unwrap();
    assert_eq!(summary(&twice), [(0, "count", "one value", "two values")]);
}

#[test]
fn csv_rows_with_another_number_of_fields_refuse_themselves() {
    let decoded = run(Format::Csv, b"count,name,x\n1,a,b\n2,a\n3,a,b,c\nx,a,b\n4,a,b\n").unwrap();
    assert_eq!(
        summary(&decoded),
        [
            (1, "", "3 fields, as in the header", "2 fields"),
            (2, "", "3 fields, as in the header", "4 fields"),
            (3, "count", "integer of 64 bits", "string, 1 letters"),
        ]
    );
    assert_eq!(decoded.rejects[0].reason, Reason::ParseCsv);
    assert_eq!((decoded.rows.as_slice(), decoded.received), (&[0, 4][..], 5));
    assert_eq!(decoded.extra_columns, ["x"]);
    assert_eq!(decoded.missing_columns, ["flag", "score", "day", "at"]);
    assert_eq!(run(Format::Csv, b"a,a\n1,2\n").unwrap_err().reason(), Reason::ParseCsv);
    assert!(run(Format::Csv, b"name\n\xFF\n").unwrap_err().to_string().contains("UTF-8"));
    assert_eq!(run(Format::Csv, b"count\n").unwrap().received, 0);
}

#[test]
fn columns_that_are_extra_or_missing_are_named() {
    let json = run(Format::Json, br#"[{"a":1,"count":1,"b":{"c":[]}},{"b":2,"d":null}]"#).unwrap();
    assert_eq!(json.extra_columns, ["a", "b", "d"]);
    assert_eq!(json.missing_columns, ["flag", "score", "name", "day", "at"]);
    let batch = RecordBatch::try_from_iter([
        ("z", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("count", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
    ])
    .unwrap();
    for (format, document) in
        [(Format::Parquet, parquet(&batch, Compression::SNAPPY)), (Format::Arrow, ipc_stream(&batch, None))]
    {
        let decoded = run(format, &document).unwrap();
        assert_eq!(decoded.extra_columns, ["z"], "{format}");
        assert_eq!(decoded.missing_columns, json.missing_columns, "{format}");
        assert_eq!(decoded.batch.num_rows(), 1);
    }
    // No known column at all: rows all the same.
    let batch = RecordBatch::try_from_iter([("z", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
    for document in [parquet(&batch, Compression::SNAPPY), ipc_stream(&batch, None)] {
        let format = if document.starts_with(b"PAR1") { Format::Parquet } else { Format::Arrow };
        assert_eq!(run(format, &document).unwrap().received, 2, "{format}");
    }
    let empty = run(Format::Json, b" [] ").unwrap();
    assert_eq!((empty.received, empty.missing_columns.len()), (0, 0));
}

#[test]
fn columnar_types_are_cast_when_nothing_is_lost() {
    let batch = RecordBatch::try_from_iter([
        ("count", Arc::new(UInt64Array::from(vec![1, u64::MAX, 3])) as ArrayRef),
        ("score", Arc::new(Float32Array::from(vec![0.5, 1.0, f32::NAN])) as ArrayRef),
        ("name", Arc::new(StringViewArray::from(vec!["a", "b", "c"])) as ArrayRef),
        ("day", Arc::new(StringArray::from(vec!["1970-01-02", "x", "1970-01-03"])) as ArrayRef),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![1_000, 2_999, 3_000])) as ArrayRef),
        ("flag", Arc::new(Int32Array::from(vec![None, None, None])) as ArrayRef),
    ])
    .unwrap();
    for (format, document) in
        [(Format::Parquet, parquet(&batch, Compression::SNAPPY)), (Format::Arrow, ipc_stream(&batch, None))]
    {
        let decoded = run(format, &document).unwrap();
        assert_eq!(
            summary(&decoded),
            [(1, "count", "integer of 64 bits", "integer, beyond 64 bits"), (2, "score", "finite number", "NaN"),],
            "{format}"
        );
        assert_eq!(decoded.rows, [0]);
        assert_eq!(decoded.batch.column(5).as_primitive::<::arrow::datatypes::TimestampMicrosecondType>().value(0), 1);
    }
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(1.5), None]));
    let texts: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, None]));
    let lists: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![None, Some(vec![Some(1)]), None]));
    let batch = RecordBatch::try_from_iter([("count", floats), ("name", texts), ("score", lists)]).unwrap();
    for (format, document) in
        [(Format::Parquet, parquet(&batch, Compression::SNAPPY)), (Format::Arrow, ipc_stream(&batch, None))]
    {
        let decoded = run(format, &document).unwrap();
        assert_eq!(
            summary(&decoded),
            [(0, "name", "string", "integer, 1 digit"), (1, "count", "integer of 64 bits", "number with a fraction"),],
            "{format}"
        );
    }
}

fn too_large(result: Result<Decoded, FormatError>) -> &'static str {
    match result {
        Err(FormatError::TooLarge { what, .. }) => what,
        other => panic!("expected TOO_LARGE, got {:?}", other.map(|d| d.received)),
    }
}

#[test]
fn row_document_and_nesting_limits_hold() {
    let limits = Limits { wire_bytes: 2_000, rows: 3, decoded_bytes: 1 << 20, depth: 4 };
    let over = |format, document: &[u8]| too_large(decode(format, document, &target(), &limits));
    assert!(over(Format::Csv, &[b' '; 2_001]).contains("bytes of the document"));
    assert!(over(Format::Json, b"[{},{},{},{}]").contains("rows"));
    assert!(over(Format::Csv, b"name\na\nb\nc\nd\n").contains("rows"));
    assert!(over(Format::Json, br#"[{"x":[[[1]]]}]"#).contains("nesting"));
    let four =
        RecordBatch::try_from_iter([("count", Arc::new(Int64Array::from(vec![1, 2, 3, 4])) as ArrayRef)]).unwrap();
    assert!(over(Format::Parquet, &parquet(&four, Compression::SNAPPY)).contains("rows"));
    assert!(over(Format::Arrow, &ipc_stream(&four, None)).contains("rows"));
    assert!(decode(Format::Avro, &avro(Codec::Null), &target(), &limits).is_ok());
    let two = Limits { rows: 2, ..limits };
    assert!(too_large(decode(Format::Avro, &avro(Codec::Null), &target(), &two)).contains("rows"));
}

#[test]
fn many_empty_rows_of_many_columns_are_counted_before_they_are_built() {
    let wide =
        Schema::new((0..2_000).map(|i| Field::new(format!("c{i}"), DataType::Float64, true)).collect::<Vec<_>>());
    let document = format!("[{}{{}}]", "{},".repeat(60_000));
    let found = decode(Format::Json, document.as_bytes(), &Arc::new(wide), &Limits::default());
    assert!(too_large(found).contains("decoded bytes"));
}

#[test]
fn one_long_text_that_stands_for_many_rows_is_counted_for_each() {
    let long = "x".repeat(300_000);
    let words = StringArray::from(vec![long.as_str()]);
    let dictionary: ArrayRef =
        Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0; 60_000]), Arc::new(words.clone())));
    let batch = RecordBatch::try_from_iter([("name", Arc::clone(&dictionary))]).unwrap();
    // A dictionary page of one long value, referred to by every row.
    let mut file = Vec::new();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_page_size_limit(1 << 24)
        .build();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    assert!(file.len() < 100_000, "{}", file.len());
    assert!(too_large(run(Format::Parquet, &file)).contains("decoded bytes"));
    assert!(
        too_large(run(Format::Arrow, &ipc_stream(&batch, Some(CompressionType::LZ4_FRAME)))).contains("decoded bytes")
    );
    // Views of one buffer.
    let view = StringViewArray::from(vec![long.as_str()]);
    let views = vec![view.views()[0]; 60_000];
    let view = StringViewArray::try_new(views.into(), view.data_buffers().to_vec(), None).unwrap();
    let batch = RecordBatch::try_from_iter([("name", Arc::new(view) as ArrayRef)]).unwrap();
    assert!(too_large(run(Format::Arrow, &ipc_stream(&batch, None))).contains("decoded bytes"));
}

#[test]
fn compressed_bombs_are_refused_before_they_are_unpacked() {
    let zeros: ArrayRef = Arc::new(StringArray::from(vec!["0".repeat(1 << 20); 70]));
    let batch = RecordBatch::try_from_iter([("name", zeros)]).unwrap();
    let mut file = Vec::new();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .build();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    assert!(too_large(run(Format::Parquet, &file)).contains("uncompressed bytes of the pages"));
    let ipc = ipc_stream(&batch, Some(CompressionType::ZSTD));
    assert!(too_large(run(Format::Arrow, &ipc)).contains("uncompressed bytes of the buffers"));
    let gzip = parquet(&rows(), Compression::GZIP(GzipLevel::default()));
    let error = run(Format::Parquet, &gzip).unwrap_err();
    assert!(error.to_string().contains("snappy, zstd"), "{error}");
    // An Avro block of records without content claims as many as it likes.
    let schema =
        apache_avro::Schema::parse_str(r#"{"type":"record","name":"N","fields":[{"name":"n","type":"null"}]}"#)
            .unwrap();
    let mut avro = apache_avro::Writer::with_codec(&schema, Vec::new(), Codec::Null).unwrap();
    for _ in 0..70_000 {
        avro.append_value(Avro::Record(vec![("n".to_owned(), Avro::Null)])).unwrap();
    }
    assert!(too_large(run(Format::Avro, &avro.into_inner().unwrap())).contains("rows"));
}

#[test]
fn errors_and_shapes_repeat_no_value() {
    let secret = "secret4111";
    for (format, document) in [
        (Format::Json, format!(r#"[{{"count":"{secret}"}}]"#)),
        (Format::Json, format!(r#"[{{"count":{secret}}}]"#)),
        (Format::Csv, format!("count\n{secret}\n")),
        (Format::Csv, format!("count\n\"{secret}\n")),
    ] {
        match run(format, document.as_bytes()) {
            Err(error) => assert!(!error.to_string().contains("4111"), "{error}"),
            Ok(decoded) => assert!(!format!("{:?}", decoded.rejects).contains("4111"), "{:?}", decoded.rejects),
        }
    }
}

#[test]
fn a_contract_type_that_no_format_has_is_a_defect_with_a_name() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int8, true)]));
    let error = decode(Format::Json, b"[]", &schema, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("column x has the type Int8"), "{error}");
}

//! Promises of SQL: it reads, it says what is wrong, and its output has one form.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use futures::TryStreamExt;
use proptest::prelude::*;

use super::*;
use crate::stages::warehouse::fixtures::{batches, receipt};
use crate::stages::warehouse::store::Store;
use crate::stages::warehouse::tables::Table;
use crate::stages::warehouse::writer::TableWriter;

async fn empty() -> (tempfile::TempDir, Session) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    let session = Session::open(store, "", Limits::default()).await.unwrap();
    (folder, session)
}

async fn text(session: &Session, sql: &str, format: OutputFormat) -> Result<String, SqlError> {
    let mut stream = session.query(sql).await?;
    let mut out = Vec::new();
    let mut writer = ResultWriter::new(format, stream.schema(), &mut out)?;
    while let Some(batch) = stream.try_next().await? {
        writer.write(&batch)?;
    }
    writer.finish()?;
    Ok(String::from_utf8(out).unwrap())
}

fn written(batch: &RecordBatch, format: OutputFormat) -> String {
    let mut out = Vec::new();
    let mut writer = ResultWriter::new(format, batch.schema(), &mut out).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn a_fresh_install_has_every_table_and_view_with_its_columns_and_no_rows() {
    let (folder, session) = empty().await;
    for relation in session.relations().await.unwrap() {
        let all = text(&session, &format!("select * from {}", relation.name), OutputFormat::Csv).await.unwrap();
        assert_eq!(all.lines().count(), 1, "{}: {all}", relation.name);
        assert!(!relation.comment.is_empty());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a query creates nothing");
}

#[tokio::test]
async fn statements_that_write_define_configure_or_reach_files_are_refused() {
    let (folder, session) = empty().await;
    let secret = folder.path().join("secret.csv");
    std::fs::write(&secret, "a,b\n1,2\n").unwrap();
    let path = secret.to_str().unwrap();
    let statements = [
        "insert into receipts select * from receipts".to_owned(),
        "insert into audit (actor) values ('me')".to_owned(),
        "update receipts set status = 'admitted'".to_owned(),
        "delete from receipts".to_owned(),
        "truncate table receipts".to_owned(),
        "merge into receipts using rows on true when matched then delete".to_owned(),
        "drop table receipts".to_owned(),
        "drop view admitted_rows".to_owned(),
        "alter table receipts add column x int".to_owned(),
        "create table t as select 1".to_owned(),
        "create table t (a int)".to_owned(),
        "create or replace view receipts as select 1".to_owned(),
        "create schema s".to_owned(),
        "create database d".to_owned(),
        "create function f(bigint) returns bigint return $1 + 1".to_owned(),
        "create index i on receipts (status)".to_owned(),
        format!("create external table t stored as csv location '{path}'"),
        format!("copy receipts to '{path}.out' stored as csv"),
        format!("copy (select 1) to '{path}.out'"),
        format!("select * from '{path}'"),
        format!("select * from \"{path}\""),
        format!("select * from \"file://{path}\""),
        format!("select * from read_csv('{path}')"),
        format!("select * from read_parquet('{path}')"),
        format!("select * from parquet_metadata('{path}')"),
        format!("select * from delta_scan('{path}')"),
        "select * from 'https://example.org/x.parquet'".to_owned(),
        "set datafusion.execution.batch_size = 1".to_owned(),
        "reset datafusion.execution.batch_size".to_owned(),
        "prepare p as select 1".to_owned(),
        "execute p".to_owned(),
        "deallocate p".to_owned(),
        "begin".to_owned(),
        "start transaction".to_owned(),
        "commit".to_owned(),
        "rollback".to_owned(),
        "vacuum".to_owned(),
        "grant select on receipts to me".to_owned(),
        "use other".to_owned(),
        "kill 1".to_owned(),
        "call f()".to_owned(),
        "explain insert into receipts select * from receipts".to_owned(),
        "explain analyze create table t as select 1".to_owned(),
        "with x as (select 1) insert into audit (actor) select 'a' from x".to_owned(),
        "select * into t from receipts".to_owned(),
        "select 1; select 2".to_owned(),
        "select 1; drop table receipts".to_owned(),
        String::new(),
        "-- nothing".to_owned(),
    ];
    for statement in &statements {
        let answer = text(&session, statement, OutputFormat::Json).await;
        assert!(answer.is_err(), "went through: {statement}: {answer:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was written");
    assert_eq!(text(&session, "select count(*) as n from receipts", OutputFormat::Json).await.unwrap(), "{\"n\":0}\n");
}

#[tokio::test]
async fn what_only_reads_goes_through() {
    let (_folder, session) = empty().await;
    for statement in [
        "select 1",
        "SELECT status FROM Receipts;",
        "values (1), (2)",
        "with x as (select * from rows) select count(*) from x",
        "explain select * from receipts",
        "explain analyze select * from receipts",
        "describe receipts",
        "show tables",
        "show columns from rows",
        "select row, shard from rows order by row limit 5",
        "select * from range(3)",
    ] {
        text(&session, statement, OutputFormat::Table).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

#[tokio::test]
async fn an_error_names_what_is_near_and_the_way_out() {
    let (_folder, session) = empty().await;
    let say = |sql: &'static str| {
        let session = &session;
        async move { session.query(sql).await.err().unwrap().to_string() }
    };
    let column = say("select contributer from receipts").await;
    assert!(column.contains("no column contributer") && column.contains("did you mean contributor?"), "{column}");
    let table = say("select * from reciepts").await;
    assert!(table.contains("no table reciepts") && table.contains("SHOW TABLES"), "{table}");
    let write = say("drop table receipts").await;
    assert!(write.contains("DROP TABLE is not allowed"), "{write}");
    let syntax = say("selec 1").await;
    assert!(syntax.starts_with("this is not SQL: Expected") && syntax.lines().count() == 1, "{syntax}");
}

#[tokio::test]
async fn a_query_that_needs_more_memory_than_allowed_fails_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    let limits = Limits { memory: 1 << 20, spill: 1 << 20, ..Limits::default() };
    let session = Session::open(store, "", limits).await.unwrap();
    let sql = "select count(distinct md5(cast(value as varchar))) as n from range(10000000)";
    let failure = text(&session, sql, OutputFormat::Json).await.unwrap_err();
    assert!(failure.to_string().contains("--memory"), "{failure}");
}

fn every_kind() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("text", Arc::new(StringArray::from(vec![Some("a,\"b\"\nc"), Some(""), None]))),
        ("long", Arc::new(Int64Array::from(vec![Some(9_007_199_254_740_993), Some(-1), None]))),
        ("float", Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN), None]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(vec![Some(12_345_678_901_234_567_890_123), Some(-5), None])
                    .with_precision_and_scale(30, 2)
                    .unwrap(),
            ),
        ),
        ("date", Arc::new(Date32Array::from(vec![Some(20_000), Some(-1), None]))),
        (
            "time",
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_001), Some(0), None]).with_timezone("UTC"),
            ),
        ),
        ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), Some(b""), None]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

#[test]
fn json_has_one_object_per_row_with_exact_numbers_and_utc_instants() {
    assert_eq!(
        written(&every_kind(), OutputFormat::Json),
        concat!(
            r#"{"text":"a,\"b\"\nc","long":9007199254740993,"float":0.1,"flag":true,"decimal":123456789012345678901.23,"date":"2024-10-04","time":"2023-11-14T22:13:20.000001Z","bytes":"00ff"}"#,
            "\n",
            r#"{"text":"","long":-1,"float":null,"flag":false,"decimal":-0.05,"date":"1969-12-31","time":"1970-01-01T00:00:00Z","bytes":""}"#,
            "\n",
            r#"{"text":null,"long":null,"float":null,"flag":null,"decimal":null,"date":null,"time":null,"bytes":null}"#,
            "\n",
        )
    );
}

#[test]
fn csv_tells_an_empty_text_from_null() {
    assert_eq!(
        written(&every_kind(), OutputFormat::Csv),
        "text,long,float,flag,decimal,date,time,bytes\n\
         \"a,\"\"b\"\"\nc\",9007199254740993,0.1,true,123456789012345678901.23,2024-10-04,2023-11-14T22:13:20.000001Z,00ff\n\
         \"\",-1,NaN,false,-0.05,1969-12-31,1970-01-01T00:00:00Z,\"\"\n\
         ,,,,,,,\n"
    );
}

#[test]
fn a_table_is_aligned_and_shows_control_characters_instead_of_obeying_them() {
    let batch = RecordBatch::try_from_iter(vec![
        ("name", Arc::new(StringArray::from(vec!["über", "x\u{1b}[2J"])) as ArrayRef),
        ("count", Arc::new(Int64Array::from(vec![5, 1_234]))),
    ]);
    assert_eq!(
        written(&batch.unwrap(), OutputFormat::Table),
        " name        | count\n\
         -------------+-------\n \
          über        |     5\n \
          x\\u{1b}[2J  |  1234\n\
         (2 rows)\n"
            .replace("x\\u{1b}[2J  |", "x\\u{1b}[2J |")
            .replace("name        |", "name       |")
            .replace("über        |", "über       |")
            .replace("-------------+", "------------+")
    );
}

#[tokio::test]
async fn nested_parts_of_a_receipt_are_json_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    let mut writer = TableWriter::open(&store, Table::Receipts, "receipts", None).await.unwrap();
    let position = std::collections::BTreeMap::from([(0, 1)]);
    writer.commit(&batches(Table::Receipts, &[receipt("c1", "admitted")]), &position, None).await.unwrap();
    let session = Session::open(store, "", Limits::default()).await.unwrap();
    let sql = "select contribution_id, refused, quality['flags'] as flags, last_appended from receipts";
    assert_eq!(
        text(&session, sql, OutputFormat::Json).await.unwrap(),
        "{\"contribution_id\":\"c1\",\"refused\":[{\"reason\":\"DUP_IN_POOL\",\"count\":1},{\"reason\":\"RANGE_HIGH\",\"count\":1}],\"flags\":[\"near_dup:1\"],\"last_appended\":\"2023-11-14T22:13:20.123Z\"}\n"
    );
    let csv = text(&session, sql, OutputFormat::Csv).await.unwrap();
    assert!(csv.contains(r#""[{""reason"":""DUP_IN_POOL"",""count"":1}"#), "{csv}");
    let whole = text(&session, "select * from receipts", OutputFormat::Json).await.unwrap();
    let read: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(read["quality"]["dimensions"][0]["weight"], 0.25);
    assert_eq!(read["quality"]["validity_lower"], serde_json::Value::Null);
    assert_eq!(read["pii"][0]["type"], "email");
}

#[tokio::test]
async fn two_columns_of_one_name_become_two_keys() {
    let (_folder, session) = empty().await;
    let sql = "select * from (values (1)) a(x) join (values (1)) b(x) on a.x = b.x";
    assert_eq!(text(&session, sql, OutputFormat::Json).await.unwrap(), "{\"x\":1,\"x_2\":1}\n");
}

#[tokio::test]
async fn an_arrow_stream_reads_back_and_an_empty_result_has_its_schema() {
    let (_folder, session) = empty().await;
    let stream = session.query("select status, received from receipts").await.unwrap();
    let mut out = Vec::new();
    ResultWriter::new(OutputFormat::Arrow, stream.schema(), &mut out).unwrap().finish().unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(out.as_slice(), None).unwrap();
    assert_eq!(reader.schema().field(1).name(), "received");
    assert_eq!(reader.count(), 0);
}

#[tokio::test]
async fn a_long_result_streams_through_the_aligned_table() {
    let (_folder, session) = empty().await;
    let table = text(&session, "select value from range(2500)", OutputFormat::Table).await.unwrap();
    assert_eq!(table.lines().count(), 2_503);
    assert!(table.ends_with("(2500 rows)\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_typed_never_panics_and_never_gets_past_the_guard_unless_it_reads(
        words in proptest::collection::vec(
            prop_oneof![
                Just("select"), Just("*"), Just("from"), Just("receipts"), Just("insert"), Just("into"), Just("values"),
                Just("(1)"), Just("drop"), Just("table"), Just("copy"), Just("to"), Just("'/tmp/x'"), Just("with"),
                Just("x"), Just("as"), Just("explain"), Just("set"), Just("="), Just(";"), Just("create"), Just("delete"),
                Just("\u{0}"), Just("é"), Just("$1"), Just("analyze"), Just("view"), Just("update")
            ],
            0..12
        )
    ) {
        let sql = words.join(" ");
        if guard::read_only(&sql).is_ok() {
            let first = words.iter().find(|word| **word != "explain" && **word != "analyze").copied().unwrap_or_default();
            prop_assert!(["select", "with", "values", "from", "table"].contains(&first), "{}", sql);
        }
    }
}

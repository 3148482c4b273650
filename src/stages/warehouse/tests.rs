//! Promises of the tables, on a folder store.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::Int64Type;

use super::decode::{Incoming, Unreadable};
use super::error::WarehouseError;
use super::fixtures::{accepted, batches, decoder, receipt, refused, run};
use super::lane::{Lane, Taken};
use super::maintenance;
use super::store::{self, Store};
use super::tables::{COMMENT, Table};
use super::writer::TableWriter;
use crate::codec::wire::Wire;
use crate::domain::records::{Receipt, TrainingRun};
use crate::sql::{Limits, Session};

const TOPIC: &str = "t.contributions.accepted";

fn temporary() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    (folder, store)
}

async fn count(store: &Store, sql: &str) -> i64 {
    let session = Session::open(store.clone(), "t.", Limits::default()).await.unwrap();
    let stream = session.query(sql).await.unwrap();
    let batches: Vec<_> = futures::TryStreamExt::try_collect(stream).await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

fn longs(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn to(partition: i32, next: i64) -> BTreeMap<i32, i64> {
    BTreeMap::from([(partition, next)])
}

async fn writer(store: &Store) -> TableWriter {
    let mut writer = TableWriter::open(store, Table::Rows, TOPIC, Some("id-1")).await.unwrap();
    writer.take_over(&[0, 1]).await.unwrap();
    writer
}

#[tokio::test]
async fn rows_and_their_position_are_there_together_after_a_reopen_and_a_checkpoint() {
    let (_folder, store) = temporary();
    let mut first = writer(&store).await;
    for round in 0..60 {
        let rows = batches(Table::Rows, &[accepted("c1", "m", vec![("delay", longs(&[round, 2]))])]);
        first.commit(&rows, &to(0, round + 1), None).await.unwrap();
    }
    let log = store.folder(Table::Rows).unwrap().join("_delta_log");
    assert!(std::fs::read_dir(log).unwrap().any(|f| f.unwrap().path().to_string_lossy().contains("checkpoint")));

    let mut again = TableWriter::open(&store, Table::Rows, TOPIC, Some("id-1")).await.unwrap();
    assert_eq!(again.take_over(&[0, 1]).await.unwrap(), to(0, 60));
    let delta = store.load(Table::Rows).await.unwrap().unwrap();
    let library = delta.snapshot().unwrap().transaction_version(delta.log_store().as_ref(), format!("{TOPIC}-0")).await;
    assert_eq!(library.unwrap(), Some(60));
    assert_eq!(count(&store, "select count(*) from rows where delay = 2").await, 61);
    assert_eq!(count(&store, "select next_offset from table_positions where partition = 0").await, 60);
}

#[tokio::test]
async fn a_position_that_moves_without_rows_is_committed_too() {
    let (_folder, store) = temporary();
    let mut first = writer(&store).await;
    let done = first.commit(&[], &to(1, 7), None).await.unwrap().unwrap();
    assert_eq!((done.rows, done.positions), (0, to(1, 7)));
    assert!(first.commit(&[], &to(1, 7), None).await.unwrap().is_none());
    assert_eq!(writer(&store).await.position(1), Some(7));
}

/// The process dies between the Delta commit and the commit of group offsets: the next one starts behind the rows.
#[tokio::test]
async fn a_restart_after_a_delta_commit_reads_nothing_twice() {
    let (_folder, store) = temporary();
    let value = Wire::default().encode(&accepted("c1", "m", vec![("delay", longs(&[1, 2]))])).unwrap();
    let record = |offset| Incoming { partition: 0, offset, timestamp: 1, key: None, value: Some(&value) };
    for round in 0..3_i64 {
        let mut lane = Lane::new(Table::Rows, TOPIC.to_owned(), decoder(Table::Rows));
        lane.assign(&[0]);
        let from = lane.open(&store, None).await.unwrap();
        assert_eq!(from, BTreeMap::from([(0, (round > 0).then_some(round * 2))]));
        // Whatever is delivered again from before is not taken in.
        for offset in 0..(round + 1) * 2 {
            let taken = lane.take(&record(offset));
            assert_eq!(taken == Taken::In, offset >= round * 2);
        }
        lane.commit().await.unwrap();
    }
    assert_eq!(count(&store, "select count(*) from rows").await, 12);
}

#[tokio::test]
async fn of_two_writers_of_one_partition_one_is_fenced_and_no_row_is_doubled() {
    let (_folder, store) = temporary();
    let (mut one, mut two) = (writer(&store).await, writer(&store).await);
    let rows = batches(Table::Rows, &[accepted("c1", "m", vec![("delay", longs(&[1]))])]);
    one.commit(&rows, &to(0, 1), None).await.unwrap();
    let fenced = two.commit(&rows, &to(0, 1), None).await.unwrap_err();
    assert!(matches!(fenced, WarehouseError::Fenced { partition: 0, found: 1, .. }), "{fenced}");
    assert_eq!(count(&store, "select count(*) from rows").await, 1);
}

/// The library accepts an older `txn` version from a snapshot that has the newer one: commits of other partitions
/// move a stale writer's snapshot there.
#[tokio::test]
async fn a_stale_writer_is_fenced_even_after_it_moved_on_with_another_partition() {
    let (_folder, store) = temporary();
    let rows = batches(Table::Rows, &[accepted("c1", "m", vec![("delay", longs(&[1]))])]);
    writer(&store).await.commit(&rows, &to(0, 1), None).await.unwrap();
    let (mut one, mut two) = (writer(&store).await, writer(&store).await);
    one.commit(&rows, &to(0, 5), None).await.unwrap();
    // A different partition: no conflict, and the stale writer's snapshot now holds position 5 of partition 0.
    two.commit(&rows, &to(1, 1), None).await.unwrap();
    let fenced = two.commit(&rows, &to(0, 3), None).await.unwrap_err();
    assert!(matches!(fenced, WarehouseError::Fenced { partition: 0, expected: 1, found: 5, .. }), "{fenced}");
    assert_eq!(count(&store, "select count(*) from rows").await, 3);
}

#[tokio::test]
async fn two_workers_with_different_partitions_share_a_table_even_when_both_bring_columns() {
    let (_folder, store) = temporary();
    let (mut one, mut two) = (writer(&store).await, writer(&store).await);
    one.give_up(&[1]);
    two.give_up(&[0]);
    for round in 1..4_i64 {
        let delay = batches(Table::Rows, &[accepted("c1", "m", vec![(&format!("a{round}"), longs(&[1]))])]);
        let other = batches(Table::Rows, &[accepted("c2", "n", vec![(&format!("b{round}"), texts(&["x"]))])]);
        one.commit(&delay, &to(0, round), None).await.unwrap();
        two.commit(&other, &to(1, round), None).await.unwrap();
    }
    assert_eq!(count(&store, "select count(*) from rows where a1 = 1 or b3 = 'x'").await, 2);
    assert_eq!(writer(&store).await.position(1), Some(3));
}

#[tokio::test]
async fn columns_of_all_models_live_in_one_table_and_a_type_conflict_gets_a_column_of_its_own() {
    let (_folder, store) = temporary();
    let mut first = writer(&store).await;
    let records = [
        accepted("c1", "flights", vec![("delay", longs(&[5, 6])), ("Carrier", texts(&["UA", "AA"]))]),
        accepted("c2", "trains", vec![("delay", texts(&["late"])), ("model", texts(&["ICE"]))]),
        accepted("c3", "buses", vec![("big", Arc::new(UInt64Array::from(vec![u64::MAX])) as ArrayRef)]),
        accepted("c4", "flights", vec![("delay", longs(&[7]))]),
    ];
    first.commit(&batches(Table::Rows, &records), &to(0, 4), None).await.unwrap();
    assert_eq!(count(&store, "select sum(delay) from rows where model = 'flights'").await, 18);
    assert_eq!(
        count(&store, "select count(*) from rows where delay__string = 'late' and model__string = 'ICE'").await,
        1
    );
    assert_eq!(count(&store, "select count(*) from rows where \"Carrier\" = 'AA'").await, 1);
    assert_eq!(count(&store, "select count(*) from rows where big = 18446744073709551615").await, 1);
    assert_eq!(count(&store, "select count(*) from rows where row_hash = '00000000000000000000000000000001'").await, 1);
}

#[tokio::test]
async fn a_topic_that_was_made_anew_stops_its_table_by_name() {
    let (_folder, store) = temporary();
    writer(&store).await;
    let stop = TableWriter::open(&store, Table::Rows, TOPIC, Some("id-2")).await.err().unwrap();
    assert!(stop.stop().is_some() && stop.to_string().contains("made anew"), "{stop}");
    // A broker that tells no id changes nothing.
    TableWriter::open(&store, Table::Rows, TOPIC, None).await.unwrap();
}

#[tokio::test]
async fn a_table_made_without_a_topic_id_learns_it_later() {
    let (_folder, store) = temporary();
    TableWriter::open(&store, Table::Audit, "t.audit", None).await.unwrap();
    TableWriter::open(&store, Table::Audit, "t.audit", Some("id-1")).await.unwrap();
    let stop = TableWriter::open(&store, Table::Audit, "t.audit", Some("id-2")).await.err().unwrap();
    assert!(matches!(stop, WarehouseError::TopicRecreated { .. }));
}

#[tokio::test]
async fn small_files_are_merged_while_rows_positions_and_running_queries_stay() {
    let (_folder, store) = temporary();
    let mut first = writer(&store).await;
    for round in 0..maintenance::SMALL_FILES as i64 {
        let rows = batches(Table::Rows, &[accepted("c1", "m", vec![("delay", longs(&[round]))])]);
        first.commit(&rows, &to(0, round + 1), None).await.unwrap();
    }
    let session = Session::open(store.clone(), "t.", Limits::default()).await.unwrap();
    let running = session.query("select count(*) from rows").await.unwrap();
    let done = maintenance::compact(&store, Table::Rows).await.unwrap();
    assert_eq!((done.merged, done.into), (maintenance::SMALL_FILES as u64, 1));
    assert_eq!(maintenance::vacuum(&store, Table::Rows).await.unwrap().deleted, 0);
    let seen: Vec<_> = futures::TryStreamExt::try_collect(running).await.unwrap();
    assert_eq!(seen[0].column(0).as_primitive::<Int64Type>().value(0), 16);
    assert_eq!(count(&store, "select count(*) from rows").await, 16);
    // The writer goes on over the version that compaction made.
    let rows = batches(Table::Rows, &[accepted("c1", "m", vec![("delay", longs(&[99]))])]);
    first.commit(&rows, &to(0, 17), None).await.unwrap();
    assert_eq!(writer(&store).await.position(0), Some(17));
    assert_eq!(maintenance::compact(&store, Table::Rows).await.unwrap().merged, 0);
}

#[tokio::test]
async fn of_two_compactions_of_the_same_files_one_is_refused_and_every_row_stands_once() {
    let (_folder, store) = temporary();
    let mut first = writer(&store).await;
    for round in 0..maintenance::SMALL_FILES as i64 {
        let rows = batches(Table::Rows, &[accepted("c1", "m", vec![("delay", longs(&[round]))])]);
        first.commit(&rows, &to(0, round + 1), None).await.unwrap();
    }
    let (one, other) =
        (store.load(Table::Rows).await.unwrap().unwrap(), store.load(Table::Rows).await.unwrap().unwrap());
    let target = std::num::NonZeroU64::new(1 << 20).unwrap();
    // Rows that come meanwhile are no conflict.
    let rows = batches(Table::Rows, &[accepted("c2", "m", vec![("delay", longs(&[99]))])]);
    first.commit(&rows, &to(0, 17), None).await.unwrap();
    assert_eq!(maintenance::merge(Table::Rows, &one, target).await.unwrap(), Some((16, 1)));
    assert_eq!(maintenance::merge(Table::Rows, &other, target).await.unwrap(), None);
    assert_eq!(count(&store, "select count(*) from rows").await, 17);
}

#[tokio::test]
async fn receipts_keep_their_nested_parts() {
    let (_folder, store) = temporary();
    let mut first = TableWriter::open(&store, Table::Receipts, "t.receipts", None).await.unwrap();
    let named = Receipt { leaf: "1e".repeat(32), ..receipt("c2", "refused") };
    let rows = batches(Table::Receipts, &[receipt("c1", "admitted"), named]);
    first.commit(&rows, &to(0, 2), None).await.unwrap();
    let leaf = "1e".repeat(32);
    let sql = format!("select count(*) from receipts where contribution_id = 'c2' and leaf = '{leaf}'");
    assert_eq!(count(&store, &sql).await, 1);
    assert_eq!(count(&store, "select count(*) from receipts where contribution_id = 'c1' and leaf = ''").await, 1);
    assert_eq!(count(&store, "select sum(count) from receipt_refused where reason = 'DUP_IN_POOL'").await, 2);
    assert_eq!(count(&store, "select count(*) from receipts where quality['score'] > 0.9").await, 2);
    assert_eq!(
        count(&store, "select count(*) from receipt_quality where dimension = 'validity' and value = 0.8").await,
        2
    );
}

/// What an earlier version of the program left behind: a table without `newest` and the columns after it, with rows.
async fn left_behind(store: &Store, table: Table, topic: &str, newest: &str, rows: &[RecordBatch]) {
    let known: Vec<usize> = (0..table.schema().index_of(newest).unwrap()).collect();
    store.create(table, &table.schema().project(&known).unwrap(), topic, None).await.unwrap();
    let rows: Vec<RecordBatch> = rows.iter().map(|batch| batch.project(&known).unwrap()).collect();
    let mut writer = TableWriter::open(store, table, topic, None).await.unwrap();
    writer.commit(&rows, &to(0, 1), None).await.unwrap();
}

async fn columns(store: &Store, table: Table) -> Vec<String> {
    let delta = store.load(table).await.unwrap().unwrap();
    delta.snapshot().unwrap().schema().fields().map(|field| field.name().clone()).collect()
}

fn own_columns(table: Table) -> Vec<String> {
    table.schema().fields().iter().map(|field| field.name().clone()).collect()
}

#[tokio::test]
async fn columns_that_an_earlier_version_did_not_have_are_null_until_rows_bring_them() {
    let (_folder, store) = temporary();
    left_behind(&store, Table::RunStates, "t.training.runs", "benchmark", &batches(Table::RunStates, &[run("r1")]))
        .await;
    left_behind(&store, Table::Receipts, "t.receipts", "leaf", &batches(Table::Receipts, &[receipt("c1", "refused")]))
        .await;
    assert_eq!(columns(&store, Table::RunStates).await.last().unwrap(), "source_offset");
    let nothing = "benchmark is null and evaluation_id is null and search is null and trial is null \
                   and job_digest is null and requested_at is null";
    for table in ["run_states", "runs"] {
        assert_eq!(count(&store, &format!("select count(*) from {table} where {nothing}")).await, 1);
        // A group's key and an argument: what is null everywhere has its type too.
        let sql = format!("select count(distinct benchmark) from {table} group by trial, requested_at order by trial");
        assert_eq!(count(&store, &sql).await, 0);
    }
    assert_eq!(count(&store, "select count(*) from receipts where leaf is null and received = 5").await, 1);
    let session = Session::open(store.clone(), "t.", Limits::default()).await.unwrap();
    for relation in session.relations().await.unwrap().iter().filter(|relation| relation.name == "run_states") {
        let seen: Vec<String> = relation.schema.fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(seen, own_columns(Table::RunStates));
        assert!(relation.schema.fields().iter().all(|field| field.metadata().contains_key(COMMENT)));
    }

    let mut runs = TableWriter::open(&store, Table::RunStates, "t.training.runs", None).await.unwrap();
    assert_eq!(runs.take_over(&[0]).await.unwrap(), to(0, 1));
    runs.commit(&batches(Table::RunStates, &[run("r2")]), &to(0, 2), None).await.unwrap();
    let mut receipts = TableWriter::open(&store, Table::Receipts, "t.receipts", None).await.unwrap();
    assert_eq!(receipts.take_over(&[0]).await.unwrap(), to(0, 1));
    let named = Receipt { leaf: "1e".repeat(32), ..receipt("c2", "refused") };
    receipts.commit(&batches(Table::Receipts, &[named]), &to(0, 2), None).await.unwrap();
    for table in [Table::RunStates, Table::Receipts] {
        assert_eq!(columns(&store, table).await, own_columns(table), "in the order of a table that is made now");
    }
    // In a session that was opened before they came, too.
    session.refresh().await.unwrap();
    let stream =
        session.query("select count(*) from runs where benchmark = 'delays@1' and run_id = 'r2'").await.unwrap();
    let seen: Vec<_> = futures::TryStreamExt::try_collect(stream).await.unwrap();
    assert_eq!(seen[0].column(0).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(count(&store, &format!("select count(*) from runs where run_id = 'r1' and {nothing}")).await, 1);
    assert_eq!(count(&store, "select count(*) from receipts where leaf is null").await, 1);
    assert_eq!(count(&store, "select count(*) from receipts where leaf <> ''").await, 1);
}

#[tokio::test]
async fn a_run_tells_its_benchmark_evaluation_search_job_and_the_time_of_its_request() {
    let (_folder, store) = temporary();
    let mut first = TableWriter::open(&store, Table::RunStates, "t.training.runs", None).await.unwrap();
    let plain =
        TrainingRun { run_id: "r2".to_owned(), status: TrainingRun::REFUSED.to_owned(), ..TrainingRun::default() };
    first.commit(&batches(Table::RunStates, &[run("r1"), plain]), &to(0, 2), None).await.unwrap();
    let job = "0a".repeat(32);
    for table in ["run_states", "runs"] {
        let told = format!(
            "select count(*) from {table} where run_id = 'r1' and benchmark = 'delays@1' \
             and evaluation_id = 'evaluation of r1' and search = '{{\"trials\":3}}' and trial = 2 and job_digest = '{job}' \
             and requested_at = '2023-11-14T22:13:20.123Z'"
        );
        assert_eq!(count(&store, &told).await, 1);
        let nothing = format!(
            "select count(*) from {table} where run_id = 'r2' and benchmark is null and evaluation_id is null \
             and search is null and trial is null and job_digest is null and requested_at is null"
        );
        assert_eq!(count(&store, &nothing).await, 1);
    }
}

#[tokio::test]
async fn only_rows_that_an_admitted_receipt_binds_are_admitted() {
    let (_folder, store) = temporary();
    let mut first = TableWriter::open(&store, Table::Receipts, "t.receipts", None).await.unwrap();
    let mut other_chunk = receipt("c3", "admitted");
    other_chunk.bound[0].chunk_digest = "another".to_owned();
    let mut large = receipt("c4", "admitted");
    large.bound.clear();
    large.chunks = 2_000;
    let receipts = [receipt("c1", "admitted"), receipt("c2", "refused"), other_chunk, large];
    first.commit(&batches(Table::Receipts, &receipts), &to(0, 4), None).await.unwrap();
    let rows = ["c1", "c2", "c3", "c4"].map(|c| accepted(c, "m", vec![("delay", longs(&[1]))]));
    writer(&store).await.commit(&batches(Table::Rows, &rows), &to(0, 4), None).await.unwrap();
    assert_eq!(count(&store, "select count(*) from admitted_rows").await, 2);
    assert_eq!(count(&store, "select count(*) from admitted_rows where contribution_id in ('c1', 'c4')").await, 2);
}

#[tokio::test]
async fn each_refusal_of_a_batched_record_is_a_row() {
    let (_folder, store) = temporary();
    let mut first = TableWriter::open(&store, Table::Refusals, "t.contributions.refused", None).await.unwrap();
    let rows = batches(Table::Refusals, &[refused("c1", &["RANGE_HIGH", "PATTERN"]), refused("c2", &["PATTERN"])]);
    first.commit(&rows, &to(0, 2), None).await.unwrap();
    assert_eq!(count(&store, "select count(*) from refusals where code = 'PATTERN'").await, 2);
    assert_eq!(count(&store, "select max(row) from refusals").await, 1);
}

#[test]
fn a_contribution_leaves_its_header_and_a_keyed_digest_but_no_payload() {
    let mut decoder = decoder(Table::Contributions);
    let value = br#"{"contributor":"ua","model":"m","rows":[{"name":"Grace Hopper"}]}"#;
    let record =
        Incoming { partition: 3, offset: 9, timestamp: 1_700_000_000_000, key: Some(b"c1"), value: Some(value) };
    assert_eq!(decoder.push(&record).unwrap(), 1);
    let nonsense = Incoming { value: Some(b"\xff\xfe nonsense Grace Hopper"), offset: 10, ..record };
    assert_eq!(decoder.push(&nonsense).unwrap(), 1);
    let batch = decoder.take().unwrap().remove(0);
    let json = |row| {
        let mut out = Vec::new();
        arrow::json::LineDelimitedWriter::new(&mut out).write(&batch.slice(row, 1)).unwrap();
        String::from_utf8(out).unwrap()
    };
    let (first, second) = (json(0), json(1));
    assert!(first.contains(r#""contribution_id":"c1""#) && first.contains(r#""readable":true"#), "{first}");
    assert!(second.contains(r#""readable":false"#) && second.contains(r#""source_offset":10"#), "{second}");
    assert!(!first.contains("Grace") && !second.contains("Grace"));
    let digest = batch.column_by_name("chunk_digest").unwrap().as_string::<i32>();
    assert_eq!((digest.value(0).len(), digest.is_null(1)), (64, true));
}

#[test]
fn a_record_that_cannot_be_read_is_told_and_leaves_nothing_behind() {
    let mut decoder = decoder(Table::Rows);
    let mut damaged = accepted("c1", "m", vec![("delay", Arc::new(Float64Array::from(vec![1.5])) as ArrayRef)]);
    damaged.batch.truncate(40);
    let value = Wire::default().encode(&damaged).unwrap();
    let record = Incoming { partition: 0, offset: 0, timestamp: 1, key: None, value: Some(&value) };
    assert!(matches!(decoder.push(&record), Err(Unreadable::Skipped(_))));
    assert!(matches!(decoder.push(&Incoming { value: Some(b"{}"), ..record }), Err(Unreadable::Skipped(_))));
    assert_eq!(decoder.push(&Incoming { value: None, ..record }).unwrap(), 0);
    assert!(decoder.take().unwrap().is_empty());
}

#[tokio::test]
async fn a_folder_of_a_newer_layout_is_refused() {
    let (_folder, store) = temporary();
    let delta = store.load_or_create(Table::Audit, "t.audit", None).await.unwrap();
    let properties = std::collections::HashMap::from([(store::FORMAT.to_owned(), "2".to_owned())]);
    delta.set_tbl_properties().with_properties(properties).with_raise_if_not_exists(false).await.unwrap();
    assert!(matches!(store.load(Table::Audit).await, Err(WarehouseError::Format { .. })));
}

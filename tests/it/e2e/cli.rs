//! What other programs rely on: arguments, exit codes, JSON lines, idempotence by content.

use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::flow::{account, reasons, rows, shop};
use crate::support::hokusai::{command, finish};
use crate::support::unique;
use serde_json::{Value, json};
use std::path::PathBuf;

on_every_cluster! {
    submitting_the_same_file_again_changes_nothing,
    each_file_is_a_contribution,
    a_refused_contribution_exits_with_4,
    watch_prints_decoded_committed_records,
    models_are_listed_and_shown,
    a_bad_specification_is_refused_with_its_line,
    sql_speaks_json_csv_arrow_and_tables_and_only_reads,
    doctor_finds_a_healthy_system,
}

fn file(cluster: &Cluster, values: &[Value]) -> PathBuf {
    let path = cluster.scratch().join(format!("{}.json", unique("file")));
    std::fs::write(&path, Value::Array(values.to_vec()).to_string()).expect("a file");
    path
}

fn submitting_the_same_file_again_changes_nothing(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let path = file(cluster, &rows(0..30));
    let submit =
        || cluster.lines(&["submit", &path.to_string_lossy(), "--model", &model, "--contributor", "alice", "--wait"]);
    let (first, second) = (submit(), submit());
    assert_eq!(account(&first[0]), ("admitted".into(), 30, 30, reasons([])));
    assert_eq!(second, first);
    assert_eq!(cluster.count(&format!("select count(*) as n from receipts where model = '{model}'")), 1);
}

fn each_file_is_a_contribution(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let (a, b) = (file(cluster, &rows(0..5)), file(cluster, &rows(5..12)));
    let (a, b) = (a.to_string_lossy().into_owned(), b.to_string_lossy().into_owned());
    let lines = cluster.lines(&["submit", &a, &b, "--model", &model, "--contributor", "alice", "--wait"]);
    let mut received: Vec<i64> = lines.iter().map(|l| account(l).1).collect();
    received.sort_unstable();
    assert_eq!(received, [5, 7]);
    let named = unique("named");
    let lines = cluster.lines(&[
        "submit",
        &file(cluster, &rows(20..24)).to_string_lossy(),
        "--model",
        &model,
        "--contributor",
        "alice",
        "--contribution",
        &named,
    ]);
    assert_eq!(lines[0]["contribution_id"], Value::String(named));
    let two = cluster.run(&["submit", &a, &b, "--model", &model, "--contributor", "alice", "--contribution", "x"]);
    assert_eq!(two.code, Some(2), "--contribution takes one FILE: {two:?}");
}

fn a_refused_contribution_exits_with_4(cluster: &Cluster) {
    let path = file(cluster, &rows(0..3));
    let refused = cluster.run(&[
        "submit",
        &path.to_string_lossy(),
        "--model",
        &unique("nowhere"),
        "--contributor",
        "alice",
        "--wait",
        "--format",
        "json",
    ]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.out.contains("UNKNOWN_MODEL"), "{refused:?}");
    let (model, _) = shop(cluster);
    let path = cluster.scratch().join(format!("{}.json", unique("broken")));
    std::fs::write(&path, "[{\"order\": \"x\"}]").expect("a file");
    let path = path.to_string_lossy();
    let refused = cluster.run(&["submit", &path, "--model", &model, "--contributor", "alice", "--wait"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
}

#[test]
fn exit_codes_tell_usage_from_no_broker() {
    let port = crate::support::free_port();
    let nobody = format!("127.0.0.1:{port}");
    let data = tempfile::tempdir().expect("a folder");
    let data = data.path().to_string_lossy().into_owned();
    let rows = format!("{data}/rows.json");
    std::fs::write(&rows, "[{}]").expect("a file");
    let code = |arguments: &[&str]| {
        let finished = finish(command(arguments));
        (finished.code, finished)
    };
    assert_eq!(code(&["submit"]).0, Some(2));
    assert_eq!(code(&["no-such-command"]).0, Some(2));
    assert_eq!(code(&["--help"]).0, Some(0));
    assert_eq!(code(&["--version"]).0, Some(0));
    let (no_broker, finished) =
        code(&["submit", &rows, "--model", "m", "--contributor", "c", "--brokers", &nobody, "--data", &data]);
    assert_eq!(no_broker, Some(3), "{finished:?}");
    assert!(finished.err.contains(&nobody), "names the broker: {finished:?}");
    let (no_broker, finished) = code(&["watch", "receipts", "--until-end", "--brokers", &nobody, "--data", &data]);
    assert_eq!(no_broker, Some(3), "{finished:?}");
}

fn watch_prints_decoded_committed_records(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let path = file(cluster, &rows(0..5));
    let submitted =
        cluster.lines(&["submit", &path.to_string_lossy(), "--model", &model, "--contributor", "alice", "--wait"]);
    let id = &submitted[0]["contribution_id"];
    let watched: Vec<Value> = cluster.watch("receipts").into_iter().filter(|r| &r["key"] == id).collect();
    assert_eq!(watched.len(), 1, "{watched:?}");
    let record = watched[0].as_object().expect("an object");
    for name in ["topic", "partition", "offset", "timestamp", "key", "value"] {
        assert!(record.contains_key(name), "{name} in {record:?}");
    }
    assert_eq!(record["value"], submitted[0]);
    let masked = cluster.watch("contributions");
    assert!(!masked.is_empty());
    let text = serde_json::to_string(&masked).expect("JSON");
    assert!(!text.contains("customer1@example.com"), "payloads are masked");
}

fn models_are_listed_and_shown(cluster: &Cluster) {
    let (model, digest) = shop(cluster);
    let listed = cluster.lines(&["model", "list"]);
    let own: Vec<&Value> = listed.iter().filter(|m| m["model"] == Value::String(model.clone())).collect();
    assert_eq!(own.len(), 1, "{listed:?}");
    assert_eq!(own[0]["contract_digest"], Value::String(digest));
    assert!(cluster.lines(&["model", "show", &model])[0].to_string().contains("again"));
    let spec = crate::support::flow::shop_spec(&model);
    assert_eq!(
        Value::String(cluster.apply(&model, &spec)),
        own[0]["contract_digest"],
        "applying it again changes nothing"
    );
}

fn a_bad_specification_is_refused_with_its_line(cluster: &Cluster) {
    let spec = crate::support::flow::shop_spec(&unique("bad")).replace("logicalType: number", "logicalType: numeral");
    let path = cluster.scratch().join("bad.yaml");
    std::fs::write(&path, &spec).expect("a file");
    let line = 1 + spec.lines().position(|l| l.contains("numeral")).expect("the line");
    let refused = cluster.run(&["model", "apply", &path.to_string_lossy()]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(
        refused.err.contains(&format!("bad.yaml:{line}")) || refused.err.contains(&format!("line {line}")),
        "names line {line}: {refused:?}"
    );
}

fn sql_speaks_json_csv_arrow_and_tables_and_only_reads(cluster: &Cluster) {
    let query = "select 1 as one, 'a,b' as two";
    assert_eq!(cluster.lines(&["sql", query]), [json!({"one": 1, "two": "a,b"})]);
    assert_eq!(cluster.run(&["sql", query, "--format", "csv"]).out, "one,two\n1,\"a,b\"\n");
    let table = cluster.run(&["sql", query, "--format", "table"]).out;
    assert!(table.contains("one") && table.contains("a,b"), "{table}");
    for forbidden in [
        "drop table receipts",
        "create table x as select 1",
        "insert into receipts select * from receipts",
        "set a = 1",
        "copy receipts to '/tmp/x'",
    ] {
        let refused = cluster.run(&["sql", forbidden]);
        assert_ne!(refused.code, Some(0), "{forbidden}: {refused:?}");
    }
    let unknown = cluster.run(&["sql", "select * from no_such_table"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.err.contains("no_such_table"), "{unknown:?}");
    for table in ["contributions", "rows", "refusals", "receipts", "dead_letters", "audit", "table_positions"] {
        assert!(cluster.count(&format!("select count(*) as n from {table}")) >= 0, "{table}");
    }
}

fn doctor_finds_a_healthy_system(cluster: &Cluster) {
    let doctor = cluster.run(&["doctor"]);
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    // A clean end or full memory writes state; the folders are there from the start.
    assert!(doctor.out.contains("dedup") && doctor.out.contains("on this machine's disk"), "{}", doctor.out);
}

//! Benchmarks as people and other programs meet them: sealed, listed, retired; nothing of their rows anywhere; contaminated rows refused
//! alike whatever their label; commands that nobody may give.

use crate::on_every_cluster;
use crate::support::DEADLINE;
use crate::support::client::{Isolation, config, read};
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribute, contribution, reasons, row, rows, shop};
use crate::support::{eventually, unique};
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use std::path::{Path, PathBuf};

on_every_cluster! {
    a_benchmark_is_sealed_listed_attested_and_retired_and_none_of_its_rows_stands_anywhere,
    a_contaminated_row_gets_one_answer_whatever_its_label,
    rows_that_fail_the_contract_are_told_and_nothing_is_sealed,
}

/// A file of rows, one JSON object per line.
fn file(cluster: &Cluster, rows: &[Value]) -> String {
    let path = cluster.scratch().join(format!("{}.jsonl", unique("sealed")));
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n")).expect("a file");
    path.to_string_lossy().into_owned()
}

fn seal(cluster: &Cluster, model: &str, name: &str, rows: &[Value]) -> Value {
    cluster.lines(&["benchmark", "seal", name, "--model", model, &file(cluster, rows)]).remove(0)
}

/// Waits until intake knows a benchmark: it refuses this row.
fn known(cluster: &Cluster, model: &str, sealed: &Value) {
    eventually("intake knows the benchmark", || {
        let id = unique("probe");
        contribute(cluster, &[contribution(&id, &id, model, std::slice::from_ref(sealed))]);
        let (.., refused) = account(&Receipts::follow(cluster).of(&id));
        if refused == reasons([("CONTAMINATION", 1)]) { Ok(()) } else { Err(format!("{refused:?}")) }
    });
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn a_benchmark_is_sealed_listed_attested_and_retired_and_none_of_its_rows_stands_anywhere(cluster: &Cluster) {
    let (model, digest) = shop(cluster);
    let canary = unique("benchcanary");
    let mut sealed = rows(0..200);
    for (number, row) in sealed.iter_mut().enumerate() {
        row["note"] = format!("{canary} {number}").into();
    }
    let told = seal(cluster, &model, "holdout", &sealed);
    assert_eq!((&told["benchmark"], &told["status"]), (&"holdout@1".into(), &"sealed".into()), "{told}");
    assert_eq!((&told["rows"], &told["contract_digest"]), (&200.into(), &digest.clone().into()));
    assert_eq!(told["family"], told["rows_root"]);
    // The same rows once more are refused, and others that overlap join the family.
    let again = cluster.run(&["benchmark", "seal", "again", "--model", &model, &file(cluster, &sealed)]);
    assert!(again.code == Some(4) && again.err.contains("DUPLICATE_BENCHMARK"), "{again:?}");
    let mut more = rows(300..450);
    more.extend_from_slice(&sealed[..50]);
    let second = seal(cluster, &model, "holdout", &more);
    assert_eq!((&second["benchmark"], &second["family"]), (&"holdout@2".into(), &told["rows_root"]), "{second}");

    let listed = cluster.lines(&["benchmark", "list", "--model", &model]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    let key = format!("{model}/holdout@1");
    assert_eq!(cluster.lines(&["benchmark", "show", &key])[0]["rows_root"], told["rows_root"]);
    let retired = cluster.lines(&["benchmark", "retire", &key, "--reason", "a test"]).remove(0);
    assert_eq!(retired["status"], "retired");
    assert_eq!(cluster.lines(&["benchmark", "show", &key])[0]["retired"], true);
    assert_eq!(cluster.lines(&["benchmark", "retire", &key])[0]["status"], "unchanged");
    eventually("the statements", || {
        let list = cluster.lines(&["attestation", "list"]);
        let of = |line: &&Value| line["subject"].as_str().is_some_and(|s| s.starts_with(&format!("{model}/holdout@")));
        let found = list.iter().filter(of).count();
        if found == 3 { Ok(()) } else { Err(format!("{found} of 3")) }
    });

    let hidden = |place: &str, bytes: &[u8]| {
        assert!(!bytes.windows(canary.len()).any(|w| w == canary.as_bytes()), "a sealed row stands in {place}");
    };
    let client: BaseConsumer = config(&cluster.broker, &[]).create().expect("a client");
    let metadata = client.fetch_metadata(None, DEADLINE).expect("metadata");
    for topic in metadata.topics().iter().map(|t| t.name()).filter(|t| t.starts_with(&cluster.prefix)) {
        for record in read(&cluster.broker, topic, Isolation::Uncommitted) {
            hidden(topic, &record.key.unwrap_or_default());
            hidden(topic, &record.value.unwrap_or_default());
        }
    }
    for path in files(&cluster.data()) {
        hidden(&path.to_string_lossy(), &std::fs::read(&path).unwrap_or_default());
    }
}

fn a_contaminated_row_gets_one_answer_whatever_its_label(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    // Two rows of the pool are sealed later: the natural rate is 2 of 200.
    contribute(cluster, &[contribution(&unique("pool"), "early", &model, &rows(198..400))]);
    eventually("the pool", || {
        let admitted = cluster.watch("receipts");
        if admitted.iter().any(|r| r["value"]["model"] == model.as_str()) { Ok(()) } else { Err("none".to_owned()) }
    });
    let told = seal(cluster, &model, "holdout", &rows(0..200));
    assert_eq!(told["collision_rate"], "0.010000", "{told}");
    known(cluster, &model, &row(150));
    let with = |label: i64| -> Vec<Value> {
        let mut attack: Vec<Value> = rows(0..20);
        attack.iter_mut().for_each(|row| row["again"] = label.into());
        attack
    };
    let mut receipts = Receipts::follow(cluster);
    let mut answers = Vec::new();
    for label in [0, 1] {
        let id = unique("attack");
        contribute(cluster, &[contribution(&id, &format!("attacker-{label}"), &model, &with(label))]);
        let receipt = receipts.of(&id);
        let (_, received, accepted, refused) = account(&receipt);
        assert_eq!((received, accepted, refused), (20, 0, reasons([("CONTAMINATION", 20)])), "{receipt}");
        let dimensions = receipt["quality"]["dimensions"].clone();
        answers.push((
            receipt["status"].clone(),
            receipt["quality"]["gate"].clone(),
            dimensions,
            receipt["pii"].clone(),
        ));
    }
    assert_eq!(answers[0], answers[1], "the answer tells a label");
    assert_eq!(answers[0].1, "contamination");
    // Three of a hundred are no more than three times the natural rate: the rest is taken.
    let mut few = rows(500..597);
    few.extend(rows(0..3));
    let id = unique("few");
    contribute(cluster, &[contribution(&id, "honest", &model, &few)]);
    let receipt = receipts.of(&id);
    let (status, _, accepted, refused) = account(&receipt);
    assert_eq!((status.as_str(), accepted, refused), ("admitted", 97, reasons([("CONTAMINATION", 3)])), "{receipt}");
}

fn rows_that_fail_the_contract_are_told_and_nothing_is_sealed(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let mut bad = rows(0..150);
    bad[7]["plan"] = "gold".into();
    bad.push(bad[3].clone());
    let path = file(cluster, &bad);
    let refused = cluster.run(&["benchmark", "seal", "holdout", "--model", &model, &path]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(
        refused.err.contains("row 8: ENUM_UNKNOWN plan") && refused.err.contains("row 151: DUP_IN_BATCH"),
        "{refused:?}"
    );
    assert!(refused.err.contains("nothing is sealed") && !refused.err.contains("gold"), "{refused:?}");
    assert!(cluster.lines(&["benchmark", "list", "--model", &model]).is_empty());
    let told = cluster.lines(&["benchmark", "seal", "holdout", "--model", &model, &path, "--drop-refused"]);
    let told = told.last().expect("a line");
    assert_eq!((&told["rows"], &told["refused"]), (&149.into(), &2.into()), "{told}");
    let empty = file(cluster, &[]);
    let refused = cluster.run(&["benchmark", "seal", "nothing", "--model", &model, &empty]);
    assert!(refused.code == Some(1) && refused.err.contains("no row"), "{refused:?}");
    let few = file(cluster, &rows(0..20));
    let refused = cluster.run(&["benchmark", "seal", "few", "--model", &model, &few]);
    assert!(refused.code == Some(4) && refused.err.contains("BENCHMARK_TOO_SMALL"), "{refused:?}");
}

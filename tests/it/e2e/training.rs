//! Training as people and other programs meet it: from contributed rows to a registered version, the same bytes on another cluster and after a
//! kill, and requests that are refused.

use crate::support::broker::Kind;
use crate::support::client::{Producer, Send};
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{contribute, contribution, receipt, rows, shop};
use crate::support::{eventually, unique};
use crate::{on_both_own_clusters, on_every_cluster};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::os::unix::fs::PermissionsExt;

on_every_cluster! {
    contributed_rows_become_a_registered_version_whose_bytes_the_store_has,
    a_request_that_cannot_be_done_is_refused_by_name_and_none_is_lost,
}

on_both_own_clusters! {
    a_worker_that_dies_in_the_middle_of_a_run_changes_no_byte_of_the_model,
}

/// Contributes rows in so many contributions, and waits for their receipts.
pub(super) fn filled(cluster: &Cluster, model: &str, parts: i64) {
    let ids: Vec<String> = (0..parts).map(|_| unique("rows")).collect();
    let part = 240 / parts;
    for (id, first) in ids.iter().zip((0..).step_by(usize::try_from(part).expect("small"))) {
        contribute(cluster, &[contribution(id, "alice", model, &rows(first..first + part))]);
    }
    for id in &ids {
        receipt(cluster, id);
    }
}

fn train(cluster: &Cluster, model: &str, request_id: &str, more: &[&str]) -> Value {
    let asked =
        ["train", model, "--request-id", request_id, "--param", "iterations=12", "--param", "min_rows=5", "--wait"];
    let arguments: Vec<&str> = asked.into_iter().chain(more.to_vec()).collect();
    cluster.lines(&arguments).remove(0)
}

pub(super) fn text<'a>(line: &'a Value, path: &str) -> &'a str {
    line.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} in {line}"))
}

/// Reads an artefact from the store, and checks its name.
pub(super) fn artefact(cluster: &Cluster, run: &Value) -> Vec<u8> {
    let digest = text(run, "/artefact/digest");
    let path = cluster.data().join("store/blobs/sha256").join(&digest[..2]).join(digest);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes)), digest);
    bytes
}

fn contributed_rows_become_a_registered_version_whose_bytes_the_store_has(cluster: &Cluster) {
    let (model, contract) = shop(cluster);
    filled(cluster, &model, 2);
    let id = unique("request");
    let run = train(cluster, &model, &id, &["--tag", "why=a test", "--group", "tests"]);
    assert_eq!((text(&run, "/status"), text(&run, "/version")), ("finished", "1.0.0"), "{run}");
    assert_eq!((&run["dataset"]["rows"], &run["dataset"]["contributions"]), (&json!(240), &json!(2)));
    assert!(run["offsets"].as_array().is_some_and(|ends| !ends.is_empty()), "{run}");
    assert_eq!(artefact(cluster, &run).len(), run["artefact"]["size"].as_u64().expect("a size") as usize);

    let version = &cluster.lines(&["model", "show", &model])[0]["versions"][0];
    assert_eq!((text(version, "/origin"), text(version, "/stage")), ("trained", "dev"), "{version}");
    assert_eq!(version["artefact"], run["artefact"]);
    assert_eq!((&version["lineage"]["run_id"], text(version, "/contract_digest")), (&run["run_id"], contract.as_str()));
    assert_eq!(text(version, "/tags/0/value"), "a test");

    // The same request again, with something else in it: the first one's result, and nothing changes.
    assert_eq!(train(cluster, &model, &id, &["--seed", "9"]), run);
    let other = train(cluster, &model, &unique("request"), &["--param", "leaves=3"]);
    assert_eq!((text(&other, "/version"), &other["dataset"]), ("1.0.1", &run["dataset"]), "other parameters: a patch");
    let runs = cluster.sql(&format!(
        "select status, artefact_digest, run_group from runs where model = '{model}' order by seed, artefact_digest"
    ));
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!(runs.iter().any(|r| r["artefact_digest"] == run["artefact"]["digest"] && r["run_group"] == "tests"));
    let linear = cluster.lines(&["train", &model, "--algorithm", "linear", "--wait"]).remove(0);
    assert_eq!(text(&linear, "/status"), "finished", "{linear}");
}

fn a_request_that_cannot_be_done_is_refused_by_name_and_none_is_lost(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let refused = cluster.run(&["train", &unique("nobody"), "--wait"]);
    assert!(refused.code == Some(4) && refused.err.contains("UNKNOWN_MODEL"), "{refused:?}");
    let empty = cluster.run(&["train", &model, "--wait"]);
    assert!(empty.code == Some(1) && empty.err.contains("EMPTY_DATASET"), "{empty:?}");
    let id = |name: &str| format!("{model} {name}");
    let requests = [
        (id("search"), json!({"search": {"trials": 3}}), "BAD_SEARCH"),
        (id("external"), json!({"algorithm": "external", "search": {"trials": 3}}), "BAD_SEARCH"),
        (id("lightgbm"), json!({"algorithm": "lightgbm"}), "NOT_IMPLEMENTED"),
        (id("parameter"), json!({"params": {"treees": 3}}), "BAD_PARAMETER"),
        (id("algorithm"), json!({"algorithm": "oracle"}), "UNKNOWN_ALGORITHM"),
        (id("field"), json!({"algoritm": "trees"}), "BAD_REQUEST"),
        (id("seed"), json!({"seed": -1}), "BAD_REQUEST"),
    ];
    let producer = Producer::new(&cluster.broker, &[]);
    let send = |value: &str| {
        let record = Send { value: Some(value.as_bytes()), ..Send::default() };
        producer.send(&cluster.topic("training.requests"), &record).expect("the queue has room");
    };
    for (id, more, _) in &requests {
        let mut request = json!({"request_id": id, "model": model});
        request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        send(&request.to_string());
    }
    let nameless = format!(r#"{{"model":"{model}","nobody":"asks"}}"#);
    send(&nameless);
    assert!(producer.settle().iter().all(Result::is_ok));
    for (id, _, code) in &requests {
        let run = eventually("the answer to a request", || {
            let runs = cluster.watch("training.runs");
            let found = runs.iter().map(|r| &r["value"]).find(|r| r["request_id"] == **id).cloned();
            found.ok_or_else(|| format!("{id}: {} runs", runs.len()))
        });
        assert_eq!((text(&run, "/status"), text(&run, "/reason")), ("refused", *code), "{run}");
    }
    eventually("the dead letter of what has no id", || {
        let letters = cluster.watch("dead-letters");
        let size = json!(nameless.len());
        let of_it = |l: &&Value| l["value"]["reason"] == "REQUEST_UNREADABLE" && l["value"]["size"] == size;
        if letters.iter().any(|l| of_it(&l)) { Ok(()) } else { Err(format!("{letters:?}")) }
    });
    assert_eq!(cluster.lines(&["model", "show", &model])[0]["versions"], json!([]));
}

fn a_worker_that_dies_in_the_middle_of_a_run_changes_no_byte_of_the_model(cluster: Cluster) {
    // The cluster of the macro says that this broker can run here; the one that dies is its twin.
    let settings = Settings {
        environment: vec![("HOKUSAI_FAILPOINT".into(), "training.learning:7".into())],
        ..Settings::default()
    };
    let mut dying = Cluster::start(cluster.broker.kind, &settings).expect("as the one before");
    drop(cluster);
    let (model, _) = shop(&dying);
    filled(&dying, &model, 2);
    let id = unique("request");
    dying.lines(&["train", &model, "--request-id", &id, "--param", "iterations=12", "--param", "min_rows=5"]);
    assert!(!dying.process.wait().success(), "it dies at the seventh iteration");
    dying.forget("HOKUSAI_FAILPOINT");
    dying.start_again();
    // What came after the request is no part of its dataset.
    let late = unique("late");
    contribute(&dying, &[contribution(&late, "bob", &model, &rows(500..560))]);
    receipt(&dying, &late);
    let run = train(&dying, &model, &id, &[]);
    assert_eq!((text(&run, "/status"), &run["dataset"]["rows"]), ("finished", &json!(240)), "{run}");
    let digest = text(&run, "/dataset/digest");
    let again = train(&dying, &model, &unique("request"), &["--as-of", digest]);
    assert_eq!((&again["artefact"], &again["recipe_digest"]), (&run["artefact"], &run["recipe_digest"]));
    assert_eq!(artefact(&dying, &again), artefact(&dying, &run));
    let versions = &dying.lines(&["model", "show", &model])[0]["versions"];
    assert_eq!(versions.as_array().map(Vec::len), Some(1), "the same bytes are the same version: {versions}");
}

#[test]
fn the_same_request_on_another_cluster_with_the_same_rows_gives_the_same_bytes() {
    let one = Cluster::start(Kind::Embedded, &Settings::default()).expect("the embedded broker");
    let (model, _) = shop(&one);
    filled(&one, &model, 1);
    // The tenant's keys are what both share: row hashes are keyed.
    let keys = one.scratch().join("shared-keys");
    std::fs::create_dir(&keys).expect("a folder");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o700)).expect("permissions");
    std::fs::copy(one.data().join("keys/tenant-default.json"), keys.join("tenant-default.json")).expect("a key ring");
    let keys = ("HOKUSAI_KEYS".to_owned(), keys.to_string_lossy().into_owned());
    let other = Cluster::start(Kind::Embedded, &Settings { environment: vec![keys], ..Settings::default() });
    let other = other.expect("the embedded broker");
    other.apply(&model, &crate::support::flow::shop_spec(&model));
    filled(&other, &model, 3);
    let id = unique("request");
    let (first, second) = (train(&one, &model, &id, &[]), train(&other, &model, &id, &[]));
    assert_eq!(first["dataset"]["digest"], second["dataset"]["digest"]);
    assert_eq!((&first["recipe_digest"], &first["artefact"]), (&second["recipe_digest"], &second["artefact"]));
    assert_eq!((&first["run_id"], &first["metrics"]), (&second["run_id"], &second["metrics"]));
    assert_eq!(artefact(&one, &first), artefact(&other, &second));
}

//! One log, whatever dies when: workers that abort themselves at every step of a tree head, and brokers that come back without what they acknowledged.

use super::plant::Plant;
use crate::support::broker::Kind;
use crate::support::client::{Isolation, Producer, read};
use crate::support::eventually;
use crate::support::flow::{contribution, rows, shop_spec};
use crate::support::hokusai::finish;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const MODEL: &str = "attested-shop";
/// Before a tree head is kept, between its two places, after both, and around the commit that publishes it.
const STEPS: [&str; 5] =
    ["attesting.before_keeping", "attesting.after_local", "attesting.after_store", "commit.before:2", "commit.after:2"];

#[test]
fn a_worker_that_dies_at_any_step_of_a_tree_head_leaves_one_log_embedded() {
    a_worker_that_dies_at_any_step_of_a_tree_head_leaves_one_log(Kind::Embedded);
}

#[test]
fn a_worker_that_dies_at_any_step_of_a_tree_head_leaves_one_log_apache_kafka() {
    a_worker_that_dies_at_any_step_of_a_tree_head_leaves_one_log(Kind::ApacheKafka);
}

/// A plant whose model is applied; no worker runs.
fn planted(kind: Kind) -> Option<Plant> {
    let plant = Plant::start(kind, None)?;
    let mut worker = plant.start_worker(0);
    let spec = plant.folder().join("model.yaml");
    std::fs::write(&spec, shop_spec(MODEL)).expect("a file");
    let applied = finish(plant.command(&["model", "apply", &spec.to_string_lossy()]));
    assert_eq!(applied.code, Some(0), "{applied:?}");
    assert_eq!(worker.terminate().code(), Some(0));
    Some(plant)
}

fn contribute(plant: &Plant, number: i64) {
    let chunk = contribution(&format!("c-{number}"), "alice", MODEL, &rows(10 * number..10 * number + 3));
    let producer = Producer::new(&plant.broker(), &[]);
    producer.texts(&plant.topic("contributions"), 0, [chunk.to_string()]);
}

/// Size and root of a tree head.
fn head(note: &[u8]) -> (u64, String) {
    let text = String::from_utf8(note.to_vec()).expect("text");
    let mut lines = text.lines().skip(1);
    (lines.next().expect("a size").parse().expect("a number"), lines.next().expect("a root").to_owned())
}

fn heads(plant: &Plant, isolation: Isolation) -> Vec<(u64, String, Vec<u8>)> {
    let records = read(&plant.broker(), &plant.topic("attestations.checkpoints"), isolation);
    let notes = records.into_iter().map(|record| record.value.expect("a note"));
    notes.map(|note| (head(&note).0, head(&note).1, note)).collect()
}

fn wait_for_head(plant: &Plant, size: u64) {
    eventually("a tree head over everything", || match heads(plant, Isolation::Committed).last() {
        Some((found, ..)) if *found >= size => Ok(()),
        found => Err(format!("{found:?} of {size}; log:\n{}", plant.log())),
    });
}

fn a_worker_that_dies_at_any_step_of_a_tree_head_leaves_one_log(kind: Kind) {
    let Some(plant) = planted(kind) else { return };
    for (number, step) in STEPS.iter().enumerate() {
        contribute(&plant, i64::try_from(number).expect("few"));
        let mut doomed = plant.launch_worker(0, Some(step));
        plant.wait_for_failpoint(step, || doomed.ended());
    }
    let mut worker = plant.start_worker(0);
    // Two keys of the log, and a receipt for each contribution.
    let entries = 2 + STEPS.len();
    wait_for_head(&plant, entries as u64);
    assert_eq!(worker.terminate().code(), Some(0));

    // Whatever was ever written, committed or not: one tree head for a size, byte for byte.
    let mut by_size = BTreeMap::new();
    for (size, _, note) in heads(&plant, Isolation::Uncommitted) {
        assert_eq!(by_size.entry(size).or_insert_with(|| note.clone()), &note, "two tree heads of {size} leaves");
    }
    let sizes: Vec<u64> = heads(&plant, Isolation::Committed).into_iter().map(|(size, ..)| size).collect();
    assert!(sizes.is_sorted_by(|a, b| a < b), "each size is published once: {sizes:?}");

    let log = plant.folder().join("log.jsonl");
    let written = finish(plant.command(&["attestation", "log", "-o", &log.to_string_lossy()]));
    assert_eq!(written.code, Some(0), "{written:?}");
    let lines: Vec<Value> = std::fs::read_to_string(&log)
        .expect("the log")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let leaves: BTreeSet<&str> = lines.iter().map(|line| line["leaf"].as_str().expect("a leaf")).collect();
    assert_eq!((lines.len(), leaves.len()), (entries, entries), "no entry is missing, no leaf stands twice");

    let file = |name: &str| plant.folder().join(name).to_string_lossy().into_owned();
    let done = |arguments: &[&str], code: i32| {
        let found = finish(plant.command(arguments));
        assert_eq!(found.code, Some(code), "{arguments:?}: {found:?}");
    };
    done(&["attestation", "trust", "-o", &file("trust.json")], 0);
    for number in 0..STEPS.len() {
        let id = format!("c-{number}");
        done(&["attestation", "export", "--contribution", &id, "-o", &file("bundle.json")], 0);
        done(&["verify", &file("bundle.json"), "--trust", &file("trust.json"), "--log", &file("log.jsonl")], 19);
    }
}

#[test]
fn a_broker_that_lost_what_it_acknowledged_stops_attesting_with_evidence_and_never_makes_a_second_tree_head() {
    let mut plant = planted(Kind::Embedded).expect("the embedded broker runs everywhere");
    contribute(&plant, 0);
    let mut worker = plant.start_worker(0);
    wait_for_head(&plant, 3);
    assert_eq!(worker.terminate().code(), Some(0));
    plant.stop_broker();
    let (data, before) = (plant.folder().join("data"), plant.folder().join("before"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(copied.expect("cp(1)").success());
    };
    copy(&data, &before);
    plant.start_broker();
    contribute(&plant, 1);
    let mut worker = plant.start_worker(0);
    wait_for_head(&plant, 4);
    assert_eq!(worker.terminate().code(), Some(0));
    let signed = heads(&plant, Isolation::Committed);
    plant.stop_broker();

    // Everything but keys and tree heads comes back as it was; another contribution takes the place of the lost one.
    copy(&data.join("keys"), &before.join("kept-keys"));
    copy(&data.join("store/attestations"), &before.join("kept-heads"));
    std::fs::remove_dir_all(&data).expect("the data goes");
    std::fs::rename(&before, &data).expect("the copy comes");
    for (kept, place) in [("kept-keys", "keys"), ("kept-heads", "store/attestations")] {
        std::fs::remove_dir_all(data.join(place)).expect("the old one goes");
        std::fs::rename(data.join(kept), data.join(place)).expect("the new one stays");
    }
    std::fs::remove_dir_all(plant.folder().join("worker-0")).expect("the worker's state goes");
    plant.start_broker();
    contribute(&plant, 2);
    // It may never be ready: one of its stages must not go on.
    let worker = plant.launch_worker(0, None);
    let evidence = eventually("evidence", || {
        let files = std::fs::read_dir(data.join("keys")).expect("keys").map(|file| file.expect("a file").path());
        let found = files.into_iter().find(|file| file.to_string_lossy().ends_with(".evidence.json"));
        found.ok_or_else(|| plant.log())
    });
    let evidence: Value = serde_json::from_slice(&std::fs::read(evidence).expect("evidence")).expect("JSON");
    assert_eq!(evidence["outcome"], "LOG_TRUNCATED");
    assert_eq!(head(evidence["signed"].as_str().expect("a note").as_bytes()), (4, signed[1].1.clone()));
    eventually("the stop is told by name", || match worker.log() {
        log if log.contains("HALTED") && log.contains("LOG_TRUNCATED") => Ok(()),
        log => Err(log),
    });
    for (size, root, _) in heads(&plant, Isolation::Uncommitted) {
        assert!(signed.iter().any(|(s, r, _)| (*s, r) == (size, &root)), "nothing else is signed: {size}");
    }
}

//! A stranger's check: a reader outside the stages takes in what they tell each other, before it is purged, and recomputes every verdict
//! and every receipt from it, byte by byte, while two workers share four partitions and one of them is killed.

use super::load::{Random, SetAtEnd, contributions};
use super::plant::Plant;
use super::recompute::log::{DECLARATION, TOPICS, follow};
use super::recompute::quality::Reference;
use super::recompute::verify;
use crate::support::broker::Kind;
use crate::support::client::{Producer, watermarks};
use crate::support::eventually;
use crate::support::flow::shop_spec;
use crate::support::hokusai::{Running, finish};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn receipts_are_what_a_stranger_recomputes_from_the_committed_records_embedded() {
    receipts_are_what_a_stranger_recomputes_from_the_committed_records(Kind::Embedded, 77);
}

#[test]
fn receipts_are_what_a_stranger_recomputes_from_the_committed_records_apache_kafka() {
    receipts_are_what_a_stranger_recomputes_from_the_committed_records(Kind::ApacheKafka, 78);
}

const MODEL: &str = "open-shop";
const PARTITIONS: i32 = 4;

/// Four partitions for outsiders, a declared reader; the purger looks twice a second, as often as the grace asks for.
fn topology() -> String {
    format!(
        "version: 1
extends: builtin
topics:
  - {{name: contributions, partitions: {PARTITIONS}, segment: 1s}}
stages:
  - {{name: intake, settings: {{plaintext_grace: 1s}}}}
{DECLARATION}"
    )
}

/// The shop with something to measure against in every dimension, and the same for the recomputation.
fn contract() -> (String, Reference) {
    let spec = shop_spec(MODEL)
        .replace(
            "logicalTypeOptions: {minimum: 0, maximum: 1000}",
            "logicalTypeOptions: {minimum: 0, maximum: 1000}
        reference: {median: 450, mad: 50, edges: [200, 400, 600], shares: [0.1, 0.3, 0.3, 0.3]}",
        )
        .replace(
            "- name: note
        logicalType: string",
            "- name: note
        logicalType: string
        allowedNullRate: 0.25",
        )
        .replace(
            "logicalTypeOptions: {enum: [0, 1]}",
            "logicalTypeOptions: {enum: [0, 1]}\n        reference: {minority: 0.45}",
        );
    let reference = Reference {
        classes: 2,
        minority: Some(0.45),
        features: vec!["order", "amount", "plan", "email", "note"],
        nulls: BTreeMap::from([("note", 0.25)]),
        shares: BTreeMap::from([("amount", vec![0.1, 0.3, 0.3, 0.3])]),
        outliers: vec!["amount"],
    };
    (spec, reference)
}

/// Chunks for partitions in the order of sending: repeated rows of everybody, conflicting labels, missing notes, chunks sent twice,
/// ids used for other content, and contributions that are refused as a whole, whose rows are free again.
fn load(seed: u64, count: usize) -> Vec<(i32, Value)> {
    let mut random = Random::new(seed);
    let mut sent = Vec::new();
    for (n, mut contribution) in contributions(seed, count, 120).into_iter().enumerate() {
        for row in contribution.chunks.iter_mut().flatten() {
            if random.below(100) < 12 {
                row["note"] = Value::Null;
            }
            if random.below(100) < 4 {
                row["again"] = json!(1 - row["again"].as_i64().expect("a label"));
            }
        }
        if n % 11 == 5 {
            contribution.chunks.push(vec![json!({"order": 1, "surprise": true})]);
        }
        let mut records = contribution.records(MODEL);
        if n % 9 == 4 {
            records.push(records[0].clone());
        }
        if n % 13 == 6 {
            let mut other = records[0].clone();
            other["rows"] = Value::from(contribution.chunks[0].iter().skip(3).cloned().collect::<Vec<_>>());
            records.insert(1, other);
        }
        // Two intake workers see the chunks of one contribution: which manifest comes first is decided by the topic.
        let at = |k: usize| i32::try_from(n + k).expect("small") % PARTITIONS;
        sent.extend(records.into_iter().enumerate().map(|(k, record)| (at(k), record)));
    }
    sent
}

fn produce(plant: &Plant, records: &[(i32, Value)]) {
    let producer = Producer::new(&plant.broker(), &[]);
    for (partition, record) in records {
        producer.texts(&plant.topic("contributions"), *partition, [record.to_string()]);
    }
}

/// First offsets of the topics that the stranger reads.
fn starts(plant: &Plant) -> Vec<i64> {
    let both = |name: &&str| [0, 1].map(|partition| watermarks(&plant.broker(), &plant.topic(name), partition).0);
    TOPICS.iter().flat_map(both).collect()
}

fn doctor(plant: &Plant) -> Value {
    let lines = finish(plant.command(&["doctor", "--format", "json"])).lines(0);
    lines.into_iter().find(|line| line["check"] == "readers").expect("a finding about readers outside")
}

/// The stranger has not begun: nothing of its topics is gone, and whoever asks is told who holds the purge back.
fn holds_everything_back(plant: &Plant, worker: &Running) {
    let series = "hokusai_reader_overdue{";
    eventually("a reader that is overdue", || {
        let metrics = worker.get("/metrics").1;
        let overdue =
            metrics.lines().filter(|line| line.starts_with(series) && line.contains("audit") && line.ends_with(" 1"));
        if overdue.count() == TOPICS.len() { Ok(()) } else { Err(format!("{metrics}\n{}", plant.log())) }
    });
    assert!(plant.log().contains("READER_OVERDUE"), "{}", plant.log());
    let finding = doctor(plant);
    assert_eq!(finding["status"], "warning", "{finding}");
    assert!(
        finding["detail"].as_str().is_some_and(|detail| detail.starts_with("audit holds the purge back")),
        "{finding}"
    );
    assert_eq!(worker.get("/health").0, 200, "somebody else's program is no reason to start workers anew");
    assert_eq!(starts(plant), vec![0; 6], "nothing is purged that the declared reader has not committed");
    let shown = finish(plant.command(&["topology"])).out;
    assert!(shown.contains("READER OUTSIDE") && shown.contains("audit"), "{shown}");
}

fn receipts_are_what_a_stranger_recomputes_from_the_committed_records(kind: Kind, seed: u64) {
    let Some(plant) = Plant::start(kind, Some(&topology())) else { return };
    let first = plant.start_worker(0);
    let (spec, reference) = contract();
    let digest = plant.apply(&spec);
    let mut second = plant.start_worker(1);
    let records = load(seed, 120);
    let ids: BTreeSet<&str> = records.iter().filter_map(|(_, r)| r["contribution_id"].as_str()).collect();
    let (before, after) = records.split_at(records.len() / 2);
    produce(&plant, before);
    eventually("both workers take part in intake", || {
        let takes = |worker: &Running| worker.get("/metrics").1.contains("hokusai_records_in_total{stage=\"intake\"}");
        if takes(&first) && takes(&second) { Ok(()) } else { Err(plant.log()) }
    });
    second.kill();
    let _second = plant.start_worker(1);
    holds_everything_back(&plant, &first);
    let stop = AtomicBool::new(false);
    let log = std::thread::scope(|scope| {
        let _end = SetAtEnd(&stop);
        let stranger = scope.spawn(|| follow(&plant.broker(), |name| plant.topic(name), &stop));
        produce(&plant, after);
        plant.wait_for_receipts(ids.len());
        stop.store(true, Ordering::SeqCst);
        stranger.join().expect("the reader outside goes on to the end")
    });
    let receipts = verify(&plant, &log, &BTreeMap::from([(digest, reference)]));
    assert_eq!(receipts.keys().map(String::as_str).collect::<BTreeSet<_>>(), ids, "exactly one receipt each");
    let id = |n: usize| format!("load-{seed}-{n:04}");
    let refused = |id: &String| receipts[id]["status"] == "refused";
    let misfits: Vec<String> = (0..120).filter(|n| n % 11 == 5).map(id).collect();
    assert!(misfits.iter().all(refused), "a chunk of another schema refuses its contribution");
    // Where an id was used for two contents, dedup may see the one first and receipts the other, whose rows are then all duplicates.
    let rest = (0..120).filter(|n| n % 11 != 5 && n % 13 != 6).map(id);
    let rest: Vec<&Value> = rest.filter(refused).map(|id| &receipts[&id]).collect();
    assert!(rest.is_empty(), "refused, although nothing is wrong with them: {rest:?}");
    eventually("what the stranger has committed is purged", || match starts(&plant) {
        starts if starts.iter().all(|start| *start > 0) => Ok(()),
        starts => Err(format!("{starts:?}")),
    });
}

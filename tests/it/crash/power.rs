//! The machine of the embedded broker loses its power: every byte that was not forced to the disk is gone. What was acknowledged to
//! producers, committed to tables or kept by workers is still there, and the receipts are those of an uninterrupted run.

use super::load::{Contribution, Random, contributions};
use super::plant::{Plant, aborted};
use super::same_log::{reference, verify_reference_receipts};
use super::verify;
use crate::support::client::{Isolation, Producer, Send, read_values, watermarks};
use crate::support::eventually;
use crate::support::flow::shop_spec;
use crate::support::hokusai::{Running, finish};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A model of its own for what is sent while the power fails.
const MODEL: &str = "dark-shop";
/// How often the power fails.
const LOSSES: u64 = 6;

#[test]
fn power_lost_under_load_takes_nothing_that_was_acknowledged() {
    let reference = reference();
    // Every commit's state goes to the worker's disk at once: it would be ahead of a broker that forgot a commit.
    let mut plant = Plant::start_copy(reference.folder()).with("HOKUSAI_STATE_MEMORY_MIB", "0");
    let mut worker = plant.start_worker(0);
    plant.apply(&shop_spec(MODEL));
    let (dark, broker, topic) = (AtomicBool::new(true), plant.broker(), plant.topic("contributions"));
    let (sent, acknowledged) = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let producer = Producer::new(&broker, &[("enable.idempotence", "true"), ("message.timeout.ms", "120000")]);
            let mut sent = Vec::new();
            for contribution in live() {
                for record in contribution.records(MODEL) {
                    let text = record.to_string();
                    let send = Send { partition: Some(0), value: Some(text.as_bytes()), ..Send::default() };
                    producer.send(&topic, &send).expect("the queue has room");
                }
                sent.push(contribution);
                // The load outlasts the losses.
                if !dark.load(Ordering::SeqCst) {
                    break;
                }
                producer.0.poll(Duration::ZERO);
                std::thread::sleep(Duration::from_millis(40));
            }
            (sent, producer.settle())
        });
        // Tables that a loss of power could find ahead.
        eventually("tables", || if table_positions(&plant).len() > 3 { Ok(()) } else { Err(plant.log()) });
        let mut random = Random::new(31);
        for round in 0..LOSSES {
            let point = ["power.before_sync", "power.after_sync"][usize::from(round % 2 == 1)];
            plant.lose_power(point, 30 + random.below(250));
            if round % 3 == 2 {
                worker.kill();
                let committed = table_positions(&plant);
                plant.start_broker();
                never_ahead(&plant, &committed);
                worker = plant.start_worker(0);
            } else {
                plant.start_broker();
            }
        }
        dark.store(false, Ordering::SeqCst);
        producer.join().expect("the producer goes on to its end")
    });
    let records: Vec<String> = sent.iter().flat_map(|c| c.records(MODEL)).map(|r| r.to_string()).collect();
    assert_eq!(acknowledged.len(), records.len());
    let on_topic = read_values(&plant.broker(), &plant.topic("contributions"), Isolation::Committed);
    for (answer, record) in acknowledged.iter().zip(&records) {
        let place = answer.expect("every record is acknowledged in the end");
        assert!(
            on_topic.get(&place).is_some_and(|found| found == record.as_bytes()),
            "acknowledged and lost: {place:?}"
        );
    }
    let known = reference.records();
    assert_eq!(on_topic.len(), known + records.len(), "nothing is on the topic twice");
    plant.wait_for_receipts(reference.sent().len() + sent.len());
    let receipts = verify::one_receipt_each(&plant, &[reference.sent(), &sent].concat());
    verify_reference_receipts(&receipts);
    let (own, _): (verify::Receipts, verify::Receipts) =
        receipts.clone().into_iter().partition(|(id, _)| sent.iter().any(|c| c.id == *id));
    verify::adds_up(&own, &sent);
    verify::as_in_order(&own, &sent);
    verify::tables(&plant, &receipts);
    assert!(
        !plant.whole_log().contains("local state does not fit"),
        "the worker's state was ahead of the broker's changelog"
    );
    assert!(!plant.whole_log().contains("LOG_TRUNCATED"), "a position was ahead of the broker's log");
    assert!(worker.ended().is_none(), "{}", plant.log());
}

/// Contributions of their own to send meanwhile: more than there is time for.
fn live() -> Vec<Contribution> {
    let mut sent = contributions(99, 2_000, 40);
    sent.iter_mut().for_each(|c| c.contributor.push_str("-by-night"));
    sent
}

/// What the tables hold: next offset by table and partition, read without any broker.
fn table_positions(plant: &Plant) -> BTreeMap<(String, i32), i64> {
    let query = "select \"table\", partition, next_offset from table_positions";
    let rows = finish(plant.command(&["sql", query, "--format", "json"])).lines(0);
    let number =
        |row: &serde_json::Value, name: &str| row[name].as_i64().unwrap_or_else(|| panic!("no {name} in {row}"));
    let position = |row: &serde_json::Value| {
        let table = row["table"].as_str().expect("a name").to_owned();
        ((table, i32::try_from(number(row, "partition")).expect("small")), number(row, "next_offset"))
    };
    rows.iter().map(position).collect()
}

/// No table has committed offsets that the broker has lost; nobody writes meanwhile but the producer of `contributions`.
fn never_ahead(plant: &Plant, committed: &BTreeMap<(String, i32), i64>) {
    let topics = [("rows", "contributions.accepted"), ("refusals", "contributions.refused"), ("receipts", "receipts")];
    let mut seen = 0;
    for (table, topic) in topics {
        for ((_, partition), next) in committed.iter().filter(|((name, _), _)| name == table) {
            let end = watermarks(&plant.broker(), &plant.topic(topic), *partition).1;
            assert!(*next <= end, "table {table} holds {topic}-{partition} up to {next}, the broker up to {end}");
            seen += 1;
        }
    }
    assert!(seen >= topics.len(), "{committed:?}");
}

/// A broker's folder that is set back (restored from a backup, say) is behind the workers' state and the tables.
#[test]
fn a_broker_behind_its_workers_is_a_named_outcome_and_state_is_made_anew_from_the_changelog() {
    let reference = reference();
    let mut plant = Plant::start_copy(reference.folder()).with("HOKUSAI_STATE_MEMORY_MIB", "0");
    let mut worker = plant.start_worker(0);
    plant.wait_for_receipts(reference.sent().len());
    stop(&plant, &mut worker);
    plant.stop_broker();
    let (broker, backup) = (plant.folder().join("data/broker"), plant.folder().join("backup"));
    copy(&broker, &backup);
    plant.start_broker();
    let mut worker = plant.start_worker(0);
    let later = live().into_iter().take(30).collect::<Vec<_>>();
    let producer = Producer::new(&plant.broker(), &[]);
    for record in later.iter().flat_map(|c| c.records(super::same_log::MODEL)) {
        producer.texts(&plant.topic("contributions"), 0, [record.to_string()]);
    }
    plant.wait_for_receipts(reference.sent().len() + later.len());
    stop(&plant, &mut worker);
    plant.stop_broker();
    std::fs::remove_dir_all(&broker).expect("the broker's folder");
    copy(&backup, &broker);
    plant.start_broker();
    let mut worker = plant.launch_worker(0, None);
    let outcomes = [
        "local state does not fit the changelog and is made anew",
        "restore the topic, or move the folder tables/receipts away",
        // Its own log may have been seen by others: it never goes on from an earlier state.
        "LOG_TRUNCATED",
    ];
    eventually("what each of them says", || {
        assert!(worker.ended().is_none(), "{}", plant.log());
        let log = plant.whole_log();
        if outcomes.iter().all(|outcome| log.contains(outcome)) { Ok(()) } else { Err(plant.log()) }
    });
    drop(worker);
    // The way out that the tables' outcome names: they are written anew.
    std::fs::remove_dir_all(plant.folder().join("data/store/tables")).expect("the tables");
    let _worker = plant.start_stages("keying,registry,intake,dedup,receipts,warehouse");
    let receipts = verify::one_receipt_each(&plant, reference.sent());
    verify_reference_receipts(&receipts);
    verify::tables(&plant, &receipts);
}

/// Ends the worker in order, once its tables hold every receipt.
fn stop(plant: &Plant, worker: &mut Running) {
    let receipts = i64::try_from(plant.receipts()).expect("few");
    eventually("tables", || {
        let rows = finish(plant.command(&["sql", "select count(*) n from receipts", "--format", "json"])).lines(0);
        if rows.first().and_then(|row| row["n"].as_i64()) == Some(receipts) { Ok(()) } else { Err(plant.log()) }
    });
    let status = worker.terminate();
    assert!(status.code() == Some(0) && !aborted(status), "{}", plant.log());
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    let copied = Command::new("cp").args(["-a", "--"]).arg(from.join(".")).arg(to).status().expect("cp(1)");
    assert!(copied.success());
}

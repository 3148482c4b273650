//! The same log of contributions gives the same receipts, byte for byte, however often workers or the broker are killed on the way.

use super::load::{Contribution, Random, contributions};
use super::plant::Plant;
use super::verify::{self, Receipts};
use crate::support::broker::Kind;
use crate::support::client::Producer;
use crate::support::eventually;
use crate::support::flow::shop_spec;
use crate::support::hokusai::Running;
use std::sync::OnceLock;

const SEED: u64 = 20_130_101;
/// The model of the log.
pub const MODEL: &str = "crash-shop";
/// Where a worker aborts itself; in the other five rounds it is killed from outside at seeded moments. A restore has a middle once something was
/// committed, so one such round comes before it.
const FAILPOINTS: [Option<&str>; 12] = [
    Some("state.after_runs"),
    Some("state.after_manifest"),
    Some("commit.before:3"),
    Some("commit.after_offsets:3"),
    Some("warehouse.after_delta_commit"),
    Some("commit.after:3"),
    None,
    Some("restore.middle"),
    None,
    None,
    None,
    None,
];

/// The log, what was sent, and what an uninterrupted run made of it.
pub struct Reference {
    folder: tempfile::TempDir,
    sent: Vec<Contribution>,
    receipts: Receipts,
    /// [`Plant::progress`] at the end.
    progress: i64,
}

impl Reference {
    /// The folder with the log, before any stage has read it.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// What was sent.
    pub fn sent(&self) -> &[Contribution] {
        &self.sent
    }

    /// How many records that are.
    pub fn records(&self) -> usize {
        self.sent.iter().map(|c| c.chunks.len()).sum()
    }
}

/// Laid down once for the tests of this run.
pub fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let mut plant = Plant::start(Kind::Embedded, Some(&one_contributions_partition()))
            .expect("the embedded broker runs everywhere");
        let mut worker = plant.start_worker(0);
        let spec = plant.folder().join("model.yaml");
        std::fs::write(&spec, shop_spec(MODEL)).expect("a file");
        let applied = crate::support::hokusai::finish(plant.command(&["model", "apply", &spec.to_string_lossy()]));
        assert_eq!(applied.code, Some(0), "{applied:?}");
        assert_eq!(worker.terminate().code(), Some(0));
        let sent = contributions(SEED, 400, 120);
        let producer = Producer::new(&plant.broker(), &[]);
        for record in sent.iter().flat_map(|c| c.records(MODEL)) {
            producer.texts(&plant.topic("contributions"), 0, [record.to_string()]);
        }
        plant.stop_broker();
        let folder = tempfile::tempdir().expect("a folder");
        let copied = std::process::Command::new("cp")
            .args(["-a", "--"])
            .arg(plant.folder().join("."))
            .arg(folder.path())
            .status();
        assert!(copied.expect("cp(1)").success());
        drop(plant);

        let plant = Plant::start_copy(folder.path());
        let _worker = plant.start_worker(0);
        plant.wait_for_receipts(sent.len());
        let receipts = verify::one_receipt_each(&plant, &sent);
        verify::adds_up(&receipts, &sent);
        verify::as_in_order(&receipts, &sent);
        verify::tables(&plant, &receipts);
        let progress = plant.progress();
        Reference { folder, sent, receipts, progress }
    })
}

/// The built-in topology with one partition of `contributions` on one machine.
fn one_contributions_partition() -> String {
    let path = crate::support::root().join("topology/hokusai.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (head, tail) = text.split_once("- name: contributions\n").expect("the topic is declared");
    let tail = tail.replacen("partitions: {single: 2,", "partitions: {single: 1,", 1);
    format!("{head}- name: contributions\n{tail}")
}

/// When to strike next, with `left` strikes to come: a seeded share of the way that is left.
fn moment(plant: &Plant, random: &mut Random, end: i64, left: usize) -> i64 {
    let here = plant.progress();
    let step = (end - here).max(0) / i64::try_from(left + 1).expect("few");
    here + step / 2 + i64::try_from(random.below(step.max(1).unsigned_abs())).expect("small")
}

/// Waits for progress, or until everything is done.
fn wait_for_progress(plant: &Plant, worker: &mut Running, moment: i64, all: usize) {
    eventually("progress", || {
        if let Some(status) = worker.ended() {
            panic!("the worker ended with {status}:\n{}", plant.log());
        }
        let progress = plant.progress();
        if progress >= moment || plant.receipts() == all {
            Ok(())
        } else {
            Err(format!("{progress} of {moment}; log:\n{}", plant.log()))
        }
    });
}

fn verify_against_reference(plant: &Plant) {
    let reference = reference();
    plant.wait_for_receipts(reference.sent.len());
    let receipts = verify::one_receipt_each(plant, &reference.sent);
    verify::adds_up(&receipts, &reference.sent);
    verify_reference_receipts(&receipts);
    verify::tables(plant, &receipts);
}

/// The contributions of the reference have their receipts byte for byte; there may be others.
pub fn verify_reference_receipts(receipts: &Receipts) {
    for (id, (wanted, decoded)) in &reference().receipts {
        let (bytes, value) = &receipts[id];
        assert!(bytes == wanted, "{id}: not the bytes of the uninterrupted run:\n{value}\n{decoded}");
    }
}

#[test]
fn workers_killed_twelve_times_give_the_receipts_of_an_uninterrupted_run() {
    let reference = reference();
    // Here every commit goes to disk, in the uninterrupted run next to none does.
    let plant = Plant::start_copy(reference.folder.path()).with("HOKUSAI_STATE_MEMORY_MIB", "0");
    let mut random = Random::new(SEED);
    for (round, failpoint) in FAILPOINTS.into_iter().enumerate() {
        if failpoint == Some("restore.middle") {
            // What is on the disk need not be restored.
            std::fs::remove_dir_all(plant.folder().join("worker-0/state")).expect("the state on disk");
        }
        let mut launched = plant.launch_worker(0, failpoint);
        if let Some(failpoint) = failpoint {
            plant.wait_for_failpoint(failpoint, || launched.ended());
        } else {
            let mut worker = launched.ready().unwrap_or_else(|(status, log)| panic!("{status}\n{log}"));
            let moment = moment(&plant, &mut random, reference.progress, FAILPOINTS.len() - round);
            wait_for_progress(&plant, &mut worker, moment, reference.sent.len());
            worker.kill();
        }
    }
    let _worker = plant.start_worker(0);
    verify_against_reference(&plant);
}

/// Around every step of a snapshot, and while one is brought to a machine that has nothing yet.
const SNAPSHOT_FAILPOINTS: [&str; 5] = [
    "snapshot.after_blobs:2",
    "snapshot.after_manifest:3",
    "snapshot.installing",
    "snapshot.after_blobs:5",
    "snapshot.installing:2",
];

#[test]
fn workers_killed_around_snapshots_each_on_an_empty_machine_give_the_receipts_of_an_uninterrupted_run() {
    let reference = reference();
    let plant = Plant::start_copy(reference.folder.path());
    let plant = plant.with("HOKUSAI_SNAPSHOT_AFTER_MIB", "0").with("RUST_LOG", "info");
    let machine = plant.folder().join("worker-0");
    for failpoint in SNAPSHOT_FAILPOINTS {
        std::fs::remove_dir_all(&machine).expect("the data of the worker before");
        let mut launched = plant.launch_worker(0, Some(failpoint));
        plant.wait_for_failpoint(failpoint, || launched.ended());
    }
    std::fs::remove_dir_all(&machine).expect("the data of the worker before");
    let _worker = plant.start_worker(0);
    verify_against_reference(&plant);
    let log = std::fs::read_to_string(plant.folder().join("worker.log")).expect("a log");
    for stage in ["dedup", "receipts"] {
        let fetched = |line: &str| line.contains("state fetched from a snapshot") && line.contains(stage);
        assert!(log.lines().any(fetched), "{stage} went on from a snapshot:\n{log}");
    }
}

#[test]
fn the_broker_killed_ten_times_gives_the_receipts_of_an_uninterrupted_run() {
    let reference = reference();
    let mut plant = Plant::start_copy(reference.folder.path());
    let mut random = Random::new(SEED);
    let mut worker = plant.start_worker(0);
    for left in (1..=10).rev() {
        let moment = moment(&plant, &mut random, reference.progress, left);
        wait_for_progress(&plant, &mut worker, moment, reference.sent.len());
        plant.kill_broker();
    }
    verify_against_reference(&plant);
}

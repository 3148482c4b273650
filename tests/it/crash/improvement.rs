//! One request for a better model, from the request to the attestation of its evaluation: whatever dies on the way, and however the tables
//! are kept, the same bytes.

use super::load::Random;
use super::plant::Plant;
use crate::support::broker::Kind;
use crate::support::client::{Isolation, Producer, read};
use crate::support::eventually;
use crate::support::flow::contribution;
use crate::support::hokusai::finish;
use crate::support::late::{SECTION, lines, rows, spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

const MODEL: &str = "improved-flights";
const REQUEST: &str = "the-better-one";
const SEED: u64 = 20_130_204;

/// The four moments of a commit; which one is struck is drawn.
const MOMENTS: [&str; 4] = ["commit.before", "commit.after_produce", "commit.after_offsets", "commit.after"];

/// Which stages run, and where they die, one after the other: `*` is a moment of a commit of that stage.
const STEPS: [(&str, &str); 18] = [
    // The request finds its run, is admitted, and its rows are fixed.
    ("keying", "*@keying:1"),
    ("keying,training", "*@training:1"),
    ("training", "*@training:2"),
    // Trials of the search, and its rungs.
    ("training,trials", "training.learning:2"),
    ("training,trials", "*@trials:2"),
    ("training,trials", "*@training:3"),
    ("training,trials", "training.learning:4"),
    // The winner is a model, a version and a candidate.
    ("training,trials", "training.finishing"),
    ("training,trials", "commit.after@training:2"),
    ("registry", "*@registry:1"),
    // The attempt is laid down, and scored once it is under a tree head.
    ("evaluation", "*@evaluation:1"),
    ("evaluation,attesting", "attesting.after_local"),
    ("evaluation,attesting", "*@attesting:1"),
    ("evaluation,attesting", "evaluation.scoring"),
    ("evaluation,attesting", "evaluation.concluding"),
    // What came of it.
    ("evaluation,registry", "*@registry:1"),
    ("registry,attribution", "attribution.playing"),
    ("attesting", "attesting.before_keeping"),
];

/// What a run leaves behind, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    /// Last values by key of the topics that tell results.
    told: BTreeMap<(&'static str, Vec<u8>), Vec<u8>>,
    /// The log's entries by leaf: the signed envelopes.
    attested: BTreeMap<String, String>,
    /// The model.
    artefact: Vec<u8>,
}

const TOLD: [&str; 4] = ["training.runs", "evaluations", "attributions", "models"];

/// A folder with everything up to the request, which no stage has read, and what an uninterrupted run makes of it.
fn reference() -> &'static (tempfile::TempDir, Left) {
    static REFERENCE: OnceLock<(tempfile::TempDir, Left)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let folder = requested();
        let plant = Plant::start_copy(folder.path());
        let _worker = plant.start_worker(0);
        let left = left(&plant);
        (folder, left)
    })
}

fn run(plant: &Plant, arguments: &[&str]) -> Vec<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
    finish(plant.command(&arguments)).lines(0)
}

fn contribute(plant: &Plant, id: &str, rows: &[Value]) {
    let before = plant.receipts();
    let chunk = contribution(id, "alice", MODEL, rows).to_string();
    Producer::new(&plant.broker(), &[]).texts(&plant.topic("contributions"), 0, [chunk]);
    plant.wait_for_receipts(before + 1);
}

fn requested() -> tempfile::TempDir {
    let mut plant = Plant::start(Kind::Embedded, None).expect("the embedded broker runs everywhere");
    let mut worker = plant.start_worker(0);
    plant.apply(&spec(MODEL, SECTION));
    contribute(&plant, "wrong", &rows(0..80, true));
    run(&plant, &["train", MODEL, "--algorithm", "linear", "--request-id", "the-first", "--wait"]);
    let sealed = plant.folder().join("sealed.jsonl");
    std::fs::write(&sealed, lines(&rows(1_000..1_300, false))).expect("a file");
    run(&plant, &["benchmark", "seal", "holdout", "--model", MODEL, &sealed.to_string_lossy()]);
    contribute(&plant, "better", &rows(2_000..2_400, false));
    assert_eq!(worker.terminate().code(), Some(0), "{}", plant.log());
    let search = json!({"space": {"leaves": {"log_whole": [2, 8]}}, "trials": 4, "keep_one_in": 2, "iterations": 6});
    let (search, request) = (search.to_string(), ["train", MODEL, "--request-id", REQUEST, "--benchmark", "holdout"]);
    run(&plant, &[&request[..], &["--search", &search, "--param", "min_rows=5"]].concat());
    plant.stop_broker();
    let folder = tempfile::tempdir().expect("a folder");
    let copied =
        std::process::Command::new("cp").args(["-a", "--"]).arg(plant.folder().join(".")).arg(folder.path()).status();
    assert!(copied.expect("cp(1)").success());
    folder
}

fn last_values(plant: &Plant, topic: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let records = read(&plant.broker(), &plant.topic(topic), Isolation::Committed);
    records.into_iter().filter_map(|record| Some((record.key?, record.value?))).collect()
}

/// Waits until the evaluation stands beside its version, and it and its attribution are attested.
fn left(plant: &Plant) -> Left {
    let whole = eventually("the accepted evaluation, known to the registry, attributed and attested", || {
        let shown = finish(plant.command(&["model", "show", MODEL, "--format", "json"]));
        let shown: Value = serde_json::from_str(shown.out.lines().next().unwrap_or("null")).unwrap_or_default();
        let evaluation = &shown["versions"][1]["evaluations"][0];
        let logged = run(plant, &["attestation", "list"]);
        let about = |what: &str| {
            let of_it = |entry: &&Value| entry["subject"].as_str().is_some_and(|text| text.contains(what));
            logged.iter().filter(of_it).count()
        };
        let attested = about(" evaluation ") == 2 && about(" attribution ") == 1;
        if evaluation["status"] == "accepted" && attested {
            Ok(shown)
        } else {
            Err(format!("{shown}\n{logged:?}\n{}", plant.log()))
        }
    });
    let digest = whole["versions"][1]["artefact"]["digest"].as_str().expect("a digest").to_owned();
    let blob = plant.folder().join("data/store/blobs/sha256").join(&digest[..2]).join(&digest);
    let log = plant.folder().join("log.jsonl");
    run(plant, &["attestation", "log", "-o", &log.to_string_lossy()]);
    let mut attested = BTreeMap::new();
    for line in std::fs::read_to_string(&log).expect("the log").lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        let leaf = entry["leaf"].as_str().expect("a leaf").to_owned();
        let twice = attested.insert(leaf, entry["envelope"].to_string());
        assert!(twice.is_none(), "a leaf stands twice: {entry}");
    }
    let told = TOLD
        .into_iter()
        .flat_map(|topic| last_values(plant, topic).into_iter().map(move |(key, value)| ((topic, key), value)));
    Left { told: told.collect(), attested, artefact: std::fs::read(blob).expect("the model") }
}

fn assert_same(found: &Left, wanted: &Left) {
    assert!(found.artefact == wanted.artefact, "the model's bytes");
    for (key, value) in &wanted.told {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let own = found.told.get(key).map(|own| shown(own));
        assert_eq!(own, Some(shown(value)), "{}", key.0);
    }
    assert_eq!(found.told.len(), wanted.told.len());
    assert_eq!(found.attested, wanted.attested, "signed statements, byte for byte, each once");
}

#[test]
fn a_request_killed_eighteen_times_between_its_admission_and_its_attestation_leaves_the_bytes_of_an_uninterrupted_run()
{
    let (folder, wanted) = reference();
    let plant = Plant::start_copy(folder.path());
    let mut random = Random::new(SEED);
    for (stages, point) in STEPS {
        let moment = MOMENTS[usize::try_from(random.below(4)).expect("small")];
        let point = point.replace('*', moment);
        let mut doomed = plant.launch_stages(stages, &point);
        plant.wait_for_failpoint(&point, || doomed.ended());
    }
    let _worker = plant.start_worker(0);
    assert_same(&left(&plant), wanted);
}

#[test]
fn neither_the_pace_of_the_tables_nor_their_loss_changes_a_byte_of_the_model() {
    let (folder, wanted) = reference();
    let tables = |of: &Path| of.join("data/store/tables");
    assert!(tables(folder.path()).join("rows").exists(), "there were tables");
    let plant = Plant::start_copy(folder.path()).with("HOKUSAI_TABLE_COMMIT_MS", "20");
    // Compaction and vacuum can take no more than this: nothing of any table is left.
    std::fs::remove_dir_all(tables(&plant.folder())).expect("the tables");
    let _worker = plant.start_worker(0);
    assert_same(&left(&plant), wanted);
}

#[test]
fn an_attempt_whose_preregistration_nobody_attests_can_be_taken_back_and_holds_nobody_up() {
    let plant = Plant::start_copy(reference().0.path());
    // Without the stage `attesting` nothing is acknowledged.
    let mut worker = plant.start_stages("keying,training,trials,registry,evaluation");
    eventually("the attempt", || match last_values(&plant, "evaluation.requests").len() {
        0 => Err(plant.log()),
        _ => Ok(()),
    });
    let cancelled = run(&plant, &["train", "cancel", "--request-id", REQUEST, "--wait"]).remove(0);
    let evaluation = &cancelled["evaluation"];
    assert_eq!((&cancelled["status"], &evaluation["status"]), (&json!("finished"), &json!("cancelled")), "{cancelled}");
    assert_eq!((&evaluation["attempt"], &evaluation["reasons"]), (&json!(1), &json!(["CANCELLED"])), "{cancelled}");
    assert_eq!(worker.terminate().code(), Some(0), "{}", plant.log());
    let _worker = plant.start_worker(0);
    // The candidate that was taken back is the newest version: it is not what this one has to beat.
    let next = ["train", MODEL, "--benchmark", "holdout", "--base-version", "1.0.0", "--param", "min_rows=5"];
    let next = run(&plant, &[&next[..], &["--seed", "9", "--wait"]].concat()).remove(0)["evaluation"].clone();
    assert_eq!((&next["attempt"], &next["status"]), (&json!(2), &json!("accepted")), "{next}");
}

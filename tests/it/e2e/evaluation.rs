//! Evaluations as people and other programs meet them: a real improvement is accepted behind its preregistration, one that is none tells
//! nothing but the Ladder's score, asking again spends nothing, and a worker that dies changes no byte.

use super::recomputation;
use crate::on_every_cluster;
use crate::support::broker::Kind;
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{contribute, contribution, receipt};
use crate::support::late::{SECTION, lines, rows, spec};
use crate::support::{eventually, root, unique};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

on_every_cluster! {
    an_improvement_is_accepted_behind_its_preregistration_and_one_that_is_none_tells_only_the_ladder,
    what_cannot_be_evaluated_is_refused_by_name_before_anything_is_learned,
}

/// A model that says how candidates are compared.
pub fn model(cluster: &Cluster) -> String {
    let model = unique("flights");
    cluster.apply(&model, &spec(&model, SECTION));
    model
}

/// Where rows of a test begin: benchmarks of a tenant that overlap share their attempts, whichever model they measure.
pub(super) fn base() -> i64 {
    use std::sync::atomic::{AtomicI64, Ordering};
    static NEXT: AtomicI64 = AtomicI64::new(0);
    NEXT.fetch_add(10_000, Ordering::Relaxed)
}

pub fn contributed(cluster: &Cluster, model: &str, rows: &[Value]) {
    contributed_by(cluster, model, "alice", rows);
}

pub(super) fn contributed_by(cluster: &Cluster, model: &str, contributor: &str, rows: &[Value]) {
    let id = unique("rows");
    contribute(cluster, &[contribution(&id, contributor, model, rows)]);
    let receipt = receipt(cluster, &id);
    assert_eq!(receipt["accepted"], rows.len(), "{receipt}");
}

pub(super) fn seal(cluster: &Cluster, model: &str, rows: &[Value]) -> Value {
    let path = cluster.scratch().join(format!("{}.jsonl", unique("sealed")));
    std::fs::write(&path, lines(rows)).expect("a file");
    cluster.lines(&["benchmark", "seal", "holdout", "--model", model, &path.to_string_lossy()]).remove(0)
}

pub(super) fn train(cluster: &Cluster, model: &str, id: &str, more: &[&str]) -> Value {
    let asked = ["train", model, "--algorithm", "linear", "--request-id", id, "--wait"];
    let arguments: Vec<&str> = asked.into_iter().chain(more.to_vec()).collect();
    cluster.lines(&arguments).remove(0)
}

pub(super) fn text<'a>(line: &'a Value, path: &str) -> &'a str {
    line.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} in {line}"))
}

/// A version of mislabelled rows, a sealed benchmark, and rows that more can be learned from: the digest of the first.
pub fn prepared(cluster: &Cluster, model: &str, base: i64, id: &str) -> (Value, String) {
    contributed(cluster, model, &rows(base..base + 80, true));
    let first = train(cluster, model, id, &[]);
    assert_eq!(text(&first, "/version"), "1.0.0", "{first}");
    let sealed = seal(cluster, model, &rows(base + 1_000..base + 1_300, false));
    contributed(cluster, model, &rows(base + 2_000..base + 2_400, false));
    (sealed, text(&first, "/dataset/digest").to_owned())
}

/// The entries of the log about an evaluation, in order.
pub(super) fn logged(cluster: &Cluster, model: &str, evaluation: &str) -> Vec<Value> {
    let subject = format!("{model} evaluation {evaluation}");
    eventually("both statements of the evaluation", || {
        let of_it = |entry: &Value| entry["subject"] == subject.as_str();
        let found: Vec<Value> = cluster.lines(&["attestation", "list"]).into_iter().filter(of_it).collect();
        if found.len() == 2 { Ok(found) } else { Err(format!("{found:?}")) }
    })
}

fn an_improvement_is_accepted_behind_its_preregistration_and_one_that_is_none_tells_only_the_ladder(cluster: &Cluster) {
    let model = model(cluster);
    let (sealed, wrong) = prepared(cluster, &model, base(), &unique("first"));
    let id = unique("better");
    let run = train(cluster, &model, &id, &["--benchmark", "holdout"]);
    let told = &run["evaluation"];
    assert_eq!((text(told, "/status"), &told["attempt"]), ("accepted", &json!(1)), "{run}");
    assert_eq!((text(told, "/benchmark"), text(told, "/baseline_version")), ("holdout@1", "1.0.0"));
    assert_eq!((&told["family"], &told["candidate"]), (&sealed["family"], &run["artefact"]["digest"]));
    assert_eq!((&told["evaluation_id"], text(&run, "/benchmark")), (&run["evaluation_id"], "holdout@1"));
    let number = |path: &str| text(told, path).parse::<f64>().expect("a decimal");
    assert!(number("/delta") > 0.15 && number("/lower") > 0.0 && number("/p_value") < number("/alpha"), "{told}");
    assert!((number("/candidate_value") - number("/baseline_value") - number("/delta")).abs() < 1e-9, "{told}");
    // It stands beside the version, and promotes nothing.
    let version = eventually("the registry knows the evaluation", || {
        let shown = cluster.lines(&["model", "show", &model]).remove(0);
        let version = shown["versions"][1].clone();
        if version["evaluations"].as_array().is_some_and(|e| e.len() == 1) {
            Ok(version)
        } else {
            Err(version.to_string())
        }
    });
    assert_eq!((text(&version, "/stage"), text(&version, "/evaluations/0/status")), ("dev", "accepted"), "{version}");
    assert_eq!(version["evaluations"][0]["statement"], told["statement"]);
    assert_eq!(text(&version, "/lineage/benchmark"), "holdout@1");
    attested(cluster, &model, told);
    recomputation::accepted(cluster, &model, told);

    // What the wrong labels taught, beside the good version.
    let worse = ["--benchmark", "holdout@1", "--base-version", text(&run, "/version"), "--as-of", &wrong];
    let null = train(cluster, &model, &unique("null"), &worse);
    let refused = &null["evaluation"];
    assert_eq!((text(refused, "/status"), &refused["attempt"]), ("refused", &json!(2)), "{null}");
    for figure in ["baseline_value", "candidate_value", "delta", "lower", "p_value"] {
        assert_eq!(refused[figure], Value::Null, "{figure}: {refused}");
    }
    assert_eq!((&refused["strata"], &refused["ladder_score"]), (&json!([]), &told["ladder_score"]));
    assert!(refused["reasons"].as_array().is_some_and(|r| r.contains(&json!("NOT_SIGNIFICANT"))), "{refused}");
    recomputation::refused(cluster, &model, refused);
    // The same request, and the same recipe under another id, are the first evaluation again.
    assert_eq!(train(cluster, &model, &id, &["--benchmark", "holdout"])["evaluation"], *told);
    assert_eq!(train(cluster, &model, &unique("again"), &worse)["evaluation"], *refused);

    let board = cluster.lines(&["leaderboard", &format!("{model}/holdout@1")]);
    assert_eq!(board.len(), 2, "{board:?}");
    assert!(board.iter().all(|line| line["ladder_score"] == told["ladder_score"] && line.get("delta").is_none()));
    let table = cluster.sql(&format!(
        "select e.attempt, e.status, e.delta, l.ladder_score from evaluations e join leaderboard l using (evaluation_id) \
         where e.model = '{model}' order by e.attempt"
    ));
    assert_eq!((table.len(), &table[0]["delta"], &table[1]["delta"]), (2, &told["delta"], &Value::Null), "{table:?}");
}

/// The preregistration stands before the outcome, and a stranger can see it.
fn attested(cluster: &Cluster, model: &str, told: &Value) {
    let entries = logged(cluster, model, text(told, "/evaluation_id"));
    assert_eq!(entries[0]["leaf"], told["preregistration"], "{entries:?}");
    assert!(entries[0]["index"].as_i64() < entries[1]["index"].as_i64(), "{entries:?}");
    let shown = cluster.lines(&["attestation", "show", text(&entries[1], "/leaf")]).remove(0);
    let statement = &shown["statement"]["predicate"];
    assert_eq!(
        (&statement["preRegistration"]["value"], &statement["status"]),
        (&told["preregistration"], &told["status"])
    );
    assert!(statement["record"]["n"] == 300 && statement["withheld"].is_null(), "{statement}");
    let folder = cluster.scratch().join(unique("stranger"));
    std::fs::create_dir_all(folder.join("models")).expect("a folder");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    for digest in [text(told, "/baseline"), text(told, "/candidate")] {
        let blob = cluster.data().join("store/blobs/sha256").join(&digest[..2]).join(digest);
        std::fs::copy(blob, folder.join("models").join(digest)).expect("a model");
    }
    cluster.lines(&["attestation", "trust", "-o", &file("trust.json")]);
    cluster.lines(&["attestation", "export", text(&entries[1], "/leaf"), "-o", &file("bundle.json")]);
    cluster.lines(&["attestation", "log", "-o", &file("log.jsonl")]);
    let check = |log: &str| {
        let (bundle, trust, models) = (file("bundle.json"), file("trust.json"), file("models"));
        cluster.run(&["verify", &bundle, "--trust", &trust, "--inputs", &models, "--log", log, "--format", "json"])
    };
    let whole = check(&file("log.jsonl")).lines(0).remove(0);
    let outcome = |name: &str| {
        let checks = whole["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["check"] == name).map(|check| check["outcome"].clone())
    };
    assert_eq!(outcome("preregistration"), Some(json!("passed")), "{whole}");
    assert_eq!(outcome("level 1, figures"), Some(json!("not_checked")), "{whole}");
    if cluster.broker.kind == Kind::Embedded && cluster.workers().count() == 1 {
        cluster.lines(&["attestation", "export", text(&entries[0], "/leaf"), "-o", &file("preregistration.json")]);
        for (bundle, is_outcome) in [("preregistration.json", false), ("bundle.json", true)] {
            if let Some(checked) = others_agree(&file(bundle), &file("trust.json"), &file("log.jsonl")) {
                assert_eq!(checked["eval_result"], is_outcome, "{bundle}: {checked}");
            }
        }
    }
    // Without one of the models it is about something else.
    std::fs::remove_file(folder.join("models").join(text(told, "/baseline"))).expect("it is there");
    check(&file("log.jsonl")).lines(15);
}

/// Verifiers that are not ours accept the statement and refuse it with any byte changed; what they say they checked.
fn others_agree(bundle: &str, trust: &str, log: &str) -> Option<Value> {
    let python = super::attestation::python()?;
    let script = root().join("tests/python/attestation.py");
    let output = Command::new(python).arg(script).args([bundle, trust, log]).output().expect("Python starts");
    assert!(output.status.success(), "{bundle}: {}", String::from_utf8_lossy(&output.stderr));
    let checked: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(checked["changed_bytes"].as_i64() > Some(1_000), "{bundle}: {checked}");
    Some(checked)
}

fn what_cannot_be_evaluated_is_refused_by_name_before_anything_is_learned(cluster: &Cluster) {
    let model = model(cluster);
    let refused = |model: &str, benchmark: &str, code: &str| {
        let run = cluster.run(&["train", model, "--benchmark", benchmark, "--wait"]);
        assert!(run.code == Some(4) && run.err.contains(code), "{code}: {run:?}");
    };
    refused(&model, "holdout", "UNKNOWN_BENCHMARK");
    let base = base();
    seal(cluster, &model, &rows(base..base + 160, false));
    refused(&model, "holdout@2", "UNKNOWN_BENCHMARK");
    refused(&model, "holdout", "NO_BASELINE");
    cluster.lines(&["benchmark", "retire", &format!("{model}/holdout@1")]);
    refused(&model, "holdout", "BENCHMARK_RETIRED");
    refused(&model, "holdout@1", "BENCHMARK_RETIRED");
    let plain = unique("flights");
    cluster.apply(&plain, &spec(&plain, ""));
    seal(cluster, &plain, &rows(base + 1_000..base + 1_160, false));
    refused(&plain, "holdout", "NO_EVALUATION");
    assert!(cluster.watch("evaluations").iter().all(|record| record["value"]["model"] != model.as_str()));
}

/// Copies the keys of a tenant; the log's own are of one log.
pub(super) fn copied(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).expect("permissions");
    for file in std::fs::read_dir(from).expect("keys").flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with("tenant-") || name.starts_with("evaluation-") {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("a key");
        }
    }
}

#[test]
fn a_worker_that_dies_between_the_acknowledgement_and_the_outcome_changes_no_figure() {
    // The worker that lives is profiled, and the other is not: that changes none either.
    let flames = tempfile::tempdir().expect("a folder");
    let environment = vec![("HOKUSAI_PROFILE".to_owned(), flames.path().to_string_lossy().into_owned())];
    let profiled = Settings { environment, ..Settings::default() };
    let whole = Cluster::start(Kind::Embedded, &profiled).expect("the embedded broker");
    let (model, base, first) = (model(&whole), base(), unique("first"));
    prepared(&whole, &model, base, &first);
    let id = unique("better");
    let run = train(&whole, &model, &id, &["--benchmark", "holdout"]);
    let expected = run["evaluation"].clone();
    assert_eq!(text(&expected, "/status"), "accepted", "{expected}");
    let written = [("training", text(&run, "/run_id")), ("evaluation", text(&expected, "/evaluation_id"))];
    for (kind, id) in written {
        let file = flames.path().join(format!("{kind}-{id}.svg"));
        let graph = eventually("a flame graph", || std::fs::read_to_string(&file).map_err(|e| e.to_string()));
        assert!(graph.contains(&format!("{kind} {id}")) && graph.ends_with("</svg>\n"), "{graph}");
        match crate::support::browser::console(&file) {
            Some(said) => assert!(said.is_empty(), "{said:?}"),
            None => crate::support::skip("a flame graph in a browser", "no Chromium (tests/setup.sh installs it)"),
        }
    }
    let keys = whole.scratch().join("shared-keys");
    copied(&whole.data().join("keys"), &keys);
    let environment = vec![
        ("HOKUSAI_KEYS".to_owned(), keys.to_string_lossy().into_owned()),
        ("HOKUSAI_FAILPOINT".to_owned(), "evaluation.scoring:1".to_owned()),
    ];
    let settings = Settings { environment, ..Settings::default() };
    let mut dying = Cluster::start(Kind::Embedded, &settings).expect("the embedded broker");
    dying.apply(&model, &spec(&model, SECTION));
    prepared(&dying, &model, base, &first);
    dying.lines(&["train", &model, "--algorithm", "linear", "--request-id", &id, "--benchmark", "holdout"]);
    assert!(!dying.process.wait().success(), "it dies when it begins to score");
    dying.forget("HOKUSAI_FAILPOINT");
    dying.start_again();
    let told = train(&dying, &model, &id, &["--benchmark", "holdout"])["evaluation"].clone();
    // Receipts say when their rows were appended, and statements bind them: those of another log are others. That the same log gives
    // the same bytes is for `crash::improvement` to show.
    let figures = |told: &Value| {
        let mut told = told.as_object().expect("an object").clone();
        told.retain(|name, _| !["preregistration", "statement"].contains(&name.as_str()));
        told
    };
    assert_eq!(figures(&told), figures(&expected));
    let statements = |cluster: &Cluster| logged(cluster, &model, text(&expected, "/evaluation_id"));
    assert_eq!((statements(&dying).len(), statements(&whole).len()), (2, 2), "each stands once");
}

#[test]
fn rows_that_are_sealed_after_they_were_contributed_are_left_out_from_then_on_embedded() {
    crate::support::cluster::with(Kind::Embedded, 0, rows_that_are_sealed_after_they_were_contributed_are_left_out);
}

#[test]
fn rows_that_are_sealed_after_they_were_contributed_are_left_out_from_then_on_apache_kafka() {
    crate::support::cluster::with(Kind::ApacheKafka, 1, rows_that_are_sealed_after_they_were_contributed_are_left_out);
}

fn rows_that_are_sealed_after_they_were_contributed_are_left_out(cluster: &Cluster) {
    let (model, base) = (model(cluster), base());
    let all = rows(base..base + 300, false);
    contributed(cluster, &model, &all);
    let before = train(cluster, &model, &unique("before"), &[]);
    assert_eq!(before["dataset"]["rows"], 300, "{before}");
    // A hundred and twenty of them are drawn as a benchmark: with another label too, they are the same rows.
    let mut drawn = all[..120].to_vec();
    drawn[7]["late"] = json!(1 - drawn[7]["late"].as_i64().expect("a label"));
    assert_eq!(seal(cluster, &model, &drawn)["rows"], 120);
    let after = train(cluster, &model, &unique("after"), &["--benchmark", "holdout"]);
    assert_eq!(after["dataset"]["rows"], 180, "{after}");
    assert_ne!(after["dataset"]["digest"], before["dataset"]["digest"]);
    // What is published of the earlier dataset cannot be learned from any more, and says why.
    let gone = cluster.run(&["train", &model, "--as-of", text(&before, "/dataset/digest"), "--wait"]);
    assert!(gone.code == Some(1) && gone.err.contains("DATASET_CHANGED"), "{gone:?}");
    // Retired, they are rows like others again: whoever asks learns from all.
    cluster.lines(&["benchmark", "retire", &format!("{model}/holdout@1")]);
    let retired = train(cluster, &model, &unique("retired"), &[]);
    assert_eq!(
        (&retired["dataset"]["rows"], &retired["dataset"]["digest"]),
        (&json!(300), &before["dataset"]["digest"])
    );
}

#[test]
fn trees_that_go_on_from_the_baseline_are_evaluated_and_a_stranger_learns_on_from_it_too() {
    crate::support::cluster::with(Kind::Embedded, 0, trees_that_go_on_from_the_baseline);
}

fn trees_that_go_on_from_the_baseline(cluster: &Cluster) {
    let (model, base) = (model(cluster), base());
    let train = |id: &str, more: &[&str]| {
        let asked = ["train", &model, "--param", "min_rows=5", "--request-id", id, "--wait"];
        let arguments: Vec<&str> = asked.into_iter().chain(more.to_vec()).collect();
        cluster.lines(&arguments).remove(0)
    };
    contributed(cluster, &model, &rows(base..base + 80, true));
    let first = train(&unique("first"), &["--param", "iterations=5"]);
    seal(cluster, &model, &rows(base + 1_000..base + 1_300, false));
    contributed(cluster, &model, &rows(base + 2_000..base + 2_400, false));
    let more = ["--warm-start", "--base-version", "1.0.0", "--benchmark", "holdout", "--param", "iterations=40"];
    let run = train(&unique("on"), &more);
    let told = &run["evaluation"];
    assert_eq!((text(told, "/status"), &run["iteration"]), ("accepted", &json!(40)), "{run}");
    let params = run["params"].as_array().expect("parameters");
    let from = json!({"name": "warm_start", "value": first["artefact"]["digest"].to_string()});
    assert!(params.contains(&from), "{params:?}");
    super::recomputation::every_level(cluster, &model, told);
}

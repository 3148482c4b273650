//! External trainers as people and other programs meet them: a job that waits, answers of every kind, and workers that die meanwhile.

use super::evaluation;
use super::training::{artefact, filled, text};
use crate::on_every_cluster;
use crate::support::broker::Kind;
use crate::support::client::{Producer, Send};
use crate::support::cluster::{Cluster, Settings, with};
use crate::support::flow::shop;
use crate::support::hokusai::program;
use crate::support::{cache, eventually, root, skip, unique};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};
use std::fs::File;
use std::process::Command;

on_every_cluster! {
    a_job_waits_through_answers_that_cannot_be_used_for_the_first_that_can,
}

/// The newest state of a run, once it is this.
pub(super) fn state(cluster: &Cluster, run_id: &str, status: &str, reason: &str) -> Value {
    eventually(&format!("run {run_id} is {status} {reason}"), || {
        let runs = cluster.watch("training.runs");
        let newest = runs.iter().map(|r| &r["value"]).rfind(|r| r["run_id"] == *run_id).cloned().unwrap_or_default();
        if newest["status"] == *status && newest["reason"] == *reason { Ok(newest) } else { Err(newest.to_string()) }
    })
}

fn send(cluster: &Cluster, value: &str) {
    let producer = Producer::new(&cluster.broker, &[]);
    let record = Send { value: Some(value.as_bytes()), ..Send::default() };
    producer.send(&cluster.topic("training.answers"), &record).expect("the queue has room");
    assert!(producer.settle().iter().all(Result::is_ok));
}

/// What an own learner makes of the model's rows: an artefact that takes the features of a job.
fn native(cluster: &Cluster, model: &str) -> Value {
    cluster.lines(&["train", model, "--param", "iterations=5", "--param", "min_rows=5", "--wait"]).remove(0)
}

/// Asks for a run of an external trainer, and waits until it waits.
fn waiting(cluster: &Cluster, model: &str, more: &[&str]) -> Value {
    let asked = ["train", model, "--algorithm", "external", "--param", "depth=3"];
    let arguments: Vec<&str> = asked.into_iter().chain(more.to_vec()).collect();
    let run = cluster.lines(&arguments).remove(0);
    state(cluster, text(&run, "/run_id"), "waiting", "")
}

fn a_job_waits_through_answers_that_cannot_be_used_for_the_first_that_can(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    filled(cluster, &model, 2);
    let own = native(cluster, &model);
    let digest = text(&own, "/artefact/digest");
    let run = waiting(cluster, &model, &[]);
    let id = text(&run, "/run_id");
    // Nobody behind it waits, and it is seen as waiting.
    assert_eq!(native(cluster, &model)["artefact"], own["artefact"]);
    let jobs = cluster.lines(&["train", "jobs", "--model", &model]);
    assert_eq!((jobs.len(), text(&jobs[0], "/run_id")), (1, id), "{jobs:?}");
    assert_eq!(cluster.sql(&format!("select status from runs where run_id = '{id}'"))[0]["status"], "waiting");

    let folder = cluster.scratch().join(unique("job"));
    let said = cluster.lines(&["train", "job", id, "-o", &folder.to_string_lossy()]).remove(0);
    assert_eq!((text(&said, "/run_id"), &said["params"]["depth"], text(&said, "/task")), (id, &json!(3), "binary"));
    let rows = SerializedFileReader::new(File::open(folder.join("rows.parquet")).expect("rows")).expect("Parquet");
    let fields = rows.metadata().file_metadata().schema().get_fields();
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    assert_eq!(
        (rows.metadata().file_metadata().num_rows(), names.join(" ")),
        (240, "order amount plan label fold".into())
    );
    let encoding: Value =
        serde_json::from_slice(&std::fs::read(folder.join("encoding.json")).expect("a file")).expect("JSON");
    assert_eq!(encoding[2]["levels"], json!(["basic", "premium"]));

    hostile(cluster, id);
    let torn = cluster.scratch().join(unique("torn"));
    std::fs::write(&torn, &artefact(cluster, &own)[..100]).expect("a file");
    let told = cluster.run(&["train", "answer", id, "--artefact", &torn.to_string_lossy(), "--wait"]);
    assert!(told.code == Some(4) && told.err.contains("BAD_ARTEFACT"), "{told:?}");
    send(cluster, &json!({"run_id": id, "artefact": {"digest": "ab".repeat(32)}}).to_string());
    state(cluster, id, "waiting", "ARTEFACT_MISSING");

    // From any client, as plain JSON; what it claims to be worth stands in no version.
    send(cluster, &json!({"run_id": id, "artefact": {"digest": digest}, "metrics": {"auroc": 0.999999}}).to_string());
    let over = cluster.lines(&["train", &model, "--request-id", text(&run, "/request_id"), "--wait"]).remove(0);
    assert_eq!(
        (text(&over, "/status"), &over["artefact"], &over["metrics"]),
        ("finished", &own["artefact"], &own["metrics"])
    );
    assert_ne!(over["recipe_digest"], own["recipe_digest"]);
    send(cluster, &json!({"run_id": id, "error": "too late"}).to_string());
    let failing = waiting(cluster, &model, &[]);
    let failing = text(&failing, "/run_id");
    let failed = cluster.lines(&["train", "answer", failing, "--error", "no GPU", "--wait"]).remove(0);
    assert_eq!((text(&failed, "/status"), text(&failed, "/reason")), ("failed", "EXTERNAL_FAILED"), "{failed}");
    state(cluster, id, "finished", "");
    assert!(cluster.lines(&["train", "jobs", "--model", &model]).is_empty());
}

/// What is in no form of an answer goes to the dead letters, and changes no run.
fn hostile(cluster: &Cluster, run_id: &str) {
    let marked = |what: &str| format!(r#"{{"run_id":"{run_id}","{}":{what}}}"#, unique("field"));
    let values = [marked("1"), marked(r#"{"digest":7}"#), marked(&"[".repeat(40)), unique("no answer at all")];
    values.iter().for_each(|value| send(cluster, value));
    eventually("the dead letters", || {
        let letters = cluster.watch("dead-letters");
        let of = |value: &&String| {
            let is_it = |letter: &&Value| {
                letter["value"]["reason"] == "ANSWER_UNREADABLE" && letter["value"]["size"] == json!(value.len())
            };
            letters.iter().any(|letter| is_it(&letter))
        };
        let found = values.iter().filter(of).count();
        if found == values.len() { Ok(()) } else { Err(format!("{found} of {}", values.len())) }
    });
}

#[test]
fn a_trainer_in_python_answers_with_scikit_learns_trees_and_they_are_evaluated() {
    with(Kind::Embedded, 0, python);
}

#[test]
fn a_trainer_in_python_answers_over_apache_kafka_too() {
    with(Kind::ApacheKafka, 0, python);
}

/// The trainer of `examples/external`, as it stands there, from the request to the evaluation.
fn python(cluster: &Cluster) {
    let interpreter = cache().join("python-trainer/bin/python");
    if !interpreter.exists() {
        return skip("the external trainer in Python", "no environment for it in the cache (tests/setup.sh makes it)");
    }
    let model = evaluation::model(cluster);
    evaluation::prepared(cluster, &model, evaluation::base(), &unique("first"));
    let params = ["--param", "max_iter=40", "--param", "max_depth=3", "--param", "learning_rate=0.3"];
    let run = waiting(cluster, &model, &[&["--benchmark", "holdout"][..], &params].concat());
    let output = cluster
        .command(&[])
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)))
        .fold(&mut Command::new(interpreter), |command, (name, value)| command.env(name, value))
        .arg(root().join("examples/external/trainer.py"))
        .args([&cluster.broker.bootstrap, &cluster.prefix])
        .arg(root().join("schemas/training_run.avsc"))
        .args([&model, "1"])
        .env("HOKUSAI", program())
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let over = cluster.lines(&["train", &model, "--request-id", text(&run, "/request_id"), "--wait"]).remove(0);
    assert_eq!((text(&over, "/status"), text(&over, "/evaluation/status")), ("finished", "accepted"), "{over}");
    // scikit-learn measured the same on the rows that judge, with its own code.
    let jobs = cluster.watch("training.jobs");
    let answer = jobs.iter().map(|j| &j["value"]).find(|j| j["run_id"] == run["run_id"] && !j["answer"].is_null());
    let claimed = answer.and_then(|answer| answer["answer"]["metrics"].as_array()).expect("an answer with metrics");
    let value = |metrics: &Value, name: &str| {
        let found = metrics.as_array().into_iter().flatten().find(|m| m["name"] == *name).cloned();
        found.and_then(|m| m["value"].as_str().and_then(|text| text.parse::<f64>().ok())).expect("a metric")
    };
    let theirs = value(&json!(claimed), "log_loss");
    assert!((theirs - value(&over["metrics"], "log_loss")).abs() < 1e-5, "{theirs} {}", over["metrics"]);
    let version = &cluster.lines(&["model", "show", &model])[0]["versions"][1];
    assert_eq!(version["lineage"]["recipe_digest"], over["recipe_digest"]);
    let params = version["params"].as_array().expect("parameters");
    assert!(params.contains(&json!({"name": "algorithm", "value": "external"})), "{version}");
}

#[test]
fn workers_that_die_while_a_run_waits_and_while_its_answer_is_looked_at_change_nothing_of_it() {
    let settings = Settings {
        environment: vec![("HOKUSAI_FAILPOINT".into(), "training.importing".into())],
        ..Settings::default()
    };
    let mut cluster = Cluster::start(Kind::Embedded, &settings).expect("the embedded broker");
    let (model, _) = shop(&cluster);
    filled(&cluster, &model, 2);
    let own = native(&cluster, &model);
    let digest = text(&own, "/artefact/digest");
    let id = unique("request");
    let run = waiting(&cluster, &model, &["--request-id", &id]);
    cluster.process.kill();
    cluster.start_again();
    send(&cluster, &json!({"run_id": run["run_id"], "artefact": {"digest": digest}}).to_string());
    assert!(!cluster.process.wait().success(), "it dies when the answer is looked at");
    cluster.forget("HOKUSAI_FAILPOINT");
    cluster.start_again();
    let over = cluster.lines(&["train", &model, "--request-id", &id, "--wait"]).remove(0);
    assert_eq!((text(&over, "/status"), &over["job"]), ("finished", &run["job"]), "{over}");

    // Nobody died under this one.
    let again = waiting(&cluster, &model, &["--as-of", text(&own, "/dataset/digest")]);
    send(&cluster, &json!({"run_id": again["run_id"], "artefact": {"digest": digest}}).to_string());
    let again = state(&cluster, text(&again, "/run_id"), "finished", "");
    for field in ["artefact", "recipe_digest", "metrics", "dataset", "iteration"] {
        assert_eq!(over[field], again[field], "{field}");
    }
    assert_eq!(artefact(&cluster, &over), artefact(&cluster, &own));
}

//! Searches over parameters and cancelled runs, as people and other programs meet them.

use super::training::{artefact, filled, text};
use crate::on_every_cluster;
use crate::support::broker::Kind;
use crate::support::client::{Producer, Send};
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{contribute, contribution, receipt, rows, shop};
use crate::support::{eventually, unique};
use serde_json::{Value, json};

on_every_cluster! {
    the_winner_of_a_search_becomes_a_version_and_every_trial_can_be_seen,
    a_cancelled_run_ends_and_those_behind_it_go_on,
}

/// A search by halving: so many trials with few iterations, a third of them with three times as many.
fn search(trials: u32, iterations: u32) -> String {
    let space = json!({"learning_rate": {"log": [0.02, 0.5]}, "leaves": {"log_whole": [2, 16]}});
    json!({"space": space, "trials": trials, "keep_one_in": 3, "iterations": iterations}).to_string()
}

fn searched(cluster: &Cluster, model: &str, request_id: &str, search: &str, more: &[&str]) -> Value {
    let asked = ["train", model, "--request-id", request_id, "--search", search, "--param", "min_rows=5", "--wait"];
    let arguments: Vec<&str> = asked.into_iter().chain(more.to_vec()).collect();
    cluster.lines(&arguments).remove(0)
}

fn the_winner_of_a_search_becomes_a_version_and_every_trial_can_be_seen(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    filled(cluster, &model, 2);
    let run = searched(cluster, &model, &unique("request"), &search(6, 9), &[]);
    assert_eq!((text(&run, "/status"), text(&run, "/version")), ("finished", "1.0.0"), "{run}");
    assert_eq!(run["iteration"], json!(6 * 3 + 2 * 9 + 9), "all trials, the survivors, the winner once more");
    let id = text(&run, "/run_id");
    let trials = cluster.sql(&format!(
        "select trial, rung, place, loss, iterations, params, reason from trials where run_id = '{id}' order by rung, place"
    ));
    let numbers = |rung: i64| -> Vec<i64> {
        let of_rung = trials.iter().filter(|t| t["rung"] == rung);
        of_rung.map(|t| t["trial"].as_i64().expect("a number")).collect()
    };
    let (first, second) = (numbers(0), numbers(1));
    assert_eq!((first.len(), second.len()), (6, 2), "{trials:?}");
    let sorted = |list: &[i64]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    assert_eq!(sorted(&first[..2]), sorted(&second), "the best of a rung go on");
    assert_eq!(run["trial"], json!(second[0]), "the best of the last rung wins");
    let won = trials.iter().find(|t| t["rung"] == 1 && t["place"] == 1).expect("a winner");
    assert_eq!((&won["params"], text(won, "/reason")), (&run["params"], ""));
    let version = &cluster.lines(&["model", "show", &model])[0]["versions"][0];
    let params = version["params"].as_array().expect("parameters");
    let winner = json!({"name": "trial", "value": second[0].to_string()});
    assert!(params.contains(&winner), "{version}");
    // Nothing of a search is left to chance, and its winner is what a request for its parameters gives.
    let again = searched(cluster, &model, &unique("request"), &search(6, 9), &[]);
    assert_eq!((&again["artefact"], &again["recipe_digest"]), (&run["artefact"], &run["recipe_digest"]));
    let refused = cluster.run(&["train", &model, "--search", r#"{"space":{},"trials":1,"iterations":2}"#, "--wait"]);
    assert!(refused.code == Some(4) && refused.err.contains("BAD_SEARCH"), "{refused:?}");
}

fn a_cancelled_run_ends_and_those_behind_it_go_on(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let (many, id) = (unique("rows"), unique("long"));
    contribute(cluster, &[contribution(&many, "alice", &model, &rows(0..8_000))]);
    receipt(cluster, &many);
    let long = cluster.lines(&["train", &model, "--request-id", &id, "--param", "iterations=20000"]).remove(0);
    let run_id = text(&long, "/run_id");
    eventually("the run learns", || {
        let runs = cluster.watch("training.runs");
        let found = runs.iter().any(|r| r["key"] == *run_id && r["value"]["status"] == "running");
        if found { Ok(()) } else { Err(format!("{} states", runs.len())) }
    });
    let behind = unique("behind");
    let queued = cluster.lines(&["train", &model, "--request-id", &behind]).remove(0);
    let queued = cluster.lines(&["train", "cancel", text(&queued, "/run_id"), "--wait"]).remove(0);
    assert_eq!((text(&queued, "/status"), text(&queued, "/reason")), ("cancelled", "CANCELLED"), "{queued}");
    // From any client, as plain JSON.
    let producer = Producer::new(&cluster.broker, &[]);
    let value = json!({"cancel": run_id}).to_string();
    let record = Send { value: Some(value.as_bytes()), ..Send::default() };
    producer.send(&cluster.topic("training.requests"), &record).expect("the queue has room");
    assert!(producer.settle().iter().all(Result::is_ok));
    let told = cluster.run(&["train", &model, "--request-id", &id, "--wait"]);
    assert!(told.code == Some(1) && told.err.contains("was cancelled"), "{told:?}");
    // The learner is free again, and what is over stays as it is.
    let last = unique("last");
    let arguments = ["train", &model, "--request-id", &last, "--param", "iterations=3", "--wait"];
    let run = cluster.lines(&arguments).remove(0);
    assert_eq!(text(&run, "/status"), "finished", "{run}");
    let same = cluster.lines(&["train", "cancel", "--request-id", &last, "--wait"]).remove(0);
    assert_eq!((text(&same, "/status"), &same["artefact"]), ("finished", &run["artefact"]));
    let versions = &cluster.lines(&["model", "show", &model])[0]["versions"];
    assert_eq!(versions.as_array().map(Vec::len), Some(1), "{versions}");
}

#[test]
fn two_workers_one_of_which_dies_find_the_winner_that_one_finds_and_make_its_bytes() {
    let topology = "version: 1\nextends: builtin\ntopics: [{name: training.trials, partitions: 4}]\n".to_owned();
    let settings = Settings { topology: Some(topology), more_workers: 1, ..Settings::default() };
    let mut cluster = Cluster::start(Kind::Embedded, &settings).expect("the embedded broker");
    let (model, _) = shop(&cluster);
    filled(&cluster, &model, 2);
    let (id, search) = (unique("request"), search(9, 600));
    cluster.lines(&["train", &model, "--request-id", &id, "--search", &search, "--param", "min_rows=5"]);
    eventually("the first trial is in", || {
        let jobs = cluster.watch("training.jobs");
        if jobs.iter().any(|j| !j["value"]["trial"].is_null()) { Ok(()) } else { Err(format!("{} jobs", jobs.len())) }
    });
    cluster.kill_another();
    cluster.start_another_anew();
    let two = searched(&cluster, &model, &id, &search, &[]);
    assert_eq!(text(&two, "/status"), "finished", "{two}");
    cluster.kill_another();
    let digest = text(&two, "/dataset/digest");
    let one = searched(&cluster, &model, &unique("request"), &search, &["--as-of", digest]);
    assert_eq!((&one["trial"], &one["params"], &one["metrics"]), (&two["trial"], &two["params"], &two["metrics"]));
    assert_eq!((&one["artefact"], &one["recipe_digest"]), (&two["artefact"], &two["recipe_digest"]));
    assert_eq!(artefact(&cluster, &one), artefact(&cluster, &two));
    let trials = "trial, rung, loss, params, iterations";
    let of = |run: &Value| {
        let id = text(run, "/run_id").to_owned();
        cluster.sql(&format!("select {trials} from trials where run_id = '{id}' order by rung, trial"))
    };
    let (first, second) = (of(&one), of(&two));
    assert_eq!((first.len(), &first), (12, &second));
}

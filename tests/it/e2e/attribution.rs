//! Attributions as people and other programs meet them: an accepted improvement is credited to those whose rows brought it, once, in
//! integers that add up, and a worker that dies over it changes no byte.

use super::evaluation::{base, contributed_by, copied, seal, text, train};
use crate::on_every_cluster;
use crate::support::broker::Kind;
use crate::support::cluster::{Cluster, Settings};
use crate::support::late::{SECTION, rows, spec};
use crate::support::{eventually, unique};
use serde_json::{Value, json};

on_every_cluster! {
    an_accepted_improvement_is_credited_to_those_whose_rows_brought_it,
}

/// A contract with a small game.
fn contract(model: &str) -> String {
    spec(model, &format!("{SECTION}attribution: {{players: 3, trainings: 8, seeds: 2, rows: 300}}\n"))
}

/// A baseline of mislabelled rows, and two contributors of whom one knows better.
fn prepared(cluster: &Cluster, model: &str, first: i64, id: &str) {
    cluster.apply(model, &contract(model));
    contributed_by(cluster, model, "platform", &rows(first..first + 80, true));
    let baseline = train(cluster, model, id, &[]);
    assert_eq!(text(&baseline, "/version"), "1.0.0", "{baseline}");
    seal(cluster, model, &rows(first + 1_000..first + 1_300, false));
    contributed_by(cluster, model, "knows", &rows(first + 2_000..first + 2_300, false));
    contributed_by(cluster, model, "errs", &rows(first + 3_000..first + 3_060, true));
}

/// The evaluation of a candidate that learned from all of them.
fn improved(cluster: &Cluster, model: &str, id: &str) -> Value {
    let run = train(cluster, model, id, &["--benchmark", "holdout"]);
    assert_eq!(text(&run, "/evaluation/status"), "accepted", "{run}");
    run["evaluation"].clone()
}

fn attribution(cluster: &Cluster, evaluation: &Value) -> Value {
    cluster.lines(&["attribution", text(evaluation, "/evaluation_id"), "--wait"]).remove(0)
}

fn an_accepted_improvement_is_credited_to_those_whose_rows_brought_it(cluster: &Cluster) {
    let (model, first, second) = (unique("flights"), unique("first"), unique("second"));
    prepared(cluster, &model, base(), &first);
    let evaluation = improved(cluster, &model, &second);
    let told = attribution(cluster, &evaluation);
    assert_eq!((text(&told, "/status"), text(&told, "/method")), ("attributed", "enumerated"), "{told}");
    let players = told["players"].as_array().expect("players");
    let names: Vec<&str> = players.iter().map(|player| text(player, "/members/0/contributor")).collect();
    assert_eq!(names, ["errs", "knows"], "the platform's rows are the baseline's: {told}");
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok()).expect("a decimal");
    assert!(number(&players[1]["effect"]) > 0.1 && number(&players[1]["effect"]) > number(&players[0]["effect"]));
    let sum: f64 = players.iter().map(|player| number(&player["value"])).sum();
    assert!((sum / number(&told["denominator"]) - number(&told["delta_game"])).abs() < 1e-6, "{told}");
    assert_eq!((&told["payable"], &told["shares"]), (&json!(false), &json!([])), "{told}");
    let reasons = told["reasons"].as_array().expect("reasons");
    assert!(reasons.contains(&json!("SEEDS")), "two seeds pay nobody: {told}");
    assert_eq!((&told["evaluation_id"], &told["candidate"]), (&evaluation["evaluation_id"], &evaluation["candidate"]));

    // Once on the topic, in the tables, and in the log as a statement that names nobody.
    let id = text(&evaluation, "/evaluation_id");
    let records: Vec<Value> = cluster.watch("attributions").into_iter().filter(|r| r["key"] == id).collect();
    assert_eq!(records.len(), 1, "{records:?}");
    let table = cluster.sql(&format!(
        "select contributor, contributor_rows, value, significant from attribution_shares where evaluation_id = '{id}' order by 1"
    ));
    assert_eq!(
        (table.len(), &table[1]["contributor"], &table[1]["contributor_rows"]),
        (2, &json!("knows"), &json!(300))
    );
    let subject = format!("{model} attribution {id}");
    let entry = eventually("the statement of the attribution", || {
        let entries = cluster.lines(&["attestation", "list"]);
        entries.iter().find(|entry| entry["subject"] == subject.as_str()).cloned().ok_or(format!("{entries:?}"))
    });
    let shown = cluster.lines(&["attestation", "show", text(&entry, "/leaf")]).remove(0);
    let predicate = &shown["statement"]["predicate"];
    assert_eq!((&predicate["gameDigest"], &predicate["evaluationId"]), (&told["game"], &told["evaluation_id"]));
    assert!(!shown.to_string().contains("\"knows\"") && predicate["game"]["players"][1]["pseudonym"].is_string());
    verified(cluster, &entry, &told);
    // An evaluation that nobody asked for is told to be unknown.
    let none = cluster.run(&["attribution", "0000"]);
    assert!(none.code == Some(1) && none.err.contains("no attribution of evaluation 0000"), "{none:?}");
}

/// A stranger checks it offline: with both models it is bound, and the numbers add up.
fn verified(cluster: &Cluster, entry: &Value, told: &Value) {
    let folder = cluster.scratch().join(unique("stranger"));
    std::fs::create_dir_all(folder.join("models")).expect("a folder");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    for digest in [text(told, "/baseline"), text(told, "/candidate")] {
        let blob = cluster.data().join("store/blobs/sha256").join(&digest[..2]).join(digest);
        std::fs::copy(blob, folder.join("models").join(digest)).expect("a model");
    }
    cluster.lines(&["attestation", "trust", "-o", &file("trust.json")]);
    cluster.lines(&["attestation", "export", text(entry, "/leaf"), "-o", &file("bundle.json")]);
    let (bundle, trust, models) = (file("bundle.json"), file("trust.json"), file("models"));
    let report = cluster
        .run(&["verify", &bundle, "--trust", &trust, "--inputs", &models, "--format", "json"])
        .lines(0)
        .remove(0);
    let checks = report["checks"].as_array().expect("checks");
    let passed = checks.iter().any(|check| check["check"] == "values and shares" && check["outcome"] == "passed");
    assert!(passed, "{report}");
}

#[test]
fn a_worker_that_dies_over_a_game_changes_no_figure_of_it() {
    let whole = Cluster::start(Kind::Embedded, &Settings::default()).expect("the embedded broker");
    let (model, base, first, second) = (unique("flights"), base(), unique("first"), unique("second"));
    prepared(&whole, &model, base, &first);
    let expected = attribution(&whole, &improved(&whole, &model, &second));
    let keys = whole.scratch().join("shared-keys");
    copied(&whole.data().join("keys"), &keys);
    let environment = vec![
        ("HOKUSAI_KEYS".to_owned(), keys.to_string_lossy().into_owned()),
        ("HOKUSAI_FAILPOINT".to_owned(), "attribution.playing:1".to_owned()),
    ];
    let settings = Settings { environment, ..Settings::default() };
    let mut dying = Cluster::start(Kind::Embedded, &settings).expect("the embedded broker");
    prepared(&dying, &model, base, &first);
    dying.lines(&["train", &model, "--algorithm", "linear", "--request-id", &second, "--benchmark", "holdout"]);
    assert!(!dying.process.wait().success(), "it dies when the game begins");
    dying.forget("HOKUSAI_FAILPOINT");
    dying.start_again();
    let told = attribution(&dying, &improved(&dying, &model, &second));
    let figures = |told: &Value| {
        let mut told = told.as_object().expect("an object").clone();
        told.remove("statement").expect("its statement");
        told
    };
    assert_eq!(figures(&told), figures(&expected));
    // It names the evaluation's statement, which is of its own log: see `crash::improvement` for the same bytes from one log.
    for cluster in [&whole, &dying] {
        let of_it = |entry: &Value| entry["subject"].as_str().is_some_and(|subject| subject.contains(" attribution "));
        eventually("its one statement", || {
            let found: Vec<Value> = cluster.lines(&["attestation", "list"]).into_iter().filter(of_it).collect();
            if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
}

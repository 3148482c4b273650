//! The model registry as people and other programs meet it: register, promote, roll back, look; forged commands; kill -9; a fold that is gone.

use crate::support::broker::Kind;
use crate::support::client::{Isolation, Producer, Send, admin, admin_options, read, wait};
use crate::support::cluster::Cluster;
use crate::support::flow::shop;
use crate::support::hokusai::Running;
use crate::support::{eventually, unique};
use crate::{on_both_own_clusters, on_every_cluster};
use serde_json::Value;
use std::collections::BTreeMap;

on_every_cluster! {
    a_version_is_registered_promoted_taken_back_and_its_history_told,
    a_command_that_nobody_trusted_signed_is_audited_and_changes_nothing,
}

on_both_own_clusters! {
    kill_9_between_commands_loses_none_and_doubles_none,
    models_that_are_gone_come_back_byte_for_byte,
}

/// Registers an artefact; the line that tells of it.
fn register(cluster: &Cluster, model: &str, content: &str, more: &[&str]) -> Value {
    let path = cluster.scratch().join(unique("artefact"));
    std::fs::write(&path, content).expect("a file");
    let path = path.to_string_lossy().into_owned();
    let arguments: Vec<&str> =
        ["model", "register", model, "--artefact", &path].into_iter().chain(more.to_vec()).collect();
    cluster.lines(&arguments).remove(0)
}

fn promote(cluster: &Cluster, model: &str, version: &str) -> Value {
    let arguments =
        ["model", "promote", model, version, "--stage", "production", "--override", "no benchmark is sealed yet"];
    cluster.lines(&arguments).remove(0)
}

fn a_version_is_registered_promoted_taken_back_and_its_history_told(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let metrics = ["--metric", "auroc=0.79@1000", "--param", "trees=100"];
    let first = register(cluster, &model, &format!("{model} one"), &metrics);
    assert_eq!((&first["version"], &first["status"]), (&"1.0.0".into(), &"applied".into()), "{first}");
    let second =
        register(cluster, &model, &format!("{model} two"), &["--metric", "auroc=0.8@1000", "--param", "trees=200"]);
    assert_eq!(second["version"], "1.1.0");

    let refused = cluster.run(&["model", "promote", &model, "1.0.0", "--stage", "production"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.err.contains("NOT_EVALUATED") && refused.err.contains("help:"), "{refused:?}");
    assert_eq!(promote(cluster, &model, "1.0.0")["production"], "1.0.0");
    assert_eq!(promote(cluster, &model, "1.0.0")["status"], "unchanged");
    cluster.lines(&["model", "alias", &model, "candidate", "1.1.0"]);
    assert_eq!(promote(cluster, &model, "candidate")["production"], "1.1.0");
    let back = cluster.lines(&["model", "rollback", &model, "--reason", "a test"]).remove(0);
    assert_eq!(back["production"], "1.0.0", "{back}");
    let never = cluster.run(&["model", "rollback", &model, "1.1.0", "--stage", "staging"]);
    assert!(never.code == Some(4) && never.err.contains("NEVER_THERE"), "{never:?}");
    cluster.lines(&["model", "tag", &model, "owner", "team-a", "--of", "production"]);
    cluster.lines(&["model", "alias", &model, "candidate", "--remove"]);
    cluster.lines(&["model", "archive", &model, "1.1.0"]);

    let history = cluster.lines(&["model", "history", &model]);
    let told: Vec<(&str, bool)> =
        history.iter().map(|h| (h["action"].as_str().expect("a text"), h["allowed"] == true)).collect();
    let expected = [
        ("model.apply", true),
        ("model.register", true),
        ("model.register", true),
        ("model.promote", false),
        ("model.promote", true),
        ("model.promote", true),
        ("model.alias", true),
        ("model.promote", true),
        ("model.rollback", true),
        ("model.rollback", false),
        ("model.tag", true),
        ("model.alias", true),
        ("model.archive", true),
    ];
    assert_eq!(told, expected, "{history:#?}");

    let difference = cluster.lines(&["model", "diff", &model, "1.0.0", "1.1.0"]).remove(0);
    assert_eq!(difference["metrics"]["auroc"]["difference"], "+0.01", "{difference}");
    assert_eq!(difference["params"]["trees"]["b"], "200");
    let shown = cluster.lines(&["model", "show", &model]).remove(0);
    assert_eq!(shown["versions"][0]["tags"][0]["value"], "team-a", "{shown}");

    let query =
        format!("select version, stage, artefact_digest from model_versions where model = '{model}' order by version");
    let rows = cluster.sql(&query);
    let stages: Vec<&str> = rows.iter().map(|r| r["stage"].as_str().expect("a stage")).collect();
    assert_eq!(stages, ["production", "archived"], "{rows:?}");
    assert_eq!(cluster.count(&format!("select count(*) as n from models where model = '{model}'")), 1);
    let denied = format!(
        "select count(*) as n from audit where resource = 'model/{model}' and not allowed and revision is not null"
    );
    assert_eq!(cluster.count(&denied), 2);
    assert_eq!(transitions(cluster, &model).len(), 6, "register ×2, promote ×2, rollback, archive");
}

/// Statements about a model that are to be attested: what happened, and the bytes.
fn transitions(cluster: &Cluster, model: &str) -> Vec<(String, String)> {
    let requests = cluster.watch("attestations.requests");
    let statements = requests.iter().map(|r| {
        use base64::Engine as _;
        let bytes = r["value"]["statement"].as_str().expect("base64");
        let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).expect("base64");
        let text = String::from_utf8(bytes).expect("JSON");
        (serde_json::from_str::<Value>(&text).expect("JSON"), text)
    });
    let own = statements.filter(|(s, _)| s["predicate"]["model"] == model);
    own.map(|(s, text)| (s["predicate"]["action"].as_str().expect("an action").to_owned(), text)).collect()
}

fn a_command_that_nobody_trusted_signed_is_audited_and_changes_nothing(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    register(cluster, &model, &model, &[]);
    let stranger = cluster.scratch().join(format!("{}.pem", unique("stranger")));
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "ed25519", "-out"])
        .arg(&stranger)
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        return crate::support::skip("a stranger's key", "openssl is not here");
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&stranger, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    let stranger = stranger.to_string_lossy();
    let refused = cluster.run(&["model", "tag", &model, "k", "v", "--key", &stranger]);
    assert!(refused.code == Some(4) && refused.err.contains("UNKNOWN_KEY"), "{refused:?}");
    // The same bytes twice: the second time they are repeated, whoever sends them.
    cluster.lines(&["model", "tag", &model, "k", "v"]);
    let commands = read(&cluster.broker, &cluster.topic("model.commands"), Isolation::Committed);
    let mut own = commands.iter().filter(|r| r.key.as_deref() == Some(model.as_bytes()));
    let last = own.next_back().and_then(|r| r.value.clone()).expect("the command");
    let producer = Producer::new(&cluster.broker, &[]);
    producer
        .send(&cluster.topic("model.commands"), &Send { value: Some(&last), ..Send::default() })
        .expect("the queue has room");
    assert!(producer.settle().iter().all(Result::is_ok));
    let history = eventually("the decision on the repeated command", || {
        let history = cluster.lines(&["model", "history", &model]);
        let repeated = |h: &Value| h["reason"].as_str().is_some_and(|reason| reason.starts_with("REPEATED"));
        if history.iter().any(repeated) { Ok(history) } else { Err(format!("{history:?}")) }
    });
    let denied = history.iter().filter(|h| h["allowed"] == false).count();
    assert_eq!(denied, 2, "{history:?}");
    assert_eq!(cluster.lines(&["model", "show", &model])[0]["revision"], 3);
}

fn kill_9_between_commands_loses_none_and_doubles_none(mut cluster: Cluster) {
    let (model, _) = shop(&cluster);
    let mut sent = Vec::new();
    for round in 0..4 {
        let line = register(&cluster, &model, &format!("artefact {round}"), &["--no-wait"]);
        cluster.process.kill();
        cluster.start_again();
        let id = line["command_id"].clone();
        eventually("the decision", || {
            let history = cluster.lines(&["model", "history", &model]);
            if history.iter().any(|h| h["command_id"] == id) { Ok(()) } else { Err(format!("{history:?}")) }
        });
        sent.push(id);
    }
    let history = cluster.lines(&["model", "history", &model]);
    for id in &sent {
        let of: Vec<&Value> = history.iter().filter(|h| h["command_id"] == *id).collect();
        assert_eq!(of.len(), 1, "{history:?}");
        assert_eq!(of[0]["allowed"], true, "{of:?}");
    }
    let shown = cluster.lines(&["model", "show", &model]).remove(0);
    let versions = shown["versions"].as_array().expect("versions");
    let numbers: Vec<&str> = versions.iter().map(|v| v["version"].as_str().expect("a number")).collect();
    assert_eq!(numbers, ["1.0.0", "1.1.0", "1.2.0", "1.3.0"]);
    assert_eq!(transitions(&cluster, &model).len(), 4);
    assert_eq!(cluster.lines(&["model", "rebuild", "--check"])[0]["differing"], 0);
}

fn last_values(cluster: &Cluster) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let records = read(&cluster.broker, &cluster.topic("models"), Isolation::Committed);
    records.into_iter().filter_map(|r| Some((r.key?, r.value?))).collect()
}

fn models_that_are_gone_come_back_byte_for_byte(mut cluster: Cluster) {
    for round in 0..3 {
        let (model, _) = shop(&cluster);
        register(&cluster, &model, &format!("artefact {round}"), &["--param", "trees=100"]);
        promote(&cluster, &model, "1.0.0");
        register(&cluster, &model, &format!("artefact {round} better"), &[]);
    }
    let running = cluster.run(&["model", "rebuild"]);
    assert!(running.code == Some(1) && running.err.contains("running"), "{running:?}");
    cluster.process.terminate();
    let mut alone = (cluster.broker.kind == Kind::Embedded).then(|| {
        let broker = cluster.command(&["broker", "--listen", &cluster.broker.bootstrap, "--format", "json"]);
        Running::start(broker, &cluster.scratch().join("broker-alone.log"))
    });
    let before = last_values(&cluster);
    assert_eq!(before.len(), 3);
    let topic = cluster.topic("models");
    let deleted = admin(&cluster.broker);
    wait(deleted.delete_topics(&[topic.as_str()], &admin_options())).expect("an answer").remove(0).expect("deleted");
    eventually("the new topic", || {
        let applied = cluster.run(&["topology", "apply"]);
        if applied.code == Some(0) { Ok(()) } else { Err(format!("{applied:?}")) }
    });
    let missing = eventually("the comparison", || {
        let compared = cluster.run(&["model", "rebuild", "--check", "--format", "json"]);
        if compared.out.contains("differing") { Ok(compared) } else { Err(format!("{compared:?}")) }
    });
    assert_eq!(missing.code, Some(1), "{missing:?}");
    let rebuilt = eventually("the group's end", || {
        let rebuilt = cluster.run(&["model", "rebuild", "--format", "json"]);
        if rebuilt.code == Some(0) { Ok(rebuilt) } else { Err(format!("{rebuilt:?}")) }
    });
    assert_eq!(rebuilt.lines(0)[0]["differing"], 3);
    assert_eq!(last_values(&cluster), before);
    if let Some(alone) = &mut alone {
        alone.terminate();
    }
    // The table of a topic that is gone starts over, as `sql --fresh` says.
    std::fs::remove_dir_all(cluster.tables().join("model_revisions")).expect("the table's folder");
    cluster.start_again();
    assert_eq!(cluster.lines(&["model", "rebuild", "--check"])[0]["differing"], 0);
    let (model, _) = shop(&cluster);
    register(&cluster, &model, "after", &[]);
    assert_eq!(cluster.count("select count(*) as n from models"), 4);
}

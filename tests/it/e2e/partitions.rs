//! Topics that are altered from outside under the real stages: outsiders' topics may grow, keyed ones stop exactly the stages concerned.

use std::collections::BTreeSet;

use crate::on_both_own_clusters;
use crate::support::broker::Kind;
use crate::support::client::{Producer, Send, admin, admin_options, partitions, wait, watermarks};
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribute, contribution, reasons, rows, shop};
use crate::support::hokusai::Running;
use crate::support::{eventually, unique};
use rdkafka::admin::NewPartitions;
use serde_json::Value;

on_both_own_clusters! {
    contributions_may_grow_and_a_keyed_topic_that_grew_stops_the_stages_concerned_and_no_other,
    a_topic_recreated_under_running_stages_stops_those_that_use_it,
}

fn grow(cluster: &Cluster, topic: &str, to: usize) {
    let name = cluster.topic(topic);
    let grown = wait(admin(&cluster.broker).create_partitions([&NewPartitions::new(&name, to)], &admin_options()));
    grown.expect("an answer").remove(0).expect("more partitions");
    eventually("the new partitions", || match partitions(&cluster.broker, &name) {
        found if found == to => Ok(()),
        found => Err(format!("{found} partitions")),
    });
}

fn contribute_to(cluster: &Cluster, model: &str, partition: i32) -> String {
    let (id, first) = (unique("grown"), 1_000 * i64::from(partition));
    let value = contribution(&id, "alice", model, &rows(first..first + 20)).to_string();
    let producer = Producer::new(&cluster.broker, &[]);
    let send = Send { partition: Some(partition), value: Some(value.as_bytes()), ..Send::default() };
    producer.send(&cluster.topic("contributions"), &send).expect("the queue has room");
    assert!(producer.settle().iter().all(Result::is_ok), "the contribution is on the topic");
    id
}

/// Stages that are stopped with this outcome, as /health tells it.
fn stopped(cluster: &Cluster, outcome: &str) -> BTreeSet<String> {
    let (_, text) = cluster.process.get("/health");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let problems = report["problems"].as_array().expect("problems").iter().map(|p| p.as_str().expect("text"));
    let named = problems.filter_map(|p| p.split_once(&format!(": {outcome}: ")).map(|(stage, rest)| (stage, rest, p)));
    named
        .map(|(stage, rest, problem)| {
            assert!(problem.contains("help: "), "a way out: {problem}");
            format!("{stage}: {}", rest.split(' ').next().expect("a topic"))
        })
        .collect()
}

fn until_stopped(cluster: &Cluster, outcome: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&s| s.to_owned()).collect();
    eventually("the named stops", || {
        let found = stopped(cluster, outcome);
        if found.is_superset(&expected) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert_eq!(stopped(cluster, outcome), expected, "these and no others");
    let (status, health) = cluster.process.get("/health");
    assert_eq!(status, 503, "{health}");
}

fn ends(cluster: &Cluster, topic: &str) -> Vec<i64> {
    let name = cluster.topic(topic);
    let count = i32::try_from(partitions(&cluster.broker, &name)).expect("few");
    (0..count).map(|partition| watermarks(&cluster.broker, &name, partition).1).collect()
}

fn contributions_may_grow_and_a_keyed_topic_that_grew_stops_the_stages_concerned_and_no_other(mut cluster: Cluster) {
    let (model, _) = shop(&cluster);
    let mut receipts = Receipts::follow(&cluster);
    grow(&cluster, "contributions", 4);
    let ids: Vec<String> = (0..4).map(|partition| contribute_to(&cluster, &model, partition)).collect();
    for id in &ids {
        assert_eq!(account(&receipts.of(id)), ("admitted".into(), 20, 20, reasons([])));
    }
    assert_eq!(cluster.count("select count(*) as n from rows"), 80);
    assert_eq!(
        cluster.count("select count(*) as n from contributions"),
        4,
        "the warehouse reads the new partitions, too"
    );
    assert_eq!(cluster.process.get("/health").0, 200);

    grow(&cluster, "receipts", 2);
    grow(&cluster, "hokusai.changelog.registry", 2);
    let first = ["receipts: receipts", "registry: hokusai.changelog.registry"];
    until_stopped(&cluster, "PARTITIONS_CHANGED", &first);
    contribute(&cluster, &[contribution(&unique("on"), "alice", &model, &rows(9_000..9_020))]);
    eventually("intake, dedup and the warehouse go on", || {
        match cluster.lines(&["sql", "select count(*) as n from rows"])[0]["n"].as_i64() {
            Some(100) => Ok(()),
            other => Err(format!("{other:?} rows")),
        }
    });

    grow(&cluster, "contributions.screened", 3);
    let all = ["dedup: contributions.screened", "intake: contributions.screened", first[0], first[1]];
    until_stopped(&cluster, "PARTITIONS_CHANGED", &all);
    let doctor = cluster.run(&["doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    for topic in ["receipts", "hokusai.changelog.registry", "contributions.screened"] {
        let line = |l: &&str| l.contains("WRONG") && l.contains(&cluster.topic(topic)) && l.contains("partitions");
        assert!(doctor.out.lines().any(|l| line(&l)), "{topic} in\n{}", doctor.out);
    }
    assert!(doctor.out.contains("--prefix"), "and the way out: {}", doctor.out);
    let log = cluster.process.log();
    for stop in &all {
        let (stage, topic) = stop.split_once(": ").expect("a stage and a topic");
        let line = |l: &&str| {
            l.contains("PARTITIONS_CHANGED") && l.contains(&format!("stage stopped: PARTITIONS_CHANGED: {topic} "))
        };
        assert!(log.lines().any(|l| line(&l) && l.contains(stage)), "{stop} in the log");
    }
    nothing_more_is_processed(&mut cluster, &model);
    for (id, all) in &receipts.seen {
        assert_eq!(all.len(), 1, "{id}: {all:?}");
    }
}

/// Also not by processes that start on what was altered.
fn nothing_more_is_processed(cluster: &mut Cluster, model: &str) {
    const WRITTEN: [&str; 5] = [
        "contributions.screened",
        "contributions.manifests",
        "contributions.accepted",
        "contributions.verdicts",
        "receipts",
    ];
    let before = WRITTEN.map(|topic| ends(cluster, topic));
    contribute(cluster, &[contribution(&unique("late"), "alice", model, &rows(9_100..9_120))]);
    assert!(cluster.process.terminate().code().is_some());
    let mut alone = (cluster.broker.kind == Kind::Embedded).then(|| {
        let broker = cluster.command(&["broker", "--listen", &cluster.broker.bootstrap, "--format", "json"]);
        Running::start(broker, &cluster.scratch().join("broker-alone.log"))
    });
    grow(cluster, "contributions.manifests", 5);
    alone.as_mut().map(Running::terminate);
    let mut again = cluster.launch_again();
    let log = eventually("the same stops at the start", || {
        let log = again.log();
        let named = |stage: &str, topic: &str| {
            let text = format!("stage stopped: PARTITIONS_CHANGED: {topic} ");
            log.lines().any(|line| line.contains(&text) && line.contains(stage))
        };
        let expected = [
            ("intake", "contributions.screened"),
            ("dedup", "contributions.screened"),
            ("receipts", "contributions.manifests"),
            ("registry", "hokusai.changelog.registry"),
        ];
        match (expected.iter().find(|(stage, topic)| !named(stage, topic)), again.ended()) {
            (None, None) => Ok(log),
            (Some(missing), None) => Err(format!("{missing:?}")),
            (_, Some(status)) => panic!("ended with {status}:\n{log}"),
        }
    });
    assert_eq!(log.matches("stage stopped:").count(), 4, "keying goes on: {log}");
    assert!(!again.is_ready());
    let grown = WRITTEN.map(|topic| ends(cluster, topic).into_iter().filter(|end| *end > 0).collect::<Vec<_>>());
    let before = before.map(|ends| ends.into_iter().filter(|end| *end > 0).collect::<Vec<_>>());
    assert_eq!(grown, before, "not one record more in {WRITTEN:?}");
    assert!(again.terminate().code().is_some());
}

fn a_topic_recreated_under_running_stages_stops_those_that_use_it(cluster: Cluster) {
    let (model, _) = shop(&cluster);
    let id = unique("before");
    contribute(&cluster, &[contribution(&id, "alice", &model, &rows(0..50))]);
    let receipt = Receipts::follow(&cluster).of(&id);
    super::recovery::recreate(&cluster, &cluster.topic("contributions.verdicts"));
    let users = ["dedup: contributions.verdicts", "receipts: contributions.verdicts"];
    until_stopped(&cluster, "TOPIC_RECREATED", &users);
    assert_eq!(account(&receipt), ("admitted".into(), 50, 50, reasons([])));
    // Those that do not use it go on.
    let late = unique("late");
    contribute(&cluster, &[contribution(&late, "alice", &model, &rows(100..150))]);
    eventually("its manifest", || {
        let manifests = cluster.watch("contributions.manifests");
        if manifests.iter().any(|m| m.to_string().contains(&late)) { Ok(()) } else { Err("none yet".into()) }
    });
    assert_eq!(ends(&cluster, "contributions.verdicts"), [0, 0], "nothing was written to the new topic");
}

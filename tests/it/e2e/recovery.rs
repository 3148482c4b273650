//! Group offsets lost, a topic recreated, a chunk that never comes: each has a named outcome, and none of them a silent one.

use crate::on_both_own_clusters;
use crate::support::broker::Kind;
use crate::support::client::{admin, admin_options, config, wait};
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{Receipts, account, contribute, contribution, reasons, rows, shop};
use crate::support::{DEADLINE, eventually, unique};
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use serde_json::json;

on_both_own_clusters! {
    lost_group_offsets_bring_no_duplicates,
    a_recreated_topic_is_a_named_stop,
}

fn lost_group_offsets_bring_no_duplicates(mut cluster: Cluster) {
    let (model, _) = shop(&cluster);
    let ids: Vec<String> = (0..6).map(|_| unique("before")).collect();
    let mut receipts = Receipts::follow(&cluster);
    for (n, id) in (0..).zip(&ids) {
        contribute(&cluster, &[contribution(id, "alice", &model, &rows(n * 50..n * 50 + 50))]);
        receipts.of(id);
    }
    let rows_before = cluster.count("select count(*) as n from rows");
    match cluster.broker.kind {
        Kind::Embedded => {
            // Without its stages the broker is needed to delete the groups.
            cluster.process.terminate();
            let broker = cluster.command(&["broker", "--listen", &cluster.broker.bootstrap, "--format", "json"]);
            let mut broker =
                crate::support::hokusai::Running::start(broker, &cluster.scratch().join("broker-alone.log"));
            delete_groups(&cluster);
            broker.terminate();
        }
        Kind::ApacheKafka => {
            cluster.process.terminate();
            delete_groups(&cluster);
        }
    }
    cluster.start_again();
    let after = unique("after");
    contribute(&cluster, &[contribution(&after, "alice", &model, &rows(1_000..1_050))]);
    assert_eq!(account(&receipts.of(&after)), ("admitted".into(), 50, 50, reasons([])));
    assert_eq!(cluster.count("select count(*) as n from rows"), rows_before + 50);
    assert_eq!(cluster.count("select count(*) as n from receipts"), 7);
    for (id, all) in &receipts.seen {
        assert_eq!(all.len(), 1, "{id} has one receipt: {all:?}");
        assert_eq!(account(&all[0]).2, 50, "{id} keeps its rows");
    }
}

fn delete_groups(cluster: &Cluster) {
    let client: BaseConsumer = config(&cluster.broker, &[]).create().expect("a client");
    let groups = client.fetch_group_list(None, DEADLINE).expect("groups");
    let names: Vec<String> = groups
        .groups()
        .iter()
        .map(|g| g.name().to_owned())
        .filter(|g| g.starts_with(&cluster.prefix) && !g.starts_with("receipts-reader"))
        .collect();
    let own: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(own.len() >= 4, "the stages are groups: {own:?}");
    eventually("the groups' end", || {
        let results = wait(admin(&cluster.broker).delete_groups(&own, &admin_options())).map_err(|e| e.to_string())?;
        let busy: Vec<_> = results
            .into_iter()
            .filter_map(Result::err)
            .filter(|(_, code)| *code == RDKafkaErrorCode::NonEmptyGroup)
            .collect();
        if busy.is_empty() { Ok(()) } else { Err(format!("{busy:?}")) }
    });
}

fn a_recreated_topic_is_a_named_stop(mut cluster: Cluster) {
    let (model, _) = shop(&cluster);
    let id = unique("before");
    contribute(&cluster, &[contribution(&id, "alice", &model, &rows(0..50))]);
    Receipts::follow(&cluster).of(&id);
    let topic = cluster.topic("contributions.screened");
    cluster.process.terminate();
    let mut alone = (cluster.broker.kind == Kind::Embedded).then(|| {
        let broker = cluster.command(&["broker", "--listen", &cluster.broker.bootstrap, "--format", "json"]);
        crate::support::hokusai::Running::start(broker, &cluster.scratch().join("broker-alone.log"))
    });
    recreate(&cluster, &topic);
    if let Some(alone) = &mut alone {
        alone.terminate();
    }
    let mut again = cluster.launch_again();
    let log = eventually("the named stop", || {
        let log = again.log();
        let is_named = |line: &str| line.contains("contributions.screened") && line.contains("TOPIC_RECREATED");
        match (log.lines().any(is_named), again.ended()) {
            (true, _) => Ok(log),
            (false, None) => Err("no such line yet".to_owned()),
            (false, Some(status)) => panic!("ended with {status} without naming it:\n{log}"),
        }
    });
    assert!(log.contains("help:"), "names a way out: {log}");
    assert!(!again.is_ready(), "and is not ready: {}", again.log());
    assert!(again.terminate().code().is_some(), "a signal ends it in order: {}", again.log());
}

pub(super) fn recreate(cluster: &Cluster, topic: &str) {
    let partitions = crate::support::client::partitions(&cluster.broker, topic);
    let admin = admin(&cluster.broker);
    wait(admin.delete_topics(&[topic], &admin_options())).expect("an answer").remove(0).expect("deleted");
    let new = NewTopic::new(topic, i32::try_from(partitions).expect("few"), TopicReplication::Fixed(1));
    eventually("the new topic", || {
        match wait(admin.create_topics([&new], &admin_options())).expect("an answer").remove(0) {
            Ok(_) => Ok(()),
            Err((_, code)) => Err(code.to_string()),
        }
    });
}

#[test]
fn a_missing_chunk_closes_the_contribution_as_incomplete_embedded() {
    missing_chunk(Kind::Embedded);
}

#[test]
fn a_missing_chunk_closes_the_contribution_as_incomplete_apache_kafka() {
    missing_chunk(Kind::ApacheKafka);
}

fn missing_chunk(kind: Kind) {
    let environment = [("HOKUSAI_CONTRIBUTION_TIMEOUT", "2"), ("HOKUSAI_IDLE_MARK_MS", "300")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let settings = Settings { environment, ..Settings::default() };
    let Some(cluster) = Cluster::start(kind, &settings) else { return };
    let (model, _) = shop(&cluster);
    let (cut, later) = (unique("missing-chunk"), unique("later"));
    let mut value = contribution(&cut, "alice", &model, &rows(0..10));
    value["chunk"] = json!(0);
    value["chunks"] = json!(2);
    contribute(&cluster, &[value]);
    let mut receipts = Receipts::follow(&cluster);
    assert_eq!(account(&receipts.of(&cut)), ("incomplete".into(), 10, 0, reasons([("NOT_ADMITTED", 10)])));
    // What it held is free again: the next one with these rows owns them.
    eventually("the release", || {
        let id = unique("newcomer");
        contribute(&cluster, &[contribution(&id, "bob", &model, &rows(0..10))]);
        match account(&receipts.of(&id)).2 {
            10 => Ok(()),
            other => Err(format!("{other} accepted")),
        }
    });
    contribute(&cluster, &[contribution(&later, "alice", &model, &rows(100..110))]);
    assert_eq!(account(&receipts.of(&later)), ("admitted".into(), 10, 10, reasons([])));
}

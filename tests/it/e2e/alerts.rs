//! Plaintext that comes near its hard limit is told of: once per backlog, on `alerts`, as a metric and by `hokusai doctor`.

use crate::support::broker::Kind;
use crate::support::client::{admin, admin_options, wait};
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{Receipts, contribute, contribution, rows, shop};
use crate::support::hokusai::Running;
use crate::support::raw::{Raw, text};
use crate::support::{eventually, root, unique};
use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

#[test]
fn a_backlog_at_half_of_its_limit_is_told_of_once_embedded() {
    backlog(Kind::Embedded);
}

#[test]
fn a_backlog_at_half_of_its_limit_is_told_of_once_apache_kafka() {
    backlog(Kind::ApacheKafka);
}

/// The broker must not delete what the test looks at.
fn keep(cluster: &Cluster, topic: &str) {
    let setting = AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("-1")))
        .with_config_operation(0);
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(&cluster.topic(topic)))
        .with_configs(vec![setting]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(Raw::connect(&cluster.broker).call(1, &request).responses[0].error_code, 0);
}

fn alerts(cluster: &Cluster) -> Vec<Value> {
    cluster.watch("alerts")
}

fn until_alerts(cluster: &Cluster, count: usize) -> Vec<Value> {
    eventually("the alerts", || {
        let alerts = alerts(cluster);
        if alerts.len() >= count { Ok(alerts) } else { Err(format!("{alerts:?}")) }
    })
}

/// Age of the oldest record of any partition, as the metric has it.
fn oldest(process: &Running) -> f64 {
    let (_, metrics) = process.get("/metrics");
    let lines = metrics.lines().filter(|line| line.starts_with("hokusai_oldest_record_seconds{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, f64::max)
}

/// Several looks have passed since then.
fn until_older(process: &Running, seconds: f64) {
    eventually("later looks", || match oldest(process) {
        age if age >= seconds => Ok(()),
        age => Err(format!("{age} s")),
    });
}

/// A worker that runs none of the stages that read contributions.
fn another(cluster: &Cluster) -> Running {
    let folder = cluster.scratch().join("another");
    let mut worker = cluster.command(&["worker", "--stages", "keying", "--http", "127.0.0.1:0", "--format", "json"]);
    worker
        .env("HOKUSAI_DATA", &folder)
        .env("HOKUSAI_INSTANCE", "another")
        .env("HOKUSAI_KEYS", cluster.data().join("keys"))
        .env("HOKUSAI_STORE", cluster.data().join("store"));
    Running::start(worker, &cluster.scratch().join("another.log"))
}

fn retention(cluster: &Cluster) -> Value {
    let lines = cluster.run(&["doctor", "--format", "json"]).out;
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.into_iter().find(|line| line["check"] == "retention").expect("a line on retention")
}

fn backlog(kind: Kind) {
    let text = std::fs::read_to_string(root().join("topology/hokusai.yaml")).expect("the topology");
    let short = text.replacen("retain: 7d", "retain: 4s", 1);
    assert_ne!(short, text);
    // Nothing is purged within the grace of an hour: so every record becomes a backlog.
    let settings = Settings { topology: Some(short), ..Settings::default() };
    let Some(cluster) = Cluster::start(kind, &settings) else { return };
    keep(&cluster, "contributions");
    let (model, _) = shop(&cluster);
    assert_eq!(retention(&cluster)["detail"], "no record waits to be purged");
    let send = |cluster: &Cluster, first: i64| {
        let id = unique("waits");
        contribute(cluster, &[contribution(&id, "alice", &model, &rows(first..first + 5))]);
        Receipts::follow(cluster).of(&id);
    };
    send(&cluster, 0);
    let told = until_alerts(&cluster, 1);
    let told = told[0].get("value").unwrap_or(&told[0]).clone();
    assert_eq!((&told["kind"], &told["severity"]), (&"lag".into(), &"warning".into()), "{told}");
    assert!(told["subject"].as_str().is_some_and(|s| s.starts_with("contributions-")), "{told}");
    let doctor = retention(&cluster);
    assert_eq!(doctor["status"], "warning", "{doctor}");
    until_older(&cluster.process, 4.0);
    assert_eq!(alerts(&cluster).len(), 1, "once");
    assert!(cluster.process.log().contains("deleted unread; help:"), "and in the log");
    // Nor does a process tell it again that was not there at the time.
    let mut later = another(&cluster);
    until_older(&later, oldest(&cluster.process).max(4.0) + 1.5);
    assert_eq!(alerts(&cluster).len(), 1, "once, whoever looks");
    // The backlog goes, and another one comes.
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset(&cluster.topic("contributions"), partition, Offset::End).expect("a place");
    }
    wait(admin(&cluster.broker).delete_records(&list, &admin_options())).expect("deleted");
    eventually("nothing waits", || match oldest(&cluster.process) {
        0.0 => Ok(()),
        age => Err(format!("{age} s")),
    });
    send(&cluster, 100);
    until_alerts(&cluster, 2);
    until_older(&cluster.process, 4.0);
    until_older(&later, 4.0);
    assert_eq!(alerts(&cluster).len(), 2, "one per backlog");
    later.terminate();
}

//! No plaintext after intake: not in a later topic, a table, a log line or a file of ours.

use crate::on_both_own_clusters;
use crate::support::client::{Isolation, config, read};
use crate::support::cluster::Cluster;
use crate::support::flow::{account, contribute, contribution, reasons, receipt, row, shop};
use crate::support::{DEADLINE, unique};
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::path::Path;

on_both_own_clusters! {
    personal_data_does_not_leave_intake,
}

const EMAIL: &str = "zaphod.marker@example.com";
const PHONE: &str = "+1 212-555-0142";

fn personal_data_does_not_leave_intake(mut cluster: Cluster) {
    let (model, _) = shop(&cluster);
    let id = unique("private");
    let mut values: Vec<_> = (0..20).map(row).collect();
    for value in &mut values {
        value["email"] = EMAIL.into();
        value["note"] = format!("write to {EMAIL} or call {PHONE} soon").into();
    }
    let mut refused = row(99);
    refused["plan"] = EMAIL.into();
    values.push(refused);
    contribute(&cluster, &[contribution(&id, "alice", &model, &values)]);
    let receipt = receipt(&cluster, &id);
    assert_eq!(account(&receipt), ("admitted".into(), 21, 20, reasons([("ENUM_UNKNOWN", 1)])));
    let kept = cluster.sql(&format!("select * from rows where contribution_id = '{id}'"));
    assert_eq!(kept.len(), 20);
    let text = serde_json::to_string(&kept).expect("JSON");
    assert!(text.contains("email_address:"), "a token stands in its place: {}", kept[0]);
    assert_hidden("the table rows", text.as_bytes());
    for table in ["contributions", "refusals", "receipts", "dead_letters", "audit"] {
        assert_hidden(
            table,
            serde_json::to_string(&cluster.sql(&format!("select * from {table}"))).expect("JSON").as_bytes(),
        );
    }
    let client: BaseConsumer = config(&cluster.broker, &[]).create().expect("a client");
    let metadata = client.fetch_metadata(None, DEADLINE).expect("metadata");
    for topic in metadata.topics().iter().map(|t| t.name()) {
        if topic.starts_with("__") || !topic.starts_with(&cluster.prefix) || topic == cluster.topic("contributions") {
            continue;
        }
        for record in read(&cluster.broker, topic, Isolation::Uncommitted) {
            assert_hidden(topic, record.value.as_deref().unwrap_or_default());
            assert_hidden(topic, record.key.as_deref().unwrap_or_default());
        }
    }
    cluster.process.terminate();
    assert_hidden("the log", cluster.process.log().as_bytes());
    scan(&cluster.data());
}

fn scan(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            // The broker holds the raw topic, which is plaintext until it is purged.
            if path.file_name().is_some_and(|name| name != "broker") {
                scan(&path);
            }
        } else if let Ok(bytes) = std::fs::read(&path) {
            assert_hidden(&path.to_string_lossy(), &bytes);
        }
    }
}

fn assert_hidden(place: &str, bytes: &[u8]) {
    for secret in [EMAIL, "zaphod", PHONE, "2125550142", "555-0142"] {
        let found = bytes.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret.as_bytes()));
        assert!(!found, "{secret} stands in {place}");
    }
}

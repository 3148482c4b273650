//! Protected from the first byte: what `submit` sends can be read by intake alone, and counts as if it had been sent plain.

use super::formats::document;
use crate::on_every_cluster;
use crate::support::client::{Isolation, read};
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribute, decode, reasons, row, rows, schema, shop};
use crate::support::unique;
use base64::Engine as _;
use serde_json::{Value, json};

on_every_cluster! {
    submitted_payloads_are_sealed_and_give_the_tokens_and_hashes_of_plain_ones,
    sealing_the_same_content_anew_is_a_replay_and_so_is_sending_it_plain,
    a_sealed_payload_in_another_contributions_name_is_refused,
    a_model_that_does_not_exist_gets_not_one_byte,
    whoever_looks_at_plaintext_is_audited,
}

fn submit(cluster: &Cluster, path: &std::path::Path, model: &str, more: &[&str]) -> Value {
    let path = path.to_string_lossy();
    let arguments = [&["submit", &path, "--model", model, "--contributor", "alice", "--wait"], more].concat();
    cluster.lines(&arguments)[0].clone()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The values on `contributions` that name a model, decoded with the published schema.
fn sent(cluster: &Cluster, model: &str) -> Vec<(Vec<u8>, Value)> {
    let schema = schema("contribution");
    let records = read(&cluster.broker, &cluster.topic("contributions"), Isolation::Committed);
    let of_model = records.into_iter().filter_map(|r| r.value).filter(|value| holds(value, model));
    of_model.filter(|v| v.starts_with(&[0xC3, 1])).map(|v| (v.clone(), decode(&schema, &v))).collect()
}

/// What the tables hold of a model's rows, without what names the model.
fn kept(cluster: &Cluster, model: &str) -> Vec<Value> {
    cluster.sql(&format!("select \"order\", amount, email, note from rows where model = '{model}' order by \"order\""))
}

fn submitted_payloads_are_sealed_and_give_the_tokens_and_hashes_of_plain_ones(cluster: &Cluster) {
    let mut values = rows(0..60);
    values[3]["note"] = "call zaphod.sealed@example.com".into();
    let mut seen = Vec::new();
    for format in ["json", "csv", "parquet", "arrow", "avro"] {
        let path = cluster.scratch().join(format!("{}.{format}", unique("sealed")));
        std::fs::write(&path, document(format, &values)).expect("a file");
        let ((closed, _), (open, _)) = (shop(cluster), shop(cluster));
        let sealed = submit(cluster, &path, &closed, &[]);
        let plain = submit(cluster, &path, &open, &["--plain"]);
        assert_eq!(account(&sealed), ("admitted".into(), 60, 60, reasons([])), "{format}");
        for field in ["received", "accepted", "quality", "pii"] {
            assert_eq!(sealed[field], plain[field], "{format} {field}");
        }
        let (sealed, plain) = (sent(cluster, &closed), sent(cluster, &open));
        assert!(!sealed.is_empty() && sealed.iter().all(|(_, v)| v["sealed"] == "i1"), "{format}");
        assert!(sealed.iter().all(|(bytes, _)| !holds(bytes, "customer1@example.com")), "{format}");
        assert!(plain.iter().all(|(_, v)| v["sealed"].is_null()), "{format}");
        assert_eq!(kept(cluster, &closed), kept(cluster, &open), "{format}");
        seen.push(kept(cluster, &closed));
    }
    assert!(seen.iter().all(|rows| rows == &seen[0]), "whatever the format");
    assert!(seen[0][0]["email"].as_str().is_some_and(|email| email.starts_with("email_address:k1:")));
}

fn sealing_the_same_content_anew_is_a_replay_and_so_is_sending_it_plain(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let path = cluster.scratch().join(format!("{}.json", unique("again")));
    std::fs::write(&path, Value::Array(rows(0..30)).to_string()).expect("a file");
    let id = unique("replayed");
    // From another data folder each time: without its journal `submit` does not know that it sent anything.
    let folders = [(); 3].map(|()| cluster.scratch().join(unique("data")).to_string_lossy().into_owned());
    let name = |data| ["--contribution", id.as_str(), "--data", data];
    let first = submit(cluster, &path, &model, &name(&folders[0]));
    assert_eq!(first["status"], "admitted");
    assert_eq!(submit(cluster, &path, &model, &name(&folders[1])), first, "sealed with another ephemeral key");
    assert_eq!(submit(cluster, &path, &model, &[&name(&folders[2])[..], &["--plain"]].concat()), first);
    let sent = sent(cluster, &model);
    assert_eq!(sent.len(), 3);
    assert_ne!(sent[0].1["payload"], sent[1].1["payload"]);
    assert_eq!(cluster.count(&format!("select count(*) as n from rows where model = '{model}'")), 30);
}

fn a_sealed_payload_in_another_contributions_name_is_refused(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let path = cluster.scratch().join(format!("{}.json", unique("mine")));
    std::fs::write(&path, Value::Array(vec![row(1), row(2)]).to_string()).expect("a file");
    assert_eq!(submit(cluster, &path, &model, &[])["status"], "admitted");
    let payload: Vec<u8> = serde_json::from_value(sent(cluster, &model)[0].1["payload"].clone()).expect("bytes");
    let id = unique("stolen");
    let stolen = json!({
        "contribution_id": id, "contributor": "mallory", "model": model, "format": "json", "sealed": "i1",
        "payload": base64::engine::general_purpose::STANDARD.encode(payload),
    });
    contribute(cluster, &[stolen]);
    let receipt = Receipts::follow(cluster).of(&id);
    assert_eq!(account(&receipt), ("refused".into(), 1, 0, reasons([("UNSEAL_FAILED", 1)])));
    let why = cluster.sql(&format!("select expected, shape from refusals where contribution_id = '{id}'"));
    assert!(why[0]["expected"].as_str().is_some_and(|text| text.contains("for this contribution")), "{why:?}");
}

fn whoever_looks_at_plaintext_is_audited(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let id = unique("looked-at");
    let mut value = row(1);
    value["note"] = format!("{id} in plaintext").into();
    contribute(cluster, &[json!({"contribution_id": id, "contributor": "a", "model": model, "rows": [value]})]);
    let watch = ["watch", "contributions", "--from-beginning", "--until-end"];
    let shows = |lines: &[Value]| lines.iter().any(|line| line["value"]["rows"].to_string().contains(&id));
    assert!(!shows(&cluster.lines(&watch)));
    let looks = "select count(*) as n from audit where action = 'watch.plaintext' and resource = 'topic/contributions'";
    let before = cluster.count(looks);
    assert!(shows(&cluster.lines(&[&watch[..], &["--plaintext"]].concat())));
    assert!(cluster.count(looks) > before);
}

fn a_model_that_does_not_exist_gets_not_one_byte(cluster: &Cluster) {
    let model = unique("nowhere");
    let path = cluster.scratch().join(format!("{}.json", unique("kept")));
    std::fs::write(&path, Value::Array(rows(0..3)).to_string()).expect("a file");
    let path = path.to_string_lossy();
    let refused = cluster.run(&["submit", &path, "--model", &model, "--contributor", "alice"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.err.contains("UNKNOWN_MODEL") && refused.err.contains("nothing was sent"), "{refused:?}");
    assert!(sent(cluster, &model).is_empty());
}

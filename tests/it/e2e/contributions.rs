//! What becomes of contributions, good and bad: each gets one receipt, each refusal its reason, and the stages go on.

use crate::on_every_cluster;
use crate::support::client::Producer;
use crate::support::cluster::Cluster;
use crate::support::flow::{
    Receipts, account, contribute, contribute_bytes, contribution, reasons, receipt, row, rows, shop,
};
use crate::support::{eventually, unique};
use base64::Engine as _;
use serde_json::{Value, json};
use std::time::Duration;

on_every_cluster! {
    a_plain_client_contributes_rows_and_reads_the_receipt,
    every_refusal_of_a_row_has_its_reason,
    the_first_contributor_owns_a_row,
    a_repeated_record_changes_nothing,
    a_reused_id_is_refused_and_the_old_receipt_stands,
    an_unknown_model_is_refused_by_name,
    an_unknown_contract_is_refused_by_name,
    a_truncated_record_goes_to_the_dead_letters_and_the_stage_goes_on,
    an_unreadable_payload_is_refused_with_its_format,
    a_key_that_contradicts_the_id_is_refused,
    chunks_without_an_id_are_refused,
    a_record_without_an_id_takes_its_key_or_gets_one,
    chunks_may_come_in_any_order,
    a_contribution_without_a_valid_row_gets_its_receipt,
}

fn a_plain_client_contributes_rows_and_reads_the_receipt(cluster: &Cluster) {
    let (model, digest) = shop(cluster);
    let id = unique("plain");
    contribute(cluster, &[contribution(&id, "alice", &model, &rows(0..200))]);
    let receipt = receipt(cluster, &id);
    assert_eq!(account(&receipt), ("admitted".into(), 200, 200, reasons([])));
    assert_eq!(receipt["contributor"], "alice");
    assert_eq!(receipt["model"], Value::String(model));
    assert_eq!(receipt["contract_digest"], Value::String(digest));
    let root = receipt["merkle_root"].as_str().expect("a root");
    assert!(root.len() == 64 && root.bytes().all(|b| b.is_ascii_hexdigit()), "{root}");
    let dimensions = receipt["quality"]["dimensions"].as_array().expect("dimensions");
    let part = |name: &str| dimensions.iter().map(|d| d[name].as_f64().expect("a number")).collect::<Vec<_>>();
    assert!((part("weight").iter().sum::<f64>() - 1.0).abs() < 1e-9, "weights add up to 1: {receipt}");
    let score = receipt["quality"]["score"].as_f64().expect("a score of 200 rows");
    let loss: f64 = part("loss").iter().sum();
    assert!((hokusai::math::exp(-loss) - score).abs() < 1e-4, "the losses add up to −ln Q: {receipt}");
    let pii = receipt["pii"].as_array().expect("pii");
    assert!(pii.contains(&json!({"type": "email_address", "count": 200})), "{receipt}");
}

fn every_refusal_of_a_row_has_its_reason(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let id = unique("reasons");
    let with = |name: &str, value: Value| {
        let mut changed = row(1_000);
        changed[name] = value;
        changed
    };
    let mut all = rows(0..3);
    all.extend([
        with("amount", json!("many")),
        with("amount", json!(-1)),
        with("amount", json!(5_000)),
        with("plan", json!("gold")),
        with("plan", Value::Null),
        with("again", Value::Null),
        row(0),
    ]);
    contribute(cluster, &[contribution(&id, "bob", &model, &all)]);
    let expected = reasons([
        ("TYPE_MISMATCH", 1),
        ("RANGE_LOW", 1),
        ("RANGE_HIGH", 1),
        ("ENUM_UNKNOWN", 1),
        ("NULL_REQUIRED", 1),
        ("LABEL_MISSING", 1),
        ("DUP_IN_BATCH", 1),
    ]);
    assert_eq!(account(&receipt(cluster, &id)), ("admitted".into(), 10, 3, expected));
    let kept: Vec<String> = cluster
        .watch("contributions.refused")
        .into_iter()
        .filter(|r| r["value"]["id"]["contribution_id"] == Value::String(id.clone()))
        .map(|r| r["value"].to_string())
        .collect();
    assert!(!kept.is_empty(), "refusals are on their topic");
    for text in kept {
        assert!(
            !text.contains("many") && !text.contains("gold") && !text.contains("5000"),
            "a shape, never the value: {text}"
        );
    }
}

fn the_first_contributor_owns_a_row(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let (first, second, third) = (unique("first"), unique("second"), unique("third"));
    contribute(cluster, &[contribution(&first, "alice", &model, &rows(0..50))]);
    assert_eq!(account(&receipt(cluster, &first)), ("admitted".into(), 50, 50, reasons([])));
    contribute(cluster, &[contribution(&second, "mallory", &model, &rows(20..70))]);
    assert_eq!(account(&receipt(cluster, &second)), ("admitted".into(), 50, 20, reasons([("DUP_OTHER_OWNER", 30)])));
    contribute(cluster, &[contribution(&third, "alice", &model, &rows(40..60))]);
    let (_, received, accepted, refused) = account(&receipt(cluster, &third));
    assert_eq!((received, accepted, refused), (20, 0, reasons([("DUP_IN_POOL", 10), ("DUP_OTHER_OWNER", 10)])));
}

fn a_repeated_record_changes_nothing(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let (id, after) = (unique("repeated"), unique("after"));
    let record = contribution(&id, "alice", &model, &rows(0..10));
    contribute(cluster, std::slice::from_ref(&record));
    let mut receipts = Receipts::follow(cluster);
    let first = receipts.of(&id);
    contribute(cluster, &[record.clone(), record, contribution(&after, "alice", &model, &rows(10..20))]);
    assert_eq!(account(&receipts.of(&after)), ("admitted".into(), 10, 10, reasons([])));
    settle(cluster, &mut receipts, &model);
    assert_eq!(receipts.seen[&id], [first], "one receipt, as it was");
    assert_eq!(cluster.count(&format!("select count(*) as n from rows where contribution_id = '{id}'")), 10);
}

/// Waits until a contribution sent now on every partition has its receipt: whatever was sent before has been through.
fn settle(cluster: &Cluster, receipts: &mut Receipts, model: &str) {
    let partitions = crate::support::client::partitions(&cluster.broker, &cluster.topic("contributions"));
    let producer = Producer::new(&cluster.broker, &[]);
    let base = 1_000_000 + i64::from(std::process::id());
    let ids: Vec<String> = (0..partitions).map(|_| unique("settled")).collect();
    for (partition, id) in ids.iter().enumerate() {
        let partition = i32::try_from(partition).expect("few");
        let value = contribution(id, "settler", model, &[row(base + i64::from(partition))]).to_string();
        producer.texts(&cluster.topic("contributions"), partition, [value]);
    }
    for id in &ids {
        receipts.of(id);
    }
}

fn a_reused_id_is_refused_and_the_old_receipt_stands(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let id = unique("reused");
    contribute(cluster, &[contribution(&id, "alice", &model, &rows(0..10))]);
    let mut receipts = Receipts::follow(cluster);
    let first = receipts.of(&id);
    contribute(cluster, &[contribution(&id, "alice", &model, &rows(100..120))]);
    let refusals = format!("select count(*) as n from refusals where contribution_id = '{id}' and code = 'ID_REUSED'");
    eventually("the refusal of the reused id", || match cluster.count(&refusals) {
        0 => Err("no ID_REUSED among the refusals".into()),
        _ => Ok(()),
    });
    settle(cluster, &mut receipts, &model);
    assert_eq!(receipts.seen[&id], [first], "the old receipt stands");
    let other = unique("other");
    contribute(cluster, &[contribution(&other, "bob", &model, &rows(100..120))]);
    assert_eq!(
        account(&receipts.of(&other)),
        ("admitted".into(), 20, 20, reasons([])),
        "the reused id owns none of those rows"
    );
}

fn an_unknown_model_is_refused_by_name(cluster: &Cluster) {
    let id = unique("unknown-model");
    contribute(cluster, &[contribution(&id, "alice", &unique("no-such-model"), &rows(0..3))]);
    let (status, received, accepted, refused) = account(&receipt(cluster, &id));
    assert_eq!((status.as_str(), accepted, refused), ("refused", 0, reasons([("UNKNOWN_MODEL", received)])));
}

fn an_unknown_contract_is_refused_by_name(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let id = unique("unknown-contract");
    let mut value = contribution(&id, "alice", &model, &rows(0..3));
    value["contract_digest"] = Value::String("0".repeat(64));
    contribute(cluster, &[value]);
    let (status, received, accepted, refused) = account(&receipt(cluster, &id));
    assert_eq!((status.as_str(), accepted, refused), ("refused", 0, reasons([("UNKNOWN_CONTRACT", received)])));
}

fn a_truncated_record_goes_to_the_dead_letters_and_the_stage_goes_on(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let (cut, next) = (unique("truncated"), unique("next"));
    let before = cluster.count("select count(*) as n from dead_letters");
    let whole = contribution(&cut, "alice", &model, &rows(0..3)).to_string();
    let producer = Producer::new(&cluster.broker, &[]);
    contribute_bytes(cluster, &producer, None, &whole.as_bytes()[..whole.len() / 2]);
    contribute(cluster, &[contribution(&next, "alice", &model, &rows(0..3))]);
    assert_eq!(account(&receipt(cluster, &next)), ("admitted".into(), 3, 3, reasons([])));
    eventually("the dead letter", || match cluster.count("select count(*) as n from dead_letters") - before {
        0 => Err("none".into()),
        _ => Ok(()),
    });
    let letters = cluster.sql("select * from dead_letters");
    let text = serde_json::to_string(&letters).expect("JSON");
    assert!(!text.contains("customer1@example.com"), "no plaintext in a dead letter");
}

fn an_unreadable_payload_is_refused_with_its_format(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let mut receipts = Receipts::follow(cluster);
    for (format, reason) in
        [("parquet", "PARSE_PARQUET"), ("arrow", "PARSE_ARROW"), ("avro", "PARSE_AVRO"), ("xml", "PARSE_FORMAT")]
    {
        let id = unique(format);
        let payload = base64::engine::general_purpose::STANDARD.encode(b"PAR1 this is none of them");
        let value = json!({"contribution_id": id, "contributor": "alice", "model": model, "format": format, "payload": payload});
        contribute(cluster, &[value]);
        assert_eq!(account(&receipts.of(&id)), ("refused".into(), 1, 0, reasons([(reason, 1)])), "{format}");
    }
    let id = unique("csv");
    let payload = base64::engine::general_purpose::STANDARD.encode("order,amount,plan\n\"1,2,3");
    contribute(
        cluster,
        &[json!({"contribution_id": id, "contributor": "alice", "model": model, "format": "csv", "payload": payload})],
    );
    let (status, _, accepted, refused) = account(&receipts.of(&id));
    assert_eq!((status.as_str(), accepted), ("refused", 0));
    assert!(refused.keys().all(|r| r == "PARSE_CSV" || r == "SCHEMA_MISSING_COLUMN"), "{refused:?}");
}

fn a_key_that_contradicts_the_id_is_refused(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let (id, next) = (unique("contradicted"), unique("next"));
    let producer = Producer::new(&cluster.broker, &[]);
    contribute_bytes(
        cluster,
        &producer,
        Some("another"),
        contribution(&id, "alice", &model, &rows(0..3)).to_string().as_bytes(),
    );
    contribute_bytes(
        cluster,
        &producer,
        Some(&next),
        contribution(&next, "alice", &model, &rows(0..3)).to_string().as_bytes(),
    );
    assert_eq!(account(&receipt(cluster, &next)), ("admitted".into(), 3, 3, reasons([])));
    let (status, received, accepted, refused) = account(&receipt(cluster, &id));
    assert_eq!((status.as_str(), accepted, refused), ("refused", 0, reasons([("KEY_MISMATCH", received)])));
}

fn chunks_without_an_id_are_refused(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let next = unique("next");
    let anonymous = unique("anonymous");
    let value = json!({"contributor": anonymous, "model": model, "format": "json", "chunk": 0, "chunks": 2, "rows": rows(0..3)});
    contribute(cluster, &[value, contribution(&next, "alice", &model, &rows(0..3))]);
    assert_eq!(account(&receipt(cluster, &next)), ("admitted".into(), 3, 3, reasons([])));
    let found = format!("select count(*) as n from refusals where contributor = '{anonymous}' and code = 'ID_MISSING'");
    eventually("the refusal", || match cluster.count(&found) {
        0 => Err("no ID_MISSING among the refusals".into()),
        _ => Ok(()),
    });
}

fn a_record_without_an_id_takes_its_key_or_gets_one(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let (key, anonymous) = (unique("by-key"), unique("anonymous"));
    let value = json!({"contributor": "alice", "model": model, "format": "json", "rows": rows(0..3)});
    let producer = Producer::new(&cluster.broker, &[]);
    contribute_bytes(cluster, &producer, Some(&key), value.to_string().as_bytes());
    let mut receipts = Receipts::follow(cluster);
    assert_eq!(account(&receipts.of(&key)), ("admitted".into(), 3, 3, reasons([])));
    let value = json!({"contributor": anonymous, "model": model, "format": "json", "rows": rows(10..14)});
    contribute(cluster, std::slice::from_ref(&value));
    let derived = |receipts: &mut Receipts| {
        eventually("the anonymous receipt", || {
            receipts.poll(Duration::from_millis(50));
            let all = receipts.seen.values().flatten();
            let own: Vec<Value> =
                all.filter(|r| r["contributor"] == Value::String(anonymous.clone())).cloned().collect();
            if own.is_empty() { Err("none".into()) } else { Ok(own) }
        })
    };
    let first = derived(&mut receipts);
    assert_eq!(account(&first[0]), ("admitted".into(), 4, 4, reasons([])));
    contribute(cluster, &[value]);
    settle(cluster, &mut receipts, &model);
    assert_eq!(derived(&mut receipts), first, "the same content has the same id: sent twice, one receipt");
}

fn chunks_may_come_in_any_order(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let id = unique("chunks");
    let chunk = |k: i64| {
        let mut value = contribution(&id, "alice", &model, &rows(k * 10..k * 10 + 10));
        value["chunk"] = json!(k);
        value["chunks"] = json!(4);
        value
    };
    contribute(cluster, &[chunk(2), chunk(0), chunk(3), chunk(0), chunk(1)]);
    assert_eq!(account(&receipt(cluster, &id)), ("admitted".into(), 40, 40, reasons([])));
}

fn a_contribution_without_a_valid_row_gets_its_receipt(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let id = unique("nothing-valid");
    let mut bad = row(1);
    bad["plan"] = json!("gold");
    contribute(cluster, &[contribution(&id, "alice", &model, &[bad])]);
    let (_, received, accepted, refused) = account(&receipt(cluster, &id));
    assert_eq!((received, accepted, refused), (1, 0, reasons([("ENUM_UNKNOWN", 1)])));
}

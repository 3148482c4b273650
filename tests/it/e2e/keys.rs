//! Keys are rotated and destroyed while workers run; what must outlive them does.

use crate::on_both_own_clusters;
use crate::support::client::{Isolation, read};
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribute, contribution, decode, reasons, row, rows, schema, shop};
use crate::support::{eventually, unique};
use base64::Engine as _;
use hokusai::codec::sealed;
use hokusai::domain::keys::PublicKey;
use hokusai::domain::records::Contribution;
use serde_json::{Value, json};

on_both_own_clusters! {
    the_same_row_before_and_after_a_rotation_has_one_owner_and_new_rows_carry_the_new_key,
    a_new_intake_key_is_published_and_what_was_sealed_to_the_earlier_one_still_opens,
}

fn send(cluster: &Cluster, contributor: &str, model: &str, values: &[Value]) -> Value {
    let id = unique("keys");
    contribute(cluster, &[contribution(&id, contributor, model, values)]);
    Receipts::follow(cluster).of(&id)
}

fn email_of(cluster: &Cluster, model: &str, order: i64) -> String {
    let query = format!("select email from rows where model = '{model}' and \"order\" = {order}");
    cluster.sql(&query)[0]["email"].as_str().expect("a token").to_owned()
}

/// Sends new rows until one of them has a token of this key; returns its cell.
fn until_tokens_of(cluster: &Cluster, model: &str, key: &str, mut order: i64) -> String {
    eventually(&format!("tokens of {key}"), || {
        order += 1;
        send(cluster, "alice", model, &[row(order)]);
        let email = email_of(cluster, model, order);
        if email.starts_with(&format!("email_address:{key}:")) { Ok(email) } else { Err(email) }
    })
}

fn the_same_row_before_and_after_a_rotation_has_one_owner_and_new_rows_carry_the_new_key(cluster: Cluster) {
    let (model, _) = shop(&cluster);
    assert_eq!(account(&send(&cluster, "alice", &model, &rows(0..30))).2, 30);
    let before = email_of(&cluster, &model, 7);
    let shown = cluster.lines(&["keys", "rotate", "tokens"]).remove(0);
    assert_eq!(shown["token_keys"][1]["id"], "k2");
    let both = until_tokens_of(&cluster, &model, "k2", 1_000);
    assert!(both.contains(" email_address:k1:"), "for a day both keys write: {both}");
    let again = send(&cluster, "bob", &model, &rows(0..30));
    assert_eq!(account(&again), ("refused".into(), 30, 0, reasons([("DUP_OTHER_OWNER", 30)])));
    assert_eq!(email_of(&cluster, &model, 7), before);
    // One of the old e-mail addresses in a new row: both tokens lead to it.
    let mut linked = row(5_000);
    linked["email"] = row(7)["email"].clone();
    send(&cluster, "alice", &model, &[linked]);
    assert!(email_of(&cluster, &model, 5_000).ends_with(&format!(" {before}")));
    cluster.lines(&["keys", "rotate", "tokens", "--dual-write", "0"]);
    let alone = until_tokens_of(&cluster, &model, "k3", 2_000);
    assert!(!alone.contains(' '), "{alone}");
    destroyed(&cluster);
}

fn destroyed(cluster: &Cluster) {
    let file = std::fs::read_dir(cluster.data().join("keys")).expect("keys").flatten().map(|e| e.path());
    let file = file.into_iter().find(|p| p.to_string_lossy().contains("tenant-")).expect("a key ring");
    let secret = |text: &str| {
        let ring: Value = serde_json::from_str(text).expect("JSON");
        ring["tokens"][0]["secret"].as_str().expect("a secret").to_owned()
    };
    let secret = secret(&std::fs::read_to_string(&file).expect("a key ring"));
    let unconfirmed = cluster.run(&["keys", "destroy", "k1"]);
    assert_eq!(unconfirmed.code, Some(2), "{unconfirmed:?}");
    assert!(
        unconfirmed.err.contains("cannot be undone") && unconfirmed.err.contains("--confirm k1"),
        "{unconfirmed:?}"
    );
    let left = cluster.lines(&["keys", "destroy", "k1", "--confirm", "k1"]).remove(0);
    assert!(!left.to_string().contains("\"k1\""), "{left}");
    assert!(!std::fs::read_to_string(&file).expect("a key ring").contains(&secret));
    assert_eq!(cluster.run(&["keys", "destroy", "k3", "--confirm", "k3"]).code, Some(1), "the key in force stays");
    let audited = cluster.sql("select action, resource from audit where action like 'keys.%'");
    assert!(audited.contains(&json!({"action": "keys.destroy", "resource": "key/k1"})), "{audited:?}");
}

fn a_new_intake_key_is_published_and_what_was_sealed_to_the_earlier_one_still_opens(cluster: Cluster) {
    let (model, _) = shop(&cluster);
    let published = |cluster: &Cluster| cluster.lines(&["model", "show", &model])[0]["intake_key"].clone();
    let (earlier, path) = (published(&cluster), cluster.scratch().join("rows.json"));
    let lines = cluster.lines(&["keys", "rotate", "intake"]);
    assert_eq!(lines[1], json!({"intake_key": "i2", "models": 1, "status": "published"}));
    assert_eq!(published(&cluster)["id"], "i2");
    let id = unique("earlier");
    let mut chunk = Contribution {
        contribution_id: Some(id.clone()),
        contributor: "alice".into(),
        model: model.clone(),
        format: "json".into(),
        chunks: 1,
        payload: Value::Array(rows(0..5)).to_string().into_bytes(),
        ..Contribution::default()
    };
    let key = [&earlier["id"], &earlier["public"]].map(|part| part.as_str().expect("a key"));
    sealed::seal(&mut chunk, &PublicKey::parse(key[0], key[1]).expect("a key")).expect("sealed");
    contribute(
        &cluster,
        &[json!({
            "contribution_id": id, "contributor": "alice", "model": model, "format": "json", "sealed": "i1",
            "payload": base64::engine::general_purpose::STANDARD.encode(chunk.payload),
        })],
    );
    let receipt = Receipts::follow(&cluster).of(&id);
    assert_eq!(account(&receipt), ("admitted".into(), 5, 5, reasons([])));
    std::fs::write(&path, Value::Array(rows(10..15)).to_string()).expect("a file");
    let path = path.to_string_lossy();
    let receipt = cluster.lines(&["submit", &path, "--model", &model, "--contributor", "alice", "--wait"]).remove(0);
    assert_eq!(account(&receipt), ("admitted".into(), 5, 5, reasons([])));
    let records = read(&cluster.broker, &cluster.topic("contributions"), Isolation::Committed);
    let newest = records.iter().filter_map(|r| r.value.as_deref()).rfind(|value| value.starts_with(&[0xC3, 1]));
    assert_eq!(decode(&schema("contribution"), newest.expect("what submit sent"))["sealed"], "i2");
}

//! The same row is the same row: one hash and one owner, whatever route, format and chunk it came in.

use super::formats::document;
use crate::on_every_cluster;
use crate::support::client::Producer;
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribute, contribution, reasons, rows, shop};
use crate::support::{eventually, unique};
use serde_json::{Value, json};
use std::collections::BTreeSet;

on_every_cluster! {
    a_row_has_one_owner_and_one_hash_by_every_route_and_in_every_chunk,
    a_refused_contribution_gives_up_the_rows_of_its_good_chunks,
}

/// Many rows in one chunk, as few as one in others.
const ROWS: i64 = 10_000;
const FEW: i64 = 200;

/// The contribution in chunks of `size` rows.
fn chunked(id: &str, contributor: &str, model: &str, values: &[Value], size: usize) -> Vec<Value> {
    let count = values.len().div_ceil(size);
    let chunk = |(number, rows): (usize, &[Value])| {
        let mut value = contribution(id, contributor, model, rows);
        (value["chunk"], value["chunks"]) = (json!(number), json!(count));
        value
    };
    values.chunks(size).enumerate().map(chunk).collect()
}

fn send(cluster: &Cluster, values: &[Value]) {
    let producer = Producer::new(&cluster.broker, &[("message.max.bytes", "8000000")]);
    for value in values {
        let text = value.to_string();
        let send = crate::support::client::Send { value: Some(text.as_bytes()), ..Default::default() };
        producer.send(&cluster.topic("contributions"), &send).expect("the queue has room");
    }
    assert!(producer.settle().iter().all(Result::is_ok), "the contribution is on the topic");
}

/// The same rows as somebody else might write them: names in other letters, numbers with a needless fraction, combining
/// accents, an address in capitals.
fn respelt(values: &[Value]) -> Vec<Value> {
    let respell = |value: &Value| {
        let mut value = value.clone();
        value["order"] = json!(value["order"].as_f64().expect("a number"));
        value["email"] = json!(value["email"].as_str().expect("text").replace("example.com", "EXAMPLE.com"));
        value["note"] = json!(value["note"].as_str().expect("text").replace("très", "tre\u{300}s"));
        value
    };
    values.iter().map(respell).collect()
}

fn a_row_has_one_owner_and_one_hash_by_every_route_and_in_every_chunk(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let mut all = rows(0..ROWS);
    for value in &mut all {
        value["note"] = json!(value["note"].as_str().expect("text").replace("well", "très bien"));
    }
    let few = &all[..usize::try_from(FEW).expect("small")];
    let owner = unique("owner");
    send(cluster, &chunked(&owner, "alice", &model, &all, all.len()));
    let mut receipts = Receipts::follow(cluster);
    assert_eq!(account(&receipts.of(&owner)), ("admitted".into(), ROWS, ROWS, reasons([])));

    let mut copies = vec![];
    for (contributor, size) in [("bob", 1), ("carol", 77), ("dave", few.len())] {
        let id = unique(contributor);
        send(cluster, &chunked(&id, contributor, &model, &respelt(few), size));
        copies.push(id);
    }
    for format in ["csv", "parquet", "arrow", "avro", "json"] {
        let (id, path) = (unique(format), cluster.scratch().join(format!("{}.{format}", unique("copies"))));
        std::fs::write(&path, document(format, few)).expect("a file");
        let path = path.to_string_lossy().into_owned();
        cluster.lines(&["submit", &path, "--model", &model, "--contributor", format, "--contribution", &id]);
        copies.push(id);
    }
    for id in &copies {
        let expected = ("refused".into(), FEW, 0, reasons([("DUP_OTHER_OWNER", FEW)]));
        assert_eq!(account(&receipts.of(id)), expected, "{id}: all its rows are alice's");
    }
    let column = |query: &str| -> BTreeSet<String> {
        cluster.sql(query).iter().map(|row| row["h"].as_str().expect("hex").to_owned()).collect()
    };
    let of_rows = column(&format!("select row_hash as h from rows where model = '{model}' and \"order\" < {FEW}"));
    let of_copies =
        column(&format!("select row_digest as h from refusals where model = '{model}' and code = 'DUP_OTHER_OWNER'"));
    assert_eq!(of_rows.len(), few.len());
    assert_eq!(of_copies, of_rows, "whatever the route, the hash is the same");
    assert_eq!(cluster.count(&format!("select count(*) as n from rows where model = '{model}'")), ROWS);
}

fn a_refused_contribution_gives_up_the_rows_of_its_good_chunks(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let (id, mut receipts) = (unique("half-broken"), Receipts::follow(cluster));
    let mut broken = rows(10..20);
    broken.iter_mut().for_each(|row| row["salary"] = json!(1));
    let mut values = chunked(&id, "alice", &model, &rows(0..20), 10);
    values[1]["rows"] = json!(broken);
    contribute(cluster, &values);
    let (status, received, accepted, refused) = account(&receipts.of(&id));
    assert_eq!((status.as_str(), received, accepted), ("refused", 20, 0));
    assert_eq!(refused, reasons([("NOT_ADMITTED", 10), ("SCHEMA_EXTRA_COLUMN", 10)]));
    // The release travels behind the receipt: at most a few newcomers come before it.
    eventually("the release", || {
        let newcomer = unique("newcomer");
        contribute(cluster, &[contribution(&newcomer, "bob", &model, &rows(0..10))]);
        match account(&receipts.of(&newcomer)).2 {
            10 => Ok(()),
            other => Err(format!("{other} accepted")),
        }
    });
}

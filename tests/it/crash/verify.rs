//! Recomputes what must have happened from what was sent, and compares it with receipts and tables.

use super::load::{Contribution, is_valid};
use super::plant::Plant;
use crate::support::flow::account;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Receipts by contribution id, as bytes and decoded.
pub type Receipts = BTreeMap<String, (Vec<u8>, Value)>;

/// Exactly one receipt for each contribution and none for anything else.
pub fn one_receipt_each(plant: &Plant, sent: &[Contribution]) -> Receipts {
    let mut found = Receipts::new();
    for (record, value) in crate::support::flow::receipts(&plant.broker(), &plant.topic("receipts")) {
        let id = value["contribution_id"].as_str().expect("an id").to_owned();
        let twice = found.insert(id.clone(), (record.value.expect("filtered"), value));
        assert!(twice.is_none(), "{id} has two receipts: {twice:?}");
    }
    let (ids, wanted): (BTreeSet<&str>, BTreeSet<&str>) =
        (found.keys().map(String::as_str).collect(), sent.iter().map(|c| c.id.as_str()).collect());
    assert_eq!(ids, wanted, "exactly one receipt for each contribution");
    found
}

/// What holds whoever came first: everything adds up, and each valid row was accepted exactly once.
pub fn adds_up(receipts: &Receipts, sent: &[Contribution]) -> i64 {
    let mut accepted_in_all = 0;
    for contribution in sent {
        let rows: Vec<&Value> = contribution.chunks.iter().flatten().collect();
        let invalid = rows.iter().filter(|r| !is_valid(r)).count();
        let (status, received, accepted, refused) = account(&receipts[&contribution.id].1);
        assert_eq!(status, "admitted", "{}", contribution.id);
        assert_eq!(received, i64::try_from(rows.len()).expect("small"), "{}", contribution.id);
        assert_eq!(
            refused.get("ENUM_UNKNOWN").copied().unwrap_or(0),
            i64::try_from(invalid).expect("small"),
            "{}",
            contribution.id
        );
        accepted_in_all += accepted;
    }
    let distinct: BTreeSet<i64> = sent
        .iter()
        .flat_map(|c| c.chunks.iter().flatten())
        .filter(|r| is_valid(r))
        .map(|r| r["order"].as_i64().expect("a number"))
        .collect();
    assert_eq!(
        accepted_in_all,
        i64::try_from(distinct.len()).expect("small"),
        "each distinct valid row is accepted exactly once"
    );
    accepted_in_all
}

/// What must come out when the contributions stand in one partition in this order.
pub fn as_in_order(receipts: &Receipts, sent: &[Contribution]) {
    let mut owners: HashMap<i64, (&str, &str)> = HashMap::new();
    for contribution in sent {
        let mut expected = BTreeMap::<String, i64>::new();
        let mut accepted = 0;
        for row in contribution.chunks.iter().flatten() {
            let order = row["order"].as_i64().expect("a number");
            let reason = match owners.get(&order) {
                _ if !is_valid(row) => "ENUM_UNKNOWN",
                None => {
                    owners.insert(order, (&contribution.contributor, &contribution.id));
                    accepted += 1;
                    continue;
                }
                Some((_, id)) if *id == contribution.id => "DUP_IN_BATCH",
                Some((owner, _)) if *owner == contribution.contributor => "DUP_IN_POOL",
                Some(_) => "DUP_OTHER_OWNER",
            };
            *expected.entry(reason.to_owned()).or_default() += 1;
        }
        let (_, _, seen, refused) = account(&receipts[&contribution.id].1);
        assert_eq!((seen, refused), (accepted, expected), "{}", contribution.id);
    }
}

/// The tables hold each accepted row once, each receipt once, each refusal once.
pub fn tables(plant: &Plant, receipts: &Receipts) {
    let one = |query: &str| plant.sql(query)[0].clone();
    let mut accepted = BTreeMap::new();
    let mut refused = 0;
    for (id, (_, receipt)) in receipts {
        let (_, _, taken, not) = account(receipt);
        accepted.insert(id.clone(), taken);
        refused += not.values().sum::<i64>();
    }
    accepted.retain(|_, count| *count > 0);
    let by_contribution: BTreeMap<String, i64> = plant
        .sql("select contribution_id, count(*) as n from rows group by contribution_id")
        .iter()
        .map(|r| (r["contribution_id"].as_str().expect("an id").to_owned(), r["n"].as_i64().expect("a count")))
        .collect();
    assert_eq!(by_contribution, accepted, "rows by contribution");
    let distinct = one("select count(*) as n from (select distinct contribution_id, chunk, row from rows)");
    assert_eq!(distinct["n"].as_i64(), Some(accepted.values().sum()), "no row twice");
    let receipts_in_table = one("select count(*) as n, count(distinct contribution_id) as d from receipts");
    let count = i64::try_from(receipts.len()).expect("small");
    assert_eq!(
        (receipts_in_table["n"].as_i64(), receipts_in_table["d"].as_i64()),
        (Some(count), Some(count)),
        "receipts"
    );
    assert_eq!(one("select count(*) as n from refusals")["n"].as_i64(), Some(refused), "refusals");
    assert_eq!(one("select count(*) as n from dead_letters")["n"].as_i64(), Some(0), "dead letters");
}

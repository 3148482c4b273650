//! What verdicts and receipts must be, from the committed records of `contributions.screened`, `contributions.manifests` and
//! `contributions.verdicts` alone, as the design says it, with no code of the stages.
//!
//! * [`log`]: the records, decoded with the published schemas, by a reader that the topology declares;
//! * [`verdicts`]: first contributor of a row wins, per shard, in offset order;
//! * [`receipts`]: which chunks a contribution binds, what they add up to, its tree;
//! * [`quality`]: the score by the table of its formula.

pub mod log;
pub mod quality;
pub mod receipts;
pub mod verdicts;

use super::plant::Plant;
use crate::support::client::{Isolation, read};
use crate::support::eventually;
use crate::support::flow::{decode, schema};
use log::Log;
use quality::Reference;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Holds the committed verdicts and receipts against the recomputed ones: the verdicts one by one, the receipts byte by byte.
pub fn verify(plant: &Plant, log: &Log, contracts: &BTreeMap<String, Reference>) -> BTreeMap<String, Value> {
    let mut expected = verdicts::recompute(log);
    let mut found = log.verdicts.clone();
    let key = |verdict: &Value| format!("{} {} {}", verdict["id"], verdict["shard"], verdict["part"]);
    expected.sort_by_key(key);
    found.sort_by_key(key);
    assert_eq!(found.len(), expected.len(), "one verdict for each record of screened rows");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "a verdict is a function of the screened rows before it");
    }
    let expected = receipts::recompute(log, contracts);
    let (schema, leaves) = (schema("receipt"), attested(plant, expected.len()));
    let mut left = expected.clone();
    for (record, value) in crate::support::flow::receipts(&plant.broker(), &plant.topic("receipts")) {
        let id = value["contribution_id"].as_str().expect("an id");
        let mut wanted =
            left.remove(id).unwrap_or_else(|| panic!("a second receipt of {id}, or one of nothing: {value}"));
        wanted["leaf"] = leaves[id].clone().into();
        assert_eq!(value, wanted, "{id}: the receipt on the topic, and the recomputed one");
        let bytes = record.value.expect("receipts have values");
        assert!(bytes == log::encode(&schema, &wanted), "{id}: not the bytes of the recomputed receipt");
        assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
    }
    assert!(left.is_empty(), "without a receipt: {:?}", left.keys());
    expected
}

/// The leaf of each contribution's statement in the log of attestations: SHA-256 over a zero byte and the signed bytes (RFC 6962).
fn attested(plant: &Plant, count: usize) -> BTreeMap<String, String> {
    let schema = schema("attestation");
    eventually("every receipt's statement", || {
        let mut leaves = BTreeMap::new();
        for record in read(&plant.broker(), &plant.topic("attestations"), Isolation::Committed) {
            let value = decode(&schema, &record.value.expect("entries have values"));
            let envelope = value["envelope"].as_array().expect("bytes").iter().filter_map(Value::as_u64);
            let envelope: Vec<u8> = envelope.map(|byte| u8::try_from(byte).expect("a byte")).collect();
            let envelope: Value = serde_json::from_slice(&envelope).expect("JSON");
            let payload = envelope["payload"].as_str().expect("a payload");
            let payload = data_encoding::BASE64.decode(payload.as_bytes()).expect("base64");
            let leaf = data_encoding::HEXLOWER.encode(&Sha256::digest([&[0], &payload[..]].concat()));
            assert_eq!(record.key.as_deref(), Some(leaf.as_bytes()));
            let statement: Value = serde_json::from_slice(&payload).expect("JSON");
            if let Some(id) = statement["predicate"]["contributionId"].as_str() {
                assert!(leaves.insert(id.to_owned(), leaf).is_none(), "{id} is attested twice");
            }
        }
        if leaves.len() < count { Err(format!("{} of {count}", leaves.len())) } else { Ok(leaves) }
    })
}

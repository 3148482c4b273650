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
use crate::support::flow::schema;
use log::Log;
use quality::Reference;
use serde_json::Value;
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
    let schema = schema("receipt");
    let mut left = expected.clone();
    for (record, value) in crate::support::flow::receipts(&plant.broker(), &plant.topic("receipts")) {
        let id = value["contribution_id"].as_str().expect("an id");
        let wanted = left.remove(id).unwrap_or_else(|| panic!("a second receipt of {id}, or one of nothing: {value}"));
        assert_eq!(value, wanted, "{id}: the receipt on the topic, and the recomputed one");
        let bytes = record.value.expect("receipts have values");
        assert!(bytes == log::encode(&schema, &wanted), "{id}: not the bytes of the recomputed receipt");
        assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
    }
    assert!(left.is_empty(), "without a receipt: {:?}", left.keys());
    expected
}

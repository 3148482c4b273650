//! Deduplication, recomputed: in each shard the first one to bring a row owns it.

use super::log::{Log, Screened};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What one shard knows.
#[derive(Default)]
struct Shard {
    /// By features, by whole row: which chunk owns it.
    rows: HashMap<u128, BTreeMap<u128, String>>,
    /// Chunks that gave their rows up.
    released: HashSet<String>,
    /// The verdict of each part of each chunk: the same part again gets it again.
    judged: HashMap<(String, i64), Value>,
    /// Contribution and contributor of each chunk.
    parties: HashMap<String, [String; 2]>,
}

/// The verdicts on every record of `contributions.screened`.
pub fn recompute(log: &Log) -> Vec<Value> {
    let mut verdicts = Vec::new();
    for records in log.screened.values() {
        let mut shard = Shard::default();
        for record in records {
            match record {
                Screened::Rows(head, hashes) => verdicts.push(shard.judge(head, hashes)),
                Screened::Release(release) => shard.release(release),
            }
        }
    }
    verdicts
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl Shard {
    fn release(&mut self, release: &Value) {
        for chunk in release["chunks"].as_array().expect("chunks") {
            let mut id = chunk.clone();
            for name in ["contribution_id", "contributor", "model", "contract_digest"] {
                id[name] = release[name].clone();
            }
            self.released.insert(chunk_of(&id));
        }
    }

    fn judge(&mut self, head: &Value, hashes: &[[u128; 2]]) -> Value {
        let id = &head["id"];
        let chunk = chunk_of(id);
        let part = (chunk.clone(), head["part"].as_i64().expect("a number"));
        if let Some(verdict) = self.judged.get(&part) {
            return verdict.clone();
        }
        let party = [text(&id["contribution_id"]), text(&id["contributor"])];
        self.parties.insert(chunk.clone(), party.clone());
        let (mut accepted, mut conflicts) = (0, 0);
        let mut duplicates: BTreeMap<&str, i64> = BTreeMap::new();
        for [row, features] in hashes {
            let labels = self.rows.entry(*features).or_default();
            labels.retain(|_, owner| !self.released.contains(owner));
            if let Some(owner) = labels.get(row) {
                let [contribution, contributor] = &self.parties[owner];
                let reason = match () {
                    () if *contributor != party[1] => "DUP_OTHER_OWNER",
                    () if *contribution != party[0] => "DUP_IN_POOL",
                    () => "DUP_IN_BATCH",
                };
                *duplicates.entry(reason).or_default() += 1;
                continue;
            }
            conflicts += i64::from(!labels.is_empty());
            accepted += 1;
            labels.insert(*row, chunk.clone());
        }
        assert_eq!(head["refuse_label_conflicts"], json!(false), "no contract here refuses conflicting labels");
        // In the order that the schema's golden verdicts have: in batch, in pool, other owner.
        let reasons = ["DUP_IN_BATCH", "DUP_IN_POOL", "DUP_OTHER_OWNER"];
        let counts = reasons.iter().filter_map(|r| duplicates.get(r).map(|count| json!({"name": r, "count": count})));
        let verdict = json!({
            "id": id, "shard": head["shard"], "part": head["part"], "parts": head["parts"],
            "accepted": accepted, "duplicates": counts.collect::<Vec<_>>(), "label_conflicts": conflicts,
        });
        self.judged.insert(part, verdict.clone());
        verdict
    }
}

/// What tells one exact chunk from every other.
fn chunk_of(id: &Value) -> String {
    let names = ["contribution_id", "contributor", "model", "contract_digest", "chunk", "chunk_digest", "passed"];
    names.map(|name| id[name].to_string()).join(" ")
}

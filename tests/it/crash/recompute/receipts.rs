//! Receipts, recomputed: which chunks the manifests bind to a contribution, and what these add up to.
//!
//! A contribution is what came first in `contributions.manifests`; a chunk under a number that is taken, of another sender, or under
//! another contract than the chunks before it, is not part of it. What never became complete is `incomplete`.

use super::log::Log;
use super::quality::{Reference, Sums, score};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// A contribution and the manifests bound to it, by chunk.
#[derive(Debug, Default)]
struct Contribution {
    bound: BTreeMap<i64, Value>,
    contract: String,
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

fn number(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or_else(|| panic!("no number {name} in {value}"))
}

/// Receipts by contribution id.
pub fn recompute(log: &Log, contracts: &BTreeMap<String, Reference>) -> BTreeMap<String, Value> {
    let mut contributions: BTreeMap<String, Contribution> = BTreeMap::new();
    for manifest in &log.manifests {
        contributions.entry(text(&manifest["id"], "contribution_id").to_owned()).or_default().offer(manifest);
    }
    let mut verdicts: HashMap<String, BTreeMap<(i64, i64), &Value>> = HashMap::new();
    for verdict in &log.verdicts {
        let part = (number(verdict, "shard"), number(verdict, "part"));
        verdicts.entry(verdict["id"].to_string()).or_default().insert(part, verdict);
    }
    contributions
        .into_iter()
        .map(|(id, c)| {
            let receipt = c.receipt(&verdicts, contracts);
            (id, receipt)
        })
        .collect()
}

impl Contribution {
    /// Makes a chunk part of the contribution, if it fits.
    fn offer(&mut self, manifest: &Value) {
        let id = &manifest["id"];
        let fits = self.bound.values().next().is_none_or(|first| {
            first["chunks"] == manifest["chunks"]
                && first["id"]["contributor"] == id["contributor"]
                && first["id"]["model"] == id["model"]
        });
        let contract = text(id, "contract_digest");
        let agrees = contract.is_empty() || self.contract.is_empty() || self.contract == contract;
        let chunk = number(id, "chunk");
        if fits && agrees && !self.bound.contains_key(&chunk) {
            if self.contract.is_empty() {
                contract.clone_into(&mut self.contract);
            }
            self.bound.insert(chunk, manifest.clone());
        }
    }

    fn receipt(
        &self,
        verdicts: &HashMap<String, BTreeMap<(i64, i64), &Value>>,
        contracts: &BTreeMap<String, Reference>,
    ) -> Value {
        let first = self.bound.values().next().expect("a contribution has a chunk");
        let (mut received, mut accepted, mut duplicates, mut conflicts, mut last) = (0, 0, 0, 0, i64::MIN);
        let (mut refused, mut pii) = (BTreeMap::new(), BTreeMap::new());
        let mut sums = Sums::default();
        for manifest in self.bound.values() {
            received += number(manifest, "received");
            last = last.max(number(manifest, "appended"));
            count(&mut refused, &manifest["refused"]);
            count(&mut pii, &manifest["pii"]);
            sums.add(&manifest["quality"]);
            for verdict in verdicts.get(&manifest["id"].to_string()).into_iter().flatten().map(|(_, verdict)| verdict) {
                accepted += number(verdict, "accepted");
                conflicts += number(verdict, "label_conflicts");
                duplicates += count(&mut refused, &verdict["duplicates"]);
            }
        }
        let chunks = number(first, "chunks");
        let quality = score(contracts.get(&self.contract), received, &sums, duplicates, conflicts);
        let complete = i64::try_from(self.bound.len()).expect("few") == chunks;
        let status = match (complete, accepted > 0 && !sums.incompatible) {
            (false, _) => "incomplete",
            (true, true) => "admitted",
            (true, false) => "refused",
        };
        if status != "admitted" && accepted > 0 {
            *refused.entry("NOT_ADMITTED".to_owned()).or_default() += accepted;
            accepted = 0;
        }
        let (bound, root, rows, digest) = self.tree();
        // One chunk that is not signed, or otherwise, leaves the contributor unverified.
        let signature = &first["contributor_signature"];
        let signed_alike = self.bound.values().all(|manifest| manifest["contributor_signature"] == *signature);
        let signature = if signed_alike { signature.clone() } else { Value::Null };
        json!({
            "contribution_id": first["id"]["contribution_id"],
            "contributor": first["id"]["contributor"],
            "model": first["id"]["model"],
            "contract_digest": self.contract,
            "status": status,
            "received": received,
            "accepted": accepted,
            "refused": refused.iter().map(|(r, n)| json!({"reason": r, "count": n})).collect::<Vec<_>>(),
            "quality": quality,
            "pii": pii.iter().map(|(kind, n)| json!({"type": kind, "count": n})).collect::<Vec<_>>(),
            "merkle_root": if rows > 0 { root } else { String::new() },
            "merkle_rows": rows,
            "chunks": chunks,
            "bound": bound,
            "chunks_digest": digest,
            "last_appended": last,
            "contributor_verified": !signature.is_null(),
            "contributor_signature": signature,
        })
    }

    /// The bound chunks, their tree's root (RFC 6962 over u32be(chunk) ‖ u64be(rows) ‖ chunk root), all rows, the digest of the list.
    fn tree(&self) -> (Vec<Value>, String, i64, String) {
        let (mut bound, mut leaves, mut all) = (Vec::new(), Vec::new(), 0);
        let mut list = Sha256::new();
        for (chunk, manifest) in &self.bound {
            let rows: i64 = manifest["shards"].as_array().expect("shards").iter().map(|s| number(s, "rows")).sum();
            let (root, digest) = (text(manifest, "chunk_root"), text(&manifest["id"], "chunk_digest"));
            let root_bytes = match root {
                "" => Sha256::digest(b"").to_vec(),
                hex => data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hex"),
            };
            let number = u32::try_from(*chunk).expect("small").to_be_bytes();
            let leaf = [&[0][..], &number, &u64::try_from(rows).expect("rows").to_be_bytes(), &root_bytes].concat();
            leaves.push(Sha256::digest(leaf).to_vec());
            list.update(number);
            list.update(digest);
            bound.push(json!({"chunk": chunk, "chunk_digest": digest, "rows": rows, "root": root}));
            all += rows;
        }
        (
            bound,
            data_encoding::HEXLOWER.encode(&root_of(&leaves)),
            all,
            data_encoding::HEXLOWER.encode(&list.finalize()),
        )
    }
}

/// RFC 6962 §2.1: the left subtree has the largest power of two of leaves that is smaller than all.
fn root_of(leaves: &[Vec<u8>]) -> Vec<u8> {
    match leaves {
        [] => Sha256::digest(b"").to_vec(),
        [leaf] => leaf.clone(),
        _ => {
            let left = leaves.len().next_power_of_two() / 2;
            let children = [root_of(&leaves[..left]), root_of(&leaves[left..])].concat();
            Sha256::digest([&[1][..], &children].concat()).to_vec()
        }
    }
}

/// Adds a list of counts; returns their sum.
fn count(into: &mut BTreeMap<String, i64>, list: &Value) -> i64 {
    let list = list.as_array().expect("counts");
    list.iter()
        .map(|c| {
            *into.entry(text(c, "name").to_owned()).or_default() += number(c, "count");
            number(c, "count")
        })
        .sum()
}

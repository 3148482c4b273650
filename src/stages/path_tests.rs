//! The data path without Kafka: a signed command, chunks, rows, verdicts, receipts, through the real stages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::dedup::Dedup;
use super::intake::{Intake, Limits};
use super::keying::Keying;
use super::receipts::{Receipts, ReceiptsConfig};
use super::registry::{Registry, command};
use super::testing::Task;
use crate::attest::trust::Trust;
use crate::domain::contract::Spec;
use crate::domain::keys::KeyRing;
use crate::domain::records::{Accepted, Audit, Receipt, Record};
use crate::domain::topics;
use crate::stream::stage::{Batch, Destination, OutputRecord, Stage};

const MODEL: &str = "
apiVersion: hokusai/v1
kind: Model
name: m
version: 1.0.0
label: y
schema:
  - name: rows
    properties:
      - {name: x, logicalType: integer, required: true, logicalTypeOptions: {minimum: 0, maximum: 90}}
      - {name: note, logicalType: string, required: true}
      - {name: y, logicalType: boolean}
";

/// Every stage from commands to receipts, with so many shards and one partition of everything else.
struct Path {
    keying: Task<Keying>,
    registry: Task<Registry>,
    intake: Task<Intake>,
    dedup: Vec<Task<Dedup>>,
    receipts: Task<Receipts>,
    /// Every output of every stage, in the order of their commits.
    log: Vec<OutputRecord>,
    delivered: BTreeMap<String, usize>,
    clock: i64,
}

impl Path {
    fn new(shards: i32) -> Self {
        let partitions = [(topics::SCREENED, shards), (topics::ACCEPTED, shards)];
        let signer = SigningKey::from_bytes(&[1; 32]);
        let secret = |digit: &str| digit.repeat(64);
        let (token, dedup, tree) = (secret("1"), secret("3"), secret("4"));
        let ring = json!({"version": 1, "tenant": "t", "tokens": [{"id": "k1", "secret": token}], "dedup": dedup, "tree": tree});
        let ring = Arc::new(KeyRing::from_json(&ring.to_string()).unwrap());
        let trust = Trust::development(&signer.verifying_key());
        let mut path = Self {
            keying: Task::new(Keying::new(Arc::clone(&ring)), 0, &partitions),
            registry: Task::new(Registry::new(trust, Box::new(|_| Ok(()))), 0, &partitions),
            intake: Task::new(Intake::new(ring, Limits::default()), 0, &partitions),
            dedup: (0..shards).map(|shard| Task::new(Dedup::new(), shard, &partitions)).collect(),
            receipts: Task::new(Receipts::new(ReceiptsConfig::default()), 0, &partitions),
            log: Vec::new(),
            delivered: BTreeMap::new(),
            clock: 1_700_000_000_000,
        };
        let signed = command::build_apply(&Spec::parse_yaml(MODEL, "model.yaml").unwrap(), 0, &signer).unwrap();
        let mut commands = Batch::new(topics::MODEL_COMMANDS, 0);
        commands.push(0, path.clock, None, Some(signed.envelope.as_bytes()));
        path.keying.commit(&[commands]).unwrap();
        path.settle();
        path
    }

    fn send(&mut self, chunks: &[Value]) {
        let mut batch = Batch::new(topics::CONTRIBUTIONS, 0);
        for chunk in chunks {
            self.clock += 1;
            batch.push(self.clock, self.clock, None, Some(chunk.to_string().as_bytes()));
        }
        self.intake.commit(&[batch]).unwrap();
        self.settle();
    }

    /// What was written to a partition since the last time.
    fn news(&mut self, topic: &'static str, partition: i32) -> Batch {
        let place = Destination::Partition(partition);
        let here = |r: &&OutputRecord| r.topic == topic && [Destination::ByKey, place].contains(&r.destination);
        let seen = self.delivered.entry(format!("{topic}-{partition}")).or_default();
        let mut batch = Batch::new(topic, partition);
        for record in self.log.iter().filter(here).skip(*seen) {
            batch.push(i64::try_from(*seen).unwrap(), self.clock, Some(&record.key), record.value.as_deref());
            *seen += 1;
        }
        batch
    }

    /// Hands records on until every stage has read everything.
    fn settle(&mut self) {
        self.log.append(&mut self.keying.outputs);
        self.log.append(&mut self.intake.outputs);
        let events = self.news(topics::REGISTRY_EVENTS, 0);
        self.registry.commit(&[events]).unwrap();
        self.log.append(&mut self.registry.outputs);
        for message in self.news(topics::MODELS, 0).iter() {
            let key = message.key.unwrap();
            self.intake.stage.broadcast(topics::MODELS, key, message.value, &self.intake.wire).unwrap();
            self.receipts.stage.broadcast(topics::MODELS, key, message.value, &self.receipts.wire).unwrap();
        }
        for _ in 0..2 {
            for shard in 0..self.dedup.len() {
                let rows = self.news(topics::SCREENED, i32::try_from(shard).unwrap());
                self.dedup[shard].commit(&[rows]).unwrap();
                self.log.append(&mut self.dedup[shard].outputs);
            }
            let (manifests, verdicts) = (self.news(topics::MANIFESTS, 0), self.news(topics::VERDICTS, 0));
            self.receipts.commit(&[manifests, verdicts]).unwrap();
            self.log.append(&mut self.receipts.outputs);
        }
    }

    fn values<R: Record>(&self, topic: &str) -> Vec<R> {
        let values = self.log.iter().filter(|r| r.topic == topic).map(|r| r.value.as_ref().unwrap());
        values.map(|value| self.intake.wire.decode(value).unwrap()).collect()
    }

    fn receipts(&self) -> Vec<Receipt> {
        self.values(topics::RECEIPTS)
    }

    fn dead_letters(&self) -> usize {
        let of_dedup: usize = self.dedup.iter().map(|task| task.dead_letters.len()).sum();
        of_dedup
            + self.keying.dead_letters.len()
            + self.registry.dead_letters.len()
            + self.intake.dead_letters.len()
            + self.receipts.dead_letters.len()
    }
}

fn row((x, y): (i64, bool)) -> Value {
    json!({"x": x, "note": format!("write to person{x}@example.org"), "y": y})
}

/// A contribution in chunks of so many rows.
fn chunks(id: &str, contributor: &str, rows: &[(i64, bool)], size: usize) -> Vec<Value> {
    let pieces: Vec<_> = rows.chunks(size).collect();
    let chunk = |(number, rows): (usize, &&[(i64, bool)])| {
        let rows: Vec<_> = rows.iter().copied().map(row).collect();
        json!({
            "contribution_id": id, "contributor": contributor, "model": "m", "format": "json",
            "chunk": number, "chunks": pieces.len(), "rows": rows,
        })
    };
    pieces.iter().enumerate().map(chunk).collect()
}

fn refused(receipt: &Receipt) -> Vec<(&str, i64)> {
    receipt.refused.iter().map(|r| (r.reason.as_str(), r.count)).collect()
}

#[test]
fn a_signed_contract_then_two_contributors_then_their_receipts() {
    let mut path = Path::new(3);
    let audit = path.values::<Audit>(topics::AUDIT);
    assert!(audit[0].allowed, "{audit:?}");
    path.send(&chunks("a", "alice", &[(1, true), (2, true), (2, true), (99, true)], 4));
    path.send(&chunks("b", "bob", &[(1, true), (3, true), (1, false)], 2));
    let receipts = path.receipts();
    assert_eq!(refused(&receipts[0]), [("DUP_IN_BATCH", 1), ("RANGE_HIGH", 1)]);
    assert_eq!((receipts[0].received, receipts[0].accepted), (4, 2));
    assert_eq!(receipts[0].pii.iter().map(|p| (p.kind.as_str(), p.count)).collect::<Vec<_>>(), [("email_address", 3)]);
    assert_eq!((receipts[1].received, receipts[1].accepted, receipts[1].merkle_rows), (3, 2, 3));
    assert_eq!(refused(&receipts[1]), [("DUP_OTHER_OWNER", 1)]);
    assert_eq!(receipts[1].quality.flags, ["insufficient", "label_conflict:1"]);
    assert_eq!(path.dead_letters(), 0);
}

#[test]
fn no_address_is_found_behind_intake() {
    let mut path = Path::new(2);
    path.send(&chunks("a", "alice", &[(1, true), (1, true), (99, false)], 2));
    assert!(path.log.len() > 5);
    for output in &path.log {
        let value = output.value.as_deref().unwrap_or_default();
        assert!(!value.windows(12).any(|w| w == b"@example.org"), "{}", output.topic);
    }
}

#[test]
fn an_unknown_model_has_its_receipt() {
    let mut path = Path::new(1);
    let mut chunk = chunks("a", "alice", &[(1, true)], 1);
    chunk[0]["model"] = "nobody".into();
    path.send(&chunk);
    let receipts = path.receipts();
    assert_eq!((receipts[0].status.as_str(), refused(&receipts[0])), ("refused", vec![("UNKNOWN_MODEL", 1)]));
    assert_eq!(receipts[0].contract_digest, "");
}

/// What a receipt says without roots and chunks.
fn account(receipt: &Receipt) -> (String, String, i64, i64, Vec<(String, i64)>, String) {
    let refused = receipt.refused.iter().map(|r| (r.reason.clone(), r.count)).collect();
    let Receipt { contribution_id, status, received, accepted, quality, .. } = receipt;
    (contribution_id.clone(), status.clone(), *received, *accepted, refused, format!("{quality:?}"))
}

fn contributions() -> impl Strategy<Value = Vec<(u8, Vec<(i64, bool)>)>> {
    prop::collection::vec((0..3_u8, prop::collection::vec((0..95_i64, any::<bool>()), 1..40)), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_same_rows_in_other_chunks_and_shards_and_sent_twice_give_the_same_accounts(
        contributions in contributions(),
        size in 1..12_usize,
        shards in 1..5_i32,
    ) {
        let (mut whole, mut cut) = (Path::new(1), Path::new(shards));
        let mut rows_of = BTreeMap::new();
        for (i, (who, rows)) in contributions.iter().enumerate() {
            let (id, who) = (format!("c{i}"), format!("p{who}"));
            whole.send(&chunks(&id, &who, rows, usize::MAX));
            let pieces = chunks(&id, &who, rows, size);
            cut.send(&pieces);
            cut.send(&pieces);
            rows_of.insert(id, rows);
        }
        let accounts = |path: &Path| path.receipts().iter().map(account).collect::<Vec<_>>();
        prop_assert_eq!(accounts(&cut), accounts(&whole));
        prop_assert_eq!(cut.dead_letters(), 0);
        prop_assert_eq!(cut.receipts().len(), contributions.len());
        for receipt in cut.receipts() {
            prop_assert_eq!(receipt.received, receipt.accepted + receipt.refused.iter().map(|r| r.count).sum::<i64>());
        }
        let valid: BTreeSet<_> = contributions.iter().flat_map(|(_, rows)| rows).filter(|row| row.0 <= 90).collect();
        let accepted: i64 = cut.values::<Accepted>(topics::ACCEPTED).iter().map(|a| a.rows).sum();
        prop_assert_eq!(accepted, i64::try_from(valid.len()).unwrap());
    }
}

//! A tenant in memory: contributed rows with receipts, a really sealed benchmark, a baseline and a candidate that were trained on them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, UInt32Array};
use bytes::Bytes;

use super::super::*;
use crate::codec::ipc::{self, Compression};
use crate::domain::contract::Spec;
use crate::domain::keys::{KeyRing, LiveKeys, SealingKey};
use crate::domain::records::{
    Accepted, Artefact, Benchmark, ChunkId, Dataset as Named, Lineage, Model, ModelContract, ModelVersion, NamedValue,
    Quality, Receipt, ReceiptChunk, TopicEnd,
};
use crate::ml::Unattended;
use crate::ml::dataset::Dataset;
use crate::ml::declare::declaration;
use crate::sealing::filter::MatchFilter;
use crate::sealing::make::Gathered;
use crate::sealing::vault::{self, Seat};
use crate::stages::beside::Trouble;
use crate::stages::evaluation::outside::Outside as Blobs;
use crate::stages::intake::sealing::RowChecker;
use crate::stages::testing::{Task, batch};
use crate::stages::training::learn::{Way, encode, fit};
use crate::stages::training::outside::{Each, Outside as Trainer, WayBack};
use crate::stages::training::rows::Limits;
use crate::store::Digest;

const SPEC: &str = "apiVersion: hokusai/v1
kind: Model
name: m
label: late
learning: {leaveOut: [n]}
evaluation: {primary: accuracy, minimumEffect: 0.01}
attribution: ATTRIBUTION
schema:
  - name: rows
    properties:
      - {name: n, logicalType: integer, required: true, logicalTypeOptions: {minimum: 0}}
      - {name: x, logicalType: number}
      - {name: late, logicalType: integer, logicalTypeOptions: {enum: [0, 1]}}
";

fn ring() -> Arc<KeyRing> {
    let secret = |digit: &str| digit.repeat(64);
    let text = format!(
        r#"{{"version":1,"tenant":"t","tokens":[{{"id":"k1","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
        secret("1"),
        secret("2"),
        secret("3")
    );
    Arc::new(KeyRing::from_json(&text).unwrap())
}

/// A scrambled number below `most`, the same for ever.
fn scrambled(n: i64, salt: i64, most: i64) -> i64 {
    let mixed = (n + salt * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed());
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9_u64.cast_signed());
    ((mixed ^ (mixed >> 32)) >> 16).rem_euclid(most)
}

/// What a contributor's labels are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    /// They follow x in nineteen of twenty rows.
    Good,
    /// They follow nothing.
    Noise,
    /// They say the opposite.
    Wrong,
}

fn x(n: i64) -> f64 {
    scrambled(n, 1, 1_000) as f64 / 1_000.0
}

fn label(n: i64, labels: Labels) -> i64 {
    let noisy = scrambled(n, 2, 20) == 0;
    let right = i64::from((x(n) >= 0.5) != noisy);
    match labels {
        Labels::Good => right,
        Labels::Noise => scrambled(n, 3, 2),
        Labels::Wrong => 1 - right,
    }
}

fn rows(numbers: std::ops::Range<i64>, labels: Labels) -> RecordBatch {
    let hash = |n: i64| (n as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes();
    let hashes = || Arc::new(FixedSizeBinaryArray::try_from_iter(numbers.clone().map(hash)).unwrap()) as ArrayRef;
    RecordBatch::try_from_iter([
        ("_row", Arc::new(UInt32Array::from_iter_values(numbers.clone().map(|n| n as u32))) as ArrayRef),
        ("_row_hash", hashes()),
        ("_feature_hash", hashes()),
        ("n", Arc::new(Int64Array::from_iter_values(numbers.clone()))),
        ("x", Arc::new(Float64Array::from_iter_values(numbers.clone().map(x)))),
        ("late", Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| label(n, labels))))),
    ])
    .unwrap()
}

/// Topics and store in memory.
#[derive(Default)]
pub(super) struct Shelf {
    topics: Mutex<BTreeMap<&'static str, Vec<Vec<u8>>>>,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(super) published: Mutex<BTreeMap<String, WayBack>>,
    /// Readings that fail before one succeeds.
    pub(super) failures: Mutex<u32>,
}

impl Shelf {
    fn put<R: crate::domain::records::Record>(&self, topic: &'static str, record: &R) {
        self.topics.lock().unwrap().entry(topic).or_default().push(Wire::default().encode(record).unwrap());
    }

    fn blob(&self, bytes: &[u8]) -> Artefact {
        let digest = Digest::of(bytes).to_string();
        self.blobs.lock().unwrap().insert(digest.clone(), bytes.to_vec());
        Artefact { digest, size: bytes.len() as i64, media_type: "x".to_owned() }
    }
}

impl Trainer for Shelf {
    fn ends(&self) -> Result<Vec<TopicEnd>, Trouble> {
        let topics = self.topics.lock().unwrap();
        let end = |topic: &&str| topics.get(topic).map_or(0, Vec::len) as i64;
        let ends = [topics::ACCEPTED, topics::RECEIPTS].iter().map(|topic| (topic, end(topic)));
        Ok(ends.map(|(topic, end)| TopicEnd { topic: (*topic).to_owned(), partition: 0, end }).collect())
    }

    fn reference(&self, digest: &str) -> Result<bytes::Bytes, Trouble> {
        let bytes = self.blobs.lock().unwrap().get(digest).cloned();
        Ok(bytes.ok_or_else(|| Refusal::new("REFERENCE_MISSING", "not there"))?.into())
    }

    fn read(&self, topic: &str, ends: &[TopicEnd], each: &mut Each<'_>) -> Result<(), Trouble> {
        let end = ends.iter().find(|end| end.topic == topic).map_or(0, |end| end.end as usize);
        let values = self.topics.lock().unwrap().get(topic).cloned().unwrap_or_default();
        values.iter().take(end).try_for_each(|value| each(value))
    }

    fn filter(&self, _filter: &Artefact) -> Result<MatchFilter, Trouble> {
        unreachable!("nothing is sealed from the rows of these tests")
    }

    fn fetch(&self, _blob: &Artefact, _most: u64) -> Result<bytes::Bytes, Trouble> {
        Err(Refusal::new("ARTEFACT_MISSING", "a game asks for no artefact here").into())
    }

    fn keep(&self, _artefact: bytes::Bytes) -> Result<(), Trouble> {
        unreachable!("an attribution keeps no artefact")
    }

    fn checkpoint(&self, _run_id: &str, _bytes: Vec<u8>) -> Result<(), Trouble> {
        unreachable!("nor a checkpoint")
    }

    fn checkpointed(&self, _run_id: &str) -> Result<Option<Vec<u8>>, Trouble> {
        unreachable!()
    }

    fn forget(&self, _run_id: &str) -> Result<(), Trouble> {
        unreachable!()
    }

    fn publish(&self, model: &str, digest: &str, way: &WayBack) -> Result<(), Trouble> {
        self.published.lock().unwrap().entry(format!("{model} {digest}")).or_insert_with(|| way.clone());
        Ok(())
    }

    fn published(&self, model: &str, digest: &str) -> Result<Option<WayBack>, Trouble> {
        Ok(self.published.lock().unwrap().get(&format!("{model} {digest}")).cloned())
    }
}

impl Blobs for Shelf {
    fn blob(&self, artefact: &Artefact, _most: u64, code: &'static str) -> Result<Bytes, Trouble> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(Trouble::Passing("the store is away".to_owned()));
        }
        let found = self.blobs.lock().unwrap().get(&artefact.digest).cloned();
        found.map(Bytes::from).ok_or_else(|| Refusal::new(code, "not there").into())
    }

    fn keep(&self, _evaluation_id: &str, _sealed: Vec<u8>) -> Result<(), Trouble> {
        unreachable!("nothing is withheld")
    }
}

/// A tenant.
pub(super) struct World {
    pub(super) shelf: Arc<Shelf>,
    key: Arc<SealingKey>,
    spec: Spec,
    pub(super) model: Model,
    /// What an attribution may keep in memory of receipts and rows.
    pub(super) most_bytes: usize,
    numbers: i64,
    contributions: u32,
}

impl World {
    /// A tenant whose contract has this section `attribution`.
    pub(super) fn new(attribution: &str) -> Self {
        Self::comparing("primary: accuracy", attribution)
    }

    /// The same, whose section `evaluation` begins like this.
    pub(super) fn comparing(evaluation: &str, attribution: &str) -> Self {
        let text = SPEC.replace("primary: accuracy", evaluation).replace("ATTRIBUTION", attribution);
        let spec = Spec::parse_yaml(&text, "f").unwrap();
        let contract = ModelContract {
            digest: spec.contract_digest().unwrap(),
            revision: 1,
            spec: spec.canonical_json().unwrap(),
        };
        let model = Model {
            model: "m".to_owned(),
            contract_digest: contract.digest.clone(),
            contracts: vec![contract],
            ..Model::default()
        };
        let key = Arc::new(SealingKey::new("e1").unwrap());
        let mut world =
            Self { shelf: Arc::default(), key, spec, model, most_bytes: 1 << 30, numbers: 100_000, contributions: 0 };
        world.seal();
        world
    }

    fn seal(&mut self) {
        let rows = (0..400).map(|n| serde_json::json!({"n": n, "x": x(n), "late": label(n, Labels::Good)}).to_string());
        let lines: Vec<String> = rows.collect();
        let checker = RowChecker::new(self.spec.clone(), ring()).unwrap();
        let mut gathered = Gathered::default();
        gathered.add(checker.check("json", lines.join("\n").into_bytes(), 0).unwrap()).unwrap();
        let made = gathered.make(&self.spec, ring().tree_key(), None).unwrap();
        let root = data_encoding::HEXLOWER.encode(&made.root);
        let mut benchmark = Benchmark {
            benchmark: "holdout@1".to_owned(),
            model: "m".to_owned(),
            contract_digest: self.model.contract_digest.clone(),
            rows: 400,
            rows_root: root.clone(),
            family: root,
            label_commitment: data_encoding::HEXLOWER.encode(&made.label_commitment),
            ..Benchmark::default()
        };
        let blob = vault::seal(&made.rows, Seat::of(&benchmark), self.key.public()).unwrap();
        benchmark.sealed_rows = self.shelf.blob(&blob);
        self.model.benchmarks.push(benchmark);
    }

    /// A contribution of so many rows with its receipt.
    pub(super) fn contribute(&mut self, contributor: &str, count: i64, labels: Labels, signed: bool) {
        self.contributions += 1;
        let (id, chunk_digest) = (format!("c-{}", self.contributions), format!("digest {}", self.contributions));
        let batch = rows(self.numbers..self.numbers + count, labels);
        self.numbers += count;
        let accepted = Accepted {
            id: ChunkId {
                contribution_id: id.clone(),
                contributor: contributor.to_owned(),
                model: "m".to_owned(),
                contract_digest: self.model.contract_digest.clone(),
                chunk: 0,
                chunk_digest: chunk_digest.clone(),
                passed: String::new(),
            },
            shard: 0,
            part: 0,
            rows: count,
            batch: ipc::write(&batch, Compression::Lz4).unwrap(),
        };
        self.shelf.put(topics::ACCEPTED, &accepted);
        let quality = Quality {
            formula: "1".to_owned(),
            score: None,
            validity_lower: None,
            gate: String::new(),
            flags: Vec::new(),
            dimensions: Vec::new(),
        };
        let bound = vec![ReceiptChunk { chunk: 0, chunk_digest, rows: count, root: "00".to_owned() }];
        let receipt = Receipt {
            contribution_id: id,
            contributor: contributor.to_owned(),
            model: "m".to_owned(),
            contract_digest: self.model.contract_digest.clone(),
            status: "admitted".to_owned(),
            received: count,
            accepted: count,
            refused: Vec::new(),
            quality,
            pii: Vec::new(),
            merkle_root: "00".to_owned(),
            merkle_rows: count,
            chunks: 1,
            bound,
            chunks_digest: String::new(),
            last_appended: 0,
            contributor_verified: signed,
            contributor_signature: signed.then(|| "eip191".to_owned()),
            leaf: String::new(),
        };
        self.shelf.put(topics::RECEIPTS, &receipt);
    }

    /// Trains a version on everything that was contributed so far.
    pub(super) fn train(&mut self, version: &str, parameters: &[(&str, &str)]) {
        let declared = declaration(&self.spec).unwrap();
        let ends = Trainer::ends(&*self.shelf).unwrap();
        let wanted = crate::stages::training::rows::Wanted {
            model: "m",
            declared: &declared,
            ends: &ends,
            sealed: &[],
            owner: None,
        };
        let read =
            crate::stages::training::rows::read(&*self.shelf, &Wire::default(), wanted, Limits::default(), &|| false);
        let dataset = Dataset::assemble(read.unwrap().batches).unwrap();
        let digest = data_encoding::HEXLOWER.encode(&dataset.root);
        self.shelf.publish("m", &digest, &WayBack { ends, sealed: Vec::new() }).unwrap();
        let learner = crate::ml::learner("linear").unwrap();
        let given = parameters.iter().map(|(name, value)| ((*name).to_owned(), serde_json::from_str(value).unwrap()));
        let complete = learner.parameters(&given.collect()).unwrap();
        let prepared = encode(&declared, Named::default(), dataset.rows, dataset.row_keys).unwrap();
        let way = Way { algorithm: "linear", parameters: &complete, seed: 7, threads: 1 };
        let fitted = fit(&prepared, &declared.task, &way, ("r", None), &mut Unattended).unwrap().unwrap();
        let artefact = self.shelf.blob(&prepared.model(&declared.task, fitted.learned.predictor).to_bytes());
        let pair = |name: &str, value: String| NamedValue { name: name.to_owned(), value };
        let mut params: Vec<NamedValue> =
            complete.as_object().unwrap().iter().map(|(name, value)| pair(name, value.to_string())).collect();
        params.extend([pair("algorithm", "linear".to_owned()), pair("seed", "7".to_owned())]);
        params.sort();
        self.model.versions.push(ModelVersion {
            version: version.to_owned(),
            stage: "dev".to_owned(),
            artefact,
            contract_digest: self.model.contract_digest.clone(),
            lineage: Lineage {
                dataset: Some(Named { digest, ..Named::default() }),
                run_id: Some(format!("run {version}")),
                ..Lineage::default()
            },
            params,
            ..ModelVersion::default()
        });
    }

    /// The evaluation that accepted the last version against the first.
    pub(super) fn accepted(&self) -> Evaluation {
        let (base, candidate) = (&self.model.versions[0], self.model.versions.last().unwrap());
        Evaluation {
            evaluation_id: "e-1".to_owned(),
            run_id: candidate.lineage.run_id.clone().unwrap(),
            model: "m".to_owned(),
            benchmark: "holdout@1".to_owned(),
            candidate: candidate.artefact.digest.clone(),
            baseline: base.artefact.digest.clone(),
            baseline_version: base.version.clone(),
            recipe_digest: "07".repeat(32),
            status: Evaluation::ACCEPTED.to_owned(),
            metric: "accuracy".to_owned(),
            statement: "0c".repeat(32),
            ..Evaluation::default()
        }
    }

    pub(super) fn task(&self, threads: usize) -> Task<Attribution> {
        let stage = Attribution::new(Desk {
            trainer: self.shelf.clone(),
            blobs: self.shelf.clone(),
            key: self.key.clone(),
            keys: LiveKeys::from(ring()),
            wire: Wire::default(),
            limits: Limits { threads, bytes: self.most_bytes, ..Limits::default() },
            bench: Arc::default(),
        });
        let mut task = Task::new(stage, 0, &[]);
        self.tell(&mut task);
        task
    }

    /// The model as it is now comes to the task.
    pub(super) fn tell(&self, task: &mut Task<Attribution>) {
        let wire = Wire::default();
        task.stage.broadcast(topics::MODELS, b"m", Some(&wire.encode(&self.model).unwrap()), &wire).unwrap();
    }

    /// What comes of an evaluation.
    pub(super) fn attribute(&self, evaluation: &Evaluation) -> (Record, Option<Statement>) {
        let mut task = self.task(1);
        feed(&mut task, 0, evaluation);
        work_off(&mut task);
        (task.values(topics::ATTRIBUTIONS).pop().unwrap(), statements(&task).pop())
    }
}

pub(super) fn feed(task: &mut Task<Attribution>, offset: i64, evaluation: &Evaluation) {
    task.commit(&[batch(topics::EVALUATIONS, 0, offset, 0, std::slice::from_ref(evaluation))]).unwrap();
}

/// Transactions until nothing is owed.
pub(super) fn work_off(task: &mut Task<Attribution>) {
    loop {
        if task.stage.owes(&task.state).unwrap() {
            task.commit(&[]).unwrap();
        } else if task.stage.work.is_none() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn statements(task: &Task<Attribution>) -> Vec<Statement> {
    let requests = task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS);
    let read = requests.iter().map(|request| match Signed::read(&request.statement).unwrap().predicate {
        Predicate::Attribution(told) => *told,
        other => panic!("{other:?}"),
    });
    read.collect()
}

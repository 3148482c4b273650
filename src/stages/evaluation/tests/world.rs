//! A tenant in memory: keys, a store with models and really sealed rows, and a task with the topic before it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde_json::json;

use super::super::*;
use crate::attest::statement::{Predicate, Statement};
use crate::domain::contract::Spec;
use crate::domain::keys::KeyRing;
use crate::domain::records::{Artefact, Benchmark, Model, ModelContract, Position};
use crate::ml::declare::declaration;
use crate::ml::encoding::Encoding;
use crate::ml::{Training, Unattended, arrow as columns, learner};
use crate::sealing::make::Gathered;
use crate::sealing::strata::Wanted;
use crate::sealing::vault::{self, Seat};
use crate::stages::beside::Trouble;
use crate::stages::intake::sealing::RowChecker;
use crate::stages::testing::{Task, batch};
use crate::store::Digest;

pub(crate) const SPEC: &str = "apiVersion: hokusai/v1
kind: Model
name: m
label: late
learning: {leaveOut: [n]}
evaluation:
  primary: accuracy
  minimumEffect: 0.01
  margins: {accuracy: 0.1, log_loss: 0.2}
  guardrails: [{metric: log_loss}]
  strata: [{column: region}, {column: half}]
schema:
  - name: rows
    properties:
      - {name: n, logicalType: integer, required: true, logicalTypeOptions: {minimum: 0}}
      - {name: x, logicalType: number}
      - {name: region, logicalType: string}
      - {name: half, logicalType: integer, logicalTypeOptions: {enum: [0, 1]}}
      - {name: late, logicalType: integer, logicalTypeOptions: {enum: [0, 1]}}
";

/// The contract with declared metrics, of which one decides or guards.
pub(crate) fn declaring(primary: &str, guardrail: &str, value: &str) -> Spec {
    let text = SPEC
        .replace("primary: accuracy", &format!("primary: {primary}"))
        .replace("{accuracy: 0.1, ", &format!("{{{primary}: 0.5, "))
        .replace("[{metric: log_loss}]", guardrail)
        .replace(
            "  strata:",
            &format!("  metrics:\n    - {{name: own, direction: lower, unit: EUR, value: \"{value}\"}}\n  strata:"),
        );
    Spec::parse_yaml(&text, "f").unwrap()
}

pub(crate) fn spec() -> Spec {
    Spec::parse_yaml(SPEC, "f").unwrap()
}

pub(crate) fn ring() -> Arc<KeyRing> {
    let text = format!(
        r#"{{"version":1,"tenant":"t","tokens":[{{"id":"k1","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
        "1".repeat(64),
        "2".repeat(64),
        "3".repeat(64)
    );
    Arc::new(KeyRing::from_json(&text).unwrap())
}

/// A scrambled number below `most`, the same for ever.
pub(crate) fn scrambled(n: i64, salt: i64, most: i64) -> i64 {
    let round = |value: i64| {
        let mixed = value.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed());
        mixed ^ (mixed >> 29)
    };
    (round(round(n.wrapping_add(salt.wrapping_mul(1_000_003)))) >> 20).rem_euclid(most)
}

/// The label follows x in nine of ten rows.
pub(crate) fn row(n: i64) -> serde_json::Value {
    let x = scrambled(n, 1, 1_000);
    let late = i64::from((x >= 500) != (scrambled(n, 2, 10) == 0));
    let region = if scrambled(n, 3, 2) == 0 { "north" } else { "south" };
    json!({"n": n, "x": x as f64 / 1_000.0, "region": region, "half": scrambled(n, 4, 2), "late": late})
}

pub(crate) fn checked(rows: &[serde_json::Value]) -> crate::stages::intake::sealing::CheckedRows {
    let lines: Vec<String> = rows.iter().map(serde_json::Value::to_string).collect();
    RowChecker::new(spec(), ring()).unwrap().check("json", lines.join("\n").into_bytes(), 0).unwrap()
}

/// A model of rows, whose labels may be scrambled.
pub(crate) fn learned(rows: RecordBatch, scramble: Option<i64>) -> Vec<u8> {
    let declared = declaration(&spec()).unwrap();
    let frame = columns::frame_of(std::slice::from_ref(&rows), &declared.features).unwrap();
    let encoding = Encoding::compile(&declared.features, &frame).unwrap();
    let features = encoding.encode(&frame).unwrap();
    let labels = columns::labels(&[rows], &declared.label, &declared.task).unwrap();
    let label = |(n, own): (i64, Option<f64>)| match scramble {
        Some(salt) => scrambled(n, salt, 2) as f64,
        None => own.unwrap(),
    };
    let labels: Vec<f64> = (0..).zip(labels).map(label).collect();
    let row_keys: Vec<u64> = (0..labels.len() as u64).collect();
    let learner = learner("linear").unwrap();
    let parameters = learner.parameters(&serde_json::Map::new()).unwrap();
    let training = Training {
        features: &features,
        labels: &labels,
        task: &declared.task,
        row_keys: &row_keys,
        fold: &crate::ml::fold::Fold::Rows,
        seed: 1,
        threads: 1,
        warm: None,
    };
    let predictor = learner.learn(&training, &parameters, None, &mut Unattended).unwrap().predictor;
    crate::ml::model::Model { task: declared.task, encoding, predictor }.to_bytes()
}

/// A store in memory.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(crate) kept: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Readings that fail before one succeeds.
    pub(crate) failures: Mutex<u32>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    pub(crate) fn put(&self, bytes: &[u8]) -> Artefact {
        let digest = Digest::of(bytes).to_string();
        lock(&self.blobs).insert(digest.clone(), bytes.to_vec());
        Artefact { digest, size: bytes.len() as i64, media_type: "x".to_owned() }
    }
}

impl Outside for Shelf {
    fn blob(&self, artefact: &Artefact, _most: u64, code: &'static str) -> Result<Bytes, Trouble> {
        let mut failures = lock(&self.failures);
        if *failures > 0 {
            *failures -= 1;
            return Err(Trouble::Passing("the store is away".to_owned()));
        }
        let found = lock(&self.blobs).get(&artefact.digest).cloned();
        found.map(Bytes::from).ok_or_else(|| Refusal::new(code, "not there").into())
    }

    fn keep(&self, evaluation_id: &str, sealed: Vec<u8>) -> Result<(), Trouble> {
        lock(&self.kept).entry(evaluation_id.to_owned()).or_insert(sealed);
        Ok(())
    }
}

/// A tenant: keys, a store with models, and a model with sealed benchmarks.
pub(crate) struct World {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) key: Arc<SealingKey>,
    pub(crate) model: Model,
    pub(crate) noise: Artefact,
    pub(crate) other_noise: Artefact,
    pub(crate) good: Artefact,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::under(&spec())
    }

    /// Under a contract of the same columns that compares in its own way.
    pub(crate) fn under(spec: &Spec) -> Self {
        let shelf = Arc::new(Shelf::default());
        let key = Arc::new(SealingKey::new("e1").unwrap());
        let contract = ModelContract {
            digest: spec.contract_digest().unwrap(),
            revision: 1,
            spec: spec.canonical_json().unwrap(),
        };
        let train: Vec<_> = (10_000..10_400).map(row).collect();
        let train = checked(&train).rows;
        let (noise, other_noise) = (learned(train.clone(), Some(77)), learned(train.clone(), Some(78)));
        let (noise, other_noise) = (shelf.put(&noise), shelf.put(&other_noise));
        let good = shelf.put(&learned(train, None));
        let mut world = Self {
            shelf,
            key,
            model: Model {
                model: "m".to_owned(),
                contract_digest: contract.digest.clone(),
                contracts: vec![contract],
                ..Model::default()
            },
            noise,
            other_noise,
            good,
        };
        world.seal("holdout@1", 0..600);
        world.seal("other@1", 2_000..2_600);
        world
    }

    pub(crate) fn seal(&mut self, name: &str, rows: std::ops::Range<i64>) {
        let rows: Vec<_> = rows.map(row).collect();
        let mut gathered = Gathered::default();
        gathered.add(checked(&rows)).unwrap();
        let wanted = Wanted { columns: vec!["region".to_owned(), "half".to_owned()], margin: 0.1, deviation: 0.4 };
        let made = gathered.make(&spec(), ring().tree_key(), Some(&wanted)).unwrap();
        let root = data_encoding::HEXLOWER.encode(&made.root);
        let mut benchmark = Benchmark {
            benchmark: name.to_owned(),
            model: "m".to_owned(),
            contract_digest: self.model.contract_digest.clone(),
            rows: rows.len() as i64,
            rows_root: root.clone(),
            family: root,
            label_commitment: data_encoding::HEXLOWER.encode(&made.label_commitment),
            strata: made.strata.strata.clone(),
            ..Benchmark::default()
        };
        let blob = vault::seal(&made.rows, Seat::of(&benchmark), self.key.public()).unwrap();
        benchmark.sealed_rows = self.shelf.put(&blob);
        self.model.benchmarks.push(benchmark);
    }

    pub(crate) fn stage(&self) -> Evaluation {
        let mut stage = Evaluation::new(EvaluationConfig {
            outside: self.shelf.clone(),
            evaluation_key: self.key.clone(),
            keys: LiveKeys::from(ring()),
            trust: LiveTrust::default(),
            key: SigningKey::from_bytes(&[7; 32]),
            threads: 1,
            bench: Arc::default(),
        });
        let wire = Wire::default();
        stage.broadcast(topics::MODELS, b"m", Some(&wire.encode(&self.model).unwrap()), &wire).unwrap();
        stage
    }

    pub(crate) fn desk(&self) -> Desk {
        Desk { task: Task::new(self.stage(), 0, &[]), offset: 0, told: 0, acknowledged: 0 }
    }

    /// The facts of an attempt, as its owner puts them together again.
    pub(crate) fn case(&self, request: &EvaluationRequest, record: &Record) -> Case {
        Case {
            family: request.family.clone(),
            number: record.attempt as u64,
            evaluation_id: record.evaluation_id.clone(),
            attempt: request.attempt.clone().unwrap(),
            benchmark: self.model.benchmarks[0].clone(),
            spec: self.model.contracts[0].spec.clone(),
            metric: record.metric.clone(),
            minimum_effect: 10_000,
            preregistration: record.preregistration.clone(),
            preregistered: String::new(),
        }
    }

    pub(crate) fn opened(
        &self,
        request: &EvaluationRequest,
        record: &Record,
        tree_key: &crate::domain::keys::MacKey,
    ) -> Result<score::Opened, Refusal> {
        let case = self.case(request, record);
        let blob = |artefact: &Artefact| Bytes::from(lock(&self.shelf.blobs)[&artefact.digest].clone());
        let blobs = score::Blobs {
            rows: blob(&case.benchmark.sealed_rows),
            baseline: blob(&case.attempt.baseline),
            candidate: blob(&case.attempt.candidate),
        };
        score::open(&case, &blobs, (&self.key, tree_key), 0, 1)
    }

    pub(crate) fn family(&self, number: usize) -> String {
        self.model.benchmarks[number].family.clone()
    }

    /// Asks for an evaluation of a candidate beside a baseline on the first benchmark.
    pub(crate) fn ask(&self, id: &str, candidate: &Artefact, baseline: &Artefact) -> EvaluationRequest {
        let recipe_digest = data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(id));
        let attempt = EvaluationAttempt {
            request_id: id.to_owned(),
            position: Position { topic: topics::TRAINING_REQUESTS.to_owned(), partition: 0, offset: 3 },
            run_id: format!("run {id}"),
            model: "m".to_owned(),
            benchmark: "holdout@1".to_owned(),
            contract_digest: self.model.contract_digest.clone(),
            candidate: candidate.clone(),
            baseline: baseline.clone(),
            baseline_version: "1.0.0".to_owned(),
            recipe_digest,
            dataset: None,
            requested_at: 1_700_000_000_123,
        };
        asked(self.family(0), attempt)
    }
}

pub(crate) fn asked(family: String, attempt: EvaluationAttempt) -> EvaluationRequest {
    let evaluation_id = Record::id(&attempt.model, &attempt.benchmark, &attempt.recipe_digest);
    EvaluationRequest { family, evaluation_id, attempt: Some(attempt), ..EvaluationRequest::default() }
}

/// A task with the topic before it: what the stage and the log write there comes back to it.
pub(crate) struct Desk {
    pub(crate) task: Task<Evaluation>,
    pub(crate) offset: i64,
    pub(crate) told: usize,
    pub(crate) acknowledged: usize,
}

pub(crate) fn checkpoint(size: u64) -> String {
    let head = Checkpoint { origin: "hokusai/t/00".to_owned(), size, root: [9; 32] };
    head.sign(&SigningKey::from_bytes(&[8; 32])).unwrap().to_string()
}

impl Desk {
    pub(crate) fn feed(&mut self, request: EvaluationRequest) {
        let requests = [request];
        self.task.commit(&[batch(topics::EVALUATION_REQUESTS, 0, self.offset, 0, &requests)]).unwrap();
        self.offset += 1;
    }

    /// The acknowledgements of what was preregistered since the last call, as attesting sends them.
    pub(crate) fn acknowledgements(&mut self) -> Vec<EvaluationRequest> {
        let all = self.task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS);
        let new = all.into_iter().enumerate().skip(self.acknowledged);
        let made = new.filter_map(|(index, request)| {
            let Predicate::Preregistration(laid) = Statement::read(&request.statement).unwrap().predicate else {
                assert_eq!(request.acknowledge, None);
                return None;
            };
            assert_eq!(request.acknowledge.as_ref(), Some(&laid.evaluation_id));
            let acknowledgement = EvaluationAcknowledgement {
                leaf: data_encoding::HEXLOWER.encode(&leaf_of(&request.statement)),
                index: index as i64,
                checkpoint: checkpoint(index as u64 + 1),
            };
            Some(EvaluationRequest {
                family: laid.attempt.family,
                evaluation_id: laid.evaluation_id,
                acknowledgement: Some(acknowledgement),
                ..EvaluationRequest::default()
            })
        });
        let made: Vec<_> = made.collect();
        self.acknowledged = self.task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS).len();
        made
    }

    /// Transactions until nothing is to be scored and every outcome has come back.
    pub(crate) fn work_off(&mut self) {
        loop {
            while !self.task.state.scan_prefix(b"s", 1).unwrap().is_empty() {
                if self.task.stage.owes(&self.task.state).unwrap() {
                    self.task.commit(&[]).unwrap();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let outcomes = self.task.values::<EvaluationRequest>(topics::EVALUATION_REQUESTS);
            let Some(next) = outcomes.get(self.told).cloned() else { return };
            self.told += 1;
            self.feed(next);
        }
    }

    pub(crate) fn evaluate(&mut self, request: EvaluationRequest) -> Record {
        self.feed(request);
        for acknowledgement in self.acknowledgements() {
            self.feed(acknowledgement);
        }
        self.work_off();
        self.records().pop().unwrap()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.task.values(topics::EVALUATIONS)
    }

    pub(crate) fn payloads(&self) -> Vec<Vec<u8>> {
        let requests = self.task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS);
        requests.into_iter().map(|request| request.statement).collect()
    }

    pub(crate) fn statements(&self) -> Vec<Predicate> {
        self.payloads().iter().map(|payload| Statement::read(payload).unwrap().predicate).collect()
    }
}

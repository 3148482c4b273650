//! The stage without Kafka: real models, really sealed rows, a store in memory.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::attest::dsse::Envelope;
use crate::attest::statement::{Predicate, Statement};
use crate::domain::contract::Spec;
use crate::domain::keys::KeyRing;
use crate::domain::records::{Artefact, Benchmark, ModelContract, Position, RegistryEvent};
use crate::ml::declare::declaration;
use crate::ml::encoding::Encoding;
use crate::ml::{Training, Unattended, arrow as columns, learner};
use crate::sealing::make::Gathered;
use crate::sealing::strata::Wanted;
use crate::sealing::vault::{self, Seat};
use crate::stages::intake::sealing::RowChecker;
use crate::stages::testing::{End, Task, batch};
use crate::stages::training::outside::Trouble;
use crate::store::Digest;

const SPEC: &str = "apiVersion: hokusai/v1
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

fn spec() -> Spec {
    Spec::parse_yaml(SPEC, "f").unwrap()
}

fn ring() -> Arc<KeyRing> {
    let text = format!(
        r#"{{"version":1,"tenant":"t","tokens":[{{"id":"k1","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
        "1".repeat(64),
        "2".repeat(64),
        "3".repeat(64)
    );
    Arc::new(KeyRing::from_json(&text).unwrap())
}

/// A scrambled number below `most`, the same for ever.
fn scrambled(n: i64, salt: i64, most: i64) -> i64 {
    let round = |value: i64| {
        let mixed = value.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed());
        mixed ^ (mixed >> 29)
    };
    (round(round(n.wrapping_add(salt.wrapping_mul(1_000_003)))) >> 20).rem_euclid(most)
}

/// The label follows x in nine of ten rows.
fn row(n: i64) -> serde_json::Value {
    let x = scrambled(n, 1, 1_000);
    let late = i64::from((x >= 500) != (scrambled(n, 2, 10) == 0));
    let region = if scrambled(n, 3, 2) == 0 { "north" } else { "south" };
    json!({"n": n, "x": x as f64 / 1_000.0, "region": region, "half": scrambled(n, 4, 2), "late": late})
}

fn checked(rows: &[serde_json::Value]) -> crate::stages::intake::sealing::CheckedRows {
    let lines: Vec<String> = rows.iter().map(serde_json::Value::to_string).collect();
    RowChecker::new(spec(), ring()).unwrap().check("json", lines.join("\n").into_bytes(), 0).unwrap()
}

/// A model of rows, whose labels may be scrambled.
fn learned(rows: RecordBatch, scramble: Option<i64>) -> Vec<u8> {
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
        seed: 1,
        threads: 1,
    };
    let predictor = learner.learn(&training, &parameters, None, &mut Unattended).unwrap().predictor;
    crate::ml::model::Model { task: declared.task, encoding, predictor }.to_bytes()
}

/// A store in memory.
#[derive(Default)]
struct Shelf {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    kept: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Readings that fail before one succeeds.
    failures: Mutex<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    fn put(&self, bytes: &[u8]) -> Artefact {
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
struct World {
    shelf: Arc<Shelf>,
    key: Arc<SealingKey>,
    model: Model,
    noise: Artefact,
    other_noise: Artefact,
    good: Artefact,
}

impl World {
    fn new() -> Self {
        let shelf = Arc::new(Shelf::default());
        let key = Arc::new(SealingKey::new("e1").unwrap());
        let contract = ModelContract {
            digest: spec().contract_digest().unwrap(),
            revision: 1,
            spec: spec().canonical_json().unwrap(),
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

    fn seal(&mut self, name: &str, rows: std::ops::Range<i64>) {
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

    fn stage(&self) -> Evaluation {
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

    fn desk(&self) -> Desk {
        Desk { task: Task::new(self.stage(), 0, &[]), offset: 0, told: 0, acknowledged: 0 }
    }

    fn family(&self, number: usize) -> String {
        self.model.benchmarks[number].family.clone()
    }

    /// Asks for an evaluation of a candidate beside a baseline on the first benchmark.
    fn ask(&self, id: &str, candidate: &Artefact, baseline: &Artefact) -> EvaluationRequest {
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
        };
        asked(self.family(0), attempt)
    }
}

fn asked(family: String, attempt: EvaluationAttempt) -> EvaluationRequest {
    let evaluation_id = Record::id(&attempt.model, &attempt.benchmark, &attempt.recipe_digest);
    EvaluationRequest { family, evaluation_id, attempt: Some(attempt), ..EvaluationRequest::default() }
}

/// A task with the topic before it: what the stage and the log write there comes back to it.
struct Desk {
    task: Task<Evaluation>,
    offset: i64,
    told: usize,
    acknowledged: usize,
}

fn checkpoint(size: u64) -> String {
    let head = Checkpoint { origin: "hokusai/t/00".to_owned(), size, root: [9; 32] };
    head.sign(&SigningKey::from_bytes(&[8; 32])).unwrap().to_string()
}

impl Desk {
    fn feed(&mut self, request: EvaluationRequest) {
        let requests = [request];
        self.task.commit(&[batch(topics::EVALUATION_REQUESTS, 0, self.offset, 0, &requests)]).unwrap();
        self.offset += 1;
    }

    /// The acknowledgements of what was preregistered since the last call, as attesting sends them.
    fn acknowledgements(&mut self) -> Vec<EvaluationRequest> {
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
    fn work_off(&mut self) {
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

    fn evaluate(&mut self, request: EvaluationRequest) -> Record {
        self.feed(request);
        for acknowledgement in self.acknowledgements() {
            self.feed(acknowledgement);
        }
        self.work_off();
        self.records().pop().unwrap()
    }

    fn records(&self) -> Vec<Record> {
        self.task.values(topics::EVALUATIONS)
    }

    fn statements(&self) -> Vec<Predicate> {
        let requests = self.task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS);
        requests.iter().map(|request| Statement::read(&request.statement).unwrap().predicate).collect()
    }
}

#[test]
fn a_real_improvement_is_accepted_and_tells_by_how_much_behind_its_preregistration() {
    let world = World::new();
    let mut desk = world.desk();
    let record = desk.evaluate(world.ask("r", &world.good, &world.noise));
    assert_eq!((record.status.as_str(), record.attempt), (Record::ACCEPTED, 1), "{record:?}");
    assert_eq!((record.alpha.as_str(), record.metric.as_str()), ("0.030396355092", "accuracy"));
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<f64>().unwrap();
    let (base, cand, delta) = (number(&record.baseline_value), number(&record.candidate_value), number(&record.delta));
    assert!((cand - base - delta).abs() < 1e-9 && delta > 0.2 && number(&record.lower) > 0.0, "{record:?}");
    assert!(number(&record.p_value) < 0.03 && record.strata.len() == 4, "{record:?}");
    assert!(record.strata.iter().all(|stratum| stratum.passed && stratum.rows > 200), "{record:?}");
    // The Ladder's first rung is the candidate's value, rounded to the minimum effect.
    let ladder = number(&record.ladder_score);
    assert!((ladder - cand).abs() <= 0.005 && (ladder * 100.0 - (ladder * 100.0).round()).abs() < 1e-9, "{record:?}");

    let statements = desk.statements();
    let [Predicate::Preregistration(laid), Predicate::Evaluation(told)] = statements.as_slice() else { panic!() };
    assert_eq!(
        (laid.test.as_str(), laid.attempt.number, laid.minimum_effect_ppm.as_str()),
        ("mcnemar_exact", 1, "10000")
    );
    assert_eq!((laid.guardrails.len(), laid.strata.len(), &laid.attempt), (1, 4, &told.attempt));
    assert_eq!((&told.preregistration, &told.withheld), (&record.preregistration, &None));
    let full = told.record.as_ref().unwrap();
    let (alone, n) = (full.counts.clone().unwrap(), full.n);
    let from_counts = (alone.candidate_only - alone.baseline_only) as f64 / n as f64;
    assert!((from_counts - delta).abs() < 2e-6 && n == 600, "{alone:?}");

    let events = desk.task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS);
    let [(_, key, event)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((key.as_slice(), event.kind.as_str()), (&b"m"[..], RegistryEvent::RESULT));
    let envelope = Envelope::from_json(event.envelope.as_bytes()).unwrap();
    assert!(envelope.is_signed_by(&SigningKey::from_bytes(&[7; 32]).verifying_key()));
    let Finding::Evaluation(found) = result::read(&envelope).unwrap().found else { panic!() };
    assert_eq!(
        (found.status.as_str(), &found.delta, found.statement),
        ("accepted", &record.delta, Some(record.statement))
    );
}

#[test]
fn a_refused_attempt_tells_nothing_but_its_number_level_reasons_and_the_ladder() {
    let world = World::new();
    let mut desk = world.desk();
    let record = desk.evaluate(world.ask("r", &world.other_noise, &world.good));
    assert_eq!((record.status.as_str(), record.attempt), (Record::REFUSED, 1), "{record:?}");
    assert!(record.reasons.contains(&"NOT_SIGNIFICANT".to_owned()) && record.reasons.is_sorted(), "{record:?}");
    let figures = [&record.baseline_value, &record.candidate_value, &record.delta, &record.lower, &record.p_value];
    assert!(figures.iter().all(|figure| figure.is_none()) && record.strata.is_empty() && record.detail.is_empty());
    let ladder = record.ladder_score.clone().unwrap();
    assert!(ladder.ends_with("0000"), "rounded to the minimum effect of 0.01: {ladder}");
    // The statement binds the full record by a salted digest, and the owner can open what is kept.
    let Some(Predicate::Evaluation(told)) = desk.statements().pop() else { panic!() };
    assert_eq!((told.record, &told.reasons), (None, &record.reasons));
    let id = record.evaluation_id.as_str();
    let kept = lock(&world.shelf.kept)[id].clone();
    let opened = world.key.open(&work::record_info(id), &kept).unwrap();
    let opened: serde_json::Value = serde_json::from_slice(&opened).unwrap();
    let salt: [u8; 16] =
        data_encoding::HEXLOWER.decode(opened["salt"].as_str().unwrap().as_bytes()).unwrap().try_into().unwrap();
    let bytes = serde_json_canonicalizer::to_vec(&opened["record"]).unwrap();
    assert_eq!(told.withheld, Some(withheld(&salt, &bytes)));
    let exact = opened["record"]["metrics"][0]["candidatePpm"].as_str().unwrap();
    let published: Vec<u8> = desk.task.outputs.iter().flat_map(|out| out.value.clone().unwrap_or_default()).collect();
    assert!(!published.windows(exact.len()).any(|bytes| bytes == exact.as_bytes()), "{exact} stands in a record");
    // A worse candidate later shows the same rung.
    let again = desk.evaluate(world.ask("s", &world.noise, &world.good));
    assert_eq!((again.attempt, again.alpha.as_str()), (2, "0.007599088773"));
    assert_eq!(again.ladder_score, Some(ladder));
}

#[test]
fn nothing_is_scored_before_the_acknowledgement_of_exactly_its_own_preregistration() {
    let world = World::new();
    let mut desk = world.desk();
    desk.feed(world.ask("r", &world.good, &world.noise));
    assert!(!desk.task.stage.owes(&desk.task.state).unwrap() && desk.records().is_empty(), "parked");
    let right = desk.acknowledgements().remove(0);
    let with = |change: &dyn Fn(&mut EvaluationAcknowledgement)| {
        let mut wrong = right.clone();
        wrong.acknowledgement.iter_mut().for_each(change);
        wrong
    };
    desk.feed(with(&|own| own.leaf = "ab".repeat(32)));
    desk.feed(with(&|own| own.checkpoint = checkpoint(own.index as u64)));
    desk.feed(with(&|own| own.checkpoint = "a tree head".to_owned()));
    desk.feed(with(&|own| own.index = -1));
    desk.feed(EvaluationRequest { evaluation_id: "of nobody".to_owned(), ..right.clone() });
    desk.feed(EvaluationRequest { family: "no family".to_owned(), ..right.clone() });
    desk.feed(EvaluationRequest { family: world.family(0), ..EvaluationRequest::default() });
    let reasons: Vec<&str> = desk.task.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    let refused = "ACKNOWLEDGEMENT_REFUSED";
    assert_eq!(reasons, [refused, refused, refused, refused, refused, "REQUEST_MISKEYED", "REQUEST_UNREADABLE"]);
    let outcome = EvaluationOutcome { attempt: 1, status: Record::ACCEPTED.to_owned() };
    let stray = EvaluationRequest { acknowledgement: None, outcome: Some(outcome), ..right.clone() };
    desk.feed(stray);
    assert!(!desk.task.stage.owes(&desk.task.state).unwrap(), "an attempt that is not scored cannot end");
    desk.feed(right.clone());
    desk.work_off();
    assert_eq!(desk.records().len(), 1);
    desk.feed(right);
    desk.work_off();
    assert_eq!((desk.records().len(), desk.task.dead_letters.len()), (1, 7), "an acknowledgement counts once");
}

#[test]
fn the_same_recipe_or_request_again_spends_nothing() {
    let world = World::new();
    let mut desk = world.desk();
    desk.evaluate(world.ask("r", &world.other_noise, &world.noise));
    let mut same = world.ask("r", &world.other_noise, &world.noise);
    same.attempt.iter_mut().for_each(|attempt| attempt.request_id = "another".to_owned());
    desk.feed(same);
    assert_eq!(desk.records().len(), 1, "the first result stands under the same id");
    let mut reused = world.ask("t", &world.good, &world.noise);
    reused.attempt.iter_mut().for_each(|attempt| attempt.request_id = "r".to_owned());
    let told = desk.evaluate(reused);
    assert_eq!((told.attempt, told.reasons.as_slice()), (0, &["REQUEST_REPEATED".to_owned()][..]));
    assert_eq!(desk.evaluate(world.ask("s", &world.good, &world.noise)).attempt, 2);
}

#[test]
fn a_request_that_is_no_attempt_is_refused_by_name_and_spends_nothing() {
    let mut world = World::new();
    world.seal("unfit@1", 5_000..5_600);
    world.model.benchmarks[2].strata.clear();
    world.model.benchmarks[1].retired = true;
    let plain = SPEC.replace("evaluation:", "description: none\nunused:");
    let plain = plain.split("unused:").next().unwrap().to_owned()
        + plain.split_once("schema:").map(|(_, s)| "schema:".to_owned() + s).unwrap().as_str();
    let plain = Spec::parse_yaml(&plain, "f").unwrap();
    let digest = plain.contract_digest().unwrap();
    let spec = plain.canonical_json().unwrap();
    world.model.contracts.push(ModelContract { digest: digest.clone(), revision: 2, spec });
    let mut desk = world.desk();
    let first = world.ask("r", &world.good, &world.noise);
    let with = |family: usize, change: &dyn Fn(&mut EvaluationAttempt)| {
        let mut attempt = first.attempt.clone().unwrap();
        change(&mut attempt);
        asked(world.family(family), attempt)
    };
    let cases = [
        ("UNKNOWN_MODEL", with(0, &|own| own.model = "other".to_owned())),
        ("UNKNOWN_BENCHMARK", with(0, &|own| own.benchmark = "holdout@2".to_owned())),
        ("OTHER_FAMILY", with(1, &|_| ())),
        ("UNKNOWN_CONTRACT", with(0, &|own| own.contract_digest = "ab".repeat(32))),
        ("NO_EVALUATION", with(0, &|own| own.contract_digest = digest.clone())),
        ("BENCHMARK_RETIRED", with(1, &|own| own.benchmark = "other@1".to_owned())),
        ("STRATA_NOT_SEALED", with(2, &|own| own.benchmark = "unfit@1".to_owned())),
    ];
    for (code, request) in cases {
        desk.feed(request);
        let told = desk.records().pop().unwrap();
        assert_eq!((told.reasons.as_slice(), told.attempt), (&[code.to_owned()][..], 0), "{told:?}");
        assert!(told.status == Record::REFUSED && !told.detail.is_empty() && told.ladder_score.is_none());
    }
    assert!(desk.statements().is_empty() && desk.task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).is_empty());
    assert_eq!(desk.evaluate(first).attempt, 1, "what was refused before did not count");
}

#[test]
fn an_attempt_that_cannot_be_scored_has_failed_by_name_and_has_spent_its_level() {
    let world = World::new();
    let gone = Artefact { digest: "ab".repeat(32), ..Artefact::default() };
    let broken = world.shelf.put(b"no model");
    let mut desk = world.desk();
    let cases = [
        ("CANDIDATE_MISSING", world.ask("1", &gone, &world.noise)),
        ("BASELINE_MISSING", world.ask("2", &world.good, &gone)),
        ("CANDIDATE_UNUSABLE", world.ask("3", &broken, &world.noise)),
        ("BASELINE_UNUSABLE", world.ask("4", &world.good, &broken)),
    ];
    for (number, (code, request)) in (1..).zip(cases) {
        *lock(&world.shelf.failures) = 1;
        let told = desk.evaluate(request);
        assert_eq!(
            (told.status.as_str(), told.reasons.as_slice()),
            (Record::FAILED, &[code.to_owned()][..]),
            "{told:?}"
        );
        assert_eq!((told.attempt, told.ladder_score), (number, None));
    }
    let Some(Predicate::Evaluation(told)) = desk.statements().pop() else { panic!() };
    assert_eq!((told.status.as_str(), told.record, told.withheld), (Record::FAILED, None, None));
    // Rows of another key, or cut short.
    let rows = world.model.benchmarks[0].sealed_rows.digest.clone();
    lock(&world.shelf.blobs).get_mut(&rows).unwrap().truncate(100);
    let told = desk.evaluate(world.ask("5", &world.good, &world.noise));
    assert_eq!((told.reasons.as_slice(), told.attempt), (&["BENCHMARK_DAMAGED".to_owned()][..], 5));
    lock(&world.shelf.blobs).remove(&rows);
    let told = desk.evaluate(world.ask("6", &world.good, &world.noise));
    assert_eq!((told.reasons.as_slice(), told.attempt), (&["BENCHMARK_MISSING".to_owned()][..], 6));
}

#[test]
fn attempts_of_a_family_are_scored_in_their_order_and_other_families_go_on() {
    let world = World::new();
    let mut desk = world.desk();
    let mut elsewhere = world.ask("3", &world.good, &world.noise).attempt.unwrap();
    elsewhere.benchmark = "other@1".to_owned();
    desk.feed(world.ask("1", &world.other_noise, &world.noise));
    desk.feed(world.ask("2", &world.good, &world.noise));
    desk.feed(asked(world.family(1), elsewhere));
    let acknowledgements = desk.acknowledgements();
    desk.feed(acknowledgements[1].clone());
    assert!(!desk.task.stage.owes(&desk.task.state).unwrap(), "the second waits for the first");
    desk.feed(acknowledgements[2].clone());
    desk.work_off();
    assert_eq!(desk.records().iter().map(|told| told.benchmark.as_str()).collect::<Vec<_>>(), ["other@1"]);
    desk.feed(acknowledgements[0].clone());
    desk.work_off();
    let order: Vec<(String, i64)> =
        desk.records().into_iter().skip(1).map(|told| (told.request_id, told.attempt)).collect();
    assert_eq!(order, [("1".to_owned(), 1), ("2".to_owned(), 2)]);
}

#[test]
fn aborts_kills_and_another_machine_change_no_byte() {
    let world = World::new();
    let requests = [world.ask("1", &world.other_noise, &world.noise), world.ask("2", &world.good, &world.noise)];
    let mut whole = world.desk();
    requests.iter().for_each(|request| drop(whole.evaluate(request.clone())));
    let mut torn = world.desk();
    for request in requests {
        let record = batch(topics::EVALUATION_REQUESTS, 0, torn.offset, 0, std::slice::from_ref(&request));
        torn.task.abort(&[record]);
        torn.feed(request);
        torn.task.end(End::Elsewhere).unwrap();
        for acknowledgement in torn.acknowledgements() {
            torn.feed(acknowledgement);
        }
        // Scoring begins, and its worker is gone before the result is committed.
        torn.task.commit(&[]).unwrap();
        torn.task.stage = world.stage();
        torn.task.end(End::Elsewhere).unwrap();
        while !torn.task.stage.owes(&torn.task.state).unwrap() || torn.task.stage.work.is_none() {
            if torn.task.stage.work.is_none() {
                torn.task.commit(&[]).unwrap();
            }
        }
        torn.task.abort(&[]);
        torn.work_off();
    }
    assert_eq!(torn.task.outputs, whole.task.outputs);
    assert_eq!(torn.records().len(), 2);
}

#[test]
fn an_attempt_that_no_worker_brings_to_its_end_is_given_up_and_holds_nobody_up() {
    let world = World::new();
    let mut desk = world.desk();
    *lock(&world.shelf.failures) = u32::MAX;
    desk.feed(world.ask("1", &world.good, &world.noise));
    let acknowledgement = desk.acknowledgements().remove(0);
    desk.feed(acknowledgement);
    while desk.records().is_empty() {
        if desk.task.stage.work.is_some() {
            desk.task.stage = world.stage();
        }
        desk.task.commit(&[]).unwrap();
    }
    assert_eq!(desk.records()[0].reasons, ["GIVEN_UP"]);
    *lock(&world.shelf.failures) = 0;
    assert_eq!(desk.evaluate(world.ask("2", &world.good, &world.noise)).status, Record::ACCEPTED);
}

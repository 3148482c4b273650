//! The stage without Kafka: real learners on rows of topics that live in memory.

mod cancelling;
mod external;
mod folds;
mod search;
mod shelf;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outside::Outside;
use super::rows::Limits;
use super::*;
use crate::attest::dsse::Envelope;
use crate::domain::contract::Spec;
use crate::domain::records::{Benchmark, Model, ModelContract, ModelVersion, RegistryEvent};
use crate::sealing::filter::MatchFilter;
use crate::stages::beside::Trouble;
use crate::stages::testing::{End, Task, batch};
use crate::store::Digest;
use shelf::{SPEC, Shelf, hash, lock};

fn stage(shelf: &Arc<Shelf>, threads: usize) -> Training {
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut stage = Training::new(TrainingConfig { shop: shop(shelf, threads), trust: LiveTrust::default(), key });
    tell(&mut stage, Vec::new());
    stage
}

/// What a worker works with.
fn shop(shelf: &Arc<Shelf>, threads: usize) -> Shop {
    Shop {
        outside: shelf.clone(),
        limits: Limits { rows: 5_000, bytes: 1 << 20, budget: 1 << 40, threads, checkpoint_every: Duration::ZERO },
        wire: Wire::default(),
        bench: Arc::default(),
        larder: Arc::default(),
    }
}

/// Tells the stage of the model and its benchmarks.
fn tell(stage: &mut impl Stage, benchmarks: Vec<Benchmark>) {
    tell_of(stage, benchmarks, Vec::new());
}

/// Tells it of versions too.
fn tell_of(stage: &mut impl Stage, benchmarks: Vec<Benchmark>, versions: Vec<ModelVersion>) {
    tell_under(SPEC, stage, benchmarks, versions);
}

/// The same under another contract.
fn tell_under(spec: &str, stage: &mut impl Stage, benchmarks: Vec<Benchmark>, versions: Vec<ModelVersion>) {
    let spec = Spec::parse_yaml(spec, "f").unwrap();
    let contract =
        ModelContract { digest: spec.contract_digest().unwrap(), revision: 1, spec: spec.canonical_json().unwrap() };
    let model = Model {
        model: "shop".to_owned(),
        revision: 1,
        contract_digest: contract.digest.clone(),
        contracts: vec![contract],
        benchmarks,
        versions,
        ..Model::default()
    };
    let wire = Wire::default();
    stage.broadcast(topics::MODELS, b"shop", Some(&wire.encode(&model).unwrap()), &wire).unwrap();
}

fn asked(id: &str) -> TrainingRequest {
    let param = |name: &str, value: &str| NamedValue { name: name.to_owned(), value: value.to_owned() };
    TrainingRequest {
        request_id: id.to_owned(),
        model: "shop".to_owned(),
        params: vec![param("iterations", "20"), param("min_rows", "5")],
        ..TrainingRequest::default()
    }
}

fn job(request: TrainingRequest) -> TrainingJob {
    let position = Position { topic: topics::TRAINING_REQUESTS.to_owned(), partition: 0, offset: 3 };
    let run_id = admission::run_id(&request.request_id);
    TrainingJob { run_id, position, request: Some(request), ..TrainingJob::default() }
}

/// A record that asks for the end of a run.
fn cancel(task: &mut Task<Training>, offset: i64, request_id: &str) {
    let position = Position { topic: topics::TRAINING_REQUESTS.to_owned(), partition: 0, offset: 9 };
    let job = TrainingJob { run_id: admission::run_id(request_id), position, cancel: true, ..TrainingJob::default() };
    task.commit(&[batch(topics::TRAINING_JOBS, 0, offset, 0, &[job])]).unwrap();
}

fn ask(task: &mut Task<Training>, offset: i64, request: TrainingRequest) {
    task.commit(&[batch(topics::TRAINING_JOBS, 0, offset, 0, &[job(request)])]).unwrap();
}

/// Asks again and again; what never comes is a failure and no hang.
fn patiently(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within two minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A transaction, if one is owed.
fn step<S: Stage>(task: &mut Task<S>) {
    if task.stage.owes(&task.state).unwrap() {
        task.commit(&[]).unwrap();
    }
}

/// Transactions, until no run is open.
fn work_off(task: &mut Task<Training>) {
    patiently("no run is open", || {
        step(task);
        task.state.scan_prefix(b"o", 1).unwrap().is_empty()
    });
}

fn last(task: &Task<Training>) -> TrainingRun {
    task.values(topics::TRAINING_RUNS).pop().unwrap()
}

fn trained(shelf: &Arc<Shelf>, threads: usize, request: TrainingRequest) -> (TrainingRun, Task<Training>) {
    let mut task = Task::new(stage(shelf, threads), 0, &[]);
    ask(&mut task, 0, request);
    work_off(&mut task);
    (last(&task), task)
}

#[test]
fn a_run_learns_from_admitted_rows_alone_keeps_its_bytes_in_the_store_and_registers_them_under_its_own_key() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..300, "admitted");
    shelf.contribute("b", 300..400, "refused");
    shelf.contribute("c", 400..600, "admitted");
    let (run, task) = trained(&shelf, 1, asked("r"));
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::FINISHED, ""), "{}", run.detail);
    let dataset = run.dataset.clone().unwrap();
    assert_eq!((dataset.rows, dataset.contributions), (500, 2));
    let artefact = run.artefact.clone().unwrap();
    let kept = lock(&shelf.kept).get(&artefact.digest.parse().unwrap()).cloned().unwrap();
    assert_eq!(kept.len() as i64, artefact.size);
    crate::ml::model::Model::from_bytes(&kept).unwrap();
    let auroc = run.metrics.iter().find(|metric| metric.name == "auroc").unwrap();
    assert!(auroc.value.parse::<f64>().unwrap() > 0.95 && (20..100).contains(&auroc.rows), "{auroc:?}");

    let events = task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS);
    let [(_, key, event)] = events.as_slice() else { panic!("one event, {events:?}") };
    assert_eq!((key.as_slice(), event.kind.as_str()), (&b"shop"[..], RegistryEvent::RESULT));
    let envelope = Envelope::from_json(event.envelope.as_bytes()).unwrap();
    let StageResult { found: Finding::Run(told), .. } = result::read(&envelope).unwrap() else { panic!() };
    assert_eq!((told.run_id, told.registration.artefact), (run.run_id, artefact));
    assert_eq!(told.registration.features, ["amount", "plan"]);
    assert_eq!(told.registration.lineage.recipe_digest, run.recipe_digest);
}

#[test]
fn rows_that_a_benchmark_in_force_holds_are_not_learned_from_whenever_they_came() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..300, "admitted");
    let filter = MatchFilter::new(&[hash(7), hash(200), hash(5_000)], &[]);
    shelf.keep(filter.bytes().to_vec().into()).unwrap();
    let artefact = |digest: Digest| Artefact { digest: digest.to_string(), ..Artefact::default() };
    let benchmark = |match_filter: Artefact, retired| Benchmark { match_filter, retired, ..Benchmark::default() };
    let run = |benchmarks| {
        let mut task = Task::new(stage(&shelf, 1), 0, &[]);
        tell(&mut task.stage, benchmarks);
        ask(&mut task, 0, asked("r"));
        work_off(&mut task);
        last(&task)
    };
    let known = artefact(Digest::of(filter.bytes()));
    let rows = |run: TrainingRun| run.dataset.map(|dataset| dataset.rows);
    assert_eq!(rows(run(vec![benchmark(known.clone(), false)])), Some(298));
    assert_eq!(rows(run(vec![benchmark(known, true)])), Some(300), "a retired one holds nothing back");
    let missing = run(vec![benchmark(artefact(Digest::of(b"gone")), false)]);
    assert_eq!((missing.status.as_str(), missing.reason.as_str()), (TrainingRun::FAILED, "FILTER_MISSING"));
}

#[test]
fn neither_arrival_nor_chunks_nor_threads_show_in_the_bytes_but_the_seed_does() {
    let one = Arc::new(Shelf::default());
    one.contribute("a", 0..500, "admitted");
    let many = Arc::new(Shelf::default());
    for (i, first) in [400, 100, 300, 0, 200].into_iter().enumerate() {
        many.contribute(&format!("part {i}"), first..first + 100, "admitted");
    }
    let sampled = |seed| {
        let mut request = asked("r");
        request.params.push(NamedValue { name: "row_sample".to_owned(), value: "0.7".to_owned() });
        TrainingRequest { seed: Some(seed), ..request }
    };
    let run = |shelf, threads, seed| trained(shelf, threads, sampled(seed)).0;
    let (first, second, other) = (run(&one, 1, 7), run(&many, 3, 7), run(&one, 1, 8));
    assert_eq!(first.dataset.as_ref().unwrap().digest, second.dataset.as_ref().unwrap().digest);
    assert_eq!((&first.recipe_digest, &first.artefact), (&second.recipe_digest, &second.artefact));
    assert_ne!(first.dataset.unwrap().contributions_root, second.dataset.unwrap().contributions_root);
    assert_eq!(first.metrics, second.metrics);
    assert_ne!((first.recipe_digest, first.artefact), (other.recipe_digest, other.artefact));
}

#[test]
fn a_second_request_with_the_id_of_a_first_changes_nothing_also_after_a_restart() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..200, "admitted");
    let (_, mut task) = trained(&shelf, 1, asked("r"));
    let before = task.outputs.len();
    ask(&mut task, 1, TrainingRequest { seed: Some(9), ..asked("r") });
    task.end(End::Elsewhere).unwrap();
    ask(&mut task, 2, asked("r"));
    work_off(&mut task);
    assert_eq!(task.outputs.len(), before);
}

#[test]
fn whoever_goes_on_with_a_run_reads_the_rows_that_were_there_when_it_was_admitted() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..200, "admitted");
    let (expected, _) = trained(&shelf, 1, asked("r"));
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    ask(&mut task, 0, asked("r"));
    patiently("the dataset is fixed", || {
        step(&mut task);
        !task.sent::<TrainingRun>(topics::TRAINING_RUNS).is_empty()
    });
    assert_eq!(last(&task).status, TrainingRun::ADMITTED);
    shelf.contribute("b", 200..400, "admitted");
    *lock(&shelf.failures) = 2;
    task.stage = stage(&shelf, 2);
    task.end(End::Elsewhere).unwrap();
    // An abort after the model was found: it is told in the next transaction, once.
    patiently("the model is found", || {
        if task.stage.work.is_none() {
            task.commit(&[]).unwrap();
        }
        task.stage.work.as_ref().and_then(Work::found).is_some_and(|found| !matches!(found, Found::Ends(_)))
    });
    task.abort(&[]);
    work_off(&mut task);
    let run = last(&task);
    assert_eq!(
        (run.dataset, run.recipe_digest, run.artefact),
        (expected.dataset, expected.recipe_digest, expected.artefact)
    );
    assert_eq!(task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).len(), 1);
}

#[test]
fn a_published_dataset_can_be_learned_from_again_when_there_is_more() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..200, "admitted");
    let (first, _) = trained(&shelf, 1, asked("r"));
    shelf.contribute("b", 200..400, "admitted");
    let digest = first.dataset.clone().unwrap().digest;
    let (again, _) = trained(&shelf, 1, TrainingRequest { as_of: Some(digest), ..asked("r2") });
    assert_eq!((again.artefact, again.dataset), (first.artefact, first.dataset));
    let unknown = TrainingRequest { as_of: Some("ab".repeat(32)), ..asked("r3") };
    let (unknown, _) = trained(&shelf, 1, unknown);
    assert_eq!((unknown.status.as_str(), unknown.reason.as_str()), (TrainingRun::FAILED, "UNKNOWN_DATASET"));
}

#[test]
fn a_dataset_that_a_benchmark_sealed_since_takes_rows_from_is_named_as_such() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..200, "admitted");
    let (first, _) = trained(&shelf, 1, asked("r"));
    let filter = MatchFilter::new(&[hash(7)], &[]);
    shelf.keep(filter.bytes().to_vec().into()).unwrap();
    let match_filter = Artefact { digest: Digest::of(filter.bytes()).to_string(), ..Artefact::default() };
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    tell(&mut task.stage, vec![Benchmark { match_filter, ..Benchmark::default() }]);
    ask(&mut task, 0, TrainingRequest { as_of: first.dataset.map(|dataset| dataset.digest), ..asked("r2") });
    work_off(&mut task);
    let run = last(&task);
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::FAILED, "DATASET_CHANGED"));
    assert!(run.detail.contains("sealed") && run.detail.contains("help: "), "{}", run.detail);
}

#[test]
fn a_run_that_is_taken_away_stops_at_the_next_receipt() {
    let shelf = Shelf::default();
    shelf.contribute("a", 0..200, "admitted");
    let spec = Spec::parse_yaml(SPEC, "f").unwrap();
    let declared = crate::ml::declare::declaration(&spec).unwrap();
    let (ends, asked) = (shelf.ends().unwrap(), std::cell::Cell::new(0));
    let wanted = rows::Wanted { model: "shop", declared: &declared, ends: &ends, sealed: &[], owner: None };
    let stopped = || asked.replace(asked.get() + 1) == 0;
    let read = rows::read(&shelf, &Wire::default(), wanted, Limits::default(), &stopped);
    assert_eq!((read.err(), asked.get()), (Some(Trouble::Cancelled), 1));
}

#[test]
fn what_cannot_be_done_is_refused_by_name_and_nothing_is_begun() {
    let shelf = Arc::new(Shelf::default());
    let param = |name: &str, value: &str| vec![NamedValue { name: name.to_owned(), value: value.to_owned() }];
    let said = |text: &str| Some(text.to_owned());
    let cases = [
        ("UNKNOWN_MODEL", TrainingRequest { model: "other".to_owned(), ..asked("1") }),
        ("UNKNOWN_ALGORITHM", TrainingRequest { algorithm: said("oracle"), ..asked("2") }),
        ("NOT_IMPLEMENTED", TrainingRequest { algorithm: said("lightgbm"), ..asked("3") }),
        ("BAD_SEARCH", TrainingRequest { search: said("{}"), ..asked("4") }),
        ("WARM_START_UNUSABLE", TrainingRequest { warm_start: Some(true), ..asked("5") }),
        ("UNKNOWN_BENCHMARK", TrainingRequest { benchmark: said("b"), ..asked("6") }),
        ("BAD_PARAMETER", TrainingRequest { params: param("treees", "3"), ..asked("7") }),
        ("BAD_PARAMETER", TrainingRequest { params: param("leaves", "-3"), ..asked("8") }),
        ("UNKNOWN_VERSION", TrainingRequest { base_version: said("9.9.9"), ..asked("9") }),
        ("UNKNOWN_DATASET", TrainingRequest { as_of: said("yesterday"), ..asked("10") }),
    ];
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    for (offset, (code, request)) in (0..).zip(cases) {
        ask(&mut task, offset, request);
        let run = last(&task);
        assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::REFUSED, code), "{}", run.detail);
        assert!(!run.detail.is_empty() && !run.detail.contains('\n'));
    }
    assert!(task.stage.work.is_none());
    let models = stage(&shelf, 1);
    let mut out = Outputs::new(&task.wire);
    let context = Context { partition: 0, broadcast_is_current: false, partitions: &BTreeMap::new() };
    let mut behind = models;
    let jobs = batch(topics::TRAINING_JOBS, 0, 0, 0, &[job(TrainingRequest { model: "new".to_owned(), ..asked("n") })]);
    let asked = behind.process(&context, &mut KeyValue::default(), &jobs, &mut out);
    assert!(matches!(asked, Err(StageError::NeedsBroadcast)), "the model may just have come");
}

#[test]
fn rows_that_give_no_model_end_the_run_with_a_reason() {
    let ends_as = |shelf: Shelf, request: TrainingRequest| {
        let (run, task) = trained(&Arc::new(shelf), 1, request);
        assert_eq!(run.status, TrainingRun::FAILED, "{}", run.detail);
        assert!(task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).is_empty());
        run.reason
    };
    assert_eq!(ends_as(Shelf::default(), asked("r")), "EMPTY_DATASET");
    let same = Shelf::default();
    same.contribute("a", 3..4, "admitted");
    assert_eq!(ends_as(same, asked("r")), "ONE_CLASS");
    let large = Shelf::default();
    large.contribute("a", 0..5_001, "admitted");
    assert_eq!(ends_as(large, asked("r")), "TOO_LARGE");
    let lost = Shelf::default();
    lost.contribute("a", 0..100, "admitted");
    lock(&lost.topics).get_mut(topics::ACCEPTED).unwrap().clear();
    assert_eq!(ends_as(lost, asked("r")), "INCOMPLETE_DATASET");
    let dear = Shelf::default();
    dear.contribute("a", 0..100, "admitted");
    assert_eq!(ends_as(dear, TrainingRequest { budget: Some(1_999), ..asked("r") }), "BUDGET_EXCEEDED");
    let many = Shelf::default();
    (0..3_000).for_each(|i| many.contribute(&format!("{i} {}", "long ".repeat(50)), i..i + 1, "admitted"));
    assert_eq!(ends_as(many, asked("r")), "TOO_LARGE", "receipts count too");
}

#[test]
fn a_run_that_no_worker_brings_to_its_end_is_given_up() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..100, "admitted");
    *lock(&shelf.failures) = u32::MAX;
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    ask(&mut task, 0, asked("r"));
    patiently("the run is given up", || {
        if task.stage.work.as_ref().is_some_and(|work| work.step == Step::Learn) {
            task.stage = stage(&shelf, 1);
        }
        step(&mut task);
        task.state.scan_prefix(b"o", 1).unwrap().is_empty()
    });
    assert_eq!(last(&task).reason, "GIVEN_UP");
}

#[test]
fn a_successor_goes_on_from_the_checkpoint_and_makes_the_same_bytes_and_a_damaged_one_costs_only_time() {
    let rows = || {
        let shelf = Arc::new(Shelf::default());
        shelf.contribute("a", 0..300, "admitted");
        shelf
    };
    let whole = rows();
    let (expected, _) = trained(&whole, 1, asked("r"));
    assert_eq!(*lock(&whole.written), 20, "one at every iteration");
    let shelf = rows();
    let (go, gate) = std::sync::mpsc::channel();
    *lock(&shelf.stays) = Some(gate);
    (0..11).for_each(|_| go.send(()).unwrap());
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    ask(&mut task, 0, asked("r"));
    patiently("twelve checkpoints", || {
        step(&mut task);
        *lock(&shelf.written) >= 12
    });
    // The worker is gone: its learner stops at its next step.
    task.stage = stage(&shelf, 2);
    drop(go);
    *lock(&shelf.stays) = None;
    task.end(End::Elsewhere).unwrap();
    work_off(&mut task);
    let run = last(&task);
    assert_eq!((run.artefact, run.metrics), (expected.artefact.clone(), expected.metrics.clone()));
    assert!(*lock(&shelf.written) < 22, "what was learned before is not learned again");
    assert!(lock(&shelf.checkpoints).is_empty());

    let damaged = rows();
    lock(&damaged.checkpoints).insert(admission::run_id("r"), b"HKCP and so on".to_vec());
    let (run, _) = trained(&damaged, 1, asked("r"));
    assert_eq!((run.artefact, run.metrics), (expected.artefact, expected.metrics));
}

#[test]
fn a_warm_start_goes_on_as_if_learning_had_never_stopped_and_its_recipe_names_what_it_went_on_from() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..400, "admitted");
    let iterations = |id: &str, count: &str| TrainingRequest {
        params: vec![NamedValue { name: "iterations".to_owned(), value: count.to_owned() }],
        ..asked(id)
    };
    let (first, _) = trained(&shelf, 1, iterations("first", "6"));
    let (whole, _) = trained(&shelf, 1, iterations("whole", "10"));
    let version = ModelVersion {
        version: "1.0.0".to_owned(),
        artefact: first.artefact.clone().unwrap(),
        ..ModelVersion::default()
    };
    let on = |shelf: &Arc<Shelf>, version: ModelVersion| {
        let request =
            TrainingRequest { warm_start: Some(true), base_version: Some("1.0.0".to_owned()), ..iterations("on", "4") };
        let mut stage = stage(shelf, 1);
        tell_of(&mut stage, Vec::new(), vec![version]);
        let mut task = Task::new(stage, 0, &[]);
        ask(&mut task, 0, request);
        work_off(&mut task);
        last(&task)
    };
    let run = on(&shelf, version.clone());
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::FINISHED, ""), "{}", run.detail);
    assert_eq!((&run.artefact, run.iteration), (&whole.artefact, 4));
    let digest = serde_json::to_string(&version.artefact.digest).unwrap();
    assert!(run.params.iter().any(|pair| pair.name == "warm_start" && pair.value == digest), "{:?}", run.params);
    assert_ne!(run.recipe_digest, whole.recipe_digest, "another way to the same bytes");

    let torn = Artefact { digest: shelf_put(&shelf, b"HKML and no more"), ..version.artefact.clone() };
    let failed = on(&shelf, ModelVersion { artefact: torn, ..version });
    assert_eq!((failed.status.as_str(), failed.reason.as_str()), (TrainingRun::FAILED, "WARM_START_UNUSABLE"));
}

fn shelf_put(shelf: &Shelf, bytes: &[u8]) -> String {
    shelf.keep(bytes::Bytes::copy_from_slice(bytes)).unwrap();
    Digest::of(bytes).to_string()
}

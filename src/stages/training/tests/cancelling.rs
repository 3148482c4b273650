//! Runs that are ended before their end.

use super::*;
use crate::domain::records::EvaluationRequest;

fn of<'a>(runs: &'a [TrainingRun], request_id: &str) -> Vec<&'a str> {
    runs.iter().filter(|run| run.request_id == request_id).map(|run| run.status.as_str()).collect()
}

#[test]
fn a_queued_run_ends_at_once_a_running_one_soon_and_a_finished_one_stays_finished() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..300, "admitted");
    let (go, gate) = std::sync::mpsc::channel();
    *lock(&shelf.stays) = Some(gate);
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    ask(&mut task, 0, asked("running"));
    ask(&mut task, 1, asked("queued"));
    ask(&mut task, 2, asked("last"));
    patiently("the learner is at its first checkpoint", || {
        step(&mut task);
        *lock(&shelf.written) == 1
    });
    cancel(&mut task, 3, "queued");
    cancel(&mut task, 4, "running");
    cancel(&mut task, 5, "nobody's");
    let runs: Vec<TrainingRun> = task.values(topics::TRAINING_RUNS);
    assert_eq!(of(&runs, "queued"), [TrainingRun::CANCELLED]);
    assert_eq!(of(&runs, "running"), [TrainingRun::ADMITTED, TrainingRun::CANCELLED]);
    let told = runs.last().unwrap();
    assert_eq!((told.reason.as_str(), told.is_over()), ("CANCELLED", true));
    assert!(told.detail.contains("training.requests/0/9"), "{}", told.detail);
    // The learner goes on with its next iteration only to see that nobody wants it.
    go.send(()).unwrap();
    drop(go);
    *lock(&shelf.stays) = None;
    work_off(&mut task);
    let runs: Vec<TrainingRun> = task.values(topics::TRAINING_RUNS);
    assert_eq!(of(&runs, "last"), [TrainingRun::ADMITTED, TrainingRun::FINISHED]);
    assert_eq!(task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).len(), 1);
    patiently("no checkpoint is left behind", || lock(&shelf.checkpoints).is_empty());
    let before = task.outputs.len();
    cancel(&mut task, 6, "last");
    cancel(&mut task, 7, "queued");
    ask(&mut task, 8, asked("queued"));
    work_off(&mut task);
    assert_eq!(task.outputs.len(), before, "what is over stays as it is");
}

#[test]
fn a_cancelled_run_is_cancelled_for_whoever_goes_on() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..300, "admitted");
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    ask(&mut task, 0, asked("r"));
    ask(&mut task, 1, asked("next"));
    cancel(&mut task, 2, "r");
    task.stage = stage(&shelf, 1);
    task.end(End::Elsewhere).unwrap();
    work_off(&mut task);
    let runs: Vec<TrainingRun> = task.values(topics::TRAINING_RUNS);
    assert_eq!(of(&runs, "r").last(), Some(&TrainingRun::CANCELLED));
    assert_eq!(of(&runs, "next").last(), Some(&TrainingRun::FINISHED));
}

#[test]
fn an_aborted_cancellation_changes_nothing() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..300, "admitted");
    let (expected, _) = trained(&shelf, 1, asked("r"));
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    ask(&mut task, 0, asked("r"));
    let job = TrainingJob { run_id: admission::run_id("r"), cancel: true, ..TrainingJob::default() };
    task.abort(&[batch(topics::TRAINING_JOBS, 0, 1, 0, &[job])]);
    work_off(&mut task);
    assert_eq!(last(&task), expected);
}

#[test]
fn a_run_whose_entry_is_of_an_earlier_version_is_found_too() {
    let mut task = Task::new(stage(&Arc::new(Shelf::default()), 1), 0, &[]);
    ask(&mut task, 0, asked("first"));
    ask(&mut task, 1, asked("second"));
    let known = [b"r", admission::run_id("second").as_bytes()].concat();
    assert_eq!(task.state.get(&known).unwrap().unwrap().len(), 9, "the place of its job");
    task.state.put(known, vec![1]).unwrap();
    cancel(&mut task, 2, "second");
    let run = last(&task);
    assert_eq!((run.request_id.as_str(), run.status.as_str()), ("second", TrainingRun::CANCELLED));
}

#[test]
fn cancelling_a_finished_run_takes_its_evaluation_back_once_and_leaves_the_run_as_it_is() {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..300, "admitted");
    let filter = MatchFilter::new(&[hash(5_000)], &[]);
    shelf.keep(filter.bytes().to_vec().into()).unwrap();
    let family = "ab".repeat(32);
    let benchmark = Benchmark {
        benchmark: "holdout@1".to_owned(),
        model: "shop".to_owned(),
        family: family.clone(),
        match_filter: Artefact { digest: Digest::of(filter.bytes()).to_string(), ..Artefact::default() },
        ..Benchmark::default()
    };
    let version = ModelVersion { version: "1.0.0".to_owned(), ..ModelVersion::default() };
    let spec = SPEC.replace("schema:", "evaluation:\n  primary: accuracy\n  minimumEffect: 0.01\nschema:");
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    tell_under(&spec, &mut task.stage, vec![benchmark], vec![version]);
    let measured = |id: &str| TrainingRequest { benchmark: Some("holdout".to_owned()), ..asked(id) };
    ask(&mut task, 0, measured("r"));
    work_off(&mut task);
    let run = last(&task);
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::FINISHED, ""), "{}", run.detail);
    let evaluation_id = run.evaluation_id.clone().unwrap();
    // Whoever goes on knows what the run asked for.
    task.end(End::Elsewhere).unwrap();
    cancel(&mut task, 1, "r");
    cancel(&mut task, 2, "r");
    let sent = task.sent::<EvaluationRequest>(topics::EVALUATION_REQUESTS);
    let [(_, _, first), (_, key, second)] = sent.as_slice() else { panic!("{sent:?}") };
    assert!(first.attempt.is_some() && first.cancel.is_none() && first.evaluation_id == evaluation_id, "{first:?}");
    assert_eq!(key.as_slice(), family.as_bytes());
    let by = Position { topic: topics::TRAINING_REQUESTS.to_owned(), partition: 0, offset: 9 };
    let expected = EvaluationRequest { family, evaluation_id, cancel: Some(by), ..EvaluationRequest::default() };
    assert_eq!(*second, expected);
    assert_eq!(last(&task), run, "the run stays finished");
    // A run that never came to ask for an evaluation has none to take back.
    ask(&mut task, 3, measured("open"));
    cancel(&mut task, 4, "open");
    cancel(&mut task, 5, "open");
    assert_eq!(last(&task).status, TrainingRun::CANCELLED);
    assert_eq!(task.sent::<EvaluationRequest>(topics::EVALUATION_REQUESTS).len(), 2);
}

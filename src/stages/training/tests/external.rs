//! Runs of external trainers: what they get, what they answer, and what comes of it.

use arrow::array::{Array as _, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::answers::MAX_ANSWERS;
use super::job::Description;
use super::*;
use crate::domain::records::TrainingAnswer;
use crate::ml::encoding::{Encoded, Features, Kind};

fn external(id: &str) -> TrainingRequest {
    let params = vec![NamedValue { name: "depth".to_owned(), value: r#"{"of": [3, 0.5]}"#.to_owned() }];
    TrainingRequest { algorithm: Some("external".to_owned()), params, ..asked(id) }
}

fn filled() -> Arc<Shelf> {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..400, "admitted");
    shelf
}

/// Puts an answer on the topic.
fn answer(task: &mut Task<Training>, offset: i64, request_id: &str, answer: TrainingAnswer) {
    let position = Position { topic: topics::TRAINING_ANSWERS.to_owned(), partition: 0, offset };
    let run_id = admission::run_id(request_id);
    let job = TrainingJob { run_id, position, answer: Some(answer), ..TrainingJob::default() };
    task.commit(&[batch(topics::TRAINING_JOBS, 0, offset, 0, &[job])]).unwrap();
}

fn model(digest: &str) -> TrainingAnswer {
    let artefact = Artefact { digest: digest.to_owned(), ..Artefact::default() };
    let lie = NamedValue { name: "auroc".to_owned(), value: "0.999999".to_owned() };
    TrainingAnswer { artefact: Some(artefact), metrics: vec![lie], ..TrainingAnswer::default() }
}

fn failure(text: &str) -> TrainingAnswer {
    TrainingAnswer { error: Some(text.to_owned()), ..TrainingAnswer::default() }
}

fn put(shelf: &Shelf, bytes: &[u8]) -> String {
    shelf.keep(bytes.to_vec().into()).unwrap();
    Digest::of(bytes).to_string()
}

fn blob(shelf: &Shelf, digest: &str) -> Vec<u8> {
    lock(&shelf.kept)[&digest.parse().unwrap()].clone()
}

/// A run that waits.
fn waiting(shelf: &Arc<Shelf>, threads: usize) -> Task<Training> {
    let mut task = Task::new(stage(shelf, threads), 0, &[]);
    ask(&mut task, 0, external("r"));
    work_off(&mut task);
    let run = last(&task);
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::WAITING, ""), "{}", run.detail);
    task
}

/// What an own learner made of the same rows: a model that takes the job's features.
fn native(shelf: &Arc<Shelf>) -> TrainingRun {
    trained(shelf, 1, asked("own")).0
}

fn description(shelf: &Shelf, run: &TrainingRun) -> Description {
    serde_json::from_slice(&blob(shelf, &run.job.as_ref().unwrap().digest)).unwrap()
}

fn rows(shelf: &Shelf, description: &Description) -> Vec<RecordBatch> {
    let file = blob(shelf, &description.rows.file.digest);
    assert_eq!(file.len() as i64, description.rows.file.size);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file)).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

#[test]
fn a_job_has_every_row_encoded_with_its_fold_and_says_what_was_asked_for() {
    let shelf = filled();
    let run = last(&waiting(&shelf, 1));
    let said = description(&shelf, &run);
    assert_eq!(
        (said.run_id.as_str(), said.task.as_str(), said.classes.join(" ")),
        (run.run_id.as_str(), "binary", "0 1".into())
    );
    assert_eq!(said.params["depth"], serde_json::json!({"of": [3, 0.5]}));
    assert_eq!(said.params["validation"], serde_json::json!(0.1), "what nobody asked for is said too");
    assert_eq!((&said.dataset, said.rows.train + said.rows.validation), (run.dataset.as_ref().unwrap(), 400));
    let encoding: serde_json::Value = serde_json::from_slice(&blob(&shelf, &said.encoding.digest)).unwrap();
    assert_eq!(encoding[1]["levels"], serde_json::json!(["basic", "premium"]));
    let batches = rows(&shelf, &said);
    let (mut judges, mut premium) = (0, 0);
    for batch in &batches {
        let fold = batch.column_by_name(&said.rows.fold).unwrap().as_string::<i32>();
        judges += fold.iter().filter(|fold| *fold == Some("validation")).count();
        let plan = batch.column_by_name("plan").unwrap().as_primitive::<Float32Type>();
        premium += plan.values().iter().filter(|&&code| code == 1.0).count();
        let label = batch.column_by_name(&said.rows.label).unwrap().as_primitive::<Int32Type>();
        assert!(label.values().iter().all(|class| [0, 1].contains(class)) && plan.null_count() == 0);
    }
    assert_eq!((judges, premium), (said.rows.validation, 134));
}

#[test]
fn neither_arrival_nor_threads_show_in_a_jobs_bytes() {
    let other = Arc::new(Shelf::default());
    for (i, first) in [300, 100, 0, 200].into_iter().enumerate() {
        other.contribute(&format!("part {i}"), first..first + 100, "admitted");
    }
    let of = |shelf: &Arc<Shelf>, threads| {
        let run = last(&waiting(shelf, threads));
        let said = description(shelf, &run);
        (said.rows, said.encoding, said.dataset.digest)
    };
    assert_eq!(of(&filled(), 1), of(&other, 3));
}

#[test]
fn an_answer_becomes_the_runs_model_and_what_it_claims_to_be_worth_is_measured_here() {
    let shelf = filled();
    let own = native(&shelf);
    let digest = own.artefact.clone().unwrap().digest;
    let mut task = waiting(&shelf, 1);
    answer(&mut task, 1, "r", model(&digest));
    work_off(&mut task);
    let run = last(&task);
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::FINISHED, ""), "{}", run.detail);
    assert_eq!((&run.artefact, &run.metrics), (&own.artefact, &own.metrics), "the same model on the same fold");
    assert_ne!(run.recipe_digest, own.recipe_digest, "another recipe, though the same bytes");
    let events = task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS);
    let [(_, _, event)] = events.as_slice() else { panic!("one event, {events:?}") };
    let envelope = Envelope::from_json(event.envelope.as_bytes()).unwrap();
    let StageResult { found: Finding::Run(told), .. } = result::read(&envelope).unwrap() else { panic!() };
    let named = |name: &str| told.registration.params.iter().find(|p| p.name == name).map(|p| p.value.clone());
    assert_eq!((named("algorithm").as_deref(), named("answer")), (Some("external"), Some(digest.clone())));
    assert!(told.registration.metrics.iter().all(|metric| metric.value != "0.999999"));
    // Whatever comes later meets a run that is over.
    let before = task.outputs.len();
    answer(&mut task, 2, "r", model(&digest));
    answer(&mut task, 3, "r", failure("too late"));
    answer(&mut task, 4, "nobody's", model(&digest));
    work_off(&mut task);
    assert_eq!(task.outputs.len(), before);
}

#[test]
fn the_recipe_names_the_parameters_and_the_answer() {
    let shelf = filled();
    let other = trained(&shelf, 1, TrainingRequest { seed: Some(3), ..asked("other") }).0;
    let recipe = |request: TrainingRequest, run: &TrainingRun| {
        let mut task = Task::new(stage(&shelf, 1), 0, &[]);
        ask(&mut task, 0, request);
        work_off(&mut task);
        answer(&mut task, 1, "r", model(&run.artefact.clone().unwrap().digest));
        work_off(&mut task);
        last(&task).recipe_digest.unwrap()
    };
    let own = native(&shelf);
    let first = recipe(external("r"), &own);
    assert_eq!(first, recipe(external("r"), &own));
    if other.artefact != own.artefact {
        assert_ne!(first, recipe(external("r"), &other));
    }
    assert_ne!(first, recipe(TrainingRequest { params: Vec::new(), ..external("r") }, &own));
}

#[test]
fn an_answer_that_cannot_be_used_is_told_and_the_run_waits_for_the_first_that_can() {
    let shelf = filled();
    let good = native(&shelf).artefact.unwrap().digest;
    let torn = put(&shelf, &blob(&shelf, &good)[..40]);
    let foreign = put(&shelf, b"GIF89a and so on");
    let read = crate::ml::model::Model::from_bytes(&blob(&shelf, &good)).unwrap();
    let mut strange = read.clone();
    strange.encoding.features[0].column = "price".to_owned();
    let strange = put(&shelf, &strange.to_bytes());
    let mut sized = model(&good);
    sized.artefact.as_mut().unwrap().size = 7;
    let mut compared = model(&foreign);
    compared.conformance = compared.artefact.clone();
    let mut task = waiting(&shelf, 1);
    let cases = [
        (compared, "BAD_CONFORMANCE"),
        (model(&"ab".repeat(32)), "ARTEFACT_MISSING"),
        (model(&torn), "BAD_ARTEFACT"),
        (model(&foreign), "CONFORMANCE_MISSING"),
        (model(&strange), "WRONG_ENCODING"),
        (sized, "WRONG_SIZE"),
    ];
    for (offset, (given, code)) in (1..).zip(cases) {
        answer(&mut task, offset, "r", given);
        work_off(&mut task);
        let run = last(&task);
        assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::WAITING, code), "{}", run.detail);
        assert!(run.detail.contains(&format!("training.answers/0/{offset}")), "{}", run.detail);
        assert_eq!(i64::from(run.iteration), offset);
    }
    assert!(task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).is_empty());
    answer(&mut task, 9, "r", model(&good));
    work_off(&mut task);
    assert_eq!((last(&task).status.as_str(), last(&task).reason.as_str()), (TrainingRun::FINISHED, ""));
}

#[test]
fn answers_are_looked_at_in_their_order_however_many_wait_and_no_more_than_some_may() {
    let shelf = filled();
    let good = native(&shelf).artefact.unwrap().digest;
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    ask(&mut task, 0, external("r"));
    // Before the job is there, and more than may wait.
    let nowhere = model(&"ab".repeat(32));
    answer(&mut task, 1, "r", nowhere.clone());
    answer(&mut task, 2, "r", model(&good));
    (3..=MAX_ANSWERS as i64).for_each(|offset| answer(&mut task, offset, "r", failure("the first model counts")));
    answer(&mut task, 99, "r", nowhere);
    assert_eq!(last(&task).reason, "TOO_MANY_ANSWERS");
    work_off(&mut task);
    let runs: Vec<TrainingRun> = task.values(topics::TRAINING_RUNS);
    let told: Vec<(&str, &str)> = runs.iter().map(|run| (run.status.as_str(), run.reason.as_str())).collect();
    assert!(told.contains(&("waiting", "ARTEFACT_MISSING")), "{told:?}");
    assert_eq!(told.last(), Some(&("finished", "")));
}

#[test]
fn an_error_fails_the_run_in_the_trainers_words() {
    let mut task = waiting(&filled(), 1);
    answer(&mut task, 1, "r", failure("no\nGPU"));
    let run = last(&task);
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::FAILED, "EXTERNAL_FAILED"));
    assert!(run.detail.ends_with("says: noGPU"), "{}", run.detail);
    assert!(task.state.scan_prefix(b"w", 1).unwrap().is_empty());
}

#[test]
fn a_run_that_waits_holds_nobody_up_and_can_be_cancelled() {
    let shelf = filled();
    let mut task = waiting(&shelf, 1);
    ask(&mut task, 1, asked("next"));
    work_off(&mut task);
    assert_eq!((last(&task).request_id.as_str(), last(&task).status.as_str()), ("next", TrainingRun::FINISHED));
    cancel(&mut task, 2, "r");
    assert_eq!((last(&task).request_id.as_str(), last(&task).status.as_str()), ("r", TrainingRun::CANCELLED));
    let before = task.outputs.len();
    answer(&mut task, 3, "r", failure("too late"));
    assert_eq!(task.outputs.len(), before);
}

#[test]
fn whoever_goes_on_with_a_run_finds_the_same_job_and_makes_the_same_of_an_answer() {
    let shelf = filled();
    let good = native(&shelf).artefact.unwrap().digest;
    let mut whole = waiting(&shelf, 1);
    let job = last(&whole).job;
    answer(&mut whole, 1, "r", model(&good));
    work_off(&mut whole);
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    ask(&mut task, 0, external("r"));
    patiently("the job is being written", || {
        step(&mut task);
        task.stage.work.as_ref().is_some_and(|work| work.step == Step::Prepare)
    });
    task.stage = stage(&shelf, 2);
    task.end(End::Elsewhere).unwrap();
    work_off(&mut task);
    assert_eq!(last(&task).job, job);
    task.stage = stage(&shelf, 1);
    task.end(End::Elsewhere).unwrap();
    answer(&mut task, 1, "r", model(&good));
    patiently("the answer is looked at", || {
        if task.stage.work.is_none() {
            task.commit(&[]).unwrap();
        }
        task.stage.work.as_ref().is_some_and(|work| matches!(work.step, Step::Import(0)) && work.found().is_some())
    });
    task.abort(&[]);
    task.stage = stage(&shelf, 1);
    task.end(End::Elsewhere).unwrap();
    work_off(&mut task);
    assert_eq!(last(&task), last(&whole));
    assert_eq!(task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).len(), 1);
}

#[test]
fn an_answer_that_kills_its_workers_is_given_up_and_the_run_waits_for_a_better_one() {
    let shelf = filled();
    let good = native(&shelf).artefact.unwrap().digest;
    let mut task = waiting(&shelf, 1);
    answer(&mut task, 1, "r", model(&good));
    let (key, value) = task.state.scan_prefix(b"o", 1).unwrap().remove(0);
    let mut open = decode(&value).unwrap();
    open.begun = MAX_BEGUN;
    task.state.put(key.to_vec(), encode(&open).unwrap()).unwrap();
    work_off(&mut task);
    assert_eq!((last(&task).status.as_str(), last(&task).reason.as_str()), (TrainingRun::WAITING, "GIVEN_UP"));
    answer(&mut task, 2, "r", model(&good));
    work_off(&mut task);
    assert_eq!(last(&task).status, TrainingRun::FINISHED);
}

#[test]
fn parameters_are_handed_on_as_they_are_but_for_names_that_a_version_needs_and_no_search_is_made() {
    let shelf = filled();
    let param = |name: &str, value: &str| vec![NamedValue { name: name.to_owned(), value: value.to_owned() }];
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    let cases = [
        ("BAD_SEARCH", TrainingRequest { search: Some(r#"{"trials":3}"#.to_owned()), ..external("1") }),
        ("BAD_PARAMETER", TrainingRequest { params: param("seed", "1"), ..external("2") }),
        ("BAD_PARAMETER", TrainingRequest { params: param("validation", "1"), ..external("3") }),
        ("BAD_PARAMETER", TrainingRequest { params: param("validation", r#""much""#), ..external("4") }),
        ("BAD_PARAMETER", TrainingRequest { params: param("x", "{"), ..external("5") }),
    ];
    for (offset, (code, request)) in (0..).zip(cases) {
        ask(&mut task, offset, request);
        let run = last(&task);
        assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::REFUSED, code), "{}", run.detail);
    }
}

/// Rows of a job with a model's predictions, as CSV; the first prediction is moved by `off`.
fn conformance(shelf: &Shelf, said: &Description, model: &crate::ml::model::Model, off: f64) -> String {
    let batch = &rows(shelf, said)[0].slice(0, 40);
    let values = |name: &String| batch.column_by_name(name).unwrap().as_primitive::<Float32Type>().clone();
    let columns: Vec<_> = said.rows.features.iter().map(values).collect();
    let encoded = columns.iter().zip(&model.encoding.features).map(|(column, feature)| Encoded {
        values: column.iter().map(|value| value.unwrap_or(f32::NAN)).collect(),
        codes: if let Kind::Category(levels) = &feature.kind { levels.len() as u16 + 1 } else { 0 },
    });
    let features = Features { columns: encoded.collect(), names: said.rows.features.clone(), rows: 40 };
    let scores = model.predictor.predictions(&features, &model.task).unwrap();
    let line = |row: usize| {
        let cells = columns.iter().map(|c| if c.is_null(row) { String::new() } else { c.value(row).to_string() });
        let score = scores[row] + if row == 0 { off } else { 0.0 };
        format!("{},{score}\n", cells.collect::<Vec<_>>().join(","))
    };
    let head = format!("{},prediction\n", said.rows.features.join(","));
    head + &(0..40).map(line).collect::<String>()
}

#[test]
fn an_answer_in_onnx_becomes_the_runs_model_if_it_scores_here_as_in_its_own_runtime() {
    let shelf = filled();
    let own = native(&shelf).artefact.unwrap().digest;
    let own = crate::ml::model::Model::from_bytes(&blob(&shelf, &own)).unwrap();
    let file = put(&shelf, &own.to_onnx());
    let mut task = waiting(&shelf, 1);
    let said = description(&shelf, &last(&task));
    let with = |off: f64| {
        let rows = put(&shelf, conformance(&shelf, &said, &own, off).as_bytes());
        TrainingAnswer { conformance: model(&rows).artefact, ..model(&file) }
    };
    answer(&mut task, 1, "r", with(0.001));
    work_off(&mut task);
    assert_eq!(
        (last(&task).status.as_str(), last(&task).reason.as_str()),
        (TrainingRun::WAITING, "CONFORMANCE_FAILED")
    );
    answer(&mut task, 2, "r", with(0.0));
    work_off(&mut task);
    let run = last(&task);
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::FINISHED, ""), "{}", run.detail);
    let made = blob(&shelf, &run.artefact.unwrap().digest);
    let made = crate::ml::model::Model::from_bytes(&made).unwrap();
    assert_eq!((made.to_onnx(), &made.encoding), (own.to_onnx(), &own.encoding), "the file, behind the job's encoding");
}

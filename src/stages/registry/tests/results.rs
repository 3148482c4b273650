//! What the platform's own stages found: runs and evaluations.

use super::benchmarks::seal;
use super::lifecycle::evaluation;
use super::versions::{after_apply, asked, digest, imported, last_model, on_data};
use super::*;
use crate::attest::statement::{Predicate, Statement};
use crate::attest::trust::{Role, Trust};
use crate::domain::records::{AttestationRequest, Benchmark, Lineage, VersionEvaluation};
use crate::stages::registry::command::{Action, Origin, Promotion, Registration};
use crate::stages::registry::result::{self, EvaluationResult, Found, RunResult, StageResult};
use crate::stages::registry::version::Stage;

/// Key 1 is people's, key 4 that of training, key 5 that of evaluation.
fn trust() -> Trust {
    Trust::of([
        (
            "ops",
            &key(1).verifying_key(),
            vec![Role::ModelApply, Role::ModelRegister, Role::ModelPromote, Role::BenchmarkSeal],
        ),
        ("training", &key(4).verifying_key(), vec![Role::RunResult]),
        ("evaluation", &key(5).verifying_key(), vec![Role::EvaluationResult]),
    ])
}

fn found(found: Found, seed: u8) -> RegistryEvent {
    let position = Position { topic: "training.requests".to_owned(), partition: 0, offset: 3 };
    result::event(&StageResult { model: "m".to_owned(), found }, position, 1, &key(seed)).unwrap()
}

fn trained(number: u64, run: &str) -> RunResult {
    let new = on_data(number, 100);
    let lineage = Lineage { run_id: Some(run.to_owned()), recipe_digest: Some(digest(55)), ..new.lineage };
    RunResult { run_id: run.to_owned(), registration: Registration { origin: Origin::Trained, lineage, ..new } }
}

fn run_event(number: u64, run: &str) -> RegistryEvent {
    found(Found::Run(Box::new(trained(number, run))), 4)
}

fn evaluated(candidate: u64, of: VersionEvaluation) -> EvaluationResult {
    EvaluationResult {
        evaluation_id: of.evaluation_id,
        candidate: digest(candidate),
        baseline: of.baseline,
        benchmark: of.benchmark,
        status: of.status,
        reasons: of.reasons,
        metric: of.metric,
        delta: of.delta,
        lower: of.lower,
        statement: Some(digest(77)),
    }
}

fn evaluation_event(candidate: u64, of: VersionEvaluation) -> RegistryEvent {
    found(Found::Evaluation(Box::new(evaluated(candidate, of))), 5)
}

fn ran(events: &[RegistryEvent]) -> Task<Registry> {
    let mut task = Task::new(Registry::new(trust(), Box::new(|_| Ok(()))), 0, &[]);
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, events)]).unwrap();
    task
}

fn to_production(version: &str, revision: i64) -> RegistryEvent {
    let promotion = Promotion { version: version.to_owned(), stage: Stage::Production, waiver: None };
    asked(Action::Promote(promotion), revision)
}

#[test]
fn a_run_becomes_a_version_and_an_accepted_evaluation_opens_production() {
    let task = ran(&[
        apply(1, 0),
        run_event(1, "run-1"),
        to_production("1.0.0", 2),
        evaluation_event(1, evaluation("refused", 9, "b")),
        to_production("1.0.0", 3),
        evaluation_event(1, evaluation("accepted", 9, "b")),
        to_production("1.0.0", 4),
        run_event(2, "run-2"),
        evaluation_event(2, evaluation("accepted", 9, "c")),
        to_production("1.0.1", 7),
        evaluation_event(2, evaluation("accepted", 1, "b")),
        to_production("1.0.1", 8),
    ]);
    let expected =
        ["ok", "ok", "NOT_EVALUATED", "ok", "EVALUATION_REFUSED", "ok", "ok", "ok", "ok", "STALE_BASELINE", "ok", "ok"];
    assert_eq!(codes(&task), expected, "{:?}", task.values::<Audit>(topics::AUDIT));
    let model = last_model(&task);
    assert_eq!(model.head("production").unwrap().version, "1.0.1");
    assert_eq!(model.transitions.last().unwrap().rule, "ACCEPTED_EVALUATION accepted-1-b");
    let version = &model.versions[0];
    assert_eq!((version.origin.as_str(), version.lineage.run_id.as_deref()), ("trained", Some("run-1")));
    assert_eq!(version.evaluations.len(), 2);
    let audit = task.values::<Audit>(topics::AUDIT);
    assert_eq!((audit[1].action.as_str(), audit[1].command_id.as_deref()), ("run.result", Some("run/run-1")));
}

#[test]
fn a_benchmark_is_retired_by_the_fifth_version_that_was_accepted_on_it_and_that_is_attested() {
    let accepted = |baseline| evaluation_event(1, evaluation("accepted", baseline, "holdout@1"));
    let others = [
        evaluation_event(1, evaluation("refused", 9, "holdout@1")),
        evaluation_event(1, evaluation("accepted", 9, "other@1")),
    ];
    let seal = asked(Action::Seal(Box::new(seal("holdout@1", "1"))), 1);
    let events =
        [vec![apply(1, 0), seal, run_event(1, "run-1")], others.to_vec(), (11..15).map(accepted).collect()].concat();
    assert!(!last_model(&ran(&events)).benchmarks[0].retired);
    let task = ran(&[events, vec![accepted(15)]].concat());
    assert!(codes(&task).iter().all(|code| code == "ok"), "{:?}", task.values::<Audit>(topics::AUDIT));
    let model = last_model(&task);
    let retired = &model.benchmarks[0];
    assert_eq!((retired.retired, retired.retired_reason.as_deref()), (true, Some("5 acceptances")));
    assert_eq!(task.values::<Benchmark>(topics::BENCHMARKS).last(), Some(retired));
    let request = task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS).pop().unwrap();
    let Predicate::Benchmark(said) = Statement::read(&request.statement).unwrap().predicate else {
        panic!("{request:?}")
    };
    assert_eq!(
        (said.action.as_str(), said.reason.as_deref(), said.revision),
        ("retire", Some("5 acceptances"), model.revision)
    );
}

#[test]
fn a_result_counts_once_however_often_it_comes() {
    let accepted = || evaluation_event(1, evaluation("accepted", 9, "b"));
    let task = ran(&[apply(1, 0), run_event(1, "r"), run_event(1, "r"), accepted(), accepted(), run_event(2, "r")]);
    assert_eq!(codes(&task), ["ok", "ok", "REPEATED", "ok", "REPEATED", "REPEATED"]);
}

#[test]
fn a_stage_may_say_its_own_results_and_nothing_else() {
    let accepted = evaluated(1, evaluation("accepted", 9, "b"));
    let as_command = {
        let mut event = run_event(1, "r");
        event.kind = RegistryEvent::COMMAND.to_owned();
        event
    };
    let command_as_result = RegistryEvent { kind: RegistryEvent::RESULT.to_owned(), ..apply(1, 1) };
    let elsewhere = RegistryEvent { model: "another".to_owned(), ..run_event(1, "r") };
    let by = |action, seed| {
        let signed = command::build("m", command::Expected::Revision(1), None, action, &key(seed)).unwrap();
        event(&signed.envelope, 0)
    };
    for (event, code) in [
        (found(Found::Run(Box::new(trained(1, "r"))), 5), "OUT_OF_ROLE"),
        (found(Found::Run(Box::new(trained(1, "r"))), 1), "OUT_OF_ROLE"),
        (found(Found::Evaluation(Box::new(accepted.clone())), 4), "OUT_OF_ROLE"),
        (found(Found::Evaluation(Box::new(accepted)), 9), "UNKNOWN_KEY"),
        (by(Action::Register(Box::new(imported(1))), 4), "OUT_OF_ROLE"),
        (by(Action::Archive("1.0.0".to_owned()), 5), "OUT_OF_ROLE"),
        (as_command, "MALFORMED"),
        (command_as_result, "MALFORMED"),
        (elsewhere, "WRONG_MODEL"),
    ] {
        let task = ran(&[apply(1, 0), event.clone()]);
        assert_eq!(codes(&task)[1..], [code], "{:?}", task.values::<Audit>(topics::AUDIT));
        assert_eq!(task.values::<Model>(topics::MODELS).len(), 1);
    }
}

#[test]
fn an_attempt_that_was_taken_back_stands_beside_its_version_and_opens_nothing() {
    let task = ran(&[
        apply(1, 0),
        run_event(1, "run-1"),
        evaluation_event(1, evaluation("cancelled", 9, "b")),
        to_production("1.0.0", 3),
    ]);
    assert_eq!(codes(&task), ["ok", "ok", "ok", "EVALUATION_REFUSED"], "{:?}", task.values::<Audit>(topics::AUDIT));
    assert_eq!(last_model(&task).versions[0].evaluations[0].status, "cancelled");
}

#[test]
fn what_a_result_must_not_say_is_refused_by_name() {
    let of = |change: &dyn Fn(&mut EvaluationResult)| {
        let mut result = evaluated(1, evaluation("accepted", 9, "b"));
        change(&mut result);
        found(Found::Evaluation(Box::new(result)), 5)
    };
    let run_of = |change: &dyn Fn(&mut RunResult)| {
        let mut run = trained(2, "r");
        change(&mut run);
        found(Found::Run(Box::new(run)), 4)
    };
    for (event, code) in [
        (of(&|e| e.status = "refused".into()), "TELLS_TOO_MUCH"),
        (of(&|e| e.status = "cancelled".into()), "TELLS_TOO_MUCH"),
        (of(&|e| e.delta = None), "MALFORMED"),
        (of(&|e| e.status = "perhaps".into()), "MALFORMED"),
        (of(&|e| e.delta = Some("1e3".into())), "MALFORMED"),
        (of(&|e| e.reasons = vec!["B".into(), "A".into()]), "MALFORMED"),
        (of(&|e| e.reasons = vec!["A".into(); 33]), "MALFORMED"),
        (of(&|e| e.candidate = digest(44)), "UNKNOWN_VERSION"),
        (of(&|e| e.baseline = "x".into()), "MALFORMED"),
        (of(&|e| e.evaluation_id = "x".repeat(200)), "MALFORMED"),
        (run_of(&|r| r.registration.origin = Origin::Imported), "MALFORMED"),
        (run_of(&|r| r.registration.lineage.run_id = None), "MALFORMED"),
        (run_of(&|r| r.registration.lineage.dataset = None), "MALFORMED"),
        (run_of(&|r| r.registration.lineage.recipe_digest = None), "MALFORMED"),
        (run_of(&|r| r.registration.artefact.digest = digest(1)), "DUPLICATE_ARTEFACT"),
    ] {
        let task = ran(&[apply(1, 0), run_event(1, "first"), event.clone()]);
        assert_eq!(codes(&task)[2..], [code], "{:?}", task.values::<Audit>(topics::AUDIT).last());
    }
    let no_model = ran(&[run_event(1, "r")]);
    assert_eq!(codes(&no_model), ["UNKNOWN_MODEL"]);
}

#[test]
fn evaluations_of_a_version_are_bounded() {
    let mut events = vec![apply(1, 0), run_event(1, "r")];
    events.extend((0..65).map(|n| evaluation_event(1, evaluation("refused", n, "b"))));
    let task = ran(&events);
    assert_eq!(codes(&task).last().unwrap(), "VERSION_FULL");
    assert_eq!(last_model(&task).versions[0].evaluations.len(), 64);
}

#[test]
fn a_contributor_registers_improvements_under_its_own_name_only() {
    let trust = Trust::of([
        ("ops", &key(1).verifying_key(), vec![Role::ModelApply, Role::ModelRegister]),
        ("UA", &key(6).verifying_key(), vec![Role::ModelContribute]),
    ]);
    let improved = |contributor: &str, number| {
        let (contributor, parent) = (Some(contributor.to_owned()), Some("1.0.0".to_owned()));
        let lineage = Lineage { contributor, parent, ..Lineage::default() };
        Registration { origin: Origin::Contributed, lineage, ..imported(number) }
    };
    let by = |new: Registration| {
        let action = Action::Register(Box::new(new));
        let signed = command::build("m", command::Expected::Revision(2), None, action, &key(6)).unwrap();
        event(&signed.envelope, 0)
    };
    let mut events = after_apply(vec![Action::Register(Box::new(imported(1)))]);
    events.extend([by(improved("DL", 2)), by(imported(3)), by(improved("UA", 4))]);
    let mut task = Task::new(Registry::new(trust, Box::new(|_| Ok(()))), 0, &[]);
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, &events)]).unwrap();
    assert_eq!(codes(&task)[2..], ["OUT_OF_ROLE", "OUT_OF_ROLE", "ok"]);
    let version = last_model(&task).versions.pop().unwrap();
    assert_eq!((version.origin.as_str(), version.version.as_str()), ("contributed", "1.1.0"));
}

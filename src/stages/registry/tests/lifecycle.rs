//! Promotion, rollback, retirement, aliases and tags; what is attested of them.

use super::versions::{after_apply, asked, digest, imported, last_model};
use super::*;
use crate::attest::trust::{EvaluationRule, LiveTrust, Policy, Role};
use crate::domain::records::{AttestationRequest, ModelVersion, VersionEvaluation};
use crate::stages::registry::command::{Action, AliasChange, Expected, Promotion, Rollback, TagChange, build};
use crate::stages::registry::policy::{self, Facts, Reason, Rule};
use crate::stages::registry::version::Stage;

fn new(number: u64) -> Action {
    Action::Register(Box::new(imported(number)))
}

pub(super) fn promote(version: &str, stage: Stage) -> Action {
    let waiver = (stage == Stage::Production).then(|| "a test".to_owned());
    Action::Promote(Promotion { version: version.to_owned(), stage, waiver })
}

pub(super) fn rollback(version: &str) -> Action {
    Action::Rollback(Rollback { version: version.to_owned(), stage: Stage::Production, reason: None })
}

fn alias(name: &str, version: Option<&str>) -> Action {
    Action::Alias(AliasChange { alias: name.to_owned(), version: version.map(str::to_owned) })
}

fn tag(name: &str, value: Option<&str>, version: Option<&str>) -> Action {
    let text = |text: Option<&str>| text.map(str::to_owned);
    Action::Tag(TagChange { tag: name.to_owned(), value: text(value), version: text(version) })
}

fn stages(model: &Model) -> Vec<(&str, &str)> {
    model.versions.iter().map(|v| (v.version.as_str(), v.stage.as_str())).collect()
}

/// Runs actions on a declared model, each on the revision that the log has then.
fn ran(actions: Vec<Action>) -> Task<Registry> {
    let mut task = run(&[apply(1, 0)]);
    for (offset, action) in (1..).zip(actions) {
        let event = asked(action, last_model(&task).revision);
        task.commit(&[batch(topics::REGISTRY_EVENTS, 0, offset, 0, &[event])]).unwrap();
    }
    task
}

#[test]
fn a_version_goes_to_production_and_comes_back_by_a_rollback() {
    let task = ran(vec![
        new(1),
        new(2),
        promote("1.0.0", Stage::Staging),
        promote("1.0.0", Stage::Production),
        promote("1.1.0", Stage::Production),
        rollback("1.0.0"),
    ]);
    assert_eq!(codes(&task), ["ok"; 7], "{:?}", task.values::<Audit>(topics::AUDIT));
    let model = last_model(&task);
    assert_eq!(stages(&model), [("1.0.0", "production"), ("1.1.0", "dev")]);
    assert_eq!(model.versions[0].stages, ["dev", "staging", "production"]);
    let told: Vec<_> =
        model.transitions.iter().map(|t| (t.action.as_str(), t.version.as_str(), t.from_version.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("promote", "1.0.0", None),
            ("promote", "1.0.0", None),
            ("promote", "1.1.0", Some("1.0.0")),
            ("rollback", "1.0.0", Some("1.1.0")),
        ]
    );
    assert_eq!(model.transitions[2].rule, "OVERRIDE NOT_EVALUATED");
}

#[test]
fn a_rollback_goes_only_to_a_version_that_was_in_that_stage() {
    let task = ran(vec![new(1), new(2), promote("1.0.0", Stage::Production), rollback("1.1.0"), rollback("9.0.0")]);
    assert_eq!(codes(&task)[4..], ["NEVER_THERE", "UNKNOWN_VERSION"]);
    // Having been in staging is not having been in production.
    let task = ran(vec![new(1), new(2), promote("1.1.0", Stage::Staging), rollback("1.1.0")]);
    assert_eq!(codes(&task)[4..], ["NEVER_THERE"]);
}

#[test]
fn what_is_so_already_is_allowed_and_makes_no_revision() {
    let task = ran(vec![
        new(1),
        promote("1.0.0", Stage::Production),
        promote("1.0.0", Stage::Production),
        rollback("1.0.0"),
        alias("champion", Some("1.0.0")),
        alias("champion", Some("1.0.0")),
        alias("nobody", None),
        tag("k", None, None),
    ]);
    assert_eq!(codes(&task), ["ok"; 9]);
    assert_eq!(last_model(&task).revision, 4);
}

#[test]
fn each_move_that_is_none_is_refused_by_name() {
    let retired = || vec![new(1), new(2), Action::Archive("1.1.0".to_owned())];
    for (mut actions, last, code) in [
        (vec![new(1)], promote("9.9.9", Stage::Staging), "UNKNOWN_VERSION"),
        (vec![new(1)], promote("1.0.0", Stage::Archived), "NOT_A_PROMOTION"),
        (vec![new(1), promote("1.0.0", Stage::Production)], promote("1.0.0", Stage::Staging), "NOT_A_PROMOTION"),
        (vec![new(1), promote("1.0.0", Stage::Production)], Action::Archive("1.0.0".to_owned()), "IN_PRODUCTION"),
        (vec![new(1), alias("a", Some("1.0.0"))], Action::Archive("1.0.0".to_owned()), "ALIASED"),
        (retired(), promote("1.1.0", Stage::Staging), "ARCHIVED"),
        (retired(), alias("a", Some("1.1.0")), "ARCHIVED"),
        (retired(), tag("k", Some("v"), Some("1.1.0")), "ARCHIVED"),
        (retired(), rollback("1.1.0"), "ARCHIVED"),
        (vec![new(1)], alias("production", Some("1.0.0")), "BAD_ALIAS"),
        (vec![new(1)], alias("1.0.0", Some("1.0.0")), "BAD_ALIAS"),
        (vec![new(1)], alias("Champion", Some("1.0.0")), "BAD_ALIAS"),
        (vec![new(1)], alias("", Some("1.0.0")), "BAD_ALIAS"),
        (vec![new(1)], alias("a", Some("7.0.0")), "UNKNOWN_VERSION"),
        (vec![new(1)], tag("", Some("v"), None), "BAD_TAG"),
        (vec![new(1)], tag("k", Some(&"v".repeat(2_000)), None), "BAD_TAG"),
    ] {
        let before = actions.len();
        actions.push(last.clone());
        let task = ran(actions);
        let codes = codes(&task);
        assert_eq!(codes[..=before], vec!["ok"; before + 1], "{last:?}");
        assert_eq!(codes[before + 1], code, "{last:?}");
        assert_eq!(task.values::<Model>(topics::MODELS).len(), before + 1, "a refusal changes nothing");
    }
}

#[test]
fn aliases_move_and_tags_are_kept_sorted_and_both_are_bounded() {
    let mut actions = vec![
        new(1),
        new(2),
        alias("b", Some("1.0.0")),
        alias("a", Some("1.0.0")),
        alias("b", Some("1.1.0")),
        tag("z", Some("1"), Some("1.0.0")),
        tag("y", Some("1"), Some("1.0.0")),
        tag("z", Some("2"), Some("1.0.0")),
        tag("y", None, Some("1.0.0")),
    ];
    let model = last_model(&ran(actions.clone()));
    let aliases: Vec<_> = model.aliases.iter().map(|a| (a.name.as_str(), a.version.as_str())).collect();
    assert_eq!(aliases, [("a", "1.0.0"), ("b", "1.1.0")]);
    assert_eq!(model.resolve("b").unwrap().version, "1.1.0");
    assert_eq!(model.versions[0].tags, [crate::domain::records::NamedValue { name: "z".into(), value: "2".into() }]);
    actions.extend((0..63).map(|i| alias(&format!("x{i}"), Some("1.0.0"))));
    actions.extend((0..65).map(|i| tag(&format!("x{i}"), Some("v"), None)));
    let codes = codes(&ran(actions));
    let full: Vec<_> = codes.iter().filter(|code| *code == "MODEL_FULL").collect();
    assert_eq!(full.len(), 2);
}

#[test]
fn an_automatic_command_names_the_transition_and_outlives_every_other_change() {
    let mut task = ran(vec![new(1), new(2), promote("1.0.0", Stage::Production), promote("1.1.0", Stage::Production)]);
    let transition = last_model(&task).revision;
    let back = |transition| {
        let signed = build("m", Expected::Transition(transition), None, rollback("1.0.0"), &key(1)).unwrap();
        event(&signed.envelope, 0)
    };
    let tagged = asked(tag("k", Some("v"), None), transition);
    let events = [tagged, back(transition - 1), back(transition), back(transition)];
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 10, 0, &events)]).unwrap();
    assert_eq!(codes(&task)[5..], ["ok", "STALE_TRANSITION", "ok", "REPEATED"]);
    assert_eq!(last_model(&task).head("production").unwrap().version, "1.0.0");
}

#[test]
fn the_stage_that_runs_experiments_may_decide_by_transition_and_nothing_else() {
    let trust = crate::attest::trust::Trust::of([
        ("ops", &key(1).verifying_key(), Role::ALL.to_vec()),
        ("experiments", &key(3).verifying_key(), vec![Role::ExperimentDecide]),
    ]);
    let mut task = Task::new(Registry::new(trust, Box::new(|_| Ok(()))), 0, &[]);
    let mut events =
        after_apply(vec![new(1), new(2), promote("1.0.0", Stage::Production), promote("1.1.0", Stage::Production)]);
    let by = |expected, action| event(&build("m", expected, None, action, &key(3)).unwrap().envelope, 0);
    events.push(by(Expected::Revision(5), rollback("1.0.0")));
    events.push(by(Expected::Revision(5), tag("k", Some("v"), None)));
    events.push(by(Expected::Transition(5), promote("1.0.0", Stage::Production)));
    events.push(by(Expected::Transition(5), rollback("1.0.0")));
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, &events)]).unwrap();
    // Its promotion asks for an override, which is no role of its.
    assert_eq!(codes(&task)[5..], ["OUT_OF_ROLE", "OUT_OF_ROLE", "OUT_OF_ROLE", "ok"]);
}

#[test]
fn an_override_needs_its_role_and_a_reason() {
    let roles = vec![Role::ModelApply, Role::ModelRegister, Role::ModelPromote];
    let trust = crate::attest::trust::Trust::of([("ops", &key(1).verifying_key(), roles)]);
    let mut task = Task::new(Registry::new(trust, Box::new(|_| Ok(()))), 0, &[]);
    let plain = Action::Promote(Promotion { version: "1.0.0".into(), stage: Stage::Production, waiver: None });
    let mut events = after_apply(vec![new(1), promote("1.0.0", Stage::Production)]);
    events.push(asked(plain, 2));
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, &events)]).unwrap();
    assert_eq!(codes(&task)[2..], ["OUT_OF_ROLE", "NOT_EVALUATED"]);
    let silent =
        Action::Promote(Promotion { version: "1.0.0".into(), stage: Stage::Production, waiver: Some(" ".into()) });
    assert_eq!(codes(&ran(vec![new(1), silent]))[2..], ["MALFORMED"]);
}

#[test]
fn a_policy_in_force_decides_and_an_event_counts_by_the_serial_it_was_stamped_with() {
    let trust = LiveTrust::from(crate::attest::trust::Trust::development(&key(1).verifying_key()));
    let mut task = Task::new(Registry::new(trust.clone(), Box::new(|_| Ok(()))), 0, &[]);
    let plain = |version: &str, stage| Action::Promote(Promotion { version: version.to_owned(), stage, waiver: None });
    let mut loose = (*trust.now()).clone();
    loose.set_policy(Policy {
        model: "m".into(),
        evaluation: EvaluationRule::None,
        staging_first: true,
        ..Policy::default()
    });
    trust.exchange(loose);
    let stamped = |event: RegistryEvent, trust| RegistryEvent { trust, ..event };
    let events = [
        apply(1, 0),
        asked(new(1), 1),
        stamped(asked(plain("1.0.0", Stage::Production), 2), 1),
        stamped(asked(plain("1.0.0", Stage::Staging), 2), 2),
        // An older stamp does not bring the older policy back.
        stamped(asked(plain("1.0.0", Stage::Production), 3), 1),
    ];
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, &events)]).unwrap();
    assert_eq!(codes(&task)[2..], ["NOT_EVALUATED", "ok", "ok"]);
    let behind = stamped(asked(new(2), 4), 3);
    let result = task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 5, 0, &[behind])]);
    assert!(matches!(result, Err(StageError::Behind { .. })), "a worker with an older file waits and blames no record");
}

#[test]
fn every_transition_is_a_statement_to_be_attested_and_nothing_else_is() {
    let task = ran(vec![
        new(1),
        alias("a", Some("1.0.0")),
        promote("1.0.0", Stage::Production),
        new(2),
        promote("1.1.0", Stage::Production),
        rollback("1.0.0"),
        Action::Archive("1.1.0".to_owned()),
        rollback("1.1.0"),
    ]);
    let requests = task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS);
    let read = |r: &AttestationRequest| serde_json::from_slice::<serde_json::Value>(&r.statement).unwrap();
    let told: Vec<_> = requests.iter().map(|r| read(r)["predicate"]["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ["register", "promote", "register", "promote", "rollback", "archive"]);
    let golden = include_str!("rollback.statement.json").trim_end();
    assert_eq!(std::str::from_utf8(&requests[4].statement).unwrap(), golden);
    for request in &requests {
        assert_eq!(serde_json_canonicalizer::to_vec(&read(request)).unwrap(), request.statement);
    }
}

fn version_of(number: u64, stage: &str, evaluations: Vec<VersionEvaluation>) -> ModelVersion {
    let model = last_model(&run(&after_apply(vec![new(number)])));
    let stages = vec!["dev".to_owned(), stage.to_owned()];
    ModelVersion { stage: stage.to_owned(), stages, evaluations, ..model.versions[0].clone() }
}

pub(super) fn evaluation(status: &str, baseline: u64, benchmark: &str) -> VersionEvaluation {
    let number = |text: &str| (status == "accepted").then(|| text.to_owned());
    VersionEvaluation {
        evaluation_id: format!("{status}-{baseline}-{benchmark}"),
        benchmark: benchmark.to_owned(),
        baseline: digest(baseline),
        status: status.to_owned(),
        reasons: Vec::new(),
        metric: "auroc".to_owned(),
        delta: number("0.01"),
        lower: number("0.001"),
        statement: String::new(),
    }
}

#[test]
fn the_policy_is_total_every_combination_of_facts_has_one_answer_and_missing_evidence_never_passes() {
    let evaluations = [
        vec![],
        vec![evaluation("refused", 7, "b")],
        vec![evaluation("accepted", 7, "b")],
        vec![evaluation("accepted", 8, "b")],
        vec![evaluation("accepted", 7, "c")],
        vec![evaluation("refused", 7, "b"), evaluation("accepted", 7, "b"), evaluation("failed", 7, "b")],
    ];
    let head = version_of(7, "production", vec![]);
    let mut seen = std::collections::BTreeSet::new();
    for evaluations in evaluations {
        for (stage, rule, benchmark, staging_first, with_head, waived) in combinations() {
            let candidate = version_of(1, stage, evaluations.clone());
            let policy = Policy {
                evaluation: rule,
                benchmark: benchmark.then(|| "b".to_owned()),
                staging_first,
                ..Policy::default()
            };
            let facts = Facts {
                policy: &policy,
                stage: Stage::Production,
                candidate: &candidate,
                head: with_head.then_some(&head),
                waived,
            };
            let accepted = evaluations.iter().any(|e| {
                e.status == "accepted" && (!with_head || e.baseline == digest(7)) && (!benchmark || e.benchmark == "b")
            });
            let staged = !staging_first || stage == "staging";
            let passes = staged && (rule == EvaluationRule::None || accepted);
            let decided = policy::decide(&facts);
            match &decided {
                Ok(Rule::Override(reason)) => {
                    assert!(waived && !passes);
                    seen.insert(reason.code());
                }
                Ok(_) => assert!(passes),
                Err(reason) => {
                    assert!(!waived && !passes);
                    seen.insert(reason.code());
                }
            }
            assert_eq!(decided, policy::decide(&facts));
        }
    }
    assert_eq!(seen.len(), Reason::ALL.len(), "every reason is met: {seen:?}");
}

fn combinations() -> impl Iterator<Item = (&'static str, EvaluationRule, bool, bool, bool, bool)> {
    (0..64_u32).map(|bits| {
        let bit = |at: u32| bits & (1 << at) != 0;
        let rule = if bit(1) { EvaluationRule::None } else { EvaluationRule::Accepted };
        (if bit(0) { "staging" } else { "dev" }, rule, bit(2), bit(3), bit(4), bit(5))
    })
}

//! Registration: numbers, origins, limits.

use super::*;
use crate::domain::records::{Artefact, Dataset, Lineage, Metric, NamedValue};
use crate::stages::registry::command::{Action, Expected, Origin, Registration, build};

/// A digest that tells numbers apart.
pub(super) fn digest(number: u64) -> String {
    format!("{number:064x}")
}

pub(super) fn imported(number: u64) -> Registration {
    Registration {
        origin: Origin::Imported,
        artefact: Artefact { digest: digest(number), size: 10, media_type: "application/onnx".to_owned() },
        contract_digest: None,
        features: Vec::new(),
        lineage: Lineage::default(),
        params: Vec::new(),
        metrics: Vec::new(),
        tags: Vec::new(),
    }
}

pub(super) fn on_data(number: u64, data: u64) -> Registration {
    let dataset = Dataset { digest: digest(data), rows: 5, contributions: 1, contributions_root: String::new() };
    Registration { lineage: Lineage { dataset: Some(dataset), ..Lineage::default() }, ..imported(number) }
}

/// Signs an action on a revision with the key that holds every role.
pub(super) fn asked(action: Action, revision: i64) -> RegistryEvent {
    let signed = build("m", Expected::Revision(revision), None, action, &key(1)).unwrap();
    event(&signed.envelope, 0)
}

pub(super) fn register(new: Registration, revision: i64) -> RegistryEvent {
    asked(Action::Register(Box::new(new)), revision)
}

/// A declared model, and what is asked of it, each on the revision before it.
pub(super) fn after_apply(actions: Vec<Action>) -> Vec<RegistryEvent> {
    let asked = (1..).zip(actions).map(|(revision, action)| asked(action, revision));
    std::iter::once(apply(1, 0)).chain(asked).collect()
}

pub(super) fn last_model(task: &Task<Registry>) -> Model {
    task.values::<Model>(topics::MODELS).pop().unwrap()
}

/// The code of the decision on a registration as the second event of a declared model.
fn code_of(new: Registration) -> String {
    codes(&run(&[apply(1, 0), register(new, 1)])).pop().unwrap()
}

#[test]
fn numbers_say_what_changed_data_features_or_neither_and_are_given_in_log_order() {
    let of = |parent: &str, new: Registration| {
        let lineage = Lineage { parent: Some(parent.to_owned()), ..new.lineage };
        Registration { lineage, ..new }
    };
    let events = vec![
        apply(1, 0),
        register(on_data(1, 100), 1),
        register(on_data(2, 100), 2),
        register(on_data(3, 101), 3),
        register(of("1.0.0", on_data(4, 100)), 4),
        register(of("1.0.0", on_data(5, 102)), 5),
        // No dataset is known to be the same.
        register(imported(6), 6),
        // To name every feature is to name none.
        register(Registration { features: vec!["x".to_owned()], ..on_data(7, 100) }, 7),
    ];
    let task = run(&events);
    assert_eq!(codes(&task), ["ok"; 8], "{:?}", task.values::<Audit>(topics::AUDIT));
    let numbers: Vec<_> = last_model(&task).versions.into_iter().map(|v| v.version).collect();
    assert_eq!(numbers, ["1.0.0", "1.0.1", "1.1.0", "1.0.2", "1.2.0", "1.3.0", "1.4.0"]);
}

#[test]
fn another_contract_with_other_columns_makes_a_major_version_and_one_with_other_limits_does_not() {
    let wider = spec("m", 1).canonical_json().unwrap().replace("\"x\"", "\"y\"");
    let wider = Action::Apply(wider);
    let events = after_apply(vec![
        Action::Register(Box::new(on_data(1, 100))),
        Action::Apply(spec("m", 9).canonical_json().unwrap()),
        Action::Register(Box::new(on_data(2, 100))),
        wider,
        Action::Register(Box::new(on_data(3, 100))),
    ]);
    let task = run(&events);
    assert_eq!(codes(&task), ["ok"; 6], "{:?}", task.values::<Audit>(topics::AUDIT));
    let numbers: Vec<_> = last_model(&task).versions.into_iter().map(|v| v.version).collect();
    assert_eq!(numbers, ["1.0.0", "1.0.1", "2.0.0"]);
}

#[test]
fn a_registered_version_holds_what_it_was_registered_with_and_who_signed() {
    let pair = |name: &str| NamedValue { name: name.to_owned(), value: "1".to_owned() };
    let metric = |name: &str| Metric { name: name.to_owned(), value: "0.5".to_owned(), rows: 7 };
    let new = Registration {
        params: vec![pair("b"), pair("a")],
        metrics: vec![metric("f1"), metric("auroc")],
        tags: vec![pair("t")],
        ..on_data(1, 100)
    };
    let task = run(&[apply(1, 0), register(new.clone(), 1)]);
    let version = last_model(&task).versions.remove(0);
    assert_eq!((version.stage.as_str(), version.origin.as_str(), version.revision), ("dev", "imported", 2));
    assert_eq!(version.artefact, new.artefact);
    assert_eq!(version.lineage, new.lineage);
    assert_eq!(version.params, [pair("a"), pair("b")]);
    assert_eq!(version.metrics, [metric("auroc"), metric("f1")]);
    assert_eq!(version.signer, crate::attest::dsse::key_id(&key(1).verifying_key()));
    let audit = task.values::<Audit>(topics::AUDIT).pop().unwrap();
    assert_eq!((audit.command_id, audit.revision), (Some(version.command_id), Some(2)));
    assert_eq!(audit.action, "model.register");
}

#[test]
fn what_a_registration_must_not_say_is_refused_by_name() {
    let lineage = |lineage: Lineage| Registration { lineage, ..imported(1) };
    let text = |text: &str| Some(text.to_owned());
    let pair = |value: &str| NamedValue { name: "n".to_owned(), value: value.to_owned() };
    let metric = |value: &str| Metric { name: "n".to_owned(), value: value.to_owned(), rows: 1 };
    let mut short = imported(1);
    short.artefact.digest.pop();
    let mut negative = imported(1);
    negative.artefact.size = -1;
    for (new, code) in [
        (short, "MALFORMED"),
        (negative, "MALFORMED"),
        (Registration { contract_digest: text(&digest(9)), ..imported(1) }, "UNKNOWN_CONTRACT"),
        (Registration { features: vec!["z".to_owned()], ..imported(1) }, "UNKNOWN_FEATURE"),
        (Registration { features: vec!["x".to_owned(); 2], ..imported(1) }, "MALFORMED"),
        (Registration { params: vec![pair("1"), pair("2")], ..imported(1) }, "MALFORMED"),
        (Registration { tags: vec![pair(&"x".repeat(2_000))], ..imported(1) }, "MALFORMED"),
        (Registration { metrics: vec![metric("1e9")], ..imported(1) }, "MALFORMED"),
        (Registration { metrics: vec![metric("NaN")], ..imported(1) }, "MALFORMED"),
        (Registration { metrics: vec![metric("00.1")], ..imported(1) }, "MALFORMED"),
        (lineage(Lineage { parent: text("1.0.0"), ..Lineage::default() }), "UNKNOWN_PARENT"),
        (lineage(Lineage { run_id: text(""), ..Lineage::default() }), "MALFORMED"),
        (lineage(Lineage { run_id: text("a\nb"), ..Lineage::default() }), "MALFORMED"),
        (lineage(Lineage { recipe_digest: text("abc"), ..Lineage::default() }), "MALFORMED"),
        (Registration { origin: Origin::Trained, ..imported(1) }, "OUT_OF_ROLE"),
        (Registration { origin: Origin::Contributed, ..imported(1) }, "MALFORMED"),
        (
            Registration {
                origin: Origin::Contributed,
                ..lineage(Lineage { contributor: text("UA"), ..Lineage::default() })
            },
            "PARENT_MISSING",
        ),
    ] {
        assert_eq!(code_of(new.clone()), code, "{new:?}");
    }
    let twice = run(&[apply(1, 0), register(imported(1), 1), register(imported(1), 2)]);
    assert_eq!(codes(&twice), ["ok", "ok", "DUPLICATE_ARTEFACT"]);
}

#[test]
fn a_model_that_cannot_hold_more_versions_says_so_and_goes_on_with_those_it_has() {
    // By size: the parameters of each version are as large as they may be.
    let heavy = |number: u64| {
        let value = |i: usize| NamedValue { name: format!("{i}"), value: "v".repeat(1_000) };
        Registration { params: (0..256).map(value).collect(), ..imported(number) }
    };
    let events: Vec<_> = std::iter::once(apply(1, 0)).chain((1..=5).map(|n| register(heavy(n), n as i64))).collect();
    let task = run(&events);
    assert_eq!(codes(&task), ["ok", "ok", "ok", "ok", "MODEL_FULL", "STALE_REVISION"]);
    let mut task = task;
    let alias = Action::Alias(command::AliasChange { alias: "a".to_owned(), version: Some("1.0.0".to_owned()) });
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 6, 0, &[asked(alias, 4)])]).unwrap();
    assert_eq!(codes(&task).last().unwrap(), "ok");
}

#[test]
fn semantic_versions_have_one_form() {
    for text in ["1.2", "1.2.3.4", "01.2.3", "1.2.x", "", "1..3", "-1.0.0", "1.2.3-rc"] {
        assert!(text.parse::<version::Semver>().is_err(), "{text}");
    }
    assert_eq!("10.0.3".parse::<version::Semver>().unwrap().to_string(), "10.0.3");
}

#[test]
fn another_declared_encoding_is_another_set_of_features_and_a_column_left_out_is_none() {
    let spec = |section: &str| {
        let text = include_str!("../../../domain/contract/example.yaml");
        Spec::parse_yaml(&text.replacen("label: churned\n", &format!("label: churned\n{section}"), 1), "f").unwrap()
    };
    let digest = |section: &str| version::features_digest(&spec(section), &[]).unwrap();
    let out = "learning: {leaveOut: [country]}\n";
    let of = |plan: &str| {
        let plan = format!("{{column: plan, encode: category{plan}}}");
        digest(&format!("learning: {{features: [{plan}], leaveOut: [country]}}\n"))
    };
    assert_ne!(digest(out), digest(""));
    assert_eq!(of(""), digest(out));
    assert_eq!(of(", categories: 254"), digest(out));
    assert_ne!(of(", categories: 3"), digest(out));
    let named = |column: &str| version::features_digest(&spec(out), &[column.to_owned()]);
    assert!(named("plan").is_ok());
    assert_eq!(named("country"), Err("country".to_owned()));
}

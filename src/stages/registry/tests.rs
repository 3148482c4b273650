mod benchmarks;
mod hostile;
mod lifecycle;
mod properties;
mod results;
mod versions;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::attest::dsse::Envelope;
use crate::domain::contract::Spec;
use crate::domain::records::{Audit, IntakeKey, Position};
use crate::stages::testing::{Task, batch};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn spec(model: &str, maximum: i64) -> Spec {
    let yaml = format!(
        "apiVersion: hokusai/v1\nkind: Model\nname: {model}\nversion: 1.0.0\nschema:\n  - name: rows\n    properties:\n      - {{name: x, logicalType: integer, logicalTypeOptions: {{minimum: 0, maximum: {maximum}}}}}\n"
    );
    Spec::parse_yaml(&yaml, "test.yaml").unwrap()
}

fn event(envelope: &str, offset: i64) -> RegistryEvent {
    RegistryEvent {
        model: "m".to_owned(),
        kind: "command".to_owned(),
        envelope: envelope.to_owned(),
        position: Position { topic: "model.commands".to_owned(), partition: 0, offset },
        intake_key: Some(intake_key("i1")),
        trust: 0,
    }
}

fn intake_key(id: &str) -> IntakeKey {
    IntakeKey { id: id.to_owned(), public: "0".repeat(64) }
}

fn apply(maximum: i64, revision: i64) -> RegistryEvent {
    event(&command::build_apply(&spec("m", maximum), revision, &key(1)).unwrap().envelope, 0)
}

fn task() -> Task<Registry> {
    let refuse_thirteen = |spec: &Spec| {
        if spec.canonical_json().unwrap().contains("\"maximum\":13,") {
            Err("13 does not compile".to_owned())
        } else {
            Ok(())
        }
    };
    Task::new(Registry::new(Trust::development(&key(1).verifying_key()), Box::new(refuse_thirteen)), 0, &[])
}

fn run(events: &[RegistryEvent]) -> Task<Registry> {
    let mut task = task();
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, events)]).unwrap();
    task
}

fn codes(task: &Task<Registry>) -> Vec<String> {
    let audits = task.values::<Audit>(topics::AUDIT);
    let code =
        |a: &Audit| if a.allowed { "ok".to_owned() } else { a.reason.split(':').next().unwrap_or("").to_owned() };
    audits.iter().map(code).collect()
}

/// Signs an arbitrary payload.
fn signed(payload: &serde_json::Value) -> RegistryEvent {
    let payload = serde_json_canonicalizer::to_vec(payload).unwrap();
    event(&Envelope::sign(command::PAYLOAD_TYPE, payload, &key(1)).to_json(), 0)
}

fn payload() -> serde_json::Value {
    let spec: serde_json::Value = serde_json::from_str(&spec("m", 1).canonical_json().unwrap()).unwrap();
    serde_json::json!({"command": "apply", "command_id": "id", "expected_revision": 0, "model": "m", "spec": spec})
}

fn with(field: &str, value: serde_json::Value) -> serde_json::Value {
    let mut payload = payload();
    payload[field] = value;
    payload
}

#[test]
fn commands_on_the_revision_they_saw_change_the_model_and_the_last_contract_is_in_force() {
    let task = run(&[apply(10, 0), apply(20, 1)]);
    let models = task.sent::<Model>(topics::MODELS);
    let (_, key, model) = &models[1];
    assert_eq!((key.as_slice(), model.revision, model.contracts.len(), model.commands.len()), (&b"m"[..], 2, 2, 2));
    assert_eq!(model.contract_digest, spec("m", 20).contract_digest().unwrap());
    assert_eq!(model.contracts[1].spec, spec("m", 20).canonical_json().unwrap());
    assert_eq!(codes(&task), ["ok", "ok"]);
}

#[test]
fn the_same_specification_on_the_same_revision_is_the_same_command() {
    let build = |revision| command::build_apply(&spec("m", 1), revision, &key(1)).unwrap();
    assert_eq!(build(0), build(0));
    assert_ne!(build(0).command_id, build(1).command_id);
}

#[test]
fn each_kind_of_command_that_must_not_pass_is_denied_by_name_and_changes_nothing() {
    let other_key = command::build_apply(&spec("m", 1), 0, &key(2)).unwrap().envelope;
    let unsigned = {
        let mut envelope = Envelope::from_json(apply(1, 0).envelope.as_bytes()).unwrap();
        envelope.signatures.clear();
        envelope.to_json()
    };
    let tampered = {
        let mut envelope = Envelope::from_json(apply(1, 0).envelope.as_bytes()).unwrap();
        let text =
            String::from_utf8(envelope.payload).unwrap().replace("\"expected_revision\":0", "\"expected_revision\":1");
        envelope.payload = text.into_bytes();
        envelope.to_json()
    };
    let not_canonical = {
        let payload = format!(" {}", payload());
        Envelope::sign(command::PAYLOAD_TYPE, payload.into_bytes(), &key(1)).to_json()
    };
    let other_type =
        Envelope::sign("another/type", serde_json_canonicalizer::to_vec(&payload()).unwrap(), &key(1)).to_json();
    for (event, code) in [
        (event("{}", 0), "MALFORMED"),
        (event(&other_key, 0), "UNKNOWN_KEY"),
        (event(&unsigned, 0), "UNSIGNED"),
        (event(&tampered, 0), "BAD_SIGNATURE"),
        (event(&not_canonical, 0), "MALFORMED"),
        (event(&other_type, 0), "MALFORMED"),
        (signed(&with("command", "retire".into())), "MALFORMED"),
        (signed(&with("extra", 1.into())), "MALFORMED"),
        (signed(&with("command_id", "".into())), "MALFORMED"),
        (signed(&with("model", "another".into())), "WRONG_MODEL"),
        (signed(&with("expires_offset", (-1).into())), "EXPIRED"),
        (signed(&with("spec", serde_json::json!({"name": "m"}))), "INVALID_SPEC"),
        (apply(13, 0), "INVALID_SPEC"),
        (apply(1, 7), "STALE_REVISION"),
        (RegistryEvent { kind: "rumour".to_owned(), ..apply(1, 0) }, "UNKNOWN_KIND"),
    ] {
        let task = run(std::slice::from_ref(&event));
        assert_eq!(codes(&task), [code], "{:?}", task.values::<Audit>(topics::AUDIT));
        assert!(task.values::<Model>(topics::MODELS).is_empty());
    }
}

#[test]
fn a_key_without_the_role_is_denied_under_its_own_name() {
    let public = data_encoding::HEXLOWER.encode(key(1).verifying_key().as_bytes());
    let trust =
        Trust::from_json(&format!(r#"{{"version":1,"keys":[{{"name":"ci","public":"{public}","roles":[]}}]}}"#));
    let mut task = Task::new(Registry::new(trust.unwrap(), Box::new(|_| Ok(()))), 0, &[]);
    task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, &[apply(1, 0)])]).unwrap();
    assert_eq!(codes(&task), ["OUT_OF_ROLE"]);
    assert_eq!(task.values::<Audit>(topics::AUDIT)[0].actor, crate::attest::dsse::key_id(&key(1).verifying_key()));
}

#[test]
fn a_repeated_command_is_denied_and_the_audit_names_it() {
    let task = run(&[apply(1, 0), apply(1, 0)]);
    assert_eq!(codes(&task), ["ok", "REPEATED"]);
    let id = command::build_apply(&spec("m", 1), 0, &key(1)).unwrap().command_id;
    assert!(task.values::<Audit>(topics::AUDIT).iter().all(|a| a.reason.contains(&id)));
}

#[test]
fn the_contract_in_force_applied_again_is_no_new_revision_and_an_older_one_comes_back_as_one() {
    let task = run(&[apply(1, 0), apply(1, 1), apply(2, 1), apply(1, 2)]);
    assert_eq!(codes(&task), ["ok"; 4]);
    let models = task.values::<Model>(topics::MODELS);
    assert_eq!(models.iter().map(|m| m.revision).collect::<Vec<_>>(), [1, 2, 3]);
    let last: Vec<_> = models[2].contracts.iter().map(|c| c.revision).collect();
    assert_eq!(last, [2, 3]);
    assert_eq!(models[2].contract_digest, models[0].contract_digest);
}

#[test]
fn a_model_carries_the_intake_key_of_its_last_event_and_the_contract_applied_again_publishes_a_new_one() {
    let keyed = |event: RegistryEvent, id: Option<&str>| RegistryEvent { intake_key: id.map(intake_key), ..event };
    let task = run(&[
        keyed(apply(1, 0), Some("i1")),
        keyed(apply(1, 1), Some("i1")),
        keyed(apply(1, 1), Some("i2")),
        keyed(apply(2, 2), None),
    ]);
    assert_eq!(codes(&task), ["ok"; 4]);
    let models = task.values::<Model>(topics::MODELS);
    let published = |m: &Model| (m.revision, m.intake_key.as_ref().map(|key| key.id.clone()));
    let expected = [(1, "i1"), (2, "i2"), (3, "i2")].map(|(revision, id)| (revision, Some(id.to_owned())));
    assert_eq!(models.iter().map(published).collect::<Vec<_>>(), expected);
    assert_eq!(models[1].contracts, models[0].contracts);
}

#[test]
fn a_model_that_is_full_says_so() {
    let events: Vec<_> = (0..=super::apply::MAX_CONTRACTS as i64).map(|i| apply(1_000 + i, i)).collect();
    let task = run(&events);
    assert_eq!(codes(&task).last().unwrap(), "MODEL_FULL");
    assert_eq!(task.values::<Model>(topics::MODELS).len(), super::apply::MAX_CONTRACTS);
}

#[test]
fn an_unreadable_event_goes_to_the_dead_letters_and_the_next_one_counts() {
    let mut events = Batch::new(topics::REGISTRY_EVENTS, 0);
    let wire = crate::codec::wire::Wire::default();
    events.push(0, 0, None, Some(b"?"));
    events.push(1, 0, None, None);
    events.push(2, 0, None, Some(&wire.encode(&apply(1, 0)).unwrap()));
    let mut task = task();
    task.commit(&[events]).unwrap();
    assert_eq!((task.dead_letters.len(), codes(&task)), (2, vec!["ok".to_owned()]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_fold_of_the_same_events_is_the_same_bytes_in_whatever_batches_and_after_restarts(
        commands in prop::collection::vec((1..5_i64, 0..4_i64), 1..12),
        cuts in prop::collection::vec((1..4_usize, 0..4_u8), 1..12),
    ) {
        let events: Vec<_> = commands.iter().map(|(maximum, revision)| apply(*maximum, *revision)).collect();
        let whole = run(&events);
        let mut cut = task();
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < events.len() {
            let (length, fate) = cuts.next().unwrap();
            let end = (at + length).min(events.len());
            let piece = batch(topics::REGISTRY_EVENTS, 0, at as i64, 0, &events[at..end]);
            match fate {
                0 => cut.abort(std::slice::from_ref(&piece)),
                1 => cut.restart().unwrap(),
                _ => {}
            }
            cut.commit(&[piece]).unwrap();
            at = end;
        }
        prop_assert_eq!(cut.outputs, whole.outputs);
    }
}

//! Commands that must not pass, as they come from outside: through keying into the registry.

use serde_json::{Value, json};

use super::versions::{digest, last_model};
use super::*;
use crate::attest::dsse::MAX_BYTES;
use crate::attest::trust::{LiveTrust, Trust};
use crate::domain::keys::KeyRing;
use crate::domain::limits::MAX_NESTING;
use crate::stages::keying::Keying;

/// A declared model with a version in production, seen through both stages.
struct Pair {
    keying: Task<Keying>,
    registry: Task<Registry>,
    offset: i64,
}

impl Pair {
    fn new(trust: &LiveTrust) -> Self {
        let keying = Keying::new(KeyRing::generate("t").unwrap()).with_trust(trust.clone());
        let mut pair = Self {
            keying: Task::new(keying, 0, &[]),
            registry: Task::new(Registry::new(trust.clone(), Box::new(|_| Ok(()))), 0, &[]),
            offset: 0,
        };
        pair.send(apply(1, 0).envelope.as_bytes());
        pair.send(sign(&register(1)).as_bytes());
        pair.send(sign(&promote(2)).as_bytes());
        assert_eq!(codes(&pair.registry), ["ok"; 3], "{:?}", pair.registry.values::<Audit>(topics::AUDIT));
        pair
    }

    /// Sends bytes to `model.commands`; what came of them: the audit's code, or that of the dead letter.
    fn send(&mut self, value: &[u8]) -> String {
        let letters = self.keying.dead_letters.len();
        let mut batch = Batch::new(topics::MODEL_COMMANDS, 0);
        batch.push(self.offset, 0, None, Some(value));
        self.keying.commit(&[batch]).unwrap();
        if self.keying.dead_letters.len() > letters {
            return self.keying.dead_letters.last().unwrap().reason.clone();
        }
        let mut events = Batch::new(topics::REGISTRY_EVENTS, 0);
        let event = self.keying.outputs.last().unwrap();
        events.push(self.offset, 0, None, event.value.as_deref());
        self.offset += 1;
        self.registry.commit(&[events]).unwrap();
        assert!(self.registry.dead_letters.is_empty());
        codes(&self.registry).pop().unwrap()
    }
}

fn register(revision: i64) -> Value {
    json!({
        "command": "register", "command_id": format!("r{revision}"), "expected_revision": revision, "model": "m",
        "origin": "imported", "artefact": {"digest": digest(1), "size": 1, "media_type": "a/b"},
    })
}

fn promote(revision: i64) -> Value {
    json!({
        "command": "promote", "command_id": format!("p{revision}"), "expected_revision": revision, "model": "m",
        "stage": "production", "version": "1.0.0", "override": "a test",
    })
}

fn tag(revision: i64) -> Value {
    json!({
        "command": "tag", "command_id": format!("t{revision}"), "expected_revision": revision, "model": "m",
        "tag": "k", "value": "v",
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut payload = tag(3);
    payload[field] = value;
    payload
}

fn without(field: &str) -> Value {
    let mut payload = tag(3);
    payload.as_object_mut().unwrap().remove(field);
    payload
}

fn sign_with(payload: &Value, seed: u8) -> Envelope {
    Envelope::sign(command::PAYLOAD_TYPE, serde_json_canonicalizer::to_vec(payload).unwrap(), &key(seed))
}

fn sign(payload: &Value) -> String {
    sign_with(payload, 1).to_json()
}

fn trust() -> LiveTrust {
    LiveTrust::from(Trust::development(&key(1).verifying_key()))
}

#[test]
fn a_command_that_must_not_pass_is_refused_by_name_changes_nothing_and_the_next_one_counts() {
    let forged = {
        let mut envelope = sign_with(&tag(3), 2);
        envelope.signatures[0].keyid = crate::attest::dsse::key_id(&key(1).verifying_key());
        envelope.to_json()
    };
    let changed = {
        let mut envelope = sign_with(&tag(3), 1);
        envelope.payload = serde_json_canonicalizer::to_vec(&with("value", "w".into())).unwrap();
        envelope.to_json()
    };
    let unsigned = Envelope { signatures: Vec::new(), ..sign_with(&tag(3), 1) }.to_json();
    let deep = format!("{{\"model\":\"m\",\"x\":{}{}}}", "[".repeat(MAX_NESTING), "]".repeat(MAX_NESTING));
    let deep = Envelope::sign(command::PAYLOAD_TYPE, deep.into_bytes(), &key(1)).to_json();
    let huge = format!("{{\"payloadType\":\"{}\"}}", "x".repeat(MAX_BYTES));
    let many = {
        let mut envelope = sign_with(&tag(3), 1);
        envelope.signatures = vec![envelope.signatures[0].clone(); 17];
        envelope.to_json()
    };
    let cases: Vec<(&str, String, &str)> = vec![
        ("forged", forged, "BAD_SIGNATURE"),
        ("changed after signing", changed, "BAD_SIGNATURE"),
        ("unsigned", unsigned, "UNSIGNED"),
        ("a stranger's", sign_with(&tag(3), 2).to_json(), "UNKNOWN_KEY"),
        ("stale", sign(&tag(2)), "STALE_REVISION"),
        ("from the future", sign(&tag(4)), "STALE_REVISION"),
        ("repeated", sign(&register(1)), "REPEATED"),
        ("repeated on the present revision", sign(&with("command_id", "r1".into())), "REPEATED"),
        ("expired", sign(&with("expires_offset", 2.into())), "EXPIRED"),
        ("for another model", sign(&with("model", "n".into())), "UNKNOWN_MODEL"),
        ("too large", huge, "TOO_LARGE"),
        ("too deep", deep, "COMMAND_UNREADABLE"),
        ("too many signatures", many, "COMMAND_UNREADABLE"),
        ("not JSON", "]".to_owned(), "COMMAND_UNREADABLE"),
        ("no command", sign(&without("command")), "MALFORMED"),
        ("an unknown command", sign(&with("command", "destroy".into())), "MALFORMED"),
        ("a number as text", sign(&with("expected_revision", "3".into())), "MALFORMED"),
        ("a fraction", sign(&with("expected_revision", json!(3.5))), "MALFORMED"),
        ("no expectation", sign(&without("expected_revision")), "MALFORMED"),
        ("a transition for a tag", sign(&with("expected_transition", 3.into())), "MALFORMED"),
        ("an array as tag", sign(&with("tag", json!([1]))), "MALFORMED"),
        ("an unknown field", sign(&with("force", true.into())), "MALFORMED"),
        ("an id that is too long", sign(&with("command_id", "x".repeat(129).into())), "MALFORMED"),
        ("an id that is a number", sign(&with("command_id", 7.into())), "MALFORMED"),
    ];
    let mut pair = Pair::new(&trust());
    let before = last_model(&pair.registry);
    for (what, bytes, code) in &cases {
        assert_eq!(pair.send(bytes.as_bytes()), *code, "{what}");
    }
    assert_eq!(last_model(&pair.registry), before);
    assert_eq!(pair.send(sign(&tag(3)).as_bytes()), "ok");
    let denied = pair.registry.values::<Audit>(topics::AUDIT).into_iter().filter(|a| !a.allowed).count();
    let unreadable = cases.iter().filter(|(_, _, code)| ["TOO_LARGE", "COMMAND_UNREADABLE"].contains(code)).count();
    assert_eq!(denied, cases.len() - unreadable, "every denial is audited");
}

#[test]
fn a_revoked_key_is_refused_from_the_next_command_on_and_what_it_did_before_stands() {
    let trust = trust();
    let mut pair = Pair::new(&trust);
    let mut file = (*trust.now()).clone();
    file.grant("new", &key(7).verifying_key(), crate::attest::trust::Role::ALL);
    file.revoke(&crate::attest::dsse::key_id(&key(1).verifying_key())).unwrap();
    trust.exchange(file);
    assert_eq!(pair.send(sign(&tag(3)).as_bytes()), "REVOKED_KEY");
    assert_eq!(pair.send(sign_with(&tag(3), 7).to_json().as_bytes()), "ok");
    // The same log under the present file: the same records, byte for byte.
    let mut again = Task::new(Registry::new(trust, Box::new(|_| Ok(()))), 0, &[]);
    let mut events = Batch::new(topics::REGISTRY_EVENTS, 0);
    for (offset, event) in (0..).zip(&pair.keying.outputs) {
        events.push(offset, 0, None, event.value.as_deref());
    }
    again.commit(&[events]).unwrap();
    assert_eq!(again.outputs, pair.registry.outputs);
}

#[test]
fn no_audit_record_repeats_what_a_refused_command_carried() {
    let mut pair = Pair::new(&trust());
    for payload in [
        with("value", json!(["secret!"])),
        with("secret!", 1.into()),
        with("command", "secret!".into()),
        with("expected_revision", "secret!".into()),
    ] {
        pair.send(sign(&payload).as_bytes());
    }
    let told = format!("{:?}", pair.registry.values::<Audit>(topics::AUDIT));
    assert!(!told.contains("secret!"), "{told}");
}

use super::*;
use crate::attest::bundle::Bundle;
use crate::attest::receipt;
use crate::attest::roots::{RangedKey, Role, TrustRoot};
use crate::attest::tree::empty_root;
use crate::attest::verify::{Against, verify};
use crate::ops::log_keeper::{LogKeeper, load_log_keys, load_or_create_log_keys, rotate_log_key};
use crate::stages::testing::{End, Task};
use crate::stages::warehouse::fixtures;

/// A machine with keys and a store.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        load_or_create_log_keys(&machine.keys(), "acme").unwrap();
        machine
    }

    fn keys(&self) -> std::path::PathBuf {
        self.folder.path().join("keys")
    }

    fn keeper(&self) -> LogKeeper {
        LogKeeper::new(&self.keys(), "acme", self.folder.path().join("store").to_str().unwrap()).unwrap()
    }

    fn stage(&self) -> Attesting {
        Attesting::new("acme", Box::new(self.keeper()))
    }

    fn task(&self) -> Task<Attesting> {
        Task::new(self.stage(), 0, &[])
    }

    fn root(&self, keys: Vec<RangedKey>, origin: &str) -> TrustRoot {
        TrustRoot {
            version: 1,
            origin: origin.to_owned(),
            expires: "2100-01-31T00:00:00Z".to_owned(),
            roots: vec![SigningKey::from_bytes(&[1; 32]).verifying_key()],
            threshold: 1,
            keys,
            witnesses: Vec::new(),
            witness_threshold: 0,
        }
    }
}

fn request(id: &str) -> AttestationRequest {
    let statement = receipt::statement(&fixtures::receipt(id, "admitted"), &empty_root(), &[]);
    AttestationRequest {
        predicate_type: statement.predicate.uri().to_owned(),
        statement: statement.payload().unwrap(),
        acknowledge: None,
    }
}

fn batch(first: i64, ids: &[&str]) -> Batch {
    let requests: Vec<_> = ids.iter().map(|id| request(id)).collect();
    crate::stages::testing::batch(topics::ATTESTATION_REQUESTS, 0, first, 0, &requests)
}

/// The task's stage begins anew, as in another process.
fn restart(task: &mut Task<Attesting>, machine: &Machine) {
    task.stage = machine.stage();
    task.end(End::Killed).unwrap();
}

fn entries(task: &Task<Attesting>) -> Vec<Attestation> {
    task.values(topics::ATTESTATIONS)
}

fn texts(task: &Task<Attesting>, topic: &str) -> Vec<String> {
    let of_topic = task.outputs.iter().filter(|record| record.topic == topic);
    of_topic.map(|record| String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap()).collect()
}

fn heads(task: &Task<Attesting>) -> Vec<(Checkpoint, String)> {
    let notes = texts(task, topics::CHECKPOINTS);
    notes.into_iter().map(|note| (Checkpoint::parse(note.as_bytes()).unwrap().0, note)).collect()
}

#[test]
fn a_receipt_is_signed_logged_covered_by_the_next_transaction_and_verifies_offline() {
    let machine = Machine::new();
    let mut task = machine.task();
    task.commit(&[batch(0, &["c-1", "c-2"])]).unwrap();
    assert!(heads(&task).is_empty(), "a tree head never comes with its own entries");
    task.settle_all().unwrap();
    let (entries, heads) = (entries(&task), heads(&task));
    // Two keys of the log come first.
    assert_eq!((entries.len(), heads.len(), heads[0].0.size), (4, 1, 4));
    let keys = load_log_keys(&machine.keys(), "acme").unwrap();
    let key = |role, key: &SigningKey| RangedKey { role, key: key.verifying_key(), from: 0, to: None };
    let root = machine.root(vec![key(Role::Attester, &keys.attester), key(Role::Log, &keys.log)], &heads[0].0.origin);
    let trust = root.sign(&[SigningKey::from_bytes(&[1; 32])]).unwrap().to_json().into_bytes();
    for (entry, proof) in entries.iter().zip(texts(&task, topics::PROOFS)) {
        let proof = TlogProof::parse(proof.as_bytes()).unwrap();
        let bundle = Bundle { envelope: Envelope::from_json(&entry.envelope).unwrap(), proof, consistency: None };
        let against =
            Against { trust: std::slice::from_ref(&trust), now: 0, seen: None, log: None, laid: None, artefacts: None };
        let report = verify(bundle.to_json().unwrap().as_bytes(), &against);
        assert_eq!(report.code(), if entry.index < 2 { 0 } else { 19 }, "{:?}", report.checks);
    }
    assert_eq!(machine.keeper().newest().unwrap(), vec![heads[0].1.clone(); 2], "kept beside the key and in the store");
    assert!(!task.stage.owes(&task.state).unwrap(), "nothing is left to do");
}

#[test]
fn batch_borders_aborts_and_kills_change_no_byte_of_any_entry() {
    let machine = Machine::new();
    let ids = ["a", "b", "c", "a", "d", "c", "e"];
    let mut whole = machine.task();
    whole.commit(&[batch(0, &ids)]).unwrap();
    whole.settle_all().unwrap();
    // The same keys with a store of their own, a record at a time, each aborted once, with a kill after each.
    let other = twin(&machine);
    let mut torn = other.task();
    for (offset, id) in ids.iter().enumerate() {
        let batch = batch(offset as i64, &[id]);
        torn.abort(std::slice::from_ref(&batch));
        torn.commit(&[batch]).unwrap();
        restart(&mut torn, &other);
    }
    torn.settle_all().unwrap();
    assert_eq!(entries(&torn), entries(&whole));
    assert_eq!(entries(&whole).len(), 2 + 5, "no leaf twice");
    assert_eq!(heads(&torn).last(), heads(&whole).last(), "the same leaves, the same tree head");
}

/// A machine with the same keys, which has kept nothing.
fn twin(machine: &Machine) -> Machine {
    let other = Machine::new();
    for key in std::fs::read_dir(machine.keys()).unwrap().map(|file| file.unwrap().path()) {
        if key.extension().is_some_and(|e| e == "pem") {
            std::fs::copy(&key, other.keys().join(key.file_name().unwrap())).unwrap();
        }
    }
    other
}

#[test]
fn a_kill_between_keeping_and_publishing_gives_the_same_tree_head_again() {
    let machine = Machine::new();
    let mut task = machine.task();
    task.commit(&[batch(0, &["a"])]).unwrap();
    // It signs and keeps, and dies before the transaction commits.
    task.abort(&[]);
    let kept = machine.keeper().newest().unwrap();
    assert_eq!(kept.len(), 2);
    restart(&mut task, &machine);
    task.commit(&[batch(1, &["b"])]).unwrap();
    assert_eq!(heads(&task).iter().map(|(_, note)| note).collect::<Vec<_>>(), [&kept[0]]);
    let sizes: Vec<u64> = {
        task.settle_all().unwrap();
        heads(&task).iter().map(|(head, _)| head.size).collect()
    };
    assert_eq!(sizes, [3, 4], "each size once");
}

#[test]
fn a_log_that_lost_entries_or_holds_others_stops_with_evidence_and_signs_nothing() {
    let machine = Machine::new();
    let mut task = machine.task();
    task.commit(&[batch(0, &["a", "b"])]).unwrap();
    task.settle_all().unwrap();
    let signed = machine.keeper().newest().unwrap();
    let halted = |task: &mut Task<Attesting>, name: &str| {
        let error = task.commit(&[batch(2, &["c"])]).unwrap_err();
        assert!(matches!(&error, StageError::Halt { what, .. } if what.starts_with(name)), "{error}");
        let evidence = std::fs::read_to_string(machine.keys().join("log-acme.evidence.json")).unwrap();
        assert!(evidence.contains(name), "{evidence}");
        assert_eq!(machine.keeper().newest().unwrap(), signed);
    };
    // Nothing is left of the log.
    halted(&mut machine.task(), "LOG_TRUNCATED");
    // The power failed, and the last transactions are gone; another entry came meanwhile.
    let other = twin(&machine);
    let mut fork = other.task();
    fork.commit(&[batch(0, &["a"])]).unwrap();
    fork.settle_all().unwrap();
    fork.stage = machine.stage();
    halted(&mut fork, "LOG_TRUNCATED");
    let other = twin(&machine);
    let mut fork = other.task();
    fork.commit(&[batch(0, &["a"])]).unwrap();
    fork.commit(&[batch(1, &["x", "y"])]).unwrap();
    fork.settle_all().unwrap();
    fork.stage = machine.stage();
    halted(&mut fork, "LOG_INCONSISTENT");
}

#[test]
fn what_is_no_statement_in_its_one_form_is_put_aside_and_the_rest_goes_on() {
    let machine = Machine::new();
    let mut task = machine.task();
    let good = request("a");
    let text = String::from_utf8(good.statement.clone()).unwrap();
    let with = |statement: String| AttestationRequest { statement: statement.into_bytes(), ..good.clone() };
    let key = load_log_keys(&machine.keys(), "acme").unwrap().log;
    let forged_key = AttestationRequest {
        predicate_type: KeyEvent::TYPE.to_owned(),
        statement: key_event("o", "attester", &key, 0, None).unwrap(),
        acknowledge: None,
    };
    let requests = [
        with(text.replace("{\"_type\"", "{ \"_type\"")),
        with(text.replace("\"received\":5", "\"received\":5.5")),
        with(text.replace("/contribution/v1", "/decision/v1")),
        AttestationRequest { predicate_type: KeyEvent::TYPE.to_owned(), ..good.clone() },
        forged_key,
        good.clone(),
    ];
    let mut batch = crate::stages::testing::batch(topics::ATTESTATION_REQUESTS, 0, 0, 0, &requests);
    batch.push(6, 0, None, Some(b"noise"));
    batch.push(7, 0, None, None);
    task.commit(&[batch]).unwrap();
    assert_eq!(task.dead_letters.len(), 7);
    assert_eq!(entries(&task).len(), 3);
}

#[test]
fn keys_change_by_entries_that_the_key_before_has_signed_and_count_from_the_next_index() {
    let machine = Machine::new();
    let mut task = machine.task();
    task.commit(&[batch(0, &["a"])]).unwrap();
    task.settle_all().unwrap();
    let before = load_log_keys(&machine.keys(), "acme").unwrap();
    for role in ["attester", "log"] {
        rotate_log_key(&machine.keys(), "acme", role).unwrap();
    }
    let after = load_log_keys(&machine.keys(), "acme").unwrap();
    task.commit(&[batch(1, &["b"])]).unwrap();
    task.settle_all().unwrap();
    let signer = |index: usize, key: &SigningKey| {
        Envelope::from_json(&entries(&task)[index].envelope).unwrap().is_signed_by(&key.verifying_key())
    };
    // begin, begin, a | attester, log, b
    assert!(signer(2, &before.attester) && signer(3, &before.attester) && !signer(3, &after.attester));
    assert!(signer(4, &after.attester) && signer(5, &after.attester) && !signer(5, &before.attester));
    let event = |index: usize| {
        let payload = Envelope::from_json(&entries(&task)[index].envelope).unwrap().payload;
        let Predicate::KeyEvent(event) = Statement::read(&payload).unwrap().predicate else { panic!("no key event") };
        (event.role, event.from_index, event.replaces)
    };
    let id = |key: &SigningKey| Some(key_id(&key.verifying_key()));
    assert_eq!(event(3), ("attester".to_owned(), 4, id(&before.attester)));
    assert_eq!(event(4), ("log".to_owned(), 4, id(&before.log)));
    let head = |at: usize| crate::attest::note::Note::parse(heads(&task)[at].1.as_bytes()).unwrap();
    let of = |at: usize, key: &SigningKey| {
        let name = heads(&task)[at].0.origin.clone();
        head(at).verify(&NoteKey { name, algorithm: Algorithm::Log, key: key.verifying_key() }).is_ok()
    };
    assert!(of(0, &before.log) && of(1, &after.log) && !of(1, &before.log));
}

#[test]
fn a_machine_with_other_keys_than_the_logs_stops_instead_of_signing() {
    let (machine, stranger) = (Machine::new(), Machine::new());
    let mut task = machine.task();
    task.commit(&[batch(0, &["a"])]).unwrap();
    task.settle_all().unwrap();
    task.stage = stranger.stage();
    let error = task.commit(&[batch(1, &["b"])]).unwrap_err();
    assert!(matches!(&error, StageError::Halt { what, .. } if what.starts_with("LOG_KEY_MISSING")), "{error}");
    assert_eq!(stranger.keeper().newest(), Ok(Vec::new()));
}

/// The request to attest a preregistration, and to acknowledge it.
fn preregistered(id: &str) -> AttestationRequest {
    let laid = crate::attest::evaluation::Preregistration {
        evaluation_id: id.to_owned(),
        ..crate::attest::evaluation::tests::preregistration()
    };
    let subject = Subject::new(format!("m evaluation {id}"), "sha256", &[6; 32]);
    let statement = Statement { subject, predicate: Predicate::Preregistration(Box::new(laid)) };
    AttestationRequest {
        predicate_type: statement.predicate.uri().to_owned(),
        statement: statement.payload().unwrap(),
        acknowledge: Some(id.to_owned()),
    }
}

fn requested(first: i64, requests: &[AttestationRequest]) -> Batch {
    crate::stages::testing::batch(topics::ATTESTATION_REQUESTS, 0, first, 0, requests)
}

fn acknowledged(task: &Task<Attesting>) -> Vec<EvaluationRequest> {
    task.values(topics::EVALUATION_REQUESTS)
}

#[test]
fn a_preregistration_is_acknowledged_under_its_family_once_a_durable_tree_head_covers_it_and_not_before() {
    let machine = Machine::new();
    let mut task = machine.task();
    task.commit(&[requested(0, &[request("c-1"), preregistered("e-1"), request("c-2")])]).unwrap();
    assert!(acknowledged(&task).is_empty(), "logged is not covered");
    restart(&mut task, &machine);
    task.settle_all().unwrap();
    let [told] = acknowledged(&task).try_into().unwrap();
    let entry = entries(&task).into_iter().find(|entry| entry.index == 3).unwrap();
    let said = told.acknowledgement.unwrap();
    assert_eq!((said.leaf, said.index, told.evaluation_id.as_str()), (entry.leaf, 3, "e-1"));
    assert_eq!(said.checkpoint, heads(&task)[0].1, "the very tree head that is published and kept");
    assert!(machine.keeper().newest().unwrap().contains(&said.checkpoint));
    let (_, key, _) = &task.sent::<EvaluationRequest>(topics::EVALUATION_REQUESTS)[0];
    assert_eq!(key.as_slice(), told.family.as_bytes());
    // The same statement again stands once, and is acknowledged with the leaf that it has.
    task.commit(&[requested(3, &[preregistered("e-1")])]).unwrap();
    task.settle_all().unwrap();
    let again = acknowledged(&task).pop().unwrap().acknowledgement.unwrap();
    assert_eq!((again.index, entries(&task).len(), acknowledged(&task).len()), (3, 5, 2));
    assert!(!task.stage.owes(&task.state).unwrap());
}

#[test]
fn nothing_but_a_preregistration_is_acknowledged_and_only_to_its_own_evaluation() {
    let machine = Machine::new();
    let mut task = machine.task();
    let receipt = AttestationRequest { acknowledge: Some("e-1".to_owned()), ..request("c-1") };
    let other = AttestationRequest { acknowledge: Some("e-2".to_owned()), ..preregistered("e-1") };
    task.commit(&[requested(0, &[receipt, other])]).unwrap();
    task.settle_all().unwrap();
    let reasons: Vec<&str> = task.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!((reasons, acknowledged(&task).len()), (vec!["STATEMENT_REFUSED"; 2], 0));
}

use super::super::bundle::Consistency;
use super::super::checkpoint::TlogProof;
use super::super::dsse::{Envelope, key_id};
use super::super::predicate::tests::{contribution, key_event};
use super::super::roots::RangedKey;
use super::super::statement::{ROW_TREE, Subject};
use super::*;
use ed25519_dalek::SigningKey;

const ORIGIN: &str = "hokusai/acme/0011223344556677";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn root() -> TrustRoot {
    let ranged = |role, seed, from, to| RangedKey { role, key: key(seed).verifying_key(), from, to };
    TrustRoot {
        version: 1,
        origin: ORIGIN.to_owned(),
        expires: "2030-01-31T00:00:00Z".to_owned(),
        roots: vec![key(1).verifying_key()],
        threshold: 1,
        keys: vec![
            ranged(Role::Attester, 2, 0, Some(5)),
            ranged(Role::Attester, 3, 5, None),
            ranged(Role::Log, 4, 0, None),
        ],
        witnesses: Vec::new(),
        witness_threshold: 0,
    }
}

fn statement(n: u64) -> Statement {
    let mut predicate = contribution();
    predicate.contribution_id = format!("c-{n}");
    Statement {
        subject: Subject::new("contribution".to_owned(), ROW_TREE, &[7; 32]),
        predicate: Predicate::Contribution(Box::new(predicate)),
    }
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|n| leaf_of(&statement(n).payload().unwrap())).collect()
}

fn head(leaves: &[Hash], size: u64) -> Note {
    let nodes = MemoryNodes::of(leaves.iter().copied());
    let root = nodes::root(&nodes, size).unwrap();
    Checkpoint { origin: ORIGIN.to_owned(), size, root }.sign(&key(4)).unwrap()
}

fn bundle(index: u64, size: u64) -> Bundle {
    let (all, signer) = (leaves(size), if index < 5 { 2 } else { 3 });
    let nodes = MemoryNodes::of(all.iter().copied());
    let note = head(&all, size);
    Bundle {
        envelope: Envelope::sign(PAYLOAD_TYPE, statement(index).payload().unwrap(), &key(signer)),
        proof: TlogProof {
            index,
            path: nodes::inclusion_proof(&nodes, index, size).unwrap(),
            checkpoint: Checkpoint::of(&note).unwrap(),
            note,
        },
        consistency: None,
    }
}

fn since(mut bundle: Bundle, from: u64) -> Bundle {
    let nodes = MemoryNodes::of(leaves(bundle.proof.checkpoint.size));
    let path = nodes::consistency_proof(&nodes, from, bundle.proof.checkpoint.size).unwrap();
    bundle.consistency = Some(Consistency { from, path });
    bundle
}

/// A bundle that is in order, and the trust root to check it with.
pub(crate) fn good() -> Bundle {
    bundle(3, 7)
}

pub(crate) fn trust() -> Vec<u8> {
    root().sign(&[key(1)]).unwrap().to_json().into_bytes()
}

#[derive(Default)]
struct Given {
    root: Option<TrustRoot>,
    seen: Option<Note>,
    log: Option<Vec<Hash>>,
    artefact: Option<Outcome>,
}

fn check_bytes(bytes: &[u8], given: &Given) -> Report {
    let root = given.root.clone().unwrap_or_else(root).sign(&[key(1)]).unwrap().to_json();
    let seen = given.seen.as_ref().map(ToString::to_string);
    let artefacts = |_: &Statement, _: &[u8]| {
        let outcome = given.artefact.unwrap_or(Outcome::NotChecked);
        vec![Check { name: ARTEFACTS, outcome, detail: String::new() }]
    };
    verify(
        bytes,
        &Against {
            trust: &[root.into_bytes()],
            now: 1_800_000_000,
            seen: seen.as_ref().map(|s| s.as_bytes()),
            log: given.log.as_deref(),
            laid: None,
            artefacts: Some(&artefacts),
        },
    )
}

fn check(bundle: &Bundle, given: &Given) -> Report {
    check_bytes(bundle.to_json().unwrap().as_bytes(), given)
}

#[test]
fn a_good_bundle_is_unbound_without_artefacts_and_ok_with_them() {
    let good = bundle(3, 7);
    assert_eq!(Bundle::from_json(good.to_json().unwrap().as_bytes()), Ok(good.clone()));
    assert_eq!(check(&good, &Given::default()).code(), 19);
    let bound = check(&good, &Given { artefact: Some(Outcome::Passed), ..Given::default() });
    assert_eq!(bound.code(), 0, "{:?}", bound.checks);
    assert_eq!(bound.checks.len(), NAMES.len(), "what was not checked is told as well");
    assert_eq!(check(&good, &Given { artefact: Some(Outcome::Failed(15)), ..Given::default() }).code(), 15);
}

#[test]
fn no_byte_of_a_bundle_can_be_changed_without_being_noticed() {
    let good = since(bundle(3, 7), 2).to_json().unwrap();
    let given = Given { seen: Some(head(&leaves(7), 2)), artefact: Some(Outcome::Passed), ..Given::default() };
    assert_eq!(check_bytes(good.as_bytes(), &given).code(), 0);
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        let report = check_bytes(&bytes, &given);
        // The key id of a signature is a hint that is not signed: nothing hangs on it.
        let keyid = good.find("\"keyid\":\"").unwrap() + 9;
        if report.code() == 0 {
            assert!((keyid..keyid + 64).contains(&at), "byte {at} of {good}");
        }
    }
}

#[test]
fn a_key_counts_within_its_range_of_indexes_alone() {
    assert_eq!(check(&bundle(5, 7), &Given::default()).code(), 19);
    let mut old = bundle(5, 7);
    old.envelope = Envelope::sign(PAYLOAD_TYPE, statement(5).payload().unwrap(), &key(2));
    assert_eq!(check(&old, &Given::default()).code(), 12);
    let mut early = root();
    early.keys[2].to = Some(6);
    assert_eq!(check(&bundle(3, 7), &Given { root: Some(early), ..Given::default() }).code(), 12);
}

#[test]
fn a_stranger_signs_neither_statements_nor_tree_heads() {
    let mut forged = bundle(3, 7);
    forged.envelope = Envelope::sign(PAYLOAD_TYPE, forged.envelope.payload.clone(), &key(9));
    assert_eq!(check(&forged, &Given::default()).code(), 11);
    // Not even the log's own key may sign a statement, nor the attester a tree head.
    forged.envelope = Envelope::sign(PAYLOAD_TYPE, forged.envelope.payload.clone(), &key(4));
    assert_eq!(check(&forged, &Given::default()).code(), 11);
    let mut forged = bundle(3, 7);
    forged.proof.note = forged.proof.checkpoint.sign(&key(2)).unwrap();
    assert_eq!(check(&forged, &Given::default()).code(), 11);
    let mut other = bundle(3, 7);
    let elsewhere = Checkpoint { origin: "another/log".to_owned(), ..other.proof.checkpoint.clone() };
    other.proof.note = elsewhere.sign(&key(4)).unwrap();
    assert_eq!(check(&other, &Given::default()).code(), 11);
}

#[test]
fn a_statement_that_is_not_in_the_log_is_not_included() {
    let mut absent = bundle(3, 7);
    absent.envelope = Envelope::sign(PAYLOAD_TYPE, statement(99).payload().unwrap(), &key(2));
    assert_eq!(check(&absent, &Given::default()).code(), 13);
}

#[test]
fn an_earlier_tree_head_must_be_the_beginning_of_the_bundles() {
    let seen = |size| Some(head(&leaves(7), size));
    let at = |bundle: &Bundle, seen| check(bundle, &Given { seen, ..Given::default() });
    assert_eq!(at(&bundle(3, 7), seen(7)).code(), 19);
    let proven = at(&since(bundle(3, 7), 4), seen(4));
    assert_eq!((proven.code(), proven.remember), (19, seen(7).map(|n| n.to_string())));
    assert_eq!(at(&bundle(3, 7), seen(4)).code(), 14, "nothing proves it");
    assert_eq!(at(&since(bundle(3, 7), 3), seen(4)).code(), 14, "a proof of another size");
    let rolled_back = at(&bundle(3, 4), seen(7));
    assert_eq!(rolled_back.code(), 14);
    assert!(rolled_back.evidence.is_some() && rolled_back.remember.is_none());
    let with_log = Given { seen: seen(7), log: Some(leaves(7)), ..Given::default() };
    assert_eq!(check(&bundle(3, 4), &with_log).code(), 19, "the whole log proves an older head");
}

#[test]
fn two_roots_for_one_size_are_portable_evidence() {
    let mut fork = leaves(7);
    fork[6] = [0; 32];
    for seen in [head(&fork, 7), head(&fork[1..], 4)] {
        let given = Given { seen: Some(seen.clone()), ..Given::default() };
        let report = check(&since(bundle(3, 7), 4), &given);
        assert_eq!(report.code(), 14);
        let (before, now) = report.evidence.unwrap();
        assert_eq!((before, now), (seen.to_string(), head(&leaves(7), 7).to_string()));
    }
}

#[test]
fn a_log_that_is_short_forked_or_holds_a_leaf_twice_is_noticed() {
    let code = |log: Vec<Hash>| check(&bundle(3, 7), &Given { log: Some(log), ..Given::default() }).code();
    assert_eq!(code(leaves(7)), 19);
    assert_eq!(code(leaves(9)), 19, "it may have grown since");
    assert_eq!(code(leaves(6)), 14);
    let mut forked = leaves(7);
    forked[0] = [1; 32];
    assert_eq!(code(forked), 14);
    let mut twice = leaves(9);
    twice[8] = twice[3];
    assert_eq!(code(twice), 13);
}

#[test]
fn expired_trust_and_missing_witnesses_are_a_matter_of_policy() {
    let expired = TrustRoot { expires: "2020-01-31T00:00:00Z".to_owned(), ..root() };
    assert_eq!(check(&bundle(3, 7), &Given { root: Some(expired), ..Given::default() }).code(), 17);
    let witness =
        |seed| NoteKey { name: format!("w{seed}"), algorithm: Algorithm::Witness, key: key(seed).verifying_key() };
    let watched = TrustRoot { witnesses: vec![witness(20), witness(21), witness(22)], witness_threshold: 2, ..root() };
    let mut seen_by_one = bundle(3, 7);
    seen_by_one.proof.note.cosign("w20", &key(20), 1_700_000_000);
    let given = Given { root: Some(watched), ..Given::default() };
    assert_eq!(check(&seen_by_one, &given).code(), 17);
    seen_by_one.proof.note.cosign("w22", &key(22), 1_700_000_100);
    assert_eq!(check(&seen_by_one, &given).code(), 19);
}

#[test]
fn a_key_event_is_bound_by_the_trust_root_itself() {
    let event = |from_index| KeyEvent {
        origin: ORIGIN.to_owned(),
        keyid: key_id(&key(2).verifying_key()),
        public: data_encoding::HEXLOWER.encode(key(2).verifying_key().as_bytes()),
        from_index,
        ..key_event()
    };
    for (from, code) in [(0, 0), (1, 15)] {
        let subject = Subject::new(ORIGIN.to_owned(), "sha256", &[0; 32]);
        let payload = Statement { subject, predicate: Predicate::KeyEvent(event(from)) }.payload().unwrap();
        let leaf = leaf_of(&payload);
        let note = head(&[leaf], 1);
        let bundle = Bundle {
            envelope: Envelope::sign(PAYLOAD_TYPE, payload, &key(2)),
            proof: TlogProof { index: 0, path: Vec::new(), checkpoint: Checkpoint::of(&note).unwrap(), note },
            consistency: None,
        };
        assert_eq!(check(&bundle, &Given::default()).code(), code);
    }
}

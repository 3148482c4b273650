//! Chunks that their contributor has signed.

use std::sync::Arc;

use ed25519_dalek::SigningKey;

use super::sealed::{chunk, json_rows, send, task};
use super::support::*;
use crate::attest::contributor::{ContributorKey, Place};
use crate::codec::sealed as sealing;
use crate::domain::keys::KeyRing;
use crate::domain::records::{Contribution, Refused};
use crate::domain::topics;

fn alice() -> ContributorKey {
    ContributorKey::Ed25519(SigningKey::from_bytes(&[5; 32]))
}

fn signed(key: &ContributorKey, chunk: Contribution) -> Contribution {
    let signature = key.sign(&Place::of(&chunk, chunk.contribution_id.as_deref().unwrap_or_default()), &chunk.payload);
    Contribution { signature: Some(signature), ..chunk }
}

fn of_alice() -> Contribution {
    Contribution { contributor: alice().name(), ..chunk("json", json_rows()) }
}

/// How the chunk was signed, and why it was refused.
fn outcome(ring: &Arc<KeyRing>, chunk: &Contribution) -> (Option<String>, String) {
    let mut task = task(ring.clone());
    send(&mut task, None, chunk);
    assert!(task.dead_letters.is_empty());
    let refused = task.values::<Refused>(topics::REFUSED);
    let whole = refused.iter().flat_map(|r| &r.refusals).find(|refusal| refusal.row == -1);
    let code = whole.map(|refusal| refusal.code.clone()).unwrap_or_default();
    (manifests(&task)[0].contributor_signature.clone(), code)
}

#[test]
fn a_chunk_is_verified_plain_or_sealed_when_it_is_signed_as_it_was_sent() {
    let ring = ring();
    let plain = signed(&alice(), of_alice());
    assert_eq!(outcome(&ring, &plain), (Some("ed25519".to_owned()), String::new()));
    let mut sealed = of_alice();
    sealing::seal(&mut sealed, ring.intake_key().public()).unwrap();
    assert_eq!(outcome(&ring, &signed(&alice(), sealed.clone())), (Some("ed25519".to_owned()), String::new()));
    assert_eq!(outcome(&ring, &of_alice()), (None, String::new()), "unsigned is admitted, and not verified");
    // Signed before it was sealed: other bytes were sent.
    let early = Contribution { signature: signed(&alice(), of_alice()).signature, ..sealed };
    assert_eq!(outcome(&ring, &early), (None, "SIGNATURE_INVALID".to_owned()));
}

#[test]
fn a_signature_that_was_taken_from_elsewhere_refuses_the_chunk_and_no_row_of_it_leaves() {
    let ring = ring();
    let good = signed(&alice(), of_alice());
    let cases = [
        (Contribution { contribution_id: Some("c-2".into()), ..good.clone() }, "SIGNATURE_INVALID"),
        (Contribution { payload: b"[]".to_vec(), ..good.clone() }, "SIGNATURE_INVALID"),
        (Contribution { contributor: "mallory".into(), ..good.clone() }, "SIGNATURE_FOREIGN"),
        (Contribution { signature: Some("none".into()), ..good }, "SIGNATURE_INVALID"),
    ];
    for (chunk, code) in cases {
        assert_eq!(outcome(&ring, &chunk), (None, code.to_owned()));
        let mut task = task(ring.clone());
        send(&mut task, None, &chunk);
        assert!(task.outputs.iter().all(|record| record.topic != topics::SCREENED));
    }
}

#[test]
fn a_sealed_chunk_cannot_be_taken_over_by_another_signer() {
    let ring = ring();
    let mallory = ContributorKey::wallet(&"22".repeat(32)).unwrap();
    let mut sealed = of_alice();
    sealing::seal(&mut sealed, ring.intake_key().public()).unwrap();
    let stolen = signed(&mallory, Contribution { contributor: mallory.name(), ..sealed });
    assert_eq!(outcome(&ring, &stolen), (Some("eip191".to_owned()), "UNSEAL_FAILED".to_owned()));
}

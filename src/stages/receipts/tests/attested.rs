//! What receipts asks attesting for, and who is verified.

use super::super::{codec, model};
use super::*;
use crate::attest::receipt::checks;
use crate::attest::statement::Statement;
use crate::attest::verify::Outcome;
use crate::domain::records::AttestationRequest;

/// Two chunks, signed in these ways.
fn receipt_of(signatures: [Option<&str>; 2]) -> (Task<Receipts>, Receipt) {
    let chunks = [Sent { chunks: 2, ..CHUNK }, Sent { chunk: 1, chunks: 2, content: 1, ..CHUNK }];
    let signed = |(chunk, signature): (&Sent, Option<&str>)| {
        let mut manifest = chunk.manifest();
        manifest.contributor_signature = signature.map(str::to_owned);
        manifest.contributor_pseudonyms = vec!["hmac-sha256:k1:00".to_owned()];
        ManifestEvent { manifest: Some(manifest), mark: None }
    };
    let events: Vec<_> = chunks.iter().zip(signatures).map(signed).collect();
    let mut task = task();
    task.manifests(0, &events).verdicts(&chunks);
    let receipt = task.only();
    (task, receipt)
}

#[test]
fn every_receipt_comes_with_the_statement_that_says_the_same() {
    let (task, receipt) = receipt_of([Some("eip191"), Some("eip191")]);
    let requests = task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS);
    assert_eq!(requests.len(), 1);
    let statement = Statement::read(&requests[0].statement).unwrap();
    assert_eq!(statement.predicate.uri(), requests[0].predicate_type);
    let outcomes: Vec<_> = checks(&statement, &[receipt]).into_iter().map(|check| check.outcome).collect();
    assert_eq!(outcomes, [Outcome::Passed, Outcome::Passed, Outcome::Passed, Outcome::NotChecked]);
    assert!(!String::from_utf8_lossy(&requests[0].statement).contains("\"p0\""), "no contributor by name");
}

#[test]
fn a_contributor_is_verified_when_every_chunk_was_signed_in_one_way() {
    let verified = |signatures| {
        let (_, receipt) = receipt_of(signatures);
        (receipt.contributor_verified, receipt.contributor_signature)
    };
    assert_eq!(verified([Some("ed25519"), Some("ed25519")]), (true, Some("ed25519".to_owned())));
    for mixed in [[Some("ed25519"), None], [None, Some("ed25519")], [Some("ed25519"), Some("eip191")], [None, None]] {
        assert_eq!(verified(mixed), (false, None), "{mixed:?}");
    }
}

#[test]
fn a_contribution_that_has_waited_since_before_signatures_is_read_without_one() {
    let header = model::Header::new(&Sent { chunks: 2, ..CHUNK }.manifest(), 2);
    let pending = model::Contribution::Pending(Box::new(header));
    let mut bytes = codec::encode(&pending);
    // Each later field is empty or zero here, which takes one byte. Version 2 ended before the collision rate, version 1 before
    // pseudonyms and signature too.
    assert_eq!(bytes.split_off(bytes.len() - 1), [0]);
    bytes[0] = 2;
    assert_eq!(codec::decode::<model::Contribution>("it", &bytes).unwrap(), pending);
    assert_eq!(bytes.split_off(bytes.len() - 2), [0, 0]);
    bytes[0] = 1;
    assert_eq!(codec::decode::<model::Contribution>("it", &bytes).unwrap(), pending);
}

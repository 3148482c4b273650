use ed25519_dalek::SigningKey;

use super::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn signed(seed: u8) -> Envelope {
    Envelope::sign("t", b"x".to_vec(), &key(seed))
}

#[test]
fn a_trust_file_reads_back_and_names_the_signer_of_an_envelope() {
    let trust = Trust::development(&key(1).verifying_key());
    assert_eq!(Trust::from_json(&trust.to_json()).unwrap(), trust);
    assert_eq!(trust.signer(&signed(1)).map(|(_, k)| k.name.as_str()), Some("development"));
    assert_eq!(trust.signer(&signed(2)), None);
}

#[test]
fn a_known_key_id_over_a_strangers_signature_convinces_nobody() {
    let trust = Trust::development(&key(1).verifying_key());
    let mut forged = signed(2);
    forged.signatures[0].keyid = key_id(&key(1).verifying_key());
    assert_eq!(trust.signer_at(&forged, 1), Signer::Forged);
    assert_eq!(trust.signer_at(&signed(2), 1), Signer::Unknown);
    let nobody = Envelope { signatures: Vec::new(), ..signed(1) };
    assert_eq!(trust.signer_at(&nobody, 1), Signer::Nobody);
}

#[test]
fn a_revoked_key_counts_for_what_came_before_and_never_again() {
    let mut trust = Trust::development(&key(1).verifying_key());
    let id = key_id(&key(1).verifying_key());
    trust.grant("ci", &key(2).verifying_key(), &[Role::ModelTag]);
    trust.revoke(&id).unwrap();
    assert_eq!(trust.serial(), 3);
    assert_eq!(trust.revoke(&id), Err(TrustError::NoSuchKey(id)));
    let trust = Trust::from_json(&trust.to_json()).unwrap();
    assert!(matches!(trust.signer_at(&signed(1), 2), Signer::Trusted(..)));
    assert!(matches!(trust.signer_at(&signed(1), 3), Signer::Revoked(..)));
    assert!(matches!(trust.signer_at(&signed(2), 1), Signer::Revoked(..)), "not in force yet");
    assert!(matches!(trust.signer_at(&signed(2), 2), Signer::Trusted(..)));
}

#[test]
fn other_roles_are_a_new_entry_and_the_earlier_ones_still_count_for_what_came_before() {
    let mut trust = Trust::development(&key(1).verifying_key());
    trust.grant("development", &key(1).verifying_key(), &[Role::ModelTag]);
    let trust = Trust::from_json(&trust.to_json()).unwrap();
    let holds = |serial| match trust.signer_at(&signed(1), serial) {
        Signer::Trusted(_, key) => key.holds(Role::ModelApply),
        other => panic!("{other:?}"),
    };
    assert!(holds(1) && !holds(2));
}

#[test]
fn the_policy_in_force_is_that_of_the_model_then_that_of_all_then_the_strict_one() {
    let mut trust = Trust::development(&key(1).verifying_key());
    let policy =
        |model: &str| Policy { model: model.to_owned(), evaluation: EvaluationRule::None, ..Policy::default() };
    trust.set_policy(policy("*"));
    trust.set_policy(Policy { staging_first: true, ..policy("m") });
    let trust = Trust::from_json(&trust.to_json()).unwrap();
    assert_eq!(trust.policy_at("m", 1), Policy::default());
    assert_eq!(trust.policy_at("m", 1).evaluation, EvaluationRule::Accepted);
    assert!(!trust.policy_at("m", 2).staging_first && trust.policy_at("m", 3).staging_first);
    assert_eq!(trust.policy_at("another", 3).evaluation, EvaluationRule::None);
}

#[test]
fn a_file_of_the_first_version_is_one_of_serial_1() {
    let public = data_encoding::HEXLOWER.encode(key(1).verifying_key().as_bytes());
    let text = format!(r#"{{"version":1,"keys":[{{"name":"ops","public":"{public}","roles":["model.apply"]}}]}}"#);
    let trust = Trust::from_json(&text).unwrap();
    assert_eq!(trust.serial(), 1);
    assert!(matches!(trust.signer_at(&signed(1), 1), Signer::Trusted(_, key) if key.roles == [Role::ModelApply]));
}

#[test]
fn unknown_roles_fields_and_versions_weak_keys_and_crooked_serials_are_refused() {
    let good = data_encoding::HEXLOWER.encode(key(1).verifying_key().as_bytes());
    let with = |key: &str, roles: &str, version: u32, more: &str| {
        Trust::from_json(&format!(
            r#"{{"version":{version},"serial":3,"keys":[{{"name":"n","public":"{key}","roles":{roles}{more}}}]}}"#
        ))
    };
    assert!(with(&good, "[]", 2, "").is_ok());
    assert!(matches!(with(&good, r#"["rule.all"]"#, 2, ""), Err(TrustError::Json(_))));
    assert!(matches!(with(&good, "[]", 3, ""), Err(TrustError::Version(3))));
    assert!(matches!(with(&good, "[]", 0, ""), Err(TrustError::Version(0))));
    assert!(matches!(with(&"0".repeat(64), "[]", 2, ""), Err(TrustError::Key(_))));
    assert!(matches!(with("zz", "[]", 2, ""), Err(TrustError::Key(_))));
    for serials in [r#","from":0"#, r#","from":4"#, r#","from":2,"until":2"#] {
        assert!(matches!(with(&good, "[]", 2, serials), Err(TrustError::Serial(_))), "{serials}");
    }
    let again = format!(r#"}},{{"name":"n","public":"{good}","roles":[],"from":2"#);
    assert!(matches!(with(&good, "[]", 2, &again), Err(TrustError::Twice(_))));
    assert!(with(&good, "[]", 2, &format!(r#","until":2{again}"#)).is_ok());
}

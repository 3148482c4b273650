//! Sealed benchmarks in the fold: who may enter one, in which form and order, and what becomes of it.

use super::versions::{asked, last_model};
use super::*;
use crate::attest::benchmark::BenchmarkDecision;
use crate::attest::statement::{Predicate, Statement};
use crate::attest::trust::Role;
use crate::domain::records::{Artefact, AttestationRequest, Benchmark};
use crate::stages::registry::benchmark::{Retirement, Seal};
use crate::stages::registry::command::{Action, Expected, build};

fn blob(letter: &str) -> Artefact {
    Artefact { digest: letter.repeat(64), size: 7, media_type: "application/octet-stream".to_owned() }
}

pub(super) fn seal(benchmark: &str, root: &str) -> Seal {
    Seal {
        benchmark: benchmark.to_owned(),
        contract_digest: spec("m", 1).contract_digest().unwrap(),
        rows: 100,
        rows_root: root.repeat(64),
        family: root.repeat(64),
        label_commitment: "c".repeat(64),
        collision_rate: "0.002900".to_owned(),
        strata: vec!["carrier=AA".to_owned(), "carrier=other".to_owned()],
        merged: vec!["carrier=ZZ".to_owned()],
        strata_margin: Some("0.02".to_owned()),
        strata_deviation: Some("0.5".to_owned()),
        match_filter: blob("d"),
        sealed_rows: blob("e"),
        sealed_to: "e1".to_owned(),
    }
}

fn sealing(seal: Seal, revision: i64) -> RegistryEvent {
    asked(Action::Seal(Box::new(seal)), revision)
}

fn retiring(benchmark: &str, revision: i64) -> RegistryEvent {
    let reason = Some("five acceptances".to_owned());
    asked(Action::Retire(Retirement { benchmark: benchmark.to_owned(), reason }), revision)
}

fn statements(task: &Task<Registry>) -> Vec<BenchmarkDecision> {
    let requests = task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS);
    let read = |request: &AttestationRequest| match Statement::read(&request.statement).unwrap().predicate {
        Predicate::Benchmark(decision) if request.predicate_type == BenchmarkDecision::TYPE => *decision,
        other => panic!("{other:?}"),
    };
    requests.iter().map(read).collect()
}

#[test]
fn a_benchmark_is_published_attested_and_retired_once() {
    let events = [apply(1, 0), sealing(seal("holdout@1", "1"), 1), retiring("holdout@1", 2), retiring("holdout@1", 3)];
    let task = run(&events);
    assert_eq!(codes(&task), ["ok"; 4]);
    let published = task.sent::<Benchmark>(topics::BENCHMARKS);
    let told: Vec<_> = published.iter().map(|(_, key, b)| (key.as_slice(), b.revision, b.retired)).collect();
    assert_eq!(told, [(&b"m/holdout@1"[..], 2, false), (&b"m/holdout@1"[..], 2, true)]);
    assert_eq!(published[1].2.retired_reason.as_deref(), Some("five acceptances"));
    assert_eq!(last_model(&task).benchmarks, [published[1].2.clone()]);
    assert_eq!(last_model(&task).revision, 3, "a repeated retirement changes nothing");
    let [sealed, retired] = statements(&task).try_into().unwrap();
    let facts = sealed.seal.unwrap();
    assert_eq!((sealed.action.as_str(), sealed.revision, facts.rows.n), ("seal", 2, 100));
    assert_eq!((facts.collision_rate_ppm.as_str(), facts.strata_margin_ppm.as_deref()), ("2900", Some("20000")));
    assert_eq!((retired.action.as_str(), retired.revision, retired.seal), ("retire", 3, None));
}

#[test]
fn versions_of_a_name_count_and_the_same_rows_are_not_sealed_twice_nor_into_another_family() {
    let other_family = Seal { family: "9".repeat(64), ..seal("again@1", "1") };
    let task = run(&[
        apply(1, 0),
        sealing(seal("holdout@2", "1"), 1),
        sealing(seal("holdout@1", "1"), 1),
        sealing(seal("holdout@1", "2"), 2),
        sealing(seal("holdout@2", "2"), 2),
        sealing(seal("again@1", "1"), 3),
        retiring("holdout@1", 3),
        sealing(other_family, 4),
        sealing(seal("again@1", "1"), 4),
        retiring("nothing@1", 5),
    ]);
    let wanted = [
        "ok",
        "WRONG_VERSION",
        "ok",
        "WRONG_VERSION",
        "ok",
        "DUPLICATE_BENCHMARK",
        "ok",
        "OTHER_FAMILY",
        "ok",
        "UNKNOWN_BENCHMARK",
    ];
    assert_eq!(codes(&task), wanted, "{:?}", task.values::<Audit>(topics::AUDIT));
}

#[test]
fn a_seal_that_is_forged_stale_expired_repeated_or_out_of_role_is_audited_and_changes_nothing() {
    let by = |seed: u8, revision: i64, expires: Option<i64>| {
        let action = Action::Seal(Box::new(seal("holdout@1", "1")));
        event(&build("m", Expected::Revision(revision), expires, action, &key(seed)).unwrap().envelope, 0)
    };
    let forged = {
        let mut envelope = Envelope::from_json(by(1, 1, None).envelope.as_bytes()).unwrap();
        let text = String::from_utf8(envelope.payload).unwrap();
        envelope.payload = text.replace("\"rows\":100", "\"rows\":101").into_bytes();
        event(&envelope.to_json(), 0)
    };
    let roles: Vec<Role> = Role::ALL.iter().copied().filter(|role| *role != Role::BenchmarkSeal).collect();
    let (all, others) = (key(1).verifying_key(), key(2).verifying_key());
    let trust = Trust::of([("all", &all, Role::ALL.to_vec()), ("others", &others, roles)]);
    for (event, code) in [
        (forged, "BAD_SIGNATURE"),
        (by(3, 1, None), "UNKNOWN_KEY"),
        (by(2, 1, None), "OUT_OF_ROLE"),
        (by(1, 0, None), "STALE_REVISION"),
        (by(1, 1, Some(0)), "EXPIRED"),
    ] {
        let mut task = Task::new(Registry::new(trust.clone(), Box::new(|_| Ok(()))), 0, &[]);
        task.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, &[apply(1, 0), event])]).unwrap();
        assert_eq!(codes(&task), ["ok", code]);
        let audit = task.values::<Audit>(topics::AUDIT).remove(1);
        assert_eq!((audit.action.as_str(), audit.resource.as_str()), ("benchmark.seal", "model/m"));
        assert!(task.values::<Benchmark>(topics::BENCHMARKS).is_empty() && statements(&task).is_empty());
    }
    let twice = run(&[apply(1, 0), by(1, 1, None), by(1, 1, None)]);
    assert_eq!(codes(&twice), ["ok", "ok", "REPEATED"]);
}

#[test]
fn a_seal_that_is_not_in_its_form_is_refused() {
    let good = || seal("holdout@1", "1");
    let many = (0..600).map(|level| format!("carrier={level:04}")).collect();
    let bad = [
        Seal { benchmark: "holdout".to_owned(), ..good() },
        Seal { benchmark: "Holdout@1".to_owned(), ..good() },
        Seal { benchmark: "a/b@1".to_owned(), ..good() },
        Seal { benchmark: "holdout@01".to_owned(), ..good() },
        Seal { rows: 0, ..good() },
        Seal { rows: i64::MAX, ..good() },
        Seal { rows_root: "X".repeat(64), ..good() },
        Seal { family: String::new(), ..good() },
        Seal { collision_rate: "1.000001".to_owned(), ..good() },
        Seal { collision_rate: "NaN".to_owned(), ..good() },
        Seal { strata: vec!["carrier=b".to_owned(), "carrier=a".to_owned()], ..good() },
        Seal { strata: vec!["no level".to_owned()], ..good() },
        Seal { strata: many, ..good() },
        Seal { strata_margin: None, ..good() },
        Seal { strata_margin: Some("0".to_owned()), ..good() },
        Seal { strata: Vec::new(), ..good() },
        Seal { match_filter: Artefact { size: 0, ..blob("d") }, ..good() },
        Seal { sealed_rows: Artefact { digest: "e".to_owned(), ..blob("e") }, ..good() },
        Seal { sealed_to: String::new(), ..good() },
    ];
    for seal in bad {
        let task = run(&[apply(1, 0), sealing(seal.clone(), 1)]);
        assert_eq!(codes(&task), ["ok", "MALFORMED"], "{seal:?}");
    }
    let stranger = Seal { contract_digest: "0".repeat(64), ..good() };
    assert_eq!(codes(&run(&[apply(1, 0), sealing(stranger, 1)])), ["ok", "UNKNOWN_CONTRACT"]);
}

use super::super::benchmark::BENCHMARK_TREE;
use super::super::eval_result::{AT_LEAST, Commitment, LABELS, RELEASE_GATE, SELF_ATTESTED, Sha256Digest, claim_of};
use super::super::figures::MetricFacts;
use super::super::statement::PAYLOAD_TYPE;
use super::*;

/// A preregistration with every field.
pub fn preregistration() -> Preregistration {
    let margin = |name: &str| Margin { margin_ppm: "10000".to_owned(), name: name.to_owned() };
    Preregistration {
        attempt: SpentLevel {
            alpha_ppm: "50000".to_owned(),
            family: "01".repeat(32),
            level_e12: "30396355092".to_owned(),
            number: 1,
        },
        baseline: NamedArtefact { digest: "02".repeat(32), version: "1.0.0".to_owned() },
        benchmark: SealedBenchmark {
            contract_digest: "03".repeat(32),
            label_commitment: "04".repeat(32),
            name: "holdout@1".to_owned(),
            rows: SealedRows { leaf_alg: BENCHMARK_TREE.to_owned(), n: 500, root: "01".repeat(32) },
        },
        candidate: Candidate {
            dataset_root: Some("05".repeat(32)),
            dataset_rows: Some(1_000),
            receipts: Some(Receipts { count: 3, root: "0b".repeat(32) }),
            digest: "06".repeat(32),
            recipe_digest: "07".repeat(32),
            run_id: "run".to_owned(),
        },
        comparator: AT_LEAST.to_owned(),
        contract_digest: "03".repeat(32),
        evaluation_id: "e".to_owned(),
        guardrails: vec![margin("brier")],
        metric: "auroc".to_owned(),
        minimum_effect_ppm: "5000".to_owned(),
        model: "m".to_owned(),
        replicates: 2_000,
        seed: "08".repeat(32),
        strata: vec![margin("plan=basic")],
        test: "delong".to_owned(),
    }
}

/// The outcome of the same attempt.
pub fn outcome() -> Outcome {
    let Preregistration { attempt, baseline, benchmark, candidate, evaluation_id, metric, model, .. } =
        preregistration();
    let commitment = |alg: &str, value: &String| Commitment { alg: alg.to_owned(), salted: true, value: value.clone() };
    let sha256 = |byte: &str| Sha256Digest { sha256: byte.repeat(32) };
    Outcome {
        assurance_level: SELF_ATTESTED.to_owned(),
        claims: vec![Claim {
            comparator: AT_LEAST.to_owned(),
            metric: claim_of(&metric),
            passed: false,
            threshold: "0.005000".to_owned(),
        }],
        commitments: Commitments {
            dataset: commitment(BENCHMARK_TREE, &benchmark.rows.root),
            labels: commitment(LABELS, &benchmark.label_commitment),
        },
        evaluated_at: "2023-11-14T22:13:20Z".to_owned(),
        evaluator: Evaluator::of(&"0c".repeat(32)),
        evidence: vec![Evidence {
            digest: sha256("0d"),
            media_type: PAYLOAD_TYPE.to_owned(),
            name: "preregistration".to_owned(),
        }],
        harness: Harness { digest: sha256("0e"), name: "hokusai".to_owned(), version: "0.1.0".to_owned() },
        model: NamedModel { digest: Sha256Digest { sha256: candidate.digest.clone() }, name: model },
        sample_size: benchmark.rows.n,
        subject_profile: RELEASE_GATE.to_owned(),
        suite: Suite { name: "holdout".to_owned(), version: "1".to_owned() },
        attempt,
        baseline,
        benchmark,
        candidate,
        evaluation_id,
        metric,
        pre_registration: LaidDown::leaf("09".repeat(32)),
        reasons: vec!["NOT_SIGNIFICANT".to_owned()],
        record: None,
        status: "refused".to_owned(),
        withheld: Some("0a".repeat(32)),
    }
}

fn laid(index: u64, leaf: u8, number: i64) -> Laid {
    let attempt = SpentLevel { number, ..preregistration().attempt };
    Laid { index, leaf: format!("{leaf:02x}").repeat(32), said: Preregistration { attempt, ..preregistration() } }
}

fn sealed(index: u64) -> Sealed {
    let Preregistration { attempt, benchmark, model, .. } = preregistration();
    let facts = SealFacts {
        collision_rate_ppm: "0".to_owned(),
        contract_digest: benchmark.contract_digest,
        label_commitment: benchmark.label_commitment,
        match_filter: "00".repeat(32),
        merged: Vec::new(),
        rows: benchmark.rows,
        sealed_rows: "00".repeat(32),
        strata: vec!["plan=basic".to_owned()],
        strata_deviation_ppm: None,
        strata_margin_ppm: None,
    };
    Sealed { index, model, benchmark: benchmark.name, family: attempt.family, facts }
}

/// The preregistration of the outcome, changed.
fn other(change: impl FnOnce(&mut Preregistration)) -> Vec<Laid> {
    let mut own = laid(5, 9, 1);
    change(&mut own.said);
    vec![own]
}

#[test]
fn an_outcome_follows_only_its_own_preregistration_and_attempts_are_recounted() {
    let outcome = outcome();
    let seals = [sealed(1)];
    assert!(outcome.follows(8, &[laid(5, 9, 1)], &seals).is_ok());
    let mut other_family = laid(2, 1, 1);
    other_family.said.attempt.family = "ff".repeat(32);
    assert!(outcome.follows(8, &[other_family, laid(5, 9, 1), laid(7, 2, 2)], &seals).is_ok());
    for (bad, problem) in [
        (vec![], "does not stand in the log"),
        (vec![laid(5, 8, 1)], "does not stand in the log"),
        (vec![laid(8, 9, 1)], "not before 8"),
        (vec![laid(9, 9, 1)], "not before 8"),
        (vec![laid(5, 9, 2)], "another attempt"),
        (other(|said| said.evaluation_id = "f".to_owned()), "another attempt"),
        (other(|said| said.metric = "accuracy".to_owned()), "another attempt"),
        (other(|said| said.minimum_effect_ppm = "4999".to_owned()), "another attempt"),
        (other(|said| said.minimum_effect_ppm = "x".to_owned()), "another attempt"),
        (other(|said| said.candidate.digest = "ff".repeat(32)), "another attempt"),
        (other(|said| said.baseline.digest = "ff".repeat(32)), "another attempt"),
        (other(|said| said.benchmark.name = "easy@1".to_owned()), "another attempt"),
        (other(|said| said.strata.clear()), "another strata than"),
        (vec![laid(3, 7, 1), laid(5, 9, 1)], "the log has 2"),
    ] {
        let found = outcome.follows(8, &bad, &seals).unwrap_err();
        assert!(found.contains(problem), "{found}");
    }
    type Change = fn(&mut Sealed);
    let seals: [(&str, Change); 7] = [
        ("no seal", |own| own.index = 5),
        ("no seal", |own| own.model = "n".to_owned()),
        ("another family", |own| own.family = "ff".repeat(32)),
        ("another rows", |own| own.facts.rows.n = 499),
        ("another label commitment", |own| own.facts.label_commitment = "ff".repeat(32)),
        ("another contract", |own| own.facts.contract_digest = "ff".repeat(32)),
        ("another strata", |own| own.facts.strata.push("plan=gold".to_owned())),
    ];
    for (problem, change) in seals {
        let mut own = sealed(1);
        change(&mut own);
        let found = outcome.follows(8, &[laid(5, 9, 1)], &[own]).unwrap_err();
        assert!(found.contains(problem), "{found}");
    }
}

#[test]
fn an_attempt_spends_the_level_of_its_number_and_of_its_familys_alpha() {
    let of = |alpha: &str, number, level: &str| SpentLevel {
        alpha_ppm: alpha.to_owned(),
        level_e12: level.to_owned(),
        number,
        ..preregistration().attempt
    };
    assert!(of("50000", 1, "30396355092").is_of_its_number());
    assert!(of("50000", 40, "18997721").is_of_its_number());
    for (alpha, number, level) in [
        ("50000", 40, "30396355092"),
        ("050000", 1, "30396355092"),
        ("50000", 0, "0"),
        ("50000", -1, "30396355092"),
        ("1000000", 1, "607927101854"),
        ("x", 1, "30396355092"),
        ("50000", i64::MAX, "0"),
    ] {
        assert!(!of(alpha, number, level).is_of_its_number(), "{alpha} {number} {level}");
    }
    let mut dearer = laid(5, 9, 1);
    dearer.said.attempt.level_e12 = "30396355093".to_owned();
    let mut told = outcome();
    told.attempt = dearer.said.attempt.clone();
    assert!(told.follows(8, &[dearer], &[sealed(1)]).unwrap_err().contains("another level"));
}

#[test]
fn what_an_outcome_says_twice_it_says_the_same() {
    assert_eq!(outcome().restated(), Ok(()));
    type Change = fn(&mut Outcome);
    let changes: [(&str, Change); 10] = [
        ("assuranceLevel", |own| own.assurance_level = "reproduced".to_owned()),
        ("claims", |own| own.claims.clear()),
        ("claims", |own| own.claims[0].passed = true),
        ("claims", |own| own.claims[0].metric = claim_of("brier")),
        ("commitments.dataset", |own| own.commitments.dataset.value = "ff".repeat(32)),
        ("commitments.labels", |own| own.commitments.labels.salted = false),
        ("model", |own| own.model.digest.sha256 = "ff".repeat(32)),
        ("sampleSize", |own| own.sample_size += 1),
        ("subjectProfile", |own| own.subject_profile = "receipt".to_owned()),
        ("suite", |own| own.suite.version = "2".to_owned()),
    ];
    for (field, change) in changes {
        let mut changed = outcome();
        change(&mut changed);
        assert_eq!(changed.restated(), Err(field));
    }
}

#[test]
fn who_is_accepted_shows_figures_that_suffice_and_who_is_not_shows_none() {
    assert!(outcome().earns_its_status().is_ok());
    let facts = MetricFacts {
        baseline_bps: Some(7_300),
        baseline_ppm: "730000".to_owned(),
        candidate_bps: Some(7_350),
        candidate_ppm: "735000".to_owned(),
        delta_ppm: "5000".to_owned(),
        interval_ppm: None,
        lower_ppm: None,
        name: "auroc".to_owned(),
        p_e9: Some("30396355".to_owned()),
        permutation_p_e9: None,
    };
    let record = FullRecord {
        calibration: None,
        counts: None,
        lower_ppm: Some("1".to_owned()),
        metrics: vec![facts],
        n: 500,
        reasons: Vec::new(),
        samples: None,
        strata: Vec::new(),
    };
    let accepted = Outcome {
        status: "accepted".to_owned(),
        reasons: Vec::new(),
        record: Some(record),
        withheld: None,
        ..outcome()
    };
    assert!(accepted.earns_its_status().is_ok(), "{:?}", accepted.earns_its_status());
    fn figures(own: &mut Outcome) -> &mut MetricFacts {
        &mut own.record.as_mut().unwrap().metrics[0]
    }
    let changes: [fn(&mut Outcome); 13] = [
        |own| own.record = None,
        |own| own.reasons.push("GUARDRAIL".to_owned()),
        |own| own.withheld = Some(String::new()),
        |own| own.metric = "brier".to_owned(),
        |own| own.claims[0].threshold = "0.005001".to_owned(),
        |own| own.claims[0].threshold = "0.005".to_owned(),
        |own| figures(own).delta_ppm = "4999".to_owned(),
        |own| figures(own).p_e9 = Some("30396357".to_owned()),
        |own| figures(own).p_e9 = Some("-5".to_owned()),
        |own| figures(own).p_e9 = Some(i128::MIN.to_string()),
        |own| figures(own).p_e9 = Some("1000000001".to_owned()),
        |own| own.attempt.number = 40,
        |own| own.attempt.level_e12 = "30396354000".to_owned(),
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut changed = accepted.clone();
        change(&mut changed);
        assert!(changed.earns_its_status().is_err(), "{place}");
    }
    assert!(Outcome { reasons: Vec::new(), ..outcome() }.earns_its_status().is_err());
    assert!(Outcome { record: accepted.record, ..outcome() }.earns_its_status().is_err());
}

#[test]
fn a_withheld_record_is_bound_by_its_salt_and_by_every_byte() {
    let salted = |key: u8, id: &str, record: &[u8]| withheld(&salt(&MacKey::new(&[key; 32], ""), id), record);
    let all = [salted(1, "e", b"{}"), salted(2, "e", b"{}"), salted(1, "f", b"{}"), salted(1, "e", b"{ }")];
    assert!((1..4).all(|at| all[at] != all[0]) && all[0].len() == 64);
}

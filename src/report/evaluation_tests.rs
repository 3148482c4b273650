use super::*;
use crate::attest::benchmark::SealedRows;
use crate::attest::decision::NamedArtefact;
use crate::attest::eval_result::LaidDown;
use crate::attest::evaluation::{Candidate, Margin, SealedBenchmark, SpentLevel, tests::outcome};
use crate::attest::figures::{
    CalibrationErrors, CalibrationFacts, MetricFacts, ReasonFacts, RightCounts, StratumFacts,
};
use crate::stats::rows::Frame;

const HOSTILE: &str = "</td><script>alert('x')</script>\u{202e}";

fn level() -> SpentLevel {
    SpentLevel { alpha_ppm: "50000".into(), family: "fa".repeat(32), level_e12: "30396355092".into(), number: 1 }
}

fn benchmark() -> SealedBenchmark {
    SealedBenchmark {
        contract_digest: "c0".repeat(32),
        label_commitment: "1a".repeat(32),
        name: "holdout@1".into(),
        rows: SealedRows { leaf_alg: "hk-salted-row-v1".into(), n: 400, root: "fa".repeat(32) },
    }
}

fn candidate() -> Candidate {
    Candidate {
        dataset_root: Some("da".repeat(32)),
        dataset_rows: Some(1_000),
        digest: "ca".repeat(32),
        receipts: None,
        recipe_digest: "4e".repeat(32),
        run_id: "run".into(),
    }
}

fn margin(name: &str) -> Margin {
    Margin { margin_ppm: "20000".into(), name: name.into() }
}

fn laid() -> Preregistration {
    Preregistration {
        attempt: level(),
        baseline: NamedArtefact { digest: "ba".repeat(32), version: "1.0.0".into() },
        benchmark: benchmark(),
        candidate: candidate(),
        comparator: ">=".into(),
        contract_digest: "c0".repeat(32),
        evaluation_id: "e1".into(),
        guardrails: vec![margin("log_loss")],
        metric: "auroc".into(),
        minimum_effect_ppm: "2000".into(),
        model: HOSTILE.into(),
        replicates: 2_000,
        seed: "5e".repeat(32),
        strata: vec![margin(HOSTILE)],
        test: "delong".into(),
    }
}

fn figures() -> FullRecord {
    let metric = |name: &str| MetricFacts {
        baseline_bps: Some(7_310),
        baseline_ppm: "731000".into(),
        candidate_bps: Some(7_654),
        candidate_ppm: "765432".into(),
        delta_ppm: "34432".into(),
        interval_ppm: Some(["10000".into(), "50000".into()]),
        lower_ppm: Some("12345".into()),
        name: name.into(),
        p_e9: Some("1234".into()),
        permutation_p_e9: None,
    };
    FullRecord {
        calibration: Some(CalibrationFacts {
            baseline: CalibrationErrors { expected_ppm: "21000".into(), largest_ppm: "52000".into() },
            bins: 10,
            candidate: CalibrationErrors { expected_ppm: "12000".into(), largest_ppm: "43000".into() },
        }),
        counts: Some(RightCounts {
            baseline_only: 11,
            baseline_right: 300,
            candidate_only: 44,
            candidate_right: 333,
            mid_p_e9: "8000".into(),
            newcombe_ppm: ["45000".into(), "118000".into()],
        }),
        lower_ppm: Some("8000".into()),
        metrics: vec![metric("auroc"), metric("log_loss")],
        n: 400,
        reasons: vec![ReasonFacts { code: "STRATUM_INFERIOR".into(), subject: HOSTILE.into() }],
        samples: None,
        strata: vec![StratumFacts {
            delta_ppm: "-30123".into(),
            lower_ppm: "-40123".into(),
            margin_ppm: "20000".into(),
            name: HOSTILE.into(),
            n: 120,
            p_e9: Some("1000000000".into()),
            passed: false,
        }],
    }
}

fn report(status: &str) -> EvaluationReport {
    let is_accepted = status == Evaluation::ACCEPTED;
    let only = |text: &str| is_accepted.then(|| text.to_owned());
    let told = Evaluation {
        evaluation_id: "e1".into(),
        model: HOSTILE.into(),
        benchmark: "holdout@1".into(),
        attempt: 1,
        alpha: "0.030396355092".into(),
        status: status.into(),
        reasons: if is_accepted { vec![] } else { vec!["STRATUM_INFERIOR".into()] },
        metric: "auroc".into(),
        ladder_score: Some("0.765".into()),
        delta: only("0.034432"),
        lower: only("0.008000"),
        p_value: only("0.000001234"),
        ..Evaluation::default()
    };
    let outcome = Outcome {
        attempt: level(),
        baseline: NamedArtefact { digest: "ba".repeat(32), version: "1.0.0".into() },
        benchmark: benchmark(),
        candidate: candidate(),
        evaluation_id: "e1".into(),
        metric: "auroc".into(),
        pre_registration: LaidDown::leaf("11".repeat(32)),
        reasons: told.reasons.clone(),
        record: is_accepted.then(figures),
        status: status.into(),
        withheld: (!is_accepted).then(|| "99".repeat(32)),
        ..outcome()
    };
    let statements = (
        Logged { index: 7, leaf: "11".repeat(32), said: laid() },
        Logged { index: 9, leaf: "22".repeat(32), said: outcome },
    );
    EvaluationReport::published("2026-01-31T12:00:00.000Z".into(), told, Some(statements))
}

/// 400 rows: the candidate ranks better than the baseline.
fn columns() -> Columns {
    let labels: Vec<i64> = (0..400).map(|row| i64::from(row % 4 == 0)).collect();
    let score =
        |noise: i64| move |row: i64| (row * 7_919 % noise + i64::from(row % 4 == 0) * 300_000).clamp(0, 1_000_000);
    let scored = |noise| (0..400).map(score(noise)).collect();
    Columns {
        frame: Frame::new(Task::Binary),
        labels,
        baseline: scored(700_001),
        candidate: scored(400_001),
        strata: Vec::new(),
        custom: Vec::new(),
    }
}

#[test]
fn a_refused_attempt_tells_nobody_but_its_owner_a_figure() {
    let published = report(Evaluation::REFUSED);
    for text in [published.html(), serde_json::to_string(&published).unwrap()] {
        for figure in ["34432", "12345", "0.034432", "765432", "40123", "<circle"] {
            assert!(!text.contains(figure), "{figure} is told");
        }
        assert!(
            text.contains("STRATUM_INFERIOR") && text.contains("0.030396355092") && text.contains(&"99".repeat(32))
        );
    }
    let opened = published.opened(figures(), &columns()).html();
    assert!(opened.contains("0.034432") && opened.contains("-0.040123") && opened.contains("published nowhere"));
    assert!(opened.contains("ROC curves") && opened.contains("Reliability"));
}

#[test]
fn an_attempt_without_a_score_says_why_and_offers_nobody_to_open_it() {
    for (status, says) in [(Evaluation::FAILED, "could not be scored"), (Evaluation::CANCELLED, "was taken back")] {
        let page = report(status).html();
        assert!(page.contains(says) && !page.contains("can open it"), "{status}");
    }
    assert!(report(Evaluation::REFUSED).html().contains("can open it"));
}

#[test]
fn an_accepted_one_tells_its_figures_and_drawings_of_scores_only_to_the_owner() {
    let published = report(Evaluation::ACCEPTED);
    let page = published.html();
    assert!(page.contains("0.034432") && page.contains("Accepted") && page.contains("Strata against their margins"));
    assert!(page.contains("0.000001234") && page.contains("index 7"));
    assert!(!page.contains("ROC curves") && !page.contains("published nowhere"));
}

#[test]
fn hostile_names_stay_text_and_the_page_loads_and_runs_nothing() {
    let page = report(Evaluation::ACCEPTED).opened(figures(), &columns()).html();
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    assert!(page.contains("&lt;script&gt;") && page.contains("default-src 'none'") && !page.contains("NaN"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<table").count(), page.matches("</table>").count());
}

#[test]
fn the_same_evaluation_is_the_same_bytes() {
    let page = report(Evaluation::ACCEPTED).opened(figures(), &columns()).html();
    super::super::tests::assert_golden("evaluation.html", &page);
}

#[test]
fn of_several_classes_the_confidence_in_the_chosen_one_is_drawn_and_of_numbers_the_numbers() {
    let labels: Vec<i64> = (0..60).map(|row| row % 3).collect();
    let sure: Vec<i64> = (0..60).flat_map(|_| [800_000, 100_000, 100_000]).collect();
    let columns = Columns {
        frame: Frame::new(Task::Multiclass(3)),
        labels,
        baseline: sure.clone(),
        candidate: sure,
        strata: Vec::new(),
        custom: Vec::new(),
    };
    let drawn = Drawn::of(&columns);
    assert_eq!((drawn.task, &drawn.roc), ("multiclass", &None));
    assert_eq!(drawn.reliability[0], [Bin { rows: 60, predicted: 800_000, observed: 333_333 }]);
    let numbers: Vec<i64> = (0..40).map(|row| row * 1_000_000).collect();
    let columns = Columns {
        frame: Frame::new(Task::Regression),
        labels: numbers.clone(),
        baseline: numbers.clone(),
        candidate: numbers,
        strata: Vec::new(),
        custom: Vec::new(),
    };
    let means: Vec<_> = Drawn::of(&columns).reliability[1].iter().map(|bin| (bin.predicted, bin.observed)).collect();
    assert_eq!(means, [(9_500_000, 9_500_000), (29_500_000, 29_500_000)]);
}

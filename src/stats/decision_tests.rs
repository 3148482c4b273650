use super::*;
use crate::stats::compare::{Evidence, compare};
use crate::stats::metric::{Metric, Value};
use crate::stats::null_tests::binary;
use crate::stats::random::Seed;
use crate::stats::rows::{Frame, PairedRows, Task};
use proptest::prelude::*;

fn comparison(metric: Metric, delta: f64, error: f64) -> Comparison {
    Comparison {
        metric,
        higher_is_better: true,
        rows: 10_000,
        baseline: Value::Real(0.7),
        candidate: Value::Real(0.7 + delta),
        evidence: Evidence::Normal { delta, error },
        smallest_class: Some(1_000),
        discordant: Some(1_000),
    }
}

fn inputs<'a>(primary: Observed<'a>, guardrails: &'a [Requirement<'a>], strata: &'a [Requirement<'a>]) -> Inputs<'a> {
    Inputs {
        preregistered: true,
        attempt: Some(1),
        alpha: Some(0.05),
        retired: false,
        acceptances: 0,
        primary,
        minimum_effect: Some(1_000),
        guardrails,
        strata,
    }
}

#[test]
fn a_clear_improvement_with_everything_in_place_is_accepted() {
    let good = Ok(comparison(Metric::Auroc, 0.01, 0.002));
    let decision = decide(&inputs(Some(&good), &[], &[]));
    assert!(decision.accepted(), "{decision:?}");
    assert!(decision.lower_bound.unwrap() > 0.0 && decision.p_value.unwrap() < decision.level.unwrap());
}

/// Promise 4: missing evidence is a refusal with a reason code. Each input is taken away in turn.
#[test]
fn every_missing_input_is_a_refusal_with_its_own_reason() {
    let good = Ok(comparison(Metric::Auroc, 0.01, 0.002));
    let undefined = Err(CompareError::Undefined);
    let fine = Ok(comparison(Metric::Accuracy, 0.0, 0.001));
    let margin = |margin, observed| [Requirement { name: "accuracy", margin, observed }];
    let complete = margin(Some(5_000), Some(&fine));
    let base = inputs(Some(&good), &complete, &complete);
    assert!(decide(&base).accepted());
    let no_margin = margin(None, Some(&fine));
    let negative = margin(Some(-1), Some(&fine));
    let unseen = margin(Some(5_000), None);
    let failed = margin(Some(5_000), Some(&undefined));
    for (changed, code) in [
        (Inputs { preregistered: false, ..base }, "NOT_PREREGISTERED"),
        (Inputs { attempt: None, ..base }, "ATTEMPT_UNKNOWN"),
        (Inputs { attempt: Some(0), ..base }, "ATTEMPT_UNKNOWN"),
        (Inputs { alpha: None, ..base }, "ALPHA_INVALID"),
        (Inputs { alpha: Some(1.0), ..base }, "ALPHA_INVALID"),
        (Inputs { alpha: Some(f64::NAN), ..base }, "ALPHA_INVALID"),
        (Inputs { retired: true, ..base }, "BENCHMARK_RETIRED"),
        (Inputs { acceptances: 5, ..base }, "BENCHMARK_RETIRED"),
        (Inputs { primary: None, ..base }, "PRIMARY_MISSING"),
        (Inputs { primary: Some(&undefined), ..base }, "METRIC_UNDEFINED"),
        (Inputs { minimum_effect: None, ..base }, "MINIMUM_EFFECT_MISSING"),
        (Inputs { minimum_effect: Some(11_000), ..base }, "BELOW_MINIMUM_EFFECT"),
        (Inputs { guardrails: &no_margin, ..base }, "MARGIN_MISSING"),
        (Inputs { guardrails: &negative, ..base }, "MARGIN_MISSING"),
        (Inputs { guardrails: &unseen, ..base }, "GUARDRAIL_MISSING"),
        (Inputs { guardrails: &failed, ..base }, "METRIC_UNDEFINED"),
        (Inputs { strata: &no_margin, ..base }, "MARGIN_MISSING"),
        (Inputs { strata: &unseen, ..base }, "STRATUM_MISSING"),
        (Inputs { strata: &failed, ..base }, "METRIC_UNDEFINED"),
    ] {
        assert_eq!(decide(&changed).codes(), [code]);
    }
}

#[test]
fn a_point_estimate_without_significance_is_not_enough_and_neither_is_a_later_attempt() {
    let weak = Ok(comparison(Metric::Auroc, 0.01, 0.004));
    let first = inputs(Some(&weak), &[], &[]);
    assert!(decide(&first).accepted());
    let tenth = decide(&Inputs { attempt: Some(10), ..first });
    assert_eq!(tenth.codes(), ["NOT_SIGNIFICANT", "LOWER_BOUND_NOT_POSITIVE"]);
}

#[test]
fn a_worse_guardrail_or_stratum_refuses_and_names_itself() {
    let good = Ok(comparison(Metric::Auroc, 0.01, 0.002));
    let worse = Ok(comparison(Metric::Accuracy, -0.004, 0.001));
    let tiny = Ok(Comparison { smallest_class: Some(49), ..comparison(Metric::Auroc, 0.0, 0.0) });
    let row = |name, observed| [Requirement { name, margin: Some(5_000), observed }];
    let (guardrail, stratum, small) =
        (row("recall", Some(&worse)), row("north", Some(&worse)), row("south", Some(&tiny)));
    let decision = decide(&inputs(Some(&good), &guardrail, &stratum));
    assert_eq!(
        decision.reasons,
        [(Reason::GuardrailInferior, "recall".to_owned()), (Reason::StratumInferior, "north".to_owned())]
    );
    assert_eq!(decide(&inputs(Some(&good), &[], &small)).codes(), ["STRATUM_TOO_SMALL"]);
}

#[test]
fn zero_variance_is_no_evidence_and_few_rows_are_named() {
    let same = Ok(comparison(Metric::Auroc, 0.01, 0.0));
    assert_eq!(decide(&inputs(Some(&same), &[], &[])).codes(), ["NOT_SIGNIFICANT", "LOWER_BOUND_NOT_POSITIVE"]);
    let few = Ok(Comparison { discordant: Some(49), ..comparison(Metric::F1, 0.01, 0.002) });
    assert_eq!(decide(&inputs(Some(&few), &[], &[])).codes(), ["BENCHMARK_TOO_SMALL"]);
    let nan = Ok(comparison(Metric::Auroc, f64::NAN, 0.002));
    assert!(!decide(&inputs(Some(&nan), &[], &[])).accepted());
}

#[test]
fn whoever_only_reaches_a_bound_has_not_passed_it_but_the_minimum_effect_is_enough() {
    let good = comparison(Metric::Auroc, 0.01, 0.002);
    let codes = |changed: &Comparison, minimum| {
        let primary = Ok(changed.clone());
        decide(&Inputs { minimum_effect: Some(minimum), ..inputs(Some(&primary), &[], &[]) }).codes()
    };
    // A p-value of exactly the level: a few of these are so to the bit.
    let part = std::f64::consts::PI * std::f64::consts::PI / 6.0;
    let mut equal = 0;
    for step in 0..200 {
        let weak = Ok(comparison(Metric::Auroc, 0.01 + f64::from(step) * 1e-5, 0.005));
        let p = weak.as_ref().map(|own: &Comparison| own.evidence.p_value()).unwrap();
        let decision = decide(&Inputs { alpha: Some(p * part), ..inputs(Some(&weak), &[], &[]) });
        if decision.level == decision.p_value {
            assert!(decision.codes().contains(&"NOT_SIGNIFICANT"));
            equal += 1;
        }
    }
    assert!(equal > 20, "{equal}");
    let exact = |numerator| Value::Exact(crate::stats::fixed::Ratio::new(numerator, 100).unwrap());
    let one_point = Comparison { baseline: exact(70), candidate: exact(71), ..good.clone() };
    assert_eq!(codes(&one_point, 10_000), [""; 0]);
    assert_eq!(codes(&one_point, 10_001), ["BELOW_MINIMUM_EFFECT"]);
    let cells =
        |class, discordant| Comparison { smallest_class: Some(class), discordant: Some(discordant), ..good.clone() };
    assert_eq!(codes(&cells(50, 50), 0), [""; 0]);
    assert_eq!(codes(&cells(49, 50), 0), ["BENCHMARK_TOO_SMALL"]);
    assert_eq!(codes(&cells(50, 49), 0), ["BENCHMARK_TOO_SMALL"]);
}

#[test]
fn non_inferiority_is_above_the_margin_and_needs_rows_even_where_no_row_differs() {
    let good = Ok(comparison(Metric::Auroc, 0.01, 0.002));
    let codes = |own: Comparison| {
        let own = Ok(own);
        let stratum = [Requirement { name: "north", margin: Some(5_000), observed: Some(&own) }];
        decide(&inputs(Some(&good), &[], &stratum)).codes()
    };
    // Without variance the bound is the difference itself.
    assert_eq!(codes(comparison(Metric::Mae, -0.004_999, 0.0)), [""; 0]);
    assert_eq!(codes(comparison(Metric::Mae, -0.005, 0.0)), ["STRATUM_INFERIOR"]);
    let few = |rows, evidence| Comparison { rows, evidence, smallest_class: None, ..comparison(Metric::Mae, 0.0, 0.0) };
    let mean = Evidence::Student { delta: 0.0, error: 1e-4, freedom: 48.0 };
    assert_eq!((codes(few(50, mean)), codes(few(49, mean))), (vec![], vec!["STRATUM_TOO_SMALL"]));
    let discordance = crate::stats::proportion::Discordance { baseline_only: 0, candidate_only: 0 };
    // Of fifty rows that do not differ up to one in twenty may differ elsewhere: a margin of .005 is not shown by them.
    let none = |rows| codes(few(rows, Evidence::Binomial { discordance, rows }));
    assert_eq!((none(49), none(50)), (vec!["STRATUM_TOO_SMALL"], vec!["STRATUM_INFERIOR"]));
    assert_eq!(none(1_000), [""; 0]);
}

#[test]
fn a_real_improvement_is_still_accepted_as_attempt_51() {
    let seed = Seed::derive("alternative", b"1");
    let (labels, first, _) = binary(20_000, seed, 1);
    let mut stream = seed.stream(2);
    let better: Vec<i64> = labels
        .iter()
        .zip(&first)
        .map(|(label, score)| (score + label * 40_000 + i64::from(stream.below(20_000))).clamp(0, 1_000_000))
        .collect();
    let paired = PairedRows::new(Frame::new(Task::Binary), labels, first, better).unwrap();
    let primary = compare(&paired, &Metric::Auroc);
    let decision = decide(&Inputs { attempt: Some(51), ..inputs(Some(&primary), &[], &[]) });
    assert!(decision.accepted(), "{decision:?}");
}

proptest! {
    #[test]
    fn p_below_the_level_and_a_positive_bound_are_one_and_the_same(
        delta in -0.05_f64..0.05, error in 1e-6_f64..0.02, wins in 0_u64..400, losses in 0_u64..400, attempt in 1_u64..100
    ) {
        let level = attempt_level(0.05, attempt).unwrap();
        let discordance = crate::stats::proportion::Discordance { baseline_only: losses, candidate_only: wins };
        for evidence in [
            Evidence::Normal { delta, error },
            Evidence::Student { delta, error, freedom: 99.0 },
            Evidence::Binomial { discordance, rows: 1_000 },
        ] {
            let (p, bound) = (evidence.p_value(), evidence.lower_bound(level));
            prop_assert!((0.0..=1.0).contains(&p));
            if (p / level - 1.0).abs() > 1e-9 {
                prop_assert_eq!(p < level, bound > 0.0, "{:?} {} {} {}", evidence, p, level, bound);
            }
            prop_assert!(bound <= evidence.delta() + 1e-12);
        }
    }
}

use super::*;
use crate::stats::rows::{CustomValues, Frame, Task};
use proptest::prelude::*;

fn plan(primary: Metric) -> Plan {
    Plan {
        primary,
        minimum_effect: Some(0),
        guardrails: vec![(Metric::LogLoss, Some(50_000))],
        strata: vec![("a".to_owned(), Some(100_000)), ("b".to_owned(), Some(100_000))],
    }
}

fn standing() -> Standing {
    Standing { preregistered: true, attempt: Some(1), alpha: Some(0.05), retired: false, acceptances: 0 }
}

/// (labels, baseline, candidate, custom values, strata) of a binary task from random bits.
type Columns = (Vec<i64>, Vec<i64>, Vec<i64>, Vec<i64>, Vec<u32>);

fn columns(rows: usize, number: u64) -> Columns {
    let mut stream = Seed::derive("evaluation tests", b"").stream(number);
    let mut all: Columns = Default::default();
    for _ in 0..rows {
        let label = i64::from(stream.below(2));
        // Few different scores, so that ties are common.
        let mut score = |gain: i64| (i64::from(stream.below(20)) * 40_000 + label * gain).min(1_000_000);
        let (base, cand, custom) = (score(100_000), score(160_000), score(3));
        all.0.push(label);
        all.1.push(base);
        all.2.push(cand);
        all.3.push(custom);
        all.4.push(stream.below(2));
    }
    all
}

fn rows(columns: &Columns, order: &[usize]) -> PairedRows {
    let pick = |column: &[i64]| order.iter().map(|at| column[*at]).collect::<Vec<_>>();
    let custom = CustomValues {
        name: "margin".to_owned(),
        higher_is_better: true,
        baseline: pick(&columns.1),
        candidate: pick(&columns.3),
    };
    let strata = order.iter().map(|at| columns.4[*at]).collect();
    PairedRows::with_extras(
        Frame::new(Task::Binary),
        pick(&columns.0),
        pick(&columns.1),
        pick(&columns.2),
        vec![custom],
        strata,
    )
    .unwrap()
}

fn resampling(threads: usize) -> Resampling {
    Resampling { replicates: 60, seed: [7; 32], threads }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Promise 2: no order of rows and no number of threads shows in what is published, not even in the last bit.
    #[test]
    fn the_whole_record_is_the_same_bits_in_any_order_and_on_any_number_of_threads(number: u64, size in 2_usize..300) {
        let all = columns(size, number);
        let straight: Vec<usize> = (0..size).collect();
        let mut shuffled = straight.clone();
        Seed::derive("order", b"").stream(number).shuffle(&mut shuffled);
        let plan = plan(Metric::Auroc);
        let one = evaluate(&rows(&all, &straight), &plan, &standing(), &resampling(1));
        let other = evaluate(&rows(&all, &shuffled), &plan, &standing(), &resampling(3));
        prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }

    #[test]
    fn exchanging_the_models_turns_every_improvement_round(number: u64, size in 10_usize..200) {
        let all = columns(size, number);
        let own = rows(&all, &(0..size).collect::<Vec<_>>());
        let exchanged = own.exchanged();
        for metric in metrics_of(Task::Binary).into_iter().chain([Metric::Custom(0)]) {
            match (compare(&own, &metric), compare(&exchanged, &metric)) {
                (Ok(one), Ok(other)) => {
                    prop_assert!((one.evidence.delta() + other.evidence.delta()).abs() < 1e-12);
                    prop_assert!((one.evidence.standard_error() - other.evidence.standard_error()).abs() < 1e-12);
                    prop_assert_eq!(one.baseline, other.candidate);
                }
                (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
            }
        }
    }

    #[test]
    fn a_published_improvement_never_exceeds_the_true_one(number: u64, size in 2_usize..300) {
        let all = columns(size, number);
        let own = rows(&all, &(0..size).collect::<Vec<_>>());
        for metric in metrics_of(Task::Binary) {
            let Ok(c) = compare(&own, &metric) else { continue };
            let published = publish(&metric, c.higher_is_better, c.baseline, c.candidate).unwrap();
            prop_assert!(published.delta_micro as f64 / 1e6 <= c.evidence.delta() + 1e-12);
            let bps = published.candidate_bps.zip(published.baseline_bps).map(|(cand, base)| cand - base);
            if let Some(bps) = bps {
                let gain = if c.higher_is_better { bps } else { -bps };
                prop_assert!(gain as f64 / 1e4 <= c.evidence.delta() + 1e-12, "{metric:?} {published:?}");
            }
        }
    }
}

#[test]
fn a_regression_reports_its_own_metrics_and_decides_by_them() {
    let mut stream = Seed::derive("regression", b"").stream(0);
    let mut noise = |size: u32| i64::from(stream.below(2 * size)) - i64::from(size);
    let labels: Vec<i64> = (0..400).map(|row| row * 10_000 + noise(1_000)).collect();
    let base: Vec<i64> = labels.iter().map(|label| label + noise(600_000)).collect();
    let cand: Vec<i64> = labels.iter().map(|label| label + noise(300_000)).collect();
    let rows = PairedRows::new(Frame::new(Task::Regression), labels, base, cand).unwrap();
    for primary in [Metric::Rmse, Metric::R2, Metric::Mae, Metric::Mse] {
        let plan = Plan { guardrails: vec![(Metric::Mae, Some(0))], strata: Vec::new(), ..plan(primary.clone()) };
        let done = evaluate(&rows, &plan, &standing(), &resampling(2));
        assert!(done.decision.accepted(), "{primary:?} {:?}", done.decision);
        assert_eq!(done.metrics.len(), 4);
        for (metric, report) in &done.metrics {
            let report = report.as_ref().unwrap();
            let interval = report.interval.unwrap();
            let (delta, error) = (report.comparison.evidence.delta(), report.comparison.evidence.standard_error());
            assert!(interval.lower < delta && delta < interval.upper, "{metric:?}");
            assert!(
                (interval.standard_error / error - 1.0).abs() < 0.35,
                "{metric:?} {} {error}",
                interval.standard_error
            );
            assert!(report.permutation_p.unwrap() < 0.05);
            assert_eq!(report.published.as_ref().unwrap().baseline_bps, None);
        }
    }
}

/// The delta method's standard errors beside the bootstrap's, which knows nothing of influence values.
#[test]
fn standard_errors_of_all_methods_agree_with_the_bootstrap() {
    let own = rows(&columns(3_000, 5), &(0..3_000).collect::<Vec<_>>());
    let many = Resampling { replicates: 600, ..resampling(2) };
    let done = evaluate(&own, &plan(Metric::F1Macro), &standing(), &many);
    for (metric, report) in &done.metrics {
        let report = report.as_ref().unwrap();
        let ratio = report.interval.unwrap().standard_error / report.comparison.evidence.standard_error();
        assert!((ratio - 1.0).abs() < 0.12, "{metric:?} {ratio}");
    }
    assert_eq!(done.strata.len(), 2);
    assert!(done.calibration.is_some());
}

#[test]
fn a_multiclass_model_that_is_better_in_every_class_is_accepted() {
    let mut stream = Seed::derive("multiclass", b"").stream(0);
    let (mut labels, mut base, mut cand) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..900_i64 {
        let label = row % 3;
        for (column, skill) in [(&mut base, 5), (&mut cand, 7)] {
            let right = i64::from(stream.below(10) < skill);
            let chosen = if right == 1 { label } else { (label + 1 + i64::from(stream.below(2))) % 3 };
            column.extend((0..3).map(|class| if class == chosen { 600_000 } else { 200_000 }));
        }
        labels.push(label);
    }
    let rows = PairedRows::new(Frame::new(Task::Multiclass(3)), labels, base, cand).unwrap();
    let plan = Plan { strata: Vec::new(), ..plan(Metric::F1Macro) };
    let done = evaluate(&rows, &plan, &standing(), &resampling(1));
    assert!(done.decision.accepted(), "{:?}", done.decision);
}

#[test]
fn what_is_told_of_a_refused_attempt_holds_no_score() {
    let own = rows(&columns(200, 3), &(0..200).collect::<Vec<_>>()).exchanged();
    let plan = plan(Metric::Auroc);
    let done = evaluate(&own, &plan, &standing(), &resampling(1));
    let mut ladder = Ladder::resumed(10_000, Some(-900_000)).unwrap();
    let told = done.told(&plan, &standing(), &mut ladder);
    assert!(!done.decision.accepted() && told.codes.contains(&"NOT_SIGNIFICANT"));
    assert_eq!((told.attempt, told.ladder), (Some(1), Some(-900_000)));
}

#[test]
fn scores_that_would_buy_a_better_loss_are_refused() {
    let frame = Frame::new(Task::Multiclass(3));
    let good = vec![400_000, 300_000, 300_000];
    let padded = vec![900_000, 900_000, 900_000];
    assert!(PairedRows::new(frame, vec![0], good.clone(), good.clone()).is_ok());
    assert!(PairedRows::new(frame, vec![0], good.clone(), padded).is_err());
    // Rounding three probabilities moves their sum by less than two quanta; single precision may add one.
    let off_by = |quanta: i64| PairedRows::new(frame, vec![0], good.clone(), vec![400_000 + quanta, 300_000, 300_000]);
    assert!(off_by(2).is_ok() && off_by(-2).is_ok() && off_by(3).is_err() && off_by(-3).is_err());
    assert!(PairedRows::new(frame, vec![3], good.clone(), good.clone()).is_err());
    assert!(PairedRows::new(frame, vec![0, 1], good.clone(), good).is_err());
    let binary = Frame::new(Task::Binary);
    assert!(PairedRows::new(binary, vec![1], vec![1_000_001], vec![0]).is_err());
    assert!(PairedRows::new(binary, vec![1], vec![-1], vec![0]).is_err());
    assert!(PairedRows::new(binary, vec![], vec![], vec![]).is_err());
    let real = Frame::new(Task::Regression);
    assert!(PairedRows::new(real, vec![i64::MAX], vec![0], vec![0]).is_err());
    assert!(PairedRows::new(real, vec![0], vec![i64::MIN], vec![0]).is_err());
}

/// Labels, baseline and candidate of three rows: the candidate has two of them right, and a Brier score of 1/3.
fn two_of_three() -> PairedRows {
    PairedRows::new(Frame::new(Task::Binary), vec![0, 1, 1], vec![0, 0, 0], vec![0, 1_000_000, 0]).unwrap()
}

#[test]
fn rows_of_a_stratum_that_nobody_declared_refuse_the_attempt() {
    let mut all = columns(3_000, 5);
    let straight: Vec<usize> = (0..3_000).collect();
    let plan = plan(Metric::Auroc);
    let done = evaluate(&rows(&all, &straight), &plan, &standing(), &resampling(1));
    assert!(done.decision.accepted(), "{:?}", done.decision);
    all.4[17] = 2;
    let done = evaluate(&rows(&all, &straight), &plan, &standing(), &resampling(1));
    assert_eq!(done.decision.codes(), ["STRATUM_MISSING"]);
}

#[test]
fn the_ladder_hears_of_a_value_rounded_against_the_candidate() {
    for (primary, loss) in [(Metric::Accuracy, -666_666), (Metric::Brier, 333_334)] {
        let plan = Plan { strata: Vec::new(), ..plan(primary) };
        let done = evaluate(&two_of_three(), &plan, &standing(), &resampling(1));
        assert_eq!(done.ladder_loss(&plan), Some(loss));
    }
}

#[test]
fn a_perfect_baseline_is_published_as_one_and_not_as_more() {
    let (base, cand) = (crate::stats::metric::Value::Real(1.0), crate::stats::metric::Value::Real(0.5));
    let published = publish(&Metric::F1Macro, true, base, cand).unwrap();
    assert_eq!((published.baseline.as_str(), published.baseline_bps), ("1.000000", Some(10_000)));
    assert_eq!((published.candidate.as_str(), published.candidate_bps), ("0.499999", Some(4_999)));
}

#[test]
fn equal_probabilities_predict_the_first_class_and_the_threshold_itself_predicts_one() {
    let frame = Frame::new(Task::Multiclass(3));
    let rows = PairedRows::new(frame, vec![0], vec![400_000, 400_000, 200_000], vec![200_000, 400_000, 400_000]);
    let rows = rows.unwrap();
    assert_eq!((rows.predicted(Model::Baseline), rows.predicted(Model::Candidate)), (vec![0], vec![1]));
    let binary = PairedRows::new(Frame::new(Task::Binary), vec![0], vec![500_000], vec![499_999]).unwrap();
    assert_eq!((binary.predicted(Model::Baseline), binary.predicted(Model::Candidate)), (vec![1], vec![0]));
}

#[test]
fn sampled_sign_flips_count_ties_as_enumerated_ones_do() {
    // Every eleventh of 2^18 patterns ties with the observed sum.
    let values: Vec<i128> = (0..18).map(|at| if at % 3 == 0 { -1 } else { 1 }).collect();
    let observed: i128 = values.iter().sum();
    let sum = |pattern: u32| -> i128 {
        values.iter().enumerate().map(|(at, v)| if pattern >> at & 1 == 1 { -v } else { *v }).sum()
    };
    let exact = (0..1_u32 << 18).filter(|pattern| sum(*pattern) >= observed).count() as f64 / f64::from(1 << 18);
    let seed = Seed::derive("ties", b"");
    assert!((crate::stats::permutation::sign_flip(&values, 20_000, seed, 1) - exact).abs() < 0.02);
    let large: Vec<i128> = values.iter().map(|value| value << 70).collect();
    assert!((crate::stats::permutation::sign_flip(&large, 20_000, seed, 2) - exact).abs() < 0.02);
}

#[test]
fn units_that_sums_and_bins_cannot_take_are_refused_before_anything_is_computed() {
    let with = |task, unit, threshold| Frame { task, unit, threshold };
    for (unit, threshold) in [(0, 0), (-1, 0), (i64::MIN, 0), (i64::MAX, 0), (1_000_000, -1), (1_000_000, 1_000_001)] {
        let found = PairedRows::new(with(Task::Binary, unit, threshold), vec![0, 1], vec![0, 0], vec![0, 0]);
        assert_eq!(found, Err(crate::stats::rows::RowsError::Unit { unit, threshold }));
    }
    // The largest errors that a regression takes, in the finest unit: every sum still fits.
    let fine = with(Task::Regression, crate::stats::rows::MAX_UNIT, 0);
    let most = 100_000_000_000_000;
    let real = |label, score| PairedRows::new(fine, vec![label, -label], vec![score, -score], vec![-score, score]);
    assert!(real(most + 1, 0).is_err() && real(0, i64::MAX).is_err());
    let none = Plan { guardrails: Vec::new(), strata: Vec::new(), ..plan(Metric::Mse) };
    let done = evaluate(&real(most, most).unwrap(), &none, &standing(), &resampling(1));
    assert!(done.metrics.iter().all(|(metric, own)| own.is_ok() || *metric == Metric::Rmse), "{:?}", done.metrics);
}

/// Every published number to the last bit: a changed sum, formula or library function changes what strangers recompute.
#[test]
fn the_bits_of_a_whole_record_are_pinned() {
    use sha2::{Digest, Sha256};
    let own = rows(&columns(500, 11), &(0..500).collect::<Vec<_>>());
    let done = evaluate(&own, &plan(Metric::Auroc), &standing(), &resampling(2));
    // Floats print as their shortest decimal, which tells every bit.
    let digest = hex(&Sha256::digest(format!("{done:?}").as_bytes()));
    assert_eq!(digest, PINNED, "{done:#?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const PINNED: &str = "ef7333236e1ff044042efe5797ee86ade43beaeff1874188c09d4ee262db2e2a";

#[test]
fn claims_by_stratum_are_adjusted_for_their_number() {
    let own = rows(&columns(3_000, 5), &(0..3_000).collect::<Vec<_>>());
    let done = evaluate(&own, &plan(Metric::Auroc), &standing(), &resampling(1));
    let raw: Vec<f64> =
        done.strata.iter().map(|(_, own)| own.as_ref().unwrap().as_ref().unwrap().evidence.p_value()).collect();
    let adjusted: Vec<f64> = done.stratum_claims.iter().map(|(_, p)| *p).collect();
    assert_eq!(adjusted, crate::stats::multiplicity::holm(&raw));
    assert!(adjusted.iter().zip(&raw).any(|(adjusted, raw)| adjusted > raw));
}

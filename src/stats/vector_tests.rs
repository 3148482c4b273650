//! Reference numbers of scikit-learn, scipy, statsmodels and mlxtend (`tests/vectors/evaluation/README.md`), at their tolerances:
//! 10⁻⁹ relative, p-values 10⁻⁷, BCa 10⁻⁶. Scores have up to 12 decimals there, so they are read in units of 10⁻¹².

use super::auc::{Placements, delong, multiclass_areas, weighted_area};
use super::bootstrap::bca;
use super::compare::{Evidence, compare};
use super::counts::{Counts, PairedCounts, average_precision};
use super::distribution::{binomial_probability, normal_upper, normal_upper_quantile};
use super::fixed::{MICRO, quantise};
use super::metric::{FINE, Metric, row_values};
use super::permutation::sign_flip;
use super::proportion::{Discordance, newcombe_independent, pooled_z, tango_lower, wilson};
use super::random::Seed;
use super::resample::Resampler;
use super::rows::{Frame, Model, PairedRows, Task};
use crate::math;
use serde_json::Value;

pub(super) const PICO: i64 = 1_000_000_000_000;

pub(super) fn cases(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

pub(super) fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect()
}

fn quanta_at(value: &Value, unit: i64) -> Vec<i64> {
    floats(value).iter().map(|v| quantise(*v, unit).unwrap()).collect()
}

fn quanta(value: &Value) -> Vec<i64> {
    quanta_at(value, PICO)
}

fn close(ours: f64, known: &Value, relative: f64, what: &str) {
    let known = known.as_f64().unwrap_or_else(|| panic!("{what} is missing in the vectors"));
    assert!((ours - known).abs() <= relative * known.abs() + 1e-15, "{what}: {ours:e} {known:e}");
}

fn frame(task: Task) -> Frame {
    Frame { task, unit: PICO, threshold: PICO / 2 }
}

#[test]
fn binary_metrics_agree_with_scikit_learn() {
    for case in cases(include_str!("../../tests/vectors/evaluation/metrics_binary.json")) {
        let (y, p) = (integers(&case["y"]), quanta(&case["p"]));
        let rows = PairedRows::new(frame(Task::Binary), y.clone(), p.clone(), p.clone()).unwrap();
        for (name, metric) in [
            ("accuracy", Metric::Accuracy),
            ("precision", Metric::Precision),
            ("recall", Metric::Recall),
            ("f1", Metric::F1),
            ("f1_macro", Metric::F1Macro),
            ("auroc", Metric::Auroc),
            ("log_loss", Metric::LogLoss),
            ("brier", Metric::Brier),
        ] {
            close(compare(&rows, &metric).unwrap().candidate.to_f64(), &case[name], 1e-9, name);
        }
        let counts = PairedCounts::of(&rows).counts(Model::Candidate);
        let table = [
            counts.correct[1],
            counts.predicted[1] - counts.correct[1],
            counts.correct[0],
            counts.predicted[0] - counts.correct[0],
        ];
        assert_eq!(table.to_vec(), ["tp", "fp", "tn", "fn"].map(|name| case[name].as_u64().unwrap()));
        close(counts.matthews(), &case["mcc"], 1e-9, "mcc");
        close(counts.balanced_accuracy().unwrap(), &case["balanced_accuracy"], 1e-9, "balanced_accuracy");
        close(average_precision(&y, &p).unwrap(), &case["average_precision"], 1e-9, "average_precision");
        let weights: Vec<u32> =
            floats(&case["weights"]).iter().map(|w| quantise(*w, 1_000_000).unwrap() as u32).collect();
        close(weighted_area(&y, &p, &weights).unwrap().to_f64(), &case["auroc_weighted"], 1e-9, "auroc_weighted");
    }
}

#[test]
fn multiclass_metrics_agree_with_scikit_learn() {
    for case in cases(include_str!("../../tests/vectors/evaluation/metrics_multiclass.json")) {
        let classes = case["n_classes"].as_u64().unwrap();
        let p: Vec<i64> = case["p"].as_array().unwrap().iter().flat_map(quanta).collect();
        let y = integers(&case["y"]);
        let task = Task::Multiclass(classes as u16);
        let rows = PairedRows::new(frame(task), y.clone(), p.clone(), p.clone()).unwrap();
        for (name, metric) in [
            ("accuracy", Metric::Accuracy),
            ("f1_macro", Metric::F1Macro),
            ("f1_micro", Metric::F1Micro),
            ("log_loss", Metric::LogLoss),
        ] {
            close(compare(&rows, &metric).unwrap().baseline.to_f64(), &case[name], 1e-9, name);
        }
        let counts = PairedCounts::of(&rows).counts(Model::Candidate);
        close(counts.f1_weighted().unwrap(), &case["f1_weighted"], 1e-9, "f1_weighted");
        let (rest, pairs) = multiclass_areas(classes as usize, &y, &p).unwrap();
        close(rest, &case["auroc_ovr_macro"], 1e-9, "auroc_ovr_macro");
        close(pairs, &case["auroc_ovo_macro"], 1e-9, "auroc_ovo_macro");
    }
}

#[test]
fn delong_agrees_with_its_definition_and_gives_no_evidence_for_equal_scores() {
    for case in cases(include_str!("../../tests/vectors/evaluation/delong.json")) {
        let y = integers(&case["y"]);
        let [base, cand] = ["baseline", "candidate"].map(|name| Placements::of(&y, &quanta(&case[name])));
        let test = delong(&base, &cand).unwrap().unwrap();
        let evidence = Evidence::Normal { delta: test.delta, error: math::sqrt(test.variance) };
        close(test.delta, &case["delta"], 1e-9, "delta");
        close(test.variance, &case["var_delta"], 1e-9, "var_delta");
        if case["var_delta"].as_f64() == Some(0.0) {
            assert_eq!((evidence.p_value(), evidence.lower_bound(0.05)), (1.0, 0.0));
            continue;
        }
        close(test.baseline.to_f64(), &case["auc_baseline"], 1e-9, "auc_baseline");
        close(test.candidate.to_f64(), &case["auc_candidate"], 1e-9, "auc_candidate");
        for (at, (row, column)) in [(0, 0), (1, 1), (0, 1)].into_iter().enumerate() {
            close(test.covariance[at], &case["cov"][row][column], 1e-9, "cov");
        }
        close(evidence.p_value(), &case["p_greater"], 1e-7, "p_greater");
        let z = test.delta / math::sqrt(test.variance);
        close(z, &case["z"], 1e-9, "z");
        close(2.0 * normal_upper(z.abs()), &case["p_two_sided"], 1e-7, "p_two_sided");
        close(evidence.lower_bound(0.025), &case["ci95"][0], 1e-9, "ci95");
    }
}

#[test]
fn mcnemar_agrees_with_statsmodels() {
    for case in cases(include_str!("../../tests/vectors/evaluation/mcnemar.json")) {
        let of = |name: &str| case[name].as_u64().unwrap();
        let table =
            Discordance { baseline_only: of("baseline_only_correct"), candidate_only: of("candidate_only_correct") };
        if let Some(labels) = case.get("y").filter(|y| !y.is_null()) {
            let (y, base, cand) =
                (integers(labels), integers(&case["hard_baseline"]), integers(&case["hard_candidate"]));
            let scores = |hard: &[i64]| hard.iter().map(|h| h * PICO).collect::<Vec<_>>();
            let rows = PairedRows::new(frame(Task::Binary), y, scores(&base), scores(&cand)).unwrap();
            assert_eq!(PairedCounts::of(&rows).right().discordance(), table);
        }
        close(table.p_two_sided(), &case["p_exact_two_sided"], 1e-9, "p_exact_two_sided");
        if case.get("p_mid").is_none() {
            continue;
        }
        close(table.p_candidate_better(), &case["p_exact_candidate_greater"], 1e-9, "p_exact_candidate_greater");
        close(table.p_mid(), &case["p_mid"], 1e-9, "p_mid");
        for (corrected, statistic, p) in [(true, "chi2_cc", "p_chi2_cc"), (false, "chi2", "p_chi2")] {
            match table.chi_square(corrected) {
                Some((ours, ours_p)) => {
                    close(ours, &case[statistic], 1e-9, statistic);
                    close(ours_p, &case[p], 1e-7, p);
                }
                None => assert!(case[statistic].is_null()),
            }
        }
    }
}

/// Weights of the sorted rows that stand for drawing the original rows `resample`: equal rows are exchangeable.
fn weights(rows: &PairedRows, y: &[i64], base: &[i64], cand: &[i64], resample: &[i64]) -> Vec<u16> {
    let mut taken = vec![false; y.len()];
    let mut weights = Vec::new();
    for row in 0..rows.len() {
        let own = (rows.labels()[row], rows.scores(Model::Baseline, row)[0], rows.scores(Model::Candidate, row)[0]);
        let at = (0..y.len()).find(|at| !taken[*at] && (y[*at], base[*at], cand[*at]) == own).unwrap();
        taken[at] = true;
        weights.push(resample.iter().filter(|drawn| **drawn == at as i64).count() as u16);
    }
    weights
}

#[test]
fn replicates_intervals_and_jackknife_of_the_bootstrap_agree_with_numpy_and_scipy() {
    for case in cases(include_str!("../../tests/vectors/evaluation/bootstrap_paired.json")) {
        let (y, base, cand) = (integers(&case["y"]), quanta(&case["baseline"]), quanta(&case["candidate"]));
        let rows = PairedRows::new(frame(Task::Binary), y.clone(), base.clone(), cand.clone()).unwrap();
        let metric = Metric::from_name(case["metric"].as_str().unwrap()).unwrap();
        // The vectors' delta is candidate − baseline; ours is the improvement.
        let sign = if metric.higher_is_better(&rows) { 1.0 } else { -1.0 };
        let observed = compare(&rows, &metric).unwrap().evidence.delta();
        close(sign * observed, &case["delta"], 1e-9, "delta");
        let stratified = case["stratified"].as_bool().unwrap();
        let resampler = Resampler::new(&rows, &[metric], stratified).unwrap();
        if let Some(resamples) = case["resamples"].as_array() {
            for (resample, delta) in resamples.iter().zip(case["boot_deltas"].as_array().unwrap()) {
                let ours = resampler.under(&weights(&rows, &y, &base, &cand, &integers(resample)))[0];
                assert!((sign * ours - delta.as_f64().unwrap()).abs() < 1e-11, "{ours} {delta}");
            }
        }
        let mut left: Vec<f64> = resampler.leave_one_out()[0].iter().map(|delta| sign * delta).collect();
        let mut known = floats(&case["jackknife"]);
        left.sort_by(f64::total_cmp);
        known.sort_by(f64::total_cmp);
        assert!(left.iter().zip(&known).all(|(ours, known)| (ours - known).abs() < 1e-11));
        let interval = bca(case["delta"].as_f64().unwrap(), &floats(&case["boot_deltas"]), &left, 0.025).unwrap();
        close(interval.standard_error, &case["se"], 1e-9, "se");
        close(interval.bias_correction, &case["z0"], 1e-6, "z0");
        close(interval.acceleration, &case["acceleration"], 1e-6, "acceleration");
        close(interval.quantiles.0, &case["bca_quantiles"][0], 1e-6, "quantile");
        close(interval.quantiles.1, &case["bca_quantiles"][1], 1e-6, "quantile");
        close(interval.lower, &case["bca95"][0], 1e-6, "bca95");
        close(interval.upper, &case["bca95"][1], 1e-6, "bca95");
    }
}

#[test]
fn the_interval_of_a_mean_agrees_with_scipy_bootstrap() {
    let case = &cases(include_str!("../../tests/vectors/evaluation/bca_scipy.json"))[0];
    let x = floats(&case["x"]);
    let sum: f64 = x.iter().sum();
    let left: Vec<f64> = x.iter().map(|own| (sum - own) / (x.len() - 1) as f64).collect();
    let interval = bca(sum / x.len() as f64, &floats(&case["boot"]), &left, 0.025).unwrap();
    close(interval.lower, &case["ci95"][0], 1e-6, "lower");
    close(interval.upper, &case["ci95"][1], 1e-6, "upper");
}

#[test]
fn exact_sign_flips_agree_with_scipy() {
    for case in cases(include_str!("../../tests/vectors/evaluation/permutation_paired_exact.json")) {
        let values: Vec<i128> = quanta(&case["loss_differences"]).iter().map(|v| i128::from(*v)).collect();
        let opposite: Vec<i128> = values.iter().map(|v| -v).collect();
        let seed = Seed::derive("unused", b"");
        let (greater, less) = (sign_flip(&values, 1, seed, 1), sign_flip(&opposite, 1, seed, 1));
        close(greater, &case["p_greater"], 1e-9, "p_greater");
        close((2.0 * greater.min(less)).min(1.0), &case["p_two_sided"], 1e-9, "p_two_sided");
    }
}

#[test]
fn independent_proportions_agree_with_statsmodels() {
    for case in cases(include_str!("../../tests/vectors/evaluation/ab_proportions.json")) {
        let of = |name: &str| case[name].as_u64().unwrap();
        let (first, second) = ((of("x_a"), of("n_a")), (of("x_b"), of("n_b")));
        let (z, p) = pooled_z(first, second).unwrap();
        close(z, &case["z"], 1e-9, "z");
        close(p, &case["p_two_sided"], 1e-7, "p");
        close(super::proportion::fisher_exact(first, second).unwrap(), &case["fisher_p"], 1e-7, "fisher_p");
        let newcombe = newcombe_independent(first, second, 0.025);
        close(newcombe.0, &case["newcombe95_b_minus_a"][0], 1e-9, "newcombe");
        close(newcombe.1, &case["newcombe95_b_minus_a"][1], 1e-9, "newcombe");
        let own = wilson(first.0, first.1, 0.025);
        close(own.0, &case["wilson95_a"][0], 1e-9, "wilson");
        close(own.1, &case["wilson95_a"][1], 1e-9, "wilson");
    }
}

#[test]
fn strata_agree_with_scikit_learn() {
    for case in cases(include_str!("../../tests/vectors/evaluation/stratified.json")) {
        let (y, base, cand) = (integers(&case["y"]), quanta(&case["baseline"]), quanta(&case["candidate"]));
        let strata: Vec<u32> = integers(&case["stratum"]).iter().map(|s| *s as u32).collect();
        let rows = PairedRows::with_extras(frame(Task::Binary), y, base, cand, Vec::new(), strata).unwrap();
        let mut weighted = 0.0;
        for stratum in case["per_stratum"].as_array().unwrap() {
            let own = rows.stratum(stratum["stratum"].as_u64().unwrap() as u32).unwrap();
            assert_eq!(own.len() as u64, stratum["n"].as_u64().unwrap());
            assert_eq!(own.class_counts()[1], stratum["pos"].as_u64().unwrap());
            let accuracy = compare(&own, &Metric::Accuracy).unwrap();
            close(accuracy.baseline.to_f64(), &stratum["acc_base"], 1e-9, "acc_base");
            close(accuracy.candidate.to_f64(), &stratum["acc_cand"], 1e-9, "acc_cand");
            let loss = compare(&own, &Metric::LogLoss).unwrap();
            close(loss.candidate.to_f64(), &stratum["log_loss_cand"], 1e-9, "log_loss_cand");
            let area = compare(&own, &Metric::Auroc).unwrap();
            close(area.baseline.to_f64(), &stratum["auroc_base"], 1e-9, "auroc_base");
            close(area.candidate.to_f64(), &stratum["auroc_cand"], 1e-9, "auroc_cand");
            weighted += area.evidence.delta() * own.len() as f64 / rows.len() as f64;
        }
        close(weighted, &case["n_weighted_delta_auroc"], 1e-9, "n_weighted_delta_auroc");
        // The vectors' bins have the edges of numpy's linspace: 0.3 < 0.30000000000000004 there, so that scores of exactly 0.3, 0.6 and
        // 0.7 fall one bin lower than floor(10 p), which is what their description says and what integers give.
        let below_edge = |score: i64| score - i64::from([3, 6, 7].map(|tenth| tenth * PICO / 10).contains(&score));
        let scores: Vec<i64> = rows.column(Model::Candidate).iter().map(|score| below_edge(*score)).collect();
        let moved = PairedRows::new(frame(Task::Binary), rows.labels().to_vec(), scores.clone(), scores).unwrap();
        let ece = super::calibration::calibration(&moved, Model::Candidate, 10).unwrap().expected_error;
        close(ece, &case["ece10_candidate"], 1e-9, "ece10_candidate");
    }
}

/// Example of Newcombe 1998, table II, and Fagerland et al. 2014, table IV: airway hyper-responsiveness before and after
/// transplantation, (1, 1, 7, 12).
#[test]
fn newcombes_paired_interval_agrees_with_the_published_example() {
    let table = super::proportion::PairedTable { both: 1, candidate_only: 1, baseline_only: 7, neither: 12 };
    let (lower, upper) = super::proportion::newcombe_paired(table, 0.025);
    assert!((lower + 0.507).abs() < 5e-4 && (upper + 0.026).abs() < 5e-4, "{lower} {upper}");
}

/// The bounds of a program that maximises the constrained likelihood numerically (SciPy 1.17); the first is also that of Fagerland et al.
/// 2014, table V, for the table above.
#[test]
fn tangos_bound_agrees_with_the_likelihood_maximised_numerically() {
    for (baseline_only, candidate_only, rows, tail, known) in [
        (7, 1, 21, 0.025, -0.517_232_28),
        (2, 12, 50, 0.025, 0.061_112_407),
        (12, 2, 50, 0.025, -0.344_708_750),
        (1, 0, 44, 0.025, -0.118_077_097),
        (0, 0, 100, 0.05, -0.026_342_721),
        (35, 35, 1_407, 0.05, -0.009_949_073),
        (28, 0, 1_407, 0.05, -0.027_009_202),
        (0, 5, 60, 0.05, 0.036_590_968),
        (5_000, 5_200, 250_000, 0.05, 0.000_135_529),
    ] {
        let found = tango_lower(Discordance { baseline_only, candidate_only }, rows, tail);
        assert!((found - known).abs() < 1e-6, "{baseline_only} {candidate_only} {rows}: {found}, not {known}");
    }
    assert_eq!(tango_lower(Discordance { baseline_only: 0, candidate_only: 0 }, 0, 0.05), -1.0);
    assert!(tango_lower(Discordance { baseline_only: 9, candidate_only: 0 }, 9, 0.05) < -0.9);
}

/// A candidate that only breaks rows, as many as the margin allows on the average: exactly computed, hardly more than one in twenty
/// passes.
#[test]
fn a_candidate_that_is_worse_by_the_margin_passes_in_five_of_a_hundred() {
    for (rows, margin) in [(60_u64, 0.1), (200, 0.05), (1_407, 0.02)] {
        let passes =
            |lost: &u64| tango_lower(Discordance { baseline_only: *lost, candidate_only: 0 }, rows, 0.05) > -margin;
        let chances = (0..=rows).filter(passes).map(|lost| binomial_probability(lost, rows, margin));
        let size: f64 = chances.sum();
        assert!((0.02..=0.055).contains(&size), "{rows} {margin}: {size}");
    }
}

/// One sure row is no precision, whatever its variance.
#[test]
fn precision_of_a_model_that_picks_a_handful_of_rows_is_too_small_to_be_judged() {
    let labels: Vec<i64> = (0..2_000).map(|row| i64::from(row % 5 < 2)).collect();
    let baseline: Vec<i64> = (0..2_000).map(|row| if row % 2 == 0 { PICO } else { 0 }).collect();
    for (picked, small) in [(1, true), (49, true), (50, false)] {
        let candidate = (0..2_000).map(|row| if row % 5 == 0 && row < picked * 5 { PICO } else { 0 }).collect();
        let rows = PairedRows::new(frame(Task::Binary), labels.clone(), baseline.clone(), candidate).unwrap();
        let found = compare(&rows, &Metric::Precision).unwrap();
        assert_eq!(found.too_small(), small, "{picked}");
        assert!(!compare(&rows, &Metric::Recall).unwrap().too_small(), "recall does not ask what was picked");
    }
}

#[test]
fn macro_averages_leave_out_classes_that_never_occur() {
    let counts = Counts::of(3, [(0, 0, 5), (1, 0, 5)]);
    let f1 = counts.value(&Metric::F1Macro).unwrap().to_f64();
    assert!((f1 - (10.0 / 15.0) / 2.0).abs() < 1e-15, "{f1}");
    assert_eq!(counts.value(&Metric::Auroc), None);
}

#[test]
fn a_certain_and_wrong_probability_costs_what_scikit_learn_says() {
    let rows = PairedRows::new(Frame::new(Task::Binary), vec![1, 0], vec![0, 0], vec![1_000_000, 1]).unwrap();
    let losses = row_values(&rows, &Metric::LogLoss, Model::Baseline).unwrap();
    assert_eq!(losses.values, [0, (-math::ln(f64::EPSILON) * FINE as f64) as i128]);
    assert!(normal_upper_quantile(0.5).abs() < 1e-15);
}

#[test]
fn adjusted_p_values_agree_with_statsmodels() {
    for case in cases(include_str!("../../tests/vectors/evaluation/multitest.json")) {
        let p = floats(&case["p"]);
        for (name, ours) in [
            ("holm", super::multiplicity::holm(&p)),
            ("fdr_bh", super::multiplicity::false_discovery(&p, false)),
            ("fdr_by", super::multiplicity::false_discovery(&p, true)),
        ] {
            for (ours, known) in ours.iter().zip(case[name]["adjusted"].as_array().unwrap()) {
                close(*ours, known, 1e-7, name);
            }
        }
    }
}

#[test]
fn levels_of_streams_agree_with_an_independent_implementation() {
    for case in cases(include_str!("../../tests/vectors/evaluation/online_fdr.json")) {
        let (p, alpha) = (floats(&case["p"]), case["alpha"].as_f64().unwrap());
        let spending: Vec<f64> =
            (1..=p.len() as u64).map(|t| super::multiplicity::attempt_level(alpha, t).unwrap()).collect();
        for (name, ours) in [
            ("lordpp", super::multiplicity::lord(&p, alpha, case["lordpp"]["w0"].as_f64().unwrap())),
            ("saffron", super::multiplicity::saffron(&p, alpha, case["saffron"]["w0"].as_f64().unwrap(), 0.5)),
            ("alpha_spending_bonferroni", spending),
        ] {
            for (ours, known) in ours.iter().zip(case[name]["levels"].as_array().unwrap()) {
                close(*ours, known, 1e-9, name);
            }
        }
    }
}

#[test]
fn released_scores_agree_with_an_independent_ladder() {
    for case in cases(include_str!("../../tests/vectors/evaluation/ladder.json")) {
        let Some(step) = case["eta"].as_f64() else {
            check_parameter_free(&case);
            continue;
        };
        let mut ladder = super::ladder::Ladder::new(quantise(step, 1_000_000).unwrap()).unwrap();
        for (loss, known) in floats(&case["losses"]).iter().zip(case["released"].as_array().unwrap()) {
            // Two decimals more than millionths: the vectors' losses are nowhere near a rung's edge.
            close(ladder.release(quantise(*loss, 1_000_000).unwrap()) as f64 / 1e6, known, 1e-9, "released");
        }
    }
}

/// Values, standard errors and p-values of every metric whose method is a t test or the delta method; see `paired_deltas.py`.
/// The derivatives there are numerical: errors to 10⁻⁶.
#[test]
fn paired_t_and_delta_method_agree_with_scipy_and_numerical_influence() {
    for case in cases(include_str!("../../tests/vectors/evaluation/paired_deltas.json")) {
        let (base, cand) = (quanta_at(&case["baseline"], MICRO), quanta_at(&case["candidate"], MICRO));
        let (task, y) = match case["task"].as_str() {
            Some("regression") => (Task::Regression, quanta_at(&case["y"], MICRO)),
            Some("binary") => (Task::Binary, integers(&case["y"])),
            _ => (Task::Multiclass(case["classes"].as_u64().unwrap() as u16), integers(&case["y"])),
        };
        let rows = PairedRows::new(Frame::new(task), y, base, cand).unwrap();
        for (name, known) in case["metrics"].as_object().unwrap() {
            let ours = compare(&rows, &Metric::from_name(name).unwrap()).unwrap();
            close(ours.baseline.to_f64(), &known["baseline"], 1e-9, name);
            close(ours.candidate.to_f64(), &known["candidate"], 1e-9, name);
            close(ours.evidence.delta(), &known["delta"], 1e-9, name);
            close(ours.evidence.standard_error(), &known["standard_error"], 1e-6, name);
            close(ours.evidence.p_value(), &known["p"], 1e-5, name);
            if let Some(bound) = known.get("lower_999") {
                close(ours.evidence.lower_bound(0.001), bound, 1e-8, name);
            }
        }
    }
}

fn check_parameter_free(case: &Value) {
    let mut ladder = super::ladder::ParameterFreeLadder::default();
    let rows = case["n"].as_f64().unwrap();
    for (losses, step) in case["per_example_losses"].as_array().unwrap().iter().zip(case["steps"].as_array().unwrap()) {
        let losses: Vec<i64> = integers(losses).iter().map(|loss| loss * MICRO).collect();
        close(ladder.release(&losses).unwrap() as f64 / rows, &step["released"], 1e-9, "released");
    }
}

#[test]
fn five_times_two_folds_agree_with_scipy() {
    for case in cases(include_str!("../../tests/vectors/evaluation/cv5x2.json")) {
        let pairs: Vec<[f64; 2]> =
            case["differences_5x2"].as_array().unwrap().iter().map(|pair| floats(pair).try_into().unwrap()).collect();
        let (t, f) = super::folds::five_by_two(&pairs.try_into().unwrap()).unwrap();
        close(t.statistic, &case["t_dietterich"], 1e-9, "t");
        close(t.p_value, &case["p_t"], 1e-7, "p_t");
        close(f.statistic, &case["f_alpaydin"], 1e-9, "f");
        close(f.p_value, &case["p_f"], 1e-7, "p_f");
    }
}

use serde_json::json;

use super::*;
use crate::ml::linear::{Design, Weights};
use crate::ml::model::Predictor;

const ROWS: usize = 240;

/// The rows that scikit-learn 1.9 was given: `numbers` a and b (b sometimes missing), a category of three codes.
fn known() -> (Features, Vec<f64>, Vec<f64>, Vec<f64>) {
    let a: Vec<f64> = (0..ROWS).map(|i| (i * 37 % 101) as f64 / 10.0).collect();
    let b: Vec<f64> = (0..ROWS).map(|i| ((i * 53 + 11) % 97) as f64 / 7.0).collect();
    let missing = |i: usize| i.is_multiple_of(13);
    let code: Vec<usize> = (0..ROWS).map(|i| i * i % 3).collect();
    let noise = |i: usize| (i * 29 % 83) as f64 / 83.0;
    let one = |i: usize| f64::from(u8::from(code[i] == 1));
    let two = (0..ROWS).map(|i| f64::from(u8::from(a[i] / 10.0 + one(i) * 0.4 + noise(i) > 1.1))).collect();
    let three = (0..ROWS).map(|i| ((a[i] / 5.0 + one(i) + 2.0 * noise(i)) / 1.5).floor().min(2.0)).collect();
    let number = (0..ROWS).map(|i| 3.0 * a[i] - if missing(i) { 20.0 } else { b[i] } + 10.0 * noise(i)).collect();
    let column = |values: Vec<f32>, codes| crate::ml::encoding::Encoded { values, codes };
    let b = b.iter().enumerate().map(|(i, &b)| if missing(i) { f32::NAN } else { b as f32 }).collect();
    let columns = vec![
        column(a.iter().map(|&a| a as f32).collect(), 0),
        column(b, 0),
        column(code.iter().map(|&code| code as f32).collect(), 4),
    ];
    (Features { columns, names: ["a", "b", "c"].map(str::to_owned).to_vec(), rows: ROWS }, two, three, number)
}

fn fit(features: &Features, labels: &[f64], task: &Task, l2: f64, threads: usize) -> Weights {
    let parameters = json!({"l2": l2, "tolerance": 1e-10});
    let keys = vec![0; ROWS];
    let training =
        Training { features, labels, task, row_keys: &keys, fold: &Fold::Rows, seed: 1, threads, warm: None };
    let learned = learner("linear").unwrap().learn(&training, &parameters, None, &mut Unattended).unwrap();
    let Predictor::Linear(weights) = learned.predictor else { unreachable!() };
    weights
}

fn close(found: &[f64], wanted: &[f64], within: f64) {
    assert_eq!(found.len(), wanted.len());
    assert!(found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < within), "{found:?}\n{wanted:?}");
}

fn classes(count: usize) -> Task {
    Task::Classes((0..count).map(|class| class.to_string()).collect())
}

#[test]
fn logistic_regression_has_the_coefficients_of_scikit_learn() {
    let (features, two, ..) = known();
    let weights = fit(&features, &two, &classes(2), 1.0, 1);
    close(&weights.intercepts, &[0.714_077_515], 1e-6);
    let wanted = [1.808_532_054, 0.0, 0.011_445_291, -0.302_108_736, -1.207_344_661, 1.207_344_525, 0.0, 0.0, 0.0];
    close(&weights.coefficients, &wanted, 1e-6);
}

#[test]
fn multinomial_regression_has_the_chances_of_scikit_learn() {
    let (features, _, three, _) = known();
    let task = classes(3);
    let mut scores = fit(&features, &three, &task, 0.5, 1).scores(&features);
    task.predictions(&mut scores);
    let wanted = [
        0.943_348_450,
        0.055_638_734,
        0.001_012_816,
        0.010_706_664,
        0.620_917_106,
        0.368_376_230,
        0.000_615_917,
        0.277_825_901,
        0.721_558_182,
        0.765_553_549,
        0.229_624_884,
        0.004_821_566,
    ];
    close(&scores[..12], &wanted, 1e-6);
}

#[test]
fn ridge_regression_has_the_coefficients_of_scikit_learn() {
    let (features, _, _, number) = known();
    let weights = fit(&features, &number, &Task::Number, 0.5, 1);
    close(&weights.intercepts, &[13.005_912_901], 1e-6);
    let wanted = [8.772_378_309, 0.0, -3.933_971_676, -13.134_391_360, -0.090_612_118, 0.090_612_118, 0.0, 0.0, 0.0];
    close(&weights.coefficients, &wanted, 1e-6);
    assert!(matches!(weights.design[0], Design::Number { scale, .. } if scale > 2.0));
}

#[test]
fn any_number_of_threads_finds_the_same_bits() {
    let (features, two, three, number) = known();
    for (labels, task) in [(two, classes(2)), (three, classes(3)), (number, Task::Number)] {
        let one = fit(&features, &labels, &task, 1.0, 1);
        assert_eq!(one, fit(&features, &labels, &task, 1.0, 2));
        assert_eq!(one, fit(&features, &labels, &task, 1.0, 7));
    }
}

#[test]
fn a_regression_that_resumes_from_any_checkpoint_ends_with_the_same_bits() {
    use crate::ml::tests::trees::StopAt;
    for (classes, stop) in [(2, 1), (3, 3), (0, 2), (2, 12)] {
        let rows = rows(600, classes);
        let parameters = json!({"tolerance": 1e-9, "validation": 0.2});
        let whole = rows.learn("linear", parameters.clone());
        assert!(whole.iterations > stop, "{}", whole.iterations);
        let mut control = StopAt(stop, Vec::new());
        let stopped = rows.learn_with("linear", parameters.clone(), 1, None, &mut control);
        assert_eq!(stopped.map_err(|error| error.code()).err(), Some("CANCELLED"));
        let mut counted = Counted(0);
        let resumed = rows.learn_with("linear", parameters, 2, Some(&control.1), &mut counted).unwrap();
        assert_eq!(resumed, whole);
        assert_eq!(counted.0, whole.iterations - stop, "what was done before is not done again");
    }
}

/// Counts iterations.
struct Counted(u32);

impl Control for Counted {
    fn after(&mut self, _: crate::ml::Progress, _: &dyn Fn() -> Vec<u8>) -> std::ops::ControlFlow<()> {
        self.0 += 1;
        std::ops::ControlFlow::Continue(())
    }
}

#[test]
fn a_regressions_checkpoint_that_is_damaged_or_of_another_run_is_refused() {
    use crate::ml::tests::trees::StopAt;
    let rows = rows(300, 2);
    let mut control = StopAt(4, Vec::new());
    let _ = rows.learn_with("linear", json!({}), 1, None, &mut control);
    let refused = |rows: &Rows, parameters, bytes: &[u8]| {
        rows.learn_with("linear", parameters, 1, Some(bytes), &mut Unattended).map_err(|error| error.code()).err()
    };
    assert_eq!(refused(&rows, json!({}), &control.1), None);
    assert_eq!(refused(&rows, json!({"l2": 2.0}), &control.1), Some("BAD_CHECKPOINT"));
    let other = self::rows(301, 2);
    assert_eq!(refused(&other, json!({}), &control.1), Some("BAD_CHECKPOINT"));
    for at in [0, 5, 20, 40, 45, 60, control.1.len() - 1] {
        let mut damaged = control.1.clone();
        damaged[at] ^= 1;
        assert_eq!(refused(&rows, json!({}), &damaged), Some("BAD_CHECKPOINT"), "{at}");
        assert_eq!(refused(&rows, json!({}), &control.1[..at]), Some("BAD_CHECKPOINT"), "{at}");
    }
}

use std::ops::ControlFlow;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ml::Progress;
use crate::ml::artefact::digest;
use crate::ml::model::{Forest, Predictor};

/// The mean loss of a classifier's predictions.
fn log_loss(rows: &Rows, predictions: &[f64]) -> f64 {
    let outputs = rows.task.outputs();
    let chance = |(row, label): (&[f64], &f64)| match outputs {
        1 => {
            if *label > 0.5 {
                row[0]
            } else {
                1.0 - row[0]
            }
        }
        _ => row[*label as usize],
    };
    let losses = predictions.chunks(outputs).zip(&rows.labels).map(|pair| -crate::math::ln(chance(pair)));
    losses.sum::<f64>() / rows.labels.len() as f64
}

#[test]
fn any_number_of_threads_learns_the_same_bytes() {
    for classes in [0, 2, 3] {
        // More than 65,535 rows, so that packed sums are flushed, and enough that every loop uses its threads.
        let rows = rows(70_000, classes);
        let parameters = json!({"iterations": 3, "row_sample": 0.9, "column_sample": 0.7, "validation": 0.02});
        let model = |threads| {
            let learned = rows.learn_with("trees", parameters.clone(), threads, None, &mut Unattended).unwrap();
            (rows.model(learned.clone()).to_bytes(), learned.validation_loss)
        };
        let one = model(1);
        assert_eq!(one, model(2));
        assert_eq!(one, model(5));
        let mut control = StopAt(2, Vec::new());
        assert!(rows.learn_with("trees", parameters.clone(), 2, None, &mut control).is_err());
        let resumed = rows.learn_with("trees", parameters.clone(), 5, Some(&control.1), &mut Unattended).unwrap();
        assert_eq!(one.0, rows.model(resumed).to_bytes(), "begun with two threads, resumed with five");
    }
}

#[test]
fn the_bytes_of_a_model_are_those_that_were_published() {
    let pinned = |classes, parameters| {
        let rows = rows(3000, classes);
        data_encoding::HEXLOWER.encode(&digest(&rows.model(rows.learn("trees", parameters)).to_bytes())[..8])
    };
    let found = [
        pinned(2, json!({"iterations": 20})),
        pinned(3, json!({"iterations": 10, "growth": "depth", "row_sample": 0.5})),
        pinned(0, json!({"iterations": 20, "monotone": {"x": 1}})),
    ];
    assert_eq!(found, ["88e345b5c8d10776", "0080fd74c364206e", "d197226a276fe729"]);
}

/// Keeps the checkpoint of one iteration, then stops.
pub struct StopAt(pub u32, pub Vec<u8>);

impl Control for StopAt {
    fn after(&mut self, progress: Progress, checkpoint: &dyn Fn() -> Vec<u8>) -> ControlFlow<()> {
        if progress.iteration < self.0 {
            return ControlFlow::Continue(());
        }
        self.1 = checkpoint();
        ControlFlow::Break(())
    }
}

#[test]
fn a_run_that_resumes_from_any_checkpoint_ends_with_the_same_bytes() {
    for (classes, stop) in [(2, 1), (3, 5), (0, 9), (2, 10)] {
        let rows = rows(3000, classes);
        let parameters = json!({"iterations": 10, "row_sample": 0.6, "column_sample": 0.7,
            "validation": 0.2, "patience": 3});
        let whole = rows.learn("trees", parameters.clone());
        let mut control = StopAt(stop, Vec::new());
        let stopped = rows.learn_with("trees", parameters.clone(), 1, None, &mut control);
        assert_eq!(stopped.map_err(|error| error.code()).err(), (stop <= 10).then_some("CANCELLED"));
        let resumed = rows.learn_with("trees", parameters.clone(), 2, Some(&control.1), &mut Unattended).unwrap();
        assert_eq!(rows.model(resumed).to_bytes(), rows.model(whole).to_bytes());
        let other = json!({"iterations": 10});
        let error = rows.learn_with("trees", other, 1, Some(&control.1), &mut Unattended).unwrap_err();
        assert_eq!(error.code(), "BAD_CHECKPOINT");
    }
}

#[test]
fn a_checkpoint_of_other_values_is_refused_even_if_they_rank_alike() {
    let (rows, mut other) = (rows(500, 2), rows(500, 2));
    other.features.columns[0].values.iter_mut().for_each(|value| *value *= 2.0);
    let mut control = StopAt(2, Vec::new());
    let _ = rows.learn_with("trees", json!({}), 1, None, &mut control);
    let error = other.learn_with("trees", json!({}), 1, Some(&control.1), &mut Unattended).unwrap_err();
    assert_eq!(error.code(), "BAD_CHECKPOINT");
}

#[test]
fn more_trees_than_an_artefact_may_hold_are_refused_before_the_first() {
    let mut rows = rows(200, 0);
    rows.labels.iter_mut().enumerate().for_each(|(row, label)| *label = (row % 60) as f64);
    rows.task = Task::Classes((0..60).map(|class| format!("{class}")).collect());
    let error = rows.learn_with("trees", json!({"iterations": 20_000}), 1, None, &mut Unattended).unwrap_err();
    assert_eq!(error.code(), "TOO_LARGE");
}

#[test]
fn the_bytes_of_trees_are_counted_as_they_are_written() {
    let rows = rows(2000, 2);
    let mut model = rows.model(rows.learn("trees", json!({"iterations": 1})));
    let with = model.to_bytes().len();
    let Predictor::Trees(forest) = &mut model.predictor else { unreachable!() };
    let tree = forest.trees.pop().unwrap();
    assert!(!tree.sets.is_empty());
    assert_eq!(crate::ml::artefact::tree_bytes(&tree), with - model.to_bytes().len());
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let rows = rows(500, 2);
    let mut control = StopAt(2, Vec::new());
    let _ = rows.learn_with("trees", json!({}), 1, None, &mut control);
    for at in [0, 5, 40, control.1.len() - 40, control.1.len() - 1] {
        let mut damaged = control.1.clone();
        damaged[at] ^= 1;
        let error = rows.learn_with("trees", json!({}), 1, Some(&damaged), &mut Unattended).unwrap_err();
        assert_eq!(error.code(), "BAD_CHECKPOINT");
    }
    // A well-formed file whose trees test features that there are not.
    let body = control.1.len() - 32;
    let mut foreign = control.1[..body].to_vec();
    let first_feature = 4 + 2 + 32 + (4 + 4) + 4 + 4;
    foreign[first_feature] = 200;
    let sum = digest(&foreign);
    foreign.extend(sum);
    let error = rows.learn_with("trees", json!({}), 1, Some(&foreign), &mut Unattended).unwrap_err();
    assert!(error.to_string().contains("a node tests what its feature is not"), "{error}");
}

#[test]
fn numbers_categories_and_missing_values_are_all_learned_from() {
    let rows = rows(6000, 2);
    let base = {
        let mean = rows.labels.iter().sum::<f64>() / 6000.0;
        log_loss(&rows, &vec![mean; 6000])
    };
    let model = rows.model(rows.learn("trees", json!({"iterations": 60})));
    let loss = log_loss(&rows, &model.predict(&rows.frame).unwrap());
    assert!(loss < base * 0.55, "{loss} {base}");
    let Predictor::Trees(forest) = &model.predictor else { unreachable!() };
    let mut used = [false; 3];
    forest.trees.iter().flat_map(|tree| &tree.nodes).for_each(|node| used[usize::from(node.feature)] = true);
    assert_eq!(used, [true; 3]);
    let at = |x: f64| {
        let frame = Frame::new(vec![
            ("x".into(), Column::Numbers(vec![x])),
            ("z".into(), Column::Numbers(vec![50.0])),
            ("category".into(), Column::texts([Some("level 00")])),
        ]);
        model.predict(&frame.unwrap()).unwrap()[0]
    };
    assert!(at(f64::NAN) > at(0.0) && at(f64::NAN) > at(0.8), "a missing x counts like 1.5, as it did in learning");
}

#[test]
fn three_classes_get_chances_that_sum_to_one_and_beat_their_shares() {
    let rows = rows(6000, 3);
    let model = rows.model(rows.learn("trees", json!({"iterations": 40})));
    let predictions = model.predict(&rows.frame).unwrap();
    assert!(predictions.chunks(3).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12));
    let shares: Vec<f64> = (0..3)
        .map(|class| rows.labels.iter().filter(|&&label| label == f64::from(class)).count() as f64 / 6e3)
        .collect();
    let base = log_loss(&rows, &shares.repeat(6000));
    let loss = log_loss(&rows, &predictions);
    assert!(loss < base * 0.6, "{loss} {base}");
}

#[test]
fn a_number_is_learned_even_beside_one_monstrous_outlier() {
    let mut rows = rows(6000, 0);
    let spread = 1000.0;
    rows.labels[17] = 1e9;
    let model = rows.model(rows.learn("trees", json!({"iterations": 100, "min_rows": 1, "lambda": 0})));
    let predictions = model.predict(&rows.frame).unwrap();
    let mut errors: Vec<f64> = predictions.iter().zip(&rows.labels).map(|(p, label)| (p - label).abs()).collect();
    errors.sort_by(f64::total_cmp);
    assert!(errors[3000] < 2.0 * spread, "{}", errors[3000]);
}

#[test]
fn a_sample_without_rows_adds_nothing_to_a_number() {
    // Of 6 rows one in a hundred is sampled; without regularisation an empty leaf's value would be 0/0.
    let rows = rows(6, 0);
    let model = rows.model(rows.learn("trees", json!({"lambda": 0, "row_sample": 0.01, "min_rows": 0})));
    assert_eq!(Model::from_bytes(&model.to_bytes()).as_ref(), Ok(&model), "what was learned can be read");
    assert!(model.predict(&rows.frame).unwrap().iter().all(|number| number.is_finite()));
}

#[test]
fn a_monotone_feature_never_moves_the_score_the_wrong_way() {
    let rows = rows(4000, 2);
    for way in [1, -1] {
        let model = rows.model(rows.learn("trees", json!({"iterations": 40, "monotone": {"x": way}})));
        for row in 0..20 {
            let steps: Vec<f64> = (0..200).map(|step| f64::from(step) / 50.0 - 2.0).collect();
            let levels: Vec<String> = vec![format!("level {:02}", row % 13); 200];
            let frame = Frame::new(vec![
                ("x".into(), Column::Numbers(steps)),
                ("z".into(), Column::Numbers(vec![f64::from(row) * 5.0; 200])),
                ("category".into(), Column::texts(levels.iter().map(|level| Some(level.as_str())))),
            ]);
            let along = model.predict(&frame.unwrap()).unwrap();
            assert!(along.windows(2).all(|pair| (pair[1] - pair[0]) * f64::from(way) >= 0.0));
        }
    }
}

#[test]
fn no_leaf_is_deeper_and_no_tree_larger_than_declared() {
    let rows = rows(3000, 2);
    for growth in ["leaf", "depth"] {
        for (depth, leaves, most) in [(1, 31, 2), (3, 31, 8), (64, 5, 5)] {
            let parameters =
                json!({"iterations": 5, "max_depth": depth, "leaves": leaves, "growth": growth, "min_rows": 1});
            let Predictor::Trees(forest) = rows.learn("trees", parameters).predictor else { unreachable!() };
            let largest = forest.trees.iter().map(|tree| tree.leaves.len()).max();
            assert_eq!(largest, Some(most), "{growth} {depth} {leaves}");
        }
    }
}

/// Notes how many iterations there were.
struct Count(u32);

impl Control for Count {
    fn after(&mut self, progress: Progress, _: &dyn Fn() -> Vec<u8>) -> ControlFlow<()> {
        self.0 = progress.iteration;
        ControlFlow::Continue(())
    }
}

#[test]
fn learning_stops_as_soon_as_patience_is_at_its_end() {
    let rows = rows(1500, 2);
    let mut count = Count(0);
    let parameters = json!({"iterations": 400, "learning_rate": 0.5, "validation": 0.3, "patience": 4});
    let learned = rows.learn_with("trees", parameters, 1, None, &mut count).unwrap();
    assert_eq!(count.0, learned.iterations + 4);
}

#[test]
fn learning_stops_early_at_the_best_validation_loss() {
    let rows = rows(1500, 2);
    let parameters = json!({"iterations": 400, "learning_rate": 0.5, "validation": 0.3, "patience": 10});
    let stopped = rows.learn("trees", parameters);
    assert!(stopped.iterations < 200, "{}", stopped.iterations);
    let exact = json!({"iterations": stopped.iterations, "learning_rate": 0.5, "validation": 0.3});
    let same = rows.learn("trees", exact);
    assert_eq!(same.predictor, stopped.predictor, "what came after the best iteration left no trace");
    assert_eq!(same.validation_loss, stopped.validation_loss);
}

#[test]
fn without_patience_the_loss_is_that_of_all_the_trees_which_are_kept() {
    let rows = rows(1500, 2);
    let learn = |patience: u32| {
        rows.learn("trees", json!({"iterations": 120, "learning_rate": 0.9, "validation": 0.3, "patience": patience}))
    };
    let (all, best) = (learn(0), learn(120));
    assert_eq!((all.iterations, best.iterations < 120), (120, true));
    assert!(all.validation_loss > best.validation_loss, "{all:?}");
}

#[test]
fn balanced_weights_lift_the_chances_of_the_rare_class() {
    let mut rows = rows(4000, 2);
    let rare: Vec<f64> = rows
        .labels
        .iter()
        .enumerate()
        .map(|(row, &label)| label * f64::from(u8::from(row.is_multiple_of(10))))
        .collect();
    rows.labels = rare;
    let mean = |parameters| {
        let chances = rows.model(rows.learn("trees", parameters)).predict(&rows.frame).unwrap();
        chances.iter().sum::<f64>() / 4000.0
    };
    let share = rows.labels.iter().sum::<f64>() / 4000.0;
    assert!((mean(json!({"iterations": 30})) - share).abs() < 0.01);
    assert!(mean(json!({"iterations": 30, "class_weights": "balanced"})) > 5.0 * share);
    assert!(mean(json!({"iterations": 30, "class_weights": [1.0, 9.0]})) > 3.0 * share);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn adding_rows_to_the_validation_fold_or_the_sample_depends_on_their_own_keys_alone(
        seed in any::<u64>(), cut in 1usize..400
    ) {
        let all = rows(400, 2);
        let fold = |count: usize| {
            let mut training = all.training(seed, 1);
            training.labels = &all.labels[..count];
            crate::ml::fold::folds(&training, 0.3).1
        };
        let (part, whole) = (fold(cut), fold(400));
        let within: Vec<u32> = whole.into_iter().filter(|&row| (row as usize) < cut).collect();
        prop_assert_eq!(part, within);
    }
}

#[test]
fn learning_that_goes_on_from_a_model_of_the_same_rows_is_learning_that_never_stopped() {
    for classes in [0, 2, 3] {
        let rows = rows(2_000, classes);
        let parameters = |iterations| json!({"iterations": iterations, "row_sample": 0.8, "column_sample": 0.7});
        let first = rows.learn("trees", parameters(4));
        let Predictor::Trees(forest) = &first.predictor else { panic!() };
        let learner = learner("trees").unwrap();
        let given: Map<String, Value> = serde_json::from_value(parameters(6)).unwrap();
        let complete = learner.parameters(&given).unwrap();
        let training = Training { warm: Some(forest), ..rows.training(7, 1) };
        let on = learner.learn(&training, &complete, None, &mut Unattended).unwrap();
        assert_eq!((on.iterations, &on.predictor), (6, &rows.learn("trees", parameters(10)).predictor));

        let mut control = StopAt(3, Vec::new());
        assert!(learner.learn(&training, &complete, None, &mut control).is_err());
        let resumed = learner.learn(&training, &complete, Some(&control.1), &mut Unattended).unwrap();
        assert_eq!(resumed.predictor, on.predictor, "stopped at its third iteration and resumed");
        let cold = rows.learn_with("trees", parameters(6), 1, Some(&control.1), &mut Unattended);
        assert!(matches!(cold, Err(LearnError::Checkpoint { .. })), "the checkpoint is of another run");
    }
}

#[test]
fn a_model_of_other_outputs_or_features_is_nothing_to_go_on_from() {
    let (two, three) = (rows(500, 2), rows(500, 3));
    let learn = |rows: &Rows, name: &str, forest: &Forest| {
        let learner = learner(name).unwrap();
        let complete = learner.parameters(&Map::new()).unwrap();
        let training = Training { warm: Some(forest), ..rows.training(7, 1) };
        learner.learn(&training, &complete, None, &mut Unattended).map(|learned| learned.iterations)
    };
    let Predictor::Trees(forest) = two.learn("trees", json!({"iterations": 3})).predictor else { panic!() };
    assert!(matches!(learn(&three, "trees", &forest), Err(LearnError::WarmStart { .. })));
    assert!(matches!(learn(&two, "linear", &forest), Err(LearnError::WarmStart { .. })));
    let mut foreign = forest;
    foreign.trees[0].nodes[0].feature = 99;
    assert!(matches!(learn(&two, "trees", &foreign), Err(LearnError::WarmStart { .. })));
}

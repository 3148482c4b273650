//! What learning promises, on small synthetic data.

mod artefact;
mod hard;
mod linear;
mod trees;

use serde_json::{Map, Value, json};

use crate::ml::encoding::{Declared, Encode, Encoding, Features};
use crate::ml::fold::Fold;
use crate::ml::frame::{Column, Frame};
use crate::ml::model::Model;
use crate::ml::random::{Purpose, draw, uniform};
use crate::ml::{Control, LearnError, Learned, Task, Training, Unattended, learner};

/// Rows with labels.
pub(crate) struct Rows {
    pub frame: Frame,
    pub encoding: Encoding,
    pub features: Features,
    pub labels: Vec<f64>,
    pub task: Task,
    pub keys: Vec<u64>,
}

pub(super) fn random(row: usize, what: u32) -> f64 {
    uniform(42, Purpose::Trials, what, row as u64)
}

/// `rows` rows: a number x (a tenth missing), a number z, a category of 12 levels (some missing); the label follows all three.
pub(crate) fn rows(rows: usize, classes: usize) -> Rows {
    let x = |row| random(row, 0) * 4.0 - 2.0;
    let missing = |row| random(row, 1) < 0.1;
    let level = |row| (random(row, 2) * 12.0) as usize;
    let names: Vec<String> = (0..12).map(|level| format!("level {level:02}")).collect();
    let frame = Frame::new(vec![
        ("x".into(), Column::Numbers((0..rows).map(|row| if missing(row) { f64::NAN } else { x(row) }).collect())),
        ("z".into(), Column::Numbers((0..rows).map(|row| (random(row, 3) * 100.0).floor()).collect())),
        (
            "category".into(),
            Column::texts((0..rows).map(|row| (random(row, 4) > 0.05).then(|| names[level(row)].as_str()))),
        ),
    ])
    .unwrap();
    let score = |row: usize| {
        let of_x = if missing(row) { 1.5 } else { x(row) };
        of_x + f64::from(u8::from(level(row) % 3 == 1)) * 2.0 + random(row, 3) + random(row, 5) * 2.0
    };
    let label = |row: usize| match classes {
        0 => score(row) * 1000.0,
        _ => ((score(row) + 2.0) / 7.0 * classes as f64).floor().clamp(0.0, classes as f64 - 1.0),
    };
    let task = match classes {
        0 => Task::Number,
        _ => Task::Classes((0..classes).map(|class| format!("class {class}")).collect()),
    };
    let declared = [("x", Encode::Number), ("z", Encode::Number), ("category", Encode::Category)]
        .map(|(column, encode)| Declared { column: column.into(), encode });
    let encoding = Encoding::compile(&declared, &frame).unwrap();
    let features = encoding.encode(&frame).unwrap();
    let keys = (0..rows).map(|row| draw(1, Purpose::Trials, 9, row as u64)).collect();
    Rows { frame, encoding, features, labels: (0..rows).map(label).collect(), task, keys }
}

impl Rows {
    pub fn training(&self, seed: u64, threads: usize) -> Training<'_> {
        Training {
            features: &self.features,
            labels: &self.labels,
            task: &self.task,
            row_keys: &self.keys,
            fold: &Fold::Rows,
            seed,
            threads,
            warm: None,
        }
    }

    pub fn learn_with(
        &self,
        name: &str,
        parameters: Value,
        threads: usize,
        checkpoint: Option<&[u8]>,
        control: &mut dyn Control,
    ) -> Result<Learned, LearnError> {
        let learner = learner(name)?;
        let given: Map<String, Value> = serde_json::from_value(parameters).unwrap();
        let complete = learner.parameters(&given)?;
        learner.learn(&self.training(7, threads), &complete, checkpoint, control)
    }

    pub fn learn(&self, name: &str, parameters: Value) -> Learned {
        self.learn_with(name, parameters, 1, None, &mut Unattended).unwrap()
    }

    pub fn model(&self, learned: Learned) -> Model {
        Model { task: self.task.clone(), encoding: self.encoding.clone(), predictor: learned.predictor }
    }
}

#[test]
fn data_that_nothing_can_be_learned_from_are_refused_with_their_reason() {
    let good = rows(200, 2);
    let learn = |rows: &Rows| {
        rows.learn_with("trees", json!({}), 1, None, &mut Unattended).map(|_| ()).map_err(|error| error.code())
    };
    assert_eq!(learn(&good), Ok(()));
    let mut one_class = rows(200, 2);
    one_class.labels.fill(1.0);
    assert_eq!(learn(&one_class), Err("ONE_CLASS"));
    let mut infinite = rows(200, 0);
    infinite.labels[3] = f64::INFINITY;
    assert_eq!(learn(&infinite), Err("BAD_LABEL"));
    let mut no_class = rows(200, 2);
    no_class.labels[3] = 2.0;
    assert_eq!(learn(&no_class), Err("BAD_LABEL"));
    let mut long_name = rows(200, 2);
    long_name.task = Task::Classes(vec!["x".repeat(5000), "y".into()]);
    assert_eq!(learn(&long_name), Err("TOO_LARGE"));
    let mut short = rows(200, 2);
    short.keys.pop();
    assert_eq!(learn(&short), Err("BAD_DATASET"));
    let mut constant = rows(200, 2);
    for column in &mut constant.features.columns {
        column.values.fill(f32::NAN);
    }
    assert_eq!(learn(&constant), Err("CONSTANT_FEATURES"));
    assert_eq!(learn(&rows(0, 2)), Err("EMPTY_DATASET"));
}

#[test]
fn parameters_that_are_unknown_of_the_wrong_type_or_out_of_range_are_refused_by_name() {
    for (algorithm, parameters, name) in [
        ("trees", json!({"iteration": 3}), "iteration"),
        ("trees", json!({"leaves": 1}), "leaves"),
        ("trees", json!({"learning_rate": "fast"}), "params"),
        ("trees", json!({"patience": 3}), "patience"),
        ("trees", json!({"monotone": {"nowhere": 1}}), "monotone.nowhere"),
        ("trees", json!({"monotone": {"category": 1}}), "monotone.category"),
        ("trees", json!({"class_weights": [1.0]}), "class_weights"),
        ("linear", json!({"l2": -1.0}), "l2"),
    ] {
        let error = rows(100, 2).learn_with(algorithm, parameters, 1, None, &mut Unattended).unwrap_err();
        assert!(matches!(&error, LearnError::Parameter { name: found, .. } if found == name), "{name}: {error}");
    }
    assert_eq!(learner("forest").err().map(|error| error.code()), Some("UNKNOWN_ALGORITHM"));
}

#[test]
fn complete_parameters_are_their_own_completion() {
    for name in ["trees", "linear"] {
        let learner = learner(name).unwrap();
        let complete = learner.parameters(&Map::new()).unwrap();
        assert_eq!(learner.parameters(complete.as_object().unwrap()), Ok(complete));
    }
}

//! Exported models score in onnxruntime as they do here, to 1e-5: on rows at thresholds and beside them, with missing and unseen values.

use std::path::Path;
use std::process::Command;

use hokusai::ml::encoding::{Declared, Encode, Encoding, Features};
use hokusai::ml::frame::{Column, Frame};
use hokusai::ml::model::{Model, Predictor};
use hokusai::ml::random::{Purpose, draw, uniform};
use hokusai::ml::tree::Test;
use hokusai::ml::{Task, Training, Unattended, learner};
use serde_json::{Value, json};

use crate::support::hokusai::{command, finish};
use crate::support::{cache, root, skip};

const ROWS: usize = 3000;

fn at(row: usize, what: u32) -> f64 {
    uniform(5, Purpose::Trials, what, row as u64)
}

/// A number (a tenth missing), a wide number, two categories, one of them long and with missing values.
fn frame() -> Frame {
    let levels: Vec<String> = (0..60).map(|level| format!("level {level:02}")).collect();
    let level = |row: usize, what, count: f64| Some(levels[(at(row, what) * count) as usize].as_str());
    let some = |row: usize, what| at(row, what) > 0.1;
    Frame::new(vec![
        ("x".into(), Column::Numbers((0..ROWS).map(|row| if some(row, 0) { at(row, 1) } else { f64::NAN }).collect())),
        ("year".into(), Column::Numbers((0..ROWS).map(|row| (1950.0 + at(row, 2) * 70.0).floor()).collect())),
        ("short".into(), Column::texts((0..ROWS).map(|row| level(row, 3, 4.0)))),
        ("long".into(), Column::texts((0..ROWS).map(|row| level(row, 4, 60.0).filter(|_| some(row, 5))))),
    ])
    .unwrap()
}

fn score(row: usize) -> f64 {
    let of_long = f64::from(u8::from((at(row, 4) * 60.0) as usize % 7 < 3));
    (if at(row, 0) > 0.1 { at(row, 1) } else { 0.7 }) + of_long + at(row, 2) + at(row, 6) * 0.5
}

fn model(algorithm: &str, parameters: &Value, classes: usize) -> (Model, Features) {
    let raw = frame();
    let declared =
        [("x", Encode::Number), ("year", Encode::Number), ("short", Encode::Category), ("long", Encode::Category)]
            .map(|(column, encode)| Declared { column: column.into(), encode });
    let encoding = Encoding::compile(&declared, &raw).unwrap();
    let features = encoding.encode(&raw).unwrap();
    let (task, labels): (Task, Vec<f64>) = match classes {
        0 => (Task::Number, (0..ROWS).map(|row| score(row) * 100.0).collect()),
        n => (
            Task::Classes((0..n).map(|class| format!("class {class}")).collect()),
            (0..ROWS).map(|row| (score(row) / 3.6 * n as f64).floor()).collect(),
        ),
    };
    let row_keys: Vec<u64> = (0..ROWS as u64).map(|row| draw(1, Purpose::Trials, 0, row)).collect();
    let training = Training {
        features: &features,
        labels: &labels,
        task: &task,
        row_keys: &row_keys,
        fold: &hokusai::ml::fold::Fold::Rows,
        seed: 1,
        threads: 1,
        warm: None,
    };
    let learner = learner(algorithm).unwrap();
    let parameters = learner.parameters(parameters.as_object().unwrap()).unwrap();
    let learned = learner.learn(&training, &parameters, None, &mut Unattended).unwrap();
    (Model { task, encoding, predictor: learned.predictor }, features)
}

/// Rows at every threshold and right beside it; rows with one value missing or of a level never seen.
fn troublesome(model: &Model, features: &mut Features) {
    let own = |row: usize| features.columns.iter().map(|column| column.values[row]).collect::<Vec<f32>>();
    let mut rows = Vec::new();
    if let Predictor::Trees(forest) = &model.predictor {
        for (i, node) in forest.trees.iter().flat_map(|tree| &tree.nodes).enumerate() {
            let Test::AtMost(threshold) = node.test else { continue };
            for value in [threshold, threshold.next_up(), threshold.next_down()] {
                let mut row = own(i % ROWS);
                row[usize::from(node.feature)] = value;
                rows.push(row);
            }
        }
    }
    for i in 0..200 {
        let (mut missing, mut unseen) = (own(i), own(i));
        missing[i % 4] = f32::NAN;
        unseen[2 + i % 2] = f32::from(features.columns[2 + i % 2].codes - 1);
        rows.extend([missing, unseen]);
    }
    rows.push(vec![f32::NAN; 4]);
    for (i, column) in features.columns.iter_mut().enumerate() {
        column.values.extend(rows.iter().map(|row| row[i]));
    }
    features.rows += rows.len();
}

fn export(folder: &Path, name: &str, (model, mut features): (Model, Features)) {
    troublesome(&model, &mut features);
    let expected = model.predictor.predictions(&features, &model.task).unwrap();
    let cells = (0..features.rows).flat_map(|row| features.columns.iter().map(move |column| column.values[row]));
    let cells: Vec<u8> = cells.flat_map(f32::to_le_bytes).collect();
    // Through the command: what it writes is what is compared.
    let (native, onnx) = (folder.join(format!("{name}.hkml")), folder.join(format!("{name}.onnx")));
    std::fs::write(&native, model.to_bytes()).unwrap();
    let arguments = ["model", "export", "--artefact", &native.to_string_lossy(), "--onnx", &onnx.to_string_lossy()];
    let exported = finish(command(&arguments));
    assert_eq!(exported.code, Some(0), "{}", exported.err);
    std::fs::write(folder.join(format!("{name}.features")), cells).unwrap();
    let expected: Vec<u8> = expected.into_iter().flat_map(f64::to_le_bytes).collect();
    std::fs::write(folder.join(format!("{name}.expected")), expected).unwrap();
}

#[test]
fn exported_models_score_in_onnxruntime_as_they_do_here() {
    let python = cache().join("python/bin/python");
    let has = |python: &Path| Command::new(python).args(["-c", "import onnxruntime"]).output();
    if !python.exists() || !has(&python).is_ok_and(|output| output.status.success()) {
        return skip("ONNX", "no onnxruntime in the Python environment of the cache (tests/setup.sh makes it)");
    }
    let folder = tempfile::tempdir().unwrap();
    let few = json!({"iterations": 20});
    for classes in [0, 2, 3] {
        export(folder.path(), &format!("trees{classes}"), model("trees", &few, classes));
        export(folder.path(), &format!("linear{classes}"), model("linear", &json!({}), classes));
    }
    // A first tree whose leaves are all positive: runtimes that guess from signs would take log-odds for chances.
    let (mut positive, features) = model("trees", &json!({"iterations": 1}), 2);
    if let Predictor::Trees(forest) = &mut positive.predictor {
        forest.trees[0].leaves.iter_mut().for_each(|leaf| *leaf = leaf.abs());
    }
    export(folder.path(), "positive", (positive, features));
    let output = Command::new(python)
        .arg(root().join("tests/python/onnx_agrees.py"))
        .arg(folder.path())
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let differences: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let differences = differences.as_object().expect("an object");
    assert_eq!(differences.len(), 7, "{differences:?}");
    assert!(differences.values().all(|difference| difference.as_f64().unwrap() < 1e-5), "{differences:?}");
}

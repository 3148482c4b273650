//! Files of scikit-learn, XGBoost and LightGBM with what onnxruntime made of them (`tests/data/onnx/make.py`), files that lie, and ours.

use std::path::PathBuf;

use super::conformance::Conformance;
use super::graph::Program;
use super::import::{ImportError, Imported, import};
use super::proto::{Attribute, Element, Message, doubles, floats, ints, node, value};
use super::{ML, OnnxError};
use crate::ml::Task;
use crate::ml::encoding::{Encoding, Features};
use crate::ml::model::{Model, Predictor};

fn encoding() -> Encoding {
    Encoding::numbers(["a", "b", "c", "d"].map(str::to_owned)).unwrap()
}

fn classes(count: usize) -> Task {
    Task::Classes((0..count).map(|class| class.to_string()).collect())
}

/// Name, task, file and conformance rows of every model that was made elsewhere.
fn files() -> Vec<(String, Task, Vec<u8>, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "onnx"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let task = match name.rsplit_once('_').map_or("", |(_, task)| task) {
            "three" => classes(3),
            "number" => Task::Number,
            _ if name == "linear" => Task::Number,
            _ => classes(2),
        };
        (name, task, std::fs::read(&path).unwrap(), std::fs::read(path.with_extension("csv")).unwrap())
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn models_of_other_programs_give_what_their_runtime_gave_and_survive_the_artefact() {
    let files = files();
    assert_eq!(files.len(), 23);
    for (name, task, onnx, rows) in files {
        let conformance = Conformance::from_csv(&rows, &encoding(), &task).unwrap();
        assert_eq!(conformance.columns[0].len(), 48, "{name}");
        let model = import(&onnx, encoding(), task, &conformance).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(Model::from_bytes(&model.to_bytes()).as_ref(), Ok(&model), "{name}");
        assert_eq!(model.to_onnx(), onnx, "{name}: the file comes back as it was");
    }
}

#[test]
fn a_prediction_that_differs_is_refused_with_the_worst_row() {
    for (name, task, onnx, rows) in files() {
        let mut conformance = Conformance::from_csv(&rows, &encoding(), &task).unwrap();
        let at = 17 * task.outputs();
        conformance.expected[at] += 0.001 * conformance.expected[at].abs().max(1.0);
        let refused = import(&onnx, encoding(), task, &conformance);
        assert!(matches!(refused, Err(ImportError::Differs { row: 18, .. })), "{name}: {refused:?}");
    }
}

#[test]
fn few_rows_missing_columns_and_other_classes_are_refused() {
    let (_, task, onnx, rows) = files().into_iter().find(|file| file.0 == "forest_two").unwrap();
    let few: Vec<u8> = rows.split_inclusive(|&byte| byte == b'\n').take(32).flatten().copied().collect();
    let conformance = Conformance::from_csv(&few, &encoding(), &task).unwrap();
    assert_eq!(import(&onnx, encoding(), task.clone(), &conformance).unwrap_err().code(), "BAD_CONFORMANCE");
    let longer = Encoding::numbers(["a", "b", "c", "z"].map(str::to_owned)).unwrap();
    assert_eq!(Conformance::from_csv(&rows, &longer, &task).unwrap_err().code(), "BAD_CONFORMANCE");
    let others = Task::Classes(vec!["no".into(), "yes".into()]);
    assert!(Program::compile(&onnx, &encoding(), &others).is_ok(), "numbers from 0 are the classes in their order");
    for task in [classes(3), Task::Number] {
        assert_eq!(Program::compile(&onnx, &encoding(), &task).unwrap_err().code(), "UNSUPPORTED_ONNX");
    }
    let narrow = Encoding::numbers(["a", "b"].map(str::to_owned)).unwrap();
    assert!(Program::compile(&onnx, &narrow, &task).unwrap_err().to_string().contains("there are 2 features"));
}

#[test]
fn cut_and_flipped_files_are_refused_or_run() {
    let column = |i: usize| crate::ml::encoding::Encoded { values: vec![i as f32, f32::NAN, -1e30], codes: 0 };
    let features = Features { columns: (0..4).map(column).collect(), names: Vec::new(), rows: 3 };
    for (_, task, onnx, _) in files() {
        for end in (0..onnx.len()).step_by(41) {
            let _ = Imported::of(&onnx[..end], &encoding(), &task);
        }
        for at in (0..onnx.len()).step_by(17) {
            let mut flipped = onnx.clone();
            flipped[at] ^= 1 << (at % 8);
            if let Ok(imported) = Imported::of(&flipped, &encoding(), &task) {
                let _ = imported.predictions(&features, &task);
            }
        }
    }
}

#[test]
fn our_own_export_read_back_predicts_the_same() {
    use crate::ml::tests::rows;
    for (name, count) in [("trees", 2), ("trees", 3), ("trees", 0), ("linear", 2), ("linear", 3), ("linear", 0)] {
        let rows = rows(300, count);
        let parameters = if name == "trees" { serde_json::json!({"iterations": 5}) } else { serde_json::json!({}) };
        let model = rows.model(rows.learn(name, parameters));
        let imported = Imported::of(&model.to_onnx(), &model.encoding, &model.task).unwrap();
        let back = Model { predictor: Predictor::Imported(imported.into()), ..model.clone() };
        let (own, back) = (model.predict(&rows.frame).unwrap(), back.predict(&rows.frame).unwrap());
        // Coefficients are singles in the file: of a number the terms' size counts, not what is left when they cancel out.
        let scale = own.iter().fold(1.0, |most, value| value.abs().max(most));
        let differs = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-5 * scale;
        assert_eq!(own.iter().zip(&back).position(differs), None, "{name} {count}");
    }
}

/// A file with these nodes and constants from `x` [N, 4] to `y`.
fn file(nodes: &[Message], constants: &[Message]) -> Vec<u8> {
    let mut graph = Message::default().message(11, &value("x", Element::Float, Some(4)));
    graph = graph.message(12, &value("y", Element::Float, Some(1)));
    graph = nodes.iter().fold(graph, |graph, node| graph.message(1, node));
    graph = constants.iter().fold(graph, |graph, constant| graph.message(5, constant));
    let opset = Message::default().text(1, "").int(2, 15);
    Message::default().int(1, 8).message(7, &graph).message(8, &opset).0
}

fn refused(bytes: &[u8]) -> String {
    Program::compile(bytes, &encoding(), &Task::Number).unwrap_err().to_string()
}

#[test]
fn graphs_that_unfold_go_in_circles_or_mix_rows_are_refused_by_name() {
    let op = |op: &str, inputs: &[&str], output: &str| node("", op, inputs, &[output], &[]);
    let huge = ints("shape", &[-1, 1 << 40]);
    assert!(refused(&file(&[op("Reshape", &["x", "shape"], "y")], &[huge])).contains("another number of elements"));
    let circle = [op("Add", &["x", "b"], "a"), op("Neg", &["a"], "b"), op("Neg", &["b"], "y")];
    assert!(refused(&file(&circle, &[])).contains("needs what it makes itself"));
    assert!(refused(&file(&[op("Transpose", &["x"], "y")], &[])).contains("only a constant matrix"));
    assert!(refused(&file(&[op("Lstm", &["x"], "y")], &[])).contains("ai.onnx.Lstm (opset 15"));
    assert!(refused(&file(&[], &[])).contains("made by no node"));
    // Each step doubles the row: 4 elements become 2^42.
    let doubled: Vec<Message> = (0..40)
        .map(|i| {
            let (from, to) = (if i == 0 { "x".to_owned() } else { format!("t{i}") }, format!("t{}", i + 1));
            node("", "Concat", &[&from, &from], &[if i == 39 { "y" } else { &to }], &[("axis", Attribute::Int(1))])
        })
        .collect();
    assert!(refused(&file(&doubled, &[])).contains("elements of tensors per row"));
    let few = doubles("few", &[1.0]);
    assert!(refused(&file(&[op("Add", &["x", "few"], "y")], &[few])).contains("different types"));
    let rows = floats("rows", &[1.0, 2.0]);
    let reduced = node("", "ReduceSum", &["x"], &["y"], &[("axes", Attribute::Ints(&[0]))]);
    assert!(refused(&file(&[reduced], &[rows])).contains("mix the rows"));
}

#[test]
fn trees_with_cycles_strangers_and_lists_that_differ_are_refused() {
    let ensemble = |yes: &[i64], no: &[i64], leaf: i64, values: &[f32]| {
        let trees = vec![0; yes.len()];
        let ids: Vec<i64> = (0..yes.len() as i64).collect();
        let modes: Vec<&str> = (0..yes.len()).map(|i| if i as i64 >= leaf { "LEAF" } else { "BRANCH_LEQ" }).collect();
        let attributes = [
            ("nodes_treeids", Attribute::Ints(&trees)),
            ("nodes_nodeids", Attribute::Ints(&ids)),
            ("nodes_featureids", Attribute::Ints(&trees)),
            ("nodes_modes", Attribute::Texts(modes)),
            ("nodes_values", Attribute::Floats(values)),
            ("nodes_truenodeids", Attribute::Ints(yes)),
            ("nodes_falsenodeids", Attribute::Ints(no)),
            ("target_treeids", Attribute::Ints(&[0])),
            ("target_nodeids", Attribute::Ints(&[leaf])),
            ("target_ids", Attribute::Ints(&[0])),
            ("target_weights", Attribute::Floats(&[1.0])),
        ];
        file(&[node(ML, "TreeEnsembleRegressor", &["x"], &["y"], &attributes)], &[])
    };
    let compile = |bytes: &[u8]| Program::compile(bytes, &encoding(), &Task::Number);
    assert!(compile(&ensemble(&[1, 0, 0], &[2, 0, 0], 1, &[0.5; 3])).is_ok());
    for (bytes, problem) in [
        (ensemble(&[1, 0, 0], &[2, 0, 0], 2, &[0.5; 3]), "cycle"),
        (ensemble(&[1, 2, 1, 0], &[3, 3, 3, 0], 3, &[0.5; 4]), "cycle"),
        (ensemble(&[1, 0, 0], &[9, 0, 0], 1, &[0.5; 3]), "leads to no node"),
        (ensemble(&[1, 0, 0], &[2, 0, 0], 1, &[0.5; 2]), "different lengths"),
    ] {
        let error = compile(&bytes).unwrap_err();
        assert!(matches!(error, OnnxError::Node { .. }) && error.to_string().contains(problem), "{error}");
    }
}

//! ONNX, both ways: models of ours as files for other runtimes, and files of other programs as models of ours.
//!
//! | file | holds |
//! |---|---|
//! | this one, [`proto`] | export |
//! | [`wire`], [`read`] | an outsider's bytes → nodes, constants, inputs, outputs; limits first |
//! | [`graph`] | the nodes that the predictions need, checked, in order, constants computed |
//! | [`op`], [`elementwise`], [`shape`], [`dense`], [`ensemble`], [`transform`] | the operators |
//! | [`tensor`] | tensors and the budget of elements and steps |
//! | [`import`], [`conformance`] | a file becomes a model when it gives what its own runtime gave |
//!
//! Export: opset 13 of ai.onnx, opset 3 of ai.onnx.ml, IR version 8.
//!
//! Input `features`, float [N, F]: *encoded* features, as [`Encoding::encode`](crate::ml::encoding::Encoding::encode) gives them; the
//! model's metadata `hokusai.features` says how each is made. Outputs: of a classifier `label` (text [N]) and `probabilities` (float [N, K]), of
//! a regression `prediction` (float [N, 1]).
//!
//! Trees are a TreeEnsembleClassifier or -Regressor. A set of categories is a chain of BRANCH_EQ nodes with one common child, the
//! form that converters of LightGBM use and runtimes know. Runtimes add up in `f32`: agreement is within 1e-5, not to the bit.

pub mod conformance;
pub mod dense;
pub mod elementwise;
pub mod ensemble;
mod error;
pub mod graph;
pub mod import;
pub mod op;
pub mod proto;
pub mod read;
pub mod shape;
pub mod tensor;
pub mod transform;
pub mod wire;

pub use self::error::OnnxError;

#[cfg(test)]
mod tests;

use self::proto::{Attribute, Element, Message, doubles, floats, ints, node, value};
use crate::ml::Task;
use crate::ml::encoding::Kind;
use crate::ml::linear::{Design, Weights};
use crate::ml::model::{Forest, Model, Predictor};
use crate::ml::tree::{Child, Codes, Test, Tree, contains};

const ML: &str = "ai.onnx.ml";
const IR_VERSION: i64 = 8;
/// Operators of `ai.onnx` in an export.
pub const OPSET: i64 = 13;
/// Operators of `ai.onnx.ml` in an export.
pub const ML_OPSET: i64 = 3;

impl Model {
    /// The model as an ONNX `ModelProto`: of an imported model the file that it came as.
    #[must_use]
    pub fn to_onnx(&self) -> Vec<u8> {
        let width = self.encoding.features.len();
        let graph = match &self.predictor {
            Predictor::Trees(forest) => self.trees(forest),
            Predictor::Linear(weights) => self.linear(weights),
            Predictor::Imported(imported) => return imported.bytes().to_vec(),
        };
        let mut graph = graph.text(2, "hokusai").message(11, &value("features", Element::Float, Some(width)));
        graph = match &self.task {
            Task::Number => graph.message(12, &value("prediction", Element::Float, Some(1))),
            Task::Classes(classes) => graph
                .message(12, &value("label", Element::String, None))
                .message(12, &value("probabilities", Element::Float, Some(classes.len()))),
        };
        let opset = |domain: &str, version| Message::default().text(1, domain).int(2, version);
        let metadata = Message::default().text(1, "hokusai.features").text(2, &self.encoding.to_json().to_string());
        Message::default()
            .int(1, IR_VERSION)
            .text(2, "hokusai")
            .message(7, &graph)
            .message(8, &opset("", OPSET))
            .message(8, &opset(ML, ML_OPSET))
            .message(14, &metadata)
            .0
    }

    fn codes(&self) -> Vec<u16> {
        let codes = |kind: &Kind| if let Kind::Category(levels) = kind { levels.len() as u16 + 1 } else { 0 };
        self.encoding.features.iter().map(|feature| codes(&feature.kind)).collect()
    }

    fn trees(&self, forest: &Forest) -> Message {
        let codes = self.codes();
        let outputs = forest.base.len();
        let mut ensemble = Ensemble::default();
        for (i, tree) in forest.trees.iter().enumerate() {
            ensemble.add(i as i64, tree, (i % outputs) as i64, &codes);
        }
        let mut base = forest.base.clone();
        if self.task != Task::Number && outputs == 1 && !ensemble.weights.iter().any(|weight| weight.3 < 0.0) {
            // onnxruntime takes the sum of weights that are all positive for a chance, not for log-odds: one is made negative.
            let constant = Tree { leaves: vec![-1.0], ..Tree::default() };
            ensemble.add(forest.trees.len() as i64, &constant, 0, &codes);
            base[0] += 1.0;
        }
        self.ensemble(&ensemble, &base)
    }

    fn ensemble(&self, e: &Ensemble, base: &[f32]) -> Message {
        let column = |of: fn(&(i64, i64, i64, f32)) -> i64| e.weights.iter().map(of).collect::<Vec<i64>>();
        let (trees, nodes, targets) = (column(|w| w.0), column(|w| w.1), column(|w| w.2));
        let weights: Vec<f32> = e.weights.iter().map(|weight| weight.3).collect();
        let mut attributes = vec![
            ("nodes_treeids", Attribute::Ints(&e.trees)),
            ("nodes_nodeids", Attribute::Ints(&e.nodes)),
            ("nodes_featureids", Attribute::Ints(&e.features)),
            ("nodes_modes", Attribute::Texts(e.modes.clone())),
            ("nodes_values", Attribute::Floats(&e.values)),
            ("nodes_truenodeids", Attribute::Ints(&e.yes)),
            ("nodes_falsenodeids", Attribute::Ints(&e.no)),
            ("nodes_missing_value_tracks_true", Attribute::Ints(&e.missing)),
        ];
        let (op, outputs): (_, &[&str]) = match &self.task {
            Task::Number => {
                attributes.extend([
                    ("n_targets", Attribute::Int(1)),
                    ("target_treeids", Attribute::Ints(&trees)),
                    ("target_nodeids", Attribute::Ints(&nodes)),
                    ("target_ids", Attribute::Ints(&targets)),
                    ("target_weights", Attribute::Floats(&weights)),
                ]);
                ("TreeEnsembleRegressor", &["prediction"])
            }
            Task::Classes(classes) => {
                // Two classes have one score, the second's log-odds; by custom its weights name class 0.
                let transform = if base.len() == 1 { "LOGISTIC" } else { "SOFTMAX" };
                attributes.extend([
                    ("classlabels_strings", Attribute::Texts(classes.iter().map(String::as_str).collect())),
                    ("class_treeids", Attribute::Ints(&trees)),
                    ("class_nodeids", Attribute::Ints(&nodes)),
                    ("class_ids", Attribute::Ints(&targets)),
                    ("class_weights", Attribute::Floats(&weights)),
                    ("post_transform", Attribute::Text(transform)),
                ]);
                ("TreeEnsembleClassifier", &["label", "probabilities"])
            }
        };
        attributes.push(("base_values", Attribute::Floats(base)));
        Message::default().message(1, &node(ML, op, &["features"], outputs, &attributes))
    }

    fn linear(&self, weights: &Weights) -> Message {
        let columns = Columns::of(weights);
        let mut graph = columns.graph();
        let outputs = weights.intercepts.len();
        let mut coefficients: Vec<f32> =
            (0..outputs).flat_map(|output| columns.coefficients(weights, output)).collect();
        let mut intercepts: Vec<f32> = weights.intercepts.iter().map(|&intercept| intercept as f32).collect();
        if let Task::Classes(classes) = &self.task {
            if outputs == 1 {
                coefficients.splice(0..0, std::iter::repeat_n(0.0, coefficients.len()));
                intercepts.insert(0, 0.0);
            }
            let attributes = [
                ("coefficients", Attribute::Floats(&coefficients)),
                ("intercepts", Attribute::Floats(&intercepts)),
                ("classlabels_strings", Attribute::Texts(classes.iter().map(String::as_str).collect())),
                ("post_transform", Attribute::Text("SOFTMAX")),
            ];
            let outputs = ["label", "probabilities"];
            graph = graph.message(1, &node(ML, "LinearClassifier", &["design"], &outputs, &attributes));
        } else {
            let attributes = [
                ("coefficients", Attribute::Floats(&coefficients)),
                ("intercepts", Attribute::Floats(&intercepts)),
                ("targets", Attribute::Int(1)),
            ];
            graph = graph.message(1, &node(ML, "LinearRegressor", &["design"], &["prediction"], &attributes));
        }
        graph
    }
}

/// The attributes of a tree ensemble.
#[derive(Default)]
struct Ensemble {
    trees: Vec<i64>,
    nodes: Vec<i64>,
    features: Vec<i64>,
    modes: Vec<&'static str>,
    values: Vec<f32>,
    yes: Vec<i64>,
    no: Vec<i64>,
    missing: Vec<i64>,
    /// Tree, node, target, weight.
    weights: Vec<(i64, i64, i64, f32)>,
}

/// One node as ONNX has it.
struct Branch {
    feature: i64,
    mode: &'static str,
    value: f32,
    yes: i64,
    no: i64,
    missing_yes: bool,
}

impl Ensemble {
    fn weight(&mut self, tree: i64, node: i64, target: i64, weight: f32) {
        self.weights.push((tree, node, target, weight));
    }

    fn node(&mut self, tree: i64, id: i64, branch: &Branch) {
        self.trees.push(tree);
        self.nodes.push(id);
        self.features.push(branch.feature);
        self.modes.push(branch.mode);
        self.values.push(branch.value);
        self.yes.push(branch.yes);
        self.no.push(branch.no);
        self.missing.push(branch.missing_yes.into());
    }

    /// Our node i is ONNX's node i, our leaf j is n + j; what chains need further comes after the leaves.
    fn add(&mut self, id: i64, tree: &Tree, target: i64, codes: &[u16]) {
        let inner = tree.nodes.len() as i64;
        let mut spare = inner + tree.leaves.len() as i64;
        let place = |child: Child| if child >= 0 { i64::from(child) } else { inner + i64::from(!child) };
        for (i, own) in tree.nodes.iter().enumerate() {
            let (left, right) = (place(own.left), place(own.right));
            let feature = i64::from(own.feature);
            match own.test {
                Test::AtMost(value) => {
                    let branch = Branch {
                        feature,
                        mode: "BRANCH_LEQ",
                        value,
                        yes: left,
                        no: right,
                        missing_yes: own.missing_left,
                    };
                    self.node(id, i as i64, &branch);
                }
                Test::In(set) => {
                    let set = &tree.sets[set as usize];
                    let chain = Chain::of(set, codes[usize::from(own.feature)], (left, right), own.missing_left);
                    spare = self.chain(id, i as i64, feature, &chain, spare);
                }
            }
        }
        for (j, &leaf) in tree.leaves.iter().enumerate() {
            let branch = Branch { feature: 0, mode: "LEAF", value: 0.0, yes: 0, no: 0, missing_yes: false };
            self.node(id, inner + j as i64, &branch);
            self.weight(id, inner + j as i64, target, leaf);
        }
    }

    fn chain(&mut self, tree: i64, first: i64, feature: i64, chain: &Chain, mut spare: i64) -> i64 {
        let (yes, no) = (chain.yes, chain.no);
        if chain.codes.is_empty() {
            // No code is below minus infinity: only missing values may go the other way.
            let value = f32::NEG_INFINITY;
            let branch = Branch { feature, mode: "BRANCH_LEQ", value, yes, no, missing_yes: chain.missing_yes };
            self.node(tree, first, &branch);
            return spare;
        }
        let mut at = first;
        for (position, &code) in chain.codes.iter().enumerate() {
            let last = position + 1 == chain.codes.len();
            let next = if last { no } else { spare };
            let missing_yes = chain.missing_yes && position == 0;
            let value = f32::from(code);
            self.node(tree, at, &Branch { feature, mode: "BRANCH_EQ", value, yes, no: next, missing_yes });
            if !last {
                at = spare;
                spare += 1;
            }
        }
        spare
    }
}

/// A set of codes as a chain of equalities: the codes of the smaller side.
struct Chain {
    codes: Vec<u8>,
    yes: i64,
    no: i64,
    missing_yes: bool,
}

impl Chain {
    fn of(set: &Codes, codes: u16, (left, right): (i64, i64), missing_left: bool) -> Self {
        let (inside, outside): (Vec<u8>, Vec<u8>) = (0..codes.min(255) as u8).partition(|&code| contains(set, code));
        if inside.len() <= outside.len() {
            Self { codes: inside, yes: left, no: right, missing_yes: missing_left }
        } else {
            Self { codes: outside, yes: right, no: left, missing_yes: !missing_left }
        }
    }
}

/// The design matrix's columns in ONNX's order: numbers, which numbers are missing, codes, which codes are missing.
#[derive(Default)]
struct Columns {
    numbers: Vec<i64>,
    means: Vec<f64>,
    scales: Vec<f64>,
    /// Feature and code of each column.
    codes: Vec<(i64, f32)>,
    categories: Vec<i64>,
    /// Position in our order of each of ONNX's columns.
    order: [Vec<usize>; 4],
}

impl Columns {
    fn of(weights: &Weights) -> Self {
        let mut columns = Self::default();
        let mut first = 0;
        for (feature, design) in weights.design.iter().enumerate() {
            let feature = feature as i64;
            match *design {
                Design::Number { mean, scale } => {
                    columns.numbers.push(feature);
                    columns.means.push(mean);
                    columns.scales.push(scale);
                    columns.order[0].push(first);
                    columns.order[1].push(first + 1);
                }
                Design::Category { codes } => {
                    columns.codes.extend((0..codes).map(|code| (feature, f32::from(code))));
                    columns.order[2].extend((0..usize::from(codes)).map(|code| first + code));
                    columns.categories.push(feature);
                    columns.order[3].push(first + usize::from(codes));
                }
            }
            first += design.width();
        }
        columns
    }

    fn coefficients(&self, weights: &Weights, output: usize) -> Vec<f32> {
        let start = output * weights.width();
        self.order.iter().flatten().map(|&at| weights.coefficients[start + at] as f32).collect()
    }

    /// Nodes and constants that make `design` of `features`. Means are subtracted in double precision.
    fn graph(&self) -> Message {
        let mut graph = Message::default();
        let axis = || [("axis", Attribute::Int(1))];
        let to = |element: Element| [("to", Attribute::Int(element as i64))];
        let mut parts = Vec::new();
        let mut push = |message: Message| graph = std::mem::take(&mut graph).message(1, &message);
        if !self.numbers.is_empty() {
            push(node("", "Gather", &["features", "numbers"], &["number"], &axis()));
            push(node("", "Cast", &["number"], &["double"], &to(Element::Double)));
            push(node("", "IsNaN", &["number"], &["unknown"], &[]));
            push(node("", "Where", &["unknown", "means", "double"], &["known"], &[]));
            push(node("", "Sub", &["known", "means"], &["centred"], &[]));
            push(node("", "Div", &["centred", "scales"], &["scaled"], &[]));
            push(node("", "Cast", &["scaled"], &["standard"], &to(Element::Float)));
            push(node("", "Cast", &["unknown"], &["missing"], &to(Element::Float)));
            parts.extend(["standard", "missing"]);
        }
        if !self.categories.is_empty() {
            push(node("", "Gather", &["features", "code_columns"], &["spread"], &axis()));
            push(node("", "Equal", &["spread", "codes"], &["equal"], &[]));
            push(node("", "Cast", &["equal"], &["hot"], &to(Element::Float)));
            push(node("", "Gather", &["features", "categories"], &["category"], &axis()));
            push(node("", "IsNaN", &["category"], &["nameless"], &[]));
            push(node("", "Cast", &["nameless"], &["without"], &to(Element::Float)));
            parts.extend(["hot", "without"]);
        }
        push(node("", "Concat", &parts, &["design"], &axis()));
        if !self.numbers.is_empty() {
            graph = graph.message(5, &ints("numbers", &self.numbers));
            graph = graph.message(5, &doubles("means", &self.means)).message(5, &doubles("scales", &self.scales));
        }
        if !self.categories.is_empty() {
            let (columns, codes): (Vec<i64>, Vec<f32>) = self.codes.iter().copied().unzip();
            graph = graph.message(5, &ints("code_columns", &columns)).message(5, &floats("codes", &codes));
            graph = graph.message(5, &ints("categories", &self.categories));
        }
        graph
    }
}

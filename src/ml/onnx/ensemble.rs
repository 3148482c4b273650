//! TreeEnsembleClassifier and TreeEnsembleRegressor (`ai.onnx.ml` 1 to 4), with the aggregates and transforms that exporters write.
//!
//! Where the specification is silent (two classes of which the leaves name one), this does as onnxruntime does, because that is what
//! exporters are written for.

use std::collections::HashMap;

use super::OnnxError;
use super::read::Node;
use super::tensor::{Budget, Kind, Tensor};
use super::transform::Transform;
use crate::ml::MAX_CLASSES;

/// Most nodes of all trees.
pub const MAX_TREE_NODES: usize = 1 << 20;
/// Most trees.
pub const MAX_TREES: usize = 1 << 16;
/// Most nodes from a root to a leaf.
pub const MAX_DEPTH: u32 = 4096;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Leq,
    Lt,
    Geq,
    Gt,
    Eq,
    Neq,
    Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Branch {
    mode: Mode,
    feature: u32,
    value: f32,
    missing_yes: bool,
    /// Positions of the next nodes; of a leaf its weights' first and end.
    yes: u32,
    no: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// The trees, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    branches: Vec<Branch>,
    roots: Vec<u32>,
    /// Output and weight.
    weights: Vec<(u32, f32)>,
    base: Vec<f32>,
    outputs: usize,
    aggregate: Aggregate,
    transform: Transform,
    classifier: bool,
    /// Leaves name one class of two, and all say "more of it".
    positive: Option<bool>,
    /// Steps for one row.
    work: usize,
    /// Features that are read.
    width: usize,
}

fn wrong<T>(problem: &str) -> Result<T, OnnxError> {
    Err(OnnxError::Problem(problem.to_owned()))
}

fn mode(name: &[u8]) -> Option<Mode> {
    Some(match name {
        b"BRANCH_LEQ" => Mode::Leq,
        b"BRANCH_LT" => Mode::Lt,
        b"BRANCH_GTE" => Mode::Geq,
        b"BRANCH_GT" => Mode::Gt,
        b"BRANCH_EQ" => Mode::Eq,
        b"BRANCH_NEQ" => Mode::Neq,
        b"LEAF" => Mode::Leaf,
        _ => return None,
    })
}

impl Branch {
    fn next(&self, value: f32) -> u32 {
        let yes = match self.mode {
            Mode::Leq => value <= self.value,
            Mode::Lt => value < self.value,
            Mode::Geq => value >= self.value,
            Mode::Gt => value > self.value,
            Mode::Eq => value == self.value,
            Mode::Neq | Mode::Leaf => value != self.value,
        };
        if yes || (self.missing_yes && value.is_nan()) { self.yes } else { self.no }
    }
}

impl Ensemble {
    /// Reads the attributes.
    ///
    /// # Errors
    /// Lists of different lengths, nodes that are not there or twice, cycles, or past a limit.
    pub fn of(node: &Node<'_>, classifier: bool) -> Result<Self, OnnxError> {
        if let Some(doubles) = node.attributes.iter().find(|own| own.name.ends_with("_as_tensor")) {
            return Err(OnnxError::Problem(format!(
                "{} is not read\nhelp: export it with float inputs and weights",
                doubles.name
            )));
        }
        let side = if classifier { "class" } else { "target" };
        let outputs = if classifier {
            node.texts("classlabels_strings").len().max(node.ints("classlabels_int64s").len())
        } else {
            usize::try_from(node.int("n_targets", 1)).unwrap_or(0)
        };
        if !(1..=MAX_CLASSES).contains(&outputs) {
            return Err(OnnxError::Limit { what: "outputs of trees", limit: MAX_CLASSES });
        }
        let aggregate = match node.text("aggregate_function", "SUM") {
            b"SUM" => Aggregate::Sum,
            b"AVERAGE" => Aggregate::Average,
            b"MIN" => Aggregate::Min,
            b"MAX" => Aggregate::Max,
            _ => return wrong("its aggregate_function is unknown"),
        };
        let base = node.floats("base_values").to_vec();
        if base.len() > outputs {
            return wrong("it has more base values than outputs");
        }
        let (mut branches, places, trees) = branches(node)?;
        let weights = weights(node, side, outputs, &mut branches, &places)?;
        let roots = roots(&branches, &trees)?;
        let work = work(&branches, &roots)?;
        let first = weights.first().map(|weight| weight.0);
        let single = classifier && outputs == 2 && weights.iter().all(|weight| Some(weight.0) == first);
        Ok(Self {
            width: branches
                .iter()
                .filter(|own| own.mode != Mode::Leaf)
                .map(|own| own.feature as usize + 1)
                .max()
                .unwrap_or(0),
            positive: single.then(|| weights.iter().all(|weight| weight.1 >= 0.0)),
            transform: Transform::of(node)?,
            branches,
            roots,
            weights,
            base,
            outputs,
            aggregate,
            classifier,
            work,
        })
    }

    /// Scores of a batch [N, F].
    ///
    /// # Errors
    /// A tensor of another form, or past the budget.
    pub fn run(&self, features: &Tensor, budget: &mut Budget) -> Result<Tensor, OnnxError> {
        let &[rows, width] = &features.shape[..] else { return wrong("it reads a tensor [N, F]") };
        if !features.batch || width < self.width.max(1) {
            return wrong("its trees read features that its input does not have");
        }
        if features.kind == Kind::Double {
            return wrong("its input is of doubles\nhelp: export it with float inputs");
        }
        budget.work(self.work.saturating_mul(rows))?;
        let count = budget.tensor(&[rows, self.outputs])?;
        let mut data = Vec::with_capacity(count);
        let mut scores = vec![None; self.outputs];
        for row in features.data.chunks_exact(width.max(1)).take(rows) {
            scores.fill(None);
            for &root in &self.roots {
                self.add(root, row, &mut scores);
            }
            let start = data.len();
            self.finish(&scores, &mut data);
            data[start..].iter_mut().for_each(|value| *value = Kind::Float.round(*value));
        }
        Ok(Tensor { kind: Kind::Float, shape: vec![rows, self.outputs], batch: true, data })
    }

    fn add(&self, root: u32, row: &[f64], scores: &mut [Option<f64>]) {
        let mut at = root as usize;
        while self.branches[at].mode != Mode::Leaf {
            let branch = &self.branches[at];
            at = branch.next(row[branch.feature as usize] as f32) as usize;
        }
        let leaf = &self.branches[at];
        for &(output, weight) in &self.weights[leaf.yes as usize..leaf.no as usize] {
            let (score, weight) = (&mut scores[output as usize], f64::from(weight));
            *score = Some(match (*score, self.aggregate) {
                (None, _) => weight,
                (Some(score), Aggregate::Sum | Aggregate::Average) => score + weight,
                (Some(score), Aggregate::Min) => score.min(weight),
                (Some(score), Aggregate::Max) => score.max(weight),
            });
        }
    }

    fn finish(&self, scores: &[Option<f64>], data: &mut Vec<f64>) {
        let average = if self.aggregate == Aggregate::Average { self.roots.len() as f64 } else { 1.0 };
        let score = |output: usize| scores[output].map(|score| score / average);
        let base = |output: usize| self.base.get(output).map_or(0.0, |&base| f64::from(base));
        if !self.classifier || self.outputs != 2 {
            let start = data.len();
            data.extend((0..self.outputs).map(|output| score(output).unwrap_or(0.0) + base(output)));
            return self.transform.apply(&mut data[start..]);
        }
        let (first, second) = (score(0).unwrap_or(0.0), score(1));
        let pair = match (self.base.len(), second) {
            (2, None) => return self.one(first + base(1), data),
            (_, Some(second)) => [first + base(0), second + base(1)],
            (_, None) => return self.one(first + base(0), data),
        };
        let start = data.len();
        data.extend(pair);
        self.transform.apply(&mut data[start..]);
    }

    /// Both classes from the one score that there is.
    fn one(&self, score: f64, data: &mut Vec<f64>) {
        if self.positive == Some(true) {
            data.extend([1.0 - score, score]);
        } else if self.transform == Transform::Logistic {
            data.extend([-score, score].map(crate::math::logistic));
        } else {
            data.extend([-score, score]);
        }
    }
}

/// Position of a node by tree and number.
type Places = HashMap<(i64, i64), u32>;
/// First and end of a tree's nodes.
type Span = (usize, usize);

/// The nodes, where each stands, and each tree's first and end.
fn branches(node: &Node<'_>) -> Result<(Vec<Branch>, Places, Vec<Span>), OnnxError> {
    let trees = node.ints("nodes_treeids");
    let (ids, features, modes) = (node.ints("nodes_nodeids"), node.ints("nodes_featureids"), node.texts("nodes_modes"));
    let (values, yes, no) =
        (node.floats("nodes_values"), node.ints("nodes_truenodeids"), node.ints("nodes_falsenodeids"));
    let (missing, count) = (node.ints("nodes_missing_value_tracks_true"), trees.len());
    if count > MAX_TREE_NODES {
        return Err(OnnxError::Limit { what: "nodes of trees", limit: MAX_TREE_NODES });
    }
    let lengths = [ids.len(), features.len(), modes.len(), values.len(), yes.len(), no.len()];
    if lengths.iter().any(|&length| length != count) || !(missing.is_empty() || missing.len() == count) {
        return wrong("the lists of its trees' nodes have different lengths");
    }
    let mut places = Places::with_capacity(count);
    let mut spans: Vec<Span> = Vec::new();
    for i in 0..count {
        if places.insert((trees[i], ids[i]), i as u32).is_some() {
            return wrong("a tree has two nodes of one number");
        }
        match spans.last_mut() {
            Some(span) if trees[span.0] == trees[i] => span.1 = i + 1,
            _ => spans.push((i, i + 1)),
        }
    }
    if spans.len() > MAX_TREES {
        return Err(OnnxError::Limit { what: "trees", limit: MAX_TREES });
    }
    let mut branches = Vec::with_capacity(count);
    for i in 0..count {
        let Some(mode) = mode(modes[i]) else { return wrong("one of its nodes_modes is unknown") };
        let place = |id: i64| places.get(&(trees[i], id)).copied();
        let mut branch =
            Branch { mode, feature: 0, value: values[i], missing_yes: missing.get(i) == Some(&1), yes: 0, no: 0 };
        if mode != Mode::Leaf {
            let (Some(yes), Some(no)) = (place(yes[i]), place(no[i])) else {
                return wrong("a branch leads to no node of its tree");
            };
            let feature = u32::try_from(features[i]).ok().filter(|&feature| feature < 1 << 16);
            let Some(feature) = feature else { return wrong("a branch reads a feature that cannot be") };
            (branch.feature, branch.yes, branch.no) = (feature, yes, no);
        }
        branches.push(branch);
    }
    Ok((branches, places, spans))
}

/// The leaves' weights, grouped by leaf in the order of the file.
fn weights(
    node: &Node<'_>,
    side: &str,
    outputs: usize,
    branches: &mut [Branch],
    places: &Places,
) -> Result<Vec<(u32, f32)>, OnnxError> {
    let list = |part: &str| node.ints(&format!("{side}_{part}"));
    let (trees, nodes, targets) = (list("treeids"), list("nodeids"), list("ids"));
    let values = node.floats(&format!("{side}_weights"));
    if [trees.len(), nodes.len(), targets.len()].iter().any(|&length| length != values.len()) {
        return wrong("the lists of its leaves' weights have different lengths");
    }
    let mut own = Vec::with_capacity(values.len());
    for i in 0..values.len() {
        let place = places.get(&(trees[i], nodes[i])).copied();
        let Some(place) = place.filter(|&place| branches[place as usize].mode == Mode::Leaf) else {
            return wrong("a weight belongs to no leaf");
        };
        let target = u32::try_from(targets[i]).ok().filter(|&target| (target as usize) < outputs);
        let Some(target) = target else { return wrong("a weight belongs to no output") };
        if !values[i].is_finite() {
            return wrong("a weight is no finite number");
        }
        own.push((place, target, values[i]));
    }
    own.sort_by_key(|weight| weight.0);
    let mut start = 0;
    for group in own.chunk_by(|a, b| a.0 == b.0) {
        let leaf = &mut branches[group[0].0 as usize];
        (leaf.yes, leaf.no) = (start, start + group.len() as u32);
        start = leaf.no;
    }
    Ok(own.into_iter().map(|(_, target, weight)| (target, weight)).collect())
}

/// Of each tree the one node to which no other leads.
fn roots(branches: &[Branch], trees: &[Span]) -> Result<Vec<u32>, OnnxError> {
    let mut child = vec![false; branches.len()];
    for branch in branches.iter().filter(|branch| branch.mode != Mode::Leaf) {
        child[branch.yes as usize] = true;
        child[branch.no as usize] = true;
    }
    let mut roots = Vec::with_capacity(trees.len());
    for &(first, end) in trees {
        let mut own = (first..end).filter(|&at| !child[at]);
        let (Some(root), None) = (own.next(), own.next()) else { return wrong("a tree has not one root, or a cycle") };
        roots.push(root as u32);
    }
    Ok(roots)
}

/// Steps that one row takes at most; a tree in which a path comes back to itself is refused.
fn work(branches: &[Branch], roots: &[u32]) -> Result<usize, OnnxError> {
    const OPEN: u32 = u32::MAX;
    // 0: not seen; OPEN: on the path; else the longest way to a leaf.
    let mut depths = vec![0u32; branches.len()];
    let (mut total, mut path) = (0usize, Vec::new());
    for &root in roots {
        path.push(root);
        while let Some(&at) = path.last() {
            let branch = &branches[at as usize];
            let both = [branch.yes, branch.no];
            let next = if branch.mode == Mode::Leaf { &both[..0] } else { &both[..] };
            if depths[at as usize] == 0 {
                depths[at as usize] = OPEN;
                if next.iter().any(|&next| depths[next as usize] == OPEN) {
                    return wrong("a tree has a cycle");
                }
                path.extend(next.iter().filter(|&&next| depths[next as usize] == 0));
                continue;
            }
            path.pop();
            if depths[at as usize] == OPEN {
                let below = next.iter().map(|&next| depths[next as usize]).max().unwrap_or(0);
                if below == OPEN {
                    return wrong("a tree has a cycle");
                }
                if below >= MAX_DEPTH {
                    return Err(OnnxError::Limit { what: "depth of a tree", limit: MAX_DEPTH as usize });
                }
                depths[at as usize] = below + 1;
            }
        }
        total += depths[root as usize] as usize + 1;
    }
    Ok(total)
}

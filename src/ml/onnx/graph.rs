//! A graph, checked and compiled: the nodes that the scores need, in an order in which each finds its inputs.
//!
//! Everything that depends on constants alone is computed once. What is left is tried on one row and on two when it is compiled: no
//! shape depends on a row's values, and no operator but the element-wise ones, products and sums sees more than one row, so what
//! works on these works on all.

use std::collections::HashMap;

use super::OnnxError;
use super::op::Op;
use super::read::{self, Declared, MAX_CONSTANTS, Model, Node, Raw};
use super::tensor::{Budget, Kind, MAX_ELEMENTS, Tensor};
use crate::ml::Task;
use crate::ml::encoding::{Encoding, Features};

/// Most rows that are run at once.
const BLOCK: usize = 256;

#[derive(Clone, Debug, PartialEq)]
struct Step {
    op: Op,
    inputs: Vec<Option<usize>>,
    made: usize,
    /// Node, operator and operator set, for errors.
    at: (String, String, i64),
}

#[derive(Clone, Debug, PartialEq)]
enum Input {
    /// All features, [N, F].
    All(usize, Kind),
    /// One feature each, [N, 1].
    Each(Vec<(usize, Kind, usize)>),
}

/// A compiled graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    input: Input,
    /// Constants by slot.
    slots: Vec<Option<Tensor>>,
    steps: Vec<Step>,
    output: usize,
    /// Column of the output for each prediction.
    columns: Vec<usize>,
    width: usize,
    block: usize,
}

fn graph_problem<T>(problem: impl Into<String>) -> Result<T, OnnxError> {
    Err(OnnxError::Unsupported(problem.into()))
}

impl Program {
    /// Reads, checks and compiles a file for these features and this task.
    ///
    /// # Errors
    /// See [`OnnxError`].
    pub fn compile(bytes: &[u8], encoding: &Encoding, task: &Task) -> Result<Self, OnnxError> {
        let model = read::model(bytes)?;
        let mut builder = Builder::of(&model)?;
        let input = builder.input(encoding)?;
        let output = builder.wanted(task)?;
        builder.visit(output)?;
        let labels = builder.labels.clone();
        let Some(&output) = builder.names.get(output) else { return graph_problem("its output is made by no node") };
        let mut program = Self {
            input,
            slots: builder.slots,
            steps: builder.steps,
            output,
            columns: Vec::new(),
            width: encoding.features.len(),
            block: 1,
        };
        program.fold()?;
        let columns = vec![vec![0f32; 2]; program.width];
        let (one, taken) = program.run(&columns, 0, 1)?;
        program.block = (MAX_ELEMENTS / taken.max(1)).clamp(1, BLOCK);
        program.columns = chosen(&one, task, labels.as_deref())?;
        let (two, _) = program.run(&columns, 0, 2)?;
        let rows = (one.inner() == two.inner(), one.data.len() * 2 == two.data.len());
        if rows == (true, true) { Ok(program) } else { graph_problem("its output mixes rows") }
    }

    /// Computes what depends on constants alone.
    fn fold(&mut self) -> Result<(), OnnxError> {
        let mut budget = Budget::rows(1);
        let mut left = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            let inputs: Vec<Option<&Tensor>> =
                step.inputs.iter().map(|slot| slot.and_then(|slot| self.slots[slot].as_ref())).collect();
            if step.inputs.iter().zip(&inputs).all(|(slot, found)| slot.is_some() == found.is_some()) {
                let made = step.op.run(&inputs, &mut budget).map_err(|error| step.located(error))?;
                self.slots[step.made] = Some(made);
            } else {
                left.push(step);
            }
        }
        self.steps = left;
        Ok(())
    }

    /// The output for rows `first` to `first + rows`, and how many elements that took.
    fn run(&self, columns: &[Vec<f32>], first: usize, rows: usize) -> Result<(Tensor, usize), OnnxError> {
        let mut budget = Budget::rows(rows);
        let mut made: Vec<Option<Tensor>> = vec![None; self.slots.len()];
        let value = |column: usize, row: usize| columns.get(column).and_then(|own| own.get(first + row)).copied();
        let one = |kind: Kind, of: std::ops::Range<usize>| {
            let width = of.len();
            let cells = (0..rows).flat_map(|row| of.clone().map(move |column| (column, row)));
            let data = cells.map(|(column, row)| value(column, row).unwrap_or(f32::NAN).into()).collect();
            Tensor { kind, shape: vec![rows, width], batch: true, data }
        };
        budget.tensor(&[rows, self.width])?;
        match &self.input {
            Input::All(slot, kind) => made[*slot] = Some(one(*kind, 0..self.width)),
            Input::Each(all) => {
                all.iter().for_each(|&(slot, kind, column)| made[slot] = Some(one(kind, column..column + 1)));
            }
        }
        for step in &self.steps {
            let slot = |slot: usize| made[slot].as_ref().or(self.slots[slot].as_ref());
            let inputs: Vec<Option<&Tensor>> = step.inputs.iter().map(|at| at.and_then(slot)).collect();
            let result = step.op.run(&inputs, &mut budget).map_err(|error| step.located(error))?;
            made[step.made] = Some(result);
        }
        let taken = budget.taken(rows);
        match made[self.output].take() {
            Some(output) if output.batch => Ok((output, taken)),
            _ => graph_problem("its output does not depend on the features"),
        }
    }

    /// What it gives for encoded features, row-major: as many numbers per row as the task has outputs, unchecked.
    ///
    /// # Errors
    /// Features of another number than it was compiled for.
    pub fn outputs(&self, features: &Features) -> Result<Vec<f64>, OnnxError> {
        if features.columns.len() != self.width {
            return graph_problem("it was given another number of features");
        }
        let mut out = Vec::with_capacity(features.rows * self.columns.len());
        let mut block: Vec<Vec<f32>> = vec![Vec::new(); self.width];
        for first in (0..features.rows).step_by(self.block) {
            let rows = self.block.min(features.rows - first);
            for (own, column) in block.iter_mut().zip(&features.columns) {
                own.clear();
                own.extend_from_slice(column.values.get(first..first + rows).unwrap_or_default());
            }
            let (made, _) = self.run(&block, 0, rows)?;
            for row in made.data.chunks_exact(made.width().max(1)) {
                out.extend(self.columns.iter().map(|&column| row.get(column).copied().unwrap_or(f64::NAN)));
            }
        }
        Ok(out)
    }
}

impl Step {
    fn located(&self, error: OnnxError) -> OnnxError {
        let (node, op, opset) = self.at.clone();
        match error {
            OnnxError::Problem(problem) => OnnxError::Node { node, op, opset, problem },
            error => error,
        }
    }
}

/// Which columns of the output are the predictions.
fn chosen(output: &Tensor, task: &Task, labels: Option<&[String]>) -> Result<Vec<usize>, OnnxError> {
    let width = output.width();
    let Task::Classes(classes) = task else {
        return if width == 1 {
            Ok(vec![0])
        } else {
            graph_problem(format!("a number is wanted, and its output has {width} columns"))
        };
    };
    if width == 1 && classes.len() == 2 {
        return Ok(vec![0]);
    }
    if width != classes.len() {
        return graph_problem(format!(
            "its output has {width} columns, and the contract's label {} classes",
            classes.len()
        ));
    }
    let numbered = |labels: &[String]| labels.iter().enumerate().all(|(i, label)| *label == i.to_string());
    let places: Vec<usize> = match labels {
        Some(labels) if labels.len() == width => {
            let own: Option<Vec<usize>> =
                classes.iter().map(|class| labels.iter().position(|label| label == class)).collect();
            match own {
                Some(own) => own,
                None if numbered(labels) => (0..width).collect(),
                None => {
                    return graph_problem(format!(
                        "its classes are {}, those of the contract {}\nhelp: train it on the labels as the contract has them, or on \
                         their numbers from 0 in this order",
                        labels.join(", "),
                        classes.join(", ")
                    ));
                }
            }
        }
        _ => (0..width).collect(),
    };
    Ok(if width == 2 { places[1..].to_vec() } else { places })
}

struct Builder<'m, 'a> {
    model: &'m Model<'a>,
    /// Nodes by what they make: node and output.
    makers: HashMap<&'a str, (usize, usize)>,
    constants: HashMap<&'a str, &'m Raw<'a>>,
    /// Slots by name.
    names: HashMap<&'a str, usize>,
    slots: Vec<Option<Tensor>>,
    steps: Vec<Step>,
    /// Elements that constants may still have.
    left: usize,
    /// Class labels of the last classifier or ZipMap on the way.
    labels: Option<Vec<String>>,
}

impl<'m, 'a> Builder<'m, 'a> {
    fn of(model: &'m Model<'a>) -> Result<Self, OnnxError> {
        let mut makers = HashMap::new();
        for (n, node) in model.graph.nodes.iter().enumerate() {
            for (o, name) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                if makers.insert(*name, (n, o)).is_some() {
                    return Err(OnnxError::Form(format!("two nodes make {name}")));
                }
            }
        }
        let constants = model.graph.constants.iter().map(|own| (own.name, own)).collect();
        let (names, slots, steps, left) = (HashMap::new(), Vec::new(), Vec::new(), MAX_CONSTANTS);
        Ok(Self { model, makers, constants, names, slots, steps, left, labels: None })
    }

    fn slot(&mut self, name: &'a str, tensor: Option<Tensor>) -> usize {
        self.slots.push(tensor);
        self.names.insert(name, self.slots.len() - 1);
        self.slots.len() - 1
    }

    fn input(&mut self, encoding: &Encoding) -> Result<Input, OnnxError> {
        let inputs: Vec<&Declared<'a>> =
            self.model.graph.inputs.iter().filter(|own| !self.constants.contains_key(own.name)).collect();
        let width = encoding.features.len();
        let kind = |own: &Declared<'_>| match own.element.and_then(Kind::of) {
            Some(kind @ (Kind::Float | Kind::Double)) => Ok(kind),
            _ => graph_problem(format!(
                "its input {} is not of floats\nhelp: export it with float inputs: features are encoded as floats, and missing is NaN",
                own.name
            )),
        };
        let columns = |own: &Declared<'_>| own.shape.get(1).copied().flatten();
        if let [own] = inputs[..]
            && (width != 1 || own.shape.len() == 2)
        {
            let kind = kind(own)?;
            if own.shape.len() != 2 || columns(own).is_some_and(|size| size != width as i64) {
                let size = columns(own).map_or_else(|| "?".to_owned(), |size| size.to_string());
                return graph_problem(format!(
                    "its input {} is [N, {size}], and there are {width} features\nhelp: name the features that it was trained on, in \
                     its order",
                    own.name
                ));
            }
            return Ok(Input::All(self.slot(own.name, None), kind));
        }
        let names: Vec<String> = encoding.features.iter().map(crate::ml::encoding::Feature::name).collect();
        let mut each = Vec::new();
        for own in inputs {
            let Some(column) = names.iter().position(|name| name == own.name) else {
                return graph_problem(format!("its input {} is none of the features {}", own.name, names.join(", ")));
            };
            let kind = kind(own)?;
            each.push((self.slot(own.name, None), kind, column));
        }
        if each.is_empty() { graph_problem("it has no input") } else { Ok(Input::Each(each)) }
    }

    /// The name of the output that holds the scores.
    fn wanted(&self, task: &Task) -> Result<&'a str, OnnxError> {
        let outputs = &self.model.graph.outputs;
        let floats = |own: &&Declared<'_>| own.sequence || matches!(own.element, Some(1 | 11));
        let scores: Vec<&Declared<'a>> = outputs.iter().filter(floats).collect();
        let likely = |own: &&&Declared<'_>| own.name.to_lowercase().contains("prob");
        match (&scores[..], task) {
            ([only], _) => Ok(only.name),
            (all, Task::Classes(_)) if all.iter().filter(likely).count() == 1 => {
                Ok(all.iter().find(likely).map_or("", |own| own.name))
            }
            _ => {
                let names: Vec<&str> = outputs.iter().map(|own| own.name).collect();
                graph_problem(format!(
                    "which of its outputs {} holds the predictions cannot be told\nhelp: export it with one output of floats, or name \
                     the one of the chances `probabilities`",
                    names.join(", ")
                ))
            }
        }
    }

    /// Slots and steps of everything that `wanted` needs, what is needed first. The path is a list: its length is bounded by the nodes.
    fn visit(&mut self, wanted: &'a str) -> Result<(), OnnxError> {
        let mut open = vec![false; self.model.graph.nodes.len()];
        let mut path = vec![wanted];
        while let Some(&name) = path.last() {
            if self.names.contains_key(name) {
                path.pop();
                continue;
            }
            if let Some(raw) = self.constants.get(name) {
                let tensor = raw.read(&mut self.left)?;
                self.slot(name, Some(tensor));
                continue;
            }
            let Some(&(n, o)) = self.makers.get(name) else {
                return Err(OnnxError::Form(format!("{name} is made by no node")));
            };
            let node = &self.model.graph.nodes[n];
            let missing: Vec<&'a str> =
                needed(node).filter(|input| !input.is_empty() && !self.names.contains_key(input)).collect();
            if missing.is_empty() {
                self.step(node, name, o)?;
            } else if std::mem::replace(&mut open[n], true) {
                return Err(OnnxError::Form(format!("{} needs what it makes itself", node.called())));
            } else {
                path.extend(missing);
            }
        }
        Ok(())
    }

    fn step(&mut self, node: &'m Node<'a>, name: &'a str, output: usize) -> Result<(), OnnxError> {
        let opset = self.model.opsets.iter().find(|own| own.0 == node.domain).map_or(1, |own| own.1);
        let located = |error| match error {
            OnnxError::Problem(problem) => {
                OnnxError::Node { node: node.called(), op: node.op.to_owned(), opset, problem }
            }
            error => error,
        };
        if (node.domain, node.op) == ("", "Constant") {
            let tensor = constant_of(node, &mut self.left).map_err(located)?;
            self.slot(name, Some(tensor));
            return Ok(());
        }
        let Some(op) = Op::of(node, opset).map_err(located)? else {
            let domain = if node.domain.is_empty() { "ai.onnx" } else { node.domain };
            let (domain, op, node) = (domain.to_owned(), node.op.to_owned(), node.called());
            return Err(OnnxError::Operator { domain, op, opset, node });
        };
        if output != Op::output(node) {
            return Err(located(OnnxError::Problem(format!(
                "its output {output} is not made here, and the predictions need it"
            ))));
        }
        self.label(node);
        let inputs = needed(node).map(|input| self.names.get(input).copied()).collect();
        let made = self.slot(name, None);
        self.steps.push(Step { op, inputs, made, at: (node.called(), node.op.to_owned(), opset) });
        Ok(())
    }

    fn label(&mut self, node: &Node<'_>) {
        let texts = node.texts("classlabels_strings").iter().map(|text| String::from_utf8_lossy(text).into_owned());
        let numbers = ["classlabels_int64s", "classlabels_ints"].iter().flat_map(|name| node.ints(name));
        let labels: Vec<String> = texts.chain(numbers.map(i64::to_string)).collect();
        if !labels.is_empty() {
            self.labels = Some(labels);
        }
    }
}

/// The inputs that are computed with: Dropout's ratio and the like mean nothing when a model is run.
fn needed<'a>(node: &Node<'a>) -> impl Iterator<Item = &'a str> {
    let most = if node.op == "Dropout" { 1 } else { usize::MAX };
    node.inputs.iter().copied().take(most).collect::<Vec<_>>().into_iter()
}

fn constant_of(node: &Node<'_>, left: &mut usize) -> Result<Tensor, OnnxError> {
    if let Some(raw) = node.tensor("value") {
        return raw.read(left);
    }
    let floats = || node.floats("value_floats").iter().map(|&own| own.into()).collect::<Vec<f64>>();
    let ints = || node.ints("value_ints").iter().map(|&own| Kind::Int.round(own as f64)).collect::<Vec<f64>>();
    if node.has("value_float") {
        Ok(Tensor::constant(Kind::Float, Vec::new(), vec![node.float("value_float", 0.0).into()]))
    } else if node.has("value_int") {
        Ok(Tensor::constant(Kind::Int, Vec::new(), vec![node.int("value_int", 0) as f64]))
    } else if node.has("value_floats") {
        Ok(Tensor::constant(Kind::Float, vec![floats().len()], floats()))
    } else if node.has("value_ints") {
        Ok(Tensor::constant(Kind::Int, vec![ints().len()], ints()))
    } else {
        Err(OnnxError::Problem("it is a constant of another kind than numbers".to_owned()))
    }
}

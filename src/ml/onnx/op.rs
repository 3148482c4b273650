//! The operators that are run, by name, and what their nodes' attributes say.

use super::OnnxError;
use super::dense::{Norm, Reduce, Rows, product, soft, transposed};
use super::elementwise::{Binary, Unary, choose};
use super::ensemble::Ensemble;
use super::read::Node;
use super::shape::{concat, constant, flatten, gather, reshape, slice, squeeze, unsqueeze};
use super::tensor::{Budget, Kind, Tensor};
use super::transform::Transform;

/// An operator with its attributes, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Element-wise, one input.
    Unary(Unary),
    /// Element-wise, two or more inputs of which each is joined to the ones before.
    Binary(Binary),
    /// Where.
    Where,
    /// Clip: least and largest; inputs come before attributes.
    Clip(f64, f64),
    /// MatMul.
    MatMul,
    /// Gemm: transposed A, transposed B, alpha, beta.
    Gemm(bool, bool, f64, f64),
    /// Transpose of a constant matrix.
    Transpose,
    /// BatchNormalization with this epsilon.
    BatchNorm(f32),
    /// Softmax or LogSoftmax along an axis.
    Soft(i64, bool),
    /// A reduction along its axes; keeps them.
    Reduce(Reduce, Option<Vec<i64>>, bool),
    /// Reshape.
    Reshape,
    /// Flatten from this axis.
    Flatten(i64),
    /// Squeeze; axes as an attribute.
    Squeeze(Option<Vec<i64>>),
    /// Unsqueeze; axes as an attribute.
    Unsqueeze(Option<Vec<i64>>),
    /// Slice; starts, ends, axes as attributes.
    Slice(Option<[Vec<i64>; 3]>),
    /// Concat along an axis.
    Concat(i64),
    /// Gather along an axis.
    Gather(i64),
    /// Rows of floats.
    Rows(Rows),
    /// Trees.
    Trees(Box<Ensemble>),
}

type Made<T> = Result<T, OnnxError>;

fn wrong<T>(problem: &str) -> Made<T> {
    Err(OnnxError::Problem(problem.to_owned()))
}

impl Op {
    /// The operator of a node; none of a name that is not run. `opset` is its domain's version.
    ///
    /// # Errors
    /// Attributes that make no operator.
    pub fn of(node: &Node<'_>, opset: i64) -> Made<Option<Self>> {
        match node.domain {
            "" => Self::of_core(node, opset),
            "ai.onnx.ml" => Self::of_ml(node),
            _ => Ok(None),
        }
    }

    fn of_core(node: &Node<'_>, opset: i64) -> Made<Option<Self>> {
        if let Some(unary) = unary(node)? {
            return Ok(Some(Self::Unary(unary)));
        }
        if let Some(binary) = binary(node.op) {
            return Ok(Some(Self::Binary(binary)));
        }
        let ints = |name| node.has(name).then(|| node.ints(name).to_vec());
        let last = if opset >= 13 { -1 } else { 1 };
        Ok(Some(match node.op {
            "Where" => Self::Where,
            "Clip" => Self::Clip(node.float("min", f32::NEG_INFINITY).into(), node.float("max", f32::INFINITY).into()),
            "MatMul" => Self::MatMul,
            "Gemm" => {
                let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
                Self::Gemm(node.int("transA", 0) != 0, node.int("transB", 0) != 0, alpha.into(), beta.into())
            }
            "Transpose" => Self::Transpose,
            "BatchNormalization" => Self::BatchNorm(node.float("epsilon", 1e-5)),
            "Softmax" => Self::Soft(node.int("axis", last), false),
            "LogSoftmax" => Self::Soft(node.int("axis", last), true),
            "ReduceSum" => Self::reduce(Reduce::Sum, node),
            "ReduceMean" => Self::reduce(Reduce::Mean, node),
            "ReduceMax" => Self::reduce(Reduce::Max, node),
            "ReduceMin" => Self::reduce(Reduce::Min, node),
            "ArgMax" => Self::Reduce(Reduce::ArgMax, Some(vec![node.int("axis", 0)]), node.int("keepdims", 1) != 0),
            "Reshape" => Self::Reshape,
            "Flatten" => Self::Flatten(node.int("axis", 1)),
            "Squeeze" => Self::Squeeze(ints("axes")),
            "Unsqueeze" => Self::Unsqueeze(ints("axes")),
            "Slice" => Self::Slice(ints("starts").map(|starts| {
                let axes = ints("axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
                [starts, ints("ends").unwrap_or_default(), axes]
            })),
            "Concat" => Self::Concat(node.int("axis", 0)),
            "Gather" => Self::Gather(node.int("axis", 0)),
            _ => return Ok(None),
        }))
    }

    fn reduce(reduce: Reduce, node: &Node<'_>) -> Self {
        Self::Reduce(reduce, node.has("axes").then(|| node.ints("axes").to_vec()), node.int("keepdims", 1) != 0)
    }

    fn of_ml(node: &Node<'_>) -> Made<Option<Self>> {
        let floats = |name| node.floats(name).to_vec();
        Ok(Some(match node.op {
            "ZipMap" => Self::Unary(Unary::Identity),
            "FeatureVectorizer" => Self::Concat(1),
            "ArrayFeatureExtractor" => Self::Gather(-1),
            "Scaler" => Self::Rows(Rows::Scaler { offset: floats("offset"), scale: floats("scale") }),
            "Normalizer" => Self::Rows(Rows::Normalizer(match node.text("norm", "MAX") {
                b"MAX" => Norm::Max,
                b"L1" => Norm::L1,
                b"L2" => Norm::L2,
                _ => return wrong("its norm is unknown"),
            })),
            "Imputer" => {
                let replaced = node.float("replaced_value_float", 0.0);
                Self::Rows(Rows::Imputer { values: floats("imputed_value_floats"), replaced })
            }
            "LinearClassifier" => Self::Rows(linear(node, true)?),
            "LinearRegressor" => Self::Rows(linear(node, false)?),
            "TreeEnsembleClassifier" => Self::Trees(Box::new(Ensemble::of(node, true)?)),
            "TreeEnsembleRegressor" => Self::Trees(Box::new(Ensemble::of(node, false)?)),
            _ => return Ok(None),
        }))
    }

    /// Which of its outputs is made: the scores of a classifier, whose label nobody needs.
    #[must_use]
    pub fn output(node: &Node<'_>) -> usize {
        usize::from(matches!((node.domain, node.op), ("ai.onnx.ml", "LinearClassifier" | "TreeEnsembleClassifier")))
    }

    /// Runs it on its inputs; an input that is left out is none.
    ///
    /// # Errors
    /// Inputs that do not fit, or past the budget.
    pub fn run(&self, inputs: &[Option<&Tensor>], budget: &mut Budget) -> Made<Tensor> {
        let input = |at: usize| match inputs.get(at).copied().flatten() {
            Some(tensor) => Ok(tensor),
            None => Err(OnnxError::Problem(format!("its input {at} is missing"))),
        };
        let given = |at: usize| inputs.get(at).copied().flatten();
        let x = input(0)?;
        match self {
            Self::Unary(unary) => unary.run(x, budget),
            Self::Binary(binary) => {
                let mut made = binary.run(x, input(1)?, budget)?;
                for at in 2..inputs.len() {
                    made = binary.run(&made, input(at)?, budget)?;
                }
                Ok(made)
            }
            Self::Where => choose(x, input(1)?, input(2)?, budget),
            Self::Clip(least, most) => clip(x, (given(1), *least), (given(2), *most), budget),
            Self::MatMul => product(x, input(1)?, budget),
            Self::Gemm(first, second, alpha, beta) => {
                gemm(x, input(1)?, given(2), (*first, *second), (*alpha, *beta), budget)
            }
            Self::Transpose => transposed(x, budget),
            Self::BatchNorm(epsilon) => {
                let all = [input(1)?, input(2)?, input(3)?, input(4)?];
                batch_norm(x, all, f64::from(*epsilon), budget)
            }
            Self::Soft(at, logarithm) => soft(x, *at, *logarithm, budget),
            Self::Reduce(reduce, axes, keep) => {
                let axes = axes.clone().map_or_else(|| given(1).map(constant).transpose(), |axes| Ok(Some(axes)))?;
                let Some(&[at]) = axes.as_deref() else { return wrong("it reduces along one axis, which is named") };
                reduce.run(x, at, *keep, budget)
            }
            Self::Reshape => reshape(x, &constant(input(1)?)?, budget),
            Self::Flatten(from) => flatten(x, *from, budget),
            Self::Squeeze(axes) => {
                let axes = axes.clone().map_or_else(|| given(1).map(constant).transpose(), |axes| Ok(Some(axes)))?;
                squeeze(x, axes.as_deref(), budget)
            }
            Self::Unsqueeze(Some(axes)) => unsqueeze(x, axes, budget),
            Self::Unsqueeze(None) => unsqueeze(x, &constant(input(1)?)?, budget),
            Self::Slice(Some([starts, ends, axes])) => slice(x, starts, ends, axes, &[], budget),
            Self::Slice(None) => {
                let (starts, ends) = (constant(input(1)?)?, constant(input(2)?)?);
                let axes = given(3).map_or_else(|| Ok((0..starts.len() as i64).collect()), constant)?;
                let steps = given(4).map_or_else(|| Ok(Vec::new()), constant)?;
                slice(x, &starts, &ends, &axes, &steps, budget)
            }
            Self::Concat(at) => concat(&(0..inputs.len()).map(input).collect::<Made<Vec<_>>>()?, *at, budget),
            Self::Gather(at) => gather(x, input(1)?, *at, budget),
            Self::Rows(rows) => rows.run(x, budget),
            Self::Trees(trees) => trees.run(x, budget),
        }
    }
}

fn unary(node: &Node<'_>) -> Made<Option<Unary>> {
    Ok(Some(match node.op {
        "Cast" => match Kind::of(node.int("to", 0)) {
            Some(kind) => Unary::Cast(kind),
            None => return wrong("it casts to a type that is not computed with"),
        },
        "Identity" | "Dropout" => Unary::Identity,
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "Relu" => Unary::Relu,
        "LeakyRelu" => Unary::LeakyRelu(node.float("alpha", 0.01)),
        "Elu" => Unary::Elu(node.float("alpha", 1.0)),
        "Softplus" => Unary::Softplus,
        "Erf" => Unary::Erf,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Not" => Unary::Not,
        "IsNaN" => Unary::IsNaN,
        _ => return Ok(None),
    }))
}

fn binary(op: &str) -> Option<Binary> {
    Some(match op {
        "Add" | "Sum" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        "Equal" => Binary::Equal,
        "And" => Binary::And,
        "Or" => Binary::Or,
        _ => return None,
    })
}

fn linear(node: &Node<'_>, classifier: bool) -> Made<Rows> {
    let labels = node.texts("classlabels_strings").len().max(node.ints("classlabels_ints").len());
    let (coefficients, intercepts) = (node.floats("coefficients").to_vec(), node.floats("intercepts").to_vec());
    let outputs = if !classifier {
        usize::try_from(node.int("targets", 1)).unwrap_or(0)
    } else if intercepts.is_empty() {
        labels
    } else {
        intercepts.len()
    };
    let transform = Transform::of(node)?;
    let both = classifier && outputs == 1 && labels == 2;
    if outputs == 0
        || !(intercepts.is_empty() || intercepts.len() == outputs)
        || (classifier && !both && outputs != labels)
    {
        return wrong("its intercepts, coefficients and classes differ in number");
    }
    if both && transform != Transform::Logistic {
        return wrong("it has one score for two classes, and no LOGISTIC to make chances of it");
    }
    Ok(Rows::Linear { coefficients, intercepts, outputs, transform, both })
}

fn clip(x: &Tensor, least: (Option<&Tensor>, f64), most: (Option<&Tensor>, f64), budget: &mut Budget) -> Made<Tensor> {
    let bound = |(tensor, plain): (Option<&Tensor>, f64)| match tensor {
        None => Ok(plain),
        Some(Tensor { batch: false, data, .. }) if data.len() == 1 => Ok(data[0]),
        Some(_) => wrong("its bounds are not one constant each"),
    };
    let (least, most) = (bound(least)?, bound(most)?);
    budget.tensor(&x.shape)?;
    Ok(x.clone().map(|x| {
        let x = if x < least { least } else { x };
        if x > most { most } else { x }
    }))
}

fn gemm(
    a: &Tensor,
    b: &Tensor,
    c: Option<&Tensor>,
    (first, second): (bool, bool),
    (alpha, beta): (f64, f64),
    budget: &mut Budget,
) -> Made<Tensor> {
    let (a, b) = (
        if first { transposed(a, budget)? } else { a.clone() },
        if second { transposed(b, budget)? } else { b.clone() },
    );
    let mut made = product(&a, &b, budget)?;
    if alpha != 1.0 {
        made = made.map(|x| x * alpha);
    }
    match c {
        Some(c) if beta != 0.0 => {
            budget.tensor(&c.shape)?;
            Binary::Add.run(&made, &c.clone().map(|x| x * beta), budget)
        }
        _ => Ok(made),
    }
}

/// (x − mean) / √(variance + ε) · scale + shift, per column.
fn batch_norm(
    x: &Tensor,
    [scale, shift, mean, variance]: [&Tensor; 4],
    epsilon: f64,
    budget: &mut Budget,
) -> Made<Tensor> {
    let &[_, width] = &x.shape[..] else { return wrong("it normalises a tensor [N, F]") };
    if [scale, shift, mean, variance].iter().any(|own| own.batch || own.data.len() != width) {
        return wrong("its constants differ in number from the columns");
    }
    budget.tensor(&x.shape)?;
    let mut made = x.clone();
    for row in made.data.chunks_exact_mut(width.max(1)) {
        for (i, x) in row.iter_mut().enumerate() {
            let standard = (*x - mean.data[i]) / crate::math::sqrt(variance.data[i] + epsilon);
            *x = made.kind.round(standard * scale.data[i] + shift.data[i]);
        }
    }
    Ok(made)
}

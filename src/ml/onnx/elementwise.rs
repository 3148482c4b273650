//! Element-wise operators with NumPy's broadcasting, which never reaches across the rows of a batch.

use super::OnnxError;
use super::tensor::{Budget, Kind, Tensor};
use crate::math;

/// Operators of one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// To another type.
    Cast(Kind),
    /// The tensor itself.
    Identity,
    /// −x
    Neg,
    /// |x|
    Abs,
    /// eˣ
    Exp,
    /// ln x
    Log,
    /// √x
    Sqrt,
    /// 1/x
    Reciprocal,
    /// The logistic function.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// max(0, x)
    Relu,
    /// x below 0 times this.
    LeakyRelu(f32),
    /// Below 0 this times eˣ − 1.
    Elu(f32),
    /// ln(1 + eˣ)
    Softplus,
    /// Error function.
    Erf,
    /// Largest whole number up to it.
    Floor,
    /// Smallest whole number from it on.
    Ceil,
    /// Logical not.
    Not,
    /// Whether it is no number.
    IsNaN,
}

/// Operators of two tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Quotient; of integers towards 0.
    Div,
    /// Power.
    Pow,
    /// The smaller one.
    Min,
    /// The larger one.
    Max,
    /// <
    Less,
    /// ≤
    LessOrEqual,
    /// >
    Greater,
    /// ≥
    GreaterOrEqual,
    /// =
    Equal,
    /// Logical and.
    And,
    /// Logical or.
    Or,
}

impl Unary {
    /// Applies it.
    ///
    /// # Errors
    /// Past the budget.
    pub fn run(self, x: &Tensor, budget: &mut Budget) -> Result<Tensor, OnnxError> {
        budget.tensor(&x.shape)?;
        let x = x.clone();
        Ok(match self {
            Self::Identity => x,
            Self::Cast(kind) => Tensor { kind, ..x }.map(|x| x),
            Self::IsNaN => Tensor { kind: Kind::Bool, ..x }.map(|x| f64::from(u8::from(x.is_nan()))),
            Self::Neg => x.map(|x| -x),
            Self::Abs => x.map(f64::abs),
            Self::Exp => x.map(math::exp),
            Self::Log => x.map(math::ln),
            Self::Sqrt => x.map(math::sqrt),
            Self::Reciprocal => x.map(|x| 1.0 / x),
            Self::Sigmoid => x.map(math::logistic),
            Self::Tanh => x.map(libm::tanh),
            Self::Relu => x.map(|x| if x < 0.0 { 0.0 } else { x }),
            Self::LeakyRelu(slope) => x.map(|x| if x < 0.0 { f64::from(slope) * x } else { x }),
            Self::Elu(slope) => x.map(|x| if x < 0.0 { f64::from(slope) * math::expm1(x) } else { x }),
            Self::Softplus => {
                x.map(|x| if x > 0.0 { x + math::ln_1p(math::exp(-x)) } else { math::ln_1p(math::exp(x)) })
            }
            Self::Erf => x.map(libm::erf),
            Self::Floor => x.map(f64::floor),
            Self::Ceil => x.map(f64::ceil),
            Self::Not => x.map(|x| f64::from(u8::from(x == 0.0))),
        })
    }
}

impl Binary {
    /// Of two elements, before rounding to their type.
    pub(super) fn of(self, a: f64, b: f64) -> f64 {
        let truth = |truth: bool| f64::from(u8::from(truth));
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Pow => libm::pow(a, b),
            Self::Min if a.is_nan() || a < b => a,
            Self::Max if a.is_nan() || a > b => a,
            Self::Min | Self::Max => b,
            Self::Less => truth(a < b),
            Self::LessOrEqual => truth(a <= b),
            Self::Greater => truth(a > b),
            Self::GreaterOrEqual => truth(a >= b),
            Self::Equal => truth(a == b),
            Self::And => truth(a != 0.0 && b != 0.0),
            Self::Or => truth(a != 0.0 || b != 0.0),
        }
    }

    fn truth(self) -> bool {
        matches!(
            self,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual | Self::Equal | Self::And | Self::Or
        )
    }

    /// Applies it.
    ///
    /// # Errors
    /// Shapes or types that do not go together, or past the budget.
    pub fn run(self, a: &Tensor, b: &Tensor, budget: &mut Budget) -> Result<Tensor, OnnxError> {
        if a.kind != b.kind && self != Self::Pow {
            return Err(OnnxError::Problem(format!(
                "its inputs are of different types ({:?} and {:?})",
                a.kind, b.kind
            )));
        }
        let kind = if self.truth() { Kind::Bool } else { a.kind };
        let (shape, batch) = broadcast(&[a, b])?;
        let count = budget.tensor(&shape)?;
        let (at_a, at_b) = (Steps::of(a, &shape), Steps::of(b, &shape));
        let value = |i: usize| kind.round(self.of(at_a.value(a, i), at_b.value(b, i)));
        Ok(Tensor { kind, data: (0..count).map(value).collect(), shape, batch })
    }
}

/// Of each element the one of `yes` where `condition` holds, else that of `no`.
///
/// # Errors
/// Shapes or types that do not go together, or past the budget.
pub fn choose(condition: &Tensor, yes: &Tensor, no: &Tensor, budget: &mut Budget) -> Result<Tensor, OnnxError> {
    if yes.kind != no.kind {
        return Err(OnnxError::Problem("its inputs are of different types".to_owned()));
    }
    let (shape, batch) = broadcast(&[condition, yes, no])?;
    let count = budget.tensor(&shape)?;
    let steps = [condition, yes, no].map(|tensor| (tensor, Steps::of(tensor, &shape)));
    let value = |i: usize| {
        let [condition, yes, no] = &steps;
        let (tensor, steps) = if condition.1.value(condition.0, i) == 0.0 { no } else { yes };
        steps.value(tensor, i)
    };
    Ok(Tensor { kind: yes.kind, data: (0..count).map(value).collect(), shape, batch })
}

/// The common shape. A constant may be spread over the rows; rows meet rows only.
fn broadcast(tensors: &[&Tensor]) -> Result<(Vec<usize>, bool), OnnxError> {
    let batch = tensors.iter().any(|tensor| tensor.batch);
    let rank = tensors.iter().map(|tensor| tensor.shape.len()).max().unwrap_or(0);
    let mut shape = vec![1; rank];
    for tensor in tensors {
        if batch
            && (if tensor.batch {
                tensor.shape.len() != rank
            } else {
                tensor.shape.len() == rank && tensor.shape[0] != 1
            })
        {
            return Err(OnnxError::Problem("it would mix the rows of a batch".to_owned()));
        }
        for (own, &size) in shape.iter_mut().rev().zip(tensor.shape.iter().rev()) {
            match (*own, size) {
                (own, size) if own == size || size == 1 => {}
                (1, _) => *own = size,
                (own, size) => return Err(OnnxError::Problem(format!("sizes {own} and {size} do not go together"))),
            }
        }
    }
    Ok((shape, batch))
}

/// Where the element of a broadcast tensor is taken from.
struct Steps {
    /// Size of the common shape and step in the own data, last dimension first.
    dims: Vec<(usize, usize)>,
    same: bool,
}

impl Steps {
    fn of(tensor: &Tensor, shape: &[usize]) -> Self {
        let (mut step, mut dims) = (1, Vec::with_capacity(shape.len()));
        for (i, &size) in shape.iter().rev().enumerate() {
            let own = tensor.shape.len().checked_sub(i + 1).and_then(|at| tensor.shape.get(at)).copied().unwrap_or(1);
            dims.push((size, if own == 1 { 0 } else { step }));
            step *= own;
        }
        Self { dims, same: tensor.shape == shape }
    }

    fn value(&self, tensor: &Tensor, mut i: usize) -> f64 {
        if self.same {
            return tensor.data[i];
        }
        let mut at = 0;
        for &(size, step) in &self.dims {
            at += (i % size) * step;
            i /= size;
        }
        tensor.data[at]
    }
}

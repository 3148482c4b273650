//! Tensors of an imported graph, and the budget that bounds what they may take.
//!
//! Every element is kept as `f64` and rounded to its type after each operation. For the four operations on singles this is IEEE
//! single arithmetic to the bit (53 ≥ 2·24 + 2, Figueroa 1995); sums are rounded once instead of at every step.

use super::OnnxError;

/// Most elements of the tensors of one graph that are made for one row, and of constants that are computed.
pub const MAX_ELEMENTS: usize = 1 << 20;
/// Most elementary steps for one row.
pub const MAX_WORK: usize = 1 << 22;
/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 6;

/// Element types that are computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit float.
    Float,
    /// 64-bit float.
    Double,
    /// 64-bit integer, exact up to 2⁵³; larger ones are rounded.
    Int,
    /// True or false.
    Bool,
}

impl Kind {
    /// The type with this number in `TensorProto.DataType`.
    #[must_use]
    pub fn of(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Float),
            11 => Some(Self::Double),
            6 | 7 => Some(Self::Int),
            9 => Some(Self::Bool),
            _ => None,
        }
    }

    /// A value as this type holds it.
    #[must_use]
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::Float => f64::from(value as f32),
            Self::Double => value,
            Self::Int => value as i64 as f64,
            Self::Bool => f64::from(u8::from(value != 0.0)),
        }
    }
}

/// A tensor, row-major. Of a batch the first dimension is rows and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Type of its elements.
    pub kind: Kind,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Whether the first dimension is the batch's rows; a constant has none.
    pub batch: bool,
    /// Elements.
    pub data: Vec<f64>,
}

/// What a graph may still take.
#[derive(Clone, Debug)]
pub struct Budget {
    elements: usize,
    work: usize,
}

impl Budget {
    /// The budget of so many rows at once.
    #[must_use]
    pub fn rows(rows: usize) -> Self {
        Self { elements: MAX_ELEMENTS.saturating_mul(rows), work: MAX_WORK.saturating_mul(rows) }
    }

    /// Elements that were taken.
    #[must_use]
    pub fn taken(&self, rows: usize) -> usize {
        MAX_ELEMENTS.saturating_mul(rows) - self.elements
    }

    /// Takes the elements of a tensor before it is made; its number of elements.
    ///
    /// # Errors
    /// More than is left.
    pub fn tensor(&mut self, shape: &[usize]) -> Result<usize, OnnxError> {
        if shape.len() > MAX_RANK {
            return Err(OnnxError::Limit { what: "dimensions of a tensor", limit: MAX_RANK });
        }
        let count = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
        let left = count.and_then(|count| self.elements.checked_sub(count));
        let (Some(count), Some(left)) = (count, left) else {
            return Err(OnnxError::Limit { what: "elements of tensors per row", limit: MAX_ELEMENTS });
        };
        self.elements = left;
        self.work(count)?;
        Ok(count)
    }

    /// Takes so many steps.
    ///
    /// # Errors
    /// More than is left.
    pub fn work(&mut self, steps: usize) -> Result<(), OnnxError> {
        let left = self.work.checked_sub(steps);
        self.work = left.ok_or(OnnxError::Limit { what: "steps per row", limit: MAX_WORK })?;
        Ok(())
    }
}

impl Tensor {
    /// A constant.
    #[must_use]
    pub fn constant(kind: Kind, shape: Vec<usize>, data: Vec<f64>) -> Self {
        Self { kind, shape, batch: false, data }
    }

    /// Sizes of one row of a batch.
    #[must_use]
    pub fn inner(&self) -> &[usize] {
        self.shape.get(usize::from(self.batch)..).unwrap_or_default()
    }

    /// Elements of one row of a batch; of a constant all.
    #[must_use]
    pub fn width(&self) -> usize {
        self.inner().iter().product()
    }

    /// Rows of a batch; 1 of a constant.
    #[must_use]
    pub fn rows(&self) -> usize {
        if self.batch { self.shape.first().copied().unwrap_or(0) } else { 1 }
    }

    /// One float of each element.
    #[must_use]
    pub fn map(self, of: impl Fn(f64) -> f64) -> Self {
        let kind = self.kind;
        Self { data: self.data.into_iter().map(|value| kind.round(of(value))).collect(), ..self }
    }
}

//! Products, sums along an axis, and what `ai.onnx.ml` does to whole rows.

use super::OnnxError;
use super::elementwise::Binary;
use super::shape::{around, axis};
use super::tensor::{Budget, Kind, Tensor};
use super::transform::{Transform, softmax};

type Made = Result<Tensor, OnnxError>;

fn wrong<T>(problem: impl Into<String>) -> Result<T, OnnxError> {
    Err(OnnxError::Problem(problem.into()))
}

/// `a` [M, K] times `b` [K, N]; only `a` may be a batch. Sums are in double precision in the order of K, rounded once.
///
/// # Errors
/// Other shapes, or past the budget.
pub fn product(a: &Tensor, b: &Tensor, budget: &mut Budget) -> Made {
    let (&[rows, inner], false, true) = (&a.shape[..], b.batch, a.kind == b.kind) else {
        return wrong("a product is of a batch [N, K] and a constant [K, M] of one type");
    };
    let (shape, columns) = match b.shape[..] {
        [own, columns] if own == inner => (vec![rows, columns], columns),
        [own] if own == inner => (vec![rows], 1),
        _ => return wrong("the sizes of its product do not go together"),
    };
    let count = budget.tensor(&shape)?;
    budget.work(count.saturating_mul(inner))?;
    let mut data = vec![0.0; count];
    if columns > 0 && inner > 0 {
        for (row, sums) in a.data.chunks_exact(inner).zip(data.chunks_exact_mut(columns)) {
            for (&x, line) in row.iter().zip(b.data.chunks_exact(columns)) {
                sums.iter_mut().zip(line).for_each(|(sum, &y)| *sum += x * y);
            }
            sums.iter_mut().for_each(|sum| *sum = a.kind.round(*sum));
        }
    }
    Ok(Tensor { kind: a.kind, shape, batch: a.batch, data })
}

/// A constant matrix with rows and columns exchanged.
///
/// # Errors
/// A batch, or no matrix.
pub fn transposed(x: &Tensor, budget: &mut Budget) -> Made {
    let (&[rows, columns], false) = (&x.shape[..], x.batch) else {
        return wrong("only a constant matrix is transposed");
    };
    budget.tensor(&x.shape)?;
    let data = (0..columns).flat_map(|column| (0..rows).map(move |row| x.data[row * columns + column])).collect();
    Ok(Tensor::constant(x.kind, vec![columns, rows], data))
}

/// What is made of the elements along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Sum.
    Sum,
    /// Mean.
    Mean,
    /// Largest.
    Max,
    /// Smallest.
    Min,
    /// Position of the first largest.
    ArgMax,
}

impl Reduce {
    /// Along one axis; `keep` leaves it as a dimension of 1.
    ///
    /// # Errors
    /// No such axis, no element along it, or past the budget.
    pub fn run(self, x: &Tensor, at: i64, keep: bool, budget: &mut Budget) -> Made {
        let at = axis(x, at)?;
        let (outer, size, after) = around(x, at);
        if size == 0 {
            return wrong("there is nothing along its axis");
        }
        let kind = if self == Self::ArgMax { Kind::Int } else { x.kind };
        let mut shape = x.shape.clone();
        if keep {
            shape[at] = 1;
        } else {
            shape.remove(at);
        }
        budget.work(x.data.len())?;
        let mut data = Vec::with_capacity(budget.tensor(&shape)?);
        for i in 0..outer {
            for j in 0..after {
                let values = (0..size).map(|k| x.data[(i * size + k) * after + j]);
                data.push(kind.round(self.of(values, size)));
            }
        }
        Ok(Tensor { kind, shape, batch: x.batch, data })
    }

    fn of(self, mut values: impl Iterator<Item = f64>, size: usize) -> f64 {
        match self {
            Self::Sum => values.sum(),
            Self::Mean => values.sum::<f64>() / size as f64,
            Self::Max => values.fold(f64::NEG_INFINITY, |a, b| Binary::Max.of(a, b)),
            Self::Min => values.fold(f64::INFINITY, |a, b| Binary::Min.of(a, b)),
            Self::ArgMax => {
                let first = (0, values.next().unwrap_or(0.0));
                values.enumerate().fold(first, |best, (i, own)| if own > best.1 { (i + 1, own) } else { best }).0 as f64
            }
        }
    }
}

/// Softmax, or its logarithm, along an axis.
///
/// # Errors
/// No such axis, or past the budget.
pub fn soft(x: &Tensor, at: i64, logarithm: bool, budget: &mut Budget) -> Made {
    let at = axis(x, at)?;
    let (outer, size, after) = around(x, at);
    budget.tensor(&x.shape)?;
    let mut made = x.clone();
    let mut line = vec![0.0; size];
    for i in 0..outer {
        for j in 0..after {
            let place = |k: usize| (i * size + k) * after + j;
            (0..size).for_each(|k| line[k] = x.data[place(k)]);
            softmax(&mut line, |_| true);
            let value = |p: f64| x.kind.round(if logarithm { crate::math::ln(p) } else { p });
            (0..size).for_each(|k| made.data[place(k)] = value(line[k]));
        }
    }
    Ok(made)
}

/// What `ai.onnx.ml` does to rows of floats.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// (x − offset) · scale, of each column or of all alike.
    Scaler {
        /// Offsets.
        offset: Vec<f32>,
        /// Factors.
        scale: Vec<f32>,
    },
    /// Divided by the largest, the sum of sizes or the Euclidean length; rows of zeros stay.
    Normalizer(Norm),
    /// `replaced` (NaN too) becomes the column's value.
    Imputer {
        /// Of each column, or of all.
        values: Vec<f32>,
        /// What is replaced.
        replaced: f32,
    },
    /// A product with constants, and a transform.
    Linear {
        /// [outputs, columns].
        coefficients: Vec<f32>,
        /// One per output, or none.
        intercepts: Vec<f32>,
        /// Outputs.
        outputs: usize,
        /// What is made of the scores.
        transform: Transform,
        /// One score, from which both classes come.
        both: bool,
    },
}

/// Norms of a Normalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Largest element.
    Max,
    /// Sum of sizes.
    L1,
    /// Euclidean length.
    L2,
}

impl Rows {
    /// Applies it to a batch [N, F]; the result is of floats.
    ///
    /// # Errors
    /// Another shape, or past the budget.
    pub fn run(&self, x: &Tensor, budget: &mut Budget) -> Made {
        let &[rows, width] = &x.shape[..] else { return wrong("it reads a tensor [N, F]") };
        let per = |list: &[f32]| list.len() == 1 || list.len() == width;
        let (fits, columns) = match self {
            Self::Scaler { offset, scale } => (per(offset) && per(scale), width),
            Self::Imputer { values, .. } => (per(values), width),
            Self::Normalizer(_) => (true, width),
            Self::Linear { coefficients, outputs, both, .. } => {
                (outputs.checked_mul(width) == Some(coefficients.len()), if *both { 2 } else { *outputs })
            }
        };
        if !fits || width == 0 {
            return wrong("its lists have another length than its input has columns");
        }
        let shape = vec![rows, columns];
        let mut data = Vec::with_capacity(budget.tensor(&shape)?);
        if let Self::Linear { coefficients, .. } = self {
            budget.work(coefficients.len().saturating_mul(rows))?;
        }
        for row in x.data.chunks_exact(width) {
            let start = data.len();
            self.row(row, &mut data);
            data[start..].iter_mut().for_each(|value| *value = Kind::Float.round(*value));
        }
        Ok(Tensor { kind: Kind::Float, shape, batch: x.batch, data })
    }

    fn row(&self, row: &[f64], data: &mut Vec<f64>) {
        let of = |list: &[f32], i: usize| f64::from(if list.len() == 1 { list[0] } else { list[i] });
        match self {
            Self::Scaler { offset, scale } => {
                data.extend(row.iter().enumerate().map(|(i, x)| Kind::Float.round(x - of(offset, i)) * of(scale, i)));
            }
            Self::Imputer { values, replaced } => {
                let gone = |x: f64| x == f64::from(*replaced) || (replaced.is_nan() && x.is_nan());
                data.extend(row.iter().enumerate().map(|(i, &x)| if gone(x) { of(values, i) } else { x }));
            }
            Self::Normalizer(norm) => {
                let length = match norm {
                    Norm::Max => row.iter().copied().fold(f64::NEG_INFINITY, |a, b| Binary::Max.of(a, b)),
                    Norm::L1 => row.iter().map(|x| x.abs()).sum(),
                    Norm::L2 => crate::math::sqrt(row.iter().map(|x| x * x).sum()),
                };
                data.extend(row.iter().map(|x| if length == 0.0 { *x } else { x / length }));
            }
            Self::Linear { coefficients, intercepts, transform, both, .. } => {
                let start = data.len();
                for (output, line) in coefficients.chunks_exact(row.len()).enumerate() {
                    let intercept = intercepts.get(output).map_or(0.0, |&own| f64::from(own));
                    data.push(row.iter().zip(line).fold(intercept, |sum, (x, &c)| sum + x * f64::from(c)));
                }
                transform.apply(&mut data[start..]);
                if *both {
                    data.insert(start, 1.0 - data[start]);
                }
            }
        }
    }
}

//! Logistic and linear regression: one convex problem each, solved by L-BFGS.
//!
//! Numbers are standardised and a missing one counts as the mean, with a further column that says so; a category has one column per code and
//! one for "missing". With standardised columns the penalty is scikit-learn's with C = 1/`l2` (logistic) or alpha = `l2` (ridge):
//! the intercept is free.

use std::cell::LazyCell;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::math;
use crate::ml::dataset::CODE;
use crate::ml::encoding::{Encoded, Features};
use crate::ml::fold::folds;
use crate::ml::lbfgs::{Path, minimise};
use crate::ml::model::Predictor;
use crate::ml::objective::{Objective, Scored, softmax};
use crate::ml::{Control, LearnError, Learned, Learner, Progress, Task, Training, completed, parameters_of, within};

/// The learner of this name.
pub struct Linear;

/// Most coefficients.
pub const MAX_COEFFICIENTS: usize = 1 << 17;
/// Blocks of rows that are summed one by one; their sums meet in a fixed tree.
const BLOCKS: usize = 64;

/// Hyperparameters with their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// L2 penalty on the coefficients: `l2`/2 · Σ w² beside the sum of the rows' losses.
    pub l2: f64,
    /// Steps at most.
    pub iterations: u32,
    /// The gradient, in the units of the search, at which it ends.
    pub tolerance: f64,
    /// Share of the rows, by their hashes, that only judges.
    pub validation: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { l2: 1.0, iterations: 500, tolerance: 1e-5, validation: 0.0 }
    }
}

/// How a feature becomes columns of the design matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Design {
    /// (x − mean)/scale, 0 if missing; then 1 if missing, else 0.
    Number {
        /// Mean of the rows learned from.
        mean: f64,
        /// Their standard deviation, 1 for a constant.
        scale: f64,
    },
    /// One column per code, the last for "missing".
    Category {
        /// Codes, "other" included.
        codes: u16,
    },
}

impl Design {
    /// Columns of the design matrix.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::Number { .. } => 2,
            Self::Category { codes } => usize::from(codes) + 1,
        }
    }

    fn of(column: &Encoded, rows: &[u32]) -> Self {
        if column.codes > 0 {
            return Self::Category { codes: column.codes };
        }
        let present = rows.iter().map(|&row| f64::from(column.values[row as usize])).filter(|value| value.is_finite());
        let values: Vec<f64> = present.collect();
        let count = values.len().max(1) as f64;
        let mean = math::sum(&values) / count;
        let squares: Vec<f64> = values.iter().map(|value| (value - mean) * (value - mean)).collect();
        let scale = math::sqrt(math::sum(&squares) / count);
        Self::Number { mean, scale: if scale > 0.0 { scale } else { 1.0 } }
    }

    /// Column and value of this feature's only non-zero cell.
    #[inline]
    fn cell(self, value: f32) -> (usize, f64) {
        match self {
            Self::Number { .. } if value.is_nan() => (1, 1.0),
            Self::Number { mean, scale } => {
                // Infinities are far away, not undefined.
                let value = f64::from(value.clamp(f32::MIN, f32::MAX));
                (0, (value - mean) / scale)
            }
            Self::Category { codes } if value.is_nan() => (usize::from(codes), 1.0),
            Self::Category { codes } => ((value as usize).min(usize::from(codes) - 1), 1.0),
        }
    }
}

/// A linear model over encoded features.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Per feature.
    pub design: Vec<Design>,
    /// One per output.
    pub intercepts: Vec<f64>,
    /// Output-major: every output's coefficients in the order of the design's columns.
    pub coefficients: Vec<f64>,
}

impl Weights {
    /// Columns of the design matrix.
    #[must_use]
    pub fn width(&self) -> usize {
        self.design.iter().map(|design| design.width()).sum()
    }

    /// Raw scores, row-major.
    #[must_use]
    pub fn scores(&self, features: &Features) -> Vec<f64> {
        let rows: Vec<u32> = (0..features.rows as u32).collect();
        scores(&self.design, &self.intercepts, &self.coefficients, features, &rows)
    }
}

fn scores(design: &[Design], intercepts: &[f64], weights: &[f64], features: &Features, rows: &[u32]) -> Vec<f64> {
    let (outputs, width) = (intercepts.len(), weights.len() / intercepts.len().max(1));
    let mut scores: Vec<f64> = intercepts.iter().copied().cycle().take(rows.len() * outputs).collect();
    let mut first = 0;
    for (design, column) in design.iter().zip(&features.columns) {
        for (&row, scores) in rows.iter().zip(scores.chunks_exact_mut(outputs)) {
            let (at, value) = design.cell(column.values[row as usize]);
            for (output, score) in scores.iter_mut().enumerate() {
                *score += weights[output * width + first + at] * value;
            }
        }
        first += design.width();
    }
    scores
}

impl Learner for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn parameters(&self, given: &serde_json::Map<String, Value>) -> Result<Value, LearnError> {
        completed(given, Parameters::check)
    }

    fn learn(
        &self,
        training: &Training<'_>,
        parameters: &Value,
        checkpoint: Option<&[u8]>,
        control: &mut dyn Control,
    ) -> Result<Learned, LearnError> {
        training.check()?;
        let parameters = parameters_of(parameters, Parameters::check)?;
        if training.warm.is_some() {
            let problem = "a linear model has one minimum, found from anywhere; help: leave warm_start out".to_owned();
            return Err(LearnError::WarmStart { problem });
        }
        let (learn, judge) = folds(training, parameters.validation);
        if learn.is_empty() {
            return Err(LearnError::Empty);
        }
        let problem = Problem::new(training, &learn, parameters.l2)?;
        let mut cancelled = false;
        let scaled = |at: &[f64]| {
            let (value, gradient) = problem.at(&problem.unscaled(at));
            (value, gradient.iter().zip(&problem.unit).map(|(g, unit)| g * unit).collect())
        };
        let variables = problem.unit.len();
        let run = LazyCell::new(|| run_digest(training, &parameters));
        let path = match checkpoint {
            None => Path::from(vec![0.0; variables]),
            Some(bytes) => Path::from_bytes(bytes, &run, variables, parameters.iterations)
                .map_err(|problem| LearnError::Checkpoint { problem })?,
        };
        let found = minimise(path, parameters.tolerance, parameters.iterations, scaled, |path| {
            let progress = Progress { iteration: path.steps(), of: parameters.iterations, validation_loss: None };
            cancelled = control.after(progress, &|| path.to_bytes(&run)) == ControlFlow::Break(());
            !cancelled
        });
        if cancelled {
            return Err(LearnError::Cancelled { iterations: found.steps });
        }
        let at = problem.unscaled(&found.at);
        let weights = problem.weights(&at);
        let validation_loss = (!judge.is_empty()).then(|| {
            let scores = scores(&weights.design, &weights.intercepts, &weights.coefficients, training.features, &judge);
            let labels: Vec<f64> = judge.iter().map(|&row| training.labels[row as usize]).collect();
            Objective::of(training.task, &[]).loss(Scored { scores: &scores, labels: &labels })
        });
        Ok(Learned { predictor: Predictor::Linear(weights), iterations: found.steps, validation_loss })
    }
}

impl Parameters {
    fn check(&self) -> Result<(), LearnError> {
        within("l2", self.l2, 0.0, 1e12)?;
        within("iterations", self.iterations.into(), 1.0, 10_000.0)?;
        within("tolerance", self.tolerance, 1e-12, 1.0)?;
        within("validation", self.validation, 0.0, 0.9)
    }
}

/// The mean loss plus penalty as a function of intercepts and coefficients (in this order).
struct Problem<'a> {
    training: &'a Training<'a>,
    rows: &'a [u32],
    design: Vec<Design>,
    l2: f64,
    /// Numbers are learned as (label − mean)/scale.
    mean: f64,
    scale: f64,
    /// What one unit of each variable of the search is in intercepts and coefficients: rare columns have small curvature, and the
    /// search is short only if all curvatures are alike. The minimum is the same.
    unit: Vec<f64>,
}

struct Sum {
    loss: f64,
    gradient: Vec<f64>,
}

impl<'a> Problem<'a> {
    fn new(training: &'a Training<'a>, rows: &'a [u32], l2: f64) -> Result<Self, LearnError> {
        let design: Vec<Design> = training.features.columns.iter().map(|column| Design::of(column, rows)).collect();
        let found = design.iter().map(|design| design.width()).sum::<usize>() * training.task.outputs();
        if found > MAX_COEFFICIENTS {
            return Err(LearnError::TooLarge { what: "coefficients", found, limit: MAX_COEFFICIENTS });
        }
        let (mut mean, mut scale) = (0.0, 1.0);
        if *training.task == Task::Number {
            let labels: Vec<f64> = rows.iter().map(|&row| training.labels[row as usize]).collect();
            mean = math::sum(&labels) / labels.len() as f64;
            let squares: Vec<f64> = labels.iter().map(|label| (label - mean) * (label - mean)).collect();
            scale = math::sqrt(math::sum(&squares) / labels.len() as f64).max(f64::MIN_POSITIVE);
        }
        let unit = units(training, &design, rows, l2);
        Ok(Self { training, rows, design, l2, mean, scale, unit })
    }

    fn outputs(&self) -> usize {
        self.training.task.outputs()
    }

    fn unscaled(&self, at: &[f64]) -> Vec<f64> {
        at.iter().zip(&self.unit).map(|(x, unit)| x * unit).collect()
    }

    fn at(&self, at: &[f64]) -> (f64, Vec<f64>) {
        let blocks: Vec<&[u32]> = self.rows.chunks(self.rows.len().div_ceil(BLOCKS).max(1)).collect();
        let share = blocks.len().div_ceil(self.training.threads.max(1)).max(1);
        let sums: Vec<Sum> = std::thread::scope(|scope| {
            let work = |blocks: &[&[u32]]| blocks.iter().map(|rows| self.block(at, rows)).collect::<Vec<Sum>>();
            let workers: Vec<_> = blocks.chunks(share).map(|blocks| scope.spawn(move || work(blocks))).collect();
            workers
                .into_iter()
                .flat_map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let count = self.rows.len() as f64;
        let Sum { loss, gradient } = tree(sums);
        let mut gradient: Vec<f64> = gradient.into_iter().map(|g| g / count).collect();
        let outputs = self.outputs();
        let mut penalties = Vec::with_capacity(at.len());
        for (g, &weight) in gradient.iter_mut().zip(at).skip(outputs) {
            *g += self.l2 * weight / count;
            penalties.push(weight * weight);
        }
        (loss / count + self.l2 / 2.0 * math::sum(&penalties) / count, gradient)
    }

    /// Sums of losses and their gradients over these rows.
    fn block(&self, at: &[f64], rows: &[u32]) -> Sum {
        let outputs = self.outputs();
        let (intercepts, weights) = at.split_at(outputs);
        let features = self.training.features;
        let mut residuals = scores(&self.design, intercepts, weights, features, rows);
        let loss = self.residuals(&mut residuals, rows);
        let mut gradient = vec![0.0; at.len()];
        for row in residuals.chunks_exact(outputs) {
            gradient.iter_mut().zip(row).for_each(|(g, residual)| *g += residual);
        }
        let (width, mut first) = (weights.len() / outputs, outputs);
        for (design, column) in self.design.iter().zip(&features.columns) {
            for (&row, residuals) in rows.iter().zip(residuals.chunks_exact(outputs)) {
                let (cell, value) = design.cell(column.values[row as usize]);
                for (output, residual) in residuals.iter().enumerate() {
                    gradient[first + output * width + cell] += residual * value;
                }
            }
            first += design.width();
        }
        Sum { loss, gradient }
    }

    /// Makes the losses' derivatives of scores in place; gives the sum of the losses.
    fn residuals(&self, scores: &mut [f64], rows: &[u32]) -> f64 {
        let label = |row: u32| self.training.labels[row as usize];
        let outputs = self.outputs();
        let mut losses = Vec::with_capacity(rows.len());
        let mut chances = vec![0.0; outputs];
        for (&row, scores) in rows.iter().zip(scores.chunks_exact_mut(outputs)) {
            match self.training.task {
                Task::Number => {
                    scores[0] -= (label(row) - self.mean) / self.scale;
                    losses.push(scores[0] * scores[0] / 2.0);
                }
                Task::Classes(_) if outputs == 1 => {
                    losses.push(math::softplus(scores[0]) - label(row) * scores[0]);
                    scores[0] = math::logistic(scores[0]) - label(row);
                }
                Task::Classes(_) => {
                    let own = label(row) as usize;
                    softmax(scores, &mut chances);
                    losses.push(-math::ln(chances[own].max(f64::MIN_POSITIVE)));
                    scores.copy_from_slice(&chances);
                    scores[own] -= 1.0;
                }
            }
        }
        math::sum(&losses)
    }

    fn weights(self, at: &[f64]) -> Weights {
        let (intercepts, coefficients) = at.split_at(self.outputs());
        Weights {
            intercepts: intercepts.iter().map(|x| x * self.scale + self.mean).collect(),
            coefficients: coefficients.iter().map(|x| x * self.scale + 0.0).collect(),
            design: self.design,
        }
    }
}

/// What a checkpoint is bound to: features, labels, row keys, parameters, seed.
fn run_digest(training: &Training<'_>, parameters: &Parameters) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("hokusai linear run 1\0{CODE}\0"));
    hash.update(format!("{parameters:?}\0{:?}\0{}\0", training.task, training.seed));
    for label in training.labels {
        hash.update(label.to_bits().to_le_bytes());
    }
    for key in training.row_keys {
        hash.update(key.to_le_bytes());
    }
    training.fold.absorb(&mut hash);
    for column in &training.features.columns {
        hash.update(column.codes.to_le_bytes());
        column.values.iter().for_each(|value| hash.update(value.to_bits().to_le_bytes()));
    }
    hash.finalize().into()
}

/// One over the square root of each variable's curvature where all chances are even.
fn units(training: &Training<'_>, design: &[Design], rows: &[u32], l2: f64) -> Vec<f64> {
    let outputs = training.task.outputs();
    let even = if *training.task == Task::Number { 1.0 } else { 0.25 };
    let count = rows.len() as f64;
    let mut squares = Vec::new();
    for (design, column) in design.iter().zip(&training.features.columns) {
        let first = squares.len();
        squares.resize(first + design.width(), 0.0);
        for &row in rows {
            let (cell, value) = design.cell(column.values[row as usize]);
            squares[first + cell] += value * value;
        }
    }
    let curvature = |square: &f64| 1.0 / math::sqrt((even * square + l2) / count).max(1e-6);
    let coefficients: Vec<f64> = squares.iter().map(curvature).collect();
    let intercepts = std::iter::repeat_n(1.0 / math::sqrt(even), outputs);
    intercepts.chain(coefficients.iter().copied().cycle().take(coefficients.len() * outputs)).collect()
}

/// Adds the blocks' sums pairwise.
fn tree(mut sums: Vec<Sum>) -> Sum {
    while sums.len() > 1 {
        let mut pairs = sums.into_iter();
        let mut next = Vec::new();
        while let Some(mut left) = pairs.next() {
            if let Some(right) = pairs.next() {
                left.loss += right.loss;
                left.gradient.iter_mut().zip(right.gradient).for_each(|(l, r)| *l += r);
            }
            next.push(left);
        }
        sums = next;
    }
    sums.pop().unwrap_or(Sum { loss: 0.0, gradient: Vec::new() })
}

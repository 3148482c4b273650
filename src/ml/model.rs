//! What was learned, and how it scores. Offline scoring and serving are this code.

use std::sync::Arc;

use crate::math;
use crate::ml::Task;
use crate::ml::encoding::{Encoding, EncodingError, Features};
use crate::ml::frame::Frame;
use crate::ml::linear::Weights;
use crate::ml::objective::softmax;
use crate::ml::onnx::import::Imported;
use crate::ml::tree::Tree;

/// Boosted trees: tree i adds to output i modulo the number of outputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forest {
    /// What each output starts from.
    pub base: Vec<f32>,
    /// Trees in the order in which they are added.
    pub trees: Vec<Tree>,
}

/// A model without its encoding: encoded features → raw scores.
#[derive(Clone, Debug, PartialEq)]
pub enum Predictor {
    /// Boosted trees.
    Trees(Forest),
    /// Logistic or linear regression.
    Linear(Weights),
    /// An ONNX model that was made elsewhere.
    Imported(Arc<Imported>),
}

/// A model as it stands in an artefact.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What is predicted.
    pub task: Task,
    /// Raw columns → features.
    pub encoding: Encoding,
    /// Features → raw scores.
    pub predictor: Predictor,
}

/// Rows that are scored together: their features stay in the cache while trees go by.
const BLOCK: usize = 256;

impl Forest {
    /// Raw scores, row-major.
    #[must_use]
    pub fn scores(&self, features: &Features) -> Vec<f64> {
        let (outputs, width) = (self.base.len(), features.columns.len());
        let base: Vec<f64> = self.base.iter().map(|&base| f64::from(base)).collect();
        let mut scores: Vec<f64> = base.iter().copied().cycle().take(features.rows * outputs).collect();
        let mut block = vec![0f32; BLOCK * width];
        for (first, scores) in (0..features.rows).step_by(BLOCK).zip(scores.chunks_mut((BLOCK * outputs).max(1))) {
            let rows = scores.len() / outputs;
            for (f, column) in features.columns.iter().enumerate() {
                let values = &column.values[first..first + rows];
                block.iter_mut().skip(f).step_by(width).zip(values).for_each(|(cell, &value)| *cell = value);
            }
            for (i, tree) in self.trees.iter().enumerate() {
                for (row, score) in scores.iter_mut().skip(i % outputs).step_by(outputs).enumerate() {
                    let row = &block[row * width..row * width + width];
                    *score += f64::from(tree.leaves[tree.leaf(|feature| row[feature])]);
                }
            }
        }
        scores
    }
}

impl Predictor {
    /// Predictions for encoded features, row-major: the chance of the second class, of every class, or the number.
    ///
    /// # Errors
    /// An imported model gives what is no prediction.
    pub fn predictions(&self, features: &Features, task: &Task) -> Result<Vec<f64>, EncodingError> {
        let mut scores = match self {
            Self::Trees(forest) => forest.scores(features),
            Self::Linear(weights) => weights.scores(features),
            Self::Imported(imported) => {
                let unusable = |problem| EncodingError::Unusable { problem };
                return imported.predictions(features, task).map_err(unusable);
            }
        };
        task.predictions(&mut scores);
        Ok(scores)
    }
}

impl Task {
    /// Makes predictions of raw scores in place: the chance of the second class, of every class, or the number itself.
    pub fn predictions(&self, scores: &mut [f64]) {
        match self {
            Self::Number => {}
            Self::Classes(classes) if classes.len() > 2 => {
                let mut chances = vec![0.0; classes.len()];
                for row in scores.chunks_exact_mut(classes.len()) {
                    softmax(row, &mut chances);
                    row.copy_from_slice(&chances);
                }
            }
            Self::Classes(_) => scores.iter_mut().for_each(|score| *score = math::logistic(*score)),
        }
    }
}

impl Model {
    /// Predictions for raw rows, row-major: the chance of the second class, of every class, or the number.
    ///
    /// # Errors
    /// A column is missing or of another kind than declared.
    pub fn predict(&self, frame: &Frame) -> Result<Vec<f64>, EncodingError> {
        self.predictor.predictions(&self.encoding.encode(frame)?, &self.task)
    }
}

//! Post transforms of `ai.onnx.ml`, and the softmax of both domains.

use super::OnnxError;
use super::read::Node;
use crate::math;

/// What is made of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Nothing.
    None,
    /// The logistic function of each.
    Logistic,
    /// Softmax.
    Softmax,
    /// Softmax of those that are not 0.
    SoftmaxZero,
}

impl Transform {
    /// That of a node.
    ///
    /// # Errors
    /// An unknown one, or PROBIT.
    pub fn of(node: &Node<'_>) -> Result<Self, OnnxError> {
        match node.text("post_transform", "NONE") {
            b"NONE" => Ok(Self::None),
            b"LOGISTIC" => Ok(Self::Logistic),
            b"SOFTMAX" => Ok(Self::Softmax),
            b"SOFTMAX_ZERO" => Ok(Self::SoftmaxZero),
            _ => Err(OnnxError::Problem(
                "its post_transform is none of NONE, LOGISTIC, SOFTMAX, SOFTMAX_ZERO".to_owned(),
            )),
        }
    }

    /// Transforms one row of scores.
    pub fn apply(self, scores: &mut [f64]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = math::logistic(*score)),
            Self::Softmax => softmax(scores, |_| true),
            // onnxruntime's bound for a score that counts as 0.
            Self::SoftmaxZero => softmax(scores, |score| score.abs() > 1e-7),
        }
    }
}

/// Softmax of those that count; the others stay as they are times the common factor, as onnxruntime does it.
pub fn softmax(scores: &mut [f64], counts: impl Fn(f64) -> bool) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = if counts(*score) { math::exp(*score - most) } else { *score * math::exp(-most) };
        sum += *score;
    }
    if sum > 0.0 {
        scores.iter_mut().for_each(|score| *score /= sum);
    }
}

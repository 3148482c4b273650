//! Hyperparameters of the trees: names, defaults, limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ml::bins::Cut;
use crate::ml::encoding::Features;
use crate::ml::grow::Order;
use crate::ml::split::Monotone;
use crate::ml::{LearnError, Task, within};

/// Weights of the classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassWeights {
    /// "balanced": in inverse proportion to the rows of each class.
    Named(Balanced),
    /// One weight per class, in canonical order.
    Each(Vec<f64>),
}

/// The one name of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balanced {
    /// In inverse proportion to the rows of each class.
    Balanced,
}

/// Hyperparameters with their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Trees per output at most.
    pub iterations: u32,
    /// What a tree counts.
    pub learning_rate: f64,
    /// Most leaves of a tree.
    pub leaves: u32,
    /// Greatest depth of a tree.
    pub max_depth: u32,
    /// Which leaf is split next.
    pub growth: Order,
    /// Least rows of a leaf, estimated by its share of the hessian.
    pub min_rows: f64,
    /// Least hessian of a leaf.
    pub min_hessian: f64,
    /// Least gain of a split.
    pub min_gain: f64,
    /// L2 regularisation of leaf values.
    pub lambda: f64,
    /// Share of the rows each tree sees.
    pub row_sample: f64,
    /// Share of the features each tree may split on.
    pub column_sample: f64,
    /// Hessian added to a category when categories are sorted: the rarer one is, the nearer it stands to zero.
    pub category_smooth: f64,
    /// L2 regularisation added when a set of categories is chosen.
    pub category_lambda: f64,
    /// Least rows of a category that is sorted in, and by which two sets of categories differ.
    pub category_rows: f64,
    /// Most categories in a set.
    pub category_set: u32,
    /// Feature → 1 (never down) or -1 (never up).
    pub monotone: BTreeMap<String, i8>,
    /// Weights of the classes.
    pub class_weights: Option<ClassWeights>,
    /// Share of the rows, by their hashes, that only judges.
    pub validation: f64,
    /// Iterations without a better validation loss after which learning stops; 0 never.
    pub patience: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            iterations: 200,
            learning_rate: 0.1,
            leaves: 31,
            max_depth: 64,
            growth: Order::Leaf,
            min_rows: 20.0,
            min_hessian: 1e-3,
            min_gain: 0.0,
            lambda: 1.0,
            row_sample: 1.0,
            column_sample: 1.0,
            category_smooth: 100.0,
            category_lambda: 20.0,
            category_rows: 20.0,
            category_set: 32,
            monotone: BTreeMap::new(),
            class_weights: None,
            validation: 0.0,
            patience: 0,
        }
    }
}

impl Parameters {
    pub(super) fn check(&self) -> Result<(), LearnError> {
        within("iterations", self.iterations.into(), 1.0, 20_000.0)?;
        within("learning_rate", self.learning_rate, 1e-6, 1.0)?;
        within("leaves", self.leaves.into(), 2.0, 4096.0)?;
        within("max_depth", self.max_depth.into(), 1.0, 64.0)?;
        within("min_rows", self.min_rows, 0.0, 1e9)?;
        within("min_hessian", self.min_hessian, 0.0, 1e9)?;
        within("min_gain", self.min_gain, 0.0, 1e18)?;
        within("lambda", self.lambda, 0.0, 1e9)?;
        within("row_sample", self.row_sample, 0.01, 1.0)?;
        within("column_sample", self.column_sample, 0.01, 1.0)?;
        within("category_smooth", self.category_smooth, 0.0, 1e9)?;
        within("category_lambda", self.category_lambda, 0.0, 1e9)?;
        within("category_rows", self.category_rows, 0.0, 1e9)?;
        within("category_set", self.category_set.into(), 1.0, 255.0)?;
        within("validation", self.validation, 0.0, 0.9)?;
        for way in self.monotone.values() {
            within("monotone", (*way).into(), -1.0, 1.0)?;
        }
        if let Some(ClassWeights::Each(weights)) = &self.class_weights {
            weights.iter().try_for_each(|&weight| within("class_weights", weight, 1e-6, 1e6))?;
        }
        if self.patience > 0 && self.validation == 0.0 {
            let problem = "needs a validation fold: set `validation`, for example to 0.1".to_owned();
            return Err(LearnError::Parameter { name: "patience".into(), problem });
        }
        Ok(())
    }

    pub(super) fn weights(&self, task: &Task, labels: &[f64]) -> Result<Vec<f64>, LearnError> {
        let wrong = |problem: &str| LearnError::Parameter { name: "class_weights".into(), problem: problem.into() };
        match (&self.class_weights, task) {
            (None, _) => Ok(Vec::new()),
            (Some(_), Task::Number) => Err(wrong("a number has no classes")),
            (Some(ClassWeights::Each(weights)), Task::Classes(classes)) if weights.len() == classes.len() => {
                Ok(weights.clone())
            }
            (Some(ClassWeights::Each(_)), Task::Classes(_)) => Err(wrong("one weight per class")),
            (Some(ClassWeights::Named(Balanced::Balanced)), Task::Classes(classes)) => {
                let mut rows = vec![0u32; classes.len()];
                labels.iter().for_each(|&label| rows[label as usize] += 1);
                let even = labels.len() as f64 / classes.len() as f64;
                Ok(rows.into_iter().map(|rows| (even / f64::from(rows.max(1))).clamp(1e-6, 1e6)).collect())
            }
        }
    }

    pub(super) fn monotone(&self, features: &Features, cuts: &[Cut]) -> Result<Vec<Monotone>, LearnError> {
        let mut ways = vec![Monotone::Free; cuts.len()];
        for (name, way) in &self.monotone {
            let wrong =
                |problem: &str| LearnError::Parameter { name: format!("monotone.{name}"), problem: problem.into() };
            let at =
                features.names.iter().position(|own| own == name).ok_or_else(|| wrong("there is no such feature"))?;
            if matches!(cuts[at], Cut::Category(_)) {
                return Err(wrong("a category has no direction"));
            }
            ways[at] = match way {
                1 => Monotone::Increasing,
                -1 => Monotone::Decreasing,
                _ => Monotone::Free,
            };
        }
        Ok(ways)
    }
}

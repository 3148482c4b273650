//! The custom metrics of a contract: their SQL over a sealed row and a model's score of it, as one value per row.
//!
//! | name | what it is |
//! |---|---|
//! | `label`, or the label's own name | what was true: as it stands in the row, of a regression in quanta of 10⁻⁶ |
//! | `score` | of two classes the probability of the second one (`true`, the larger, the later in bytes); of a regression the number |
//! | `"score.CLASS"` | of several classes the probability of each, such as `"score.late"` |
//! | `predicted` | of classes the one that the model chooses, as the label has it; of two from a probability of one half on |
//! | a column | as it stands in the row; columns that may hold personal data are not read |
//!
//! Scores are quantised to 10⁻⁶ before, values after. A value that is NULL, NaN, infinite or beyond 10⁸ is no value: the metric is
//! undefined, and the attempt is not accepted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;

use super::arrow_type;
use super::expression::{Expressions, RowExpression};
use crate::domain::contract::custom_metric::CustomMetric;
use crate::domain::contract::learning::Target;
use crate::domain::contract::{LogicalType, Spec, SpecError};
use crate::stats::fixed::{MICRO, quantise};
use crate::stats::rows::MAX_CUSTOM;

const LABEL: &str = "label";
const SCORE: &str = "score";
const PREDICTED: &str = "predicted";

/// The custom metrics of a contract, planned.
#[derive(Debug)]
pub struct Measures {
    label: String,
    kind: LogicalType,
    target: Target,
    all: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    name: String,
    expression: RowExpression,
}

/// Why a metric has no value on some row. The text repeats no value and no place: rows are sealed, and refusals are published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the metric {metric} is undefined on a sealed row: {what}; help: give every row a finite value, such as with coalesce(x, 0) or \
     CASE WHEN y = 0 THEN 0 ELSE x / y END, and apply the contract"
)]
pub struct Undefined {
    /// The metric.
    pub metric: String,
    /// What it is there.
    pub what: String,
}

fn undefined(metric: &str, what: impl std::fmt::Display) -> Undefined {
    Undefined { metric: metric.to_owned(), what: what.to_string() }
}

impl Measures {
    /// Plans the custom metrics of a contract; none when it declares none.
    ///
    /// # Errors
    /// [`SpecError`] with the path of an expression that is no metric.
    pub fn compile(spec: &Spec) -> Result<Option<Self>, SpecError> {
        let Some(said) = spec.evaluation.as_ref().filter(|said| !said.metrics.is_empty()) else { return Ok(None) };
        let learned = spec.learning()?;
        let Some(label) = spec.property(&learned.label) else {
            return Err(SpecError::at("label", "is no column", "name the column that is learned"));
        };
        let (label, kind) = (label.name.clone(), label.logical_type);
        let mut own = Self { label, kind, target: learned.target, all: Vec::new() };
        let (columns, expressions) = (own.columns(spec), Expressions::new());
        for (i, metric) in said.metrics.iter().enumerate() {
            let path = format!("evaluation.metrics[{i}].value");
            let planned = own.plan(spec, metric, &columns, &expressions);
            own.all.push(planned.map_err(|(problem, help)| SpecError::at(path, problem, help))?);
        }
        Ok(Some(own))
    }

    /// What the expressions may read: names of ours first, then the columns that none of them covers.
    fn columns(&self, spec: &Spec) -> Vec<(String, DataType)> {
        let label = if self.target == Target::Number { DataType::Float64 } else { arrow_type(self.kind) };
        let mut all = vec![(LABEL.to_owned(), label.clone())];
        match &self.target {
            Target::Classes(classes) if classes.len() > 2 => {
                all.extend(classes.iter().map(|class| (format!("{SCORE}.{class}"), DataType::Float64)));
            }
            _ => all.push((SCORE.to_owned(), DataType::Float64)),
        }
        if self.target != Target::Number {
            all.push((PREDICTED.to_owned(), label.clone()));
        }
        for property in spec.properties() {
            let kind = if property.name == self.label { label.clone() } else { arrow_type(property.logical_type) };
            if all.iter().all(|(name, _)| *name != property.name) {
                all.push((property.name.clone(), kind));
            }
        }
        all
    }

    fn plan(
        &self,
        spec: &Spec,
        metric: &CustomMetric,
        columns: &[(String, DataType)],
        expressions: &Expressions,
    ) -> Result<Planned, (String, String)> {
        let refused = |problem: &str, help: &str| Err((problem.to_owned(), help.to_owned()));
        let expression = expressions.number(&metric.value, columns).map_err(|own| (own.problem, own.help))?;
        for name in expression.columns() {
            let Some(property) = spec.property(name) else { continue };
            // The label may be called `label`: it is the same. It may not be called as a score is.
            if self.is_ours(name) && !(name == self.label && name == LABEL) {
                return refused(
                    &format!("reads `{name}`, which is both a column and a name of metrics"),
                    "rename the column",
                );
            }
            if name == self.label {
                continue;
            }
            if property.may_be_personal() {
                let help = "values of metrics are published: leave it out, or use policy `generalise` or `none`";
                return refused(&format!("reads `{name}`, which may hold personal data"), help);
            }
        }
        if !expression.columns().any(|name| self.is_score(name)) {
            let help = "it is the same for every model: read `score`, `\"score.CLASS\"` or `predicted`";
            return refused("reads no score", help);
        }
        Ok(Planned { name: metric.name.clone(), expression })
    }

    fn is_score(&self, name: &str) -> bool {
        match &self.target {
            Target::Number => name == SCORE,
            Target::Classes(classes) if classes.len() > 2 => name == PREDICTED || self.class_of(name).is_some(),
            Target::Classes(_) => name == SCORE || name == PREDICTED,
        }
    }

    fn is_ours(&self, name: &str) -> bool {
        name == LABEL || self.is_score(name)
    }

    fn class_of(&self, name: &str) -> Option<usize> {
        let Target::Classes(classes) = &self.target else { return None };
        let class = name.strip_prefix(SCORE)?.strip_prefix('.')?;
        classes.iter().position(|own| own == class)
    }

    /// Of each metric the values of the rows, in millionths. `labels` and `scores` are the batch's in quanta, row by row.
    ///
    /// # Errors
    /// A metric without a value on some row.
    pub fn values(&self, batch: &RecordBatch, labels: &[i64], scores: &[i64]) -> Result<Vec<Vec<i64>>, Undefined> {
        self.all.iter().map(|own| self.of(own, batch, labels, scores)).collect()
    }

    /// The values of the metric at one place, as [`Measures::values`].
    ///
    /// # Errors
    /// It has no value on some row, or there is no metric at that place.
    pub fn values_of(
        &self,
        place: usize,
        batch: &RecordBatch,
        labels: &[i64],
        scores: &[i64],
    ) -> Result<Vec<i64>, Undefined> {
        let own = self.all.get(place).ok_or_else(|| undefined("custom", "it is not declared"))?;
        self.of(own, batch, labels, scores)
    }

    fn of(&self, own: &Planned, batch: &RecordBatch, labels: &[i64], scores: &[i64]) -> Result<Vec<i64>, Undefined> {
        let found = own.expression.evaluate(batch.num_rows(), |name| self.column(name, batch, labels, scores));
        let found = found.map_err(|failure| undefined(&own.name, failure))?;
        if found.null_count() > 0 {
            return Err(undefined(&own.name, "it is NULL there"));
        }
        let value = |value: &f64| {
            let what = match value {
                value if value.is_nan() => "it is NaN there",
                value if value.is_infinite() => "it is infinite there",
                _ => "it lies beyond 10^8 there",
            };
            let quanta = quantise(*value, MICRO).ok().filter(|quanta| quanta.unsigned_abs() <= MAX_CUSTOM);
            quanta.ok_or_else(|| undefined(&own.name, what))
        };
        found.values().iter().map(value).collect()
    }

    fn column(&self, name: &str, batch: &RecordBatch, labels: &[i64], scores: &[i64]) -> Option<ArrayRef> {
        let number = |quanta: &mut dyn Iterator<Item = i64>| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(quanta.map(|own| own as f64 / MICRO as f64)))
        };
        let is_label = name == LABEL || name == self.label;
        match &self.target {
            Target::Number if is_label => Some(number(&mut labels.iter().copied())),
            Target::Classes(_) if is_label => batch.column_by_name(&self.label).cloned(),
            Target::Classes(classes) if name == PREDICTED => self.predicted(classes, scores),
            Target::Classes(classes) if classes.len() > 2 && self.is_score(name) => {
                let class = self.class_of(name)?;
                Some(number(&mut scores.iter().skip(class).step_by(classes.len()).copied()))
            }
            _ if name == SCORE && self.is_score(name) => Some(number(&mut scores.iter().copied())),
            _ => batch.column_by_name(name).cloned(),
        }
    }

    /// The class that is chosen: the first of the largest probabilities; of two the second from one half on.
    fn predicted(&self, classes: &[String], scores: &[i64]) -> Option<ArrayRef> {
        let chosen = |own: &[i64]| match own {
            [score] => usize::from(*score >= MICRO / 2),
            many => {
                let first = (0, i64::MIN);
                many.iter().enumerate().fold(first, |best, (at, own)| if *own > best.1 { (at, *own) } else { best }).0
            }
        };
        let width = if classes.len() > 2 { classes.len() } else { 1 };
        let chosen = scores.chunks_exact(width).map(|own| classes.get(chosen(own)).map(String::as_str));
        Some(match arrow_type(self.kind) {
            DataType::Boolean => Arc::new(chosen.map(|class| Some(class? == "true")).collect::<BooleanArray>()),
            DataType::Int64 => Arc::new(chosen.map(|class| class?.parse::<f64>().ok()).collect::<Float64Array>()),
            DataType::Utf8 => Arc::new(chosen.collect::<StringArray>()),
            _ => return None,
        })
    }
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;

//! How candidates are compared with what is in production: the section `evaluation`. What it says is said before any score is seen.
//!
//! A margin is how much worse a candidate may look before it counts as worse, in the metric's own unit. Every margin that a guardrail
//! or a stratum needs stands in the document: beside it, or as the metric's default under `margins`. There is no built-in one.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::custom_metric::{CustomMetric, MetricName, check_custom};
use super::grammar::{LogicalType, Spec};
use super::learning::Target;
use super::rules::{Check, require};

/// Most columns of strata.
pub const MAX_STRATA_COLUMNS: usize = 16;
/// Largest margin or effect.
const MAX_AMOUNT: f64 = 1e9;

/// The section `evaluation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvaluationSpec {
    /// The metric that decides.
    pub primary: MetricName,
    /// The least improvement of it worth accepting, in its unit, at most six decimals.
    pub minimum_effect: f64,
    /// Default margins by metric, each in its metric's unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub margins: BTreeMap<MetricName, f64>,
    /// Further metrics that must not get worse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guardrails: Vec<Guardrail>,
    /// Columns in whose values the primary metric must not get worse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strata: Vec<Stratum>,
    /// Metrics that the contract declares itself. All are reported; one may be primary, others guardrails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<CustomMetric>,
}

/// A metric that must not get worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guardrail {
    /// The metric.
    pub metric: MetricName,
    /// Its margin; the default of the metric without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

/// A column whose values are strata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stratum {
    /// The column.
    pub column: String,
    /// The primary metric's margin in each stratum; its default without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

/// A metric by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // `stats::metric` has their meaning
pub enum MetricWord {
    Accuracy,
    Auroc,
    F1,
    F1Macro,
    F1Micro,
    Precision,
    Recall,
    LogLoss,
    Brier,
    Mae,
    Mse,
    Rmse,
    R2,
}

impl MetricWord {
    /// Every metric.
    pub const ALL: [Self; 13] = [
        Self::Accuracy,
        Self::Auroc,
        Self::F1,
        Self::F1Macro,
        Self::F1Micro,
        Self::Precision,
        Self::Recall,
        Self::LogLoss,
        Self::Brier,
        Self::Mae,
        Self::Mse,
        Self::Rmse,
        Self::R2,
    ];

    /// The name as it stands in the document.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Auroc => "auroc",
            Self::F1 => "f1",
            Self::F1Macro => "f1_macro",
            Self::F1Micro => "f1_micro",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::LogLoss => "log_loss",
            Self::Brier => "brier",
            Self::Mae => "mae",
            Self::Mse => "mse",
            Self::Rmse => "rmse",
            Self::R2 => "r2",
        }
    }

    /// Whether it is defined for what is predicted.
    #[must_use]
    pub fn fits(self, target: &Target) -> bool {
        let (number, two) = match target {
            Target::Number => (true, false),
            Target::Classes(classes) => (false, classes.len() == 2),
        };
        match self {
            Self::Accuracy | Self::F1Macro | Self::F1Micro | Self::LogLoss => !number,
            Self::Auroc | Self::F1 | Self::Precision | Self::Recall | Self::Brier => two,
            Self::Mae | Self::Mse | Self::Rmse | Self::R2 => number,
        }
    }

    /// Whether every value lies in [0, 1].
    #[must_use]
    pub fn in_unit_interval(self) -> bool {
        !matches!(self, Self::LogLoss | Self::Mae | Self::Mse | Self::Rmse | Self::R2)
    }
}

impl EvaluationSpec {
    /// The guardrails, each with its margin; a checked document has every one.
    pub fn guardrail_margins(&self) -> impl Iterator<Item = (&MetricName, Option<f64>)> {
        let margin = |guardrail: &Guardrail| guardrail.margin.or_else(|| self.margins.get(&guardrail.metric).copied());
        self.guardrails.iter().map(move |guardrail| (&guardrail.metric, margin(guardrail)))
    }

    /// The columns of strata, each with the primary metric's margin in them; a checked document has every one.
    pub fn stratum_margins(&self) -> impl Iterator<Item = (&str, Option<f64>)> {
        let default = self.margins.get(&self.primary).copied();
        self.strata.iter().map(move |stratum| (stratum.column.as_str(), stratum.margin.or(default)))
    }
}

impl Spec {
    /// Checks the section `evaluation`, if it is there.
    pub(super) fn check_evaluation(&self) -> Check {
        let Some(said) = &self.evaluation else { return Ok(()) };
        let target = self.learning().map_err(|error| SpecError {
            help: format!("{}; `evaluation` compares models, so something has to be learned", error.help),
            ..error
        })?;
        let target = target.target;
        check_custom(&said.metrics)?;
        let check_metric = |metric: &MetricName, path: &str| check_metric(metric, &said.metrics, &target, path);
        check_metric(&said.primary, "evaluation.primary")?;
        check_amount(said.minimum_effect, true, &said.primary, "evaluation.minimumEffect")?;
        for (metric, margin) in &said.margins {
            let path = format!("evaluation.margins.{metric}");
            check_metric(metric, &path)?;
            check_amount(*margin, false, metric, &path)?;
        }
        let mut seen = HashSet::new();
        for (i, (guardrail, (metric, margin))) in said.guardrails.iter().zip(said.guardrail_margins()).enumerate() {
            let path = format!("evaluation.guardrails[{i}]");
            check_metric(metric, &format!("{path}.metric"))?;
            let other = *metric != said.primary;
            require(other, &path, "is the primary metric", "it has to improve anyway: remove the guardrail")?;
            require(seen.insert(metric), &path, "occurs twice", "a metric has one margin")?;
            let help = format!("write `margin`, or a default under `evaluation.margins: {{{metric}: …}}`");
            require(margin.is_some(), &path, "has no margin", &help)?;
            guardrail.margin.map_or(Ok(()), |own| check_amount(own, false, metric, &format!("{path}.margin")))?;
        }
        self.check_strata(said)
    }

    fn check_strata(&self, said: &EvaluationSpec) -> Check {
        let few = said.strata.len() <= MAX_STRATA_COLUMNS;
        require(few, "evaluation.strata", "names too many columns", "at most 16 columns have strata")?;
        let mut seen = HashSet::new();
        for (i, (stratum, (column, margin))) in said.strata.iter().zip(said.stratum_margins()).enumerate() {
            let path = format!("evaluation.strata[{i}]");
            let at = format!("{path}.column");
            let help = "name one of schema[0].properties besides the label";
            let property = self.property(column).filter(|_| self.label.as_deref() != Some(column));
            let Some(property) = property else {
                return require(false, &at, &format!("`{column}` is no column, or the label"), help);
            };
            require(seen.insert(column), &at, "occurs twice", "remove one")?;
            let few =
                matches!(property.logical_type, LogicalType::String | LogicalType::Integer | LogicalType::Boolean);
            let kind = property.logical_type.name();
            let help = "strings, integers and booleans have strata";
            require(few, &at, &format!("is a column of type {kind}"), help)?;
            let help = "the names of strata are published: remove it, or use policy `generalise` or `none`";
            require(!property.may_be_personal(), &at, &format!("`{column}` may hold personal data"), help)?;
            let help = format!("write `margin`, or a default under `evaluation.margins: {{{}: …}}`", said.primary);
            require(margin.is_some(), &path, "has no margin", &help)?;
            stratum.margin.map_or(Ok(()), |own| check_amount(own, false, &said.primary, &format!("{path}.margin")))?;
        }
        Ok(())
    }
}

fn check_metric(metric: &MetricName, custom: &[CustomMetric], target: &Target, path: &str) -> Check {
    let task = match target {
        Target::Number => "a regression",
        Target::Classes(classes) if classes.len() > 2 => "more than two classes",
        Target::Classes(_) => "two classes",
    };
    let fits = match metric {
        MetricName::Known(word) => word.fits(target),
        MetricName::Declared(name) => custom.iter().any(|own| own.name == *name),
    };
    let built_in = MetricWord::ALL.into_iter().filter(|own| own.fits(target)).map(MetricWord::name);
    let mut known: Vec<&str> = built_in.collect();
    known.extend(custom.iter().map(|own| own.name.as_str()));
    let help = format!("one of {}, or declare it under `evaluation.metrics`", known.join(", "));
    require(fits, path, &format!("`{metric}` is no metric of {task}"), &help)
}

/// An amount in a metric's unit, exact in millionths: scores are compared as integers.
fn check_amount(amount: f64, zero: bool, metric: &MetricName, path: &str) -> Check {
    let most = if metric.in_unit_interval() { 1.0 } else { MAX_AMOUNT };
    let positive = amount > 0.0 || (zero && amount == 0.0);
    let help = format!("write a number {} 0, at most {most}", if zero { "from" } else { "above" });
    require(positive && amount <= most, path, "is no amount of the metric", &help)?;
    let text = amount.to_string();
    let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    require(decimals <= 6, path, "has more than six decimals", "scores are compared in millionths: round it")
}

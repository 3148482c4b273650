//! From a model's contract to the plan of its evaluations.

use crate::domain::contract::custom_metric::{Direction, MetricName};
use crate::domain::contract::evaluation::{EvaluationSpec, MetricWord};
use crate::stats::fixed::{FixedError, MICRO, parse_decimal};
use crate::stats::metric::Metric;
use crate::stats::rows::CustomValues;

/// Why a section `evaluation` cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// An amount that does not fit.
    #[error(transparent)]
    Amount(#[from] FixedError),
    /// A metric that is neither built in nor declared.
    #[error("`{0}` is no metric; help: declare it under evaluation.metrics")]
    Undeclared(String),
}

/// What the section `evaluation` says, as [`Plan`](crate::stats::evaluation::Plan) has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The metric that decides.
    pub primary: Metric,
    /// The least improvement worth accepting, in millionths.
    pub minimum_effect: i64,
    /// Metrics that must not get worse, with their margins in millionths.
    pub guardrails: Vec<(Metric, Option<i64>)>,
    /// Columns of strata with the primary metric's margin in them, in millionths.
    pub strata: Vec<(String, Option<i64>)>,
    /// The declared custom metrics, in their order: [`Metric::Custom`] counts along it.
    pub custom: Vec<Named>,
}

/// A declared custom metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Whether more is better.
    pub higher_is_better: bool,
}

impl Named {
    /// It, before any row was looked at.
    #[must_use]
    pub fn without_values(&self) -> CustomValues {
        let Self { name, higher_is_better } = self.clone();
        CustomValues { name, higher_is_better, baseline: Vec::new(), candidate: Vec::new() }
    }
}

impl Declared {
    /// The name of a metric in records and statements.
    #[must_use]
    pub fn name<'a>(&'a self, metric: &'a Metric) -> &'a str {
        match metric {
            Metric::Custom(position) => self.custom.get(*position).map_or("custom", |own| &own.name),
            known => known.name(),
        }
    }
}

/// The declaration in integers. Amounts are decimals of at most six places, so nothing is rounded.
///
/// # Errors
/// An amount that does not fit, or a metric that is not declared; contracts that were checked have none.
pub fn declared(said: &EvaluationSpec) -> Result<Declared, DeclareError> {
    let micro = |amount: f64| parse_decimal(&amount.to_string(), MICRO).map_err(DeclareError::from);
    let margin = |margin: Option<f64>| margin.map(micro).transpose();
    let metric = |name: &MetricName| named(said, name);
    Ok(Declared {
        primary: metric(&said.primary)?,
        minimum_effect: micro(said.minimum_effect)?,
        guardrails: said
            .guardrail_margins()
            .map(|(word, own)| Ok((metric(word)?, margin(own)?)))
            .collect::<Result<_, DeclareError>>()?,
        strata: said
            .stratum_margins()
            .map(|(column, own)| Ok((column.to_owned(), margin(own)?)))
            .collect::<Result<_, DeclareError>>()?,
        custom: said
            .metrics
            .iter()
            .map(|own| Named { name: own.name.clone(), higher_is_better: own.direction == Direction::Higher })
            .collect(),
    })
}

fn named(said: &EvaluationSpec, name: &MetricName) -> Result<Metric, DeclareError> {
    match name {
        MetricName::Known(word) => Ok(metric(*word)),
        MetricName::Declared(name) => {
            let place = said.metrics.iter().position(|own| own.name == *name);
            place.map(Metric::Custom).ok_or_else(|| DeclareError::Undeclared(name.clone()))
        }
    }
}

fn metric(word: MetricWord) -> Metric {
    match word {
        MetricWord::Accuracy => Metric::Accuracy,
        MetricWord::Auroc => Metric::Auroc,
        MetricWord::F1 => Metric::F1,
        MetricWord::F1Macro => Metric::F1Macro,
        MetricWord::F1Micro => Metric::F1Micro,
        MetricWord::Precision => Metric::Precision,
        MetricWord::Recall => Metric::Recall,
        MetricWord::LogLoss => Metric::LogLoss,
        MetricWord::Brier => Metric::Brier,
        MetricWord::Mae => Metric::Mae,
        MetricWord::Mse => Metric::Mse,
        MetricWord::Rmse => Metric::Rmse,
        MetricWord::R2 => Metric::R2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::contract::Spec;
    use crate::domain::contract::learning::Target;
    use crate::stats::rows::Task;

    #[test]
    fn a_contract_and_the_statistics_mean_the_same_metrics_for_the_same_tasks() {
        assert_eq!(MetricWord::ALL.map(metric), Metric::ALL);
        let classes = |count: u16| Target::Classes((0..count).map(|class| class.to_string()).collect());
        for word in MetricWord::ALL {
            assert_eq!(word.name(), metric(word).name());
            assert_eq!(serde_json::to_value(word).unwrap(), word.name());
            assert_eq!(word.in_unit_interval(), metric(word).in_unit_interval());
            for (target, task) in
                [(classes(2), Task::Binary), (classes(3), Task::Multiclass(3)), (Target::Number, Task::Regression)]
            {
                assert_eq!(word.fits(&target), metric(word).fits(task), "{word:?} {task:?}");
            }
        }
    }

    #[test]
    fn amounts_become_millionths_without_rounding_and_defaults_fill_what_is_not_said() {
        let section = "label: churned\nevaluation:\n  primary: auroc\n  minimumEffect: 0.0025\n  margins: {auroc: 0.01, \
                       log_loss: 0.000001}\n  guardrails: [{metric: log_loss}, {metric: brier, margin: 0.3}]\n  strata: [{column: \
                       plan}, {column: country, margin: 0.02}]\n";
        let text = include_str!("../domain/contract/example.yaml").replacen("label: churned\n", section, 1);
        let spec = Spec::parse_yaml(&text, "model.yaml").unwrap();
        let plan = declared(spec.evaluation.as_ref().unwrap()).unwrap();
        assert_eq!((plan.primary, plan.minimum_effect), (Metric::Auroc, 2_500));
        assert_eq!(plan.guardrails, [(Metric::LogLoss, Some(1)), (Metric::Brier, Some(300_000))]);
        assert_eq!(plan.strata, [("plan".to_owned(), Some(10_000)), ("country".to_owned(), Some(20_000))]);
        let again = Spec::from_canonical_json(&spec.canonical_json().unwrap()).unwrap();
        assert_eq!(again.evaluation, spec.evaluation);
    }
}

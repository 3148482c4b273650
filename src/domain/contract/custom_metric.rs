//! Metrics that a contract declares itself: `evaluation.metrics`. Each is one SQL expression over a row and a model's score of it, and
//! the metric is the mean of its values.
//!
//! ```yaml
//! evaluation:
//!   primary: cost_of_delay
//!   minimumEffect: 0.05
//!   margins: {cost_of_delay: 0.5}
//!   metrics:
//!     - name: cost_of_delay
//!       direction: lower              # less of it is better
//!       unit: EUR per flight
//!       value: CASE WHEN late AND score < 0.3 THEN 5.0 WHEN NOT late AND score >= 0.3 THEN 1.0 ELSE 0.0 END
//! ```
//!
//! What stands here is checked without the columns' Arrow types; the expression is planned, and so checked, by `rowsql::measure`.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::evaluation::MetricWord;
use super::grammar::{Policy, Property};
use super::rules::{Check, fail, require};

/// Most metrics of a contract.
pub const MAX_METRICS: usize = 16;
const MAX_NAME: usize = 64;
const MAX_UNIT: usize = 64;
const MAX_EXPRESSION: usize = 4_096;
const MAX_DESCRIPTION: usize = 1_000;

/// A metric that the contract declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CustomMetric {
    /// Its name: a-z, 0-9 and `_`, and no name of a built-in metric.
    pub name: String,
    /// Which way is better.
    pub direction: Direction,
    /// What it is measured in, for readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// SQL expression: one number per row.
    pub value: String,
    /// What it means, for readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Less is better: a cost, a loss.
    Lower,
    /// More is better: a profit.
    Higher,
}

/// A metric by its name: built in, or declared under `evaluation.metrics`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum MetricName {
    /// A built-in one.
    Known(MetricWord),
    /// A declared one; a checked contract declares it.
    Declared(String),
}

impl From<String> for MetricName {
    fn from(name: String) -> Self {
        let known = MetricWord::ALL.into_iter().find(|word| word.name() == name);
        known.map_or(Self::Declared(name), Self::Known)
    }
}

impl From<MetricName> for String {
    fn from(name: MetricName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl MetricName {
    /// The name as it stands in the document.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(word) => word.name(),
            Self::Declared(name) => name,
        }
    }

    /// Whether every value lies in [0, 1]; nothing is known of declared ones.
    #[must_use]
    pub fn in_unit_interval(&self) -> bool {
        matches!(self, Self::Known(word) if word.in_unit_interval())
    }
}

impl Property {
    /// Whether the column may hold personal data: strata and custom metrics, whose results are published, do not read it.
    #[must_use]
    pub fn may_be_personal(&self) -> bool {
        let pii = &self.pii;
        pii.policy != Policy::Generalise && (pii.kind.is_some() || matches!(pii.policy, Policy::Drop | Policy::Keep))
    }
}

/// Checks the declarations of `evaluation.metrics`, all but their SQL.
pub(super) fn check_custom(metrics: &[CustomMetric]) -> Check {
    let help = format!("at most {MAX_METRICS} metrics are declared");
    require(metrics.len() <= MAX_METRICS, "evaluation.metrics", "names too many metrics", &help)?;
    let mut seen = HashSet::new();
    for (i, metric) in metrics.iter().enumerate() {
        let path = format!("evaluation.metrics[{i}]");
        let at = format!("{path}.name");
        let first = metric.name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let fits = first && metric.name.len() <= MAX_NAME && metric.name.bytes().all(rest);
        require(fits, &at, "is no name of a metric", "1 to 64 of a-z, 0-9 and `_`, first a letter")?;
        if let MetricName::Known(word) = MetricName::from(metric.name.clone()) {
            return fail(at, format!("`{}` is a built-in metric", word.name()), "give yours another name");
        }
        // What records call a custom metric whose name is lost.
        require(metric.name != "custom", &at, "is no name of a metric", "say what it measures")?;
        require(seen.insert(&metric.name), &at, "occurs twice", "give each metric its own name")?;
        check_text(&metric.value, &format!("{path}.value"), MAX_EXPRESSION)?;
        let optional = |text: &Option<String>, field: &str, most| {
            text.as_ref().map_or(Ok(()), |text| check_text(text, &format!("{path}.{field}"), most))
        };
        optional(&metric.unit, "unit", MAX_UNIT)?;
        optional(&metric.description, "description", MAX_DESCRIPTION)?;
    }
    Ok(())
}

fn check_text(text: &str, path: &str, most: usize) -> Check {
    let clean = !text.trim().is_empty() && text.len() <= most && !text.chars().any(|c| c.is_control() && c != '\n');
    require(clean, path, "is empty, too long or has control characters", &format!("write 1 to {most} bytes"))
}

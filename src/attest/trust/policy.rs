//! What a promotion to production has to show.

use serde::{Deserialize, Serialize};

/// Which evaluation a promotion to production needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationRule {
    /// An accepted one against the version that is in production.
    #[default]
    Accepted,
    /// None.
    None,
}

/// What a promotion to production has to show, for one model or for all (`*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The model, or `*`.
    pub model: String,
    /// Which evaluation it needs.
    #[serde(default)]
    pub evaluation: EvaluationRule,
    /// The only benchmark that counts; any when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<String>,
    /// Whether only a version that has been in staging may be promoted to production.
    #[serde(default)]
    pub staging_first: bool,
    /// First serial of the trust file at which it is in force.
    #[serde(default = "super::first")]
    pub from: i64,
    /// First serial at which it is not in force any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            model: "*".to_owned(),
            evaluation: EvaluationRule::Accepted,
            benchmark: None,
            staging_first: false,
            from: 1,
            until: None,
        }
    }
}

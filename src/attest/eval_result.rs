//! The fields that an outcome shares with in-toto's proposed predicate eval-result (v0.2), so that who knows that one reads ours.
//!
//! Most of them say again, in that predicate's words, what stands in the statement's own fields: [`Outcome::restated`] holds the two
//! to each other, so that no reader of either is told something else.

use serde::{Deserialize, Serialize};

use super::benchmark::BENCHMARK_TREE;
use super::evaluation::Outcome;

/// Who ran it is who signs it.
pub const SELF_ATTESTED: &str = "self_attested";
/// The subject is an artefact that is released only if it passes.
pub const RELEASE_GATE: &str = "release-gate";
/// What the leaf hash of a preregistration is computed with: SHA-256 over a zero byte and the statement (RFC 6962, §2.1).
pub const LEAF: &str = "rfc6962-sha256";
/// What labels are committed to with: see [`super::benchmark`].
pub const LABELS: &str = "hk-labels-v1";
const ACCEPTED: &str = "accepted";

/// Who ran the evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluator {
    /// A URI that ends in the id of the evaluation stage's key.
    pub id: String,
}

impl Evaluator {
    /// The evaluation stage with this key.
    #[must_use]
    pub fn of(key_id: &str) -> Self {
        Self { id: format!("https://hokus.ai/evaluator/{key_id}") }
    }
}

/// What the rows are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Name of the benchmark.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What was to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// How the improvement has to lie to the threshold.
    pub comparator: String,
    /// `improvement of METRIC`: candidate less baseline in the metric's direction.
    pub metric: String,
    /// Whether it was shown, at the attempt's level and with all guardrails.
    pub passed: bool,
    /// The minimum effect in the metric's unit, decimal.
    pub threshold: String,
}

/// How an improvement has to lie to the minimum effect.
pub const AT_LEAST: &str = ">=";

/// A salted commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// How it is made.
    pub alg: String,
    /// Always: rows and labels cannot be guessed from it.
    pub salted: bool,
    /// The commitment, hex.
    pub value: String,
}

/// What binds the rows without showing them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitments {
    /// The rows.
    pub dataset: Commitment,
    /// Their labels.
    pub labels: Commitment,
}

/// A digest by its algorithm's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sha256Digest {
    /// SHA-256, hex.
    pub sha256: String,
}

/// The model that was evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedModel {
    /// Of the candidate's artefact.
    pub digest: Sha256Digest,
    /// Name of the model.
    pub name: String,
}

/// What was laid down before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaidDown {
    /// [`LEAF`].
    pub alg: String,
    /// Leaf hash of the preregistration, hex.
    pub value: String,
}

impl LaidDown {
    /// By its leaf hash, hex.
    #[must_use]
    pub fn leaf(leaf: String) -> Self {
        Self { alg: LEAF.to_owned(), value: leaf }
    }
}

/// The program that ran it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Harness {
    /// Of its source, see [`Harness::own`].
    pub digest: Sha256Digest,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Harness {
    /// This program. Its digest is that of its source (`build.rs`): builds of one source, optimised or not, say the same.
    #[must_use]
    pub fn own() -> Self {
        Self {
            digest: Sha256Digest { sha256: env!("HOKUSAI_SOURCE_DIGEST").to_owned() },
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A document that the outcome rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Evidence {
    /// Of its bytes.
    pub digest: Sha256Digest,
    /// What its bytes are.
    pub media_type: String,
    /// What it is.
    pub name: String,
}

impl Outcome {
    /// Holds what the statement says in the words of eval-result to what its own fields say.
    ///
    /// # Errors
    /// The first field that says something else.
    pub fn restated(&self) -> Result<(), &'static str> {
        let committed = |own: &Commitment, alg: &str, value: &str| own.salted && own.alg == alg && own.value == value;
        let rows = &self.benchmark.rows;
        let suite = self.benchmark.name.rsplit_once('@').unwrap_or((&self.benchmark.name, ""));
        let claimed = |claim: &Claim| {
            claim.metric == claim_of(&self.metric)
                && claim.comparator == AT_LEAST
                && claim.passed == (self.status == ACCEPTED)
        };
        let told = [
            ("assuranceLevel", self.assurance_level == SELF_ATTESTED),
            ("claims", matches!(&self.claims[..], [claim] if claimed(claim))),
            ("commitments.dataset", committed(&self.commitments.dataset, BENCHMARK_TREE, &rows.root)),
            ("commitments.labels", committed(&self.commitments.labels, LABELS, &self.benchmark.label_commitment)),
            ("model", self.model.digest.sha256 == self.candidate.digest),
            ("preRegistration", self.pre_registration.alg == LEAF),
            ("sampleSize", self.sample_size == rows.n && self.record.as_ref().is_none_or(|own| own.n == rows.n)),
            ("subjectProfile", self.subject_profile == RELEASE_GATE),
            ("suite", (self.suite.name.as_str(), self.suite.version.as_str()) == suite),
        ];
        told.into_iter().find(|(_, same)| !same).map_or(Ok(()), |(field, _)| Err(field))
    }
}

impl Outcome {
    /// Whether the figures that are told are enough for the decision: of an accepted attempt the improvement reaches the minimum effect,
    /// and p, which is told rounded up, may lie below the level that was spent. A refused one tells none.
    ///
    /// # Errors
    /// What is missing, too small or too much.
    pub fn earns_its_status(&self) -> Result<String, String> {
        let figures = (self.record.as_ref(), self.withheld.is_some(), self.reasons.is_empty());
        if self.status != ACCEPTED {
            return match figures {
                (None, _, false) => Ok(format!("{}, with {} reasons and no figure", self.status, self.reasons.len())),
                _ => Err(format!("{} without a reason, or with figures", self.status)),
            };
        }
        let (Some(record), false, true) = figures else {
            return Err("accepted without figures, or with reasons against it".to_owned());
        };
        let own = record.metrics.iter().find(|facts| facts.name == self.metric);
        let read = own.zip(self.threshold_ppm()).and_then(|(own, least)| {
            let p = own.p_e9.as_ref()?.parse::<u64>().ok().filter(|p| *p <= 1_000_000_000)?;
            Some((own.delta_ppm.parse::<i64>().ok()?, least, p, self.attempt.level_e12.parse::<u64>().ok()?))
        });
        let (delta, least, p, level) =
            read.ok_or("its primary metric, threshold, p or level is missing or no number")?;
        if delta < least || delta <= 0 {
            return Err(format!("accepted with an improvement of {delta} millionths where {least} are due"));
        }
        if !self.attempt.is_of_its_number() {
            return Err(format!("the level {level} · 10⁻¹² is not that of attempt {}", self.attempt.number));
        }
        if p.saturating_sub(1) * 1_000 >= level {
            return Err(format!("accepted with p = {p} · 10⁻⁹ at the level {level} · 10⁻¹²"));
        }
        Ok(format!("{delta} millionths reach {least}, p = {p} · 10⁻⁹ at the level {level} · 10⁻¹²"))
    }

    /// The claim's threshold in millionths; none unless it has six places, as the writer gives it.
    #[must_use]
    pub fn threshold_ppm(&self) -> Option<i64> {
        let (whole, places) = self.claims.first()?.threshold.split_once('.')?;
        format!("{whole}{places}").parse().ok().filter(|_| places.len() == 6)
    }
}

/// What is claimed of a metric.
#[must_use]
pub fn claim_of(metric: &str) -> String {
    format!("improvement of {metric}")
}

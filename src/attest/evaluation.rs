//! The predicates of evaluations: what is laid down before a score is computed, and what may be told of the outcome.
//!
//! Numbers are integers: `…Ppm` counts millionths of the metric's unit, `levelE12` 10⁻¹² (rounded down), `pE9` 10⁻⁹ (rounded
//! up), as decimal strings. No index of the log, time or offset stands in them, so the same requests give the same bytes.
//!
//! ```text
//! withheld = SHA-256("hk-att/v1/evaluation-record" 00 ‖ salt ‖ JCS(full record))
//! salt     = HMAC-SHA-256(tree secret, "hk-att/v1/evaluation-salt" 00 ‖ evaluation id)[..16]
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::benchmark::{SealFacts, SealedRows};
use super::decision::NamedArtefact;
use super::eval_result::{Claim, Commitments, Evaluator, Evidence, Harness, LaidDown, NamedModel, Suite};
use super::figures::FullRecord;
use crate::domain::keys::MacKey;
use crate::stats::multiplicity::attempt_level_e12;

const SALT: &[u8] = b"hk-att/v1/evaluation-salt\0";
const RECORD: &[u8] = b"hk-att/v1/evaluation-record\0";

/// An attempt is laid down before any score of it is computed. The subject is the candidate's artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Preregistration {
    /// Which attempt this is, and what it may spend.
    pub attempt: SpentLevel,
    /// What the candidate is compared with.
    pub baseline: NamedArtefact,
    /// The sealed rows.
    pub benchmark: SealedBenchmark,
    /// What is to be shown to be better.
    pub candidate: Candidate,
    /// How the improvement has to lie to the minimum effect: [`AT_LEAST`](super::eval_result::AT_LEAST).
    pub comparator: String,
    /// Contract that says how they are compared.
    pub contract_digest: String,
    /// The evaluation.
    pub evaluation_id: String,
    /// Metrics that must not get worse.
    pub guardrails: Vec<Margin>,
    /// The metric that decides.
    pub metric: String,
    /// The least improvement worth accepting.
    pub minimum_effect_ppm: String,
    /// Model.
    pub model: String,
    /// Replicates of what is resampled.
    pub replicates: i64,
    /// Seed of what is resampled, hex.
    pub seed: String,
    /// Strata in which the primary metric must not get worse.
    pub strata: Vec<Margin>,
    /// The test that decides.
    pub test: String,
}

impl Preregistration {
    /// URI of the type.
    pub const TYPE: &'static str = "https://hokus.ai/attestation/prereg/v1";
}

/// An attempt of a family, and its share of α: 6α/(π² t²).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SpentLevel {
    /// What the family may spend.
    pub alpha_ppm: String,
    /// Attempts family.
    pub family: String,
    /// Level of this attempt.
    pub level_e12: String,
    /// Its number, from 1.
    pub number: i64,
}

/// A sealed benchmark, by what binds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SealedBenchmark {
    /// Contract that its rows passed.
    pub contract_digest: String,
    /// Commitment to the labels, hex.
    pub label_commitment: String,
    /// `NAME@VERSION`.
    pub name: String,
    /// What binds the rows.
    pub rows: SealedRows,
}

/// A candidate and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Candidate {
    /// Root over the rows that it was trained on, hex; left out when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_root: Option<String>,
    /// How many they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_rows: Option<i64>,
    /// SHA-256 of its artefact, hex; the subject's digest.
    pub digest: String,
    /// What binds the contributions that the rows come from; left out when they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipts: Option<Receipts>,
    /// Digest of its recipe, hex.
    pub recipe_digest: String,
    /// Run that made it.
    pub run_id: String,
}

/// Attested receipts, by what binds all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipts {
    /// How many they are.
    pub count: i64,
    /// RFC 6962 root over the sorted leaf hashes of their statements, hex.
    pub root: String,
}

/// How much worse a candidate may look before it counts as worse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Margin {
    /// The margin.
    pub margin_ppm: String,
    /// Metric or stratum.
    pub name: String,
}

/// The outcome of an attempt. The subject is the candidate's artefact. A superset of the fields of in-toto's proposed eval-result
/// v0.2: see [`super::eval_result`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Outcome {
    /// Who vouches for it.
    pub assurance_level: String,
    /// Which attempt it was, and what it has spent.
    pub attempt: SpentLevel,
    /// What the candidate was compared with.
    pub baseline: NamedArtefact,
    /// The sealed rows.
    pub benchmark: SealedBenchmark,
    /// What was to be shown to be better.
    pub candidate: Candidate,
    /// What was claimed of it: one claim.
    pub claims: Vec<Claim>,
    /// What binds rows and labels.
    pub commitments: Commitments,
    /// When the newest record was appended that an outsider gave for it, the training request: RFC 3339 in whole seconds. No clock is
    /// read, so that the same log gives the same bytes.
    pub evaluated_at: String,
    /// The evaluation.
    pub evaluation_id: String,
    /// Who ran it.
    pub evaluator: Evaluator,
    /// What it rests on: the preregistration, by the digest of its statement.
    pub evidence: Vec<Evidence>,
    /// The program that ran it.
    pub harness: Harness,
    /// The metric that decides.
    pub metric: String,
    /// The candidate as a model.
    pub model: NamedModel,
    /// Its preregistration.
    pub pre_registration: LaidDown,
    /// Reason codes, sorted; empty when it is accepted.
    pub reasons: Vec<String>,
    /// By how much; only when it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<FullRecord>,
    /// Sealed rows.
    pub sample_size: i64,
    /// `accepted`, `refused`, `failed` or `cancelled`.
    pub status: String,
    /// What the subject is.
    pub subject_profile: String,
    /// The sealed rows, as a suite.
    pub suite: Suite,
    /// Salted digest of the full record, hex: it is kept for the benchmark's owner. Only when it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

impl Outcome {
    /// URI of the type.
    pub const TYPE: &'static str = "https://hokus.ai/attestation/evaluation/v1";
}

/// A preregistration in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    /// Its index.
    pub index: u64,
    /// Its leaf hash, hex.
    pub leaf: String,
    /// What it lays down.
    pub said: Preregistration,
}

/// A seal in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its index.
    pub index: u64,
    /// Model.
    pub model: String,
    /// `NAME@VERSION`.
    pub benchmark: String,
    /// Attempts family.
    pub family: String,
    /// What it fixes.
    pub facts: SealFacts,
}

impl SpentLevel {
    /// Whether the level is that of the number: see [`attempt_level_e12`].
    #[must_use]
    pub fn is_of_its_number(&self) -> bool {
        let alpha = self.alpha_ppm.parse::<u32>().ok().filter(|ppm| ppm.to_string() == self.alpha_ppm);
        let level = alpha.zip(u64::try_from(self.number).ok());
        level.is_some_and(|(ppm, number)| {
            attempt_level_e12(f64::from(ppm) / 1e6, number).to_string() == self.level_e12 && self.level_e12 != "0"
        })
    }
}

impl Preregistration {
    /// Whether the benchmark is the one that was sealed under its name: rows, labels, contract, family and strata.
    ///
    /// # Errors
    /// What is missing, late or something else.
    pub fn is_sealed(&self, index: u64, seals: &[Sealed]) -> Result<u64, String> {
        let name = &self.benchmark.name;
        let own = seals.iter().find(|own| own.model == self.model && own.benchmark == *name && own.index < index);
        let own = own.ok_or_else(|| format!("no seal of {}/{name} stands in the log before {index}", self.model))?;
        let mut strata: Vec<&String> = self.strata.iter().map(|stratum| &stratum.name).collect();
        let mut sealed: Vec<&String> = own.facts.strata.iter().collect();
        strata.sort_unstable();
        sealed.sort_unstable();
        let (facts, said) = (&own.facts, &self.benchmark);
        let same = [
            ("family", own.family == self.attempt.family),
            ("rows", facts.rows == said.rows),
            ("label commitment", facts.label_commitment == said.label_commitment),
            ("contract", facts.contract_digest == said.contract_digest),
            ("strata", strata == sealed),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            None => Ok(own.index),
            Some((what, _)) => {
                Err(format!("another {what} than {}/{name} was sealed with at {}", self.model, own.index))
            }
        }
    }
}

impl Outcome {
    /// Whether the outcome is of what was laid down: attempt, models, benchmark, metric and minimum effect.
    #[must_use]
    pub fn is_of(&self, laid: &Preregistration) -> bool {
        let same = (&laid.attempt, &laid.baseline, &laid.benchmark, &laid.candidate, &laid.metric, &laid.model)
            == (&self.attempt, &self.baseline, &self.benchmark, &self.candidate, &self.metric, &self.model.name);
        let least = laid.minimum_effect_ppm.parse::<i64>().ok();
        same && laid.evaluation_id == self.evaluation_id && least.is_some() && self.threshold_ppm() == least
    }

    /// Whether the attempt was laid down before its outcome, on a benchmark that was sealed before, and is the attempt that it says, among
    /// all of its family in the log.
    ///
    /// # Errors
    /// What is missing, late, miscounted or something else.
    pub fn follows(&self, index: u64, laid: &[Laid], seals: &[Sealed]) -> Result<String, String> {
        let Some(own) = laid.iter().find(|own| own.leaf == self.pre_registration.value) else {
            return Err("its preregistration does not stand in the log".to_owned());
        };
        if !self.is_of(&own.said) {
            return Err(format!(
                "the preregistration at {} is of another attempt: its number, models, benchmark, metric or minimum effect",
                own.index
            ));
        }
        if own.index >= index {
            return Err(format!("its preregistration stands at {}, not before {index}", own.index));
        }
        let sealed = own.said.is_sealed(own.index, seals)?;
        let attempt = &own.said.attempt;
        let of_family = laid.iter().filter(|other| other.said.attempt.family == attempt.family);
        let until: Vec<&SpentLevel> =
            of_family.filter(|other| other.index <= own.index).map(|other| &other.said.attempt).collect();
        if until.iter().any(|other| other.alpha_ppm != attempt.alpha_ppm) || !attempt.is_of_its_number() {
            return Err(format!("attempt {} spends another level than its family's α gives it", attempt.number));
        }
        let mut before: Vec<i64> = until.into_iter().map(|other| other.number).collect();
        before.sort_unstable();
        let counted = i64::try_from(before.len()).unwrap_or(i64::MAX);
        if before.iter().zip(1..).any(|(number, due)| *number != due) || attempt.number != counted {
            return Err(format!("it says attempt {}, and the log has {counted} of its family", attempt.number));
        }
        Ok(format!("laid down at {}, attempt {counted} of its family, recounted; sealed at {sealed}", own.index))
    }
}

/// The salt of a withheld record: who has the tenant's tree key can open it.
#[must_use]
pub fn salt(tree_key: &MacKey, evaluation_id: &str) -> [u8; 16] {
    tree_key.digest128(&[SALT, evaluation_id.as_bytes()])
}

/// Binds a record that is withheld: without the salt nobody can try figures until they fit.
#[must_use]
pub fn withheld(salt: &[u8; 16], record: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(RECORD);
    hasher.update(salt);
    hasher.update(record);
    data_encoding::HEXLOWER.encode(&hasher.finalize())
}

#[cfg(test)]
#[path = "evaluation_tests.rs"]
pub(crate) mod tests;

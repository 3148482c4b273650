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

use super::benchmark::SealedRows;
use super::decision::NamedArtefact;
use super::jcs::{self, JcsError};
use super::samples::SampledRows;
use crate::domain::keys::MacKey;

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
    /// Digest of its recipe, hex.
    pub recipe_digest: String,
    /// Run that made it.
    pub run_id: String,
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

/// The outcome of an attempt. The subject is the candidate's artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Outcome {
    /// Which attempt it was, and what it has spent.
    pub attempt: SpentLevel,
    /// What the candidate was compared with.
    pub baseline: NamedArtefact,
    /// The sealed rows.
    pub benchmark: SealedBenchmark,
    /// What was to be shown to be better.
    pub candidate: Candidate,
    /// The evaluation.
    pub evaluation_id: String,
    /// The metric that decides.
    pub metric: String,
    /// Model.
    pub model: String,
    /// Leaf hash of its preregistration, hex.
    pub preregistration: String,
    /// Reason codes, sorted; empty when it is accepted.
    pub reasons: Vec<String>,
    /// By how much; only when it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<FullRecord>,
    /// `accepted`, `refused`, `failed` or `cancelled`.
    pub status: String,
    /// Salted digest of the full record, hex: it is kept for the benchmark's owner. Only when it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

impl Outcome {
    /// URI of the type.
    pub const TYPE: &'static str = "https://hokus.ai/attestation/evaluation/v1";
}

/// All figures of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FullRecord {
    /// Rows by who was right; of a classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<RightCounts>,
    /// Lower bound of the primary metric's improvement at the attempt's level; left out without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_ppm: Option<String>,
    /// Every metric of the task that is defined on the rows, in a fixed order.
    pub metrics: Vec<MetricFacts>,
    /// Rows.
    pub n: i64,
    /// Reason codes, each with what it concerns; empty when it is accepted.
    pub reasons: Vec<ReasonFacts>,
    /// What binds each row's label and scores; left out in records that were made before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<SampledRows>,
    /// The primary metric by stratum.
    pub strata: Vec<StratumFacts>,
}

/// Rows by who was right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RightCounts {
    /// The baseline alone was right.
    pub baseline_only: i64,
    /// The candidate alone was right.
    pub candidate_only: i64,
}

/// A metric of both models, rounded against the candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MetricFacts {
    /// The baseline's value.
    pub baseline_ppm: String,
    /// The candidate's value.
    pub candidate_ppm: String,
    /// The improvement, positive = better.
    pub delta_ppm: String,
    /// 95 % bootstrap interval of the improvement, rounded outwards; left out when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ppm: Option<[String; 2]>,
    /// Lower bound of the improvement, one-sided at 5 %; left out when it is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_ppm: Option<String>,
    /// The metric.
    pub name: String,
    /// One-sided p of the deciding method; left out when it is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_e9: Option<String>,
    /// One-sided p by exchanging rows; left out when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permutation_p_e9: Option<String>,
}

/// A reason with what it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonFacts {
    /// The code.
    pub code: String,
    /// Guardrail or stratum; empty for the attempt itself.
    pub subject: String,
}

/// The primary metric in one stratum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StratumFacts {
    /// The improvement, rounded down.
    pub delta_ppm: String,
    /// Its lower bound, one-sided at 5 %.
    pub lower_ppm: String,
    /// By how much it may be worse.
    pub margin_ppm: String,
    /// The stratum.
    pub name: String,
    /// Its rows.
    pub n: i64,
    /// Holm's adjusted p of "better in this stratum"; left out when it is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_e9: Option<String>,
    /// Whether it is shown not to be worse.
    pub passed: bool,
}

impl FullRecord {
    /// The record as canonical JSON.
    ///
    /// # Errors
    /// A text without canonical form; these have one.
    pub fn to_canonical(&self) -> Result<Vec<u8>, JcsError> {
        jcs::to_canonical(self)
    }
}

/// A preregistration in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    /// Its index.
    pub index: u64,
    /// Its leaf hash, hex.
    pub leaf: String,
    /// The attempt.
    pub attempt: SpentLevel,
    /// The evaluation.
    pub evaluation_id: String,
}

impl Outcome {
    /// Whether the attempt was laid down before its outcome, and is the attempt that it says, among all of its family in the log.
    ///
    /// # Errors
    /// What is missing, late or miscounted.
    pub fn follows(&self, index: u64, laid: &[Laid]) -> Result<String, String> {
        let Some(own) = laid.iter().find(|own| own.leaf == self.preregistration) else {
            return Err("its preregistration does not stand in the log".to_owned());
        };
        if own.evaluation_id != self.evaluation_id || own.attempt != self.attempt {
            return Err(format!("the preregistration at {} is of another attempt", own.index));
        }
        if own.index >= index {
            return Err(format!("its preregistration stands at {}, not before {index}", own.index));
        }
        let of_family = laid.iter().filter(|other| other.attempt.family == own.attempt.family);
        let mut before: Vec<i64> =
            of_family.filter(|other| other.index <= own.index).map(|other| other.attempt.number).collect();
        before.sort_unstable();
        let counted = i64::try_from(before.len()).unwrap_or(i64::MAX);
        if before.iter().zip(1..).any(|(number, due)| *number != due) || own.attempt.number != counted {
            return Err(format!("it says attempt {}, and the log has {counted} of its family", own.attempt.number));
        }
        Ok(format!("laid down at {}, attempt {counted} of its family, recounted", own.index))
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
pub(crate) mod tests {
    use super::super::benchmark::BENCHMARK_TREE;
    use super::*;

    /// A preregistration with every field.
    pub fn preregistration() -> Preregistration {
        let margin = |name: &str| Margin { margin_ppm: "10000".to_owned(), name: name.to_owned() };
        Preregistration {
            attempt: SpentLevel {
                alpha_ppm: "50000".to_owned(),
                family: "01".repeat(32),
                level_e12: "30396355092".to_owned(),
                number: 1,
            },
            baseline: NamedArtefact { digest: "02".repeat(32), version: "1.0.0".to_owned() },
            benchmark: SealedBenchmark {
                contract_digest: "03".repeat(32),
                label_commitment: "04".repeat(32),
                name: "holdout@1".to_owned(),
                rows: SealedRows { leaf_alg: BENCHMARK_TREE.to_owned(), n: 500, root: "01".repeat(32) },
            },
            candidate: Candidate {
                dataset_root: Some("05".repeat(32)),
                dataset_rows: Some(1_000),
                digest: "06".repeat(32),
                recipe_digest: "07".repeat(32),
                run_id: "run".to_owned(),
            },
            contract_digest: "03".repeat(32),
            evaluation_id: "e".to_owned(),
            guardrails: vec![margin("brier")],
            metric: "auroc".to_owned(),
            minimum_effect_ppm: "5000".to_owned(),
            model: "m".to_owned(),
            replicates: 2_000,
            seed: "08".repeat(32),
            strata: vec![margin("plan=basic")],
            test: "delong".to_owned(),
        }
    }

    /// The outcome of the same attempt.
    pub fn outcome() -> Outcome {
        let Preregistration { attempt, baseline, benchmark, candidate, evaluation_id, metric, model, .. } =
            preregistration();
        Outcome {
            attempt,
            baseline,
            benchmark,
            candidate,
            evaluation_id,
            metric,
            model,
            preregistration: "09".repeat(32),
            reasons: vec!["NOT_SIGNIFICANT".to_owned()],
            record: None,
            status: "refused".to_owned(),
            withheld: Some("0a".repeat(32)),
        }
    }

    fn laid(index: u64, leaf: u8, number: i64) -> Laid {
        let attempt = SpentLevel { number, ..preregistration().attempt };
        Laid { index, leaf: format!("{leaf:02x}").repeat(32), attempt, evaluation_id: "e".to_owned() }
    }

    #[test]
    fn an_outcome_follows_only_its_own_preregistration_and_attempts_are_recounted() {
        let outcome = outcome();
        assert!(outcome.follows(8, &[laid(5, 9, 1)]).is_ok());
        let other_family =
            Laid { attempt: SpentLevel { family: "ff".repeat(32), ..laid(2, 1, 1).attempt }, ..laid(2, 1, 1) };
        assert!(outcome.follows(8, &[other_family, laid(5, 9, 1), laid(7, 2, 2)]).is_ok());
        for (bad, problem) in [
            (vec![], "does not stand in the log"),
            (vec![laid(5, 8, 1)], "does not stand in the log"),
            (vec![laid(8, 9, 1)], "not before 8"),
            (vec![laid(9, 9, 1)], "not before 8"),
            (vec![laid(5, 9, 2)], "another attempt"),
            (vec![Laid { evaluation_id: "f".to_owned(), ..laid(5, 9, 1) }], "another attempt"),
            (vec![laid(3, 7, 1), laid(5, 9, 1)], "the log has 2"),
        ] {
            let found = outcome.follows(8, &bad).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }

    #[test]
    fn a_withheld_record_is_bound_by_its_salt_and_by_every_byte() {
        let salted = |key: u8, id: &str, record: &[u8]| withheld(&salt(&MacKey::new(&[key; 32], ""), id), record);
        let all = [salted(1, "e", b"{}"), salted(2, "e", b"{}"), salted(1, "f", b"{}"), salted(1, "e", b"{ }")];
        assert!((1..4).all(|at| all[at] != all[0]) && all[0].len() == 64);
    }
}

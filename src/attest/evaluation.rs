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
pub(crate) mod tests {
    use super::super::benchmark::BENCHMARK_TREE;
    use super::super::eval_result::{
        AT_LEAST, Commitment, LABELS, RELEASE_GATE, SELF_ATTESTED, Sha256Digest, claim_of,
    };
    use super::super::figures::MetricFacts;
    use super::super::statement::PAYLOAD_TYPE;
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
                receipts: Some(Receipts { count: 3, root: "0b".repeat(32) }),
                digest: "06".repeat(32),
                recipe_digest: "07".repeat(32),
                run_id: "run".to_owned(),
            },
            comparator: AT_LEAST.to_owned(),
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
        let commitment =
            |alg: &str, value: &String| Commitment { alg: alg.to_owned(), salted: true, value: value.clone() };
        let sha256 = |byte: &str| Sha256Digest { sha256: byte.repeat(32) };
        Outcome {
            assurance_level: SELF_ATTESTED.to_owned(),
            claims: vec![Claim {
                comparator: AT_LEAST.to_owned(),
                metric: claim_of(&metric),
                passed: false,
                threshold: "0.005000".to_owned(),
            }],
            commitments: Commitments {
                dataset: commitment(BENCHMARK_TREE, &benchmark.rows.root),
                labels: commitment(LABELS, &benchmark.label_commitment),
            },
            evaluated_at: "2023-11-14T22:13:20Z".to_owned(),
            evaluator: Evaluator::of(&"0c".repeat(32)),
            evidence: vec![Evidence {
                digest: sha256("0d"),
                media_type: PAYLOAD_TYPE.to_owned(),
                name: "preregistration".to_owned(),
            }],
            harness: Harness { digest: sha256("0e"), name: "hokusai".to_owned(), version: "0.1.0".to_owned() },
            model: NamedModel { digest: Sha256Digest { sha256: candidate.digest.clone() }, name: model },
            sample_size: benchmark.rows.n,
            subject_profile: RELEASE_GATE.to_owned(),
            suite: Suite { name: "holdout".to_owned(), version: "1".to_owned() },
            attempt,
            baseline,
            benchmark,
            candidate,
            evaluation_id,
            metric,
            pre_registration: LaidDown::leaf("09".repeat(32)),
            reasons: vec!["NOT_SIGNIFICANT".to_owned()],
            record: None,
            status: "refused".to_owned(),
            withheld: Some("0a".repeat(32)),
        }
    }

    fn laid(index: u64, leaf: u8, number: i64) -> Laid {
        let attempt = SpentLevel { number, ..preregistration().attempt };
        Laid { index, leaf: format!("{leaf:02x}").repeat(32), said: Preregistration { attempt, ..preregistration() } }
    }

    fn sealed(index: u64) -> Sealed {
        let Preregistration { attempt, benchmark, model, .. } = preregistration();
        let facts = SealFacts {
            collision_rate_ppm: "0".to_owned(),
            contract_digest: benchmark.contract_digest,
            label_commitment: benchmark.label_commitment,
            match_filter: "00".repeat(32),
            merged: Vec::new(),
            rows: benchmark.rows,
            sealed_rows: "00".repeat(32),
            strata: vec!["plan=basic".to_owned()],
            strata_deviation_ppm: None,
            strata_margin_ppm: None,
        };
        Sealed { index, model, benchmark: benchmark.name, family: attempt.family, facts }
    }

    /// The preregistration of the outcome, changed.
    fn other(change: impl FnOnce(&mut Preregistration)) -> Vec<Laid> {
        let mut own = laid(5, 9, 1);
        change(&mut own.said);
        vec![own]
    }

    #[test]
    fn an_outcome_follows_only_its_own_preregistration_and_attempts_are_recounted() {
        let outcome = outcome();
        let seals = [sealed(1)];
        assert!(outcome.follows(8, &[laid(5, 9, 1)], &seals).is_ok());
        let mut other_family = laid(2, 1, 1);
        other_family.said.attempt.family = "ff".repeat(32);
        assert!(outcome.follows(8, &[other_family, laid(5, 9, 1), laid(7, 2, 2)], &seals).is_ok());
        for (bad, problem) in [
            (vec![], "does not stand in the log"),
            (vec![laid(5, 8, 1)], "does not stand in the log"),
            (vec![laid(8, 9, 1)], "not before 8"),
            (vec![laid(9, 9, 1)], "not before 8"),
            (vec![laid(5, 9, 2)], "another attempt"),
            (other(|said| said.evaluation_id = "f".to_owned()), "another attempt"),
            (other(|said| said.metric = "accuracy".to_owned()), "another attempt"),
            (other(|said| said.minimum_effect_ppm = "4999".to_owned()), "another attempt"),
            (other(|said| said.minimum_effect_ppm = "x".to_owned()), "another attempt"),
            (other(|said| said.candidate.digest = "ff".repeat(32)), "another attempt"),
            (other(|said| said.baseline.digest = "ff".repeat(32)), "another attempt"),
            (other(|said| said.benchmark.name = "easy@1".to_owned()), "another attempt"),
            (other(|said| said.strata.clear()), "another strata than"),
            (vec![laid(3, 7, 1), laid(5, 9, 1)], "the log has 2"),
        ] {
            let found = outcome.follows(8, &bad, &seals).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
        type Change = fn(&mut Sealed);
        let seals: [(&str, Change); 7] = [
            ("no seal", |own| own.index = 5),
            ("no seal", |own| own.model = "n".to_owned()),
            ("another family", |own| own.family = "ff".repeat(32)),
            ("another rows", |own| own.facts.rows.n = 499),
            ("another label commitment", |own| own.facts.label_commitment = "ff".repeat(32)),
            ("another contract", |own| own.facts.contract_digest = "ff".repeat(32)),
            ("another strata", |own| own.facts.strata.push("plan=gold".to_owned())),
        ];
        for (problem, change) in seals {
            let mut own = sealed(1);
            change(&mut own);
            let found = outcome.follows(8, &[laid(5, 9, 1)], &[own]).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }

    #[test]
    fn an_attempt_spends_the_level_of_its_number_and_of_its_familys_alpha() {
        let of = |alpha: &str, number, level: &str| SpentLevel {
            alpha_ppm: alpha.to_owned(),
            level_e12: level.to_owned(),
            number,
            ..preregistration().attempt
        };
        assert!(of("50000", 1, "30396355092").is_of_its_number());
        assert!(of("50000", 40, "18997721").is_of_its_number());
        for (alpha, number, level) in [
            ("50000", 40, "30396355092"),
            ("050000", 1, "30396355092"),
            ("50000", 0, "0"),
            ("50000", -1, "30396355092"),
            ("1000000", 1, "607927101854"),
            ("x", 1, "30396355092"),
            ("50000", i64::MAX, "0"),
        ] {
            assert!(!of(alpha, number, level).is_of_its_number(), "{alpha} {number} {level}");
        }
        let mut dearer = laid(5, 9, 1);
        dearer.said.attempt.level_e12 = "30396355093".to_owned();
        let mut told = outcome();
        told.attempt = dearer.said.attempt.clone();
        assert!(told.follows(8, &[dearer], &[sealed(1)]).unwrap_err().contains("another level"));
    }

    #[test]
    fn what_an_outcome_says_twice_it_says_the_same() {
        assert_eq!(outcome().restated(), Ok(()));
        type Change = fn(&mut Outcome);
        let changes: [(&str, Change); 10] = [
            ("assuranceLevel", |own| own.assurance_level = "reproduced".to_owned()),
            ("claims", |own| own.claims.clear()),
            ("claims", |own| own.claims[0].passed = true),
            ("claims", |own| own.claims[0].metric = claim_of("brier")),
            ("commitments.dataset", |own| own.commitments.dataset.value = "ff".repeat(32)),
            ("commitments.labels", |own| own.commitments.labels.salted = false),
            ("model", |own| own.model.digest.sha256 = "ff".repeat(32)),
            ("sampleSize", |own| own.sample_size += 1),
            ("subjectProfile", |own| own.subject_profile = "receipt".to_owned()),
            ("suite", |own| own.suite.version = "2".to_owned()),
        ];
        for (field, change) in changes {
            let mut changed = outcome();
            change(&mut changed);
            assert_eq!(changed.restated(), Err(field));
        }
    }

    #[test]
    fn who_is_accepted_shows_figures_that_suffice_and_who_is_not_shows_none() {
        assert!(outcome().earns_its_status().is_ok());
        let facts = MetricFacts {
            baseline_bps: Some(7_300),
            baseline_ppm: "730000".to_owned(),
            candidate_bps: Some(7_350),
            candidate_ppm: "735000".to_owned(),
            delta_ppm: "5000".to_owned(),
            interval_ppm: None,
            lower_ppm: None,
            name: "auroc".to_owned(),
            p_e9: Some("30396355".to_owned()),
            permutation_p_e9: None,
        };
        let record = FullRecord {
            calibration: None,
            counts: None,
            lower_ppm: Some("1".to_owned()),
            metrics: vec![facts],
            n: 500,
            reasons: Vec::new(),
            samples: None,
            strata: Vec::new(),
        };
        let accepted = Outcome {
            status: "accepted".to_owned(),
            reasons: Vec::new(),
            record: Some(record),
            withheld: None,
            ..outcome()
        };
        assert!(accepted.earns_its_status().is_ok(), "{:?}", accepted.earns_its_status());
        fn figures(own: &mut Outcome) -> &mut MetricFacts {
            &mut own.record.as_mut().unwrap().metrics[0]
        }
        let changes: [fn(&mut Outcome); 13] = [
            |own| own.record = None,
            |own| own.reasons.push("GUARDRAIL".to_owned()),
            |own| own.withheld = Some(String::new()),
            |own| own.metric = "brier".to_owned(),
            |own| own.claims[0].threshold = "0.005001".to_owned(),
            |own| own.claims[0].threshold = "0.005".to_owned(),
            |own| figures(own).delta_ppm = "4999".to_owned(),
            |own| figures(own).p_e9 = Some("30396357".to_owned()),
            |own| figures(own).p_e9 = Some("-5".to_owned()),
            |own| figures(own).p_e9 = Some(i128::MIN.to_string()),
            |own| figures(own).p_e9 = Some("1000000001".to_owned()),
            |own| own.attempt.number = 40,
            |own| own.attempt.level_e12 = "30396354000".to_owned(),
        ];
        for (place, change) in changes.into_iter().enumerate() {
            let mut changed = accepted.clone();
            change(&mut changed);
            assert!(changed.earns_its_status().is_err(), "{place}");
        }
        assert!(Outcome { reasons: Vec::new(), ..outcome() }.earns_its_status().is_err());
        assert!(Outcome { record: accepted.record, ..outcome() }.earns_its_status().is_err());
    }

    #[test]
    fn a_withheld_record_is_bound_by_its_salt_and_by_every_byte() {
        let salted = |key: u8, id: &str, record: &[u8]| withheld(&salt(&MacKey::new(&[key; 32], ""), id), record);
        let all = [salted(1, "e", b"{}"), salted(2, "e", b"{}"), salted(1, "f", b"{}"), salted(1, "e", b"{ }")];
        assert!((1..4).all(|at| all[at] != all[0]) && all[0].len() == 64);
    }
}

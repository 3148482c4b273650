//! What is fixed before any score is computed: how candidate and baseline are compared, as a pure function of the contract and the seal.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attest::benchmark::BENCHMARK_TREE;
use crate::attest::benchmark::SealedRows;
use crate::attest::decision::NamedArtefact;
use crate::attest::eval_result::{
    AT_LEAST, Claim, Commitment, Commitments, Evaluator, Evidence, Harness, LABELS, LaidDown, NamedModel, RELEASE_GATE,
    SELF_ATTESTED, Sha256Digest, Suite, claim_of,
};
use crate::attest::evaluation::{Candidate, Margin, Outcome, Preregistration, Receipts, SealedBenchmark, SpentLevel};
use crate::attest::receipt::seconds;
use crate::attest::statement::{PAYLOAD_TYPE, Predicate, Statement, StatementError, Subject};
use crate::domain::contract::Spec;
use crate::domain::records::{Benchmark, Evaluation as Record, EvaluationAttempt, Model};
use crate::stages::beside::Refusal;
use crate::stats::bootstrap::REPLICATES;
use crate::stats::declare::{Declared, declared};
use crate::stats::fixed::micro_string;
use crate::stats::metric::Metric;
use crate::stats::multiplicity::attempt_level_e12;

/// What all attempts of a family may spend together, in millionths.
pub const ALPHA_PPM: i64 = 50_000;

/// An attempt that was counted, with every fact that its scoring rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Attempts family, hex.
    pub family: String,
    /// Its number, from 1.
    pub number: u64,
    /// The evaluation.
    pub evaluation_id: String,
    /// What was asked for.
    pub attempt: EvaluationAttempt,
    /// The seal.
    pub benchmark: Benchmark,
    /// The contract, canonical JSON.
    pub spec: String,
    /// Primary metric.
    pub metric: String,
    /// The least improvement worth accepting, in millionths of the metric's unit.
    #[serde(default)]
    pub minimum_effect: i64,
    /// Leaf hash of its preregistration, hex.
    pub preregistration: String,
    /// SHA-256 of its preregistration's statement, hex.
    #[serde(default)]
    pub preregistered: String,
}

/// Names of strata, each with the margin by which the primary metric may be worse there, in millionths.
pub type Margins = Vec<(String, Option<i64>)>;

/// How the two are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What the contract declares.
    pub declared: Declared,
    /// By column of strata: its frozen strata, each with its margin.
    pub columns: Vec<(String, Margins)>,
}

fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

/// How a contract and a seal want candidates compared.
///
/// # Errors
/// A contract that does not say how, or strata that the benchmark does not have.
pub fn plan(spec: &Spec, benchmark: &Benchmark) -> Result<Plan, Refusal> {
    let Some(said) = &spec.evaluation else {
        let help = "help: add it (primary metric, minimumEffect, margins) and `hokusai model apply`";
        return refuse(
            "NO_EVALUATION",
            format!("the contract has no section `evaluation` that says how candidates are compared; {help}"),
        );
    };
    let declared = declared(said).or_else(|e| refuse("BAD_CONTRACT", e))?;
    let mut columns = Vec::with_capacity(declared.strata.len());
    for (column, margin) in &declared.strata {
        let of = |stratum: &&String| stratum.split_once('=').is_some_and(|(name, _)| name == column);
        let strata: Vec<_> = benchmark.strata.iter().filter(of).map(|name| (name.clone(), *margin)).collect();
        if strata.is_empty() {
            let help = format!("help: seal the next version with --strata {column}");
            return refuse(
                "STRATA_NOT_SEALED",
                format!("{} has no strata of {column}, which the contract protects; {help}", benchmark.benchmark),
            );
        }
        columns.push((column.clone(), strata));
    }
    Ok(Plan { declared, columns })
}

/// The facts that a request's names stand for.
///
/// # Errors
/// What the model does not have, or what does not fit together.
pub fn facts(
    attempt: &EvaluationAttempt,
    family: &str,
    model: Option<&Model>,
) -> Result<(Benchmark, String, Plan), Refusal> {
    let Some(model) = model else { return refuse("UNKNOWN_MODEL", "there is no such model") };
    let Some(benchmark) = model.benchmarks.iter().find(|known| known.benchmark == attempt.benchmark) else {
        return refuse("UNKNOWN_BENCHMARK", "the model has no such benchmark; help: `hokusai benchmark list`");
    };
    if benchmark.family != family {
        return refuse("OTHER_FAMILY", "the benchmark is of another attempts family than the request says");
    }
    let contract = model.contracts.iter().find(|contract| contract.digest == attempt.contract_digest);
    let Some(contract) = contract else { return refuse("UNKNOWN_CONTRACT", "the model never had that contract") };
    let spec = Spec::from_canonical_json(&contract.spec).or_else(|e| refuse("BAD_CONTRACT", e))?;
    let plan = plan(&spec, benchmark)?;
    Ok((benchmark.clone(), contract.spec.clone(), plan))
}

/// What a family may spend.
#[must_use]
pub fn alpha() -> f64 {
    ALPHA_PPM as f64 / 1e6
}

/// The level of an attempt in 10⁻¹², rounded down.
#[must_use]
pub fn level_e12(number: u64) -> i128 {
    attempt_level_e12(alpha(), number)
}

/// The same as a decimal string.
#[must_use]
pub fn level_string(number: u64) -> String {
    format!("0.{:012}", level_e12(number))
}

/// Seed of what is resampled: it follows from the evaluation and the rows.
#[must_use]
pub fn seed(case: &Case) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"hokusai evaluation seed\0");
    hasher.update(&case.evaluation_id);
    hasher.update([0]);
    hasher.update(&case.benchmark.rows_root);
    hasher.finalize().into()
}

/// Name of the test that decides by a metric.
#[must_use]
pub fn test_of(metric: &Metric) -> &'static str {
    match metric {
        Metric::Accuracy | Metric::F1Micro => "mcnemar_exact",
        Metric::Auroc => "delong",
        Metric::LogLoss | Metric::Brier | Metric::Mae | Metric::Mse | Metric::Custom(_) => "paired_t",
        Metric::F1 | Metric::F1Macro | Metric::Precision | Metric::Recall | Metric::Rmse | Metric::R2 => "delta_method",
    }
}

impl Case {
    fn level(&self) -> SpentLevel {
        SpentLevel {
            alpha_ppm: ALPHA_PPM.to_string(),
            family: self.family.clone(),
            level_e12: level_e12(self.number).to_string(),
            number: i64::try_from(self.number).unwrap_or(i64::MAX),
        }
    }

    fn baseline(&self) -> NamedArtefact {
        NamedArtefact { digest: self.attempt.baseline.digest.clone(), version: self.attempt.baseline_version.clone() }
    }

    fn candidate(&self) -> Candidate {
        let dataset = self.attempt.dataset.as_ref();
        Candidate {
            dataset_root: dataset.map(|dataset| dataset.digest.clone()),
            dataset_rows: dataset.map(|dataset| dataset.rows),
            digest: self.attempt.candidate.digest.clone(),
            receipts: dataset
                .filter(|dataset| !dataset.contributions_root.is_empty())
                .map(|dataset| Receipts { count: dataset.contributions, root: dataset.contributions_root.clone() }),
            recipe_digest: self.attempt.recipe_digest.clone(),
            run_id: self.attempt.run_id.clone(),
        }
    }

    fn sealed(&self) -> SealedBenchmark {
        let Benchmark { contract_digest, label_commitment, benchmark, rows, rows_root, .. } = self.benchmark.clone();
        SealedBenchmark {
            contract_digest,
            label_commitment,
            name: benchmark,
            rows: SealedRows { leaf_alg: BENCHMARK_TREE.to_owned(), n: rows, root: rows_root },
        }
    }

    fn statement(&self, predicate: Predicate) -> Result<Vec<u8>, StatementError> {
        let name = format!("{} evaluation {}", self.attempt.model, self.evaluation_id);
        let digest = data_encoding::HEXLOWER.decode(self.attempt.candidate.digest.as_bytes()).unwrap_or_default();
        Statement { subject: Subject::new(name, "sha256", &digest), predicate }.payload()
    }

    /// What is laid down before any score of the attempt is computed: the statement's bytes.
    ///
    /// # Errors
    /// A text without canonical form.
    pub fn preregister(&self, plan: &Plan) -> Result<Vec<u8>, StatementError> {
        let margin = |name: &str, margin: Option<i64>| Margin {
            margin_ppm: margin.unwrap_or(0).to_string(),
            name: name.to_owned(),
        };
        let guardrails = plan.declared.guardrails.iter();
        let strata = plan.columns.iter().flat_map(|(_, strata)| strata);
        let laid = Preregistration {
            attempt: self.level(),
            baseline: self.baseline(),
            benchmark: self.sealed(),
            candidate: self.candidate(),
            comparator: AT_LEAST.to_owned(),
            contract_digest: self.attempt.contract_digest.clone(),
            evaluation_id: self.evaluation_id.clone(),
            guardrails: guardrails.map(|(metric, own)| margin(plan.declared.name(metric), *own)).collect(),
            metric: plan.declared.name(&plan.declared.primary).to_owned(),
            minimum_effect_ppm: plan.declared.minimum_effect.to_string(),
            model: self.attempt.model.clone(),
            replicates: i64::try_from(REPLICATES).unwrap_or(i64::MAX),
            seed: data_encoding::HEXLOWER.encode(&seed(self)),
            strata: strata.map(|(name, own)| margin(name, *own)).collect(),
            test: test_of(&plan.declared.primary).to_owned(),
        };
        self.statement(Predicate::Preregistration(Box::new(laid)))
    }

    /// The outcome: the statement's bytes. `evaluator` is the id of the stage's key, `said` fills in what came of it.
    ///
    /// # Errors
    /// A text without canonical form.
    pub fn conclude(&self, evaluator: &str, said: impl FnOnce(&mut Outcome)) -> Result<Vec<u8>, StatementError> {
        let (benchmark, candidate) = (self.sealed(), self.candidate());
        let commitment =
            |alg: &str, value: &String| Commitment { alg: alg.to_owned(), salted: true, value: value.clone() };
        let (name, version) = benchmark.name.rsplit_once('@').unwrap_or((&benchmark.name, ""));
        let evidence = (!self.preregistered.is_empty()).then(|| Evidence {
            digest: Sha256Digest { sha256: self.preregistered.clone() },
            media_type: PAYLOAD_TYPE.to_owned(),
            name: "preregistration".to_owned(),
        });
        let mut outcome = Outcome {
            assurance_level: SELF_ATTESTED.to_owned(),
            attempt: self.level(),
            baseline: self.baseline(),
            claims: vec![Claim {
                comparator: AT_LEAST.to_owned(),
                metric: claim_of(&self.metric),
                passed: false,
                threshold: micro_string(i128::from(self.minimum_effect)),
            }],
            commitments: Commitments {
                dataset: commitment(BENCHMARK_TREE, &benchmark.rows.root),
                labels: commitment(LABELS, &benchmark.label_commitment),
            },
            evaluated_at: seconds(self.attempt.requested_at),
            evaluation_id: self.evaluation_id.clone(),
            evaluator: Evaluator::of(evaluator),
            evidence: evidence.into_iter().collect(),
            harness: Harness::own(),
            metric: self.metric.clone(),
            model: NamedModel {
                digest: Sha256Digest { sha256: candidate.digest.clone() },
                name: self.attempt.model.clone(),
            },
            pre_registration: LaidDown::leaf(self.preregistration.clone()),
            reasons: Vec::new(),
            record: None,
            sample_size: benchmark.rows.n,
            status: String::new(),
            subject_profile: RELEASE_GATE.to_owned(),
            suite: Suite { name: name.to_owned(), version: version.to_owned() },
            withheld: None,
            benchmark,
            candidate,
        };
        said(&mut outcome);
        let accepted = outcome.status == Record::ACCEPTED;
        outcome.claims.iter_mut().for_each(|claim| claim.passed = accepted);
        self.statement(Predicate::Evaluation(Box::new(outcome)))
    }
}

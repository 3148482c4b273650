//! What a statement binds before a figure is looked at: preregistration, contract, plan, and the full record.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::folder::{BASELINE, CANDIDATE, CONTRACT, Inputs, PREREGISTRATION, RECORD};
use super::{Mismatch, artefact};
use crate::attest::evaluation::{Outcome as Told, Preregistration};
use crate::attest::figures::FullRecord;
use crate::attest::statement::{Predicate, Statement, leaf_of};
use crate::domain::contract::Spec;
use crate::domain::records::{Artefact, Benchmark, Dataset, Evaluation, EvaluationAttempt};
use crate::stages::evaluation::kept::Kept;
use crate::stages::evaluation::plan::{Case, Plan, plan};

/// The facts of an evaluation, shown to be those of its statement.
#[derive(Debug)]
pub struct Bound {
    /// The contract.
    pub spec: Spec,
    /// How the two are compared.
    pub plan: Plan,
    /// The facts that the scoring rested on.
    pub case: Case,
    /// Every figure, as the statement has or binds them.
    pub record: FullRecord,
}

/// A preregistration with the contract that it follows from.
#[derive(Debug)]
pub struct Laid {
    /// What was laid down.
    pub said: Preregistration,
    /// The contract.
    pub spec: Spec,
    /// The plan.
    pub plan: Plan,
    /// The facts.
    pub case: Case,
}

impl Bound {
    /// Shows preregistration, contract and record to be those of an outcome.
    ///
    /// # Errors
    /// What is not.
    pub fn open(inputs: &Inputs, told: &Told) -> Result<Self, Mismatch> {
        let Laid { said, spec, plan, case } = preregistered(inputs, &laid_down(inputs, told)?)?;
        if !told.is_of(&said) {
            return Err(artefact("the outcome is of another attempt than its preregistration"));
        }
        let record = match (&told.record, &told.withheld) {
            (Some(record), None) => record.clone(),
            (None, Some(withheld)) => disclosed(inputs, told, withheld)?,
            _ => return Err(artefact("the statement has neither a record nor what binds one, or both")),
        };
        Ok(Self { spec, plan, case, record })
    }
}

/// The signed bytes of an outcome's preregistration.
///
/// # Errors
/// They are not among the inputs, or others.
pub fn laid_down(inputs: &Inputs, told: &Told) -> Result<Vec<u8>, Mismatch> {
    let payload = inputs.read(PREREGISTRATION)?;
    let leaf = data_encoding::HEXLOWER.encode(&leaf_of(&payload));
    let named = &told.pre_registration.value;
    if leaf != *named {
        return Err(artefact(format!("{PREREGISTRATION}: leaf {leaf}; the statement names {named}")));
    }
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&payload));
    if told.evidence.iter().any(|evidence| evidence.digest.sha256 != digest) {
        return Err(artefact(format!("{PREREGISTRATION}: SHA-256 {digest}; the statement's evidence is another")));
    }
    Ok(payload)
}

/// The record of a refused attempt, which its benchmark's owner has disclosed.
fn disclosed(inputs: &Inputs, told: &Told, withheld: &str) -> Result<FullRecord, Mismatch> {
    let bytes = inputs.read(RECORD)?;
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| artefact(format!("{RECORD}: line {}", e.line())))?;
    if kept.evaluation_id != told.evaluation_id || kept.withheld().as_deref() != Some(withheld) {
        return Err(artefact(format!("{RECORD}: it is not the record that the statement withholds")));
    }
    Ok(kept.record)
}

/// A preregistration follows from its contract, byte for byte.
///
/// # Errors
/// A contract of another digest, or one that gives another preregistration.
pub fn preregistered(inputs: &Inputs, payload: &[u8]) -> Result<Laid, Mismatch> {
    let wrong = |detail: &dyn std::fmt::Display| artefact(format!("{PREREGISTRATION}: {detail}"));
    let Ok(Statement { predicate: Predicate::Preregistration(said), .. }) = Statement::read(payload) else {
        return Err(wrong(&"it is no preregistration"));
    };
    let text = String::from_utf8(inputs.read(CONTRACT)?).map_err(|_| artefact(format!("{CONTRACT}: not UTF-8")))?;
    let spec = Spec::from_canonical_json(&text).map_err(|e| artefact(format!("{CONTRACT}: {e}")))?;
    let canonical = spec.canonical_json().ok().is_some_and(|canonical| canonical == text);
    if !canonical || spec.contract_digest().ok().as_ref() != Some(&said.contract_digest) {
        return Err(artefact(format!("{CONTRACT}: it is not the contract {}", said.contract_digest)));
    }
    let case = case(&said, text);
    let plan = plan(&spec, &case.benchmark).map_err(|e| artefact(format!("{CONTRACT}: {}: {}", e.code, e.detail)))?;
    let id = Evaluation::id(&said.model, &said.benchmark.name, &said.candidate.recipe_digest);
    if id != said.evaluation_id {
        return Err(wrong(&"its evaluation's id does not follow from model, benchmark and recipe"));
    }
    if case.preregister(&plan).ok().as_deref() != Some(payload) {
        return Err(wrong(&"the contract gives another preregistration: metric, margins, strata, level, test or seed"));
    }
    Ok(Laid { said: *said, spec, plan, case })
}

/// The facts of an attempt, as its preregistration tells them.
fn case(said: &Preregistration, spec: String) -> Case {
    let named = |digest: &String| Artefact { digest: digest.clone(), size: 0, media_type: String::new() };
    let receipts = said.candidate.receipts.as_ref();
    let dataset = said.candidate.dataset_root.clone().map(|digest| Dataset {
        digest,
        rows: said.candidate.dataset_rows.unwrap_or(0),
        contributions: receipts.map_or(0, |own| own.count),
        contributions_root: receipts.map_or_else(String::new, |own| own.root.clone()),
    });
    Case {
        family: said.attempt.family.clone(),
        number: u64::try_from(said.attempt.number).unwrap_or(0),
        evaluation_id: said.evaluation_id.clone(),
        attempt: EvaluationAttempt {
            run_id: said.candidate.run_id.clone(),
            model: said.model.clone(),
            benchmark: said.benchmark.name.clone(),
            contract_digest: said.contract_digest.clone(),
            candidate: named(&said.candidate.digest),
            baseline: named(&said.baseline.digest),
            baseline_version: said.baseline.version.clone(),
            recipe_digest: said.candidate.recipe_digest.clone(),
            dataset,
            ..EvaluationAttempt::default()
        },
        benchmark: Benchmark {
            benchmark: said.benchmark.name.clone(),
            model: said.model.clone(),
            contract_digest: said.benchmark.contract_digest.clone(),
            rows: said.benchmark.rows.n,
            rows_root: said.benchmark.rows.root.clone(),
            family: said.attempt.family.clone(),
            label_commitment: said.benchmark.label_commitment.clone(),
            strata: said.strata.iter().map(|stratum| stratum.name.clone()).collect(),
            ..Benchmark::default()
        },
        spec,
        metric: said.metric.clone(),
        minimum_effect: said.minimum_effect_ppm.parse().unwrap_or(0),
        preregistration: String::new(),
        preregistered: String::new(),
    }
}

/// The models of the inputs are those that a preregistration names; says what was looked at.
///
/// # Errors
/// Another model.
pub fn models(inputs: &Inputs, laid: &Laid) -> Result<String, Mismatch> {
    let mut looked = "the contract gives the preregistration, byte for byte".to_owned();
    let both = [(BASELINE, &laid.said.baseline.digest), (CANDIDATE, &laid.said.candidate.digest)];
    for (name, digest) in both.into_iter().filter(|(name, _)| inputs.has(name)) {
        of_digest(inputs, name, digest)?;
        looked.push_str("; ");
        looked.push_str(Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name));
        looked.push_str(" by its digest");
    }
    Ok(looked)
}

/// A file's bytes, of which the manifest says what their digest is, and the statement that it is this one.
pub(super) fn of_digest(inputs: &Inputs, name: &str, digest: &str) -> Result<Vec<u8>, Mismatch> {
    let bytes = inputs.read(name)?;
    let found = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
    if found != digest {
        return Err(artefact(format!("{name}: SHA-256 {found}; the statement names {digest}")));
    }
    Ok(bytes)
}

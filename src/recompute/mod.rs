//! Recomputing an evaluation from plain files, as far as they allow: what a stranger does with what a benchmark's owner discloses.
//!
//! ```text
//! level 1   labels, scores ──────────────► every figure, the decision and its reasons       figures.rs
//! level 2   sealed rows, both artefacts ──► the scores                                      predictions.rs
//! level 3   training rows, recipe ────────► the candidate's artefact, by learning it again  retraining.rs
//!           a search ─────────────────────► who won it, by playing every trial              search.rs
//! ```
//!
//! Nothing of a folder is believed: each file is first shown to be what the signed statement binds ([`folder`] says by what), else
//! the code is 15; what is recomputed and does not agree is 16. Levels share the stages' own code: there is no second copy of a formula.

pub mod bound;
pub mod figures;
pub mod folder;
pub mod predictions;
pub mod retraining;
pub mod search;
#[cfg(test)]
mod tests;
pub mod write;

use std::collections::HashSet;
use std::path::Path;

use self::bound::Bound;
use self::folder::Inputs;
use crate::attest::evaluation::Outcome as Told;
use crate::attest::statement::{Predicate, Statement};
use crate::attest::tree::Hash;
use crate::attest::verify::{ARTEFACTS, Check, LEVELS, Outcome};

/// Something that does not agree, with the exit code of `verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// 15: an input is not what the statement binds; 16: a recomputation gives something else.
    pub code: u8,
    /// What and where.
    pub detail: String,
}

/// An input that is not what the statement binds.
#[must_use]
pub fn artefact(detail: impl std::fmt::Display) -> Mismatch {
    Mismatch { code: 15, detail: detail.to_string() }
}

/// A recomputation that gives something else.
#[must_use]
pub fn recomputed(detail: impl std::fmt::Display) -> Mismatch {
    Mismatch { code: 16, detail: detail.to_string() }
}

/// An accepted attempt of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// Attempts family.
    pub family: String,
    /// Model.
    pub model: String,
    /// Benchmark, `NAME@VERSION`.
    pub benchmark: String,
    /// Its number in the family.
    pub number: i64,
}

impl Acceptance {
    /// Of an outcome; none when it is no acceptance.
    #[must_use]
    pub fn of(told: &Told) -> Option<Self> {
        let accepted = told.status == crate::domain::records::Evaluation::ACCEPTED;
        let benchmark = told.benchmark.name.clone();
        let (family, number) = (told.attempt.family.clone(), told.attempt.number);
        accepted.then(|| Self { family, model: told.model.name.clone(), benchmark, number })
    }

    fn is_before(&self, told: &Told) -> bool {
        let Self { family, model, benchmark, number } = self;
        (family, model, benchmark) == (&told.attempt.family, &told.model.name, &told.benchmark.name)
            && *number < told.attempt.number
    }
}

/// Called with what is being done, how much of it is done, and how much there is.
pub type Tell<'a> = dyn Fn(&str, u64, u64) + 'a;

/// What inputs are checked with.
pub struct With<'a> {
    /// Every acceptance of the log; none without one.
    pub acceptances: Option<&'a [Acceptance]>,
    /// Leaf of every receipt in the log that admits its contribution; none without one.
    pub receipts: Option<&'a HashSet<Hash>>,
    /// Threads; no influence on the result.
    pub threads: usize,
    /// Progress.
    pub tell: &'a Tell<'a>,
}

/// Checks the inputs of an evaluation or of its preregistration; none when the folder has no `inputs.json`.
#[must_use]
pub fn checks(folder: &Path, statement: &Statement, payload: &[u8], with: &With<'_>) -> Option<Vec<Check>> {
    let inputs = match Inputs::open(folder) {
        Ok(inputs) => inputs?,
        Err(mismatch) => return Some(failed(0, mismatch)),
    };
    Some(match &statement.predicate {
        Predicate::Preregistration(_) => preregistered(&inputs, payload),
        Predicate::Evaluation(told) if crate::domain::records::Evaluation::is_unscored(&told.status) => {
            let mut checks = preregistered_outcome(&inputs, told);
            checks.extend(LEVELS.iter().map(|name| left_out(name, "the attempt was not scored: it has no figures")));
            checks
        }
        Predicate::Evaluation(told) => scored(&inputs, told, with),
        _ => return None,
    })
}

fn check(name: &'static str, outcome: Outcome, detail: impl Into<String>) -> Check {
    Check { name, outcome, detail: detail.into() }
}

fn left_out(name: &'static str, detail: impl Into<String>) -> Check {
    check(name, Outcome::NotChecked, detail)
}

/// The checks when the level behind `done` levels failed: an input of it, or the recomputation itself.
fn failed(done: usize, mismatch: Mismatch) -> Vec<Check> {
    let Mismatch { code, detail } = mismatch;
    let is_input = code == 15;
    let mut checks = Vec::new();
    if is_input {
        checks.push(check(ARTEFACTS, Outcome::Failed(code), detail.clone()));
    }
    for (level, name) in LEVELS.iter().enumerate().skip(done) {
        checks.push(match (level == done, is_input) {
            (true, false) => check(name, Outcome::Failed(code), detail.clone()),
            (true, true) => left_out(name, "an input is not what the statement binds"),
            (false, _) => left_out(name, "the level before failed"),
        });
    }
    checks
}

fn preregistered(inputs: &Inputs, payload: &[u8]) -> Vec<Check> {
    let mut checks = vec![laid_and_models(inputs, bound::preregistered(inputs, payload))];
    checks.extend(LEVELS.iter().map(|name| left_out(name, "a preregistration has no figures")));
    checks
}

fn preregistered_outcome(inputs: &Inputs, told: &Told) -> Vec<Check> {
    let laid = bound::laid_down(inputs, told).and_then(|payload| bound::preregistered(inputs, &payload));
    vec![laid_and_models(inputs, laid)]
}

/// Without the models that a statement is about it stays unbound.
fn laid_and_models(inputs: &Inputs, laid: Result<bound::Laid, Mismatch>) -> Check {
    let both = [folder::BASELINE, folder::CANDIDATE].iter().all(|name| inputs.has(name));
    match laid.and_then(|laid| bound::models(inputs, &laid)) {
        Ok(detail) if both => check(ARTEFACTS, Outcome::Passed, detail),
        Ok(detail) => left_out(ARTEFACTS, format!("{detail}; neither model is among the inputs")),
        Err(Mismatch { code, detail }) => check(ARTEFACTS, Outcome::Failed(code), detail),
    }
}

fn scored(inputs: &Inputs, told: &Told, with: &With<'_>) -> Vec<Check> {
    let mut passed: Vec<Check> = Vec::new();
    let told_by = |done: usize, mismatch: Mismatch, mut passed: Vec<Check>| {
        passed.extend(failed(done, mismatch));
        passed
    };
    let bound = match Bound::open(inputs, told) {
        Ok(bound) => bound,
        Err(mismatch) => return told_by(0, mismatch, passed),
    };
    if bound.record.samples.is_none() {
        let why = "the record binds no samples: it was made by an older version";
        let mut checks = preregistered_outcome(inputs, told);
        checks.extend(LEVELS.iter().map(|name| left_out(name, why)));
        return checks;
    }
    let samples = match figures::recompute(inputs, told, &bound, with) {
        Ok((samples, detail)) => {
            passed.push(check(LEVELS[0], Outcome::Passed, detail));
            samples
        }
        Err(mismatch) => return told_by(0, mismatch, passed),
    };
    let mut what = "preregistration, contract, labels and scores".to_owned();
    let (level, files) = (inputs.manifest.level, &inputs.manifest.files);
    if [folder::BENCHMARK, folder::BASELINE, folder::CANDIDATE].iter().all(|name| files.contains_key(*name)) {
        match predictions::recompute(inputs, told, &bound, &samples, with) {
            Ok(detail) => passed.push(check(LEVELS[1], Outcome::Passed, detail)),
            Err(mismatch) => return told_by(1, mismatch, passed),
        }
        what.push_str(", sealed rows, both models");
    } else {
        let why = format!(
            "the inputs are of level {level}: neither sealed rows nor models; help: `attestation inputs --level 2`"
        );
        passed.push(left_out(LEVELS[1], why));
    }
    drop(samples);
    if [folder::TRAINING, folder::RECIPE].iter().all(|name| files.contains_key(*name)) {
        match retraining::recompute(inputs, told, &bound, with) {
            Ok(detail) => passed.push(check(LEVELS[2], Outcome::Passed, detail)),
            Err(mismatch) => return told_by(2, mismatch, passed),
        }
        what.push_str(", training rows and recipe");
    } else {
        let why = format!("the inputs are of level {level}: no training rows; help: `attestation inputs --level 3`");
        passed.push(left_out(LEVELS[2], why));
    }
    passed.insert(0, check(ARTEFACTS, Outcome::Passed, format!("{what}, each by what the statement binds")));
    passed
}

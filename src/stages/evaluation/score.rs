//! Scoring: sealed rows and both models in, every figure of the comparison out. A pure function; threads change nothing but the time.
//!
//! ```text
//! open: sealed rows, artefacts ──► columns (labels, scores, strata) ──► judge ──► figures, decision, full record
//! ```
//!
//! The stage, the benchmark's owner who opens an evaluation, and whoever recomputes one from labels and scores all come through
//! [`judge`]: there is one copy of the figures.

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::columns::{Columns, columns};
use super::plan::{Case, Plan, alpha, plan, seed};
use super::report::full_record;
use super::samples::{self, Sampled};
use crate::attest::figures::FullRecord;
use crate::attest::samples::SampledRows;
use crate::attest::tree::Hash;
use crate::domain::contract::Spec;
use crate::domain::keys::{MacKey, SealingKey};
use crate::sealing::vault;
use crate::stages::beside::Refusal;
use crate::stats::evaluation::{self, Evaluation, Resampling, Standing};
use crate::stats::multiplicity::holm;
use crate::stats::rows::PairedRows;

/// The blobs of an attempt.
#[derive(Debug, Clone)]
pub struct Blobs {
    /// The sealed rows, encrypted.
    pub rows: Bytes,
    /// The baseline's artefact.
    pub baseline: Bytes,
    /// The candidate's artefact.
    pub candidate: Bytes,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Whether the candidate is accepted.
    pub accepted: bool,
    /// Reason codes, sorted, each once; empty when it is accepted.
    pub reasons: Vec<String>,
    /// All figures.
    pub record: FullRecord,
    /// One-sided p of the primary metric, rounded up.
    pub p_value: Option<String>,
    /// The candidate's primary value as a loss in millionths, for the Ladder.
    pub loss: Option<i64>,
    /// The least improvement worth accepting, in millionths: the step of the Ladder.
    pub step: i64,
    /// Whether more of it is better.
    pub higher_is_better: bool,
}

/// The rows with the strata of one column, and what the decision needs to know of them.
#[derive(Debug)]
pub struct Level {
    /// Labels and scores.
    pub rows: PairedRows,
    /// The strata, and how they are protected.
    pub plan: evaluation::Plan,
}

/// What a comparison came to.
#[derive(Debug)]
pub struct Judged {
    /// The figures as the library gives them.
    pub evaluation: Evaluation,
    /// The rows, once for each column of strata, or once without.
    pub levels: Vec<Level>,
    /// The figures as they are told, kept and signed.
    pub scored: Scored,
}

/// An evaluation with everything that it rests on: for the benchmark's owner alone.
#[derive(Debug)]
pub struct Opened {
    /// The contract.
    pub spec: Spec,
    /// How the two are compared.
    pub plan: Plan,
    /// The sealed rows, in their order.
    pub rows: Vec<RecordBatch>,
    /// Their leaf hashes.
    pub leaves: Vec<Hash>,
    /// Their labels, both models' scores and strata.
    pub columns: Columns,
    /// What the comparison came to.
    pub judged: Judged,
}

/// What the decision depends on besides the plan and the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Its number in the family, from 1.
    pub number: u64,
    /// Acceptances of the benchmark before it.
    pub acceptances: u64,
    /// Seed of what is resampled.
    pub seed: [u8; 32],
}

fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

/// Scores an attempt.
///
/// # Errors
/// Why it cannot be scored: the attempt has failed, and has spent its level.
pub fn score(
    case: &Case,
    blobs: &Blobs,
    keys: (&SealingKey, &MacKey),
    acceptances: u64,
    threads: usize,
) -> Result<Scored, Refusal> {
    let Prepared { plan, columns, samples, .. } = prepare(case, blobs, keys)?;
    let judged = judge(&plan, &columns, Attempt { number: case.number, acceptances, seed: seed(case) }, threads)?;
    Ok(judged.scored.with(samples))
}

/// Opens the sealed rows and scores an attempt on them, and keeps all that led to its figures.
///
/// # Errors
/// See [`score`].
pub fn open(
    case: &Case,
    blobs: &Blobs,
    keys: (&SealingKey, &MacKey),
    acceptances: u64,
    threads: usize,
) -> Result<Opened, Refusal> {
    let Prepared { spec, plan, rows, leaves, columns, samples } = prepare(case, blobs, keys)?;
    let mut judged = judge(&plan, &columns, Attempt { number: case.number, acceptances, seed: seed(case) }, threads)?;
    judged.scored = judged.scored.with(samples);
    Ok(Opened { spec, plan, rows, leaves, columns, judged })
}

struct Prepared {
    spec: Spec,
    plan: Plan,
    rows: Vec<RecordBatch>,
    leaves: Vec<Hash>,
    columns: Columns,
    samples: SampledRows,
}

impl Scored {
    fn with(mut self, samples: SampledRows) -> Self {
        self.record.samples = Some(samples);
        self
    }
}

fn prepare(case: &Case, blobs: &Blobs, (key, tree_key): (&SealingKey, &MacKey)) -> Result<Prepared, Refusal> {
    let spec = Spec::from_canonical_json(&case.spec).or_else(|e| refuse("BAD_CONTRACT", e))?;
    let plan = plan(&spec, &case.benchmark)?;
    let opened = vault::open_with_leaves(&blobs.rows, &case.benchmark, key, tree_key);
    let (rows, leaves) = opened.or_else(|e| refuse("BENCHMARK_DAMAGED", e))?;
    let models = (&blobs.baseline[..], &blobs.candidate[..]);
    let columns = columns(&spec, &plan, &case.benchmark.strata, &rows, models)?;
    let samples = samples::bind(tree_key, &case.evaluation_id, &Sampled::new(&spec, &plan, &rows, &leaves, &columns)?)?;
    Ok(Prepared { spec, plan, rows, leaves, columns, samples })
}

/// Compares, decides and writes the figures down.
///
/// # Errors
/// Labels or scores that cannot be compared.
pub fn judge(plan: &Plan, columns: &Columns, attempt: Attempt, threads: usize) -> Result<Judged, Refusal> {
    let Attempt { number, acceptances, seed } = attempt;
    let levels = levels(columns, plan)?;
    let standing =
        Standing { preregistered: true, attempt: Some(number), alpha: Some(alpha()), retired: false, acceptances };
    let Some((first, others)) = levels.split_first() else { return refuse("NO_EVALUATION", "nothing was compared") };
    let resampling = Resampling { threads: threads.max(1), ..Resampling::new(seed) };
    let done = compare(first, others, &standing, &resampling);
    let scored = Scored {
        accepted: done.decision.accepted(),
        reasons: codes(&done),
        p_value: done.decision.p_value.and_then(crate::stats::fixed::p_value_string),
        loss: done.ladder_loss(&first.plan),
        step: plan.declared.minimum_effect,
        higher_is_better: plan.declared.primary.higher_is_better(&first.rows),
        record: full_record(&done, &levels.iter().map(|own| (&own.rows, &own.plan)).collect::<Vec<_>>()),
    };
    Ok(Judged { evaluation: done, levels, scored })
}

fn codes(done: &Evaluation) -> Vec<String> {
    let mut codes: Vec<String> = done.decision.codes().into_iter().map(str::to_owned).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// The comparison over the strata of every column. Each column is a partition of the same rows, so the decision is made once
/// for each, and all must accept; what is resampled does not depend on strata and is done once.
fn compare(first: &Level, others: &[Level], standing: &Standing, resampling: &Resampling) -> Evaluation {
    let mut joined = evaluation::evaluate(&first.rows, &first.plan, standing, resampling);
    for level in others {
        let once = Resampling { replicates: 1, ..*resampling };
        let next = evaluation::evaluate(&level.rows, &level.plan, standing, &once);
        joined.decision.reasons.extend(next.decision.reasons);
        joined.strata.extend(next.strata);
    }
    joined.decision.reasons.sort();
    joined.decision.reasons.dedup();
    let compared = joined
        .strata
        .iter()
        .filter_map(|(name, own)| Some((name.clone(), own.as_ref()?.as_ref().ok()?.evidence.p_value())));
    let (names, p): (Vec<String>, Vec<f64>) = compared.unzip();
    joined.stratum_claims = names.into_iter().zip(holm(&p)).collect();
    joined
}

/// The rows once for each column of strata, or once without.
fn levels(columns: &Columns, plan: &Plan) -> Result<Vec<Level>, Refusal> {
    let made = |of: Vec<u32>, strata: &[(String, Option<i64>)]| {
        let Columns { frame, labels, baseline, candidate, custom, .. } = columns.clone();
        let paired = PairedRows::with_extras(frame, labels, baseline, candidate, custom, of);
        // The error's text names a row and its label.
        let rows = paired.or_else(|_| {
            refuse("SCORES_UNUSABLE", "labels or scores lie outside what can be compared; help: probabilities add up to 1, numbers stay within 10^8")
        })?;
        let plan = evaluation::Plan {
            primary: plan.declared.primary.clone(),
            minimum_effect: Some(plan.declared.minimum_effect),
            guardrails: plan.declared.guardrails.clone(),
            strata: strata.to_vec(),
        };
        Ok(Level { rows, plan })
    };
    if plan.columns.is_empty() {
        return Ok(vec![made(vec![0; columns.labels.len()], &[])?]);
    }
    let own = plan.columns.iter().zip(&columns.strata);
    own.map(|((_, strata), of)| made(of.clone(), strata)).collect()
}

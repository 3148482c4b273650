//! Opening an evaluation: sealed rows, both models and every figure of it, for the benchmark's owner alone.
//!
//! ```text
//! audit ──► log: preregistration, outcome ──► evaluation.requests, models: the case ──► store: sealed rows, artefacts, kept record
//!       ──► the stage's own scoring ──► the figures have to be those that were kept, and those that the log binds
//! ```
//!
//! Whoever opens needs the private evaluation key and the tenant's key ring. What a refused attempt withholds is told to nobody
//! without a record on `audit`: it is written first, and without it nothing is opened.

use std::collections::BTreeMap;
use std::path::Path;

use rdkafka::message::Message;

use super::attestation::log::{Entry, scan};
use super::audit;
use super::common::{Settings, blocking};
use super::exit::{Failure, Outcome};
use super::model::one;
use super::reader::{Reader, Start};
use crate::attest::evaluation::{Outcome as Told, Preregistration};
use crate::attest::statement::Predicate;
use crate::domain::keys::{KeyRing, SealingKey};
use crate::domain::records::{Artefact, Evaluation, EvaluationAttempt, EvaluationOutcome, EvaluationRequest, Model};
use crate::domain::topics;
use crate::ml::artefact;
use crate::ops::evaluator::record_path;
use crate::ops::secrets::{self, SecretsError};
use crate::pipeline::tenant;
use crate::sealing::vault;
use crate::stages::evaluation::kept::{self, Kept};
use crate::stages::evaluation::plan::{Case, facts};
use crate::stages::evaluation::score::{Blobs, Opened, open};
use crate::store::{Digest, Store};

/// What an opening is recorded as.
pub const ACTION: &str = "evaluation.open";

/// A statement of the log.
#[derive(Debug, Clone)]
pub struct Logged<T> {
    /// Its index.
    pub index: u64,
    /// Leaf hash, hex.
    pub leaf: String,
    /// The signed bytes.
    pub payload: Vec<u8>,
    /// What they say.
    pub said: T,
}

/// What the log has of an evaluation.
#[derive(Debug, Clone)]
pub struct Statements {
    /// What was laid down before.
    pub preregistration: Logged<Preregistration>,
    /// What came of it.
    pub outcome: Logged<Told>,
}

/// An evaluation, opened.
#[derive(Debug)]
pub struct Opening {
    /// Its statements.
    pub statements: Statements,
    /// The model as it is now.
    pub model: Model,
    /// The facts that its scoring rested on.
    pub case: Case,
    /// Acceptances of the benchmark before it.
    pub acceptances: u64,
    /// The blobs.
    pub blobs: Blobs,
    /// Rows, labels, scores and figures, recomputed.
    pub opened: Opened,
    /// The record that was kept when it was scored, the same as the recomputed one.
    pub kept: Kept,
    /// The tenant's keys, for salts.
    pub ring: KeyRing,
}

/// Opens an evaluation by its id or by the leaf of one of its statements (eight digits or more), on so many threads; `why` is what
/// the audit says.
///
/// # Errors
/// No such evaluation, one that was not scored, an opening that cannot be audited, keys or blobs that are not there, or figures that
/// are not those that were kept.
pub async fn opening(settings: &Settings, keys: &Path, which: &str, why: &str, threads: usize) -> Outcome<Opening> {
    let statements = blocking({
        let (settings, which) = (settings.clone(), which.to_owned());
        move || statements(&settings, &which)
    })
    .await?;
    let said = &statements.outcome.said;
    let id = said.evaluation_id.clone();
    if Evaluation::is_unscored(&said.status) {
        let why = said.reasons.join(", ");
        return Err(Failure::because(format!("evaluation {id} was not scored ({why}): there is nothing to open")));
    }
    let (key, ring) = owner(settings, keys)?;
    audit::record(settings, keys, ACTION, format!("evaluation/{id}"), why.to_owned(), None).await?;
    let (model, case, acceptances) = blocking({
        let (settings, statements) = (settings.clone(), statements.clone());
        move || case(&settings, &statements)
    })
    .await?;
    let store = settings.open_store().await?;
    let most = artefact::MAX_BYTES as u64;
    let blobs = Blobs {
        rows: blob(&store, &case.benchmark.sealed_rows, vault::MAX_BLOB, "the sealed rows").await?,
        baseline: blob(&store, &case.attempt.baseline, most, "the baseline").await?,
        candidate: blob(&store, &case.attempt.candidate, most, "the candidate").await?,
    };
    let sealed = store.get(&record_path(&id), kept::MAX_BYTES).await.map_err(Failure::failed)?;
    let sealed = sealed.ok_or_else(|| {
        Failure::because(format!(
            "the store has no full record of evaluation {id}\nhelp: is --store the one that its worker used? {}",
            record_path(&id)
        ))
    })?;
    blocking(move || {
        let kept = kept::open(&key, &id, &sealed).map_err(|e| Failure::because(format!("{}: {}", e.code, e.detail)))?;
        let opened = open(&case, &blobs, (&key, ring.tree_key()), acceptances, threads)
            .map_err(|e| Failure::because(format!("evaluation {id}: {}: {}", e.code, e.detail)))?;
        agree(&statements, &opened, &kept)?;
        Ok(Opening { statements, model, case, acceptances, blobs, opened, kept, ring })
    })
    .await
}

/// The keys of the benchmark's owner.
fn owner(settings: &Settings, keys: &Path) -> Outcome<(SealingKey, KeyRing)> {
    let tenant = tenant(&settings.prefix);
    let key = secrets::load_evaluation_key(keys, tenant).map_err(|error| match error {
        SecretsError::Missing { path } => Failure::because(format!(
            "there is no evaluation key {}\nhelp: evaluations are opened where their benchmark's owner keeps it (--keys DIR)",
            path.display()
        )),
        error => Failure::failed(error),
    })?;
    Ok((key, secrets::load_key_ring(keys, tenant).map_err(Failure::failed)?))
}

/// Recomputed, kept and logged figures are one.
fn agree(statements: &Statements, opened: &Opened, kept: &Kept) -> Outcome<()> {
    let wrong = |what: &str| {
        let help = "help: another version of the program may have scored it; `hokusai --version`";
        Err(Failure::because(format!("evaluation {}: {what}\n{help}", kept.evaluation_id)))
    };
    let (told, scored) = (&statements.outcome.said, &opened.judged.scored);
    let mut found = scored.record.clone();
    // A record that is older than the tree over samples was scored all the same.
    found.samples = found.samples.filter(|_| kept.record.samples.is_some());
    if found != kept.record {
        return wrong("the record that was kept is not what its rows and models give");
    }
    if told.record.as_ref().is_some_and(|record| *record != kept.record) || told.reasons != scored.reasons {
        return wrong("the log tells other figures than its rows and models give");
    }
    if told.withheld.is_some() && told.withheld != kept.withheld() {
        return wrong("the log binds another record than the one that was kept");
    }
    Ok(())
}

async fn blob(store: &Store, artefact: &Artefact, most: u64, what: &str) -> Outcome<bytes::Bytes> {
    let digest: Digest = artefact.digest.parse().map_err(|e| Failure::because(format!("{what}: its digest: {e}")))?;
    store.blobs().get(digest, most).await.map_err(|e| {
        Failure::because(format!(
            "{what}: {e}\nhelp: is --store the one that the workers use? Else restore it from a backup"
        ))
    })
}

/// Both statements of an evaluation that is named by its id or a leaf.
///
/// # Errors
/// No such evaluation, or none whose outcome stands in the log.
pub fn statements(settings: &Settings, which: &str) -> Outcome<Statements> {
    let which = which.to_ascii_lowercase();
    if which.len() < 8 || !which.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::Usage("EVALUATION: its id, or at least eight digits of a leaf".to_owned()));
    }
    let mut laid: BTreeMap<String, Logged<Preregistration>> = BTreeMap::new();
    let mut told: BTreeMap<String, Logged<Told>> = BTreeMap::new();
    let mut named = std::collections::BTreeSet::new();
    scan(settings, |entry| {
        let (leaf, Entry { index, envelope, statement, .. }) = (entry.hex(), entry);
        let is_meant = |id: &String| *id == which || leaf.starts_with(&which);
        let payload = envelope.payload;
        match statement.predicate {
            Predicate::Preregistration(said) => {
                named.extend(Some(said.evaluation_id.clone()).filter(is_meant));
                laid.insert(said.evaluation_id.clone(), Logged { index, leaf, payload, said: *said });
            }
            Predicate::Evaluation(said) => {
                named.extend(Some(said.evaluation_id.clone()).filter(is_meant));
                told.insert(said.evaluation_id.clone(), Logged { index, leaf, payload, said: *said });
            }
            _ => {}
        }
        Ok(())
    })?;
    let mut named = named.into_iter();
    let help = "help: `hokusai attestation list` shows all leaves";
    let (Some(id), None) = (named.next(), named.next()) else {
        return Err(Failure::because(format!("{which} names no evaluation of the log, or several\n{help}")));
    };
    match (laid.remove(&id), told.remove(&id)) {
        (Some(preregistration), Some(outcome)) => Ok(Statements { preregistration, outcome }),
        _ => Err(Failure::because(format!("the outcome of evaluation {id} does not stand in the log yet\n{help}"))),
    }
}

/// The facts that the attempt was scored by, from the topics that the stage read.
fn case(settings: &Settings, statements: &Statements) -> Outcome<(Model, Case, u64)> {
    let told = &statements.outcome.said;
    let (mut attempts, mut outcomes) = (BTreeMap::<String, EvaluationAttempt>::new(), BTreeMap::new());
    Reader::scan(settings, topics::EVALUATION_REQUESTS, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(value) = message.payload() else { return Ok(()) };
        // What the stage set aside is none of ours.
        let Ok(request) = settings.wire.decode::<EvaluationRequest>(value) else { return Ok(()) };
        if request.family == told.attempt.family {
            if let Some(attempt) = request.attempt {
                attempts.entry(request.evaluation_id.clone()).or_insert(attempt);
            }
            if let Some(outcome) = request.outcome {
                outcomes.insert(request.evaluation_id, outcome);
            }
        }
        Ok(())
    })?;
    let id = &told.evaluation_id;
    let attempt = attempts.get(id).ok_or_else(|| {
        Failure::because(format!("{} has no request of evaluation {id}", topics::EVALUATION_REQUESTS))
    })?;
    let acceptances = acceptances(&attempts, &outcomes, attempt, told.attempt.number);
    let model = one(settings, &attempt.model)?;
    let (benchmark, spec, plan) = facts(attempt, &told.attempt.family, Some(&model))
        .map_err(|e| Failure::because(format!("evaluation {id}: {}: {}", e.code, e.detail)))?;
    let case = Case {
        family: told.attempt.family.clone(),
        number: u64::try_from(told.attempt.number).unwrap_or(0),
        evaluation_id: id.clone(),
        attempt: attempt.clone(),
        benchmark,
        spec,
        metric: plan.declared.name(&plan.declared.primary).to_owned(),
        minimum_effect: plan.declared.minimum_effect,
        preregistration: statements.preregistration.leaf.clone(),
        preregistered: String::new(),
    };
    let laid = case.preregister(&plan).map_err(Failure::failed)?;
    if laid != statements.preregistration.payload {
        return Err(Failure::because(format!("evaluation {id}: its request is not what was preregistered")));
    }
    Ok((model, case, acceptances))
}

/// Attempts of a family are scored in order, so acceptances before an attempt are those of lower numbers.
fn acceptances(
    attempts: &BTreeMap<String, EvaluationAttempt>,
    outcomes: &BTreeMap<String, EvaluationOutcome>,
    own: &EvaluationAttempt,
    number: i64,
) -> u64 {
    let is_before = |(id, outcome): &(&String, &EvaluationOutcome)| {
        let of = attempts.get(*id);
        let same = of.is_some_and(|of| of.model == own.model && of.benchmark == own.benchmark);
        same && outcome.status == Evaluation::ACCEPTED && outcome.attempt < number
    };
    outcomes.iter().filter(is_before).count() as u64
}

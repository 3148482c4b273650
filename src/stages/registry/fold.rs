//! The fold: a model and one event give a decision. Pure, so that `models` can be rebuilt byte for byte.
//!
//! The order of the checks is the order in which an event earns belief: envelope, signature and key, form, model, role,
//! expiry, repetition, expectation; only then what is asked for. An event that is denied changes nothing.

use sha2::{Digest, Sha256};

use super::command::{self, Action, Command, Expected, MAX_COMMAND_ID, MAX_REASON, Origin, Registration};
use super::lifecycle::{self, Changed};
use super::result::{self, EvaluationResult, Found, RunResult};
use super::version::{self, Registrar, Stage, is_decimal, is_name, is_sha256};
use super::{apply, benchmark, statement};
use crate::attest::dsse::Envelope;
use crate::attest::trust::{Role, Signer, Trust, TrustedKey};
use crate::domain::contract::Spec;
use crate::domain::records::{AttestationRequest, Audit, Benchmark, Model, RegistryEvent, Transition};

/// Bytes that a model may have as JSON, in the state: it must fit into one message, and its Avro form is smaller.
pub const MAX_MODEL_BYTES: usize = 1_000_000;

/// Ids of folded commands that a model keeps.
const MAX_COMMANDS: usize = 256;

/// Characters of a denial's text: what is wrong with a specification may take long to tell.
const MAX_TEXT: usize = 2_000;

/// Reason codes of one evaluation.
const MAX_REASONS: usize = 32;

/// Checks what a specification alone cannot tell (compiles its SQL): none when the contract can be used.
pub type ContractCheck = dyn Fn(&Spec) -> Result<(), String> + Send;

/// What came of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The model, if the event changed it.
    pub model: Option<Model>,
    /// Who asked for what, and the answer.
    pub audit: Audit,
    /// What is to be attested of it.
    pub attest: Option<AttestationRequest>,
    /// The benchmark, if the event entered or retired one.
    pub benchmark: Option<Benchmark>,
}

/// Why an event is denied: a stable code and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) code: &'static str,
    pub(super) text: String,
}

pub(super) fn deny<T>(code: &'static str, text: impl Into<String>) -> Result<T, Denial> {
    Err(Denial { code, text: text.into().chars().take(MAX_TEXT).collect() })
}

/// Where an event stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its offset in the model's partition.
    pub offset: i64,
    /// Serial of the trust file that counts for it.
    pub serial: i64,
}

/// What the fold knows besides the model.
pub struct Rules<'a> {
    /// Whom to trust with what.
    pub trust: &'a Trust,
    /// See [`ContractCheck`].
    pub check: &'a ContractCheck,
}

/// What could be read of who asks for what.
#[derive(Debug, Default)]
struct Request {
    actor: Option<String>,
    command_id: Option<String>,
    action: Option<&'static str>,
}

/// What an allowed event came to.
struct Outcome {
    model: Model,
    told: String,
    attest: Option<AttestationRequest>,
}

impl Rules<'_> {
    /// Decides on an event.
    #[must_use]
    pub fn decide(&self, current: Option<&Model>, event: &RegistryEvent, place: Place) -> Decision {
        let mut request = Request::default();
        let outcome = self.fold(current, event, place, &mut request);
        let about = |text: String| match &request.command_id {
            Some(id) => format!("{text} (command {id})"),
            None => text,
        };
        let (outcome, allowed, reason) = match outcome {
            Ok(Some(outcome)) => {
                let reason = about(format!("revision {}: {}", outcome.model.revision, outcome.told));
                (Some(outcome), true, reason)
            }
            Ok(None) => (None, true, about("it is so already".to_owned())),
            Err(denial) => (None, false, format!("{}: {}", denial.code, about(denial.text))),
        };
        let revision = outcome.as_ref().map(|o| &o.model).or(current).map_or(0, |model| model.revision);
        let audit = Audit {
            actor: request.actor.unwrap_or_else(|| "unverified".to_owned()),
            action: request.action.unwrap_or("model.command").to_owned(),
            resource: format!("model/{}", event.model),
            allowed,
            reason,
            position: Some(event.position.clone()),
            command_id: request.command_id,
            revision: Some(revision),
        };
        let (model, attest) = outcome.map_or((None, None), |o| (Some(o.model), o.attest));
        let benchmark = model.as_ref().and_then(|model| benchmark::changed(current, model)).cloned();
        Decision { model, audit, attest, benchmark }
    }

    fn fold(
        &self,
        current: Option<&Model>,
        event: &RegistryEvent,
        place: Place,
        request: &mut Request,
    ) -> Result<Option<Outcome>, Denial> {
        let envelope = Envelope::from_json(event.envelope.as_bytes()).or_else(|e| deny("MALFORMED", e.to_string()));
        match event.kind.as_str() {
            RegistryEvent::COMMAND => {
                let envelope = envelope?;
                let command = command::read(&envelope);
                if let Ok(command) = &command {
                    request.command_id = Some(command.command_id.clone());
                    request.action = Some(command.action.role().name());
                }
                let (signer, key) = self.authenticate(&envelope, place.serial, request)?;
                let command = command.or_else(|e| deny("MALFORMED", e.to_string()))?;
                let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&envelope.payload));
                self.command(current, event, place, command, (signer, key), &digest)
            }
            RegistryEvent::RESULT => {
                let envelope = envelope?;
                let found = result::read(&envelope);
                if let Ok(result) = &found {
                    request.command_id = Some(result.found.id());
                    request.action = Some(result.found.role().name());
                }
                let (signer, key) = self.authenticate(&envelope, place.serial, request)?;
                let result = found.or_else(|e| deny("MALFORMED", e.to_string()))?;
                let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&envelope.payload));
                about_this_model(event, &result.model)?;
                held(key, &[result.found.role()])?;
                let Some(current) = current else { return unknown_model() };
                let by = Registrar { signer, command_id: &result.found.id() };
                found_by_stage(current, result.found, by, &digest)
            }
            _ => deny("UNKNOWN_KIND", "an event of a kind that this version does not know"),
        }
    }

    fn authenticate(
        &self,
        envelope: &Envelope,
        serial: i64,
        request: &mut Request,
    ) -> Result<(&str, &TrustedKey), Denial> {
        match self.trust.signer_at(envelope, serial) {
            Signer::Trusted(id, key) => {
                request.actor = Some(id.to_owned());
                Ok((id, key))
            }
            Signer::Revoked(id, key) => {
                request.actor = Some(id.to_owned());
                deny("REVOKED_KEY", format!("key {:?} is not in force any more, or not yet", key.name))
            }
            Signer::Nobody => deny("UNSIGNED", "the command bears no signature"),
            Signer::Forged => {
                deny("BAD_SIGNATURE", "the signature is not one of the key that it names over this payload")
            }
            Signer::Unknown => deny(
                "UNKNOWN_KEY",
                "no signature of a trusted key; help: add the key to the trust file of the registry",
            ),
        }
    }

    fn command(
        &self,
        current: Option<&Model>,
        event: &RegistryEvent,
        place: Place,
        command: Command,
        (signer, key): (&str, &TrustedKey),
        digest: &str,
    ) -> Result<Option<Outcome>, Denial> {
        about_this_model(event, &command.model)?;
        entitled(key, &command)?;
        if command.expires_offset.is_some_and(|last| place.offset > last) {
            return deny("EXPIRED", "the command came after the offset at which it expires");
        }
        if current.is_some_and(|model| model.commands.contains(&command.command_id)) {
            return deny("REPEATED", "the command was carried out before");
        }
        if current.is_none() && !matches!(command.action, Action::Apply(_)) {
            return unknown_model();
        }
        let revision = current.map_or(0, |model| model.revision);
        if let Expected::Revision(expected) = command.expected
            && expected != revision
        {
            return deny(
                "STALE_REVISION",
                format!("the model is at revision {revision}, the command expects {expected}"),
            );
        }
        let by = Registrar { signer, command_id: &command.command_id };
        if let Action::Apply(spec) = &command.action {
            let applied = apply::apply(current, &command.model, spec, self.check, event.intake_key.as_ref())?;
            return done(applied.map(|(model, told)| (model, told, None)), by);
        }
        let Some(current) = current else { return unknown_model() };
        if let Some(stage) = command.action.stage() {
            lifecycle::unmoved(current, stage, command.expected)?;
        }
        let mut model = current.clone();
        let told = self.act(&mut model, command.action, key, place.serial, by)?;
        let attest = told.as_ref().and_then(|_| match benchmark::changed(Some(current), &model) {
            Some(changed) => statement::benchmark(changed, model.revision, by, digest),
            None => transition_request(current, &model, digest),
        });
        done(told.map(|told| (model, told, attest)), by)
    }

    fn act(&self, model: &mut Model, action: Action, key: &TrustedKey, serial: i64, by: Registrar<'_>) -> Changed {
        match action {
            Action::Apply(_) => Ok(None),
            Action::Register(new) => {
                if new.origin == Origin::Trained {
                    return deny("OUT_OF_ROLE", "only a training run of the platform says that it trained a version");
                }
                version::register(model, *new, by).map(|version| Some(format!("{version} registered")))
            }
            Action::Promote(promotion) => {
                if promotion.waiver.as_ref().is_some_and(|why| why.trim().is_empty() || why.len() > MAX_REASON) {
                    return deny("MALFORMED", format!("an override says why, in at most {MAX_REASON} bytes"));
                }
                let waived = promotion.waiver.is_some();
                if waived && !key.holds(Role::ModelOverride) {
                    return out_of_role(key, Role::ModelOverride);
                }
                let policy = self.trust.policy_at(&model.model, serial);
                lifecycle::promote(model, &promotion, &policy, waived, by)
            }
            Action::Rollback(rollback) => {
                if rollback.reason.as_ref().is_some_and(|why| why.len() > MAX_REASON) {
                    return deny("MALFORMED", format!("a reason has at most {MAX_REASON} bytes"));
                }
                lifecycle::rollback(model, &rollback, by)
            }
            Action::Archive(version) => lifecycle::archive(model, &version, by),
            Action::Alias(change) => lifecycle::alias(model, change),
            Action::Tag(change) => lifecycle::tag(model, change),
            Action::Seal(seal) => benchmark::seal(model, *seal, by),
            Action::Retire(asked) => benchmark::retire(model, asked),
        }
    }
}

fn unknown_model<T>() -> Result<T, Denial> {
    deny("UNKNOWN_MODEL", "there is no such model; help: `hokusai model apply` declares one")
}

fn about_this_model(event: &RegistryEvent, model: &str) -> Result<(), Denial> {
    if event.model == model {
        return Ok(());
    }
    deny("WRONG_MODEL", "the payload is about another model than the event that carries it")
}

fn out_of_role<T>(key: &TrustedKey, role: Role) -> Result<T, Denial> {
    deny("OUT_OF_ROLE", format!("key {:?} does not hold the role {}", key.name, role.name()))
}

/// Whether the key holds one of the roles; the first is the one that is missed.
fn held(key: &TrustedKey, roles: &[Role]) -> Result<(), Denial> {
    match roles.first() {
        Some(first) if !roles.iter().any(|role| key.holds(*role)) => out_of_role(key, *first),
        _ => Ok(()),
    }
}

/// Whether the key may sign the command at all.
fn entitled(key: &TrustedKey, command: &Command) -> Result<(), Denial> {
    let automatic = matches!(command.expected, Expected::Transition(_));
    match &command.action {
        Action::Promote(_) | Action::Rollback(_) if automatic => {
            held(key, &[command.action.role(), Role::ExperimentDecide])
        }
        Action::Register(new) if new.origin == Origin::Contributed && !key.holds(Role::ModelRegister) => {
            held(key, &[Role::ModelContribute])?;
            match &new.lineage.contributor {
                Some(contributor) if *contributor == key.name => Ok(()),
                _ => deny("OUT_OF_ROLE", format!("key {:?} contributes under its own name only", key.name)),
            }
        }
        action => held(key, &[action.role()]),
    }
}

fn found_by_stage(current: &Model, found: Found, by: Registrar<'_>, digest: &str) -> Result<Option<Outcome>, Denial> {
    if by.command_id.len() > MAX_COMMAND_ID {
        return deny("MALFORMED", format!("the id is longer than {MAX_COMMAND_ID} bytes"));
    }
    if current.commands.iter().any(|id| id == by.command_id) {
        return deny("REPEATED", "the result is known already");
    }
    let mut model = current.clone();
    let told = match found {
        Found::Run(run) => trained(&mut model, *run, by)?,
        Found::Evaluation(evaluation) => {
            sound(&evaluation)?;
            let (candidate, benchmark) = (evaluation.candidate.clone(), evaluation.benchmark.clone());
            let told = lifecycle::evaluated(&mut model, &candidate, evaluation.record())?;
            told.map(|told| match benchmark::spent(&mut model, &benchmark) {
                Some(retired) => format!("{told}; {retired}"),
                None => told,
            })
        }
    };
    let attest = match benchmark::changed(Some(current), &model) {
        Some(retired) => statement::benchmark(retired, model.revision, by, digest),
        None => transition_request(current, &model, digest),
    };
    done(told.map(|told| (model, told, attest)), by)
}

fn trained(model: &mut Model, run: RunResult, by: Registrar<'_>) -> Changed {
    let RunResult { run_id, registration } = run;
    let lineage = &registration.lineage;
    if registration.origin != Origin::Trained || lineage.run_id.as_ref() != Some(&run_id) {
        return deny("MALFORMED", "a run's version is of the origin trained, and its lineage names the run");
    }
    if lineage.dataset.is_none() || lineage.recipe_digest.is_none() {
        return deny("MALFORMED", "a run's version names its dataset and its recipe");
    }
    if model.versions.iter().any(|v| v.lineage.run_id.as_ref() == Some(&run_id)) {
        return deny("REPEATED", "the run's version is registered already");
    }
    register(model, registration, by)
}

fn register(model: &mut Model, registration: Registration, by: Registrar<'_>) -> Changed {
    version::register(model, registration, by).map(|version| Some(format!("{version} registered")))
}

/// Whether an evaluation says what it may say, in its form.
fn sound(e: &EvaluationResult) -> Result<(), Denial> {
    let digests = is_sha256(&e.candidate) && is_sha256(&e.baseline) && e.statement.as_deref().is_none_or(is_sha256);
    let names = [&e.evaluation_id, &e.benchmark, &e.metric].into_iter().all(|name| is_name(name));
    let reasons = e.reasons.len() <= MAX_REASONS && e.reasons.is_sorted() && e.reasons.iter().all(|r| is_name(r));
    let decimals = [&e.delta, &e.lower].into_iter().flatten().all(|number| is_decimal(number));
    if !digests || !names || !reasons || !decimals {
        return deny("MALFORMED", "an evaluation has digests in hex, names, sorted reason codes and decimal strings");
    }
    match e.status.as_str() {
        "accepted" if e.delta.is_none() || e.lower.is_none() => {
            deny("MALFORMED", "an accepted evaluation says by how much")
        }
        "accepted" => Ok(()),
        "refused" | "failed" | "cancelled" if e.delta.is_some() || e.lower.is_some() => {
            deny("TELLS_TOO_MUCH", "an evaluation that did not accept says nothing but its reasons")
        }
        "refused" | "failed" | "cancelled" => Ok(()),
        _ => deny("MALFORMED", "an evaluation is accepted, refused, failed or cancelled"),
    }
}

/// Remembers the command, and looks at the size of what it left.
fn done(
    changed: Option<(Model, String, Option<AttestationRequest>)>,
    by: Registrar<'_>,
) -> Result<Option<Outcome>, Denial> {
    let Some((mut model, told, attest)) = changed else { return Ok(None) };
    model.commands.push(by.command_id.to_owned());
    let surplus = model.commands.len().saturating_sub(MAX_COMMANDS);
    model.commands.drain(..surplus);
    let size = serde_json::to_vec(&model).map_or(usize::MAX, |json| json.len());
    if size > MAX_MODEL_BYTES {
        return deny(
            "MODEL_FULL",
            format!(
                "the model's record would have {size} bytes; at most {MAX_MODEL_BYTES} fit; help: declare a new model"
            ),
        );
    }
    Ok(Some(Outcome { model, told, attest }))
}

/// What is to be attested of a change: a version that came into being or into a stage.
fn transition_request(before: &Model, after: &Model, digest: &str) -> Option<AttestationRequest> {
    let from_stage = |version: &str| before.version(version).map(|v| v.stage.as_str());
    if let Some(moved) = after.transitions.last().filter(|t| t.revision == after.revision) {
        return statement::request(after, moved, from_stage(&moved.version), digest);
    }
    let new = after.versions.last().filter(|v| v.revision == after.revision)?;
    let registered = Transition {
        revision: new.revision,
        stage: Stage::Dev.name().to_owned(),
        version: new.version.clone(),
        from_version: None,
        action: "register".to_owned(),
        rule: lifecycle::registered_rule().to_string(),
        signer: new.signer.clone(),
        command_id: new.command_id.clone(),
    };
    statement::request(after, &registered, None, digest)
}

//! `hokusai model`: declare a model and its contract, register and promote versions, look at them.
//!
//! What changes a model is a signed command on `model.commands`; the registry decides and the fold of its decisions is
//! `models`. These commands wait for the decision.

pub mod artefact;
pub(in crate::cli) mod change;
mod diff;
mod export;
mod history;
mod import;
mod put;
mod rebuild;
mod references;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use ed25519_dalek::SigningKey;
use rdkafka::message::Message;
use serde_json::json;

use super::common::{KeyFolder, Settings, blocking};
use super::exit::{Failure, Outcome, say};
use super::producer::produce;
use super::reader::{Polled, Reader, Start, ends, latest};
use crate::domain::contract::{Spec, SpecError};
use crate::domain::records::{Audit, Model, ModelVersion};
use crate::domain::topics;
use crate::ops::secrets;
use crate::stages::intake::contract::Compiler;
use crate::stages::registry::command;

const EXAMPLES: &str = "\
Examples:
  hokusai model apply examples/flights/model.yaml
  hokusai model list --format json
  hokusai model show flight-delay
  hokusai model register flight-delay --artefact model.hkml --metric auroc=0.7911@250000 --param trees=100
  hokusai model export flight-delay@production --onnx model.onnx
  hokusai model promote flight-delay 1.0.0 --stage production --override 'the first model'
  hokusai model alias flight-delay champion 1.0.0
  hokusai model diff flight-delay 1.0.0 1.1.0
  hokusai model rollback flight-delay                      production back to the version before
  hokusai model history flight-delay --format json
  hokusai model rebuild --check                            `models` is what its events say

A VERSION is a number like 1.2.0, an alias, or `staging` or `production` for the version that stands there. The registry gives
the numbers: patch = another seed or parameters, minor = other data, major = other features or label. Promotion to production
needs an accepted evaluation against the version that is there, unless the trust file says otherwise (`hokusai keys trust policy`).

Commands are signed with an Ed25519 key: --key, HOKUSAI_SIGNING_KEY, or the development key in the keys folder (--keys).";

/// Largest specification file.
const MAX_SPEC: u64 = 1 << 20;

/// Arguments of `model`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ModelArgs {
    #[command(flatten)]
    keys: KeyFolder,
    #[command(subcommand)]
    action: ModelAction,
}

#[derive(Debug, Subcommand)]
enum ModelAction {
    /// Declare a model, or give it a new contract; applying the same file again changes nothing
    Apply {
        /// Specification (YAML); files of reference tables that it names lie beside it, and go into the store (--store)
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// PKCS#8 PEM file of the signing key
        #[arg(long, env = "HOKUSAI_SIGNING_KEY", value_name = "FILE")]
        key: Option<PathBuf>,
        /// Give up waiting for the decision after this many seconds
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        timeout: u64,
    },
    #[command(flatten)]
    Change(change::Change),
    /// Write a version's model to a file, as ONNX or as it is
    Export(export::ExportArgs),
    /// What was asked of a model, by whom, and what came of it
    History {
        /// Name of the model
        model: String,
    },
    /// What is different between two versions: parameters, features, encodings and SQL, metrics, data
    Diff {
        /// Name of the model
        model: String,
        /// Version, alias or stage
        a: String,
        /// Version, alias or stage
        b: String,
    },
    /// Fold `registry.events` anew and write what `models` lacks; the stage registry must not run
    Rebuild {
        /// Only compare: exit code 1 when a record is missing or different
        #[arg(long)]
        check: bool,
    },
    /// List the models
    List,
    /// Show a model and its contract
    Show {
        /// Name of the model
        model: String,
    },
}

/// Runs `model`.
///
/// # Errors
/// An invalid specification, no broker, or (exit 4) a command that the registry denied.
pub async fn run(args: ModelArgs, settings: Settings) -> Outcome<()> {
    match args.action {
        ModelAction::Apply { file, key, timeout } => {
            let (spec, tables) = blocking(move || read_spec(&file)).await?;
            let signer = signer(&args.keys.path(&settings), key.as_deref())?;
            references::store(&settings, &spec, tables).await?;
            apply(&settings, spec, &signer, Duration::from_secs(timeout)).await
        }
        ModelAction::Change(asked) => change::run(&settings, &args.keys.path(&settings), asked).await,
        ModelAction::Export(asked) => export::run(&settings, asked).await,
        ModelAction::History { model } => blocking(move || history::show(&settings, &model)).await,
        ModelAction::Diff { model, a, b } => blocking(move || diff::show(&settings, &model, &a, &b)).await,
        ModelAction::Rebuild { check } => {
            blocking(move || rebuild::run(&settings, &args.keys.path(&settings), check)).await
        }
        ModelAction::List => blocking(move || list(&settings)).await,
        ModelAction::Show { model } => blocking(move || show(&settings, &model)).await,
    }
}

async fn apply(settings: &Settings, spec: Spec, signer: &SigningKey, timeout: Duration) -> Outcome<()> {
    let digest = spec.contract_digest().map_err(Failure::failed)?;
    let name = spec.name.clone();
    let (models, audit_ends) = blocking({
        let settings = settings.clone();
        move || Ok((models(&settings)?, ends(&settings, topics::AUDIT)?))
    })
    .await?;
    let known = models.get(&name);
    // Without an intake key the command is worth sending: the registry publishes one.
    if known.is_some_and(|m| m.contract_digest == digest && m.intake_key.is_some()) {
        return told(settings, &name, known.map_or(0, |m| m.revision), &digest, "unchanged");
    }
    let revision = known.map_or(0, |m| m.revision);
    let built = command::build_apply(&spec, revision, signer).map_err(Failure::failed)?;
    send(settings, &name, &built.envelope).await?;
    let decision = blocking({
        let (settings, name, digest) = (settings.clone(), name.clone(), digest.clone());
        move || decided(&settings, &name, &digest, &built.command_id, audit_ends, timeout)
    });
    let revision = decision.await?;
    told(settings, &name, revision, &digest, "applied")
}

/// The key that commands are signed with: a file, or the development key in the folder of keys.
fn signer(keys: &Path, key: Option<&Path>) -> Outcome<SigningKey> {
    match key {
        Some(file) => secrets::load_signing_key(file),
        None => secrets::load_or_create_signing_key(keys, secrets::DEVELOPMENT_KEY),
    }
    .map_err(Failure::failed)
}

/// The contract, and the reference tables that it names by a file.
fn read_spec(file: &Path) -> Outcome<(Spec, Vec<Vec<u8>>)> {
    let at = |e: &dyn std::fmt::Display| Failure::because(format!("{}: {e}", file.display()));
    let size = std::fs::metadata(file).map_err(|e| at(&e))?.len();
    if size > MAX_SPEC {
        return Err(at(&format!("{size} bytes; a specification has at most {MAX_SPEC}")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| at(&e))?;
    let shown = file.display().to_string();
    let refused = |e: SpecError| Failure::Refused(e.to_string());
    let spec = Spec::parse_yaml(&text, &shown).map_err(refused)?;
    let (spec, tables) = references::read(spec, file)?;
    let compiled = Compiler::new().compile(spec).map_err(|e| refused(e.located(&text, &shown)))?;
    references::check(compiled.spec(), &tables)?;
    Ok((compiled.spec().clone(), tables))
}

/// Sends a signed command.
///
/// # Errors
/// No broker.
pub async fn send(settings: &Settings, model: &str, envelope: &str) -> Outcome<()> {
    produce(settings, topics::MODEL_COMMANDS, model, envelope.as_bytes()).await
}

/// Waits for the registry's decision on a command: the model's new revision, or why it was denied.
fn decided(
    settings: &Settings,
    model: &str,
    digest: &str,
    command_id: &str,
    audit_ends: BTreeMap<i32, i64>,
    timeout: Duration,
) -> Outcome<i64> {
    let deadline = Instant::now() + timeout;
    let mut folded = Reader::open(settings, topics::MODELS, &Start::Beginning)?;
    let mut audit = Reader::open(settings, topics::AUDIT, &Start::Offsets(audit_ends))?;
    while Instant::now() < deadline {
        if let Polled::Record(message) = folded.poll(Duration::from_millis(20))?
            && message.key() == Some(model.as_bytes())
            && let Some(payload) = message.payload()
        {
            let found: Model = settings.wire.decode(payload).map_err(Failure::failed)?;
            if found.contract_digest == digest && found.intake_key.is_some() {
                return Ok(found.revision);
            }
        }
        if let Polled::Record(message) = audit.poll(Duration::from_millis(20))?
            && let Some(payload) = message.payload()
        {
            let entry: Audit = settings.wire.decode(payload).map_err(Failure::failed)?;
            if !entry.allowed && entry.reason.contains(command_id) {
                return Err(Failure::Refused(entry.reason));
            }
        }
    }
    Err(Failure::because(format!(
        "the registry has not decided within {} s\nhelp: `hokusai doctor` tells whether the stages keying and registry run",
        timeout.as_secs()
    )))
}

fn told(settings: &Settings, model: &str, revision: i64, digest: &str, status: &str) -> Outcome<()> {
    if settings.json() {
        say(json!({"model": model, "revision": revision, "contract_digest": digest, "status": status}))?;
    } else {
        say(format_args!("model {model}: {status}, revision {revision}, contract {digest}"))?;
    }
    Ok(())
}

/// The models as their topic has them now, by name.
///
/// # Errors
/// No broker, no topic, or a record that cannot be read.
pub fn models(settings: &Settings) -> Outcome<BTreeMap<String, Model>> {
    latest(settings, topics::MODELS)
}

fn list(settings: &Settings) -> Outcome<()> {
    let models = models(settings)?;
    if models.is_empty() && !settings.json() {
        say("no models yet; `hokusai model apply FILE` declares one")?;
    }
    for model in models.values() {
        let at = |stage| model.head(stage).map(|v| v.version.as_str());
        if settings.json() {
            say(json!({
                "model": model.model, "revision": model.revision, "contract_digest": model.contract_digest,
                "status": "in force", "versions": model.versions.len(), "staging": at("staging"),
                "production": at("production"),
            }))?;
        } else {
            say(format_args!(
                "model {}: revision {}, contract {}, {} versions, staging {}, production {}",
                model.model,
                model.revision,
                model.contract_digest,
                model.versions.len(),
                at("staging").unwrap_or("-"),
                at("production").unwrap_or("-"),
            ))?;
        }
    }
    Ok(())
}

/// A model by name.
pub(in crate::cli) fn one(settings: &Settings, name: &str) -> Outcome<Model> {
    let mut models = models(settings)?;
    models.remove(name).ok_or_else(|| {
        let known: Vec<&str> = models.keys().map(String::as_str).collect();
        Failure::because(format!("no model {name}\nhelp: known models: {}", known.join(", ")))
    })
}

/// What a version, alias or stage names.
fn version<'m>(model: &'m Model, name: &str) -> Outcome<&'m ModelVersion> {
    model.resolve(name).ok_or_else(|| {
        let known: Vec<&str> = model.versions.iter().map(|v| v.version.as_str()).collect();
        let aliases: Vec<&str> = model.aliases.iter().map(|a| a.name.as_str()).collect();
        Failure::because(format!(
            "model {} has no version {name}\nhelp: versions: {}; aliases: {}",
            model.model,
            known.join(", "),
            aliases.join(", ")
        ))
    })
}

fn show(settings: &Settings, name: &str) -> Outcome<()> {
    let model = one(settings, name)?;
    let contract = model.contracts.last().map(|c| serde_json::from_str::<serde_json::Value>(&c.spec));
    let spec = contract.transpose().map_err(Failure::failed)?;
    let shown = json!({
        "model": model.model, "revision": model.revision, "contract_digest": model.contract_digest,
        "earlier_contracts": model.contracts.iter().rev().skip(1).map(|c| &c.digest).collect::<Vec<_>>(),
        "intake_key": model.intake_key.as_ref().map(|key| json!({"id": key.id, "public": key.public})),
        "spec": spec, "versions": model.versions, "aliases": model.aliases, "tags": model.tags,
        "transitions": model.transitions,
    });
    if settings.json() {
        say(shown)?;
    } else {
        say(serde_json::to_string_pretty(&shown).map_err(Failure::failed)?)?;
    }
    Ok(())
}

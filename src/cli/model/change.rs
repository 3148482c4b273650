//! What changes a model's versions: built, signed, sent, and waited for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use rdkafka::message::Message;
use serde_json::{Value, json};

use super::import::ImportArgs;
use super::{Failure, Outcome, Settings, artefact, blocking, one, put, say, send, signer, version};
use crate::cli::reader::{Polled, Reader, Start, ends};
use crate::domain::contract::Spec;
use crate::domain::records::{Artefact, Audit, Dataset, Lineage, Metric, Model, NamedValue};
use crate::domain::topics;
use crate::stages::registry::command::{
    Action, AliasChange, Expected, Origin, Promotion, Registration, Rollback, Signed, TagChange, build,
};
use crate::stages::registry::version::Stage;
use crate::stream::partitioner::partition_of;

/// How a command is signed and waited for.
#[derive(Debug, Args)]
pub(in crate::cli) struct Sending {
    /// PKCS#8 PEM file of the signing key [default: the development key]
    #[arg(long, env = "HOKUSAI_SIGNING_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Wait for the registry's decision; the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Only send the command: `hokusai model history` tells later what came of it
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
    /// Give up waiting for the decision after this many seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// The command is void when so many other events come before it
    #[arg(long, default_value_t = 10_000, value_name = "EVENTS")]
    expires_after: u32,
}

/// A stage that holds one version.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Target {
    Staging,
    Production,
}

impl Target {
    fn stage(self) -> Stage {
        match self {
            Self::Staging => Stage::Staging,
            Self::Production => Stage::Production,
        }
    }
}

/// A version that was made elsewhere.
#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// Name of the model
    model: String,
    /// File of the artefact: its bytes go into the store (--store) and are found there by their digest
    #[arg(long, value_name = "FILE", required_unless_present = "digest", conflicts_with = "digest")]
    artefact: Option<PathBuf>,
    #[command(flatten)]
    import: ImportArgs,
    /// SHA-256 of an artefact whose bytes stay where they are, 64 hex digits
    #[arg(long, value_name = "HEX", requires = "size")]
    digest: Option<String>,
    /// Size of the artefact in bytes
    #[arg(long, value_name = "BYTES")]
    size: Option<i64>,
    /// Media type of the artefact [default: application/vnd.hokusai.model for a native or imported one, else application/octet-stream]
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// Who contributed it, as an improvement of --parent
    #[arg(long, value_name = "NAME", requires = "parent")]
    contributor: Option<String>,
    /// Version that it was made from, and is numbered after
    #[arg(long, value_name = "VERSION")]
    parent: Option<String>,
    /// Contract whose columns it reads [default: the one in force]
    #[arg(long, value_name = "HEX")]
    contract: Option<String>,
    /// A feature column; when none is named, those that a native artefact reads, else all of the contract's
    #[arg(long = "feature", value_name = "COLUMN")]
    features: Vec<String>,
    /// Root of the rows that it was trained on, 64 hex digits
    #[arg(long, value_name = "HEX", requires = "dataset_rows")]
    dataset: Option<String>,
    /// Rows that it was trained on
    #[arg(long, value_name = "ROWS")]
    dataset_rows: Option<i64>,
    /// Contributions that the rows come from
    #[arg(long, default_value_t = 0, value_name = "N")]
    contributions: i64,
    /// Training run
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Digest of the training recipe, 64 hex digits
    #[arg(long, value_name = "HEX")]
    recipe: Option<String>,
    /// Benchmark that it was made for
    #[arg(long, value_name = "NAME")]
    benchmark: Option<String>,
    /// A parameter
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    params: Vec<NamedValue>,
    /// A metric, as a decimal number; ROWS that it was computed on
    #[arg(long = "metric", value_name = "NAME=VALUE[@ROWS]", value_parser = metric)]
    metrics: Vec<Metric>,
    /// A tag
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = pair)]
    tags: Vec<NamedValue>,
    #[command(flatten)]
    sending: Sending,
}

/// What changes a model's versions.
#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// Register a version that was made elsewhere; the registry gives it its number
    Register(Box<RegisterArgs>),
    /// Bring a version to staging or production, as the policy allows
    Promote {
        /// Name of the model
        model: String,
        /// Version, alias or stage
        #[arg(id = "which", value_name = "VERSION")]
        version: String,
        /// Where to
        #[arg(long, value_enum)]
        stage: Target,
        /// Let it pass although the policy does not; says why, and needs the role model.override
        #[arg(long = "override", value_name = "WHY")]
        waiver: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Take a stage back to a version that was in it before
    Rollback {
        /// Name of the model
        model: String,
        /// Version, alias or stage [default: the one that was there before]
        #[arg(id = "which", value_name = "VERSION")]
        version: Option<String>,
        /// Which stage
        #[arg(long, value_enum, default_value = "production")]
        stage: Target,
        /// Why
        #[arg(long, value_name = "WHY")]
        reason: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Retire a version for good
    Archive {
        /// Name of the model
        model: String,
        /// Version or stage
        #[arg(id = "which", value_name = "VERSION")]
        version: String,
        #[command(flatten)]
        sending: Sending,
    },
    /// Let a name point at a version
    Alias {
        /// Name of the model
        model: String,
        /// The alias
        alias: String,
        /// Version, other alias or stage
        #[arg(id = "which", value_name = "VERSION", required_unless_present = "remove", conflicts_with = "remove")]
        version: Option<String>,
        /// Remove it
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        sending: Sending,
    },
    /// Set a tag of a version, or of the model
    Tag {
        /// Name of the model
        model: String,
        /// The tag
        tag: String,
        /// Its value
        #[arg(required_unless_present = "remove", conflicts_with = "remove")]
        value: Option<String>,
        /// Remove it
        #[arg(long)]
        remove: bool,
        /// Version, alias or stage [default: the model itself]
        #[arg(id = "which", long = "of", value_name = "VERSION")]
        version: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
}

fn pair(text: &str) -> Result<NamedValue, String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is wanted")?;
    Ok(NamedValue { name: name.to_owned(), value: value.to_owned() })
}

fn metric(text: &str) -> Result<Metric, String> {
    let NamedValue { name, value } = pair(text)?;
    let (value, rows) = match value.rsplit_once('@') {
        Some((value, rows)) => (value.to_owned(), rows.parse().map_err(|_| "ROWS is a number")?),
        None => (value, 0),
    };
    Ok(Metric { name, value, rows })
}

/// Carries a change out.
///
/// # Errors
/// No broker, no such model or version, or (exit 4) what the registry denied.
pub(super) async fn run(settings: &Settings, keys: &Path, asked: Change) -> Outcome<()> {
    let name = asked.model().to_owned();
    let model = blocking({
        let (settings, name) = (settings.clone(), name.clone());
        move || one(&settings, &name)
    })
    .await?;
    let asked = asked.stored(settings, &model).await?;
    let (action, sending) = asked.resolve(&model)?;
    let kind = action.name();
    let (signed, decided) = carry_out(settings, keys, &model, action, &sending).await?;
    let Some((entry, now)) = decided else { return told(settings, kind, &signed, &name, "sent", None) };
    let changed = now.commands.contains(&signed.command_id) || entry.revision > Some(model.revision);
    told(settings, kind, &signed, &name, if changed { "applied" } else { "unchanged" }, Some((&entry, &now)))
}

/// Signs a command on top of the model as it was seen, sends it, and waits for the decision unless that is not wanted: the audit
/// entry and the model afterwards.
///
/// # Errors
/// No broker, or (exit 4) what the registry denied.
pub(in crate::cli) async fn carry_out(
    settings: &Settings,
    keys: &Path,
    model: &Model,
    action: Action,
    sending: &Sending,
) -> Outcome<(Signed, Option<(Audit, Model)>)> {
    let name = model.model.clone();
    let signer = signer(keys, sending.key.as_deref())?;
    let expected = Expected::Revision(model.revision);
    let (audit_ends, expires) = blocking({
        let (settings, name) = (settings.clone(), name.clone());
        let after = i64::from(sending.expires_after);
        move || Ok((ends(&settings, topics::AUDIT)?, expiry(&settings, &name, after)?))
    })
    .await?;
    let signed = build(&name, expected, Some(expires), action, &signer).map_err(Failure::failed)?;
    send(settings, &name, &signed.envelope).await?;
    if sending.no_wait && !sending.wait {
        return Ok((signed, None));
    }
    let timeout = Duration::from_secs(sending.timeout);
    let decided = blocking({
        let (settings, id, name) = (settings.clone(), signed.command_id.clone(), name.clone());
        move || {
            let entry = decision(&settings, &id, audit_ends, timeout)?;
            Ok((entry, one(&settings, &name)?))
        }
    })
    .await?;
    if !decided.0.allowed {
        return Err(Failure::Refused(decided.0.reason));
    }
    Ok((signed, Some(decided)))
}

fn told(
    settings: &Settings,
    kind: &str,
    signed: &Signed,
    model: &str,
    status: &str,
    decided: Option<(&Audit, &Model)>,
) -> Outcome<()> {
    let id = &signed.command_id;
    let registered = decided.and_then(|(_, now)| now.versions.iter().find(|v| v.command_id == *id));
    if settings.json() {
        let mut line = json!({"model": model, "command": kind, "command_id": id, "status": status});
        if let Some((entry, now)) = decided {
            let at = |stage| now.head(stage).map(|v| v.version.clone());
            line["revision"] = json!(entry.revision);
            line["reason"] = json!(entry.reason);
            line["staging"] = json!(at("staging"));
            line["production"] = json!(at("production"));
        }
        if let Some(version) = registered {
            line["version"] = Value::String(version.version.clone());
        }
        return say(line);
    }
    match decided {
        None => say(format_args!("model {model}: {kind} sent (command {id})")),
        Some((entry, _)) => say(format_args!("model {model}: {kind} {status}, {}", entry.reason)),
    }
}

/// The offset of `registry.events` beyond which the command is void: so many events behind the present end.
fn expiry(settings: &Settings, model: &str, after: i64) -> Outcome<i64> {
    let ends = ends(settings, topics::REGISTRY_EVENTS)?;
    let partition = partition_of(model.as_bytes(), i32::try_from(ends.len()).unwrap_or(i32::MAX));
    Ok(ends.get(&partition).copied().unwrap_or(0).saturating_add(after))
}

/// Waits for the registry's decision on a command.
fn decision(settings: &Settings, command_id: &str, from: BTreeMap<i32, i64>, timeout: Duration) -> Outcome<Audit> {
    let deadline = Instant::now() + timeout;
    let mut reader = Reader::open(settings, topics::AUDIT, &Start::Offsets(from))?;
    while Instant::now() < deadline {
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let Some(payload) = message.payload() else { continue };
        let entry: Audit = settings.wire.decode(payload).map_err(Failure::failed)?;
        if entry.command_id.as_deref() == Some(command_id) {
            return Ok(entry);
        }
    }
    Err(Failure::because(format!(
        "the registry has not decided on command {command_id} within {} s\nhelp: `hokusai doctor` tells whether the stages \
         keying and registry run; `hokusai model history` tells later what came of it",
        timeout.as_secs()
    )))
}

impl Change {
    fn model(&self) -> &str {
        match self {
            Self::Register(args) => &args.model,
            Self::Promote { model, .. }
            | Self::Rollback { model, .. }
            | Self::Archive { model, .. }
            | Self::Alias { model, .. }
            | Self::Tag { model, .. } => model,
        }
    }

    /// Puts the bytes of an artefact that is registered into the store: they are there before anything names them.
    async fn stored(self, settings: &Settings, now: &Model) -> Outcome<Self> {
        let Self::Register(mut args) = self else { return Ok(self) };
        let Some(file) = args.artefact.take() else { return Ok(Self::Register(args)) };
        let digest = args.contract.as_ref().unwrap_or(&now.contract_digest);
        let contract = now.contracts.iter().find(|c| c.digest == *digest);
        let contract = contract.map(|c| Spec::from_canonical_json(&c.spec)).transpose().map_err(Failure::failed)?;
        let put = put::put(settings, &file, contract.as_ref(), args.import.clone()).await?;
        (args.digest, args.size) = (Some(put.digest), Some(put.size));
        if let Some(columns) = put.columns {
            args.media_type.get_or_insert_with(|| artefact::NATIVE.to_owned());
            if args.features.is_empty() {
                args.features = columns;
            }
        }
        Ok(Self::Register(args))
    }

    /// The command, with every name resolved to a version: what is signed depends on no alias.
    fn resolve(self, now: &Model) -> Outcome<(Action, Sending)> {
        let number = |name: &str| version(now, name).map(|v| v.version.clone());
        Ok(match self {
            Self::Register(args) => {
                let parent = args.parent.as_deref().map(number).transpose()?;
                register(*args, parent)?
            }
            Self::Promote { version, stage, waiver, sending, .. } => {
                let promotion = Promotion { version: number(&version)?, stage: stage.stage(), waiver };
                (Action::Promote(promotion), sending)
            }
            Self::Rollback { version, stage, reason, sending, .. } => {
                let version = match version {
                    Some(version) => number(&version)?,
                    None => before(now, stage.stage())?,
                };
                (Action::Rollback(Rollback { version, stage: stage.stage(), reason }), sending)
            }
            Self::Archive { version, sending, .. } => (Action::Archive(number(&version)?), sending),
            Self::Alias { alias, version, sending, .. } => {
                let version = version.as_deref().map(number).transpose()?;
                (Action::Alias(AliasChange { alias, version }), sending)
            }
            Self::Tag { tag, value, version, sending, .. } => {
                let version = version.as_deref().map(number).transpose()?;
                (Action::Tag(TagChange { tag, value, version }), sending)
            }
        })
    }
}

/// The version that the one in a stage replaced when it came there.
fn before(model: &Model, stage: Stage) -> Outcome<String> {
    let head = model.head(stage.name()).map(|v| v.version.as_str());
    let came = model.transitions.iter().rfind(|t| t.stage == stage.name() && Some(t.version.as_str()) == head);
    came.and_then(|t| t.from_version.clone()).ok_or_else(|| {
        Failure::because(format!(
            "nothing was in {} before the version that is there\nhelp: `hokusai model history {}` tells what was where",
            stage.name(),
            model.model
        ))
    })
}

fn register(args: RegisterArgs, parent: Option<String>) -> Outcome<(Action, Sending)> {
    let (Some(digest), Some(size)) = (args.digest, args.size) else {
        return Err(Failure::Usage("--artefact FILE, or --digest HEX with --size BYTES".to_owned()));
    };
    let media_type = args.media_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let dataset = args.dataset.map(|digest| Dataset {
        digest,
        rows: args.dataset_rows.unwrap_or(0),
        contributions: args.contributions,
        contributions_root: String::new(),
    });
    let origin = if args.contributor.is_some() { Origin::Contributed } else { Origin::Imported };
    let registration = Registration {
        origin,
        artefact: Artefact { digest, size, media_type },
        contract_digest: args.contract,
        features: args.features,
        lineage: Lineage {
            parent,
            dataset,
            run_id: args.run,
            recipe_digest: args.recipe,
            benchmark: args.benchmark,
            contributor: args.contributor,
        },
        params: args.params,
        metrics: args.metrics,
        tags: args.tags,
    };
    Ok((Action::Register(Box::new(registration)), args.sending))
}

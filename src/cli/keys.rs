//! `hokusai keys`: the tenant's key ring: make it, show its public parts, rotate, destroy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::common::{KeyFolder, Settings, blocking};
use super::exit::{Failure, Outcome, say};
use super::reader::{Polled, Reader, Start, ends};
use super::{audit, model};
use crate::attest::dsse::key_id;
use crate::domain::contract::Spec;
use crate::domain::keys::{KeyRing, SealingKey, TokenKey};
use crate::domain::records::{Audit, Model};
use crate::domain::topics;
use crate::ops::log_keeper;
use crate::ops::secrets;
use crate::ops::time::rfc3339;
use crate::pipeline::tenant;
use crate::stages::registry::command;
use rdkafka::message::Message;

const EXAMPLES: &str = "\
Examples:
  hokusai keys show
  hokusai keys rotate tokens                       new tokens under a new key; for a day under the earlier one as well
  hokusai keys rotate intake                       a new key to seal to, published with every model
  hokusai keys destroy k1 --confirm k1             shred the tokens of k1
  hokusai keys trust grant ci.pub.pem --name ci --role model.register
  hokusai keys trust revoke KEYID                  nothing that the key signs from now on counts

Running workers take up a change within seconds, without a restart. Row hashes, duplicates, ids and receipts depend on keys
that never rotate: the same row has the same owner and the same hash before and after. Keep a backup of the key folder.";

/// Arguments of `keys`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct KeysArgs {
    #[command(flatten)]
    keys: KeyFolder,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the key ring and the log's keys, if there are none
    Create,
    /// Show ids and public parts; never a secret
    Show,
    /// Put a new key in force
    Rotate {
        /// Which key
        #[arg(value_enum)]
        what: What,
        /// For how many hours tokens are written under the earlier key as well; 0 when it has leaked
        #[arg(long, default_value_t = 24, value_name = "HOURS")]
        dual_write: u32,
        #[command(flatten)]
        signing: Signing,
    },
    /// Publish the intake key in force with every model that has another one
    Publish {
        #[command(flatten)]
        signing: Signing,
    },
    /// Whom the platform trusts with which commands, and what a promotion has to show
    Trust(super::trust::TrustArgs),
    /// Destroy an earlier token key: nobody can match its tokens to values any more
    Destroy {
        /// Id of the token key
        #[arg(value_name = "ID")]
        id: String,
        /// The id once more: it cannot be undone
        #[arg(long, value_name = "ID")]
        confirm: Option<String>,
    },
}

/// How the registry is asked to publish a key.
#[derive(Debug, Args)]
struct Signing {
    /// PKCS#8 PEM file of the signing key [default: the development key]
    #[arg(long, env = "HOKUSAI_SIGNING_KEY", value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// Give up waiting for the registry after this many seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The key that makes tokens
    Tokens,
    /// The key that contributors seal to
    Intake,
    /// The key that unreadable records are sealed to
    Operator,
    /// The key that signs statements; its predecessor signs it into the log
    Attester,
    /// The key that signs tree heads
    Log,
}

impl What {
    /// The role of a key that is a file of its own.
    fn log_role(self) -> Option<&'static str> {
        match self {
            Self::Tokens | Self::Intake | Self::Operator => None,
            Self::Attester => Some("attester"),
            Self::Log => Some("log"),
        }
    }
}

/// Runs `keys`.
///
/// # Errors
/// A key file that cannot be used, no broker where one is needed, or (exit 4) what the registry denied.
pub async fn run(args: KeysArgs, settings: Settings) -> Outcome<()> {
    let dir = args.keys.path(&settings);
    let name = tenant(&settings.prefix);
    match args.action {
        Action::Create => {
            let ring = secrets::load_or_create_key_ring(&dir, name).map_err(Failure::failed)?;
            log_keeper::load_or_create_log_keys(&dir, name).map_err(Failure::failed)?;
            show(&settings, &ring)
        }
        Action::Show => show(&settings, &secrets::load_key_ring(&dir, name).map_err(Failure::failed)?),
        Action::Rotate { what, dual_write, signing } => {
            if let Some(role) = what.log_role() {
                return rotate_log(&settings, &dir, role).await;
            }
            let (ring, id) = secrets::change_key_ring(&dir, name, |ring| match what {
                What::Tokens => {
                    let id = ring.rotate()?.to_owned();
                    if dual_write > 0 {
                        ring.open_dual_write(now().saturating_add(i64::from(dual_write) * 3_600_000));
                    }
                    Ok(id)
                }
                What::Intake => Ok(ring.rotate_intake()?.id().to_owned()),
                What::Operator | What::Attester | What::Log => Ok(ring.rotate_operator()?.id().to_owned()),
            })
            .map_err(Failure::failed)?;
            audit::of_key(&settings, &dir, "keys.rotate", &id, "a new key is in force").await;
            show(&settings, &ring)?;
            if what == What::Intake { publish(&settings, &dir, &ring, &signing).await } else { Ok(()) }
        }
        Action::Publish { signing } => {
            let ring = secrets::load_key_ring(&dir, name).map_err(Failure::failed)?;
            publish(&settings, &dir, &ring, &signing).await
        }
        Action::Trust(args) => super::trust::run(args, &settings, &dir).await,
        Action::Destroy { id, confirm } => destroy(&settings, &dir, &id, confirm.as_deref()).await,
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A new key of the log is in force once the log has it: before the next entry.
async fn rotate_log(settings: &Settings, dir: &Path, role: &str) -> Outcome<()> {
    let key = log_keeper::rotate_log_key(dir, tenant(&settings.prefix), role).map_err(Failure::failed)?;
    let id = key_id(&key.verifying_key());
    audit::of_key(settings, dir, "keys.rotate", &format!("{role}/{id}"), "a new key is in force").await;
    if settings.json() {
        say(json!({"role": role, "keyid": id}))
    } else {
        say(format_args!("{role} {id} signs from the next entry on; then give verifiers a new trust root"))
    }
}

async fn destroy(settings: &Settings, dir: &Path, id: &str, confirm: Option<&str>) -> Outcome<()> {
    if confirm != Some(id) {
        return Err(Failure::Usage(format!(
            "destroying {id} cannot be undone: tokens `…:{id}:…` stay in rows and tables, equal values keep equal tokens, but \
             nobody can match them to a value, a person or the tokens of another key any more. Row hashes, duplicates and \
             receipts are not touched\nhelp: repeat it with --confirm {id}; destroy backups of the key file as well"
        )));
    }
    let (ring, ()) =
        secrets::change_key_ring(dir, tenant(&settings.prefix), |ring| ring.destroy(id)).map_err(Failure::failed)?;
    audit::of_key(settings, dir, "keys.destroy", id, "its tokens are shredded").await;
    show(settings, &ring)
}

fn show(settings: &Settings, ring: &KeyRing) -> Outcome<()> {
    let shown = described(ring);
    if settings.json() {
        return say(shown);
    }
    say(format_args!("tenant    {}", ring.tenant()))?;
    for (kind, field) in [("tokens", "token_keys"), ("intake", "intake_keys"), ("operator", "operator_keys")] {
        for key in shown[field].as_array().into_iter().flatten() {
            let text = |name: &str| key[name].as_str().unwrap_or_default();
            let force = if key["current"] == true { "in force" } else { "earlier" };
            let window = match text("dual_write_until") {
                "" => String::new(),
                until => format!("the earlier key writes as well until {until}"),
            };
            let line = format!("{kind:<9} {:<5} {force:<9} {}{window}", text("id"), text("public"));
            say(line.trim_end())?;
        }
    }
    Ok(())
}

/// The public parts of a ring.
fn described(ring: &KeyRing) -> Value {
    let window = ring.dual_write().map(|(_, until)| rfc3339(until));
    let token = |key: &TokenKey| {
        let current = key.id() == ring.token_key().id();
        match window.as_ref().filter(|_| current) {
            Some(until) => json!({"id": key.id(), "current": current, "dual_write_until": until}),
            None => json!({"id": key.id(), "current": current}),
        }
    };
    let pairs = |pairs: &[SealingKey], last: &SealingKey| {
        let pair = |pair: &SealingKey| {
            let current = pair.public().id() == last.public().id();
            json!({"id": pair.public().id(), "current": current, "public": pair.public().hex()})
        };
        pairs.iter().map(pair).collect::<Vec<_>>()
    };
    json!({
        "tenant": ring.tenant(),
        "token_keys": ring.token_keys().map(token).collect::<Vec<_>>(),
        "intake_keys": pairs(ring.intake_keys(), ring.intake_key()),
        "operator_keys": pairs(ring.operator_keys(), ring.operator_key()),
    })
}

/// Applies the contract of every model once more, so that the registry publishes the key in force with it.
async fn publish(settings: &Settings, dir: &Path, ring: &KeyRing, signing: &Signing) -> Outcome<()> {
    let signer = match &signing.signing_key {
        Some(file) => secrets::load_signing_key(file),
        None => secrets::load_or_create_signing_key(dir, secrets::DEVELOPMENT_KEY),
    }
    .map_err(Failure::failed)?;
    let wanted = ring.intake_key().public();
    let is_published = |model: &Model| {
        model.intake_key.as_ref().is_some_and(|key| key.id == wanted.id() && key.public == wanted.hex())
    };
    let deadline = Instant::now() + Duration::from_secs(signing.timeout);
    loop {
        let found = {
            let settings = settings.clone();
            blocking(move || Ok((model::models(&settings)?, ends(&settings, topics::AUDIT)?))).await?
        };
        let (models, ends) = found;
        let behind: Vec<&Model> = models.values().filter(|model| !is_published(model)).collect();
        let Some(first) = behind.first() else {
            return told(settings, wanted.id(), models.len());
        };
        if Instant::now() >= deadline {
            return Err(Failure::because(format!(
                "intake key {} is not published with {} of {} models, {} among them\nhelp: the workers that run keying must \
                 read this key folder; `hokusai doctor` tells whether they run; then `hokusai keys publish`",
                wanted.id(),
                behind.len(),
                models.len(),
                first.model
            )));
        }
        let mut sent = Vec::new();
        for model in behind {
            let contract = model.contracts.iter().find(|c| c.digest == model.contract_digest);
            let Some(contract) = contract else { continue };
            let spec = Spec::from_canonical_json(&contract.spec).map_err(Failure::failed)?;
            let signed = command::build_apply(&spec, model.revision, &signer).map_err(Failure::failed)?;
            model::send(settings, &model.model, &signed.envelope).await?;
            sent.push(signed.command_id);
        }
        let settings = settings.clone();
        blocking(move || answered(&settings, &sent, ends, deadline)).await?;
    }
}

/// Waits until the registry has answered every command: denials end the wait.
fn answered(
    settings: &Settings,
    commands: &[String],
    ends: std::collections::BTreeMap<i32, i64>,
    deadline: Instant,
) -> Outcome<()> {
    let mut open: Vec<&String> = commands.iter().collect();
    let mut reader = Reader::open(settings, topics::AUDIT, &Start::Offsets(ends))?;
    while !open.is_empty() && Instant::now() < deadline {
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let Some(payload) = message.payload() else { continue };
        let entry: Audit = settings.wire.decode(payload).map_err(Failure::failed)?;
        let Some(at) = open.iter().position(|id| entry.reason.contains(id.as_str())) else { continue };
        if !entry.allowed && !entry.reason.starts_with("STALE_REVISION") {
            return Err(Failure::Refused(format!("{}: {}", entry.resource, entry.reason)));
        }
        open.swap_remove(at);
    }
    // A key that keying has not read yet is not published: a moment later it is.
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

fn told(settings: &Settings, id: &str, models: usize) -> Outcome<()> {
    if settings.json() {
        say(json!({"intake_key": id, "models": models, "status": "published"}))
    } else {
        say(format_args!("intake key {id} is published with {models} models"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_ring_holds_no_secret() {
        let mut ring = KeyRing::generate("acme").unwrap();
        ring.rotate().unwrap();
        ring.open_dual_write(1_700_000_000_000);
        let shown = described(&ring).to_string();
        let stored: Value = serde_json::from_str(&ring.to_json()).unwrap();
        let secrets = [
            &stored["tokens"][0]["secret"],
            &stored["tokens"][1]["secret"],
            &stored["dedup"],
            &stored["tree"],
            &stored["intake"][0]["private"],
            &stored["operator"][0]["private"],
        ];
        for secret in secrets {
            assert!(!shown.contains(secret.as_str().unwrap()), "{shown}");
        }
        assert!(shown.contains(stored["intake"][0]["public"].as_str().unwrap()), "{shown}");
        assert!(shown.contains("2023-11-14T22:13:20.000Z"), "{shown}");
    }
}

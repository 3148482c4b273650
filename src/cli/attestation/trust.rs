//! `hokusai attestation trust`: a trust root from the log's own key events and the keys of this machine.

use std::path::{Path, PathBuf};

use clap::Args;
use ed25519_dalek::SigningKey;
use serde_json::json;

use super::log::scan;
use crate::attest::dsse::key_id;
use crate::attest::note::NoteKey;
use crate::attest::predicate::KeyEvent;
use crate::attest::roots::{RangedKey, Role, TrustRoot};
use crate::attest::statement::Predicate;
use crate::cli::atomic;
use crate::cli::common::{KeyFolder, Settings};
use crate::cli::exit::{Failure, Outcome, say};
use crate::ops::log_keeper::load_log_keys;
use crate::ops::secrets;
use crate::pipeline::tenant;
use crate::stages::attesting::keeper::LogKeys;

const DAY: u64 = 24 * 60 * 60;

/// Arguments of `attestation trust`.
#[derive(Debug, Args)]
pub(super) struct TrustArgs {
    #[command(flatten)]
    keys: KeyFolder,
    /// Where to write the trust root
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// PKCS#8 PEM file of a root key that signs; repeat it [default: the development key, KEYS/operator.pem]
    #[arg(long, value_name = "FILE")]
    root_key: Vec<PathBuf>,
    /// How many of the root keys a later trust root needs [default: all that sign this one]
    #[arg(long, value_name = "N")]
    threshold: Option<usize>,
    /// The trust root that this one follows: its version is one higher, and its root keys must sign
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// A witness of tree heads, NAME+ID+BASE64 as other tools write it; repeat it
    #[arg(long, value_name = "VKEY")]
    witness: Vec<String>,
    /// How many witnesses must have signed a tree head
    #[arg(long, default_value_t = 0, value_name = "N")]
    witness_threshold: usize,
    /// Days until verifiers want its successor
    #[arg(long, default_value_t = 365, value_name = "DAYS")]
    expires: u64,
}

pub(super) async fn run(args: TrustArgs, settings: Settings) -> Outcome<()> {
    let dir = args.keys.path(&settings);
    let signers = signers(&args, &dir)?;
    let output = args.output.clone();
    let (root, text) = {
        let settings = settings.clone();
        let made = tokio::task::spawn_blocking(move || make(&args, &settings, &dir, &signers));
        made.await.map_err(Failure::failed)??
    };
    atomic::write(&output, format!("{text}\n").as_bytes())?;
    if settings.json() {
        return say(json!({
            "trust": output.display().to_string(), "version": root.version, "origin": root.origin,
            "expires": root.expires, "root_keys": root.root_ids(),
        }));
    }
    say(format_args!(
        "{}: version {} of {}, {} keys of the log, {} of {} root keys, expires {}",
        output.display(),
        root.version,
        root.origin,
        root.keys.len(),
        root.threshold,
        root.roots.len(),
        root.expires
    ))
}

fn signers(args: &TrustArgs, dir: &Path) -> Outcome<Vec<SigningKey>> {
    if args.root_key.is_empty() {
        let key = secrets::load_or_create_signing_key(dir, secrets::DEVELOPMENT_KEY).map_err(Failure::failed)?;
        return Ok(vec![key]);
    }
    args.root_key.iter().map(|file| secrets::load_signing_key(file).map_err(Failure::failed)).collect()
}

fn make(args: &TrustArgs, settings: &Settings, dir: &Path, signers: &[SigningKey]) -> Outcome<(TrustRoot, String)> {
    let own = load_log_keys(dir, tenant(&settings.prefix)).map_err(Failure::failed)?;
    let mut events = Vec::new();
    scan(settings, |entry| {
        if let Predicate::KeyEvent(event) = entry.statement.predicate {
            events.push(event);
        }
        Ok(())
    })?;
    let (origin, keys) = keys(&events, &own)?;
    let before = args.after.as_ref().map(|file| open(file)).transpose()?;
    let roots: Vec<_> = signers.iter().map(SigningKey::verifying_key).collect();
    let parse = |text: &String| NoteKey::parse(text).map_err(|e| Failure::Usage(format!("--witness: {e}")));
    let root = TrustRoot {
        version: before.as_ref().map_or(1, |root| root.version + 1),
        origin,
        expires: expires(args.expires)?,
        threshold: args.threshold.unwrap_or(roots.len()),
        roots,
        keys,
        witnesses: args.witness.iter().map(parse).collect::<Outcome<_>>()?,
        witness_threshold: args.witness_threshold,
    };
    let text = root.sign(signers).map_err(Failure::failed)?.to_json();
    let checked = match &before {
        Some(before) => before.succeed(text.as_bytes()),
        None => TrustRoot::open(text.as_bytes()),
    };
    checked.map_err(Failure::failed)?;
    Ok((root, text))
}

fn open(file: &Path) -> Outcome<TrustRoot> {
    let text = std::fs::read(file).map_err(|e| Failure::because(format!("{}: {e}", file.display())))?;
    TrustRoot::open(&text).map_err(|e| Failure::because(format!("{}: {e}", file.display())))
}

/// The log's keys by range. Whoever signs a trust root vouches for them: each must be in this key folder, whatever the topic says.
fn keys(events: &[KeyEvent], own: &LogKeys) -> Outcome<(String, Vec<RangedKey>)> {
    let first = events.first().ok_or_else(|| {
        Failure::because(
            "the log has not begun: it has no entry yet\nhelp: its first entry comes with the first receipt",
        )
    })?;
    let mut keys: Vec<RangedKey> = Vec::new();
    for event in events {
        let foreign = || {
            Failure::because(format!(
                "the log names the {} key {}, which this key folder does not have\n\
                 help: make trust roots where the log's keys are (--keys DIR)",
                event.role, event.keyid
            ))
        };
        let key = own.by_id(&event.keyid).filter(|_| event.origin == first.origin).ok_or_else(foreign)?;
        let role = if event.role == "log" { Role::Log } else { Role::Attester };
        let from = u64::try_from(event.from_index).map_err(Failure::failed)?;
        if let Some(before) = keys.iter_mut().rev().find(|key| key.role == role) {
            if Some(&key_id(&before.key)) != event.replaces.as_ref() {
                return Err(foreign());
            }
            before.to = Some(from);
        }
        keys.push(RangedKey { role, key: key.verifying_key(), from, to: None });
    }
    Ok((first.origin.clone(), keys))
}

fn expires(days: u64) -> Outcome<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(Failure::failed)?;
    let end = days.checked_mul(DAY).and_then(|seconds| i64::try_from(now.as_secs().checked_add(seconds)?).ok());
    let end = end.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    let end = end.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)).filter(|text| text.len() == 20);
    end.ok_or_else(|| Failure::Usage("--expires: too many days".to_owned()))
}

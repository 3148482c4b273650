//! `hokusai attestation trust`: a trust root from the log's own key events and the keys of this machine; `refresh`: its newest
//! successor.

use std::path::{Path, PathBuf};

use clap::Args;
use ed25519_dalek::SigningKey;
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::log::scan;
use crate::attest::dsse::key_id;
use crate::attest::note::NoteKey;
use crate::attest::predicate::KeyEvent;
use crate::attest::roots::{Followed, RangedKey, Role, Taken, TrustRoot};
use crate::attest::statement::Predicate;
use crate::cli::atomic;
use crate::cli::common::{KeyFolder, Settings};
use crate::cli::exit::{Failure, Outcome, say};
use crate::cli::producer::produce;
use crate::cli::reader::{Reader, Start};
use crate::domain::topics;
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
    /// A key of the log that got out: it counts for no index from INDEX on; repeat it. Later trust roots made with --after keep it
    #[arg(long, value_name = "KEYID@INDEX", value_parser = revocation)]
    revoke: Vec<Revocation>,
    /// A witness of tree heads, NAME+ID+BASE64 as other tools write it; repeat it
    #[arg(long, value_name = "VKEY")]
    witness: Vec<String>,
    /// How many witnesses must have signed a tree head
    #[arg(long, default_value_t = 0, value_name = "N")]
    witness_threshold: usize,
    /// Days until verifiers want its successor
    #[arg(long, default_value_t = 365, value_name = "DAYS")]
    expires: u64,
    /// Put it onto `attestations.trust` as well, where `attestation refresh` finds it
    #[arg(long)]
    publish: bool,
}

/// Arguments of `attestation refresh`.
#[derive(Debug, Args)]
pub(super) struct RefreshArgs {
    /// A trust root that you believe
    #[arg(value_name = "FILE")]
    trust: PathBuf,
    /// Where to write its newest successor [default: in its place]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A key that counts no longer, and from which index on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Revocation {
    keyid: String,
    from: u64,
}

fn revocation(text: &str) -> Result<Revocation, String> {
    let read = text.split_once('@').and_then(|(keyid, index)| Some((keyid, index.parse().ok()?)));
    let (keyid, from) =
        read.ok_or("KEYID@INDEX, such as 5f0c…@1200: the key's id (64 hex digits) and the first index")?;
    Ok(Revocation { keyid: keyid.to_owned(), from })
}

pub(super) async fn run(args: TrustArgs, settings: Settings) -> Outcome<()> {
    let dir = args.keys.path(&settings);
    let signers = signers(&args, &dir)?;
    let (output, publish) = (args.output.clone(), args.publish);
    let (root, text) = {
        let settings = settings.clone();
        let made = tokio::task::spawn_blocking(move || make(&args, &settings, &dir, &signers));
        made.await.map_err(Failure::failed)??
    };
    atomic::write(&output, format!("{text}\n").as_bytes())?;
    if publish {
        produce(&settings, topics::TRUST, &root.origin, text.as_bytes()).await?;
    }
    if settings.json() {
        let mut said = described(&output, &root);
        said["published"] = publish.into();
        return say(said);
    }
    let published = if publish { "; published" } else { "" };
    say(format_args!("{}{published}", line(&output, &root)))
}

fn described(file: &Path, root: &TrustRoot) -> Value {
    json!({
        "trust": file.display().to_string(), "version": root.version, "origin": root.origin,
        "expires": root.expires, "root_keys": root.root_ids(),
    })
}

fn line(file: &Path, root: &TrustRoot) -> String {
    format!(
        "{}: version {} of {}, {} keys of the log, {} of {} root keys, expires {}",
        file.display(),
        root.version,
        root.origin,
        root.keys.len(),
        root.threshold,
        root.roots.len(),
        root.expires
    )
}

pub(super) fn refresh(args: &RefreshArgs, settings: &Settings) -> Outcome<()> {
    let known = begun(&args.trust)?;
    let was = known.newest().0.version;
    let found = followed(known, settings)?;
    let (root, text) = found.newest();
    let output = args.output.as_ref().unwrap_or(&args.trust);
    if root.version > was || args.output.is_some() {
        atomic::write(output, format!("{}\n", String::from_utf8_lossy(text).trim_end()).as_bytes())?;
    }
    if settings.json() {
        let mut said = described(output, root);
        said["was"] = was.into();
        return say(said);
    }
    let since = if root.version > was { format!("was version {was}") } else { "nothing newer is published".to_owned() };
    say(format_args!("{}; {since}", line(output, root)))
}

fn begun(file: &Path) -> Outcome<Followed> {
    let wrong = |e: &dyn std::fmt::Display| Failure::because(format!("{}: {e}", file.display()));
    let text = std::fs::read(file).map_err(|e| wrong(&e))?;
    Followed::from(text).map_err(|e| wrong(&e))
}

/// Follows a trust root through everything that was published: anybody may write there.
fn followed(mut known: Followed, settings: &Settings) -> Outcome<Followed> {
    Reader::scan(settings, topics::TRUST, &Start::Beginning)?.for_each_to_end(|message| {
        if let Some(Taken::Forked) = message.payload().map(|text| known.take(text)) {
            let version = known.newest().0.version;
            tracing::warn!(
                offset = message.offset(),
                version,
                "the root keys have signed another trust root of this version"
            );
        }
        Ok(())
    })?;
    Ok(known)
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
    let (origin, mut keys) = keys(&events, &own)?;
    let before = args.after.as_ref().map(|file| begun(file)).transpose()?;
    if let Some(known) = before.clone().filter(|_| args.publish) {
        let (was, newest) = (known.newest().0.version, followed(known, settings)?.newest().0.version);
        if newest > was {
            let help = "take it by `attestation refresh`, and name that as --after";
            return Err(Failure::because(format!(
                "a successor of version {was} is published already: {newest}\nhelp: {help}"
            )));
        }
    }
    let before = before.as_ref().map(|known| known.newest().0);
    narrow(&mut keys, before.map_or(&[], |before| &before.keys), &args.revoke)?;
    let roots: Vec<_> = signers.iter().map(SigningKey::verifying_key).collect();
    let parse = |text: &String| NoteKey::parse(text).map_err(|e| Failure::Usage(format!("--witness: {e}")));
    let root = TrustRoot {
        version: before.map_or(1, |root| root.version + 1),
        origin,
        expires: expires(args.expires)?,
        threshold: args.threshold.unwrap_or(roots.len()),
        roots,
        keys,
        witnesses: args.witness.iter().map(parse).collect::<Outcome<_>>()?,
        witness_threshold: args.witness_threshold,
    };
    let text = root.sign(signers).map_err(Failure::failed)?.to_json();
    let checked = match before {
        Some(before) => before.succeed(text.as_bytes()),
        None => TrustRoot::open(text.as_bytes()),
    };
    checked.map_err(Failure::failed)?;
    Ok((root, text))
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

/// Ends the ranges of keys where they were revoked, now or by the trust root before.
fn narrow(keys: &mut [RangedKey], before: &[RangedKey], revoked: &[Revocation]) -> Outcome<()> {
    let end = |key: &mut RangedKey, to: u64| key.to = Some(key.to.map_or(to, |end| end.min(to)).max(key.from));
    for key in &mut *keys {
        let same = |own: &&RangedKey| (own.role, own.key, own.from) == (key.role, key.key, key.from);
        if let Some(to) = before.iter().find(same).and_then(|own| own.to) {
            end(key, to);
        }
    }
    for Revocation { keyid, from } in revoked {
        let mut found = false;
        for key in keys.iter_mut().filter(|key| key_id(&key.key) == *keyid) {
            found = true;
            end(key, *from);
        }
        if !found {
            let help = "`hokusai verify` and `hokusai attestation list` name keys by their ids";
            return Err(Failure::Usage(format!("--revoke {keyid}: the log has no such key\nhelp: {help}")));
        }
    }
    Ok(())
}

fn expires(days: u64) -> Outcome<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(Failure::failed)?;
    let end = days.checked_mul(DAY).and_then(|seconds| i64::try_from(now.as_secs().checked_add(seconds)?).ok());
    let end = end.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    let end = end.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)).filter(|text| text.len() == 20);
    end.ok_or_else(|| Failure::Usage("--expires: too many days".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8, from: u64, to: Option<u64>) -> RangedKey {
        RangedKey { role: Role::Attester, key: SigningKey::from_bytes(&[byte; 32]).verifying_key(), from, to }
    }

    fn covered(keys: &[RangedKey]) -> Vec<bool> {
        [0, 9, 10, 19, 20, 30].map(|index| keys.iter().any(|key| key.covers(index))).to_vec()
    }

    #[test]
    fn a_revoked_key_counts_below_its_index_alone_and_stays_revoked_in_later_trust_roots() {
        let whole = || vec![key(1, 0, Some(20)), key(2, 20, None)];
        let revoked = Revocation { keyid: key_id(&key(1, 0, None).key), from: 10 };
        let mut first = whole();
        narrow(&mut first, &[], std::slice::from_ref(&revoked)).unwrap();
        assert_eq!(covered(&first), [true, true, false, false, true, true]);
        let mut next = whole();
        narrow(&mut next, &first, &[]).unwrap();
        assert_eq!(covered(&next), covered(&first), "nobody has to say it again");
        let later = Revocation { from: 15, ..revoked.clone() };
        narrow(&mut next, &first, &[later]).unwrap();
        assert_eq!(covered(&next), covered(&first), "what was taken back is not given again");
        let mut none = whole();
        narrow(&mut none, &[], &[Revocation { from: 0, ..revoked }]).unwrap();
        assert_eq!(covered(&none), [false, false, false, false, true, true]);
    }

    #[test]
    fn a_revocation_of_no_key_or_without_an_index_is_refused() {
        let unknown = Revocation { keyid: "00".repeat(32), from: 3 };
        assert!(narrow(&mut [key(1, 0, None)], &[], &[unknown]).is_err());
        for bad in ["", "00", "00@", "00@x", "00@-1"] {
            assert!(revocation(bad).is_err(), "{bad}");
        }
    }
}

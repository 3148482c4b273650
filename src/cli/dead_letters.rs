//! `hokusai dead-letters`: what could not be read, and sending it again.
//!
//! A dead letter keeps its record sealed to the operator's key, so that it can be sent again after the plaintext is purged: when a
//! newer version reads what an older one could not, or a schema registry is back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;

use super::audit;
use super::common::{KeyFolder, Settings};
use super::exit::{Failure, Outcome, say};
use super::reader::{Reader, Start};
use crate::codec::aside;
use crate::domain::records::{Audit, DeadLetter, Position};
use crate::domain::topics;
use crate::ops::secrets;
use crate::pipeline::tenant;

const EXAMPLES: &str = "\
Examples:
  hokusai dead-letters list
  hokusai dead-letters retry --position contributions/0/17
  hokusai dead-letters retry --all

`retry` opens a record with the operator's key (in the tenant's key ring) and sends it to its topic again, as it came; each
retry is audited before it is sent. --all leaves out what was retried before.";

/// What a retry is recorded as.
const RETRY: &str = "dead-letters.retry";

/// How long the brokers may take to acknowledge a record.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest record that is sent again: as large as the topics take.
const MAX_MESSAGE: &str = "8388608";

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeadLettersArgs {
    #[command(flatten)]
    keys: KeyFolder,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead letters: position, stage, reason, size, digest; never a byte of the record
    List,
    /// Send records to their topics again
    Retry {
        /// Which record, as `list` names it; may be repeated
        #[arg(long, value_name = "TOPIC/PARTITION/OFFSET", required_unless_present = "all")]
        position: Vec<At>,
        /// Every record that was not retried yet
        #[arg(long, conflicts_with = "position")]
        all: bool,
    },
}

/// A position as it is typed: `TOPIC/PARTITION/OFFSET`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct At(Position);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (rest, offset) = text.rsplit_once('/')?;
            let (topic, partition) = rest.rsplit_once('/')?;
            let topic = Some(topic.to_owned()).filter(|topic| !topic.is_empty())?;
            Some(Self(Position { topic, partition: partition.parse().ok()?, offset: offset.parse().ok()? }))
        };
        parsed().ok_or_else(|| "expected TOPIC/PARTITION/OFFSET, as in contributions/0/17".to_owned())
    }
}

fn shown(position: &Position) -> String {
    format!("{}/{}/{}", position.topic, position.partition, position.offset)
}

/// Runs `dead-letters`.
///
/// # Errors
/// No broker, no key ring for `retry`, or a record that cannot be had back.
pub async fn run(args: DeadLettersArgs, settings: Settings) -> Outcome<()> {
    let reading = settings.clone();
    let read = move || -> Outcome<_> { Ok((letters(&reading)?, retried(&reading)?)) };
    let (letters, retried) = tokio::task::spawn_blocking(read).await.map_err(Failure::failed)??;
    match args.action {
        Action::List => list(&settings, &letters, &retried),
        Action::Retry { position, all } => {
            let dir = args.keys.path(&settings);
            let chosen = if all {
                letters.keys().filter(|position| !retried.contains(&shown(position))).cloned().collect()
            } else {
                position.into_iter().map(|At(position)| position).collect::<Vec<_>>()
            };
            retry(&settings, dir, &letters, chosen).await
        }
    }
}

/// Dead letters by the position that they are about, oldest part first.
fn letters(settings: &Settings) -> Outcome<BTreeMap<Position, Vec<DeadLetter>>> {
    let mut found: BTreeMap<Position, Vec<DeadLetter>> = BTreeMap::new();
    Reader::scan(settings, topics::DEAD_LETTERS, &Start::Beginning)?.for_each_to_end(|message| {
        if let Some(payload) = message.payload() {
            let letter: DeadLetter = settings.wire.decode(payload).map_err(Failure::failed)?;
            found.entry(letter.position.clone()).or_default().push(letter);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Positions that were retried before, as the audit has them.
fn retried(settings: &Settings) -> Outcome<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    Reader::scan(settings, topics::AUDIT, &Start::Beginning)?.for_each_to_end(|message| {
        if let Some(payload) = message.payload() {
            let entry: Audit = settings.wire.decode(payload).map_err(Failure::failed)?;
            if entry.action == RETRY {
                found.extend(entry.position.as_ref().map(shown));
            }
        }
        Ok(())
    })?;
    Ok(found)
}

fn list(settings: &Settings, letters: &BTreeMap<Position, Vec<DeadLetter>>, retried: &BTreeSet<String>) -> Outcome<()> {
    for (position, parts) in letters {
        let (Some(letter), at) = (parts.first(), shown(position)) else { continue };
        let (kept, again) = (letter.sealed_to.is_some(), retried.contains(&at));
        if settings.json() {
            say(json!({
                "position": at, "stage": letter.stage, "reason": letter.reason, "detail": letter.detail,
                "size": letter.size, "digest": letter.digest, "sealed_to": letter.sealed_to, "retried": again,
            }))?;
        } else {
            let remark = match (again, kept) {
                (true, _) => ", retried",
                (false, true) => "",
                (false, false) => ", not kept",
            };
            let digest: String = letter.digest.chars().take(16).collect();
            say(format_args!(
                "{at}  {}  {}  {} bytes, digest {digest}…{remark}\n  {}",
                letter.stage, letter.reason, letter.size, letter.detail
            ))?;
        }
    }
    if letters.is_empty() && !settings.json() {
        say("no dead letters")?;
    }
    Ok(())
}

async fn retry(
    settings: &Settings,
    dir: PathBuf,
    letters: &BTreeMap<Position, Vec<DeadLetter>>,
    chosen: Vec<Position>,
) -> Outcome<()> {
    let ring = secrets::load_key_ring(&dir, tenant(&settings.prefix)).map_err(Failure::failed)?;
    let producer: FutureProducer = settings
        .client()
        .set("enable.idempotence", "true")
        .set("message.max.bytes", MAX_MESSAGE)
        .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
        .create()
        .map_err(|e| Failure::Usage(e.to_string()))?;
    let mut failed = 0_usize;
    for position in &chosen {
        let at = shown(position);
        let opened = letters
            .get(position)
            .ok_or_else(|| "there is no dead letter about this position".to_owned())
            .and_then(|letters| aside::open(letters, &ring).map_err(|error| error.to_string()));
        let original = match opened {
            Ok(original) => original,
            Err(why) => {
                failed += 1;
                told(settings, &at, "failed", &why)?;
                continue;
            }
        };
        let reason = "the record is sent to its topic again".to_owned();
        audit::record(settings, &dir, RETRY, format!("topic/{}", position.topic), reason, Some(position.clone()))
            .await?;
        let topic = settings.topic(&position.topic);
        let mut record = FutureRecord::<[u8], [u8]>::to(&topic);
        record.key = original.key.as_deref();
        record.payload = original.value.as_deref();
        producer.send(record, TIMEOUT).await.map_err(|(error, _)| settings.no_broker(error))?;
        told(settings, &at, "retried", "")?;
    }
    match failed {
        0 if chosen.is_empty() && !settings.json() => say("nothing to retry"),
        0 => Ok(()),
        failed => Err(Failure::because(format!("{failed} of {} records could not be retried", chosen.len()))),
    }
}

fn told(settings: &Settings, at: &str, status: &str, why: &str) -> Outcome<()> {
    if settings.json() {
        let reason = (!why.is_empty()).then_some(why);
        say(json!({"position": at, "status": status, "reason": reason}))
    } else if why.is_empty() {
        say(format_args!("{at}: {status}"))
    } else {
        say(format_args!("{at}: {status}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_typed_as_it_is_shown() {
        let At(position) = "contributions/0/17".parse().unwrap();
        assert_eq!((position.topic.as_str(), position.partition, position.offset), ("contributions", 0, 17));
        assert_eq!(shown(&position), "contributions/0/17");
        for wrong in ["contributions/0", "/0/17", "contributions/x/17", "contributions/0/17/", ""] {
            assert!(wrong.parse::<At>().is_err(), "{wrong}");
        }
    }
}

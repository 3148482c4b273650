//! `hokusai doctor`: checks what the stages need and says what to do about what is wrong.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use serde::Serialize;

use super::common::{Endpoint, KeyFolder, Settings};
use super::exit::{Failure, Outcome, say};
use super::reader::{METADATA_TIMEOUT, Polled, Reader, Start, ends};
use crate::domain::topics;
use crate::store::{Store, StoreError, StoreOptions};
use crate::stream::outside;
use crate::stream::retention::{self, Oldest};
use crate::topology::{ReaderSpec, apply};

const EXAMPLES: &str = "\
Examples:
  hokusai doctor
  hokusai doctor --brokers kafka:9092 --format json

Exit codes: 0 all is well (or only warnings), 1 something is wrong, 3 no broker reached.";

/// Free space below which the data folder is in danger.
const MIN_FREE: u64 = 1 << 30;

/// How far the brokers' clock may be from this machine's.
const MAX_SKEW_MS: i64 = 5 * 60 * 1000;

/// Largest record that `contributions` must take through brokers and replicas.
const MAX_RECORD: i64 = 5 << 20;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    #[command(flatten)]
    keys: KeyFolder,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warning,
    Wrong,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    detail: String,
    help: String,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), help: String::new() }
    }

    fn new(check: &'static str, status: Status, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check, status, detail: detail.into(), help: help.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
            Status::Wrong => "WRONG  ",
        };
        write!(f, "{mark}  {:<11} {}", self.check, self.detail)?;
        if !self.help.is_empty() {
            write!(f, "\n{:21}help: {}", "", self.help)?;
        }
        Ok(())
    }
}

/// Runs `doctor`.
///
/// # Errors
/// No broker, or (exit 1) something is wrong.
pub async fn run(args: DoctorArgs, settings: Settings) -> Outcome<()> {
    let mut findings =
        vec![disk(&settings), state(&settings), keys(&settings, &args.keys.path(&settings)), schemas(&settings)];
    findings.push(store(&settings).await);
    let no_broker = broker(&settings).await;
    match no_broker {
        Ok(finding) => {
            findings.push(finding);
            findings.extend(fsync(&settings));
            findings.extend(topics(&settings).await?);
            findings.push(sizes(&settings).await);
            findings.push(clock(&settings).await?);
            findings.push(retention(&settings).await?);
            findings.extend(readers(&settings).await?);
        }
        Err(failure) => {
            show(&settings, &findings)?;
            return Err(failure);
        }
    }
    show(&settings, &findings)?;
    match findings.iter().filter(|f| f.status == Status::Wrong).count() {
        0 => Ok(()),
        n => Err(Failure::because(format!("{n} of {} checks found something wrong", findings.len()))),
    }
}

fn show(settings: &Settings, findings: &[Finding]) -> Outcome<()> {
    for finding in findings {
        if settings.json() {
            say(serde_json::to_string(finding).map_err(Failure::failed)?)?;
        } else {
            say(finding)?;
        }
    }
    Ok(())
}

async fn broker(settings: &Settings) -> Outcome<Finding> {
    let settings = settings.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = settings.client().create().map_err(|e| Failure::Usage(e.to_string()))?;
        let metadata = consumer.fetch_metadata(None, METADATA_TIMEOUT).map_err(|e| settings.no_broker(e))?;
        Ok(Finding::ok(
            "broker",
            format!("{} reached at {}", plural(metadata.brokers().len(), "broker"), settings.brokers),
        ))
    });
    asked.await.map_err(Failure::failed)?
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// What `topology apply` would do, as findings: missing topics, other partition counts, timestamps and sizes.
async fn topics(settings: &Settings) -> Outcome<Vec<Finding>> {
    let options = apply::ApplyOptions { prefix: settings.prefix.clone(), replication: 1, dry_run: true };
    match apply::apply(&settings.topology, &settings.client(), &options).await {
        Ok(actions) if actions.is_empty() => {
            Ok(vec![Finding::ok("topics", "all are there, as the topology declares them")])
        }
        Ok(actions) => Ok(actions
            .iter()
            .map(|action| {
                // A refusal brings its own way out: applying would refuse again.
                let refused = matches!(action, apply::Action::Refuse { .. });
                let help = if refused { "" } else { "hokusai topology apply" };
                Finding::new("topics", Status::Wrong, action.to_string(), help)
            })
            .collect()),
        Err(error) if error.no_broker() => Err(settings.no_broker(error)),
        Err(error) => Ok(vec![Finding::new("topics", Status::Wrong, error.to_string(), "")]),
    }
}

/// Who outside the stages holds back what would be purged.
async fn readers(settings: &Settings) -> Outcome<Vec<Finding>> {
    let settings = settings.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let readers = settings.topology.readers();
        let admin = settings.cluster().admin();
        let found = readers.iter().map(|reader| match &admin {
            Ok(admin) => reader_finding(reader, outside::waits(admin, reader).map_err(|e| e.to_string())),
            Err(error) => reader_finding(reader, Err(error.to_string())),
        });
        found.collect()
    });
    asked.await.map_err(Failure::failed)
}

fn reader_finding(reader: &ReaderSpec, waits: Result<Vec<outside::Wait>, String>) -> Finding {
    let waits = match waits {
        Ok(waits) => waits,
        Err(error) => return Finding::new("readers", Status::Wrong, format!("{}: {error}", reader.name), ""),
    };
    let records: i64 = waits.iter().map(|wait| wait.records).sum();
    let overdue: Vec<String> = waits
        .iter()
        .filter(|wait| wait.overdue)
        .map(|wait| match wait.position {
            Some(position) => format!("{}-{} from offset {position}", wait.topic, wait.partition),
            None => format!("{}-{}, of which it has committed nothing", wait.topic, wait.partition),
        })
        .collect();
    if overdue.is_empty() {
        return Finding::ok(
            "readers",
            format!("{} holds back {records} offsets, none beyond its patience", reader.name),
        );
    }
    Finding::new(
        "readers",
        Status::Warning,
        format!(
            "{} holds the purge back: for more than {} s records wait in {}",
            reader.name,
            reader.patience.as_secs(),
            overdue.join(", ")
        ),
        "start it again, or take it out of the topology's `readers`",
    )
}

/// Whether records as large as a chunk pass brokers and replicas.
async fn sizes(settings: &Settings) -> Finding {
    let admin: AdminClient<DefaultClientContext> = match settings.client().create() {
        Ok(admin) => admin,
        Err(e) => return Finding::new("sizes", Status::Wrong, e.to_string(), ""),
    };
    let contributions = settings.topic(topics::CONTRIBUTIONS);
    let resources = [ResourceSpecifier::Topic(&contributions)];
    let asked = admin.describe_configs(&resources, &AdminOptions::new().request_timeout(Some(METADATA_TIMEOUT))).await;
    let configs = match asked.map(|answers| answers.into_iter().next()) {
        Ok(Some(Ok(resource))) => resource,
        Ok(Some(Err(e))) => {
            return Finding::new("sizes", Status::Wrong, format!("{contributions}: {e}"), "hokusai topology apply");
        }
        Ok(None) => return Finding::new("sizes", Status::Wrong, "the broker does not tell", ""),
        Err(e) => return Finding::new("sizes", Status::Wrong, e.to_string(), ""),
    };
    let found = configs.get("max.message.bytes").and_then(|e| e.value.as_deref()).and_then(|v| v.parse::<i64>().ok());
    match found {
        Some(bytes) if bytes >= MAX_RECORD => {
            Finding::ok("sizes", format!("{contributions} takes records of {bytes} bytes"))
        }
        found => Finding::new(
            "sizes",
            Status::Wrong,
            format!("{contributions} takes records of {} bytes, a chunk needs {MAX_RECORD}", found.unwrap_or(0)),
            "hokusai topology apply; on the brokers, replica.fetch.max.bytes must not be smaller",
        ),
    }
}

/// Compares the newest append time of the brokers with this machine's clock.
async fn clock(settings: &Settings) -> Outcome<Finding> {
    let settings = settings.clone();
    let asked = tokio::task::spawn_blocking(move || newest_append(&settings));
    let newest = asked.await.map_err(Failure::failed)??;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    Ok(match newest {
        None => Finding::ok("clock", "no record yet to compare this machine's clock with"),
        Some(time) if time > now + MAX_SKEW_MS => Finding::new(
            "clock",
            Status::Wrong,
            format!("the brokers' newest record is {} s in this machine's future", (time - now) / 1000),
            "set the clocks (NTP): timestamps in the future are refused by the brokers' clock",
        ),
        Some(_) => Finding::ok("clock", "the brokers' newest record is not in this machine's future"),
    })
}

/// Whether plaintext comes near its hard limit, past which it is deleted unread.
async fn retention(settings: &Settings) -> Outcome<Finding> {
    let settings = settings.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let admin = settings.cluster().admin().map_err(|e| settings.unreachable(e))?;
        Ok(match retention::oldest(&admin, &settings.topology) {
            Ok(oldest) => waiting(&oldest, retention::now()),
            Err(e) if e.is_unreachable() => return Err(settings.unreachable(e)),
            Err(e) => Finding::new("retention", Status::Wrong, e.to_string(), ""),
        })
    });
    asked.await.map_err(Failure::failed)?
}

fn waiting(oldest: &[Oldest], now: i64) -> Finding {
    let Some(most) = oldest.iter().max_by_key(|record| record.age(now)).filter(|record| record.appended.is_some())
    else {
        return Finding::ok("retention", "no record waits to be purged");
    };
    let (age, limit) = (most.age(now).as_secs(), most.retain.as_secs());
    let detail = format!("the oldest record of {} is {age} s old; after {limit} s it is deleted unread", most.topic);
    if oldest.iter().any(|record| record.is_late(now)) {
        let help = "half of the limit is over: do intake and the warehouse run and keep up?";
        return Finding::new("retention", Status::Warning, detail, help);
    }
    Finding::ok("retention", detail)
}

/// Append time of the newest manifest or mark; that topic has the brokers' own time.
fn newest_append(settings: &Settings) -> Outcome<Option<i64>> {
    let Ok(ends) = ends(settings, topics::MANIFESTS) else { return Ok(None) };
    // A few offsets back: the last ones may be transaction markers.
    let near = ends.into_iter().map(|(partition, end)| (partition, (end - 16).max(0))).collect();
    let mut reader = Reader::scan(settings, topics::MANIFESTS, &Start::Offsets(near))?;
    let mut newest = None;
    while !reader.at_end() {
        if let Polled::Record(message) = reader.poll(Duration::from_millis(200))? {
            newest = newest.max(message.timestamp().to_millis());
        }
    }
    Ok(newest)
}

fn disk(settings: &Settings) -> Finding {
    let folder = settings.data.ancestors().find(|folder| folder.exists()).unwrap_or(&settings.data);
    match rustix::fs::statvfs(folder) {
        Err(e) => Finding::new("disk", Status::Wrong, format!("{}: {e}", folder.display()), "check --data"),
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let detail = format!("{} MiB free at {}", free >> 20, settings.data.display());
            if free < MIN_FREE {
                Finding::new("disk", Status::Warning, detail, "free some space, or move --data and --store")
            } else {
                Finding::ok("disk", detail)
            }
        }
    }
}

/// What the tasks of this machine keep on disk, by stage, and whether this program can read it.
fn state(settings: &Settings) -> Finding {
    let kept = match crate::stream::runs::manifest::kept(&settings.state_folder()) {
        Ok(kept) => kept,
        Err(e) => return Finding::new("state", Status::Wrong, e.to_string(), ""),
    };
    if kept.is_empty() {
        return Finding::ok("state", "none on this machine yet");
    }
    let mut stages: std::collections::BTreeMap<&str, (usize, u64)> = std::collections::BTreeMap::new();
    for task in &kept {
        let (tasks, bytes) = stages.entry(&task.stage).or_default();
        (*tasks, *bytes) = (*tasks + 1, *bytes + task.bytes);
    }
    let stages: Vec<String> = stages
        .into_iter()
        .map(|(stage, (tasks, bytes))| format!("{stage} {} KiB in {}", bytes >> 10, plural(tasks, "task")))
        .collect();
    Finding::ok("state", format!("on this machine's disk: {}", stages.join(", ")))
}

/// Whether the shared store answers, and keeps a name's second writer out.
async fn store(settings: &Settings) -> Finding {
    let opened = Store::open(&settings.store, &StoreOptions::from_environment()).await;
    let wrong = |e: StoreError| Finding::new("store", Status::Wrong, e.to_string(), "");
    match opened {
        Err(error) => wrong(error),
        Ok(store) if store.folder().is_some_and(|folder| !folder.exists()) => {
            Finding::ok("store", format!("{} is made when it is first needed", settings.store))
        }
        Ok(store) => match store.check_writes().await {
            Err(error) => wrong(error),
            Ok(()) => Finding::ok("store", format!("{} answers and honours conditional writes", settings.store)),
        },
    }
}

fn fsync(settings: &Settings) -> Option<Finding> {
    let endpoint = Endpoint::read(&settings.data)?;
    (endpoint.brokers == settings.brokers).then(|| match endpoint.fsync.as_str() {
        "group" => Finding::ok("durability", "the embedded broker syncs before it acknowledges"),
        other => Finding::new(
            "durability",
            Status::Warning,
            format!("the embedded broker runs with --fsync {other}: a power loss may lose acknowledged records"),
            "leave --fsync out",
        ),
    })
}

fn keys(settings: &Settings, folder: &Path) -> Finding {
    if !folder.exists() {
        return Finding::ok("keys", "none on this machine yet; `hokusai up` makes development keys");
    }
    match crate::ops::secrets::load_key_ring(folder, crate::pipeline::tenant(&settings.prefix)) {
        Ok(ring) => Finding::ok(
            "keys",
            format!("token key {} and intake key {} in force", ring.token_key().id(), ring.intake_key().public().id()),
        ),
        Err(e) => Finding::new("keys", Status::Wrong, e.to_string(), ""),
    }
}

fn schemas(settings: &Settings) -> Finding {
    match settings.wire.registry_answers() {
        None => Finding::ok("schemas", "Avro single-object encoding, no registry"),
        Some(Ok(())) => Finding::ok("schemas", "the schema registry answers"),
        Some(Err(e)) => Finding::new("schemas", Status::Wrong, e.to_string(), "check --schema-registry"),
    }
}

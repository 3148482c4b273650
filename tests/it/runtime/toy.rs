//! The toy stages and a process that runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hokusai::codec::wire::Wire;
use hokusai::domain::records::{Audit, DeadLetter, Record as Schema};
use hokusai::stream::client::Admin;
use hokusai::stream::stage::{
    Batch, Change, Checkpoint, Context, Destination, Outputs, Place, Snapshot, Stage, StageError, State, StateSize,
    Tick,
};
use hokusai::stream::state::KeyValue;
use hokusai::stream::{Cluster, Health, Kept, Runtime, RuntimeConfig, Settings};
use hokusai::topology::Topology;
use tokio_util::sync::CancellationToken;

use crate::support::broker::Broker;
use crate::support::client::{Isolation, Producer, Record, Send, read};
use crate::support::{eventually, unique};

const TOPOLOGY: &str = "
version: 1
defaults: {partitions: 2, max_message_bytes: 1048588}
topics:
  - {name: raw, about: Outsiders' amounts, from: outsiders, schema: audit, partitions: 2, timestamps: append, cleanup: kept}
  - {name: amounts, about: Amounts by key, key: name, schema: audit, partitions: 2, cleanup: kept, timestamps: append}
  - {name: more, about: More amounts, key: name, schema: audit, partitions: 2, cleanup: purged}
  - {name: sums.out, about: Sums, key: name, schema: audit, partitions: 2, cleanup: kept}
  - {name: facts, about: Known keys, key: name, schema: audit, partitions: 1, cleanup: compacted}
  - {name: dead-letters, about: Dead letters, key: position, from: runtime, schema: dead_letter, partitions: 1, cleanup: kept}
  - {name: hokusai.progress, about: Progress, key: stage_partition, from: runtime, schema: progress, partitions: 1, cleanup: compacted}
stages:
  - {name: relay, about: Passes on, implemented: true, state_key: none, inputs: [raw], broadcast: [facts], outputs: [amounts, more, facts], marks: amounts}
  - {name: sums, about: Adds up, implemented: true, state_key: name, inputs: [amounts, more], broadcast: [facts], outputs: [sums.out]}
";

/// What a test does to the stages while they run.
#[derive(Debug, Default)]
pub struct Faults {
    /// This many further calls fail once.
    pub failing_calls: AtomicI64,
    /// Calls so far.
    pub calls: AtomicU64,
    /// Records in them.
    pub records: AtomicU64,
    /// Marks that were told.
    pub marks: Mutex<Vec<Tick>>,
    /// Changes that were restored from the changelog.
    pub restored: AtomicU64,
    /// The task of partition 0 waits in its restore.
    pub holds_restore: AtomicBool,
    /// `sums` waits inside `process`.
    pub holds_process: AtomicBool,
    /// `relay` cannot make time marks.
    pub marks_fail: AtomicBool,
    /// `sums` owes one for each fact `due` that it heard of and has not told.
    pub due: AtomicI64,
}

/// State that tells what is done with it.
pub struct Watched {
    state: KeyValue,
    faults: Arc<Faults>,
    partition: i32,
}

impl State for Watched {
    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StageError> {
        while self.partition == 0 && self.faults.holds_restore.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.faults.restored.fetch_add(1, Ordering::Relaxed);
        self.state.restore(key, value)
    }
    fn changes(&mut self) -> Vec<Change> {
        self.state.changes()
    }
    fn commit(&mut self) {
        self.state.commit();
    }
    fn abort(&mut self) {
        self.state.abort();
    }
    fn size(&self) -> StateSize {
        self.state.size()
    }
    fn open(&mut self, place: &Place) -> Result<Option<Checkpoint>, StageError> {
        self.partition = place.identity.partition;
        self.state.open(place)
    }
    fn restored(&mut self) -> Result<(), StageError> {
        self.state.restored()
    }
    fn wants_checkpoint(&self) -> bool {
        self.state.wants_checkpoint()
    }
    fn checkpoint(&mut self, at: &Checkpoint) -> Result<(), StageError> {
        self.state.checkpoint(at)
    }
    const FORM: Option<(&'static str, u16)> = KeyValue::FORM;
    fn snapshot(&self, to: &std::path::Path) -> Result<Option<Snapshot>, StageError> {
        self.state.snapshot(to)
    }
}

/// Key of what `sums` owes: it is told in the next transaction, once it is committed.
const OWED: &[u8] = b"owed";

/// Adds up amounts per key. `owe N` is told as N later; `ask` needs to know every fact.
pub struct Sums(pub Arc<Faults>);

impl Stage for Sums {
    type State = Watched;

    fn name(&self) -> &'static str {
        "sums"
    }

    fn state(&self) -> Watched {
        Watched { state: KeyValue::new(), faults: Arc::clone(&self.0), partition: -1 }
    }

    fn broadcast(&mut self, _: &str, key: &[u8], _: Option<&[u8]>, _: &Wire) -> Result<(), StageError> {
        if key == b"due" {
            self.0.due.store(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn owes(&self, Watched { state, .. }: &Watched) -> Result<bool, StageError> {
        Ok(!state.scan_prefix(OWED, 1)?.is_empty() || self.0.due.load(Ordering::Relaxed) > 0)
    }

    fn settle(
        &mut self,
        _: &Context<'_>,
        Watched { state, .. }: &mut Watched,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        if self.0.due.swap(0, Ordering::Relaxed) > 0 {
            out.send("sums.out", Destination::ByKey, OWED, &sum("due", 1, 0))?;
        }
        for (key, amount) in state.scan_prefix(OWED, 1)? {
            let amount = String::from_utf8_lossy(&amount).parse().unwrap();
            out.send("sums.out", Destination::ByKey, OWED, &sum("owed", amount, 0))?;
            state.delete(key.to_vec())?;
        }
        Ok(())
    }

    fn process(
        &mut self,
        context: &Context<'_>,
        Watched { state, .. }: &mut Watched,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.0.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        while self.0.holds_process.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut failing = None;
        if self.0.failing_calls.fetch_sub(1, Ordering::Relaxed) > 0 {
            failing = Some(batch.len() / 2);
        }
        for (index, message) in batch.iter().enumerate() {
            if failing == Some(index) {
                return Err(compute("injected"));
            }
            let text = String::from_utf8_lossy(message.value.unwrap_or_default()).into_owned();
            let key = message.key.unwrap_or_default().to_vec();
            if text.starts_with("mark") {
                continue;
            }
            if let Some(amount) = text.strip_prefix("owe ") {
                state.put(OWED.to_vec(), amount.to_owned())?;
                continue;
            }
            if text == "ask" && !context.broadcast_is_current {
                return Err(StageError::NeedsBroadcast);
            }
            if text == "ask" {
                continue;
            }
            if text == "poison" {
                return Err(compute("poisoned"));
            }
            let Ok(amount) = text.parse::<i64>() else {
                out.dead_letter(batch, &message, "NO_NUMBER", "not a number".into());
                continue;
            };
            let before = state.get(&key)?.map_or(0, |v| String::from_utf8_lossy(&v).parse::<i64>().unwrap());
            state.put(key.clone(), (before + amount).to_string())?;
            let name = String::from_utf8_lossy(&key).into_owned();
            let length = if amount == 999 { 2_000_000 } else { 0 };
            out.send("sums.out", Destination::ByKey, &key, &sum(&name, before + amount, length))?;
        }
        Ok(())
    }
}

fn compute(detail: &str) -> StageError {
    StageError::Compute { what: "toy".into(), detail: detail.into() }
}

fn sum(name: &str, sum: i64, padding: usize) -> Audit {
    Audit {
        actor: name.into(),
        action: "sum".into(),
        resource: "x".repeat(padding),
        allowed: true,
        reason: sum.to_string(),
        position: None,
        ..Audit::default()
    }
}

/// Passes amounts on for keys that are known facts; others go on as 0.
pub struct Relay {
    pub faults: Arc<Faults>,
    pub known: BTreeSet<Vec<u8>>,
}

impl Stage for Relay {
    type State = ();
    const MARKS: bool = true;

    fn name(&self) -> &'static str {
        "relay"
    }

    fn state(&self) {}

    fn broadcast(&mut self, _: &str, key: &[u8], value: Option<&[u8]>, _: &Wire) -> Result<(), StageError> {
        match value {
            Some(b"unreadable") => return Err(compute("unreadable fact")),
            Some(_) => self.known.insert(key.to_vec()),
            None => self.known.remove(key),
        };
        Ok(())
    }

    fn process(
        &mut self,
        context: &Context<'_>,
        (): &mut (),
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        for message in batch.iter() {
            let key = message.key.unwrap_or_default();
            let known = self.known.contains(key);
            if !known && !context.broadcast_is_current {
                return Err(StageError::NeedsBroadcast);
            }
            let amount = if known { message.value.unwrap_or_default() } else { b"0" };
            out.send_bytes("amounts", Destination::ByKey, key, amount.to_vec());
        }
        Ok(())
    }

    fn mark(&mut self, context: &Context<'_>, tick: &Tick, out: &mut Outputs<'_>) -> Result<(), StageError> {
        if self.faults.marks_fail.load(Ordering::Relaxed) {
            return Err(compute("no clock"));
        }
        for partition in 0..context.partitions_of("amounts") {
            let text = format!("mark {} {} {}", tick.source, tick.high_time, tick.at_end);
            out.send_bytes("amounts", Destination::Partition(partition), b"mark", text.into_bytes());
        }
        self.faults.marks.lock().unwrap().push(*tick);
        Ok(())
    }
}

/// A tenant on a broker, with the toy topology's topics.
pub struct Tenant {
    pub broker: Broker,
    pub cluster: Cluster,
    pub topology: Arc<Topology>,
    pub admin: Admin,
    pub producer: Producer,
    /// What readers outside of the runtime have kept.
    pub kept: BTreeMap<String, Kept>,
}

/// A process that runs stages, on threads of this one.
pub struct Process {
    pub health: Health,
    pub faults: Arc<Faults>,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Tenant {
    pub fn new(broker: &Broker) -> Self {
        Self::of(broker, TOPOLOGY)
    }

    /// With a third reader of the topic `more`, which is none of the runtime's stages.
    pub fn with_an_outside_reader(broker: &Broker, kept: Kept) -> Self {
        let archive = "  - {name: archive, about: Keeps, implemented: true, state_key: none, inputs: [more]}\n";
        Self {
            kept: BTreeMap::from([("archive".to_owned(), kept)]),
            ..Self::of(broker, &format!("{TOPOLOGY}{archive}"))
        }
    }

    fn of(broker: &Broker, topology: &str) -> Self {
        let cluster = Cluster::new(&broker.bootstrap, &format!("{}.", unique("toy")));
        let topology = Arc::new(Topology::parse("toy.yaml", topology).unwrap_or_else(|e| panic!("{e}")));
        let admin = cluster.admin().unwrap();
        let tenant = Self {
            broker: broker.clone(),
            cluster,
            topology,
            admin,
            producer: Producer::new(broker, &[("allow.auto.create.topics", "false")]),
            kept: BTreeMap::new(),
        };
        tenant.create_topics();
        tenant
    }

    pub fn create_topics(&self) {
        let topics: Vec<_> =
            self.topology.topics().iter().map(|t| (t.name.as_str(), t.partitions, BTreeMap::new())).collect();
        crate::support::client::wait(self.admin.ensure_topics(&topics)).unwrap();
        let names: Vec<&str> = topics.iter().map(|t| t.0).collect();
        eventually("the topics", || {
            let described = self.admin.describe(&names).map_err(|e| e.to_string())?;
            let missing: Vec<_> = described.iter().filter(|d| d.id.is_none()).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
        });
    }

    pub fn topic(&self, name: &str) -> String {
        self.cluster.topic(name)
    }

    /// Writes (key, value) records to a topic, each to the partition of its key.
    pub fn write(&self, topic: &str, records: &[(&str, &str)]) {
        let partitions = self.topology.topic(topic).unwrap().partitions;
        for (key, value) in records {
            let partition = hokusai::stream::partitioner::partition_of(key.as_bytes(), partitions);
            let send = Send {
                partition: Some(partition),
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..Send::default()
            };
            self.producer.send(&self.topic(topic), &send).unwrap();
        }
        assert!(self.producer.settle().iter().all(Result::is_ok));
    }

    /// Amounts 1.. for keys a, b, c … in turn.
    pub fn write_amounts(&self, topic: &str, count: usize) {
        let records: Vec<(String, String)> =
            (0..count).map(|i| (format!("k{}", i % 7), (i % 5 + 1).to_string())).collect();
        let records: Vec<(&str, &str)> = records.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        self.write(topic, &records);
    }

    /// All outputs of `sums`: (name, sum), by partition and offset.
    pub fn sums(&self) -> Vec<(String, i64)> {
        self.records::<Audit>("sums.out").into_iter().map(|(_, a)| (a.actor, a.reason.parse().unwrap())).collect()
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.records::<DeadLetter>("dead-letters").into_iter().map(|(_, letter)| letter).collect()
    }

    pub fn records<R: Schema>(&self, topic: &str) -> Vec<(Record, R)> {
        let records = read(&self.broker, &self.topic(topic), Isolation::Committed);
        let wire = Wire::default();
        records
            .into_iter()
            .map(|r| {
                let record = wire.decode(r.value.as_deref().unwrap_or_default()).unwrap();
                (r, record)
            })
            .collect()
    }

    /// Waits until `count` outputs are there, then checks that there is exactly one per input and that each key's sums
    /// follow from one another.
    pub fn expect_sums(&self, count: usize, total: i64) {
        eventually("all sums", || {
            let found = self.sums().len();
            if found >= count { Ok(()) } else { Err(format!("{found} of {count}")) }
        });
        let sums = self.sums();
        assert_eq!(sums.len(), count, "one output per input record");
        let mut last: BTreeMap<&str, i64> = BTreeMap::new();
        for (name, sum) in &sums {
            let before = last.insert(name, *sum).unwrap_or(0);
            assert!(*sum >= before, "{name}: {sum} after {before}");
        }
        assert_eq!(last.values().sum::<i64>(), total, "the state was right to the end");
    }

    pub fn start(&self) -> Process {
        self.start_with(Settings::default())
    }

    pub fn start_with(&self, settings: Settings) -> Process {
        let faults = Arc::new(Faults::default());
        let config = RuntimeConfig {
            cluster: self.cluster.clone(),
            topology: Arc::clone(&self.topology),
            wire: Arc::new(Wire::default()),
            digest: Arc::new(|bytes| format!("digest of {} bytes", bytes.len())),
            aside: Arc::new(|letter, _, _| vec![letter]),
            kept: self.kept.clone(),
            settings,
        };
        let mut runtime = Runtime::new(config);
        let for_sums = Arc::clone(&faults);
        runtime.stage(move || Sums(Arc::clone(&for_sums))).unwrap();
        let for_relay = Arc::clone(&faults);
        runtime.stage(move || Relay { faults: Arc::clone(&for_relay), known: BTreeSet::new() }).unwrap();
        let (health, shutdown) = (runtime.health(), CancellationToken::new());
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio.block_on(runtime.run(token)).unwrap();
        });
        Process { health, faults, shutdown, thread: Some(thread) }
    }
}

/// The sum of `write_amounts(count)`.
pub fn total(count: usize) -> i64 {
    (0..count).map(|i| i64::try_from(i % 5 + 1).unwrap()).sum()
}

impl Process {
    pub fn ready(self) -> Self {
        eventually("the stages", || {
            if self.health.is_ready() {
                Ok(())
            } else {
                Err(format!("{:?} {:?}", self.health.stages(), self.health.tasks()))
            }
        });
        self
    }

    /// Waits for a named problem.
    pub fn problem(&self, name: &str) -> String {
        eventually(name, || {
            let problems = self.health.problems();
            problems.iter().find(|p| p.contains(name)).cloned().ok_or_else(|| format!("{problems:?}"))
        })
    }

    /// Ends it as SIGTERM does.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a clean end");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// The pause between looks of tests that shorten what is minutes in production.
pub const SOON: Duration = Duration::from_millis(300);

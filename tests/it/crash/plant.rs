//! A broker and workers as processes of their own, so that either can be killed alone.

use crate::support::broker::{Broker, Kind, shared};
use crate::support::client::{Isolation, read, watermarks};
use crate::support::hokusai::{Launched, Running, command, finish};
use crate::support::{DEADLINE, eventually};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Whether a process ended as a fail point ends it: by SIGABRT (6). Another signal would be a crash of its own.
pub fn aborted(status: ExitStatus) -> bool {
    status.signal() == Some(6)
}

/// The processes and their folder.
#[derive(Debug)]
pub struct Plant {
    kind: Kind,
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    prefix: String,
    address: String,
    broker: Option<Running>,
}

impl Plant {
    /// The broker alone, with topics. None when Apache Kafka cannot run here.
    pub fn start(kind: Kind, topology: Option<&str>) -> Option<Self> {
        Self::start_on(kind, topology, None)
    }

    /// The broker on a copy of another plant's folder.
    pub fn start_copy(of: &Path) -> Self {
        Self::start_on(Kind::Embedded, None, Some(of)).expect("the embedded broker runs everywhere")
    }

    fn start_on(kind: Kind, topology: Option<&str>, copy: Option<&Path>) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if let Some(from) = copy {
            let copied =
                Command::new("cp").args(["-a", "--"]).arg(from.join(".")).arg(folder.path()).status().expect("cp(1)");
            assert!(copied.success());
        }
        let path = folder.path().join("topology.yaml");
        if let Some(text) = topology {
            std::fs::write(&path, text).expect("a topology file");
        }
        let mut plant = Self {
            kind,
            environment: vec![],
            prefix: String::new(),
            address: "127.0.0.1:0".into(),
            broker: None,
            folder,
        };
        if path.exists() {
            plant.environment.push(("HOKUSAI_TOPOLOGY".into(), path.to_string_lossy().into_owned()));
        }
        match kind {
            Kind::Embedded => plant.start_broker(),
            Kind::ApacheKafka => {
                plant.address = shared(kind)?.bootstrap;
                plant.prefix = format!("{}.", crate::support::unique("crash"));
                plant.environment.push(("HOKUSAI_PREFIX".into(), plant.prefix.clone()));
            }
        }
        let applied = finish(plant.command(&["topology", "apply"]));
        assert_eq!(applied.code, Some(0), "topology apply: {applied:?}");
        Some(plant)
    }

    /// The same plant, whose commands have this variable in their environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The folder with everything of it.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// How to reach the broker.
    pub fn broker(&self) -> Broker {
        Broker { kind: self.kind, bootstrap: self.address.clone() }
    }

    /// The name of a topic on the broker.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A command of the program for this plant; all workers share one store and one key ring.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command
            .env("HOKUSAI_TABLE_COMMIT_MS", "500")
            .envs(self.environment.iter().cloned())
            .env("HOKUSAI_BROKERS", &self.address)
            .env("HOKUSAI_DATA", self.folder.path().join("data"))
            .env("HOKUSAI_KEYS", self.folder.path().join("data/keys"))
            .env("HOKUSAI_STORE", self.folder.path().join("data/store"));
        command
    }

    /// The rows of a query, after the tables have reached the topics' ends.
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let limit = DEADLINE.as_secs().to_string();
        finish(self.command(&["sql", query, "--fresh", "--fresh-timeout", &limit, "--format", "json"])).lines(0)
    }

    /// Starts the embedded broker, again on the address it had.
    pub fn start_broker(&mut self) {
        let mut broker = command(&["broker", "--listen", &self.address, "--format", "json"]);
        broker.env("HOKUSAI_DATA", self.folder.path().join("data"));
        let running = Running::start(broker, &self.folder.path().join("broker.log"));
        self.address = running.brokers();
        self.broker = Some(running);
    }

    /// kill -9 of the broker, and a new one on the same folder and address.
    pub fn kill_broker(&mut self) {
        self.broker.as_mut().expect("the embedded one").kill();
        self.start_broker();
    }

    /// Ends the broker as a loss of power does, at the `nth` passing of a fail point from now on: what was not forced to the disk is gone.
    pub fn lose_power(&mut self, point: &str, nth: u64) {
        self.broker.as_mut().expect("the embedded one").kill();
        let mut broker = command(&["broker", "--listen", &self.address, "--format", "json"]);
        broker.env("HOKUSAI_DATA", self.folder.path().join("data"));
        broker.env("HOKUSAI_FAILPOINT", format!("{point}:{nth}"));
        let mut doomed = Launched::start(broker, &self.folder.path().join("broker.log"));
        self.wait_for_failpoint(point, || doomed.ended());
        self.broker = None;
    }

    /// SIGTERM to the broker.
    pub fn stop_broker(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            assert_eq!(broker.terminate().code(), Some(0), "{}", broker.log());
        }
    }

    /// Launches the worker of a slot with all stages; `failpoint` makes it abort itself there. A slot keeps its data folder and its name in
    /// the groups (static membership), so that a successor of a killed worker is back at once.
    pub fn launch_worker(&self, slot: usize, failpoint: Option<&str>) -> Launched {
        self.launch(slot, failpoint, &[])
    }

    /// Starts some stages only, as the worker of slot 0.
    pub fn start_stages(&self, stages: &str) -> Running {
        let ready = self.launch(0, None, &["--stages", stages]).ready();
        ready.unwrap_or_else(|(status, log)| panic!("the worker ended with {status} before it was ready:\n{log}"))
    }

    /// Launches some stages only, as the worker of slot 0, which aborts itself at a fail point.
    pub fn launch_stages(&self, stages: &str, failpoint: &str) -> Launched {
        self.launch(0, Some(failpoint), &["--stages", stages])
    }

    fn launch(&self, slot: usize, failpoint: Option<&str>, more: &[&str]) -> Launched {
        let mut worker = self.command(&["worker", "--http", "127.0.0.1:0", "--format", "json"]);
        worker.args(more);
        worker.env("HOKUSAI_DATA", self.folder.path().join(format!("worker-{slot}")));
        worker.env("HOKUSAI_INSTANCE", format!("worker-{slot}"));
        if let Some(name) = failpoint {
            worker.env("HOKUSAI_FAILPOINT", name);
        }
        Launched::start(worker, &self.folder.path().join("worker.log"))
    }

    /// Starts the worker of a slot.
    pub fn start_worker(&self, slot: usize) -> Running {
        let ready = self.launch_worker(slot, None).ready();
        ready.unwrap_or_else(|(status, log)| panic!("the worker ended with {status} before it was ready:\n{log}"))
    }

    /// Waits until a worker has aborted itself at a fail point; panics when it ends otherwise or never gets there.
    pub fn wait_for_failpoint(&self, failpoint: &str, mut ended: impl FnMut() -> Option<ExitStatus>) {
        eventually("the end at a fail point", || match ended() {
            Some(status) => {
                assert!(aborted(status), "{failpoint}: {status}: {}", self.log());
                Ok(())
            }
            None => Err(format!("{failpoint} was not reached; log:\n{}", self.log())),
        });
    }

    /// Applies a model's specification; its contract's digest.
    pub fn apply(&self, spec: &str) -> String {
        let path = self.folder.path().join(format!("{}.yaml", crate::support::unique("model")));
        std::fs::write(&path, spec).expect("a file");
        let lines = finish(self.command(&["model", "apply", &path.to_string_lossy(), "--format", "json"])).lines(0);
        lines[0]["contract_digest"].as_str().unwrap_or_else(|| panic!("no contract_digest in {lines:?}")).to_owned()
    }

    /// Waits until there are so many receipts.
    pub fn wait_for_receipts(&self, count: usize) {
        eventually("all receipts", || match self.receipts() {
            seen if seen >= count => Ok(()),
            seen => Err(format!("{seen} of {count}; the workers' log:\n{}", self.log())),
        });
    }

    /// How far the stages are: records and markers on the topics they write.
    pub fn progress(&self) -> i64 {
        let topics = [
            "contributions.screened",
            "contributions.manifests",
            "contributions.verdicts",
            "contributions.accepted",
            "receipts",
        ];
        let ends = topics.iter().map(|name| {
            let topic = self.topic(name);
            let partitions = crate::support::client::partitions(&self.broker(), &topic);
            (0..partitions).map(|p| watermarks(&self.broker(), &topic, i32::try_from(p).expect("few")).1).sum::<i64>()
        });
        ends.sum()
    }

    /// How many receipts there are.
    pub fn receipts(&self) -> usize {
        read(&self.broker(), &self.topic("receipts"), Isolation::Committed).len()
    }

    /// The workers' log.
    pub fn whole_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("worker.log")).unwrap_or_default()
    }

    /// The end of the workers' log.
    pub fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

//! All stages on a broker: `hokusai up` for the embedded one, `hokusai worker` on Apache Kafka, where a prefix keeps tests apart.

use super::DEADLINE;
use super::broker::{Broker, Kind, shared as shared_broker};
use super::hokusai::{Finished, Launched, Running, command, finish, wait_until_ready};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Stages that accept work, and how to reach them.
#[derive(Debug)]
pub struct Cluster {
    /// The broker below.
    pub broker: Broker,
    /// Prefix of topics.
    pub prefix: String,
    /// The process of the stages (and of the embedded broker).
    pub process: Running,
    /// Further workers: they share the brokers, the store and the key ring with the first process, and nothing else.
    others: Vec<Running>,
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// Settings of a cluster of one's own.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Another topology than the built-in one.
    pub topology: Option<String>,
    /// More environment for the stages.
    pub environment: Vec<(String, String)>,
    /// Workers beside the first.
    pub more_workers: usize,
}

impl Cluster {
    /// Starts one; none when Apache Kafka cannot run here (and says so).
    pub fn start(kind: Kind, settings: &Settings) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut environment = settings.environment.clone();
        environment.push(("HOKUSAI_TABLE_COMMIT_MS".into(), "300".into()));
        environment.push(("HOKUSAI_INSTANCE".into(), "worker-0".into()));
        if let Some(topology) = &settings.topology {
            let path = folder.path().join("topology.yaml");
            std::fs::write(&path, topology).expect("a topology file");
            environment.push(("HOKUSAI_TOPOLOGY".into(), path.to_string_lossy().into_owned()));
        }
        environment.push(("HOKUSAI_DATA".into(), folder.path().join("data").to_string_lossy().into_owned()));
        let (broker, prefix, process) = match kind {
            Kind::Embedded => {
                let process = start_up(folder.path(), &environment, "127.0.0.1:0");
                (Broker { kind, bootstrap: process.brokers() }, String::new(), process)
            }
            Kind::ApacheKafka => {
                let broker = shared_broker(kind)?;
                let prefix = format!("{}.", super::unique("t"));
                environment.push(("HOKUSAI_PREFIX".into(), prefix.clone()));
                environment.push(("HOKUSAI_BROKERS".into(), broker.bootstrap.clone()));
                let process = start_worker(folder.path(), &environment);
                (broker, prefix, process)
            }
        };
        wait_until_ready(&process.http());
        let mut cluster = Self { broker, prefix, process, others: Vec::new(), folder, environment };
        cluster.others = (1..=settings.more_workers).map(|number| cluster.start_another(number)).collect();
        Some(cluster)
    }

    /// Every process that runs stages.
    pub fn workers(&self) -> impl Iterator<Item = &Running> {
        std::iter::once(&self.process).chain(&self.others)
    }

    /// kill -9 of the worker beside the first.
    pub fn kill_another(&mut self) {
        self.others[0].kill();
    }

    /// Starts the worker beside the first again, on an empty data folder.
    pub fn start_another_anew(&mut self) {
        std::fs::remove_dir_all(self.folder.path().join("worker-1")).expect("its data");
        self.others[0] = self.start_another(1);
    }

    /// The log of the worker beside the first.
    pub fn log_of_another(&self) -> String {
        self.others[0].log()
    }

    fn start_another(&self, number: usize) -> Running {
        let folder = self.folder.path();
        let mut worker = self.command(&["worker", "--http", "127.0.0.1:0", "--format", "json"]);
        worker
            .env("HOKUSAI_DATA", folder.join(format!("worker-{number}")))
            .env("HOKUSAI_INSTANCE", format!("worker-{number}"))
            .env("HOKUSAI_KEYS", self.data().join("keys"));
        if !self.environment.iter().any(|(name, _)| name == "HOKUSAI_STORE") {
            worker.env("HOKUSAI_STORE", self.data().join("store"));
        }
        let worker = Running::start(worker, &folder.join(format!("worker-{number}.log")));
        wait_until_ready(&worker.http());
        worker
    }

    /// The name of a topic on the broker.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder of the tables.
    pub fn tables(&self) -> PathBuf {
        self.data().join("store/tables")
    }

    /// A folder for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// A command of the program for this cluster.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.envs(self.environment.iter().cloned()).env("HOKUSAI_BROKERS", &self.broker.bootstrap);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command(arguments))
    }

    /// Runs a command that must succeed; its output as JSON lines.
    pub fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
        self.run(&arguments).lines(0)
    }

    /// The rows of a query, after the tables have reached the topics' present ends.
    pub fn sql(&self, query: &str) -> Vec<Value> {
        self.lines(&["sql", query, "--fresh", "--fresh-timeout", &DEADLINE.as_secs().to_string()])
    }

    /// The one number that a query gives in a column `n`.
    pub fn count(&self, query: &str) -> i64 {
        let rows = self.sql(query);
        rows.first().and_then(|row| row["n"].as_i64()).unwrap_or_else(|| panic!("{query}: {rows:?}"))
    }

    /// The records of a topic, decoded.
    pub fn watch(&self, topic: &str) -> Vec<Value> {
        self.lines(&["watch", topic, "--from-beginning", "--until-end"])
    }

    /// Applies a model specification; its contract's digest.
    pub fn apply(&self, name: &str, spec: &str) -> String {
        let path = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(&path, spec).expect("a specification file");
        let lines = self.lines(&["model", "apply", &path.to_string_lossy()]);
        lines[0]["contract_digest"].as_str().unwrap_or_else(|| panic!("no contract_digest in {lines:?}")).to_owned()
    }

    /// What is started from now on does not have this variable.
    pub fn forget(&mut self, name: &str) {
        self.environment.retain(|(own, _)| own != name);
    }

    /// Starts the process again after it has ended. The embedded broker comes back on the same address.
    pub fn start_again(&mut self) {
        self.process = match self.broker.kind {
            Kind::Embedded => start_up(self.folder.path(), &self.environment, &self.broker.bootstrap.clone()),
            Kind::ApacheKafka => start_worker(self.folder.path(), &self.environment),
        };
        wait_until_ready(&self.process.http());
    }

    /// Starts the process again without waiting until it is ready.
    pub fn launch_again(&self) -> Launched {
        let log = self.folder.path().join("again.log");
        match self.broker.kind {
            Kind::Embedded => Launched::start(up(&self.environment, &self.broker.bootstrap), &log),
            Kind::ApacheKafka => Launched::start(worker(&self.environment), &log),
        }
    }
}

fn up(environment: &[(String, String)], listen: &str) -> Command {
    let mut up = command(&["up", "--listen", listen, "--http", "127.0.0.1:0", "--format", "json"]);
    up.envs(environment.iter().cloned());
    up
}

fn worker(environment: &[(String, String)]) -> Command {
    let mut worker = command(&["worker", "--http", "127.0.0.1:0", "--format", "json"]);
    worker.envs(environment.iter().cloned());
    worker
}

fn start_up(folder: &Path, environment: &[(String, String)], listen: &str) -> Running {
    Running::start(up(environment, listen), &folder.join("up.log"))
}

fn start_worker(folder: &Path, environment: &[(String, String)]) -> Running {
    let mut apply = command(&["topology", "apply"]);
    apply.envs(environment.iter().cloned());
    let applied = finish(apply);
    assert_eq!(applied.code, Some(0), "topology apply: {applied:?}");
    Running::start(worker(environment), &folder.join("worker.log"))
}

/// The cluster of this kind, with so many workers beside the first, that the tests of this run share; none when it cannot run here.
pub fn shared(kind: Kind, more_workers: usize) -> Option<&'static Cluster> {
    static CLUSTERS: [[OnceLock<Option<Cluster>>; 2]; 2] =
        [[OnceLock::new(), OnceLock::new()], [OnceLock::new(), OnceLock::new()]];
    let cell = &CLUSTERS[usize::from(kind == Kind::ApacheKafka)][more_workers];
    let start = || Cluster::start(kind, &Settings { more_workers, ..Settings::default() });
    let cluster = cell.get_or_init(start).as_ref();
    if cluster.is_none() {
        super::skip("a test of all stages on Apache Kafka 4.1", "it cannot run here");
    }
    cluster
}

/// Runs a case on the shared cluster of this kind.
pub fn with(kind: Kind, more_workers: usize, case: impl FnOnce(&'static Cluster)) {
    if let Some(cluster) = shared(kind, more_workers) {
        case(cluster);
    }
}

/// Runs a case on a cluster of its own.
pub fn with_own(kind: Kind, case: impl FnOnce(Cluster)) {
    if let Some(cluster) = Cluster::start(kind, &Settings::default()) {
        case(cluster);
    }
}

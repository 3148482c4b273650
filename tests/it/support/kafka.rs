//! Apache Kafka 4.1 as a child process: KRaft, one node, free ports, a data folder of its own, settings that make tests quick.
//!
//! `tests/setup.sh` fetches the jars. The settings shorten what a broker does at leisure (retention, cleaning, transaction time-outs); none
//! of them changes what a client sees.

use super::keeper::Kept;
use super::{cache, eventually, free_port};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A running Apache Kafka.
#[derive(Debug)]
pub struct ApacheKafka {
    process: Kept,
    port: u16,
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

/// The class path, or why there is none.
pub fn jars() -> Result<String, String> {
    let folder = cache().join("kafka/4.1.0");
    if !folder.join(".complete").exists() {
        return Err("its jars are not in the cache (tests/setup.sh fetches them with Maven)".into());
    }
    match Command::new("java").arg("-version").stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(format!("{}/*", folder.display())),
        _ => Err("no Java".into()),
    }
}

/// What makes tests quick: what a broker does at leisure comes round several times a second.
const HASTE: &str = "group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=300
log.initial.task.delay.ms=300
log.retention.check.interval.ms=300
log.cleaner.backoff.ms=300
log.cleaner.dedupe.buffer.size=8388608
";

fn properties(folder: &Path, port: u16, controller: u16, more: &str) -> String {
    let common = include_str!("../../kafka/server.properties")
        .replace("@PORT@", &port.to_string())
        .replace("@CONTROLLER@", &controller.to_string())
        .replace("@FOLDER@", &folder.to_string_lossy());
    format!("{common}{HASTE}{more}")
}

impl ApacheKafka {
    /// Starts a fresh one in a temporary folder, with more settings if any, ready for clients.
    pub fn start(more: &str) -> Result<Self, String> {
        let temporary = tempfile::tempdir().map_err(|e| e.to_string())?;
        let folder = temporary.path().to_owned();
        let (port, controller) = (free_port(), free_port());
        fs::write(folder.join("server.properties"), properties(&folder, port, controller, more))
            .map_err(|e| e.to_string())?;
        format(&folder)?;
        let process = run(&folder)?;
        let mut kafka = Self { process, port, folder, _temporary: Some(temporary) };
        kafka.wait_until_it_answers();
        Ok(kafka)
    }

    /// `HOST:PORT` for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGTERM, then a new process on the same folder and ports.
    pub fn restart(&mut self) {
        self.process.terminate();
        self.process = run(&self.folder).expect("Apache Kafka starts again");
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        let (bootstrap, log) = (self.bootstrap(), self.folder.join("kafka.log"));
        eventually("Apache Kafka's start", || {
            if let Some(status) = self.process.ended() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                panic!("Apache Kafka ended with {status}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
            super::client::answers(&bootstrap)
        });
    }
}

fn java(folder: &Path) -> Result<Command, String> {
    let mut java = Command::new("java");
    java.args(["-Xmx1g", "-cp", &jars()?]).current_dir(folder).stdin(Stdio::null());
    Ok(java)
}

fn format(folder: &Path) -> Result<(), String> {
    let log = File::create(folder.join("format.log")).map_err(|e| e.to_string())?;
    let done = java(folder)?
        .args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            "aG9rdXNhaS10ZXN0cy0wMA",
            "-c",
            "server.properties",
        ])
        .stdout(log.try_clone().map_err(|e| e.to_string())?)
        .stderr(log)
        .status()
        .map_err(|e| e.to_string())?;
    if done.success() { Ok(()) } else { Err(fs::read_to_string(folder.join("format.log")).unwrap_or_default()) }
}

fn run(folder: &Path) -> Result<Kept, String> {
    let log = File::options().create(true).append(true).open(folder.join("kafka.log")).map_err(|e| e.to_string())?;
    Kept::spawn(
        java(folder)?
            .args(["kafka.Kafka", "server.properties"])
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log),
    )
    .map_err(|e| e.to_string())
}

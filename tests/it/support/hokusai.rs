//! `hokusai` as a child process, seen only through what other programs rely on: arguments, environment, standard output, exit codes, HTTP.

use super::keeper::Kept;
use super::{DEADLINE, eventually};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_hokusai"))
}

/// A command of the program without anything from this process' environment that would change it.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOKUSAI_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a finished command left behind.
#[derive(Debug)]
pub struct Finished {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// Standard output as JSON lines; panics with everything there is when a line is none or the exit code is another.
    pub fn lines(&self, code: i32) -> Vec<Value> {
        assert_eq!(self.code, Some(code), "exit code; standard output:\n{}\nstandard error:\n{}", self.out, self.err);
        self.out
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON line ({e}): {line}")))
            .collect()
    }
}

/// Runs a command to its end.
pub fn finish(mut command: Command) -> Finished {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    Finished {
        code: status.code(),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// A long-running `hokusai up`, `broker` or `worker` that has said it is ready.
#[derive(Debug)]
pub struct Running {
    process: Kept,
    /// The ready line.
    pub ready: Value,
    log: PathBuf,
}

/// A process that was started and has not said yet that it is ready.
#[derive(Debug)]
pub struct Launched {
    process: Kept,
    first_line: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Launched {
    /// Starts it. Its log goes to `log` (appended).
    pub fn start(mut command: Command, log: &Path) -> Self {
        let err = File::options().create(true).append(true).open(log).expect("a log file");
        let mut process = Kept::spawn(command.stdout(Stdio::piped()).stderr(err)).expect("the program starts");
        let out = process.child().stdout.take().expect("a piped stdout");
        let (send, first_line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            out.read_line(&mut line).ok();
            send.send(line).ok();
            std::io::copy(&mut out, &mut std::io::sink()).ok();
        });
        Self { process, first_line, log: log.to_owned() }
    }

    /// Waits for the ready line; an end before it is an answer too: the exit status and the log's tail.
    pub fn ready(mut self) -> Result<Running, (ExitStatus, String)> {
        let line = self.first_line.recv_timeout(DEADLINE);
        let line = line.unwrap_or_else(|_| panic!("no ready line within {DEADLINE:?}:\n{}", tail(&self.log)));
        match serde_json::from_str::<Value>(&line) {
            Ok(ready) => {
                assert_eq!(ready["event"], "ready", "{ready}");
                Ok(Running { process: self.process, ready, log: self.log })
            }
            Err(_) => Err((self.process.wait(), format!("{line}{}", tail(&self.log)))),
        }
    }

    /// The exit status when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Whether it has said that it is ready.
    pub fn is_ready(&self) -> bool {
        self.first_line.try_recv().is_ok_and(|line| !line.is_empty())
    }

    /// SIGTERM and the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Running {
    /// Starts it and waits for its ready line. Its log goes to `log` (appended).
    pub fn start(command: Command, log: &Path) -> Self {
        Self::try_start(command, log)
            .unwrap_or_else(|(status, log)| panic!("ended with {status} before it was ready:\n{log}"))
    }

    /// The same, but an end before the ready line is an answer: the exit status and the log's tail.
    pub fn try_start(command: Command, log: &Path) -> Result<Self, (ExitStatus, String)> {
        Launched::start(command, log).ready()
    }

    /// `HOST:PORT` of the broker, from the ready line.
    pub fn brokers(&self) -> String {
        self.ready["brokers"].as_str().unwrap_or_else(|| panic!("no brokers in {}", self.ready)).to_owned()
    }

    /// The address of the HTTP side, from the ready line, with its scheme.
    pub fn http(&self) -> String {
        let http = self.ready["http"].as_str().unwrap_or_else(|| panic!("no http in {}", self.ready));
        if http.starts_with("http") { http.to_owned() } else { format!("http://{http}") }
    }

    /// GET of a path: the status and the text.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(&format!("{}{path}", self.http())).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM and the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// Bytes of memory that the process has now.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        1_024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    }

    /// Seconds that the processors have worked for the process.
    pub fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("a running process");
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        // User and system time, in hundredths of a second.
        fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// A signal by name.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// The exit status when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits until it has ended by itself (a fail point).
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// GET of a URL: the status and the text, whatever the status is.
pub fn get(url: &str) -> Result<(u16, String), String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build().into();
    let mut response = agent.get(url).call().map_err(|e| e.to_string())?;
    Ok((response.status().as_u16(), response.body_mut().read_to_string().map_err(|e| e.to_string())?))
}

/// Waits until `/ready` says 200.
pub fn wait_until_ready(http: &str) {
    eventually(&format!("{http}/ready"), || match get(&format!("{http}/ready"))? {
        (200, _) => Ok(()),
        (status, text) => Err(format!("{status} {text}")),
    });
}

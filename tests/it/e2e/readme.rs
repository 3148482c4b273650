//! Every command in README.md works as written.
//!
//! Blocks fenced as `console` are run in order in one folder: lines that begin with `$ ` are commands, run by bash with `hokusai` on the path.
//! Servers (`up`, `broker`, `worker`) stay in the background to the end, on ports that are free: where the text says 127.0.0.1:9092, the
//! address of the first one is meant. Blocks fenced as `python` are programs. What follows a command is its output and is not compared, but
//! the command has to exit 0.

use crate::support::hokusai::program;
use crate::support::keeper::Kept;
use crate::support::{DEADLINE, cache, root, skip};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A ready broker leaves its addresses in its data folder.
const WAIT_FOR_BROKER: &str = "until ls */endpoint.json >/dev/null 2>&1; do kill -0 $!; sleep 0.1; done
broker=$(sed -n 's/.*\"brokers\": *\"\\([^\"]*\\)\".*/\\1/p' */endpoint.json)
test -n \"$broker\"";

const WAIT_FOR_WORKER: &str = "until grep -q ready worker.out; do kill -0 $!; sleep 0.1; done";

#[test]
fn every_command_in_the_readme_works() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let steps = steps(&readme);
    assert!(steps.iter().any(|s| matches!(s, Step::Command(_))), "README.md has console blocks");
    let folder = tempfile::tempdir().expect("a folder");
    for shared in ["examples", "topology", "schemas", "docker-compose.yml"] {
        std::os::unix::fs::symlink(root().join(shared), folder.path().join(shared)).expect("a link");
    }
    let python = cache().join("python/bin/python");
    if !python.exists() {
        skip("README's Python", "no Python environment in the cache (tests/setup.sh makes it)");
    }
    let mut script = String::from("set -eu -o pipefail\n");
    for step in &steps {
        let line = match step {
            Step::Command(command) => {
                let command = command.replace("127.0.0.1:9092", "\"$broker\"");
                match command.split_whitespace().nth(1) {
                    Some("up" | "broker") => format!("{command} &\n{WAIT_FOR_BROKER}"),
                    Some("worker") => format!("{command} >worker.out &\n{WAIT_FOR_WORKER}"),
                    _ => command,
                }
            }
            Step::Python(text) if python.exists() => {
                format!("{} -c {}", shell_quoted(&python.to_string_lossy()), shell_quoted(text))
            }
            Step::Python(_) => continue,
        };
        script.push_str(&format!("echo {}\n{line}\n", shell_quoted(&format!("$ {line}"))));
    }
    let path =
        format!("{}:{}", program().parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    let log = folder.path().join("readme.log");
    let out = std::fs::File::create(&log).expect("a log");
    let mut bash = Command::new("bash");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOKUSAI_")) {
        bash.env_remove(name);
    }
    bash.args(["-c", &script]).current_dir(folder.path()).env("PATH", path).stdin(Stdio::null());
    bash.env("HOKUSAI_LISTEN", "127.0.0.1:0").env("HOKUSAI_HTTP", "127.0.0.1:0");
    let mut run = Kept::spawn_group(bash.stdout(out.try_clone().expect("a file")).stderr(out)).expect("bash starts");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = run.ended() {
            break status;
        }
        assert!(start.elapsed() < 2 * DEADLINE, "still runs:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(status.success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
}

enum Step {
    Command(String),
    Python(String),
}

fn steps(markdown: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut fence = "";
    for line in markdown.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fence = language.trim();
            if fence == "python" {
                steps.push(Step::Python(String::new()));
            }
            continue;
        }
        match (fence, steps.last_mut()) {
            ("python", Some(Step::Python(text))) => text.extend([line, "\n"]),
            ("console", Some(Step::Command(last))) if last.ends_with('\\') => {
                last.pop();
                last.push_str(line.trim_start());
            }
            ("console", _) => steps.extend(line.strip_prefix("$ ").map(|command| Step::Command(command.to_owned()))),
            _ => {}
        }
    }
    steps
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

//! Every command in README.md works as written.
//!
//! Blocks fenced as `console` are run in order in one folder: lines that begin with `$ ` are commands, run by bash with `hokusai` on the path.
//! Servers (`up`, `broker`, `worker`) stay in the background to the end, on ports that are free. What follows a command is its output and
//! is not compared, but the command has to exit 0.

use crate::support::hokusai::program;
use crate::support::keeper::Kept;
use crate::support::{DEADLINE, root};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A ready server leaves its addresses in its data folder.
const WAIT_FOR_SERVER: &str = "until ls */endpoint.json >/dev/null 2>&1; do kill -0 $!; sleep 0.1; done";

#[test]
fn every_command_in_the_readme_works() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let commands = commands(&readme);
    assert!(!commands.is_empty(), "README.md has console blocks");
    let folder = tempfile::tempdir().expect("a folder");
    for shared in ["examples", "topology", "schemas", "docker-compose.yml"] {
        std::os::unix::fs::symlink(root().join(shared), folder.path().join(shared)).expect("a link");
    }
    let mut script = String::from("set -eu -o pipefail\n");
    for command in &commands {
        script.push_str(&format!("echo \"\\$ \"{}\n", shell_quoted(command)));
        if ["hokusai up", "hokusai broker", "hokusai worker"].iter().any(|server| command.starts_with(server)) {
            script.push_str(&format!("{command} &\n{WAIT_FOR_SERVER}\n"));
        } else {
            script.push_str(&format!("{command}\n"));
        }
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

fn commands(markdown: &str) -> Vec<String> {
    let (mut commands, mut inside) = (Vec::<String>::new(), false);
    for line in markdown.lines() {
        if line.starts_with("```") {
            inside = line.trim() == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            commands.push(command.to_owned());
        } else if inside && let Some(last) = commands.last_mut().filter(|last| last.ends_with('\\')) {
            last.pop();
            last.push_str(line.trim_start());
        }
    }
    commands
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

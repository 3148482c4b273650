//! Children that cannot outlive us.
//!
//! A shell reads the process ids of our children from a pipe that only this process holds. When the pipe closes (exit, panic, kill -9
//! or Ctrl-C alike), it kills those that are still there. Statics are not dropped at exit, and `PR_SET_PDEATHSIG` looks at the thread that
//! spawned, so neither would do for servers that several tests share.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex};

const WATCH: &str = r#"
trap '' INT TERM HUP
declare -A children
while read -r what pid; do
  if [ "$what" = + ]; then children[$pid]=1; else unset "children[$pid]"; fi
done
for pid in "${!children[@]}"; do kill -9 -- "$pid" 2>/dev/null; done
"#;

static WATCHDOG: LazyLock<Mutex<Child>> = LazyLock::new(|| {
    let shell = Command::new("bash")
        .args(["-c", WATCH])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash for the watchdog of child processes");
    Mutex::new(shell)
});

fn tell(what: char, pid: &str) {
    let mut watchdog = WATCHDOG.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pipe = watchdog.stdin.as_mut().expect("a piped stdin");
    writeln!(pipe, "{what} {pid}").expect("the watchdog listens");
}

/// A child process that is killed when this is dropped, or when this process is gone.
#[derive(Debug)]
pub struct Kept {
    child: Child,
    ended: bool,
    group: bool,
}

impl Kept {
    /// Starts the command under the watchdog.
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let child = command.spawn()?;
        tell('+', &child.id().to_string());
        Ok(Self { child, ended: false, group: false })
    }

    /// The same in a process group of its own, which ends with it: for scripts that start processes themselves.
    pub fn spawn_group(command: &mut Command) -> std::io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        tell('+', &format!("-{}", child.id()));
        Ok(Self { child, ended: false, group: true })
    }

    /// Forgets an ended child; what is left of its group goes with it.
    fn forget(&self) {
        if self.group {
            let group = format!("-{}", self.id());
            Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status().ok();
            tell('-', &group);
        } else {
            tell('-', &self.id().to_string());
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child of ours can be waited for");
        if status.is_some() && !self.ended {
            self.ended = true;
            self.forget();
        }
        status
    }

    /// Sends a signal by name (`TERM`, `INT`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().expect("kill(1)");
        assert!(sent.success(), "kill -{name} {}", self.id());
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().ok();
            self.wait();
        }
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let id = self.id();
        super::eventually(&format!("the end of process {id}"), || self.ended().ok_or_else(|| "still runs".to_owned()))
    }

    /// SIGTERM, and the exit status that follows.
    pub fn terminate(&mut self) -> ExitStatus {
        if self.ended().is_none() {
            self.signal("TERM");
        }
        self.wait()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
            self.forget();
        }
    }
}

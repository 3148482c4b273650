//! Whether the process does its work: what `/health` and `/ready` ask.

use serde_json::{Value, json};

use crate::stream::health::Health;

/// Tells the state of what runs in this process.
pub trait Probe: Send + Sync + 'static {
    /// What is stuck or stopped by an outcome that needs a person, one line each; empty when all is well.
    fn problems(&self) -> Vec<String>;

    /// Everything takes work.
    fn ready(&self) -> bool;

    /// Stages and tasks with their states, as JSON. No personal data.
    fn tasks(&self) -> Vec<Value>;
}

impl Probe for Health {
    fn problems(&self) -> Vec<String> {
        Health::problems(self)
    }

    fn ready(&self) -> bool {
        self.is_ready()
    }

    fn tasks(&self) -> Vec<Value> {
        let stages =
            self.stages().into_iter().map(|(stage, state)| json!({"stage": stage, "state": format!("{state:?}")}));
        let tasks = Health::tasks(self).into_iter().map(|(task, status)| {
            json!({
                "task": task.to_string(), "state": format!("{:?}", status.state),
                "busy_ms": status.busy_for.map(|t| t.as_millis()), "since_commit_ms": status.since_commit.map(|t| t.as_millis()),
            })
        });
        stages.chain(tasks).collect()
    }
}

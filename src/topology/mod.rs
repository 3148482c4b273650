//! Topics and stages of the whole design, as `topology/hokusai.yaml` declares them.
//!
//! Invariants of a [`Topology`] (a file that breaks one is refused, with the line):
//! * a stage with state reads only topics that are partitioned by exactly its state key, with equal partition counts;
//! * outsiders' topics have no key that anybody trusts and carry the broker's append time;
//! * broadcast inputs are compacted; purged topics have a reader that they are purged behind;
//! * readers outside the stages hold back internal purged topics only, never the plaintext of `contributions`;
//! * every topic and schema that is named exists, and every internal topic has a writer.

pub mod apply;
mod file;
mod render;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

const BUILTIN: &str = include_str!("../../topology/hokusai.yaml");
const BUILTIN_NAME: &str = "topology/hokusai.yaml";
/// Start of the names of changelog topics.
pub const CHANGELOG: &str = "hokusai.changelog.";

/// Which partition counts apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One machine.
    #[default]
    Single,
    /// Many workers.
    Cluster,
}

/// What becomes of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cleanup {
    /// Never deleted.
    Kept,
    /// Deleted behind the slowest declared reader.
    Purged,
    /// The newest record of a key stays.
    Compacted,
    /// Deleted after a time.
    Timed,
}

/// Whose clock stamps the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timestamps {
    /// The writer's, at production.
    #[default]
    Create,
    /// The broker's, at append.
    Append,
}

/// Who writes a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Stages, as their outputs say.
    #[default]
    Stages,
    /// Anybody: nothing is assumed about key or partition.
    Outsiders,
    /// The runtime of every stage.
    Runtime,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicSpec {
    /// Name without prefix.
    pub name: String,
    /// What it carries.
    pub about: String,
    /// What its records are partitioned by; none for outsiders' topics.
    pub key: Option<String>,
    /// What it is compacted by, when that is finer than the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction_key: Option<String>,
    /// Partitions in the chosen profile.
    pub partitions: i32,
    /// What becomes of old records.
    pub cleanup: Cleanup,
    /// Time after which records are deleted; for purged topics a hard limit.
    #[serde(serialize_with = "seconds")]
    pub retain: Option<Duration>,
    /// Time after which a segment is rolled, so that it can be deleted.
    #[serde(serialize_with = "seconds")]
    pub segment: Option<Duration>,
    /// Whose clock stamps the records.
    pub timestamps: Timestamps,
    /// A larger record batch is refused by the broker.
    pub max_message_bytes: u32,
    /// Who writes it.
    pub origin: Origin,
    /// `schemas/NAME.avsc`; none for bytes of another published format.
    pub schema: Option<String>,
    /// Stages that write it; those that are planned too.
    pub writers: Vec<String>,
    /// Stages that read it; those that are planned too.
    pub readers: Vec<String>,
    /// A stage of this version reads or writes it.
    pub active: bool,
    #[serde(skip)]
    by_profile: [i32; 2],
}

impl TopicSpec {
    /// Name of the topic in a cluster.
    #[must_use]
    pub fn full_name(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.name)
    }

    /// Topic configuration as Kafka names it, sorted.
    #[must_use]
    pub fn configs(&self) -> Vec<(String, String)> {
        let milliseconds = |d: Option<Duration>| d.map_or_else(|| "-1".to_owned(), |d| d.as_millis().to_string());
        let mut configs =
            vec![("max.message.bytes", self.max_message_bytes.to_string()), ("retention.bytes", "-1".to_owned())];
        configs.push(match self.cleanup {
            Cleanup::Compacted => ("cleanup.policy", "compact".to_owned()),
            Cleanup::Kept | Cleanup::Purged | Cleanup::Timed => ("cleanup.policy", "delete".to_owned()),
        });
        configs.push(("retention.ms", milliseconds(self.retain)));
        configs.push(match self.timestamps {
            Timestamps::Append => ("message.timestamp.type", "LogAppendTime".to_owned()),
            Timestamps::Create => ("message.timestamp.type", "CreateTime".to_owned()),
        });
        if self.segment.is_some() {
            configs.push(("segment.ms", milliseconds(self.segment)));
        }
        configs.sort();
        configs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Whether outsiders write it: it may grow at any time.
    #[must_use]
    pub fn is_outsiders(&self) -> bool {
        self.origin == Origin::Outsiders
    }
}

fn seconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|d| d.as_secs()).serialize(serializer)
}

/// Settings of stages; what a stage does not use is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StageSettings {
    /// Plaintext stays in `contributions` at least this long behind intake.
    #[serde(serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub plaintext_grace: Option<Duration>,
    /// Time marks are written at most this often.
    #[serde(serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub mark_interval: Option<Duration>,
    /// A contribution is closed as incomplete this long after its last chunk.
    #[serde(serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub contribution_timeout: Option<Duration>,
    /// Closed contribution ids stay known this long.
    #[serde(serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub closed_ids_kept: Option<Duration>,
    /// At most this many contributions are open in one task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_contributions: Option<u64>,
    /// A table is committed at this many rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_rows: Option<u64>,
    /// A table is committed at this many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_bytes: Option<u64>,
    /// A table is committed at the latest after this time.
    #[serde(serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub table_interval: Option<Duration>,
    /// A training set has at most this many rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_rows: Option<u64>,
    /// The rows of a training set have at most this many bytes in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_bytes: Option<u64>,
    /// A training run takes at most this many threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_threads: Option<u64>,
    /// All trials of a search take at most so many rows times iterations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_budget: Option<u64>,
}

/// What comes to a stage with stages that are not implemented yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Keyed inputs.
    pub inputs: Vec<String>,
    /// Broadcast inputs.
    pub broadcast: Vec<String>,
    /// Outputs.
    pub outputs: Vec<String>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageSpec {
    /// Name.
    pub name: String,
    /// What it does.
    pub about: String,
    /// This version has it.
    pub implemented: bool,
    /// What it keeps its state under; none when it is stateless.
    pub state_key: Option<String>,
    /// Keyed inputs, the lead input first.
    pub inputs: Vec<String>,
    /// Compacted topics that every task reads in full.
    pub broadcast: Vec<String>,
    /// Topics that it writes, besides dead letters and progress.
    pub outputs: Vec<String>,
    /// Topic into whose every partition it writes time marks.
    pub marks: Option<String>,
    /// Topic that its state changes are logged in.
    pub changelog: Option<String>,
    /// Settings.
    pub settings: StageSettings,
    /// What comes later.
    pub planned: Planned,
}

impl StageSpec {
    /// The input whose partitions are assigned to the group's members.
    #[must_use]
    pub fn lead(&self) -> Option<&str> {
        self.inputs.first().map(String::as_str)
    }

    /// Whether it keeps state.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.state_key.is_some()
    }
}

/// A program outside the stages that reads purged topics (a verifier, an export): nothing is purged before it has committed its
/// position with the consumer group `PREFIXhokusai-NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReaderSpec {
    /// Name; no stage has it.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Purged topics that it reads, every partition of them.
    pub topics: Vec<String>,
    /// A record that it has not read for so long makes it overdue.
    #[serde(serialize_with = "period_seconds")]
    pub patience: Duration,
}

fn period_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    duration.as_secs().serialize(serializer)
}

/// All topics and stages, validated, with the partition counts of one profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    profile: Profile,
    topics: Vec<TopicSpec>,
    stages: Vec<StageSpec>,
    readers: Vec<ReaderSpec>,
}

impl Topology {
    /// The topology of this version, in the profile for one machine.
    ///
    /// # Errors
    /// When the embedded file is broken: a defect of the build that the tests exclude.
    pub fn builtin() -> Result<Self, TopologyError> {
        Self::parse(BUILTIN_NAME, BUILTIN)
    }

    /// A topology from a file: complete, or `extends: builtin` with the topics and stages that differ.
    ///
    /// # Errors
    /// When the file cannot be read or breaks a rule; every problem names its line.
    pub fn load(path: &Path) -> Result<Self, TopologyError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| TopologyError::Unreadable { file: name.clone(), detail: e.to_string() })?;
        Self::parse(&name, &text)
    }

    /// As [`Topology::load`], from a text; `name` stands in the errors.
    ///
    /// # Errors
    /// When the text breaks a rule.
    pub fn parse(name: &str, text: &str) -> Result<Self, TopologyError> {
        let draft = file::read(name, text, BUILTIN_NAME, BUILTIN)?;
        let (topics, stages) = validate::validate(&draft).map_err(TopologyError::Invalid)?;
        let readers = validate::readers(&draft);
        Ok(Self { profile: Profile::Single, topics, stages, readers }.with_profile(Profile::Single))
    }

    /// The same topology with the partition counts of a profile.
    #[must_use]
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        for topic in &mut self.topics {
            let [single, cluster] = topic.by_profile;
            topic.partitions = match profile {
                Profile::Single => single,
                Profile::Cluster => cluster,
            };
        }
        self
    }

    /// The profile whose partition counts apply.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Every topic: declared ones in the file's order, then changelogs.
    #[must_use]
    pub fn topics(&self) -> &[TopicSpec] {
        &self.topics
    }

    /// The topics that stages of this version read or write.
    pub fn active_topics(&self) -> impl Iterator<Item = &TopicSpec> {
        self.topics.iter().filter(|topic| topic.active)
    }

    /// Every stage, in the file's order.
    #[must_use]
    pub fn stages(&self) -> &[StageSpec] {
        &self.stages
    }

    /// Readers of purged topics outside the stages, in the file's order.
    #[must_use]
    pub fn readers(&self) -> &[ReaderSpec] {
        &self.readers
    }

    /// A topic by its name without prefix.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicSpec> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    /// A stage by its name.
    ///
    /// # Errors
    /// When there is none; the error lists those that there are.
    pub fn stage(&self, name: &str) -> Result<&StageSpec, TopologyError> {
        self.stages.iter().find(|stage| stage.name == name).ok_or_else(|| TopologyError::UnknownStage {
            name: name.to_owned(),
            known: self.stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Partition counts by topic (without prefix), as stages are given them.
    #[must_use]
    pub fn partition_counts(&self) -> BTreeMap<String, i32> {
        self.topics.iter().map(|topic| (topic.name.clone(), topic.partitions)).collect()
    }

    /// Topics with their schemas, for the schema registry.
    pub fn schemas(&self) -> impl Iterator<Item = (&str, &str)> {
        self.active_topics().filter_map(|topic| Some((topic.name.as_str(), topic.schema.as_deref()?)))
    }

    /// Topics and stages as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// Topics and stages as tables for people.
    #[must_use]
    pub fn render_table(&self) -> String {
        render::table(self)
    }

    /// Topics and stages as a Mermaid flowchart.
    #[must_use]
    pub fn render_mermaid(&self) -> String {
        render::mermaid(self)
    }
}

/// A place in a topology file and the rule that is broken there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// The rule, and the way out.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

/// Why a topology cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The file cannot be read.
    #[error("topology {file} cannot be read: {detail}")]
    Unreadable {
        /// File.
        file: String,
        /// What happened.
        detail: String,
    },
    /// The file breaks rules.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
    /// No such stage.
    #[error("there is no stage {name}; help: the stages are {known}")]
    UnknownStage {
        /// Name that was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
}

#[cfg(test)]
mod tests;

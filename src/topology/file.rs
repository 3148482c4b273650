//! The topology file as it is written: names and values with their positions, not yet checked against each other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_saphyr::Spanned;

use super::{Cleanup, Origin, Problem, Timestamps, TopologyError};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    file: Arc<str>,
    line: u64,
    column: u64,
}

impl<T> At<T> {
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { file: self.file.to_string(), line: self.line, column: self.column, message: message.into() }
    }
}

/// A topic as it is written, defaults filled in.
#[derive(Debug, Clone)]
pub(super) struct TopicDraft {
    pub(super) name: At<String>,
    pub(super) about: String,
    pub(super) from: At<Origin>,
    pub(super) key: Option<At<String>>,
    pub(super) compaction_key: Option<String>,
    pub(super) schema: Option<At<String>>,
    pub(super) partitions: At<Partitions>,
    pub(super) same_partitions_as: Option<At<String>>,
    pub(super) cleanup: Option<At<Cleanup>>,
    pub(super) retain: Option<At<Period>>,
    pub(super) segment: Option<At<Period>>,
    pub(super) timestamps: Timestamps,
    pub(super) max_message_bytes: At<u32>,
}

/// A stage as it is written.
#[derive(Debug, Clone)]
pub(super) struct StageDraft {
    pub(super) name: At<String>,
    pub(super) about: String,
    pub(super) implemented: bool,
    pub(super) state_key: Option<At<String>>,
    pub(super) inputs: Vec<At<String>>,
    pub(super) broadcast: Vec<At<String>>,
    pub(super) outputs: Vec<At<String>>,
    pub(super) marks: Option<At<String>>,
    pub(super) settings: Settings,
    pub(super) planned_inputs: Vec<At<String>>,
    pub(super) planned_broadcast: Vec<At<String>>,
    pub(super) planned_outputs: Vec<At<String>>,
}

/// A reader outside the stages, as it is written.
#[derive(Debug, Clone)]
pub(super) struct ReaderDraft {
    pub(super) name: At<String>,
    pub(super) about: String,
    pub(super) topics: Vec<At<String>>,
    pub(super) patience: Option<Period>,
}

#[derive(Debug)]
pub(super) struct Draft {
    pub(super) topics: Vec<TopicDraft>,
    pub(super) stages: Vec<StageDraft>,
    pub(super) readers: Vec<ReaderDraft>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: Spanned<u32>,
    extends: Option<Spanned<String>>,
    defaults: Option<RawDefaults>,
    #[serde(default)]
    topics: Vec<RawTopic>,
    #[serde(default)]
    stages: Vec<RawStage>,
    #[serde(default)]
    readers: Vec<RawReader>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReader {
    name: Spanned<String>,
    about: Option<String>,
    topics: Vec<Spanned<String>>,
    patience: Option<Period>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDefaults {
    partitions: Spanned<Partitions>,
    max_message_bytes: Spanned<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopic {
    name: Spanned<String>,
    about: Option<String>,
    from: Option<Spanned<Origin>>,
    key: Option<Spanned<String>>,
    compaction_key: Option<String>,
    schema: Option<Spanned<String>>,
    partitions: Option<Spanned<Partitions>>,
    same_partitions_as: Option<Spanned<String>>,
    cleanup: Option<Spanned<Cleanup>>,
    retain: Option<Spanned<Period>>,
    segment: Option<Spanned<Period>>,
    timestamps: Option<Timestamps>,
    max_message_bytes: Option<Spanned<u32>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStage {
    name: Spanned<String>,
    about: Option<String>,
    implemented: Option<bool>,
    state_key: Option<Spanned<String>>,
    inputs: Option<Vec<Spanned<String>>>,
    broadcast: Option<Vec<Spanned<String>>>,
    outputs: Option<Vec<Spanned<String>>>,
    marks: Option<Spanned<String>>,
    #[serde(default)]
    settings: Settings,
    #[serde(default)]
    planned: RawPlanned,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPlanned {
    inputs: Vec<Spanned<String>>,
    broadcast: Vec<Spanned<String>>,
    outputs: Vec<Spanned<String>>,
}

/// Settings of a stage; the fields are those of [`super::StageSettings`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    pub(super) plaintext_grace: Option<Period>,
    pub(super) mark_interval: Option<Period>,
    pub(super) contribution_timeout: Option<Period>,
    pub(super) closed_ids_kept: Option<Period>,
    pub(super) max_open_contributions: Option<u64>,
    pub(super) table_rows: Option<u64>,
    pub(super) table_bytes: Option<u64>,
    pub(super) table_interval: Option<Period>,
    pub(super) training_rows: Option<u64>,
    pub(super) training_bytes: Option<u64>,
    pub(super) training_threads: Option<u64>,
    pub(super) training_budget: Option<u64>,
}

impl Settings {
    fn over(self, below: Self) -> Self {
        Self {
            plaintext_grace: self.plaintext_grace.or(below.plaintext_grace),
            mark_interval: self.mark_interval.or(below.mark_interval),
            contribution_timeout: self.contribution_timeout.or(below.contribution_timeout),
            closed_ids_kept: self.closed_ids_kept.or(below.closed_ids_kept),
            max_open_contributions: self.max_open_contributions.or(below.max_open_contributions),
            table_rows: self.table_rows.or(below.table_rows),
            table_bytes: self.table_bytes.or(below.table_bytes),
            table_interval: self.table_interval.or(below.table_interval),
            training_rows: self.training_rows.or(below.training_rows),
            training_bytes: self.training_bytes.or(below.training_bytes),
            training_threads: self.training_threads.or(below.training_threads),
            training_budget: self.training_budget.or(below.training_budget),
        }
    }
}

/// Partition counts by profile: single, cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partitions(pub(super) [i32; 2]);

impl<'de> Deserialize<'de> for Partitions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Partitions;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of partitions, or {single: N, cluster: N}")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Partitions, E> {
                let n = i32::try_from(n).map_err(|_| E::custom("too many partitions"))?;
                Ok(Partitions([n, n]))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Partitions, E> {
                let n = i32::try_from(n).map_err(|_| E::custom("not a number of partitions"))?;
                Ok(Partitions([n, n]))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Partitions, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct ByProfile {
                    single: i32,
                    cluster: i32,
                }
                let ByProfile { single, cluster } = ByProfile::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Partitions([single, cluster]))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A time span, written as `15m` or `400d`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period(pub(super) Duration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        period(&text).map(Period).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is no time span; help: a whole number with ms, s, m, h or d, such as 15m"
            ))
        })
    }
}

fn period(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).filter(|ms| *ms > 0 && i64::try_from(*ms).is_ok()).map(Duration::from_millis)
}

/// Reads a file; with `extends: builtin` it is laid over the built-in one.
pub(super) fn read(name: &str, text: &str, builtin_name: &str, builtin: &str) -> Result<Draft, TopologyError> {
    let raw = parse(name, text)?;
    let file: Arc<str> = name.into();
    match &raw.extends {
        None => complete(&file, raw),
        Some(extends) if extends.value == "builtin" => {
            let below = complete(&builtin_name.into(), parse(builtin_name, builtin)?)?;
            overlay(&file, raw, below)
        }
        Some(extends) => {
            let known = format!("{:?} cannot be extended; help: `extends: builtin`, or a complete file", extends.value);
            Err(TopologyError::Invalid(vec![at(&file, extends).problem(known)]))
        }
    }
}

fn parse(name: &str, text: &str) -> Result<RawFile, TopologyError> {
    let raw: RawFile = serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        // The position stands in front; the library's text repeats it and may show a piece of the file.
        let message = error.without_snippet().to_string().lines().next().unwrap_or_default().to_owned();
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        TopologyError::Invalid(vec![Problem { file: name.to_owned(), line, column, message }])
    })?;
    if raw.version.value != 1 {
        let message = format!("version {} is not known; help: this program reads version 1", raw.version.value);
        return Err(TopologyError::Invalid(vec![at(&name.into(), &raw.version).problem(message)]));
    }
    Ok(raw)
}

fn at<T: Clone>(file: &Arc<str>, spanned: &Spanned<T>) -> At<T> {
    At {
        value: spanned.value.clone(),
        file: Arc::clone(file),
        line: spanned.referenced.line(),
        column: spanned.referenced.column(),
    }
}

fn all(file: &Arc<str>, names: &[Spanned<String>]) -> Vec<At<String>> {
    names.iter().map(|name| at(file, name)).collect()
}

fn complete(file: &Arc<str>, raw: RawFile) -> Result<Draft, TopologyError> {
    let Some(defaults) = raw.defaults else {
        let message = "a complete topology needs `defaults`; help: or write `extends: builtin` and what differs";
        return Err(TopologyError::Invalid(vec![at(file, &raw.version).problem(message)]));
    };
    let topics = raw.topics.iter().map(|topic| topic_draft(file, topic, &defaults)).collect();
    let stages = raw.stages.iter().map(|stage| stage_draft(file, stage)).collect();
    let readers = raw.readers.iter().map(|reader| reader_draft(file, reader)).collect();
    Ok(Draft { topics, stages, readers })
}

fn reader_draft(file: &Arc<str>, raw: &RawReader) -> ReaderDraft {
    ReaderDraft {
        name: at(file, &raw.name),
        about: raw.about.clone().unwrap_or_default(),
        topics: all(file, &raw.topics),
        patience: raw.patience,
    }
}

fn topic_draft(file: &Arc<str>, raw: &RawTopic, defaults: &RawDefaults) -> TopicDraft {
    let name = at(file, &raw.name);
    let from = match &raw.from {
        Some(from) => at(file, from),
        None => At { value: Origin::Stages, file: Arc::clone(file), line: name.line, column: name.column },
    };
    TopicDraft {
        about: raw.about.clone().unwrap_or_default(),
        from,
        key: raw.key.as_ref().map(|key| at(file, key)),
        compaction_key: raw.compaction_key.clone(),
        schema: raw.schema.as_ref().map(|schema| at(file, schema)),
        partitions: at(file, raw.partitions.as_ref().unwrap_or(&defaults.partitions)),
        same_partitions_as: raw.same_partitions_as.as_ref().map(|name| at(file, name)),
        cleanup: raw.cleanup.as_ref().map(|cleanup| at(file, cleanup)),
        retain: raw.retain.as_ref().map(|retain| at(file, retain)),
        segment: raw.segment.as_ref().map(|segment| at(file, segment)),
        timestamps: raw.timestamps.unwrap_or_default(),
        max_message_bytes: at(file, raw.max_message_bytes.as_ref().unwrap_or(&defaults.max_message_bytes)),
        name,
    }
}

fn stage_draft(file: &Arc<str>, raw: &RawStage) -> StageDraft {
    let list = |names: &Option<Vec<Spanned<String>>>| all(file, names.as_deref().unwrap_or_default());
    StageDraft {
        name: at(file, &raw.name),
        about: raw.about.clone().unwrap_or_default(),
        implemented: raw.implemented.unwrap_or(false),
        state_key: raw.state_key.as_ref().map(|key| at(file, key)),
        inputs: list(&raw.inputs),
        broadcast: list(&raw.broadcast),
        outputs: list(&raw.outputs),
        marks: raw.marks.as_ref().map(|marks| at(file, marks)),
        settings: raw.settings.clone(),
        planned_inputs: all(file, &raw.planned.inputs),
        planned_broadcast: all(file, &raw.planned.broadcast),
        planned_outputs: all(file, &raw.planned.outputs),
    }
}

/// Sizes, counts, times and settings may differ from the built-in topology, and readers outside may come; what flows where may not.
fn overlay(file: &Arc<str>, raw: RawFile, mut below: Draft) -> Result<Draft, TopologyError> {
    let mut problems = Vec::new();
    for topic in &raw.topics {
        let structural = topic.key.is_some() || topic.schema.is_some() || topic.from.is_some();
        match below.topics.iter_mut().find(|t| t.name.value == topic.name.value) {
            _ if structural => {
                problems.push(at(file, &topic.name).problem(
                    "key, schema and from cannot differ from the built-in topology; help: write a complete file",
                ))
            }
            None => problems.push(at(file, &topic.name).problem("the built-in topology has no such topic")),
            Some(into) => lay_over(file, topic, into),
        }
    }
    for stage in &raw.stages {
        let name = at(file, &stage.name);
        let structural = stage.inputs.is_some() || stage.outputs.is_some() || stage.state_key.is_some();
        match below.stages.iter_mut().find(|s| s.name.value == name.value) {
            _ if structural => problems.push(name.problem(
                "inputs, outputs and state_key cannot differ from the built-in topology; help: write a complete file",
            )),
            None => problems.push(name.problem("the built-in topology has no such stage")),
            Some(into) => into.settings = stage.settings.clone().over(std::mem::take(&mut into.settings)),
        }
    }
    below.readers.extend(raw.readers.iter().map(|reader| reader_draft(file, reader)));
    if problems.is_empty() { Ok(below) } else { Err(TopologyError::Invalid(problems)) }
}

fn lay_over(file: &Arc<str>, raw: &RawTopic, into: &mut TopicDraft) {
    into.name = at(file, &raw.name);
    if let Some(partitions) = &raw.partitions {
        into.partitions = at(file, partitions);
    }
    if let Some(bytes) = &raw.max_message_bytes {
        into.max_message_bytes = at(file, bytes);
    }
    if let Some(cleanup) = &raw.cleanup {
        into.cleanup = Some(at(file, cleanup));
    }
    if let Some(retain) = &raw.retain {
        into.retain = Some(at(file, retain));
    }
    if let Some(segment) = &raw.segment {
        into.segment = Some(at(file, segment));
    }
}

//! The rules of a topology, checked all at once: every problem is reported, each with its line.

use std::collections::{HashMap, HashSet};

use super::file::{At, Draft, ReaderDraft, Settings, StageDraft, TopicDraft};
use super::{
    CHANGELOG, Cleanup, Origin, Planned, Problem, ReaderSpec, StageSettings, StageSpec, Timestamps, TopicSpec,
};
use crate::codec::schema::EMBEDDED;

/// Kafka's own limit for a topic name is 249; prefixes need room.
const MAX_NAME: usize = 120;
const MAX_PARTITIONS: i32 = 1024;
/// A reader outside that does not say otherwise is overdue after this time.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3_600);

struct Rules<'d> {
    topics: HashMap<&'d str, &'d TopicDraft>,
    problems: Vec<Problem>,
}

pub(super) fn validate(draft: &Draft) -> Result<(Vec<TopicSpec>, Vec<StageSpec>), Vec<Problem>> {
    let mut rules = Rules { topics: HashMap::new(), problems: Vec::new() };
    for topic in &draft.topics {
        rules.topic_alone(topic);
        if rules.topics.insert(&topic.name.value, topic).is_some() {
            rules.problem(&topic.name, format!("topic {} stands twice", topic.name.value));
        }
    }
    let mut names = HashSet::new();
    for stage in &draft.stages {
        if !names.insert(&stage.name.value) {
            rules.problem(&stage.name, format!("stage {} stands twice", stage.name.value));
        }
        rules.name(&stage.name);
        rules.flows(stage);
        rules.state(stage);
    }
    for reader in &draft.readers {
        if !names.insert(&reader.name.value) {
            rules.problem(&reader.name, format!("a stage or reader {} stands twice", reader.name.value));
        }
        rules.reader(reader, draft);
    }
    for topic in &draft.topics {
        rules.topic_among(topic, draft);
    }
    if rules.problems.is_empty() { Ok(specs(draft)) } else { Err(rules.problems) }
}

impl<'d> Rules<'d> {
    fn problem<T>(&mut self, at: &At<T>, message: impl Into<String>) {
        self.problems.push(at.problem(message));
    }

    fn name(&mut self, name: &At<String>) {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
        let text = name.value.as_str();
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(fits) || text.starts_with(CHANGELOG) {
            self.problem(
                name,
                format!(
                    "{text:?} is no usable name; help: lower-case letters, digits, '.', '-', '_', not {CHANGELOG}…"
                ),
            );
        }
    }

    fn topic_alone(&mut self, topic: &'d TopicDraft) {
        self.name(&topic.name);
        let name = &topic.name.value;
        for count in topic.partitions.value.0 {
            if !(1..=MAX_PARTITIONS).contains(&count) {
                self.problem(&topic.partitions, format!("{count} partitions: 1 to {MAX_PARTITIONS} are possible"));
            }
        }
        match &topic.schema {
            None => self.problem(&topic.name, format!("{name} names no schema; help: `schema: none` for other bytes")),
            Some(schema) if schema.value == "none" || EMBEDDED.iter().any(|e| e.name == schema.value) => {}
            Some(schema) => {
                self.problem(schema, format!("there is no schemas/{}.avsc", schema.value));
            }
        }
        let Some(cleanup) = &topic.cleanup else {
            return self
                .problem(&topic.name, format!("{name} names no cleanup; help: kept, purged, compacted or timed"));
        };
        match (cleanup.value, &topic.retain) {
            (Cleanup::Timed, None) => self.problem(cleanup, format!("{name} is timed and needs `retain`")),
            (Cleanup::Kept | Cleanup::Compacted, Some(retain)) => {
                self.problem(retain, format!("{name} is never deleted by time: `retain` contradicts its cleanup"));
            }
            _ => {}
        }
        match (topic.from.value, &topic.key) {
            (Origin::Outsiders, Some(key)) => {
                self.problem(key, format!("{name} is written by outsiders, whose keys and partitions are not trusted"));
            }
            (Origin::Stages | Origin::Runtime, None) => {
                self.problem(&topic.name, format!("{name} names no key that it is partitioned by"));
            }
            _ => {}
        }
        if topic.from.value == Origin::Outsiders {
            if topic.timestamps != Timestamps::Append {
                self.problem(&topic.from, format!("{name} is written by outsiders and needs `timestamps: append`"));
            }
            if cleanup.value == Cleanup::Compacted {
                self.problem(cleanup, format!("{name} is written by outsiders: their keys cannot decide what stays"));
            }
        }
    }

    /// Every topic that a stage names exists, and may be used so.
    fn flows(&mut self, stage: &StageDraft) {
        let inputs = stage.inputs.iter().chain(&stage.planned_inputs);
        let broadcast = stage.broadcast.iter().chain(&stage.planned_broadcast);
        let outputs = stage.outputs.iter().chain(&stage.planned_outputs);
        let mut seen = HashSet::new();
        for topic in inputs.clone().chain(broadcast.clone()) {
            if !seen.insert(&topic.value) {
                self.problem(topic, format!("{} reads {} twice", stage.name.value, topic.value));
            }
        }
        for topic in inputs.chain(broadcast.clone()).chain(outputs.clone()) {
            if !self.topics.contains_key(topic.value.as_str()) {
                self.problem(topic, format!("there is no topic {}", topic.value));
            }
        }
        if stage.inputs.is_empty() {
            self.problem(&stage.name, format!("{} reads no keyed input", stage.name.value));
        }
        for topic in broadcast {
            let Some(spec) = self.topics.get(topic.value.as_str()) else { continue };
            if spec.cleanup.as_ref().is_some_and(|cleanup| cleanup.value != Cleanup::Compacted) {
                self.problem(topic, format!("{} is broadcast and must be compacted", topic.value));
            }
        }
        for topic in outputs {
            let runtime = |spec: &&TopicDraft| spec.from.value == Origin::Runtime;
            if self.topics.get(topic.value.as_str()).is_some_and(runtime) {
                self.problem(topic, format!("{} is written by the runtime, not declared by stages", topic.value));
            }
        }
        if let Some(marks) = &stage.marks {
            let spec = self.topics.get(marks.value.as_str()).copied();
            if !stage.outputs.iter().any(|output| output.value == marks.value) {
                self.problem(
                    marks,
                    format!("{} marks {}, which is none of its outputs", stage.name.value, marks.value),
                );
            }
            if spec.is_some_and(|spec| spec.timestamps != Timestamps::Append) {
                self.problem(marks, format!("{} carries time marks and needs `timestamps: append`", marks.value));
            }
        }
    }

    /// Keyed inputs are partitioned by exactly the state key, with equal partition counts.
    fn state(&mut self, stage: &StageDraft) {
        let name = &stage.name.value;
        let Some(state_key) = &stage.state_key else {
            return self
                .problem(&stage.name, format!("{name} names no state_key; help: `state_key: none` when stateless"));
        };
        if state_key.value == "none" {
            return;
        }
        let mut lead: Option<(&str, [i32; 2])> = None;
        for input in stage.inputs.iter().chain(&stage.planned_inputs) {
            let Some(topic) = self.topics.get(input.value.as_str()).copied() else { continue };
            match &topic.key {
                Some(key) if key.value == state_key.value => {}
                Some(key) => self.problem(
                    input,
                    format!(
                        "{name} keeps its state by {}, but {} is partitioned by {}; help: two workers would each keep \
                         a part of one {}'s state: write a topic partitioned by {} first",
                        state_key.value, input.value, key.value, state_key.value, state_key.value
                    ),
                ),
                None => self.problem(
                    input,
                    format!(
                        "{name} keeps its state by {}, but {} is written by outsiders in any partition; help: let \
                         keying write it to a topic of its own first",
                        state_key.value, input.value
                    ),
                ),
            }
            let counts = topic.partitions.value.0;
            match lead {
                None => lead = Some((&input.value, counts)),
                Some((_, first)) if first == counts => {}
                Some((first_name, first)) => self.problem(
                    input,
                    format!(
                        "{name} reads {first_name} with {first:?} partitions (single, cluster) and {} with {counts:?}; \
                         help: inputs of one stage have equal partition counts",
                        input.value
                    ),
                ),
            }
        }
    }

    /// Plaintext can leave a broker's disk by whole segments only.
    fn grace(&mut self, topic: &TopicDraft, draft: &Draft) {
        let purged = topic.cleanup.as_ref().is_some_and(|c| c.value == Cleanup::Purged);
        let reads = |stage: &&StageDraft| stage.inputs.iter().any(|at| at.value == topic.name.value);
        let grace = draft.stages.iter().filter(reads).filter_map(|s| s.settings.plaintext_grace).map(|g| g.0).max();
        let Some(grace) = grace.filter(|_| purged) else { return };
        if topic.segment.as_ref().is_none_or(|segment| segment.value.0 > grace) {
            let name = &topic.name.value;
            self.problem(
                &topic.name,
                format!("{name} is purged {} s behind its reader, but its segments last longer; help: `segment` is at most `plaintext_grace`", grace.as_secs()),
            );
        }
    }

    /// A reader outside the stages may hold back what is purged, but no plaintext.
    fn reader(&mut self, reader: &ReaderDraft, draft: &Draft) {
        let name = &reader.name.value;
        self.name(&reader.name);
        if reader.topics.is_empty() {
            self.problem(&reader.name, format!("{name} reads no topic"));
        }
        let mut seen = HashSet::new();
        for topic in &reader.topics {
            let plaintext = |s: &StageDraft| {
                s.settings.plaintext_grace.is_some() && s.inputs.iter().any(|input| input.value == topic.value)
            };
            let purged = |t: &TopicDraft| t.cleanup.as_ref().is_some_and(|c| c.value == Cleanup::Purged);
            match self.topics.get(topic.value.as_str()).copied() {
                _ if !seen.insert(&topic.value) => self.problem(topic, format!("{name} reads {} twice", topic.value)),
                None => self.problem(topic, format!("there is no topic {}", topic.value)),
                Some(spec) if !purged(spec) => self.problem(
                    topic,
                    format!("{} is not purged; help: any client may read it, no declaration is needed", topic.value),
                ),
                Some(_) if draft.stages.iter().any(plaintext) => self.problem(
                    topic,
                    format!("{} is purged of plaintext in time, whoever else would read it", topic.value),
                ),
                Some(_) => {}
            }
        }
    }

    fn topic_among(&mut self, topic: &TopicDraft, draft: &Draft) {
        let name = &topic.name.value;
        let names = |list: &[At<String>]| list.iter().any(|at| at.value == *name);
        let written = draft.stages.iter().any(|s| names(&s.outputs) || names(&s.planned_outputs));
        if topic.from.value == Origin::Stages && !written {
            self.problem(&topic.name, format!("no stage writes {name}"));
        }
        let read = draft.stages.iter().any(|s| names(&s.inputs) || names(&s.planned_inputs));
        if topic.cleanup.as_ref().is_some_and(|c| c.value == Cleanup::Purged) && !read {
            self.problem(&topic.name, format!("{name} is purged behind its readers, but no stage reads it"));
        }
        self.grace(topic, draft);
        if let Some(same) = &topic.same_partitions_as {
            match self.topics.get(same.value.as_str()).map(|t| t.partitions.value.0) {
                None => self.problem(same, format!("there is no topic {}", same.value)),
                Some(counts) if counts == topic.partitions.value.0 => {}
                Some(counts) => self.problem(
                    &topic.partitions,
                    format!(
                        "{name} needs as many partitions as {}, which has {counts:?} (single, cluster)",
                        same.value
                    ),
                ),
            }
        }
    }
}

fn specs(draft: &Draft) -> (Vec<TopicSpec>, Vec<StageSpec>) {
    let stages: Vec<StageSpec> = draft.stages.iter().map(stage_spec).collect();
    let mut topics: Vec<TopicSpec> = draft.topics.iter().map(|topic| topic_spec(topic, &stages)).collect();
    for stage in &stages {
        let lead = stage.lead().and_then(|lead| topics.iter().find(|topic| topic.name == lead));
        if let (Some(changelog), Some(lead)) = (&stage.changelog, lead) {
            let changelog = changelog_spec(stage, changelog, lead.by_profile);
            topics.push(changelog);
        }
    }
    (topics, stages)
}

/// The readers outside the stages; call it for a valid draft.
pub(super) fn readers(draft: &Draft) -> Vec<ReaderSpec> {
    let spec = |reader: &ReaderDraft| ReaderSpec {
        name: reader.name.value.clone(),
        about: reader.about.clone(),
        topics: values(&reader.topics),
        patience: reader.patience.map_or(PATIENCE, |p| p.0),
    };
    draft.readers.iter().map(spec).collect()
}

fn values(list: &[At<String>]) -> Vec<String> {
    list.iter().map(|at| at.value.clone()).collect()
}

fn stage_spec(draft: &StageDraft) -> StageSpec {
    let state_key = draft.state_key.as_ref().map(|key| key.value.clone()).filter(|key| key != "none");
    StageSpec {
        name: draft.name.value.clone(),
        about: draft.about.clone(),
        implemented: draft.implemented,
        changelog: state_key.as_ref().map(|_| format!("{CHANGELOG}{}", draft.name.value)),
        state_key,
        inputs: values(&draft.inputs),
        broadcast: values(&draft.broadcast),
        outputs: values(&draft.outputs),
        marks: draft.marks.as_ref().map(|marks| marks.value.clone()),
        settings: settings(&draft.settings),
        planned: Planned {
            inputs: values(&draft.planned_inputs),
            broadcast: values(&draft.planned_broadcast),
            outputs: values(&draft.planned_outputs),
        },
    }
}

fn settings(draft: &Settings) -> StageSettings {
    StageSettings {
        plaintext_grace: draft.plaintext_grace.map(|p| p.0),
        mark_interval: draft.mark_interval.map(|p| p.0),
        contribution_timeout: draft.contribution_timeout.map(|p| p.0),
        closed_ids_kept: draft.closed_ids_kept.map(|p| p.0),
        max_open_contributions: draft.max_open_contributions,
        table_rows: draft.table_rows,
        table_bytes: draft.table_bytes,
        table_interval: draft.table_interval.map(|p| p.0),
        training_rows: draft.training_rows,
        training_bytes: draft.training_bytes,
        training_threads: draft.training_threads,
        training_budget: draft.training_budget,
    }
}

fn topic_spec(draft: &TopicDraft, stages: &[StageSpec]) -> TopicSpec {
    let name = &draft.name.value;
    let named = |lists: &[&Vec<String>]| lists.iter().any(|list| list.contains(name));
    let of = |pick: &dyn Fn(&StageSpec) -> bool| -> Vec<String> {
        stages.iter().filter(|stage| pick(stage)).map(|stage| stage.name.clone()).collect()
    };
    let used = |s: &StageSpec| named(&[&s.inputs, &s.broadcast, &s.outputs]);
    let used_now = |s: &StageSpec| s.implemented && used(s);
    let planned = |s: &StageSpec| named(&[&s.planned.inputs, &s.planned.broadcast, &s.planned.outputs]);
    let used_ever = |s: &StageSpec| used(s) || planned(s);
    TopicSpec {
        name: name.clone(),
        about: draft.about.clone(),
        key: draft.key.as_ref().map(|key| key.value.clone()),
        compaction_key: draft.compaction_key.clone(),
        partitions: draft.partitions.value.0[0],
        cleanup: draft.cleanup.as_ref().map_or(Cleanup::Kept, |cleanup| cleanup.value),
        retain: draft.retain.as_ref().map(|retain| retain.value.0),
        segment: draft.segment.as_ref().map(|segment| segment.value.0),
        timestamps: draft.timestamps,
        max_message_bytes: draft.max_message_bytes.value,
        origin: draft.from.value,
        schema: draft.schema.as_ref().map(|schema| schema.value.clone()).filter(|schema| schema != "none"),
        writers: of(&|s| named(&[&s.outputs, &s.planned.outputs])),
        readers: of(&|s| named(&[&s.inputs, &s.broadcast, &s.planned.inputs, &s.planned.broadcast])),
        active: match draft.from.value {
            Origin::Runtime => true,
            // What no stage will ever read or write is for programs outside alone.
            Origin::Outsiders => stages.iter().any(used_now) || !stages.iter().any(used_ever),
            Origin::Stages => stages.iter().any(used_now),
        },
        by_profile: draft.partitions.value.0,
    }
}

fn changelog_spec(stage: &StageSpec, name: &str, by_profile: [i32; 2]) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        about: format!("State of {}", stage.name),
        key: stage.state_key.clone(),
        compaction_key: Some("state entry".to_owned()),
        partitions: by_profile[0],
        cleanup: Cleanup::Compacted,
        retain: None,
        segment: None,
        timestamps: Timestamps::Create,
        max_message_bytes: 1_048_588,
        origin: Origin::Runtime,
        schema: None,
        writers: vec![stage.name.clone()],
        readers: vec![stage.name.clone()],
        active: stage.implemented,
        by_profile,
    }
}

//! A topology for people: tables for a terminal, a flowchart for Markdown.

use std::fmt::Write as _;

use super::{Cleanup, Origin, ReaderSpec, StageSpec, Timestamps, TopicSpec, Topology};

/// Writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

pub(super) fn table(topology: &Topology) -> String {
    let mut out = String::new();
    let mut rows = vec![cells(["TOPIC", "PARTITIONS", "KEY", "CLEANUP", "TIME", "SCHEMA", "WRITTEN BY"])];
    rows.extend(topology.topics().iter().map(topic_row));
    put_table(&mut out, &rows);
    out.push('\n');
    let mut rows = vec![cells(["STAGE", "STATE", "READS", "BROADCAST", "WRITES", "", ""])];
    rows.extend(topology.stages().iter().map(stage_row));
    put_table(&mut out, &rows);
    if !topology.readers().is_empty() {
        out.push('\n');
        let mut rows = vec![cells(["READER OUTSIDE", "HOLDS BACK", "OVERDUE AFTER", "ABOUT", "", "", ""])];
        rows.extend(topology.readers().iter().map(reader_row));
        put_table(&mut out, &rows);
    }
    out.push_str("\n* comes with stages that this version does not have\n");
    out
}

fn cells(texts: [&str; 7]) -> [String; 7] {
    texts.map(str::to_owned)
}

fn topic_row(topic: &TopicSpec) -> [String; 7] {
    let later = if topic.active { "" } else { " *" };
    let cleanup = match topic.cleanup {
        Cleanup::Kept => "kept".to_owned(),
        Cleanup::Compacted => "compacted".to_owned(),
        Cleanup::Purged => "purged".to_owned(),
        Cleanup::Timed => format!("{} d", topic.retain.unwrap_or_default().as_secs() / 86_400),
    };
    let timestamps = match topic.timestamps {
        Timestamps::Append => "append",
        Timestamps::Create => "create",
    };
    let writers = match topic.origin {
        Origin::Stages => topic.writers.join(", "),
        Origin::Runtime => "runtime".to_owned(),
        Origin::Outsiders if topic.writers.is_empty() => "outsiders".to_owned(),
        Origin::Outsiders => format!("outsiders, {}", topic.writers.join(", ")),
    };
    [
        format!("{}{later}", topic.name),
        topic.partitions.to_string(),
        topic.key.clone().unwrap_or_else(|| "–".to_owned()),
        cleanup,
        timestamps.to_owned(),
        topic.schema.clone().unwrap_or_else(|| "–".to_owned()),
        writers,
    ]
}

fn stage_row(stage: &StageSpec) -> [String; 7] {
    let flow = |now: &[String], later: &[String]| {
        let marked = later.iter().map(|name| format!("{name}*"));
        let all: Vec<String> = now.iter().cloned().chain(marked).collect();
        if all.is_empty() { "–".to_owned() } else { all.join(", ") }
    };
    [
        format!("{}{}", stage.name, if stage.implemented { "" } else { " *" }),
        stage.state_key.clone().unwrap_or_else(|| "–".to_owned()),
        flow(&stage.inputs, &stage.planned.inputs),
        flow(&stage.broadcast, &stage.planned.broadcast),
        flow(&stage.outputs, &stage.planned.outputs),
        String::new(),
        String::new(),
    ]
}

fn reader_row(reader: &ReaderSpec) -> [String; 7] {
    let patience = format!("{} s", reader.patience.as_secs());
    let none = String::new;
    [reader.name.clone(), reader.topics.join(", "), patience, reader.about.clone(), none(), none(), none()]
}

fn put_table(out: &mut String, rows: &[[String; 7]]) {
    let mut widths = [0; 7];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        put!(out, "{}", line.trim_end());
    }
}

pub(super) fn mermaid(topology: &Topology) -> String {
    let mut out = String::from("flowchart LR\n");
    for topic in topology.topics().iter().filter(|topic| !topic.name.starts_with("hokusai.")) {
        let class = match (topic.active, topic.origin) {
            (false, _) => ":::later",
            (true, Origin::Outsiders) => ":::outside",
            (true, _) => "",
        };
        put!(out, "  {}[(\"{}\")]{class}", id("t", &topic.name), topic.name);
    }
    for stage in topology.stages() {
        let class = if stage.implemented { ":::stage" } else { ":::later" };
        put!(out, "  {}[\"{}\"]{class}", id("s", &stage.name), stage.name);
        let now = if stage.implemented { "-->" } else { "-.->" };
        let (name, planned) = (id("s", &stage.name), &stage.planned);
        for (topics, arrow) in [(&stage.inputs, now), (&planned.inputs, "-.->")] {
            topics.iter().for_each(|topic| put!(out, "  {} {arrow} {name}", id("t", topic)));
        }
        for (topics, arrow) in [(&stage.broadcast, now), (&planned.broadcast, "-.->")] {
            topics.iter().for_each(|topic| put!(out, "  {} {arrow}|broadcast| {name}", id("t", topic)));
        }
        for (topics, arrow) in [(&stage.outputs, now), (&planned.outputs, "-.->")] {
            topics.iter().for_each(|topic| put!(out, "  {name} {arrow} {}", id("t", topic)));
        }
    }
    for reader in topology.readers() {
        put!(out, "  {}[\"{}\"]:::outside", id("r", &reader.name), reader.name);
        reader.topics.iter().for_each(|topic| put!(out, "  {} --> {}", id("t", topic), id("r", &reader.name)));
    }
    out.push_str("  classDef stage fill:#dbeafe,stroke:#1d4ed8\n");
    out.push_str("  classDef outside fill:#fef3c7,stroke:#b45309\n");
    out.push_str("  classDef later stroke-dasharray: 5 5,color:#6b7280\n");
    out
}

/// A name that Mermaid takes as an identifier.
fn id(kind: &str, name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("{kind}_{name}")
}

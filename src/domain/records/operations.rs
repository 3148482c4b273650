//! What the runtime and the platform write about themselves.

use serde::{Deserialize, Serialize};

use super::{Position, Record};

/// A record that could not be read at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Stage that could not read it.
    pub stage: String,
    /// Where it stands.
    pub position: Position,
    /// Why: a stable code.
    pub reason: String,
    /// What was wrong, without any byte of the record.
    pub detail: String,
    /// Size of the record's value in bytes.
    pub size: i64,
    /// Keyed digest of the record's value, hex.
    pub digest: String,
    /// Number of this part, from 0, when the sealed record is spread over several dead letters.
    pub part: i32,
    /// How many parts there are.
    pub parts: i32,
    /// Id of the operator's key that the record is sealed to; none when it is not kept.
    pub sealed_to: Option<String>,
    /// This part of the record as it came, sealed (`codec::aside`).
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub sealed: Option<Vec<u8>>,
}
record!(DeadLetter, "dead_letter");

/// How far a task has read one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Stage.
    pub stage: String,
    /// Topic without prefix.
    pub topic: String,
    /// Kafka's id of the topic, hex; another id means that the topic was made anew.
    pub topic_id: String,
    /// Partition.
    pub partition: i32,
    /// Offset of the next record to read.
    pub next_offset: i64,
}
record!(Progress, "progress");

/// Something that a person should see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What it is about.
    pub subject: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `guardrail_breach`, `srm`, `degradation`, `quality_drop` or `lag`.
    pub kind: String,
    /// What was seen, without personal data.
    pub detail: String,
    /// When it was seen.
    pub event_time: i64,
}
record!(Alert, "alert");

//! What can go wrong in the warehouse, and the way out of each.

use deltalake_core::DeltaTableError;

use super::tables::Table;
use crate::stream::client::ClientError;
use crate::stream::progress::Stop;

/// Why the warehouse could not read or write a table.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// The shared store cannot be used.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A table's location cannot be used.
    #[error("the store {store} cannot be used: {detail}; help: name an absolute folder or a URL with --store")]
    Location {
        /// The location as given.
        store: String,
        /// What is wrong.
        detail: String,
    },
    /// The Delta library failed.
    #[error("table {table} could not be {what}: {source}; help: `hokusai doctor` checks the store")]
    Delta {
        /// Table.
        table: &'static str,
        /// What was tried.
        what: &'static str,
        /// What the library said.
        source: Box<DeltaTableError>,
    },
    /// A batch could not be put into the table's form.
    #[error(
        "table {table}: {what} could not be put into the table's form: {detail}; help: this is a defect, please report it"
    )]
    Arrow {
        /// Table.
        table: &'static str,
        /// What was converted.
        what: &'static str,
        /// What Arrow said; no value of a row.
        detail: String,
    },
    /// The table was written by another version.
    #[error(
        "table {table} has layout {found}, this version knows {supported}; help: use the version that wrote it, or a newer one"
    )]
    Format {
        /// Table.
        table: &'static str,
        /// Layout found.
        found: String,
        /// Layout of this version.
        supported: &'static str,
    },
    /// Another worker has written the same topic partition.
    #[error(
        "{topic}-{partition}: table {table} stands at offset {found} where {expected} was written last; another worker has taken the partition over"
    )]
    Fenced {
        /// Table.
        table: &'static str,
        /// Topic with prefix.
        topic: String,
        /// Partition.
        partition: i32,
        /// Position that this worker knew.
        expected: i64,
        /// Position in the table.
        found: i64,
    },
    /// The topic was deleted and made anew.
    #[error(
        "topic {topic} was made anew (id {found}, table {table} holds {expected}): its offsets mean other records; help: move the folder tables/{table} away to start over, or restore the topic"
    )]
    TopicRecreated {
        /// Table.
        table: &'static str,
        /// Topic with prefix.
        topic: String,
        /// Id in the table.
        expected: String,
        /// Id at the brokers.
        found: String,
    },
    /// Records between the table's position and the log's start are gone.
    #[error(
        "{topic}-{partition}: table {table} stands at offset {position}, but the log holds {low} to {high}; help: restore the topic, or move the folder tables/{table} away to begin at the log's start"
    )]
    PositionLost {
        /// Table.
        table: &'static str,
        /// Topic with prefix.
        topic: String,
        /// Partition.
        partition: i32,
        /// Position in the table.
        position: i64,
        /// First offset of the log.
        low: i64,
        /// End of the log.
        high: i64,
    },
    /// The Kafka client failed.
    #[error("{what}: {source}; help: `hokusai doctor --brokers …` checks the brokers")]
    Kafka {
        /// What was tried.
        what: String,
        /// What the client said.
        source: rdkafka::error::KafkaError,
    },
    /// The brokers did not answer a question.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A topic's records cannot be read now.
    #[error("{topic} cannot be read: {detail}; help: `hokusai doctor` checks brokers, topics and the schema registry")]
    Input {
        /// Topic with prefix.
        topic: String,
        /// What happened.
        detail: String,
    },
    /// A commit did not end in time.
    #[error("table {table} was not committed within {seconds} s; help: is the store reachable, is its disk full?")]
    Slow {
        /// Table.
        table: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The warehouse's own thread ended.
    #[error("the warehouse's thread could not run: {detail}; help: see the log lines before this one")]
    Thread {
        /// What happened.
        detail: String,
    },
}

impl WarehouseError {
    pub(crate) fn delta(table: Table, what: &'static str, source: DeltaTableError) -> Self {
        Self::Delta { table: table.name(), what, source: Box::new(source) }
    }

    pub(super) fn arrow(table: Table, what: &'static str, source: impl std::fmt::Display) -> Self {
        Self::Arrow { table: table.name(), what, detail: source.to_string() }
    }

    /// The named outcome, when waiting cannot help and a person has to act.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        let plain = |topic: &String| topic.clone();
        match self {
            Self::TopicRecreated { topic, expected, found, .. } => {
                Some(Stop::TopicRecreated { topic: plain(topic), was: expected.clone(), now: found.clone() })
            }
            Self::PositionLost { topic, partition, position, low, .. } if position < low => Some(Stop::OffsetExpired {
                topic: plain(topic),
                partition: *partition,
                next: *position,
                log_start: *low,
                lost: low - position,
            }),
            Self::PositionLost { topic, partition, position, high, .. } => {
                Some(Stop::LogTruncated { topic: plain(topic), partition: *partition, next: *position, log_end: *high })
            }
            Self::Format { .. } | Self::Location { .. } | Self::Store(_) => {
                let text = self.to_string();
                let (what, help) = text.split_once("; help: ").unwrap_or((&text, "see the log"));
                Some(Stop::Misconfigured { what: what.to_owned(), help: help.to_owned() })
            }
            _ => None,
        }
    }
}

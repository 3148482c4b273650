//! What can go wrong in the warehouse, and the way out of each.

use deltalake_core::DeltaTableError;

use super::tables::Table;

/// Why the warehouse could not read or write a table.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// The store's location cannot be used.
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
    /// The warehouse's own thread ended.
    #[error("the warehouse's thread could not run: {detail}; help: see the log lines before this one")]
    Thread {
        /// What happened.
        detail: String,
    },
}

impl WarehouseError {
    pub(super) fn delta(table: Table, what: &'static str, source: DeltaTableError) -> Self {
        Self::Delta { table: table.name(), what, source: Box::new(source) }
    }

    pub(super) fn arrow(table: Table, what: &'static str, source: impl std::fmt::Display) -> Self {
        Self::Arrow { table: table.name(), what, detail: source.to_string() }
    }

    /// Waiting and trying again cannot help: a person has to act.
    #[must_use]
    pub fn is_named_stop(&self) -> bool {
        matches!(
            self,
            Self::Format { .. } | Self::TopicRecreated { .. } | Self::PositionLost { .. } | Self::Location { .. }
        )
    }
}

//! The runtime's metrics: one constant per name, one set of handles per task, no label allocated per message.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};

/// Records between the task's position and the end of its input.
pub const LAG: &str = "hokusai_lag_records";
/// Records read and committed.
pub const RECORDS_IN: &str = "hokusai_records_in_total";
/// Bytes of keys and values read and committed.
pub const BYTES_IN: &str = "hokusai_bytes_in_total";
/// Records written and committed, changelog and progress included.
pub const RECORDS_OUT: &str = "hokusai_records_out_total";
/// Bytes of keys and values written and committed.
pub const BYTES_OUT: &str = "hokusai_bytes_out_total";
/// Offsets that held no record.
pub const OFFSET_GAPS: &str = "hokusai_offset_gaps_total";
/// Seconds from the last output of a transaction to its commit.
pub const COMMIT_SECONDS: &str = "hokusai_commit_seconds";
/// Seconds a transaction was open.
pub const TRANSACTION_SECONDS: &str = "hokusai_transaction_seconds";
/// Transactions committed.
pub const COMMITS: &str = "hokusai_commits_total";
/// Transactions aborted.
pub const ABORTS: &str = "hokusai_aborts_total";
/// Records put aside.
pub const DEAD_LETTERS: &str = "hokusai_dead_letters_total";
/// Times a task was fenced by a successor.
pub const FENCED: &str = "hokusai_fenced_total";
/// Seconds from assignment to the first record, restore included.
pub const RESTORE_SECONDS: &str = "hokusai_restore_seconds";
/// Entries of committed state.
pub const STATE_ENTRIES: &str = "hokusai_state_entries";
/// Bytes of committed state in memory.
pub const STATE_BYTES: &str = "hokusai_state_bytes";
/// Bytes of committed state on this machine's disk.
pub const STATE_DISK_BYTES: &str = "hokusai_state_disk_bytes";
/// Seconds since the oldest record of a topic with a hard limit on plaintext was appended; 0 when there is none.
pub const OLDEST: &str = "hokusai_oldest_record_seconds";
/// Snapshots of state put into the shared store.
pub const SNAPSHOTS_SENT: &str = "hokusai_snapshots_sent_total";
/// Bytes of them that the store did not have yet.
pub const SNAPSHOT_BYTES_SENT: &str = "hokusai_snapshot_bytes_sent_total";
/// Snapshots that could not be sent.
pub const SNAPSHOTS_FAILED: &str = "hokusai_snapshots_failed_total";
/// States that began with a snapshot.
pub const SNAPSHOTS_FETCHED: &str = "hokusai_snapshots_fetched_total";
/// Snapshots that were found and not used.
pub const SNAPSHOTS_REFUSED: &str = "hokusai_snapshots_refused_total";
/// Tasks that are stopped until somebody acts.
pub const STOPPED: &str = "hokusai_stopped_tasks";

/// Records of purged topics that a reader outside the stages has not committed yet.
pub const READER_LAG: &str = "hokusai_reader_lag_records";
/// 1 when a reader outside the stages is overdue: it holds a purge back.
pub const READER_OVERDUE: &str = "hokusai_reader_overdue";

/// Registers units and descriptions with the process's recorder.
pub fn describe() {
    for (name, help) in [
        (RECORDS_IN, "Records read and committed"),
        (RECORDS_OUT, "Records written and committed, changelog and progress included"),
        (OFFSET_GAPS, "Offsets that held no record: transaction markers, compaction"),
        (COMMITS, "Transactions committed"),
        (ABORTS, "Transactions aborted"),
        (DEAD_LETTERS, "Records put aside because they could not be read or processed"),
        (SNAPSHOTS_SENT, "Snapshots of state put into the shared store"),
        (SNAPSHOTS_FAILED, "Snapshots of state that could not be sent: the next one is tried"),
        (SNAPSHOTS_FETCHED, "States that began with a snapshot instead of the whole changelog"),
        (SNAPSHOTS_REFUSED, "Snapshots of state that were found and not used: the log says why"),
        (FENCED, "Times a task was fenced by a successor: normal while a group rebalances"),
    ] {
        metrics::describe_counter!(name, Unit::Count, help);
    }
    metrics::describe_gauge!(OLDEST, Unit::Seconds, "Age of the oldest record that is not purged yet");
    metrics::describe_counter!(BYTES_IN, Unit::Bytes, "Bytes of keys and values read and committed");
    metrics::describe_counter!(SNAPSHOT_BYTES_SENT, Unit::Bytes, "Bytes of snapshots that the store did not have yet");
    metrics::describe_counter!(BYTES_OUT, Unit::Bytes, "Bytes of keys and values written and committed");
    metrics::describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "From the last output of a transaction to its commit");
    metrics::describe_histogram!(TRANSACTION_SECONDS, Unit::Seconds, "How long a transaction was open");
    metrics::describe_histogram!(
        RESTORE_SECONDS,
        Unit::Seconds,
        "From assignment to the first record, restore included"
    );
    metrics::describe_gauge!(LAG, Unit::Count, "Records between a task's position and the end of its input");
    metrics::describe_gauge!(STATE_ENTRIES, Unit::Count, "Entries of committed state");
    metrics::describe_gauge!(STATE_BYTES, Unit::Bytes, "Approximate bytes of committed state in memory");
    metrics::describe_gauge!(STATE_DISK_BYTES, Unit::Bytes, "Bytes of committed state on this machine's disk");
    metrics::describe_gauge!(READER_LAG, Unit::Count, "Offsets that a reader outside holds back from the purge");
    metrics::describe_gauge!(
        READER_OVERDUE,
        Unit::Count,
        "1 when a record waits for a reader outside beyond its patience"
    );
    metrics::describe_gauge!(STOPPED, Unit::Count, "Tasks stopped with a named outcome until somebody acts");
}

/// Handles of one task, made once.
pub(crate) struct TaskMetrics {
    pub records_in: Counter,
    pub bytes_in: Counter,
    pub records_out: Counter,
    pub bytes_out: Counter,
    pub gaps: Counter,
    pub commit: Histogram,
    pub transaction: Histogram,
    pub commits: Counter,
    pub aborts: Counter,
    pub dead_letters: Counter,
    pub fenced: Counter,
    pub restore: Histogram,
    pub state_entries: Gauge,
    pub state_bytes: Gauge,
    pub state_disk: Gauge,
    pub lag: Vec<Gauge>,
}

impl TaskMetrics {
    /// Handles for a stage's task; `inputs` are its topics without prefix.
    pub fn new(stage: &'static str, partition: i32, inputs: &[String]) -> Self {
        let partition = partition.to_string();
        let lag = |topic: &String| metrics::gauge!(LAG, "stage" => stage, "topic" => topic.clone(), "partition" => partition.clone());
        Self {
            records_in: metrics::counter!(RECORDS_IN, "stage" => stage),
            bytes_in: metrics::counter!(BYTES_IN, "stage" => stage),
            records_out: metrics::counter!(RECORDS_OUT, "stage" => stage),
            bytes_out: metrics::counter!(BYTES_OUT, "stage" => stage),
            gaps: metrics::counter!(OFFSET_GAPS, "stage" => stage),
            commit: metrics::histogram!(COMMIT_SECONDS, "stage" => stage),
            transaction: metrics::histogram!(TRANSACTION_SECONDS, "stage" => stage),
            commits: metrics::counter!(COMMITS, "stage" => stage),
            aborts: metrics::counter!(ABORTS, "stage" => stage),
            dead_letters: metrics::counter!(DEAD_LETTERS, "stage" => stage),
            fenced: metrics::counter!(FENCED, "stage" => stage),
            restore: metrics::histogram!(RESTORE_SECONDS, "stage" => stage),
            state_entries: metrics::gauge!(STATE_ENTRIES, "stage" => stage, "partition" => partition.clone()),
            state_bytes: metrics::gauge!(STATE_BYTES, "stage" => stage, "partition" => partition.clone()),
            state_disk: metrics::gauge!(STATE_DISK_BYTES, "stage" => stage, "partition" => partition.clone()),
            lag: inputs.iter().map(lag).collect(),
        }
    }

    /// Records the size of the committed state.
    #[allow(clippy::cast_precision_loss)]
    pub fn state(&self, size: super::stage::StateSize) {
        self.state_entries.set(size.entries as f64);
        self.state_bytes.set(size.bytes as f64);
        self.state_disk.set(size.disk as f64);
    }

    /// Records the lag of one input.
    #[allow(clippy::cast_precision_loss)]
    pub fn lag(&self, input: usize, records: i64) {
        if let Some(gauge) = self.lag.get(input) {
            gauge.set(records.max(0) as f64);
        }
    }

    /// Records how long a restore took.
    pub fn restored(&self, took: Duration) {
        self.restore.record(took.as_secs_f64());
    }
}

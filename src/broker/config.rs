//! What an operator may choose. Every limit is checked before memory is allocated for what it limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How the broker is started. [`BrokerConfig::new`] gives the safe defaults.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The folder that holds everything the broker keeps. One process at a time.
    pub data: PathBuf,
    /// The address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// When written bytes are forced to the disk.
    pub fsync: Fsync,
    /// Users and passwords for SASL/PLAIN. `None` lets everybody in, which is right on loopback only.
    pub sasl_plain: Option<Vec<(String, String)>>,
    /// Bounds on memory, sizes and times.
    pub limits: Limits,
    /// `host` or `host:port` told to clients instead of the address they connected to.
    pub advertised: Option<String>,
    /// Create a topic when a client asks for the metadata of an unknown one. Off: a typo is an error.
    pub auto_create_topics: bool,
    /// Partitions of a topic created without a number.
    pub default_partitions: i32,
    /// How often retention, compaction and expiry look for work.
    pub maintenance_interval: Duration,
}

impl BrokerConfig {
    /// A broker on `data`, listening on `listen`, with every default.
    pub fn new(data: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data: data.into(),
            listen,
            fsync: Fsync::Group,
            sasl_plain: None,
            limits: Limits::default(),
            advertised: None,
            auto_create_topics: false,
            default_partitions: 1,
            maintenance_interval: Duration::from_secs(15),
        }
    }
}

/// When written bytes are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before `acks=all` and EndTxn are answered; everything that waits shares one round. Consumers are
    /// shown only what is on the disk, so that power loss never takes back what somebody has read.
    Group,
    /// Every so often. Power loss may take back acknowledged records of the last interval.
    Interval(Duration),
}

/// Bounds on memory, sizes and times.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at the same time; for a further one, one that says nothing gives way.
    pub connections: usize,
    /// Largest Produce request in bytes.
    pub produce_request_bytes: usize,
    /// Largest request of any other kind in bytes.
    pub request_bytes: usize,
    /// Bytes of all large requests being read or served at the same time. Requests of at most 64 KiB have memory of their own,
    /// as many as there may be connections.
    pub request_memory_bytes: usize,
    /// Requests of one connection that may wait for their answer.
    pub in_flight_per_connection: usize,
    /// Bytes of records in one Fetch answer, unless a single batch is larger.
    pub fetch_bytes: usize,
    /// Bytes one record batch may have after decompression.
    pub decompressed_batch_bytes: usize,
    /// Bytes of records in all Fetch answers that are being made or sent at the same time.
    pub fetch_memory_bytes: usize,
    /// Partitions of all topics together.
    pub partitions: usize,
    /// Consumer groups.
    pub groups: usize,
    /// Transactional ids.
    pub transactional_ids: usize,
    /// Members of one consumer group.
    pub group_members: usize,
    /// A connection without any request is closed after this time.
    pub idle_connection: Duration,
    /// A client that stalls inside a request, sends none after it connected, or does not take its answer, is dropped after this
    /// time; inside a large request it has a second more for each MiB.
    pub stalled_connection: Duration,
    /// Shortest consumer session timeout.
    pub min_session_timeout: Duration,
    /// Longest consumer session timeout.
    pub max_session_timeout: Duration,
    /// Longest transaction timeout.
    pub max_transaction_timeout: Duration,
    /// Committed offsets of an empty group are dropped after this time.
    pub offsets_retention: Duration,
    /// A transactional id that nobody has used for this long is forgotten.
    pub transactional_id_expiry: Duration,
    /// A producer that has written nothing to a partition for this long is forgotten there.
    pub producer_expiry: Duration,
    /// Distinct keys one compaction pass remembers (about 48 bytes each).
    pub compaction_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            connections: 1_024,
            produce_request_bytes: 100 * MIB,
            request_bytes: 8 * MIB,
            request_memory_bytes: 256 * MIB,
            in_flight_per_connection: 16,
            fetch_bytes: 32 * MIB,
            decompressed_batch_bytes: 128 * MIB,
            fetch_memory_bytes: 256 * MIB,
            partitions: 10_000,
            groups: 10_000,
            transactional_ids: 100_000,
            group_members: 1_000,
            idle_connection: Duration::from_secs(600),
            stalled_connection: Duration::from_secs(30),
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(1_800),
            max_transaction_timeout: Duration::from_secs(900),
            offsets_retention: 7 * DAY,
            transactional_id_expiry: 7 * DAY,
            producer_expiry: DAY,
            compaction_keys: 2_000_000,
        }
    }
}

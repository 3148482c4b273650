//! Everything the requests of all connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::config::BrokerConfig;
use super::coordinator::groups::Groups;
use super::coordinator::transaction::Transactions;
use super::disk::Disk;
use super::error::BrokerError;
use super::flusher::Flusher;
use super::meta::{Key, Meta, put};
use super::topics::{TopicId, Topics};

/// The id of the only node.
pub(crate) const NODE_ID: i32 = 1;

/// What the broker has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Connections open now.
    pub connections: usize,
    /// Topics.
    pub topics: usize,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Requests answered.
    pub requests: u64,
    /// Connections closed because of something malformed.
    pub refused_connections: u64,
    /// Bytes of record batches appended for producers.
    pub appended_bytes: u64,
    /// Records appended for producers.
    pub appended_records: u64,
    /// Bytes of record batches sent to consumers.
    pub fetched_bytes: u64,
    /// Rounds of fsync.
    pub flushes: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub connections: AtomicUsize,
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    pub appended_bytes: AtomicU64,
    pub appended_records: AtomicU64,
    pub fetched_bytes: AtomicU64,
    /// Numbers waiting fetches.
    pub readers: AtomicU64,
}

/// The broker behind its connections.
pub(crate) struct Node {
    pub config: BrokerConfig,
    pub disk: Arc<Disk>,
    pub flusher: Arc<Flusher>,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub transactions: Transactions,
    pub cluster_id: String,
    pub counters: Counters,
}

impl Node {
    /// Opens the data folder: recovers logs, groups and transactions.
    pub(crate) fn open(config: BrokerConfig) -> Result<Self, BrokerError> {
        let disk = Arc::new(Disk::open(&config.data)?);
        let flusher = Arc::new(Flusher::start(config.fsync).map_err(BrokerError::io(&config.data))?);
        let meta = Arc::new(Meta::open(&disk)?);
        let topics = Arc::new(Topics::open(&disk, &flusher, &meta, &config.limits)?);
        let groups = Arc::new(Groups::open(&meta, &flusher, &config.limits)?);
        let transactions = Transactions::open(&meta, &flusher, &topics, &groups, &config.limits)?;
        let cluster_id = cluster_id(&meta, &config)?;
        Ok(Self { config, disk, flusher, topics, groups, transactions, cluster_id, counters: Counters::default() })
    }

    /// The address told to a client that has reached the broker under `local`.
    pub(crate) fn advertised(&self, local: SocketAddr) -> (String, i32) {
        let port = i32::from(local.port());
        match &self.config.advertised {
            None => (local.ip().to_string(), port),
            Some(given) => match given.rsplit_once(':') {
                Some((host, given_port)) if !host.contains(':') || host.ends_with(']') => {
                    (host.trim_matches(['[', ']']).to_owned(), given_port.parse().unwrap_or(port))
                }
                _ => (given.clone(), port),
            },
        }
    }

    pub(crate) fn stats(&self) -> BrokerStats {
        let (topics, partitions) = self.topics.count();
        let counters = &self.counters;
        BrokerStats {
            connections: counters.connections.load(Relaxed),
            topics,
            partitions,
            requests: counters.requests.load(Relaxed),
            refused_connections: counters.refused.load(Relaxed),
            appended_bytes: counters.appended_bytes.load(Relaxed),
            appended_records: counters.appended_records.load(Relaxed),
            fetched_bytes: counters.fetched_bytes.load(Relaxed),
            flushes: self.flusher.rounds(),
        }
    }
}

fn cluster_id(meta: &Arc<Meta>, config: &BrokerConfig) -> Result<String, BrokerError> {
    let stored = meta.read(|key| matches!(key, Key::Cluster).then_some(()))?;
    if let Some(((), id)) = stored.into_iter().next() {
        return Ok(id);
    }
    let id = TopicId::random().map_err(BrokerError::io(&config.data))?.to_string();
    meta.write(vec![put(Key::Cluster, &id)]).map_err(BrokerError::io(&config.data))?;
    Ok(id)
}

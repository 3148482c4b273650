//! Where a tenant's pipeline lives: its brokers, its folders, its topics and how records are encoded.

use std::path::PathBuf;
use std::sync::Arc;

use rdkafka::ClientConfig;

use crate::codec::wire::Wire;
use crate::stream::client::Cluster;
use crate::topology::Topology;

/// One tenant: one topic prefix, one key ring, one store path; a process serves one.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Bootstrap servers.
    pub brokers: String,
    /// librdkafka properties (SASL, TLS …).
    pub kafka: Vec<(String, String)>,
    /// Folder of this machine's data.
    pub data: PathBuf,
    /// Root of the store: an absolute folder or a URL.
    pub store: String,
    /// Topics and stages.
    pub topology: Arc<Topology>,
    /// Prefix of topics, groups and transactional ids.
    pub prefix: String,
    /// Encodes and decodes records.
    pub wire: Arc<Wire>,
}

impl Installation {
    /// The cluster as the tenant sees it.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster { brokers: self.brokers.clone(), prefix: self.prefix.clone(), kafka: self.kafka.clone() }
    }

    /// A librdkafka configuration that reaches the brokers.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        self.cluster().client_config()
    }

    /// Name of a topic with the tenant's prefix.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Where the tasks of this machine keep committed state.
    #[must_use]
    pub fn state_folder(&self) -> PathBuf {
        self.data.join("state")
    }
}

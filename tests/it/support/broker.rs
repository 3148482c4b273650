//! The two brokers that every case runs on: one of each per run of the test binary, shared by the tests.

use super::hokusai::{Running, command};
use super::kafka::{ApacheKafka, jars};
use super::skip;
use std::sync::{Mutex, OnceLock};

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `hokusai broker`.
    Embedded,
    /// Apache Kafka 4.1.
    ApacheKafka,
}

/// A broker that answers on `bootstrap`.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Which one.
    pub kind: Kind,
    /// `HOST:PORT`.
    pub bootstrap: String,
}

/// A broker of one's own, for tests that stop it or look at its folder.
#[derive(Debug)]
pub enum Own {
    /// `hokusai broker` on a folder.
    Embedded {
        /// Its process.
        process: Running,
        /// Its folder.
        data: tempfile::TempDir,
    },
    /// Apache Kafka.
    ApacheKafka(Box<ApacheKafka>),
}

/// `hokusai broker` on a folder and an address (port 0 picks a free one).
pub fn start_embedded(data: &std::path::Path, listen: &str) -> Running {
    let data_argument = data.join("broker");
    let arguments = ["broker", "--data", &data_argument.to_string_lossy(), "--listen", listen, "--format", "json"];
    Running::start(command(&arguments), &data.join("broker.log"))
}

impl Own {
    /// Starts one; none when Apache Kafka cannot run here (and says so).
    pub fn start(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Embedded => {
                let data = tempfile::tempdir().expect("a temporary folder");
                let process = start_embedded(data.path(), "127.0.0.1:0");
                Some(Self::Embedded { process, data })
            }
            Kind::ApacheKafka => match jars().and_then(|_| ApacheKafka::start()) {
                Ok(kafka) => Some(Self::ApacheKafka(Box::new(kafka))),
                Err(reason) => {
                    skip("a test on Apache Kafka 4.1", &reason);
                    None
                }
            },
        }
    }

    /// How to reach it.
    pub fn broker(&self) -> Broker {
        match self {
            Self::Embedded { process, .. } => Broker { kind: Kind::Embedded, bootstrap: process.brokers() },
            Self::ApacheKafka(kafka) => Broker { kind: Kind::ApacheKafka, bootstrap: kafka.bootstrap() },
        }
    }

    /// Ends it (the embedded one by kill -9, which it must survive) and starts it again on the same folder and address.
    pub fn restart(&mut self) {
        match self {
            Self::Embedded { process, data } => {
                let listen = process.brokers();
                process.kill();
                *process = start_embedded(data.path(), &listen);
            }
            Self::ApacheKafka(kafka) => kafka.restart(),
        }
    }
}

/// The broker of this kind that the tests of this run share; none when it cannot run here.
pub fn shared(kind: Kind) -> Option<Broker> {
    static EMBEDDED: OnceLock<Option<Mutex<Own>>> = OnceLock::new();
    static APACHE_KAFKA: OnceLock<Option<Mutex<Own>>> = OnceLock::new();
    let cell = match kind {
        Kind::Embedded => &EMBEDDED,
        Kind::ApacheKafka => &APACHE_KAFKA,
    };
    let own = cell.get_or_init(|| Own::start(kind).map(Mutex::new)).as_ref();
    if own.is_none() && kind == Kind::ApacheKafka {
        skip("a test on Apache Kafka 4.1", &jars().err().unwrap_or_else(|| "it did not start".into()));
    }
    own.map(|own| own.lock().unwrap_or_else(std::sync::PoisonError::into_inner).broker())
}

/// Runs a case on the shared broker of this kind.
pub fn with(kind: Kind, case: impl FnOnce(&Broker)) {
    if let Some(broker) = shared(kind) {
        case(&broker);
    }
}

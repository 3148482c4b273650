//! The two brokers that every case runs on: one of each per run of the test binary, shared by the tests.

use super::client::wait;
use super::hokusai::{Running, command};
use super::kafka::{ApacheKafka, jars};
use super::skip;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

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
pub enum Own {
    /// `hokusai broker` on a folder.
    Embedded {
        /// Its process.
        process: Running,
        /// Its folder.
        data: tempfile::TempDir,
    },
    /// The embedded broker inside this process, with upkeep that does not keep tests waiting.
    InProcess {
        /// The broker.
        broker: Box<hokusai::broker::Broker>,
        /// Its folder.
        _data: tempfile::TempDir,
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
            Kind::ApacheKafka => Self::kafka(""),
        }
    }

    /// Starts one that forgets a transactional id after a second without use.
    pub fn start_forgetful(kind: Kind) -> Option<Self> {
        const FORGETFUL: &str =
            "transactional.id.expiration.ms=1000\ntransaction.remove.expired.transaction.cleanup.interval.ms=300\n";
        match kind {
            Kind::Embedded => Some(Self::start_in_process_with(|config| {
                config.limits.transactional_id_expiry = Duration::from_secs(1);
            })),
            Kind::ApacheKafka => Self::kafka(FORGETFUL),
        }
    }

    fn kafka(more: &str) -> Option<Self> {
        match jars().and_then(|_| ApacheKafka::start(more)) {
            Ok(kafka) => Some(Self::ApacheKafka(Box::new(kafka))),
            Err(reason) => {
                skip("a test on Apache Kafka 4.1", &reason);
                None
            }
        }
    }

    fn start_in_process() -> Self {
        Self::start_in_process_with(|_| {})
    }

    /// Starts the embedded broker inside this process. Retention, compaction and expiry come round five times a second.
    fn start_in_process_with(adjust: impl FnOnce(&mut hokusai::broker::BrokerConfig)) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut config = hokusai::broker::BrokerConfig::new(data.path().join("broker"), ([127, 0, 0, 1], 0).into());
        config.maintenance_interval = Duration::from_millis(200);
        adjust(&mut config);
        let broker = wait(hokusai::broker::Broker::start(config)).expect("the embedded broker starts");
        Self::InProcess { broker: Box::new(broker), _data: data }
    }

    /// How to reach it.
    pub fn broker(&self) -> Broker {
        match self {
            Self::Embedded { process, .. } => Broker { kind: Kind::Embedded, bootstrap: process.brokers() },
            Self::InProcess { broker, .. } => Broker { kind: Kind::Embedded, bootstrap: broker.address().to_string() },
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
            Self::InProcess { .. } => unreachable!("a test that restarts a broker starts a process"),
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
    let start = || match kind {
        Kind::Embedded => Some(Own::start_in_process()),
        Kind::ApacheKafka => Own::start(kind),
    };
    let own = cell.get_or_init(|| start().map(Mutex::new)).as_ref();
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

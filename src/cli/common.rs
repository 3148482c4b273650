//! Settings that every command shares: where the brokers are, where data lives, how output looks.
//!
//! [`CommonArgs`] is what was typed; [`Settings`] is what commands run with. Secrets never come from arguments: a
//! librdkafka property that carries one is refused on the command line and read from a file or the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::exit::{Failure, Outcome};
use crate::codec::wire::{Wire, WireConfig};
use crate::installation::Installation;
use crate::store::{Store, StoreError, StoreOptions};
use crate::stream::client::ClientError;
use crate::topology::{Profile, Topology};

/// Runs work that waits for brokers or disks on a thread that may wait.
///
/// # Errors
/// What the work returns; a failure when it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::failed)?
}

/// Default bootstrap servers when nothing else is known.
pub const DEFAULT_BROKERS: &str = "127.0.0.1:9092";

/// Where a command finds the tenant's keys.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyFolder {
    /// Folder of the tenant's key ring and trust file [default: DATA/keys]
    #[arg(long, global = true, env = "HOKUSAI_KEYS", value_name = "DIR")]
    keys: Option<PathBuf>,
}

impl KeyFolder {
    /// Whether it was given, and not left to the default.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.keys.is_some()
    }

    /// The folder.
    #[must_use]
    pub fn path(&self, settings: &Settings) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| settings.data.join("keys"))
    }
}

/// Prefix of environment variables that set librdkafka properties: `HOKUSAI_KAFKA_SASL_PASSWORD` is `sasl.password`.
const KAFKA_ENVIRONMENT: &str = "HOKUSAI_KAFKA_";

/// Properties that carry a secret and are therefore refused as arguments.
const SECRET_PROPERTIES: &[&str] = &[
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
];

/// Properties that exactly-once depends on and that a user therefore cannot set.
const OWN_PROPERTIES: &[&str] = &[
    "enable.idempotence",
    "transactional.id",
    "isolation.level",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "group.id",
    "acks",
    "bootstrap.servers",
];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What was typed.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Bootstrap servers of the Kafka cluster [default: those of a running `hokusai up` on the same --data]
    #[arg(long, global = true, env = "HOKUSAI_BROKERS", value_name = "HOST:PORT,…", help_heading = "Connection")]
    pub brokers: Option<String>,
    /// Folder of this machine's data
    #[arg(long, global = true, env = "HOKUSAI_DATA", default_value = "hokusai-data", value_name = "DIR")]
    pub data: PathBuf,
    /// What machines share, tables and artefacts: a folder, file:///FOLDER or s3://BUCKET/PREFIX [default: DATA/store]
    ///
    /// S3 is reached as the environment says: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION; for other
    /// servers than Amazon's AWS_ENDPOINT_URL, and AWS_ALLOW_HTTP=true when it is not HTTPS.
    #[arg(long, global = true, env = "HOKUSAI_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// A topology instead of the built-in one
    #[arg(long, global = true, env = "HOKUSAI_TOPOLOGY", value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Prefix of topics, groups and transactional ids: one tenant has one
    #[arg(
        long,
        global = true,
        env = "HOKUSAI_PREFIX",
        default_value = "",
        value_name = "TEXT",
        hide_default_value = true
    )]
    pub prefix: String,
    /// Partition counts: `single` for one machine, `cluster` for many workers
    #[arg(long, global = true, env = "HOKUSAI_PARTITIONS", default_value = "single", value_name = "PROFILE")]
    pub partitions: Profile,
    /// A librdkafka property, such as security.protocol=SASL_SSL; secrets only by file or environment
    #[arg(short = 'X', global = true, value_name = "KEY=VALUE", help_heading = "Connection")]
    pub property: Vec<String>,
    /// A file of librdkafka properties, one KEY=VALUE per line (SASL, TLS)
    #[arg(long, global = true, env = "HOKUSAI_KAFKA_CONFIG", value_name = "FILE", help_heading = "Connection")]
    pub kafka_config: Option<PathBuf>,
    /// Confluent schema registry; without one Avro travels in single-object encoding
    #[arg(long, global = true, env = "HOKUSAI_SCHEMA_REGISTRY", value_name = "URL", help_heading = "Connection")]
    pub schema_registry: Option<String>,
    /// Output for people or for programs
    #[arg(long, global = true, default_value = "human", value_name = "FORMAT")]
    pub format: Format,
    /// More log lines on standard error (-v, -vv); RUST_LOG has the last word
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log lines as text or JSON
    #[arg(long, global = true, env = "HOKUSAI_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How results are printed; tables and Arrow exist for `sql` alone, CSV for `predict` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
    /// `sql` alone: an aligned table.
    Table,
    /// `sql` and `predict`: comma-separated values with a header.
    Csv,
    /// `sql` alone: an Arrow IPC stream.
    Arrow,
}

/// What a running `hokusai up` leaves in its data folder so that other commands find it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// Bootstrap servers.
    pub brokers: String,
    /// Address of the HTTP server; empty when there is none.
    pub http: String,
    /// When the embedded broker syncs: `group` or `interval`.
    pub fsync: String,
}

impl Endpoint {
    fn path(data: &Path) -> PathBuf {
        data.join("endpoint.json")
    }

    /// Reads what was left, if anything readable was.
    #[must_use]
    pub fn read(data: &Path) -> Option<Self> {
        let text = std::fs::read(Self::path(data)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Leaves the endpoint, atomically.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, data: &Path) -> std::io::Result<()> {
        let temporary = data.join("endpoint.json.new");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(temporary, Self::path(data))
    }

    /// Takes it away again at a clean end.
    pub fn remove(data: &Path) {
        let _ = std::fs::remove_file(Self::path(data));
    }
}

/// What commands run with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the tenant's pipeline lives.
    pub installation: Installation,
    /// Partition counts.
    pub profile: Profile,
    /// Output as typed.
    pub format: Format,
}

impl std::ops::Deref for Settings {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.installation
    }
}

impl Settings {
    /// Output goes to a program.
    #[must_use]
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// The shared store, after it has answered once.
    ///
    /// # Errors
    /// What [`Store::open`] says: a location that makes no sense is a usage failure.
    pub async fn open_store(&self) -> Outcome<Store> {
        Store::open(&self.store, &StoreOptions::from_environment()).await.map_err(|error| match error {
            StoreError::Location { .. } => Failure::Usage(error.to_string()),
            error => Failure::failed(error),
        })
    }

    /// The exit-3 failure for these brokers.
    #[must_use]
    pub fn no_broker(&self, detail: impl std::fmt::Display) -> Failure {
        Failure::NoBroker { brokers: self.brokers.clone(), detail: detail.to_string() }
    }

    /// A failed question to the cluster: exit 3 when no broker answered.
    #[must_use]
    pub fn unreachable(&self, error: ClientError) -> Failure {
        if error.is_unreachable() { self.no_broker(error) } else { Failure::failed(error) }
    }

    /// The same settings for other brokers.
    #[must_use]
    pub fn at(mut self, brokers: String) -> Self {
        self.installation.brokers = brokers;
        self
    }
}

impl CommonArgs {
    /// Turns what was typed into what commands run with: reads files and environment, checks everything.
    ///
    /// # Errors
    /// A usage failure that names the argument, file or variable.
    pub fn settings(&self) -> Outcome<Settings> {
        let data = std::path::absolute(&self.data).map_err(|e| usage("--data", &e))?;
        let store = match &self.store {
            Some(store) if store.contains("://") => store.clone(),
            Some(folder) => absolute(Path::new(folder), "--store")?,
            None => absolute(&data.join("store"), "--store")?,
        };
        let topology = match &self.topology {
            None => Topology::builtin(),
            Some(path) => Topology::load(path),
        }
        .map_err(|e| Failure::Usage(e.to_string()))?;
        let brokers = match (&self.brokers, Endpoint::read(&data)) {
            (Some(brokers), _) => brokers.clone(),
            (None, Some(endpoint)) => endpoint.brokers,
            (None, None) => DEFAULT_BROKERS.to_owned(),
        };
        check_prefix(&self.prefix)?;
        let wire = Wire::new(&self.wire_config()?).map_err(|e| Failure::Usage(e.to_string()))?;
        let installation = Installation {
            brokers,
            kafka: self.kafka_properties()?,
            data,
            store,
            topology: Arc::new(topology.with_profile(self.partitions)),
            prefix: self.prefix.clone(),
            wire: Arc::new(wire),
        };
        Ok(Settings { installation, profile: self.partitions, format: self.format })
    }

    fn wire_config(&self) -> Outcome<WireConfig> {
        let registry_url = match &self.schema_registry {
            None => None,
            // The text may hold a password: it is not repeated.
            Some(text) => Some(text.parse().map_err(|e| usage("--schema-registry: not a URL", &e))?),
        };
        Ok(WireConfig {
            registry_url,
            registry_user: std::env::var("HOKUSAI_SCHEMA_REGISTRY_USER").ok(),
            registry_password: std::env::var("HOKUSAI_SCHEMA_REGISTRY_PASSWORD").ok().map(Zeroizing::new),
            ..WireConfig::default()
        })
    }

    /// File, then environment, then arguments: the later wins.
    fn kafka_properties(&self) -> Outcome<Vec<(String, String)>> {
        let mut properties = BTreeMap::new();
        if let Some(path) = &self.kafka_config {
            let text = std::fs::read_to_string(path).map_err(|e| usage(&path.display().to_string(), &e))?;
            for (number, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let place = format!("{}:{}", path.display(), number + 1);
                let (key, value) = pair(line, &place)?;
                properties.insert(key, value);
            }
        }
        for (name, value) in std::env::vars() {
            // HOKUSAI_KAFKA_CONFIG names the file above.
            if let Some(key) = name.strip_prefix(KAFKA_ENVIRONMENT).filter(|key| *key != "CONFIG") {
                properties.insert(key.to_ascii_lowercase().replace('_', "."), value);
            }
        }
        for argument in &self.property {
            let (key, value) = pair(argument, "-X")?;
            if SECRET_PROPERTIES.contains(&key.as_str()) {
                return Err(Failure::Usage(format!(
                    "-X {key}: a secret must not stand in an argument\nhelp: put it into a file for --kafka-config, or into {KAFKA_ENVIRONMENT}{}",
                    key.to_ascii_uppercase().replace('.', "_")
                )));
            }
            properties.insert(key, value);
        }
        if let Some(key) = properties.keys().find(|key| OWN_PROPERTIES.contains(&key.as_str())) {
            return Err(Failure::Usage(format!(
                "the librdkafka property {key} is set by hokusai itself: exactly-once depends on it\nhelp: leave it out"
            )));
        }
        Ok(properties.into_iter().collect())
    }
}

fn absolute(path: &Path, what: &str) -> Outcome<String> {
    let path = std::path::absolute(path).map_err(|e| usage(what, &e))?;
    path.into_os_string()
        .into_string()
        .map_err(|_| Failure::Usage(format!("{what}: the path is not UTF-8\nhelp: use another folder")))
}

fn usage(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Usage(format!("{what}: {error}"))
}

/// Splits KEY=VALUE; the value is never repeated in an error, it may be a secret.
fn pair(text: &str, place: &str) -> Outcome<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(Failure::Usage(format!("{place}: expected KEY=VALUE, as in security.protocol=SASL_SSL"))),
    }
}

fn check_prefix(prefix: &str) -> Outcome<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if prefix.len() > 64 || !prefix.chars().all(legal) {
        return Err(Failure::Usage(
            "--prefix: at most 64 characters out of a-z A-Z 0-9 . _ -, as in topic names".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        common: CommonArgs,
    }

    fn properties(arguments: &[&str]) -> Outcome<Vec<(String, String)>> {
        Only::parse_from(std::iter::once("hokusai").chain(arguments.iter().copied())).common.kafka_properties()
    }

    #[test]
    fn a_secret_in_an_argument_is_refused_without_being_repeated() {
        let failure = properties(&["-X", "sasl.password=hunter2"]).unwrap_err();
        let Failure::Usage(text) = failure else { panic!("not a usage failure") };
        assert!(text.contains("HOKUSAI_KAFKA_SASL_PASSWORD"), "{text}");
        assert!(!text.contains("hunter2"));
    }

    #[test]
    fn what_exactly_once_depends_on_cannot_be_overridden() {
        assert!(matches!(properties(&["-X", "isolation.level=read_uncommitted"]), Err(Failure::Usage(_))));
        assert_eq!(
            properties(&["-X", "security.protocol=SASL_SSL"]).unwrap(),
            [("security.protocol".to_owned(), "SASL_SSL".to_owned())]
        );
    }

    #[test]
    fn a_line_of_a_properties_file_that_is_no_pair_is_named_by_its_place_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kafka.properties");
        std::fs::write(&file, "# comment\nsasl.username=me\nsecretwithoutkey\n").unwrap();
        let failure = properties(&["--kafka-config", file.to_str().unwrap()]).unwrap_err();
        let Failure::Usage(text) = failure else { panic!("not a usage failure") };
        assert!(text.contains("kafka.properties:3") && !text.contains("secretwithoutkey"), "{text}");
    }
}

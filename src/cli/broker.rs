//! `hokusai broker`: the embedded broker alone.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::common::{Endpoint, Settings};
use super::exit::{Failure, Outcome, say};
use crate::broker::{Broker, BrokerConfig, Fsync};

const EXAMPLES: &str = "\
Examples:
  hokusai broker --data ./broker --listen 127.0.0.1:9092
  hokusai broker --data ./broker --listen 127.0.0.1:0 --format json     prints the port it found

It is for one machine and listens on loopback unless told otherwise; production is Apache Kafka.
SASL/PLAIN: a file of USER:PASSWORD lines in --sasl-users (or HOKUSAI_BROKER_SASL_USERS).";

/// When the broker makes data durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FsyncPolicy {
    /// Before it acknowledges (group commit).
    Group,
    /// Every 100 ms: a power loss may lose acknowledged records.
    Interval,
}

impl FsyncPolicy {
    /// The policy as it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Interval => "interval",
        }
    }
}

/// Arguments that `broker` and `up` share.
#[derive(Debug, Clone, Args)]
pub struct EmbeddedArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "HOKUSAI_LISTEN", default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    pub listen: String,
    /// When data becomes durable
    #[arg(long, env = "HOKUSAI_FSYNC", default_value = "group", value_name = "POLICY")]
    pub fsync: FsyncPolicy,
    /// File of USER:PASSWORD lines: clients then need SASL/PLAIN
    #[arg(long, env = "HOKUSAI_BROKER_SASL_USERS", value_name = "FILE")]
    pub sasl_users: Option<std::path::PathBuf>,
}

/// Arguments of `broker`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BrokerArgs {
    #[command(flatten)]
    embedded: EmbeddedArgs,
}

/// Runs `broker` until a signal.
///
/// # Errors
/// When the folder or the address cannot be used.
pub async fn run(args: BrokerArgs, settings: Settings) -> Outcome<()> {
    let stop = crate::ops::signals::on_signal();
    let broker = start(&args.embedded, &settings).await?;
    let address = broker.address().to_string();
    let _ = Endpoint { brokers: address.clone(), http: String::new(), fsync: args.embedded.fsync.name().to_owned() }
        .write(&settings.data);
    if settings.json() {
        say(json!({"event": "ready", "brokers": address}))?;
    } else {
        say(format_args!("broker ready at {address}, data in {}; Ctrl-C ends", settings.data.display()))?;
    }
    stop.cancelled().await;
    Endpoint::remove(&settings.data);
    broker.shutdown().await;
    Ok(())
}

/// Starts the embedded broker in `DATA/broker`.
///
/// # Errors
/// When the folder or the address cannot be used.
pub async fn start(args: &EmbeddedArgs, settings: &Settings) -> Outcome<Broker> {
    let listen = resolve(&args.listen).await?;
    let mut config = BrokerConfig::new(settings.data.join("broker"), listen);
    if args.fsync == FsyncPolicy::Interval {
        config.fsync = Fsync::Interval(Duration::from_millis(100));
    }
    config.sasl_plain = args.sasl_users.as_deref().map(users).transpose()?;
    Broker::start(config).await.map_err(Failure::failed)
}

/// Resolves HOST:PORT.
///
/// # Errors
/// A usage failure when it is none.
pub async fn resolve(address: &str) -> Outcome<SocketAddr> {
    let unusable =
        |detail: String| Failure::Usage(format!("{address}: {detail}\nhelp: HOST:PORT, as in 127.0.0.1:9092"));
    let mut found = tokio::net::lookup_host(address).await.map_err(|e| unusable(e.to_string()))?;
    found.next().ok_or_else(|| unusable("no such host".to_owned()))
}

fn users(path: &std::path::Path) -> Outcome<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| match line.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok((user.to_owned(), password.to_owned())),
            _ => Err(Failure::Usage(format!("{}:{}: expected USER:PASSWORD", path.display(), number + 1))),
        })
        .collect()
}

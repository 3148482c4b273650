//! `hokusai up`: broker, stages, tables and HTTP in one process.

use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::broker::{EmbeddedArgs, resolve, start};
use super::common::{Endpoint, Settings};
use super::exit::{Failure, Outcome, say};
use super::worker::{self, StageArgs};
use crate::pipeline;
use crate::web::Server;

const EXAMPLES: &str = "\
Examples:
  hokusai up
  hokusai up --data ./hokusai-data --listen 127.0.0.1:9092 --http 127.0.0.1:8080
  hokusai up --data /tmp/try --listen 127.0.0.1:0 --http 127.0.0.1:0 --format json

With --format json one line {\"event\":\"ready\",\"brokers\":\"…\",\"http\":\"…\"} is printed when everything accepts work.
Ctrl-C or SIGTERM ends it cleanly; started again on the same --data it goes on where it stopped.";

/// Arguments of `up`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpArgs {
    #[command(flatten)]
    embedded: EmbeddedArgs,
    /// Address of the HTTP server; port 0 picks a free one
    #[arg(long, env = "HOKUSAI_HTTP", default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    http: String,
    #[command(flatten)]
    stages: StageArgs,
}

/// Runs `up` until a signal.
///
/// # Errors
/// When the data folder or an address cannot be used, or a stage ends by a failure.
pub async fn run(args: UpArgs, settings: Settings) -> Outcome<()> {
    let stop = crate::ops::signals::on_signal();
    std::fs::create_dir_all(&settings.data)?;
    worker::check_store(&settings).await?;
    let http = resolve(&args.http).await?;
    let broker = start(&args.embedded, &settings).await?;
    let settings = settings.at(broker.address().to_string());
    let served = serve(&args, &settings, http, &stop).await;
    Endpoint::remove(&settings.data);
    broker.shutdown().await;
    served
}

async fn serve(
    args: &UpArgs,
    settings: &Settings,
    http: std::net::SocketAddr,
    stop: &CancellationToken,
) -> Outcome<()> {
    super::topology::apply_the_rest(settings).await?;
    let metrics = crate::ops::metrics::install()?;
    let registering = settings.clone();
    tokio::task::spawn_blocking(move || pipeline::register_schemas(&registering)).await.map_err(Failure::failed)??;
    // The one process of its data folder: the broker has locked it.
    let pipeline = worker::pipeline(&args.stages, settings, &[], Some("up"))?;
    let server =
        Server::bind(http, pipeline.probe(), metrics).await.map_err(|e| Failure::because(format!("{http}: {e}")))?;
    let address = server.address()?.to_string();
    let endpoint = Endpoint {
        brokers: settings.brokers.clone(),
        http: address.clone(),
        fsync: args.embedded.fsync.name().to_owned(),
    };
    let announce = announce(settings.clone(), endpoint, pipeline.probe(), stop.clone());
    worker::run_to_end(pipeline, server, announce, stop).await
}

/// Tells the world once everything accepts work.
async fn announce(
    settings: Settings,
    endpoint: Endpoint,
    probe: Arc<dyn crate::ops::health::Probe>,
    stop: CancellationToken,
) {
    if !pipeline::until_ready(probe.as_ref(), &stop).await {
        return;
    }
    if let Err(error) = endpoint.write(&settings.data) {
        tracing::warn!(%error, "other commands will need --brokers: the endpoint file cannot be written");
    }
    let said = if settings.json() {
        say(json!({"event": "ready", "brokers": endpoint.brokers, "http": endpoint.http}))
    } else {
        say(format_args!(
            "ready: brokers {}, http://{}, data in {}\n\
             next:  hokusai model apply FILE, hokusai submit FILE --model M --contributor C --wait\n\
             Ctrl-C ends",
            endpoint.brokers,
            endpoint.http,
            settings.data.display()
        ))
    };
    // Nobody has to read it for the work to go on.
    if said.is_err() {
        tracing::debug!("the ready line was not read");
    }
}

//! HTTP for operators: health, readiness, metrics.

mod guard;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::guard::Guard;
use crate::ops::health::Probe;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    probe: Arc<dyn Probe>,
    metrics: PrometheusHandle,
}

/// A bound HTTP server, not yet serving.
pub struct Server {
    listener: TcpListener,
    shared: Shared,
}

impl Server {
    /// Binds the address; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, probe: Arc<dyn Probe>, metrics: PrometheusHandle) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, shared: Shared { probe, metrics } })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, stop: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.shared);
        axum::serve(Guard::new(self.listener), router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await
    }
}

/// Green as long as no task is stuck or stopped by an outcome that needs a person.
async fn health(State(shared): State<Shared>) -> Response {
    answer(shared.probe.problems().is_empty(), &shared)
}

/// Green when every stage takes work.
async fn ready(State(shared): State<Shared>) -> Response {
    answer(shared.probe.ready(), &shared)
}

fn answer(good: bool, shared: &Shared) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let report = json!({"ok": good, "problems": shared.probe.problems(), "tasks": shared.probe.tasks()});
    (status, axum::Json(report)).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render()).into_response()
}

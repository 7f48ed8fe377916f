//! Metrics and health over HTTP, on an address of their own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::BrokerCollector;
use crate::state::BrokerState;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The running server; ends when dropped.
pub(crate) struct MetricsServer {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Served {
    registry: Arc<Registry>,
    state: Arc<BrokerState>,
}

/// Starts to serve `/metrics`, `/healthz` and `/readyz`.
pub(crate) async fn serve(address: &str, collector: BrokerCollector) -> io::Result<MetricsServer> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let state = collector.state.clone();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let served = Served { registry: Arc::new(registry), state };
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(served);
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    Ok(MetricsServer { address, task })
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    let mut body = String::new();
    match text::encode(&mut body, &served.registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT_TYPE)], body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], String::new()),
    }
}

/// The process runs.
async fn health() -> &'static str {
    "ok\n"
}

/// The broker takes records: it is neither shutting down nor stopped by a failed disk.
async fn readiness(State(served): State<Served>) -> (StatusCode, String) {
    if let Some(poisoned) = served.state.log.poisoned() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{poisoned}\n"));
    }
    if *served.state.shutdown.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    }
    (StatusCode::OK, "ok\n".to_owned())
}

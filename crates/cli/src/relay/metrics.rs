//! A relay's metrics over HTTP.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use baton::relay::{LATENCY_BOUNDS_MS, Latency, RelayBoard, RelayMetrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The running server; ends when dropped.
pub(super) struct Served(JoinHandle<()>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts to serve `/metrics` and `/healthz`.
pub(super) async fn serve(address: &str, board: RelayBoard) -> io::Result<Served> {
    let listener = TcpListener::bind(address).await?;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(OfRelay(board)));
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Arc::new(registry));
    Ok(Served(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    })))
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT_TYPE)], body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], String::new()),
    }
}

#[derive(Debug)]
struct OfRelay(RelayBoard);

impl Collector for OfRelay {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let RelayMetrics {
            acknowledged,
            resumed,
            parked,
            fenced,
            database_errors,
            shards,
            held,
            in_flight,
            parked_keys,
            latency,
        } = self.0.metrics();
        let counters = [
            ("baton_relay_acknowledged", "Rows that the engine has acknowledged.", acknowledged),
            ("baton_relay_resumed", "Rows that another relay had claimed and this one has sent again.", resumed),
            ("baton_relay_parked", "Rows that were parked.", parked),
            ("baton_relay_fenced", "Times that shards were found to be somebody else's.", fenced),
            ("baton_relay_database_errors", "Errors of the database that were passed over.", database_errors),
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let gauges = [
            ("baton_relay_shards", "Shards that are this relay's.", shards),
            ("baton_relay_held_rows", "Rows in memory: found, claimed, or with the engine.", held),
            ("baton_relay_inflight_rows", "Rows that the engine has.", in_flight),
            ("baton_relay_parked_keys", "Keys that wait behind a parked row.", parked_keys),
        ];
        for (name, help, value) in gauges {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let help = "From when a row was written until the engine had acknowledged it.";
        let mut encoder =
            encoder.encode_descriptor("baton_relay_latency", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let (buckets, sum, count) = seconds(&latency);
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// Buckets, sum and count, as Prometheus has them.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn seconds(latency: &Latency) -> (Vec<(f64, u64)>, f64, u64) {
    let bounds = LATENCY_BOUNDS_MS.iter().map(|bound| *bound as f64 / 1_000.0).chain([f64::MAX]);
    let buckets = bounds.zip(latency.counts).collect();
    (buckets, latency.sum_ms as f64 / 1_000.0, latency.counts.iter().sum())
}

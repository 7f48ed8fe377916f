//! What the broker counts. Plain atomics in fixed places: counting costs no look-up and no lock; names and labels are put to
//! the numbers only when somebody asks for them.

mod collector;
mod error_codes;
mod server;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use baton_wire::{ApiKey, ErrorCode};

use crate::connection::CloseReason;
pub(crate) use collector::BrokerCollector;
pub(crate) use error_codes::ErrorCodes;
pub(crate) use server::{MetricsServer, serve};

/// Upper ends of the latency histograms' buckets, in seconds; one more bucket takes the rest.
const LATENCY_BUCKETS: [f64; 16] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A limit that something ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `max.connections`.
    Connections,
    /// `queued.max.request.bytes`.
    QueuedRequestBytes,
    /// `queued.max.response.bytes`.
    QueuedResponseBytes,
    /// `connection.max.requests`.
    ConnectionRequests,
    /// `connection.max.unread.bytes`.
    ConnectionUnreadBytes,
    /// `fetch.max.queued.bytes`.
    FetchedBytes,
    /// `disk.reads.max`.
    DiskReads,
    /// `commit.max.pending.bytes`.
    PendingBytes,
    /// `topics.max`.
    Topics,
    /// `partitions.max`.
    Partitions,
    /// `producers.max`.
    Producers,
    /// `disk.min.free.bytes`.
    DiskFreeBytes,
}

impl Limit {
    /// All of them with the settings that they come from.
    const ALL: [(Self, &'static str); 12] = [
        (Self::Connections, "max.connections"),
        (Self::QueuedRequestBytes, "queued.max.request.bytes"),
        (Self::QueuedResponseBytes, "queued.max.response.bytes"),
        (Self::ConnectionRequests, "connection.max.requests"),
        (Self::ConnectionUnreadBytes, "connection.max.unread.bytes"),
        (Self::FetchedBytes, "fetch.max.queued.bytes"),
        (Self::DiskReads, "disk.reads.max"),
        (Self::PendingBytes, "commit.max.pending.bytes"),
        (Self::Topics, "topics.max"),
        (Self::Partitions, "partitions.max"),
        (Self::Producers, "producers.max"),
        (Self::DiskFreeBytes, "disk.min.free.bytes"),
    ];
}

/// Requests of one kind.
pub(crate) struct ApiMetrics {
    answered: AtomicU64,
    nanos: AtomicU64,
    /// One for each of [`LATENCY_BUCKETS`], and one for the rest.
    latency: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    /// By position in `ErrorCode::ALL`.
    errors: Vec<AtomicU64>,
}

/// All counters of a broker.
pub(crate) struct Metrics {
    /// By API key.
    apis: Vec<ApiMetrics>,
    /// Connections that are open.
    pub connections: AtomicUsize,
    /// Connections accepted since the start.
    pub accepted: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    limits: [AtomicU64; Limit::ALL.len()],
    /// Bytes read from clients.
    pub received_bytes: AtomicU64,
    /// Bytes written to clients.
    pub sent_bytes: AtomicU64,
    /// Requests that ask for what is not served.
    pub unsupported: AtomicU64,
    /// Fetches that met damaged records.
    pub damaged_reads: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let api = |_: &ApiKey| ApiMetrics {
            answered: AtomicU64::default(),
            nanos: AtomicU64::default(),
            latency: Default::default(),
            errors: ErrorCode::ALL.iter().map(|_| AtomicU64::default()).collect(),
        };
        Self {
            apis: ApiKey::ALL.iter().map(api).collect(),
            connections: AtomicUsize::default(),
            accepted: AtomicU64::default(),
            closed: Default::default(),
            limits: Default::default(),
            received_bytes: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            unsupported: AtomicU64::default(),
            damaged_reads: AtomicU64::default(),
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Metrics")
    }
}

impl Metrics {
    fn api(&self, api_key: ApiKey) -> &ApiMetrics {
        // There is one for each key, and keys are numbered without gaps.
        &self.apis[api_key as usize]
    }

    /// A request was answered.
    pub fn answered(&self, api_key: ApiKey, took: Duration) {
        let api = self.api(api_key);
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BUCKETS.partition_point(|end| *end < seconds);
        api.answered.fetch_add(1, Ordering::Relaxed);
        api.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        api.latency[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// An answer holds this error code.
    pub fn error(&self, api_key: ApiKey, code: i16) {
        if code == ErrorCode::None.code() {
            return;
        }
        // Codes are numbered without gaps from the first one on.
        let at = usize::try_from(code - ErrorCode::ALL[0].code()).unwrap_or_default();
        if let Some(counter) = self.api(api_key).errors.get(at) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection ended.
    pub fn closed(&self, reason: CloseReason) {
        if let Some(at) = CloseReason::ALL.iter().position(|known| *known == reason) {
            self.closed[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many connections ended for this reason.
    pub fn closed_for(&self, reason: CloseReason) -> u64 {
        let at = CloseReason::ALL.iter().position(|known| *known == reason);
        at.map_or(0, |at| self.closed[at].load(Ordering::Relaxed))
    }

    /// How often a limit was met.
    pub fn limit_hits(&self, limit: Limit) -> u64 {
        let at = Limit::ALL.iter().position(|(known, _)| *known == limit);
        at.map_or(0, |at| self.limits[at].load(Ordering::Relaxed))
    }

    /// Somebody ran into a limit.
    pub fn limit_hit(&self, limit: Limit) {
        if let Some(at) = Limit::ALL.iter().position(|(known, _)| *known == limit) {
            self.limits[at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_latencies_are_counted_where_they_belong() {
        let metrics = Metrics::default();
        metrics.answered(ApiKey::Fetch, Duration::from_micros(300));
        metrics.answered(ApiKey::Fetch, Duration::from_secs(60));
        for code in [ErrorCode::None, ErrorCode::UnknownServerError, ErrorCode::InvalidRecord] {
            metrics.error(ApiKey::Fetch, code.code());
        }
        metrics.error(ApiKey::Fetch, 20_000);
        let api = metrics.api(ApiKey::Fetch);
        assert_eq!(api.answered.load(Ordering::Relaxed), 2);
        assert_eq!(api.latency[2].load(Ordering::Relaxed), 1, "300 µs lie in (250, 500]");
        assert_eq!(api.latency[LATENCY_BUCKETS.len()].load(Ordering::Relaxed), 1);
        let counted: Vec<_> = ErrorCode::ALL
            .iter()
            .zip(&api.errors)
            .filter(|(_, count)| count.load(Ordering::Relaxed) > 0)
            .map(|(code, _)| *code)
            .collect();
        assert_eq!(counted, [ErrorCode::UnknownServerError, ErrorCode::InvalidRecord]);
    }
}

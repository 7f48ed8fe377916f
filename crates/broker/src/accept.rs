//! Accepting connections, as many as there may be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::connection::{self, Budgets, CloseReason, ConnectionLimits, Peer};
use crate::metrics::Limit;
use crate::router::Router;
use crate::settings::BrokerValues;
use crate::state::BrokerState;

/// After a failure to accept, most likely for want of file descriptors, there is nothing to do but wait for some.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What each connection gets.
pub(crate) struct Acceptor {
    state: Arc<BrokerState>,
    router: Arc<Router>,
    limits: ConnectionLimits,
    budgets: Budgets,
}

impl Acceptor {
    pub fn new(state: Arc<BrokerState>, values: &BrokerValues, budgets: Budgets) -> Self {
        let limits = ConnectionLimits {
            request_bytes_max: values.request_bytes_max,
            requests_in_flight_max: values.connection_requests_max,
            unread_response_bytes_max: values.connection_unread_bytes_max,
            idle_max: Duration::from_millis(values.idle_max_ms),
            slow_peer_max: Duration::from_millis(values.slow_max_ms),
        };
        Self { router: Arc::new(Router { state: state.clone() }), state, limits, budgets }
    }
}

/// Accepts until the broker shuts down, then waits for the connections to end. Cut when dropped.
pub(crate) async fn accept(listener: TcpListener, acceptor: Acceptor) {
    let mut connections = JoinSet::new();
    let mut shutting_down = std::pin::pin!(acceptor.state.shutting_down());
    loop {
        tokio::select! {
            () = &mut shutting_down => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    if let Some(connection) = acceptor.admit(stream, Peer { address }) {
                        connections.spawn(connection);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

impl Acceptor {
    /// The connection's task, unless there are too many already.
    fn admit(&self, stream: TcpStream, peer: Peer) -> Option<impl Future<Output = ()> + Send + use<>> {
        let metrics = self.state.metrics.clone();
        metrics.accepted.fetch_add(1, Ordering::Relaxed);
        if metrics.connections.load(Ordering::Relaxed) >= self.state.settings.values().connections_max {
            metrics.limit_hit(Limit::Connections);
            metrics.closed(CloseReason::TooManyConnections);
            tracing::debug!(peer = %peer.address, "connection refused: max.connections are open");
            return None;
        }
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        // Answers are small and awaited: they must not wait for more to send. Without it, all is just slower.
        let _ = stream.set_nodelay(true);
        let (router, budgets, shutdown) = (self.router.clone(), self.budgets.clone(), self.state.shutdown.clone());
        let limits = self.limits;
        Some(async move {
            let open = Open { metrics };
            let reason = connection::serve(router, stream, peer, limits, budgets, shutdown).await;
            open.metrics.closed(reason);
            tracing::debug!(peer = %peer.address, reason = reason.name(), "connection closed");
        })
    }
}

/// Counts a connection as open, also when its task is cut.
struct Open {
    metrics: Arc<crate::metrics::Metrics>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

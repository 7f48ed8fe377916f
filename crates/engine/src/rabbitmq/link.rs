//! Connections, and what their errors mean.

use std::sync::Arc;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};

use crate::EngineError;

/// How long one attempt to connect may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Waits between attempts: from, to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A connection that lasted for so long was a good one: the next attempt does not wait for the failures before it.
const STABLE: Duration = Duration::from_secs(10);
/// Seconds between heartbeats, unless the URI says otherwise: a peer that vanished without a word is noticed within twice that.
const HEARTBEAT_SECONDS: u16 = 10;
pub(super) const GOODBYE: u16 = 200;
/// How long RabbitMQ may take to answer one request. A leader of a queue is elected in less.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// Where to connect.
#[derive(Clone)]
pub(super) struct Address(Arc<AMQPUri>);

impl Address {
    pub(super) fn new(uri: &str) -> Result<Self, EngineError> {
        // The text may hold a password: it is not repeated.
        let mut parsed: AMQPUri = uri.parse().map_err(|error| {
            EngineError::Caller(format!(
                "the address of RabbitMQ is no AMQP URI (amqp://user:password@host:port/vhost): {error}"
            ))
        })?;
        parsed.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self(Arc::new(parsed)))
    }

    pub(super) async fn connect(&self, name: &str) -> Result<Connection, EngineError> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connecting = Connection::connect_uri((*self.0).clone(), properties);
        match tokio::time::timeout(CONNECT_WAIT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(engine_error("connecting to RabbitMQ", &error)),
            Err(_) => {
                let waited = CONNECT_WAIT.as_secs();
                Err(EngineError::Unavailable(format!("connecting to RabbitMQ: no answer in {waited} s")))
            }
        }
    }
}

/// Says goodbye. What was not settled is given to others at once.
pub(super) async fn close(connection: &Connection) {
    // A connection that cannot be closed is one that is gone.
    let _ = tokio::time::timeout(CLOSE_WAIT, connection.close(GOODBYE, "done".into())).await;
}

/// Says goodbye to a channel. `false` if that was not answered: then RabbitMQ still holds what it holds for it.
pub(super) async fn goodbye(channel: Channel) -> bool {
    if !channel.status().connected() {
        return true;
    }
    tokio::time::timeout(CLOSE_WAIT, channel.close(GOODBYE, "done".into())).await.is_ok()
}

/// A request that is answered in time, or [`EngineError::Unavailable`] with what was waited for.
pub(super) async fn answered<T>(
    doing: &str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(ANSWER_WAIT, request).await {
        Ok(answer) => answer.map_err(|error| engine_error(doing, &error)),
        Err(_) => {
            let waited = ANSWER_WAIT.as_secs();
            Err(EngineError::Unavailable(format!("{doing}: RabbitMQ did not answer in {waited} s")))
        }
    }
}

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(BACKOFF.1)
    }
}

impl Backoff {
    pub(super) fn up_to(max: Duration) -> Self {
        Self { next: BACKOFF.0, max }
    }

    /// A connection ended that lasted for so long.
    pub(super) fn lasted(&mut self, lasted: Duration) {
        if lasted >= STABLE {
            self.next = BACKOFF.0;
        }
    }

    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        wait
    }
}

/// A name that AMQP can carry.
pub(super) fn name(text: &str) -> Result<ShortString, EngineError> {
    ShortString::try_new(text.to_owned())
        .map_err(|_| EngineError::Caller(format!("the name {text:?} is longer than AMQP's 255 bytes")))
}

/// What RabbitMQ says, also as `NOT_FOUND`, of a queue that is there and does not serve yet: its node is starting or away.
const NOT_SERVING: &str = "is down or inaccessible";

/// Whose fault a failed request is.
pub(super) fn engine_error(doing: &str, error: &lapin::Error) -> EngineError {
    let text = format!("{doing}: {error}");
    let refused = match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => !error.get_message().as_str().ends_with(NOT_SERVING),
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED | AMQPSoftError::PRECONDITIONFAILED) => true,
            _ => false,
        },
        _ => false,
    };
    if refused { EngineError::Caller(text) } else { EngineError::Unavailable(text) }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn refused(soft: AMQPSoftError, text: &str) -> EngineError {
        let error = AMQPError::new(AMQPErrorKind::Soft(soft), ShortString::from(text));
        engine_error("asking", &ErrorKind::ProtocolError(error).into())
    }

    #[test]
    fn only_a_connection_that_lasted_makes_the_next_attempt_a_quick_one() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.next();
            backoff.lasted(Duration::from_millis(5));
        }
        assert_eq!(backoff.next(), BACKOFF.1);
        backoff.lasted(STABLE);
        assert_eq!(backoff.next(), BACKOFF.0);
    }

    #[test]
    fn a_queue_whose_node_is_starting_is_away_and_not_absent() {
        let starting = "NOT_FOUND - home node 'rabbit@host' of durable queue 'orders.partitions' in vhost '/' is down or inaccessible";
        assert!(matches!(refused(AMQPSoftError::NOTFOUND, starting), EngineError::Unavailable(_)));
        let absent = "NOT_FOUND - no queue 'orders.partitions' in vhost '/'";
        assert!(matches!(refused(AMQPSoftError::NOTFOUND, absent), EngineError::Caller(_)));
        let forbidden = "ACCESS_REFUSED - access to queue 'orders' in vhost '/' refused for user 'guest'";
        assert!(matches!(refused(AMQPSoftError::ACCESSREFUSED, forbidden), EngineError::Caller(_)));
    }
}

//! The relay: brings the rows of an outbox to the engine. See [`Relay`].

mod builder;
mod driver;
mod metrics;
mod sending;
mod topics;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_outbox::OutboxError;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use builder::{INFLIGHT_BYTES_MAX_DEFAULT, LEASE_DEFAULT, POLL_DEFAULT, RELAY_LINGER_MS_DEFAULT, RelayBuilder};
pub use metrics::{LATENCY_BOUNDS_MS, Latency, RelayMetrics};

/// A relay that runs: it finds the rows of an [`Outbox`](baton_outbox::Outbox) whose transactions have committed, and sends each as a message
/// under the id that it was written with.
///
/// ```no_run
/// # #[cfg(feature = "postgres")]
/// # async fn example(baton: baton::Baton) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
///
/// use baton::outbox::PostgresOutbox;
///
/// let outbox = PostgresOutbox::new("host=localhost user=relay dbname=shop".parse()?);
/// let relay = baton.relay(Arc::new(outbox)).start().await?;
/// // .. until the service ends:
/// relay.stop(std::time::Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # What is promised
///
/// - A committed row is sent, whatever crashes: relay, service, database, engine. It leaves the table only after the engine's durable
///   acknowledgement.
/// - Rows of a key reach the engine in the order in which they were written; see [`baton_outbox`] for what that is when transactions overlap.
/// - What comes twice comes under the same id and the same stamp: a guard lets it through once.
/// - A row that the engine refuses for good is parked with the reason. Its key waits until somebody has looked at it; all others go on.
///
/// Several relays share the work by leases. One that stands still for longer than its lease is replaced; when it wakes up it can write nothing,
/// and can only repeat what its successor has sent or is about to send before anything newer.
#[derive(Debug)]
pub struct Relay {
    commands: mpsc::Sender<Command>,
    driver: Option<JoinHandle<Result<(), RelayError>>>,
    board: RelayBoard,
}

/// Where a relay shows how it does. Cheap to clone; stays when the relay has ended.
#[derive(Debug, Clone, Default)]
pub struct RelayBoard(Arc<Mutex<RelayMetrics>>);

impl RelayBoard {
    /// How it does.
    pub fn metrics(&self) -> RelayMetrics {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, metrics: &RelayMetrics) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(metrics);
    }
}

/// What a relay is told.
#[derive(Debug)]
enum Command {
    /// Take nothing more; end when what is with the engine has ended, or the time is over.
    Stop(Duration),
}

/// A relay does not start, or cannot go on.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] baton_engine::EngineError),
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The system gives no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The relay has ended by itself; the log says why.
    #[error("the relay has ended by itself; its log says why")]
    Ended,
}

impl Relay {
    /// How it does.
    pub fn metrics(&self) -> RelayMetrics {
        self.board.metrics()
    }

    /// For who shows it while the relay runs.
    pub fn board(&self) -> RelayBoard {
        self.board.clone()
    }

    /// Takes no more rows, waits until those that the engine has have ended, at most for so long, and gives its shards to others. What has
    /// not ended stays claimed, and is sent again by who takes over.
    ///
    /// # Errors
    /// When the relay had ended before.
    pub async fn stop(mut self, wait: Duration) -> Result<(), RelayError> {
        _ = self.commands.send(Command::Stop(wait)).await;
        self.ended().await
    }

    /// Waits until the relay ends by itself: when its tables are not there, or are of a version that it does not know.
    ///
    /// # Errors
    /// Why it did.
    pub async fn ended(&mut self) -> Result<(), RelayError> {
        match self.driver.as_mut() {
            Some(driver) => {
                let ended = driver.await;
                self.driver = None;
                ended.unwrap_or(Err(RelayError::Ended))
            }
            None => Err(RelayError::Ended),
        }
    }
}

/// Without [`Relay::stop`] nothing is waited for: its leases run out.
impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

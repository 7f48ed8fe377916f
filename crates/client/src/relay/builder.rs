//! How a relay is set up.

use std::sync::Arc;
use std::time::Duration;

use baton_core::relay::{Limits, ROWS_BYTES_MAX_DEFAULT};
use baton_core::stamp::Instance;
use baton_engine::{Engine, ProducerOptions};
use baton_outbox::{Lease, OutboxStore};
use tokio::sync::mpsc;

use super::driver::{Driver, Options, Parts};
use super::{Relay, RelayBoard, RelayError};
use crate::Baton;
use crate::producer::evidence;
use crate::producer::random::Random;

/// How long a lease lasts: after so long a relay that died is replaced.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(10);
/// How often a relay looks at a database that does not wake it, and how long it sleeps at most where one does.
pub const POLL_DEFAULT: Duration = Duration::from_millis(500);
/// How long the engine's client waits for more to send together, in milliseconds: rows come in batches already.
pub const RELAY_LINGER_MS_DEFAULT: u64 = 0;
/// Bytes of rows in memory; see [`ROWS_BYTES_MAX_DEFAULT`].
pub const INFLIGHT_BYTES_MAX_DEFAULT: usize = ROWS_BYTES_MAX_DEFAULT;
/// With fewer rows at a time partitions have no room beside each other.
const ROWS_MAX_MIN: usize = 16;
/// The engine's client never gives a message up by itself: if it did, later ones could go before it.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);
/// Shortest lease: three renewals must fit in, on a database that is busy.
const LEASE_MIN: Duration = Duration::from_millis(300);

/// Sets a relay up; see [`Relay`].
#[must_use = "nothing is sent before this is started"]
pub struct RelayBuilder {
    engine: Arc<dyn Engine>,
    store: Arc<dyn OutboxStore>,
    member: Option<String>,
    lease: Duration,
    poll: Duration,
    limits: Limits,
    linger_ms: u64,
    keep_done: Option<Duration>,
    evidence: bool,
    settings: Vec<(String, String)>,
}

impl Baton {
    /// Sets up a relay from an outbox to this engine.
    pub fn relay(&self, store: Arc<dyn OutboxStore>) -> RelayBuilder {
        RelayBuilder {
            engine: Arc::clone(self.engine()),
            store,
            member: None,
            lease: LEASE_DEFAULT,
            poll: POLL_DEFAULT,
            limits: Limits::default(),
            linger_ms: RELAY_LINGER_MS_DEFAULT,
            keep_done: None,
            evidence: true,
            settings: Vec::new(),
        }
    }
}

impl RelayBuilder {
    /// The name of this relay among those that share the outbox; no two may have the same one. One is made if none is given.
    pub fn member(mut self, name: impl Into<String>) -> Self {
        self.member = Some(name.into());
        self
    }

    /// How long a lease lasts; see [`LEASE_DEFAULT`].
    pub fn lease(mut self, lasts: Duration) -> Self {
        self.lease = lasts;
        self
    }

    /// See [`POLL_DEFAULT`].
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every;
        self
    }

    /// Rows that are worked on at a time (8,192).
    pub fn rows_max(mut self, rows: usize) -> Self {
        self.limits.rows_max = rows;
        self
    }

    /// Bytes of rows in memory; see [`INFLIGHT_BYTES_MAX_DEFAULT`]. One row at least is always taken.
    pub fn inflight_bytes_max(mut self, bytes: usize) -> Self {
        self.limits.bytes_max = bytes;
        self
    }

    /// See [`RELAY_LINGER_MS_DEFAULT`].
    pub fn linger_ms(mut self, linger_ms: u64) -> Self {
        self.linger_ms = linger_ms;
        self
    }

    /// Keeps rows for so long after they were sent, so that they can be sent again; costs a second write for each. Without this they are
    /// deleted when the engine has them.
    pub fn keep_done(mut self, kept: Duration) -> Self {
        self.keep_done = Some(kept);
        self
    }

    /// Whether numbers that were claimed and acknowledged are reported to `baton.evidence` (they are).
    pub fn evidence(mut self, on: bool) -> Self {
        self.evidence = on;
        self
    }

    /// A property of the engine's own client.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When a setting makes no sense, the outbox's tables are not there, or the engine's client refuses its properties. Databases and engines
    /// that are away are waited for, except that the database has to be there once, now.
    pub async fn start(self) -> Result<Relay, RelayError> {
        if self.lease < LEASE_MIN {
            return Err(RelayError::Setting(format!("a lease lasts {LEASE_MIN:?} at least, not {:?}", self.lease)));
        }
        if self.limits.rows_max < ROWS_MAX_MIN || self.limits.bytes_max == 0 || self.poll.is_zero() {
            let wrong = format!("rows_max is {ROWS_MAX_MIN} at least, and neither inflight_bytes_max nor poll is 0");
            return Err(RelayError::Setting(wrong));
        }
        let name = self.store.name().await?;
        // A name that is too long for an instance was given by hand.
        let instance = Instance::new(name).map_err(|error| RelayError::Setting(error.to_string()))?;
        let mut random = Random::new()?;
        let member = self.member.unwrap_or_else(|| format!("relay-{:016x}", random.u64()));
        let options = ProducerOptions {
            client_id: format!("baton-relay-{member}"),
            linger_ms: self.linger_ms,
            delivery_timeout: DELIVERY_TIMEOUT,
            settings: self.settings,
        };
        let producer = self.engine.producer(options).await?;
        let (reported, reports) = mpsc::unbounded_channel();
        let evidence = self.evidence.then(|| {
            let told = move |reports| _ = reported.send(reports);
            let through = evidence::Through::Shared(Arc::clone(&producer));
            (evidence::start(Arc::clone(&self.engine), through, evidence::warn, told), reports)
        });
        let board = RelayBoard::default();
        let options = Options {
            lease: Lease { member, lasts: self.lease },
            poll: self.poll,
            limits: self.limits,
            keep_done: self.keep_done,
            instance,
        };
        let (store, shown) = (self.store, board.clone());
        let driver =
            Driver::new(options, Parts { engine: self.engine, producer, store, evidence, random, board: shown });
        let (commands, received) = mpsc::channel(1);
        let driver = tokio::spawn(driver.run(received));
        Ok(Relay { commands, driver: Some(driver), board })
    }
}

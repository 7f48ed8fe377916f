//! A local log for messages that the engine is not there to take.

mod desk;
mod store;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_core::SpoolOptions;

use super::clock::whole_ms;

pub(super) use desk::{Desk, Written};
pub(super) use store::{Kept, Store};

/// While the engine is away, messages go to a log in a folder of this machine, and from there to the engine when it is back: in their
/// order, under their stamps. See `docs/PRODUCER.md`.
///
/// ```no_run
/// # async fn example(baton: baton::Baton) -> Result<(), Box<dyn std::error::Error>> {
/// use baton::Spool;
///
/// let producer = baton.producer("orders-svc").spool(Spool::at("/var/lib/orders/spool").bytes_max(4 << 30)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Spool {
    pub(super) path: PathBuf,
    pub(super) options: SpoolOptions,
}

impl Spool {
    /// In this folder, which is made if it is not there. One producer at a time may have it.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), options: SpoolOptions::default() }
    }

    /// Bytes of messages that it holds; 1 GiB. A message for which there is no room is refused, and was stored nowhere.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.options.bytes_max = bytes;
        self
    }

    /// After how long without any acknowledgement, while messages are with it, the engine counts as away; 3 seconds.
    #[must_use]
    pub fn away_after(mut self, time: Duration) -> Self {
        self.options.away_after_ms = whole_ms(time).max(1);
        self
    }
}

/// What a spool holds, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// Messages that wait for the engine.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many bytes there may be.
    pub bytes_max: u64,
    /// How long the oldest of them has waited, as far as it is known: those that an earlier process left behind are known once they were
    /// read.
    pub oldest: Option<Duration>,
    /// Whether the engine counts as away.
    pub engine_away: bool,
    /// What the engine said last of a message of the spool that it did not take. It is tried again until it does.
    pub blocked: Option<String>,
    /// Messages whose bytes were damaged on the disk: they are lost, and named in the log.
    pub damaged: u64,
}

/// The state as the driver saw it last, for those who look, and when that was.
#[derive(Default)]
pub(super) struct Shown(Mutex<Option<(SpoolState, u64)>>);

impl Shown {
    pub(super) fn show(&self, state: SpoolState, now_ms: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((state, now_ms));
    }

    pub(super) fn state(&self, now_ms: u64) -> Option<SpoolState> {
        let (mut state, seen_ms) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let since = Duration::from_millis(now_ms.saturating_sub(seen_ms));
        state.oldest = state.oldest.map(|oldest| oldest.saturating_add(since));
        Some(state)
    }
}

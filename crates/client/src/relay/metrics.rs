//! What a relay counts.

use std::time::Duration;

/// Upper bounds of [`Latency`], in milliseconds.
pub const LATENCY_BOUNDS_MS: [u64; 14] = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000, 300_000];

/// How long it took from when a row was written until the engine had acknowledged it. The row is written some time before its transaction
/// commits, so that this is never less than what counts from the commit on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many took at most as long as the bound of the same place, and longer than the one before; the last: longer than all.
    pub counts: [u64; LATENCY_BOUNDS_MS.len() + 1],
    /// Of all of them together.
    pub sum_ms: u64,
}

impl Latency {
    pub(super) fn add(&mut self, took_ms: u64) {
        let at = LATENCY_BOUNDS_MS.partition_point(|bound| *bound < took_ms);
        self.counts[at] += 1;
        self.sum_ms = self.sum_ms.saturating_add(took_ms);
    }

    /// The bound below which this share of all lies, `None` if it lies above all bounds or there are none yet.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.counts.iter().sum();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let wanted = ((total as f64) * share).ceil() as u64;
        let mut below = 0;
        for (count, bound) in self.counts.iter().zip(LATENCY_BOUNDS_MS) {
            below += count;
            if total > 0 && below >= wanted {
                return Some(Duration::from_millis(bound));
            }
        }
        None
    }
}

/// What a relay has done, and what it holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayMetrics {
    /// Rows that the engine has acknowledged.
    pub acknowledged: u64,
    /// Rows that another relay had claimed and this one has sent again.
    pub resumed: u64,
    /// Rows that were parked.
    pub parked: u64,
    /// Times that shards were found to be somebody else's.
    pub fenced: u64,
    /// Errors of the database, all of them passed over so far.
    pub database_errors: u64,
    /// Shards that are ours.
    pub shards: usize,
    /// Rows in memory: found, claimed, or with the engine.
    pub held: usize,
    /// Rows that the engine has.
    pub in_flight: usize,
    /// Keys that wait behind a parked row.
    pub parked_keys: usize,
    /// From when a row was written until it was acknowledged.
    pub latency: Latency,
}

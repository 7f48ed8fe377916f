//! A clock that stands still until it is told to move.

use std::sync::atomic::{AtomicI64, Ordering};

use baton_log::Clock;

/// Tells the time that was set. May be moved forward and back.
#[derive(Debug)]
pub struct SimClock {
    now_ms: AtomicI64,
}

impl SimClock {
    /// A clock that shows `now_ms`, in milliseconds since 1970.
    pub fn new(now_ms: i64) -> Self {
        Self { now_ms: AtomicI64::new(now_ms) }
    }

    /// Moves the clock by `by_ms` milliseconds, back where negative.
    pub fn advance(&self, by_ms: i64) {
        self.now_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }
}

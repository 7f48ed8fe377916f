//! The time of a producer: milliseconds since 1970 that never go back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock as it was at the start, going on evenly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    began_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), began_ms: wall_ms() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.began_ms.saturating_add(whole_ms(self.began.elapsed()))
    }

    /// When it will be that time; a moment ago at the earliest.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        let since = Duration::from_millis(at_ms.saturating_sub(self.began_ms));
        // Further away than a clock can say: in a year somebody looks again.
        self.began.checked_add(since).unwrap_or_else(|| Instant::now() + Duration::from_secs(365 * 24 * 60 * 60))
    }
}

/// The wall clock, in milliseconds since 1970; 0 before that.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, whole_ms)
}

pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

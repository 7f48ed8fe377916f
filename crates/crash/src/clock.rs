//! The clock of a run.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds on a clock that all processes of the machine share, and that nobody sets.
pub fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Since the machine started, so neither is below zero.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

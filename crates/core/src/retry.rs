//! When to try again, of sends and of handlers alike.

use std::time::Duration;

/// Attempts in all, the first one included, unless told otherwise: with the delays of [`Retry::default`] that is a minute on average.
pub const ATTEMPTS_MAX_DEFAULT: u32 = 16;
/// Longest delay that can be asked for. Who wants to wait longer wants a schedule, not a retry.
pub const DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Exponential backoff with full jitter: the delay after the n-th failure is anything between nothing and `first * factor^(n-1)`, or
/// `max` if that is less. Those who failed together do not come back together.
///
/// ```
/// use std::time::Duration;
/// use baton_core::Retry;
///
/// let retry = Retry::exponential(Duration::from_millis(100), 2, Duration::from_secs(5)).max_attempts(8);
/// assert_eq!(retry.bound(3), Duration::from_millis(400));
/// assert!(retry.delay(3, u64::MAX / 2, None).is_some_and(|delay| delay < Duration::from_millis(400)));
/// assert_eq!(retry.delay(8, 0, None), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    first: Duration,
    factor: u32,
    max: Duration,
    attempts_max: u32,
}

impl Retry {
    /// Delays that begin below `first` and grow by `factor` up to `max`, which is at most [`DELAY_MAX`]. A factor of 0 counts as 1: delays
    /// never shrink.
    #[must_use]
    pub fn exponential(first: Duration, factor: u32, max: Duration) -> Self {
        let max = max.min(DELAY_MAX);
        Self { first: first.min(max), factor: factor.max(1), max, attempts_max: ATTEMPTS_MAX_DEFAULT }
    }

    /// Sets how many attempts there are in all, the first one included. 0 counts as 1: one attempt was made when somebody asks.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts.max(1);
        self
    }

    /// How many attempts there are in all.
    pub fn attempts_max(&self) -> u32 {
        self.attempts_max
    }

    /// What the delay after so many failures stays below; never less than after one failure fewer.
    pub fn bound(&self, failures: u32) -> Duration {
        let growth = self.factor.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.checked_mul(growth).map_or(self.max, |bound| bound.min(self.max))
    }

    /// How long to wait after so many failures, or `None`: give up. `remaining` is the time until the deadline, if there is one: the delay
    /// ends before it, so that the attempt it was waited for can still be made. `random` is any number, all of them equally likely.
    pub fn delay(&self, failures: u32, random: u64, remaining: Option<Duration>) -> Option<Duration> {
        if failures >= self.attempts_max || remaining.is_some_and(|remaining| remaining.is_zero()) {
            return None;
        }
        let bound = remaining.map_or(self.bound(failures), |remaining| self.bound(failures).min(remaining));
        // Both factors fit in 64 bits, since a bound is no longer than a day; so does what is left.
        let nanoseconds = (bound.as_nanos() * u128::from(random)) >> 64;
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

impl Default for Retry {
    /// From 100 ms to 10 s, doubling, [`ATTEMPTS_MAX_DEFAULT`] times.
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100), 2, Duration::from_secs(10))
    }
}

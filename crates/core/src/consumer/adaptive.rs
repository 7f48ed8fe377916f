//! How many handlers may run at once: as many as the dependencies behind them carry.
//!
//! Additive increase, multiplicative decrease, on latency. What a call takes when little runs is measured at the lower bound, first
//! and again from time to time. As long as handlers take about as long as that, the limit grows by one for each window of results;
//! when they take a multiple of it, what they call is queueing, and the limit shrinks by a tenth.

use super::settings::AdaptiveSettings;

/// Results that make one window, at least; as many as the limit if that is more, so that each handler is heard once.
const WINDOW_RESULTS_MIN: u64 = 16;
/// What is left of the limit when latency says that it is too high.
const SHRINK: f64 = 0.9;
/// Windows until latency is measured again at the lower bound: what it costs stays around two per cent, and a dependency that
/// became slower, or faster, for good is known after minutes.
const WINDOWS_PER_MEASURE: u32 = 200;

/// A limit of concurrency that adapts.
#[derive(Debug, Clone)]
pub struct Adaptive {
    settings: AdaptiveSettings,
    limit: f64,
    /// Mean latency at the lower bound.
    baseline_ms: f64,
    /// Results to be passed over until those that began at a higher limit are gone; `None` unless it is being measured.
    measuring: Option<u32>,
    windows: u32,
    results: u64,
    latency_sum_ms: u64,
    /// Whether the limit was what held handlers back in this window: a limit that nobody reaches must not grow.
    reached: bool,
}

impl Adaptive {
    /// Begins at the lower bound.
    pub fn new(settings: AdaptiveSettings) -> Self {
        Self {
            limit: f64::from(settings.handlers_min),
            settings,
            baseline_ms: 1.0,
            measuring: Some(0),
            windows: 0,
            results: 0,
            latency_sum_ms: 0,
            reached: false,
        }
    }

    /// How many handlers may run now.
    pub fn limit(&self) -> usize {
        match self.measuring {
            Some(_) => self.settings.handlers_min as usize,
            // Between 1 and a u32: see `AdaptiveSettings::handlers_max`.
            None => self.limit as usize,
        }
    }

    /// A handler ended after so long, while so many ran, itself included.
    pub fn ended(&mut self, latency_ms: u64, running: usize) {
        if let Some(pass_over) = &mut self.measuring {
            if running > self.settings.handlers_min as usize {
                return;
            }
            if *pass_over > 0 {
                *pass_over -= 1;
                return;
            }
        }
        self.results += 1;
        self.latency_sum_ms = self.latency_sum_ms.saturating_add(latency_ms);
        self.reached |= running >= self.limit();
        if self.results < WINDOW_RESULTS_MIN.max(self.limit() as u64) {
            return;
        }
        // One millisecond is the finest that the clock tells; below it everything is equally fast.
        let mean_ms = (self.latency_sum_ms as f64 / self.results as f64).max(1.0);
        self.windows += 1;
        if self.measuring.take().is_some() {
            self.baseline_ms = mean_ms;
            self.windows = 0;
        } else if mean_ms > self.baseline_ms * self.settings.latency_ratio_max {
            self.limit = (self.limit * SHRINK).max(f64::from(self.settings.handlers_min));
        } else if self.reached {
            self.limit = (self.limit + 1.0).min(f64::from(self.settings.handlers_max));
        }
        if self.windows >= WINDOWS_PER_MEASURE {
            self.measuring = Some(self.settings.handlers_min);
        }
        (self.results, self.latency_sum_ms, self.reached) = (0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(capacity: usize) -> usize {
        let mut adaptive =
            Adaptive::new(AdaptiveSettings { handlers_min: 2, handlers_max: 512, latency_ratio_max: 2.0 });
        for _ in 0..200_000 {
            let running = adaptive.limit();
            // A server with so many workers: who comes beyond them waits.
            let latency_ms = 10 * running.div_ceil(capacity) as u64;
            adaptive.ended(latency_ms, running);
        }
        adaptive.limit()
    }

    #[test]
    fn the_limit_finds_what_the_dependency_carries() {
        for capacity in [8, 64] {
            let limit = settled(capacity);
            assert!((capacity..=capacity * 3).contains(&limit), "{limit} for {capacity} workers");
        }
    }

    #[test]
    fn a_limit_that_is_not_reached_does_not_grow() {
        let mut adaptive = Adaptive::new(AdaptiveSettings::default());
        let before = adaptive.limit();
        for _ in 0..10_000 {
            adaptive.ended(5, 1);
        }
        assert_eq!(adaptive.limit(), before);
    }
}

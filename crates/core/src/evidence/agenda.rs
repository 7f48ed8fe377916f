//! When a report is due, and how much waits to be reported: of producers and of consumers.

use std::ops::RangeInclusive;

use crate::Ranges;

/// How many intervals may wait to be reported, over all sequences: 48 bytes or more each. Messages that end in order take one.
pub const UNREPORTED_INTERVALS_MAX: usize = 1_000_000;
/// A report is due this long after the first change that is not reported, in milliseconds.
pub const REPORT_INTERVAL_MS: u64 = 1_000;
/// A report is due after so many messages ended.
pub const REPORT_MESSAGES: u64 = 10_000;

/// When the next report is due, and how many intervals wait for it.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    intervals: usize,
    ended: u64,
    due_ms: Option<u64>,
}

impl Agenda {
    /// When a report is due, if anything has changed; 0: now.
    pub fn due_ms(&self) -> Option<u64> {
        if self.ended >= REPORT_MESSAGES { Some(0) } else { self.due_ms }
    }

    /// How many intervals wait.
    pub fn intervals(&self) -> usize {
        self.intervals
    }

    /// There is something to report.
    pub fn changed(&mut self, now_ms: u64) {
        self.due_ms.get_or_insert(now_ms.saturating_add(REPORT_INTERVAL_MS));
    }

    /// A message ended.
    pub fn ended(&mut self) {
        self.ended += 1;
    }

    /// What there is to report is not to wait any longer.
    pub fn hurry(&mut self) {
        self.due_ms = self.due_ms.map(|_| 0);
    }

    /// Adds numbers to a set that waits; says how many are new.
    pub fn insert(&mut self, set: &mut Ranges, numbers: RangeInclusive<u64>) -> u64 {
        let before = set.intervals();
        let new = set.insert_range(numbers);
        // One more, fewer where they meet others, or as many as before.
        self.intervals = self.intervals + set.intervals() - before;
        new
    }

    /// What waits takes so many intervals now, and took so many before.
    pub fn merged(&mut self, intervals: usize, before: usize) {
        self.intervals = self.intervals + intervals - before;
    }

    /// All that has changed goes into reports.
    pub fn begin(&mut self) {
        (self.ended, self.due_ms) = (0, None);
    }

    /// So many intervals went into reports.
    pub fn took(&mut self, intervals: usize) {
        self.intervals -= intervals;
    }
}

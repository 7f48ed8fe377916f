//! Whether what the handlers need is there.
//!
//! It is away when a handler says so, or when many different keys fail alike within a window, and more fail than succeed. Then one
//! message is tried at a time, with backoff, until one goes well.

use std::collections::VecDeque;
use std::sync::Arc;

use super::settings::{DependencySettings, pause_ms};
use super::types::{Failure, RunId};

/// Failures that are looked at, as a multiple of those that are enough: room for several causes at once.
const FAILURES_KEPT_FACTOR: usize = 4;

#[derive(Debug)]
pub(super) struct Dependency {
    settings: DependencySettings,
    state: State,
    /// When, what, whose. One key occurs once, with its latest failure.
    failures: VecDeque<(u64, Arc<str>, u64)>,
}

#[derive(Debug)]
enum State {
    Up,
    Down { since_ms: u64, told: bool, probe: Option<RunId>, probe_at_ms: u64, probes_failed: u32 },
}

impl Dependency {
    pub fn new(settings: DependencySettings) -> Self {
        Self { settings, state: State::Up, failures: VecDeque::new() }
    }

    /// Since when it is down.
    pub fn down_since_ms(&self) -> Option<u64> {
        match self.state {
            State::Up => None,
            State::Down { since_ms, .. } => Some(since_ms),
        }
    }

    /// Whether a handler may be started; while it is down, this one would be the probe.
    pub fn may_start(&self, now_ms: u64) -> bool {
        match self.state {
            State::Up => true,
            State::Down { probe, probe_at_ms, .. } => probe.is_none() && now_ms >= probe_at_ms,
        }
    }

    /// When the next probe may start.
    pub fn probe_at_ms(&self) -> Option<u64> {
        match self.state {
            State::Down { probe: None, probe_at_ms, .. } => Some(probe_at_ms),
            _ => None,
        }
    }

    /// A handler starts; says whether it is the probe.
    pub fn started(&mut self, run: RunId) -> bool {
        match &mut self.state {
            State::Down { probe: probe @ None, .. } => {
                *probe = Some(run);
                true
            }
            _ => false,
        }
    }

    /// Whether a transient failure counts as an attempt. While a handler says that the dependency is down, none does. If that was
    /// only concluded, the probe's does: else messages that fail for themselves, and happened to fail together, would be probed
    /// for ever.
    pub fn counts_attempt(&self, is_probe: bool) -> bool {
        match self.state {
            State::Up => true,
            State::Down { told, .. } => is_probe && !told,
        }
    }

    /// A handler says that it is down. Says whether that is news.
    pub fn told_down(&mut self, now_ms: u64, random: u64) -> bool {
        if let State::Down { told, .. } = &mut self.state {
            *told = true;
            return false;
        }
        self.go_down(true, now_ms, random);
        true
    }

    fn go_down(&mut self, told: bool, now_ms: u64, random: u64) {
        let probe_at_ms = now_ms.saturating_add(pause_ms(&self.settings.probe, 1, random));
        self.state = State::Down { since_ms: now_ms, told, probe: None, probe_at_ms, probes_failed: 0 };
        self.failures.clear();
    }

    /// A key failed. Says whether it is concluded that the dependency is down.
    pub fn failed(&mut self, failure: &Failure, key_hash: u64, now_ms: u64, random: u64) -> bool {
        if !matches!(self.state, State::Up) {
            return false;
        }
        let since_ms = now_ms.saturating_sub(self.settings.alike_window_ms);
        self.failures.retain(|(at_ms, _, key)| *at_ms >= since_ms && *key != key_hash);
        if self.failures.len() >= self.settings.alike_keys_min.saturating_mul(FAILURES_KEPT_FACTOR) {
            self.failures.pop_front();
        }
        self.failures.push_back((now_ms, failure.source.clone(), key_hash));
        let alike = self.failures.iter().filter(|(_, source, _)| *source == failure.source).count();
        if alike < self.settings.alike_keys_min {
            return false;
        }
        self.go_down(false, now_ms, random);
        true
    }

    /// A message went well: it weighs against one that failed.
    pub fn succeeded(&mut self) {
        self.failures.pop_front();
    }

    /// A handler ended. If it was the probe: whether that went well. Says whether the dependency is up again by it.
    pub fn ended(&mut self, run: RunId, well: bool, now_ms: u64, random: u64) -> bool {
        let State::Down { probe, probe_at_ms, probes_failed, .. } = &mut self.state else {
            return false;
        };
        if *probe != Some(run) {
            return false;
        }
        if well {
            self.state = State::Up;
            return true;
        }
        *probe = None;
        *probes_failed = probes_failed.saturating_add(1);
        *probe_at_ms = now_ms.saturating_add(pause_ms(&self.settings.probe, *probes_failed, random));
        false
    }
}

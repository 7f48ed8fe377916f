use std::collections::{BTreeMap, VecDeque};

use super::State;
use crate::TopicPartition;

/// The messages of one partition that have not ended, except for those that the engine has.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: TopicPartition,
    /// Those that were never handed over, in the order in which they were accepted.
    pub(super) queued: VecDeque<usize>,
    /// Those that are to be handed over again, and when; by number, which is the order of acceptance. All of them come before all that are
    /// queued.
    pub(super) waiting: BTreeMap<(u64, usize), u64>,
    /// How many the engine has.
    pub(super) in_flight: u32,
    /// How many it may have.
    pub(super) window: u32,
    pub(super) turn: Turn,
    /// Where its sequence was when a number was allotted last.
    pub(super) sequence: Option<usize>,
}

/// When a lane can hand a message over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Not before something of it ends or comes.
    None,
    /// Now.
    Ready,
    /// From then on.
    At(u64),
}

impl Lane {
    pub(super) fn new(partition: TopicPartition, window: u32) -> Self {
        let (queued, waiting) = (VecDeque::new(), BTreeMap::new());
        Self { partition, queued, waiting, in_flight: 0, window: window.max(1), turn: Turn::None, sequence: None }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.waiting.is_empty() && self.in_flight == 0 && self.turn == Turn::None
    }

    pub(super) fn wanted(&self, now_ms: u64) -> Turn {
        if self.in_flight >= self.window {
            return Turn::None;
        }
        // Nothing may overtake the first one that waits, not even another one that waits and would be due.
        match self.waiting.first_key_value() {
            Some((_, due_ms)) if *due_ms > now_ms => Turn::At(*due_ms),
            Some(_) => Turn::Ready,
            None if self.queued.is_empty() => Turn::None,
            None => Turn::Ready,
        }
    }

    /// Takes the message out that is to be handed over now.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<usize> {
        if self.wanted(now_ms) != Turn::Ready {
            return None;
        }
        match self.waiting.pop_first() {
            Some(((_, slot), _)) => Some(slot),
            None => self.queued.pop_front(),
        }
    }

    /// A message of it was acknowledged. That of one which was handed over before the window became narrow says nothing.
    pub(super) fn widen(&mut self, window_max: u32) {
        if self.in_flight < self.window {
            self.window = self.window.saturating_mul(2).min(window_max.max(1));
        }
    }

    /// A message of it has ended.
    pub(super) fn forget(&mut self, state: State, slot: usize, number: u64) {
        match state {
            State::InFlight => self.in_flight -= 1,
            State::Waiting => {
                self.waiting.remove(&(number, slot));
            }
            // The oldest come to their deadline first; one that was just taken out is not there any more.
            State::Queued => {
                if let Some(at) = self.queued.iter().position(|queued| *queued == slot) {
                    self.queued.remove(at);
                }
            }
        }
    }
}

//! A partition while it is ours.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::frontier::Frontier;
use super::lanes::{KeyMap, Keys, LaneId, SeededHash};
use super::parking::ParkedKey;
use super::types::{Ticket, Waiting};
use crate::{Delivery, TopicPartition};

/// Whether a partition stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is ours.
    Owned,
    /// It is to be given up: what runs may finish until then.
    Draining { until_ms: u64, release: bool },
    /// Nothing is handled any more; what is done is settled until then.
    Closing { until_ms: u64, release: bool },
}

/// One assignment of a partition.
#[derive(Debug)]
pub(super) struct Tenure {
    pub partition: TopicPartition,
    pub epoch: u64,
    pub phase: Phase,
    pub frontier: Frontier<LaneId>,
    pub keys: Keys,
    /// The one lane, where order does not go by keys.
    pub sole: Option<LaneId>,
    pub ready: VecDeque<LaneId>,
    /// Whether it is among those that take turns.
    pub in_turn: bool,
    /// Messages as they came, which nobody looked at yet.
    pub later: VecDeque<Later>,
    /// Whether it is among those that have such messages.
    pub has_later: bool,
    pub held_messages: usize,
    pub held_bytes: usize,
    /// Lanes for which something outside has to answer.
    pub active: usize,
    pub paused: bool,
    pub settle: Settle,
    pub parked: KeyMap<ParkedKey>,
    /// Messages of these keys in the store, or on their way there.
    pub parked_messages: usize,
    /// Whether it was reported that there is no room for more of them.
    pub parking_full: bool,
    /// Lanes that wait until fewer keys or messages are parked.
    pub wait_for_room: VecDeque<LaneId>,
    /// When the next message of a released key may be handled.
    pub release_next_ms: u64,
    pub watch: Watch,
}

/// A message that nobody looked at yet.
#[derive(Debug)]
pub(super) struct Later {
    /// Where it will be until it is handled: it is moved about no more.
    pub delivery: Arc<Delivery>,
    pub bytes: usize,
    pub arrived_ms: u64,
}

/// What is still to be settled.
#[derive(Debug, Default)]
pub(super) struct Settle {
    /// Something was done since the last settlement was made.
    pub changed: bool,
    /// In the list of those that have something to settle.
    pub listed: bool,
    /// A settlement is unanswered.
    pub outstanding: bool,
    /// The frontier and metadata that the engine was told last: the same again would be a write for nothing.
    pub told: Option<(i64, String)>,
    /// [`super::Settling::Each`]: done, and not settled yet.
    pub done: Vec<i64>,
    /// [`super::Settling::Each`]: to be given back.
    pub give_back: Vec<i64>,
    /// Names the set in the side store; 0 before there is one.
    pub lineage: u64,
    /// Whether a set of this lineage is stored.
    pub stored: bool,
    /// The set that is on its way there.
    pub storing: Option<Ticket>,
}

/// What the watchdog knows.
#[derive(Debug)]
pub(super) struct Watch {
    /// When something was finished, or work came after there was none.
    pub progress_ms: u64,
    /// When it was reported that nothing goes on.
    pub reported_ms: u64,
    /// When something was delivered, or it became known that there is something to deliver.
    pub delivered_ms: u64,
    /// What the engine has, if the shell says.
    pub backlog: Option<Known>,
    /// How often the engine was urged since it delivered last.
    pub urged: u32,
    /// How often the group was left because of this partition since it delivered last.
    pub rejoined: u32,
}

/// What the engine said that it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub waiting: Waiting,
    /// Whether nothing but messages that can be delivered was counted, and nothing was delivered since.
    pub exact: bool,
    pub asked_ms: u64,
}

impl Tenure {
    pub fn new(partition: TopicPartition, epoch: u64, frontier: Frontier<LaneId>, seed: u64, now_ms: u64) -> Self {
        Self {
            partition,
            epoch,
            phase: Phase::Owned,
            frontier,
            keys: Keys::default(),
            sole: None,
            ready: VecDeque::new(),
            in_turn: false,
            later: VecDeque::new(),
            has_later: false,
            held_messages: 0,
            held_bytes: 0,
            active: 0,
            paused: false,
            settle: Settle::default(),
            parked: HashMap::with_hasher(SeededHash(seed)),
            parked_messages: 0,
            parking_full: false,
            wait_for_room: VecDeque::new(),
            release_next_ms: 0,
            watch: Watch {
                progress_ms: now_ms,
                reported_ms: now_ms,
                delivered_ms: now_ms,
                backlog: None,
                urged: 0,
                rejoined: 0,
            },
        }
    }
    /// Where the engine goes on.
    pub fn delivered_next(&self) -> Option<i64> {
        let last = self.later.back().map(|later| later.delivery.offset.saturating_add(1));
        last.or_else(|| self.frontier.delivered_next())
    }
}

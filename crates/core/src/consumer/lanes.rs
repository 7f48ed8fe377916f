//! Lanes: messages that wait for each other, because they have the same key, or because the order says so.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;

use super::arena::{Arena, Id};
use super::types::{Failure, FailureClass, RunId, Ticket};
use crate::Delivery;

/// A lane. Never used twice, so that whoever comes late finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(Id);

/// A partition in one assignment. Never used twice: an assignment that is gone cannot be taken for the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TenureId(Id);

macro_rules! ids {
    ($($name:ty),*) => {$(
        impl From<Id> for $name {
            fn from(id: Id) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Id {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}

ids!(LaneId, TenureId, RunId);

pub(super) type Lanes = Arena<LaneId, Lane>;

/// What is to happen to a message next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Handle,
    DeadLetter(Box<(FailureClass, Failure)>),
    Park,
}

/// A message that is unfinished.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub delivery: Arc<Delivery>,
    pub bytes: usize,
    /// Whether it was given memory of its own, see [`Delivery::detached`].
    pub detached: bool,
    pub attempts: u32,
    pub arrived_ms: u64,
    pub not_before_ms: u64,
    pub fate: Fate,
    pub failure: Option<Box<Failure>>,
    /// Where it is among the parked ones, if it comes from there.
    pub position: u64,
}

impl Entry {
    pub fn new(delivery: Arc<Delivery>, bytes: usize, arrived_ms: u64) -> Self {
        Self {
            bytes,
            delivery,
            detached: false,
            attempts: 0,
            arrived_ms,
            not_before_ms: 0,
            fate: Fate::Handle,
            failure: None,
            position: 0,
        }
    }
}

/// What a lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Just made, or between two states.
    Idle,
    /// Waits for a handler.
    Ready,
    /// The first so many are with a handler.
    Running { run: RunId, count: usize, since_ms: u64 },
    /// The first one waits for a time.
    Backoff { until_ms: u64 },
    /// The first one's dead letter is on its way.
    DeadLetter { ticket: Ticket, since_ms: u64 },
    /// The first so many are on their way to be parked.
    Parking { ticket: Ticket, count: usize, since_ms: u64 },
    /// The key is to be parked, and there is no room.
    ParkingRoom,
}

impl LaneState {
    /// Whether something outside has to answer before the lane goes on.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running { .. } | Self::DeadLetter { .. } | Self::Parking { .. })
    }

    /// How many of its messages are with somebody else.
    pub fn handed_out(self) -> usize {
        match self {
            Self::Running { count, .. } | Self::Parking { count, .. } => count,
            Self::DeadLetter { .. } => 1,
            _ => 0,
        }
    }
}

/// Messages that wait for each other.
#[derive(Debug)]
pub(super) struct Lane {
    pub tenure: TenureId,
    /// The key that they share, where they do, and its hash.
    pub key: Option<Bytes>,
    pub key_hash: u64,
    /// Whether they are parked ones that are being released.
    pub released: bool,
    pub state: LaneState,
    /// After a batch failed, so many are tried alone.
    pub singles_left: usize,
    pub bytes: usize,
    /// Most lanes hold one message: it lies here, and takes no allocation.
    first: Option<Entry>,
    rest: VecDeque<Entry>,
}

impl Lane {
    pub fn new(tenure: TenureId, key: Option<Bytes>, key_hash: u64, released: bool) -> Self {
        let state = LaneState::Idle;
        Self { tenure, key, key_hash, released, state, singles_left: 0, bytes: 0, first: None, rest: VecDeque::new() }
    }

    pub fn push_back(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        match self.first {
            None => self.first = Some(entry),
            Some(_) => self.rest.push_back(entry),
        }
    }

    pub fn push_front(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        if let Some(second) = self.first.replace(entry) {
            self.rest.push_front(second);
        }
    }

    pub fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.first.take()?;
        self.first = self.rest.pop_front();
        self.bytes -= entry.bytes;
        Some(entry)
    }

    pub fn pop_back(&mut self) -> Option<Entry> {
        let entry = self.rest.pop_back().or_else(|| self.first.take())?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    pub fn front(&self) -> Option<&Entry> {
        self.first.as_ref()
    }

    pub fn front_mut(&mut self) -> Option<&mut Entry> {
        self.first.as_mut()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.first.iter_mut().chain(&mut self.rest)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.first.iter().chain(&self.rest)
    }

    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }
}

/// Hashes numbers that we count up ourselves: nobody can choose them, so spreading them is enough.
#[derive(Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio: neighbours land far apart, in the high bits that the table looks at too.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// A map by a number that we count up.
pub(super) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Hashes what strangers choose, such as keys, with a seed that they do not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeededHash(pub u64);

impl BuildHasher for SeededHash {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// The lanes of keys. The key itself lies in its lane, and is hashed once for each message that comes.
#[derive(Debug, Default)]
pub(super) struct Keys(HashTable<(u64, LaneId)>);

impl Keys {
    /// The lane of a key.
    pub fn get(&self, hash: u64, key: &Bytes, lanes: &Lanes) -> Option<LaneId> {
        let is = |(_, lane_id): &(u64, LaneId)| lanes.get(lane_id).is_some_and(|lane| lane.key.as_ref() == Some(key));
        self.0.find(hash, is).map(|(_, lane_id)| *lane_id)
    }

    /// A key that has no lane yet.
    pub fn insert(&mut self, hash: u64, lane_id: LaneId) {
        self.0.insert_unique(hash, (hash, lane_id), |(hash, _)| *hash);
    }

    /// A lane is no longer that of its key.
    pub fn remove(&mut self, hash: u64, lane_id: LaneId) {
        if let Ok(entry) = self.0.find_entry(hash, |(_, other)| *other == lane_id) {
            entry.remove();
        }
    }
}

/// A map by key.
pub(super) type KeyMap<V> = HashMap<Bytes, V, SeededHash>;

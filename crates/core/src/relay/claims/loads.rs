//! How much of what a relay works on is under way to which partition.

use std::collections::HashMap;

use super::Limits;
use crate::TopicPartition;

/// After so long without an acknowledgement a partition that has its share counts as stuck, in milliseconds: its rows stay in the table and
/// leave their room to others, until it takes something again.
pub const STUCK_MS: u64 = 5_000;

/// So much of all room, as a divisor, is kept for partitions that have nothing under way yet.
const RESERVE: usize = 8;

/// What is under way. A partition may have as much as is still free, of rows, of bytes, and in the window of each shard, apart from a reserve:
/// one that is alone gets nearly half. Of the reserve each gets one row, so that many may take nothing before there is no room for others.
///
/// What a partition has only grows while rows are claimed, and what is free only shrinks: so no row of a key finds room where an earlier one
/// found none.
#[derive(Debug)]
pub(super) struct Loads {
    limits: Limits,
    rows: usize,
    bytes: usize,
    loads: HashMap<TopicPartition, Load>,
    /// What was passed over because it takes nothing, with the rows that were under way then.
    stuck: HashMap<TopicPartition, usize>,
}

#[derive(Debug)]
struct Load {
    rows: usize,
    bytes: usize,
    shards: HashMap<u16, usize>,
    /// When it took something last, or began to.
    moved_ms: u64,
}

/// Whether another row may go to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// It has its share: later.
    Full,
    /// It has its share and takes nothing: it is passed over until [`Loads::remove`] says that it takes something again.
    Stuck,
}

impl Loads {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, rows: 0, bytes: 0, loads: HashMap::new(), stuck: HashMap::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether another row of a shard may go there; `claimed` is how many rows of the shard are claimed.
    pub(super) fn room(&mut self, to: &TopicPartition, shard: u16, claimed: usize, now_ms: u64) -> Room {
        if !self.stuck.is_empty() && self.stuck.contains_key(to) {
            return Room::Stuck;
        }
        let Limits { rows_max, bytes_max, window_rows_max } = self.limits;
        let Some(load) = self.loads.get(to) else {
            return if claimed < window_rows_max { Room::Free } else { Room::Full };
        };
        let of_shard = load.shards.get(&shard).copied().unwrap_or(0);
        let free = |max: usize, taken: usize| max.saturating_sub(max / RESERVE + taken);
        let in_window =
            if of_shard == 0 { claimed < window_rows_max } else { of_shard < free(window_rows_max, claimed) };
        if in_window && load.rows < free(rows_max, self.rows) && load.bytes < free(bytes_max, self.bytes) {
            return Room::Free;
        }
        if now_ms.saturating_sub(load.moved_ms) < STUCK_MS {
            return Room::Full;
        }
        self.stuck.insert(to.clone(), load.rows);
        Room::Stuck
    }

    pub(super) fn add(&mut self, to: &TopicPartition, shard: u16, bytes: usize, now_ms: u64) {
        self.rows += 1;
        self.bytes += bytes;
        let new = || Load { rows: 0, bytes: 0, shards: HashMap::new(), moved_ms: now_ms };
        let load = match self.loads.get_mut(to) {
            Some(load) => load,
            None => self.loads.entry(to.clone()).or_insert_with(new),
        };
        load.rows += 1;
        load.bytes += bytes;
        *load.shards.entry(shard).or_default() += 1;
    }

    /// A row is not under way any more; it moved something if it has ended, and not if its shard was lost. `true`: what was passed over can go
    /// on.
    pub(super) fn remove(&mut self, to: &TopicPartition, shard: u16, bytes: usize, ended_ms: Option<u64>) -> bool {
        let Some(load) = self.loads.get_mut(to) else { return false };
        self.rows -= 1;
        self.bytes -= bytes;
        load.rows -= 1;
        load.bytes -= bytes;
        load.moved_ms = load.moved_ms.max(ended_ms.unwrap_or(0));
        if let Some(of_shard) = load.shards.get_mut(&shard) {
            *of_shard -= 1;
            if *of_shard == 0 {
                load.shards.remove(&shard);
            }
        }
        let left = load.rows;
        if left == 0 {
            self.loads.remove(to);
        }
        // Not with the first one that it takes: each time the table is searched from its beginning.
        let takes_again = !self.stuck.is_empty() && self.stuck.get(to).is_some_and(|then| left <= then / 2);
        takes_again && self.stuck.remove(to).is_some()
    }
}

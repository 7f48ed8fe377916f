//! Keys that are set aside: their messages lie in a durable store, in order, until somebody releases them.
//!
//! A key is parked from when its first message goes to the store until the store has none of it left. In between, each message of
//! the key that is delivered goes to the end of the store, also while the key is being released.

use std::cmp::Reverse;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;

use super::core::{Core, Pending, Timer};
use super::lanes::{Entry, Lane, LaneId, LaneState, TenureId};
use super::types::{Action, Failure, Loaded, Parked, Report, Ticket};
use crate::TopicPartition;

/// Milliseconds of a second.
const SECOND_MS: u64 = 1_000;

/// A key that is parked.
#[derive(Debug, Default)]
pub(super) struct ParkedKey {
    /// Its messages in the store, or on their way there. What was stored twice counts twice, until the key is free or read anew.
    pub messages: usize,
    /// How often something was added to the store: what was read before that may not be all.
    pub stored: u64,
    /// Being released, and how far that is.
    pub release: Option<Release>,
    /// Of the messages that were read from the store, the last one that is handled and still lies there.
    pub handled_up_to: Option<u64>,
    /// How many those are.
    pub handled: usize,
}

impl ParkedKey {
    /// A key of which so many messages are in the store.
    pub fn of(messages: usize) -> Self {
        Self { messages, ..Self::default() }
    }
}

/// What a release does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// Reads, or waits to try that again.
    Loading,
    /// Handles what was read.
    Handling,
    /// Removes what was handled, or waits to try that again; and whether the release ends with that.
    Removing { stop: bool },
}

impl Core {
    /// Sends the first messages of a lane to the store.
    pub(super) fn park(&mut self, lane_id: LaneId, now_ms: u64) {
        let ticket = Ticket(self.next_id());
        let Some(lane) = self.lanes.get(&lane_id) else {
            return;
        };
        let (Some(key), Some(tenure)) = (lane.key.clone(), self.tenures.get_mut(&lane.tenure)) else {
            return;
        };
        if lane.released {
            return self.stop_release(lane_id, &key, now_ms);
        }
        let partition = tenure.partition.clone();
        let room = self.settings.parking.messages_max.saturating_sub(tenure.parked_messages);
        let is_new = !tenure.parked.contains_key(&key);
        if room == 0 || (is_new && tenure.parked.len() >= self.settings.parking.keys_max) {
            if room == 0 && !std::mem::replace(&mut tenure.parking_full, true) {
                let report = Report::ParkingFull { partition, messages: tenure.parked_messages };
                self.actions.push_back(Action::Report(report));
            }
            tenure.wait_for_room.push_back(lane_id);
            self.detach(lane_id);
            return self.set_state(lane_id, LaneState::ParkingRoom);
        }
        if is_new {
            let report = Report::KeyParked { partition: partition.clone(), key: key.clone() };
            self.actions.push_back(Action::Report(report));
        }
        let messages: Vec<Parked> = lane
            .iter()
            .take(self.settings.parking.batch_max.min(room))
            .map(|entry| Parked {
                delivery: entry.delivery.clone(),
                attempts: entry.attempts,
                failure: entry.failure.as_deref().cloned(),
            })
            .collect();
        self.pending.insert(ticket, (lane.tenure, Pending::Park(lane_id)));
        let count = messages.len();
        tenure.parked_messages += count;
        tenure.parked.entry(key.clone()).or_default().messages += count;
        self.set_state(lane_id, LaneState::Parking { ticket, count, since_ms: now_ms });
        self.act(Action::Park { ticket, partition, key, messages });
    }

    /// Messages are durably parked, or could not be.
    pub(super) fn is_parked(&mut self, tenure_id: TenureId, lane_id: LaneId, failed: bool, now_ms: u64) {
        let Some(lane) = self.lanes.get(&lane_id) else {
            return;
        };
        let LaneState::Parking { count, .. } = lane.state else {
            return;
        };
        if !failed {
            self.counters.parked += count as u64;
        }
        let tenure = self.tenures.get_mut(&tenure_id);
        if let (Some(key), Some(tenure)) = (&lane.key, tenure)
            && let Some(parked) = tenure.parked.get_mut(key)
        {
            match failed {
                false => parked.stored += 1,
                true => {
                    parked.messages = parked.messages.saturating_sub(count);
                    tenure.parked_messages = tenure.parked_messages.saturating_sub(count);
                }
            }
        }
        self.first_is_stored(lane_id, count, failed, now_ms);
    }

    /// Lanes that wait for room look again, each once: those that find none wait again, behind the others.
    fn look_for_room(&mut self, tenure_id: TenureId, now_ms: u64) {
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        tenure.parking_full = tenure.parking_full && tenure.parked_messages >= self.settings.parking.messages_max;
        for lane_id in std::mem::take(&mut tenure.wait_for_room) {
            if self.lanes.get(&lane_id).is_some_and(|lane| lane.state == LaneState::ParkingRoom) {
                self.advance(lane_id, now_ms);
            }
        }
    }

    /// Begins to handle what is parked of a key. Says whether the key is parked here, and not being released already.
    pub fn release_key(&mut self, partition: &TopicPartition, key: &Bytes, now_ms: u64) -> bool {
        let Some(tenure_id) = self.by_name.get(partition).copied().filter(|tenure_id| self.is_owned(*tenure_id)) else {
            return false;
        };
        let parked = self.tenures.get_mut(&tenure_id).and_then(|tenure| tenure.parked.get_mut(key));
        let Some(parked) = parked.filter(|parked| parked.release.is_none()) else {
            return false;
        };
        parked.release = Some(Release::Loading);
        self.release_on(tenure_id, key, now_ms);
        self.go_on(now_ms);
        true
    }

    /// Asks for what a release needs next.
    pub(super) fn release_on(&mut self, tenure_id: TenureId, key: &Bytes, _now_ms: u64) {
        if !self.is_owned(tenure_id) {
            return;
        }
        let ticket = Ticket(self.next_id());
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        let Some(parked) = tenure.parked.get_mut(key) else {
            return;
        };
        let (partition, key) = (tenure.partition.clone(), key.clone());
        match (parked.release, parked.handled_up_to) {
            (Some(Release::Loading), _) => {
                let pending = Pending::LoadParked { key: key.clone(), stored_before: parked.stored };
                self.pending.insert(ticket, (tenure_id, pending));
                let messages_max = self.settings.parking.batch_max;
                self.act(Action::LoadParked { ticket, partition, key, messages_max });
            }
            (Some(Release::Removing { .. }), Some(up_to)) => {
                self.pending.insert(ticket, (tenure_id, Pending::RemoveParked { key: key.clone() }));
                self.act(Action::RemoveParked { ticket, partition, key, up_to });
            }
            _ => {}
        }
    }

    /// The store could not do it: it is asked again later.
    pub(super) fn retry_release(&mut self, tenure_id: TenureId, key: &Bytes, now_ms: u64) {
        let at_ms = now_ms.saturating_add(self.store_delay_ms());
        self.timers.push(Reverse((at_ms, Timer::Release(tenure_id, key.clone()))));
    }

    /// What [`Action::LoadParked`] asked for, oldest first; none if nothing of the key is parked.
    pub fn parked_loaded(&mut self, ticket: Ticket, messages: Vec<Loaded>, now_ms: u64) {
        if let Some((tenure_id, Pending::LoadParked { key, stored_before })) = self.pending.remove(&ticket)
            && self.is_owned(tenure_id)
        {
            if messages.is_empty() {
                self.nothing_is_parked(tenure_id, &key, stored_before, now_ms);
            } else {
                self.handle_released(tenure_id, &key, messages, now_ms);
            }
        }
        self.go_on(now_ms);
    }

    fn handle_released(&mut self, tenure_id: TenureId, key: &Bytes, messages: Vec<Loaded>, now_ms: u64) {
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        let Some(parked) = tenure.parked.get_mut(key) else {
            return;
        };
        parked.release = Some(Release::Handling);
        let mut lane = Lane::new(tenure_id, Some(key.clone()), 0, true);
        for loaded in messages {
            let bytes = loaded.delivery.bytes();
            let mut entry = Entry::new(Arc::new(loaded.delivery), bytes, now_ms);
            entry.position = loaded.position;
            entry.not_before_ms = tenure.release_next_ms.max(now_ms);
            let pause_ms = SECOND_MS.div_ceil(u64::from(self.settings.parking.release_per_second));
            tenure.release_next_ms = entry.not_before_ms.saturating_add(pause_ms);
            tenure.held_messages += 1;
            tenure.held_bytes += entry.bytes;
            lane.push_back(entry);
        }
        let lane_id = self.lanes.insert(lane);
        self.advance(lane_id, now_ms);
    }

    /// The store has nothing of a key: it is parked no longer, unless something was stored since the store was asked, or is on
    /// its way there.
    fn nothing_is_parked(&mut self, tenure_id: TenureId, key: &Bytes, stored_before: u64, now_ms: u64) {
        let hash = self.hash.hash_one(key);
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        let lane_id = tenure.keys.get(hash, key, &self.lanes);
        let state = lane_id.and_then(|lane_id| self.lanes.get(&lane_id)).map(|lane| lane.state);
        let changed = tenure.parked.get(key).is_none_or(|parked| parked.stored != stored_before);
        if changed || matches!(state, Some(LaneState::Parking { .. } | LaneState::Backoff { .. })) {
            return self.retry_release(tenure_id, key, now_ms);
        }
        if let Some(parked) = tenure.parked.remove(key) {
            tenure.parked_messages = tenure.parked_messages.saturating_sub(parked.messages);
        }
        let report = Report::KeyReleased { partition: tenure.partition.clone(), key: key.clone() };
        self.report(report);
        self.look_for_room(tenure_id, now_ms);
    }

    /// All that was read is handled, or the release stops before that.
    pub(super) fn release_ended(&mut self, tenure_id: TenureId, key: Bytes, failure: Option<Failure>, now_ms: u64) {
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        let Some(parked) = tenure.parked.get_mut(&key) else {
            return;
        };
        let stop = failure.is_some();
        parked.release = match parked.handled_up_to {
            Some(_) => Some(Release::Removing { stop }),
            None if stop => None,
            None => Some(Release::Loading),
        };
        if let Some(failure) = failure {
            let report = Report::ReleaseStopped { partition: tenure.partition.clone(), key: key.clone(), failure };
            self.report(report);
        }
        self.release_on(tenure_id, &key, now_ms);
    }

    /// A message that is being released cannot be handled: it stays the first of its key.
    fn stop_release(&mut self, lane_id: LaneId, key: &Bytes, now_ms: u64) {
        let Some(lane) = self.lanes.get(&lane_id) else {
            return;
        };
        let tenure_id = lane.tenure;
        let failure = lane.front().and_then(|entry| entry.failure.as_deref().cloned());
        let failure = failure.unwrap_or_else(|| Failure::new("parked", "it was parked again"));
        self.drop_lane(lane_id, 0);
        self.release_ended(tenure_id, key.clone(), Some(failure), now_ms);
    }

    /// What was handled is removed from the store, or could not be.
    pub(super) fn is_removed(&mut self, tenure_id: TenureId, key: &Bytes, failed: bool, now_ms: u64) {
        if failed {
            return self.retry_release(tenure_id, key, now_ms);
        }
        let parked = self.tenures.get_mut(&tenure_id).and_then(|tenure| tenure.parked.get_mut(key));
        let Some(parked) = parked else {
            return;
        };
        parked.handled_up_to = None;
        let handled = std::mem::take(&mut parked.handled).min(parked.messages);
        parked.messages -= handled;
        let stop = matches!(parked.release, Some(Release::Removing { stop: true }));
        parked.release = (!stop).then_some(Release::Loading);
        if let Some(tenure) = self.tenures.get_mut(&tenure_id) {
            tenure.parked_messages = tenure.parked_messages.saturating_sub(handled);
        }
        self.look_for_room(tenure_id, now_ms);
        self.release_on(tenure_id, key, now_ms);
    }
}

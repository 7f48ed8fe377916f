//! Handlers: which is started when, and what follows from how it ended.

use smallvec::{SmallVec, smallvec};

use super::core::{Core, Pending};
use super::lanes::{Entry, Fate, LaneId, LaneState, TenureId};
use super::settings::{Order, Remedy, milliseconds, pause_ms};
use super::tenure::Phase;
use super::types::{
    Action, DeadLetter, Failure, FailureClass, Handed, Messages, Outcome, Outcomes, Report, RunId, Started, Ticket,
};
use crate::Seen;

/// A call of a handler.
#[derive(Debug)]
pub(super) struct Run {
    pub parts: Parts,
    pub since_ms: u64,
    pub probe: bool,
    pub cancelled: Option<Cancelled>,
}

/// The messages of one lane in a run: its first so many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub tenure: TenureId,
    pub lane: LaneId,
    pub count: usize,
}

/// Mostly one, which then takes no allocation.
pub(super) type Parts = SmallVec<[Part; 1]>;

/// Why a handler was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// It took too long: that is a failed attempt.
    Deadline,
    /// Its partition goes.
    Partition,
}

/// Deadlines that may be kept beside those of handlers that run: they are thrown out together, so that it costs little for each.
const DEADLINES_KEPT_MIN: usize = 64;
/// Calls that begin together for which room is made beforehand.
const CALLS_ROOM_MAX: usize = 64;
/// Source of the failure of a handler that ran past its deadline.
const DEADLINE_SOURCE: &str = "handler deadline";

impl Core {
    /// Starts what may start.
    pub(super) fn start_runs(&mut self, now_ms: u64) {
        if let Order::Batches(batches) = self.settings.order {
            return self.start_batches(batches, now_ms);
        }
        while self.may_start(now_ms)
            && let Some(lane_id) = self.next_ready()
        {
            let Some(lane) = self.lanes.get(&lane_id).filter(|lane| lane.state == LaneState::Ready) else {
                continue;
            };
            self.start(smallvec![Part { tenure: lane.tenure, lane: lane_id, count: 1 }], now_ms);
        }
    }

    pub(super) fn may_start(&self, now_ms: u64) -> bool {
        !self.turn.is_empty() && self.runs.len() < self.concurrency() && self.dependency.may_start(now_ms)
    }

    /// The next lane that is ready; partitions take turns, message by message.
    fn next_ready(&mut self) -> Option<LaneId> {
        while let Some(tenure_id) = self.turn.pop_front() {
            let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
                continue;
            };
            let lane_id = tenure.ready.pop_front();
            tenure.in_turn = !tenure.ready.is_empty();
            if tenure.in_turn {
                self.turn.push_back(tenure_id);
            }
            if lane_id.is_some() {
                return lane_id;
            }
        }
        None
    }

    /// Starts a handler for the first messages of some lanes.
    pub(super) fn start(&mut self, parts: Parts, now_ms: u64) {
        let run = self.runs.insert(Run { parts: parts.clone(), since_ms: now_ms, probe: false, cancelled: None });
        let mut messages = Messages::with_capacity(parts.iter().map(|part| part.count).sum());
        for part in &parts {
            if let Some(lane) = self.lanes.get_mut(&part.lane) {
                lane.singles_left = lane.singles_left.saturating_sub(1);
                messages.extend(
                    lane.iter()
                        .take(part.count)
                        .map(|entry| Handed { delivery: entry.delivery.clone(), attempt: entry.attempts + 1 }),
                );
            }
            self.set_state(part.lane, LaneState::Running { run, count: part.count, since_ms: now_ms });
        }
        if self.dependency.started(run)
            && let Some(probe) = self.runs.get_mut(&run)
        {
            probe.probe = true;
        }
        if self.deadlines.len() >= self.runs.len().saturating_mul(2) + DEADLINES_KEPT_MIN {
            // Behind one that runs for long lie those that ended meanwhile.
            self.deadlines.retain(|(_, run)| self.runs.contains_key(run));
        }
        self.deadlines.push_back((now_ms.saturating_add(self.settings.handler_deadline_ms), run));
        let started = Started { run, messages };
        match self.actions.back_mut() {
            Some(Action::Start { calls }) => calls.push(started),
            _ => {
                // Mostly as many follow as may run.
                let more = self.concurrency().saturating_sub(self.runs.len()).min(CALLS_ROOM_MAX);
                let mut calls = Vec::with_capacity(1 + more);
                calls.push(started);
                self.act(Action::Start { calls });
            }
        }
    }

    /// Cancels what runs too long.
    pub(super) fn check_deadlines(&mut self, now_ms: u64) {
        while let Some((at_ms, run_id)) = self.deadlines.front().copied() {
            match self.runs.get_mut(&run_id) {
                Some(run) if run.cancelled.is_none() => {
                    if at_ms > now_ms {
                        return;
                    }
                    run.cancelled = Some(Cancelled::Deadline);
                    self.counters.deadline_exceeded += 1;
                    self.act(Action::Cancel { run: run_id });
                }
                // Ended, or told to stop already.
                _ => {}
            }
            self.deadlines.pop_front();
        }
    }

    /// Handlers ended.
    pub fn finished(&mut self, ended: impl IntoIterator<Item = (RunId, Outcomes)>, now_ms: u64) {
        for (run_id, outcomes) in ended {
            self.ended(run_id, outcomes, now_ms);
        }
        self.go_on(now_ms);
    }

    fn ended(&mut self, run_id: RunId, outcomes: Outcomes, now_ms: u64) {
        let Some(run) = self.runs.remove(&run_id) else {
            self.counters.late_results += 1;
            return;
        };
        let running = self.runs.len() + 1;
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.ended(now_ms.saturating_sub(run.since_ms), running);
        }
        let total: usize = run.parts.iter().map(|part| part.count).sum();
        let whole_batch_failed = total > 1
            && matches!(
                &outcomes,
                Outcomes::All(
                    Outcome::Transient(_) | Outcome::Permanent(_) | Outcome::Undecodable(_) | Outcome::Park(_)
                )
            );
        let well = match &outcomes {
            Outcomes::All(outcome) => reached_dependency(outcome),
            Outcomes::Each(outcomes) => !outcomes.is_empty() && outcomes.iter().all(reached_dependency),
        };
        let random = self.random();
        let up = self.dependency.ended(run_id, well, now_ms, random);
        let mut next = match outcomes {
            Outcomes::All(outcome) => Next::All(outcome),
            Outcomes::Each(outcomes) => Next::Each(outcomes.into_iter()),
        };
        for part in &run.parts {
            if !self.tenures.contains_key(&part.tenure) || !self.is_with(part.lane, run_id) {
                self.counters.late_results += part.count as u64;
                (0..part.count).for_each(|_| drop(next.outcome()));
            } else if whole_batch_failed {
                if let Some(lane) = self.lanes.get_mut(&part.lane) {
                    lane.singles_left = part.count;
                }
                self.advance(part.lane, now_ms);
            } else {
                self.judge_part(*part, &run, &mut next, now_ms);
            }
            self.check_room(part.tenure);
            self.close_on(part.tenure, now_ms);
        }
        if up {
            self.report(Report::DependencyUp);
        }
    }

    fn is_with(&self, lane_id: LaneId, run_id: RunId) -> bool {
        let state = self.lanes.get(&lane_id).map(|lane| lane.state);
        matches!(state, Some(LaneState::Running { run, .. }) if run == run_id)
    }

    fn judge_part(&mut self, part: Part, run: &Run, next: &mut Next, now_ms: u64) {
        let mut kept = Vec::new();
        for _ in 0..part.count {
            let outcome = next.outcome();
            if outcome == Outcome::Done {
                self.counters.done += 1;
                self.dependency.succeeded();
                self.finish_first(part.lane, now_ms);
            } else if let Some(mut entry) = self.lanes.get_mut(&part.lane).and_then(|lane| lane.pop_front()) {
                self.judge(&mut entry, outcome, part.lane, run, now_ms);
                kept.push(entry);
            }
        }
        if let Some(lane) = self.lanes.get_mut(&part.lane) {
            kept.into_iter().rev().for_each(|entry| lane.push_front(entry));
        }
        self.advance(part.lane, now_ms);
    }

    /// Decides what is to happen to a message that is not done.
    fn judge(&mut self, entry: &mut Entry, outcome: Outcome, lane_id: LaneId, run: &Run, now_ms: u64) {
        let has_key = self.lanes.get(&lane_id).is_some_and(|lane| lane.key.is_some());
        match outcome {
            Outcome::Done => {}
            Outcome::Stopped if run.cancelled == Some(Cancelled::Deadline) => {
                let reason = format!("the handler did not end within {} ms", self.settings.handler_deadline_ms);
                self.failed(entry, Failure::new(DEADLINE_SOURCE, reason), lane_id, run.probe, now_ms);
            }
            // Not at once: whoever stops handlers without being asked would be called in a loop.
            Outcome::Stopped => entry.not_before_ms = now_ms.saturating_add(milliseconds(self.settings.retry.bound(1))),
            Outcome::Transient(failure) => self.failed(entry, failure, lane_id, run.probe, now_ms),
            Outcome::Permanent(failure) => {
                entry.attempts += 1;
                entry.fate = fate(self.settings.permanent, has_key, FailureClass::Permanent, &failure);
                entry.failure = Some(Box::new(failure));
            }
            Outcome::Undecodable(failure) => {
                entry.attempts += 1;
                entry.fate = fate(Remedy::DeadLetter, has_key, FailureClass::Undecodable, &failure);
            }
            Outcome::Park(failure) => {
                entry.attempts += 1;
                let parks = self.settings.order == Order::PerKey;
                entry.fate = fate(Remedy::Park, has_key && parks, FailureClass::Permanent, &failure);
                entry.failure = Some(Box::new(failure));
            }
            Outcome::DependencyDown(failure) => {
                let random = self.random();
                if self.dependency.told_down(now_ms, random) {
                    self.report(Report::DependencyDown { failure, told: true });
                }
            }
        }
    }

    fn failed(&mut self, entry: &mut Entry, failure: Failure, lane_id: LaneId, is_probe: bool, now_ms: u64) {
        let counts = self.dependency.counts_attempt(is_probe);
        let (key_hash, random) = (self.key_hash(&entry.delivery), self.random());
        if self.dependency.failed(&failure, key_hash, now_ms, random) {
            self.report(Report::DependencyDown { failure: failure.clone(), told: false });
        }
        self.counters.retries += 1;
        if !counts {
            return;
        }
        entry.attempts += 1;
        let lane = self.lanes.get(&lane_id);
        let has_key = lane.is_some_and(|lane| lane.key.is_some());
        let too_many_wait = self.settings.exhausted == Remedy::Park
            && has_key
            && lane.is_some_and(|lane| !lane.released && lane.len() >= self.settings.parking.lane_messages_max);
        let random = self.random();
        match self.settings.retry.delay(entry.attempts, random, None) {
            Some(delay) if !too_many_wait => entry.not_before_ms = now_ms.saturating_add(milliseconds(delay)),
            _ => entry.fate = fate(self.settings.exhausted, has_key, FailureClass::Exhausted, &failure),
        }
        entry.failure = Some(Box::new(failure));
    }

    /// Sends the first message of a lane to the dead letters.
    pub(super) fn dead_letter(&mut self, lane_id: LaneId, now_ms: u64) {
        let ticket = Ticket(self.next_id());
        let Some(lane) = self.lanes.get(&lane_id) else {
            return;
        };
        let Some(Entry { fate: Fate::DeadLetter(why), delivery, attempts, arrived_ms, .. }) = lane.front() else {
            return;
        };
        let (class, failure) = (**why).clone();
        let letter =
            DeadLetter { delivery: delivery.clone(), class, failure, attempts: *attempts, arrived_ms: *arrived_ms };
        self.pending.insert(ticket, (lane.tenure, Pending::DeadLetter(lane_id)));
        self.set_state(lane_id, LaneState::DeadLetter { ticket, since_ms: now_ms });
        self.act(Action::DeadLetter { ticket, letter });
    }

    /// Something that was asked for is durable, or could not be made so.
    pub fn confirmed(&mut self, ticket: Ticket, result: Result<(), std::sync::Arc<str>>, now_ms: u64) {
        let failed = result.is_err();
        if let Err(cause) = result {
            self.store_failures = self.store_failures.saturating_add(1);
            self.report(Report::StoreFailed { cause });
        } else {
            self.store_failures = 0;
        }
        if self.settler.is_outstanding(ticket) {
            self.settled(failed, now_ms);
        } else if let Some((tenure_id, pending)) = self.pending.remove(&ticket) {
            match pending {
                Pending::DeadLetter(lane_id) => self.first_is_stored(lane_id, 1, failed, now_ms),
                Pending::Park(lane_id) => self.is_parked(tenure_id, lane_id, failed, now_ms),
                Pending::RemoveParked { key } => self.is_removed(tenure_id, &key, failed, now_ms),
                Pending::LoadParked { key, .. } => self.retry_release(tenure_id, &key, now_ms),
                Pending::StoreDone => self.done_is_stored(tenure_id, failed),
            }
            self.check_room(tenure_id);
            self.close_on(tenure_id, now_ms);
        }
        self.go_on(now_ms);
    }

    /// The first messages of a lane are durable somewhere else, or could not be made so: then it is tried again later.
    pub(super) fn first_is_stored(&mut self, lane_id: LaneId, count: usize, failed: bool, now_ms: u64) {
        if failed {
            let delay_ms = self.store_delay_ms();
            if let Some(front) = self.lanes.get_mut(&lane_id).and_then(|lane| lane.front_mut()) {
                front.not_before_ms = now_ms.saturating_add(delay_ms);
            }
        } else {
            let lane = self.lanes.get(&lane_id);
            let seen = match lane.map(|lane| lane.state) {
                Some(LaneState::DeadLetter { .. }) => {
                    self.counters.dead_lettered += 1;
                    Seen::DeadLettered
                }
                _ => Seen::Parked,
            };
            if let (Some(witness), Some(lane)) = (&mut self.witness, lane) {
                lane.iter().take(count).for_each(|entry| witness.saw(&entry.delivery, seen, now_ms));
            }
            (0..count).for_each(|_| self.finish_first(lane_id, now_ms));
        }
        self.advance(lane_id, now_ms);
    }

    /// How long to wait before a store outside is asked again.
    pub(super) fn store_delay_ms(&mut self) -> u64 {
        let random = self.random();
        pause_ms(&self.settings.retry, self.store_failures.max(1), random)
    }

    /// When a handler may be started again, if time is what it takes.
    pub(super) fn start_at_ms(&self) -> Option<u64> {
        if self.runs.len() >= self.concurrency() {
            return None;
        }
        match (self.dependency.probe_at_ms(), self.settings.order) {
            (None, Order::Batches(batches)) if self.dependency.down_since_ms().is_none() => self.batch_at_ms(batches),
            (probe_at_ms, _) => probe_at_ms,
        }
    }

    /// Whether handlers may still be started for a partition.
    pub(super) fn is_owned(&self, tenure_id: TenureId) -> bool {
        self.tenures.get(&tenure_id).is_some_and(|tenure| tenure.phase == Phase::Owned)
    }
}

/// Hands out one outcome for each message.
enum Next {
    All(Outcome),
    Each(std::vec::IntoIter<Outcome>),
}

impl Next {
    fn outcome(&mut self) -> Outcome {
        match self {
            Self::All(outcome) => outcome.clone(),
            Self::Each(outcomes) => outcomes.next().unwrap_or(Outcome::Stopped),
        }
    }
}

/// Whether the handler got from its dependencies what it needed; a message that is hopeless says nothing against them.
fn reached_dependency(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done | Outcome::Permanent(_) | Outcome::Undecodable(_) | Outcome::Park(_))
}

fn fate(remedy: Remedy, has_key: bool, class: FailureClass, failure: &Failure) -> Fate {
    match remedy {
        Remedy::Park if has_key => Fate::Park,
        _ => Fate::DeadLetter(Box::new((class, failure.clone()))),
    }
}

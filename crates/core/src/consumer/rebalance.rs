//! Partitions come and go.

use std::cmp::Reverse;

use super::core::{Core, Timer};
use super::done_codec;
use super::frontier::Frontier;
use super::lanes::{LaneId, TenureId};
use super::parking::ParkedKey;
use super::runs::Cancelled;
use super::settings::Settling;
use super::tenure::{Phase, Tenure};
use super::types::{Action, Assignment, Report, Started};
use crate::TopicPartition;

impl Core {
    /// Partitions are ours from now on.
    pub fn assigned(&mut self, assignments: Vec<Assignment>, now_ms: u64) {
        // Whoever stops takes nothing new: what is not ours here is not handled, and goes to others when we leave.
        let assignments = if self.draining { Vec::new() } else { assignments };
        for assignment in assignments {
            if let Some(before) = self.by_name.get(&assignment.partition).copied() {
                let epoch = self.tenures.get(&before).map_or(0, |tenure| tenure.epoch);
                if assignment.epoch <= epoch {
                    self.report(Report::OldAssignment { partition: assignment.partition });
                    continue;
                }
                self.forget(before, now_ms);
            }
            self.assign(assignment, now_ms);
        }
        self.shares_changed();
        self.go_on(now_ms);
    }

    fn assign(&mut self, assignment: Assignment, now_ms: u64) {
        let Assignment { partition, frontier, metadata, stored_done, epoch, parked } = assignment;
        self.settle_from(now_ms);
        let told = frontier.map(|frontier| (frontier, metadata.clone()));
        let (restored, lineage) = match frontier.filter(|_| self.settings.settling == Settling::Frontier) {
            Some(frontier) => self.restore(&partition, frontier, &metadata, &stored_done),
            None => (Vec::new(), 0),
        };
        let frontier = frontier.filter(|_| self.settings.settling == Settling::Frontier);
        let frontier = Frontier::new(frontier, restored);
        let mut tenure = Tenure::new(partition.clone(), epoch, frontier, self.seed(), now_ms);
        tenure.watch.rejoined = self.rejoined.get(&partition).copied().unwrap_or(0);
        (tenure.settle.lineage, tenure.settle.stored) = (lineage, lineage != 0);
        tenure.settle.told = told;
        tenure.parked_messages = parked.iter().map(|each| each.messages).sum();
        tenure.parked.extend(parked.into_iter().map(|each| (each.key, ParkedKey::of(each.messages))));
        let tenure_id = self.tenures.insert(tenure);
        self.by_name.insert(partition, tenure_id);
    }

    /// What earlier assignments did beyond the frontier, and the lineage of the side store's set. What cannot be used is
    /// ignored: its messages are handled again.
    fn restore(
        &mut self,
        partition: &TopicPartition,
        frontier: i64,
        metadata: &str,
        stored: &[u8],
    ) -> (Vec<(i64, i64)>, u64) {
        if metadata.is_empty() {
            return (Vec::new(), 0);
        }
        let ignored = |cause: String| Report::DoneIgnored { partition: partition.clone(), cause };
        let done = match done_codec::decode_text(metadata) {
            Ok(done) if done.base == frontier => done,
            Ok(done) => {
                let cause = format!("the metadata belongs to frontier {}, not {frontier}: it was moved", done.base);
                self.report(ignored(cause));
                return (Vec::new(), 0);
            }
            Err(error) => {
                self.report(ignored(format!("the metadata: {error}")));
                return (Vec::new(), 0);
            }
        };
        if done.lineage == 0 {
            return (done.intervals, 0);
        }
        match done_codec::decode(stored) {
            Ok(more) if more.lineage == done.lineage => (union(done.intervals, more.intervals, frontier), done.lineage),
            Ok(_) => {
                self.report(ignored("the set in the side store belongs to another commit".to_owned()));
                (done.intervals, 0)
            }
            Err(error) => {
                self.report(ignored(format!("the set in the side store: {error}")));
                (done.intervals, 0)
            }
        }
    }

    /// Partitions are to be given up: what runs may finish, what is done is settled, then [`Action::Release`] follows for each.
    pub fn revoking(&mut self, partitions: &[TopicPartition], now_ms: u64) {
        let until_ms = now_ms.saturating_add(self.settings.revoke_drain_ms);
        for partition in partitions {
            match self.by_name.get(partition).copied() {
                Some(tenure_id) => self.begin_drain(tenure_id, until_ms, true, now_ms),
                // The engine waits for an answer, whoever it asks about.
                None => self.act(Action::Release { partition: partition.clone() }),
            }
        }
        self.go_on(now_ms);
    }

    /// Partitions are somebody else's already: what was of them is forgotten.
    pub fn lost(&mut self, partitions: &[TopicPartition], now_ms: u64) {
        for partition in partitions {
            if let Some(tenure_id) = self.by_name.get(partition).copied() {
                self.forget(tenure_id, now_ms);
            }
        }
        self.shares_changed();
        self.check_drained();
        self.go_on(now_ms);
    }

    /// Stops: what runs may finish until then, what is done is settled, and [`Action::Drained`] follows.
    pub fn drain(&mut self, until_ms: u64, now_ms: u64) {
        self.draining = true;
        let tenures: Vec<TenureId> = self.tenures.keys().collect();
        for tenure_id in tenures {
            self.begin_drain(tenure_id, until_ms, false, now_ms);
        }
        self.check_drained();
        self.go_on(now_ms);
    }

    fn begin_drain(&mut self, tenure_id: TenureId, until_ms: u64, release: bool, now_ms: u64) {
        let gives_back = self.gives_back();
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        match &mut tenure.phase {
            Phase::Owned => tenure.phase = Phase::Draining { until_ms, release },
            // The engine asks while we stop: it wants its answer too.
            Phase::Draining { release: already, .. } | Phase::Closing { release: already, .. } => *already |= release,
        }
        tenure.ready.clear();
        for later in std::mem::take(&mut tenure.later) {
            tenure.held_messages -= 1;
            tenure.held_bytes -= later.bytes;
            if gives_back {
                tenure.settle.give_back.push(later.delivery.offset);
            }
        }
        if self.settings.settling == Settling::Each {
            self.has_to_settle(tenure_id);
        }
        for lane_id in self.lanes_of(tenure_id) {
            let keep = self.lanes.get(&lane_id).map_or(0, |lane| lane.state.handed_out());
            self.drop_lane(lane_id, keep);
        }
        self.timers.push(Reverse((until_ms, Timer::Closing(tenure_id))));
        self.close_on(tenure_id, now_ms);
    }

    fn lanes_of(&self, tenure_id: TenureId) -> Vec<LaneId> {
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.tenure == tenure_id);
        let mut lanes: Vec<LaneId> = lanes.map(|(lane_id, _)| lane_id).collect();
        // In the order in which they began, wherever they lie.
        lanes.sort_unstable();
        lanes
    }

    /// Takes a partition that goes one step further, if it can go.
    pub(super) fn close_on(&mut self, tenure_id: TenureId, now_ms: u64) {
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        match tenure.phase {
            Phase::Owned => {}
            Phase::Draining { until_ms, release } => {
                if tenure.active > 0 && now_ms < until_ms {
                    return;
                }
                let until_ms = now_ms.saturating_add(self.settings.final_settle_ms);
                tenure.phase = Phase::Closing { until_ms, release };
                self.timers.push(Reverse((until_ms, Timer::Closing(tenure_id))));
                self.cancel_runs(tenure_id);
                for lane_id in self.lanes_of(tenure_id) {
                    self.drop_lane(lane_id, 0);
                }
                self.has_to_settle(tenure_id);
            }
            Phase::Closing { until_ms, release } => {
                let settle = &tenure.settle;
                let settles = settle.changed || settle.outstanding || settle.storing.is_some();
                if settles && now_ms < until_ms {
                    return;
                }
                let partition = tenure.partition.clone();
                self.forget(tenure_id, now_ms);
                if release {
                    self.act(Action::Release { partition });
                }
                self.shares_changed();
                self.check_drained();
            }
        }
    }

    /// Tells the handlers of a partition to stop. Those that no longer count for anything else are late from here on.
    fn cancel_runs(&mut self, tenure_id: TenureId) {
        let mut cancelled = Vec::new();
        for (run_id, run) in self.runs.iter_mut() {
            if run.cancelled.is_none() && run.parts.iter().any(|part| part.tenure == tenure_id) {
                run.cancelled = Some(Cancelled::Partition);
                cancelled.push(run_id);
            }
        }
        cancelled.sort_unstable();
        cancelled.into_iter().for_each(|run| self.act(Action::Cancel { run }));
    }

    /// Lets go of a partition at once. Its handlers still take their places until they have ended, but what they say changes nothing.
    fn forget(&mut self, tenure_id: TenureId, now_ms: u64) {
        let Some(tenure) = self.tenures.remove(&tenure_id) else {
            return;
        };
        if let Some(witness) = &mut self.witness {
            witness.hurry();
        }
        self.by_name.remove(&tenure.partition);
        self.lanes.retain(|lane| lane.tenure != tenure_id);
        self.pending.retain(|_, (of, _)| *of != tenure_id);
        self.turn.retain(|other| *other != tenure_id);
        // What was asked for and not taken yet must not happen any more, a settlement above all.
        let partition = &tenure.partition;
        let (runs, mut never_began) = (&mut self.runs, Vec::new());
        self.actions.retain_mut(|action| match action {
            Action::Settle { settlements, .. } => {
                settlements.retain(|settlement| settlement.partition() != partition);
                true
            }
            Action::Start { calls } => {
                let only_ours = |run: &super::runs::Run| run.parts.iter().all(|part| part.tenure == tenure_id);
                calls.retain(|Started { run, .. }| {
                    let drop = runs.get(run).is_some_and(only_ours);
                    if drop {
                        runs.remove(run);
                        never_began.push(*run);
                    }
                    !drop
                });
                !calls.is_empty()
            }
            Action::StoreDone { partition: of, .. }
            | Action::Park { partition: of, .. }
            | Action::LoadParked { partition: of, .. }
            | Action::RemoveParked { partition: of, .. }
            | Action::Pause { partition: of }
            | Action::Resume { partition: of }
            | Action::Seek { partition: of, .. }
            | Action::Rejoin { partition: of } => of != partition,
            Action::DeadLetter { letter, .. } => letter.delivery.from != *partition,
            Action::Cancel { .. } | Action::Release { .. } | Action::Drained | Action::Report(_) => true,
        });
        // A probe that never began would be waited for for ever.
        for run in never_began {
            let random = self.random();
            self.dependency.ended(run, false, now_ms, random);
        }
        self.cancel_runs(tenure_id);
    }

    /// The number of partitions changed, and with it what each may hold.
    fn shares_changed(&mut self) {
        let tenures: Vec<TenureId> = self.tenures.keys().collect();
        tenures.into_iter().for_each(|tenure_id| self.check_room(tenure_id));
    }

    fn check_drained(&mut self) {
        if self.draining && self.tenures.is_empty() {
            self.draining = false;
            self.act(Action::Drained);
        }
    }
}

/// Both sets together, from the frontier on.
fn union(one: Vec<(i64, i64)>, other: Vec<(i64, i64)>, frontier: i64) -> Vec<(i64, i64)> {
    let mut all: Vec<(i64, i64)> = one.into_iter().chain(other).filter(|(_, end)| *end > frontier).collect();
    all.sort_unstable();
    let mut united: Vec<(i64, i64)> = Vec::with_capacity(all.len());
    for (start, end) in all {
        let start = start.max(frontier);
        match united.last_mut().filter(|(_, last)| *last >= start) {
            Some((_, last)) => *last = (*last).max(end),
            None => united.push((start, end)),
        }
    }
    united
}

//! Notices what does not go on, and says what it waits for.

use super::core::Core;
use super::lanes::{LaneState, TenureId};
use super::runs::Cancelled;
use super::tenure::{Known, Phase, Tenure};
use super::types::{Action, BacklogQuestion, Lag, Report, Urge, Waiting, WaitsFor};

/// How often is looked, as a part of the bound: a stall is reported at most this part late.
const LOOKS_PER_BOUND: u64 = 4;
/// How often the bound is doubled for a partition for which the group was left in vain: 30 s become 8 min.
const REJOIN_DOUBLINGS_MAX: u32 = 4;

impl Core {
    /// What the engine is to be asked: it tells a partition that is at its end from one that the engine forgot. The answers go to
    /// [`Core::backlog`].
    pub fn backlog_questions(&self, now_ms: u64) -> Vec<BacklogQuestion> {
        let question = |tenure: &Tenure| BacklogQuestion {
            partition: tenure.partition.clone(),
            next: tenure.delivered_next(),
            exact: tenure.is_suspected(self.settings.stuck_after_ms, now_ms),
        };
        let mut questions: Vec<BacklogQuestion> = self.tenures.values().map(question).collect();
        questions.sort_unstable_by(|one, other| one.partition.cmp(&other.partition));
        questions
    }

    /// What the engine has of a partition, from `next` of the question on.
    pub fn backlog(&mut self, question: &BacklogQuestion, waiting: Waiting, exact: bool, now_ms: u64) {
        if let Some(tenure) = self.by_name.get(&question.partition).and_then(|id| self.tenures.get_mut(id)) {
            let had_more = tenure.could_deliver().is_some();
            // What was delivered while the engine was asked makes the answer an old one: good for a figure only.
            let exact = exact && question.next == tenure.delivered_next();
            tenure.watch.backlog = Some(Known { waiting, exact, asked_ms: now_ms });
            if !had_more || tenure.could_deliver().is_none() {
                tenure.watch.delivered_ms = now_ms;
            }
        }
        self.go_on(now_ms);
    }

    /// How far the group is behind in each partition of which the engine said what it has.
    pub fn lags(&self) -> Vec<Lag> {
        let mut lags: Vec<Lag> = self.tenures.values().filter_map(Tenure::lag).collect();
        lags.sort_unstable_by(|one, other| one.partition.cmp(&other.partition));
        lags
    }

    pub(super) fn watch(&mut self, now_ms: u64) {
        if now_ms < self.watch_at_ms {
            return;
        }
        let step_ms = (self.settings.stuck_after_ms / LOOKS_PER_BOUND).max(1);
        self.watch_at_ms = now_ms.saturating_add(step_ms);
        let mut tenures: Vec<TenureId> = self.tenures.keys().collect();
        tenures.sort_unstable();
        for tenure_id in tenures {
            self.watch_work(tenure_id, now_ms);
            self.watch_engine(tenure_id, now_ms);
        }
    }

    fn watch_work(&mut self, tenure_id: TenureId, now_ms: u64) {
        let bound_ms = self.settings.stuck_after_ms;
        let settles_since_ms = self.settler.outstanding_since_ms();
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        let watch = &mut tenure.watch;
        if now_ms.saturating_sub(watch.reported_ms) < bound_ms {
            return;
        }
        let since_ms = settles_since_ms.filter(|_| tenure.settle.outstanding);
        if let Some(since_ms) = since_ms.filter(|since_ms| now_ms.saturating_sub(*since_ms) >= bound_ms) {
            watch.reported_ms = now_ms;
            let (partition, offset) = (tenure.partition.clone(), tenure.frontier.next().unwrap_or_default());
            let waits_for = WaitsFor::Settlement { since_ms };
            return self.report(Report::Stuck { partition, since_ms, offset, waits_for });
        }
        let since_ms = watch.progress_ms;
        let Some((offset, _)) = tenure.frontier.oldest() else {
            return;
        };
        if now_ms.saturating_sub(since_ms) < bound_ms {
            return;
        }
        watch.reported_ms = now_ms;
        let partition = tenure.partition.clone();
        if let Some(waits_for) = self.waits_for(tenure_id) {
            self.report(Report::Stuck { partition, since_ms, offset, waits_for });
        }
    }

    /// What the oldest message of a partition waits for.
    fn waits_for(&self, tenure_id: TenureId) -> Option<WaitsFor> {
        let (_, lane_id) = self.tenures.get(&tenure_id)?.frontier.oldest()?;
        let lane = self.lanes.get(&lane_id)?;
        Some(match lane.state {
            LaneState::Running { run, .. } => {
                let run = self.runs.get(&run)?;
                WaitsFor::Handler { since_ms: run.since_ms, cancelled: run.cancelled == Some(Cancelled::Deadline) }
            }
            LaneState::Backoff { until_ms } => WaitsFor::Backoff { until_ms, attempts: lane.front()?.attempts },
            LaneState::DeadLetter { since_ms, .. } => WaitsFor::DeadLetter { since_ms },
            LaneState::Parking { since_ms, .. } => WaitsFor::Parking { since_ms },
            LaneState::ParkingRoom => WaitsFor::ParkingRoom,
            LaneState::Ready | LaneState::Idle => match self.dependency.down_since_ms() {
                Some(since_ms) => WaitsFor::Dependency { since_ms },
                None => WaitsFor::Concurrency,
            },
        })
    }

    /// Urges an engine that has messages and delivers none: seek first, then leave and join.
    fn watch_engine(&mut self, tenure_id: TenureId, now_ms: u64) {
        let bound_ms = self.settings.stuck_after_ms;
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        let since_ms = tenure.watch.delivered_ms;
        let Some(known) = tenure.could_deliver().filter(|known| known.exact) else {
            return;
        };
        // Leaving disturbs the whole group: what it did not help is given longer each time.
        let patience = if tenure.watch.urged == 0 { 0 } else { tenure.watch.rejoined.min(REJOIN_DOUBLINGS_MAX) };
        if now_ms.saturating_sub(since_ms) < bound_ms.saturating_mul(1 << patience) {
            return;
        }
        // The next step only when this one had its time, and the engine said once more that there is something.
        tenure.watch.delivered_ms = now_ms;
        tenure.watch.backlog = Some(Known { exact: false, ..known });
        tenure.watch.urged = tenure.watch.urged.saturating_add(1);
        let (partition, next) = (tenure.partition.clone(), tenure.delivered_next());
        let (remedy, action) = match known.waiting {
            Waiting::Offsets { begin, .. } if tenure.watch.urged == 1 => {
                (Urge::Seek, Action::Seek { partition: partition.clone(), offset: next.unwrap_or(begin) })
            }
            _ => (Urge::Rejoin, Action::Rejoin { partition: partition.clone() }),
        };
        if remedy == Urge::Rejoin {
            *self.rejoined.entry(partition.clone()).or_default() += 1;
        }
        self.report(Report::NoDeliveries { partition, since_ms, next, waiting: known.waiting, remedy });
        self.act(action);
    }
}

impl Tenure {
    /// Something came. Says whether the engine had to be urged to.
    pub(super) fn delivered(&mut self, now_ms: u64) -> bool {
        self.watch.delivered_ms = now_ms;
        if let Some(known) = &mut self.watch.backlog {
            known.exact = false;
        }
        let urged = std::mem::take(&mut self.watch.urged);
        urged + std::mem::take(&mut self.watch.rejoined) > 0
    }

    /// What the engine has and could deliver, as far as it is known: not more than this member may hold, nor of a partition that
    /// stands still on our own account.
    fn could_deliver(&self) -> Option<Known> {
        let known = self.watch.backlog?;
        let settled = self.settle.done.is_empty() && !self.settle.outstanding;
        let more = match known.waiting {
            Waiting::Offsets { begin, end } => self.delivered_next().unwrap_or(begin) < end,
            // It may have given us as many as it gives at once: only with none of them in our hands it has to give more.
            Waiting::Undelivered(messages) => messages > 0 && self.held_messages == 0 && settled,
        };
        (more && self.phase == Phase::Owned && !self.paused).then_some(known)
    }

    /// Whether half of the bound is over in which something should have come.
    fn is_suspected(&self, bound_ms: u64, now_ms: u64) -> bool {
        let since_ms = now_ms.saturating_sub(self.watch.delivered_ms);
        self.could_deliver().is_some() && since_ms >= bound_ms / 2
    }

    fn lag(&self) -> Option<Lag> {
        let known = self.watch.backlog?;
        let messages = match known.waiting {
            Waiting::Offsets { begin, end } => {
                let next = self.frontier.next().unwrap_or(begin).max(begin);
                // Delivered, and the end was asked for before.
                let unfinished = u64::from(self.held_messages > 0);
                u64::try_from(end.saturating_sub(next)).unwrap_or(0).max(unfinished)
            }
            Waiting::Undelivered(messages) => messages.saturating_add(self.held_messages as u64),
        };
        Some(Lag { partition: self.partition.clone(), messages, asked_ms: known.asked_ms })
    }
}

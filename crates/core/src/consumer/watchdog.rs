//! Notices what does not go on, and says what it waits for.

use super::core::Core;
use super::lanes::{LaneState, TenureId};
use super::runs::Cancelled;
use super::tenure::Phase;
use super::types::{Action, Report, WaitsFor};
use crate::TopicPartition;

/// How often is looked, as a part of the bound: a stall is reported at most this part late.
const LOOKS_PER_BOUND: u64 = 4;

impl Core {
    /// The engine's end of a partition, if the shell knows it from time to time: what tells a partition that is at its end from one
    /// that the engine forgot.
    pub fn known_end(&mut self, partition: &TopicPartition, end: i64, now_ms: u64) {
        if let Some(tenure) = self.by_name.get(partition).and_then(|tenure_id| self.tenures.get_mut(tenure_id)) {
            let next = tenure.delivered_next();
            let had_more = next.zip(tenure.watch.end).is_some_and(|(next, end)| next < end);
            if !had_more {
                tenure.watch.delivered_ms = now_ms;
            }
            tenure.watch.end = Some(end);
        }
        self.go_on(now_ms);
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
        let (Some(next), Some(end)) = (tenure.delivered_next(), tenure.watch.end) else {
            return;
        };
        let waits = tenure.phase == Phase::Owned && !tenure.paused && next < end;
        if !waits || now_ms.saturating_sub(since_ms) < bound_ms {
            return;
        }
        // The next step only when this one had its time.
        tenure.watch.delivered_ms = now_ms;
        tenure.watch.urged = tenure.watch.urged.saturating_add(1);
        let (partition, urged) = (tenure.partition.clone(), tenure.watch.urged);
        self.report(Report::NoDeliveries { partition: partition.clone(), since_ms, next, end });
        self.act(match urged {
            1 => Action::Seek { partition, offset: next },
            _ => Action::Rejoin { partition },
        });
    }
}

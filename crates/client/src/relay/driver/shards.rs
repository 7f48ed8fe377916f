//! What a relay does with its shards: takes them, leaves them, and ends.

use std::time::Duration;

use baton_core::stamp::Instance;
use baton_outbox::{Members, OutboxError, Tenure};

use super::jobs::{PARKED_MAX, Taken};
use super::{DATABASE_WAIT_MS, DONE_LINGER_MS, Driver};
use crate::producer::clock::whole_ms;
use crate::relay::RelayError;
use crate::relay::sending::Content;

/// How long to wait for the database and for evidence when a relay ends.
const LEAVE_WAIT: Duration = Duration::from_secs(5);
/// How long nothing is looked at if nothing is due, in milliseconds.
const ROUND_MS: u64 = 1_000;

impl Driver {
    /// Who shares the outbox is known: takes and leaves shards.
    pub(super) fn turn_over(&mut self, members: &Members, asked_ms: u64, now_ms: u64) {
        self.renewed_ms = Some(asked_ms);
        let member = self.options.lease.member.clone();
        let owned = |shard: &u16| {
            let mut seen = members.shards.iter();
            seen.any(|seen| seen.shard == *shard && seen.owner.as_ref() == Some(&member))
        };
        let held = self.claims.held();
        let lost: Vec<u16> = held.iter().copied().filter(|shard| !owned(shard)).collect();
        lost.iter().for_each(|shard| self.claims.lost(*shard));
        self.lost(&lost, now_ms);
        if self.taking {
            // What bears our name and is not held may be on its way to us.
            return;
        }
        // What bears our name and is not held was left behind: by a process of the same name, or by an answer that was lost.
        let mut seen = members.shards.clone();
        for seen in &mut seen {
            seen.owner.take_if(|owner| *owner == member && !held.contains(&seen.shard));
        }
        let mut turnover = self.shares.turnover(&members.live, &seen, &self.claims.shards());
        // It is taken also by who has enough, to be left in order: with our name on it nobody else can.
        let strays = members.shards.iter().filter(|seen| owned(&seen.shard) && !held.contains(&seen.shard));
        let strays: Vec<u16> = strays.map(|seen| seen.shard).filter(|shard| !turnover.take.contains(shard)).collect();
        turnover.take.extend(strays);
        turnover.leave.iter().for_each(|shard| self.claims.leave(*shard, now_ms));
        self.release(now_ms);
        // Also without a shard to take: what is parked is read anew.
        self.taking = true;
        self.jobs.take(self.options.lease.clone(), turnover.take, self.claims.parked_mark());
    }

    /// Gives up what was left and has ended, or does not end.
    pub(super) fn release(&mut self, now_ms: u64) {
        let left = self.claims.left(now_ms);
        if left.is_empty() {
            return;
        }
        self.sending.forget(now_ms, |shard| left.iter().any(|(left, _)| *left == shard));
        for (shard, epoch) in left {
            self.jobs.release(shard, epoch);
        }
    }

    pub(super) fn taken(
        &mut self,
        taken: Result<Taken, OutboxError>,
        mark: Option<u64>,
        now_ms: u64,
    ) -> Result<(), RelayError> {
        self.taking = false;
        let Taken { shards, parked } = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.beat_ms = now_ms.saturating_add(DATABASE_WAIT_MS);
                return self.failed(error);
            }
        };
        self.halted = parked.len() > PARKED_MAX;
        if self.halted {
            tracing::error!(
                "more than {PARKED_MAX} rows are parked: nothing is sent until somebody has looked at them"
            );
        }
        let mut gained = Vec::new();
        for (Tenure { shard, epoch, window }, rows) in shards {
            let instance = Instance::new(format!("{}.{shard}", self.options.instance));
            let instance = instance.map_err(|error| RelayError::Setting(error.to_string()))?;
            match self.claims.gained(shard, epoch, instance, &window) {
                Ok(_) => gained.push((shard, rows)),
                Err(error) => {
                    tracing::error!(shard, %error, "this shard is not worked on");
                    self.jobs.release(shard, epoch);
                }
            }
        }
        self.claims.set_parked(mark, parked);
        // What was under way of an earlier tenure comes again, in its order.
        self.sending.forget(now_ms, |shard| gained.iter().any(|(gained, _)| *gained == shard));
        for (shard, rows) in gained {
            let outgoing = self.claims.resumed(shard, rows.into_iter().map(Content::of).collect(), now_ms);
            self.metrics.resumed += outgoing.len() as u64;
            self.sending.accept(outgoing, now_ms);
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, now_ms: u64, wait: Duration) {
        self.stop_ms = Some(now_ms.saturating_add(whole_ms(wait)));
        for shard in self.claims.shards() {
            self.claims.leave(shard, now_ms);
        }
    }

    pub(super) fn is_over(&mut self, now_ms: u64) -> bool {
        let Some(stop_ms) = self.stop_ms else { return false };
        let ended = self.claims.is_empty() && self.claims.unwritten() == 0;
        now_ms >= stop_ms || ended && !self.writing && !self.taking
    }

    /// The end: the others need not wait for leases to run out.
    pub(super) async fn leave(&mut self) {
        self.jobs.shutdown().await;
        let now_ms = self.clock.now_ms();
        if let Some((evidence, reports)) = self.parts.evidence.as_mut() {
            let claims = &mut self.claims;
            let flushed = async {
                if self.reporting {
                    let reported = reports.recv().await.unwrap_or_default();
                    reported.into_iter().for_each(|(report, stored)| claims.reported(report, stored, now_ms));
                }
                let last = claims.take_last_reports(now_ms);
                if !last.is_empty() && evidence.send(last).await.is_ok() {
                    reports.recv().await;
                }
            };
            _ = tokio::time::timeout(LEAVE_WAIT, flushed).await;
        }
        let left = tokio::time::timeout(LEAVE_WAIT, self.parts.store.leave(&self.options.lease)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("the relay's leases could not be given up: they end by themselves");
        }
    }

    /// When something is to be done if nothing comes.
    pub(super) fn due_ms(&self, now_ms: u64) -> u64 {
        let beat = (!self.beating && self.stop_ms.is_none()).then_some(self.beat_ms);
        let done = self.done_since_ms.map(|since_ms| (since_ms + DONE_LINGER_MS).max(self.write_ms));
        let done = done.filter(|_| !self.writing);
        let write = (!self.writing && self.write_ms > now_ms).then_some(self.write_ms);
        let look = (self.look_ms > now_ms).then_some(self.look_ms);
        let prune = self.options.keep_done.filter(|_| !self.pruning).map(|_| self.prune_ms);
        let send = self.sending.due_ms().filter(|_| self.has_leases(now_ms));
        let dues = [beat, done, write, look, prune, send, self.topics.ask_ms(), self.stop_ms];
        // Evidence is looked at now and then.
        dues.into_iter().flatten().min().unwrap_or(u64::MAX).min(now_ms.saturating_add(ROUND_MS))
    }
}

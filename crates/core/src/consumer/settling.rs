//! Telling the engine what is done. One settlement of all partitions is under way at a time: what is done meanwhile goes with the
//! next one, so that slow settlements become large ones, not many.

use super::core::{Core, Pending};
use super::done_codec::{self, Done};
use super::lanes::TenureId;
use super::settings::{Settling, pause_ms};
use super::tenure::Phase;
use super::types::{Action, Report, Settlement, Ticket};

#[derive(Debug, Default)]
pub(super) struct Settler {
    /// Partitions that have something to settle.
    listed: Vec<TenureId>,
    outstanding: Option<Outstanding>,
    /// When the last settlement was made.
    last_ms: Option<u64>,
    not_before_ms: u64,
    failures: u32,
    /// Some partition is closing: it does not wait for the interval.
    urgent: bool,
}

#[derive(Debug)]
struct Outstanding {
    ticket: Ticket,
    since_ms: u64,
    parts: Vec<(TenureId, Vec<i64>, Vec<i64>)>,
}

impl Settler {
    pub fn is_outstanding(&self, ticket: Ticket) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.ticket == ticket)
    }

    pub fn outstanding_since_ms(&self) -> Option<u64> {
        self.outstanding.as_ref().map(|outstanding| outstanding.since_ms)
    }
}

impl Core {
    /// Something of a partition was done.
    pub(super) fn has_to_settle(&mut self, tenure_id: TenureId) {
        if let Some(tenure) = self.tenures.get_mut(&tenure_id) {
            tenure.settle.changed = true;
            self.settler.urgent |= matches!(tenure.phase, Phase::Closing { .. });
            if !std::mem::replace(&mut tenure.settle.listed, true) {
                self.settler.listed.push(tenure_id);
            }
        }
    }

    /// When the next settlement is due.
    pub(super) fn settle_at_ms(&self) -> Option<u64> {
        if self.settler.listed.is_empty() || self.settler.outstanding.is_some() {
            return None;
        }
        let interval_ms = match self.settings.settling {
            Settling::Frontier if !self.settler.urgent => self.settings.settle_interval_ms,
            _ => 0,
        };
        let due_ms = self.settler.last_ms.map_or(0, |last_ms| last_ms.saturating_add(interval_ms));
        Some(due_ms.max(self.settler.not_before_ms))
    }

    /// Settles, if that is due.
    pub(super) fn settle_due(&mut self, now_ms: u64) {
        if self.settle_at_ms().is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        let (mut settlements, mut parts, mut nothing_new) = (Vec::new(), Vec::new(), Vec::new());
        for tenure_id in std::mem::take(&mut self.settler.listed) {
            let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
                continue;
            };
            tenure.settle.listed = false;
            tenure.settle.changed = false;
            match self.settings.settling {
                Settling::Frontier => {
                    let Some(settlement) = self.frontier_settlement(tenure_id) else {
                        nothing_new.push(tenure_id);
                        continue;
                    };
                    settlements.push(settlement);
                    parts.push((tenure_id, Vec::new(), Vec::new()));
                }
                Settling::Each => {
                    let done = std::mem::take(&mut tenure.settle.done);
                    let mut give_back = std::mem::take(&mut tenure.settle.give_back);
                    // As it came, so it comes again: lanes are emptied from behind.
                    give_back.sort_unstable();
                    if done.is_empty() && give_back.is_empty() {
                        nothing_new.push(tenure_id);
                        continue;
                    }
                    let partition = &tenure.partition;
                    settlements.extend(
                        done.iter().map(|offset| Settlement::Done { partition: partition.clone(), offset: *offset }),
                    );
                    settlements.extend(
                        give_back
                            .iter()
                            .map(|offset| Settlement::GiveBack { partition: partition.clone(), offset: *offset }),
                    );
                    parts.push((tenure_id, done, give_back));
                }
            }
            if let Some(tenure) = self.tenures.get_mut(&tenure_id) {
                tenure.settle.outstanding = true;
            }
        }
        self.settler.urgent = false;
        if !settlements.is_empty() {
            let ticket = Ticket(self.next_id());
            self.settler.last_ms = Some(now_ms);
            self.settler.outstanding = Some(Outstanding { ticket, since_ms: now_ms, parts });
            self.act(Action::Settle { ticket, settlements });
        }
        nothing_new.into_iter().for_each(|tenure_id| self.close_on(tenure_id, now_ms));
    }

    /// The interval counts from the first assignment.
    pub(super) fn settle_from(&mut self, now_ms: u64) {
        self.settler.last_ms.get_or_insert(now_ms);
    }

    /// What the engine is to be told; nothing if it knows.
    fn frontier_settlement(&mut self, tenure_id: TenureId) -> Option<Settlement> {
        let fresh_lineage = self.random().max(1);
        let ticket = Ticket(self.next_id());
        let tenure = self.tenures.get_mut(&tenure_id)?;
        let base = tenure.frontier.next()?;
        let lineage = if tenure.settle.stored { tenure.settle.lineage } else { 0 };
        let mut done = Done { base, lineage: 0, intervals: tenure.frontier.done_beyond() };
        let partition = tenure.partition.clone();
        let (mut metadata, whole) = done_codec::encode_text(&done, self.settings.metadata_bytes_max);
        if !whole {
            if self.settings.side_store {
                done.lineage = lineage;
                (metadata, _) = done_codec::encode_text(&done, self.settings.metadata_bytes_max);
                if tenure.settle.storing.is_none() {
                    if tenure.settle.lineage == 0 {
                        tenure.settle.lineage = fresh_lineage;
                    }
                    done.lineage = tenure.settle.lineage;
                    let (bytes, _) = done_codec::encode(&done, self.settings.side_store_bytes_max);
                    tenure.settle.storing = Some(ticket);
                    self.pending.insert(ticket, (tenure_id, Pending::StoreDone));
                    self.act(Action::StoreDone { ticket, partition: partition.clone(), bytes });
                }
            } else {
                self.report(Report::DoneCut { partition: partition.clone() });
            }
        }
        let tenure = self.tenures.get_mut(&tenure_id)?;
        if tenure.settle.told.as_ref().is_some_and(|(next, told)| *next == base && *told == metadata) {
            return None;
        }
        tenure.settle.told = Some((base, metadata.clone()));
        Some(Settlement::Frontier { partition, next: base, metadata })
    }

    /// The set of what is done is stored beside the engine, or could not be: then the next settlement tries it again.
    pub(super) fn done_is_stored(&mut self, tenure_id: TenureId, failed: bool) {
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        tenure.settle.storing = None;
        if failed || !std::mem::replace(&mut tenure.settle.stored, true) {
            // The first set of a lineage counts only when a settlement names it.
            self.has_to_settle(tenure_id);
        }
    }

    /// The settlement was answered.
    pub(super) fn settled(&mut self, failed: bool, now_ms: u64) {
        let Some(outstanding) = self.settler.outstanding.take() else {
            return;
        };
        self.settler.failures = if failed { self.settler.failures.saturating_add(1) } else { 0 };
        let random = self.random();
        self.settler.not_before_ms = match failed {
            true => now_ms.saturating_add(pause_ms(&self.settings.retry, self.settler.failures, random)),
            false => 0,
        };
        for (tenure_id, done, give_back) in outstanding.parts {
            let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
                continue;
            };
            tenure.settle.outstanding = false;
            if failed {
                tenure.settle.told = None;
                tenure.settle.done.extend(done);
                tenure.settle.give_back.extend(give_back);
                self.has_to_settle(tenure_id);
            }
            self.close_on(tenure_id, now_ms);
        }
    }
}

//! What a relay says of the sequences of its shards.

use super::{Claims, Under};
use crate::stamp::Instance;
use crate::{Fate, Report, ReportedSequence, SequenceEvidence};

impl<T> Claims<T> {
    /// Of a claim that was made under an older epoch: that it is under way again, or how it ended.
    pub(super) fn older(&mut self, instance: &Instance, under: &Under, ended: Option<Result<(), Fate>>, now_ms: u64) {
        let sequence = under.claimed.sequence;
        let mut evidence = SequenceEvidence { highest: sequence, ..SequenceEvidence::default() };
        match ended {
            None => {}
            Some(Ok(())) => _ = evidence.acknowledged.insert(sequence),
            Some(Err(Fate::NotStored)) => _ = evidence.not_stored.insert(sequence),
            Some(Err(Fate::Unknown)) => _ = evidence.unknown.insert(sequence),
        }
        let told = ReportedSequence { epoch: under.claimed.epoch, partition: under.to.clone(), evidence };
        self.others.give_back(instance, vec![told], now_ms);
    }

    /// What is to be reported now: numbers that were allotted, and how those that ended did. Each report is to be sent, and then handed to
    /// [`Claims::reported`].
    pub fn take_reports(&mut self, now_ms: u64) -> Vec<Report> {
        let is_due = |due_ms: Option<u64>| due_ms.is_some_and(|due_ms| due_ms <= now_ms);
        let due = self.shards.values_mut().filter(|shard| is_due(shard.sequences.report_due_ms()));
        let mut reports: Vec<Report> = due.flat_map(|shard| shard.sequences.take_reports(now_ms)).collect();
        if is_due(self.others.due_ms()) {
            reports.extend(self.others.take_reports(now_ms));
        }
        reports
    }

    /// All that was not reported yet, at the end: no shard is ours any more.
    pub fn take_last_reports(&mut self, now_ms: u64) -> Vec<Report> {
        let shards: Vec<u16> = self.shards.keys().copied().collect();
        shards.into_iter().for_each(|shard| self.forget(shard));
        self.others.take_reports(now_ms)
    }

    /// Whether a report was stored. What was not is said again.
    pub fn reported(&mut self, report: Report, stored: bool, now_ms: u64) {
        let shard = self.shards.values_mut().find(|shard| shard.instance == report.instance);
        let instance = report.instance.clone();
        let others = match (shard, stored) {
            (Some(shard), true) => return shard.sequences.reported(report),
            (None, true) => return,
            (Some(shard), false) => shard.sequences.give_back(report, now_ms),
            (None, false) => report.sequences,
        };
        self.others.give_back(&instance, others, now_ms);
    }
}

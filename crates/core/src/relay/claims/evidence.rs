//! What a relay says of the sequences of its shards.

use std::collections::BTreeMap;

use super::{Claims, Shard};
use crate::relay::Claimed;
use crate::{Fate, Report, ReportedSequence, SequenceEvidence, TopicPartition};

/// Reports that wait to be sent again after their shard is gone: what does not fit is missing in the evidence of a relay that has lost its
/// shards and its engine at the same time.
const REPORTS_MAX: usize = 1_000;

/// Of claims that were made under older epochs, what has ended since.
#[derive(Debug, Default)]
pub(super) struct Older(BTreeMap<(u32, TopicPartition), SequenceEvidence>);

impl Older {
    /// It was claimed, and is under way again.
    pub(super) fn resumed(&mut self, to: &TopicPartition, claimed: Claimed) {
        let evidence = self.0.entry((claimed.epoch, to.clone())).or_default();
        evidence.highest = evidence.highest.max(claimed.sequence);
    }

    pub(super) fn ended(&mut self, to: &TopicPartition, claimed: Claimed, refused: Option<Fate>) {
        let evidence = self.0.entry((claimed.epoch, to.clone())).or_default();
        evidence.highest = evidence.highest.max(claimed.sequence);
        let set = match refused {
            None => &mut evidence.acknowledged,
            Some(Fate::NotStored) => &mut evidence.not_stored,
            Some(Fate::Unknown) => &mut evidence.unknown,
        };
        set.insert(claimed.sequence);
    }

    fn take(&mut self) -> impl Iterator<Item = ReportedSequence> {
        let taken = std::mem::take(&mut self.0).into_iter();
        taken.map(|((epoch, partition), evidence)| ReportedSequence { epoch, partition, evidence })
    }

    fn merge(&mut self, reported: ReportedSequence) {
        let ReportedSequence { epoch, partition, evidence } = reported;
        self.0.entry((epoch, partition)).or_default().merge(&evidence);
    }
}

impl Shard {
    pub(super) fn take_reports(&mut self, now_ms: u64, last: bool) -> Vec<Report> {
        let mut reports = match last {
            true => self.sequences.take_last_reports(now_ms),
            false => self.sequences.take_reports(now_ms),
        };
        reports.extend(Report::split(&self.instance, now_ms, self.older.take()));
        reports
    }
}

impl<T> Claims<T> {
    /// What is to be reported now: numbers that were allotted, and how those that ended did. Each report is to be sent, and then handed to
    /// [`Claims::reported`].
    pub fn take_reports(&mut self, now_ms: u64) -> Vec<Report> {
        let mut reports = std::mem::take(&mut self.reports);
        let due = |shard: &&mut Shard| {
            let due_ms = shard.sequences.report_due_ms();
            due_ms.is_some_and(|due_ms| due_ms <= now_ms) || !shard.older.0.is_empty()
        };
        reports.extend(self.shards.values_mut().filter(due).flat_map(|shard| shard.take_reports(now_ms, false)));
        reports
    }

    /// Whether a report was stored. What was not is said again.
    pub fn reported(&mut self, report: Report, stored: bool, now_ms: u64) {
        let shard = self.shards.values_mut().find(|shard| shard.instance == report.instance);
        let Some(shard) = shard else {
            if !stored && self.reports.len() < REPORTS_MAX {
                self.reports.push(report);
            }
            return;
        };
        let (epoch, instance, at_ms) = (shard.epoch, report.instance.clone(), report.at_ms);
        let (ours, older): (Vec<_>, Vec<_>) = report.sequences.into_iter().partition(|one| one.epoch == epoch);
        let ours = Report { instance, at_ms, sequences: ours, consumption: None };
        if stored {
            shard.sequences.reported(ours);
        } else {
            shard.sequences.give_back(ours, now_ms);
            older.into_iter().for_each(|one| shard.older.merge(one));
        }
    }
}

//! The evidence of all stages side by side, and the differences between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::group::{Counts, GroupEvidence, Seen, SequenceName};
use super::{Report, SequenceEvidence};
use crate::stamp::Instance;
use crate::{Ranges, TopicPartition};

/// What all reports say together, of producers and of groups. It does not matter in which order they are added, or how often.
///
/// It holds ranges: it grows with the sequences and with what is wrong, not with the messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    sequences: BTreeMap<SequenceName, Entry>,
    /// By group, partition, and the consumer that counted.
    unstamped: BTreeMap<(Arc<str>, TopicPartition, Instance), Counts>,
    untold: BTreeMap<(Arc<str>, Instance), u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    produced: SequenceEvidence,
    groups: BTreeMap<Arc<str>, GroupEvidence>,
}

/// What became of the messages of one sequence in one group, and where there are differences. A number is in none of the sets that it has
/// no business in; what is in flight is a difference too, until later reports have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The engine acknowledged it, and the group was not handed it: in flight, or lost by the engine or by its retention.
    pub not_delivered: Ranges,
    /// The group was handed it, and it has no end: it is being handled, or its consumer has ended and it comes again.
    pub not_ended: Ranges,
    /// It is parked, and did not end in another way since.
    pub still_parked: Ranges,
    /// It was handed to the group, and its producer was never told that it is stored: of unknown fate, or its producer died. No loss.
    pub not_acknowledged: Ranges,
    /// It was handed to the group, and its producer said that it is certainly not stored: a bug.
    pub not_stored: Ranges,
}

impl Account {
    /// Whether everything that was acknowledged was delivered, and everything that was delivered has ended.
    pub fn is_balanced(&self) -> bool {
        self.not_delivered.is_empty() && self.not_ended.is_empty() && self.not_stored.is_empty()
    }
}

impl Ledger {
    /// Adds what a report says.
    pub fn add(&mut self, report: &Report) {
        for reported in &report.sequences {
            let (instance, partition) = (report.instance.clone(), reported.partition.clone());
            let name = SequenceName { partition, instance, epoch: reported.epoch };
            self.sequences.entry(name).or_default().produced.merge(&reported.evidence);
        }
        let Some(consumption) = &report.consumption else { return };
        let group = &consumption.group;
        for consumed in &consumption.sequences {
            let entry = self.sequences.entry(consumed.name.clone()).or_default();
            entry.groups.entry(Arc::clone(group)).or_default().merge(&consumed.evidence);
        }
        for counted in &consumption.unstamped {
            let by = (Arc::clone(group), counted.partition.clone(), report.instance.clone());
            self.unstamped.entry(by).or_default().merge(&counted.counts);
        }
        let untold = self.untold.entry((Arc::clone(group), report.instance.clone())).or_default();
        *untold = consumption.untold.max(*untold);
    }

    /// All sequences that somebody has reported of.
    pub fn sequences(&self) -> impl Iterator<Item = &SequenceName> {
        self.sequences.keys()
    }

    /// What the producer of a sequence said of it.
    pub fn produced(&self, name: &SequenceName) -> Option<&SequenceEvidence> {
        self.sequences.get(name).map(|entry| &entry.produced)
    }

    /// What the consumers of a group said of a sequence.
    pub fn consumed(&self, group: &str, name: &SequenceName) -> Option<&GroupEvidence> {
        self.sequences.get(name)?.groups.get(group)
    }

    /// Of how many messages of a partition that have no number a group's consumers saw this.
    pub fn unstamped(&self, group: &str, partition: &TopicPartition, seen: Seen) -> u64 {
        let ours = self.unstamped.iter().filter(|((of, at, _), _)| **of == *group && at == partition);
        ours.map(|(_, counts)| counts.of(seen)).sum()
    }

    /// How often the consumers of a group saw something that is in no report. If it is not 0, a difference may be one of the reports only.
    pub fn untold(&self, group: &str) -> u64 {
        self.untold.iter().filter(|((of, _), _)| **of == *group).map(|(_, untold)| untold).sum()
    }

    /// What became of each sequence of a topic in a group that consumes it: also of those of which the group said nothing.
    pub fn accounts(&self, group: &str, topic: &str) -> impl Iterator<Item = (&SequenceName, Account)> {
        let of_topic = self.sequences.iter().filter(move |(name, _)| *name.partition.topic == *topic);
        of_topic.map(move |(name, entry)| (name, entry.account(group)))
    }
}

impl Entry {
    fn account(&self, group: &str) -> Account {
        let (nothing, produced) = (GroupEvidence::default(), &self.produced);
        let consumed = self.groups.get(group).unwrap_or(&nothing);
        let (delivered, ended) = (consumed.delivered(), consumed.ended());
        let elsewhere = consumed.united(|seen| !matches!(seen, Seen::Delivered | Seen::Parked | Seen::DoneBefore));
        let mut not_stored = produced.not_stored.clone();
        not_stored.subtract(&without(&produced.not_stored, &delivered));
        Account {
            not_delivered: without(&produced.acknowledged, &delivered),
            not_ended: without(&delivered, &ended),
            still_parked: without(consumed.of(Seen::Parked), &elsewhere),
            not_acknowledged: without(&without(&delivered, &produced.acknowledged), &not_stored),
            not_stored,
        }
    }
}

/// What is in one set and not in the other.
fn without(set: &Ranges, other: &Ranges) -> Ranges {
    let mut rest = set.clone();
    rest.subtract(other);
    rest
}

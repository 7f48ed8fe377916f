//! What producers and consumers say about sequences, so that an auditor can tell a loss from what was never sent, and names the stage
//! that lost it. Written down in `docs/EVIDENCE.md`.

pub(crate) mod agenda;
mod document;
mod group;
mod ledger;
mod pieces;

use std::sync::Arc;

use thiserror::Error;

pub use group::{
    ConsumedSequence, Consumption, Counts, GroupEvidence, REPORTED_GROUP_BYTES_MAX, Seen, SequenceName, Unstamped,
};
pub use ledger::{Account, Ledger};
use pieces::{FIXED_BYTES, Said, json_length};

use crate::stamp::{BadInstance, Instance, SEQUENCE_MAX};
use crate::{Ranges, TopicPartition};

/// The topic that reports go to, under the instance's name as key.
pub const EVIDENCE_TOPIC: &str = "baton.evidence";
/// The version that is written, and the only one that is read.
pub const EVIDENCE_VERSION: u32 = 1;
/// Longest report, in bytes: well below the 1 MB that Kafka takes unless it is told otherwise. What is longer becomes several reports.
pub const REPORT_BYTES_MAX: usize = 256 * 1024;
/// Longest name of a topic, in bytes: RabbitMQ's limit for queues; Kafka's and RocketMQ's are lower.
pub const TOPIC_BYTES_MAX: usize = 255;

/// What is known of one sequence. Joining what several reports say is a union, so it does not matter in which order they come or how
/// often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceEvidence {
    /// The highest number that was allotted. Numbers up to it that are in none of the sets are in flight.
    pub highest: u64,
    /// Numbers of messages that the engine acknowledged.
    pub acknowledged: Ranges,
    /// Numbers of messages that were given up and are certainly not stored.
    pub not_stored: Ranges,
    /// Numbers of messages that were given up and may be stored, then or later.
    pub unknown: Ranges,
    /// Whether no number above `highest` will ever be allotted.
    pub closed: bool,
}

/// What a report says of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedSequence {
    /// The epoch of the producer instance.
    pub epoch: u32,
    /// To which partition the messages went.
    pub partition: TopicPartition,
    /// What ended since the report before.
    pub evidence: SequenceEvidence,
}

/// What a producer instance or a consumer reports at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who reports: a producer instance, or one run of a consumer, which is called in the same way.
    pub instance: Instance,
    /// When, in milliseconds since 1970, by the clock of who reports; for people.
    pub at_ms: u64,
    /// About what it produced.
    pub sequences: Vec<ReportedSequence>,
    /// About what it consumed, if it is a consumer.
    pub consumption: Option<Consumption>,
}

/// Not a report.
#[derive(Debug, Error)]
pub enum BadReport {
    /// It is too long.
    #[error("a report has at most {REPORT_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Written by a newer Baton.
    #[error(
        "the report is of version {0}, newer than the {EVIDENCE_VERSION} known here: update auditors before producers"
    )]
    Newer(u32),
    /// It is not JSON, or not of this shape.
    #[error("not a report: {0}")]
    Json(#[from] serde_json::Error),
    /// The instance has no proper name.
    #[error(transparent)]
    Instance(#[from] BadInstance),
    /// It says what cannot be.
    #[error("sequence {index} of the report: {what}")]
    Sequence {
        /// Which of its sequences, from 0.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It says what cannot be of something that was consumed.
    #[error("entry {index} of what was consumed: {what}")]
    Consumed {
        /// Which of the entries of its list, from 0.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It says what was consumed, and not by whom.
    #[error("the name of the group that consumed has 1 to {REPORTED_GROUP_BYTES_MAX} bytes")]
    Group,
}

impl SequenceEvidence {
    /// Adds what another report says of the same sequence.
    pub fn merge(&mut self, other: &Self) {
        self.highest = self.highest.max(other.highest);
        self.acknowledged.union(&other.acknowledged);
        self.not_stored.union(&other.not_stored);
        self.unknown.union(&other.unknown);
        self.closed |= other.closed;
    }

    /// What was allotted and has not ended yet, as far as is known.
    pub fn in_flight(&self) -> Ranges {
        let mut open: Ranges = (self.highest > 0).then_some(1..=self.highest).into_iter().collect();
        for ended in self.sets() {
            open.subtract(ended);
        }
        open
    }

    /// How many intervals it takes.
    pub fn intervals(&self) -> usize {
        self.sets().map(Ranges::intervals).iter().sum()
    }

    fn sets(&self) -> [&Ranges; 3] {
        [&self.acknowledged, &self.not_stored, &self.unknown]
    }

    fn check(&self) -> Result<(), &'static str> {
        let [acknowledged, not_stored, unknown] = self.sets();
        let within = |set: &Ranges| set.first().is_none_or(|first| first >= 1) && set.last() <= Some(self.highest);
        if self.highest > SEQUENCE_MAX {
            return Err("the highest number is above 2^53 - 1");
        }
        if ![acknowledged, not_stored, unknown].into_iter().all(within) {
            return Err("a range is not between 1 and the highest number");
        }
        if acknowledged.intersects(not_stored) || acknowledged.intersects(unknown) || not_stored.intersects(unknown) {
            return Err("a number ended in two ways");
        }
        Ok(())
    }
}

impl Said for SequenceEvidence {
    fn intervals(&self) -> usize {
        Self::intervals(self)
    }

    fn cut(self, intervals: usize) -> (Self, Option<Self>) {
        if self.intervals() <= intervals {
            return (self, None);
        }
        let whole = |[acknowledged, not_stored, unknown]: [Ranges; 3], closed| {
            let highest = self.highest;
            Self { highest, acknowledged, not_stored, unknown, closed }
        };
        let (near, far) = pieces::cut(self.sets(), intervals);
        (whole(near, false), Some(whole(far, self.closed)))
    }
}

impl Report {
    /// As many reports as it takes, each short enough to be encoded. A sequence that is cut says that it is closed in its last piece.
    pub fn split(instance: &Instance, at_ms: u64, sequences: impl IntoIterator<Item = ReportedSequence>) -> Vec<Self> {
        let named = sequences.into_iter().map(|ReportedSequence { epoch, partition, evidence }| {
            let bytes = json_length(&partition.topic);
            ((epoch, partition), bytes, evidence)
        });
        let whole = |((epoch, partition), evidence)| ReportedSequence { epoch, partition, evidence };
        let report = |list: Vec<_>| Self {
            instance: instance.clone(),
            at_ms,
            sequences: list.into_iter().map(whole).collect(),
            consumption: None,
        };
        pieces::lists(0, named).into_iter().map(report).collect()
    }

    /// The same of what was consumed; at least one report.
    pub fn split_consumption(instance: &Instance, at_ms: u64, consumption: Consumption) -> Vec<Self> {
        let Consumption { group, sequences, unstamped, untold } = consumption;
        let named = sequences.into_iter().map(|ConsumedSequence { name, evidence }| {
            let bytes = json_length(&name.partition.topic) + json_length(&name.instance);
            (name, bytes, evidence)
        });
        let besides = json_length(&group);
        let whole = |(name, evidence)| ConsumedSequence { name, evidence };
        let mut parts: Vec<(Vec<ConsumedSequence>, Vec<Unstamped>)> = pieces::lists(besides, named)
            .into_iter()
            .map(|list| (list.into_iter().map(whole).collect(), Vec::new()))
            .collect();
        let mut room = 0;
        for counted in unstamped {
            let bytes = FIXED_BYTES + json_length(&counted.partition.topic);
            if room < bytes {
                parts.push((Vec::new(), Vec::new()));
                room = REPORT_BYTES_MAX - FIXED_BYTES - besides;
            }
            room -= bytes;
            parts.last_mut().into_iter().for_each(|(_, list)| list.push(counted.clone()));
        }
        if parts.is_empty() {
            parts.push((Vec::new(), Vec::new()));
        }
        let report = |(sequences, unstamped)| {
            let consumption = Some(Consumption { group: Arc::clone(&group), sequences, unstamped, untold });
            Self { instance: instance.clone(), at_ms, sequences: Vec::new(), consumption }
        };
        parts.into_iter().map(report).collect()
    }
}

//! What a consumer says about the sequences whose messages it was handed.

use std::fmt;
use std::sync::Arc;

use super::pieces::{self, Said};
use crate::stamp::Instance;
use crate::{Ranges, TopicPartition};

/// Longest name of a group, in bytes; the same as guards take.
pub const REPORTED_GROUP_BYTES_MAX: usize = 255;

/// The name of a sequence: all messages of one instance and epoch to one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceName {
    /// The partition that they were first sent to, wherever they were read.
    pub partition: TopicPartition,
    /// The producer instance.
    pub instance: Instance,
    /// Its epoch.
    pub epoch: u32,
}

/// As `orders-3 of orders-1 in epoch 7`.
impl fmt::Display for SequenceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} in epoch {}", self.partition, self.instance, self.epoch)
    }
}

/// What a consumer saw of a message. All but the first are ends, and a message can have several of them: parked and then applied, applied
/// and then, when it came again, found to be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seen {
    /// It was handed to the consumer.
    Delivered,
    /// Its handler went well, and with a guard its effect is committed.
    Applied,
    /// The guard said that its effect was there before.
    AlreadyApplied,
    /// A filter skipped it.
    Filtered,
    /// Its dead letter is durable.
    DeadLettered,
    /// It is durably parked.
    Parked,
    /// It was not handled, since the group's own settlement said that it was done: by an owner before, who may have ended without
    /// reporting how.
    DoneBefore,
}

impl Seen {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Delivered,
        Self::Applied,
        Self::AlreadyApplied,
        Self::Filtered,
        Self::DeadLettered,
        Self::Parked,
        Self::DoneBefore,
    ];
}

/// What is known of a sequence from a group's consumers. Joining what several reports say is a union, so it does not matter in which order
/// they come or how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupEvidence(pub(super) [Ranges; Seen::ALL.len()]);

impl GroupEvidence {
    /// Numbers of messages of which this was seen.
    pub fn of(&self, seen: Seen) -> &Ranges {
        &self.0[seen as usize]
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, seen: Seen) -> &mut Ranges {
        &mut self.0[seen as usize]
    }

    /// Numbers of messages that were handed to a consumer: also those of which only the end is known.
    pub fn delivered(&self) -> Ranges {
        self.united(|_| true)
    }

    /// Numbers of messages that ended in one way or several.
    pub fn ended(&self) -> Ranges {
        self.united(|seen| seen != Seen::Delivered)
    }

    /// Adds what another report says of the same sequence.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(set, more)| set.union(more));
    }

    /// How many intervals it takes.
    pub fn intervals(&self) -> usize {
        self.0.iter().map(Ranges::intervals).sum()
    }

    pub(super) fn united(&self, which: impl Fn(Seen) -> bool) -> Ranges {
        let mut all = Ranges::new();
        Seen::ALL.into_iter().filter(|seen| which(*seen)).for_each(|seen| all.union(self.of(seen)));
        all
    }
}

impl Said for GroupEvidence {
    fn intervals(&self) -> usize {
        Self::intervals(self)
    }

    fn cut(self, intervals: usize) -> (Self, Option<Self>) {
        if self.intervals() <= intervals {
            return (self, None);
        }
        let (near, far) = pieces::cut(self.0.each_ref(), intervals);
        (Self(near), Some(Self(far)))
    }
}

/// How many messages a consumer saw, of those that have no number. Counted since it began: of several reports of one consumer the highest
/// counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts(pub(super) [u64; Seen::ALL.len()]);

impl Counts {
    /// Of how many this was seen.
    pub fn of(&self, seen: Seen) -> u64 {
        self.0[seen as usize]
    }

    /// One more.
    pub fn add(&mut self, seen: Seen) {
        self.0[seen as usize] += 1;
    }

    /// Another report of the same consumer and partition.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, other)| *count = (*count).max(other));
    }
}

/// What a consumer says of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedSequence {
    /// Which one.
    pub name: SequenceName,
    /// What was seen since the report before.
    pub evidence: GroupEvidence,
}

/// What a consumer says of the messages of a partition that have no stamp, or one that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstamped {
    /// Where they came from.
    pub partition: TopicPartition,
    /// How many there were.
    pub counts: Counts,
}

/// What a report says for a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumption {
    /// Which group.
    pub group: Arc<str>,
    /// Of messages with numbers.
    pub sequences: Vec<ConsumedSequence>,
    /// Of messages without.
    pub unstamped: Vec<Unstamped>,
    /// How often since this consumer began something was seen that is in no report, because too much waited to be reported. If it is not 0,
    /// nothing can be concluded from what this consumer does not say.
    pub untold: u64,
}

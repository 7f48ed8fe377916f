//! Which number each message gets, and what became of it.

use std::collections::HashMap;

use thiserror::Error;

use crate::evidence::agenda::{Agenda, UNREPORTED_INTERVALS_MAX};
use crate::evidence::{Report, ReportedSequence, SequenceEvidence, TOPIC_BYTES_MAX};
use crate::stamp::{Instance, SEQUENCE_MAX};
use crate::{Ranges, TopicPartition};

/// How many sequences a producer may have at a time: a few hundred bytes each.
pub const SEQUENCES_MAX: usize = 10_000;

/// What is known of a message that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is certainly not stored.
    NotStored,
    /// It may be stored, now or later.
    Unknown,
}

/// A number that was allotted. It can be used once, to say how the message ended; a ticket that is dropped stays in flight for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the message stays in flight until it is said how it ended"]
pub struct Ticket {
    slot: usize,
    epoch: u32,
    sequence: u64,
}

impl Ticket {
    /// The epoch of the sequence.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// No number now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoSequence {
    /// There are too many sequences.
    #[error(
        "the producer has {0} sequences already, one for each partition it sends to: expire idle ones, or use more producers"
    )]
    TooMany(usize),
    /// Too much waits to be reported.
    #[error("too much waits to be reported to {}: that topic cannot be written", crate::EVIDENCE_TOPIC)]
    Unreported,
    /// The topic cannot have this name.
    #[error("the name of a topic has 1 to {TOPIC_BYTES_MAX} bytes, this one has {0}")]
    TopicName(usize),
    /// The numbers are used up.
    #[error("the sequence has reached {SEQUENCE_MAX}: start the producer again, under a new epoch")]
    UsedUp,
    /// The last reports were taken.
    #[error("the producer is closed")]
    Closed,
}

/// The new epoch is not above the one that was used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("epoch {new} is not above {current}: a number of a sequence that expired would be used again")]
pub struct EpochTooLow {
    /// What was given.
    pub new: u32,
    /// What it has to be above.
    pub current: u32,
}

/// All the sequences of a producer instance: allots their numbers, hears how each message ended, and says so in reports.
#[derive(Debug)]
pub struct Sequences {
    instance: Instance,
    epoch: u32,
    sequences_max: usize,
    intervals_max: usize,
    places: HashMap<TopicPartition, usize>,
    slots: Vec<Option<Sequence>>,
    free: Vec<usize>,
    /// Slots with something to report.
    changed: Vec<usize>,
    agenda: Agenda,
    closed: bool,
}

#[derive(Debug)]
struct Sequence {
    partition: TopicPartition,
    epoch: u32,
    in_flight: u64,
    used_ms: u64,
    /// Reports under way that say something about it.
    reports: usize,
    changed: bool,
    unreported: SequenceEvidence,
}

impl Sequences {
    /// None yet. The epoch must be above all that this instance used before, in other processes too.
    pub fn new(instance: Instance, epoch: u32) -> Self {
        Self {
            instance,
            epoch,
            sequences_max: SEQUENCES_MAX,
            intervals_max: UNREPORTED_INTERVALS_MAX,
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            changed: Vec::new(),
            agenda: Agenda::default(),
            closed: false,
        }
    }

    /// Sets the bounds; see [`SEQUENCES_MAX`] and [`UNREPORTED_INTERVALS_MAX`].
    #[must_use]
    pub fn bounds(mut self, sequences_max: usize, unreported_intervals_max: usize) -> Self {
        (self.sequences_max, self.intervals_max) = (sequences_max, unreported_intervals_max);
        self
    }

    /// Whose sequences they are.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many messages have a number and have not ended.
    pub fn in_flight(&self) -> u64 {
        self.slots.iter().flatten().map(|sequence| sequence.in_flight).sum()
    }

    /// The next number of a partition. To be called when the message is handed to the engine, and not before: numbers have no gaps.
    pub fn allot(&mut self, partition: &TopicPartition, now_ms: u64) -> Result<Ticket, NoSequence> {
        self.allot_at(&mut None, partition, now_ms)
    }

    /// The same for who keeps where the sequence was the last time, so that it is not looked for again. `place` may say anything.
    pub(crate) fn allot_at(
        &mut self,
        place: &mut Option<usize>,
        partition: &TopicPartition,
        now_ms: u64,
    ) -> Result<Ticket, NoSequence> {
        if self.closed {
            return Err(NoSequence::Closed);
        }
        if self.agenda.intervals() >= self.intervals_max {
            return Err(NoSequence::Unreported);
        }
        let still = place.filter(|slot| {
            let sequence = self.slots.get(*slot).and_then(Option::as_ref);
            sequence.is_some_and(|sequence| sequence.partition == *partition)
        });
        let slot = match still.or_else(|| self.places.get(partition).copied()) {
            Some(slot) => slot,
            None => self.open(partition)?,
        };
        *place = Some(slot);
        // A place always leads to a sequence: both are made in `open` and go in `expire`.
        let sequence = self.slots[slot].as_mut().ok_or(NoSequence::UsedUp)?;
        if sequence.unreported.highest >= SEQUENCE_MAX {
            return Err(NoSequence::UsedUp);
        }
        sequence.unreported.highest += 1;
        sequence.in_flight += 1;
        let ticket = Ticket { slot, epoch: sequence.epoch, sequence: sequence.unreported.highest };
        self.touch(slot, now_ms);
        Ok(ticket)
    }

    /// The engine has the message. `false`: the ticket is of other sequences, and nothing was done.
    pub fn acknowledged(&mut self, ticket: Ticket, now_ms: u64) -> bool {
        self.end(&ticket, now_ms, |evidence| &mut evidence.acknowledged)
    }

    /// The message was given up. `false`: the ticket is of other sequences, and nothing was done.
    pub fn abandoned(&mut self, ticket: Ticket, fate: Fate, now_ms: u64) -> bool {
        self.end(&ticket, now_ms, |evidence| match fate {
            Fate::NotStored => &mut evidence.not_stored,
            Fate::Unknown => &mut evidence.unknown,
        })
    }

    /// The same of a number whose ticket is gone, because its message was kept elsewhere meanwhile. `false`: the number is of other
    /// sequences, and nothing was done. Must be said once for each number.
    pub fn acknowledged_later(&mut self, partition: &TopicPartition, epoch: u32, sequence: u64, now_ms: u64) -> bool {
        let Some(slot) = self.places.get(partition).copied() else { return false };
        self.acknowledged(Ticket { slot, epoch, sequence }, now_ms)
    }

    fn end(&mut self, ticket: &Ticket, now_ms: u64, set: impl FnOnce(&mut SequenceEvidence) -> &mut Ranges) -> bool {
        let ours = |sequence: &&mut Sequence| {
            sequence.epoch == ticket.epoch && sequence.unreported.highest >= ticket.sequence && sequence.in_flight > 0
        };
        let Some(sequence) = self.slots.get_mut(ticket.slot).and_then(Option::as_mut).filter(ours) else {
            return false;
        };
        self.agenda.insert(set(&mut sequence.unreported), ticket.sequence..=ticket.sequence);
        sequence.in_flight -= 1;
        self.agenda.ended();
        self.touch(ticket.slot, now_ms);
        true
    }

    fn open(&mut self, partition: &TopicPartition) -> Result<usize, NoSequence> {
        if partition.topic.is_empty() || partition.topic.len() > TOPIC_BYTES_MAX {
            return Err(NoSequence::TopicName(partition.topic.len()));
        }
        if self.places.len() >= self.sequences_max {
            return Err(NoSequence::TooMany(self.places.len()));
        }
        let sequence = Sequence {
            partition: partition.clone(),
            epoch: self.epoch,
            in_flight: 0,
            used_ms: 0,
            reports: 0,
            changed: false,
            unreported: SequenceEvidence::default(),
        };
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(Some(sequence));
        } else {
            self.slots[slot] = Some(sequence);
        }
        self.places.insert(partition.clone(), slot);
        Ok(slot)
    }

    /// There is something to report of a sequence.
    fn touch(&mut self, slot: usize, now_ms: u64) {
        if let Some(sequence) = self.slots[slot].as_mut() {
            sequence.used_ms = sequence.used_ms.max(now_ms);
            if !std::mem::replace(&mut sequence.changed, true) {
                self.changed.push(slot);
            }
            self.agenda.changed(now_ms);
        }
    }

    /// When a report is due, if anything has changed; 0: now.
    pub fn report_due_ms(&self) -> Option<u64> {
        self.agenda.due_ms()
    }

    /// What has changed since this was called last. Each report is to be sent and then handed to [`Sequences::reported`], or to
    /// [`Sequences::give_back`] if that failed.
    pub fn take_reports(&mut self, now_ms: u64) -> Vec<Report> {
        let slots = std::mem::take(&mut self.changed);
        self.report(slots, false, now_ms)
    }

    /// The last reports: all sequences, closed. No number is allotted after it; what is in flight may still end, and is reported by
    /// calling this again.
    pub fn take_last_reports(&mut self, now_ms: u64) -> Vec<Report> {
        self.closed = true;
        self.changed.clear();
        self.report((0..self.slots.len()).collect(), true, now_ms)
    }

    fn report(&mut self, slots: Vec<usize>, closed: bool, now_ms: u64) -> Vec<Report> {
        self.agenda.begin();
        let mut sequences = Vec::with_capacity(slots.len());
        for slot in slots {
            let Some(sequence) = self.slots[slot].as_mut() else { continue };
            sequence.changed = false;
            let highest = sequence.unreported.highest;
            let rest = SequenceEvidence { highest, ..SequenceEvidence::default() };
            let mut evidence = std::mem::replace(&mut sequence.unreported, rest);
            evidence.closed |= closed;
            self.agenda.took(evidence.intervals());
            sequences.push(ReportedSequence { epoch: sequence.epoch, partition: sequence.partition.clone(), evidence });
        }
        let reports = Report::split(&self.instance, now_ms, sequences);
        for reported in reports.iter().flat_map(|report| &report.sequences) {
            if let Some(slot) = self.places.get(&reported.partition)
                && let Some(sequence) = self.slots[*slot].as_mut()
            {
                sequence.reports += 1;
            }
        }
        reports
    }

    /// A report is stored.
    pub fn reported(&mut self, report: Report) {
        for reported in report.sequences {
            self.returned(&reported);
        }
    }

    /// A report could not be sent; what it says goes into the next one. If it was stored all the same, saying it twice does no harm. Gives
    /// back what it says of sequences that are not these: those of an earlier process under the same name.
    pub fn give_back(&mut self, report: Report, now_ms: u64) -> Vec<ReportedSequence> {
        let mut others = Vec::new();
        for reported in report.sequences {
            let Some(slot) = self.returned(&reported) else {
                others.push(reported);
                continue;
            };
            if let Some(sequence) = self.slots[slot].as_mut() {
                let before = sequence.unreported.intervals();
                sequence.unreported.merge(&reported.evidence);
                self.agenda.merged(sequence.unreported.intervals(), before);
            }
            self.touch(slot, now_ms);
        }
        others
    }

    fn returned(&mut self, reported: &ReportedSequence) -> Option<usize> {
        let slot = *self.places.get(&reported.partition)?;
        let sequence = self.slots[slot].as_mut().filter(|sequence| sequence.epoch == reported.epoch)?;
        sequence.reports = sequence.reports.saturating_sub(1);
        Some(slot)
    }

    /// Forgets sequences that were idle for so long; says how many. Only those of which everything has ended and is reported. Their
    /// partitions begin at 1 again when they are used next, and so do new ones: under this epoch, which must be above the one before.
    pub fn expire(&mut self, idle_ms: u64, epoch: u32, now_ms: u64) -> Result<usize, EpochTooLow> {
        if epoch <= self.epoch {
            return Err(EpochTooLow { new: epoch, current: self.epoch });
        }
        self.epoch = epoch;
        let before = self.places.len();
        let (slots, free) = (&mut self.slots, &mut self.free);
        self.places.retain(|_, slot| {
            let idle = |sequence: &mut Sequence| {
                let done = sequence.in_flight == 0 && sequence.reports == 0 && !sequence.changed;
                done && now_ms.saturating_sub(sequence.used_ms) >= idle_ms
            };
            let taken = slots[*slot].take_if(idle).is_some();
            if taken {
                free.push(*slot);
            }
            !taken
        });
        Ok(before - self.places.len())
    }
}

//! What a consumer saw of each message, until it is reported; see `docs/EVIDENCE.md`.

use std::hash::BuildHasher;
use std::ops::RangeInclusive;
use std::sync::Arc;

use hashbrown::HashTable;

use super::lanes::SeededHash;
use super::origin::origin;
use crate::evidence::agenda::{Agenda, UNREPORTED_INTERVALS_MAX};
use crate::evidence::{
    ConsumedSequence, Consumption, Counts, GroupEvidence, Report, Seen, SequenceName, TOPIC_BYTES_MAX, Unstamped,
};
use crate::stamp::{Instance, STAMP_HEADER, StampRef};
use crate::{Delivery, Ranges, TopicPartition};

/// Of how many sequences something may wait to be reported: half a kilobyte and more for each. What was reported takes nothing.
pub const WITNESSED_SEQUENCES_MAX: usize = 50_000;

/// Keeps what a consumer saw of messages until it is reported. What is reported is forgotten: memory goes by what changes in a second, or by
/// what cannot be reported, and both are bounded. What is beyond the bounds is counted instead; consuming goes on.
#[derive(Debug)]
pub struct Witness {
    instance: Instance,
    group: Arc<str>,
    hash: SeededHash,
    sequences_max: usize,
    intervals_max: usize,
    agenda: Agenda,
    known: Vec<ConsumedSequence>,
    places: HashTable<usize>,
    /// Where the last number went: mostly the next one goes there too.
    last: usize,
    /// Counted since the beginning, and whether a report is to say so. As many as there are partitions.
    unstamped: Vec<(Unstamped, bool)>,
    last_unstamped: usize,
    untold: u64,
    /// Intervals and counts in reports that are not answered.
    under_way: usize,
}

impl Witness {
    /// Of a consumer of this group. The instance must be new with each start, since counts begin at 0; the seed is something that strangers
    /// do not know.
    pub fn new(instance: Instance, group: Arc<str>, seed: u64) -> Self {
        Self {
            instance,
            group,
            hash: SeededHash(seed),
            sequences_max: WITNESSED_SEQUENCES_MAX,
            intervals_max: UNREPORTED_INTERVALS_MAX,
            agenda: Agenda::default(),
            known: Vec::new(),
            places: HashTable::new(),
            last: 0,
            unstamped: Vec::new(),
            last_unstamped: 0,
            untold: 0,
            under_way: 0,
        }
    }

    /// Sets the bounds; see [`WITNESSED_SEQUENCES_MAX`] and [`UNREPORTED_INTERVALS_MAX`].
    #[must_use]
    pub fn bounds(mut self, sequences_max: usize, unreported_intervals_max: usize) -> Self {
        (self.sequences_max, self.intervals_max) = (sequences_max, unreported_intervals_max);
        self
    }

    /// Under which name it is reported.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Something was seen of a message. To be said when it is certain, never before.
    pub fn saw(&mut self, delivery: &Delivery, seen: Seen, now_ms: u64) {
        let stamp = delivery.headers.last(STAMP_HEADER).and_then(|header| StampRef::decode(header).ok());
        let first_sent_to = stamp.and_then(|_| origin(&delivery.headers));
        let at = first_sent_to.as_ref().unwrap_or(&delivery.from);
        match stamp.filter(|_| (1..=TOPIC_BYTES_MAX).contains(&at.topic.len())) {
            Some(stamp) => match self.place(stamp.instance, stamp.epoch, at) {
                Some(place) => self.insert(place, seen, stamp.sequence..=stamp.sequence),
                None => self.untold = self.untold.saturating_add(1),
            },
            None => self.count(&delivery.from, seen),
        }
        if seen != Seen::Delivered {
            self.agenda.ended();
        }
        self.agenda.changed(now_ms);
    }

    /// Where a sequence is; `None` if there is no room for one more.
    fn place(&mut self, instance: &str, epoch: u32, at: &TopicPartition) -> Option<usize> {
        let is = |ConsumedSequence { name, .. }: &ConsumedSequence| {
            name.epoch == epoch && name.instance.as_str() == instance && name.partition == *at
        };
        if self.known.get(self.last).is_some_and(is) {
            return Some(self.last);
        }
        let seed = self.hash;
        let hash = |instance: &str, epoch: u32, at: &TopicPartition| seed.hash_one((instance, epoch, at));
        let wanted = hash(instance, epoch, at);
        let known = &self.known;
        let place = match self.places.find(wanted, |place| known.get(*place).is_some_and(is)) {
            Some(place) => *place,
            None if known.len() >= self.sequences_max || self.agenda.intervals() >= self.intervals_max => return None,
            None => {
                let name = SequenceName { partition: at.clone(), instance: Instance::of_checked(instance), epoch };
                self.known.push(ConsumedSequence { name, evidence: GroupEvidence::default() });
                let (known, place) = (&self.known, self.known.len() - 1);
                let rehash = |place: &usize| {
                    let name = known.get(*place).map(|one| &one.name);
                    name.map_or(0, |name| hash(name.instance.as_str(), name.epoch, &name.partition))
                };
                self.places.insert_unique(wanted, place, rehash);
                place
            }
        };
        self.last = place;
        Some(place)
    }

    fn insert(&mut self, place: usize, seen: Seen, numbers: RangeInclusive<u64>) {
        let Some(ConsumedSequence { evidence, .. }) = self.known.get_mut(place) else { return };
        let set = evidence.of_mut(seen);
        if self.agenda.intervals() >= self.intervals_max && !touches(set, &numbers) {
            let count = (numbers.end() - numbers.start()).saturating_add(1);
            self.untold = self.untold.saturating_add(count);
        } else {
            self.agenda.insert(set, numbers);
        }
    }

    fn count(&mut self, from: &TopicPartition, seen: Seen) {
        let is = |(unstamped, _): &(Unstamped, bool)| unstamped.partition == *from;
        if !self.unstamped.get(self.last_unstamped).is_some_and(is) {
            self.last_unstamped = self.unstamped.iter().position(is).unwrap_or(self.unstamped.len());
        }
        if self.last_unstamped == self.unstamped.len() {
            let none_yet = Unstamped { partition: from.clone(), counts: Counts::default() };
            self.unstamped.push((none_yet, true));
        }
        if let Some((unstamped, changed)) = self.unstamped.get_mut(self.last_unstamped) {
            unstamped.counts.add(seen);
            *changed = true;
        }
    }

    /// What there is to report does not wait any longer: a partition goes, and whoever gets it may say more of its messages soon.
    pub fn hurry(&mut self) {
        self.agenda.hurry();
    }

    /// When a report is due, if anything has changed; 0: now.
    pub fn report_due_ms(&self) -> Option<u64> {
        self.agenda.due_ms()
    }

    /// What was seen since this was called last; none if nothing was. Each report is to be sent and then handed to [`Witness::reported`].
    pub fn take_reports(&mut self, at_ms: u64) -> Vec<Report> {
        if self.agenda.due_ms().is_none() {
            return Vec::new();
        }
        self.agenda.begin();
        self.agenda.took(self.agenda.intervals());
        self.places.clear();
        self.last = 0;
        let changed =
            self.unstamped.iter_mut().filter_map(|(one, changed)| std::mem::take(changed).then(|| one.clone()));
        let unstamped = changed.collect();
        let (group, sequences) = (Arc::clone(&self.group), std::mem::take(&mut self.known));
        let consumption = Consumption { group, sequences, unstamped, untold: self.untold };
        let reports = Report::split_consumption(&self.instance, at_ms, consumption);
        self.under_way += reports.iter().map(size).sum::<usize>();
        reports
    }

    /// Whether a report is stored. What could not be goes into the next one. If it was stored all the same, saying it twice does no harm.
    pub fn reported(&mut self, report: Report, stored: bool, now_ms: u64) {
        self.under_way = self.under_way.saturating_sub(size(&report));
        let Some(consumption) = report.consumption.filter(|_| !stored) else { return };
        for ConsumedSequence { name, evidence } in consumption.sequences {
            let place = self.place(name.instance.as_str(), name.epoch, &name.partition);
            for seen in Seen::ALL {
                let set = evidence.of(seen);
                match place {
                    Some(place) => set.iter().for_each(|numbers| self.insert(place, seen, numbers)),
                    None => self.untold = self.untold.saturating_add(set.count()),
                }
            }
        }
        for failed in consumption.unstamped {
            let known = self.unstamped.iter_mut().find(|(one, _)| one.partition == failed.partition);
            known.into_iter().for_each(|(_, changed)| *changed = true);
        }
        self.agenda.changed(now_ms);
    }

    /// How many intervals and counts wait to be reported, or are in reports of which it is not known yet whether they are stored.
    pub fn unreported(&self) -> usize {
        let counts = self.unstamped.iter().filter(|(_, changed)| *changed).count();
        self.agenda.intervals() + counts + self.under_way
    }

    /// How often something was seen that is in no report, because too much waited.
    pub fn untold(&self) -> u64 {
        self.untold
    }
}

/// Whether a set takes these numbers without having one interval more.
fn touches(set: &Ranges, numbers: &RangeInclusive<u64>) -> bool {
    let (first, last) = (numbers.start().saturating_sub(1), numbers.end().saturating_add(1));
    [first, last, *numbers.start(), *numbers.end()].into_iter().any(|number| set.contains(number))
}

/// How much a report says.
fn size(report: &Report) -> usize {
    report.consumption.iter().fold(0, |size, consumption| {
        let intervals: usize = consumption.sequences.iter().map(|one| one.evidence.intervals()).sum();
        size + intervals + consumption.unstamped.len()
    })
}

//! How far sequences are done: what a frontier stores, without the store.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use baton_core::{Ranges, TopicPartition};

use crate::{GuardError, Identity, Place, State};

/// In how many intervals a sequence may be done. Messages that are handled side by side need one for each gap between them, and
/// a number that its producer abandoned needs one for as long as the sequence lasts. A row stays under some 40 kB.
pub const INTERVALS_MAX: usize = 2048;

/// Names a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SequenceKey {
    pub(crate) partition: TopicPartition,
    pub(crate) instance: Arc<str>,
    pub(crate) epoch: u32,
}

impl SequenceKey {
    fn of(place: &Place) -> Self {
        Self { partition: place.partition.clone(), instance: Arc::clone(&place.instance), epoch: place.epoch }
    }

    /// The order of keys, without making one.
    fn compared_with(&self, place: &Place) -> Ordering {
        order((&self.partition, &self.instance, self.epoch), named(place))
    }
}

type Name<'a> = (&'a TopicPartition, &'a Arc<str>, u32);

fn named(place: &Place) -> Name<'_> {
    (&place.partition, &place.instance, place.epoch)
}

/// The same as the derived order of [`SequenceKey`]. Messages of one poll often share their names: those need no look at the text.
fn order(one: Name<'_>, other: Name<'_>) -> Ordering {
    let text =
        |one: &Arc<str>, other: &Arc<str>| if Arc::ptr_eq(one, other) { Ordering::Equal } else { one.cmp(other) };
    let partitions = text(&one.0.topic, &other.0.topic).then_with(|| one.0.partition.cmp(&other.0.partition));
    partitions.then_with(|| text(one.1, other.1)).then_with(|| one.2.cmp(&other.2))
}

impl fmt::Display for SequenceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the sequence of {} epoch {} in {}", self.instance, self.epoch, self.partition)
    }
}

/// A row as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Grows with each change; 0 is a row that is not there.
    pub(crate) version: i64,
    /// Everything up to this number is done.
    pub(crate) frontier: i64,
    /// What is done beyond it: `7 9-12`.
    pub(crate) beyond: String,
}

/// One sequence in one transaction.
#[derive(Debug, Default)]
struct Progress {
    version: i64,
    done: Ranges,
    /// What this transaction does.
    mine: Ranges,
}

/// The sequences that a transaction is about, sorted. They are few, and the messages many: nothing is cloned for a message.
#[derive(Debug, Default)]
pub(crate) struct Sequences(Vec<(SequenceKey, Progress)>);

impl Sequences {
    /// Those that these messages belong to, with nothing known of them yet.
    pub(crate) fn of<'a>(identities: impl IntoIterator<Item = &'a Identity>) -> Result<Self, GuardError> {
        let mut places: Vec<&Place> = Vec::new();
        for identity in identities {
            let place = identity.place.as_ref().ok_or_else(|| GuardError::Unstamped(identity.id.to_string()))?;
            if place.sequence == 0 || i64::try_from(place.sequence).is_err() {
                return Err(GuardError::Caller(format!("{} is no sequence number", place.sequence)));
            }
            if places.last().is_none_or(|last| order(named(last), named(place)).is_ne()) {
                places.push(place);
            }
        }
        places.sort_unstable_by(|one, other| order(named(one), named(other)));
        places.dedup_by(|one, other| order(named(one), named(other)).is_eq());
        Ok(Self(places.into_iter().map(|place| (SequenceKey::of(place), Progress::default())).collect()))
    }

    /// Their names, in an order that is the same for everybody, so that no two transactions wait for each other in a circle.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SequenceKey> {
        self.0.iter().map(|(key, _)| key)
    }

    fn progress(&mut self, key: &SequenceKey) -> Option<&mut Progress> {
        let at = self.0.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        Some(&mut self.0[at].1)
    }

    /// Takes over what is stored of one. Says whether something that this transaction does was done by another meanwhile.
    pub(crate) fn load(&mut self, key: &SequenceKey, row: &Row) -> Result<Meanwhile, GuardError> {
        let Some(progress) = self.progress(key) else { return Ok(Meanwhile::Nothing) };
        progress.done = parse(row).ok_or_else(|| GuardError::Corrupt(key.to_string()))?;
        progress.version = row.version;
        Ok(if progress.done.intersects(&progress.mine) { Meanwhile::AlreadyDone } else { Meanwhile::Nothing })
    }

    /// What this transaction does in some of the sequences (sorted), with nothing known of what is stored of them.
    pub(crate) fn only(&self, keys: &[SequenceKey]) -> Self {
        let these = self.0.iter().filter(|(key, _)| keys.binary_search(key).is_ok());
        let mine = |progress: &Progress| Progress { mine: progress.mine.clone(), ..Progress::default() };
        Self(these.map(|(key, progress)| (key.clone(), mine(progress))).collect())
    }

    /// What a message is, and if it is fresh, makes it this transaction's.
    pub(crate) fn admit(&mut self, place: &Place) -> State {
        let at = self.0.binary_search_by(|(key, _)| key.compared_with(place)).unwrap_or_else(|at| {
            self.0.insert(at, (SequenceKey::of(place), Progress::default()));
            at
        });
        let progress = &mut self.0[at].1;
        if progress.done.contains(place.sequence) {
            State::AlreadyDone
        } else if progress.mine.insert(place.sequence) {
            State::Fresh
        } else {
            State::Repeated
        }
    }

    /// What is to be stored where this transaction did something; the version is the one that must be there now.
    pub(crate) fn changed(&self) -> Result<Vec<(&SequenceKey, Row)>, GuardError> {
        let touched = self.0.iter().filter(|(_, progress)| !progress.mine.is_empty());
        touched.map(|(key, progress)| Ok((key, store(key, progress)?))).collect()
    }
}

/// What others did between our look at a sequence and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    /// Nothing that this transaction does.
    Nothing,
    /// Some of what this transaction does.
    AlreadyDone,
}

fn store(key: &SequenceKey, progress: &Progress) -> Result<Row, GuardError> {
    let mut done = progress.done.clone();
    done.union(&progress.mine);
    let too_many = || GuardError::TooManyGaps { sequence: key.to_string(), intervals_max: INTERVALS_MAX };
    // What closes a gap, or widens none, is let through whatever the number.
    if done.intervals() > INTERVALS_MAX && done.intervals() > progress.done.intervals() {
        return Err(too_many());
    }
    let frontier = done.frontier(1).map_or(u64::MAX, |next| next - 1);
    let frontier = i64::try_from(frontier).map_err(|_| too_many())?;
    let mut beyond = String::new();
    for range in done.iter().filter(|range| *range.start() > 1) {
        if !beyond.is_empty() {
            beyond.push(' ');
        }
        beyond.push_str(&range.start().to_string());
        if range.start() != range.end() {
            beyond.push('-');
            beyond.push_str(&range.end().to_string());
        }
    }
    Ok(Row { version: progress.version, frontier, beyond })
}

/// `None` if it is nothing that [`store`] makes.
fn parse(row: &Row) -> Option<Ranges> {
    let mut done = Ranges::new();
    let mut before = u64::try_from(row.frontier).ok()?;
    if before > 0 {
        done.insert_range(1..=before);
    }
    for text in row.beyond.split_ascii_whitespace() {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        if first <= before.checked_add(1)? || last < first {
            return None;
        }
        done.insert_range(first..=last);
        before = last;
    }
    Some(done)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::Group;

    fn identity(sequence: u64) -> Identity {
        let mut identity = Identity::new(Group::new("g").unwrap(), format!("m{sequence}").as_str().try_into().unwrap());
        let partition = TopicPartition::new("orders", 3);
        identity.place = Some(Place { instance: "p".into(), epoch: 1, partition, sequence });
        identity
    }

    /// One transaction on a stored row; what it found fresh, and the row after it.
    fn transaction(row: &Row, sequences: &[u64]) -> (Vec<State>, Result<Row, GuardError>) {
        let identities: Vec<Identity> = sequences.iter().map(|sequence| identity(*sequence)).collect();
        let mut all = Sequences::of(&identities).unwrap();
        let key = all.keys().next().unwrap().clone();
        all.load(&key, row).unwrap();
        let states = identities.iter().map(|identity| all.admit(identity.place.as_ref().unwrap())).collect();
        let stored = all.changed().map(|rows| rows.into_iter().next().map_or(row.clone(), |(_, row)| row));
        (states, stored)
    }

    proptest! {
        #[test]
        fn each_number_is_fresh_exactly_once_in_any_order(order in proptest::collection::vec(1_u64..60, 1..120)) {
            let (mut row, mut seen) = (Row::default(), BTreeSet::new());
            for sequence in order {
                let (states, stored) = transaction(&row, &[sequence]);
                prop_assert_eq!(states[0] == State::Fresh, seen.insert(sequence));
                row = stored.unwrap();
            }
            let contiguous = (1..).take_while(|sequence| seen.contains(sequence)).count();
            prop_assert_eq!(row.frontier, i64::try_from(contiguous).unwrap());
            prop_assert_eq!(parse(&row).unwrap().count(), seen.len() as u64);
        }

        #[test]
        fn what_was_not_written_by_a_guard_never_panics(frontier in any::<i64>(), beyond in "[0-9 \\-x]{0,40}") {
            let _ = parse(&Row { version: 1, frontier, beyond });
        }
    }

    proptest! {
        #[test]
        fn sequences_are_sorted_as_their_keys_are(places in proptest::collection::vec(("[ab]{1,2}", 0_u32..3, "[xy]{1,2}", 0_u32..3), 1..40)) {
            let of = |(topic, partition, instance, epoch): &(String, u32, String, u32)| {
                let partition = TopicPartition::new(topic.as_str(), *partition);
                Place { instance: instance.as_str().into(), epoch: *epoch, partition, sequence: 1 }
            };
            let places: Vec<Place> = places.iter().map(of).collect();
            let identities = places.iter().map(|place| Identity { place: Some(place.clone()), ..identity(1) });
            let identities: Vec<Identity> = identities.collect();
            let mut all = Sequences::of(&identities).unwrap();
            let keys: BTreeSet<SequenceKey> = places.iter().map(SequenceKey::of).collect();
            prop_assert!(all.keys().eq(keys.iter()), "{all:?}");
            let fresh = places.iter().filter(|place| all.admit(place) == State::Fresh).count();
            prop_assert_eq!(fresh, keys.len());
        }
    }

    #[test]
    fn rows_are_readable_and_compact() {
        let (states, row) = transaction(&Row::default(), &[1, 2, 3, 5, 5, 7, 8]);
        let row = row.unwrap();
        assert_eq!(states[4], State::Repeated);
        assert_eq!((row.frontier, row.beyond.as_str()), (3, "5 7-8"));
        let (_, row) = transaction(&row, &[4, 6]);
        assert_eq!(row.unwrap(), Row { version: 0, frontier: 8, beyond: String::new() });
    }

    #[test]
    fn a_row_stays_bounded_and_a_closed_gap_is_let_through() {
        let scattered: Vec<u64> = (1..=INTERVALS_MAX as u64).map(|at| at * 2).collect();
        let (_, row) = transaction(&Row::default(), &scattered);
        let row = row.unwrap();
        assert!(row.beyond.len() < 40_000, "{}", row.beyond.len());
        let (_, refused) = transaction(&row, &[INTERVALS_MAX as u64 * 2 + 2]);
        assert!(matches!(&refused, Err(error @ GuardError::TooManyGaps { .. }) if error.is_transient()));
        assert!(transaction(&row, &[3]).1.is_ok());
        assert!(transaction(&row, &[1]).1.is_ok());
    }

    #[test]
    fn rows_that_overlap_or_go_back_are_refused() {
        for (frontier, beyond) in [(5, "6"), (5, "3-9"), (0, "4-2"), (0, "9 7"), (-1, ""), (0, "a"), (0, "3-4-5")] {
            assert_eq!(parse(&Row { version: 1, frontier, beyond: beyond.to_owned() }), None, "{frontier} {beyond}");
        }
    }

    #[test]
    fn what_others_did_meanwhile_is_seen() {
        let message = identity(4);
        let mut all = Sequences::of([&message]).unwrap();
        let key = all.keys().next().unwrap().clone();
        assert_eq!(all.admit(message.place.as_ref().unwrap()), State::Fresh);
        let other = Row { version: 7, frontier: 3, beyond: "9".to_owned() };
        assert_eq!(all.load(&key, &other).unwrap(), Meanwhile::Nothing);
        let merged = Row { version: 7, frontier: 4, beyond: "9".to_owned() };
        assert_eq!(all.changed().unwrap()[0].1, merged);
        assert_eq!(all.load(&key, &merged).unwrap(), Meanwhile::AlreadyDone);
    }

    #[test]
    fn a_message_without_a_place_is_refused() {
        let unstamped = Identity::new(Group::new("g").unwrap(), "a".try_into().unwrap());
        assert!(matches!(Sequences::of([&unstamped]), Err(GuardError::Unstamped(id)) if id == "a"));
        for sequence in [0, u64::MAX] {
            assert!(matches!(Sequences::of([&identity(sequence)]), Err(GuardError::Caller(_))));
        }
    }
}

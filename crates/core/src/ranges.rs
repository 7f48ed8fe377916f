//! A set of numbers that is mostly contiguous: sequences that were acknowledged, offsets that are done.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A set of `u64`, kept as the intervals that it consists of: sorted, and never touching each other. It takes memory for each
/// interval, not for each number; who fills one from outside bounds [`Ranges::intervals`].
///
/// An insert that goes on from the highest number costs O(1), any other O(log n) for n intervals, and O(log n) more for each
/// interval that it swallows (each was inserted once, so that is paid for already).
///
/// ```
/// use baton_core::Ranges;
///
/// let mut done = Ranges::new();
/// done.insert_range(1..=5);
/// done.insert(7);
/// assert_eq!(done.frontier(1), Some(6));
/// assert_eq!(done.missing(1..=9).collect::<Vec<_>>(), [6..=6, 8..=9]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ranges {
    /// First number of an interval to its last; all of them lie before `last`.
    earlier: BTreeMap<u64, u64>,
    /// The highest interval stays outside of the map, since nearly all inserts only make it longer.
    last: Option<(u64, u64)>,
    /// How many numbers there are: all 2^64 of them do not fit in 64 bits.
    count: u128,
}

impl Ranges {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number; says whether it is new.
    pub fn insert(&mut self, number: u64) -> bool {
        self.insert_range(number..=number) > 0
    }

    /// Adds all the numbers of a range; says how many of them are new (`u64::MAX` if that is one more than fits). An empty range
    /// adds nothing.
    pub fn insert_range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        if first > last {
            return 0;
        }
        let before = self.count;
        match self.last {
            Some((end_first, end_last)) if first >= end_first => {
                if first > end_last.saturating_add(1) {
                    self.earlier.insert(end_first, end_last);
                    self.last = Some((first, last));
                    self.count += length(first, last);
                } else if last > end_last {
                    self.last = Some((end_first, last));
                    self.count += u128::from(last - end_last);
                }
            }
            Some(end) => self.insert_before(first, last, end),
            None => {
                self.last = Some((first, last));
                self.count = length(first, last);
            }
        }
        saturated(self.count - before)
    }

    /// Adds an interval that begins before the highest one, which is `end`.
    fn insert_before(&mut self, mut first: u64, mut last: u64, end: (u64, u64)) {
        if let Some((&near_first, &near_last)) = self.earlier.range(..=first).next_back() {
            if near_last >= last {
                return;
            }
            if near_last.saturating_add(1) >= first {
                first = near_first;
            }
        }
        while let Some((&near_first, &near_last)) = self.earlier.range(first..).next() {
            if near_first > last.saturating_add(1) {
                break;
            }
            self.earlier.remove(&near_first);
            self.count -= length(near_first, near_last);
            last = last.max(near_last);
        }
        if end.0 <= last.saturating_add(1) {
            self.count -= length(end.0, end.1);
            last = last.max(end.1);
            self.last = Some((first, last));
        } else {
            self.earlier.insert(first, last);
        }
        self.count += length(first, last);
    }

    /// Takes all the numbers of a range out; says how many of them were there (`u64::MAX` if that is one more than fits).
    pub fn remove_range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        if first > last {
            return 0;
        }
        let before = self.count;
        self.earlier.extend(self.last.take());
        if let Some((&near_first, &near_last)) = self.earlier.range(..first).next_back()
            && near_last >= first
        {
            // Cut in two, so that what begins inside of the range is all that there is to take out.
            self.earlier.insert(near_first, first - 1);
            self.earlier.insert(first, near_last);
        }
        while let Some((&near_first, &near_last)) = self.earlier.range(first..=last).next() {
            self.earlier.remove(&near_first);
            self.count -= length(near_first, near_last.min(last));
            if near_last > last {
                self.earlier.insert(last + 1, near_last);
            }
        }
        self.last = self.earlier.pop_last();
        saturated(before - self.count)
    }

    /// Whether a number is there.
    pub fn contains(&self, number: u64) -> bool {
        self.interval_at(number).is_some_and(|(_, last)| last >= number)
    }

    /// The first number from `from` on that is not there: everything from `from` up to it, exclusive, is. `None` if all of them are,
    /// up to `u64::MAX`.
    pub fn frontier(&self, from: u64) -> Option<u64> {
        match self.interval_at(from) {
            Some((_, last)) if last >= from => last.checked_add(1),
            _ => Some(from),
        }
    }

    /// The intervals of `within` that are not there, in order.
    pub fn missing(&self, within: RangeInclusive<u64>) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let (first, end) = within.into_inner();
        let mut next = (first <= end).then_some(first);
        let mut there = self.iter_from(first);
        std::iter::from_fn(move || {
            loop {
                let from = next?;
                let Some((near_first, near_last)) = there.next().filter(|(near_first, _)| *near_first <= end) else {
                    next = None;
                    return Some(from..=end);
                };
                next = near_last.checked_add(1).filter(|after| *after <= end);
                if near_first > from {
                    return Some(from..=near_first - 1);
                }
            }
        })
    }

    /// Adds everything of another set.
    pub fn union(&mut self, other: &Self) {
        for range in other.iter() {
            self.insert_range(range);
        }
    }

    /// Takes everything of another set out.
    pub fn subtract(&mut self, other: &Self) {
        for range in other.iter() {
            self.remove_range(range);
        }
    }

    /// Whether both have a number in common.
    pub fn intersects(&self, other: &Self) -> bool {
        let (few, many) = if self.intervals() <= other.intervals() { (self, other) } else { (other, self) };
        few.iter().any(|range| many.interval_at(*range.end()).is_some_and(|(_, last)| last >= *range.start()))
    }

    /// The intervals, in order; between two of them at least one number is missing.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.earlier.iter().map(|(first, last)| *first..=*last).chain(self.last.map(|(first, last)| first..=last))
    }

    /// How many numbers there are; `u64::MAX` also for all 2^64.
    pub fn count(&self) -> u64 {
        saturated(self.count)
    }

    /// How many intervals there are, which is what it costs to keep them.
    pub fn intervals(&self) -> usize {
        self.earlier.len() + usize::from(self.last.is_some())
    }

    /// Whether there is no number.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// The lowest number.
    pub fn first(&self) -> Option<u64> {
        self.earlier.first_key_value().map(|(first, _)| *first).or(self.last.map(|(first, _)| first))
    }

    /// The highest number.
    pub fn last(&self) -> Option<u64> {
        self.last.map(|(_, last)| last)
    }

    /// The interval that begins at `number` or is the last to begin before it.
    fn interval_at(&self, number: u64) -> Option<(u64, u64)> {
        match self.last {
            Some(end) if end.0 <= number => Some(end),
            _ => self.earlier.range(..=number).next_back().map(|(first, last)| (*first, *last)),
        }
    }

    /// The intervals that end at `number` or after it.
    fn iter_from(&self, number: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let begin = self.interval_at(number).filter(|(_, last)| *last >= number).map_or(number, |(first, _)| first);
        let earlier = self.earlier.range(begin..).map(|(first, last)| (*first, *last));
        earlier.chain(self.last.filter(|(_, last)| *last >= number))
    }
}

fn length(first: u64, last: u64) -> u128 {
    u128::from(last - first) + 1
}

fn saturated(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Extend<RangeInclusive<u64>> for Ranges {
    fn extend<I: IntoIterator<Item = RangeInclusive<u64>>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert_range(range);
        }
    }
}

impl FromIterator<RangeInclusive<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

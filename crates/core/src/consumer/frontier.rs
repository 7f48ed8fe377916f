//! How far a partition is done.
//!
//! Only what is *not* done is kept: offsets that were delivered and are unfinished. What lies between the frontier and the end of
//! what was delivered, and is not among them, is done, or was never there (compacted, markers of transactions). So memory grows
//! with the messages in flight, not with what is done behind a message that is stuck; and the frontier goes over holes by itself.

use std::collections::VecDeque;

/// Offsets that became done may be kept beside those that are unfinished: they are thrown out together, so that it costs little for each.
const DONE_KEPT_MIN: usize = 64;

/// What came of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// It is to be handled.
    New,
    /// It is to be handled, and lies before what was delivered already: the engine went back, and what was known to be done
    /// from here on is forgotten, since it may not be the same messages.
    Rewound,
    /// It is in flight.
    InFlight,
    /// An earlier assignment did it.
    DoneBefore,
}

/// The frontier of one partition in one assignment; `T` says where the unfinished message is.
#[derive(Debug, Clone)]
pub struct Frontier<T> {
    /// Ascending. Those that became done since hold nothing, and wait to be thrown out; the first one is never one of them.
    kept: VecDeque<(i64, Option<T>)>,
    /// How many of these are unfinished.
    unfinished: usize,
    /// First offset behind all that were delivered; unknown before the first delivery of a group without a position.
    delivered_next: Option<i64>,
    /// Done by earlier assignments, beyond what was delivered in this one; ascending.
    restored: VecDeque<(i64, i64)>,
}

impl<T: Copy> Frontier<T> {
    /// Begins at what was settled last, with what is known to be done beyond it.
    pub fn new(settled: Option<i64>, restored: Vec<(i64, i64)>) -> Self {
        Self { kept: VecDeque::new(), unfinished: 0, delivered_next: settled, restored: restored.into() }
    }

    /// A message is delivered. If it is [`Fresh::New`] or [`Fresh::Rewound`] it counts as done, unless [`Frontier::begin`]
    /// follows at once.
    pub fn deliver(&mut self, offset: i64) -> Fresh {
        let next = *self.delivered_next.get_or_insert(offset);
        if offset < next {
            if self.is_unfinished(offset) {
                return Fresh::InFlight;
            }
            self.restored.clear();
            self.delivered_next = Some(offset.saturating_add(1));
            return Fresh::Rewound;
        }
        // After a rewind, what was in flight lies ahead.
        if self.is_unfinished(offset) {
            self.delivered_next = Some(offset.saturating_add(1));
            return Fresh::InFlight;
        }
        self.delivered_next = Some(offset.saturating_add(1));
        while self.restored.front().is_some_and(|(_, end)| *end <= offset) {
            self.restored.pop_front();
        }
        if self.restored.front().is_some_and(|(start, _)| *start <= offset) {
            return Fresh::DoneBefore;
        }
        Fresh::New
    }

    /// The message that was just delivered is unfinished, and to be found there.
    pub fn begin(&mut self, offset: i64, place: T) {
        if self.kept.back().is_none_or(|(last, _)| *last < offset) {
            self.kept.push_back((offset, Some(place)));
            self.unfinished += 1;
            return;
        }
        // The engine went back.
        match self.kept.binary_search_by_key(&offset, |(kept, _)| *kept) {
            Ok(at) => self.unfinished += usize::from(self.kept[at].1.replace(place).is_none()),
            Err(at) => {
                self.kept.insert(at, (offset, Some(place)));
                self.unfinished += 1;
            }
        }
    }

    /// A message is done. Says whether it was unfinished.
    pub fn done(&mut self, offset: i64) -> bool {
        let found = self.find(offset).and_then(|at| self.kept.get_mut(at));
        if found.and_then(|(_, place)| place.take()).is_none() {
            return false;
        }
        self.unfinished -= 1;
        while self.kept.front().is_some_and(|(_, place)| place.is_none()) {
            self.kept.pop_front();
        }
        if self.kept.len() > self.unfinished.saturating_mul(2) + DONE_KEPT_MIN {
            self.kept.retain(|(_, place)| place.is_some());
        }
        true
    }

    fn is_unfinished(&self, offset: i64) -> bool {
        self.find(offset).and_then(|at| self.kept.get(at)).is_some_and(|(_, place)| place.is_some())
    }

    /// Where an offset is kept. Mostly there are no holes before it, or none behind it.
    fn find(&self, offset: i64) -> Option<usize> {
        let ((first, _), (last, _)) = (self.kept.front()?, self.kept.back()?);
        if offset < *first || offset > *last {
            return None;
        }
        let from_first = usize::try_from(offset - first).ok();
        let from_last = usize::try_from(last - offset).ok().and_then(|back| (self.kept.len() - 1).checked_sub(back));
        let is_at = |at: &usize| self.kept.get(*at).is_some_and(|(kept, _)| *kept == offset);
        let guessed = from_first.filter(is_at).or_else(|| from_last.filter(is_at));
        guessed.or_else(|| self.kept.binary_search_by_key(&offset, |(kept, _)| *kept).ok())
    }

    /// The first offset that is not done, which is what may be settled.
    pub fn next(&self) -> Option<i64> {
        let delivered_next = self.delivered_next?;
        Some(self.oldest().map_or(delivered_next, |(oldest, _)| oldest.min(delivered_next)))
    }

    /// Where the engine goes on.
    pub fn delivered_next(&self) -> Option<i64> {
        self.delivered_next
    }

    /// The oldest message that is unfinished.
    pub fn oldest(&self) -> Option<(i64, T)> {
        self.kept.front().and_then(|(offset, place)| Some((*offset, (*place)?)))
    }

    /// How many are unfinished.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// What is done beyond the frontier.
    pub fn done_beyond(&self) -> Vec<(i64, i64)> {
        let (Some(next), Some(delivered_next)) = (self.next(), self.delivered_next) else {
            return Vec::new();
        };
        let (mut intervals, mut at) = (Vec::new(), next);
        let unfinished = self.kept.iter().filter(|(_, place)| place.is_some()).map(|(offset, _)| *offset);
        for offset in unfinished.take_while(|offset| *offset < delivered_next) {
            if offset > at {
                intervals.push((at, offset));
            }
            at = offset + 1;
        }
        if delivered_next > at {
            intervals.push((at, delivered_next));
        }
        for (start, end) in &self.restored {
            let start = (*start).max(delivered_next);
            match intervals.last_mut().filter(|(_, last)| *last == start) {
                Some((_, last)) => *last = (*last).max(*end),
                None if *end > start => intervals.push((start, *end)),
                None => {}
            }
        }
        intervals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontier(offsets: &[i64]) -> Frontier<()> {
        let mut frontier = Frontier::new(None, Vec::new());
        for offset in offsets {
            assert_eq!(come(&mut frontier, *offset), Fresh::New);
        }
        frontier
    }

    fn come(frontier: &mut Frontier<()>, offset: i64) -> Fresh {
        let fresh = frontier.deliver(offset);
        if matches!(fresh, Fresh::New | Fresh::Rewound) {
            frontier.begin(offset, ());
        }
        fresh
    }

    #[test]
    fn only_what_is_contiguous_counts() {
        let mut frontier = frontier(&[5, 6, 7]);
        assert!(frontier.done(6) && frontier.done(7) && !frontier.done(7));
        assert_eq!(frontier.next(), Some(5));
        assert_eq!(frontier.done_beyond(), [(6, 8)]);
        frontier.done(5);
        assert_eq!((frontier.next(), frontier.done_beyond()), (Some(8), vec![]));
    }

    #[test]
    fn the_frontier_goes_over_holes() {
        let mut frontier = frontier(&[3, 9, 14]);
        frontier.done(3);
        assert_eq!(frontier.next(), Some(9));
        frontier.done(14);
        assert_eq!(frontier.done_beyond(), [(10, 15)]);
        frontier.done(9);
        assert_eq!(frontier.next(), Some(15));
    }

    #[test]
    fn what_an_earlier_assignment_did_is_not_handled_again() {
        let mut frontier = Frontier::new(Some(3), vec![(4, 6), (8, 9)]);
        assert_eq!(frontier.done_beyond(), [(4, 6), (8, 9)]);
        let came: Vec<Fresh> = (3..10).map(|offset| come(&mut frontier, offset)).collect();
        let (new, before) = (Fresh::New, Fresh::DoneBefore);
        assert_eq!(came, [new, before, before, new, new, before, new]);
        assert_eq!(frontier.done_beyond(), [(4, 6), (8, 9)]);
    }

    #[test]
    fn memory_grows_with_what_is_unfinished_not_with_what_is_done_behind_it() {
        let mut frontier = frontier(&[0]);
        for offset in 1..100_000 {
            // Every tenth offset is a hole, every thousandth message stays.
            if offset % 10 == 3 {
                continue;
            }
            assert_eq!(come(&mut frontier, offset), Fresh::New);
            assert!(frontier.is_unfinished(offset));
            if offset % 1_000 != 0 {
                assert!(frontier.done(offset) && !frontier.done(offset) && !frontier.is_unfinished(offset));
            }
        }
        assert_eq!((frontier.unfinished(), frontier.next()), (100, Some(0)));
        assert!(frontier.kept.len() <= 2 * 100 + DONE_KEPT_MIN, "{} are kept", frontier.kept.len());
        assert!((0..100).rev().all(|thousand| frontier.done(thousand * 1_000)));
        assert_eq!((frontier.unfinished(), frontier.next(), frontier.kept.len()), (0, Some(100_000), 0));
    }

    #[test]
    fn a_log_that_goes_back_is_handled_again_and_nothing_of_it_is_taken_for_done() {
        let mut frontier = frontier(&[5, 6, 7]);
        frontier.done(5);
        frontier.done(6);
        assert_eq!(come(&mut frontier, 2), Fresh::Rewound);
        assert_eq!(come(&mut frontier, 3), Fresh::New);
        frontier.done(2);
        assert_eq!((frontier.next(), frontier.done_beyond()), (Some(3), vec![]));
        frontier.done(3);
        assert_eq!(frontier.next(), Some(4));
        assert_eq!(come(&mut frontier, 6), Fresh::New);
        assert_eq!(come(&mut frontier, 7), Fresh::InFlight);
        assert_eq!(frontier.next(), Some(6));
    }
}

//! How far a partition is done.
//!
//! Only what is *not* done is kept: offsets that were delivered and are unfinished. What lies between the frontier and the end of
//! what was delivered, and is not among them, is done, or was never there (compacted, markers of transactions). So memory grows
//! with the messages in flight, not with what is done behind a message that is stuck; and the frontier goes over holes by itself.

use std::collections::{BTreeMap, VecDeque};

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
    unfinished: BTreeMap<i64, T>,
    /// First offset behind all that were delivered; unknown before the first delivery of a group without a position.
    delivered_next: Option<i64>,
    /// Done by earlier assignments, beyond what was delivered in this one; ascending.
    restored: VecDeque<(i64, i64)>,
}

impl<T: Copy> Frontier<T> {
    /// Begins at what was settled last, with what is known to be done beyond it.
    pub fn new(settled: Option<i64>, restored: Vec<(i64, i64)>) -> Self {
        Self { unfinished: BTreeMap::new(), delivered_next: settled, restored: restored.into() }
    }

    /// A message is delivered. If it is [`Fresh::New`] or [`Fresh::Rewound`] it counts as done, unless [`Frontier::begin`]
    /// follows at once.
    pub fn deliver(&mut self, offset: i64) -> Fresh {
        let next = *self.delivered_next.get_or_insert(offset);
        if offset < next {
            if self.unfinished.contains_key(&offset) {
                return Fresh::InFlight;
            }
            self.restored.clear();
            self.delivered_next = Some(offset.saturating_add(1));
            return Fresh::Rewound;
        }
        // After a rewind, what was in flight lies ahead.
        if self.unfinished.contains_key(&offset) {
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
        self.unfinished.insert(offset, place);
    }

    /// A message is done. Says whether it was unfinished.
    pub fn done(&mut self, offset: i64) -> bool {
        self.unfinished.remove(&offset).is_some()
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
        self.unfinished.first_key_value().map(|(offset, place)| (*offset, *place))
    }

    /// How many are unfinished.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// What is done beyond the frontier.
    pub fn done_beyond(&self) -> Vec<(i64, i64)> {
        let (Some(next), Some(delivered_next)) = (self.next(), self.delivered_next) else {
            return Vec::new();
        };
        let (mut intervals, mut at) = (Vec::new(), next);
        for offset in self.unfinished.range(..delivered_next).map(|(offset, _)| *offset) {
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

use std::ops::Range;

use thiserror::Error;

/// With this much left of a segment the next one is asked for, in percent: an allotter that answers while these are being used up
/// is never waited for.
pub const SEGMENT_LEFT_PERCENT: u64 = 20;

/// Numbers from segments that a database or Redis allots (`update .. set next = next + 1000 returning next`, `INCRBY`). While one is
/// used the next is fetched already.
///
/// Numbers grow, and no number comes twice as long as the allotter gives none out twice; one that went back (Redis after a fail-over) is
/// noticed as far as this process has seen. What is left of segments when the process ends is lost: ids have holes.
#[derive(Debug, Clone, Default)]
pub struct Segments {
    current: Range<u64>,
    /// How many numbers the current segment had.
    length: u64,
    next: Option<Range<u64>>,
    asked: bool,
    /// No number below this may come any more.
    floor: u64,
}

/// A segment that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadSegment {
    /// There is nothing in it.
    #[error("the segment {0:?} is empty")]
    Empty(Range<u64>),
    /// Its numbers were allotted before.
    #[error("the segment {segment:?} begins below {floor}: the allotter went back, and would give numbers out twice")]
    Again {
        /// What was allotted.
        segment: Range<u64>,
        /// Where it would have to begin.
        floor: u64,
    },
    /// Nobody asked.
    #[error("the segment {0:?} was not asked for")]
    Unasked(Range<u64>),
}

impl Segments {
    /// No segment yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next number; `None` until a segment is supplied.
    pub fn take(&mut self) -> Option<u64> {
        if self.current.is_empty() {
            self.current = self.next.take()?;
            self.length = self.current.end - self.current.start;
        }
        self.current.next()
    }

    /// Whether to fetch a segment now. Says so once, until that one was supplied or failed.
    pub fn ask(&mut self) -> bool {
        let left = self.current.end - self.current.start;
        let few = u128::from(left) * 100 <= u128::from(self.length) * u128::from(SEGMENT_LEFT_PERCENT);
        let ask = few && self.next.is_none() && !self.asked;
        self.asked |= ask;
        ask
    }

    /// Here is the segment that was asked for. A segment that is refused counts as failed.
    pub fn supply(&mut self, segment: Range<u64>) -> Result<(), BadSegment> {
        if !std::mem::take(&mut self.asked) {
            return Err(BadSegment::Unasked(segment));
        }
        if segment.is_empty() {
            return Err(BadSegment::Empty(segment));
        }
        if segment.start < self.floor {
            return Err(BadSegment::Again { segment, floor: self.floor });
        }
        self.floor = segment.end;
        self.next = Some(segment);
        Ok(())
    }

    /// The segment could not be fetched: [`Segments::ask`] asks again. When, is for the caller's backoff.
    pub fn failed(&mut self) {
        self.asked = false;
    }
}

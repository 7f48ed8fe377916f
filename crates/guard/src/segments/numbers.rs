//! Which numbers are asked for, and what every question has.

use std::error::Error;
use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use thiserror::Error;

use super::SegmentFuture;
use crate::error::whole;

/// Numbers of a segment, unless told otherwise: at ten thousand messages a second, ten questions a second.
pub const SEGMENT_LENGTH_DEFAULT: u32 = 1_000;
/// Longest segment. What is left of it when a process ends is lost.
pub const SEGMENT_LENGTH_MAX: u32 = 1_000_000;
/// Longest name of numbers, in bytes.
pub const SEGMENT_NAME_BYTES_MAX: usize = 255;
/// How long a question may take before it counts as failed, and is asked again: a server that was cut off says nothing.
const ALLOT_WAIT: Duration = Duration::from_secs(30);

/// Numbers that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadNumbers {
    /// They need a name that fits.
    #[error("a name of numbers has 1 to {SEGMENT_NAME_BYTES_MAX} bytes, and this one has {0}")]
    Name(usize),
    /// Too few or too many at a time.
    #[error("a segment has 1 to {SEGMENT_LENGTH_MAX} numbers, and not {0}")]
    Length(u32),
}

/// Which numbers, and how many at a time.
#[derive(Debug, Clone)]
pub struct Numbers {
    pub(super) name: String,
    pub(super) length: u32,
}

impl Numbers {
    /// Those of this name (of this key, in Redis), [`SEGMENT_LENGTH_DEFAULT`] at a time. All producers whose ids must differ share it.
    pub fn named(name: impl Into<String>) -> Result<Self, BadNumbers> {
        let name = name.into();
        match name.len() {
            1..=SEGMENT_NAME_BYTES_MAX => Ok(Self { name, length: SEGMENT_LENGTH_DEFAULT }),
            bytes => Err(BadNumbers::Name(bytes)),
        }
    }

    /// So many at a time, [`SEGMENT_LENGTH_MAX`] at most.
    pub fn at_a_time(mut self, length: u32) -> Result<Self, BadNumbers> {
        if !(1..=SEGMENT_LENGTH_MAX).contains(&length) {
            return Err(BadNumbers::Length(length));
        }
        self.length = length;
        Ok(self)
    }

    /// The segment that ends before this number, which is the first that is still free. Numbers begin at 1.
    pub(super) fn before(&self, next: i64) -> Result<Range<u64>, Box<dyn Error + Send + Sync>> {
        let end = u64::try_from(next).ok();
        let start = end.and_then(|end| end.checked_sub(self.length.into())).filter(|start| *start > 0);
        match (start, end) {
            (Some(start), Some(end)) => Ok(start..end),
            _ => {
                Err(format!("the numbers of {} stand at {next}, where nothing of this kind left them", self.name)
                    .into())
            }
        }
    }
}

/// Bounds a question, and has its error say all that is known.
pub(super) fn within(
    asking: impl Future<Output = Result<Range<u64>, Box<dyn Error + Send + Sync>>> + Send + 'static,
) -> SegmentFuture {
    Box::pin(async move {
        match tokio::time::timeout(ALLOT_WAIT, asking).await {
            Ok(answer) => answer.map_err(|error| format!("allotting numbers: {}", whole(&*error)).into()),
            Err(_) => Err(format!("allotting numbers: no answer in {} s", ALLOT_WAIT.as_secs()).into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lengths_have_bounds() {
        assert_eq!(Numbers::named("").unwrap_err(), BadNumbers::Name(0));
        assert_eq!(Numbers::named("n".repeat(256)).unwrap_err(), BadNumbers::Name(256));
        let numbers = Numbers::named("n".repeat(255)).unwrap();
        assert_eq!(numbers.clone().at_a_time(0).unwrap_err(), BadNumbers::Length(0));
        assert_eq!(
            numbers.clone().at_a_time(SEGMENT_LENGTH_MAX + 1).unwrap_err(),
            BadNumbers::Length(SEGMENT_LENGTH_MAX + 1)
        );
        assert_eq!(numbers.at_a_time(SEGMENT_LENGTH_MAX).unwrap().length, SEGMENT_LENGTH_MAX);
    }

    #[test]
    fn numbers_begin_at_one_and_what_somebody_else_wrote_is_refused() {
        let numbers = Numbers::named("orders").unwrap().at_a_time(10).unwrap();
        assert_eq!(numbers.before(11).unwrap(), 1..11);
        assert_eq!(numbers.before(i64::MAX).unwrap().end, i64::MAX as u64);
        for wrong in [i64::MIN, -1, 0, 10] {
            assert!(numbers.before(wrong).is_err(), "{wrong}");
        }
    }
}

//! Which ids messages get that bring none along.

use std::ops::Range;
use std::sync::Arc;

use baton_core::ids::{Segments, Snowflake, UuidV7};
use baton_core::{Message, MessageId};
pub use baton_guard::segments::{SegmentFuture, SegmentSource};

use super::random::Random;
use super::receipt::Reason;

/// Which ids messages get that bring none along.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Ids {
    /// UUIDs of version 7, which grow with time.
    #[default]
    UuidV7,
    /// 63-bit numbers from time, node and a counter.
    Snowflake(Snowflake),
    /// Numbers that a database or Redis allots ([`crate::guard::segments`]), or anybody else.
    Segments(Arc<dyn SegmentSource>),
    /// None: a message without the business's own id is refused. The only choice that also catches a service that sends twice for
    /// the same thing.
    Business,
}

/// Makes ids.
pub(super) enum IdMaker {
    UuidV7(UuidV7),
    Snowflake(Snowflake),
    Segments(Segments, Arc<dyn SegmentSource>),
    Business,
    /// All get the same one, which goes nowhere.
    #[cfg(feature = "measuring")]
    Same(MessageId),
}

/// The id of a message.
pub(super) enum Named {
    As(MessageId),
    /// None yet.
    Later,
    Never(Reason),
}

impl IdMaker {
    pub(super) fn new(ids: Ids) -> Self {
        match ids {
            Ids::UuidV7 => Self::UuidV7(UuidV7::new()),
            Ids::Snowflake(snowflake) => Self::Snowflake(snowflake),
            Ids::Segments(source) => Self::Segments(Segments::new(), source),
            Ids::Business => Self::Business,
        }
    }

    #[cfg(feature = "measuring")]
    pub(super) fn same() -> Self {
        Self::Same(0.into())
    }

    /// `wall_ms` is the time of the wall clock.
    pub(super) fn name(&mut self, message: &Message, wall_ms: u64, random: &mut Random) -> Named {
        if let Some(id) = &message.id {
            return Named::As(id.clone());
        }
        let never = |reason: &dyn std::fmt::Display| Named::Never(Reason::NoId(reason.to_string()));
        match self {
            Self::UuidV7(maker) => Named::As(maker.next(wall_ms, random.u128())),
            Self::Snowflake(maker) => match maker.next(wall_ms) {
                Ok(number) => Named::As(number.into()),
                Err(error) => never(&error),
            },
            Self::Segments(segments, _) => segments.take().map_or(Named::Later, |number| Named::As(number.into())),
            #[cfg(feature = "measuring")]
            Self::Same(id) => Named::As(id.clone()),
            Self::Business => never(&"this producer sends only what has an id of its own: set Message::id"),
        }
    }

    /// What is to be asked now for the next segment.
    pub(super) fn ask(&mut self) -> Option<SegmentFuture> {
        let Self::Segments(segments, source) = self else { return None };
        segments.ask().then(|| source.allot())
    }

    /// What was answered.
    pub(super) fn supply(&mut self, segment: Result<Range<u64>, String>) -> Result<(), String> {
        let Self::Segments(segments, _) = self else { return Ok(()) };
        match segment {
            Ok(segment) => segments.supply(segment).map_err(|error| error.to_string()),
            Err(error) => {
                segments.failed();
                Err(error)
            }
        }
    }
}

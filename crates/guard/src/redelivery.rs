//! For how long a message can come again, and so for how long its mark is needed.

use std::time::Duration;

use crate::GuardError;

/// Marks are kept for this much longer than asked for: a mark bears the time at which its transaction began, and clocks are set
/// right now and then.
pub const PRUNE_MARGIN: Duration = Duration::from_secs(3600);
/// Marks that one transaction prunes: some milliseconds, in which it holds locks on nothing that a writer wants.
pub const PRUNE_ROWS: u32 = 5_000;

/// Where a message can come from again, and until when. What is not set has nothing of the kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redelivery {
    longest: Duration,
    endless: bool,
}

impl Redelivery {
    /// The topic keeps messages for this long: `retention.ms`, `message-ttl`. A queue without a limit is [`Redelivery::endless`].
    pub fn from_topic(retention: Duration) -> Self {
        Self { longest: retention, endless: false }
    }

    /// Something has no limit: a compacted topic, a queue without a time to live, dead letters that are kept for ever.
    pub fn endless() -> Self {
        Self { longest: Duration::ZERO, endless: true }
    }

    /// Another place that they can come from, for this long after they were sent: retry topics, dead letters, parked keys, the
    /// producers' spool and outbox, and the age to which somebody may reset the group's offsets. What is reached through several
    /// of them one after the other counts with the sum.
    pub fn or_from(mut self, kept: Duration) -> Self {
        self.longest = self.longest.max(kept);
        self
    }

    /// Whether marks may be pruned after this long.
    pub fn check(&self, kept: Duration) -> Result<(), GuardError> {
        if self.endless {
            return Err(GuardError::WindowWithoutEnd);
        }
        if kept < self.longest {
            return Err(GuardError::WindowTooShort { kept, needed: self.longest });
        }
        Ok(())
    }
}

/// What pruning did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Rows that are gone.
    pub rows: u64,
    /// Whether there may be more that could go.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_window_shorter_than_what_can_come_again_is_refused() {
        let week = Redelivery::from_topic(7 * DAY);
        assert!(week.check(7 * DAY).is_ok());
        let too_short = week.check(6 * DAY).unwrap_err();
        assert!(matches!(too_short, GuardError::WindowTooShort { needed, .. } if needed == 7 * DAY), "{too_short}");
        assert!(week.or_from(30 * DAY).check(7 * DAY).is_err());
        assert!(week.or_from(DAY).check(7 * DAY).is_ok());
    }

    #[test]
    fn what_can_come_again_for_ever_is_never_pruned() {
        let refused = Redelivery::endless().or_from(DAY).check(Duration::MAX);
        assert!(matches!(refused, Err(GuardError::WindowWithoutEnd)));
    }
}

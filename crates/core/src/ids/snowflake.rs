use thiserror::Error;

/// How many nodes there can be: 10 bits.
pub const SNOWFLAKE_NODES: u16 = 1 << 10;
/// How far ids may run ahead of the clock, in milliseconds: long enough for the steps of a clock that is kept by NTP, short enough that a
/// clock that is plainly wrong is noticed.
pub const SNOWFLAKE_AHEAD_MS_MAX: u64 = 5_000;

const TIME_MAX_MS: u64 = (1 << 41) - 1;
const NODE_SHIFT: u32 = 12;
const TIME_SHIFT: u32 = 22;
const SEQUENCE_MAX: u16 = (1 << 12) - 1;

/// Makes 63-bit numbers that grow: 41 bits of milliseconds since an epoch of the caller's, 10 bits of node, 12 bits of sequence.
///
/// No two nodes may have the same number at the same time: that is the caller's care, as is a clock that went back while the process was
/// down (see [`Snowflake::resume`]). While it runs, a clock that goes back is waited for in logical time: ids go on from the time that was
/// reached, and run ahead of the clock, up to a bound. So do more than 4,096 ids in a millisecond.
#[derive(Debug, Clone)]
pub struct Snowflake {
    epoch_ms: u64,
    node: u16,
    ahead_max_ms: u64,
    /// Since the epoch.
    time_ms: u64,
    /// The next number of this millisecond; one more than the last when it is used up.
    sequence: u16,
}

/// No maker of Snowflakes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a Snowflake's node is a number below {SNOWFLAKE_NODES}, this one is {0}")]
pub struct BadSnowflake(u16);

/// No id now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoSnowflake {
    /// The clock went back too far, or too many were asked for.
    #[error(
        "ids are {by_ms} ms ahead of the clock, more than {max_ms} ms: the clock went back, or more than 4,096,000 ids a second are asked for"
    )]
    Ahead {
        /// How far the next one would be ahead.
        by_ms: u64,
        /// How far it may be.
        max_ms: u64,
    },
    /// The clock is before the epoch.
    #[error("the clock is before the epoch of the Snowflakes: one of them is set wrong")]
    BeforeEpoch,
    /// 41 bits of milliseconds are used up, which takes 69 years.
    #[error(
        "the time since the epoch of the Snowflakes does not fit into 41 bits: choose a later epoch, and new names for what has ids"
    )]
    UsedUp,
}

impl Snowflake {
    /// A maker for a node. The epoch, in milliseconds since 1970, must never change.
    pub fn new(epoch_ms: u64, node: u16) -> Result<Self, BadSnowflake> {
        if node >= SNOWFLAKE_NODES {
            return Err(BadSnowflake(node));
        }
        Ok(Self { epoch_ms, node, ahead_max_ms: SNOWFLAKE_AHEAD_MS_MAX, time_ms: 0, sequence: 0 })
    }

    /// Goes on after a restart: no id gets a time at or before `reached_ms`, which is what [`Snowflake::reached_ms`] said before it, or more.
    #[must_use]
    pub fn resume(mut self, reached_ms: u64) -> Self {
        (self.time_ms, self.sequence) = (reached_ms.saturating_sub(self.epoch_ms).min(TIME_MAX_MS), SEQUENCE_MAX + 1);
        self
    }

    /// Sets how far ids may run ahead of the clock; see [`SNOWFLAKE_AHEAD_MS_MAX`].
    #[must_use]
    pub fn ahead_max_ms(mut self, ahead_max_ms: u64) -> Self {
        self.ahead_max_ms = ahead_max_ms;
        self
    }

    /// The time of the last id, in milliseconds since 1970.
    pub fn reached_ms(&self) -> u64 {
        self.epoch_ms.saturating_add(self.time_ms)
    }

    /// The next one. A refusal uses up nothing.
    pub fn next(&mut self, now_ms: u64) -> Result<u64, NoSnowflake> {
        let now_ms = now_ms.checked_sub(self.epoch_ms).ok_or(NoSnowflake::BeforeEpoch)?;
        let (time_ms, sequence) = match (now_ms > self.time_ms, self.sequence > SEQUENCE_MAX) {
            (true, _) => (now_ms, 0),
            (false, true) => (self.time_ms + 1, 0),
            (false, false) => (self.time_ms, self.sequence),
        };
        let by_ms = time_ms.saturating_sub(now_ms);
        if by_ms > self.ahead_max_ms {
            return Err(NoSnowflake::Ahead { by_ms, max_ms: self.ahead_max_ms });
        }
        if time_ms > TIME_MAX_MS {
            return Err(NoSnowflake::UsedUp);
        }
        (self.time_ms, self.sequence) = (time_ms, sequence + 1);
        Ok(time_ms << TIME_SHIFT | u64::from(self.node) << NODE_SHIFT | u64::from(sequence))
    }
}

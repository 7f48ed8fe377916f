use uuid::{Builder, Uuid};

/// Time has 48 bits.
const TIME_MAX_MS: u64 = (1 << 48) - 1;
/// The counter has the 12 bits of `rand_a`.
const COUNTER_MAX: u16 = (1 << 12) - 1;
/// A new millisecond begins in the lower half of the counter, so that at least 2,048 ids fit into it.
const COUNTER_FIRST_MAX: u16 = COUNTER_MAX >> 1;

/// Makes UUIDs of version 7 (RFC 9562) that grow: each is greater than all that this maker made before, as text too.
///
/// `rand_a` is a counter that begins at a random number in each millisecond (RFC 9562, 6.2, method 1); `rand_b` is random. When the clock
/// goes back, or a millisecond is used up, the maker stays at or goes on from the time that it had reached.
#[derive(Debug, Clone, Default)]
pub struct UuidV7 {
    time_ms: u64,
    counter: u16,
    begun: bool,
}

impl UuidV7 {
    /// A maker that has made none.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next one. `now_ms` is milliseconds since 1970; of `random`, which must come from a good source, 73 bits are used.
    #[allow(clippy::cast_possible_truncation)] // bits are what is wanted
    pub fn next(&mut self, now_ms: u64, random: u128) -> Uuid {
        let first = (random >> 64) as u16 & COUNTER_FIRST_MAX;
        if now_ms > self.time_ms || !self.begun {
            (self.time_ms, self.counter, self.begun) = (now_ms.min(TIME_MAX_MS), first, true);
        } else if self.counter < COUNTER_MAX {
            self.counter += 1;
        } else {
            (self.time_ms, self.counter) = ((self.time_ms + 1).min(TIME_MAX_MS), first);
        }
        let mut bits = [0; 10];
        bits[..2].copy_from_slice(&self.counter.to_be_bytes());
        bits[2..].copy_from_slice(&(random as u64).to_be_bytes());
        Builder::from_unix_timestamp_millis(self.time_ms, &bits).into_uuid()
    }
}

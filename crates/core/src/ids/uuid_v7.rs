use crate::MessageId;

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
    pub fn next(&mut self, now_ms: u64, random: u128) -> MessageId {
        let first = (random >> 64) as u16 & COUNTER_FIRST_MAX;
        if now_ms > self.time_ms || !self.begun {
            (self.time_ms, self.counter, self.begun) = (now_ms.min(TIME_MAX_MS), first, true);
        } else if self.counter < COUNTER_MAX {
            self.counter += 1;
        } else {
            (self.time_ms, self.counter) = ((self.time_ms + 1).min(TIME_MAX_MS), first);
        }
        let version = 0x7000 | u128::from(self.counter);
        let variant = u128::from((random as u64 >> 2) | 1 << 63);
        let text = text(u128::from(self.time_ms) << 80 | version << 64 | variant);
        MessageId::of_checked(String::from_utf8_lossy(&text).as_ref().into())
    }
}

/// 32 hexadecimal digits in lower case, in groups of 8, 4, 4, 4 and 12.
fn text(uuid: u128) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let (mut text, mut at) = ([b'-'; 36], 0);
    for byte in uuid.to_be_bytes() {
        if matches!(at, 8 | 13 | 18 | 23) {
            at += 1;
        }
        (text[at], text[at + 1]) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
        at += 2;
    }
    text
}

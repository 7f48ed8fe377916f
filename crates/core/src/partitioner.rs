//! To which partition a message goes. Baton chooses it itself, since sequences are numbered per partition, and chooses what Kafka's own
//! clients choose: the Java client by default, librdkafka with `partitioner=murmur2_random`.

use std::num::NonZeroU32;

/// Kafka's seed and constants of MurmurHash2, 32 bits.
const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// Bytes after which [`Sticky`] goes on to another partition: the batch size of Kafka's clients, so that batches become full.
pub const STICKY_BYTES: usize = 16 * 1024;

/// MurmurHash2 as Kafka's clients compute it. The length counts modulo 2^32, as it does there.
pub fn murmur2(key: &[u8]) -> u32 {
    // Truncation is what the reference does with its `int`.
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ (key.len() as u32);
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let mut word = word.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte));
        word = word.wrapping_mul(MULTIPLIER);
        word ^= word >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ word.wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// The partition of a key; an empty key is a key. It changes with the number of partitions: that is why ordered topics must not
/// get more of them while they are in use.
pub fn partition_of_key(key: &[u8], partitions: NonZeroU32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Chooses partitions for messages without a key: one for as many bytes as fill a batch, then another. A partition for each message
/// would spread as evenly, in many small batches.
#[derive(Debug, Clone)]
pub struct Sticky {
    current: Option<u32>,
    bytes: usize,
    bytes_max: usize,
}

impl Sticky {
    /// Goes on to another partition after `bytes_max`; see [`STICKY_BYTES`].
    pub fn new(bytes_max: usize) -> Self {
        Self { current: None, bytes: 0, bytes_max }
    }

    /// The partition of the next message, which has so many bytes. `draw` is asked for a random number only when it is time to go on,
    /// and never brings the same partition again if there is another one.
    pub fn next(&mut self, bytes: usize, partitions: NonZeroU32, draw: impl FnOnce() -> u32) -> u32 {
        let partition = match self.current {
            Some(current) if self.bytes < self.bytes_max && current < partitions.get() => current,
            previous => {
                self.bytes = 0;
                choose(previous, partitions.get(), draw())
            }
        };
        self.bytes = self.bytes.saturating_add(bytes);
        self.current = Some(partition);
        partition
    }
}

/// Any partition but the previous one, each as likely as the others.
fn choose(previous: Option<u32>, partitions: u32, random: u32) -> u32 {
    let scaled = |choices: u32| ((u64::from(random) * u64::from(choices)) >> 32) as u32;
    match previous {
        Some(previous) if previous < partitions && partitions > 1 => {
            let choice = scaled(partitions - 1);
            choice + u32::from(choice >= previous)
        }
        _ => scaled(partitions),
    }
}

impl Default for Sticky {
    fn default() -> Self {
        Self::new(STICKY_BYTES)
    }
}

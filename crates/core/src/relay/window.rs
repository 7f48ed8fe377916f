//! What a shard's relay has claimed: the rows that the engine may have, and their stamps.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::stamp::SEQUENCE_MAX;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;
/// Longest number in the window, in bytes.
const NUMBER_BYTES_MAX: usize = 10;

/// What a row was claimed as. With the row's topic, that is where it goes and what it is stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The partition of the row's topic.
    pub partition: u32,
    /// The epoch of the relay that claimed it.
    pub epoch: u32,
    /// Its number in the sequence.
    pub sequence: u64,
}

/// The claims of a shard, by the positions of their rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window(BTreeMap<i64, Claimed>);

/// Not a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadWindow {
    /// Written by a newer Baton.
    #[error("the window is of version {0}, newer than the {VERSION} known here: update all relays of this outbox")]
    Newer(u8),
    /// It ends too early, or goes on behind its end, or holds a number that cannot be.
    #[error(
        "the window is damaged at byte {0}: what it claimed may be sent again under a new stamp if it is cleared by hand"
    )]
    Damaged(usize),
}

impl Window {
    /// How many rows are claimed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a row is claimed.
    pub fn contains(&self, position: i64) -> bool {
        self.0.contains_key(&position)
    }

    /// Claims a row.
    pub fn insert(&mut self, position: i64, claimed: Claimed) {
        self.0.insert(position, claimed);
    }

    /// The row is done.
    pub fn remove(&mut self, position: i64) {
        self.0.remove(&position);
    }

    /// By position.
    pub fn iter(&self) -> impl Iterator<Item = (i64, Claimed)> {
        self.0.iter().map(|(position, claimed)| (*position, *claimed))
    }

    /// As it is kept: a version, how many there are, and for each, as variable-length numbers, how far its position is from the one
    /// before, its partition, its epoch and its number in the sequence; the last two as differences from the one before.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 3 + 8 * self.0.len());
        bytes.push(VERSION);
        push(&mut bytes, self.0.len() as u64);
        let (mut last, mut last_epoch, mut last_sequence) = (0_i64, 0_i64, 0_i64);
        for (position, claimed) in self.iter() {
            let (epoch, sequence) = (i64::from(claimed.epoch), claimed.sequence.cast_signed());
            push(&mut bytes, zigzag(position.wrapping_sub(last)));
            push(&mut bytes, claimed.partition.into());
            push(&mut bytes, zigzag(epoch - last_epoch));
            push(&mut bytes, zigzag(sequence.wrapping_sub(last_sequence)));
            (last, last_epoch, last_sequence) = (position, epoch, sequence);
        }
        bytes
    }

    /// Back from [`Window::encode`]; nothing at all is an empty window.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadWindow> {
        let mut rest = match bytes {
            [] => return Ok(Self::default()),
            [VERSION, rest @ ..] => rest,
            [version, ..] => return Err(BadWindow::Newer(*version)),
        };
        let mut take = || {
            let damaged = BadWindow::Damaged(bytes.len() - rest.len());
            pull(&mut rest).ok_or(damaged)
        };
        let count = take()?;
        let mut claims = BTreeMap::new();
        let (mut position, mut epoch, mut sequence) = (0_i64, 0_i64, 0_i64);
        for _ in 0..count {
            position = position.wrapping_add(unzigzag(take()?));
            let partition = take()?;
            epoch = epoch.wrapping_add(unzigzag(take()?));
            sequence = sequence.wrapping_add(unzigzag(take()?));
            let claimed = match (u32::try_from(partition), u32::try_from(epoch), u64::try_from(sequence)) {
                (Ok(partition), Ok(epoch), Ok(sequence)) if (1..=SEQUENCE_MAX).contains(&sequence) => {
                    Claimed { partition, epoch, sequence }
                }
                _ => return Err(BadWindow::Damaged(bytes.len())),
            };
            claims.insert(position, claimed);
        }
        if !rest.is_empty() {
            return Err(BadWindow::Damaged(bytes.len() - rest.len()));
        }
        Ok(Self(claims))
    }
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[allow(clippy::cast_possible_truncation, reason = "seven bits are what is wanted")]
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn pull(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for at in 0..NUMBER_BYTES_MAX {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if at == NUMBER_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        number |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

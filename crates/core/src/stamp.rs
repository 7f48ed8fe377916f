//! What a producer adds to each message, so that every one of them can be accounted for. Written down in `docs/STAMP.md`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::{BadMessageId, Headers, MESSAGE_ID_BYTES_MAX, MessageId};

/// Name of the one header that holds the stamp.
pub const STAMP_HEADER: &str = "baton";
/// The version that is written, and the only one that is read.
pub const STAMP_VERSION: u32 = 1;
/// Longest name of a producer instance, in bytes.
pub const INSTANCE_BYTES_MAX: usize = 24;
/// Highest sequence number, 2^53 - 1: exact in every JSON reader, 16 digits, and 285 years at a million messages a second.
pub const SEQUENCE_MAX: u64 = (1 << 53) - 1;
/// Longest stamp, in bytes of the header's value. With the header's name and an id of up to 36 bytes it is 96 at most.
pub const STAMP_BYTES_MAX: usize =
    2 + MESSAGE_ID_BYTES_MAX + 1 + INSTANCE_BYTES_MAX + 1 + EPOCH_DIGITS_MAX + 1 + SEQUENCE_DIGITS_MAX;

const EPOCH_DIGITS_MAX: usize = digits(u32::MAX as u64);
const SEQUENCE_DIGITS_MAX: usize = digits(SEQUENCE_MAX);

/// All messages of one producer instance and epoch in one partition of a topic are one sequence, numbered from 1 without gaps.
/// In the header `baton` a stamp reads `1;<message id>;<instance>;<epoch>;<sequence>`, the first field being the version: at most 96
/// bytes with the header's name, as long as the id has no more than the 36 of a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Which message.
    pub id: MessageId,
    /// Which producer instance.
    pub instance: Instance,
    /// Grows each time the instance starts again; any number.
    pub epoch: u32,
    /// Which number in its sequence, from 1 to [`SEQUENCE_MAX`].
    pub sequence: u64,
}

/// A stamp as it stands in its header: nothing of it is copied. For who only looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StampRef<'a> {
    /// See [`Stamp::id`].
    pub id: &'a str,
    /// See [`Stamp::instance`].
    pub instance: &'a str,
    /// See [`Stamp::epoch`].
    pub epoch: u32,
    /// See [`Stamp::sequence`].
    pub sequence: u64,
}

/// The name of a producer instance: visible ASCII without `;`, 1 to [`INSTANCE_BYTES_MAX`] bytes. No two that run at the same time
/// may have the same one, and it should stay the same when the instance starts again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance(Arc<str>);

/// Not the name of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadInstance {
    /// It is empty, or too long.
    #[error("the name of a producer instance has 1 to {INSTANCE_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// It holds something that is not allowed.
    #[error("the name of a producer instance is visible ASCII without ';', this one has {0:?} at byte {1}")]
    Character(char, usize),
}

/// Not a stamp.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadStamp {
    /// Written by a newer Baton.
    #[error(
        "the stamp is of version {0}, newer than the {STAMP_VERSION} known here: update consumers before producers"
    )]
    Newer(u32),
    /// It does not begin with a version.
    #[error("the header \"{STAMP_HEADER}\" does not begin with the version of a stamp: something else wrote it")]
    Version,
    /// It is too long.
    #[error("a stamp has at most {STAMP_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// It has too many or too few fields.
    #[error("a stamp has five fields, separated by ';'")]
    Fields,
    /// The second field is wrong.
    #[error("field 2 of the stamp: {0}")]
    Id(BadMessageId),
    /// The third field is wrong.
    #[error("field 3 of the stamp: {0}")]
    Instance(BadInstance),
    /// The fourth field is wrong.
    #[error("field 4 of the stamp, the epoch, is a number from 0 to 4294967295 without leading zeros")]
    Epoch,
    /// The fifth field is wrong.
    #[error("field 5 of the stamp, the sequence number, is a number from 1 to {SEQUENCE_MAX} without leading zeros")]
    Sequence,
}

impl Stamp {
    /// The header's value. Sequence numbers come from [`crate::Sequences`], which allots none that is out of bounds.
    pub fn encode(&self) -> Bytes {
        let (id, instance) = (self.id.as_str().as_bytes(), self.instance.as_str().as_bytes());
        let length = 5 + id.len() + instance.len() + digits(self.epoch.into()) + digits(self.sequence);
        // As long as it will be, so that nothing is allocated or copied a second time.
        let mut text = Vec::with_capacity(length);
        text.extend_from_slice(b"1;");
        text.extend_from_slice(id);
        text.push(b';');
        text.extend_from_slice(instance);
        text.push(b';');
        push_number(&mut text, self.epoch.into());
        text.push(b';');
        push_number(&mut text, self.sequence);
        text.into()
    }

    /// Reads the header's value.
    pub fn decode(header: &[u8]) -> Result<Self, BadStamp> {
        StampRef::decode(header).map(|stamp| stamp.to_stamp())
    }

    /// The stamp among headers, if there is one. Of several the last one counts, as on Kafka.
    pub fn of(headers: &Headers) -> Result<Option<Self>, BadStamp> {
        headers.last(STAMP_HEADER).map(|header| Self::decode(header)).transpose()
    }
}

impl<'a> StampRef<'a> {
    /// Reads the header's value.
    pub fn decode(header: &'a [u8]) -> Result<Self, BadStamp> {
        // The version comes first: nothing is known of how long a newer one may be.
        let (version, rest) = split(header).ok_or(BadStamp::Version)?;
        match number(version).map(u32::try_from) {
            Some(Ok(STAMP_VERSION)) => {}
            Some(Ok(version)) if version > STAMP_VERSION => return Err(BadStamp::Newer(version)),
            _ => return Err(BadStamp::Version),
        }
        if header.len() > STAMP_BYTES_MAX {
            return Err(BadStamp::TooLong(header.len()));
        }
        let (id, rest) = split(rest).ok_or(BadStamp::Fields)?;
        let (instance, rest) = split(rest).ok_or(BadStamp::Fields)?;
        let (epoch, sequence) = split(rest).ok_or(BadStamp::Fields)?;
        if sequence.contains(&b';') {
            return Err(BadStamp::Fields);
        }
        let id = text(id, MessageId::check).map_err(BadStamp::Id)?;
        let instance = text(instance, Instance::check).map_err(BadStamp::Instance)?;
        let epoch = number(epoch).and_then(|epoch| u32::try_from(epoch).ok()).ok_or(BadStamp::Epoch)?;
        let sequence =
            number(sequence).filter(|sequence| (1..=SEQUENCE_MAX).contains(sequence)).ok_or(BadStamp::Sequence)?;
        Ok(Self { id, instance, epoch, sequence })
    }

    /// The same to be kept.
    pub fn to_stamp(self) -> Stamp {
        let Self { id, instance, epoch, sequence } = self;
        // Both were checked when they were read.
        Stamp { id: MessageId::of_checked(id.into()), instance: Instance(instance.into()), epoch, sequence }
    }
}

impl Instance {
    /// Checks a name.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, BadInstance> {
        let name = name.into();
        Self::check(&name).map(|()| Self(name))
    }

    fn check(name: &str) -> Result<(), BadInstance> {
        if !(1..=INSTANCE_BYTES_MAX).contains(&name.len()) {
            return Err(BadInstance::Length(name.len()));
        }
        match name.char_indices().find(|(_, character)| !character.is_ascii_graphic() || *character == ';') {
            Some((at, character)) => Err(BadInstance::Character(character, at)),
            None => Ok(()),
        }
    }

    /// For what is a name because a stamp says so.
    pub(crate) fn of_checked(name: &str) -> Self {
        debug_assert!(Self::check(name).is_ok(), "{name:?} is no instance");
        Self(name.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The shared text, so that whoever keeps it need not copy it.
impl Deref for Instance {
    type Target = Arc<str>;

    fn deref(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<&str> for Instance {
    type Error = BadInstance;

    fn try_from(name: &str) -> Result<Self, BadInstance> {
        Self::new(name)
    }
}

/// What is before the first `;`, and what is after it.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b';')?;
    Some((&text[..at], &text[at + 1..]))
}

/// A part of a stamp as text, if it is what it has to be.
fn text<E>(bytes: &[u8], check: impl Fn(&str) -> Result<(), E>) -> Result<&str, E> {
    match std::str::from_utf8(bytes) {
        Ok(text) => check(text).map(|()| text),
        // What is not UTF-8 becomes a character that is refused; were it not, the part would be refused all the same.
        Err(_) => check(&String::from_utf8_lossy(bytes)).map(|()| ""),
    }
}

/// Decimal digits without sign or leading zeros, so that a stamp can be written in one way only.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || (text.len() > 1 && text[0] == b'0') {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

const fn digits(number: u64) -> usize {
    match number.checked_ilog10() {
        Some(logarithm) => logarithm as usize + 1,
        None => 1,
    }
}

fn push_number(text: &mut Vec<u8>, mut number: u64) {
    let from = text.len();
    loop {
        #[allow(clippy::cast_possible_truncation)] // a digit
        text.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text[from..].reverse();
}

//! What tells one message from every other, for as long as anybody may see it again.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Longest message id, in bytes: long enough for a business's composite keys, short enough for an index.
pub const MESSAGE_ID_BYTES_MAX: usize = 128;

/// The id of a message: visible ASCII without `;`, 1 to [`MESSAGE_ID_BYTES_MAX`] bytes. The same id means the same message:
/// what a guard has let through once under it, it never lets through again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

/// Not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadMessageId {
    /// It is empty.
    #[error("a message id must not be empty")]
    Empty,
    /// It is too long.
    #[error("a message id has at most {MESSAGE_ID_BYTES_MAX} bytes, this one has {0}; use a hash of it")]
    TooLong(usize),
    /// It holds something that is not allowed.
    #[error("a message id is visible ASCII without ';', this one has {0:?} at byte {1}; encode it first")]
    Character(char, usize),
}

impl MessageId {
    /// Checks an id.
    pub fn new(id: impl Into<Arc<str>>) -> Result<Self, BadMessageId> {
        let id = id.into();
        Self::check(&id).map(|()| Self(id))
    }

    pub(crate) fn check(id: &str) -> Result<(), BadMessageId> {
        if id.is_empty() {
            return Err(BadMessageId::Empty);
        }
        if id.len() > MESSAGE_ID_BYTES_MAX {
            return Err(BadMessageId::TooLong(id.len()));
        }
        match id.char_indices().find(|(_, character)| !character.is_ascii_graphic() || *character == ';') {
            Some((at, character)) => Err(BadMessageId::Character(character, at)),
            None => Ok(()),
        }
    }

    /// For what is an id by the way it was made.
    pub(crate) fn of_checked(id: Arc<str>) -> Self {
        debug_assert!(Self::new(Arc::clone(&id)).is_ok(), "{id:?} is no id");
        Self(id)
    }

    /// Its text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Decimal digits: numbers of Snowflake and of segments.
impl From<u64> for MessageId {
    fn from(number: u64) -> Self {
        // 20 digits at most: nothing that needs to be checked.
        Self(number.to_string().into())
    }
}

impl TryFrom<&str> for MessageId {
    type Error = BadMessageId;

    fn try_from(id: &str) -> Result<Self, BadMessageId> {
        Self::new(id)
    }
}

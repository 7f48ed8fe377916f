//! What can go wrong, sorted by who can do something about it.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// A write or sync failed: the log takes nothing more until it is opened again. What was durable can still be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the log stopped after a failed write ({0}); check the disk, then restart: nothing acknowledged is affected")]
pub struct Poisoned(pub Arc<str>);

/// Why something was not appended. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// See [`Poisoned`].
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// No space could be reserved on the disk; try again when there is.
    #[error("the disk is full; free some space, then try again (reading goes on)")]
    DiskFull,
    /// Too much waits for the disk already; try again after [`crate::Log::room`].
    #[error("too much is waiting for the disk; try again in a moment")]
    Backlogged,
    /// The partition does not exist (any more).
    #[error("no such partition")]
    UnknownPartition,
    /// The topic does not exist (any more).
    #[error("no such topic")]
    UnknownTopic,
    /// The topic is there already.
    #[error("the topic exists already")]
    TopicExists,
    /// Larger than what one commit group may hold.
    #[error("larger than the {0} bytes that may wait for one commit")]
    TooLarge(usize),
    /// `producers_max` reached.
    #[error("too many idempotent producers are remembered; raise the limit, or wait until some expire")]
    TooManyProducers,
    /// Offset outside of the partition.
    #[error("the offset lies outside of the partition")]
    OffsetOutOfRange,
    /// No number is left for another partition.
    #[error("no more partitions can be created in this log")]
    TooManyPartitions,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The partition does not exist (any more).
    #[error("no such partition")]
    UnknownPartition,
    /// The offset is before the log start or after the high watermark.
    #[error("the offset is not between {} and {}", .0.log_start, .0.high_watermark)]
    OutOfRange(crate::Bounds),
    /// The records of these offsets were stored and are damaged on disk.
    #[error("offsets {first} to {last} are damaged on disk; go on after them, or restore them from a copy")]
    Damaged {
        /// First damaged offset.
        first: i64,
        /// Last damaged offset.
        last: i64,
    },
    /// The read would have to wait for the device, and was asked not to.
    #[error("not in the page cache")]
    NotCached,
    /// The device refused.
    #[error("reading failed: {0}")]
    Io(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Why a log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory holds a format that this version does not know.
    #[error("{file} was written in format {found}, this version reads up to {known}; use a newer baton")]
    Format {
        /// Name of the file.
        file: String,
        /// Its version.
        found: u16,
        /// The newest version known here.
        known: u16,
    },
    /// A file that cannot be rebuilt is unreadable.
    #[error("{file} is damaged ({reason}); restore the directory from a copy")]
    Damaged {
        /// Name of the file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

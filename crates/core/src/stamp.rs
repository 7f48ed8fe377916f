//! What a producer adds to each message, so that every one of them can be accounted for.

use std::sync::Arc;

use crate::MessageId;

/// Name of the one header that holds the stamp.
pub const STAMP_HEADER: &str = "baton";
/// Longest name of a producer instance, in bytes.
pub const INSTANCE_BYTES_MAX: usize = 24;

/// All messages of one producer instance and epoch in one partition of a topic are one sequence, numbered from 1 without gaps.
/// In the header `baton` a stamp reads `1;<message id>;<instance>;<epoch>;<sequence>`, the first field being the version: at most 96
/// bytes with the header's name, as long as the id has no more than the 36 of a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Which message.
    pub id: MessageId,
    /// Which producer instance: visible ASCII without `;`, at most [`INSTANCE_BYTES_MAX`] bytes.
    pub instance: Arc<str>,
    /// Grows each time the instance starts again.
    pub epoch: u32,
    /// Which number in its sequence, from 1.
    pub sequence: u64,
}

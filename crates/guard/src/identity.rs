//! Which message, for which group, from where, and on whose behalf.

use std::fmt;
use std::sync::Arc;

use baton_core::stamp::Stamp;
use baton_core::{MessageId, TopicPartition};
use thiserror::Error;

/// Longest name of a consumer group, in bytes: what Kafka and RabbitMQ take, and what fits into every store's index beside an id.
pub const GROUP_BYTES_MAX: usize = 255;

/// A consumer group. The same message in two groups is two effects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Arc<str>);

/// Not a name of a group.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the name of a consumer group has 1 to {GROUP_BYTES_MAX} bytes and no control characters, this one is {0:?}")]
pub struct BadGroup(String);

impl Group {
    /// Checks a name.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, BadGroup> {
        let name = name.into();
        if name.is_empty() || name.len() > GROUP_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(BadGroup(name.chars().take(GROUP_BYTES_MAX).collect()));
        }
        Ok(Self(name))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Where a message stands in its sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The producer instance that stamped it.
    pub instance: Arc<str>,
    /// The instance's epoch.
    pub epoch: u32,
    /// The partition that the sequence number belongs to: the one it was first sent to, also when it is read from elsewhere
    /// (a retry topic, a dead letter that is replayed).
    pub partition: TopicPartition,
    /// Which number, from 1.
    pub sequence: u64,
}

/// The right to write for a partition, as [`crate::Guard::take_over`] handed it out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    /// For which partition.
    pub partition: TopicPartition,
    /// Newer than all that were handed out for the partition and group before.
    pub epoch: u64,
}

/// What a guard knows a delivery by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// For which group.
    pub group: Group,
    /// Which message.
    pub id: MessageId,
    /// Where it stands in its sequence, if it is stamped.
    pub place: Option<Place>,
    /// On whose behalf; without one, nobody is refused.
    pub fence: Option<Fence>,
}

impl Identity {
    /// A message known by its id alone.
    pub fn new(group: Group, id: MessageId) -> Self {
        Self { group, id, place: None, fence: None }
    }

    /// A stamped message that was sent to `partition`.
    pub fn stamped(group: Group, stamp: &Stamp, partition: TopicPartition) -> Self {
        let (instance, epoch, sequence) = (Arc::clone(&stamp.instance), stamp.epoch, stamp.sequence);
        let place = Some(Place { instance, epoch, partition, sequence });
        Self { group, id: stamp.id.clone(), place, fence: None }
    }

    /// The same, on behalf of an owner.
    pub fn fenced(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }
}

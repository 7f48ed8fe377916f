//! Where a message was first sent to, if it is read from elsewhere.

use crate::{Headers, TopicPartition};

/// The topic that a dead letter came from.
pub const DEAD_TOPIC: &str = "baton-dead-topic";
/// The partition that it came from, in decimal.
pub const DEAD_PARTITION: &str = "baton-dead-partition";

/// The partition that a dead letter came from, also when it was sent again: what its sequence number belongs to. `None` for a message
/// that is where it was sent to.
pub fn origin(headers: &Headers) -> Option<TopicPartition> {
    let text = |name| std::str::from_utf8(headers.last(name)?).ok();
    Some(TopicPartition::new(text(DEAD_TOPIC)?, text(DEAD_PARTITION)?.parse().ok()?))
}

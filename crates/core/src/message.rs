//! What is sent, and what is delivered.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Header, Headers, MessageId};

/// A message to be sent.
///
/// ```
/// use baton_core::Message;
///
/// let message = Message::to("orders").key("order-17").payload(r#"{"beans":100}"#).header("tenant", "north");
/// assert_eq!(message.topic(), "orders");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a message does nothing until it is sent"]
pub struct Message {
    /// Where it goes.
    pub topic: Arc<str>,
    /// What keeps it in order with others of the same key, and chooses its partition.
    pub key: Option<Bytes>,
    /// Its content; `None` deletes the key where topics are compacted.
    pub payload: Option<Bytes>,
    /// What goes with it.
    pub headers: Headers,
    /// Milliseconds since 1970; the time of sending if absent.
    pub timestamp_ms: Option<i64>,
    /// A partition chosen by the caller instead of by the key.
    pub partition: Option<u32>,
    /// The business's own id; one is made if absent.
    pub id: Option<MessageId>,
}

impl Message {
    /// An empty message for a topic.
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            key: None,
            payload: None,
            headers: Headers::default(),
            timestamp_ms: None,
            partition: None,
            id: None,
        }
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the content.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.headers.push(name, Some(value.into()));
        self
    }

    /// Sets the business's own id.
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the time of the event, in milliseconds since 1970.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Chooses the partition, whatever the key says.
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Bytes of key, content and headers.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len) + self.headers.bytes()
    }
}

/// A partition of a topic. A queue of RabbitMQ and a message queue of RocketMQ are partitions here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// Counted from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.topic, self.partition)
    }
}

/// A message as an engine delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it came from.
    pub from: TopicPartition,
    /// Its place in the partition. Where the engine has none that lasts, a number that grows with each delivery of this assignment.
    pub offset: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its content.
    pub payload: Option<Bytes>,
    /// What goes with it.
    pub headers: Headers,
    /// Milliseconds since 1970, if the engine knows.
    pub timestamp_ms: Option<i64>,
    /// How often it was delivered before, if the engine counts; a lower bound.
    pub delivered_before: Option<u32>,
}

impl Delivery {
    /// The same in memory of its own. Engines copy small contents side by side, so that one that is kept for long keeps those of its neighbours
    /// too; whoever keeps a delivery, or a part of it, for longer than it is being handled keeps this instead.
    pub fn detached(&self) -> Self {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let headers = self.headers.iter();
        let headers =
            headers.map(|Header { name, value }| Header { name: name.clone(), value: value.as_ref().map(copy) });
        Self {
            from: self.from.clone(),
            key: self.key.as_ref().map(copy),
            payload: self.payload.as_ref().map(copy),
            headers: headers.collect(),
            ..*self
        }
    }

    /// Bytes of key, content and headers.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len) + self.headers.bytes()
    }
}

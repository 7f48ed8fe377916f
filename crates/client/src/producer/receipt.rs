//! How a send ended.

use std::fmt;
use std::sync::Arc;

use baton_core::stamp::Stamp;
use baton_core::{Fate, MessageId, NoSequence, TopicPartition};
use baton_engine::Durability;
use thiserror::Error;

/// The engine has the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which message.
    pub id: MessageId,
    /// Where it is.
    pub partition: TopicPartition,
    /// Its number in its sequence, from 1.
    pub sequence: u64,
    /// The epoch of its sequence.
    pub epoch: u32,
    /// Its offset, where the engine tells.
    pub offset: Option<i64>,
    /// What "the engine has it" meant: on which medium, in how many copies. [`Medium::Spool`](crate::Medium::Spool): the engine does not
    /// have it yet, it is on the disk of this machine and goes there when the engine is back.
    pub durability: Durability,
    /// How often it was handed to the engine. Above 1 it may be stored more than once, each time under this id.
    pub attempts: u32,
}

/// The message was given up. The variant says whether it could be stored; [`Unsent::may_retry`] whether sending it again may help.
///
/// Who sends again does so with [`Message::id`](crate::Message::id) set to [`SendError::id`]: under the same id a consumer's guard lets it
/// through once, even if both are stored.
///
/// ```no_run
/// # async fn example(producer: baton::Producer, message: baton::Message) {
/// match producer.send(message).await {
///     Ok(receipt) => println!("{} is in {}", receipt.id, receipt.partition),
///     Err(error) if !error.could_be_stored() => println!("nothing happened: {error}"),
///     Err(error) => println!("{:?} may arrive or not: {error}", error.id()),
/// }
/// # }
/// ```
#[derive(Debug, Clone, Error)]
pub enum SendError {
    /// It is certainly not stored, and never will be.
    #[error("certainly not stored: {0}")]
    NotStored(Box<Unsent>),
    /// Its fate is unknown: it may be stored, now or later.
    #[error("may be stored: {0}")]
    Unknown(Box<Unsent>),
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Where it was to go.
    pub topic: Arc<str>,
    /// Its id, if it had one.
    pub id: Option<MessageId>,
    /// To which partition, if it came so far.
    pub partition: Option<u32>,
    /// Its stamp, if it was ever handed to the engine. The number is recorded as abandoned, so that nobody takes it for a loss.
    pub stamp: Option<Stamp>,
    /// How often it was handed to the engine.
    pub attempts: u32,
    /// Whether sending it again may help, without that anybody changes anything.
    pub may_retry: bool,
    /// Why it was given up.
    pub reason: Reason,
}

/// Why a message was given up, or never taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Reason {
    /// The engine refused it for good.
    #[error("the engine refused it: {0}")]
    Refused(String),
    /// Its delivery timeout is over.
    #[error("its delivery timeout is over ({0})")]
    Deadline(String),
    /// All its attempts failed.
    #[error("all attempts failed, the last one with: {0}")]
    Attempts(String),
    /// There is no such topic.
    #[error("{0}")]
    NoTopic(String),
    /// The topic has no such partition.
    #[error("there is no partition {partition}, the topic has {there}")]
    NoPartition {
        /// The one that was asked for.
        partition: u32,
        /// How many there are.
        there: u32,
    },
    /// An ordered topic has another number of partitions than it should have.
    #[error(
        "the topic is ordered over {expected} partitions and has {there}: keys would go elsewhere and overtake themselves; drain it, \
         then change the number that the producer is given"
    )]
    PartitionsChanged {
        /// How many it should have.
        expected: u32,
        /// How many it has.
        there: u32,
    },
    /// It got no id.
    #[error("it got no id: {0}")]
    NoId(String),
    /// It got no sequence number.
    #[error("it got no number: {0}")]
    NoSequence(NoSequence),
    /// It is larger than the whole buffer.
    #[error("it takes {bytes} bytes of a buffer that has {max}: raise buffer_bytes_max")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Messages for too many partitions wait.
    #[error("messages for {0} partitions wait already")]
    TooManyPartitions(usize),
    /// An interceptor refused it.
    #[error("an interceptor refused it: {0}")]
    Intercepted(String),
    /// The spool did not take it.
    #[error("the engine is away, and the spool did not take it: {0}")]
    Spool(String),
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
    /// The runtime on which the producer ran is gone.
    #[error("the runtime that the producer ran on ended before the message did")]
    Ended,
    /// Its future was dropped while it waited for room.
    #[error("its future was dropped while it waited for room in the buffer")]
    Dropped,
}

impl SendError {
    pub(super) fn new(fate: Fate, unsent: Unsent) -> Self {
        match fate {
            Fate::NotStored => Self::NotStored(Box::new(unsent)),
            Fate::Unknown => Self::Unknown(Box::new(unsent)),
        }
    }

    /// Whether it could be stored, now or later. `false`: certainly not.
    pub fn could_be_stored(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Whether sending it again may help, without that anybody changes anything.
    pub fn may_retry(&self) -> bool {
        self.unsent().may_retry
    }

    /// The message's id, if it had one: to be kept when it is sent again.
    pub fn id(&self) -> Option<&MessageId> {
        self.unsent().id.as_ref()
    }

    /// Its stamp, if it was ever handed to the engine.
    pub fn stamp(&self) -> Option<&Stamp> {
        self.unsent().stamp.as_ref()
    }

    /// Why it was given up.
    pub fn reason(&self) -> &Reason {
        &self.unsent().reason
    }

    /// All that is known.
    pub fn unsent(&self) -> &Unsent {
        match self {
            Self::NotStored(unsent) | Self::Unknown(unsent) => unsent,
        }
    }
}

impl fmt::Display for Unsent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("message ")?;
        if let Some(id) = &self.id {
            write!(formatter, "{id} ")?;
        }
        write!(formatter, "to {}", self.topic)?;
        if let Some(partition) = self.partition {
            write!(formatter, "-{partition}")?;
        }
        write!(formatter, ": {}", self.reason)?;
        formatter.write_str(if self.may_retry { "; it may be sent again, under the same id" } else { "" })
    }
}

//! The contract between Baton and an engine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use baton_core::consumer::Waiting;
use baton_core::{Delivery, Failure, Headers, TopicPartition};
use bytes::Bytes;
use thiserror::Error;

use crate::Answer;

/// A future of an engine.
pub type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What an engine can do. What is not said here every engine can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// What it settles: a frontier of each partition, or each delivery.
    pub settling: Settling,
    /// Whether an offset names the same message for ever, in every assignment and group.
    pub lasting_offsets: bool,
    /// Whether a partition can be read again without a group, from any offset.
    pub reading: bool,
    /// Whether a position can carry metadata, and how many bytes of it.
    pub metadata_bytes_max: usize,
    /// Whether it drops what it stored already when a producer's own retry brings it again.
    pub idempotent_retries: bool,
    /// Whether messages sent before a group first subscribed reach the group. Where they do not, a send to a topic that no group has
    /// subscribed to fails with [`Fate::NotStored`] and [`Retry::Subscribed`].
    pub history: bool,
    /// Whether partitions are shared out anew when a member joins. Where they are not, each stays where it is until its member leaves.
    pub sharing: bool,
    /// What its acknowledgement of a send means.
    pub durability: Durability,
}

/// How consumption is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// By a frontier: everything before an offset is done.
    Frontier,
    /// Each delivery for itself.
    Each,
}

/// What "durable" meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durability {
    /// Where each copy was when the acknowledgement came.
    pub medium: Medium,
    /// How many copies there were.
    pub copies: Copies,
}

/// Where a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// In memory: lost with the machine's power.
    PageCache,
    /// On the disk.
    Disk,
    /// On the disk of the sender's own machine; no engine has it yet. No engine says this: a producer's spool does.
    Spool,
}

/// How many copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// One.
    One,
    /// A majority, or all that are in sync and no fewer than a minimum.
    Quorum,
    /// The engine does not tell.
    Unknown,
}

/// For [`Engine::reader`]: the oldest message that is kept, wherever that is by now.
pub const OLDEST: i64 = -2;

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many copies the engine keeps; `None` leaves it to the engine.
    pub copies: Option<u16>,
    /// More settings, under the engine's own names.
    pub settings: Vec<(String, String)>,
}

impl TopicSpec {
    /// A topic with everything else left to the engine.
    pub fn new(name: impl Into<Arc<str>>, partitions: u32) -> Self {
        Self { name: name.into(), partitions, copies: None, settings: Vec::new() }
    }
}

/// A message on its way to an engine: stamped, and its partition chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it goes.
    pub to: TopicPartition,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its content.
    pub payload: Option<Bytes>,
    /// What goes with it, the stamp included.
    pub headers: Headers,
    /// Milliseconds since 1970; the time of sending if absent.
    pub timestamp_ms: Option<i64>,
    /// The message's id, for engines that have a field for it.
    pub id: Option<Arc<str>>,
}

/// A record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its offset, where the engine tells.
    pub offset: Option<i64>,
    /// What that meant.
    pub durability: Durability,
}

/// A send failed. Whoever gets this needs to know two things: may it be tried again, and could it be stored already?
#[derive(Debug, Clone, Error)]
#[error("{cause}")]
pub struct SendError {
    /// Whether it could be stored.
    pub fate: Fate,
    /// Whether trying again may help.
    pub retry: Retry,
    /// What happened, and what to do.
    pub cause: String,
}

impl SendError {
    /// What it means for who decides about trying again.
    pub fn failure(&self) -> Failure {
        let fate = match self.fate {
            Fate::NotStored => baton_core::Fate::NotStored,
            Fate::Unknown => baton_core::Fate::Unknown,
        };
        Failure { fate, retryable: self.retry.may_help() }
    }

    /// Nobody is left who could say what became of the record.
    pub(crate) fn ended() -> Self {
        let cause = "the engine's client ended before the record was acknowledged; it may be stored".to_owned();
        Self { fate: Fate::Unknown, retry: Retry::Later, cause }
    }
}

/// What is known of a message whose send failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is certainly not stored.
    NotStored,
    /// It may be stored, now or later.
    Unknown,
}

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may.
    Later,
    /// It may, once a group has subscribed to the partition: the engine keeps what is sent only for groups that are there
    /// ([`Capabilities::history`]).
    Subscribed,
    /// Not until somebody changes the message, the topic or the settings.
    Never,
    /// Only if it is smaller: it is larger than the topic or the engine's client takes.
    Smaller,
}

impl Retry {
    /// Whether the same record may be taken at another time.
    pub fn may_help(self) -> bool {
        matches!(self, Self::Later | Self::Subscribed)
    }
}

/// Who is at fault when an engine fails.
#[derive(Debug, Clone, Error)]
pub enum EngineError {
    /// The caller: wrong address, wrong setting, unknown topic. Trying again does not help.
    #[error("{0}")]
    Caller(String),
    /// The engine or the way there: it may pass. Producers and consumers go on by themselves when it did: call again.
    #[error("{0}")]
    Unavailable(String),
    /// The engine cannot do this; see its [`Capabilities`].
    #[error("{0} is not something this engine can do")]
    Unsupported(&'static str),
    /// Baton is wrong.
    #[error("this is a bug in Baton: {0}")]
    Bug(String),
}

/// How a producer sends.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// Name shown to the engine.
    pub client_id: String,
    /// How long a record may wait for others to be sent with, in milliseconds.
    pub linger_ms: u64,
    /// After how long the engine's client must have given up a send, with an error that says its fate.
    pub delivery_timeout: Duration,
    /// More settings, under the names of the engine's own client.
    pub settings: Vec<(String, String)>,
}

/// How a consumer receives.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The consumer group.
    pub group: String,
    /// Topics to consume.
    pub topics: Vec<Arc<str>>,
    /// Where a group begins that has no position yet. There is no default that could skip messages silently.
    pub start: Start,
    /// Deliveries that may wait unsettled, for each partition, where the engine counts them ([`Settling::Each`]); elsewhere, how many
    /// are fetched ahead of those who take them. `None` is what suits the engine.
    pub prefetch: Option<u32>,
    /// How long [`EngineConsumer::release`] is waited for when the group wants partitions elsewhere; then they are taken, and
    /// [`Event::Lost`] says so.
    pub release_wait: Duration,
    /// More settings, under the names of the engine's own client.
    pub settings: Vec<(String, String)>,
}

/// Where a group without a position begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message that is kept.
    Earliest,
    /// At what comes from now on; what is there already is skipped.
    Latest,
}

/// What happens to a consumer.
#[derive(Debug)]
pub enum Event {
    /// Partitions are ours from now on.
    Assigned(Vec<Assignment>),
    /// Partitions are to be given up: finish or drop what is in flight, settle, then call [`EngineConsumer::release`]. The engine
    /// waits for this a while, and takes them then.
    Revoking(Vec<TopicPartition>),
    /// Partitions are somebody else's already: nothing of them may be settled any more.
    Lost(Vec<TopicPartition>),
    /// Messages, in the order of their partition.
    Messages(Vec<Delivery>),
    /// What should have been delivered next is not there any more. With `next` above `expected`, the messages between were removed
    /// (retention, deletion) before this group got them. With `next` below `expected`, the partition was cut back and may hold
    /// other messages at offsets that were delivered before: all that it keeps is delivered again. Delivery goes on at `next`.
    Gap {
        /// In which partition.
        partition: TopicPartition,
        /// The offset that should have come.
        expected: i64,
        /// The offset that comes.
        next: i64,
    },
    /// Nothing in the time that was given.
    Idle,
}

/// A partition that became ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which one.
    pub partition: TopicPartition,
    /// The frontier that was settled last, where frontiers are settled and one was.
    pub frontier: Option<i64>,
    /// The metadata that was settled with it.
    pub metadata: String,
    /// Grows with each assignment of this partition that this process sees.
    pub epoch: u64,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Everything before `next` is done ([`Settling::Frontier`]).
    Frontier {
        /// Of which partition.
        partition: TopicPartition,
        /// The first offset that is not done.
        next: i64,
        /// What is to be found with it in the next assignment.
        metadata: String,
    },
    /// This delivery is done ([`Settling::Each`]).
    Done {
        /// Of which partition.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
    },
    /// This delivery is given back, to be delivered again ([`Settling::Each`]).
    GiveBack {
        /// Of which partition.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
    },
}

/// A question about a partition that is ours: what is there from `next` on?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which one.
    pub partition: TopicPartition,
    /// The offset that should be delivered next; `None` before the first delivery of a group without a position.
    pub next: Option<i64>,
    /// Whether the answer must be exact, because something is to be done about it. Costs a read where an engine keeps things in its
    /// partitions that are never delivered (marks of transactions, what compaction removed): without it those count as messages.
    pub exact: bool,
}

/// What is still to come of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Which one.
    pub partition: TopicPartition,
    /// How much.
    pub waiting: Waiting,
    /// As [`Question::exact`] asked.
    pub exact: bool,
}

/// A message engine.
pub trait Engine: Send + Sync {
    /// What it is called: `embedded`, `kafka`, `rabbitmq`.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Creates a topic, or finds it there already with as many partitions; [`EngineError::Caller`] if with another number.
    /// Returned means: a send to each of its partitions succeeds.
    fn create_topic<'a>(&'a self, topic: &'a TopicSpec) -> EngineFuture<'a, Result<(), EngineError>>;

    /// How many partitions a topic has; [`EngineError::Caller`] if there is none of this name.
    fn partitions<'a>(&'a self, topic: &'a str) -> EngineFuture<'a, Result<u32, EngineError>>;

    /// A producer.
    fn producer(&self, options: ProducerOptions) -> EngineFuture<'_, Result<Arc<dyn EngineProducer>, EngineError>>;

    /// A member of a consumer group.
    fn consumer(&self, options: ConsumerOptions) -> EngineFuture<'_, Result<Box<dyn EngineConsumer>, EngineError>>;

    /// Reads a partition from `offset` on without any group ([`Capabilities::reading`]); [`OLDEST`] begins at the oldest message that
    /// is kept, any other offset that is not there is refused.
    fn reader<'a>(
        &'a self,
        partition: &'a TopicPartition,
        offset: i64,
    ) -> EngineFuture<'a, Result<Box<dyn EngineReader>, EngineError>>;
}

/// Sends records.
pub trait EngineProducer: Send + Sync {
    /// Hands a record over without waiting. Records of one partition are stored in the order of these calls, as long as none
    /// fails. The answer is given when the record is durable or given up, maybe before this returns.
    ///
    /// # Errors
    /// [`NoRoom`] when the client's buffer is full: nothing of the record was handed over, and no answer comes.
    fn hand_over(&self, record: &Record, answer: Answer) -> Result<(), NoRoom>;

    /// The same for who waits for this one record. Dropping the future does not take the record back.
    ///
    /// # Errors
    /// Gives the record back when the client's buffer is full: nothing of it was handed over.
    fn send(&self, record: Record) -> Result<EngineFuture<'static, Result<Stored, SendError>>, Full> {
        let (answer, answered) = Answer::one();
        match self.hand_over(&record, answer) {
            Ok(()) => Ok(Box::pin(async move { answered.await.unwrap_or_else(|_| Err(SendError::ended())) })),
            Err(NoRoom) => Err(Full(Box::new(record))),
        }
    }

    /// Waits until there is room again, or may be.
    fn room(&self) -> EngineFuture<'_, ()>;

    /// Waits until every record that was handed over is durable or given up, or the time is over; says how many are not.
    fn flush(&self, wait: Duration) -> EngineFuture<'_, usize>;
}

impl dyn EngineProducer + '_ {
    /// As [`EngineProducer::send`], but waits for as long as there is no room. Returned means: handed over.
    pub async fn send_when_room(&self, mut record: Record) -> EngineFuture<'static, Result<Stored, SendError>> {
        loop {
            match self.send(record) {
                Ok(stored) => return stored,
                Err(Full(back)) => {
                    record = *back;
                    self.room().await;
                }
            }
        }
    }
}

/// The client's buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

/// The client's buffer is full; holds the record.
#[derive(Debug)]
pub struct Full(pub Box<Record>);

/// A member of a consumer group.
pub trait EngineConsumer: Send {
    /// What comes next, [`Event::Idle`] after `wait`. May be dropped before it is done, and loses nothing by it. Must be called at
    /// least every few seconds, also while everything is paused: this is what keeps the member alive.
    fn next(&mut self, wait: Duration) -> EngineFuture<'_, Result<Event, EngineError>>;

    /// Stops deliveries of these partitions; what is on its way may still come. A partition that is assigned anew is not paused.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError>;

    /// Lets deliveries come again, from where they stopped.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError>;

    /// Delivers from this offset on again ([`Settling::Frontier`]).
    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), EngineError>;

    /// Settles. Returned means that the engine has it. Settlements of partitions that are not ours are refused with
    /// [`EngineError::Caller`] and do nothing; the others of the same call are settled all the same. Dropping the future leaves it
    /// open whether they were.
    fn settle<'a>(&'a mut self, settlements: &'a [Settlement]) -> EngineFuture<'a, Result<(), EngineError>>;

    /// Says what is still to come of partitions, [`Waiting::Offsets`] where offsets last ([`Capabilities::lasting_offsets`]), else
    /// [`Waiting::Undelivered`]. Of partitions that are not ours, or of which the engine does not answer in some seconds, nothing is said.
    ///
    /// This is not told by what delivers messages, so that deliveries that have stopped are seen by it. It holds up no other call: the
    /// future borrows nothing.
    fn backlog(&mut self, questions: Vec<Question>) -> EngineFuture<'static, Result<Vec<Backlog>, EngineError>>;

    /// Gives partitions up that the engine asked for.
    fn release<'a>(&'a mut self, partitions: &'a [TopicPartition]) -> EngineFuture<'a, Result<(), EngineError>>;

    /// Leaves the group; its partitions go to the others at once.
    fn close(self: Box<Self>) -> EngineFuture<'static, Result<(), EngineError>>;
}

/// Reads a partition without a group.
pub trait EngineReader: Send {
    /// The next messages in order; none when the end of the partition, as it was when this was called, is reached.
    fn next(&mut self) -> EngineFuture<'_, Result<Vec<Delivery>, EngineError>>;
}

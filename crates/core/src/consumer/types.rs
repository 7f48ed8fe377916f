//! What goes in and what comes out.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::arena::Id;
use crate::{Delivery, TopicPartition};

/// One call of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub(super) Id);

/// Names something that was asked for, until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// A partition that became ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which one.
    pub partition: TopicPartition,
    /// The frontier that was settled last, where one was.
    pub frontier: Option<i64>,
    /// The metadata that was settled with it.
    pub metadata: String,
    /// What [`Action::StoreDone`] stored last for this partition and group; empty if nothing.
    pub stored_done: Vec<u8>,
    /// Grows with each assignment of this partition that this process sees.
    pub epoch: u64,
    /// Keys of this partition of which the store holds parked messages.
    pub parked: Vec<KeyInStore>,
}

/// A key of which messages are parked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyInStore {
    /// Which key.
    pub key: Bytes,
    /// How many of its messages there are.
    pub messages: usize,
}

/// What is asked of the shell. Actions are carried out in the order in which they come; each that has a ticket is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Call the handler, once for each of these; answer with [`super::Core::finished`], in any case and once for each.
    Start {
        /// All that may begin now.
        calls: Vec<Started>,
    },
    /// Stop this call. [`super::Core::finished`] is still to follow, once it has really ended: until then nothing else of its keys
    /// is started.
    Cancel {
        /// Which call.
        run: RunId,
    },
    /// Stop deliveries.
    Pause {
        /// Of which partition.
        partition: TopicPartition,
    },
    /// Let deliveries come again.
    Resume {
        /// Of which partition.
        partition: TopicPartition,
    },
    /// Settle all of these; answer with [`super::Core::confirmed`].
    Settle {
        /// For the answer.
        ticket: Ticket,
        /// What is done; may be empty if its partitions were lost meanwhile.
        settlements: Vec<Settlement>,
    },
    /// Store this beside the engine, in place of what was stored for the partition and group before, because it does not fit
    /// in the metadata; answer with [`super::Core::confirmed`].
    StoreDone {
        /// For the answer.
        ticket: Ticket,
        /// Of which partition.
        partition: TopicPartition,
        /// Comes back as [`Assignment::stored_done`].
        bytes: Vec<u8>,
    },
    /// Make this dead letter durable; answer with [`super::Core::confirmed`].
    DeadLetter {
        /// For the answer.
        ticket: Ticket,
        /// The letter.
        letter: DeadLetter,
    },
    /// Append these to the parked messages of their key, durably and in order; answer with [`super::Core::confirmed`]. There is
    /// never more than one of these unanswered for a key.
    Park {
        /// For the answer.
        ticket: Ticket,
        /// Of which partition.
        partition: TopicPartition,
        /// Their key.
        key: Bytes,
        /// The messages, oldest first.
        messages: Vec<Parked>,
    },
    /// Read the oldest parked messages of a key; answer with [`super::Core::parked_loaded`].
    LoadParked {
        /// For the answer.
        ticket: Ticket,
        /// Of which partition.
        partition: TopicPartition,
        /// Which key.
        key: Bytes,
        /// At most so many.
        messages_max: usize,
    },
    /// Remove the parked messages of a key up to this position, itself included; answer with [`super::Core::confirmed`].
    RemoveParked {
        /// For the answer.
        ticket: Ticket,
        /// Of which partition.
        partition: TopicPartition,
        /// Which key.
        key: Bytes,
        /// See [`Loaded::position`].
        up_to: u64,
    },
    /// Everything of this partition is settled that can be: give it up, as the engine asked.
    Release {
        /// Which partition.
        partition: TopicPartition,
    },
    /// After [`super::Core::drain`]: all is settled that can be, nothing runs that still counts. Close.
    Drained,
    /// The engine has messages but delivers none: seek there, and resume.
    Seek {
        /// In which partition.
        partition: TopicPartition,
        /// To which offset.
        offset: i64,
    },
    /// Seeking did not help: leave the group and join again.
    Rejoin {
        /// Because of which partition.
        partition: TopicPartition,
    },
    /// Tell people.
    Report(Report),
}

/// One call of a handler that is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Which call.
    pub run: RunId,
    /// One message, or a batch; those of a partition in their order.
    pub messages: Messages,
}

/// The messages of a call: mostly one, which then takes no allocation.
pub type Messages = SmallVec<[Handed; 1]>;

/// A message on its way to a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// The message.
    pub delivery: Arc<Delivery>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// What is done. The same three as an engine's contract knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Everything before `next` is done.
    Frontier {
        /// Of which partition.
        partition: TopicPartition,
        /// The first offset that is not done.
        next: i64,
        /// What is done beyond it.
        metadata: String,
    },
    /// This delivery is done.
    Done {
        /// Of which partition.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
    },
    /// This delivery is given back, to be delivered again.
    GiveBack {
        /// Of which partition.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
    },
}

impl Settlement {
    /// Of which partition.
    pub fn partition(&self) -> &TopicPartition {
        let (Self::Frontier { partition, .. } | Self::Done { partition, .. } | Self::GiveBack { partition, .. }) = self;
        partition
    }
}

/// What failed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The same text for the same cause, so that many failing alike can be told from many failing each for itself: the type of
    /// the error, or the name of what was called.
    pub source: Arc<str>,
    /// What happened, for people.
    pub reason: Arc<str>,
}

impl Failure {
    /// A failure.
    pub fn new(source: impl Into<Arc<str>>, reason: impl Into<Arc<str>>) -> Self {
        Self { source: source.into(), reason: reason.into() }
    }
}

/// How a message fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its effect is there, durably.
    Done,
    /// Its handler was not begun, or was cancelled. Past the handler's deadline this is a transient failure, else no attempt.
    Stopped,
    /// It may work later.
    Transient(Failure),
    /// It will never work.
    Permanent(Failure),
    /// Nobody can read it.
    Undecodable(Failure),
    /// What the handler needs is away; says nothing about the message.
    DependencyDown(Failure),
    /// Park its key.
    Park(Failure),
}

/// How a call of a handler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcomes {
    /// All its messages fared alike. If a batch failed as a whole, its messages are tried one by one, and no attempt is counted.
    All(Outcome),
    /// One for each message, in order; those that are missing were [`Outcome::Stopped`].
    Each(Vec<Outcome>),
}

/// A message that nobody could handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message as it came, its origin included.
    pub delivery: Arc<Delivery>,
    /// Why it is here.
    pub class: FailureClass,
    /// What happened last.
    pub failure: Failure,
    /// How often it was tried.
    pub attempts: u32,
    /// When it came, in the milliseconds that were handed in.
    pub arrived_ms: u64,
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Tried often enough.
    Exhausted,
    /// Its handler called it hopeless.
    Permanent,
    /// Nobody can read it.
    Undecodable,
}

/// A message on its way to the parked ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The message as it came.
    pub delivery: Arc<Delivery>,
    /// How often it was tried.
    pub attempts: u32,
    /// What it failed of; `None` if it only waits behind one that failed.
    pub failure: Option<Failure>,
}

/// A parked message, read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its place among the parked ones of its key; grows.
    pub position: u64,
    /// The message as it came.
    pub delivery: Delivery,
}

/// Something that people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A partition has work, and nothing of it was finished for a while.
    Stuck {
        /// Which partition.
        partition: TopicPartition,
        /// Since when, in the milliseconds that were handed in.
        since_ms: u64,
        /// The oldest message that is unfinished.
        offset: i64,
        /// What that one waits for.
        waits_for: WaitsFor,
    },
    /// The engine has more, and delivers nothing; it is being recovered.
    NoDeliveries {
        /// Which partition.
        partition: TopicPartition,
        /// Since when.
        since_ms: u64,
        /// What would come next, where that is known.
        next: Option<i64>,
        /// What the engine said that it has.
        waiting: Waiting,
        /// What is done about it.
        remedy: Urge,
    },
    /// Deliveries of a partition came again after [`Report::NoDeliveries`].
    DeliveriesResumed {
        /// Which partition.
        partition: TopicPartition,
    },
    /// What came with an assignment about messages that are done cannot be used: they are handled again.
    DoneIgnored {
        /// Which partition.
        partition: TopicPartition,
        /// Why.
        cause: String,
    },
    /// Not all that is done fits in the metadata, and there is no store beside the engine: after a crash more is handled again.
    DoneCut {
        /// Which partition.
        partition: TopicPartition,
    },
    /// The engine delivered again what it had delivered before, or its log was cut: it is handled again.
    OffsetsWentBack {
        /// Which partition.
        partition: TopicPartition,
        /// To which offset.
        offset: i64,
    },
    /// An assignment was ignored: it is older than the one that we have.
    OldAssignment {
        /// Which partition.
        partition: TopicPartition,
    },
    /// A settlement, a dead letter, or something parked could not be stored; it is tried again.
    StoreFailed {
        /// What the shell said.
        cause: Arc<str>,
    },
    /// Consumption waits for what its handlers need.
    DependencyDown {
        /// What fails.
        failure: Failure,
        /// Whether a handler said so; else it was concluded from many keys that fail alike.
        told: bool,
    },
    /// A probe went well: consumption goes on.
    DependencyUp,
    /// A key is parked.
    KeyParked {
        /// In which partition.
        partition: TopicPartition,
        /// Which key.
        key: Bytes,
    },
    /// As many messages of a partition are parked as may be: what is to be parked waits until some are released.
    ParkingFull {
        /// Which partition.
        partition: TopicPartition,
        /// How many are parked.
        messages: usize,
    },
    /// All that was parked of a key is handled.
    KeyReleased {
        /// In which partition.
        partition: TopicPartition,
        /// Which key.
        key: Bytes,
    },
    /// A message of a key that was being released failed for good: the key stays parked, and this message is its first.
    ReleaseStopped {
        /// In which partition.
        partition: TopicPartition,
        /// Which key.
        key: Bytes,
        /// What happened.
        failure: Failure,
    },
}

/// What an engine still has of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// What it keeps has offsets from `begin` on, up to but without `end`.
    Offsets {
        /// The first one that is kept.
        begin: i64,
        /// The first one that is not there yet.
        end: i64,
    },
    /// So many messages that it did not deliver to anybody, or got back.
    Undelivered(u64),
}

/// What is done about an engine that has messages and delivers none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urge {
    /// It is told where to go on.
    Seek,
    /// The group is left and joined again.
    Rejoin,
}

/// What should be asked of the engine about a partition; see [`super::Core::backlog_questions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BacklogQuestion {
    /// Which one.
    pub partition: TopicPartition,
    /// What should be delivered next, where that is known.
    pub next: Option<i64>,
    /// Whether the answer decides about something, and must be exact.
    pub exact: bool,
}

/// How far a partition's group is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// Which partition.
    pub partition: TopicPartition,
    /// Messages that are not done, those in flight included; an upper bound where offsets have holes.
    pub messages: u64,
    /// When the engine said what it has, in the milliseconds that were handed in.
    pub asked_ms: u64,
}

/// What a message waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    /// Its handler runs.
    Handler {
        /// Since when.
        since_ms: u64,
        /// Whether it was told to stop, and does not.
        cancelled: bool,
    },
    /// It failed, and is tried again later.
    Backoff {
        /// When.
        until_ms: u64,
        /// Attempts so far.
        attempts: u32,
    },
    /// Its dead letter is not durable yet.
    DeadLetter {
        /// Since when.
        since_ms: u64,
    },
    /// It is not durably parked yet.
    Parking {
        /// Since when.
        since_ms: u64,
    },
    /// Its key is to be parked, and too many keys or messages are.
    ParkingRoom,
    /// What the handlers need is away.
    Dependency {
        /// Since when.
        since_ms: u64,
    },
    /// As many handlers run as may.
    Concurrency,
    /// The settlement before is not answered.
    Settlement {
        /// Since when.
        since_ms: u64,
    },
}

/// What happened so far; only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages delivered.
    pub delivered: u64,
    /// Messages handled.
    pub done: u64,
    /// Messages that a filter skipped.
    pub filtered: u64,
    /// Messages not handled since an earlier assignment had done them.
    pub skipped_done: u64,
    /// Messages delivered while they were in flight.
    pub duplicates_in_flight: u64,
    /// Messages delivered of partitions that are not ours (any more).
    pub not_ours: u64,
    /// Results of handlers that came after their partition was gone.
    pub late_results: u64,
    /// Attempts that failed and will be repeated.
    pub retries: u64,
    /// Messages whose dead letter is durable.
    pub dead_lettered: u64,
    /// Messages that are durably parked.
    pub parked: u64,
    /// Handlers that ran past their deadline.
    pub deadline_exceeded: u64,
    /// Times that a partition was paused.
    pub pauses: u64,
}

/// What is held in memory now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Partitions.
    pub partitions: usize,
    /// Messages of them that are unfinished.
    pub messages: usize,
    /// Bytes of these.
    pub bytes: usize,
    /// Keys with messages among these; messages without a key count for themselves.
    pub lanes: usize,
    /// Handlers that run, those of lost partitions included.
    pub handlers: usize,
    /// Keys that are parked.
    pub parked_keys: usize,
    /// Messages of these that lie in the store, or are on their way there.
    pub parked_messages: usize,
    /// Deadlines of handlers that are remembered.
    pub deadlines: usize,
}

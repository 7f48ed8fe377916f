//! What goes wrong, whose fault it is, and whether to try again.

use std::time::Duration;

use thiserror::Error;

/// What a store's client said.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error and what it comes from, in one line: of many clients the first says little.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A guard could not do what it was asked to. Nothing of it happened, unless it came as [`CommitError::Unknown`].
#[derive(Debug, Error)]
pub enum GuardError {
    /// The store or the way there; it may pass.
    #[error("{doing}: the store cannot be reached or gave up: {source}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What the client said.
        source: Source,
    },
    /// Somebody else holds what this needs (a row, the single writer's turn) for longer than the guard waits.
    #[error("{doing}: somebody else holds it; try again in {retry_after:?}")]
    Busy {
        /// What was being done.
        doing: &'static str,
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// The store refused; trying again does not help unless somebody changes something there.
    #[error("{doing}: {source}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: Source,
    },
    /// The guard's tables are not there.
    #[error("the guard's tables are not there: call prepare() once, or run the SQL of its documentation ({0})")]
    NotPrepared(Source),
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Caller(String),
    /// A frontier needs to know where a message stands in its sequence.
    #[error("message {0} carries no stamp, so it stands in no sequence: use an Inbox for this topic")]
    Unstamped(String),
    /// Too many gaps in a sequence.
    #[error(
        "{sequence} is done in more than {intervals_max} intervals: the oldest message that is not done must be done or parked first"
    )]
    TooManyGaps {
        /// Which sequence.
        sequence: String,
        /// How many are kept.
        intervals_max: usize,
    },
    /// What is stored is not what a guard stores.
    #[error("{0}: what is stored there was not written by this guard, or is damaged")]
    Corrupt(String),
    /// The transaction was over before the guard ended it: the handler ended it, or passed over an error that ended it.
    #[error(
        "the handler's transaction had failed or ended before the guard could commit it: a handler must hand on each error \
         of its statements, and must not commit or roll back by itself"
    )]
    TransactionEnded,
    /// Messages may come again after their marks would be gone.
    #[error(
        "marks must be kept for {needed:?}, because messages can come again for as long; pruning after {kept:?} would let them through twice"
    )]
    WindowTooShort {
        /// After how long they would be pruned.
        kept: Duration,
        /// For how long they are needed.
        needed: Duration,
    },
    /// Messages may come again for ever.
    #[error(
        "messages can come again without any limit of time, so no mark may ever be pruned: limit the retention, or use a Frontier"
    )]
    WindowWithoutEnd,
}

impl GuardError {
    /// Whether trying again, unchanged, may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Busy { .. } | Self::TooManyGaps { .. })
    }
}

/// A commit did not go well. What it says of the effect holds for the mark as well.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Nothing was committed, and nothing of it can be later.
    #[error("not committed: {0}")]
    NotCommitted(#[source] GuardError),
    /// It may be committed, now or in a moment. [`crate::Guard::fate`] tells; so does beginning the same message again.
    #[error("it is not known whether this was committed: {0}")]
    Unknown(#[source] GuardError),
    /// Somebody else committed the message in the meantime. Nothing of ours was.
    #[error("somebody else applied the message first; this was rolled back")]
    AlreadyDone,
    /// The partition has a new owner. Nothing of ours was committed (under a [`crate::Claim`] the effect cannot be undone, and is
    /// marked). Acknowledge nothing.
    #[error("the partition has a new owner; this was rolled back")]
    Fenced,
    /// The lease ended before the mark was made ([`crate::Claim`] only): the effect happened, and may happen again elsewhere.
    #[error("the lease ended while the handler ran; the effect may happen again: use a longer lease, or an Inbox")]
    LeaseLost,
}

/// A statement of a handler failed.
#[derive(Debug, Error)]
pub enum EffectError<E: std::error::Error + 'static> {
    /// The transaction is over: the handler has returned, or somebody ended it.
    #[error("the handler's transaction is over")]
    Closed,
    /// The store's own error.
    #[error(transparent)]
    Store(#[from] E),
}

//! What goes wrong, whose fault it is, and whether to try again.

use thiserror::Error;

/// What a database's client said.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// An outbox could not do what it was asked to. An error in the caller's transaction has ended that transaction, or may have: roll it back.
#[derive(Debug, Error)]
pub enum OutboxError {
    /// The database or the way there; it may pass. What was being done may have happened.
    #[error("{doing}: the database cannot be reached or gave up: {source}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What the client said.
        source: Source,
    },
    /// The database refused; trying again does not help unless somebody changes something there.
    #[error("{doing}: {source}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: Source,
    },
    /// The outbox's tables are not there.
    #[error("the outbox's tables are not there: run `baton outbox init`, or the SQL that it prints with --print ({0})")]
    NotPrepared(Source),
    /// A message with this id is in the outbox already.
    #[error("a message with the id {0} is in the outbox already; Duplicate::Ignore lets it pass")]
    Duplicate(String),
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Caller(String),
    /// What is stored is not what an outbox stores.
    #[error("{0}: what is stored there was not written by this outbox, or is damaged")]
    Corrupt(String),
}

impl OutboxError {
    /// Whether trying again, unchanged, may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

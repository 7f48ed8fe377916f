//! What handlers say when they fail, and why a consumer does not start or ends.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use baton_core::consumer::{BadSettings, Failure, Outcome};
use baton_engine::EngineError;
use baton_guard::{BadGroup, Strength};
use thiserror::Error;

/// What is to be done about a message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// It may work later: it is tried again, with backoff, and counts as an attempt. Only its key waits.
    Transient,
    /// It will never work: dead letter at once.
    Permanent,
    /// What the handler needs is away. That says nothing about the message: no attempt is counted, consumption pauses, and one
    /// message at a time probes until one goes well.
    DependencyDown,
    /// Set the key aside: this message and all that follow of its key wait in a durable store, in order, until they are released.
    Park,
}

/// Why a handler could not do what it should. Any error becomes a transient one by `?`; [`Classify`] says more.
///
/// It is deliberately no [`std::error::Error`] itself, so that every error can become one.
pub struct HandlerError {
    class: ErrorClass,
    source: Arc<str>,
    reason: String,
}

impl HandlerError {
    /// An error of a class. `source` is the same text for the same cause (the name of what was called, the type of the error): by it
    /// many messages that fail alike are told from many that fail each for itself.
    pub fn new(class: ErrorClass, source: impl Into<Arc<str>>, reason: impl Into<String>) -> Self {
        Self { class, source: source.into(), reason: reason.into() }
    }

    /// It may work later.
    pub fn transient(source: impl Into<Arc<str>>, reason: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, source, reason)
    }

    /// It will never work.
    pub fn permanent(source: impl Into<Arc<str>>, reason: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, source, reason)
    }

    /// The dependency of this name is away.
    pub fn dependency_down(dependency: impl Into<Arc<str>>, reason: impl Into<String>) -> Self {
        Self::new(ErrorClass::DependencyDown, dependency, reason)
    }

    /// Park the key.
    pub fn park(source: impl Into<Arc<str>>, reason: impl Into<String>) -> Self {
        Self::new(ErrorClass::Park, source, reason)
    }

    /// What is to be done about it.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    pub(super) fn into_outcome(self) -> Outcome {
        let failure = Failure::new(self.source, self.reason);
        match self.class {
            ErrorClass::Transient => Outcome::Transient(failure),
            ErrorClass::Permanent => Outcome::Permanent(failure),
            ErrorClass::DependencyDown => Outcome::DependencyDown(failure),
            ErrorClass::Park => Outcome::Park(failure),
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} ({}): {}", self.class, self.source, self.reason)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    /// Transient: who does not know better tries again.
    fn from(error: E) -> Self {
        Self::new(ErrorClass::Transient, std::any::type_name::<E>(), chain(&error))
    }
}

/// The error and what it comes from, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many errors say their cause themselves.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Says what is to be done about an error, where it happens: `payments.charge(&order).await.permanent()?`.
pub trait Classify<T> {
    /// It will never work.
    fn permanent(self) -> Result<T, HandlerError>;
    /// It may work later.
    fn transient(self) -> Result<T, HandlerError>;
    /// The dependency of this name is away.
    fn dependency_down(self, dependency: &'static str) -> Result<T, HandlerError>;
    /// Park the key.
    fn park(self) -> Result<T, HandlerError>;
}

impl<T, E: Error + Send + Sync + 'static> Classify<T> for Result<T, E> {
    fn permanent(self) -> Result<T, HandlerError> {
        self.map_err(|error| HandlerError { class: ErrorClass::Permanent, ..error.into() })
    }

    fn transient(self) -> Result<T, HandlerError> {
        self.map_err(HandlerError::from)
    }

    fn dependency_down(self, dependency: &'static str) -> Result<T, HandlerError> {
        self.map_err(|error| HandlerError::dependency_down(dependency, chain(&error)))
    }

    fn park(self) -> Result<T, HandlerError> {
        self.map_err(|error| HandlerError { class: ErrorClass::Park, ..error.into() })
    }
}

/// Why a consumer does not start, or ended without being told to.
#[derive(Debug, Error)]
pub enum ConsumerError {
    /// The settings contradict themselves.
    #[error(transparent)]
    Settings(#[from] BadSettings),
    /// The name of the group cannot be used.
    #[error(transparent)]
    Group(#[from] BadGroup),
    /// The operating system gives no random numbers, which name a consumer in its reports.
    #[error("the operating system gives no random numbers: {0}")]
    Random(String),
    /// No topics.
    #[error("a consumer needs at least one topic: call topics([..])")]
    NoTopics,
    /// At most once settles a message before it is handled, which can be said of one after the other only.
    #[error(
        "at_most_once settles each message before it is handled, so it needs Order::PerPartition or batches of one partition"
    )]
    OrderOfAtMostOnce,
    /// The guard promises less than was asked for.
    #[error(
        "effectively_once needs a guard that commits mark and effect together, and {name} is {strength:?}: \
         use guard(..) to accept its failure window"
    )]
    WeakGuard {
        /// Which guard.
        name: &'static str,
        /// What it promises.
        strength: Strength,
    },
    /// Keys are to be parked, and there is nowhere to put them.
    #[error("parking needs a store: this engine cannot read without a group, so give one with side_store(..)")]
    NoSideStore,
    /// The store knows messages by offsets, and the engine's do not last.
    #[error(
        "this side store knows messages by their offsets, and those of {engine} do not last: use one in a database, \
         such as PostgresSideStore"
    )]
    SideStoreOfOffsets {
        /// Which engine.
        engine: &'static str,
    },
    /// What is stored is known by its offset, and the engine's do not last.
    #[error(
        "store-first mode knows messages by their offsets, and those of {engine} do not last: leave store_first out"
    )]
    StoreFirstNeedsOffsets {
        /// Which engine.
        engine: &'static str,
    },
    /// A topic that is consumed is its own dead-letter topic.
    #[error("topic {0} is consumed and its own dead-letter topic: dead letters would be handled again for ever")]
    DeadLetterLoop(Arc<str>),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The task of the consumer is gone.
    #[error("the consumer's task ended unexpectedly: {0}")]
    Ended(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> Result<(), HandlerError> {
        Err(std::io::Error::other("disk"))?;
        Ok(())
    }

    #[test]
    fn a_plain_error_is_transient_and_named_after_its_type() {
        let error = failing().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient);
        let Outcome::Transient(failure) = error.into_outcome() else { panic!("not transient") };
        assert_eq!((&*failure.source, &*failure.reason), ("std::io::error::Error", "disk"));
    }

    #[test]
    fn an_error_is_classified_where_it_happens() {
        let failed = || Err::<(), _>(std::io::Error::other("refused"));
        assert_eq!(failed().permanent().unwrap_err().class(), ErrorClass::Permanent);
        assert_eq!(failed().park().unwrap_err().class(), ErrorClass::Park);
        assert_eq!(failed().transient().unwrap_err().class(), ErrorClass::Transient);
        let Outcome::DependencyDown(failure) = failed().dependency_down("payments").unwrap_err().into_outcome() else {
            panic!("not down")
        };
        assert_eq!(&*failure.source, "payments");
    }
}

//! The contract of a guard.

use std::future::Future;
use std::time::Duration;

use baton_core::TopicPartition;

use crate::{CommitError, Fence, Group, GuardError, Identity};

/// Lets a message's effect happen once in a group.
///
/// The order of calls is: [`Guard::begin`]; if it answers [`Admission::Fresh`], the handler with [`Open::effect`]; then
/// [`Open::commit`] if it succeeded, [`Open::abort`] if not; then the acknowledgement to the engine, never before. [`crate::apply`]
/// does this. What is dropped on the way counts as aborted: the message is as fresh as before, at the latest when the store has
/// noticed.
pub trait Guard: Send + Sync + 'static {
    /// An effect that was begun.
    type Open: Open;

    /// What it is called in logs and tables: `inbox on postgres`.
    fn name(&self) -> &'static str;

    /// What it promises.
    fn strength(&self) -> Strength;

    /// Whether it needs [`Identity::place`].
    fn needs_place(&self) -> bool {
        false
    }

    /// Asks for a message. Of all that ask for the same message of the same group, at the same time or later, at most one
    /// gets to commit it.
    fn begin(&self, identity: &Identity) -> impl Future<Output = Result<Admission<Self::Open>, GuardError>> + Send;

    /// Asks for many messages of one group, whose effects are committed together. Fails as a whole if any of them is held by
    /// somebody else for longer than the guard waits: ask for them one by one then. An empty slice is nobody's intention, and
    /// refused.
    fn begin_batch(
        &self,
        identities: &[Identity],
    ) -> impl Future<Output = Result<Batch<Self::Open>, GuardError>> + Send;

    /// Makes the caller the only one who may write for a partition of a group. Returned means: whatever was begun under an older
    /// fence has ended, and nothing of it will be committed from now on. Call it when a partition was assigned, before its first
    /// message.
    fn take_over(
        &self,
        group: &Group,
        partition: &TopicPartition,
    ) -> impl Future<Output = Result<Fence, GuardError>> + Send;

    /// Which of the store's settings weaken the promise, as they are for this connection now. Empty: none that is known.
    fn weaknesses(&self) -> impl Future<Output = Result<Vec<Weakness>, GuardError>> + Send;

    /// What became of a commit whose fate is unknown. May be asked as often as one likes.
    fn fate(&self, identity: &Identity) -> impl Future<Output = Result<Fate, GuardError>> + Send {
        async move {
            Ok(match self.begin(identity).await? {
                Admission::Fresh(open) => {
                    open.abort().await;
                    Fate::NotCommitted
                }
                Admission::AlreadyDone => Fate::Committed,
                Admission::InProgress(retry_after) => Fate::Undecided(retry_after),
                Admission::Fenced => Fate::Fenced,
            })
        }
    }
}

/// An effect that was begun and not ended. Dropped, it is rolled back.
pub trait Open: Send + 'static {
    /// What the handler gets: the open transaction.
    type Effect: Clone + Send + Sync + 'static;

    /// A handle for the handler. Every copy of it is dead as soon as the effect is committed, aborted or dropped.
    fn effect(&self) -> Self::Effect;

    /// Commits effect and mark. Returned means: durable, as far as [`Guard::weaknesses`] names none. If this future is dropped
    /// before it is done the fate is unknown.
    fn commit(self) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Rolls back. The message is fresh again.
    fn abort(self) -> impl Future<Output = ()> + Send;
}

/// What a guard's handlers get.
pub type EffectOf<G> = <<G as Guard>::Open as Open>::Effect;

/// The answer to [`Guard::begin`].
#[derive(Debug)]
#[must_use = "a fresh effect is rolled back when it is dropped"]
pub enum Admission<O> {
    /// Nobody has applied it: run the handler.
    Fresh(O),
    /// It was applied: acknowledge it.
    AlreadyDone,
    /// Somebody is at it: ask again, after this long at the earliest.
    InProgress(Duration),
    /// The partition has a new owner: drop it, and acknowledge nothing.
    Fenced,
}

/// The answer to [`Guard::begin_batch`].
#[derive(Debug)]
#[must_use = "fresh effects are rolled back when they are dropped"]
pub struct Batch<O> {
    /// What each message is, in the order in which they were asked for.
    pub states: Vec<State>,
    /// The one transaction of all that are [`State::Fresh`]; `None` if none is.
    pub open: Option<O>,
}

/// What a message of a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody has applied it: run the handler.
    Fresh,
    /// It was applied.
    AlreadyDone,
    /// It is in this batch already, and is done when the batch is.
    Repeated,
    /// Somebody is at it.
    InProgress(Duration),
    /// The partition has a new owner.
    Fenced,
}

/// What a guard promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// It remembers nothing: the handler's own conditional writes decide.
    Conditional,
    /// The mark lies beside the effect: who dies between the two has the effect happen again.
    Leased,
    /// Effect and mark are committed together, or neither is.
    Atomic,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is committed.
    Committed,
    /// It is not, and will not be.
    NotCommitted,
    /// It is not decided yet; ask again after this long.
    Undecided(Duration),
    /// The partition has a new owner, who will find out.
    Fenced,
}

/// A setting that weakens a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weakness {
    /// The setting, under the store's own name.
    pub setting: String,
    /// Its value.
    pub value: String,
    /// What it should be.
    pub wanted: &'static str,
    /// What can happen, and to whom.
    pub consequence: &'static str,
}

/// How a store reports its settings: name, whether the value is fine, what it should be, and why.
pub struct Durable {
    /// The setting.
    pub setting: &'static str,
    /// Values that are fine.
    pub fine: &'static [&'static str],
    /// What it should be.
    pub wanted: &'static str,
    /// What happens otherwise.
    pub consequence: &'static str,
}

impl Durable {
    /// The weakness that this value is, if it is one.
    pub fn judge(&self, value: &str) -> Option<Weakness> {
        let fine = self.fine.iter().any(|fine| fine.eq_ignore_ascii_case(value));
        (!fine).then(|| Weakness {
            setting: self.setting.to_owned(),
            value: value.to_owned(),
            wanted: self.wanted,
            consequence: self.consequence,
        })
    }
}

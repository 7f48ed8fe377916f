//! The one right order of steps, for one message and for many.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use thiserror::Error;

use crate::{Admission, CommitError, EffectOf, Fate, Guard, GuardError, Identity, Open, State};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its effect was committed: acknowledge it.
    Applied,
    /// Its effect had been committed before: acknowledge it.
    AlreadyDone,
    /// Somebody is at it: try again after this long, acknowledge nothing.
    InProgress(Duration),
    /// The partition has a new owner: drop it, acknowledge nothing.
    Fenced,
}

/// A message was not applied, or it is not known.
#[derive(Debug, Error)]
pub enum ApplyError<E: Error + 'static> {
    /// The handler failed; everything was rolled back.
    #[error("the handler failed: {0}")]
    Handler(#[source] E),
    /// The guard could not admit the message; the handler did not run.
    #[error(transparent)]
    Begin(GuardError),
    /// The commit failed.
    #[error(transparent)]
    Commit(CommitError),
}

/// Asks, runs the handler on what is fresh, commits. A commit of unknown fate is asked for once more; what is still unknown then
/// comes as [`CommitError::Unknown`]. May be called again after each error but [`GuardError::is_transient`] `== false` ones.
pub async fn apply<G, H, F, E>(guard: &G, identity: &Identity, handler: H) -> Result<Outcome, ApplyError<E>>
where
    G: Guard,
    H: FnOnce(EffectOf<G>) -> F,
    F: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    let open = match guard.begin(identity).await.map_err(ApplyError::Begin)? {
        Admission::Fresh(open) => open,
        Admission::AlreadyDone => return Ok(Outcome::AlreadyDone),
        Admission::InProgress(retry_after) => return Ok(Outcome::InProgress(retry_after)),
        Admission::Fenced => return Ok(Outcome::Fenced),
    };
    if let Err(error) = handler(open.effect()).await {
        open.abort().await;
        return Err(ApplyError::Handler(error));
    }
    match open.commit().await {
        Ok(()) => Ok(Outcome::Applied),
        Err(CommitError::AlreadyDone) => Ok(Outcome::AlreadyDone),
        Err(CommitError::Fenced) => Ok(Outcome::Fenced),
        Err(CommitError::Unknown(cause)) => match guard.fate(identity).await {
            Ok(Fate::Committed) => Ok(Outcome::Applied),
            Ok(Fate::NotCommitted) => Err(ApplyError::Commit(CommitError::NotCommitted(cause))),
            Ok(Fate::Fenced) => Ok(Outcome::Fenced),
            Ok(Fate::Undecided(_)) | Err(_) => Err(ApplyError::Commit(CommitError::Unknown(cause))),
        },
        Err(error) => Err(ApplyError::Commit(error)),
    }
}

/// Applies many messages of one group in one transaction, in their order; `handler` gets the index of each. When one of them
/// fails, nothing of the batch is committed and each message is applied in a transaction of its own, so that the others go
/// through. The handler may therefore run twice for a message; its effect is committed once.
pub async fn apply_batch<G, H, F, E>(
    guard: &G,
    identities: &[Identity],
    handler: H,
) -> Vec<Result<Outcome, ApplyError<E>>>
where
    G: Guard,
    H: Fn(usize, EffectOf<G>) -> F,
    F: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    if identities.len() > 1
        && let Some(outcomes) = together(guard, identities, &handler).await
    {
        return outcomes.into_iter().map(Ok).collect();
    }
    let mut outcomes = Vec::with_capacity(identities.len());
    for (at, identity) in identities.iter().enumerate() {
        outcomes.push(apply(guard, identity, |effect| handler(at, effect)).await);
    }
    outcomes
}

/// All in one transaction; `None` if that was not possible and nothing, or nobody knows what, was committed. Either way the way
/// on is one by one: what was committed after all is found to be done then.
async fn together<G, H, F, E>(guard: &G, identities: &[Identity], handler: &H) -> Option<Vec<Outcome>>
where
    G: Guard,
    H: Fn(usize, EffectOf<G>) -> F,
    F: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    let batch = match guard.begin_batch(identities).await {
        Ok(batch) => batch,
        Err(error) => {
            tracing::debug!(%error, "a batch goes on one by one");
            return None;
        }
    };
    if let Some(open) = batch.open {
        for (at, _) in batch.states.iter().enumerate().filter(|(_, state)| **state == State::Fresh) {
            if let Err(error) = handler(at, open.effect()).await {
                tracing::debug!(%error, at, "a batch goes on one by one");
                open.abort().await;
                return None;
            }
        }
        if let Err(error) = open.commit().await {
            tracing::debug!(%error, "a batch goes on one by one");
            return None;
        }
    }
    let outcome = |state: State| match state {
        State::Fresh => Outcome::Applied,
        State::AlreadyDone | State::Repeated => Outcome::AlreadyDone,
        State::InProgress(retry_after) => Outcome::InProgress(retry_after),
        State::Fenced => Outcome::Fenced,
    };
    Some(batch.states.into_iter().map(outcome).collect())
}

//! The guards that mark in the effect's own transaction, whatever the store.

use std::collections::BTreeMap;

use crate::sequences::Sequences;
use crate::{GuardError, Identity, State};

/// Remembers each message id of a group in a table, in the transaction of the effect.
///
/// The mark is made when the message is begun, before the handler runs, so whoever begins the same message meanwhile waits for the
/// outcome, or is told [`crate::Admission::InProgress`]. The unique key decides, not a look beforehand.
///
/// # Failure window
///
/// None between effect and mark: they are one transaction.
///
/// | the process, or its connection, dies | effect | mark | the message comes again and is |
/// |---|---|---|---|
/// | before, or in the middle of [`crate::Guard::begin`] | no | no | fresh |
/// | after it, while the handler runs, after the handler | rolled back | rolled back | fresh, once the store has noticed; until then in progress |
/// | while the commit is on its way | both or neither | | done or fresh; [`crate::Guard::fate`] tells |
/// | after the commit, before the acknowledgement | yes | yes | done |
///
/// **The store loses its last second** (`synchronous_commit=off`, `innodb_flush_log_at_trx_commit=2`, failover to an
/// asynchronous standby): effect and mark are lost together, so nothing is ever applied twice; but the engine has been told that
/// the message is done and does not bring it again, so the effect is **missing**. [`crate::Guard::weaknesses`] names such settings.
///
/// **Marks are pruned too early**: a message that comes again after its mark is gone is applied **twice**. `prune` therefore asks
/// for how long messages can come again ([`crate::Redelivery`]) and refuses a shorter window. A table that is partitioned by time
/// would be quicker to prune, but its unique keys hold within a partition only: the same id on both sides of midnight would be let
/// through twice. That is why there is no such option.
///
/// **What is outside of the transaction** (calls to other services, files, messages sent directly) is not covered: it happens each
/// time the handler runs. Write it into an outbox table with the effect.
#[derive(Debug, Clone, Copy)]
pub struct Inbox;

/// Remembers how far each sequence is done, in the transaction of the effect: one row for each producer instance, epoch, topic and
/// partition of a group, whatever the number of messages. Needs stamped messages; others are refused with
/// [`GuardError::Unstamped`].
///
/// A row holds the frontier (everything up to it is done) and what is done beyond it as ranges, so messages may be done in any
/// order. Rows are looked at when a message is begun and changed just before its commit, on the condition that nobody changed them
/// in between (a version), so that handlers of the same sequence run side by side; who finds a changed row locks it, looks again,
/// and merges. If two have run the same message, the second rolls back with [`crate::CommitError::AlreadyDone`].
///
/// A new epoch of a producer is a new sequence that begins at 1, with a row of its own. The rows of the epochs before stay and go
/// on to judge what is still under way of them, until they are pruned: rows untouched for longer than messages can come again.
///
/// **Bounded**: a sequence that is done in more than [`crate::INTERVALS_MAX`] intervals takes only what does not add to them, the
/// others get [`GuardError::TooManyGaps`], which is transient. Messages that a consumer drops on purpose (dead letters,
/// filtered, expired) must be marked as well, with an effect that does nothing, or each of them stays a gap; so does a number
/// that its producer abandoned and that never arrives, at the cost of one interval. Topics that lose messages from their
/// middle (compacted ones) are not for this guard.
///
/// # Failure window
///
/// The same as [`Inbox`]'s: none between effect and mark. When the store loses its last second, effect and mark are lost together,
/// and the effect is missing. Rows pruned too early let a whole sequence through again: `prune` asks and refuses as there.
///
/// The sequence number must mean the same message for ever. It does for Baton's stamps; a producer that counts anew under the same
/// instance and epoch has its new messages taken for old ones, which are **lost**.
#[derive(Debug, Clone, Copy)]
pub struct Frontier;

/// Opens a transaction for the handler, checks the fence, and remembers nothing: the handler's own writes must be conditional, with
/// [`crate::Version`] or [`crate::Condition`].
///
/// # Failure window
///
/// A message that comes again is handed to the handler again, always. Whether its effect happens twice is up to the conditions.
/// The transaction as a whole is committed or not, as with [`Inbox`].
#[derive(Debug, Clone, Copy)]
pub struct Conditional;

/// Which marks a transaction makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A row for each message.
    Inbox,
    /// A row for each sequence.
    Frontier,
    /// None.
    Nothing,
}

/// What an open transaction still has to do at its end.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Nothing: it was marked in the beginning.
    Nothing,
    /// Move these on.
    Frontier(Sequences),
}

/// The group that all messages of a batch belong to.
pub(crate) fn one_group(identities: &[Identity]) -> Result<&str, GuardError> {
    let first = identities.first().ok_or_else(|| GuardError::Caller("a batch of no messages".to_owned()))?;
    if identities.iter().any(|identity| identity.group != first.group) {
        return Err(GuardError::Caller("the messages of a batch belong to one group".to_owned()));
    }
    Ok(first.group.as_str())
}

/// The fences that a batch comes under, sorted, each once. Two for one partition: the older one is one too many.
pub(crate) fn fences(identities: &[Identity]) -> Result<BTreeMap<(&str, u32), i64>, GuardError> {
    let mut all = BTreeMap::new();
    for fence in identities.iter().filter_map(|identity| identity.fence.as_ref()) {
        let epoch = i64::try_from(fence.epoch)
            .map_err(|_| GuardError::Caller(format!("{} is no epoch of a fence", fence.epoch)))?;
        let known = *all.entry((&*fence.partition.topic, fence.partition.partition)).or_insert(epoch);
        if known != epoch {
            return Err(GuardError::Caller(format!("two fences for {} in one batch", fence.partition)));
        }
    }
    Ok(all)
}

/// What each message of a batch is, given the ids that were new to the inbox. An id that is there twice is fresh once.
pub(crate) fn inbox_states<'a>(identities: &'a [Identity], mut is_new: impl FnMut(&'a str) -> bool) -> Vec<State> {
    let mut seen = BTreeMap::new();
    let state = |identity: &'a Identity| match seen.get(identity.id.as_str()) {
        Some(State::Fresh) => State::Repeated,
        Some(known) => *known,
        None => {
            let state = if is_new(identity.id.as_str()) { State::Fresh } else { State::AlreadyDone };
            seen.insert(identity.id.as_str(), state);
            state
        }
    };
    identities.iter().map(state).collect()
}

/// The distinct ids of a batch, sorted: locks are taken in an order that is the same for everybody.
pub(crate) fn sorted_ids(identities: &[Identity]) -> Vec<&str> {
    let mut ids: Vec<&str> = identities.iter().map(|identity| identity.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use baton_core::TopicPartition;

    use super::*;
    use crate::{Fence, Group};

    fn identity(group: &str, id: &str) -> Identity {
        Identity::new(Group::new(group).unwrap(), id.try_into().unwrap())
    }

    #[test]
    fn a_message_that_is_twice_in_a_batch_is_fresh_once() {
        let batch = ["b", "a", "b", "a"].map(|id| identity("g", id));
        assert_eq!(sorted_ids(&batch), ["a", "b"]);
        let states = inbox_states(&batch, |id| id == "b");
        assert_eq!(states, [State::Fresh, State::AlreadyDone, State::Repeated, State::AlreadyDone]);
    }

    #[test]
    fn a_batch_has_one_group_and_one_fence_for_each_partition() {
        assert!(one_group(&[]).is_err());
        assert!(one_group(&[identity("g", "a"), identity("h", "b")]).is_err());
        let fence = |epoch| Fence { partition: TopicPartition::new("orders", 1), epoch };
        let of = |first, second| [identity("g", "a").fenced(fence(first)), identity("g", "b").fenced(fence(second))];
        assert_eq!(fences(&of(4, 4)).unwrap().into_iter().collect::<Vec<_>>(), [(("orders", 1), 4)]);
        assert!(fences(&of(4, 5)).is_err());
    }
}

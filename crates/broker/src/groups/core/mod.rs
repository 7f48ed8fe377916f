//! The group coordinator's core: Kafka's classic group protocol as a state machine without I/O, clock or randomness.
//!
//! Inputs are requests, the passing of time, and how writes went; outputs are [`Effect`]s, taken with
//! [`Core::take_effects`]. Every join and every sync is answered exactly once, at once or later; the others are answered
//! by what their function returns. Anything that will happen by itself happens in [`Core::tick`], which is to be called
//! at [`Core::next_deadline_ms`].

mod group;
mod join;
mod leave;
mod member;
mod rebalance;
#[cfg(test)]
mod simulation;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use baton_wire::ErrorCode;

use self::group::{Context, Group, Tally, empty_group_bytes};
use self::member::{NO_DEADLINE, join_bytes};
pub use self::types::{
    CoreCounts, CoreOptions, Effect, GroupDescription, GroupListing, GroupState, Identity, Join, JoinReply,
    JoinedMember, MemberDescription, Now, Protocol, StoreId, Sync, SyncReply, Token,
};
use crate::groups::format::StoredGroup;

/// From this version of OffsetCommit on, a missing group is named as such.
const GROUP_ID_NOT_FOUND_COMMIT_VERSION: i16 = 9;

/// All the groups.
#[derive(Debug)]
pub struct Core {
    options: CoreOptions,
    groups: BTreeMap<Arc<str>, Group>,
    /// Groups by the time at which they are to be looked at.
    wakes: BTreeSet<(i64, Arc<str>)>,
    effects: Vec<Effect>,
    tally: Tally,
    bytes: usize,
}

impl Core {
    /// A coordinator without groups.
    pub fn new(options: CoreOptions) -> Self {
        Self {
            options,
            groups: BTreeMap::new(),
            wakes: BTreeSet::new(),
            effects: Vec::new(),
            tally: Tally::default(),
            bytes: 0,
        }
    }

    /// Puts back a group that was stored before a restart.
    pub fn restore(&mut self, now: Now, group_id: Arc<str>, stored: StoredGroup) {
        let group = Group::restored(group_id.clone(), stored, now);
        let is_too_large = group.members.len() > self.options.members_max;
        self.bytes += group.bytes;
        self.groups.insert(group_id.clone(), group);
        self.with_group(now, &group_id, |group, context| {
            if is_too_large {
                // The limit was lowered: a rebalance lets in as many as it allows now.
                group.prepare_rebalance(context);
            }
        });
    }

    /// Puts back a group of which nothing but offsets is stored, whatever the limit is now.
    pub fn restore_simple(&mut self, now: Now, group_id: &str) {
        if !self.groups.contains_key(group_id) {
            self.insert_new(now, Arc::from(group_id));
        }
    }

    /// Makes sure that the group exists, because offsets are kept for it.
    ///
    /// # Errors
    /// `POLICY_VIOLATION` when there are `groups_max` others, or they take up `bytes_max`.
    pub fn ensure_group(&mut self, now: Now, group_id: &str) -> Result<(), ErrorCode> {
        if self.groups.contains_key(group_id) {
            return Ok(());
        }
        let has_room = self.bytes + empty_group_bytes(group_id) <= self.options.bytes_max;
        if self.groups.len() >= self.options.groups_max || !has_room {
            return Err(ErrorCode::PolicyViolation);
        }
        self.insert_new(now, Arc::from(group_id));
        Ok(())
    }

    fn insert_new(&mut self, now: Now, group_id: Arc<str>) {
        let group = Group::new(group_id.clone(), now);
        self.bytes += group.bytes;
        self.groups.insert(group_id, group);
    }

    /// Forgets a group; whoever waits in it is told that it is no member.
    pub fn remove_group(&mut self, group_id: &str) {
        let Some(mut group) = self.groups.remove(group_id) else { return };
        self.bytes -= group.bytes;
        self.wakes.remove(&(group.filed_ms, group.id.clone()));
        let ids: Vec<_> = group.members.keys().cloned().collect();
        for id in ids {
            group.remove(&id, &mut self.effects);
        }
    }

    /// Runs `change` on a group and keeps the totals and the deadlines right.
    fn with_group<T>(
        &mut self,
        now: Now,
        group_id: &str,
        change: impl FnOnce(&mut Group, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(group_id)?;
        let bytes_before = group.bytes;
        let mut context = Context {
            now,
            options: &self.options,
            bytes_left: self.options.bytes_max.saturating_sub(self.bytes),
            effects: &mut self.effects,
            tally: &mut self.tally,
        };
        let outcome = change(group, &mut context);
        self.bytes = self.bytes - bytes_before + group.bytes;
        if group.wake_ms != group.filed_ms {
            self.wakes.remove(&(group.filed_ms, group.id.clone()));
            group.filed_ms = group.wake_ms;
            if group.filed_ms != NO_DEADLINE {
                self.wakes.insert((group.filed_ms, group.id.clone()));
            }
        }
        Some(outcome)
    }

    // Inputs.

    /// Lets a member join. The answer is an [`Effect::Joined`].
    pub fn join(&mut self, now: Now, token: Token, join: &Join) {
        let is_new_group = !self.groups.contains_key(&join.group_id);
        if let Err(error) = self.admit(now, join) {
            let reply = JoinReply::refused(error, join.member_id.clone());
            return self.effects.push(Effect::Joined(token, reply));
        }
        self.with_group(now, &join.group_id, |group, context| group.join(context, token, join));
        let is_void = |group: &Group| group.members.is_empty() && group.pending_joins.is_empty();
        if is_new_group && self.groups.get(&join.group_id).is_some_and(is_void) {
            // A refused join leaves no group behind.
            self.remove_group(&join.group_id);
        }
    }

    fn admit(&mut self, now: Now, join: &Join) -> Result<(), ErrorCode> {
        if join.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let allowed = self.options.session_timeout_min_ms..=self.options.session_timeout_max_ms;
        if !allowed.contains(&join.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let group = self.groups.get(&join.group_id);
        if group.is_none() && !join.member_id.is_empty() {
            return Err(ErrorCode::UnknownMemberId);
        }
        let (group_bytes, new_group_bytes) = group.map_or_else(
            || (empty_group_bytes(&join.group_id), empty_group_bytes(&join.group_id)),
            |group| (group.bytes, 0),
        );
        // Whoever is in already only brings what it is now larger by.
        let bytes = join_bytes(join).saturating_sub(group.map_or(0, |group| group.bytes_of_joiner(join)));
        let fits_group = group_bytes + bytes <= self.options.group_bytes_max;
        if !fits_group || self.bytes + new_group_bytes + bytes > self.options.bytes_max {
            return Err(ErrorCode::PolicyViolation);
        }
        self.ensure_group(now, &join.group_id)
    }

    /// Gives a member its assignment, or takes all of them from the leader. The answer is an [`Effect::Synced`].
    pub fn sync(&mut self, now: Now, token: Token, sync: &Sync) {
        let refusal = if sync.group_id.is_empty() { ErrorCode::InvalidGroupId } else { ErrorCode::UnknownMemberId };
        if self.with_group(now, &sync.group_id, |group, context| group.sync(context, token, sync)).is_none() {
            self.effects.push(Effect::Synced(token, SyncReply::refused(refusal)));
        }
    }

    /// A sign of life. Answers whether the member has to join again.
    pub fn heartbeat(&mut self, now: Now, identity: &Identity<'_>) -> ErrorCode {
        if identity.group_id.is_empty() {
            return ErrorCode::InvalidGroupId;
        }
        self.with_group(now, identity.group_id, |group, context| group.heartbeat(context, identity))
            .unwrap_or(ErrorCode::UnknownMemberId)
    }

    /// Takes members out of a group, each named by its id, or by its instance id and an empty id; one answer for each.
    ///
    /// # Errors
    /// `INVALID_GROUP_ID` for an empty group id.
    pub fn leave(
        &mut self,
        now: Now,
        group_id: &str,
        leaving: &[(&str, Option<&str>)],
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        if group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let errors = self.with_group(now, group_id, |group, context| group.leave(context, leaving));
        Ok(errors.unwrap_or_else(|| vec![ErrorCode::UnknownMemberId; leaving.len()]))
    }

    /// Whether offsets may be committed in this name. A group that does not exist is made for a commit without a
    /// generation, which comes from a consumer that assigns its partitions itself.
    ///
    /// # Errors
    /// Kafka's, and `POLICY_VIOLATION` when there are `groups_max` groups.
    pub fn check_commit(&mut self, now: Now, identity: &Identity<'_>, api_version: i16) -> Result<(), ErrorCode> {
        if !self.groups.contains_key(identity.group_id) {
            if identity.generation >= 0 {
                let is_newer = api_version >= GROUP_ID_NOT_FOUND_COMMIT_VERSION;
                return Err(if is_newer { ErrorCode::GroupIdNotFound } else { ErrorCode::IllegalGeneration });
            }
            self.ensure_group(now, identity.group_id)?;
        }
        self.with_group(now, identity.group_id, |group, context| group.check_commit(context, identity))
            .unwrap_or(Err(ErrorCode::GroupIdNotFound))
    }

    /// Tells how a write went that [`Effect::Store`] asked for; `error` is `NONE` when it is durable.
    pub fn stored(&mut self, now: Now, group_id: &str, id: StoreId, error: ErrorCode) {
        self.with_group(now, group_id, |group, context| group.stored(context, id, error));
    }

    /// Does everything that is due.
    pub fn tick(&mut self, now: Now) {
        // A group that was looked at files itself in the future, so this ends.
        while let Some((due_ms, group_id)) = self.wakes.first().cloned() {
            if due_ms > now.timer_ms {
                break;
            }
            self.with_group(now, &group_id, Group::tick);
        }
    }

    /// When [`Self::tick`] is to be called next, on the timer's clock.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.wakes.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// What the caller has to do now, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    // Questions.

    /// Whether there is such a group.
    pub fn has_group(&self, group_id: &str) -> bool {
        self.groups.contains_key(group_id)
    }

    /// All the groups, by id.
    pub fn list(&self) -> impl Iterator<Item = GroupListing> {
        self.groups.values().map(|group| GroupListing {
            group_id: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_else(|| Arc::from("")),
            state: group.state,
        })
    }

    /// The group in full, if there is one.
    pub fn describe(&self, group_id: &str) -> Option<GroupDescription> {
        self.groups.get(group_id).map(Group::describe)
    }

    /// Whether the group may be deleted.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, or `NON_EMPTY_GROUP` while it has members.
    pub fn check_delete(&self, group_id: &str) -> Result<(), ErrorCode> {
        match self.groups.get(group_id).map(|group| group.state) {
            None | Some(GroupState::Dead) => Err(ErrorCode::GroupIdNotFound),
            Some(GroupState::Empty) => Ok(()),
            Some(_) => Err(ErrorCode::NonEmptyGroup),
        }
    }

    /// Whether the offsets of some topics of the group may be deleted; ask [`Self::is_subscribed_to`] for each.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, or `NON_EMPTY_GROUP` when members are there whose subscriptions cannot be read.
    pub fn check_offset_delete(&self, group_id: &str) -> Result<(), ErrorCode> {
        let group = self.groups.get(group_id).ok_or(ErrorCode::GroupIdNotFound)?;
        let is_empty = group.state == GroupState::Empty;
        if is_empty || group.is_of_consumers() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }

    /// Whether the group must be taken to read this topic.
    pub fn is_subscribed_to(&self, group_id: &str, topic: &str) -> bool {
        self.groups.get(group_id).is_some_and(|group| group.is_subscribed_to(topic))
    }

    /// From which time (since 1970) on the retention of an offset counts, `None` if it must be kept.
    pub fn retention_base_ms(&self, group_id: &str, topic: &str, committed_wall_ms: i64) -> Option<i64> {
        match self.groups.get(group_id) {
            Some(group) => group.retention_base_ms(topic, committed_wall_ms),
            None => Some(committed_wall_ms),
        }
    }

    /// Whether the group has neither members nor anyone about to become one, so that it can go when its offsets have.
    pub fn is_idle(&self, group_id: &str) -> bool {
        self.groups
            .get(group_id)
            .is_some_and(|group| group.state == GroupState::Empty && group.pending_joins.is_empty())
    }

    /// Whether the group's own state, not only offsets, was ever stored.
    pub fn is_stored(&self, group_id: &str) -> bool {
        self.groups.get(group_id).is_some_and(|group| group.is_stored)
    }

    /// Numbers for metrics.
    pub fn counts(&self) -> CoreCounts {
        let mut counts = CoreCounts {
            rebalances: self.tally.rebalances,
            expired_members: self.tally.expired_members,
            bytes: self.bytes,
            ..CoreCounts::default()
        };
        for group in self.groups.values() {
            counts.groups[group.state as usize] += 1;
            counts.members += group.members.len();
            counts.pending_members += group.pending_joins.len();
        }
        counts
    }
}

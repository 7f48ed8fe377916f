//! One group: who is in it, what they have in common, and when it has to be looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use baton_wire::ErrorCode;
use bytes::Bytes;

use super::member::{Member, NO_DEADLINE};
use super::subscription;
use super::types::{
    CoreOptions, Effect, GroupDescription, GroupState, Join, JoinReply, JoinedMember, MemberDescription, Now, Protocol,
    StoreId, SyncReply, Token,
};
use crate::groups::format::{StoredGroup, StoredMember};

/// The protocol type of consumers; their subscriptions can be read.
const CONSUMER_PROTOCOL_TYPE: &str = "consumer";
/// What a group costs beyond its members, roughly.
const GROUP_OVERHEAD_BYTES: usize = 512;
/// What an id costs that was given out, beyond its bytes, roughly.
const PENDING_OVERHEAD_BYTES: usize = 64;

/// What an input has at hand besides the group.
pub(super) struct Context<'a> {
    pub now: Now,
    pub options: &'a CoreOptions,
    /// What all the groups together may still grow by.
    pub bytes_left: usize,
    pub effects: &'a mut Vec<Effect>,
    pub tally: &'a mut Tally,
}

/// What is counted over all groups.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub stores: u64,
    pub rebalances: u64,
    pub expired_members: u64,
}

/// What happens when the joining phase has lasted long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinTimer {
    /// The group was empty: wait for more members, again and again while new ones come, up to the rebalance timeout.
    Initial { deadline_ms: i64, delay_ms: i64, remaining_ms: i64 },
    /// Go on without those who are late.
    Rebalance { deadline_ms: i64 },
}

impl JoinTimer {
    pub fn deadline_ms(self) -> i64 {
        match self {
            Self::Initial { deadline_ms, .. } | Self::Rebalance { deadline_ms } => deadline_ms,
        }
    }
}

/// An assignment that is being made durable before any member gets it.
#[derive(Debug)]
pub(super) struct PendingAssignment {
    pub id: StoreId,
    pub assignments: BTreeMap<Arc<str>, Bytes>,
}

/// A static member that came back under a new id and is told so once that is durable.
#[derive(Debug)]
pub(super) struct PendingReplacement {
    pub id: StoreId,
    pub member_id: Arc<str>,
    pub token: Token,
    pub generation: i32,
    pub leader_before: Arc<str>,
    pub can_skip_assignment: bool,
}

#[derive(Debug)]
pub(super) struct Group {
    pub id: Arc<str>,
    pub state: GroupState,
    pub previous_state: GroupState,
    /// When the state was entered.
    pub state_since_wall_ms: i64,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub generation: i32,
    pub leader: Option<Arc<str>>,
    pub members: BTreeMap<Arc<str>, Member>,
    /// Member ids by `group.instance.id`.
    pub static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids given out, with their deadlines.
    pub pending_joins: BTreeMap<Arc<str>, i64>,
    /// Who has joined this generation and not synced yet.
    pub pending_syncs: BTreeSet<Arc<str>>,
    /// How many members support each protocol.
    pub supported: BTreeMap<Arc<str>, usize>,
    /// All that is subscribed to; `None` when it cannot be known.
    pub subscribed_topics: Option<BTreeSet<Box<str>>>,
    pub new_member_added: bool,
    pub join_timer: Option<JoinTimer>,
    pub sync_deadline_ms: i64,
    pub assignment_store: Option<PendingAssignment>,
    pub replacement_stores: Vec<PendingReplacement>,
    /// At the latest then it must be looked at; may be too early, never too late.
    pub wake_ms: i64,
    /// The time under which the core has filed it.
    pub filed_ms: i64,
    /// Bytes of its ids, protocols and assignments.
    pub bytes: usize,
    /// Whether its state was ever stored.
    pub is_stored: bool,
}

impl Group {
    pub fn new(id: Arc<str>, now: Now) -> Self {
        Self {
            bytes: empty_group_bytes(&id),
            id,
            state: GroupState::Empty,
            previous_state: GroupState::Dead,
            state_since_wall_ms: now.wall_ms,
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeMap::new(),
            pending_syncs: BTreeSet::new(),
            supported: BTreeMap::new(),
            subscribed_topics: None,
            new_member_added: false,
            join_timer: None,
            sync_deadline_ms: NO_DEADLINE,
            assignment_store: None,
            replacement_stores: Vec::new(),
            wake_ms: NO_DEADLINE,
            filed_ms: NO_DEADLINE,
            is_stored: false,
        }
    }

    /// A group as it was stored. Its members have a whole session to show that they are still there.
    pub fn restored(id: Arc<str>, stored: StoredGroup, now: Now) -> Self {
        let mut group = Self::new(id, now);
        group.is_stored = true;
        group.state = if stored.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        group.state_since_wall_ms = stored.state_since_wall_ms;
        group.generation = stored.generation;
        group.protocol_type = stored.protocol_type;
        group.protocol_name = stored.protocol_name;
        for member in stored.members {
            group.insert(restored_member(member));
        }
        group.leader = stored.leader.filter(|leader| group.members.contains_key(leader)).or_else(|| group.any_member());
        group.subscribed_topics = group.find_subscribed_topics();
        let ids: Vec<_> = group.members.keys().cloned().collect();
        for id in ids {
            group.renew_session(&id, now);
        }
        group
    }

    pub fn to_stored(&self, assignments: Option<&BTreeMap<Arc<str>, Bytes>>) -> StoredGroup {
        let member = |member: &Member| StoredMember {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            protocols: member
                .protocols
                .iter()
                .map(|protocol| (protocol.name.clone(), protocol.metadata.clone()))
                .collect(),
            assignment: match assignments {
                Some(assignments) => assignments.get(&member.id).cloned().unwrap_or_default(),
                None => member.assignment.clone(),
            },
        };
        StoredGroup {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            generation: self.generation,
            leader: self.leader.clone(),
            state_since_wall_ms: self.state_since_wall_ms,
            members: self.members.values().map(member).collect(),
        }
    }

    /// Asks for the group's state to be made durable; `assignments` stand in for those that the members have.
    pub fn store(&mut self, context: &mut Context<'_>, assignments: Option<&BTreeMap<Arc<str>, Bytes>>) -> StoreId {
        context.tally.stores += 1;
        let id = StoreId(context.tally.stores);
        self.is_stored = true;
        let value = self.to_stored(assignments).encode();
        context.effects.push(Effect::Store { id, group_id: self.id.clone(), value });
        id
    }

    // Members.

    pub fn insert(&mut self, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.remove_pending(&member.id);
        self.count_protocols(&member.protocols, true);
        self.bytes += member.bytes();
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out and tells it so if it waits for something.
    pub fn remove(&mut self, member_id: &str, effects: &mut Vec<Effect>) {
        self.remove_pending(member_id);
        self.pending_syncs.remove(member_id);
        let Some(mut member) = self.members.remove(member_id) else { return };
        self.bytes -= member.bytes();
        answer_both(&mut member, ErrorCode::UnknownMemberId, Arc::from(""), effects);
        self.count_protocols(&member.protocols, false);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.any_member();
        }
    }

    /// Gives a static member a new id. Whoever still uses the old one is told that it is fenced.
    pub fn replace_static(&mut self, old_id: &str, new_id: Arc<str>, effects: &mut Vec<Effect>) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        let fenced = member.id.clone();
        answer_both(&mut member, ErrorCode::FencedInstanceId, fenced, effects);
        self.bytes -= member.bytes();
        member.id = new_id.clone();
        self.bytes += member.bytes();
        member.is_new = false;
        member.deadline_ms = NO_DEADLINE;
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_syncs.remove(old_id) {
            self.pending_syncs.insert(new_id.clone());
        }
        self.members.insert(new_id, member);
    }

    pub fn add_pending(&mut self, id: Arc<str>, deadline_ms: i64) {
        let bytes = pending_bytes(&id);
        if self.pending_joins.insert(id, deadline_ms).is_none() {
            self.bytes += bytes;
        }
        self.wake_by(deadline_ms);
    }

    pub fn remove_pending(&mut self, id: &str) -> bool {
        let was_there = self.pending_joins.remove(id).is_some();
        if was_there {
            self.bytes -= pending_bytes(id);
        }
        was_there
    }

    /// Keeps an assignment that is not durable yet, or drops it; answers the one before.
    pub fn set_pending_assignment(&mut self, pending: Option<PendingAssignment>) -> Option<PendingAssignment> {
        self.bytes += pending.as_ref().map_or(0, |pending| assignment_bytes(&pending.assignments));
        let before = std::mem::replace(&mut self.assignment_store, pending);
        self.bytes -= before.as_ref().map_or(0, |pending| assignment_bytes(&pending.assignments));
        before
    }

    /// Gives each member its part; those left out get an empty one.
    pub fn set_assignments(&mut self, assignments: &BTreeMap<Arc<str>, Bytes>) {
        for (member_id, member) in &mut self.members {
            let assignment = assignments.get(member_id).cloned().unwrap_or_default();
            self.bytes = self.bytes - member.assignment.len() + assignment.len();
            member.assignment = assignment;
        }
    }

    pub fn set_protocols(&mut self, member_id: &str, protocols: Vec<Protocol>) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        self.bytes -= member.bytes();
        let before = std::mem::replace(&mut member.protocols, protocols.clone());
        self.bytes += member.bytes();
        self.count_protocols(&before, false);
        self.count_protocols(&protocols, true);
    }

    fn count_protocols(&mut self, protocols: &[Protocol], added: bool) {
        for protocol in protocols {
            let count = self.supported.entry(protocol.name.clone()).or_default();
            *count = if added { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.supported.remove(&protocol.name);
            }
        }
    }

    pub fn any_member(&self) -> Option<Arc<str>> {
        self.members.keys().next().cloned()
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub fn leader_or_empty(&self) -> Arc<str> {
        self.leader.clone().unwrap_or_else(|| Arc::from(""))
    }

    /// Whether this is a member of the group that may speak for itself.
    pub fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            let current = self.static_members.get(instance_id).ok_or(ErrorCode::UnknownMemberId)?;
            if **current != *member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    pub fn awaiting_join(&self) -> usize {
        self.members.values().filter(|member| member.join.is_some()).count()
    }

    pub fn all_have_joined(&self) -> bool {
        self.pending_joins.is_empty() && self.members.values().all(|member| member.join.is_some())
    }

    /// How long a rebalance waits: as long as the most patient member wants.
    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0).max(0)
    }

    // Protocols.

    pub fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let members = self.members.len();
        let by_all = |name: &Arc<str>| self.supported.get(name).copied().unwrap_or(0) == members;
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(|protocol| by_all(&protocol.name))
    }

    /// The protocol with most votes: each member votes for the first of its own that all the members support.
    pub fn select_protocol(&self) -> Option<Arc<str>> {
        let members = self.members.len();
        let candidates: BTreeSet<_> =
            self.supported.iter().filter(|(_, count)| **count == members).map(|(name, _)| name.clone()).collect();
        let mut votes: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for vote in self.members.values().filter_map(|member| member.vote(&candidates)) {
            *votes.entry(vote).or_default() += 1;
        }
        let mut best: Option<(Arc<str>, usize)> = None;
        for (name, count) in votes {
            if best.as_ref().is_none_or(|(_, most)| count > *most) {
                best = Some((name, count));
            }
        }
        best.map(|(name, _)| name)
    }

    pub fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    pub fn find_subscribed_topics(&self) -> Option<BTreeSet<Box<str>>> {
        if !self.is_of_consumers() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let name = self.protocol_name.as_deref()?;
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.append(&mut subscription::topics(&member.metadata(name))?);
        }
        Some(all)
    }

    /// Whether the group must be taken to read this topic; when in doubt it does.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    /// From when on the retention of an offset counts, `None` when offsets are to be kept.
    pub fn retention_base_ms(&self, topic: &str, committed_wall_ms: i64) -> Option<i64> {
        if self.is_subscribed_to(topic) {
            return None;
        }
        match (&self.protocol_type, self.state) {
            (None, _) => Some(committed_wall_ms),
            (Some(_), GroupState::Empty) => Some(self.state_since_wall_ms),
            (Some(_), GroupState::Stable) if self.is_of_consumers() && self.subscribed_topics.is_some() => {
                Some(committed_wall_ms)
            }
            (Some(_), _) => None,
        }
    }

    // Time.

    pub fn enter(&mut self, state: GroupState, now: Now) {
        self.previous_state = self.state;
        self.state = state;
        self.state_since_wall_ms = now.wall_ms;
    }

    pub fn wake_by(&mut self, deadline_ms: i64) {
        self.wake_ms = self.wake_ms.min(deadline_ms);
    }

    pub fn renew_session(&mut self, member_id: &str, now: Now) {
        if let Some(timeout_ms) = self.members.get(member_id).map(|member| member.session_timeout_ms) {
            self.expect_life(member_id, i64::from(timeout_ms), now);
        }
    }

    pub fn expect_life(&mut self, member_id: &str, timeout_ms: i64, now: Now) {
        let deadline_ms = now.timer_ms.saturating_add(timeout_ms);
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadline_ms = deadline_ms;
        }
        self.wake_by(deadline_ms);
    }

    pub fn earliest_deadline_ms(&self) -> i64 {
        let members = self.members.values().map(|member| member.deadline_ms);
        let timers = [self.join_timer.map_or(NO_DEADLINE, JoinTimer::deadline_ms), self.sync_deadline_ms];
        members.chain(self.pending_joins.values().copied()).chain(timers).min().unwrap_or(NO_DEADLINE)
    }

    /// What whoever joins costs already, without its assignment, because it is a member.
    pub fn bytes_of_joiner(&self, join: &Join) -> usize {
        let existing = join.instance_id.as_ref().and_then(|instance_id| self.static_members.get(instance_id));
        let member = self.members.get(existing.unwrap_or(&join.member_id));
        member.map_or(0, |member| member.bytes() - member.assignment.len())
    }

    /// What `bytes` must be.
    #[cfg(test)]
    pub fn count_bytes(&self) -> usize {
        let members: usize = self.members.values().map(Member::bytes).sum();
        let pending: usize = self.pending_joins.keys().map(|id| pending_bytes(id)).sum();
        let assigned = self.assignment_store.as_ref().map_or(0, |pending| assignment_bytes(&pending.assignments));
        empty_group_bytes(&self.id) + members + pending + assigned
    }

    // Views.

    pub fn joined_members(&self) -> Vec<JoinedMember> {
        let name = self.protocol_name.as_deref().unwrap_or_default();
        let joined = |member: &Member| JoinedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(name),
        };
        self.members.values().map(joined).collect()
    }

    /// The answer to a member that has joined the present generation.
    pub fn joined_reply(&self, member_id: &Arc<str>) -> JoinReply {
        JoinReply {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader_or_empty(),
            skip_assignment: false,
            member_id: member_id.clone(),
            members: if self.is_leader(member_id) { self.joined_members() } else { Vec::new() },
        }
    }

    pub fn describe(&self) -> GroupDescription {
        let is_stable = self.state == GroupState::Stable;
        let protocol_name = self.protocol_name.as_deref().filter(|_| is_stable);
        let members: Vec<MemberDescription> =
            self.members.values().map(|member| member.describe(protocol_name)).collect();
        GroupDescription {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_else(|| Arc::from("")),
            protocol_name: Arc::from(protocol_name.unwrap_or_default()),
            generation: self.generation,
            members,
        }
    }
}

/// Answers whatever the member waits for with the same error.
fn answer_both(member: &mut Member, error: ErrorCode, member_id: Arc<str>, effects: &mut Vec<Effect>) {
    if let Some(token) = member.join.take() {
        effects.push(Effect::Joined(token, JoinReply::refused(error, member_id)));
    }
    if let Some(token) = member.sync.take() {
        effects.push(Effect::Synced(token, SyncReply::refused(error)));
    }
}

/// What a group costs before anyone joins.
pub(super) fn empty_group_bytes(id: &str) -> usize {
    GROUP_OVERHEAD_BYTES + id.len()
}

/// What the parts of an assignment take up.
pub(super) fn assignment_bytes(assignments: &BTreeMap<Arc<str>, Bytes>) -> usize {
    assignments.values().map(Bytes::len).sum()
}

fn pending_bytes(id: &str) -> usize {
    PENDING_OVERHEAD_BYTES + id.len()
}

fn restored_member(stored: StoredMember) -> Member {
    Member {
        id: stored.id,
        instance_id: stored.instance_id,
        client_id: stored.client_id,
        client_host: stored.client_host,
        rebalance_timeout_ms: stored.rebalance_timeout_ms,
        session_timeout_ms: stored.session_timeout_ms,
        protocols: stored.protocols.into_iter().map(|(name, metadata)| Protocol { name, metadata }).collect(),
        assignment: stored.assignment,
        join: None,
        sync: None,
        is_new: false,
        deadline_ms: NO_DEADLINE,
    }
}

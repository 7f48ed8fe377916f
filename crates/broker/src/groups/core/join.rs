//! Joining a group: who is let in, under which id, and whether that takes a rebalance.

use std::sync::Arc;

use baton_wire::ErrorCode;

use super::group::{Context, Group, PendingReplacement};
use super::member::{Member, distinct};
use super::types::{Effect, GroupState, Join, JoinReply, Token};

/// A new member cannot send heartbeats before it has its id; if its join is not answered in this time, it must ask again.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;
/// Member ids of one group that were given out and not used yet.
pub(super) const PENDING_MEMBERS_MAX: usize = 10_000;

impl Group {
    pub fn join(&mut self, context: &mut Context<'_>, token: Token, join: &Join) {
        if !self.has_room_for(join, context.options.members_max) {
            self.remove(&join.member_id, context.effects);
            refuse(context, token, ErrorCode::GroupMaxSizeReached, Arc::from(""));
            self.complete_join_if_all_are_there(context);
        } else if !self.supports(&join.protocol_type, &join.protocols) {
            refuse(context, token, ErrorCode::InconsistentGroupProtocol, join.member_id.clone());
        } else if join.member_id.is_empty() {
            self.join_as_unknown(context, token, join);
        } else {
            self.join_as_known(context, token, join);
        }
    }

    /// While a rebalance is being prepared, those count who have joined it already, so that the last ones are turned away.
    fn has_room_for(&self, join: &Join, members_max: usize) -> bool {
        let member = self.members.get(&join.member_id);
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                member.is_some_and(|member| member.join.is_some()) || self.awaiting_join() < members_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                member.is_some() || self.members.len() < members_max
            }
        }
    }

    fn join_as_unknown(&mut self, context: &mut Context<'_>, token: Token, join: &Join) {
        let existing = join.instance_id.as_ref().and_then(|instance_id| self.static_members.get(instance_id)).cloned();
        if let Some(old_id) = existing {
            self.come_back(context, token, join, &old_id);
        } else if join.instance_id.is_none() && join.requires_member_id {
            self.give_out_id(context, token, join);
        } else {
            self.add(context, token, join, join.fresh_member_id.clone());
        }
    }

    fn give_out_id(&mut self, context: &mut Context<'_>, token: Token, join: &Join) {
        if self.pending_joins.len() >= PENDING_MEMBERS_MAX {
            // A client tries again in a moment, and then some of these have come back or expired.
            return refuse(context, token, ErrorCode::CoordinatorLoadInProgress, Arc::from(""));
        }
        let deadline_ms = context.now.timer_ms.saturating_add(i64::from(join.session_timeout_ms));
        self.add_pending(join.fresh_member_id.clone(), deadline_ms);
        refuse(context, token, ErrorCode::MemberIdRequired, join.fresh_member_id.clone());
    }

    fn join_as_known(&mut self, context: &mut Context<'_>, token: Token, join: &Join) {
        if join.instance_id.is_none() && self.pending_joins.contains_key(&join.member_id) {
            return self.add(context, token, join, join.member_id.clone());
        }
        if let Err(error) = self.check_member(&join.member_id, join.instance_id.as_deref()) {
            return refuse(context, token, error, join.member_id.clone());
        }
        let is_same = self.members.get(&join.member_id).is_some_and(|member| member.matches(join));
        match self.state {
            GroupState::PreparingRebalance => self.rejoin(context, token, join),
            // It may not have received the answer to its first join.
            GroupState::CompletingRebalance if is_same => self.answer_join(context, token, &join.member_id),
            // The leader joins again when something changed that is not in its own metadata, the topics for instance.
            GroupState::Stable if is_same && !self.is_leader(&join.member_id) => {
                self.answer_join(context, token, &join.member_id);
            }
            GroupState::CompletingRebalance | GroupState::Stable => self.rejoin(context, token, join),
            GroupState::Empty | GroupState::Dead => {
                refuse(context, token, ErrorCode::UnknownMemberId, join.member_id.clone());
            }
        }
    }

    fn answer_join(&self, context: &mut Context<'_>, token: Token, member_id: &Arc<str>) {
        context.effects.push(Effect::Joined(token, self.joined_reply(member_id)));
    }

    /// Adds a member that the group did not have.
    fn add(&mut self, context: &mut Context<'_>, token: Token, join: &Join, member_id: Arc<str>) {
        if self.state == GroupState::PreparingRebalance && self.previous_state == GroupState::Empty {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        let mut member = Member::new(member_id.clone(), join);
        member.is_new = true;
        member.join = Some(token);
        self.insert(member);
        self.expect_life(&member_id, NEW_MEMBER_JOIN_TIMEOUT_MS, context.now);
        self.rebalance_or_complete_join(context);
    }

    /// Lets a member of the group take part in the next generation.
    fn rejoin(&mut self, context: &mut Context<'_>, token: Token, join: &Join) {
        self.update(context, token, join, &join.member_id);
        self.rebalance_or_complete_join(context);
    }

    fn update(&mut self, context: &mut Context<'_>, token: Token, join: &Join, member_id: &str) {
        self.set_protocols(member_id, distinct(&join.protocols));
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        // The client gave up on its earlier request; whoever still waits for that one shall not wait for ever.
        if let Some(superseded) = member.join.replace(token) {
            refuse(context, superseded, ErrorCode::RebalanceInProgress, member.id.clone());
        }
    }

    /// A static member that lost its id, by a restart for instance, gets a new one in the same place.
    fn come_back(&mut self, context: &mut Context<'_>, token: Token, join: &Join, old_id: &str) {
        let leader_before = self.leader_or_empty();
        let new_id = join.fresh_member_id.clone();
        self.replace_static(old_id, new_id.clone(), context.effects);
        self.update(context, token, join, &new_id);
        self.renew_session(&new_id, context.now);
        match self.state {
            GroupState::Stable if self.select_protocol() == self.protocol_name => {
                let id = self.store(context, None);
                self.replacement_stores.push(PendingReplacement {
                    id,
                    member_id: new_id,
                    token,
                    generation: self.generation,
                    leader_before,
                    can_skip_assignment: join.can_skip_assignment,
                });
            }
            GroupState::Stable => self.rebalance_or_complete_join(context),
            // The leader may be assigning to the old id just now.
            GroupState::CompletingRebalance => self.prepare_rebalance(context),
            GroupState::PreparingRebalance => self.complete_join_if_all_are_there(context),
            // An empty group has no static members.
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    /// Tells a static member its new id, unless a rebalance that began meanwhile will.
    pub fn replacement_stored(
        &mut self,
        context: &mut Context<'_>,
        replacement: &PendingReplacement,
        error: ErrorCode,
    ) {
        let is_current = self.state == GroupState::Stable && self.generation == replacement.generation;
        let mut reply = self.joined_reply(&replacement.member_id);
        let Some(member) = self.members.get_mut(&replacement.member_id) else { return };
        if !is_current || member.join != Some(replacement.token) {
            return;
        }
        member.join = None;
        if error != ErrorCode::None {
            reply = JoinReply { error, member_id: Arc::from(""), members: Vec::new(), ..reply };
        } else if replacement.can_skip_assignment {
            reply.skip_assignment = self.is_leader(&replacement.member_id);
        } else {
            // An older client that is told it leads would assign anew, and nobody would ask for that assignment.
            reply = JoinReply { leader: replacement.leader_before.clone(), members: Vec::new(), ..reply };
        }
        context.effects.push(Effect::Joined(replacement.token, reply));
        self.renew_session(&replacement.member_id, context.now);
    }
}

fn refuse(context: &mut Context<'_>, token: Token, error: ErrorCode, member_id: Arc<str>) {
    context.effects.push(Effect::Joined(token, JoinReply::refused(error, member_id)));
}

//! The joining phase of a rebalance, and what time does to a group.

use std::sync::Arc;

use baton_wire::ErrorCode;

use super::group::{Context, Group, JoinTimer};
use super::member::NO_DEADLINE;
use super::types::{Effect, GroupState};

/// When nobody joined a rebalance in time, the group looks again after the rebalance timeout, but not sooner than this.
const POSTPONED_REBALANCE_MIN_MS: i64 = 1_000;
/// Whatever timeouts clients ask for, time makes a group work no more often than this.
pub(super) const TICKS_APART_MIN_MS: i64 = 10;

impl Group {
    pub fn rebalance_or_complete_join(&mut self, context: &mut Context<'_>) {
        if self.state == GroupState::PreparingRebalance {
            self.complete_join_if_all_are_there(context);
        } else {
            self.prepare_rebalance(context);
        }
    }

    pub fn prepare_rebalance(&mut self, context: &mut Context<'_>) {
        if self.state == GroupState::CompletingRebalance {
            self.reset_assignments(context, ErrorCode::RebalanceInProgress);
        }
        self.set_pending_assignment(None);
        self.pending_syncs.clear();
        self.sync_deadline_ms = NO_DEADLINE;
        let was_empty = self.state == GroupState::Empty;
        self.enter(GroupState::PreparingRebalance, context.now);
        if was_empty {
            let delay_ms = i64::from(context.options.initial_rebalance_delay_ms).max(0);
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.new_member_added = false;
            self.start_initial_delay(context, delay_ms, remaining_ms);
        } else if self.all_have_joined() {
            self.complete_join(context);
        } else {
            self.start_join_timer(context, self.rebalance_timeout_ms());
        }
    }

    fn start_initial_delay(&mut self, context: &mut Context<'_>, delay_ms: i64, remaining_ms: i64) {
        let deadline_ms = context.now.timer_ms.saturating_add(delay_ms);
        self.join_timer = Some(JoinTimer::Initial { deadline_ms, delay_ms, remaining_ms });
        self.wake_by(deadline_ms);
    }

    fn start_join_timer(&mut self, context: &mut Context<'_>, timeout_ms: i64) {
        let deadline_ms = context.now.timer_ms.saturating_add(timeout_ms);
        self.join_timer = Some(JoinTimer::Rebalance { deadline_ms });
        self.wake_by(deadline_ms);
    }

    /// Goes on when everyone has joined, except in an initial rebalance, which waits for its delay.
    pub fn complete_join_if_all_are_there(&mut self, context: &mut Context<'_>) {
        let is_preparing = self.state == GroupState::PreparingRebalance && self.previous_state != GroupState::Empty;
        if is_preparing && self.all_have_joined() {
            self.complete_join(context);
        }
    }

    /// Starts the next generation with those who have joined. Static members stay until their session ends.
    pub fn complete_join(&mut self, context: &mut Context<'_>) {
        self.join_timer = None;
        let is_late = |member: &super::member::Member| member.join.is_none() && !member.is_static();
        let late: Vec<_> =
            self.members.values().filter(|member| is_late(member)).map(|member| member.id.clone()).collect();
        for id in late {
            self.remove(&id, context.effects);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            let timeout_ms = self.rebalance_timeout_ms().max(POSTPONED_REBALANCE_MIN_MS);
            return self.start_join_timer(context, timeout_ms);
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol_name = self.select_protocol();
        self.subscribed_topics = self.find_subscribed_topics();
        self.pending_syncs.clear();
        if self.members.is_empty() {
            self.enter(GroupState::Empty, context.now);
            self.store(context, None);
        } else {
            self.enter(GroupState::CompletingRebalance, context.now);
            self.answer_joins(context);
        }
    }

    /// Keeps a leader that has joined, or chooses among those who have; false if nobody has.
    fn elect_leader(&mut self) -> bool {
        let has_joined = |id: &Arc<str>| self.members.get(id).is_some_and(|member| member.join.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let Some(elected) = self.members.values().find(|member| member.join.is_some()) else { return false };
        self.leader = Some(elected.id.clone());
        true
    }

    fn answer_joins(&mut self, context: &mut Context<'_>) {
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in &ids {
            let token = self.members.get_mut(id).and_then(|member| {
                member.is_new = false;
                member.join.take()
            });
            if let Some(token) = token {
                context.effects.push(Effect::Joined(token, self.joined_reply(id)));
            }
            self.renew_session(id, context.now);
            self.pending_syncs.insert(id.clone());
        }
        self.sync_deadline_ms = context.now.timer_ms.saturating_add(self.rebalance_timeout_ms());
        self.wake_by(self.sync_deadline_ms);
    }

    // What is due.

    /// Does what the deadlines that have passed ask for.
    pub fn tick(&mut self, context: &mut Context<'_>) {
        self.expire_members(context);
        if self.sync_deadline_ms <= context.now.timer_ms {
            self.sync_deadline_ms = NO_DEADLINE;
            self.expire_syncs(context);
        }
        match self.join_timer {
            Some(timer) if timer.deadline_ms() <= context.now.timer_ms => self.join_timer_fired(context, timer),
            _ => {}
        }
        self.wake_ms = self.earliest_deadline_ms().max(context.now.timer_ms.saturating_add(TICKS_APART_MIN_MS));
    }

    fn join_timer_fired(&mut self, context: &mut Context<'_>, timer: JoinTimer) {
        self.join_timer = None;
        match timer {
            JoinTimer::Initial { delay_ms, remaining_ms, .. } if self.new_member_added && remaining_ms != 0 => {
                self.new_member_added = false;
                let next_delay_ms = i64::from(context.options.initial_rebalance_delay_ms).max(0).min(remaining_ms);
                let next_remaining_ms = (remaining_ms - delay_ms).max(0);
                self.start_initial_delay(context, next_delay_ms, next_remaining_ms);
            }
            _ if self.state == GroupState::PreparingRebalance => self.complete_join(context),
            _ => {}
        }
    }

    fn expire_members(&mut self, context: &mut Context<'_>) {
        let now_ms = context.now.timer_ms;
        let is_due = |deadline_ms: i64| deadline_ms <= now_ms;
        let pending: Vec<_> =
            self.pending_joins.iter().filter(|(_, deadline)| is_due(**deadline)).map(|(id, _)| id.clone()).collect();
        for id in pending {
            self.remove_pending(&id);
            self.complete_join_of_those_left(context);
        }
        let due: Vec<_> =
            self.members.values().filter(|member| is_due(member.deadline_ms)).map(|member| member.id.clone()).collect();
        for id in due {
            // An earlier one of these may have started a generation, and with it new sessions.
            let Some(member) = self.members.get_mut(&id).filter(|member| is_due(member.deadline_ms)) else { continue };
            if member.must_show_life() {
                context.tally.expired_members += 1;
                self.remove(&id, context.effects);
                self.rebalance_without_the_lost(context);
            } else {
                // Its session starts anew with the reply that it waits for.
                member.deadline_ms = NO_DEADLINE;
            }
        }
    }

    fn rebalance_without_the_lost(&mut self, context: &mut Context<'_>) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(context),
            _ => self.complete_join_of_those_left(context),
        }
    }

    /// When someone was lost while joining, those who are there do not wait for the initial delay, as in Kafka.
    fn complete_join_of_those_left(&mut self, context: &mut Context<'_>) {
        if self.state == GroupState::PreparingRebalance && self.all_have_joined() {
            self.complete_join(context);
        }
    }

    fn expire_syncs(&mut self, context: &mut Context<'_>) {
        let is_due = matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable);
        if !is_due || self.pending_syncs.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_syncs) {
            self.remove(&id, context.effects);
        }
        self.prepare_rebalance(context);
    }
}

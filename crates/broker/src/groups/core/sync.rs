//! The second phase of a rebalance: the leader's assignment is made durable, then everyone gets their part.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_wire::ErrorCode;
use bytes::Bytes;

use super::group::{Context, Group, PendingAssignment, assignment_bytes};
use super::types::{Effect, GroupState, StoreId, Sync, SyncReply, Token};

impl Group {
    pub fn sync(&mut self, context: &mut Context<'_>, token: Token, sync: &Sync) {
        if let Err(error) = self.check_sync(sync) {
            return context.effects.push(Effect::Synced(token, SyncReply::refused(error)));
        }
        match self.state {
            GroupState::CompletingRebalance => {
                self.pending_syncs.remove(&sync.member_id);
                self.await_assignment(context, token, &sync.member_id);
                if self.is_leader(&sync.member_id) {
                    self.store_assignment(context, sync);
                }
            }
            GroupState::Stable => {
                self.pending_syncs.remove(&sync.member_id);
                context.effects.push(Effect::Synced(token, self.synced_reply(&sync.member_id)));
            }
            GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {
                let error = ErrorCode::RebalanceInProgress;
                context.effects.push(Effect::Synced(token, SyncReply::refused(error)));
            }
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), ErrorCode> {
        if self.state == GroupState::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(&sync.member_id, sync.instance_id.as_deref())?;
        if sync.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs =
            |given: &Option<Arc<str>>, own: &Option<Arc<str>>| given.is_some() && own.is_some() && given != own;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol_name, &self.protocol_name) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn await_assignment(&mut self, context: &mut Context<'_>, token: Token, member_id: &str) {
        let superseded = self.members.get_mut(member_id).and_then(|member| member.sync.replace(token));
        if let Some(superseded) = superseded {
            let reply = SyncReply::refused(ErrorCode::RebalanceInProgress);
            context.effects.push(Effect::Synced(superseded, reply));
        }
    }

    /// Members that the leader left out get an empty assignment; what it sent for others is dropped.
    fn store_assignment(&mut self, context: &mut Context<'_>, sync: &Sync) {
        let mut assignments: BTreeMap<Arc<str>, Bytes> = BTreeMap::new();
        for (member_id, assignment) in &sync.assignments {
            if self.members.contains_key(member_id) {
                assignments.insert(member_id.clone(), assignment.clone());
            }
        }
        self.set_pending_assignment(None);
        let bytes = assignment_bytes(&assignments);
        if self.bytes + bytes > context.options.group_bytes_max || bytes > context.bytes_left {
            // As Kafka answers what is too large to be stored.
            self.reset_assignments(context, ErrorCode::UnknownServerError);
            return self.prepare_rebalance(context);
        }
        let id = self.store(context, Some(&assignments));
        self.set_pending_assignment(Some(PendingAssignment { id, assignments }));
    }

    /// Hears how a write went that [`Effect::Store`] asked for.
    pub fn stored(&mut self, context: &mut Context<'_>, id: StoreId, error: ErrorCode) {
        if let Some(at) = self.replacement_stores.iter().position(|pending| pending.id == id) {
            let replacement = self.replacement_stores.swap_remove(at);
            return self.replacement_stored(context, &replacement, error);
        }
        // A rebalance that began meanwhile has dropped the assignment.
        if self.assignment_store.as_ref().is_none_or(|pending| pending.id != id) {
            return;
        }
        let Some(pending) = self.set_pending_assignment(None) else { return };
        if error != ErrorCode::None {
            self.reset_assignments(context, error);
            return self.prepare_rebalance(context);
        }
        self.set_assignments(&pending.assignments);
        self.enter(GroupState::Stable, context.now);
        context.tally.rebalances += 1;
        self.answer_syncs(context, ErrorCode::None);
    }

    pub fn reset_assignments(&mut self, context: &mut Context<'_>, error: ErrorCode) {
        self.set_assignments(&BTreeMap::new());
        self.answer_syncs(context, error);
    }

    fn answer_syncs(&mut self, context: &mut Context<'_>, error: ErrorCode) {
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(token) = self.members.get_mut(&id).and_then(|member| member.sync.take()) else { continue };
            let reply = if error == ErrorCode::None { self.synced_reply(&id) } else { SyncReply::refused(error) };
            context.effects.push(Effect::Synced(token, reply));
            self.renew_session(&id, context.now);
        }
    }

    fn synced_reply(&self, member_id: &str) -> SyncReply {
        SyncReply {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: self.members.get(member_id).map_or_else(Bytes::new, |member| member.assignment.clone()),
        }
    }
}

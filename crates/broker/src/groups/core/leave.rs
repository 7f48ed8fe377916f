//! Signs of life, leaving, and whether a member may commit offsets.

use std::sync::Arc;

use baton_wire::ErrorCode;

use super::group::{Context, Group};
use super::types::{GroupState, Identity};

impl Group {
    pub fn heartbeat(&mut self, context: &mut Context<'_>, identity: &Identity<'_>) -> ErrorCode {
        if let Err(error) = self.check_member(identity.member_id, identity.instance_id) {
            return error;
        }
        if identity.generation != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        self.renew_session(identity.member_id, context.now);
        if self.state == GroupState::PreparingRebalance { ErrorCode::RebalanceInProgress } else { ErrorCode::None }
    }

    /// Takes out each of `leaving` (member id and instance id), then rebalances once.
    pub fn leave(&mut self, context: &mut Context<'_>, leaving: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let errors: Vec<_> =
            leaving.iter().map(|(member_id, instance_id)| self.take_leave(context, member_id, *instance_id)).collect();
        if errors.contains(&ErrorCode::None) {
            match self.state {
                GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(context),
                _ => self.complete_join_if_all_are_there(context),
            }
        }
        errors
    }

    fn take_leave(&mut self, context: &mut Context<'_>, member_id: &str, instance_id: Option<&str>) -> ErrorCode {
        if member_id.is_empty() {
            // An operator removes a static member by the name it was given.
            let member_id: Option<Arc<str>> = instance_id.and_then(|id| self.static_members.get(id)).cloned();
            let Some(member_id) = member_id else { return ErrorCode::UnknownMemberId };
            self.remove(&member_id, context.effects);
            return ErrorCode::None;
        }
        if self.remove_pending(member_id) {
            return ErrorCode::None;
        }
        match self.check_member(member_id, instance_id) {
            Ok(()) => {
                self.remove(member_id, context.effects);
                ErrorCode::None
            }
            Err(error) => error,
        }
    }

    /// Whether offsets may be committed in this name; a commit is a sign of life too.
    pub fn check_commit(&mut self, context: &mut Context<'_>, identity: &Identity<'_>) -> Result<(), ErrorCode> {
        if identity.generation < 0 && self.state == GroupState::Empty {
            // A consumer that assigns its partitions itself, or an operator.
            return Ok(());
        }
        if identity.generation < 0 && identity.member_id.is_empty() && identity.instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(identity.member_id, identity.instance_id)?;
        if identity.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.renew_session(identity.member_id, context.now);
        Ok(())
    }
}

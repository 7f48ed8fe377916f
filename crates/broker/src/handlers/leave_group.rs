//! LeaveGroup: members go, by themselves or removed by an operator.

use baton_wire::messages::leave_group_request::LeaveGroupRequest;
use baton_wire::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::groups::limits::MEMBERS_MAX;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// From this version on several members can leave with one request.
const SEVERAL_FROM_VERSION: i16 = 3;

/// Takes the members out of the group at once.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = LeaveGroupRequest::decode_request(body, context.api_version)?;
    let takes_several = context.api_version >= SEVERAL_FROM_VERSION;
    let leaving: Vec<(&str, Option<&str>)> = if takes_several {
        request.members.iter().take(MEMBERS_MAX).map(|member| (member.member_id, member.group_instance_id)).collect()
    } else {
        vec![(request.member_id, None)]
    };
    let outcome = match request.members.len() {
        0..=MEMBERS_MAX => state.groups.leave(request.group_id, &leaving),
        _ => Err(ErrorCode::InvalidRequest),
    };
    let response = match outcome {
        Err(error) => LeaveGroupResponse { error_code: error.code(), ..LeaveGroupResponse::default() },
        Ok(errors) if takes_several => {
            let members = leaving.iter().zip(errors).map(|((member_id, instance_id), error)| MemberResponse {
                member_id: (*member_id).to_owned(),
                group_instance_id: instance_id.map(str::to_owned),
                error_code: error.code(),
            });
            LeaveGroupResponse { members: members.collect(), ..LeaveGroupResponse::default() }
        }
        Ok(errors) => {
            let error = errors.first().copied().unwrap_or(ErrorCode::None);
            LeaveGroupResponse { error_code: error.code(), ..LeaveGroupResponse::default() }
        }
    };
    Ok(context.encode(&response))
}

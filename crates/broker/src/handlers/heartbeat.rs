//! Heartbeat: a member is alive, and hears whether it has to join again.

use baton_wire::DecodeError;
use baton_wire::messages::heartbeat_request::HeartbeatRequest;
use baton_wire::messages::heartbeat_response::HeartbeatResponse;
use bytes::Bytes;

use crate::groups::core::Identity;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// Renews the member's session.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = HeartbeatRequest::decode_request(body, context.api_version)?;
    let error = state.groups.heartbeat(&Identity {
        group_id: request.group_id,
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: request.generation_id,
    });
    Ok(context.encode(&HeartbeatResponse { error_code: error.code(), ..HeartbeatResponse::default() }))
}

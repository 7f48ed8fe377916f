//! SyncGroup: the second half of a rebalance.

use std::sync::Arc;

use baton_wire::messages::sync_group_request::SyncGroupRequest;
use baton_wire::messages::sync_group_response::SyncGroupResponse;
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::groups::core::{Sync, SyncReply};
use crate::groups::limits::MEMBERS_MAX;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// From this version on a member says which protocol it goes by.
const PROTOCOL_FROM_VERSION: i16 = 5;

/// Takes the assignments from the leader; gives each member its own when they are durable.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    // The request's bytes are not kept while it waits.
    let sync = match read(&context, &body) {
        Ok(sync) => sync,
        Err(_) => return Vec::new(),
    };
    drop(body);
    let reply = match sync {
        Ok(sync) => state.groups.sync(&sync).await,
        Err(error) => SyncReply::refused(error),
    };
    context.encode(&SyncGroupResponse {
        error_code: reply.error.code(),
        protocol_type: reply.protocol_type.map(|name| name.to_string()),
        protocol_name: reply.protocol_name.map(|name| name.to_string()),
        assignment: reply.assignment,
        ..SyncGroupResponse::default()
    })
}

fn read(context: &RequestContext, body: &[u8]) -> Result<Result<Sync, ErrorCode>, DecodeError> {
    let request = SyncGroupRequest::decode_request(body, context.api_version)?;
    let has_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if context.api_version >= PROTOCOL_FROM_VERSION && !has_protocol {
        return Ok(Err(ErrorCode::InconsistentGroupProtocol));
    }
    if request.assignments.len() > MEMBERS_MAX {
        return Ok(Err(ErrorCode::InvalidRequest));
    }
    Ok(Ok(Sync {
        group_id: request.group_id.into(),
        member_id: request.member_id.into(),
        instance_id: request.group_instance_id.map(Arc::from),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(Arc::from),
        protocol_name: request.protocol_name.map(Arc::from),
        assignments: request
            .assignments
            .iter()
            .map(|part| (part.member_id.into(), Bytes::copy_from_slice(part.assignment)))
            .collect(),
    }))
}

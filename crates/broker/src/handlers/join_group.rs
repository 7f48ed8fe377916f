//! JoinGroup: the first half of a rebalance.

use std::sync::Arc;

use baton_wire::messages::join_group_request::JoinGroupRequest;
use baton_wire::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;
use uuid::Uuid;

use crate::groups::core::{Join, JoinReply, JoinedMember, Protocol};
use crate::groups::limits::{NAME_BYTES_MAX, PROTOCOLS_MAX};
use crate::request::RequestContext;
use crate::state::BrokerState;

/// Version 0 knows only one timeout.
const REBALANCE_TIMEOUT_FROM_VERSION: i16 = 1;
/// A dynamic member must use the id it is given from this version on.
const MEMBER_ID_REQUIRED_FROM_VERSION: i16 = 4;
const SKIP_ASSIGNMENT_FROM_VERSION: i16 = 9;
/// Bytes of a client's name that go into its member id.
const MEMBER_ID_STEM_BYTES_MAX: usize = 255;

/// Lets a member join; the answer comes with the rebalance.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    // The request's bytes are not kept while it waits.
    let join = match read(&context, &body) {
        Ok(join) => join,
        Err(_) => return Vec::new(),
    };
    drop(body);
    let reply = match join {
        Ok(join) => state.groups.join(&join).await,
        Err(error) => JoinReply::refused(error, Arc::from("")),
    };
    context.encode(&response(reply))
}

fn read(context: &RequestContext, body: &[u8]) -> Result<Result<Join, ErrorCode>, DecodeError> {
    let request = JoinGroupRequest::decode_request(body, context.api_version)?;
    Ok(check(&request, &context.client_id).map(|()| to_join(&request, context)))
}

fn check(request: &JoinGroupRequest<'_>, client_id: &str) -> Result<(), ErrorCode> {
    let is_long = |name: &str| name.len() > NAME_BYTES_MAX;
    if request.group_id.is_empty() || is_long(request.group_id) {
        return Err(ErrorCode::InvalidGroupId);
    }
    let names = [request.member_id, request.group_instance_id.unwrap_or_default(), request.protocol_type, client_id];
    let has_long_protocol = request.protocols.iter().take(PROTOCOLS_MAX).any(|protocol| is_long(protocol.name));
    if names.into_iter().any(is_long) || has_long_protocol || request.protocols.len() > PROTOCOLS_MAX {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(())
}

fn to_join(request: &JoinGroupRequest<'_>, context: &RequestContext) -> Join {
    let version = context.api_version;
    let has_rebalance_timeout = version >= REBALANCE_TIMEOUT_FROM_VERSION;
    Join {
        group_id: request.group_id.into(),
        member_id: request.member_id.into(),
        fresh_member_id: fresh_member_id(request.group_instance_id.unwrap_or(&context.client_id)),
        instance_id: request.group_instance_id.map(Arc::from),
        client_id: context.client_id.clone(),
        client_host: context.client_host().into(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if has_rebalance_timeout {
            request.rebalance_timeout_ms
        } else {
            request.session_timeout_ms
        },
        protocol_type: request.protocol_type.into(),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| Protocol {
                name: protocol.name.into(),
                metadata: Bytes::copy_from_slice(protocol.metadata),
            })
            .collect(),
        requires_member_id: version >= MEMBER_ID_REQUIRED_FROM_VERSION,
        can_skip_assignment: version >= SKIP_ASSIGNMENT_FROM_VERSION,
    }
}

/// As in Kafka, the client's name and something that was never used before.
fn fresh_member_id(stem: &str) -> Arc<str> {
    let end = stem.floor_char_boundary(MEMBER_ID_STEM_BYTES_MAX);
    format!("{}-{}", &stem[..end], Uuid::new_v4()).into()
}

fn response(reply: JoinReply) -> JoinGroupResponse {
    let member = |member: JoinedMember| JoinGroupResponseMember {
        member_id: member.member_id.to_string(),
        group_instance_id: member.instance_id.map(|id| id.to_string()),
        metadata: member.metadata,
    };
    JoinGroupResponse {
        error_code: reply.error.code(),
        generation_id: reply.generation,
        protocol_type: reply.protocol_type.map(|name| name.to_string()),
        protocol_name: reply.protocol_name.map(|name| name.to_string()),
        leader: reply.leader.to_string(),
        skip_assignment: reply.skip_assignment,
        member_id: reply.member_id.to_string(),
        members: reply.members.into_iter().map(member).collect(),
        ..JoinGroupResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_member_id_begins_with_the_name_and_is_never_the_same() {
        let (one, two) = (fresh_member_id("rdkafka"), fresh_member_id("rdkafka"));
        assert!(one.starts_with("rdkafka-") && one.len() == "rdkafka-".len() + 36);
        assert_ne!(one, two);
        assert!(fresh_member_id(&"ü".repeat(20_000)).len() < 300);
    }

    #[test]
    fn names_that_do_not_fit_an_answer_are_refused() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let request = JoinGroupRequest { group_id: "g", ..JoinGroupRequest::default() };
        assert_eq!(check(&request, "client"), Ok(()));
        assert_eq!(check(&request, &long), Err(ErrorCode::InvalidRequest));
        assert_eq!(check(&JoinGroupRequest { group_id: "", ..request }, "client"), Err(ErrorCode::InvalidGroupId));
        assert_eq!(check(&JoinGroupRequest { group_id: &long, ..request }, "client"), Err(ErrorCode::InvalidGroupId));
        let request = JoinGroupRequest { group_instance_id: Some(&long), ..request };
        assert_eq!(check(&request, "client"), Err(ErrorCode::InvalidRequest));
    }
}

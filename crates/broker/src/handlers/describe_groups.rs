//! DescribeGroups: who is in a group, and who reads what.

use std::collections::BTreeSet;

use baton_wire::messages::describe_groups_request::DescribeGroupsRequest;
use baton_wire::messages::describe_groups_response::{DescribeGroupsResponse, DescribedGroup, DescribedGroupMember};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::groups::core::{GroupDescription, GroupState, MemberDescription};
use crate::groups::limits::GROUPS_MAX;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// From this version on a missing group is an error; before, it is a dead group.
const NOT_FOUND_FROM_VERSION: i16 = 6;
/// There is no authorizer, so that there is nothing to tell.
const AUTHORIZED_OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Describes each group once, however often it is named.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = DescribeGroupsRequest::decode_request(body, context.api_version)?;
    let names: BTreeSet<&str> = request.groups.iter().take(GROUPS_MAX).collect();
    let describe = |group_id: &str| match state.groups.describe(group_id) {
        Ok(Some(group)) => described(group_id, group),
        Ok(None) => missing(group_id, context.api_version),
        Err(error) => DescribedGroup { error_code: error.code(), ..missing(group_id, 0) },
    };
    let response = DescribeGroupsResponse {
        groups: names.into_iter().map(describe).collect(),
        ..DescribeGroupsResponse::default()
    };
    Ok(context.encode(&response))
}

fn described(group_id: &str, group: GroupDescription) -> DescribedGroup {
    let member = |member: MemberDescription| DescribedGroupMember {
        member_id: member.member_id.to_string(),
        group_instance_id: member.instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    };
    DescribedGroup {
        group_id: group_id.to_owned(),
        group_state: group.state.name().to_owned(),
        protocol_type: group.protocol_type.to_string(),
        protocol_data: group.protocol_name.to_string(),
        members: group.members.into_iter().map(member).collect(),
        authorized_operations: AUTHORIZED_OPERATIONS_UNKNOWN,
        ..DescribedGroup::default()
    }
}

fn missing(group_id: &str, version: i16) -> DescribedGroup {
    let is_error = version >= NOT_FOUND_FROM_VERSION;
    DescribedGroup {
        error_code: if is_error { ErrorCode::GroupIdNotFound } else { ErrorCode::None }.code(),
        error_message: is_error.then(|| format!("Group {group_id} not found.")),
        group_id: group_id.to_owned(),
        group_state: GroupState::Dead.name().to_owned(),
        authorized_operations: AUTHORIZED_OPERATIONS_UNKNOWN,
        ..DescribedGroup::default()
    }
}

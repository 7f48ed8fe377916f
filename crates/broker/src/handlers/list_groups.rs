//! ListGroups: which groups there are.

use std::collections::BTreeSet;

use baton_wire::messages::list_groups_request::ListGroupsRequest;
use baton_wire::messages::list_groups_response::{ListGroupsResponse, ListedGroup};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::groups::core::{GroupListing, GroupState};
use crate::request::RequestContext;
use crate::state::BrokerState;

/// The one type of groups served, as Kafka calls it.
const TYPE: &str = "classic";

/// Lists the groups in the states and of the types asked for; all of them if none are.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = ListGroupsRequest::decode_request(body, context.api_version)?;
    let response = match state.groups.list() {
        Ok(groups) => ListGroupsResponse { groups: filtered(&request, groups), ..ListGroupsResponse::default() },
        Err(error) => ListGroupsResponse { error_code: error.code(), ..ListGroupsResponse::default() },
    };
    debug_assert!(response.error_code == ErrorCode::None.code() || response.groups.is_empty());
    Ok(context.encode(&response))
}

fn filtered(request: &ListGroupsRequest<'_>, groups: Vec<GroupListing>) -> Vec<ListedGroup> {
    let is_named = |name: &str, asked: &str| asked.trim().eq_ignore_ascii_case(name);
    let states: BTreeSet<GroupState> = GroupState::ALL
        .into_iter()
        .filter(|state| {
            request.states_filter.is_empty() || request.states_filter.iter().any(|asked| is_named(state.name(), asked))
        })
        .collect();
    if !request.types_filter.is_empty() && !request.types_filter.iter().any(|asked| is_named(TYPE, asked)) {
        return Vec::new();
    }
    let listed = groups.into_iter().filter(|group| states.contains(&group.state)).map(|group| ListedGroup {
        group_id: group.group_id.to_string(),
        protocol_type: group.protocol_type.to_string(),
        group_state: group.state.name().to_owned(),
        group_type: TYPE.to_owned(),
    });
    listed.collect()
}

//! DeleteGroups: empty groups go, with their offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use baton_wire::ErrorCode;
use baton_wire::messages::delete_groups_request::DeleteGroupsRequest;
use baton_wire::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};
use bytes::Bytes;

use crate::groups::limits::GROUPS_MAX;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// Deletes each group once, however often it is named; answers when all of that is durable.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = DeleteGroupsRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let names: BTreeSet<&str> = request.groups_names.iter().take(GROUPS_MAX).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let errors = state.groups.delete_groups(&names).await;
    let result = |(name, error): (&&str, ErrorCode)| DeletableGroupResult {
        group_id: (*name).to_owned(),
        error_code: error.code(),
    };
    let results = names.iter().zip(errors).map(result).collect();
    context.encode(&DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() })
}

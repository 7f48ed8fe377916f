//! FindCoordinator: this node coordinates all groups.

use baton_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use baton_wire::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::request::RequestContext;
use crate::state::{BrokerState, NODE_ID};

/// Clients ask for several keys at once from this version on.
const SEVERAL_KEYS_FROM_VERSION: i16 = 4;
const KEY_TYPE_GROUP: i8 = 0;

/// Names this node for groups; refuses transactions, which are not served.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = FindCoordinatorRequest::decode_request(body, context.api_version)?;
    let (host, port) = &state.advertised;
    let is_group = request.key_type == KEY_TYPE_GROUP;
    let found = |key: &str| Coordinator {
        key: key.to_owned(),
        node_id: if is_group { NODE_ID } else { -1 },
        host: if is_group { host.clone() } else { String::new() },
        port: if is_group { i32::from(*port) } else { -1 },
        error_code: if is_group { ErrorCode::None } else { ErrorCode::InvalidRequest }.code(),
        error_message: (!is_group)
            .then(|| "transactions and share groups are not served by this version of Baton".to_owned()),
    };
    if context.api_version >= SEVERAL_KEYS_FROM_VERSION {
        let coordinators = request.coordinator_keys.iter().map(found).collect();
        return Ok(context.encode(&FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() }));
    }
    let Coordinator { node_id, host, port, error_code, error_message, .. } = found(request.key);
    let response = FindCoordinatorResponse {
        node_id,
        host,
        port,
        error_code,
        error_message,
        ..FindCoordinatorResponse::default()
    };
    Ok(context.encode(&response))
}

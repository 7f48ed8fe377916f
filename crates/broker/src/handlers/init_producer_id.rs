//! InitProducerId: an id for an idempotent producer.

use std::sync::Arc;

use baton_wire::ErrorCode;
use baton_wire::messages::init_producer_id_request::InitProducerIdRequest;
use baton_wire::messages::init_producer_id_response::InitProducerIdResponse;
use bytes::Bytes;

use crate::request::RequestContext;
use crate::state::BrokerState;

/// Gives out a new id with epoch 0. Transactional ids are refused with a code that clients take as final.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = InitProducerIdRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let failed = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if request.transactional_id.is_some() {
        return context.encode(&failed(ErrorCode::TransactionalIdAuthorizationFailed));
    }
    let response = match state.producer_ids.next(&state.log).await {
        Ok(producer_id) => {
            InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
        }
        Err(error) => {
            tracing::error!(%error, "no producer id could be given out");
            failed(ErrorCode::CoordinatorNotAvailable)
        }
    };
    context.encode(&response)
}

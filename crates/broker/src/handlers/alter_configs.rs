//! AlterConfigs: replaces all that is set for topics and for the broker. Kafka's older way; what is not named goes back to its
//! default.

use std::sync::Arc;

use baton_wire::messages::alter_configs_request::{AlterConfigsRequest, AlterConfigsResource};
use baton_wire::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};
use bytes::Bytes;

use crate::handlers::config_changes::{self, Alteration, Change, Mode, Operation, Outcome, Resource};
use crate::handlers::error_of;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// Answers each resource with its own code.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = AlterConfigsRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let mode = Mode { replace: true, validate_only: request.validate_only };
    let alterations = request.resources.iter().map(|resource| alteration(&resource)).collect();
    drop(body);
    let responses = config_changes::alter(&state, alterations, mode).await.into_iter().map(response).collect();
    context.encode(&AlterConfigsResponse { responses, ..AlterConfigsResponse::default() })
}

fn alteration(resource: &AlterConfigsResource<'_>) -> Alteration {
    let changes = resource.configs.iter().map(|config| Change {
        name: config.name.to_owned(),
        operation: Operation::Set,
        value: config.value.map(str::to_owned),
    });
    Alteration {
        resource: Resource { kind: resource.resource_type, name: resource.resource_name.to_owned() },
        changes: Ok(changes.collect()),
    }
}

fn response((resource, outcome): Outcome) -> AlterConfigsResourceResponse {
    let (error_code, error_message) = error_of(outcome);
    AlterConfigsResourceResponse {
        error_code,
        error_message,
        resource_type: resource.kind,
        resource_name: resource.name,
    }
}

//! IncrementalAlterConfigs: changes some of what is set for topics and for the broker, and leaves the rest as it is.

use std::sync::Arc;

use baton_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use baton_wire::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use bytes::Bytes;

use crate::handlers::config_changes::{self, Alteration, Change, Mode, Operation, Outcome, Resource, refused};
use crate::handlers::error_of;
use crate::request::RequestContext;
use crate::state::BrokerState;
use crate::topics::TopicError;

/// Answers each resource with its own code.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = IncrementalAlterConfigsRequest::decode_request(&body, context.api_version) else {
        return Vec::new();
    };
    let mode = Mode { replace: false, validate_only: request.validate_only };
    let alterations = request.resources.iter().map(|resource| alteration(&resource)).collect();
    drop(body);
    let responses = config_changes::alter(&state, alterations, mode).await.into_iter().map(response).collect();
    context.encode(&IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() })
}

fn alteration(resource: &AlterConfigsResource<'_>) -> Alteration {
    Alteration {
        resource: Resource { kind: resource.resource_type, name: resource.resource_name.to_owned() },
        changes: resource.configs.iter().map(|config| change(&config)).collect(),
    }
}

fn change(config: &AlterableConfig<'_>) -> Result<Change, TopicError> {
    let operation = match config.config_operation {
        0 => Operation::Set,
        1 => Operation::Delete,
        2 => Operation::Append,
        3 => Operation::Subtract,
        unknown => return Err(refused(format!("Unknown operations type {unknown}"))),
    };
    Ok(Change { name: config.name.to_owned(), operation, value: config.value.map(str::to_owned) })
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

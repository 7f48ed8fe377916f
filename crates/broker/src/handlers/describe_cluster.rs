//! DescribeCluster: the one node there is.

use baton_wire::messages::describe_cluster_request::DescribeClusterRequest;
use baton_wire::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::request::RequestContext;
use crate::state::{BrokerState, NODE_ID};

/// The endpoints that can be asked about: brokers; there are no separate controllers.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Names the node and the cluster.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = DescribeClusterRequest::decode_request(body, context.api_version)?;
    let refused = |code: ErrorCode, message: String| DescribeClusterResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..DescribeClusterResponse::default()
    };
    let response = match request.endpoint_type {
        BROKERS => {
            let (host, port) = state.advertised.clone();
            DescribeClusterResponse {
                cluster_id: state.log.cluster_id().to_owned(),
                controller_id: NODE_ID,
                brokers: vec![DescribeClusterBroker {
                    broker_id: NODE_ID,
                    host,
                    port: i32::from(port),
                    ..DescribeClusterBroker::default()
                }],
                ..DescribeClusterResponse::default()
            }
        }
        CONTROLLERS => refused(
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                .to_owned(),
        ),
        other => refused(ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")),
    };
    Ok(context.encode(&response))
}

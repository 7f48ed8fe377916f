//! ApiVersions: which requests are served, in which versions.

use baton_wire::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};
use baton_wire::{ApiKey, ErrorCode};
use bytes::Bytes;

use crate::request::RequestContext;
use crate::router::SERVED;

/// The oldest version that is announced. librdkafka compresses only for brokers that announce Produce from 0 on; Apache
/// Kafka 4 announces these versions for its sake as well, and refuses them.
fn announced_from(api_key: ApiKey, served_from: i16) -> i16 {
    if api_key == ApiKey::Produce { 0 } else { served_from }
}

/// Answers with the table of what is served; a version from the future gets it in version 0, with an error, so that the
/// client can ask again.
pub(crate) fn handle(context: &RequestContext) -> Vec<Bytes> {
    let api_keys = SERVED.iter().map(|(api_key, versions)| ApiVersion {
        api_key: *api_key as i16,
        min_version: announced_from(*api_key, *versions.start()),
        max_version: *versions.end(),
    });
    let response = ApiVersionsResponse { api_keys: api_keys.collect(), ..ApiVersionsResponse::default() };
    if crate::router::is_served(ApiKey::ApiVersions, context.api_version) {
        return context.encode(&response);
    }
    let response = ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), ..response };
    RequestContext { api_version: 0, ..context.clone() }.encode(&response)
}

//! Each kind of request, made in a version: enough to see that it works, and frames for hostile tests to spoil.

mod administration;
mod groups;
mod records;

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};

use crate::support::client::Client;

/// What the broker announces: name, first and last version.
pub fn announced(client: &mut Client) -> Vec<(ApiKey, i16, i16)> {
    let response = client.call(3, &ApiVersionsRequest::default());
    assert_eq!(response.error_code, 0);
    let known = |key: i16| ApiKey::try_from(key).unwrap_or_else(|()| panic!("API {key}"));
    response.api_keys.iter().map(|api| (known(api.api_key), api.min_version, api.max_version)).collect()
}

/// librdkafka compresses only for a broker that announces `Produce` from 0 on; nobody sends anything before 3.
pub fn first_served(key: ApiKey, announced: i16) -> i16 {
    if key == ApiKey::Produce { announced.max(3) } else { announced }
}

/// Makes a request in a version, on a broker that has a topic `t`.
pub fn work(client: &mut Client, key: ApiKey, version: i16) {
    let is_known = records::work(client, key, version)
        || groups::work(client, key, version)
        || administration::work(client, key, version);
    assert!(is_known, "{key:?} is announced and not tested");
}

//! What is known of a request before it is looked at.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use baton_wire::encode::Response;
use baton_wire::{ApiKey, encode_response};
use bytes::Bytes;

use crate::metrics::{ErrorCodes, Metrics};

/// Who asks, for what, in which version.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
    /// The name that the client gives itself; empty if none.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub client_address: IpAddr,
    /// When it had arrived.
    pub received: Instant,
    pub metrics: Arc<Metrics>,
}

impl RequestContext {
    /// The response's bytes, as they go to the client. Counts the request as answered.
    pub fn encode<R: Response + ErrorCodes>(&self, response: &R) -> Vec<Bytes> {
        self.metrics.answered(self.api_key, self.received.elapsed());
        response.each_code(&mut |code| self.metrics.error(self.api_key, code));
        encode_response(self.correlation_id, self.api_key, self.api_version, response)
    }

    /// The client's address as Kafka shows it in group descriptions.
    pub fn client_host(&self) -> String {
        format!("/{}", self.client_address)
    }
}

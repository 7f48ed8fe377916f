//! Any bytes as a request: the header, and the body of every API that is served.
#![no_main]

use baton_wire::{ApiKey, RequestHeader};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/wire/tests/hostile/any_request.rs"]
mod any_request;

fuzz_target!(|data: &[u8]| {
    if let Ok((header, body)) = RequestHeader::decode(data) {
        any_request::decode_any(header.api_key, body, header.api_version);
    }
    // The first two bytes choose an API and a version that exist, so that the fuzzer need not find them.
    let [api, version, body @ ..] = data else { return };
    let api_key = ApiKey::ALL[usize::from(*api) % ApiKey::ALL.len()];
    if let Some(versions) = api_key.schema_versions() {
        let count = versions.end() - versions.start() + 1;
        any_request::decode_any(api_key, body, versions.start() + i16::from(*version) % count);
    }
});

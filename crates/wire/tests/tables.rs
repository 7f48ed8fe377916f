//! The tables of error codes and API keys, and the request header.

use baton_wire::{ApiKey, DecodeError, ErrorCode, RequestHeader};
use bytes::BytesMut;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey as OtherApiKey, RequestHeader as OtherHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};

#[test]
fn error_codes_and_what_may_be_retried_agree_with_another_implementation() {
    let mut compared = 0;
    let mut differences = Vec::new();
    for error in ErrorCode::ALL.iter().filter(|error| **error != ErrorCode::None) {
        let other = ResponseError::try_from_code(error.code()).unwrap();
        if matches!(other, ResponseError::Unknown(_)) {
            continue;
        }
        if error.is_retriable() != other.is_retriable() {
            differences.push(error.name());
        }
        assert_eq!(error.name().replace('_', ""), format!("{other:?}").to_uppercase());
        compared += 1;
    }
    // The tables are of different releases of Kafka.
    assert_eq!(differences, ["CONCURRENT_TRANSACTIONS"]);
    assert!(compared > 115, "only {compared} codes were compared");
}

#[test]
fn every_error_code_is_found_by_its_number() {
    for error in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(error.code()), Some(*error));
    }
    assert_eq!(ErrorCode::from_code(-2), None);
    assert_eq!(ErrorCode::from_code(i16::MAX), None);
}

#[test]
fn api_keys_are_found_by_their_number_and_agree_with_another_implementation() {
    for (at, api_key) in ApiKey::ALL.iter().enumerate() {
        assert_eq!(*api_key as usize, at);
        assert_eq!(ApiKey::from_number(at as i16), Some(*api_key));
        let Ok(other) = OtherApiKey::try_from(at as i16) else { continue };
        for version in other.valid_versions().min..=other.valid_versions().max {
            assert_eq!(api_key.request_header_version(version), other.request_header_version(version));
            assert_eq!(api_key.response_header_version(version), other.response_header_version(version));
        }
    }
    assert_eq!(ApiKey::from_number(-1), None);
    assert_eq!(ApiKey::from_number(ApiKey::ALL.len() as i16), None);
}

#[test]
fn headers_written_by_another_implementation_are_read() {
    for (api_key, version) in [(ApiKey::Produce, 7), (ApiKey::Produce, 9), (ApiKey::ApiVersions, 3)] {
        for client_id in [None, Some(""), Some("rdkafka ü")] {
            let header = OtherHeader::default()
                .with_request_api_key(api_key as i16)
                .with_request_api_version(version)
                .with_correlation_id(-7)
                .with_client_id(client_id.map(StrBytes::from_static_str));
            let mut request = BytesMut::new();
            header.encode(&mut request, api_key.request_header_version(version)).unwrap();
            request.extend_from_slice(b"body");
            let expected = RequestHeader { api_key, api_version: version, correlation_id: -7, client_id };
            assert_eq!(RequestHeader::decode(&request), Ok((expected, b"body".as_slice())));
        }
    }
}

#[test]
fn header_of_an_unknown_version_of_a_known_api_is_read_so_that_it_can_be_answered() {
    let request = [0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0];
    let (header, body) = RequestHeader::decode(&request).unwrap();
    assert_eq!((header.api_key, header.api_version, header.correlation_id), (ApiKey::ApiVersions, 99, 5));
    assert!(body.is_empty());
}

#[test]
fn header_of_an_unknown_api_is_refused() {
    let request = [0x7f, 0xff, 0, 0, 0, 0, 0, 5, 0xff, 0xff];
    assert_eq!(RequestHeader::decode(&request), Err(DecodeError::UnknownApiKey(0x7fff)));
}

#[test]
fn produce_is_advertised_from_version_0_on_although_it_is_served_from_3_on() {
    assert_eq!(ApiKey::Produce.schema_versions(), Some(3..=13));
    assert_eq!(ApiKey::Produce.advertised_versions(), Some(0..=13));
    for api_key in ApiKey::ALL.iter().filter(|api_key| **api_key != ApiKey::Produce) {
        assert_eq!(api_key.advertised_versions(), api_key.schema_versions());
    }
}

//! Requests made to break a decoder: it allocates nothing for any of them, and does not panic.

use baton_wire::decode::ELEMENTS_MAX;
use baton_wire::messages::fetch_request::FetchRequest;
use baton_wire::messages::join_group_request::JoinGroupRequest;
use baton_wire::messages::metadata_request::MetadataRequest;
use baton_wire::messages::produce_request::ProduceRequest;
use baton_wire::{ApiKey, DecodeError, RequestHeader};
use proptest::prelude::*;

use crate::any_request::decode_any;

/// Bytes that a decoder is fooled with: lengths at the limits, in both forms.
fn lengths() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(i32::MAX.to_be_bytes().to_vec()),
        Just(i32::MIN.to_be_bytes().to_vec()),
        Just((-1i32).to_be_bytes().to_vec()),
        Just(vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        Just(vec![0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        Just(vec![0x80, 0x80, 0x80, 0x80, 0x08]),
        Just(vec![0x7f, 0xff]),
        Just(vec![0, 0, 0, 1]),
        Just(vec![2]),
        proptest::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_a_request_decoder_allocate_or_panic(
        parts in proptest::collection::vec(lengths(), 0..12),
        version in 0i16..19,
    ) {
        let bytes = parts.concat();
        let info = allocation_counter::measure(|| {
            for api_key in ApiKey::ALL {
                decode_any(*api_key, &bytes, version);
            }
        });
        prop_assert_eq!(info.count_total, 0, "{} bytes allocated", info.bytes_total);
    }

    #[test]
    fn no_bytes_make_the_header_decoder_allocate_or_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let info = allocation_counter::measure(|| {
            let _ = RequestHeader::decode(&bytes);
        });
        prop_assert_eq!(info.count_total, 0);
    }
}

#[test]
fn counter_of_allocations_counts() {
    let info = allocation_counter::measure(|| drop(std::hint::black_box(vec![1u8; 100])));
    assert_eq!((info.count_total, info.bytes_total), (1, 100));
}

#[test]
fn array_that_claims_more_elements_than_bytes_are_left_is_refused() {
    // The topics of a Metadata request, in the plain and in the compact form.
    let plain = DecodeError::ArrayTooLong { count: i32::MAX as u32, left: 0 };
    assert_eq!(MetadataRequest::decode_request(&i32::MAX.to_be_bytes(), 1), Err(plain));
    let compact = DecodeError::ArrayTooLong { count: u32::MAX - 1, left: 2 };
    assert_eq!(MetadataRequest::decode_request(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1], 9), Err(compact));
}

#[test]
fn nested_array_that_claims_too_much_is_refused() {
    // Produce version 3: no transactional id, acks, timeout, one topic "t" with 2^31-1 partitions.
    let mut bytes = vec![0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't'];
    bytes.extend(i32::MAX.to_be_bytes());
    let refused = DecodeError::ArrayTooLong { count: i32::MAX as u32, left: 0 };
    assert_eq!(ProduceRequest::decode_request(&bytes, 3), Err(refused));
}

#[test]
fn negative_lengths_are_refused() {
    assert_eq!(MetadataRequest::decode_request(&(-2i32).to_be_bytes(), 1), Err(DecodeError::NegativeLength(-2)));
    assert_eq!(ProduceRequest::decode_request(&[0x80, 0], 3), Err(DecodeError::NegativeLength(-32768)));
}

#[test]
fn null_is_refused_where_the_version_has_no_null() {
    let null = (-1i32).to_be_bytes();
    assert_eq!(MetadataRequest::decode_request(&null, 0), Err(DecodeError::UnexpectedNull));
    assert_eq!(MetadataRequest::decode_request(&null, 1).map(|request| request.topics), Ok(None));
    assert_eq!(JoinGroupRequest::decode_request(&[0xff, 0xff], 0), Err(DecodeError::UnexpectedNull));
}

#[test]
fn string_that_is_not_utf8_is_refused() {
    assert_eq!(JoinGroupRequest::decode_request(&[0, 1, 0xff], 0), Err(DecodeError::InvalidUtf8));
}

#[test]
fn varint_of_more_than_32_bits_is_refused() {
    let bytes = [0xff, 0xff, 0xff, 0xff, 0x1f];
    assert_eq!(MetadataRequest::decode_request(&bytes, 9), Err(DecodeError::InvalidVarint));
}

#[test]
fn content_of_a_known_tagged_field_must_be_as_long_as_it_says() {
    // Fetch version 12: the plain fields as zeros, no topics, none forgotten, no rack; then the tagged fields.
    let plain = [&[0; 25][..], &[1, 1, 1]].concat();
    assert_eq!(FetchRequest::decode_request(&[&plain[..], &[0]].concat(), 12).map(|fetch| fetch.cluster_id), Ok(None));
    let whole = [&plain[..], &[1, 0, 2, 2, b'c']].concat();
    assert_eq!(FetchRequest::decode_request(&whole, 12).map(|fetch| fetch.cluster_id), Ok(Some("c")));
    let longer = [&plain[..], &[1, 0, 3, 2, b'c', 9]].concat();
    assert_eq!(FetchRequest::decode_request(&longer, 12), Err(DecodeError::TrailingBytes(1)));
}

#[test]
fn bytes_behind_a_request_are_passed_over() {
    // What librdkafka 2.16 sends to ask for all topics: null topics, the flags and the tags, then three bytes more.
    let request = MetadataRequest::decode_request(&[0, 0, 0, 0, 1, 0, 0], 12).expect("a request");
    assert!(request.topics.is_none());
}

#[test]
fn elements_are_bounded_over_all_arrays_of_a_request() {
    // Metadata version 1: names of no letters, two bytes each.
    let names = |count: u32| [&count.to_be_bytes()[..], &vec![0; count as usize * 2]].concat();
    let most = names(ELEMENTS_MAX);
    let request = MetadataRequest::decode_request(&most, 1).expect("as many as there may be");
    assert_eq!(request.topics.expect("an array").iter().count(), ELEMENTS_MAX as usize);
    assert_eq!(MetadataRequest::decode_request(&names(ELEMENTS_MAX + 1), 1), Err(DecodeError::TooManyElements));
}

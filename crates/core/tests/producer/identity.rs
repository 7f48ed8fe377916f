use baton_core::identity::{BadIdentity, Identified, Named, Origin, identify};
use baton_core::stamp::{BadStamp, Instance, Stamp};
use baton_core::{Delivery, Headers, MessageId, TopicPartition};
use bytes::Bytes;
use proptest::prelude::*;

fn delivery(headers: &[(&str, &[u8])], payload: &str) -> Delivery {
    let mut all = Headers::default();
    for (name, value) in headers {
        all.push(*name, Some(Bytes::copy_from_slice(value)));
    }
    Delivery {
        from: TopicPartition::new("orders", 3),
        offset: 17,
        key: None,
        payload: Some(Bytes::copy_from_slice(payload.as_bytes())),
        headers: all,
        timestamp_ms: None,
        delivered_before: None,
    }
}

fn found(delivery: &Delivery, named: Option<&Named>) -> (String, Origin) {
    let Identified { id, origin } = identify(delivery, named).unwrap();
    (id.as_str().to_owned(), origin)
}

#[test]
fn ids_are_looked_for_in_the_documented_order() {
    let named = Named::Header("order".into());
    let stamp =
        Stamp { id: MessageId::new("stamped").unwrap(), instance: Instance::new("i").unwrap(), epoch: 1, sequence: 1 };
    let stamp = stamp.encode();
    let mut headers: Vec<(&str, &[u8])> =
        vec![("order", b"order-17"), ("baton", &stamp), ("ce_id", b"1"), ("ce_source", b"/shop")];
    assert_eq!(found(&delivery(&headers, ""), Some(&named)), ("order-17".into(), Origin::Named));
    assert_eq!(found(&delivery(&headers, ""), None), ("stamped".into(), Origin::Stamp));
    headers.remove(0);
    assert_eq!(found(&delivery(&headers, ""), Some(&named)), ("stamped".into(), Origin::Stamp));
    headers.remove(0);
    assert_eq!(found(&delivery(&headers, ""), Some(&named)), ("ce|/shop|1".into(), Origin::CloudEvent));
    headers.remove(1);
    assert_eq!(found(&delivery(&headers, ""), Some(&named)), ("at|orders|3|17".into(), Origin::Position));
}

#[test]
fn a_field_of_the_content_names_the_message() {
    let named = Named::JsonField("/order/id".into());
    let id = |content: &str| identify(&delivery(&[], content), Some(&named));
    assert_eq!(found(&delivery(&[], r#"{"order":{"id":"a-1"}}"#), Some(&named)), ("a-1".into(), Origin::Named));
    assert_eq!(found(&delivery(&[], r#"{"order":{"id":17}}"#), Some(&named)), ("17".into(), Origin::Named));
    for absent in ["", "no json", "{}", r#"{"order":{"id":null}}"#] {
        assert_eq!(id(absent).unwrap().origin, Origin::Position, "{absent}");
    }
    for kind in ["1.5", "true", "{}", "[1]", "1e400000"] {
        let content = format!(r#"{{"order":{{"id":{kind}}}}}"#);
        let expected = if kind == "1e400000" { id("no json") } else { Err(BadIdentity::Kind("/order/id".into())) };
        assert_eq!(id(&content), expected, "{kind}");
    }
    assert_eq!(id(r#"{"order":{"id":""}}"#), Err(BadIdentity::Empty("/order/id".into())));
}

#[test]
fn an_unusable_id_is_an_error_and_never_a_weaker_id() {
    let named = Named::Header("order".into());
    assert_eq!(identify(&delivery(&[("order", b"")], ""), Some(&named)), Err(BadIdentity::Empty("order".into())));
    assert_eq!(identify(&delivery(&[("baton", b"2;x")], ""), None), Err(BadIdentity::Stamp(BadStamp::Newer(2))));
}

#[test]
fn what_is_too_long_for_an_id_is_named_by_a_hash_that_never_changes() {
    let long = "é".repeat(200);
    let named = Named::Header("order".into());
    let (id, _) = found(&delivery(&[("order", long.as_bytes())], ""), Some(&named));
    // Python: hashlib.sha256(b"id|" + b"%C3%A9" * 200).hexdigest().upper()
    assert_eq!(id, "id~EF6F33F55E846AD409F63F5186FF289B9A2A40992DA5609CA16A9F5E47BD2E62");
}

#[test]
fn source_and_id_of_an_event_cannot_be_mixed_up() {
    let id = |source: &str, id: &str| {
        found(&delivery(&[("ce_id", id.as_bytes()), ("ce_source", source.as_bytes())], ""), None).0
    };
    assert_eq!((id("a|b", "c").as_str(), id("a", "b|c").as_str()), ("ce|a%7Cb|c", "ce|a|b%7Cc"));
    assert_eq!(id("a%7Cb", "é"), "ce|a%257Cb|%C3%A9");
}

proptest! {
    #[test]
    fn different_events_have_different_ids(
        one in ("[a|%;é ]{1,3}", "[a|%;é ]{1,3}"), other in ("[a|%;é ]{1,3}", "[a|%;é ]{1,3}"),
    ) {
        let id = |(source, id): &(String, String)| {
            found(&delivery(&[("ce_id", id.as_bytes()), ("ce_source", source.as_bytes())], ""), None)
        };
        prop_assert_eq!(id(&one) == id(&other), one == other);
    }

    #[test]
    fn different_values_make_different_ids(
        one in prop::collection::vec(any::<u8>(), 1..200), other in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let named = Named::Header("order".into());
        let id = |value: &[u8]| found(&delivery(&[("order", value)], ""), Some(&named));
        prop_assert_eq!(id(&one) == id(&other), one == other);
        prop_assert_eq!(id(&one), id(&one));
    }
}

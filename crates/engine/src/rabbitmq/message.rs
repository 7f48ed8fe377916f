//! Records as AMQP messages, and back.
//!
//! Headers are AMQP headers, readable for any AMQP client. AMQP keeps neither their order nor a name that occurs twice: where that would
//! lose something, the values of one name become a list, and [`ORDER`] says in which order the names came. What AMQP has no field for
//! is in headers of Baton's own.

use std::collections::BTreeMap;

use baton_core::{Delivery, Headers, TopicPartition};
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};

use crate::Record;

/// The message's key.
const KEY: &str = "baton-key";
/// Milliseconds since 1970; AMQP's own field has seconds.
const TIME: &str = "baton-time-ms";
/// There is no content, which is not the same as an empty one.
const ABSENT: &str = "baton-no-payload";
/// Names of the headers in their order.
const ORDER: &str = "baton-header-order";
/// How often the queue delivered it before and got it back.
const DELIVERY_COUNT: &str = "x-delivery-count";
const PERSISTENT: u8 = 2;
const MS_PER_SECOND: i64 = 1_000;

fn reserved(name: &str) -> bool {
    matches!(name, KEY | TIME | ABSENT | ORDER) || name.starts_with("x-")
}

fn bytes_value(value: &[u8]) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn optional(value: Option<&Bytes>) -> AMQPValue {
    value.map_or(AMQPValue::Void, |value| bytes_value(value))
}

/// The properties of a record's message; why there are none, if AMQP cannot carry it.
pub(super) fn properties(record: &Record, now_ms: i64) -> Result<BasicProperties, String> {
    let mut table = headers_table(&record.headers)?;
    if let Some(key) = &record.key {
        table.insert(KEY.into(), bytes_value(key));
    }
    if record.payload.is_none() {
        table.insert(ABSENT.into(), AMQPValue::Boolean(true));
    }
    let time_ms = record.timestamp_ms.unwrap_or(now_ms);
    table.insert(TIME.into(), AMQPValue::LongLongInt(time_ms));
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(table);
    if let Ok(seconds) = u64::try_from(time_ms / MS_PER_SECOND) {
        properties = properties.with_timestamp(seconds);
    }
    if let Some(id) = &record.id {
        let id =
            ShortString::try_new(id.to_string()).map_err(|_| "the message's id is longer than 255 bytes".to_owned())?;
        properties = properties.with_message_id(id);
    }
    Ok(properties)
}

fn headers_table(headers: &Headers) -> Result<FieldTable, String> {
    let mut values: BTreeMap<&str, Vec<Option<&Bytes>>> = BTreeMap::new();
    for header in headers {
        if reserved(&header.name) {
            return Err(format!("the header name {:?} is reserved on RabbitMQ; use another", header.name));
        }
        values.entry(&header.name).or_default().push(header.value.as_ref());
    }
    let plain = headers.iter().map(|header| &*header.name).eq(values.keys().copied());
    let mut table = FieldTable::default();
    for (name, mut values) in values {
        let short = ShortString::try_new(name.to_owned())
            .map_err(|_| format!("the header name {name:?} is longer than AMQP's 255 bytes"))?;
        let value = match values.len() {
            1 => optional(values.pop().flatten()),
            _ => AMQPValue::FieldArray(FieldArray::from(values.into_iter().map(optional).collect::<Vec<_>>())),
        };
        table.insert(short, value);
    }
    if !plain {
        let order = headers.iter().map(|header| bytes_value(header.name.as_bytes())).collect::<Vec<_>>();
        table.insert(ORDER.into(), AMQPValue::FieldArray(FieldArray::from(order)));
    }
    Ok(table)
}

/// What was delivered; `offset` is ours.
pub(super) fn delivery(from: TopicPartition, offset: i64, properties: &BasicProperties, data: Vec<u8>) -> Delivery {
    let empty = BTreeMap::new();
    let table = properties.headers().as_ref().map_or(&empty, FieldTable::inner);
    let own = |name: &str| table.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value);
    let absent = own(ABSENT).is_some();
    let seconds = || properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok());
    Delivery {
        from,
        offset,
        key: own(KEY).and_then(bytes_of),
        payload: (!absent).then(|| Bytes::from(data)),
        headers: headers(table),
        timestamp_ms: own(TIME).and_then(number).or_else(|| seconds()?.checked_mul(MS_PER_SECOND)),
        delivered_before: own(DELIVERY_COUNT).and_then(number).and_then(|count| u32::try_from(count).ok()),
    }
}

fn headers(table: &BTreeMap<ShortString, AMQPValue>) -> Headers {
    let mut values: BTreeMap<&str, std::collections::VecDeque<Option<Bytes>>> = BTreeMap::new();
    let ordered = match table.iter().find(|(name, _)| name.as_str() == ORDER) {
        Some((_, AMQPValue::FieldArray(order))) => Some(order),
        _ => None,
    };
    for (name, value) in table.iter().filter(|(name, _)| !reserved(name.as_str())) {
        let each = match value {
            AMQPValue::FieldArray(array) if ordered.is_some() => array.as_slice().iter().map(bytes_of).collect(),
            value => std::collections::VecDeque::from([bytes_of(value)]),
        };
        values.insert(name.as_str(), each);
    }
    let mut headers = Headers::default();
    if let Some(order) = ordered {
        for name in order.as_slice().iter().filter_map(bytes_of) {
            let name = String::from_utf8_lossy(&name).into_owned();
            if let Some(value) = values.get_mut(name.as_str()).and_then(std::collections::VecDeque::pop_front) {
                headers.push(name, value);
            }
        }
    }
    // In the order of names: what has none of its own, and what others added.
    for (name, left) in values {
        left.into_iter().for_each(|value| headers.push(name, value));
    }
    headers
}

/// A value's bytes; other programs may send numbers and the like.
fn bytes_of(value: &AMQPValue) -> Option<Bytes> {
    match value {
        AMQPValue::Void => None,
        AMQPValue::LongString(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        AMQPValue::ByteArray(bytes) => Some(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::ShortString(text) => Some(Bytes::copy_from_slice(text.as_str().as_bytes())),
        AMQPValue::Boolean(value) => Some(Bytes::from(value.to_string())),
        AMQPValue::Timestamp(seconds) => Some(Bytes::from(seconds.to_string())),
        AMQPValue::Float(value) => Some(Bytes::from(value.to_string())),
        AMQPValue::Double(value) => Some(Bytes::from(value.to_string())),
        other => Some(match number(other) {
            Some(number) => Bytes::from(number.to_string()),
            None => Bytes::from(format!("{other:?}")),
        }),
    }
}

fn number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortShortUInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortUInt(number) => Some(i64::from(*number)),
        AMQPValue::LongInt(number) => Some(i64::from(*number)),
        AMQPValue::LongUInt(number) => Some(i64::from(*number)),
        AMQPValue::LongLongInt(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(names: &[(&str, Option<&'static str>)]) -> Record {
        let mut headers = Headers::default();
        for (name, value) in names {
            headers.push(*name, value.map(Bytes::from_static_str));
        }
        Record { to: TopicPartition::new("t", 0), key: None, payload: None, headers, timestamp_ms: Some(1), id: None }
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Bytes;
    }
    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Bytes {
            Bytes::from_static(text.as_bytes())
        }
    }

    #[test]
    fn headers_come_back_in_their_order_with_all_their_values() {
        for names in [
            &[("a", Some("1")), ("b", None), ("c", Some(""))][..],
            &[("b", Some("1")), ("a", Some("2"))],
            &[("twice", Some("1")), ("x", None), ("twice", None), ("twice", Some("2"))],
            &[],
        ] {
            let record = record(names);
            let properties = properties(&record, 5).unwrap();
            let back = delivery(record.to.clone(), 0, &properties, Vec::new());
            assert_eq!(back.headers, record.headers);
            assert_eq!((back.payload, back.timestamp_ms), (None, Some(1)));
        }
    }

    #[test]
    fn plain_headers_are_plain_on_the_wire() {
        let properties = properties(&record(&[("baton", Some("1;id")), ("tenant", Some("north"))]), 5).unwrap();
        let table = properties.headers().as_ref().unwrap();
        assert!(!table.contains_key(ORDER));
        assert_eq!(table.inner().get("tenant"), Some(&AMQPValue::LongString("north".into())));
    }

    #[test]
    fn reserved_and_overlong_names_are_refused() {
        assert!(properties(&record(&[("x-death", None)]), 5).is_err());
        assert!(properties(&record(&[(KEY, None)]), 5).is_err());
        let long: &'static str = Box::leak("n".repeat(256).into_boxed_str());
        assert!(properties(&record(&[(long, None)]), 5).is_err());
    }
}

//! What an unstamped message is known by. A guard is as good as the id that it is given: see [`Origin`] for what each can catch.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::stamp::{BadStamp, Stamp};
use crate::{Delivery, MESSAGE_ID_BYTES_MAX, MessageId};

/// Name of the header that holds the id of a CloudEvent in Kafka's binary mode.
pub const CLOUD_EVENT_ID_HEADER: &str = "ce_id";
/// Name of the header that holds its source. The id is unique within its source only.
pub const CLOUD_EVENT_SOURCE_HEADER: &str = "ce_source";

/// Where a message id came from, in the order in which they are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A header or field that the user named. Catches all that the business calls the same, also when it was sent twice by a
    /// program, or came over two ways. Lets through what carries a new value each time, and drops what shares a value by mistake.
    Named,
    /// The stamp. Catches redelivery, retries of the producer, outbox rows sent twice, repair and replay. Does not catch a service that
    /// calls `send` twice for the same thing, unless it gives its own id.
    Stamp,
    /// `ce_id` within `ce_source`. Catches redelivery and whatever the event's producer sends again under the same id, as CloudEvents asks
    /// of it; whether it does is its own affair.
    CloudEvent,
    /// Topic, partition and offset. Catches redelivery alone. Does not catch a producer's retry that was stored twice, a message that was
    /// copied (retry topic, mirror, replay), or anything at all where offsets do not last.
    Position,
}

/// An id and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// The id.
    pub id: MessageId,
    /// Where it came from.
    pub origin: Origin,
}

/// The header or field that the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A header; the last one of this name counts.
    Header(Arc<str>),
    /// A field of a JSON content, as a JSON pointer (RFC 6901): `/order/id`. Its value is a string or a whole number. The content is
    /// parsed for it: a header costs less.
    JsonField(Arc<str>),
}

/// The message says that it has an id, but not one that can be used. Falling back to a weaker one would let it through twice.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadIdentity {
    /// What the user named is there, and empty.
    #[error("{0}, which names the message, is empty")]
    Empty(Arc<str>),
    /// What the user named is there, and neither a string nor a whole number.
    #[error("{0}, which names the message, is neither a string nor a whole number")]
    Kind(Arc<str>),
    /// The stamp cannot be read.
    #[error(transparent)]
    Stamp(#[from] BadStamp),
}

/// The id of a delivery: what the user named, else the stamp, else CloudEvents, else its position. What is absent (also: a JSON
/// field that is `null`, or content that is no JSON) makes way for the next; what is there and unusable is an error.
pub fn identify(delivery: &Delivery, named: Option<&Named>) -> Result<Identified, BadIdentity> {
    if let Some(named) = named
        && let Some(value) = named.value(delivery)?
    {
        return Ok(Identified { id: named_id(&value), origin: Origin::Named });
    }
    if let Some(stamp) = Stamp::of(&delivery.headers)? {
        return Ok(Identified { id: stamp.id, origin: Origin::Stamp });
    }
    let header = |name| delivery.headers.last(name).filter(|value| !value.is_empty());
    if let (Some(id), Some(source)) = (header(CLOUD_EVENT_ID_HEADER), header(CLOUD_EVENT_SOURCE_HEADER)) {
        return Ok(Identified { id: made("ce", &[source, id]), origin: Origin::CloudEvent });
    }
    let (partition, offset) = (delivery.from.partition.to_string(), delivery.offset.to_string());
    let id = made("at", &[delivery.from.topic.as_bytes(), partition.as_bytes(), offset.as_bytes()]);
    Ok(Identified { id, origin: Origin::Position })
}

impl Named {
    fn value(&self, delivery: &Delivery) -> Result<Option<Vec<u8>>, BadIdentity> {
        let (name, value) = match self {
            Self::Header(name) => (name, delivery.headers.last(name).map(|value| value.to_vec())),
            Self::JsonField(pointer) => (pointer, json_field(delivery, pointer)?),
        };
        match value {
            Some(value) if value.is_empty() => Err(BadIdentity::Empty(Arc::clone(name))),
            value => Ok(value),
        }
    }
}

fn json_field(delivery: &Delivery, pointer: &Arc<str>) -> Result<Option<Vec<u8>>, BadIdentity> {
    let content =
        delivery.payload.as_deref().and_then(|payload| serde_json::from_slice::<serde_json::Value>(payload).ok());
    match content.as_ref().and_then(|content| content.pointer(pointer)) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(text.clone().into_bytes())),
        Some(serde_json::Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string().into_bytes())),
        Some(_) => Err(BadIdentity::Kind(Arc::clone(pointer))),
    }
}

/// The value itself where it can be an id, so that it is found again in the inbox under the name that the business knows.
fn named_id(value: &[u8]) -> MessageId {
    let plain = std::str::from_utf8(value).ok().and_then(|text| MessageId::new(text).ok());
    plain.unwrap_or_else(|| made("id", &[value]))
}

/// `kind|part|part`, with everything in the parts that no id may hold, and `|` and `%`, as %XX: different parts make different ids. What
/// gets too long for an id becomes `kind~` and the SHA-256 of that text.
fn made(kind: &str, parts: &[&[u8]]) -> MessageId {
    let mut text = String::from(kind);
    for part in parts {
        text.push('|');
        for byte in *part {
            if byte.is_ascii_graphic() && !b";|%".contains(byte) {
                text.push(char::from(*byte));
            } else {
                text.push('%');
                push_hex(&mut text, *byte);
            }
        }
    }
    if text.len() > MESSAGE_ID_BYTES_MAX {
        let hash = Sha256::digest(&text);
        text = format!("{kind}~");
        hash.iter().for_each(|byte| push_hex(&mut text, *byte));
    }
    MessageId::of_checked(text.into())
}

fn push_hex(text: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    text.extend([char::from(HEX[usize::from(byte >> 4)]), char::from(HEX[usize::from(byte & 15)])]);
}

//! Headers as text, so that any program can write them: a JSON object of names and values, in order. A value that is no text stands as
//! `{"base64": "..."}`, an absent one as `null`; a name may stand more than once.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use baton_core::{Header, Headers};
use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;

/// Not headers.
#[derive(Debug, Error)]
pub enum BadHeaders {
    /// It is not JSON, or no object.
    #[error("headers are a JSON object of names and values: {0}")]
    Json(#[from] serde_json::Error),
    /// A value is something else than text, `null` or `{{"base64": ..}}`.
    #[error("the header {0:?} has a value that is neither text nor null nor {{\"base64\": \"..\"}}")]
    Value(String),
}

/// As they are written into the table; nothing if there are none.
pub fn encode_headers(headers: &Headers) -> Option<String> {
    if headers.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(16 + headers.bytes() + 8 * headers.len());
    for Header { name, value } in headers {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(&Value::from(&**name).to_string());
        text.push(':');
        let value = match value {
            None => Value::Null,
            Some(value) => match std::str::from_utf8(value) {
                Ok(value) => Value::from(value),
                Err(_) => serde_json::json!({ "base64": BASE64_STANDARD.encode(value) }),
            },
        };
        text.push_str(&value.to_string());
    }
    text.push('}');
    Some(text)
}

/// Back from what stands in the table.
pub fn decode_headers(text: &str) -> Result<Headers, BadHeaders> {
    let Pairs(pairs) = serde_json::from_str(text)?;
    let mut headers = Headers::with_capacity(pairs.len());
    for (name, value) in pairs {
        let value = match value {
            Value::Null => None,
            Value::String(value) => Some(Bytes::from(value)),
            Value::Object(mut object) => match object.remove("base64") {
                Some(Value::String(encoded)) if object.is_empty() => {
                    let decoded = BASE64_STANDARD.decode(encoded).map_err(|_| BadHeaders::Value(name.clone()))?;
                    Some(Bytes::from(decoded))
                }
                _ => return Err(BadHeaders::Value(name)),
            },
            _ => return Err(BadHeaders::Value(name)),
        };
        headers.push(Arc::<str>::from(name), value);
    }
    Ok(headers)
}

/// An object whose names may stand more than once.
struct Pairs(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of names and values")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

//! Messages as trees, read and written by walking the schema.

use std::fmt::Write as _;
use std::path::Path;

use baton_wire_gen::schema::{Field, Message, Versions, strip_comments};
use bytes::Bytes;
use serde_json::Value as Json;

use super::Random;
use crate::messages::ApiKey;

/// A value of any type; structures hold every field that any served version has.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Uuid([u8; 16]),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Struct(Vec<Value>),
}

/// A schema, to be used for one version.
pub struct Schema {
    pub message: Message,
    pub served: Versions,
    flexible: Versions,
}

impl Schema {
    /// The schema of the API's request or response.
    pub fn load(api_key: ApiKey, direction: &str) -> Self {
        let name = format!("schemas/{}{direction}.json", api_key.name());
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let message: Message = serde_json::from_str(&strip_comments(&text)).unwrap();
        let served = message.served_versions().unwrap();
        let flexible = Versions::parse(&message.flexible_versions).unwrap();
        Self { message, served, flexible }
    }

    pub fn at(&self, version: i16) -> Codec<'_> {
        Codec { schema: self, version, flexible: has(self.flexible, version), unknown_tag: false }
    }
}

fn has(versions: Versions, version: i16) -> bool {
    (versions.first..=versions.last).contains(&version)
}

/// A schema at one version.
pub struct Codec<'a> {
    schema: &'a Schema,
    version: i16,
    flexible: bool,
    /// Whether each structure that is written gets one more tagged field, which no schema has.
    pub unknown_tag: bool,
}

impl Codec<'_> {
    pub fn random_message(&self, random: &mut Random) -> Value {
        self.random_struct(&self.schema.message.fields, random)
    }

    pub fn write_message(&self, value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_struct(&self.schema.message.fields, value, &mut bytes);
        bytes
    }

    pub fn read_message(&self, mut bytes: &[u8]) -> Value {
        let value = self.read_struct(&self.schema.message.fields, &mut bytes);
        assert!(bytes.is_empty(), "bytes are left");
        value
    }

    /// What `{:?}` says of the same message as a structure of this crate.
    pub fn debug_message(&self, value: &Value) -> String {
        let mut out = String::new();
        let is_request = self.schema.message.name.ends_with("Request");
        let debug = Debug { is_request, served: self.schema.served };
        debug.structure(&self.schema.message.name, &self.schema.message.fields, value, self.schema.served, &mut out);
        out
    }

    fn is_present(&self, field: &Field) -> bool {
        has(Versions::parse(&field.versions).unwrap(), self.version)
    }

    fn is_nullable(&self, field: &Field) -> bool {
        field.nullable_versions.as_ref().is_some_and(|text| has(Versions::parse(text).unwrap(), self.version))
    }

    fn random_struct(&self, fields: &[Field], random: &mut Random) -> Value {
        Value::Struct(fields.iter().map(|field| self.random_field(field, random)).collect())
    }

    fn random_field(&self, field: &Field, random: &mut Random) -> Value {
        if !self.is_present(field) || random.below(6) == 0 {
            let default = default(field, self.schema.served);
            if default != Value::Null || !self.is_present(field) || self.is_nullable(field) {
                return default;
            }
        }
        if self.is_nullable(field) && random.below(4) == 0 {
            return Value::Null;
        }
        match field.kind.strip_prefix("[]") {
            Some(item) => Value::Array((0..random.below(4)).map(|_| self.random_value(item, field, random)).collect()),
            None => self.random_value(&field.kind, field, random),
        }
    }

    fn random_value(&self, kind: &str, field: &Field, random: &mut Random) -> Value {
        match kind {
            "bool" => Value::Bool(random.below(2) == 0),
            "int8" => Value::Integer(i64::from(random.next() as i8)),
            "int16" => Value::Integer(i64::from(random.next() as i16)),
            "int32" => Value::Integer(i64::from(random.next() as i32)),
            "int64" => Value::Integer(random.next() as i64),
            "uuid" => Value::Uuid(std::array::from_fn(|_| random.next() as u8)),
            "string" => Value::Text(random.string()),
            "bytes" | "records" => Value::Bytes(random.bytes()),
            _ => self.random_struct(&field.fields, random),
        }
    }

    fn write_struct(&self, fields: &[Field], value: &Value, out: &mut Vec<u8>) {
        let Value::Struct(values) = value else { panic!("{value:?} is no structure") };
        let mut tagged = Vec::new();
        for (field, value) in fields.iter().zip(values).filter(|(field, _)| self.is_present(field)) {
            if let Some(tag) = field.tag {
                if *value != default(field, self.schema.served) {
                    let mut content = Vec::new();
                    self.write_field(field, value, &mut content);
                    tagged.push((tag, content));
                }
            } else {
                self.write_field(field, value, out);
            }
        }
        if self.unknown_tag {
            tagged.push((4000, vec![1, 2, 3]));
        }
        if self.flexible {
            tagged.sort();
            put_varint(tagged.len() as u32, out);
            for (tag, content) in tagged {
                put_varint(tag, out);
                put_varint(content.len() as u32, out);
                out.extend(content);
            }
        }
    }

    fn write_field(&self, field: &Field, value: &Value, out: &mut Vec<u8>) {
        match field.kind.strip_prefix("[]") {
            None => self.write_value(&field.kind, field, value, out),
            Some(_) if *value == Value::Null => self.write_length(None, false, out),
            Some(item) => {
                let Value::Array(items) = value else { panic!("{value:?} is no array") };
                self.write_length(Some(items.len()), false, out);
                items.iter().for_each(|value| self.write_value(item, field, value, out));
            }
        }
    }

    fn write_value(&self, kind: &str, field: &Field, value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Null => self.write_length(None, kind == "string", out),
            Value::Bool(value) => out.push(u8::from(*value)),
            Value::Integer(value) => out.extend(&value.to_be_bytes()[8 - integer_bytes(kind)..]),
            Value::Uuid(value) => out.extend(value),
            Value::Text(value) => {
                self.write_length(Some(value.len()), true, out);
                out.extend(value.as_bytes());
            }
            Value::Bytes(value) => {
                self.write_length(Some(value.len()), false, out);
                out.extend(value);
            }
            Value::Array(_) => panic!("an array within an array"),
            Value::Struct(_) => self.write_struct(&field.fields, value, out),
        }
    }

    fn write_length(&self, length: Option<usize>, is_text: bool, out: &mut Vec<u8>) {
        match (self.flexible, is_text) {
            (true, _) => put_varint(length.map_or(0, |length| length as u32 + 1), out),
            (false, true) => out.extend(length.map_or(-1, |length| length as i16).to_be_bytes()),
            (false, false) => out.extend(length.map_or(-1, |length| length as i32).to_be_bytes()),
        }
    }

    fn read_struct(&self, fields: &[Field], bytes: &mut &[u8]) -> Value {
        let mut values = Vec::new();
        for field in fields {
            let is_here = self.is_present(field) && field.tag.is_none();
            values.push(if is_here { self.read_field(field, bytes) } else { default(field, self.schema.served) });
        }
        let count = if self.flexible { take_varint(bytes) } else { 0 };
        for _ in 0..count {
            let tag = take_varint(bytes);
            let size = take_varint(bytes);
            let mut content = take(bytes, size as usize);
            let at = fields.iter().position(|field| field.tag == Some(tag) && self.is_present(field)).unwrap();
            values[at] = self.read_field(&fields[at], &mut content);
            assert!(content.is_empty(), "bytes are left in a tagged field");
        }
        Value::Struct(values)
    }

    fn read_field(&self, field: &Field, bytes: &mut &[u8]) -> Value {
        let Some(item) = field.kind.strip_prefix("[]") else { return self.read_value(&field.kind, field, bytes) };
        match self.read_length(false, bytes) {
            Some(count) => Value::Array((0..count).map(|_| self.read_value(item, field, bytes)).collect()),
            None => Value::Null,
        }
    }

    fn read_value(&self, kind: &str, field: &Field, bytes: &mut &[u8]) -> Value {
        match kind {
            "bool" => Value::Bool(take(bytes, 1) == [1]),
            "int8" | "int16" | "int32" | "int64" => {
                let raw = take(bytes, integer_bytes(kind));
                let sign = if raw[0] & 0x80 == 0 { 0 } else { 0xff };
                let mut wide = [sign; 8];
                wide[8 - raw.len()..].copy_from_slice(raw);
                Value::Integer(i64::from_be_bytes(wide))
            }
            "uuid" => Value::Uuid(take(bytes, 16).try_into().unwrap()),
            "string" => self
                .read_length(true, bytes)
                .map_or(Value::Null, |length| Value::Text(String::from_utf8(take(bytes, length).to_vec()).unwrap())),
            "bytes" | "records" => {
                self.read_length(false, bytes).map_or(Value::Null, |length| Value::Bytes(take(bytes, length).to_vec()))
            }
            _ => self.read_struct(&field.fields, bytes),
        }
    }

    fn read_length(&self, is_text: bool, bytes: &mut &[u8]) -> Option<usize> {
        match (self.flexible, is_text) {
            (true, _) => (take_varint(bytes) as usize).checked_sub(1),
            (false, true) => usize::try_from(i16::from_be_bytes(take(bytes, 2).try_into().unwrap())).ok(),
            (false, false) => usize::try_from(i32::from_be_bytes(take(bytes, 4).try_into().unwrap())).ok(),
        }
    }
}

fn integer_bytes(kind: &str) -> usize {
    match kind {
        "int8" => 1,
        "int16" => 2,
        "int32" => 4,
        _ => 8,
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn put_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> u32 {
    let mut value = 0;
    for at in 0.. {
        let byte = take(bytes, 1)[0];
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// What a field is when it is absent.
fn default(field: &Field, served: Versions) -> Value {
    let is_optional = is_optional(field, served);
    let text = match &field.default {
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None if is_optional => "null".to_owned(),
        None => String::new(),
    };
    if is_optional {
        assert_eq!(text, "null", "{}", field.name);
        return Value::Null;
    }
    match field.kind.as_str() {
        "bool" => Value::Bool(text == "true"),
        "int8" | "int16" | "int32" | "int64" => Value::Integer(match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).unwrap(),
            None if text.is_empty() => 0,
            None => text.parse().unwrap(),
        }),
        "uuid" => Value::Uuid([0; 16]),
        "string" => Value::Text(text),
        "bytes" => Value::Bytes(Vec::new()),
        kind if kind.starts_with("[]") => Value::Array(Vec::new()),
        _ => Value::Struct(field.fields.iter().map(|field| default(field, served)).collect()),
    }
}

fn is_optional(field: &Field, served: Versions) -> bool {
    let present = Versions::parse(&field.versions).unwrap().intersect(served);
    field.nullable_versions.as_ref().is_some_and(|text| !Versions::parse(text).unwrap().intersect(present).is_empty())
}

/// Writes what derived `Debug` writes.
struct Debug {
    is_request: bool,
    served: Versions,
}

impl Debug {
    fn structure(&self, name: &str, fields: &[Field], value: &Value, context: Versions, out: &mut String) {
        let Value::Struct(values) = value else { panic!("{value:?} is no structure") };
        let mut parts = Vec::new();
        for (field, value) in fields.iter().zip(values) {
            let present = Versions::parse(&field.versions).unwrap().intersect(context);
            if present.is_empty() {
                continue;
            }
            let mut part = format!("{}: ", snake_case(&field.name));
            self.field(field, value, present, &mut part);
            parts.push(part);
        }
        let _ = write!(out, "{name} {{ {} }}", parts.join(", "));
    }

    fn field(&self, field: &Field, value: &Value, context: Versions, out: &mut String) {
        let is_optional = is_optional(field, self.served.intersect(context));
        if *value == Value::Null {
            assert!(is_optional, "{} is null", field.name);
            out.push_str("None");
            return;
        }
        out.push_str(if is_optional { "Some(" } else { "" });
        let kind = field.kind.trim_start_matches("[]");
        match value {
            Value::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    self.value(kind, field, item, context, out);
                }
                out.push(']');
            }
            value => self.value(kind, field, value, context, out),
        }
        out.push_str(if is_optional { ")" } else { "" });
    }

    fn value(&self, kind: &str, field: &Field, value: &Value, context: Versions, out: &mut String) {
        let _ = match value {
            Value::Bool(value) => write!(out, "{value:?}"),
            Value::Integer(value) => write!(out, "{value:?}"),
            Value::Uuid(value) => write!(out, "{value:?}"),
            Value::Text(value) => write!(out, "{value:?}"),
            Value::Bytes(value) if self.is_request => write!(out, "{value:?}"),
            Value::Bytes(value) if kind == "records" => write!(out, "[{:?}]", Bytes::copy_from_slice(value)),
            Value::Bytes(value) => write!(out, "{:?}", Bytes::copy_from_slice(value)),
            Value::Null | Value::Array(_) => panic!("{value:?} is no plain value"),
            Value::Struct(_) => {
                self.structure(kind, &field.fields, value, context, out);
                Ok(())
            }
        };
    }
}

fn snake_case(name: &str) -> String {
    name.chars().enumerate().fold(String::new(), |mut snake, (at, letter)| {
        if letter.is_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
        snake
    })
}

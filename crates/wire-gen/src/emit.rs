//! What requests and responses have in common: fields resolved for the versions served, names, defaults, documentation.

use std::fmt::Write as _;

use serde_json::Value;

use crate::GenerateError;
use crate::schema::{Field, Message, Versions};

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uuid,
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Kind>),
}

impl Kind {
    fn parse(text: &str) -> Result<Self, GenerateError> {
        if let Some(item) = text.strip_prefix("[]") {
            return Ok(Self::Array(Box::new(Self::parse(item)?)));
        }
        Ok(match text {
            "bool" => Self::Bool,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uuid" => Self::Uuid,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            name if name.starts_with(|first: char| first.is_ascii_uppercase()) => Self::Struct(name.to_owned()),
            other => return Err(GenerateError::Kind(other.to_owned())),
        })
    }
}

/// A field as it is in the versions served.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub kind: Kind,
    /// Versions, within those of the enclosing structure, that have the field.
    pub versions: Versions,
    /// Versions, within `versions`, that allow null.
    pub nullable: Versions,
    pub tag: Option<u32>,
    pub default: Option<Value>,
    pub ignorable: bool,
    pub about: String,
}

impl Member {
    pub fn is_optional(&self) -> bool {
        !self.nullable.is_empty()
    }
}

/// A structure with the versions it occurs in.
#[derive(Debug)]
pub struct Structure {
    pub name: String,
    pub versions: Versions,
    pub about: String,
    pub members: Vec<Member>,
    pub flexible: Versions,
}

impl Structure {
    pub fn tagged(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.tag.is_some())
    }
}

/// The message and all nested structures, outermost first.
pub fn structures(message: &Message) -> Result<Vec<Structure>, GenerateError> {
    let versions = message.served_versions()?;
    let flexible = Versions::parse(&message.flexible_versions)?;
    let about = format!("{}, versions {} to {}.", message.name, versions.first, versions.last);
    let mut found = Vec::new();
    collect(&message.name, &about, versions, flexible, &message.fields, &mut found)?;
    Ok(found)
}

fn collect(
    name: &str,
    about: &str,
    versions: Versions,
    flexible: Versions,
    fields: &[Field],
    found: &mut Vec<Structure>,
) -> Result<(), GenerateError> {
    let at = found.len();
    found.push(Structure {
        name: name.to_owned(),
        versions,
        about: about.to_owned(),
        members: Vec::new(),
        flexible: flexible.intersect(versions),
    });
    for field in fields {
        let present = Versions::parse(&field.versions)?.intersect(versions);
        if present.is_empty() {
            continue;
        }
        let nullable = match &field.nullable_versions {
            Some(text) => Versions::parse(text)?.intersect(present),
            None => Versions::NONE,
        };
        if let Some(tagged) = &field.tagged_versions
            && !Versions::parse(tagged)?.contains_all(present)
        {
            return Err(GenerateError::PartlyTagged(field.name.clone()));
        }
        let kind = Kind::parse(&field.kind)?;
        if let Some(nested) = nested_name(&kind) {
            collect(&nested, &field.about, present, flexible, &field.fields, found)?;
        }
        found[at].members.push(Member {
            name: snake_case(&field.name),
            kind,
            versions: present,
            nullable,
            tag: field.tag,
            default: field.default.clone(),
            ignorable: field.ignorable,
            about: field.about.clone(),
        });
    }
    Ok(())
}

fn nested_name(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Struct(name) => Some(name.clone()),
        Kind::Array(item) => nested_name(item),
        _ => None,
    }
}

/// `None` when every version of `outer` is in `inner`; else the condition that says so.
pub fn condition(inner: Versions, outer: Versions) -> Option<String> {
    match (inner.first <= outer.first, inner.last >= outer.last) {
        (true, true) => None,
        (false, true) => Some(format!("version >= {}", inner.first)),
        (true, false) => Some(format!("version <= {}", inner.last)),
        (false, false) => Some(format!("({}..={}).contains(&version)", inner.first, inner.last)),
    }
}

/// A number as the schema gives it: decimal, hexadecimal, or missing (0).
pub fn number(default: Option<&Value>) -> Result<i64, GenerateError> {
    let invalid = || GenerateError::Default(format!("{default:?}"));
    match default {
        None => Ok(0),
        Some(Value::Number(number)) => number.as_i64().ok_or_else(invalid),
        Some(Value::String(text)) => match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).map_err(|_| invalid()),
            None => text.parse().map_err(|_| invalid()),
        },
        Some(_) => Err(invalid()),
    }
}

/// A boolean as the schema gives it, false when missing.
pub fn boolean(default: Option<&Value>) -> bool {
    matches!(default, Some(Value::Bool(true))) || default.and_then(Value::as_str) == Some("true")
}

/// The value of a field that is absent, as a Rust expression. A nullable field without a default of its own is null
/// (Kafka's own classes would make it empty).
pub fn default_value(member: &Member) -> Result<String, GenerateError> {
    if member.is_optional() || member.kind == Kind::Records {
        return Ok("None".to_owned());
    }
    if member.kind != Kind::String && member.default.is_some() && matches!(member.kind, Kind::Array(_) | Kind::Bytes) {
        return Err(GenerateError::Default(member.name.clone()));
    }
    Ok(match &member.kind {
        Kind::Bool => boolean(member.default.as_ref()).to_string(),
        Kind::Int8 | Kind::Int16 | Kind::Int32 | Kind::Int64 => match number(member.default.as_ref())? {
            value if value == i64::from(i32::MAX) => "i32::MAX".to_owned(),
            value if value == i64::from(i32::MIN) => "i32::MIN".to_owned(),
            i64::MAX => "i64::MAX".to_owned(),
            value => value.to_string(),
        },
        Kind::Uuid => "[0; 16]".to_owned(),
        Kind::String if member.default.as_ref().is_some_and(|value| value.as_str() != Some("")) => {
            return Err(GenerateError::Default(member.name.clone()));
        }
        Kind::Struct(name) => format!("{name}::default()"),
        _ => "Default::default()".to_owned(),
    })
}

/// Whether `#[derive(Default)]` gives the schema's defaults.
pub fn defaults_are_trivial(structure: &Structure) -> Result<bool, GenerateError> {
    for member in &structure.members {
        let value = default_value(member)?;
        let trivial = ["None", "false", "0", "[0; 16]", "Default::default()"];
        if !trivial.contains(&value.as_str()) && !matches!(member.kind, Kind::Struct(_)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `impl Default` with the schema's defaults.
pub fn default_impl(structure: &Structure, lifetime: &str, out: &mut String) -> Result<(), GenerateError> {
    let _ = writeln!(out, "impl Default for {}{lifetime} {{\nfn default() -> Self {{\nSelf {{", structure.name);
    for member in &structure.members {
        let _ = writeln!(out, "{}: {},", member.name, default_value(member)?);
    }
    let _ = writeln!(out, "}}\n}}\n}}\n");
    Ok(())
}

/// The schema's description as a doc comment.
pub fn documentation(text: &str, out: &mut String) {
    let text = text.trim().trim_end_matches('.').replace('[', "\\[").replace(']', "\\]").replace('<', "\\<");
    let text = if text.is_empty() { "Not described by the schema".to_owned() } else { text };
    let mut line = "///".to_owned();
    for word in text.split_whitespace() {
        if line.len() + word.len() > 112 {
            let _ = writeln!(out, "{line}");
            line = "///".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}.");
}

/// `TopicData` and `topicData` as `topic_data`.
pub fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

//! Encoders of responses.

use std::fmt::Write as _;

use crate::GenerateError;
use crate::emit::{self, Kind, Member, Structure};
use crate::schema::Message;

/// The module of one response.
pub fn module(message: &Message) -> Result<String, GenerateError> {
    let structures = emit::structures(message)?;
    let mut out = String::new();
    for structure in &structures {
        declaration(structure, &mut out)?;
        encode(structure, &mut out)?;
        sample(structure, &mut out)?;
    }
    let key = message.name.trim_end_matches("Response");
    let _ = writeln!(out, "impl Response for {} {{\nconst API_KEY: ApiKey = ApiKey::{key};\n}}", message.name);
    let bytes = if out.contains("Bytes") { "use bytes::Bytes;\n\n" } else { "" };
    let head = "use crate::encode::{Encode, Response, Writer};\nuse crate::messages::ApiKey;\n\
                #[cfg(test)]\nuse crate::schema_tests::{Random, Sample};\n\n";
    Ok(format!("{bytes}{head}{out}"))
}

fn rust_type(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "bool".to_owned(),
        Kind::Int8 => "i8".to_owned(),
        Kind::Int16 => "i16".to_owned(),
        Kind::Int32 => "i32".to_owned(),
        Kind::Int64 => "i64".to_owned(),
        Kind::Uuid => "[u8; 16]".to_owned(),
        Kind::String => "String".to_owned(),
        Kind::Bytes => "Bytes".to_owned(),
        Kind::Records => "Vec<Bytes>".to_owned(),
        Kind::Struct(name) => name.clone(),
        Kind::Array(item) => format!("Vec<{}>", rust_type(item)),
    }
}

fn declaration(structure: &Structure, out: &mut String) -> Result<(), GenerateError> {
    emit::documentation(&structure.about, out);
    let trivial = emit::defaults_are_trivial(structure)?;
    let default = if trivial { ", Default" } else { "" };
    let _ = writeln!(out, "#[derive(Debug, Clone, PartialEq, Eq{default})]\npub struct {} {{", structure.name);
    for member in &structure.members {
        emit::documentation(&member.about, out);
        let plain = rust_type(&member.kind);
        if member.is_optional() {
            let _ = writeln!(out, "pub {}: Option<{plain}>,", member.name);
        } else {
            let _ = writeln!(out, "pub {}: {plain},", member.name);
        }
    }
    let _ = writeln!(out, "}}\n");
    if !trivial {
        emit::default_impl(structure, "", out)?;
    }
    Ok(())
}

fn encode(structure: &Structure, out: &mut String) -> Result<(), GenerateError> {
    let mut body = String::new();
    for member in structure.members.iter().filter(|member| member.tag.is_none()) {
        let write = write_statement(member, "writer");
        match emit::condition(member.versions, structure.versions) {
            None => body.push_str(&write),
            Some(condition) if member.ignorable => {
                let _ = write!(body, "if {condition} {{\n{write}}}\n");
            }
            Some(condition) => {
                let unset = unset_condition(member)?;
                let _ = write!(
                    body,
                    "if {condition} {{\n{write}}} else {{\ndebug_assert!({unset}, \"version {{version}} has no {}\");\n}}\n",
                    member.name
                );
            }
        }
    }
    let tagged: Vec<&Member> = structure.tagged().collect();
    if tagged.is_empty() {
        body.push_str("writer.no_tagged_fields();\n");
    } else {
        tagged_fields(structure, tagged, &mut body)?;
    }
    let version = if body.contains("version >") || body.contains("version <") || body.contains("&version") {
        "let version = writer.version;\n"
    } else {
        ""
    };
    let name = &structure.name;
    let _ =
        writeln!(out, "impl Encode for {name} {{\nfn encode(&self, writer: &mut Writer) {{\n{version}{body}}}\n}}\n");
    Ok(())
}

fn tagged_fields(structure: &Structure, mut tagged: Vec<&Member>, body: &mut String) -> Result<(), GenerateError> {
    tagged.sort_by_key(|member| member.tag);
    body.push_str("if writer.flexible {\n");
    let mut present = Vec::new();
    for member in &tagged {
        let set = format!("!({})", unset_condition(member)?);
        let set = simplify(&set);
        let flag = format!("has_{}", member.name);
        match emit::condition(member.versions, structure.flexible) {
            None => writeln!(body, "let {flag} = {set};"),
            Some(condition) => writeln!(body, "let {flag} = {condition} && {set};"),
        }
        .map_err(|_| GenerateError::Kind(member.name.clone()))?;
        present.push(format!("u32::from({flag})"));
    }
    let _ = writeln!(body, "writer.unsigned_varint({});", present.join(" + "));
    for member in &tagged {
        let _ = writeln!(
            body,
            "if has_{} {{\nwriter.tagged_field({}, |writer| {{ {} }});\n}}",
            member.name,
            member.tag.unwrap_or_default(),
            write_statement(member, "writer")
        );
    }
    body.push_str("}\n");
    Ok(())
}

/// `!(a == b)` as `a != b`, `!(x.is_empty())` as `!x.is_empty()`.
fn simplify(condition: &str) -> String {
    let inner = condition.trim_start_matches("!(").strip_suffix(')').unwrap_or(condition);
    if let Some((left, right)) = inner.split_once(" == ") {
        return format!("{left} != {right}");
    }
    match inner.strip_prefix('!') {
        Some(positive) => positive.to_owned(),
        None => format!("!{inner}"),
    }
}

/// The condition that a field holds its default.
fn unset_condition(member: &Member) -> Result<String, GenerateError> {
    let name = &member.name;
    if member.is_optional() {
        return Ok(format!("self.{name}.is_none()"));
    }
    Ok(match &member.kind {
        Kind::String | Kind::Bytes | Kind::Array(_) => format!("self.{name}.is_empty()"),
        Kind::Bool if emit::boolean(member.default.as_ref()) => format!("self.{name}"),
        Kind::Bool => format!("!self.{name}"),
        _ => format!("self.{name} == {}", emit::default_value(member)?),
    })
}

fn write_statement(member: &Member, writer: &str) -> String {
    let name = &member.name;
    let (plain, borrow) = match &member.kind {
        Kind::String => ("string", "as_deref"),
        Kind::Bytes => ("byte_string", "as_ref"),
        Kind::Records => ("records", "as_deref"),
        Kind::Array(_) => ("array", "as_deref"),
        _ => return format!("self.{name}.encode({writer});\n"),
    };
    if !member.is_optional() {
        return format!("{writer}.{plain}(&self.{name});\n");
    }
    let nullable = format!("{writer}.nullable_{plain}(self.{name}.{borrow}());\n");
    match emit::condition(member.nullable, member.versions) {
        None => nullable,
        Some(condition) => format!(
            "if {condition} {{\n{nullable}}} else {{\n{writer}.{plain}(self.{name}.{borrow}().unwrap_or_default());\n}}\n"
        ),
    }
}

/// A random value for the tests of this crate, with nothing set that the version lacks.
fn sample(structure: &Structure, out: &mut String) -> Result<(), GenerateError> {
    let mut body = String::new();
    for member in &structure.members {
        let plain = match &member.kind {
            // Chunks cannot be told apart on the wire, so that only a single one can be compared.
            Kind::Records => "Some(vec![Sample::sample(random, version)])",
            _ => "Sample::sample(random, version)",
        };
        let value = match emit::condition(member.nullable, member.versions) {
            Some(condition) if member.is_optional() => {
                format!("if {condition} {{ {plain} }} else {{ Some({plain}) }}")
            }
            _ => plain.to_owned(),
        };
        let value = match emit::condition(member.versions, structure.versions) {
            None => value,
            Some(condition) => {
                format!("if {condition} {{ {value} }} else {{ {} }}", emit::default_value(member)?)
            }
        };
        let _ = writeln!(body, "{}: {value},", member.name);
    }
    let _ = writeln!(
        out,
        "#[cfg(test)]\nimpl Sample for {} {{\nfn sample(random: &mut Random, version: i16) -> Self {{\nSelf {{\n{body}}}\n}}\n}}\n",
        structure.name
    );
    Ok(())
}

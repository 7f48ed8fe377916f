//! Decoders of requests.

use std::fmt::Write as _;

use crate::GenerateError;
use crate::emit::{self, Kind, Member, Structure};
use crate::schema::Message;

/// The module of one request.
pub fn module(message: &Message) -> Result<String, GenerateError> {
    let structures = emit::structures(message)?;
    let mut out = String::new();
    for structure in &structures {
        declaration(structure, &structures, &mut out)?;
        decode(structure, &structures, &mut out)?;
    }
    let top = &structures[0];
    let flexible = top.flexible.first;
    let (first, last) = (top.versions.first, top.versions.last);
    let key = message.name.trim_end_matches("Request");
    let is_flexible = if top.flexible.is_empty() { "false".to_owned() } else { format!("version >= {flexible}") };
    let (parameter, returned) = if borrows(top, &structures) { ("<'a>", "&'a [u8]") } else { ("", "&[u8]") };
    let _ = write!(
        out,
        "impl{parameter} {name}{parameter} {{
/// Reads a whole request body (what follows the request header). Bytes behind it are passed over, as Apache Kafka does:
/// librdkafka sends some behind a `Metadata` request for all topics.
///
/// # Errors
/// When the version is not served, or the bytes do not begin with a request of that version.
pub fn decode_request(bytes: {returned}, version: i16) -> Result<Self, DecodeError> {{
if !({first}..={last}).contains(&version) {{
return Err(DecodeError::UnsupportedVersion {{ api_key: ApiKey::{key}, version }});
}}
let mut reader = Reader::new(bytes, version, {is_flexible});
Self::decode(&mut reader)
}}
}}
",
        name = message.name,
    );
    let mut head = format!(
        "use crate::decode::{{{}Decode, DecodeError, Reader}};\n",
        if out.contains("Array<") { "Array, " } else { "" }
    );
    head.push_str("use crate::messages::ApiKey;\n\n");
    Ok(head + &out)
}

fn anonymous(borrows: bool) -> &'static str {
    if borrows { "<'_>" } else { "" }
}

fn named(borrows: bool) -> &'static str {
    if borrows { "<'a>" } else { "" }
}

/// Whether a structure holds anything that lies in the request's bytes.
fn borrows(structure: &Structure, all: &[Structure]) -> bool {
    structure.members.iter().any(|member| match &member.kind {
        Kind::String | Kind::Bytes | Kind::Records | Kind::Array(_) => true,
        Kind::Struct(name) => struct_borrows(name, all),
        _ => false,
    })
}

fn struct_borrows(name: &str, all: &[Structure]) -> bool {
    all.iter().find(|structure| structure.name == name).is_some_and(|structure| borrows(structure, all))
}

fn rust_type(kind: &Kind, all: &[Structure]) -> String {
    match kind {
        Kind::Bool => "bool".to_owned(),
        Kind::Int8 => "i8".to_owned(),
        Kind::Int16 => "i16".to_owned(),
        Kind::Int32 => "i32".to_owned(),
        Kind::Int64 => "i64".to_owned(),
        Kind::Uuid => "[u8; 16]".to_owned(),
        Kind::String => "&'a str".to_owned(),
        Kind::Bytes | Kind::Records => "&'a [u8]".to_owned(),
        Kind::Struct(name) => format!("{name}{}", named(struct_borrows(name, all))),
        Kind::Array(item) => format!("Array<'a, {}>", rust_type(item, all)),
    }
}

fn declaration(structure: &Structure, all: &[Structure], out: &mut String) -> Result<(), GenerateError> {
    let borrows = borrows(structure, all);
    emit::documentation(&structure.about, out);
    let trivial = emit::defaults_are_trivial(structure)?;
    let default = if trivial { ", Default" } else { "" };
    let _ = writeln!(out, "#[derive(Debug, Clone, Copy, PartialEq, Eq{default})]");
    let _ = writeln!(out, "pub struct {}{} {{", structure.name, named(borrows));
    for member in &structure.members {
        emit::documentation(&member.about, out);
        let plain = rust_type(&member.kind, all);
        if member.is_optional() {
            let _ = writeln!(out, "pub {}: Option<{plain}>,", member.name);
        } else {
            let _ = writeln!(out, "pub {}: {plain},", member.name);
        }
    }
    let _ = writeln!(out, "}}\n");
    if !trivial {
        emit::default_impl(structure, anonymous(borrows), out)?;
    }
    Ok(())
}

fn decode(structure: &Structure, all: &[Structure], out: &mut String) -> Result<(), GenerateError> {
    let name = &structure.name;
    let header = if borrows(structure, all) {
        format!("impl<'a> Decode<'a> for {name}<'a> {{\nfn decode(reader: &mut Reader<'a>)")
    } else {
        format!("impl Decode<'_> for {name} {{\nfn decode(reader: &mut Reader<'_>)")
    };
    let mut body = String::new();
    for member in &structure.members {
        let value =
            if member.tag.is_some() { emit::default_value(member)? } else { present_or_default(structure, member)? };
        let _ = writeln!(body, "{}: {value},", member.name);
    }
    let tagged: Vec<&Member> = structure.tagged().collect();
    let version = if body.contains("version") { "let version = reader.version;\n" } else { "" };
    let mutable = if tagged.is_empty() { "" } else { "mut " };
    let _ = writeln!(out, "{header} -> Result<Self, DecodeError> {{\n{version}let {mutable}value = Self {{\n{body}}};");
    if tagged.is_empty() {
        let _ = writeln!(out, "reader.skip_tagged_fields()?;");
    } else {
        let _ = writeln!(
            out,
            "for _ in 0..reader.tagged_field_count()? {{\nlet (tag, mut field) = reader.tagged_field()?;\nmatch tag {{"
        );
        for member in tagged {
            let tag = member.tag.unwrap_or_default();
            let mut read = read_expression(member, "field");
            if let Some(condition) = emit::condition(member.versions, structure.flexible) {
                let _ = writeln!(out, "{tag} if field.{condition} => value.{} = {read},", member.name);
            } else {
                read.push(',');
                let _ = writeln!(out, "{tag} => value.{} = {read}", member.name);
            }
        }
        let _ = writeln!(out, "_ => continue,\n}}\nfield.finish()?;\n}}");
    }
    let _ = writeln!(out, "Ok(value)\n}}\n}}\n");
    Ok(())
}

fn present_or_default(structure: &Structure, member: &Member) -> Result<String, GenerateError> {
    let read = read_expression(member, "reader");
    Ok(match emit::condition(member.versions, structure.versions) {
        None => read,
        Some(condition) => format!("if {condition} {{ {read} }} else {{ {} }}", emit::default_value(member)?),
    })
}

fn read_expression(member: &Member, reader: &str) -> String {
    let plain = match &member.kind {
        Kind::String => "string",
        Kind::Bytes | Kind::Records => "byte_string",
        Kind::Array(_) => "array",
        _ => return format!("Decode::decode({})?", if reader == "reader" { "reader" } else { "&mut field" }),
    };
    if !member.is_optional() {
        return format!("{reader}.{plain}()?");
    }
    match emit::condition(member.nullable, member.versions) {
        None => format!("{reader}.nullable_{plain}()?"),
        Some(condition) => {
            format!("if {condition} {{ {reader}.nullable_{plain}()? }} else {{ Some({reader}.{plain}()?) }}")
        }
    }
}

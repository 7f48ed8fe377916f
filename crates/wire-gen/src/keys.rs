//! The `ApiKey` enumeration.

use std::fmt::Write as _;

use crate::GenerateError;
use crate::schema::{Key, Message, Versions};

/// The module with `ApiKey`; `served` are the requests that have a decoder.
pub fn module(keys: &[Key], served: &[Message]) -> Result<String, GenerateError> {
    let mut out = String::from(
        "use std::ops::RangeInclusive;\n\n\
         /// What a request asks for: all the APIs of Apache Kafka, most of which are not served.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    for key in keys {
        let _ = writeln!(out, "/// `{}`\n{} = {},", key.name, key.name, key.api_key);
    }
    out.push_str(
        "}\n\nimpl ApiKey {\n/// All keys, in the order of their numbers.\npub const ALL: &'static [Self] = &[\n",
    );
    for key in keys {
        let _ = writeln!(out, "Self::{},", key.name);
    }
    out.push_str(
        "];\n\n/// The name in Kafka's documentation.\npub fn name(self) -> &'static str {\nself.facts().0\n}\n\n\
         /// The first version with compact lengths and tagged fields; `None` when no version has them.\n\
         pub fn first_flexible_version(self) -> Option<i16> {\nself.facts().1\n}\n\n\
         fn facts(self) -> (&'static str, Option<i16>) {\n\
         // The numbers have no gaps, so that a number is also a position.\nFACTS[self as usize]\n}\n\n\
         /// The versions that this crate decodes and encodes; `None` for an API that it has no schema of.\n\
         pub fn schema_versions(self) -> Option<RangeInclusive<i16>> {\nmatch self {\n",
    );
    for message in served {
        let versions = message.served_versions()?;
        let name = message.name.trim_end_matches("Request");
        let _ = writeln!(out, "Self::{name} => Some({}..={}),", versions.first, versions.last);
    }
    let _ = writeln!(out, "_ => None,\n}}\n}}\n}}\n\nconst FACTS: [(&str, Option<i16>); {}] = [", keys.len());
    for (number, key) in keys.iter().enumerate() {
        if usize::try_from(key.api_key) != Ok(number) {
            return Err(GenerateError::KeyGap(key.name.clone()));
        }
        let flexible = Versions::parse(&key.flexible_versions)?;
        let first = (!flexible.is_empty()).then_some(flexible.first);
        let _ = writeln!(out, "(\"{}\", {first:?}),", key.name);
    }
    out.push_str("];\n");
    Ok(out)
}

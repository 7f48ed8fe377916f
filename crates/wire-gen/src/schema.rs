//! The parts of a message schema that the generator needs.

use serde::Deserialize;
use serde_json::Value;

use crate::GenerateError;

/// An inclusive range of versions; `last` of "3+" is `i16::MAX`, and "none" is an empty range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first version.
    pub first: i16,
    /// The last version.
    pub last: i16,
}

impl Versions {
    /// No version.
    pub const NONE: Self = Self { first: 0, last: -1 };

    /// Reads "3", "3-5", "3+" or "none".
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, GenerateError> {
        let number = |digits: &str| digits.parse::<i16>().map_err(|_| GenerateError::Versions(text.to_owned()));
        if text == "none" {
            return Ok(Self::NONE);
        }
        if let Some(first) = text.strip_suffix('+') {
            return Ok(Self { first: number(first)?, last: i16::MAX });
        }
        match text.split_once('-') {
            Some((first, last)) => Ok(Self { first: number(first)?, last: number(last)? }),
            None => Ok(Self { first: number(text)?, last: number(text)? }),
        }
    }

    /// Whether it is no version.
    pub fn is_empty(self) -> bool {
        self.first > self.last
    }

    /// The versions in both.
    pub fn intersect(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    /// Whether all versions of `other` are among these.
    pub fn contains_all(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// One request or response.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Number of the API.
    pub api_key: i16,
    /// Name in the schema.
    pub name: String,
    /// All versions.
    pub valid_versions: String,
    /// Versions with compact lengths and tagged fields.
    pub flexible_versions: String,
    /// Whether the last version may still change.
    #[serde(default)]
    pub latest_version_unstable: bool,
    /// The fields, in the order of the wire.
    pub fields: Vec<Field>,
}

/// One field of a message or of a nested structure.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Name in the schema.
    pub name: String,
    /// Type in the schema's words.
    #[serde(rename = "type")]
    pub kind: String,
    /// Versions that have the field.
    pub versions: String,
    /// Versions that allow null.
    #[serde(default)]
    pub nullable_versions: Option<String>,
    /// Versions in which it is a tagged field.
    #[serde(default)]
    pub tagged_versions: Option<String>,
    /// Its tag.
    #[serde(default)]
    pub tag: Option<u32>,
    /// What it is when absent.
    #[serde(default)]
    pub default: Option<Value>,
    /// Whether a value may be dropped for a version that lacks the field.
    #[serde(default)]
    pub ignorable: bool,
    /// Description.
    #[serde(default)]
    pub about: String,
    /// The fields, in the order of the wire.
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// One line of `api-keys.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Number of the API.
    pub api_key: i16,
    /// Name in the schema.
    pub name: String,
    /// Versions with compact lengths and tagged fields.
    pub flexible_versions: String,
}

impl Message {
    /// The versions that are served; a version that Kafka itself calls unstable is not.
    ///
    /// # Errors
    /// When the range cannot be read.
    pub fn served_versions(&self) -> Result<Versions, GenerateError> {
        let mut versions = Versions::parse(&self.valid_versions)?;
        if self.latest_version_unstable {
            versions.last -= 1;
        }
        Ok(versions)
    }
}

/// Schemas are JSON with comment lines.
pub fn strip_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

//! What follows from an API's number and version.

use std::ops::RangeInclusive;

use crate::messages::ApiKey;

impl ApiKey {
    /// Whether the version has compact lengths and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        self.first_flexible_version().is_some_and(|first| version >= first)
    }

    /// The version of the header before a request of `version`: 1, or 2 when it is flexible.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the header before a response of `version`: 0, or 1 when it is flexible. Always 0 for
    /// `ApiVersions`, because a client must be able to read it before it knows the broker.
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self != Self::ApiVersions && self.is_flexible(version))
    }

    /// The versions to tell clients of; `None` for an API that has no schema here.
    ///
    /// They are those of the schema, with one exception: librdkafka compresses only for a broker that claims to know
    /// version 0 of `Produce`. Apache Kafka claims it too, and refuses such requests.
    pub fn advertised_versions(self) -> Option<RangeInclusive<i16>> {
        let versions = self.schema_versions()?;
        Some(if self == Self::Produce { 0..=*versions.end() } else { versions })
    }

    /// The API with this number.
    pub fn from_number(number: i16) -> Option<Self> {
        // The numbers have no gaps, so that a number is also a position.
        usize::try_from(number).ok().and_then(|at| Self::ALL.get(at).copied())
    }
}

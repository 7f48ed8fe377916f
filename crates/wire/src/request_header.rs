//! What comes before each request.

use crate::decode::{Decode, DecodeError, Reader};
use crate::messages::ApiKey;

/// The header of a request, version 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// What is asked for.
    pub api_key: ApiKey,
    /// The version of the request and of its response; not checked yet.
    pub api_version: i16,
    /// Number that the response repeats.
    pub correlation_id: i32,
    /// Name that the client gives itself.
    pub client_id: Option<&'a str>,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header at the front of a request (without its length prefix), and returns it with the body.
    ///
    /// The version of the header follows from key and version of the request. A version that nobody knows is taken
    /// for a flexible one: so an `ApiVersions` request from the future can still be answered.
    ///
    /// # Errors
    /// When the key is unknown to Kafka, or the bytes are no header.
    pub fn decode(request: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut reader = Reader::new(request, 1, false);
        let number = i16::decode(&mut reader)?;
        let api_key = ApiKey::from_number(number).ok_or(DecodeError::UnknownApiKey(number))?;
        let api_version = i16::decode(&mut reader)?;
        let correlation_id = i32::decode(&mut reader)?;
        // The client id keeps its 16-bit length even in the flexible header.
        let client_id = reader.nullable_string()?;
        reader.version = api_key.request_header_version(api_version);
        reader.flexible = reader.version == 2;
        reader.skip_tagged_fields()?;
        Ok((Self { api_key, api_version, correlation_id, client_id }, reader.bytes))
    }
}

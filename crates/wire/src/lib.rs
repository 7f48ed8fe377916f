//! The Kafka protocol without I/O: messages, framing and record batches.
//!
//! Requests are decoded into structures that borrow from the bytes received and allocate nothing, whatever those bytes
//! say; responses are encoded into a chain of buffers into which stored batches are spliced without a copy.

mod api_key;
pub mod decode;
pub mod encode;
mod error_code;
pub mod messages;
pub mod records;
mod request_header;
#[cfg(test)]
mod schema_tests;

pub use decode::{DecodeError, STRING_BYTES_MAX};
pub use encode::encode_response;
pub use error_code::ErrorCode;
pub use messages::ApiKey;
pub use request_header::RequestHeader;

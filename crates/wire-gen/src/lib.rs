//! Makes `crates/wire/src/messages/*.rs` out of the Kafka message schemas in `crates/wire/schemas/`.
//!
//! Requests get decoders that borrow from the request's bytes, responses get encoders; nobody needs the other
//! direction, because the broker is the only user. Run it with `cargo run -p baton-wire-gen`.

mod emit;
mod keys;
mod output;
mod request;
mod response;
pub mod schema;

pub use output::{GenerateError, generate, write};

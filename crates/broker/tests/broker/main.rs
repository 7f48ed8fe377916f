//! What a client sees of a broker, over real connections, with another implementation of the protocol at the client's end.

// What a test helper cannot do is a failure of the test.
#![allow(clippy::expect_used)]

mod administration;
mod durability;
mod groups;
mod idempotence;
mod metrics;
mod produce_and_fetch;
mod settings;
mod support;
mod versions;

//! What Baton asks of a message engine, the engines, and the suite that all of them pass.
//!
//! An engine is a module behind [`Engine`]. What the documentation of the trait says is the contract; the suite in
//! `conformance` tests each sentence of it. What an engine cannot do it says in its [`Capabilities`]; it is never emulated badly.

mod address;
mod answer;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
mod kept;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;

pub use address::connect;
pub use answer::{Answer, Answers, SendOutcome};
pub use contract::*;
pub use kept::{LARGE_RECORD_BYTES_MAX, create_kept, create_large, large_producer};

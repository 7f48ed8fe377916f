//! What Baton asks of a message engine, the engines, and the suite that all of them pass.
//!
//! An engine is a module behind [`Engine`]. What the documentation of the trait says is the contract; the suite in
//! `conformance` tests each sentence of it. What an engine cannot do it says in its [`Capabilities`]; it is never emulated badly.

mod contract;

pub use contract::*;

//! Consumer groups: membership, assignment and committed offsets.

pub mod core;
pub mod format;
pub(crate) mod limits;
pub mod service;

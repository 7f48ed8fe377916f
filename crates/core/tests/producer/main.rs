//! What producers rest on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod evidence;
mod identity;
mod ids;
mod partitioner;
mod ranges;
mod retry;
mod send;
mod sequences;
mod spool;
mod stamp;
mod trace;

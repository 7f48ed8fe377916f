//! Consumers, against the embedded broker in this process and guards on SQLite: nothing is pretended, except where a test takes
//! something away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

mod batches;
mod calling;
mod effects;
mod evidence;
mod failures;
mod guards;
mod handing_over;
mod letters;
mod levels;
mod limits;
mod parking;
mod servers;
mod stalls;
mod stopping;
mod store_first;
mod stores;
mod watched;
mod world;

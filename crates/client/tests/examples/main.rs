//! The examples, run as a newcomer runs them: as programs, on real databases and engines, killed on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of test functions")]

mod orders_to_beans;
mod program;
mod sending;

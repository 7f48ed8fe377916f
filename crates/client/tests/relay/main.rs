//! Relays between real databases and the broker of this project: what reaches the topic is read back and judged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../../../outbox/tests/outbox/database.rs"]
#[allow(dead_code)]
mod database;
mod rules;
#[allow(dead_code)]
#[path = "../producer/support.rs"]
mod support;
mod topic;

//! The rules that every store of an outbox keeps, on real databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod database;
mod finding;
mod leases;
mod sqlite;
mod traffic;
mod writing;

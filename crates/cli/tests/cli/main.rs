//! The binary as people and service managers use it: what it prints, how it exits, what signals do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

mod binary;
mod dead;
mod dead_rabbitmq;
mod demo;
mod languages;
mod letters;
mod messages;
mod relay;
mod running;

//! The rules of the consumer's decisions, each with its name, and a simulator that tries all of them together.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod batches;
mod driver;
mod evidence;
mod failures;
mod limits;
mod order;
mod parking;
mod rebalance;
mod settling;
mod simulation;
mod speed;
mod watchdog;

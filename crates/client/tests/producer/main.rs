//! Producers on the embedded broker, which runs in this process; links to it are cut where a test says so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod buffer;
mod closing;
mod connecting;
mod evidence;
mod forms;
mod outages;
mod receipts;
mod refusals;
mod refusing;
mod spool;
mod support;

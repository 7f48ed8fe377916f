//! A broker of its own for each test, and clients that speak with another implementation of the protocol.

// Each test target uses what it needs.
#![allow(dead_code)]

pub mod batches;
pub mod client;
pub mod gated_disk;
pub mod requests;
pub mod server;
pub mod works;

use std::time::{Duration, Instant};

/// Longer than anything here takes, even on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! What a relay decides: claims, windows, shares, and histories of several relays over one outbox.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod claims;
mod shares;
mod simulation;
mod window;

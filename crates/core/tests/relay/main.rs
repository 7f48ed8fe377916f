//! What a relay decides: claims, windows, shares, and histories of several relays over one outbox.

mod claims;
mod shares;
mod simulation;
mod window;

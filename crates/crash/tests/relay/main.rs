//! The crash test of the outbox in its short form (`relay run --rounds 300` is the long one), and the proof that the checker behind its verdict
//! finds what it is there to find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test program")]

mod checker;
mod runs;

use std::path::PathBuf;

use baton_crash::Places;

fn places() -> Places {
    Places::find(PathBuf::from(env!("CARGO_BIN_EXE_relay"))).unwrap()
}

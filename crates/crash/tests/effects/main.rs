//! The crash test in its short form (`effects run --kills 300` is the long one), and the proof that the checker behind its verdict
//! finds what it is there to find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test program")]

mod checker;
mod driver;
mod runs;

use std::path::PathBuf;

use baton_crash::Places;

fn places() -> Places {
    Places::find(PathBuf::from(env!("CARGO_BIN_EXE_effects"))).unwrap()
}

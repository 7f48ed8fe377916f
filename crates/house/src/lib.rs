//! Checks of the project's own rules, run as tests: see `tests/house/`. Nothing depends on this crate.

//! What producers rest on.

mod ranges;

//! Every message in every version, with random content, against its schema and against another implementation.
//!
//! [`value`] reads the schemas by itself, without the generator's idea of what code to make of them.

mod random;
mod requests;
mod responses;
mod value;

pub use random::{Random, Sample};

/// Random messages that are tried of each version.
const SAMPLES: u64 = 40;

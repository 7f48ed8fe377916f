//! Bytes made to break a decoder. The fuzz targets use `any_request` and `any_batch` too.
// Clippy knows tests by their attribute only; helpers of tests may panic too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod any_batch;
mod any_request;
mod batches;
mod requests;

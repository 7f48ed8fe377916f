//! Record batches, format v2: the header that the broker reads and the checks that it makes before it stores one.

mod build;
mod codec;
mod error;
mod header;
mod read;
mod rewrite;
mod snappy;
mod validate;
mod varint;
mod walk;

pub use build::{BatchBuilder, NewRecord, compress};
pub use codec::Codec;
pub use error::{BatchError, RecordFault};
pub use header::{BATCH_HEADER_BYTES, BatchHeader, HeaderError};
pub use read::{Record, RecordIterator, Records, first_record_at_or_after, max_timestamp_record};
pub use rewrite::{set_log_append_time, set_max_timestamp};
pub use validate::{
    BatchLimits, DECOMPRESSED_BYTES_MAX, NO_TIMESTAMP, TimestampType, ValidBatch, single_batch, split_batches,
    validate_batch,
};

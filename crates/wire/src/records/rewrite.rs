//! The few changes that a broker makes to a batch before it stores it.

use super::header::{BATCH_HEADER_BYTES, BatchHeader};

/// Where the fields are that are changed.
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;
/// The bit of the attributes that says that timestamps come from the broker.
const LOG_APPEND_TIME_BIT: u8 = 1 << 3;

/// Makes `timestamp_ms` (milliseconds since 1970) the timestamp of all records: the time at which the broker appended
/// them. Nothing happens to bytes that are shorter than a batch header.
pub fn set_log_append_time(batch: &mut [u8], timestamp_ms: i64) {
    if batch.len() < BATCH_HEADER_BYTES {
        return;
    }
    // Attributes are big-endian; the bit is in the second byte.
    batch[ATTRIBUTES_AT + 1] |= LOG_APPEND_TIME_BIT;
    set_max_timestamp(batch, timestamp_ms);
}

/// Corrects the largest timestamp (milliseconds since 1970) in the header. Nothing happens to bytes that are shorter
/// than a batch header.
pub fn set_max_timestamp(batch: &mut [u8], timestamp_ms: i64) {
    if batch.len() < BATCH_HEADER_BYTES {
        return;
    }
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&timestamp_ms.to_be_bytes());
    let crc = BatchHeader::compute_checksum(batch);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

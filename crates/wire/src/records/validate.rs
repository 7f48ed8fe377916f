//! What a batch must be before it may be stored: the checks that Apache Kafka's broker makes when it appends.

use std::ops::ControlFlow;

use super::codec::Codec;
use super::error::BatchError;
use super::header::{BatchHeader, HeaderError};
use super::walk::{RecordHead, walk};

/// Decompressed bytes of one batch that are looked at by default; a bomb is refused there.
pub const DECOMPRESSED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// Where the timestamps of a topic come from (`message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// From the producer.
    #[default]
    CreateTime,
    /// From the broker, when it appends.
    LogAppendTime,
}

/// What a topic accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of a batch as it is sent (`max.message.bytes`, 1,048,588).
    pub batch_bytes_max: usize,
    /// Bytes of its records when decompressed ([`DECOMPRESSED_BYTES_MAX`]).
    pub decompressed_bytes_max: u64,
    /// The time, in milliseconds since 1970 (0; set it before each use).
    pub now_ms: i64,
    /// How old a timestamp may be, in milliseconds (`message.timestamp.before.max.ms`, no limit).
    pub timestamp_before_max_ms: i64,
    /// How far in the future it may be, in milliseconds (`message.timestamp.after.max.ms`, one hour).
    pub timestamp_after_max_ms: i64,
    /// Where timestamps come from; when from the broker, the limits above do not count (`message.timestamp.type`).
    pub timestamp_type: TimestampType,
    /// Whether zstd is allowed: from version 7 of `Produce` on (true).
    pub zstd_allowed: bool,
    /// Whether every record needs a key, because the topic is compacted by key (false).
    pub key_required: bool,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            batch_bytes_max: 1024 * 1024 + 12,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            now_ms: 0,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 60 * 60 * 1000,
            timestamp_type: TimestampType::CreateTime,
            zstd_allowed: true,
            key_required: false,
        }
    }
}

/// A batch that may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidBatch {
    /// Its header, as sent.
    pub header: BatchHeader,
    /// The largest timestamp of its records, in milliseconds since 1970. The header may say something else: Kafka
    /// does not refuse that but corrects it, see [`Self::max_timestamp_is_wrong`].
    pub max_timestamp: i64,
}

impl ValidBatch {
    /// Whether the header must be corrected by [`super::set_max_timestamp`] before the batch is stored.
    pub fn max_timestamp_is_wrong(&self) -> bool {
        self.header.max_timestamp != self.max_timestamp
    }
}

/// The one batch that the records of a partition in a `Produce` request hold.
///
/// # Errors
/// When there is none, or something follows it, or its header is impossible.
pub fn single_batch(records: Option<&[u8]>) -> Result<&[u8], BatchError> {
    let records = records.unwrap_or_default();
    let batch = split_batches(records).next().ok_or(BatchError::NoBatch)??;
    if batch.len() < records.len() { Err(BatchError::MoreThanOneBatch) } else { Ok(batch) }
}

/// The batches that follow one another in `records`. The first error ends them.
pub fn split_batches(records: &[u8]) -> impl Iterator<Item = Result<&[u8], BatchError>> {
    let mut left = records;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let batch = first_batch(left);
        left = batch.as_ref().map_or(&[], |batch| &left[batch.len()..]);
        Some(batch)
    })
}

fn first_batch(records: &[u8]) -> Result<&[u8], BatchError> {
    match BatchHeader::parse(records) {
        Ok(header) => records.get(..header.total_bytes()).ok_or(BatchError::NoBatch),
        Err(HeaderError::TooShort(_)) => Err(BatchError::NoBatch),
        Err(error) => Err(error.into()),
    }
}

/// Checks that `batch` is exactly one batch that a client may store in a topic with these limits.
///
/// One pass, without an allocation when it is not compressed; else with no more memory than the codec's window.
///
/// # Errors
/// The first rule that it breaks, in the order in which Apache Kafka checks them.
pub fn validate_batch(batch: &[u8], limits: &BatchLimits) -> Result<ValidBatch, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.total_bytes() != batch.len() {
        return Err(BatchError::LengthMismatch { declared: header.total_bytes(), actual: batch.len() });
    }
    if batch.len() > limits.batch_bytes_max {
        return Err(BatchError::TooLarge { bytes: batch.len(), bytes_max: limits.batch_bytes_max });
    }
    let computed = BatchHeader::compute_checksum(batch);
    if computed != header.crc {
        return Err(BatchError::ChecksumMismatch { stored: header.crc, computed });
    }
    check_header(&header, limits)?;
    let max_timestamp = check_records(batch, &header, limits)?;
    Ok(ValidBatch { header, max_timestamp })
}

fn check_header(header: &BatchHeader, limits: &BatchLimits) -> Result<(), BatchError> {
    if header.base_offset != 0 {
        return Err(BatchError::BaseOffset(header.base_offset));
    }
    if header.record_count <= 0 || header.record_count - 1 != header.last_offset_delta {
        let BatchHeader { record_count, last_offset_delta, .. } = *header;
        return Err(BatchError::CountMismatch { record_count, last_offset_delta });
    }
    if header.is_control() {
        return Err(BatchError::ControlBatch);
    }
    if header.is_transactional() {
        return Err(BatchError::Transactional);
    }
    if header.has_delete_horizon() {
        return Err(BatchError::DeleteHorizon);
    }
    let BatchHeader { producer_id, producer_epoch, base_sequence, .. } = *header;
    if producer_id < -1 || (producer_id >= 0 && (producer_epoch < 0 || base_sequence < 0)) {
        return Err(BatchError::ProducerFields { producer_id, producer_epoch, base_sequence });
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::LogAppendTime);
    }
    match header.codec()? {
        Codec::Zstd if !limits.zstd_allowed => Err(BatchError::CodecNotAllowed(Codec::Zstd)),
        _ => Ok(()),
    }
}

/// Checks every record, and returns the largest timestamp.
fn check_records(batch: &[u8], header: &BatchHeader, limits: &BatchLimits) -> Result<i64, BatchError> {
    let range = TimestampRange::new(limits);
    let mut max_timestamp = NO_TIMESTAMP;
    walk(batch, header, limits.decompressed_bytes_max, |record: RecordHead| {
        if limits.key_required && !record.has_key {
            return Err(BatchError::KeyMissing { record: record.index });
        }
        if !range.contains(record.timestamp) {
            return Err(BatchError::TimestampOutOfRange { record: record.index, timestamp: record.timestamp });
        }
        max_timestamp = max_timestamp.max(record.timestamp);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(max_timestamp)
}

/// The timestamps that a topic accepts; worked out once, not for every record.
struct TimestampRange {
    first: i64,
    last: i64,
}

impl TimestampRange {
    fn new(limits: &BatchLimits) -> Self {
        match limits.timestamp_type {
            TimestampType::CreateTime => Self {
                first: limits.now_ms.saturating_sub(limits.timestamp_before_max_ms),
                last: limits.now_ms.saturating_add(limits.timestamp_after_max_ms),
            },
            TimestampType::LogAppendTime => Self { first: i64::MIN, last: i64::MAX },
        }
    }

    fn contains(&self, timestamp: i64) -> bool {
        (self.first..=self.last).contains(&timestamp) || timestamp == NO_TIMESTAMP
    }
}

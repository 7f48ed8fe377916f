//! The fixed 61-byte header of a record batch.

use thiserror::Error;

use super::validate::TimestampType;

/// Bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes of `base_offset` and `batch_length`, which `batch_length` does not count.
const LENGTH_PREFIX_BYTES: usize = 12;
/// The checksum covers everything from the attributes on, so that a broker can assign offset and leader epoch.
const CHECKSUM_FROM: usize = 21;

/// Bits of the attributes.
const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// A batch's header, as it lies in its first 61 bytes (all integers big-endian).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes that follow this field.
    pub batch_length: i32,
    /// Epoch of the leader that stored the batch.
    pub partition_leader_epoch: i32,
    /// Format version; only 2 is served.
    pub magic: i8,
    /// CRC-32C of everything from `attributes` to the end.
    pub crc: u32,
    /// Codec (bits 0-2), timestamp type (3), transactional (4), control (5), delete horizon (6).
    pub attributes: i16,
    /// Offset of the last record, relative to `base_offset`.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, in milliseconds since 1970.
    pub base_timestamp: i64,
    /// Largest timestamp of the records, in milliseconds since 1970.
    pub max_timestamp: i64,
    /// Producer that numbered the batch, or -1.
    pub producer_id: i64,
    /// Epoch of that producer, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

/// Why some bytes are not the beginning of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Fewer than 61 bytes are there.
    #[error("a batch needs at least {BATCH_HEADER_BYTES} bytes, {0} are there")]
    TooShort(usize),
    /// The length field is smaller than the header, or larger than a batch can be.
    #[error("batch length {0} is impossible")]
    BadLength(i32),
    /// A format version other than 2.
    #[error("record batch format {0} is not supported, only 2 is")]
    BadMagic(i8),
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`; the batch itself may be longer than `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(head) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(HeaderError::TooShort(bytes.len()));
        };
        let header = Self {
            base_offset: i64::from_be_bytes(field(head, 0)),
            batch_length: i32::from_be_bytes(field(head, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(head, 12)),
            magic: i8::from_be_bytes(field(head, 16)),
            crc: u32::from_be_bytes(field(head, 17)),
            attributes: i16::from_be_bytes(field(head, 21)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, 35)),
            producer_id: i64::from_be_bytes(field(head, 43)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        };
        if header.magic != 2 {
            return Err(HeaderError::BadMagic(header.magic));
        }
        if header.batch_length < (BATCH_HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32
            || header.batch_length > i32::MAX - LENGTH_PREFIX_BYTES as i32
        {
            return Err(HeaderError::BadLength(header.batch_length));
        }
        Ok(header)
    }

    /// Bytes of the whole batch, header included.
    pub fn total_bytes(&self) -> usize {
        self.batch_length as usize + LENGTH_PREFIX_BYTES
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Whether `batch`, the whole batch that this header was read from, still has the checksum it was sent with.
    pub fn checksum_matches(&self, batch: &[u8]) -> bool {
        batch.len() == self.total_bytes() && Self::compute_checksum(batch) == self.crc
    }

    /// The checksum of a whole batch, which its header should hold; that of no bytes when the batch is too short.
    pub fn compute_checksum(batch: &[u8]) -> u32 {
        crc32c::crc32c(batch.get(CHECKSUM_FROM..).unwrap_or_default())
    }

    /// Where the timestamps of the records come from.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the records are part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the records are control records (transaction markers).
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether `base_timestamp` is the time after which tombstones may go.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    /// The timestamp of a record with this delta, in milliseconds since 1970.
    #[inline]
    pub fn record_timestamp(&self, delta: i64) -> i64 {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp.wrapping_add(delta),
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }

    /// The header as it lies in a batch.
    pub fn to_bytes(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.batch_length.to_be_bytes());
        put(&self.partition_leader_epoch.to_be_bytes());
        put(&self.magic.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        bytes
    }
}

/// The `N` bytes at `at`; every call names constants that lie inside the header.
fn field<const N: usize>(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

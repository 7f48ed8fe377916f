//! Why a batch is refused, and what its sender is told.

use thiserror::Error;

use super::codec::Codec;
use super::header::HeaderError;
use crate::ErrorCode;

/// Why a batch must not be stored. Each has the error code that Apache Kafka answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The bytes do not begin with a whole batch.
    #[error("the records hold no whole batch")]
    NoBatch,
    /// More follows the batch; a partition takes one batch per request.
    #[error("more than one batch for a partition")]
    MoreThanOneBatch,
    /// The header is impossible.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The length in the header is not that of the bytes.
    #[error("the header says {declared} bytes, {actual} are there")]
    LengthMismatch {
        /// Bytes that the header claims.
        declared: usize,
        /// Bytes that are there.
        actual: usize,
    },
    /// The batch is larger than the topic allows.
    #[error("a batch of {bytes} bytes, {bytes_max} are allowed")]
    TooLarge {
        /// Bytes of the batch.
        bytes: usize,
        /// Bytes allowed.
        bytes_max: usize,
    },
    /// The records, decompressed, are larger than is allowed.
    #[error("the records are larger than {bytes_max} bytes when decompressed")]
    DecompressedTooLarge {
        /// Bytes allowed.
        bytes_max: u64,
    },
    /// The bytes are not those that were sent.
    #[error("the checksum is {computed:#010x}, the header says {stored:#010x}")]
    ChecksumMismatch {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A producer numbers its records from 0.
    #[error("the base offset is {0}, it must be 0")]
    BaseOffset(i64),
    /// The count of records is not positive, or does not fit the last offset.
    #[error("{record_count} records with a last offset delta of {last_offset_delta}")]
    CountMismatch {
        /// The count in the header.
        record_count: i32,
        /// The last offset delta in the header.
        last_offset_delta: i32,
    },
    /// Control batches are written by brokers only.
    #[error("clients must not write control batches")]
    ControlBatch,
    /// Transactions are not served.
    #[error("transactional records are not supported")]
    Transactional,
    /// The delete horizon is written by brokers only.
    #[error("clients must not set a delete horizon")]
    DeleteHorizon,
    /// A producer id without an epoch or a sequence number, or one below -1.
    #[error("producer id {producer_id} with epoch {producer_epoch} and sequence {base_sequence}")]
    ProducerFields {
        /// The producer id in the header.
        producer_id: i64,
        /// The epoch in the header.
        producer_epoch: i16,
        /// The sequence number in the header.
        base_sequence: i32,
    },
    /// A codec number that nobody knows.
    #[error("compression type {0} is unknown")]
    UnknownCodec(i16),
    /// A codec that the version of the request does not allow.
    #[error("{0:?} needs a later version of the request")]
    CodecNotAllowed(Codec),
    /// The records cannot be decompressed, or something follows the compressed data.
    #[error("the records cannot be decompressed by {0:?}")]
    Decompression(Codec),
    /// Only the broker sets the time of appending.
    #[error("clients must not set the log append time")]
    LogAppendTime,
    /// A timestamp is too far from now.
    #[error("record {record} has timestamp {timestamp}, which is out of range")]
    TimestampOutOfRange {
        /// Position of the record in the batch, from 0.
        record: u32,
        /// Its timestamp, in milliseconds since 1970.
        timestamp: i64,
    },
    /// A record without a key in a topic that is compacted by key.
    #[error("record {record} has no key, which a compacted topic needs")]
    KeyMissing {
        /// Position of the record in the batch, from 0.
        record: u32,
    },
    /// A record is not well-formed.
    #[error("record {record}: {fault}")]
    Record {
        /// Position of the record in the batch, from 0.
        record: u32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Bytes follow the last record.
    #[error("bytes follow the last record")]
    TrailingBytes,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// The batch ends within the record.
    #[error("the batch ends within it")]
    Truncated,
    /// A varint of more bytes than its type has.
    #[error("a number is too long")]
    InvalidVarint,
    /// A length below zero, other than the -1 of a null key or value.
    #[error("a length is negative")]
    NegativeLength,
    /// Its fields are not as long as it says.
    #[error("its fields are not as long as its length says")]
    LengthMismatch,
    /// Its offset does not follow the one before.
    #[error("its offset delta is out of order")]
    OffsetDelta,
    /// Fewer than no headers, or more than there are bytes left.
    #[error("the number of its headers is impossible")]
    HeaderCount,
}

impl BatchError {
    /// What the client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } | Self::DecompressedTooLarge { .. } => ErrorCode::MessageTooLarge,
            // An old format is a client's mistake, a format of the future can only be damage.
            Self::Header(HeaderError::BadMagic(0 | 1)) => ErrorCode::InvalidRecord,
            Self::Header(_) | Self::LengthMismatch { .. } | Self::ChecksumMismatch { .. } => ErrorCode::CorruptMessage,
            Self::Transactional => ErrorCode::UnsupportedForMessageFormat,
            Self::UnknownCodec(_) | Self::CodecNotAllowed(_) => ErrorCode::UnsupportedCompressionType,
            Self::LogAppendTime | Self::TimestampOutOfRange { .. } => ErrorCode::InvalidTimestamp,
            Self::NoBatch
            | Self::MoreThanOneBatch
            | Self::BaseOffset(_)
            | Self::CountMismatch { .. }
            | Self::ControlBatch
            | Self::DeleteHorizon
            | Self::ProducerFields { .. }
            | Self::Decompression(_)
            | Self::KeyMissing { .. }
            | Self::Record { .. }
            | Self::TrailingBytes => ErrorCode::InvalidRecord,
        }
    }

    /// Position in the batch of the record that is at fault, when it is one record.
    pub fn record(&self) -> Option<u32> {
        match self {
            Self::TimestampOutOfRange { record, .. } | Self::KeyMissing { record } | Self::Record { record, .. } => {
                Some(*record)
            }
            _ => None,
        }
    }
}

//! Making of batches, for tools and tests; a broker only passes on what producers made.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;

use super::codec::Codec;
use super::header::{BATCH_HEADER_BYTES, BatchHeader};
use super::snappy;
use super::validate::NO_TIMESTAMP;
use super::varint::put_varint;

/// What a batch's attributes say besides its codec.
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;

/// A record to be put into a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// Milliseconds since 1970, or -1.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order; a key may occur more than once.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Puts records into a batch of format 2.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    codec: Codec,
    flags: i16,
    base_offset: i64,
    producer: (i64, i16, i32),
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    count: i32,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// A batch without records yet, without a producer, with a base offset of 0.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            flags: 0,
            base_offset: 0,
            producer: (-1, -1, -1),
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            count: 0,
            records: Vec::new(),
        }
    }

    /// Sets the producer's id and epoch, and the sequence number of the first record.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Sets the offset of the first record.
    pub fn base_offset(mut self, offset: i64) -> Self {
        self.base_offset = offset;
        self
    }

    /// Marks the records as part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.flags |= TRANSACTIONAL_BIT;
        self
    }

    /// Marks the records as control records.
    pub fn control(mut self) -> Self {
        self.flags |= CONTROL_BIT;
        self
    }

    /// Appends a record.
    pub fn record(mut self, record: NewRecord<'_>) -> Self {
        let base = *self.base_timestamp.get_or_insert(record.timestamp);
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let mut body = vec![0];
        put_varint(&mut body, record.timestamp.wrapping_sub(base));
        put_varint(&mut body, i64::from(self.count));
        put_nullable(&mut body, record.key);
        put_nullable(&mut body, record.value);
        put_varint(&mut body, record.headers.len() as i64);
        for (key, value) in record.headers {
            put_nullable(&mut body, Some(key));
            put_nullable(&mut body, *value);
        }
        put_varint(&mut self.records, body.len() as i64);
        self.records.extend_from_slice(&body);
        self.count += 1;
        self
    }

    /// The whole batch.
    ///
    /// # Errors
    /// When the codec fails.
    pub fn build(self) -> io::Result<Vec<u8>> {
        let records = compress(self.codec, &self.records)?;
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            batch_length: (BATCH_HEADER_BYTES - 12 + records.len()) as i32,
            partition_leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: self.codec as i16 | self.flags,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp.unwrap_or(NO_TIMESTAMP),
            max_timestamp: self.max_timestamp,
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            base_sequence: self.producer.2,
            record_count: self.count,
        };
        let mut batch = header.to_bytes().to_vec();
        batch.extend_from_slice(&records);
        header.crc = BatchHeader::compute_checksum(&batch);
        batch[..BATCH_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        Ok(batch)
    }
}

fn put_nullable(body: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(body, bytes.map_or(-1, |bytes| bytes.len() as i64));
    body.extend_from_slice(bytes.unwrap_or_default());
}

/// Compresses the records of a batch as Kafka's Java client does.
///
/// # Errors
/// When the codec fails.
pub fn compress(codec: Codec, records: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(records.to_vec()),
        Codec::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(records)?;
            encoder.finish()
        }
        Codec::Snappy => snappy::compress_framed(records),
        Codec::Lz4 => {
            let mut encoder = FrameEncoder::new(Vec::new());
            encoder.write_all(records)?;
            encoder.finish().map_err(io::Error::other)
        }
        Codec::Zstd => zstd::stream::encode_all(records, zstd::DEFAULT_COMPRESSION_LEVEL),
    }
}

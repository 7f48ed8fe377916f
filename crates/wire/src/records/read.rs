//! Reading of records: one by one with their content, or by time.

use std::borrow::Cow;
use std::io::Read;
use std::ops::ControlFlow;

use super::codec::{Codec, Decompressor};
use super::error::{BatchError, RecordFault};
use super::header::{BATCH_HEADER_BYTES, BatchHeader};
use super::validate::DECOMPRESSED_BYTES_MAX;
use super::varint::{take_bytes, take_nullable_bytes, take_varint, take_varlong};
use super::walk::walk;

/// The records of one batch, decompressed.
#[derive(Debug)]
pub struct Records<'a> {
    header: BatchHeader,
    bytes: Cow<'a, [u8]>,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the partition, when the batch is a stored one.
    pub offset: i64,
    /// Milliseconds since 1970, or -1.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    header_count: u32,
    headers: &'a [u8],
}

impl<'a> Records<'a> {
    /// Reads the header of `batch` and decompresses what follows it, up to [`DECOMPRESSED_BYTES_MAX`].
    ///
    /// # Errors
    /// When it is no whole batch, or cannot be decompressed. The checksum is not looked at.
    pub fn open(batch: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(batch)?;
        let records = batch.get(BATCH_HEADER_BYTES..header.total_bytes()).ok_or(BatchError::NoBatch)?;
        let codec = header.codec()?;
        let bytes = match Decompressor::new(codec, records)? {
            None => Cow::Borrowed(records),
            Some(input) => Cow::Owned(decompress(input, codec)?),
        };
        Ok(Self { header, bytes })
    }

    /// The header of the batch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records, in order. The first error ends them.
    pub fn iter(&self) -> RecordIterator<'_> {
        RecordIterator { header: &self.header, left: &self.bytes, index: 0 }
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = Result<Record<'a>, BatchError>;
    type IntoIter = RecordIterator<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn decompress(input: Decompressor<'_>, codec: Codec) -> Result<Vec<u8>, BatchError> {
    let mut bytes = Vec::new();
    let mut bounded = input.take(DECOMPRESSED_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(|_| BatchError::Decompression(codec))?;
    if bytes.len() as u64 > DECOMPRESSED_BYTES_MAX {
        return Err(BatchError::DecompressedTooLarge { bytes_max: DECOMPRESSED_BYTES_MAX });
    }
    Ok(bytes)
}

/// The records of a batch, one after the other.
#[derive(Debug, Clone)]
pub struct RecordIterator<'a> {
    header: &'a BatchHeader,
    left: &'a [u8],
    index: u32,
}

impl<'a> RecordIterator<'a> {
    fn read(&mut self) -> Result<Record<'a>, RecordFault> {
        let length = take_varint(&mut self.left)?;
        let length = usize::try_from(length).map_err(|_| RecordFault::NegativeLength)?;
        let mut body = take_bytes(&mut self.left, length)?;
        let _attributes = take_bytes(&mut body, 1)?;
        let timestamp = self.header.record_timestamp(take_varlong(&mut body)?);
        let offset = self.header.base_offset.wrapping_add(i64::from(take_varint(&mut body)?));
        let key = take_nullable_bytes(&mut body)?;
        let value = take_nullable_bytes(&mut body)?;
        let header_count = u32::try_from(take_varint(&mut body)?).map_err(|_| RecordFault::HeaderCount)?;
        Ok(Record { offset, timestamp, key, value, header_count, headers: body })
    }
}

impl<'a> Iterator for RecordIterator<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if i64::from(self.index) >= i64::from(self.header.record_count) {
            return None;
        }
        let record = self.index;
        self.index += 1;
        let read = self.read().map_err(|fault| BatchError::Record { record, fault });
        if read.is_err() {
            self.index = u32::MAX;
        }
        Some(read)
    }
}

impl<'a> Record<'a> {
    /// Its headers, in order; a key may occur more than once. The first error ends them.
    pub fn headers(&self) -> impl Iterator<Item = Result<(&'a [u8], Option<&'a [u8]>), RecordFault>> {
        let mut bytes = self.headers;
        let mut left = self.header_count;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let header = read_header(&mut bytes);
            if header.is_err() {
                left = 0;
            }
            Some(header)
        })
    }
}

fn read_header<'a>(bytes: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), RecordFault> {
    let key = take_nullable_bytes(bytes)?.ok_or(RecordFault::NegativeLength)?;
    Ok((key, take_nullable_bytes(bytes)?))
}

/// Offset and timestamp of the first record of a stored batch whose timestamp is `timestamp_ms` or later.
///
/// # Errors
/// When `batch` is no whole batch, or a record before the one sought is damaged.
pub fn first_record_at_or_after(batch: &[u8], timestamp_ms: i64) -> Result<Option<(i64, i64)>, BatchError> {
    find_record(batch, |timestamp| timestamp >= timestamp_ms)
}

/// Offset and timestamp of the first record of a stored batch that has the largest timestamp; `None` when no record
/// has a timestamp.
///
/// # Errors
/// When `batch` is no whole batch, or a record is damaged.
pub fn max_timestamp_record(batch: &[u8]) -> Result<Option<(i64, i64)>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut found: Option<(i64, i64)> = None;
    walk(batch, &header, DECOMPRESSED_BYTES_MAX, |record| {
        if record.timestamp >= 0 && found.is_none_or(|(_, timestamp)| record.timestamp > timestamp) {
            found = Some((header.base_offset.wrapping_add(i64::from(record.index)), record.timestamp));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

fn find_record(batch: &[u8], matches: impl Fn(i64) -> bool) -> Result<Option<(i64, i64)>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut found = None;
    walk(batch, &header, DECOMPRESSED_BYTES_MAX, |record| {
        if matches(record.timestamp) {
            found = Some((header.base_offset.wrapping_add(i64::from(record.index)), record.timestamp));
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

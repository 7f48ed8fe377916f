//! One pass over the records of a batch, without keeping any of them.

use std::io::Read;
use std::ops::ControlFlow;

use super::codec::{Codec, Decompressor};
use super::error::{BatchError, RecordFault};
use super::header::{BATCH_HEADER_BYTES, BatchHeader};

/// Bytes of decompressed records that are held at a time.
const WINDOW_BYTES: usize = 8 * 1024;
/// Bytes of the longest 32-bit varint.
const VARINT_BYTES_MAX: u32 = 5;
/// Bytes of the longest 64-bit varint.
const VARLONG_BYTES_MAX: u32 = 10;

/// What a walk tells about each record.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordHead {
    /// Position in the batch, from 0; also its offset delta.
    pub index: u32,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Whether the key is not null.
    pub has_key: bool,
}

/// Visits the records of `batch` (whole, with `header` parsed from it) in order until `visit` breaks, and checks the
/// structure of each. Reaching the end also checks that nothing follows the last record.
#[inline]
pub(super) fn walk(
    batch: &[u8],
    header: &BatchHeader,
    decompressed_bytes_max: u64,
    visit: impl FnMut(RecordHead) -> Result<ControlFlow<()>, BatchError>,
) -> Result<(), BatchError> {
    let records = batch.get(BATCH_HEADER_BYTES..header.total_bytes()).ok_or(BatchError::NoBatch)?;
    let codec = header.codec()?;
    match Decompressor::new(codec, records)? {
        None => walk_source(&mut SliceSource { left: records, all: records.len() as u64 }, header, visit),
        Some(input) => {
            let mut source = StreamSource::new(input, codec, decompressed_bytes_max);
            walk_source(&mut source, header, visit)
        }
    }
}

#[inline]
fn walk_source<S: Source>(
    source: &mut S,
    header: &BatchHeader,
    mut visit: impl FnMut(RecordHead) -> Result<ControlFlow<()>, BatchError>,
) -> Result<(), BatchError> {
    for index in 0..header.record_count.max(0) as u32 {
        let record = match read_record(source, index) {
            Ok(record) => record,
            Err(Fault::Record(fault)) => return Err(BatchError::Record { record: index, fault }),
            Err(Fault::Batch(error)) => return Err(error),
        };
        let timestamp = header.record_timestamp(record.timestamp_delta);
        if visit(RecordHead { index, timestamp, has_key: record.has_key })?.is_break() {
            return Ok(());
        }
    }
    source.check_end()
}

/// A fault of one record, or of the stream that it comes from.
pub(super) enum Fault {
    Record(RecordFault),
    Batch(BatchError),
}

impl From<RecordFault> for Fault {
    fn from(fault: RecordFault) -> Self {
        Self::Record(fault)
    }
}

/// Where records are read from.
trait Source {
    fn byte(&mut self) -> Result<u8, Fault>;
    fn skip(&mut self, count: u32) -> Result<(), Fault>;
    /// Bytes read so far.
    fn position(&self) -> u64;
    /// Checks that nothing is left.
    fn check_end(&mut self) -> Result<(), BatchError>;
}

struct ReadRecord {
    timestamp_delta: i64,
    has_key: bool,
}

#[inline(always)]
fn read_record<S: Source>(source: &mut S, index: u32) -> Result<ReadRecord, Fault> {
    let length = u32::try_from(varint(source)?).map_err(|_| RecordFault::NegativeLength)?;
    let end = source.position() + u64::from(length);
    let _attributes = source.byte()?;
    let timestamp_delta = varlong(source)?;
    if u32::try_from(varint(source)?) != Ok(index) {
        return Err(RecordFault::OffsetDelta.into());
    }
    let has_key = skip_nullable(source)?;
    skip_nullable(source)?;
    let headers = varint(source)?;
    if headers != 0 {
        skip_headers(source, headers, end)?;
    }
    if source.position() != end {
        return Err(RecordFault::LengthMismatch.into());
    }
    Ok(ReadRecord { timestamp_delta, has_key })
}

/// Reads past a key or value; says whether it is there.
#[inline(always)]
fn skip_nullable<S: Source>(source: &mut S) -> Result<bool, Fault> {
    let length = varint(source)?;
    match u32::try_from(length) {
        Ok(length) => source.skip(length).map(|()| true),
        Err(_) if length == -1 => Ok(false),
        Err(_) => Err(RecordFault::NegativeLength.into()),
    }
}

fn skip_headers<S: Source>(source: &mut S, count: i32, end: u64) -> Result<(), Fault> {
    let count = u32::try_from(count).map_err(|_| RecordFault::HeaderCount)?;
    if u64::from(count) > end.saturating_sub(source.position()) {
        return Err(RecordFault::HeaderCount.into());
    }
    for _ in 0..count {
        let key = u32::try_from(varint(source)?).map_err(|_| RecordFault::NegativeLength)?;
        source.skip(key)?;
        skip_nullable(source)?;
    }
    Ok(())
}

/// A zigzag varint of 32 bits.
#[inline(always)]
fn varint<S: Source>(source: &mut S) -> Result<i32, Fault> {
    let first = source.byte()?;
    let mut value = u32::from(first & 0x7f);
    if first & 0x80 != 0 {
        value |= varint_rest(source, VARINT_BYTES_MAX)? as u32;
    }
    Ok((value >> 1) as i32 ^ -((value & 1) as i32))
}

/// A zigzag varint of 64 bits.
#[inline(always)]
fn varlong<S: Source>(source: &mut S) -> Result<i64, Fault> {
    let first = source.byte()?;
    let mut value = u64::from(first & 0x7f);
    if first & 0x80 != 0 {
        value |= varint_rest(source, VARLONG_BYTES_MAX)?;
    }
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// The bits from the second byte on.
#[inline(always)]
fn varint_rest<S: Source>(source: &mut S, bytes_max: u32) -> Result<u64, Fault> {
    let mut value = 0;
    for at in 1..bytes_max {
        let byte = source.byte()?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(RecordFault::InvalidVarint.into())
}

/// Records that are not compressed.
struct SliceSource<'a> {
    left: &'a [u8],
    all: u64,
}

impl Source for SliceSource<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Result<u8, Fault> {
        let (byte, rest) = self.left.split_first().ok_or(RecordFault::Truncated)?;
        self.left = rest;
        Ok(*byte)
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) -> Result<(), Fault> {
        self.left = self.left.get(count as usize..).ok_or(RecordFault::Truncated)?;
        Ok(())
    }

    #[inline(always)]
    fn position(&self) -> u64 {
        self.all - self.left.len() as u64
    }

    fn check_end(&mut self) -> Result<(), BatchError> {
        if self.left.is_empty() { Ok(()) } else { Err(BatchError::TrailingBytes) }
    }
}

/// Records that are being decompressed; a window of them is held.
struct StreamSource<'a> {
    input: Decompressor<'a>,
    codec: Codec,
    bytes_max: u64,
    window: [u8; WINDOW_BYTES],
    at: usize,
    end: usize,
    /// Bytes of all windows before this one.
    before: u64,
}

impl<'a> StreamSource<'a> {
    fn new(input: Decompressor<'a>, codec: Codec, bytes_max: u64) -> Self {
        Self { input, codec, bytes_max, window: [0; WINDOW_BYTES], at: 0, end: 0, before: 0 }
    }

    /// Fills the window; says whether there was anything left.
    fn refill(&mut self) -> Result<bool, BatchError> {
        self.before += self.end as u64;
        self.at = 0;
        self.end = 0;
        self.end = self.input.read(&mut self.window).map_err(|_| BatchError::Decompression(self.codec))?;
        if self.before + self.end as u64 > self.bytes_max {
            return Err(BatchError::DecompressedTooLarge { bytes_max: self.bytes_max });
        }
        Ok(self.end > 0)
    }

    fn refill_within_record(&mut self) -> Result<(), Fault> {
        match self.refill() {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecordFault::Truncated.into()),
            Err(error) => Err(Fault::Batch(error)),
        }
    }
}

impl Source for StreamSource<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, Fault> {
        if self.at == self.end {
            self.refill_within_record()?;
        }
        let byte = self.window[self.at];
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, count: u32) -> Result<(), Fault> {
        let mut left = count as usize;
        while left > self.end - self.at {
            left -= self.end - self.at;
            self.refill_within_record()?;
        }
        self.at += left;
        Ok(())
    }

    #[inline]
    fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    fn check_end(&mut self) -> Result<(), BatchError> {
        if self.at < self.end || self.refill()? {
            return Err(BatchError::TrailingBytes);
        }
        if self.input.input_is_used_up() { Ok(()) } else { Err(BatchError::Decompression(self.codec)) }
    }
}

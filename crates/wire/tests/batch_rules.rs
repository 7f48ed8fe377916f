//! Each rule for batches has a batch here that breaks it, and no other rule.
// Clippy knows tests by their attribute only; helpers of tests may panic too.
#![allow(clippy::unwrap_used)]

use baton_wire::ErrorCode;
use baton_wire::records::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchHeader, BatchLimits, Codec, HeaderError, NewRecord, RecordFault,
    TimestampType, compress, set_max_timestamp, single_batch, split_batches, validate_batch,
};

const NOW_MS: i64 = 1_700_000_000_000;

fn limits() -> BatchLimits {
    BatchLimits { now_ms: NOW_MS, ..BatchLimits::default() }
}

fn record(value: &[u8]) -> NewRecord<'_> {
    NewRecord { timestamp: NOW_MS, key: Some(b"k"), value: Some(value), headers: &[] }
}

fn batch_of(codec: Codec) -> Vec<u8> {
    let builder = BatchBuilder::new(codec).record(record(b"one")).record(record(b"two")).record(record(b"three"));
    builder.build().unwrap()
}

/// A batch whose header was changed after it was made, with a checksum that fits.
fn with_header(change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let batch = batch_of(Codec::None);
    let mut header = BatchHeader::parse(&batch).unwrap();
    change(&mut header);
    seal(header, &batch[BATCH_HEADER_BYTES..])
}

/// A batch of one record that is these bytes, or of as many as `record_count` says.
fn with_records(codec: Codec, record_count: i32, records: &[u8]) -> Vec<u8> {
    let mut header = BatchHeader::parse(&batch_of(codec)).unwrap();
    header.record_count = record_count;
    header.last_offset_delta = record_count - 1;
    header.max_timestamp = header.base_timestamp;
    seal(header, &compress(codec, records).unwrap())
}

fn seal(mut header: BatchHeader, records: &[u8]) -> Vec<u8> {
    header.batch_length = (BATCH_HEADER_BYTES - 12 + records.len()) as i32;
    let mut batch = [&header.to_bytes(), records].concat();
    header.crc = BatchHeader::compute_checksum(&batch);
    batch[..BATCH_HEADER_BYTES].copy_from_slice(&header.to_bytes());
    batch
}

#[track_caller]
fn assert_refused(batch: &[u8], expected: BatchError, code: ErrorCode) {
    assert_refused_under(batch, &limits(), expected, code);
}

#[track_caller]
fn assert_refused_under(batch: &[u8], limits: &BatchLimits, expected: BatchError, code: ErrorCode) {
    let error = validate_batch(batch, limits).unwrap_err();
    assert_eq!(error, expected);
    assert_eq!(error.code(), code, "{error}");
}

/// Each fault of a record must be found in uncompressed records and in each codec's stream.
#[track_caller]
fn assert_record_refused(record_count: i32, records: &[u8], record: u32, fault: RecordFault) {
    for codec in Codec::ALL {
        let batch = with_records(codec, record_count, records);
        let error = validate_batch(&batch, &limits()).unwrap_err();
        assert_eq!(error, BatchError::Record { record, fault }, "{codec:?}");
        assert_eq!(error.code(), ErrorCode::InvalidRecord);
        assert_eq!(error.record(), Some(record));
    }
}

/// A whole record: null key, null value, no headers.
const NULLS: [u8; 7] = [12, 0, 0, 0, 1, 1, 0];

#[test]
fn batches_that_break_no_rule_are_accepted() {
    for codec in Codec::ALL {
        let valid = validate_batch(&batch_of(codec), &limits()).unwrap();
        assert_eq!((valid.header.record_count, valid.max_timestamp), (3, NOW_MS));
        validate_batch(&with_records(codec, 1, &NULLS), &limits()).unwrap();
    }
}

#[test]
fn bytes_without_a_header_are_no_batch() {
    let batch = batch_of(Codec::None);
    let error = BatchError::Header(HeaderError::TooShort(60));
    assert_refused(&batch[..60], error, ErrorCode::CorruptMessage);
    for records in [None, Some(&batch[..0]), Some(&batch[..60]), Some(&batch[..batch.len() - 1])] {
        let error = single_batch(records).unwrap_err();
        assert_eq!((error, error.code()), (BatchError::NoBatch, ErrorCode::InvalidRecord));
    }
}

#[test]
fn second_batch_for_a_partition_is_refused() {
    let two = [batch_of(Codec::None), batch_of(Codec::Lz4)].concat();
    let error = single_batch(Some(&two)).unwrap_err();
    assert_eq!((error, error.code()), (BatchError::MoreThanOneBatch, ErrorCode::InvalidRecord));
}

#[test]
fn batches_that_follow_one_another_are_split() {
    let parts = [batch_of(Codec::None), batch_of(Codec::Gzip), batch_of(Codec::Zstd)];
    let joined = parts.concat();
    let split: Vec<_> = split_batches(&joined).map(Result::unwrap).collect();
    assert_eq!(split, parts);
    let cut: Vec<_> = split_batches(&joined[..joined.len() - 1]).collect();
    assert_eq!(cut, [Ok(&parts[0][..]), Ok(&parts[1][..]), Err(BatchError::NoBatch)]);
}

#[test]
fn length_must_be_that_of_the_bytes() {
    let mut batch = batch_of(Codec::None);
    let declared = batch.len();
    batch.push(0);
    let error = BatchError::LengthMismatch { declared, actual: declared + 1 };
    assert_refused(&batch, error, ErrorCode::CorruptMessage);
    let error = BatchError::LengthMismatch { declared, actual: declared - 1 };
    assert_refused(&batch[..declared - 1], error, ErrorCode::CorruptMessage);
}

#[test]
fn length_smaller_than_a_header_is_refused() {
    for length in [i32::MIN, -1, 0, 48, i32::MAX] {
        let mut batch = batch_of(Codec::None);
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        assert_refused(&batch, BatchError::Header(HeaderError::BadLength(length)), ErrorCode::CorruptMessage);
    }
}

#[test]
fn formats_other_than_2_are_refused() {
    for (magic, code) in [(0, ErrorCode::InvalidRecord), (1, ErrorCode::InvalidRecord), (3, ErrorCode::CorruptMessage)]
    {
        let batch = with_header(|header| header.magic = magic);
        assert_refused(&batch, BatchError::Header(HeaderError::BadMagic(magic)), code);
    }
}

#[test]
fn batch_larger_than_the_limit_is_refused() {
    let batch = batch_of(Codec::None);
    let limits = BatchLimits { batch_bytes_max: batch.len() - 1, ..limits() };
    let error = BatchError::TooLarge { bytes: batch.len(), bytes_max: batch.len() - 1 };
    assert_refused_under(&batch, &limits, error, ErrorCode::MessageTooLarge);
    validate_batch(&batch, &BatchLimits { batch_bytes_max: batch.len(), ..limits }).unwrap();
}

#[test]
fn changed_bit_anywhere_after_the_checksum_is_found() {
    let batch = batch_of(Codec::None);
    for at in 17..batch.len() {
        let mut damaged = batch.clone();
        damaged[at] ^= 1;
        let error = validate_batch(&damaged, &limits()).unwrap_err();
        assert!(matches!(error, BatchError::ChecksumMismatch { .. }), "byte {at}: {error}");
        assert_eq!(error.code(), ErrorCode::CorruptMessage);
    }
}

#[test]
fn base_offset_must_be_zero() {
    let batch = with_header(|header| header.base_offset = 5);
    assert_refused(&batch, BatchError::BaseOffset(5), ErrorCode::InvalidRecord);
}

#[test]
fn count_must_be_positive_and_fit_the_last_offset() {
    for (record_count, last_offset_delta) in [(0, -1), (-1, -2), (3, 3), (2, 2), (i32::MIN, i32::MAX)] {
        let batch = with_header(|header| {
            header.record_count = record_count;
            header.last_offset_delta = last_offset_delta;
        });
        assert_refused(&batch, BatchError::CountMismatch { record_count, last_offset_delta }, ErrorCode::InvalidRecord);
    }
}

#[test]
fn control_batches_are_refused() {
    let batch = BatchBuilder::new(Codec::None).control().record(record(b"v")).build().unwrap();
    assert_refused(&batch, BatchError::ControlBatch, ErrorCode::InvalidRecord);
}

#[test]
fn transactional_batches_are_refused() {
    let batch = BatchBuilder::new(Codec::None).producer(1, 0, 0).transactional().record(record(b"v"));
    assert_refused(&batch.build().unwrap(), BatchError::Transactional, ErrorCode::UnsupportedForMessageFormat);
}

#[test]
fn delete_horizon_is_refused() {
    let batch = with_header(|header| header.attributes |= 1 << 6);
    assert_refused(&batch, BatchError::DeleteHorizon, ErrorCode::InvalidRecord);
}

#[test]
fn producer_id_needs_epoch_and_sequence() {
    for (producer_id, producer_epoch, base_sequence) in [(1, -1, 0), (1, 0, -1), (-2, -1, -1)] {
        let batch = BatchBuilder::new(Codec::None).producer(producer_id, producer_epoch, base_sequence);
        let error = BatchError::ProducerFields { producer_id, producer_epoch, base_sequence };
        assert_refused(&batch.record(record(b"v")).build().unwrap(), error, ErrorCode::InvalidRecord);
    }
    let batch = BatchBuilder::new(Codec::None).producer(1, 0, 0).record(record(b"v")).build().unwrap();
    validate_batch(&batch, &limits()).unwrap();
}

#[test]
fn unknown_codecs_are_refused() {
    for number in 5..8 {
        let batch = with_header(|header| header.attributes |= number);
        assert_refused(&batch, BatchError::UnknownCodec(number), ErrorCode::UnsupportedCompressionType);
    }
}

#[test]
fn zstd_is_refused_where_the_request_does_not_allow_it() {
    let limits = BatchLimits { zstd_allowed: false, ..limits() };
    let error = BatchError::CodecNotAllowed(Codec::Zstd);
    assert_refused_under(&batch_of(Codec::Zstd), &limits, error, ErrorCode::UnsupportedCompressionType);
    validate_batch(&batch_of(Codec::Lz4), &limits).unwrap();
}

#[test]
fn log_append_time_from_a_client_is_refused() {
    let batch = with_header(|header| header.attributes |= 1 << 3);
    assert_refused(&batch, BatchError::LogAppendTime, ErrorCode::InvalidTimestamp);
}

#[test]
fn timestamps_out_of_range_are_refused() {
    let range = BatchLimits { timestamp_before_max_ms: 1000, timestamp_after_max_ms: 50, ..limits() };
    let batch = |timestamp| {
        let late = NewRecord { timestamp, ..record(b"v") };
        BatchBuilder::new(Codec::Lz4).record(record(b"v")).record(late).build().unwrap()
    };
    for timestamp in [NOW_MS - 1001, NOW_MS + 51, 0, -2, i64::MAX, i64::MIN] {
        let error = BatchError::TimestampOutOfRange { record: 1, timestamp };
        assert_refused_under(&batch(timestamp), &range, error, ErrorCode::InvalidTimestamp);
        let by_broker = BatchLimits { timestamp_type: TimestampType::LogAppendTime, ..range };
        validate_batch(&batch(timestamp), &by_broker).unwrap();
    }
    // -1 is no timestamp, and so never too old.
    for timestamp in [NOW_MS - 1000, NOW_MS + 50, -1] {
        validate_batch(&batch(timestamp), &range).unwrap();
    }
}

#[test]
fn wrong_max_timestamp_is_told_and_can_be_corrected() {
    let mut batch = with_header(|header| header.max_timestamp = NOW_MS + 1);
    let valid = validate_batch(&batch, &limits()).unwrap();
    assert!(valid.max_timestamp_is_wrong());
    set_max_timestamp(&mut batch, valid.max_timestamp);
    assert_eq!(batch, batch_of(Codec::None));
}

#[test]
fn compacted_topic_needs_keys() {
    let keyless = NewRecord { key: None, ..record(b"v") };
    let batch = BatchBuilder::new(Codec::Gzip).record(record(b"v")).record(keyless).build().unwrap();
    validate_batch(&batch, &limits()).unwrap();
    let compacted = BatchLimits { key_required: true, ..limits() };
    assert_refused_under(&batch, &compacted, BatchError::KeyMissing { record: 1 }, ErrorCode::InvalidRecord);
}

#[test]
fn offset_deltas_must_count_from_zero_without_gaps() {
    let delta = |delta: u8| [12, 0, 0, delta * 2, 1, 1, 0];
    assert_record_refused(1, &delta(1), 0, RecordFault::OffsetDelta);
    assert_record_refused(2, &[delta(0), delta(2)].concat(), 1, RecordFault::OffsetDelta);
    assert_record_refused(2, &[delta(0), delta(0)].concat(), 1, RecordFault::OffsetDelta);
    let mut negative = NULLS;
    negative[3] = 1;
    assert_record_refused(1, &negative, 0, RecordFault::OffsetDelta);
}

#[test]
fn fewer_records_than_counted_are_refused() {
    assert_record_refused(2, &NULLS, 1, RecordFault::Truncated);
}

#[test]
fn bytes_after_the_last_record_are_refused() {
    for codec in Codec::ALL {
        let batch = with_records(codec, 1, &[&NULLS[..], &NULLS[..]].concat());
        assert_refused(&batch, BatchError::TrailingBytes, ErrorCode::InvalidRecord);
    }
}

#[test]
fn record_must_be_as_long_as_it_says() {
    let mut shorter = NULLS.to_vec();
    shorter[0] = 10;
    assert_record_refused(1, &shorter, 0, RecordFault::LengthMismatch);
    let mut longer = NULLS.to_vec();
    longer[0] = 14;
    longer.push(0);
    assert_record_refused(1, &longer, 0, RecordFault::LengthMismatch);
}

#[test]
fn negative_lengths_are_refused() {
    assert_record_refused(1, &[1, 0, 0, 0, 1, 1, 0], 0, RecordFault::NegativeLength);
    assert_record_refused(1, &[12, 0, 0, 0, 3, 1, 0], 0, RecordFault::NegativeLength);
    assert_record_refused(1, &[12, 0, 0, 0, 1, 3, 0], 0, RecordFault::NegativeLength);
    assert_record_refused(1, &[16, 0, 0, 0, 1, 1, 2, 1, 1], 0, RecordFault::NegativeLength);
}

#[test]
fn lengths_beyond_the_batch_are_refused() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    assert_record_refused(1, &[&[60, 0, 0, 0][..], &huge].concat(), 0, RecordFault::Truncated);
    assert_record_refused(1, &[&huge[..], &NULLS[1..]].concat(), 0, RecordFault::LengthMismatch);
}

#[test]
fn number_of_headers_must_be_possible() {
    assert_record_refused(1, &[12, 0, 0, 0, 1, 1, 1], 0, RecordFault::HeaderCount);
    assert_record_refused(1, &[12, 0, 0, 0, 1, 1, 2], 0, RecordFault::HeaderCount);
    let huge = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    assert_record_refused(1, &[&[20, 0, 0, 0, 1, 1][..], &huge].concat(), 0, RecordFault::HeaderCount);
}

#[test]
fn endless_varints_are_refused() {
    assert_record_refused(1, &[0x80; 20], 0, RecordFault::InvalidVarint);
    assert_record_refused(1, &[&[40, 0][..], &[0x80; 19]].concat(), 0, RecordFault::InvalidVarint);
}

#[test]
fn records_that_cannot_be_decompressed_are_refused() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let good = compress(codec, &NULLS).unwrap();
        let header = BatchHeader::parse(&with_records(codec, 1, &NULLS)).unwrap();
        let trailing = [&good[..], &[1, 2, 3, 4, 5]].concat();
        for records in [&b"garbage"[..], &trailing] {
            let error = BatchError::Decompression(codec);
            assert_refused(&seal(header, records), error, ErrorCode::InvalidRecord);
        }
        for records in [&good[..good.len() / 2], &[]] {
            let error = validate_batch(&seal(header, records), &limits()).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidRecord, "{codec:?}: {error}");
        }
    }
}

#[test]
fn snappy_as_one_bare_block_is_accepted() {
    let mut header = BatchHeader::parse(&with_records(Codec::Snappy, 1, &NULLS)).unwrap();
    header.attributes = Codec::Snappy as i16;
    let block = snap::raw::Encoder::new().compress_vec(&NULLS).unwrap();
    validate_batch(&seal(header, &block), &limits()).unwrap();
}

#[test]
fn snappy_block_that_claims_more_than_it_can_hold_is_refused_before_anything_is_allocated() {
    let header = BatchHeader::parse(&with_records(Codec::Snappy, 1, &NULLS)).unwrap();
    // A block whose first bytes say that it decompresses to 4 GiB - 1.
    let bomb = seal(header, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]);
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(validate_batch(&bomb, &limits())));
    assert_eq!(result, Some(Err(BatchError::Decompression(Codec::Snappy))));
    assert!(info.bytes_max < 64 * 1024, "{} bytes allocated", info.bytes_max);
}

#[test]
fn decompressed_bytes_are_bounded() {
    // One record of 64 MiB of zeros.
    let value = vec![0; 64 * 1024 * 1024];
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let batch = BatchBuilder::new(codec).record(record(&value)).build().unwrap();
        let bounded = BatchLimits { decompressed_bytes_max: 1024 * 1024, ..limits() };
        let error = BatchError::DecompressedTooLarge { bytes_max: 1024 * 1024 };
        assert_refused_under(&batch, &bounded, error, ErrorCode::MessageTooLarge);
    }
}

#[test]
fn uncompressed_batch_is_checked_without_an_allocation() {
    let batch = batch_of(Codec::None);
    let info = allocation_counter::measure(|| assert!(validate_batch(&batch, &limits()).is_ok()));
    assert_eq!(info.count_total, 0);
}

#[test]
fn memory_to_check_a_compressed_batch_does_not_grow_with_what_it_decompresses_to() {
    // The window of the codec, its tables, and one block of the frame. (That of zstd is not Rust's to count; it is
    // bounded by the largest window that its decoder accepts, 128 MiB.)
    const BYTES_MAX: u64 = 13 * 1024 * 1024;
    let value = vec![0; 64 * 1024 * 1024];
    for codec in [Codec::Gzip, Codec::Lz4] {
        let batch = BatchBuilder::new(codec).record(record(&value)).build().unwrap();
        let limits = BatchLimits { batch_bytes_max: usize::MAX, ..limits() };
        let info = allocation_counter::measure(|| assert!(validate_batch(&batch, &limits).is_ok()));
        assert!(info.bytes_max < BYTES_MAX, "{codec:?}: {} bytes", info.bytes_max);
    }
}

//! What tests and fuzz targets do with bytes that may be a batch.

use baton_wire::records::{
    BatchHeader, BatchLimits, Records, first_record_at_or_after, max_timestamp_record, validate_batch,
};

/// The time of the tests.
pub const NOW_MS: i64 = 1_700_000_000_000;

/// Gives the batch the checksum that fits it.
pub fn seal(batch: &mut [u8]) {
    let crc = BatchHeader::compute_checksum(batch);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Looks at the batch in all ways; what is valid must also be readable, record by record.
pub fn look_at(batch: &[u8]) {
    let limits = BatchLimits { now_ms: NOW_MS, decompressed_bytes_max: 1 << 20, ..BatchLimits::default() };
    let valid = validate_batch(batch, &limits);
    let _ = first_record_at_or_after(batch, NOW_MS);
    let largest = max_timestamp_record(batch);
    let records = Records::open(batch);
    if let Ok(records) = &records {
        for record in records.iter().filter_map(Result::ok) {
            let _ = record.headers().count();
        }
    }
    let Ok(valid) = valid else { return };
    let records = records.expect("a valid batch can be opened");
    assert_eq!(records.iter().count(), valid.header.record_count as usize);
    let mut max_timestamp = -1;
    for (at, record) in records.iter().enumerate() {
        let record = record.expect("a record of a valid batch can be read");
        assert_eq!(record.offset, at as i64);
        assert!(record.headers().all(|header| header.is_ok()), "a header of a valid batch can be read");
        max_timestamp = max_timestamp.max(record.timestamp);
    }
    assert_eq!(valid.max_timestamp, max_timestamp);
    assert_eq!(largest.map(|largest| largest.map_or(-1, |(_, timestamp)| timestamp)), Ok(max_timestamp));
}

//! Batches made by another implementation are valid here, and batches made here can be read by it.
// Clippy knows tests by their attribute only; helpers of tests may panic too.
#![allow(clippy::unwrap_used)]

use baton_wire::records::{
    BatchBuilder, BatchLimits, Codec, NewRecord, Records, TimestampType, first_record_at_or_after,
    max_timestamp_record, set_log_append_time, single_batch, validate_batch,
};
use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType as OtherType,
};

const BASE_MS: i64 = 1_700_000_000_000;

fn limits() -> BatchLimits {
    BatchLimits { now_ms: BASE_MS + 1000, ..BatchLimits::default() }
}

/// Records with keys and values that are there, empty, or null, and with headers.
fn records(count: i64) -> Vec<Record> {
    (0..count)
        .map(|offset| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: 7,
            producer_epoch: 2,
            timestamp_type: OtherType::Creation,
            offset,
            sequence: offset as i32,
            timestamp: BASE_MS + (offset * 37) % 101,
            key: (offset % 3 > 0).then(|| Bytes::from(format!("key {offset}"))),
            value: (offset % 4 > 0).then(|| Bytes::from("value ".repeat(offset as usize % 50))),
            headers: (0..offset % 3)
                .map(|at| {
                    (StrBytes::from_string(format!("header {at}")), (at > 0).then(|| Bytes::from_static(b"content")))
                })
                .collect::<IndexMap<_, _>>(),
        })
        .collect()
}

fn encode(records: &[Record], compression: Compression) -> Vec<u8> {
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut batch, records, &options).unwrap();
    batch.to_vec()
}

const CODECS: [(Codec, Compression); 5] = [
    (Codec::None, Compression::None),
    (Codec::Gzip, Compression::Gzip),
    (Codec::Snappy, Compression::Snappy),
    (Codec::Lz4, Compression::Lz4),
    (Codec::Zstd, Compression::Zstd),
];

#[test]
fn batches_of_all_codecs_made_by_another_implementation_are_valid_and_read_the_same() {
    for count in [1, 2, 700] {
        let records = records(count);
        for (codec, compression) in CODECS {
            let bytes = encode(&records, compression);
            let batch = single_batch(Some(&bytes)).unwrap();
            let valid = validate_batch(batch, &limits()).unwrap_or_else(|error| panic!("{codec:?} {count}: {error}"));
            assert_eq!(valid.header.codec(), Ok(codec));
            assert_eq!(i64::from(valid.header.record_count), count);
            assert_eq!(Some(valid.max_timestamp), records.iter().map(|record| record.timestamp).max());
            assert!(!valid.max_timestamp_is_wrong());
            let read = Records::open(batch).unwrap();
            assert_eq!(read.iter().count(), records.len());
            for (mine, other) in read.iter().map(Result::unwrap).zip(&records) {
                assert_eq!((mine.offset, mine.timestamp), (other.offset, other.timestamp));
                assert_eq!((mine.key, mine.value), (other.key.as_deref(), other.value.as_deref()));
                let headers: Vec<_> = mine.headers().map(Result::unwrap).collect();
                let expected: Vec<_> =
                    other.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref())).collect();
                assert_eq!(headers, expected);
            }
        }
    }
}

#[test]
fn batches_of_all_codecs_made_here_are_read_by_another_implementation() {
    for (codec, compression) in CODECS {
        let mut builder = BatchBuilder::new(codec).producer(7, 2, 0);
        for record in &records(300) {
            let headers: Vec<_> =
                record.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref())).collect();
            builder = builder.record(NewRecord {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            });
        }
        let batch = builder.build().unwrap();
        validate_batch(&batch, &limits()).unwrap();
        let set = RecordBatchDecoder::decode(&mut Bytes::from(batch)).unwrap();
        assert_eq!(set.compression, compression);
        assert_eq!(set.records, records(300), "{codec:?}");
    }
}

#[test]
fn records_are_found_by_time_in_batches_of_all_codecs() {
    for (_, compression) in CODECS {
        let records = records(200);
        let mut batch = encode(&records, compression);
        // A stored batch has an offset of its own.
        batch[..8].copy_from_slice(&5000i64.to_be_bytes());
        for sought in [0, BASE_MS, BASE_MS + 50, BASE_MS + 100, BASE_MS + 101] {
            let expected = records.iter().find(|record| record.timestamp >= sought);
            let expected = expected.map(|record| (5000 + record.offset, record.timestamp));
            assert_eq!(first_record_at_or_after(&batch, sought), Ok(expected));
        }
        let largest = records.iter().rev().max_by_key(|record| record.timestamp).unwrap();
        assert_eq!(max_timestamp_record(&batch), Ok(Some((5000 + largest.offset, largest.timestamp))));
    }
}

#[test]
fn log_append_time_replaces_all_timestamps_and_keeps_the_batch_readable() {
    for (codec, compression) in CODECS {
        let mut batch = encode(&records(20), compression);
        set_log_append_time(&mut batch, BASE_MS + 555);
        let read = Records::open(&batch).unwrap();
        assert!(read.header().checksum_matches(&batch));
        assert_eq!(read.header().timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(read.header().codec(), Ok(codec));
        assert!(read.iter().all(|record| record.unwrap().timestamp == BASE_MS + 555));
        assert_eq!(first_record_at_or_after(&batch, BASE_MS + 555), Ok(Some((0, BASE_MS + 555))));
        assert_eq!(first_record_at_or_after(&batch, BASE_MS + 556), Ok(None));
        let set = RecordBatchDecoder::decode(&mut Bytes::from(batch)).unwrap();
        assert!(set.records.iter().all(|record| record.timestamp_type == OtherType::LogAppend));
    }
}

#[test]
fn header_keys_that_occur_twice_are_kept() {
    let headers: [(&[u8], Option<&[u8]>); 3] = [(b"k", Some(b"1")), (b"k", Some(b"2")), (b"k", None)];
    let record = NewRecord { timestamp: BASE_MS, key: None, value: Some(b"v"), headers: &headers };
    let batch = BatchBuilder::new(Codec::None).record(record).build().unwrap();
    validate_batch(&batch, &limits()).unwrap();
    let read = Records::open(&batch).unwrap();
    let found: Vec<_> = read.iter().next().unwrap().unwrap().headers().map(Result::unwrap).collect();
    assert_eq!(found, headers);
}

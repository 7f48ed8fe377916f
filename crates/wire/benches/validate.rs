//! Time to check one batch, per record: `cargo bench -p baton-wire`.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use baton_wire::records::{BatchBuilder, BatchHeader, BatchLimits, Codec, NewRecord, validate_batch};

/// Time spent on each line of the table, in milliseconds.
const MEASURE_MS: u128 = 300;

fn main() {
    println!("{:>8} {:>8} {:>8} {:>12} {:>12} {:>10}", "codec", "records", "bytes", "ns/record", "of it crc", "MB/s");
    for (records, value_bytes) in [(1, 1024), (15, 1024), (500, 1024), (1000, 100), (1000, 10)] {
        for codec in Codec::ALL {
            let batch = batch(codec, records, value_bytes);
            let whole = nanos(|| {
                black_box(validate_batch(black_box(&batch), &limits())).is_ok_and(|valid| valid.header.record_count > 0)
            });
            let checksum = nanos(|| black_box(BatchHeader::compute_checksum(black_box(&batch))) != 0);
            println!(
                "{:>8} {records:>8} {:>8} {:>12.1} {:>12.1} {:>10.0}",
                codec.name(),
                batch.len(),
                whole / f64::from(records),
                checksum / f64::from(records),
                f64::from(records) * f64::from(value_bytes) * 1e3 / whole,
            );
        }
    }
}

fn limits() -> BatchLimits {
    BatchLimits { now_ms: 1_700_000_000_000, batch_bytes_max: usize::MAX, ..BatchLimits::default() }
}

/// Values that look like what services send: half of it repeats.
fn batch(codec: Codec, records: u32, value_bytes: u32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let mut state = 1u64;
    for record in 0..records {
        let value: Vec<u8> = (0..value_bytes)
            .map(|at| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if at % 2 == 0 { b'a' + (at % 26) as u8 } else { (state >> 56) as u8 }
            })
            .collect();
        let key = record.to_be_bytes();
        builder = builder.record(NewRecord {
            timestamp: 1_700_000_000_000 + i64::from(record),
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        });
    }
    builder.build().unwrap_or_default()
}

/// Nanoseconds of one call.
fn nanos(mut call: impl FnMut() -> bool) -> f64 {
    assert!(call(), "the work must succeed");
    let start = Instant::now();
    let mut calls = 0u32;
    while start.elapsed().as_millis() < MEASURE_MS {
        for _ in 0..64 {
            assert!(call(), "the work must succeed");
        }
        calls += 64;
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

//! Writers, readers and maintenance at once, on a real disk.

use std::sync::atomic::{AtomicBool, Ordering};

use baton_log::{AppendError, Log, LogOptions, PartitionId, ReadError, ReadMode};
use baton_wire::records::BatchHeader;

use super::support::*;

const WRITERS: u64 = 4;
const BATCHES_EACH: u64 = 1_500;

/// A batch whose value says who wrote it and as which one.
fn numbered(writer: u64, number: u64) -> Vec<u8> {
    batch(&format!("{writer:04}-{number:08}-{}", "r".repeat((number % 97) as usize * 3)))
}

fn write_all_numbered(log: &Log, partition: PartitionId, writer: u64) {
    let mut last = None;
    for number in 0..BATCHES_EACH {
        let value = numbered(writer, number);
        let ticket = loop {
            match try_append(log, partition, &value) {
                Ok(receipt) => break receipt.ticket,
                Err(AppendError::Backlogged) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        last = Some(ticket);
        if number % 16 == 0 {
            log.wait_durable(ticket).unwrap();
        }
    }
    log.wait_durable(last.unwrap()).unwrap();
}

/// Follows a partition to its end: every offset once, every writer's batches in order.
fn follow(log: &Log, partition: PartitionId, done: &AtomicBool) -> u64 {
    let mut next = 0;
    let mut seen = [0; WRITERS as usize];
    loop {
        let finished = done.load(Ordering::Acquire);
        let read = match log.read(partition, next, 40_000, true, ReadMode::Cached) {
            Err(ReadError::NotCached) => log.read(partition, next, 40_000, true, ReadMode::Blocking),
            other => other,
        };
        let read = read.unwrap_or_else(|error| panic!("reading {partition:?} at {next}: {error}"));
        for found in &read.batches {
            let header = BatchHeader::parse(found).unwrap();
            assert_eq!(header.base_offset, next);
            let writer =
                (0..WRITERS).find(|writer| stored(&numbered(*writer, seen[*writer as usize]), next)[..] == found[..]);
            seen[writer.unwrap_or_else(|| panic!("offset {next} holds nobody's next batch")) as usize] += 1;
            next += 1;
        }
        if read.batches.is_empty() {
            if finished {
                return next as u64;
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn readers_see_every_batch_once_and_in_order_while_segments_roll_and_go() {
    let options = LogOptions {
        segment_bytes: 64 << 10,
        reserve_step_bytes: 16 << 10,
        pending_bytes_max: 256 << 10,
        index_cache_bytes: 2_000,
        ..small()
    };
    let mut place = Place::Real(tempfile::tempdir().unwrap());
    let (log, _) = place.open(options.clone());
    log.start().unwrap();
    log.wait_durable(log.create_topic("orders", [1; 16], 3, Default::default()).unwrap()).unwrap();
    let partitions = log.catalog().topic("orders").unwrap().partitions.clone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (log, partition) = (&log, partitions[writer as usize % 2]);
                scope.spawn(move || write_all_numbered(log, partition, writer))
            })
            .collect();
        let readers: Vec<_> = [0, 1, 0]
            .map(|at| {
                scope.spawn({
                    let (log, partition, done) = (&log, partitions[at], &done);
                    move || follow(log, partition, done)
                })
            })
            .into();
        let others = scope.spawn(|| {
            for round in 0_u64..60 {
                let name = format!("short-{round}");
                log.wait_durable(log.create_topic(&name, [round as u8 + 2; 16], 2, Default::default()).unwrap())
                    .unwrap();
                let receipt = append(&log, partitions[2], &numbered(9, round));
                log.wait_durable(receipt.ticket).unwrap();
                log.wait_durable(log.delete_records(partitions[2], round as i64).unwrap()).unwrap();
                log.wait_durable(log.write_table(TABLE, vec![("round".into(), Some(name.clone().into()))]).unwrap())
                    .unwrap();
                log.wait_durable(log.delete_topic(&name).unwrap()).unwrap();
            }
        });
        others.join().unwrap();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Release);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), BATCHES_EACH * WRITERS / 2);
        }
    });
    assert!(log.stats().segments > 3);
    log.close();
    drop(log);
    place.crash();
    let (log, report) = place.open(options);
    assert_eq!((report.cut, report.damage.len()), (None, 0));
    let done = AtomicBool::new(true);
    assert_eq!(follow(&log, partitions[1], &done), BATCHES_EACH * WRITERS / 2);
    assert_eq!(log.table_get(TABLE, b"round").as_deref(), Some(b"short-59".as_slice()));
    assert_eq!(log.catalog().topic_count(), 1);
}

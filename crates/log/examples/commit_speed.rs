//! How fast the log alone is, without network and protocol: `cargo run --release -p baton-log --example commit_speed -- DIR`.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a program for people")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use baton_log::{FileDisk, Log, LogOptions, NoObserver, PartitionId, ReadMode, SystemClock};
use baton_wire::records::{BatchBuilder, BatchHeader, Codec, NewRecord};

fn main() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "commit-speed-data".into());
    let disk = Arc::new(FileDisk::open(std::path::Path::new(&directory)).expect("the directory can be used"));
    let (log, _) =
        Log::open(disk, Arc::new(SystemClock), LogOptions::default(), Arc::new(NoObserver)).expect("the log opens");
    log.start().expect("threads start");
    let ticket = log.create_topic("speed", [7; 16], 1000, BTreeMap::new());
    if let Ok(ticket) = ticket {
        log.wait_durable(ticket).expect("durable");
    }
    let partitions = log.catalog().topic("speed").expect("just created").partitions.clone();
    for threads in [1, 4, 16, 64] {
        waiting(&log, &partitions, threads);
    }
    for spread in [1, 6, 1000] {
        pipelined(&log, &partitions[..spread]);
    }
    let start = Instant::now();
    let (mut next, mut bytes) = (0, 0);
    while let Ok(read) = log.read(partitions[0], next, 1 << 20, true, ReadMode::Blocking) {
        let Some(last) = read.batches.last() else { break };
        next = BatchHeader::parse(last).expect("whole").last_offset() + 1;
        bytes += read.bytes;
    }
    println!("read {next} records: {:.0} MB/s", bytes as f64 / 1e6 / start.elapsed().as_secs_f64());
    log.close();
}

fn batch(records: usize) -> Vec<u8> {
    let value = vec![b'x'; 1024];
    let record = NewRecord { value: Some(&value), ..NewRecord::default() };
    (0..records).fold(BatchBuilder::new(Codec::None), |builder, _| builder.record(record)).build().expect("builds")
}

fn waiting(log: &Log, partitions: &[PartitionId], threads: usize) {
    let (one, rounds) = (batch(1), 20_000 / threads);
    let header = BatchHeader::parse(&one).expect("whole");
    let before = log.stats();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for partition in partitions.iter().take(threads) {
            let one = &one;
            scope.spawn(move || {
                for _ in 0..rounds {
                    let receipt = log.append(*partition, &header, one).expect("appended");
                    log.wait_durable(receipt.ticket).expect("durable");
                }
            });
        }
    });
    let count = (rounds * threads) as f64;
    let syncs = log.stats().syncs - before.syncs;
    println!(
        "{threads} waiting: {:.0}/s, {:.3} syncs per record",
        count / start.elapsed().as_secs_f64(),
        syncs as f64 / count
    );
}

fn pipelined(log: &Log, partitions: &[PartitionId]) {
    let many = batch(1000 / partitions.len().min(10));
    let header = BatchHeader::parse(&many).expect("whole");
    let before = log.stats();
    let start = Instant::now();
    let mut last = None;
    let mut sent = 0_usize;
    while start.elapsed().as_secs() < 3 {
        let partition = partitions[sent % partitions.len()];
        match log.append(partition, &header, &many) {
            Ok(receipt) => {
                last = Some(receipt.ticket);
                sent += 1;
            }
            Err(_) => std::thread::sleep(std::time::Duration::from_micros(100)),
        }
    }
    log.wait_durable(last.expect("sent")).expect("durable");
    let after = log.stats();
    let bytes = (sent * many.len()) as f64;
    println!(
        "pipelined over {} partitions: {:.0} MB/s, {} syncs, {:.3} bytes written per byte",
        partitions.len(),
        bytes / 1e6 / start.elapsed().as_secs_f64(),
        after.syncs - before.syncs,
        (after.bytes_written - before.bytes_written) as f64 / bytes
    );
}

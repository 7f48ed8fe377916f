//! Logs on a simulated disk and on a real one, and batches to put into them.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_log::{
    AppendOutcome, AppendReceipt, Disk, FileDisk, Log, LogObserver, LogOptions, NoObserver, PartitionId, ReadError,
    ReadMode, RecoveryReport, TableId, Ticket,
};
use baton_testkit::{SimClock, SimDisk};
use baton_wire::records::{BatchBuilder, BatchHeader, Codec, NewRecord};
use tempfile::TempDir;

pub const NOW_MS: i64 = 1_700_000_000_000;
pub const TABLE: TableId = TableId(1);

/// Where a log lives.
pub enum Place {
    Simulated(SimDisk),
    Real(TempDir),
}

impl Place {
    /// Access for a log or a test; a real directory is locked as long as it lives.
    pub fn disk(&self) -> Arc<dyn Disk> {
        match self {
            Self::Simulated(disk) => Arc::new(disk.clone()),
            Self::Real(directory) => Arc::new(FileDisk::open(directory.path()).unwrap()),
        }
    }

    /// The process that used it has ended; on the simulated disk the power failed, too.
    pub fn crash(&mut self) {
        if let Self::Simulated(disk) = self {
            *disk = disk.lose_power();
        }
    }

    pub fn open(&self, options: LogOptions) -> (Log, RecoveryReport) {
        open_on(self.disk(), options)
    }

    pub fn names(&self, extension: &str) -> Vec<String> {
        let mut names = self.disk().list().unwrap();
        names.retain(|name| name.ends_with(extension));
        names.sort();
        names
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        let file = self.disk().open(name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Changes a file, durably.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.content(name);
        change(&mut bytes);
        let file = self.disk().open(name).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_at(0, &bytes).unwrap();
        file.sync_data().unwrap();
    }

    pub fn remove(&self, name: &str) {
        let disk = self.disk();
        disk.remove(name).unwrap();
        disk.sync_directory().unwrap();
    }

    /// Segment and position at which these bytes stand.
    pub fn find(&self, wanted: &[u8]) -> (String, usize) {
        let found = self.names(".log").into_iter().find_map(|name| {
            let at = self.content(&name).windows(wanted.len()).position(|window| window == wanted)?;
            Some((name, at))
        });
        found.expect("the batch is in one of the segments")
    }
}

/// Runs a test on a simulated disk and on a real one.
pub fn on_both_disks(test: impl Fn(Place)) {
    test(Place::Simulated(SimDisk::new(1)));
    test(Place::Real(tempfile::tempdir().unwrap()));
}

pub fn open_on(disk: Arc<dyn Disk>, options: LogOptions) -> (Log, RecoveryReport) {
    open_observed(disk, options, Arc::new(NoObserver))
}

pub fn open_observed(
    disk: Arc<dyn Disk>,
    options: LogOptions,
    observer: Arc<dyn LogObserver>,
) -> (Log, RecoveryReport) {
    Log::open(disk, Arc::new(SimClock::new(NOW_MS)), options, observer).unwrap()
}

/// Small segments and small reservations, so that little work touches much.
pub fn small() -> LogOptions {
    LogOptions { segment_bytes: 8 << 10, reserve_step_bytes: 4 << 10, free_bytes_min: 4 << 10, ..LogOptions::default() }
}

/// A batch of `count` records with `bytes` bytes each; producer is id, epoch and first sequence number.
pub fn batch_of(producer: (i64, i16, i32), count: usize, bytes: usize) -> Vec<u8> {
    let value: Vec<u8> = (0..bytes).map(|at| (at * 7 + producer.2 as usize) as u8).collect();
    let mut builder = BatchBuilder::new(Codec::None).producer(producer.0, producer.1, producer.2);
    for at in 0..count {
        let record = NewRecord { timestamp: NOW_MS + at as i64, key: None, value: Some(&value), headers: &[] };
        builder = builder.record(record);
    }
    builder.build().unwrap()
}

/// A batch of one record with this value.
pub fn batch(value: &str) -> Vec<u8> {
    let record = NewRecord { timestamp: NOW_MS, key: None, value: Some(value.as_bytes()), headers: &[] };
    BatchBuilder::new(Codec::None).record(record).build().unwrap()
}

/// A batch as it must come back.
pub fn stored(batch: &[u8], base_offset: i64) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&[0; 4]);
    bytes
}

/// Creates a topic and waits until it is durable.
pub fn create_topic(log: &Log, name: &str, partitions: u32) -> Vec<PartitionId> {
    let mut id = [0; 16];
    id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    let ticket = log.create_topic(name, id, partitions, BTreeMap::new()).unwrap();
    commit(log, ticket);
    log.catalog().topic(name).unwrap().partitions.clone()
}

pub fn try_append(log: &Log, partition: PartitionId, batch: &[u8]) -> Result<AppendReceipt, baton_log::AppendError> {
    log.append(partition, &BatchHeader::parse(batch).unwrap(), batch)
}

pub fn append(log: &Log, partition: PartitionId, batch: &[u8]) -> AppendReceipt {
    try_append(log, partition, batch).unwrap()
}

/// Commits, which must resolve the ticket.
pub fn commit(log: &Log, ticket: Ticket) {
    log.commit_once();
    assert_eq!(log.durable(ticket).now(), Some(Ok(())));
}

/// Appends a batch in a commit group of its own; returns its offset.
pub fn write(log: &Log, partition: PartitionId, batch: &[u8]) -> i64 {
    let receipt = append(log, partition, batch);
    commit(log, receipt.ticket);
    match receipt.outcome {
        AppendOutcome::Stored { base_offset } => base_offset,
        other => panic!("not stored: {other:?}"),
    }
}

/// Appends batches, each in a commit group of its own.
pub fn write_all(log: &Log, partition: PartitionId, batches: &[Vec<u8>]) {
    for batch in batches {
        write(log, partition, batch);
    }
}

/// All batches of a partition from `offset` on.
pub fn read_from(log: &Log, partition: PartitionId, offset: i64) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut batches = Vec::new();
    let mut next = offset;
    loop {
        let read = log.read(partition, next, 2_000, true, ReadMode::Blocking)?;
        let Some(last) = read.batches.last() else { return Ok(batches) };
        next = BatchHeader::parse(last).unwrap().last_offset() + 1;
        batches.extend(read.batches.iter().map(|batch| batch.to_vec()));
    }
}

/// What a partition holds must be these batches, one record each, from offset 0 on.
pub fn assert_holds(log: &Log, partition: PartitionId, batches: &[Vec<u8>]) {
    let expected: Vec<Vec<u8>> = batches.iter().enumerate().map(|(at, batch)| stored(batch, at as i64)).collect();
    assert!(read_from(log, partition, 0).unwrap() == expected, "partition {partition:?} does not hold what it should");
}

//! The log as its users see it, and the state that its parts share.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::append::Appending;
use crate::catalog::Catalog;
use crate::checkpoint::Tables;
use crate::clock::Clock;
use crate::disk::{Disk, DiskFile};
use crate::durability::{Durability, Durable, Ticket};
use crate::error::{OpenError, Poisoned};
use crate::index::{EntryCache, PartitionIndex};
use crate::maintain::Maintenance;
use crate::options::LogOptions;
use crate::recovery::{self, RecoveryReport};
use crate::segment::segment_name;
use crate::{PartitionId, TableId};

/// Files kept open for reading; more are opened when needed.
const OPEN_FILES_MAX: usize = 256;

/// Is told what the log does, by the thread that commits: must be quick and never wait.
pub trait LogObserver: Send + Sync {
    /// These partitions have new durable records, or a moved start, or are gone.
    fn published(&self, partitions: &[PartitionId]);
    /// The log takes nothing more, for this reason.
    fn poisoned(&self, _reason: &str) {}
}

/// Nobody to tell.
pub struct NoObserver;
impl LogObserver for NoObserver {
    fn published(&self, _partitions: &[PartitionId]) {}
}

/// Where the readable records of a partition begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Offset of the first record that can be read.
    pub log_start: i64,
    /// Offset after the last durable record.
    pub high_watermark: i64,
}

/// What the log has done and holds. Counters count from the start of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Commit groups made durable.
    pub commits: u64,
    /// Syncs of segment data; one for each commit group, whatever it holds.
    pub syncs: u64,
    /// Nanoseconds spent in these syncs.
    pub sync_nanos: u64,
    /// Bytes written to segments.
    pub bytes_written: u64,
    /// Bytes of batches appended, as their producers sent them.
    pub batch_bytes: u64,
    /// Batches appended.
    pub batches: u64,
    /// Batches that were stored before and so were not stored again.
    pub duplicates: u64,
    /// Appends refused because no disk space could be reserved.
    pub refused_full: u64,
    /// Bytes that wait for the next commit group.
    pub pending_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Bytes of the segments.
    pub segment_bytes: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Idempotent producers remembered.
    pub producers: u64,
    /// Damaged offset ranges known.
    pub damaged_ranges: u64,
    /// Why the log takes nothing more, if so.
    pub poisoned: Option<String>,
}

/// Counters that commit and append keep.
#[derive(Default)]
pub(crate) struct Counters {
    pub commits: AtomicU64,
    pub syncs: AtomicU64,
    pub sync_nanos: AtomicU64,
    pub bytes_written: AtomicU64,
    pub batch_bytes: AtomicU64,
    pub batches: AtomicU64,
    pub duplicates: AtomicU64,
    pub refused_full: AtomicU64,
}

/// What readers see: durable things only.
#[derive(Default)]
pub(crate) struct Published {
    pub catalog: Arc<Catalog>,
    pub partitions: BTreeMap<PartitionId, Arc<Mutex<PartitionIndex>>>,
    pub tables: Tables,
    /// Length of each segment's used part, by segment id; the last one is being written.
    pub segments: BTreeMap<u64, u64>,
}

impl Published {
    pub fn partition(&self, partition: PartitionId) -> Option<&Arc<Mutex<PartitionIndex>>> {
        self.partitions.get(&partition)
    }

    pub fn add_partition(&mut self, partition: PartitionId, index: PartitionIndex) {
        self.partitions.insert(partition, Arc::new(Mutex::new(index)));
    }
}

/// Locks in the order `appending`, `published`, one partition, `open_files` / `entry_cache`; never the other way round.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub options: LogOptions,
    pub observer: Arc<dyn LogObserver>,
    pub cluster_id: String,
    pub appending: Mutex<Appending>,
    /// Rung when the pending group is no longer empty, or the log closes.
    pub work: Condvar,
    pub published: RwLock<Published>,
    pub durability: Arc<Durability>,
    pub counters: Counters,
    pub maintenance: Maintenance,
    pub room: Mutex<Vec<Waker>>,
    open_files: Mutex<Vec<(String, Arc<dyn DiskFile>)>>,
    pub entry_cache: Mutex<EntryCache>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Locks a mutex whatever became of a thread that held it: all state changes under these locks are complete or undone.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn read_published(&self) -> RwLockReadGuard<'_, Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write_published(&self) -> RwLockWriteGuard<'_, Published> {
        self.published.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn partition(&self, partition: PartitionId) -> Option<Arc<Mutex<PartitionIndex>>> {
        self.read_published().partition(partition).cloned()
    }

    /// An open file, from those kept open or opened now.
    pub fn open_file(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = lock(&self.open_files);
        if let Some(at) = files.iter().rposition(|(of, _)| of == name) {
            let found = files.remove(at);
            let file = found.1.clone();
            files.push(found);
            return Ok(file);
        }
        let file = self.disk.open(name)?;
        if files.len() >= OPEN_FILES_MAX {
            files.remove(0);
        }
        files.push((name.to_owned(), file.clone()));
        Ok(file)
    }

    pub fn forget_file(&self, name: &str) {
        lock(&self.open_files).retain(|(of, _)| of != name);
    }

    pub fn segment_file(&self, id: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(&segment_name(id))
    }

    pub fn poison(&self, what: &str, error: &io::Error) {
        let reason = format!("{what}: {error}");
        tracing::error!(%reason, "the log stops taking appends until it is opened again");
        self.durability.poison(&reason);
        self.observer.poisoned(&reason);
        self.wake_room();
        self.work.notify_all();
    }

    pub fn wake_room(&self) {
        std::mem::take(&mut *lock(&self.room)).into_iter().for_each(Waker::wake);
    }
}

/// A durable commit log. Clones are handles to the same log.
#[derive(Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

impl Log {
    /// Opens the log on `disk`, or creates it. Reads back what was durable, cuts a torn tail and reports damage. Starts no
    /// thread: [`Log::start`] does.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        observer: Arc<dyn LogObserver>,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let recovered = recovery::recover(disk.as_ref(), clock.as_ref(), &options)?;
        let report = recovered.report.clone();
        let shared = Arc::new(Shared {
            durability: Arc::new(Durability::starting_at(recovered.appending.last_commit())),
            entry_cache: Mutex::new(EntryCache::new(options.index_cache_bytes)),
            disk,
            clock,
            options,
            observer,
            cluster_id: recovered.cluster_id,
            appending: Mutex::new(recovered.appending),
            work: Condvar::new(),
            published: RwLock::new(recovered.published),
            counters: Counters::default(),
            maintenance: Maintenance::starting_with(recovered.maintenance),
            room: Mutex::default(),
            open_files: Mutex::default(),
            threads: Mutex::default(),
        });
        Ok((Self { shared }, report))
    }

    /// Starts the thread that writes and syncs, and the one that writes index files and checkpoints.
    pub fn start(&self) -> io::Result<()> {
        let mut threads = lock(&self.shared.threads);
        let (committer, maintainer) = (self.clone(), self.clone());
        threads.push(std::thread::Builder::new().name("log-commit".into()).spawn(move || committer.run_commits())?);
        threads
            .push(std::thread::Builder::new().name("log-maintain".into()).spawn(move || maintainer.run_maintenance())?);
        Ok(())
    }

    /// Commits what is pending, marks the log as closed in order and ends its threads. Later appends are refused.
    pub fn close(&self) {
        self.refuse_appends();
        self.shared.maintenance.close();
        for thread in std::mem::take(&mut *lock(&self.shared.threads)) {
            // A thread that panicked has left nothing to wait for.
            let _ = thread.join();
        }
        self.mark_closed();
        while self.maintain_once() {}
        self.shared.disk.release();
    }

    /// Identifies the data directory, for ever.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// The topics, as far as they are durable.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.read_published().catalog.clone()
    }

    /// Resolves when everything under `ticket` is durable and visible.
    pub fn durable(&self, ticket: Ticket) -> Durable {
        Durable { durability: self.shared.durability.clone(), ticket }
    }

    /// The same, for threads.
    pub fn wait_durable(&self, ticket: Ticket) -> Result<(), Poisoned> {
        self.shared.durability.wait(ticket)
    }

    /// Why the log takes nothing more, if so.
    pub fn poisoned(&self) -> Option<Poisoned> {
        self.shared.durability.poisoned()
    }

    /// Resolves when appends that were `Backlogged` may be tried again.
    pub fn room(&self) -> Room {
        Room { log: self.clone() }
    }

    /// Where the readable records of a partition begin and end.
    pub fn bounds(&self, partition: PartitionId) -> Option<Bounds> {
        let index = self.shared.partition(partition)?;
        let index = lock(&index);
        Some(Bounds { log_start: index.log_start, high_watermark: index.high_watermark })
    }

    /// A cheap estimate of the bytes that can be read from `offset` on, at most `limit`.
    pub fn bytes_from(&self, partition: PartitionId, offset: i64, limit: usize) -> usize {
        self.shared.partition(partition).map_or(0, |index| lock(&index).bytes_from(offset, limit))
    }

    /// Bytes of a partition's batches on disk.
    pub fn partition_bytes(&self, partition: PartitionId) -> u64 {
        self.shared.partition(partition).map_or(0, |index| lock(&index).bytes())
    }

    /// The value of a key, as far as it is durable.
    pub fn table_get(&self, table: TableId, key: &[u8]) -> Option<Bytes> {
        self.shared.read_published().tables.get(&table)?.get(key).cloned()
    }

    /// All keys that begin with `prefix`, in order, with their values.
    pub fn table_scan(&self, table: TableId, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let published = self.shared.read_published();
        let Some(entries) = published.tables.get(&table) else { return Vec::new() };
        let from = entries.range::<[u8], _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What the log has done and holds.
    pub fn stats(&self) -> LogStats {
        let (pending_bytes, producers) = {
            let appending = lock(&self.shared.appending);
            (appending.pending_bytes() as u64, appending.assigned.producers_total as u64)
        };
        let published = self.shared.read_published();
        let damaged = published.partitions.values().map(|index| lock(index).damaged.len() as u64).sum();
        let counters = &self.shared.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            commits: count(&counters.commits),
            syncs: count(&counters.syncs),
            sync_nanos: count(&counters.sync_nanos),
            bytes_written: count(&counters.bytes_written),
            batch_bytes: count(&counters.batch_bytes),
            batches: count(&counters.batches),
            duplicates: count(&counters.duplicates),
            refused_full: count(&counters.refused_full),
            pending_bytes,
            segments: published.segments.len() as u64,
            segment_bytes: published.segments.values().sum(),
            free_bytes: self.shared.disk.free_bytes().unwrap_or_default(),
            producers,
            damaged_ranges: damaged,
            poisoned: self.poisoned().map(|poisoned| poisoned.0.to_string()),
        }
    }
}

/// Resolves when the pending group has been taken for writing, so that there is room for more, or when the log is poisoned.
pub struct Room {
    log: Log,
}

impl Future for Room {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = &self.log.shared;
        let appending = lock(&shared.appending);
        if appending.pending_bytes() < shared.options.pending_bytes_max / 2 || shared.durability.poisoned().is_some() {
            return Poll::Ready(());
        }
        // Registered under the lock that the committer takes the group under, so no wake-up is missed.
        lock(&shared.room).push(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AppendOutcome, FileDisk, LogOptions, ReadMode, SystemClock};
    use baton_wire::records::{BatchBuilder, BatchHeader, Codec, NewRecord};

    fn open(path: &std::path::Path) -> (Log, RecoveryReport) {
        let disk = Arc::new(FileDisk::open(path).unwrap());
        let options = LogOptions {
            segment_bytes: 64 << 10,
            reserve_step_bytes: 1 << 20,
            free_bytes_min: 0,
            ..LogOptions::default()
        };
        Log::open(disk, Arc::new(SystemClock), options, Arc::new(NoObserver)).unwrap()
    }

    fn append(log: &Log, partition: PartitionId, value: &[u8]) -> i64 {
        let record = NewRecord { value: Some(value), ..NewRecord::default() };
        let batch = BatchBuilder::new(Codec::None).record(record).build().unwrap();
        let receipt = log.append(partition, &BatchHeader::parse(&batch).unwrap(), &batch).unwrap();
        log.wait_durable(receipt.ticket).unwrap();
        let AppendOutcome::Stored { base_offset } = receipt.outcome else { panic!("stored") };
        base_offset
    }

    #[test]
    fn what_was_appended_is_there_after_closing_and_opening_again_across_many_segments() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let (log, report) = open(directory.path());
            assert!(report.damage.is_empty() && report.cut.is_none(), "{report:?}");
            log.start().unwrap();
            if round == 0 {
                let ticket = log.create_topic("t", [1; 16], 2, BTreeMap::new()).unwrap();
                log.wait_durable(ticket).unwrap();
            }
            let topic = log.catalog().topic("t").cloned().unwrap();
            for n in 0..300 {
                assert_eq!(append(&log, topic.partitions[0], &vec![n as u8; 1000]), round * 300 + n);
            }
            assert!(log.stats().segments > 3, "{:?}", log.stats());
            let mut next = 0;
            while next < (round + 1) * 300 {
                let read = log.read(topic.partitions[0], next, 50_000, true, ReadMode::Blocking).unwrap();
                for batch in &read.batches {
                    assert_eq!(BatchHeader::parse(batch).unwrap().base_offset, next);
                    next += 1;
                }
            }
            log.close();
        }
    }
}

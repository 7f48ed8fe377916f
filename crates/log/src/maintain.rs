//! Work behind the writer's back: index files and checkpoints of closed segments, segments that nothing needs any more,
//! producers that have not written for long. None of it is needed for correctness; all of it can be lost and made again.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::index_file::{self, SegmentExtent};
use crate::log::{Log, Shared, lock};
use crate::segment::{checkpoint_name, index_name, segment_name};

/// Checkpoints kept: the newest, and one in case that is damaged.
const CHECKPOINTS_KEPT: usize = 2;
/// How often producers that may have expired are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// A segment that takes no more groups, and the state at its end.
pub(crate) struct SealedSegment {
    pub id: u64,
    /// Length of its used part, in bytes.
    pub end: u64,
    /// The encoded checkpoint for the start of the next segment.
    pub checkpoint: Vec<u8>,
}

/// What is to be done, and what has been.
#[derive(Default)]
pub(crate) struct Maintenance {
    sealed: Mutex<VecDeque<SealedSegment>>,
    /// Segments at whose start a durable checkpoint stands, oldest first.
    checkpoints: Mutex<Vec<u64>>,
    rung: Condvar,
    closed: AtomicBool,
}

impl Maintenance {
    pub fn starting_with((sealed, checkpoints): (Vec<SealedSegment>, Vec<u64>)) -> Self {
        Self { sealed: Mutex::new(sealed.into()), checkpoints: Mutex::new(checkpoints), ..Self::default() }
    }

    pub fn push(&self, sealed: SealedSegment) {
        lock(&self.sealed).push_back(sealed);
        self.rung.notify_one();
    }

    pub fn close(&self) {
        let _sealed = lock(&self.sealed);
        self.closed.store(true, Ordering::Release);
        self.rung.notify_all();
    }
}

impl Log {
    /// Handles one closed segment: writes its index file and checkpoint, gives back unused space, removes what nothing
    /// needs any more. `false` if there was none. What the maintenance thread does; public for those who drive a log
    /// step by step.
    pub fn maintain_once(&self) -> bool {
        let Some(sealed) = lock(&self.shared.maintenance.sealed).pop_front() else { return false };
        let id = sealed.id;
        if let Err(error) = self.shared.settle(sealed) {
            // The index stays in memory and the next start checks more; nothing else depends on it.
            tracing::warn!(segment = id, %error, "writing the index file or checkpoint of a closed segment failed");
        }
        true
    }

    pub(crate) fn run_maintenance(&self) {
        let maintenance = &self.shared.maintenance;
        loop {
            while self.maintain_once() {}
            let sealed = lock(&maintenance.sealed);
            if maintenance.closed.load(Ordering::Acquire) {
                return;
            }
            if sealed.is_empty() {
                let waited =
                    maintenance.rung.wait_timeout(sealed, EXPIRY_INTERVAL).unwrap_or_else(PoisonError::into_inner);
                let timed_out = waited.1.timed_out();
                drop(waited);
                if timed_out {
                    self.expire_producers();
                }
            }
        }
    }

    /// Forgets producers that have not written for `producer_id_expiration_ms`.
    pub fn expire_producers(&self) {
        let before_ms = self.shared.clock.now_ms().saturating_sub(self.shared.options.producer_id_expiration_ms);
        let mut appending = lock(&self.shared.appending);
        let expired: usize =
            appending.assigned.partitions.values_mut().map(|state| state.producers.expire(before_ms)).sum();
        appending.assigned.producers_total -= expired;
    }
}

impl Shared {
    fn settle(&self, sealed: SealedSegment) -> io::Result<()> {
        let extents = self.extents_of(sealed.id);
        let (bytes, on_disk) = index_file::encode(&extents);
        self.write_whole(&index_name(sealed.id), &bytes)?;
        self.use_index_file(on_disk);
        let next = sealed.id + 1;
        self.write_whole(&checkpoint_name(next), &sealed.checkpoint)?;
        let mut checkpoints = lock(&self.maintenance.checkpoints);
        checkpoints.push(next);
        while checkpoints.len() > CHECKPOINTS_KEPT {
            self.disk.remove(&checkpoint_name(checkpoints.remove(0)))?;
        }
        // While there is only one, the segments before it are what a start falls back on.
        let oldest = (checkpoints.len() == CHECKPOINTS_KEPT).then(|| checkpoints[0]);
        drop(checkpoints);
        self.segment_file(sealed.id)?.set_len(sealed.end)?;
        oldest.map_or(Ok(()), |oldest| self.remove_dead_segments(oldest))
    }

    /// What a segment holds of each partition, as far as it is durable.
    fn extents_of(&self, segment: u64) -> Vec<SegmentExtent> {
        let published = self.read_published();
        let partitions = published.partitions.iter();
        partitions
            .filter_map(|(partition, index)| {
                let index = lock(index);
                let extent = index.extents.iter().rev().find(|extent| extent.segment == segment)?.clone();
                let within = |(first, last): &&(i64, i64)| *first >= extent.first_offset && *last <= extent.last_offset;
                let damaged = index.damaged.iter().filter(within).copied().collect();
                Some(SegmentExtent { partition: *partition, extent, damaged })
            })
            .collect()
    }

    /// From now on these extents' entries are read from the index file.
    fn use_index_file(&self, on_disk: Vec<SegmentExtent>) {
        for moved in on_disk {
            let Some(index) = self.partition(moved.partition) else { continue };
            let mut index = lock(&index);
            if let Some(extent) = index.extents.iter_mut().rev().find(|extent| extent.segment == moved.extent.segment) {
                extent.entries = moved.extent.entries;
            }
        }
    }

    /// Writes a file so that it is there whole or not at all.
    fn write_whole(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_whole(self.disk.as_ref(), name, bytes)?;
        self.forget_file(name);
        Ok(())
    }

    /// Removes segments before `oldest_checkpoint` of which no partition holds anything.
    fn remove_dead_segments(&self, oldest_checkpoint: u64) -> io::Result<()> {
        let dead: Vec<u64> = {
            let published = self.read_published();
            let mut live = BTreeSet::new();
            for index in published.partitions.values() {
                live.extend(lock(index).extents.iter().map(|extent| extent.segment));
            }
            published.segments.range(..oldest_checkpoint).map(|(id, _)| *id).filter(|id| !live.contains(id)).collect()
        };
        for id in dead {
            for name in [segment_name(id), index_name(id)] {
                match self.disk.remove(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => self.forget_file(&name),
                }
            }
            lock(&self.entry_cache).forget_segment(id);
            self.write_published().segments.remove(&id);
        }
        Ok(())
    }
}

/// Writes a file so that it is there whole or not at all, and for good.
pub(crate) fn write_whole(disk: &dyn crate::disk::Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.new");
    if let Err(error) = disk.remove(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let file = disk.create(&temporary)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&temporary, name)?;
    disk.sync_directory()
}

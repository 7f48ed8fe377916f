//! A disk in memory that loses, tears and refuses what a real one may, as a seed says.
//!
//! What is written can be read at once, as from a page cache, and is durable only after `sync_data`; a directory entry
//! only after `sync_directory`. Of everything else any part survives when the power fails: sectors of 512 bytes each on
//! their own, lengths in their order, directory changes each on its own.

mod file;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_log::{Disk, DiskFile};

pub use file::SECTOR_BYTES;
use state::State;

/// Kinds of operations, for planting faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading from a file or the directory. A fault is an error of the device.
    Read,
    /// Writing to a file. A fault leaves some of the sectors written.
    Write,
    /// `set_len` and `allocate`. A fault may have its effect or not.
    Length,
    /// `sync_data`. After a fault, what was pending is clean but not durable: it can be read, later syncs succeed, and
    /// yet it is gone after a loss of power.
    SyncData,
    /// Creation, removal and renaming of files. A fault may have its effect or not.
    Directory,
    /// `sync_directory`. After a fault the changes are still pending.
    SyncDirectory,
}

/// What the disk has been asked to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All operations.
    pub operations: u64,
    /// Bytes given to readers.
    pub bytes_read: u64,
    /// Bytes taken from writers.
    pub bytes_written: u64,
    /// `sync_data` that succeeded.
    pub syncs: u64,
    /// `sync_directory` that succeeded.
    pub directory_syncs: u64,
}

/// Promises that the disk breaks: what a log would be that does not ask for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lies {
    /// `sync_data` says yes and does nothing.
    pub sync_data: bool,
    /// `sync_directory` says yes and does nothing.
    pub sync_directory: bool,
}

/// A handle of one process to a simulated disk; clones are handles of the same process.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    process: u64,
}

impl SimDisk {
    /// An empty disk without limits. The same seed and the same operations give the same bytes.
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed))), process: 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_process(&self) -> Self {
        Self { state: self.state.clone(), process: self.state().process }
    }

    /// The process ends, the machine goes on: nothing is lost, nothing more is durable. Returns the handle of the next
    /// process; all others are refused from now on. Planted faults and crashes are forgotten.
    #[must_use]
    pub fn kill(&self) -> Self {
        self.state().kill();
        self.next_process()
    }

    /// The same, and the machine stops too: any part of what is not durable is lost.
    #[must_use]
    pub fn lose_power(&self) -> Self {
        self.state().lose_power();
        self.next_process()
    }

    /// Another disk with the same content, to try something out on.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.state().clone();
        Self { process: state.process, state: Arc::new(Mutex::new(state)) }
    }

    /// The machine stops during the `operations`th operation from now: it has part of its effect, and it and all later
    /// ones fail until [`kill`](Self::kill) or [`lose_power`](Self::lose_power).
    pub fn crash_at(&self, operations: u64) {
        self.state().operations_left = Some(operations.max(1));
    }

    /// Whether the machine has stopped.
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// The `nth` operation of this kind from now fails, once.
    pub fn fail(&self, operation: Operation, nth: u64) {
        self.state().faults.push((operation, nth.max(1)));
    }

    /// Forgets what [`fail`](Self::fail) and [`crash_at`](Self::crash_at) planted and what has not happened yet.
    pub fn forget_faults(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.operations_left = None;
    }

    /// Planted faults that have happened.
    pub fn faults_fired(&self) -> u64 {
        self.state().faults_fired
    }

    /// Limits the space in bytes; may be less than what is used already.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Space that files take, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Space that is left, in bytes.
    pub fn left_bytes(&self) -> u64 {
        self.state().free_bytes()
    }

    /// How often a read that may not wait is told that it would have to, of a hundred.
    pub fn set_cache_misses(&self, percent: u64) {
        self.state().cache_misses_percent = percent;
    }

    /// Makes the disk break promises from now on.
    pub fn set_lies(&self, lies: Lies) {
        self.state().lies = lies;
    }

    /// What the disk has been asked to do.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Names of the files, in order.
    pub fn names(&self) -> Vec<String> {
        self.state().names()
    }

    /// What a process reads from a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.file_named(name).map(|file| state.files[file].view.clone())
    }

    /// Flips one bit of a file, counted from its start; `false` where that bit is not durable.
    pub fn flip_bit(&self, name: &str, bit: u64) -> bool {
        let mut state = self.state();
        let Some(file) = state.file_named(name) else { return false };
        state.note(|| format!("    disk: bit {} of byte {} of {name} flips", bit % 8, bit / 8));
        state.files[file].flip_bit(bit)
    }

    /// A number that differs when anything on the disk differs.
    pub fn fingerprint(&self) -> u64 {
        self.state().fingerprint()
    }

    /// Starts to keep a line for each operation.
    pub fn start_trace(&self) {
        self.state().trace = Some(Vec::new());
    }

    /// Adds a line to the trace, if one is kept.
    pub fn note(&self, line: impl FnOnce() -> String) {
        self.state().note(line);
    }

    /// The lines so far; there are none where no trace was started.
    pub fn take_trace(&self) -> Vec<String> {
        self.state().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn file(&self, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), file })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.state().list(self.process)
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.state().create(self.process, name)?;
        Ok(self.file(file))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.state().open(self.process, name)?;
        Ok(self.file(file))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().remove(self.process, name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.state().rename(self.process, from, to)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.state().sync_directory(self.process)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.state().free(self.process)
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.state().length(self.disk.process, self.file)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.state().set_len(self.disk.process, self.file, len)
    }
    fn allocate(&self, at: u64, len: u64) -> io::Result<()> {
        self.disk.state().allocate(self.disk.process, self.file, at, len)
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.state().read(self.disk.process, self.file, at, into)
    }
    fn read_cached_at(&self, at: u64, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut state = self.disk.state();
        let percent = state.cache_misses_percent;
        if percent > 0 && state.random.percent(percent) {
            return Ok(None);
        }
        state.read(self.disk.process, self.file, at, into).map(Some)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.state().write(self.disk.process, self.file, at, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.state().sync(self.disk.process, self.file)
    }
}

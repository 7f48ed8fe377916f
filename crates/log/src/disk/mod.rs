//! The only door to the disk. Everything the log does to files goes through these two traits, so that a simulated disk can
//! lose, tear and refuse what a real one may.
//!
//! What the log relies on, and nothing more:
//! - bytes written are durable only after `sync_data` on that file returned `Ok`; until then any subset of the 512-byte
//!   sectors touched may survive a crash;
//! - a file created, renamed or removed is so for good only after `sync_directory` returned `Ok`;
//! - after a failed write or sync nothing may be assumed about what was not yet durable, and a later successful sync
//!   proves nothing about it.

mod file_disk;

use std::io;
use std::sync::Arc;

pub use file_disk::FileDisk;

/// One flat directory of files.
pub trait Disk: Send + Sync {
    /// Names of all the files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file. Errors: `AlreadyExists`.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing. Errors: `NotFound`.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file. Who has it open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// Bytes that can still be allocated.
    fn free_bytes(&self) -> io::Result<u64>;
    /// The log has closed and writes no more, though readers may still be there: others may have the directory.
    fn release(&self) {}
}

/// One open file. Offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it with zeros that are not reserved on the disk.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves `len` bytes at `at`: the file becomes at least that long, new bytes read as zero, and a later write
    /// there does not run out of space. Errors: `StorageFull`.
    fn allocate(&self, at: u64, len: u64) -> io::Result<()>;
    /// Fills `into` from `at`; returns how much was there, less than asked only at the end of the file.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// The same, but only if it needs no waiting for the device; `None` where it would.
    fn read_cached_at(&self, at: u64, into: &mut [u8]) -> io::Result<Option<usize>>;
    /// Writes all of `bytes` at `at`.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written so far durable, the length included.
    fn sync_data(&self) -> io::Result<()>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

//! A disk with somebody watching its syncs.

use std::io;
use std::sync::Arc;

use baton_log::{Disk, DiskFile};

/// Called before each sync of a file's data; may hold it up, or let it fail.
type BeforeSync = dyn Fn() -> io::Result<()> + Send + Sync;

/// A disk that calls somebody before each sync of a file's data.
pub struct ProbedDisk<D> {
    disk: D,
    before_sync: Arc<BeforeSync>,
}

struct ProbedFile {
    file: Arc<dyn DiskFile>,
    before_sync: Arc<BeforeSync>,
}

impl<D: Disk> ProbedDisk<D> {
    /// Watches the syncs of `disk`.
    pub fn new(disk: D, before_sync: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { disk, before_sync: Arc::new(before_sync) }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(ProbedFile { file, before_sync: self.before_sync.clone() })
    }
}

impl<D: Disk> Disk for ProbedDisk<D> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(name)?))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
    fn release(&self) {
        self.disk.release();
    }
}

impl DiskFile for ProbedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, at: u64, len: u64) -> io::Result<()> {
        self.file.allocate(at, len)
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(at, into)
    }
    fn read_cached_at(&self, at: u64, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.file.read_cached_at(at, into)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(at, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        (self.before_sync)()?;
        self.file.sync_data()
    }
}

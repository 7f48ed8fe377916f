//! A disk whose syncs can be held up, and can fail.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use baton_log::{Disk, DiskFile, FileDisk};

/// Held syncs wait here.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    waiting: usize,
    is_broken: bool,
}

/// The gate is closed as long as this lives.
pub struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state.lock().expect("nobody panics with it").is_closed = false;
        self.0.changed.notify_all();
    }
}

impl Gate {
    /// Holds up every sync that begins from now on.
    pub fn hold(&self) -> Held<'_> {
        self.state.lock().expect("nobody panics with it").is_closed = true;
        Held(self)
    }

    /// Syncs being held up.
    pub fn waiting(&self) -> usize {
        self.state.lock().expect("nobody panics with it").waiting
    }

    /// Lets every sync fail from now on, also those that are held up.
    pub fn break_disk(&self) {
        self.state.lock().expect("nobody panics with it").is_broken = true;
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.state.lock().expect("nobody panics with it");
        state.waiting += 1;
        state = self.changed.wait_while(state, |state| state.is_closed).expect("nobody panics with it");
        state.waiting -= 1;
        if state.is_broken { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
    }
}

/// A real disk behind a [`Gate`].
pub struct GatedDisk {
    pub disk: FileDisk,
    pub gate: Arc<Gate>,
}

struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl GatedDisk {
    fn gated(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GatedFile { file, gate: self.gate.clone() })
    }
}

impl Disk for GatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name).map(|file| self.gated(file))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.gated(file))
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

impl DiskFile for GatedFile {
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
        self.gate.pass()?;
        self.file.sync_data()
    }
}

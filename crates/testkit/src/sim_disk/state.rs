//! What a simulated disk holds, shared by all its handles.

use std::collections::BTreeMap;
use std::io;

use super::file::{File, SECTOR_BYTES, Survivors};
use super::{Counts, Lies, Operation};
use crate::random::Random;

/// What a device says that cannot read or write.
const EIO: i32 = 5;
/// Lines of a trace that are kept; a run that needs more is not for a person to read.
const TRACE_LINES_MAX: usize = 200_000;

/// A change of the directory that is not durable yet.
#[derive(Debug, Clone)]
enum EntryChange {
    Created { name: String, file: usize },
    Removed { name: String, file: usize },
    Renamed { from: String, to: String, file: usize },
}

fn apply(change: &EntryChange, entries: &mut BTreeMap<String, usize>) {
    match change {
        EntryChange::Created { name, file } => {
            entries.insert(name.clone(), *file);
        }
        EntryChange::Removed { name, file } => {
            if entries.get(name) == Some(file) {
                entries.remove(name);
            }
        }
        EntryChange::Renamed { from, to, file } => {
            if entries.get(from) == Some(file) {
                entries.remove(from);
            }
            entries.insert(to.clone(), *file);
        }
    }
}

/// How an operation goes.
enum Way {
    Well,
    /// With an error, and part of its effect.
    Wrong(io::Error),
}

#[derive(Clone)]
pub(super) struct State {
    pub random: Random,
    /// Handles of an earlier process are refused.
    pub process: u64,
    pub files: Vec<File>,
    entries: BTreeMap<String, usize>,
    entries_durable: BTreeMap<String, usize>,
    entries_pending: Vec<EntryChange>,
    pub capacity_bytes: u64,
    /// Operations until the crash.
    pub operations_left: Option<u64>,
    pub crashed: bool,
    pub faults: Vec<(Operation, u64)>,
    pub faults_fired: u64,
    pub lies: Lies,
    pub cache_misses_percent: u64,
    pub counts: Counts,
    pub trace: Option<Vec<String>>,
}

impl State {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            process: 0,
            files: Vec::new(),
            entries: BTreeMap::new(),
            entries_durable: BTreeMap::new(),
            entries_pending: Vec::new(),
            capacity_bytes: u64::MAX,
            operations_left: None,
            crashed: false,
            faults: Vec::new(),
            faults_fired: 0,
            lies: Lies::default(),
            cache_misses_percent: 0,
            counts: Counts::default(),
            trace: None,
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace
            && trace.len() < TRACE_LINES_MAX
        {
            trace.push(line());
        }
    }

    fn begin(&mut self, process: u64, operation: Operation, what: impl FnOnce() -> String) -> io::Result<Way> {
        if self.crashed || process != self.process {
            return Err(crashed());
        }
        self.counts.operations += 1;
        let number = self.counts.operations;
        if let Some(left) = &mut self.operations_left {
            *left = left.saturating_sub(1);
            self.crashed = *left == 0;
        }
        let fault = self.faults.iter_mut().find(|(of, _)| *of == operation).and_then(|(_, left)| {
            *left = left.saturating_sub(1);
            (*left == 0).then_some(())
        });
        if fault.is_some() {
            let at = self.faults.iter().position(|(of, left)| *of == operation && *left == 0);
            at.map(|at| self.faults.remove(at));
            self.faults_fired += 1;
        }
        let way = match (self.crashed, fault) {
            (true, _) => Way::Wrong(crashed()),
            (_, Some(())) => Way::Wrong(io::Error::from_raw_os_error(EIO)),
            _ => Way::Well,
        };
        self.note(|| {
            let outcome = match &way {
                Way::Well => String::new(),
                Way::Wrong(error) => format!(" -> {error}"),
            };
            format!("    disk {number}: {operation:?} {}{outcome}", what())
        });
        Ok(way)
    }

    pub fn used_bytes(&self) -> u64 {
        self.entries.values().map(|file| self.files[*file].allocated_bytes()).sum()
    }

    pub fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes())
    }

    pub fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    pub fn file_named(&self, name: &str) -> Option<usize> {
        self.entries.get(name).copied()
    }

    pub fn list(&mut self, process: u64) -> io::Result<Vec<String>> {
        if let Way::Wrong(error) = self.begin(process, Operation::Read, || "list".to_owned())? {
            return Err(error);
        }
        let mut names = self.names();
        self.random.shuffle(&mut names);
        Ok(names)
    }

    pub fn open(&mut self, process: u64, name: &str) -> io::Result<usize> {
        if let Way::Wrong(error) = self.begin(process, Operation::Read, || format!("open {name}"))? {
            return Err(error);
        }
        self.file_named(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Applies a change of the directory, or, going wrong, perhaps.
    fn change_entries(&mut self, way: Way, change: EntryChange) -> io::Result<()> {
        let happens = matches!(way, Way::Well) || self.random.coin();
        if happens {
            apply(&change, &mut self.entries);
            self.entries_pending.push(change);
        }
        match way {
            Way::Well => Ok(()),
            Way::Wrong(error) => Err(error),
        }
    }

    pub fn create(&mut self, process: u64, name: &str) -> io::Result<usize> {
        let way = self.begin(process, Operation::Directory, || format!("create {name}"))?;
        if self.entries.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = self.files.len();
        self.files.push(File::default());
        self.change_entries(way, EntryChange::Created { name: name.to_owned(), file })?;
        Ok(file)
    }

    pub fn remove(&mut self, process: u64, name: &str) -> io::Result<()> {
        let way = self.begin(process, Operation::Directory, || format!("remove {name}"))?;
        let file = self.file_named(name).ok_or(io::ErrorKind::NotFound)?;
        self.change_entries(way, EntryChange::Removed { name: name.to_owned(), file })
    }

    pub fn rename(&mut self, process: u64, from: &str, to: &str) -> io::Result<()> {
        let way = self.begin(process, Operation::Directory, || format!("rename {from} to {to}"))?;
        let file = self.file_named(from).ok_or(io::ErrorKind::NotFound)?;
        self.change_entries(way, EntryChange::Renamed { from: from.to_owned(), to: to.to_owned(), file })
    }

    pub fn sync_directory(&mut self, process: u64) -> io::Result<()> {
        if let Way::Wrong(error) = self.begin(process, Operation::SyncDirectory, String::new)? {
            return Err(error);
        }
        self.counts.directory_syncs += 1;
        if !self.lies.sync_directory {
            self.entries_pending.clear();
            self.entries_durable.clone_from(&self.entries);
        }
        Ok(())
    }

    pub fn free(&mut self, process: u64) -> io::Result<u64> {
        match self.begin(process, Operation::Read, || "free bytes".to_owned())? {
            Way::Well => Ok(self.free_bytes()),
            Way::Wrong(error) => Err(error),
        }
    }

    pub fn set_len(&mut self, process: u64, file: usize, length: u64) -> io::Result<()> {
        let way = self.begin(process, Operation::Length, || format!("file {file} set_len {length}"))?;
        if matches!(way, Way::Well) || self.random.coin() {
            self.files[file].set_len(length as usize);
        }
        match way {
            Way::Well => Ok(()),
            Way::Wrong(error) => Err(error),
        }
    }

    pub fn allocate(&mut self, process: u64, file: usize, at: u64, length: u64) -> io::Result<()> {
        let way = self.begin(process, Operation::Length, || format!("file {file} allocate {length} at {at}"))?;
        let end = (at + length) as usize;
        let sectors = File::sectors(at as usize, length as usize);
        let full = self.files[file].missing_bytes(sectors.clone()) > self.free_bytes();
        let happens = !full && (matches!(way, Way::Well) || self.random.coin());
        if happens {
            if end > self.files[file].view.len() {
                self.files[file].set_len(end);
            }
            self.files[file].allocate(sectors);
        }
        match way {
            Way::Wrong(error) => Err(error),
            Way::Well if full => Err(io::ErrorKind::StorageFull.into()),
            Way::Well => Ok(()),
        }
    }

    pub fn write(&mut self, process: u64, file: usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len();
        let way = self.begin(process, Operation::Write, || format!("file {file} write {length} at {at}"))?;
        self.counts.bytes_written += length as u64;
        let at = at as usize;
        let sectors = File::sectors(at, length);
        let missing = self.files[file].missing_bytes(sectors.clone());
        if let Way::Wrong(error) = way {
            let survivors = Survivors::choose(&mut self.random).of(sectors.len(), &mut self.random);
            if missing <= self.free_bytes() {
                self.files[file].allocate(sectors.clone());
                self.files[file].write(at, bytes, |sector| survivors[sector - sectors.start]);
            }
            return Err(error);
        }
        if missing > self.free_bytes() {
            // What still fitted is written, as a file system does.
            let fits = sectors.start + (self.free_bytes() / SECTOR_BYTES as u64) as usize;
            let end = (fits * SECTOR_BYTES).clamp(at, at + length);
            self.files[file].allocate(File::sectors(at, end - at));
            self.files[file].write(at, &bytes[..end - at], |_| true);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files[file].allocate(sectors);
        self.files[file].write(at, bytes, |_| true);
        Ok(())
    }

    pub fn sync(&mut self, process: u64, file: usize) -> io::Result<()> {
        let way = self.begin(process, Operation::SyncData, || format!("file {file}"))?;
        if let Way::Wrong(error) = way {
            if !self.crashed {
                self.files[file].fail_sync(&mut self.random);
            }
            return Err(error);
        }
        self.counts.syncs += 1;
        if !self.lies.sync_data {
            self.files[file].sync();
        }
        Ok(())
    }

    pub fn read(&mut self, process: u64, file: usize, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len();
        if let Way::Wrong(error) =
            self.begin(process, Operation::Read, || format!("file {file} read {length} at {at}"))?
        {
            return Err(error);
        }
        let view = &self.files[file].view;
        let from = view.len().min(at as usize);
        let count = (view.len() - from).min(length);
        into[..count].copy_from_slice(&view[from..from + count]);
        self.counts.bytes_read += count as u64;
        Ok(count)
    }

    pub fn length(&mut self, process: u64, file: usize) -> io::Result<u64> {
        match self.begin(process, Operation::Read, || format!("file {file} length"))? {
            Way::Well => Ok(self.files[file].view.len() as u64),
            Way::Wrong(error) => Err(error),
        }
    }

    /// The process ends and its handles with it; the page cache stays.
    pub fn kill(&mut self) {
        self.process += 1;
        self.crashed = false;
        self.operations_left = None;
        self.faults.clear();
        self.note(|| "    disk: the process ended, the machine goes on".to_owned());
    }

    /// The machine stops: of what was not durable, any part survives.
    pub fn lose_power(&mut self) {
        self.kill();
        let pending = std::mem::take(&mut self.entries_pending);
        let survivors = Survivors::choose(&mut self.random).of(pending.len(), &mut self.random);
        for (change, kept) in pending.iter().zip(survivors) {
            if kept {
                apply(change, &mut self.entries_durable);
            }
        }
        self.entries.clone_from(&self.entries_durable);
        for (name, file) in self.entries.clone() {
            let before = self.files[file].pending.len();
            self.files[file].lose_power(&mut self.random);
            self.note(|| format!("    disk: power lost; {name} (file {file}) had {before} pending changes"));
        }
    }

    /// A number that differs when anything differs.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        };
        for (name, file) in self.entries.iter().chain(&self.entries_durable) {
            add(name.as_bytes());
            add(&file.to_le_bytes());
            add(&self.files[*file].view);
            add(&self.files[*file].durable);
            add(&self.files[*file].pending.len().to_le_bytes());
        }
        add(&self.counts.operations.to_le_bytes());
        hash
    }
}

fn crashed() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

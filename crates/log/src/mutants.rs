//! Faults planted on purpose, so that the simulator can show that it would find them. Not part of any normal build.

use std::io;

use crate::disk::DiskFile;
use crate::options::LogOptions;

/// A rule of the log that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Recovery takes frames without looking at the checksums of their batches.
    TailNotChecked,
    /// A failed sync is tried again, and believed if it succeeds then.
    FailedSyncRetried,
}

pub(crate) fn after_sync(options: &LogOptions, file: &dyn DiskFile, synced: io::Result<()>) -> io::Result<()> {
    match synced {
        Err(_) if options.mutant == Some(Mutant::FailedSyncRetried) => file.sync_data(),
        other => other,
    }
}

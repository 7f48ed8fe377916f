//! Looking records up by their timestamps.

use std::sync::Arc;

use baton_wire::records::Records;

use crate::PartitionId;
use crate::error::ReadError;
use crate::index::{Entries, Extent, IndexEntry};
use crate::log::{Log, lock};
use crate::read::ReadMode;

/// Bytes looked through at a time.
const SCAN_BYTES: usize = 1 << 20;

impl Log {
    /// Offset and timestamp of the first readable record whose timestamp is `timestamp_ms` or later. May wait for the disk.
    pub fn offset_at_time(&self, partition: PartitionId, timestamp_ms: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let (log_start, extents) = self.extents(partition, |extent| extent.max_timestamp >= timestamp_ms)?;
        for extent in extents {
            for entry in self.entries_of(partition, &extent)?.iter().filter(|entry| entry.max_timestamp >= timestamp_ms)
            {
                if let Some(found) = self.search_run(partition, entry, log_start, timestamp_ms)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Offset and timestamp of the first readable record that has the largest timestamp. May wait for the disk.
    pub fn max_timestamp(&self, partition: PartitionId) -> Result<Option<(i64, i64)>, ReadError> {
        let (log_start, extents) = self.extents(partition, |_| true)?;
        let mut largest: Option<i64> = None;
        for extent in &extents {
            // The extent that the log start cuts may have its largest timestamp before it.
            let from_entries = extent.first_offset < log_start;
            let timestamp = if from_entries {
                self.max_of_cut_extent(partition, extent, log_start)?
            } else {
                Some(extent.max_timestamp)
            };
            largest = largest.max(timestamp);
        }
        match largest {
            Some(timestamp) if timestamp >= 0 => self.offset_at_time(partition, timestamp),
            _ => Ok(None),
        }
    }

    fn extents(
        &self,
        partition: PartitionId,
        wanted: impl Fn(&Extent) -> bool,
    ) -> Result<(i64, Vec<Extent>), ReadError> {
        let index = self.shared.partition(partition).ok_or(ReadError::UnknownPartition)?;
        let index = lock(&index);
        Ok((index.log_start, index.extents.iter().filter(|extent| wanted(extent)).cloned().collect()))
    }

    fn entries_of(&self, partition: PartitionId, extent: &Extent) -> Result<Arc<[IndexEntry]>, ReadError> {
        match &extent.entries {
            Entries::InMemory(entries) => Ok(Arc::from(entries.as_slice())),
            Entries::OnDisk { position, count } => {
                self.shared.load_entries(partition, (extent.segment, *position, *count), ReadMode::Blocking)
            }
        }
    }

    /// The first record of a run at or after both `log_start` and `timestamp_ms`.
    fn search_run(
        &self,
        partition: PartitionId,
        run: &IndexEntry,
        log_start: i64,
        timestamp_ms: i64,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        let mut found = None;
        self.for_records(partition, run, log_start, |offset, timestamp| {
            found = (timestamp >= timestamp_ms).then_some((offset, timestamp));
            found.is_none()
        })?;
        Ok(found)
    }

    /// Shows offset and timestamp of the records of a run from `log_start` on, until `more` says that it is enough.
    fn for_records(
        &self,
        partition: PartitionId,
        run: &IndexEntry,
        log_start: i64,
        mut more: impl FnMut(i64, i64) -> bool,
    ) -> Result<(), ReadError> {
        let from = run.base_offset.max(log_start);
        let bytes_max = SCAN_BYTES.min(run.length as usize);
        let read = match self.read(partition, from, bytes_max, true, ReadMode::Blocking) {
            Ok(read) => read,
            // The start may have moved, or a part be damaged: what cannot be read cannot be the answer.
            Err(ReadError::OutOfRange(_) | ReadError::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for batch in &read.batches {
            let records = Records::open(batch).map_err(|error| ReadError::Io(error.to_string()))?;
            for record in records.iter().map_while(Result::ok).filter(|record| record.offset >= log_start) {
                if !more(record.offset, record.timestamp) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn max_of_cut_extent(
        &self,
        partition: PartitionId,
        extent: &Extent,
        log_start: i64,
    ) -> Result<Option<i64>, ReadError> {
        let entries = self.entries_of(partition, extent)?;
        let first = entries.partition_point(|entry| entry.base_offset <= log_start).saturating_sub(1);
        let rest = &entries[first.min(entries.len())..];
        let Some((cut, whole)) = rest.split_first() else { return Ok(None) };
        // What an entry says covers records before the log start, too.
        let mut largest = whole.iter().map(|entry| entry.max_timestamp).max();
        self.for_records(partition, cut, log_start, |_, timestamp| {
            largest = largest.max(Some(timestamp));
            true
        })?;
        Ok(largest)
    }
}

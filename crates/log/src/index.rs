//! Where a partition's batches lie: from offset, or time, to segment and position.

use std::sync::Arc;

use crate::frame::frame_bytes;

/// Neighbouring frames of one partition share an entry up to this size: a log with one busy partition stays small.
const RUN_BYTES_MAX: u32 = 32 << 10;

/// One frame, or a run of neighbouring frames, of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Largest timestamp of its batches.
    pub max_timestamp: i64,
    /// Where the first frame begins in the segment.
    pub position: u32,
    /// Bytes up to the end of the last frame.
    pub length: u32,
}

impl IndexEntry {
    pub fn end(&self) -> u64 {
        u64::from(self.position) + u64::from(self.length)
    }
}

/// A batch as it was stored: what an index learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub base_offset: i64,
    pub last_offset: i64,
    pub max_timestamp: i64,
    pub position: u32,
    pub payload_len: u32,
}

/// The entries of an extent: in memory while its segment may still grow, in the segment's index file afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entries {
    InMemory(Vec<IndexEntry>),
    OnDisk { position: u64, count: u32 },
}

/// What one segment holds of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub segment: u64,
    pub first_offset: i64,
    pub last_offset: i64,
    pub max_timestamp: i64,
    pub bytes: u64,
    pub entries: Entries,
}

/// Part of a segment to read, and what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// These entries, oldest first, from the one that may contain the wanted offset on.
    Entries { segment: u64, entries: Vec<IndexEntry> },
    /// Entries of a closed segment, to be loaded from its index file.
    OnDisk { segment: u64, position: u64, count: u32 },
}

/// The index of one partition. Holds durable batches only.
#[derive(Debug, Default)]
pub(crate) struct PartitionIndex {
    pub log_start: i64,
    /// First offset that is not durable yet.
    pub high_watermark: i64,
    /// Oldest first; their offsets ascend and do not overlap.
    pub extents: Vec<Extent>,
    /// Offsets that were stored and are not there: first and last of each range, ascending.
    pub damaged: Vec<(i64, i64)>,
}

impl PartitionIndex {
    /// Takes in the next durable batch. Offsets between the last one and this one were stored once and are lost.
    pub fn add(&mut self, segment: u64, stored: Stored) {
        self.skip_to(stored.base_offset);
        self.high_watermark = stored.last_offset + 1;
        match self.extents.last_mut() {
            Some(extent) if extent.segment == segment => extent.add(stored),
            _ => {
                let mut extent = Extent::new(segment, stored.base_offset);
                extent.add(stored);
                self.extents.push(extent);
            }
        }
    }

    /// Takes in what a closed segment holds.
    pub fn add_extent(&mut self, extent: Extent, damaged: &[(i64, i64)]) {
        self.skip_to(extent.first_offset);
        self.damaged.extend_from_slice(damaged);
        self.high_watermark = extent.last_offset + 1;
        self.extents.push(extent);
    }

    /// The next offset is known to be `offset`: what is missing before it is damaged.
    pub fn skip_to(&mut self, offset: i64) {
        let expected = self.high_watermark.max(self.log_start);
        if offset > expected {
            self.damaged.push((expected, offset - 1));
        }
        self.high_watermark = self.high_watermark.max(offset);
    }

    /// Moves the log start forward; forgets extents that lie before it.
    pub fn set_log_start(&mut self, offset: i64) {
        self.log_start = self.log_start.max(offset);
        self.high_watermark = self.high_watermark.max(self.log_start);
        let start = self.log_start;
        self.extents.retain(|extent| extent.last_offset >= start);
        self.damaged.retain(|(_, last)| *last >= start);
        self.damaged.iter_mut().for_each(|(first, _)| *first = start.max(*first));
    }

    pub fn bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.bytes).sum()
    }

    /// Where `offset` and what follows it within the same segment lies; `Err` names the damaged range it falls into.
    /// Only called with an offset between log start and high watermark.
    pub fn place(&self, offset: i64, bytes_max: usize) -> Result<Place, (i64, i64)> {
        let at = self.extents.partition_point(|extent| extent.last_offset < offset);
        let Some(extent) = self.extents.get(at) else { return Err((offset, self.high_watermark - 1)) };
        if extent.first_offset > offset {
            return Err((offset, extent.first_offset - 1));
        }
        Ok(match &extent.entries {
            Entries::OnDisk { position, count } => {
                Place::OnDisk { segment: extent.segment, position: *position, count: *count }
            }
            Entries::InMemory(entries) => {
                Place::Entries { segment: extent.segment, entries: entries_from(entries, offset, bytes_max).to_vec() }
            }
        })
    }

    /// A cheap estimate of the bytes from `offset` on, at most `limit`.
    pub fn bytes_from(&self, offset: i64, limit: usize) -> usize {
        let mut bytes = 0;
        for extent in self.extents.iter().rev() {
            if bytes >= limit || extent.last_offset < offset {
                break;
            }
            bytes += if extent.first_offset >= offset {
                extent.bytes as usize
            } else {
                match &extent.entries {
                    Entries::InMemory(entries) => {
                        entries_from(entries, offset, limit).iter().map(|entry| entry.length as usize).sum()
                    }
                    // The middle of a closed segment: its share by offsets is near enough for a wake-up.
                    Entries::OnDisk { .. } => {
                        let part = (extent.last_offset - offset + 1) as f64;
                        let whole = (extent.last_offset - extent.first_offset + 1) as f64;
                        (extent.bytes as f64 * part / whole) as usize
                    }
                }
            };
        }
        bytes.min(limit)
    }
}

/// The entries that cover `bytes_max` bytes from the one that contains `offset` on.
pub(crate) fn entries_from(entries: &[IndexEntry], offset: i64, bytes_max: usize) -> &[IndexEntry] {
    let first = entries.partition_point(|entry| entry.base_offset <= offset).saturating_sub(1);
    let mut bytes = 0;
    let rest = &entries[first..];
    let count = rest
        .iter()
        .take_while(|entry| {
            let wanted = bytes < bytes_max;
            bytes += entry.length as usize;
            wanted
        })
        .count();
    &rest[..count.max(1).min(rest.len())]
}

impl Extent {
    pub fn new(segment: u64, first_offset: i64) -> Self {
        Self {
            segment,
            first_offset,
            last_offset: first_offset - 1,
            max_timestamp: i64::MIN,
            bytes: 0,
            entries: Entries::InMemory(Vec::new()),
        }
    }

    fn add(&mut self, stored: Stored) {
        let length = frame_bytes(stored.payload_len as usize) as u32;
        let follows = self.last_offset + 1 == stored.base_offset;
        self.last_offset = stored.last_offset;
        self.max_timestamp = self.max_timestamp.max(stored.max_timestamp);
        self.bytes += u64::from(stored.payload_len);
        let Entries::InMemory(entries) = &mut self.entries else { return };
        match entries.last_mut() {
            Some(run) if follows && run.end() == u64::from(stored.position) && run.length + length <= RUN_BYTES_MAX => {
                run.length += length;
                run.max_timestamp = run.max_timestamp.max(stored.max_timestamp);
            }
            _ => entries.push(IndexEntry {
                base_offset: stored.base_offset,
                max_timestamp: stored.max_timestamp,
                position: stored.position,
                length,
            }),
        }
    }
}

/// Segment and position in its index file.
type Loaded = (u64, u64);

/// Entries of closed segments, loaded from their index files and kept up to a number of bytes.
pub(crate) struct EntryCache {
    bytes_max: usize,
    bytes: usize,
    /// Oldest use first. Few and large, so a walk is cheap.
    loaded: Vec<(Loaded, Arc<[IndexEntry]>)>,
}

impl EntryCache {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, loaded: Vec::new() }
    }

    pub fn get(&mut self, segment: u64, position: u64) -> Option<Arc<[IndexEntry]>> {
        let at = self.loaded.iter().rposition(|(key, _)| *key == (segment, position))?;
        let found = self.loaded.remove(at);
        let entries = found.1.clone();
        self.loaded.push(found);
        Some(entries)
    }

    pub fn put(&mut self, segment: u64, position: u64, entries: Arc<[IndexEntry]>) {
        self.bytes += size_of_val(&*entries);
        self.loaded.push(((segment, position), entries));
        // The newest one stays even if it alone is too large: its reader is about to use it.
        while self.bytes > self.bytes_max && self.loaded.len() > 1 {
            let (_, oldest) = self.loaded.remove(0);
            self.bytes -= size_of_val(&*oldest);
        }
    }

    pub fn forget_segment(&mut self, segment: u64) {
        self.loaded.retain(|((of, _), _)| *of != segment);
        self.bytes = self.loaded.iter().map(|(_, entries)| size_of_val(&**entries)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(base_offset: i64, count: i64, position: u32) -> Stored {
        Stored {
            base_offset,
            last_offset: base_offset + count - 1,
            max_timestamp: base_offset,
            position,
            payload_len: 100,
        }
    }

    #[test]
    fn neighbouring_frames_share_an_entry_and_others_do_not() {
        let mut index = PartitionIndex::default();
        let length = frame_bytes(100) as u32;
        index.add(1, stored(0, 2, 64));
        index.add(1, stored(2, 2, 64 + length));
        index.add(1, stored(4, 2, 64 + 3 * length));
        let Entries::InMemory(entries) = &index.extents[0].entries else { panic!("still in memory") };
        assert_eq!(
            entries.iter().map(|entry| (entry.base_offset, entry.length)).collect::<Vec<_>>(),
            [(0, 2 * length), (4, length)]
        );
    }

    #[test]
    fn a_hole_in_the_offsets_is_damage_and_is_named() {
        let mut index = PartitionIndex::default();
        index.add(1, stored(0, 2, 64));
        index.add(1, stored(5, 1, 640));
        index.add(2, stored(9, 1, 64));
        assert_eq!(index.damaged, [(2, 4), (6, 8)]);
        assert_eq!(index.place(7, 1), Err((7, 8)));
        assert!(index.place(5, 1).is_ok());
    }

    #[test]
    fn entries_cover_what_was_asked_and_begin_with_the_offset() {
        let entries: Vec<_> = (0..10)
            .map(|n| IndexEntry { base_offset: n * 10, max_timestamp: 0, position: n as u32 * 1000, length: 500 })
            .collect();
        let offsets =
            |offset, bytes| entries_from(&entries, offset, bytes).iter().map(|e| e.base_offset).collect::<Vec<_>>();
        assert_eq!(offsets(35, 1), [30]);
        assert_eq!(offsets(35, 501), [30, 40]);
        assert_eq!(offsets(30, 0), [30]);
        assert_eq!(offsets(95, 10_000), [90]);
    }

    #[test]
    fn moving_the_log_start_forgets_what_lies_before() {
        let mut index = PartitionIndex::default();
        index.add(1, stored(0, 2, 64));
        index.add(2, stored(2, 2, 64));
        index.set_log_start(2);
        assert_eq!(index.extents.len(), 1);
        index.set_log_start(1);
        assert_eq!(index.log_start, 2);
    }

    #[test]
    fn the_entry_cache_stays_within_its_bytes() {
        let mut cache = EntryCache::new(3 * size_of::<IndexEntry>());
        let one: Arc<[IndexEntry]> =
            Arc::from([IndexEntry { base_offset: 0, max_timestamp: 0, position: 0, length: 0 }]);
        (0..5).for_each(|segment| cache.put(segment, 0, one.clone()));
        assert!(cache.get(0, 0).is_none() && cache.get(1, 0).is_none());
        assert!(cache.get(4, 0).is_some());
        cache.forget_segment(4);
        assert!(cache.get(4, 0).is_none());
    }
}

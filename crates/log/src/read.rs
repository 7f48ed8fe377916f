//! Reading durable batches: by the index to the segments, in as few reads as their neighbourhood allows, handed out
//! without copying record by record.

use std::sync::Arc;

use baton_wire::records::BatchHeader;
use bytes::Bytes;

use crate::PartitionId;
use crate::disk::DiskFile;
use crate::error::ReadError;
use crate::frame::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, FrameKind, checked_batch};
use crate::index::{IndexEntry, Place, entries_from};
use crate::index_file;
use crate::log::{Bounds, Log, Shared, lock};
use crate::rebuild;
use crate::segment::{Walker, index_name};

/// One read never gathers more than this, whatever it was asked for.
const READ_BYTES_MAX: usize = 64 << 20;

/// Whether a read may wait for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Only what lies in the page cache; [`ReadError::NotCached`] otherwise. Never blocks the thread.
    Cached,
    /// Wait as long as it takes.
    Blocking,
}

/// Batches of one partition, whole and in order.
#[derive(Debug, Clone)]
pub struct ReadBatches {
    /// As they were appended, but for their offsets. The first one contains the offset that was asked for.
    pub batches: Vec<Bytes>,
    /// Their total size in bytes.
    pub bytes: usize,
    /// Where the partition began and ended at that moment.
    pub bounds: Bounds,
}

/// Parts of a segment that lie side by side.
struct Span {
    position: u32,
    length: usize,
}

impl Log {
    /// Reads from `offset` on, up to `bytes_max` bytes of whole batches, and at least one batch if so asked. At the high
    /// watermark there is nothing yet: no batches, no error.
    pub fn read(
        &self,
        partition: PartitionId,
        offset: i64,
        bytes_max: usize,
        at_least_one_batch: bool,
        mode: ReadMode,
    ) -> Result<ReadBatches, ReadError> {
        let bytes_max = bytes_max.min(READ_BYTES_MAX);
        let index = self.shared.partition(partition).ok_or(ReadError::UnknownPartition)?;
        let (bounds, first_place) = {
            let index = lock(&index);
            let bounds = Bounds { log_start: index.log_start, high_watermark: index.high_watermark };
            if offset < bounds.log_start || offset > bounds.high_watermark {
                return Err(ReadError::OutOfRange(bounds));
            }
            if offset == bounds.high_watermark {
                return Ok(ReadBatches { batches: Vec::new(), bytes: 0, bounds });
            }
            (bounds, index.place(offset, bytes_max).map_err(|(first, last)| ReadError::Damaged { first, last })?)
        };
        let mut gathered = Gathered { batches: Vec::new(), bytes: 0, bytes_max, at_least_one_batch, next: offset };
        self.shared.gather(partition, first_place, &mut gathered, mode)?;
        // What follows in later segments is taken along only if it needs no waiting and no explaining.
        while gathered.wants_more() && gathered.next < bounds.high_watermark && !gathered.batches.is_empty() {
            let place = lock(&index).place(gathered.next, bytes_max - gathered.bytes);
            let before = gathered.next;
            let Ok(place) = place else { break };
            if self.shared.gather(partition, place, &mut gathered, ReadMode::Cached).is_err() || gathered.next == before
            {
                break;
            }
        }
        Ok(ReadBatches { batches: gathered.batches, bytes: gathered.bytes, bounds })
    }
}

/// Batches gathered so far.
struct Gathered {
    batches: Vec<Bytes>,
    bytes: usize,
    bytes_max: usize,
    at_least_one_batch: bool,
    /// The offset that the next batch must contain.
    next: i64,
}

impl Gathered {
    fn wants_more(&self) -> bool {
        self.bytes < self.bytes_max
    }

    /// Takes the frames of one span; `false` when there is enough. Damaged frames before the wanted offset are passed
    /// over, at it they are an error that says where whole frames begin again, if that is within the span.
    fn take_frames(&mut self, span: &Bytes, partition: PartitionId) -> Result<bool, ReadError> {
        let mut at = 0;
        while let Some((position, header, batch)) = next_whole_batch(span, at, partition) {
            at = position + header.total_bytes();
            if batch.last_offset() < self.next {
                continue;
            }
            if batch.base_offset > self.next {
                return Err(ReadError::Damaged { first: self.next, last: batch.base_offset - 1 });
            }
            let first = self.batches.is_empty() && self.at_least_one_batch;
            let payload = position + FRAME_HEADER_BYTES..position + FRAME_HEADER_BYTES + header.payload_len as usize;
            if self.bytes + payload.len() > self.bytes_max && !first {
                return Ok(false);
            }
            self.bytes += payload.len();
            self.batches.push(span.slice(payload));
            self.next = batch.last_offset() + 1;
        }
        Ok(true)
    }
}

/// The first frame from `from` on that holds a whole batch of `partition`: its position, its header and the batch's.
fn next_whole_batch(span: &[u8], from: usize, partition: PartitionId) -> Option<(usize, FrameHeader, BatchHeader)> {
    let mut at = from;
    while at < span.len() {
        if let Some(header) = FrameHeader::parse(&span[at..])
            && header.kind == FrameKind::Batch
            && header.partition_id() == partition
            && let Some(batch) = header.payload(&span[at..]).and_then(checked_batch)
        {
            return Some((at, header, batch));
        }
        at += FRAME_ALIGNMENT;
    }
    None
}

impl Shared {
    /// Gathers what `place` holds. Damage behind batches that were gathered is left for the read that begins there.
    fn gather(
        &self,
        partition: PartitionId,
        place: Place,
        gathered: &mut Gathered,
        mode: ReadMode,
    ) -> Result<(), ReadError> {
        let (segment, entries) = self.entries_at(partition, place, gathered.next, gathered.bytes_max, mode)?;
        let spans = spans_of(&entries);
        let buffer = self.read_spans(segment, &spans, mode)?;
        let mut start = 0;
        for span in spans {
            let bytes = buffer.slice(start..start + span.length);
            start += span.length;
            match gathered.take_frames(&bytes, partition) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) if !gathered.batches.is_empty() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if gathered.batches.is_empty() {
            return Err(self.damage_after(partition, gathered.next));
        }
        Ok(())
    }

    /// Everything that should have held `offset` is damaged: how far, as the index knows it.
    fn damage_after(&self, partition: PartitionId, offset: i64) -> ReadError {
        let Some(index) = self.partition(partition) else { return ReadError::UnknownPartition };
        let place = lock(&index).place(offset, usize::MAX);
        let entries = match place {
            Ok(place) => {
                self.entries_at(partition, place, offset, usize::MAX, ReadMode::Blocking).map(|(_, entries)| entries)
            }
            Err((first, last)) => return ReadError::Damaged { first, last },
        };
        let following = entries.ok().and_then(|entries| entries.get(1).map(|entry| entry.base_offset - 1));
        let index = lock(&index);
        let extent = index.extents.iter().find(|extent| extent.last_offset >= offset).map(|extent| extent.last_offset);
        ReadError::Damaged { first: offset, last: following.or(extent).unwrap_or(offset) }
    }

    /// The index entries of a place, oldest first, beginning with the one that may contain `offset`.
    pub(crate) fn entries_at(
        &self,
        partition: PartitionId,
        place: Place,
        offset: i64,
        bytes_max: usize,
        mode: ReadMode,
    ) -> Result<(u64, Vec<IndexEntry>), ReadError> {
        match place {
            Place::Entries { segment, entries } => Ok((segment, entries)),
            Place::OnDisk { segment, position, count } => {
                let all = self.load_entries(partition, (segment, position, count), mode)?;
                Ok((segment, entries_from(&all, offset, bytes_max).to_vec()))
            }
        }
    }

    /// Entries of a closed segment, given as segment, position in its index file and count: from the cache or that file.
    pub(crate) fn load_entries(
        &self,
        partition: PartitionId,
        (segment, position, count): (u64, u64, u32),
        mode: ReadMode,
    ) -> Result<Arc<[IndexEntry]>, ReadError> {
        if let Some(entries) = lock(&self.entry_cache).get(segment, position) {
            return Ok(entries);
        }
        let file = self.open_file(&index_name(segment))?;
        let entries = match index_file::read_entries(file.as_ref(), position, count, mode == ReadMode::Cached)? {
            Some(entries) => entries,
            // Making them again reads the whole segment.
            None if mode == ReadMode::Cached => return Err(ReadError::NotCached),
            None => self.rebuild_entries(partition, (segment, position, count), file.as_ref())?,
        };
        lock(&self.entry_cache).put(segment, position, entries.clone());
        Ok(entries)
    }

    /// Makes damaged entries of an index file again from the segment, and writes them over the damaged ones.
    fn rebuild_entries(
        &self,
        partition: PartitionId,
        (segment, position, count): (u64, u64, u32),
        index: &dyn DiskFile,
    ) -> Result<Arc<[IndexEntry]>, ReadError> {
        let file = self.segment_file(segment)?;
        let entries = rebuild::entries(&mut Walker::new(file.as_ref())?, segment, partition)?;
        tracing::warn!(file = index_name(segment), partition = partition.0, "damaged index entries were made again");
        if entries.len() == count as usize
            && let Err(error) = index_file::write_entries(index, position, &entries)
        {
            tracing::warn!(file = index_name(segment), %error, "index entries could not be repaired; they stay in memory");
        }
        Ok(entries.into())
    }

    /// Reads the spans one after the other into one buffer.
    fn read_spans(&self, segment: u64, spans: &[Span], mode: ReadMode) -> Result<Bytes, ReadError> {
        let file = self.segment_file(segment)?;
        let mut buffer = vec![0; spans.iter().map(|span| span.length).sum()];
        let mut start = 0;
        for span in spans {
            let into = &mut buffer[start..start + span.length];
            match mode {
                ReadMode::Blocking => file.read_at(u64::from(span.position), into)?,
                ReadMode::Cached => file.read_cached_at(u64::from(span.position), into)?.ok_or(ReadError::NotCached)?,
            };
            // A short read leaves zeros, which are no frame: reported as damage where they are looked at.
            start += span.length;
        }
        Ok(Bytes::from(buffer))
    }
}

/// Joins entries that lie side by side.
fn spans_of(entries: &[IndexEntry]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::with_capacity(entries.len());
    for entry in entries {
        match spans.last_mut() {
            Some(span) if u64::from(span.position) + span.length as u64 == u64::from(entry.position) => {
                span.length += entry.length as usize;
            }
            _ => spans.push(Span { position: entry.position, length: entry.length as usize }),
        }
    }
    spans
}

//! Making the index of a closed segment again, from the segment.

use std::collections::BTreeMap;
use std::io;

use baton_wire::records::BatchHeader;

use crate::PartitionId;
use crate::append::FIRST_FRAME;
use crate::frame::FrameHeader;
use crate::index::{Entries, IndexEntry, PartitionIndex, Stored};
use crate::segment::{At, Found, Walker};

/// What an index learns of a batch that stands at `position`.
pub(crate) fn stored(position: u64, header: &FrameHeader, batch: &BatchHeader) -> Stored {
    Stored {
        base_offset: batch.base_offset,
        last_offset: batch.last_offset(),
        max_timestamp: batch.max_timestamp,
        position: position as u32,
        payload_len: header.payload_len,
    }
}

/// Walks over a whole segment; returns what it holds of each partition, and how many bytes that took.
pub(crate) fn walk(walker: &mut Walker<'_>, segment: u64) -> io::Result<(BTreeMap<PartitionId, PartitionIndex>, u64)> {
    let mut found: BTreeMap<PartitionId, PartitionIndex> = BTreeMap::new();
    let mut position = FIRST_FRAME;
    loop {
        position = match walker.at(position)? {
            At::Frame(Found { header, batch: Some(batch), .. }) => {
                let index = found.entry(header.partition_id()).or_insert_with(|| PartitionIndex {
                    high_watermark: batch.base_offset,
                    ..PartitionIndex::default()
                });
                index.add(segment, stored(position, &header, &batch));
                position + header.total_bytes() as u64
            }
            At::Frame(Found { header, .. }) => position + header.total_bytes() as u64,
            At::DamagedBatch { bytes } => position + bytes as u64,
            At::Nothing => match walker.next_frame(position)? {
                Some((next, _)) => next,
                None => return Ok((found, position)),
            },
        };
    }
}

/// The index entries of one partition in a segment.
pub(crate) fn entries(walker: &mut Walker<'_>, segment: u64, partition: PartitionId) -> io::Result<Vec<IndexEntry>> {
    let (mut found, _) = walk(walker, segment)?;
    let extent = found.remove(&partition).and_then(|mut index| index.extents.pop());
    Ok(match extent.map(|extent| extent.entries) {
        Some(Entries::InMemory(entries)) => entries,
        _ => Vec::new(),
    })
}

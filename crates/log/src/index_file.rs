//! The index file of a closed segment: what the segment holds of each partition, and where. It can always be rebuilt
//! from the segment. See docs/FORMAT.md.

use std::sync::Arc;

use crate::PartitionId;
use crate::codec::{Decoder, Encoder, Malformed, SEALED_FILE_HEADER_BYTES, seal_file, unseal_file};
use crate::disk::DiskFile;
use crate::error::ReadError;
use crate::index::{Entries, Extent, IndexEntry};

const MAGIC: [u8; 8] = *b"BATONIDX";
const VERSION: u16 = 1;
/// Bytes of one entry on disk.
const ENTRY_BYTES: usize = 28;

/// What a segment holds of one partition, with the offsets that it should hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentExtent {
    pub partition: PartitionId,
    pub extent: Extent,
    pub damaged: Vec<(i64, i64)>,
}

/// The file's bytes, and the same extents with their entries on disk. The directory stands in front and has a checksum
/// of its own, so that a start reads the directory alone; each partition's entries carry theirs.
pub(crate) fn encode(extents: &[SegmentExtent]) -> (Vec<u8>, Vec<SegmentExtent>) {
    let mut entries_out = Encoder::default();
    let mut on_disk = Vec::with_capacity(extents.len());
    for segment_extent in extents {
        let mut moved = segment_extent.clone();
        if let Entries::InMemory(entries) = &segment_extent.extent.entries {
            moved.extent.entries =
                Entries::OnDisk { position: entries_out.0.len() as u64, count: entries.len() as u32 };
            encode_entries(entries, &mut entries_out);
        }
        on_disk.push(moved);
    }
    let entries_start = (SEALED_FILE_HEADER_BYTES + encode_directory(&on_disk, 0).0.len()) as u64;
    for moved in &mut on_disk {
        if let Entries::OnDisk { position, .. } = &mut moved.extent.entries {
            *position += entries_start;
        }
    }
    let mut file = seal_file(MAGIC, VERSION, &encode_directory(&on_disk, entries_out.0.len() as u64).0);
    file.extend_from_slice(&entries_out.0);
    (file, on_disk)
}

fn encode_entries(entries: &[IndexEntry], out: &mut Encoder) {
    for entry in entries {
        let start = out.0.len();
        out.i64(entry.base_offset);
        out.i64(entry.max_timestamp);
        out.u32(entry.position);
        out.u32(entry.length);
        let crc = crc32c::crc32c(&out.0[start..]);
        out.u32(crc);
    }
}

fn encode_directory(extents: &[SegmentExtent], entries_bytes: u64) -> Encoder {
    let mut out = Encoder::default();
    out.u64(entries_bytes);
    out.count(extents.len());
    for SegmentExtent { partition, extent, damaged } in extents {
        out.u32(partition.0);
        out.i64(extent.first_offset);
        out.i64(extent.last_offset);
        out.i64(extent.max_timestamp);
        out.u64(extent.bytes);
        if let Entries::OnDisk { position, count } = extent.entries {
            out.u64(position);
            out.u32(count);
        }
        out.count(damaged.len());
        for (first, last) in damaged {
            out.i64(*first);
            out.i64(*last);
        }
    }
    out
}

/// Reads the directory of an index file; the entries stay on disk.
pub(crate) fn read_directory(file: &dyn DiskFile, segment: u64) -> Result<Vec<SegmentExtent>, Malformed> {
    let file_bytes = file.len().map_err(|_| Malformed)?;
    let mut header = [0; SEALED_FILE_HEADER_BYTES];
    if file.read_at(0, &mut header).map_err(|_| Malformed)? < header.len() {
        return Err(Malformed);
    }
    let mut length = [0; 8];
    length.copy_from_slice(&header[16..24]);
    let body_bytes = u64::from_le_bytes(length);
    if body_bytes > file_bytes {
        return Err(Malformed);
    }
    let mut front = vec![0; SEALED_FILE_HEADER_BYTES + body_bytes as usize];
    if file.read_at(0, &mut front).map_err(|_| Malformed)? < front.len() {
        return Err(Malformed);
    }
    let mut from = Decoder(unseal_file(MAGIC, VERSION, &front)?);
    if from.u64()? + front.len() as u64 != file_bytes {
        return Err(Malformed);
    }
    let count = from.count()?;
    let extents = (0..count).map(|_| decode_extent(&mut from, segment)).collect::<Result<Vec<_>, Malformed>>()?;
    from.end()?;
    Ok(extents)
}

fn decode_extent(from: &mut Decoder<'_>, segment: u64) -> Result<SegmentExtent, Malformed> {
    let partition = PartitionId(from.u32()?);
    let extent = Extent {
        segment,
        first_offset: from.i64()?,
        last_offset: from.i64()?,
        max_timestamp: from.i64()?,
        bytes: from.u64()?,
        entries: Entries::OnDisk { position: from.u64()?, count: from.u32()? },
    };
    let holes = from.count()?;
    let damaged = (0..holes).map(|_| Ok((from.i64()?, from.i64()?))).collect::<Result<_, Malformed>>()?;
    Ok(SegmentExtent { partition, extent, damaged })
}

/// Loads the `count` entries at `position`; `Ok(None)` where they are damaged and the file must be rebuilt.
pub(crate) fn read_entries(
    file: &dyn DiskFile,
    position: u64,
    count: u32,
    cached_only: bool,
) -> Result<Option<Arc<[IndexEntry]>>, ReadError> {
    let mut bytes = vec![0; count as usize * ENTRY_BYTES];
    let read = if cached_only {
        file.read_cached_at(position, &mut bytes)?.ok_or(ReadError::NotCached)?
    } else {
        file.read_at(position, &mut bytes)?
    };
    if read < bytes.len() {
        return Ok(None);
    }
    let decoded = bytes.chunks_exact(ENTRY_BYTES).map(|chunk| {
        let mut from = Decoder(chunk);
        let entry = IndexEntry {
            base_offset: from.i64()?,
            max_timestamp: from.i64()?,
            position: from.u32()?,
            length: from.u32()?,
        };
        if crc32c::crc32c(&chunk[..ENTRY_BYTES - 4]) == from.u32()? { Ok(entry) } else { Err(Malformed) }
    });
    Ok(decoded.collect::<Result<Arc<[_]>, Malformed>>().ok())
}

/// Writes entries over damaged ones. Torn, they are as damaged as they were.
pub(crate) fn write_entries(file: &dyn DiskFile, position: u64, entries: &[IndexEntry]) -> std::io::Result<()> {
    let mut bytes = Encoder::default();
    encode_entries(entries, &mut bytes);
    file.write_at(position, &bytes.0)?;
    file.sync_data()
}

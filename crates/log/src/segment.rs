//! Segment files: their names, their header, and walking over their frames.

use std::io;
use std::sync::Arc;

use crate::codec::{Decoder, Encoder};
use crate::disk::{Disk, DiskFile};
use crate::frame::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind, checked_batch, frame_bytes,
};
use crate::options::SEGMENT_HEADER_BYTES;
use baton_wire::records::BatchHeader;

const MAGIC: [u8; 8] = *b"BATONSEG";
/// Version of segment and frame layout.
pub(crate) const FORMAT_VERSION: u16 = 1;
/// Bytes read at once while walking.
const WINDOW_BYTES: usize = 4 << 20;

pub(crate) fn segment_name(id: u64) -> String {
    format!("{id:020}.log")
}
pub(crate) fn index_name(id: u64) -> String {
    format!("{id:020}.index")
}
pub(crate) fn checkpoint_name(id: u64) -> String {
    format!("{id:020}.checkpoint")
}

/// The number in a file name of the given extension.
pub(crate) fn id_in_name(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Creates a segment, reserves its first `reserve_bytes` and makes it durable with its directory entry, so that it can
/// take commit groups.
pub(crate) fn create(disk: &dyn Disk, id: u64, now_ms: i64, reserve_bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
    let name = segment_name(id);
    let file = match disk.create(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left over from a start or a roll that did not get far enough to use it.
            disk.remove(&name)?;
            disk.create(&name)?
        }
        other => other?,
    };
    file.allocate(0, reserve_bytes.max(SEGMENT_HEADER_BYTES as u64))?;
    let mut header = Encoder::default();
    header.0.extend_from_slice(&MAGIC);
    header.u16(FORMAT_VERSION);
    header.u16(0);
    header.u64(id);
    header.i64(now_ms);
    let crc = crc32c::crc32c(&header.0);
    header.u32(crc);
    header.0.resize(SEGMENT_HEADER_BYTES, 0);
    file.write_at(0, &header.0)?;
    file.sync_data()?;
    disk.sync_directory()?;
    Ok(file)
}

/// What the front of a segment file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentHeader {
    Good,
    Damaged,
    /// Written by a version that this one does not know.
    Newer(u16),
}

pub(crate) fn read_header(file: &dyn DiskFile, id: u64) -> io::Result<SegmentHeader> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    if file.read_at(0, &mut bytes)? < bytes.len() {
        return Ok(SegmentHeader::Damaged);
    }
    let mut from = Decoder(&bytes[8..]);
    let read =
        (|| Ok::<_, crate::codec::Malformed>((from.u16()?, from.u16()?, from.u64()?, from.i64()?, from.u32()?)))();
    let Ok((version, _, found_id, _, crc)) = read else { return Ok(SegmentHeader::Damaged) };
    if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..28]) != crc {
        return Ok(SegmentHeader::Damaged);
    }
    if version > FORMAT_VERSION {
        return Ok(SegmentHeader::Newer(version));
    }
    Ok(if found_id == id { SegmentHeader::Good } else { SegmentHeader::Damaged })
}

/// A frame found by a [`Walker`].
pub(crate) struct Found<'a> {
    pub header: FrameHeader,
    pub payload: &'a [u8],
    /// The payload's batch header, when the frame holds a batch.
    pub batch: Option<BatchHeader>,
}

/// What stands at a position.
pub(crate) enum At<'a> {
    Frame(Found<'a>),
    /// A frame whose header is whole and whose batch is not.
    DamagedBatch {
        bytes: usize,
    },
    /// Nothing that could be a frame.
    Nothing,
}

/// Reads frames of a segment through a window.
pub(crate) struct Walker<'a> {
    file: &'a dyn DiskFile,
    pub file_bytes: u64,
    window: Vec<u8>,
    window_start: u64,
    /// Whether checksums are looked at; only a mutant says no.
    pub check: bool,
}

impl<'a> Walker<'a> {
    pub fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        Ok(Self { file, file_bytes: file.len()?, window: Vec::new(), window_start: 0, check: true })
    }

    /// The same walker, looking at checksums or not.
    #[cfg(feature = "mutants")]
    pub fn checking(self, check: bool) -> Self {
        Self { check, ..self }
    }

    /// How far behind `from` the last byte lies that is not zero.
    pub fn bytes_until_zero(&mut self, from: u64) -> io::Result<u64> {
        let (mut at, mut until) = (from, from);
        while at < self.file_bytes {
            let window = self.bytes_at(at, WINDOW_BYTES)?;
            if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
                until = at + last as u64 + 1;
            }
            let walked = window.len() as u64;
            if walked == 0 {
                break;
            }
            at += walked;
        }
        Ok(until - from)
    }

    /// Up to `count` bytes at `at`, fewer only at the end of the file.
    fn bytes_at(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        // The padding of the last frame may lie behind the end of a file that was cut.
        let at = at.min(self.file_bytes);
        let count = count.min((self.file_bytes - at) as usize);
        let end = at + count as u64;
        if at < self.window_start || end > self.window_start + self.window.len() as u64 {
            let wanted = count.max(WINDOW_BYTES).min((self.file_bytes - at) as usize);
            self.window.resize(wanted, 0);
            let read = self.file.read_at(at, &mut self.window)?;
            self.window.truncate(read);
            self.window_start = at;
        }
        let from = (at - self.window_start) as usize;
        let to = (from + count).min(self.window.len());
        Ok(&self.window[from.min(to)..to])
    }

    /// What stands at `at`.
    pub fn at(&mut self, at: u64) -> io::Result<At<'_>> {
        let check = self.check;
        let front = self.bytes_at(at, FRAME_HEADER_BYTES)?;
        let Some(payload_len) = claimed_payload_len(front) else { return Ok(At::Nothing) };
        let bytes = self.bytes_at(at, frame_bytes(payload_len))?;
        let Some(header) = FrameHeader::parse(bytes) else { return Ok(At::Nothing) };
        let Some(payload) = header.payload(bytes) else { return Ok(At::Nothing) };
        if header.kind != FrameKind::Batch {
            return Ok(At::Frame(Found { header, payload, batch: None }));
        }
        let batch = if check { checked_batch(payload) } else { BatchHeader::parse(payload).ok() };
        Ok(match batch {
            Some(batch) => At::Frame(Found { header, payload, batch: Some(batch) }),
            None => At::DamagedBatch { bytes: header.total_bytes() },
        })
    }

    /// The first position from `from` on where a whole frame stands, with its header.
    pub fn next_frame(&mut self, from: u64) -> io::Result<Option<(u64, FrameHeader)>> {
        let mut at = from.next_multiple_of(FRAME_ALIGNMENT as u64);
        while let Some(found) = self.find_magic(at)? {
            if let At::Frame(frame) = self.at(found)? {
                return Ok(Some((found, frame.header)));
            }
            at = found + FRAME_ALIGNMENT as u64;
        }
        Ok(None)
    }

    /// The first aligned position from `from` on that begins with a frame's magic.
    fn find_magic(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at + (FRAME_HEADER_BYTES as u64) <= self.file_bytes {
            let window = self.bytes_at(at, WINDOW_BYTES)?;
            let magic = FRAME_MAGIC.to_le_bytes();
            if let Some(step) = window.chunks_exact(FRAME_ALIGNMENT).position(|chunk| chunk[..4] == magic) {
                return Ok(Some(at + (step * FRAME_ALIGNMENT) as u64));
            }
            let walked = window.len() / FRAME_ALIGNMENT * FRAME_ALIGNMENT;
            if walked == 0 {
                break;
            }
            at += walked as u64;
        }
        Ok(None)
    }
}

/// The payload length that a frame header claims, before anything of it is checked.
fn claimed_payload_len(front: &[u8]) -> Option<usize> {
    let front = front.first_chunk::<FRAME_HEADER_BYTES>()?;
    if front[..4] != FRAME_MAGIC.to_le_bytes() {
        return None;
    }
    let payload_len = u32::from_le_bytes([front[20], front[21], front[22], front[23]]) as usize;
    (payload_len <= crate::frame::PAYLOAD_BYTES_MAX).then_some(payload_len)
}

//! A frame: what the log writes for one batch or one control record. See docs/FORMAT.md.

use baton_wire::records::{BATCH_HEADER_BYTES, BatchHeader};

use crate::PartitionId;

/// "BATN", so that a frame can be found again after damage.
pub(crate) const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"BATN");
/// Bytes before the payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 48;
/// Frames start at multiples of this, so that the search for the next one after damage is short.
pub(crate) const FRAME_ALIGNMENT: usize = 8;
/// The part of a batch that its own checksum does not cover (offset, length, epoch, magic) and that checksum itself.
const BATCH_GUARDED_BYTES: usize = 21;
/// Stands for "no partition".
pub(crate) const NO_PARTITION: u32 = u32::MAX;
/// A payload is never larger: a length beyond it is damage.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// One record batch of one partition.
    Batch = 1,
    /// A control record: a change of catalog, tables or log starts.
    Control = 2,
    /// The last frame of a segment.
    Seal = 3,
    /// The log was closed in order; proves that everything before it was durable.
    Closed = 4,
}

impl FrameKind {
    fn from_u8(value: u8) -> Option<Self> {
        [Self::Batch, Self::Control, Self::Seal, Self::Closed].into_iter().find(|kind| *kind as u8 == value)
    }
}

/// What stood before a frame, so that a damaged one can be named by its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Previous {
    /// Partition of the previous frame, or `NO_PARTITION`.
    pub partition: u32,
    /// First offset after the previous frame's batch, or -1.
    pub end_offset: i64,
}

impl Previous {
    pub const NONE: Self = Self { partition: NO_PARTITION, end_offset: -1 };
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: FrameKind,
    /// Number of the commit group that wrote the frame; groups are written and synced one after the other.
    pub commit: u64,
    /// Where in the segment that group begins: everything before it was durable when the group was written.
    pub group_start: u32,
    pub payload_len: u32,
    pub partition: u32,
    pub previous: Previous,
    /// Milliseconds since 1970 at which the frame was appended.
    pub appended_at_ms: i64,
}

/// Bytes of a frame with a payload of `payload_len` bytes, padding included.
pub(crate) fn frame_bytes(payload_len: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_len).next_multiple_of(FRAME_ALIGNMENT)
}

impl FrameHeader {
    pub fn total_bytes(&self) -> usize {
        frame_bytes(self.payload_len as usize)
    }

    pub fn partition_id(&self) -> PartitionId {
        PartitionId(self.partition)
    }

    /// Appends the frame to `out`. `head` and `tail` together are the payload.
    pub fn write(&self, head: &[u8], tail: &[u8], out: &mut Vec<u8>) {
        let mut header = [0_u8; FRAME_HEADER_BYTES];
        header[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        header[8..16].copy_from_slice(&self.commit.to_le_bytes());
        header[16..20].copy_from_slice(&self.group_start.to_le_bytes());
        header[20..24].copy_from_slice(&self.payload_len.to_le_bytes());
        header[24..28].copy_from_slice(&self.partition.to_le_bytes());
        // The kind shares its four bytes with the previous partition's number, which is below 2^24.
        let packed = (self.previous.partition & 0x00FF_FFFF) | (u32::from(self.kind as u8) << 24);
        header[28..32].copy_from_slice(&packed.to_le_bytes());
        header[32..40].copy_from_slice(&self.previous.end_offset.to_le_bytes());
        header[40..48].copy_from_slice(&self.appended_at_ms.to_le_bytes());
        let guarded = if self.kind == FrameKind::Batch { &head[..BATCH_GUARDED_BYTES] } else { head };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[8..]), guarded);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        let end = out.len() + self.total_bytes();
        out.extend_from_slice(&header);
        out.extend_from_slice(head);
        out.extend_from_slice(tail);
        out.resize(end, 0);
    }

    /// Reads the header at the front of `bytes` and checks it, for a batch together with the part of the batch's header
    /// that the batch's own checksum leaves out, for a control record together with the payload. `None`: no frame, or a
    /// damaged one, or one that does not end within `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | (u64::from(word(at + 4)) << 32);
        if word(0) != FRAME_MAGIC {
            return None;
        }
        let packed = word(28);
        let previous_partition = packed & 0x00FF_FFFF;
        let parsed = Self {
            kind: FrameKind::from_u8((packed >> 24) as u8)?,
            commit: long(8),
            group_start: word(16),
            payload_len: word(20),
            partition: word(24),
            previous: Previous {
                partition: if previous_partition == 0x00FF_FFFF { NO_PARTITION } else { previous_partition },
                end_offset: long(32) as i64,
            },
            appended_at_ms: long(40) as i64,
        };
        let payload_len = parsed.payload_len as usize;
        if payload_len > PAYLOAD_BYTES_MAX {
            return None;
        }
        let guarded_len = match parsed.kind {
            FrameKind::Batch if payload_len < BATCH_HEADER_BYTES => return None,
            FrameKind::Batch => BATCH_GUARDED_BYTES,
            _ => payload_len,
        };
        let guarded = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + guarded_len)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[8..]), guarded);
        (crc == word(4)).then_some(parsed)
    }

    /// The payload within `bytes`, which begin with this frame.
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.payload_len as usize)
    }
}

/// The batch in a frame's payload, if its checksum still holds.
pub(crate) fn checked_batch(payload: &[u8]) -> Option<BatchHeader> {
    let batch = BatchHeader::parse(payload).ok()?;
    batch.checksum_matches(payload).then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            kind: FrameKind::Control,
            commit: 7,
            group_start: 64,
            payload_len: payload.len() as u32,
            partition: NO_PARTITION,
            previous: Previous { partition: 3, end_offset: 42 },
            appended_at_ms: 1_700_000_000_000,
        };
        let mut out = Vec::new();
        header.write(payload, &[], &mut out);
        assert_eq!(FrameHeader::parse(&out), Some(header));
        assert_eq!(header.payload(&out), Some(payload));
        out
    }

    #[test]
    fn every_flipped_bit_of_a_control_frame_is_noticed() {
        let good = control(b"some payload");
        let checked = (FRAME_HEADER_BYTES + b"some payload".len()) * 8;
        for bit in 0..checked {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::parse(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn frames_keep_their_alignment() {
        for length in 0..40 {
            assert_eq!(control(&vec![1; length]).len() % FRAME_ALIGNMENT, 0);
        }
    }

    #[test]
    fn a_cut_frame_is_no_frame() {
        let good = control(b"some payload");
        for length in 0..FRAME_HEADER_BYTES + 12 {
            assert_eq!(FrameHeader::parse(&good[..length]), None);
        }
    }
}

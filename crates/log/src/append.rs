//! Taking in what is to be written: offsets are assigned, idempotent producers are checked, frames are put into the
//! pending commit group. Nothing here waits for the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use baton_wire::records::BatchHeader;
use bytes::Bytes;

use crate::codec::Encoder;
use crate::control::Control;
use crate::disk::DiskFile;
use crate::durability::Ticket;
use crate::error::AppendError;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, NO_PARTITION, Previous, frame_bytes};
use crate::index::Stored;
use crate::log::{Log, Shared, lock};
use crate::options::SEGMENT_HEADER_BYTES;
use crate::producers::{ProducerFault, Producers, Verdict};
use crate::{PartitionId, TableId};

/// Every group leaves room for the frames that seal a segment or close the log.
const TRAILER_BYTES: u64 = 2 * FRAME_HEADER_BYTES as u64;
/// A segment never grows beyond this: positions in it are kept in four bytes.
const SEGMENT_BYTES_LIMIT: u64 = 3 << 30;
/// Partition numbers stay below this: a frame has three bytes for its predecessor's.
const PARTITIONS_EVER_MAX: u32 = 0x00FF_FFFF;

/// What became of an append. To be answered only after the ticket is durable, whatever it says: a refusal, too, rests on
/// records that may not be durable yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendReceipt {
    /// What the answer must wait for.
    pub ticket: Ticket,
    /// The answer.
    pub outcome: AppendOutcome,
}

/// The answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Stored, with its first record at this offset.
    Stored {
        /// Offset of the first record.
        base_offset: i64,
    },
    /// The same batch of the same producer was stored before, at this offset, and was not stored again.
    Duplicate {
        /// Offset of the first record, where it was first stored.
        base_offset: i64,
    },
    /// Not stored: it does not follow what the producer wrote before.
    Refused(ProducerFault),
}

/// One partition as the next append finds it.
#[derive(Default)]
pub(crate) struct AppendPartition {
    pub next_offset: i64,
    pub producers: Producers,
}

/// What a frame will change for readers once it is durable.
pub(crate) enum Effect {
    Batch(PartitionId, Stored),
    Control(Control),
}

/// Frames that will be written with one write and made durable with one sync.
pub(crate) struct Group {
    pub commit: u64,
    /// Position of the first frame in the segment.
    pub start: u64,
    pub bytes: Vec<u8>,
    pub effects: Vec<Effect>,
    previous: Previous,
}

impl Group {
    pub fn new(commit: u64, start: u64, previous: Previous) -> Self {
        Self { commit, start, bytes: Vec::new(), effects: Vec::new(), previous }
    }

    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends a frame; returns its position in the segment.
    fn push(
        &mut self,
        kind: FrameKind,
        partition: u32,
        end_offset: i64,
        now_ms: i64,
        (head, tail): (&[u8], &[u8]),
    ) -> u32 {
        let position = self.end() as u32;
        let header = FrameHeader {
            kind,
            commit: self.commit,
            group_start: self.start as u32,
            payload_len: (head.len() + tail.len()) as u32,
            partition,
            previous: self.previous,
            appended_at_ms: now_ms,
        };
        header.write(head, tail, &mut self.bytes);
        self.previous = Previous { partition, end_offset };
        position
    }

    /// Appends a frame without payload.
    pub fn push_mark(&mut self, kind: FrameKind, now_ms: i64) {
        self.push(kind, NO_PARTITION, -1, now_ms, (&[], &[]));
    }

    /// What the first frame of the group after this one will say about its predecessor.
    pub fn previous(&self) -> Previous {
        self.previous
    }
}

/// A segment that takes commit groups, or is ready to.
pub(crate) struct WritableSegment {
    pub id: u64,
    pub file: Arc<dyn DiskFile>,
    /// Disk space is reserved up to here.
    pub reserved_until: u64,
}

/// What has been given out: offsets, sequence numbers, partition numbers. Ahead of what is durable.
#[derive(Default)]
pub(crate) struct Assigned {
    pub partitions: BTreeMap<PartitionId, AppendPartition>,
    pub next_partition: u32,
    pub producers_total: usize,
}

impl Assigned {
    pub fn partition(&mut self, partition: PartitionId) -> Option<&mut AppendPartition> {
        self.partitions.get_mut(&partition)
    }

    pub fn add_partition(&mut self, partition: PartitionId, state: AppendPartition) {
        self.partitions.insert(partition, state);
    }

    pub fn remove_partition(&mut self, partition: PartitionId) {
        if let Some(state) = self.partitions.remove(&partition) {
            self.producers_total -= state.producers.len();
        }
    }
}

/// The log as the next append finds it.
pub(crate) struct Appending {
    pub assigned: Assigned,
    pub group: Group,
    /// Where the pending group will be written.
    pub segment: WritableSegment,
    /// The segment after that, once it is created.
    pub next_segment: Option<WritableSegment>,
    /// The emptied buffer of the group written last: the next group fills it again, in memory that is there already.
    pub spare: Vec<u8>,
    pub closed: bool,
}

impl Appending {
    /// Number of the commit group before the pending one.
    pub fn last_commit(&self) -> u64 {
        self.group.commit - 1
    }

    pub fn pending_bytes(&self) -> usize {
        self.group.bytes.len()
    }

    /// Number of the commit that an answer given now has to wait for: the pending one if there is anything in it,
    /// otherwise the one before, which may still be on its way to the disk.
    fn current_ticket(&self) -> Ticket {
        Ticket(if self.group.is_empty() { self.last_commit() } else { self.group.commit })
    }

    /// Makes sure that `need` more bytes fit: into the memory bound and into reserved disk space.
    pub fn reserve(&mut self, shared: &Shared, need: usize) -> Result<(), AppendError> {
        if let Some(poisoned) = shared.durability.poisoned() {
            return Err(poisoned.into());
        }
        if self.closed {
            return Err(crate::Poisoned("the log was closed".into()).into());
        }
        if need > shared.options.pending_bytes_max {
            return Err(AppendError::TooLarge(shared.options.pending_bytes_max));
        }
        if self.group.bytes.len() + need > shared.options.pending_bytes_max {
            return Err(AppendError::Backlogged);
        }
        let end = self.group.end() + need as u64 + TRAILER_BYTES;
        if end <= self.segment.reserved_until {
            return Ok(());
        }
        self.reserve_disk(shared, end).inspect_err(|_| {
            shared.counters.refused_full.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn reserve_disk(&mut self, shared: &Shared, end: u64) -> Result<(), AppendError> {
        let from = self.segment.reserved_until;
        let step = (end - from).max(shared.options.reserve_step_bytes);
        let free = shared.disk.free_bytes().unwrap_or(0);
        if from + step > SEGMENT_BYTES_LIMIT || free < step + shared.options.free_bytes_min {
            return Err(AppendError::DiskFull);
        }
        match self.segment.file.allocate(from, step) {
            Ok(()) => {
                self.segment.reserved_until = from + step;
                Ok(())
            }
            Err(error) if is_full(&error) => Err(AppendError::DiskFull),
            Err(error) => {
                shared.poison("reserving space failed", &error);
                Err(shared.durability.poisoned().map_or(AppendError::DiskFull, AppendError::from))
            }
        }
    }
}

/// Whether an error says that the disk, or the share of it that we may use, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The first frame position of a segment.
pub(crate) const FIRST_FRAME: u64 = SEGMENT_HEADER_BYTES as u64;

impl Log {
    /// Appends one whole, validated batch. `header` is what its front says. The offset is assigned here.
    pub fn append(
        &self,
        partition: PartitionId,
        header: &BatchHeader,
        batch: &[u8],
    ) -> Result<AppendReceipt, AppendError> {
        let shared = &*self.shared;
        let now_ms = shared.clock.now_ms();
        let mut guard = lock(&shared.appending);
        let appending = &mut *guard;
        let ticket = appending.current_ticket();
        let producers_full = appending.assigned.producers_total >= shared.options.producers_max;
        let Some(state) = appending.assigned.partition(partition) else { return Err(AppendError::UnknownPartition) };
        let new_producer = header.producer_id >= 0 && !state.producers.knows(header.producer_id);
        match state.producers.check(header) {
            Verdict::Append => {}
            Verdict::Duplicate { base_offset } => {
                shared.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                return Ok(AppendReceipt { ticket, outcome: AppendOutcome::Duplicate { base_offset } });
            }
            Verdict::Refuse(fault) => return Ok(AppendReceipt { ticket, outcome: AppendOutcome::Refused(fault) }),
        }
        if new_producer && producers_full {
            return Err(AppendError::TooManyProducers);
        }
        let was_empty = appending.group.is_empty();
        appending.reserve(shared, frame_bytes(batch.len()))?;
        let Some(state) = appending.assigned.partition(partition) else { return Err(AppendError::UnknownPartition) };
        let base_offset = state.next_offset;
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        state.next_offset = last_offset + 1;
        state.producers.record(header, base_offset, now_ms);
        appending.assigned.producers_total += usize::from(new_producer);
        let front = front_with_offset(batch, base_offset);
        let payload = (front.as_slice(), &batch[front.len()..]);
        let position = appending.group.push(FrameKind::Batch, partition.0, last_offset + 1, now_ms, payload);
        let stored = Stored {
            base_offset,
            last_offset,
            max_timestamp: header.max_timestamp,
            position,
            payload_len: batch.len() as u32,
        };
        appending.group.effects.push(Effect::Batch(partition, stored));
        let ticket = Ticket(appending.group.commit);
        drop(guard);
        if was_empty {
            shared.work.notify_one();
        }
        shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        shared.counters.batch_bytes.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(AppendReceipt { ticket, outcome: AppendOutcome::Stored { base_offset } })
    }

    /// Creates a topic. The caller makes changes of the catalog one at a time: check, change, wait for the ticket.
    pub fn create_topic(
        &self,
        name: &str,
        id: [u8; 16],
        partitions: u32,
        configs: BTreeMap<String, String>,
    ) -> Result<Ticket, AppendError> {
        if self.catalog().topic(name).is_some() {
            return Err(AppendError::TopicExists);
        }
        let name = name.to_owned();
        self.with_new_partitions(partitions, |partitions| Control::TopicCreated { name, id, partitions, configs })
    }

    /// Gives a topic more partitions: `total` in the end.
    pub fn add_partitions(&self, name: &str, total: u32) -> Result<Ticket, AppendError> {
        let catalog = self.catalog();
        let topic = catalog.topic(name).ok_or(AppendError::UnknownTopic)?;
        let name = name.to_owned();
        let more = total.saturating_sub(topic.partitions.len() as u32);
        self.with_new_partitions(more, |partitions| Control::PartitionsAdded { name, partitions })
    }

    /// Deletes a topic with all its records.
    pub fn delete_topic(&self, name: &str) -> Result<Ticket, AppendError> {
        self.catalog().topic(name).ok_or(AppendError::UnknownTopic)?;
        self.append_control(Control::TopicDeleted { name: name.to_owned() })
    }

    /// Replaces what is set for a topic.
    pub fn set_topic_configs(&self, name: &str, configs: BTreeMap<String, String>) -> Result<Ticket, AppendError> {
        self.catalog().topic(name).ok_or(AppendError::UnknownTopic)?;
        self.append_control(Control::TopicConfigs { name: name.to_owned(), configs })
    }

    /// Deletes the records before offset `before`.
    pub fn delete_records(&self, partition: PartitionId, before: i64) -> Result<Ticket, AppendError> {
        let bounds = self.bounds(partition).ok_or(AppendError::UnknownPartition)?;
        if before < 0 || before > bounds.high_watermark {
            return Err(AppendError::OffsetOutOfRange);
        }
        self.append_control(Control::LogStart { partition, offset: before })
    }

    /// Changes a table: sets keys to values, removes the keys without one. All of the changes or none.
    pub fn write_table(&self, table: TableId, changes: Vec<(Bytes, Option<Bytes>)>) -> Result<Ticket, AppendError> {
        self.append_control(Control::Table { table, changes })
    }

    fn with_new_partitions(
        &self,
        count: u32,
        control: impl FnOnce(Vec<PartitionId>) -> Control,
    ) -> Result<Ticket, AppendError> {
        let first = {
            let mut appending = lock(&self.shared.appending);
            let first = appending.assigned.next_partition;
            let end = first.checked_add(count).filter(|end| *end <= PARTITIONS_EVER_MAX);
            // Taken even if the append below fails: numbers are never used again, and there are many.
            appending.assigned.next_partition = end.ok_or(AppendError::TooManyPartitions)?;
            first
        };
        self.append_control(control((first..first + count).map(PartitionId).collect()))
    }

    fn append_control(&self, control: Control) -> Result<Ticket, AppendError> {
        let shared = &*self.shared;
        let mut payload = Encoder::default();
        control.encode(&mut payload);
        let now_ms = shared.clock.now_ms();
        let mut appending = lock(&shared.appending);
        let was_empty = appending.group.is_empty();
        appending.reserve(shared, frame_bytes(payload.0.len()))?;
        appending.group.push(FrameKind::Control, NO_PARTITION, -1, now_ms, (&payload.0, &[]));
        appending.group.effects.push(Effect::Control(control));
        let ticket = Ticket(appending.group.commit);
        drop(appending);
        if was_empty {
            shared.work.notify_one();
        }
        Ok(ticket)
    }
}

/// The first 21 bytes of `batch` as they are stored: with its offset and leader epoch 0. The checksum covers neither.
fn front_with_offset(batch: &[u8], base_offset: i64) -> [u8; 21] {
    let mut front = [0; 21];
    front.copy_from_slice(&batch[..21]);
    front[..8].copy_from_slice(&base_offset.to_be_bytes());
    front[12..16].copy_from_slice(&0_i32.to_be_bytes());
    front
}

//! Opening a log: the newest checkpoint, the directories of the index files, and every frame written since, checked.
//!
//! What a crash may leave is told from what may not happen by one rule: a commit group is written only after the one
//! before it was synced. So everything before the start of the last group that left a whole frame was durable: damage
//! there is damage, and is reported. What follows belongs to a group that was never acknowledged: from its first damaged
//! frame on it is a torn tail, and is cut.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::PartitionId;
use crate::append::{AppendPartition, Appending, Assigned, FIRST_FRAME, Group, WritableSegment};
use crate::checkpoint::{self, Checkpoint};
use crate::clock::Clock;
use crate::codec::Decoder;
use crate::commit::apply;
use crate::control::Control;
use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::frame::{FrameKind, NO_PARTITION, Previous};
use crate::index::PartitionIndex;
use crate::index_file::{self, SegmentExtent};
use crate::log::{Published, lock};
use crate::maintain::{SealedSegment, write_whole};
use crate::options::LogOptions;
use crate::rebuild::{self, stored};
use crate::segment::{
    self, At, FORMAT_VERSION, Found, SegmentHeader, Walker, checkpoint_name, id_in_name, index_name, segment_name,
};

/// Holds the format version and the cluster id, in lines of `key=value`.
const META_FILE: &str = "baton.meta";

/// A torn tail that was cut: nothing in it had been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Name of the segment's file.
    pub file: String,
    /// Where it was cut, in bytes.
    pub position: u64,
    /// Bytes from there to the last one that was not zero, at least.
    pub bytes: u64,
}

/// Records that were acknowledged and are not readable any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Topic and partition index; `None` where the damaged bytes do not tell and nothing else does.
    pub partition: Option<(String, u32)>,
    /// First and last damaged offset, where known.
    pub offsets: Option<(i64, i64)>,
    /// What and where, for people.
    pub detail: String,
}

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of segments that were read and checked again.
    pub checked_bytes: u64,
    /// Segments found.
    pub segments: u64,
    /// Index files that were missing or damaged and were made again.
    pub indexes_rebuilt: u64,
    /// The torn tail, if there was one.
    pub cut: Option<Cut>,
    /// Everything acknowledged that cannot be read any more.
    pub damage: Vec<Damage>,
}

/// A log about to be opened.
pub(crate) struct Recovered {
    pub report: RecoveryReport,
    pub cluster_id: String,
    pub appending: Appending,
    pub published: Published,
    pub maintenance: (Vec<SealedSegment>, Vec<u64>),
}

/// State while segments are replayed.
struct Replay<'a> {
    disk: &'a dyn Disk,
    options: &'a LogOptions,
    now_ms: i64,
    assigned: Assigned,
    published: Published,
    report: RecoveryReport,
    /// Number of the newest commit group seen.
    commit: u64,
    previous: Previous,
    sealed: Vec<SealedSegment>,
    /// Damage whose partition the bytes do not tell.
    unnamed: Vec<String>,
}

/// Where the walk over a segment ended.
struct End {
    position: u64,
    sealed: bool,
    /// Where its last group begins.
    group_start: u64,
}

pub(crate) fn recover(disk: &dyn Disk, clock: &dyn Clock, options: &LogOptions) -> Result<Recovered, OpenError> {
    let names = disk.list()?;
    let ids =
        |extension: &str| -> BTreeSet<u64> { names.iter().filter_map(|name| id_in_name(name, extension)).collect() };
    let segments = ids("log");
    let cluster_id = read_or_write_meta(disk, clock, &names)?;
    for leftover in names.iter().filter(|name| name.ends_with(".new")) {
        // One of them may just have become the meta file.
        disk.remove(leftover)
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    }
    // A segment is removed before its index file: one without the other is left over.
    for orphan in ids("index").difference(&segments) {
        disk.remove(&index_name(*orphan))?;
    }
    let (checkpoint, checkpoints) = newest_checkpoint(disk, &ids("checkpoint"), &segments)?;
    let mut replay = Replay::from_checkpoint(disk, options, clock.now_ms(), checkpoint.as_ref());
    let replay_from = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.segment);
    for id in segments.range(..replay_from) {
        replay.load_closed_segment(*id)?;
    }
    if let Some(checkpoint) = checkpoint {
        replay.finish_checkpoint(checkpoint);
    }
    // A process that was killed may have left entries that no one has synced.
    disk.sync_directory()?;
    let last = replay.replay_segments(replay_from.max(1), segments.range(replay_from..).copied().collect())?;
    replay.report.segments = segments.len() as u64;
    let (id, end) = last.unwrap_or((replay_from.max(1), None));
    let segment = replay.writable_segment(id, end.is_some(), end.unwrap_or(FIRST_FRAME), clock)?;
    let group = Group::new(replay.commit + 1, end.unwrap_or(FIRST_FRAME), replay.previous);
    replay.name_damage();
    let appending =
        Appending { assigned: replay.assigned, group, segment, next_segment: None, spare: Vec::new(), closed: false };
    let maintenance = (replay.sealed, checkpoints);
    Ok(Recovered { report: replay.report, cluster_id, appending, published: replay.published, maintenance })
}

fn read_or_write_meta(disk: &dyn Disk, clock: &dyn Clock, names: &[String]) -> Result<String, OpenError> {
    if names.iter().any(|name| name == META_FILE) {
        if let Some((found, id)) = parse_meta(&read_file(disk, META_FILE)?) {
            if found > FORMAT_VERSION {
                return Err(OpenError::Format { file: META_FILE.into(), found, known: FORMAT_VERSION });
            }
            return Ok(id);
        }
        tracing::warn!("{META_FILE} is damaged: the cluster id is made again");
    }
    let id = new_cluster_id(clock.now_ms());
    write_whole(disk, META_FILE, meta(&id).as_bytes())?;
    Ok(id)
}

fn meta(id: &str) -> String {
    let body = format!("format={FORMAT_VERSION}\ncluster.id={id}\n");
    let crc = crc32c::crc32c(body.as_bytes());
    format!("{body}crc32c={crc:08x}\n")
}

/// Format version and cluster id, if nothing about them has changed.
fn parse_meta(bytes: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (body, crc) = text.strip_suffix('\n')?.split_once("crc32c=")?;
    if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(body.as_bytes())) {
        return None;
    }
    let value = |key: &str| body.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Some((value("format")?.parse().ok()?, value("cluster.id")?.to_owned()))
}

/// 22 characters like Kafka's, from the time and what the standard library's hasher draws from the machine.
fn new_cluster_id(now_ms: i64) -> String {
    use std::hash::{BuildHasher, RandomState};
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let random = RandomState::new();
    let halves = [random.hash_one(now_ms), random.hash_one(!now_ms)];
    let digit = |half: u64, at: u32| DIGITS[(half >> (at * 5)) as usize & 31] as char;
    halves.iter().flat_map(|half| (0..11).map(move |at| digit(*half, at))).collect()
}

fn read_file(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The newest checkpoint that can be read, and at which segments readable ones stand. Without one, everything must be
/// there from the first segment on.
fn newest_checkpoint(
    disk: &dyn Disk,
    ids: &BTreeSet<u64>,
    segments: &BTreeSet<u64>,
) -> Result<(Option<Checkpoint>, Vec<u64>), OpenError> {
    let mut newest = None;
    let mut readable = Vec::new();
    for id in ids.iter().rev() {
        match checkpoint::decode(&read_file(disk, &checkpoint_name(*id))?) {
            Ok(checkpoint) if checkpoint.segment == *id => {
                readable.insert(0, *id);
                newest.get_or_insert(checkpoint);
            }
            _ if newest.is_some() => disk.remove(&checkpoint_name(*id))?,
            _ => tracing::warn!(
                file = checkpoint_name(*id),
                "a checkpoint is damaged: an older one is used, the start takes longer"
            ),
        }
    }
    if newest.is_none() && segments.first().is_some_and(|first| *first > 1) {
        return Err(OpenError::Damaged {
            file: checkpoint_name(*ids.last().unwrap_or(&0)),
            reason: "no checkpoint is readable and older segments are gone".into(),
        });
    }
    Ok((newest, readable))
}

impl<'a> Replay<'a> {
    fn from_checkpoint(
        disk: &'a dyn Disk,
        options: &'a LogOptions,
        now_ms: i64,
        checkpoint: Option<&Checkpoint>,
    ) -> Self {
        let mut replay = Self {
            disk,
            options,
            now_ms,
            assigned: Assigned::default(),
            published: Published::default(),
            report: RecoveryReport::default(),
            commit: checkpoint.map_or(0, |checkpoint| checkpoint.commit),
            previous: Previous::NONE,
            sealed: Vec::new(),
            unnamed: Vec::new(),
        };
        for state in checkpoint.iter().flat_map(|checkpoint| &checkpoint.partitions) {
            let index = PartitionIndex {
                log_start: state.log_start,
                high_watermark: state.log_start,
                ..PartitionIndex::default()
            };
            replay.published.add_partition(state.partition, index);
        }
        replay
    }

    /// Takes in a segment that a checkpoint covers: by its index file, or by walking over it if that is unusable.
    fn load_closed_segment(&mut self, id: u64) -> Result<(), OpenError> {
        let directory =
            self.disk.open(&index_name(id)).ok().and_then(|file| index_file::read_directory(file.as_ref(), id).ok());
        let extents = match directory {
            Some(extents) => extents,
            None => self.rebuild_index(id)?,
        };
        for SegmentExtent { partition, extent, damaged } in extents {
            let Some(index) = self.published.partition(partition) else { continue };
            let mut index = lock(index);
            if extent.last_offset >= index.log_start {
                index.add_extent(extent, &damaged);
            }
        }
        let bytes = self.disk.open(&segment_name(id))?.len()?;
        self.published.segments.insert(id, bytes);
        Ok(())
    }

    /// Makes a closed segment's index file again from the segment.
    fn rebuild_index(&mut self, id: u64) -> Result<Vec<SegmentExtent>, OpenError> {
        tracing::warn!(file = index_name(id), "an index file is missing or damaged and is made again");
        let file = self.open_segment(id)?;
        let (found, position) = rebuild::walk(&mut self.walker(file.as_ref())?, id)?;
        self.report.checked_bytes += position;
        self.report.indexes_rebuilt += 1;
        let extents: Vec<SegmentExtent> = found
            .into_iter()
            .filter_map(|(partition, mut index)| {
                Some(SegmentExtent { partition, extent: index.extents.pop()?, damaged: index.damaged })
            })
            .collect();
        let (bytes, on_disk) = index_file::encode(&extents);
        match write_whole(self.disk, &index_name(id), &bytes) {
            Ok(()) => Ok(on_disk),
            Err(error) => {
                tracing::warn!(file = index_name(id), %error, "the index file could not be written; it stays in memory");
                Ok(extents)
            }
        }
    }

    /// The closed segments are in: what else the checkpoint says.
    fn finish_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.published.catalog = Arc::new(checkpoint.catalog);
        self.published.tables = checkpoint.tables;
        for state in checkpoint.partitions {
            if let Some(index) = self.published.partition(state.partition) {
                // Offsets at the end that no segment holds are damaged, too.
                lock(index).skip_to(state.next_offset);
            }
            self.assigned.producers_total += state.producers.len();
            let partition = AppendPartition { next_offset: state.next_offset, producers: state.producers };
            self.assigned.add_partition(state.partition, partition);
        }
        self.assigned.next_partition = checkpoint.next_partition;
        for change in checkpoint.changes {
            apply(change, &mut self.assigned, &mut self.published, &mut Vec::new());
        }
    }

    /// Replays segments in order, from `expected` on; returns the one to go on with and, unless it is unusable, where.
    fn replay_segments(&mut self, mut expected: u64, ids: Vec<u64>) -> Result<Option<(u64, Option<u64>)>, OpenError> {
        let mut last = None;
        for (at, id) in ids.iter().enumerate() {
            for missing in std::mem::replace(&mut expected, *id + 1)..*id {
                self.unnamed.push(format!("{} is missing", segment_name(missing)));
            }
            let used_later = self.first_used(&ids[at + 1..])?;
            let file = self.open_segment(*id)?;
            match segment::read_header(file.as_ref(), *id)? {
                SegmentHeader::Newer(found) => {
                    return Err(OpenError::Format { file: segment_name(*id), found, known: FORMAT_VERSION });
                }
                SegmentHeader::Damaged
                    if !used_later && self.walker(file.as_ref())?.next_frame(FIRST_FRAME)?.is_none() =>
                {
                    // Created, never used: made again below if it is needed.
                    return Ok(last.or(Some((*id, None))));
                }
                SegmentHeader::Damaged => self.damaged_bytes(*id, 0, FIRST_FRAME),
                SegmentHeader::Good => {}
            }
            let end = self.replay_segment(*id, file.as_ref(), used_later)?;
            if !used_later {
                make_durable(file.as_ref(), end.group_start, end.position)?;
            }
            self.published.segments.insert(*id, end.position);
            if !end.sealed && !used_later {
                return Ok(Some((*id, Some(end.position))));
            }
            self.seal(*id, end.position);
            last = Some((*id + 1, None));
        }
        Ok(last)
    }

    /// Whether any of these segments holds a frame.
    fn first_used(&self, ids: &[u64]) -> Result<bool, OpenError> {
        for id in ids {
            let file = self.open_segment(*id)?;
            if self.walker(file.as_ref())?.next_frame(FIRST_FRAME)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Walks over one segment, applies what is whole, cuts or reports what is not.
    fn replay_segment(&mut self, id: u64, file: &dyn DiskFile, used_later: bool) -> Result<End, OpenError> {
        let mut walker = self.walker(file)?;
        let mut position = FIRST_FRAME;
        let mut sealed = false;
        let mut group_start = FIRST_FRAME;
        // Found when the first damaged frame is met: everything before it was durable.
        let mut durable_until = None;
        while !sealed {
            let damaged_until = match walker.at(position)? {
                At::Frame(found) => {
                    sealed = found.header.kind == FrameKind::Seal;
                    group_start = u64::from(found.header.group_start);
                    let bytes = found.header.total_bytes() as u64;
                    self.apply_frame(id, position, found);
                    position += bytes;
                    continue;
                }
                At::DamagedBatch { bytes } => Some(position + bytes as u64),
                At::Nothing => walker.next_frame(position)?.map(|(next, _)| next),
            };
            let limit = match durable_until {
                Some(limit) => limit,
                None => {
                    *durable_until.insert(if used_later { u64::MAX } else { last_group_start(&mut walker, position)? })
                }
            };
            if position >= limit || (damaged_until.is_none() && !used_later) {
                self.cut(id, &mut walker, position)?;
                break;
            }
            // Nothing whole follows in this segment, although a later one was used: its end is damaged.
            let Some(next) = damaged_until else {
                let bytes = walker.bytes_until_zero(position)?;
                if bytes > 0 {
                    self.damaged_bytes(id, position, position + bytes);
                }
                break;
            };
            // What is whole behind the torn beginning of the last group is part of the torn tail, too.
            let next = next.min(limit);
            self.damaged_bytes(id, position, next);
            self.previous = Previous::NONE;
            position = next;
        }
        self.report.checked_bytes += position;
        Ok(End { position, sealed, group_start })
    }

    fn apply_frame(&mut self, segment: u64, position: u64, found: Found<'_>) {
        let header = found.header;
        self.commit = self.commit.max(header.commit);
        self.learn_from_predecessor(header.previous);
        let end_offset = found.batch.map_or(-1, |batch| batch.last_offset() + 1);
        self.previous = Previous { partition: header.partition, end_offset };
        match (header.kind, found.batch) {
            (FrameKind::Batch, Some(batch)) => {
                // Even if the record of its creation is damaged, a number is not used again.
                self.assigned.next_partition = self.assigned.next_partition.max(header.partition.saturating_add(1));
                let Some(state) = self.assigned.partition(header.partition_id()) else { return };
                let known = state.producers.len();
                state.next_offset = batch.last_offset() + 1;
                state.producers.record(&batch, batch.base_offset, header.appended_at_ms.min(self.now_ms));
                self.assigned.producers_total += state.producers.len() - known;
                if let Some(index) = self.published.partition(header.partition_id()) {
                    lock(index).add(segment, stored(position, &header, &batch));
                }
            }
            (FrameKind::Control, _) => match Control::decode(&mut Decoder(found.payload)) {
                Ok(control) => apply(control, &mut self.assigned, &mut self.published, &mut Vec::new()),
                Err(_) => self.damaged_bytes(segment, position, position + header.total_bytes() as u64),
            },
            _ => {}
        }
    }

    fn damaged_bytes(&mut self, segment: u64, from: u64, to: u64) {
        self.unnamed.push(format!("bytes {from} to {to} of {} are damaged", segment_name(segment)));
    }

    /// A frame says what stood before it: so a damaged one is known by its successor.
    fn learn_from_predecessor(&mut self, previous: Previous) {
        if previous == self.previous || previous.partition == NO_PARTITION {
            return;
        }
        let partition = PartitionId(previous.partition);
        if let Some(state) = self.assigned.partition(partition) {
            state.next_offset = state.next_offset.max(previous.end_offset);
        }
        if let Some(index) = self.published.partition(partition) {
            lock(index).skip_to(previous.end_offset);
        }
    }

    /// Cuts the tail from `position` on, if there is anything.
    fn cut(&mut self, id: u64, walker: &mut Walker<'_>, position: u64) -> Result<(), OpenError> {
        let bytes = walker.bytes_until_zero(position)?;
        if bytes > 0 {
            let cut = Cut { file: segment_name(id), position, bytes };
            tracing::warn!(
                file = cut.file,
                position,
                bytes,
                "a torn tail was cut: nothing in it had been acknowledged"
            );
            self.report.cut = Some(cut);
        }
        Ok(())
    }

    /// A segment that ended before the crash gets the index file and checkpoint that it may not have got then.
    fn seal(&mut self, id: u64, end: u64) {
        self.previous = Previous::NONE;
        let checkpoint = checkpoint::of(id + 1, self.commit, &self.assigned, &self.published, &[]);
        self.sealed.push(SealedSegment { id, end, checkpoint });
    }

    /// The segment to go on with: nothing behind `end`, so that no later start can take it for something.
    fn writable_segment(
        &self,
        id: u64,
        exists: bool,
        end: u64,
        clock: &dyn Clock,
    ) -> Result<WritableSegment, OpenError> {
        if !exists {
            let file = segment::create(self.disk, id, clock.now_ms(), self.options.reserve_step_bytes)?;
            return Ok(WritableSegment { id, file, reserved_until: self.options.reserve_step_bytes });
        }
        let file = self.open_segment(id)?;
        file.set_len(end)?;
        file.sync_data()?;
        // A segment created ahead and never used would stand in the way of the next one.
        match self.disk.remove(&segment_name(id + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Err(_) => {}
            Ok(()) => self.disk.sync_directory()?,
        }
        Ok(WritableSegment { id, file, reserved_until: end })
    }

    /// Turns what is missing into a report with topics and offsets.
    fn name_damage(&mut self) {
        let catalog = self.published.catalog.clone();
        for topic in catalog.topics() {
            for (number, partition) in topic.partitions.iter().enumerate() {
                let Some(index) = self.published.partition(*partition) else { continue };
                for (first, last) in &lock(index).damaged {
                    let detail = format!("offsets {first} to {last} of {}-{number} are damaged on disk", topic.name);
                    self.report.damage.push(Damage {
                        partition: Some((topic.name.to_string(), number as u32)),
                        offsets: Some((*first, *last)),
                        detail,
                    });
                }
            }
        }
        for detail in std::mem::take(&mut self.unnamed) {
            self.report.damage.push(Damage { partition: None, offsets: None, detail });
        }
        for damage in &self.report.damage {
            tracing::error!("{}; other records are not affected", damage.detail);
        }
    }

    fn open_segment(&self, id: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&segment_name(id))
    }

    fn walker<'f>(&self, file: &'f dyn DiskFile) -> io::Result<Walker<'f>> {
        let walker = Walker::new(file)?;
        #[cfg(feature = "mutants")]
        let walker = walker.checking(self.options.mutant != Some(crate::mutants::Mutant::TailNotChecked));
        Ok(walker)
    }
}

/// Writes the last group again and syncs it. It may never have been synced, or its sync may have failed: then the
/// operating system would call its pages clean although the disk does not have them, and only a new write changes that.
fn make_durable(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    let read = file.read_at(from, &mut bytes)?;
    file.write_at(from, &bytes[..read])?;
    file.sync_data()
}

/// Where the last group begins of which anything whole is left at or after `from`; `from` itself if nothing is.
fn last_group_start(walker: &mut Walker<'_>, from: u64) -> Result<u64, OpenError> {
    let mut position = from;
    let mut start = from;
    while let Some((at, header)) = walker.next_frame(position)? {
        start = start.max(u64::from(header.group_start));
        position = at + header.total_bytes() as u64;
    }
    Ok(start)
}

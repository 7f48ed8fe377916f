//! The committer: takes the pending group, writes it, syncs it, and then, as one event, shows it to readers and lets go of
//! everyone who waits for it. The next group fills meanwhile.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::PartitionId;
use crate::append::{AppendPartition, Appending, Assigned, Effect, FIRST_FRAME, Group, WritableSegment, is_full};
use crate::catalog::{Catalog, Topic};
use crate::checkpoint::{self, Tables};
use crate::control::Control;
use crate::disk::DiskFile;
use crate::frame::{FrameKind, Previous};
use crate::index::PartitionIndex;
use crate::log::{Log, Published, Shared, lock};
use crate::maintain::SealedSegment;
use crate::segment;

/// A group's buffer is filled again, in memory that is there already, unless the group used only a small part of it: so
/// the memory that a busy time needed is given back after it.
const SPARE_FACTOR_MAX: usize = 8;
/// A buffer of up to this size is always kept.
const SPARE_BYTES_MIN: usize = 1 << 20;

/// A group on its way to the disk.
struct Taken {
    group: Group,
    segment: u64,
    file: Arc<dyn DiskFile>,
    /// Set when the group ends its segment.
    sealed: Option<SealedSegment>,
}

impl Log {
    /// Takes the pending group, writes it, makes it durable and visible; `false` if nothing was pending or the log is
    /// poisoned. What the committer's thread does all the time; public for those who drive a log step by step.
    pub fn commit_once(&self) -> bool {
        let taken = {
            let mut appending = lock(&self.shared.appending);
            if appending.group.is_empty() || self.shared.durability.poisoned().is_some() {
                return false;
            }
            self.take(&mut appending)
        };
        self.write_and_publish(taken);
        true
    }

    pub(crate) fn run_commits(&self) {
        loop {
            let mut appending = lock(&self.shared.appending);
            while appending.group.is_empty() && !appending.closed && self.shared.durability.poisoned().is_none() {
                appending = self.shared.work.wait(appending).unwrap_or_else(PoisonError::into_inner);
            }
            if self.shared.durability.poisoned().is_some() || appending.group.is_empty() {
                return;
            }
            let taken = self.take(&mut appending);
            drop(appending);
            self.write_and_publish(taken);
        }
    }

    /// No more appends from here on.
    pub(crate) fn refuse_appends(&self) {
        let mut appending = lock(&self.shared.appending);
        // Room for the mark below; without it the log is just not known to be closed in order.
        let _ = appending.reserve(&self.shared, 0);
        appending.closed = true;
        drop(appending);
        self.shared.work.notify_all();
    }

    /// Writes what says that the log was closed in order: in a group of its own, so that it is there only if everything
    /// before it is durable.
    pub(crate) fn mark_closed(&self) {
        while self.commit_once() {}
        let mut appending = lock(&self.shared.appending);
        let end = appending.group.end() + crate::frame::FRAME_HEADER_BYTES as u64;
        if end <= appending.segment.reserved_until && appending.group.is_empty() {
            appending.group.push_mark(FrameKind::Closed, self.shared.clock.now_ms());
        }
        drop(appending);
        self.commit_once();
    }

    /// Takes the pending group for writing and starts the next one, in the next segment if this one is full.
    fn take(&self, appending: &mut Appending) -> Taken {
        let shared = &*self.shared;
        let seals = appending.group.end() >= shared.options.segment_bytes && appending.next_segment.is_some();
        if seals {
            appending.group.push_mark(FrameKind::Seal, shared.clock.now_ms());
        }
        let (segment, file) = (appending.segment.id, appending.segment.file.clone());
        let commit = appending.group.commit;
        let mut sealed = None;
        let next = match appending.next_segment.take_if(|_| seals) {
            Some(next_segment) => {
                sealed = Some(SealedSegment {
                    id: segment,
                    end: appending.group.end(),
                    checkpoint: encode_checkpoint(shared, appending, next_segment.id),
                });
                appending.segment = next_segment;
                Group::new(commit + 1, FIRST_FRAME, Previous::NONE)
            }
            None => Group::new(commit + 1, appending.group.end(), appending.group.previous()),
        };
        let group = std::mem::replace(&mut appending.group, next);
        appending.group.bytes = std::mem::take(&mut appending.spare);
        shared.wake_room();
        Taken { group, segment, file, sealed }
    }

    fn write_and_publish(&self, taken: Taken) {
        let shared = &*self.shared;
        if let Err(error) = self.write(&taken) {
            shared.poison("writing the log failed", &error);
            return;
        }
        let mut bytes = self.publish(taken);
        if bytes.capacity() <= SPARE_BYTES_MIN.max(bytes.len() * SPARE_FACTOR_MAX) {
            bytes.clear();
            lock(&self.shared.appending).spare = bytes;
        }
        self.prepare_next_segment();
    }

    fn write(&self, taken: &Taken) -> std::io::Result<()> {
        let counters = &self.shared.counters;
        taken.file.write_at(taken.group.start, &taken.group.bytes)?;
        let before = Instant::now();
        let synced = taken.file.sync_data();
        #[cfg(feature = "mutants")]
        let synced = crate::mutants::after_sync(&self.shared.options, taken.file.as_ref(), synced);
        synced?;
        counters.sync_nanos.fetch_add(before.elapsed().as_nanos() as u64, Ordering::Relaxed);
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.bytes_written.fetch_add(taken.group.bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The group is durable: shows it to readers, then lets go of who waits.
    /// Gives the group's buffer back.
    fn publish(&self, taken: Taken) -> Vec<u8> {
        let shared = &*self.shared;
        let mut touched = Vec::with_capacity(taken.group.effects.len());
        let (end, commit) = (taken.group.end(), taken.group.commit);
        let mut effects = taken.group.effects.into_iter().peekable();
        while effects.peek().is_some() {
            {
                let published = shared.read_published();
                while let Some(Effect::Batch(partition, stored)) =
                    effects.next_if(|effect| matches!(effect, Effect::Batch(..)))
                {
                    if let Some(index) = published.partition(partition) {
                        lock(index).add(taken.segment, stored);
                        touched.push(partition);
                    }
                }
            }
            while let Some(Effect::Control(control)) = effects.next_if(|effect| matches!(effect, Effect::Control(_))) {
                let mut appending = lock(&shared.appending);
                apply(control, &mut appending.assigned, &mut shared.write_published(), &mut touched);
            }
        }
        shared.write_published().segments.insert(taken.segment, end);
        if let Some(sealed) = taken.sealed {
            shared.maintenance.push(sealed);
        }
        shared.durability.advance(commit);
        touched.sort_unstable();
        touched.dedup();
        shared.observer.published(&touched);
        taken.group.bytes
    }

    /// Creates the next segment once this one is half full, so that it is there when needed.
    fn prepare_next_segment(&self) {
        let shared = &*self.shared;
        let id = {
            let appending = lock(&shared.appending);
            if appending.next_segment.is_some() || appending.group.start < shared.options.segment_bytes / 2 {
                return;
            }
            appending.segment.id + 1
        };
        let reserve_bytes = shared.options.reserve_step_bytes;
        if shared.disk.free_bytes().unwrap_or(0) < reserve_bytes + shared.options.free_bytes_min {
            return;
        }
        match segment::create(shared.disk.as_ref(), id, shared.clock.now_ms(), reserve_bytes) {
            Ok(file) => {
                lock(&shared.appending).next_segment =
                    Some(WritableSegment { id, file, reserved_until: reserve_bytes });
            }
            // The segment in use goes on growing until there is space.
            Err(error) if is_full(&error) => {}
            Err(error) => shared.poison("creating a segment failed", &error),
        }
    }
}

/// The state after the pending group, as the start of segment `segment`. What is published does not contain the pending
/// group's control records yet, so they are added as changes.
fn encode_checkpoint(shared: &Shared, appending: &Appending, segment: u64) -> Vec<u8> {
    let changes: Vec<&Control> = appending
        .group
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Control(control) => Some(control),
            Effect::Batch(..) => None,
        })
        .collect();
    checkpoint::of(segment, appending.group.commit, &appending.assigned, &shared.read_published(), &changes)
}

/// Applies a control record that is durable; adds the partitions it concerns to `touched`.
pub(crate) fn apply(
    control: Control,
    assigned: &mut Assigned,
    published: &mut Published,
    touched: &mut Vec<PartitionId>,
) {
    match control {
        Control::LogStart { partition, offset } => {
            if let Some(index) = published.partition(partition) {
                lock(index).set_log_start(offset);
                touched.push(partition);
            }
        }
        Control::Table { table, changes } => apply_table(&mut published.tables, table, changes),
        catalog_change => {
            // Copied only if somebody still looks at it, so once for a group that may hold thousands of changes.
            let mut catalog = std::mem::take(&mut published.catalog);
            apply_to_catalog(catalog_change, Arc::make_mut(&mut catalog), assigned, published, touched);
            published.catalog = catalog;
        }
    }
}

fn apply_table(tables: &mut Tables, table: crate::TableId, changes: Vec<(bytes::Bytes, Option<bytes::Bytes>)>) {
    let entries = tables.entry(table).or_default();
    for (key, value) in changes {
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }
}

fn apply_to_catalog(
    control: Control,
    catalog: &mut Catalog,
    assigned: &mut Assigned,
    published: &mut Published,
    touched: &mut Vec<PartitionId>,
) {
    match control {
        Control::TopicCreated { name, id, partitions, configs } => {
            add_partitions(&partitions, assigned, published, touched);
            catalog.insert(Topic { name: name.into(), id, partitions, configs });
        }
        Control::PartitionsAdded { name, partitions } => {
            let Some(topic) = catalog.topic(&name).cloned() else { return };
            add_partitions(&partitions, assigned, published, touched);
            let mut topic = Topic::clone(&topic);
            topic.partitions.extend(partitions);
            catalog.insert(topic);
        }
        Control::TopicConfigs { name, configs } => {
            let Some(topic) = catalog.topic(&name).cloned() else { return };
            catalog.insert(Topic { configs, ..Topic::clone(&topic) });
        }
        Control::TopicDeleted { name } => {
            let Some(topic) = catalog.remove(&name) else { return };
            for partition in &topic.partitions {
                published.partitions.remove(partition);
                assigned.remove_partition(*partition);
                touched.push(*partition);
            }
        }
        Control::LogStart { .. } | Control::Table { .. } => {}
    }
}

fn add_partitions(
    partitions: &[PartitionId],
    assigned: &mut Assigned,
    published: &mut Published,
    touched: &mut Vec<PartitionId>,
) {
    for partition in partitions {
        assigned.next_partition = assigned.next_partition.max(partition.0.saturating_add(1));
        assigned.add_partition(*partition, AppendPartition::default());
        published.add_partition(*partition, PartitionIndex::default());
        touched.push(*partition);
    }
}

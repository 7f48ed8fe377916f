//! What the log must hold, kept by means that have nothing in common with the log's own.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use baton_log::{AppendOutcome, Log, PartitionId, ProducerFault, TableId, Ticket};
use baton_wire::records::{BatchBuilder, BatchHeader, Codec, NewRecord};
use bytes::Bytes;

use crate::random::Random;

/// Batches of a producer that can be told from new ones: Kafka's number, and so part of the log's contract.
const BATCHES_REMEMBERED: usize = 5;
/// Tables that the simulated users write to.
pub(super) const TABLES: [TableId; 2] = [TableId(1), TableId(7)];

/// A batch as its producer sent it.
#[derive(Debug)]
pub(super) struct Batch {
    pub header: BatchHeader,
    pub bytes: Vec<u8>,
    /// Of its records, in milliseconds.
    pub timestamps: Vec<i64>,
}

impl Batch {
    /// A batch of one to `records_max` records of random content; `producer` is id, epoch and first sequence number.
    pub fn random(
        random: &mut Random,
        now_ms: i64,
        producer: (i64, i16, i32),
        (records_max, value_bytes_max): (u64, u64),
    ) -> Result<Rc<Self>, String> {
        let mut builder = BatchBuilder::new(Codec::None).producer(producer.0, producer.1, producer.2);
        let mut timestamps = Vec::new();
        for _ in 0..random.between(1, records_max) {
            let mut value = vec![0; random.between(0, value_bytes_max) as usize];
            random.fill(&mut value);
            let timestamp = now_ms + random.below(2000) as i64 - 1000;
            timestamps.push(timestamp);
            builder = builder.record(NewRecord { timestamp, key: None, value: Some(&value), headers: &[] });
        }
        let bytes = builder.build().map_err(|error| error.to_string())?;
        let header = BatchHeader::parse(&bytes).map_err(|error| error.to_string())?;
        Ok(Rc::new(Self { header, bytes, timestamps }))
    }

    pub fn count(&self) -> i64 {
        self.timestamps.len() as i64
    }

    /// The batch as it must come back: with its offset, and leader epoch 0.
    pub fn stored_at(&self, base_offset: i64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&[0; 4]);
        bytes
    }
}

/// A batch and where it was stored.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub base_offset: i64,
    pub batch: Rc<Batch>,
}

impl Placed {
    /// First offset after it.
    pub fn end(&self) -> i64 {
        self.base_offset + self.batch.count()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub id: [u8; 16],
    pub partitions: Vec<PartitionId>,
    pub configs: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Partition {
    pub topic: String,
    pub index: u32,
    pub log_start: i64,
    /// All that were ever stored, those before the log start too: producers are recognised by them.
    pub placed: Vec<Placed>,
    /// Base offsets of batches with a flipped bit.
    pub damaged: BTreeSet<i64>,
}

impl Partition {
    pub fn end(&self) -> i64 {
        self.placed.last().map_or(0, Placed::end)
    }
}

pub(super) type Table = BTreeMap<Bytes, Bytes>;

/// Something that was asked of the log.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Batch { partition: PartitionId, placed: Placed },
    TopicCreated { name: String, id: [u8; 16], partitions: u32, configs: BTreeMap<String, String> },
    PartitionsAdded { name: String, total: u32 },
    TopicConfigs { name: String, configs: BTreeMap<String, String> },
    TopicDeleted { name: String },
    LogStart { partition: PartitionId, offset: i64 },
    Table { table: TableId, changes: Vec<(Bytes, Option<Bytes>)> },
}

impl Change {
    pub fn is_of_catalog(&self) -> bool {
        !matches!(self, Self::Batch { .. } | Self::LogStart { .. } | Self::Table { .. })
    }
}

/// A change whose ticket has not resolved.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub ticket: Ticket,
    pub change: Change,
}

/// Everything that is visible in a log, apart from the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    pub topics: BTreeMap<String, Topic>,
    /// Log start and high watermark.
    pub bounds: BTreeMap<PartitionId, (i64, i64)>,
    pub tables: Vec<Table>,
}

impl Observed {
    pub fn of(log: &Log) -> Self {
        let mut observed = Self::default();
        for topic in log.catalog().topics() {
            for partition in &topic.partitions {
                let bounds = log.bounds(*partition).map(|bounds| (bounds.log_start, bounds.high_watermark));
                observed.bounds.extend(bounds.map(|bounds| (*partition, bounds)));
            }
            let seen = Topic { id: topic.id, partitions: topic.partitions.clone(), configs: topic.configs.clone() };
            observed.topics.insert(topic.name.to_string(), seen);
        }
        observed.tables = TABLES.iter().map(|table| log.table_scan(*table, b"").into_iter().collect()).collect();
        observed
    }

    /// The first difference, for people.
    pub fn difference(&self, actual: &Self) -> Option<String> {
        if self.topics != actual.topics {
            return Some(format!("topics should be {:?} and are {:?}", self.topics, actual.topics));
        }
        for (partition, bounds) in &self.bounds {
            let found = actual.bounds.get(partition);
            if found != Some(bounds) {
                return Some(format!("{partition:?} should reach from-to {bounds:?}, found {found:?}"));
            }
        }
        (self != actual).then(|| format!("tables should be {:?} and are {:?}", self.tables, actual.tables))
    }
}

/// What is durable.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub topics: BTreeMap<String, Topic>,
    pub partitions: BTreeMap<PartitionId, Partition>,
    pub tables: BTreeMap<TableId, Table>,
    /// Everything that was ever written to the tables, oldest first.
    pub table_writes: Vec<Rc<TableWrite>>,
}

/// One write to a table.
#[derive(Debug)]
pub(super) struct TableWrite {
    pub table: TableId,
    pub changes: Vec<(Bytes, Option<Bytes>)>,
}

impl State {
    /// Makes the tables again from what was written to them, but for the `without`th write.
    pub fn forget_table_write(&mut self, without: usize) {
        self.tables.clear();
        let mut writes = std::mem::take(&mut self.table_writes);
        writes.remove(without);
        for write in writes {
            self.apply_table(write);
        }
    }

    fn apply_table(&mut self, write: Rc<TableWrite>) {
        let entries = self.tables.entry(write.table).or_default();
        for (key, value) in &write.changes {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        self.table_writes.push(write);
    }

    /// What the log must show.
    pub fn expected(&self) -> Observed {
        Observed {
            topics: self.topics.clone(),
            bounds: self.partitions.iter().map(|(id, held)| (*id, (held.log_start, held.end()))).collect(),
            tables: TABLES.iter().map(|table| self.tables.get(table).cloned().unwrap_or_default()).collect(),
        }
    }

    /// A change became durable. The log chooses the numbers of new partitions: they are taken from what it shows.
    pub fn apply(&mut self, change: &Change, observed: &Observed) {
        match change {
            Change::Batch { partition, placed } => {
                if let Some(held) = self.partitions.get_mut(partition) {
                    held.placed.push(placed.clone());
                }
            }
            Change::TopicCreated { name, id, partitions, configs } => {
                let topic = Topic { id: *id, partitions: Vec::new(), configs: configs.clone() };
                self.topics.insert(name.clone(), topic);
                self.grow(name, *partitions, observed);
            }
            Change::PartitionsAdded { name, total } => self.grow(name, *total, observed),
            Change::TopicConfigs { name, configs } => {
                if let Some(topic) = self.topics.get_mut(name) {
                    topic.configs.clone_from(configs);
                }
            }
            Change::TopicDeleted { name } => {
                for partition in self.topics.remove(name).into_iter().flat_map(|topic| topic.partitions) {
                    self.partitions.remove(&partition);
                }
            }
            Change::LogStart { partition, offset } => {
                if let Some(held) = self.partitions.get_mut(partition) {
                    held.log_start = held.log_start.max(*offset);
                }
            }
            Change::Table { table, changes } => {
                self.apply_table(Rc::new(TableWrite { table: *table, changes: changes.clone() }));
            }
        }
    }

    fn grow(&mut self, name: &str, total: u32, observed: &Observed) {
        let Some(topic) = self.topics.get_mut(name) else { return };
        let shown = observed.topics.get(name).filter(|shown| shown.id == topic.id);
        for index in topic.partitions.len()..total as usize {
            let Some(partition) = shown.and_then(|shown| shown.partitions.get(index)) else { return };
            topic.partitions.push(*partition);
            self.partitions.insert(
                *partition,
                Partition {
                    topic: name.to_owned(),
                    index: index as u32,
                    log_start: 0,
                    placed: Vec::new(),
                    damaged: BTreeSet::new(),
                },
            );
        }
    }
}

/// What Kafka's rules say about a batch after `history`, the batches of its producer in its partition, oldest first.
pub(super) fn verdict(history: &[Placed], next_offset: i64, batch: &Batch) -> AppendOutcome {
    let header = &batch.header;
    let stored = AppendOutcome::Stored { base_offset: next_offset };
    let Some(newest) = history.last().map(|placed| placed.batch.header) else { return stored };
    if header.producer_id < 0 {
        return stored;
    }
    let out_of_order = AppendOutcome::Refused(ProducerFault::OutOfOrderSequence);
    match header.producer_epoch.cmp(&newest.producer_epoch) {
        std::cmp::Ordering::Less => return AppendOutcome::Refused(ProducerFault::StaleEpoch),
        std::cmp::Ordering::Greater if header.base_sequence == 0 => return stored,
        std::cmp::Ordering::Greater => return out_of_order,
        std::cmp::Ordering::Equal => {}
    }
    let same = |placed: &&Placed| {
        let of = &placed.batch.header;
        (of.producer_epoch, of.base_sequence, of.last_offset_delta)
            == (header.producer_epoch, header.base_sequence, header.last_offset_delta)
    };
    if let Some(before) = history.iter().rev().take(BATCHES_REMEMBERED).find(same) {
        return AppendOutcome::Duplicate { base_offset: before.base_offset };
    }
    let next = newest.base_sequence + newest.last_offset_delta + 1;
    if next == header.base_sequence { stored } else { out_of_order }
}

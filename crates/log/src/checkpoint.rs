//! A checkpoint: everything that the segments before a given one amount to, apart from the records themselves. A start
//! reads the newest one and replays only what was written after it. See docs/FORMAT.md.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::append::Assigned;
use crate::catalog::{Catalog, Topic};
use crate::codec::{Decoder, Encoder, Malformed, seal_file, unseal_file};
use crate::control::{self, Control};
use crate::log::{Published, lock};
use crate::producers::Producers;
use crate::{PartitionId, TableId};

const MAGIC: [u8; 8] = *b"BATONCHK";
const VERSION: u16 = 1;

/// All tables of a log: small maps from bytes to bytes.
pub(crate) type Tables = BTreeMap<TableId, BTreeMap<Bytes, Bytes>>;

/// One partition in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub partition: PartitionId,
    pub log_start: i64,
    pub next_offset: i64,
    pub producers: Producers,
}

/// The state of a log at the start of a segment.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    /// Everything before this segment is covered.
    pub segment: u64,
    /// Number of the last commit group that is covered.
    pub commit: u64,
    /// The next partition to be created gets this number.
    pub next_partition: u32,
    pub catalog: Catalog,
    pub partitions: Vec<PartitionState>,
    pub tables: Tables,
    /// Changes to apply on top: those of the last group covered, which was not yet durable when the rest was encoded.
    pub changes: Vec<Control>,
}

/// The state that `assigned` and `published` hold together, as the start of segment `segment`; `changes` are to be applied on top.
pub(crate) fn of(
    segment: u64,
    commit: u64,
    assigned: &Assigned,
    published: &Published,
    changes: &[&Control],
) -> Vec<u8> {
    let partitions = assigned.partitions.iter().filter_map(|(partition, state)| {
        let log_start = lock(published.partition(*partition)?).log_start;
        Some((*partition, log_start, state.next_offset, &state.producers))
    });
    let numbers = (segment, commit, assigned.next_partition);
    encode(numbers, &published.catalog, partitions, &published.tables, changes)
}

/// Encodes a checkpoint piece by piece, so that nothing needs to be cloned for it.
fn encode<'a>(
    (segment, commit, next_partition): (u64, u64, u32),
    catalog: &Catalog,
    partitions: impl Iterator<Item = (PartitionId, i64, i64, &'a Producers)>,
    tables: &Tables,
    changes: &[&Control],
) -> Vec<u8> {
    let mut out = Encoder::default();
    out.u64(segment);
    out.u64(commit);
    out.u32(next_partition);
    out.count(catalog.topic_count());
    for topic in catalog.topics() {
        out.bytes(topic.name.as_bytes());
        out.0.extend_from_slice(&topic.id);
        control::encode_partitions(&topic.partitions, &mut out);
        control::encode_configs(&topic.configs, &mut out);
    }
    let mut states = Encoder::default();
    let mut count = 0;
    for (partition, log_start, next_offset, producers) in partitions {
        states.u32(partition.0);
        states.i64(log_start);
        states.i64(next_offset);
        producers.encode(&mut states);
        count += 1;
    }
    out.count(count);
    out.0.extend_from_slice(&states.0);
    out.count(tables.len());
    for (table, entries) in tables {
        out.u8(table.0);
        out.count(entries.len());
        for (key, value) in entries {
            out.bytes(key);
            out.bytes(value);
        }
    }
    out.count(changes.len());
    changes.iter().for_each(|change| change.encode(&mut out));
    seal_file(MAGIC, VERSION, &out.0)
}

/// Reads a checkpoint back.
pub(crate) fn decode(file: &[u8]) -> Result<Checkpoint, Malformed> {
    let mut from = Decoder(unseal_file(MAGIC, VERSION, file)?);
    let (segment, commit, next_partition) = (from.u64()?, from.u64()?, from.u32()?);
    let mut catalog = Catalog::default();
    for _ in 0..from.count()? {
        catalog.insert(Topic {
            name: from.string()?.into(),
            id: from.uuid()?,
            partitions: control::decode_partitions(&mut from)?,
            configs: control::decode_configs(&mut from)?,
        });
    }
    let count = from.count()?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        partitions.push(PartitionState {
            partition: PartitionId(from.u32()?),
            log_start: from.i64()?,
            next_offset: from.i64()?,
            producers: Producers::decode(&mut from)?,
        });
    }
    let mut tables = Tables::new();
    for _ in 0..from.count()? {
        let table = TableId(from.u8()?);
        let count = from.count()?;
        let entries = (0..count).map(|_| Ok((from.owned()?, from.owned()?)));
        tables.insert(table, entries.collect::<Result<_, Malformed>>()?);
    }
    let count = from.count()?;
    let changes = (0..count).map(|_| Control::decode(&mut from)).collect::<Result<_, Malformed>>()?;
    from.end()?;
    Ok(Checkpoint { segment, commit, next_partition, catalog, partitions, tables, changes })
}

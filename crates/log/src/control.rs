//! Control records: every durable change that is not a batch.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codec::{Decoder, Encoder, Malformed};
use crate::{PartitionId, TableId};

/// A change of catalog, tables or log starts, as it stands in the log and at the end of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    TopicCreated { name: String, id: [u8; 16], partitions: Vec<PartitionId>, configs: BTreeMap<String, String> },
    PartitionsAdded { name: String, partitions: Vec<PartitionId> },
    TopicConfigs { name: String, configs: BTreeMap<String, String> },
    TopicDeleted { name: String },
    LogStart { partition: PartitionId, offset: i64 },
    Table { table: TableId, changes: Vec<(Bytes, Option<Bytes>)> },
}

const TOPIC_CREATED: u8 = 1;
const PARTITIONS_ADDED: u8 = 2;
const TOPIC_CONFIGS: u8 = 3;
const TOPIC_DELETED: u8 = 4;
const LOG_START: u8 = 5;
const TABLE: u8 = 6;

impl Control {
    pub fn encode(&self, out: &mut Encoder) {
        match self {
            Self::TopicCreated { name, id, partitions, configs } => {
                out.u8(TOPIC_CREATED);
                out.bytes(name.as_bytes());
                out.0.extend_from_slice(id);
                encode_partitions(partitions, out);
                encode_configs(configs, out);
            }
            Self::PartitionsAdded { name, partitions } => {
                out.u8(PARTITIONS_ADDED);
                out.bytes(name.as_bytes());
                encode_partitions(partitions, out);
            }
            Self::TopicConfigs { name, configs } => {
                out.u8(TOPIC_CONFIGS);
                out.bytes(name.as_bytes());
                encode_configs(configs, out);
            }
            Self::TopicDeleted { name } => {
                out.u8(TOPIC_DELETED);
                out.bytes(name.as_bytes());
            }
            Self::LogStart { partition, offset } => {
                out.u8(LOG_START);
                out.u32(partition.0);
                out.i64(*offset);
            }
            Self::Table { table, changes } => {
                out.u8(TABLE);
                out.u8(table.0);
                out.count(changes.len());
                for (key, value) in changes {
                    out.bytes(key);
                    out.u8(u8::from(value.is_some()));
                    out.bytes(value.as_deref().unwrap_or_default());
                }
            }
        }
    }

    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            TOPIC_CREATED => Self::TopicCreated {
                name: from.string()?,
                id: from.uuid()?,
                partitions: decode_partitions(from)?,
                configs: decode_configs(from)?,
            },
            PARTITIONS_ADDED => Self::PartitionsAdded { name: from.string()?, partitions: decode_partitions(from)? },
            TOPIC_CONFIGS => Self::TopicConfigs { name: from.string()?, configs: decode_configs(from)? },
            TOPIC_DELETED => Self::TopicDeleted { name: from.string()? },
            LOG_START => Self::LogStart { partition: PartitionId(from.u32()?), offset: from.i64()? },
            TABLE => {
                let table = TableId(from.u8()?);
                let count = from.count()?;
                let changes = (0..count).map(|_| {
                    let key = from.owned()?;
                    let (set, value) = (from.u8()? != 0, from.owned()?);
                    Ok((key, set.then_some(value)))
                });
                Self::Table { table, changes: changes.collect::<Result<_, Malformed>>()? }
            }
            _ => return Err(Malformed),
        })
    }
}

pub(crate) fn encode_partitions(partitions: &[PartitionId], out: &mut Encoder) {
    out.count(partitions.len());
    partitions.iter().for_each(|partition| out.u32(partition.0));
}

pub(crate) fn decode_partitions(from: &mut Decoder<'_>) -> Result<Vec<PartitionId>, Malformed> {
    let count = from.count()?;
    (0..count).map(|_| Ok(PartitionId(from.u32()?))).collect()
}

pub(crate) fn encode_configs(configs: &BTreeMap<String, String>, out: &mut Encoder) {
    out.count(configs.len());
    for (name, value) in configs {
        out.bytes(name.as_bytes());
        out.bytes(value.as_bytes());
    }
}

pub(crate) fn decode_configs(from: &mut Decoder<'_>) -> Result<BTreeMap<String, String>, Malformed> {
    let count = from.count()?;
    (0..count).map(|_| Ok((from.string()?, from.string()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_record_comes_back_as_it_was() {
        let configs = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let records = [
            Control::TopicCreated {
                name: "t".into(),
                id: [3; 16],
                partitions: vec![PartitionId(9)],
                configs: configs.clone(),
            },
            Control::PartitionsAdded { name: "t".into(), partitions: vec![PartitionId(1), PartitionId(2)] },
            Control::TopicConfigs { name: "t".into(), configs },
            Control::TopicDeleted { name: "t".into() },
            Control::LogStart { partition: PartitionId(4), offset: 77 },
            Control::Table {
                table: TableId(1),
                changes: vec![
                    ("k".into(), Some("v".into())),
                    ("gone".into(), None),
                    ("empty".into(), Some(Bytes::new())),
                ],
            },
        ];
        for record in records {
            let mut out = Encoder::default();
            record.encode(&mut out);
            let mut from = Decoder(&out.0);
            assert_eq!(Control::decode(&mut from), Ok(record.clone()));
            assert!(from.0.is_empty());
            for cut in 0..out.0.len() {
                assert_eq!(Control::decode(&mut Decoder(&out.0[..cut])), Err(Malformed), "{record:?} cut at {cut}");
            }
        }
    }
}

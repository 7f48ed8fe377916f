//! Batches of records, written and read by another implementation.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchDecoder,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

/// An idempotent producer.
#[derive(Debug, Clone, Copy)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

const NOBODY: Producer = Producer { id: NO_PRODUCER_ID, epoch: NO_PRODUCER_EPOCH, sequence: NO_SEQUENCE };

/// Now, in the unit of timestamps.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("it is after 1970").as_millis() as i64
}

/// One batch with these values.
pub fn batch(values: &[&str]) -> Bytes {
    batch_of(NOBODY, now_ms(), values)
}

/// One batch of an idempotent producer.
pub fn idempotent(producer: Producer, values: &[&str]) -> Bytes {
    batch_of(producer, now_ms(), values)
}

/// One batch; all of its records have the same time.
pub fn batch_of(producer: Producer, timestamp: i64, values: &[&str]) -> Bytes {
    let records: Vec<Record> = values
        .iter()
        .enumerate()
        .map(|(at, value)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            timestamp_type: TimestampType::Creation,
            offset: at as i64,
            sequence: if producer.id < 0 { at as i32 - 1 } else { producer.sequence + at as i32 },
            timestamp,
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: IndexMap::new(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("a batch");
    bytes.freeze()
}

/// A batch from nobody in particular, at a time.
pub fn batch_at(timestamp: i64, values: &[&str]) -> Bytes {
    batch_of(NOBODY, timestamp, values)
}

/// The records of some batches.
pub fn records(batches: &Option<Bytes>) -> Vec<Record> {
    let mut bytes = batches.clone().unwrap_or_default();
    let sets = RecordBatchDecoder::decode_all(&mut bytes).expect("batches that another implementation reads");
    sets.into_iter().flat_map(|set| set.records).collect()
}

/// Offsets and values of some batches.
pub fn values(batches: &Option<Bytes>) -> Vec<(i64, String)> {
    let text = |record: Record| {
        let value = record.value.unwrap_or_default();
        (record.offset, String::from_utf8_lossy(&value).into_owned())
    };
    records(batches).into_iter().map(text).collect()
}

//! What a spool keeps on the disk: a partition of its log for each partition that messages go to, a batch of one record for each message.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_core::stamp::Stamp;
use baton_core::{Headers, TopicPartition};
use baton_engine::Record;
use baton_log::{
    AppendError, AppendOutcome, FileDisk, Log, LogOptions, NoObserver, PartitionId, ReadError, ReadMode, SystemClock,
    Ticket,
};
use baton_wire::records::{BatchBuilder, BatchHeader, Codec, NewRecord, Records};
use bytes::Bytes;

/// Goes before the message's own headers and is taken away when it is read: when the message was spooled, and the time of its event if it
/// has one; milliseconds since 1970, eight bytes each.
const SPOOL_HEADER: &str = "baton.spool";
/// Small, so that what was sent gives its space back soon.
const SEGMENT_BYTES: u64 = 16 << 20;
const RESERVE_STEP_BYTES: u64 = 4 << 20;
/// Twice what a producer's buffer holds by default: what it lets in can wait for one sync.
const PENDING_BYTES_MAX: usize = 64 << 20;
const INDEX_CACHE_BYTES: usize = 1 << 20;

/// The log of a spool.
pub(in crate::producer) struct Store {
    log: Log,
    closed: AtomicBool,
}

/// What was there when it was opened.
pub(in crate::producer) struct Found {
    pub(in crate::producer) partition: TopicPartition,
    pub(in crate::producer) mark: u64,
    pub(in crate::producer) end: u64,
    /// About so many.
    pub(in crate::producer) bytes: u64,
}

/// A message that was kept.
pub(in crate::producer) struct Kept {
    pub(in crate::producer) at: u64,
    pub(in crate::producer) bytes: u64,
    pub(in crate::producer) spooled_ms: u64,
    pub(in crate::producer) record: Record,
    pub(in crate::producer) stamp: Stamp,
}

impl Store {
    /// Waits for the disk.
    pub(in crate::producer) fn open(path: &Path) -> Result<(Self, Vec<Found>), String> {
        let text = |error: &dyn std::fmt::Display| format!("the spool {}: {error}", path.display());
        let disk = FileDisk::open(path).map_err(|error| text(&error))?;
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            reserve_step_bytes: RESERVE_STEP_BYTES,
            pending_bytes_max: PENDING_BYTES_MAX,
            index_cache_bytes: INDEX_CACHE_BYTES,
            ..LogOptions::default()
        };
        let (log, report) = Log::open(Arc::new(disk), Arc::new(SystemClock), options, Arc::new(NoObserver))
            .map_err(|error| text(&error))?;
        for damage in &report.damage {
            tracing::error!(spool = %path.display(), ?damage, "messages in the spool are damaged");
        }
        log.start().map_err(|error| text(&error))?;
        let mut found = Vec::new();
        for topic in log.catalog().topics() {
            for (partition, id) in (0..).zip(&topic.partitions) {
                let Some(bounds) = log.bounds(*id) else { continue };
                let partition = TopicPartition::new(Arc::clone(&topic.name), partition);
                let (mark, end) = (bounds.log_start.max(0).unsigned_abs(), bounds.high_watermark.max(0).unsigned_abs());
                // Of what is before the mark, some is still on the disk, and waits for nothing.
                let bytes = log.bytes_from(*id, bounds.log_start, usize::MAX) as u64;
                found.push(Found { partition, mark, end, bytes });
            }
        }
        Ok((Self { log, closed: AtomicBool::new(false) }, found))
    }

    /// Makes places for so many partitions of a topic, which are there when that is durable.
    pub(in crate::producer) fn prepare(&self, topic: &str, partitions: u32, id: [u8; 16]) -> Result<(), AppendError> {
        let ticket = match self.log.catalog().topic(topic) {
            None => self.log.create_topic(topic, id, partitions, BTreeMap::new()),
            Some(_) => self.log.add_partitions(topic, partitions),
        };
        ticket.map(drop)
    }

    /// The partition of the log for one of a topic.
    pub(in crate::producer) fn place(&self, partition: &TopicPartition) -> Option<PartitionId> {
        let topic = self.log.catalog().topic(&partition.topic)?.clone();
        topic.partitions.get(usize::try_from(partition.partition).ok()?).copied()
    }

    pub(in crate::producer) fn log(&self) -> &Log {
        &self.log
    }

    /// Puts a batch behind the others. Does not wait for the disk.
    pub(in crate::producer) fn append(&self, place: PartitionId, batch: &[u8]) -> Result<(u64, Ticket), String> {
        let header = BatchHeader::parse(batch).map_err(|error| error.to_string())?;
        let receipt = self.log.append(place, &header, batch).map_err(|error| error.to_string())?;
        match receipt.outcome {
            AppendOutcome::Stored { base_offset } => Ok((base_offset.max(0).unsigned_abs(), receipt.ticket)),
            // Its batches have no producer, so there is nothing to refuse them for.
            other => Err(format!("the log of the spool refused a message: {other:?}")),
        }
    }

    /// Reads messages, up to the first that cannot be read: that one is named by the read that begins with it. Waits for the disk.
    pub(in crate::producer) fn read(
        log: &Log,
        place: PartitionId,
        partition: &TopicPartition,
        from: u64,
        messages_max: usize,
        bytes_max: u64,
    ) -> Result<Vec<Kept>, ReadError> {
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let read = log.read(place, from, bytes_max, true, ReadMode::Blocking)?;
        let mut kept = Vec::new();
        for batch in read.batches.iter().take(messages_max) {
            match decode(batch, partition) {
                Ok(message) => kept.push(message),
                Err(_) if !kept.is_empty() => break,
                Err(cause) => {
                    tracing::error!(%partition, at = from, cause, "this is no message of a spool");
                    let last = BatchHeader::parse(batch).map_or(from, |header| header.last_offset());
                    return Err(ReadError::Damaged { first: from, last });
                }
            }
        }
        Ok(kept)
    }

    /// Ends it, and lets others have the folder. Waits for the disk.
    pub(in crate::producer) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.log.close();
        }
    }

    /// What is before the mark is done with.
    pub(in crate::producer) fn mark(&self, place: PartitionId, mark: u64) -> Result<(), AppendError> {
        self.log.delete_records(place, i64::try_from(mark).unwrap_or(i64::MAX)).map(drop)
    }
}

impl Drop for Store {
    /// Closing waits for threads and for the disk.
    fn drop(&mut self) {
        if *self.closed.get_mut() {
            return;
        }
        let log = self.log.clone();
        let closing = std::thread::Builder::new().name("spool-close".to_owned()).spawn(move || log.close());
        if let Err(error) = closing {
            tracing::warn!(%error, "no thread to close a spool: it is read again from its last checkpoint");
        }
    }
}

/// A record as it is kept.
pub(super) fn encode(record: &Record, spooled_ms: u64) -> Result<Vec<u8>, String> {
    let mut times = spooled_ms.to_be_bytes().to_vec();
    times.extend(record.timestamp_ms.map(i64::to_be_bytes).into_iter().flatten());
    let mut headers: Vec<(&[u8], Option<&[u8]>)> = vec![(SPOOL_HEADER.as_bytes(), Some(&times))];
    headers.extend(record.headers.iter().map(|header| (header.name.as_bytes(), header.value.as_deref())));
    let timestamp = i64::try_from(spooled_ms).unwrap_or(i64::MAX);
    let (key, value) = (record.key.as_deref(), record.payload.as_deref());
    let kept = NewRecord { timestamp, key, value, headers: &headers };
    BatchBuilder::new(Codec::None).record(kept).build().map_err(|error| error.to_string())
}

fn decode(batch: &Bytes, partition: &TopicPartition) -> Result<Kept, String> {
    let records = Records::open(batch).map_err(|error| error.to_string())?;
    if records.header().last_offset() != records.header().base_offset {
        return Err("another program wrote it".to_owned());
    }
    let record = records.iter().next().ok_or("an empty batch")?.map_err(|error| error.to_string())?;
    let (mut headers, mut times) = (Headers::default(), None);
    for header in record.headers() {
        let (name, value) = header.map_err(|error| error.to_string())?;
        match &mut times {
            None => times = Some(value.filter(|_| name == SPOOL_HEADER.as_bytes()).ok_or("another program wrote it")?),
            Some(_) => {
                let name = std::str::from_utf8(name).map_err(|error| error.to_string())?;
                headers.push(name, value.map(Bytes::copy_from_slice));
            }
        }
    }
    let (spooled_ms, timestamp_ms) = times.and_then(times_of).ok_or("another program wrote it")?;
    let stamp = Stamp::of(&headers).map_err(|error| error.to_string())?.ok_or("it has no stamp")?;
    let record = Record {
        to: partition.clone(),
        key: record.key.map(Bytes::copy_from_slice),
        payload: record.value.map(Bytes::copy_from_slice),
        headers,
        timestamp_ms,
        id: Some(stamp.id.shared()),
    };
    let at = records.header().base_offset.max(0).unsigned_abs();
    Ok(Kept { at, bytes: batch.len() as u64, spooled_ms, record, stamp })
}

/// When it was spooled, and the time of the event.
fn times_of(value: &[u8]) -> Option<(u64, Option<i64>)> {
    let (spooled_ms, event) = value.split_first_chunk::<8>()?;
    let event = (!event.is_empty()).then(|| event.try_into().map(i64::from_be_bytes)).transpose().ok()?;
    Some((u64::from_be_bytes(*spooled_ms), event))
}

#[cfg(test)]
mod tests {
    use baton_core::MessageId;
    use baton_core::stamp::{Instance, STAMP_HEADER};

    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        let (id, instance) = (MessageId::new("order-1").unwrap(), Instance::new("orders-1").unwrap());
        Stamp { id, instance, epoch: 7, sequence }
    }

    fn record(sequence: u64) -> Record {
        let mut headers = Headers::default();
        headers.push(STAMP_HEADER, Some(stamp(sequence).encode()));
        let (to, id) = (TopicPartition::new("orders", 0), Some(stamp(sequence).id.shared()));
        Record { to, key: None, payload: None, headers, timestamp_ms: None, id }
    }

    #[tokio::test]
    async fn what_is_before_a_message_that_cannot_be_read_comes_out_and_what_is_behind_it_too() {
        let folder = tempfile::tempdir().unwrap();
        let (store, found) = Store::open(folder.path()).unwrap();
        assert!(found.is_empty());
        let ticket = store.log().create_topic("orders", [7; 16], 1, BTreeMap::new()).unwrap();
        store.log().durable(ticket).await.unwrap();
        let orders = TopicPartition::new("orders", 0);
        let place = store.place(&orders).unwrap();
        let foreign = |records: usize| {
            let one = NewRecord { timestamp: 0, key: None, value: None, headers: &[] };
            let batch = (0..records).fold(BatchBuilder::new(Codec::None), |batch, _| batch.record(one));
            batch.build().unwrap()
        };
        let message = |sequence| encode(&record(sequence), 1).unwrap();
        let mut ticket = None;
        for batch in [message(1), message(2), foreign(1), message(3), foreign(3), message(4)] {
            ticket = Some(store.append(place, &batch).unwrap().1);
        }
        store.log().durable(ticket.unwrap()).await.unwrap();
        let read = |from| {
            let kept = Store::read(store.log(), place, &orders, from, 100, 1 << 20)?;
            Ok(kept.into_iter().map(|kept| (kept.at, kept.stamp.sequence)).collect::<Vec<_>>())
        };
        assert_eq!(read(0), Ok(vec![(0, 1), (1, 2)]));
        assert_eq!(read(2), Err(ReadError::Damaged { first: 2, last: 2 }));
        assert_eq!(read(3), Ok(vec![(3, 3)]));
        assert_eq!(read(4), Err(ReadError::Damaged { first: 4, last: 6 }));
        assert_eq!(read(7), Ok(vec![(7, 4)]));
        store.close();
    }

    #[test]
    fn a_message_comes_out_of_the_spool_as_it_went_in() {
        let stamp = stamp(3);
        for (key, payload, timestamp_ms) in
            [(None, None, None), (Some("k"), Some("100 beans"), Some(-5)), (Some(""), Some(""), Some(0))]
        {
            let mut headers = Headers::default();
            headers.push("baton.spool", Some(Bytes::from_static(b"somebody else's")));
            headers.push("nothing", None);
            headers.push(STAMP_HEADER, Some(stamp.encode()));
            let to = TopicPartition::new("orders", 2);
            let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
            let (key, payload, id) = (key.map(bytes), payload.map(bytes), Some(stamp.id.shared()));
            let record = Record { to: to.clone(), key, payload, headers, timestamp_ms, id };
            let kept = decode(&encode(&record, 1_234).unwrap().into(), &to).unwrap();
            assert_eq!((kept.record, kept.stamp, kept.spooled_ms), (record, stamp.clone(), 1_234));
        }
    }
}

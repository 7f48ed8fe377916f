//! A side store in a topic of the engine itself: needs nothing else, and an engine that can be read without a group and whose
//! offsets last.
//!
//! Each record has a key of its own, and is removed by one without content. So the topic is compacted where the engine can do that; where
//! it cannot, it keeps everything ([`baton_engine::create_kept`]): a retention that ends would lose what is parked for longer.
//!
//! | record | key | content |
//! |---|---|---|
//! | parked message | `parked/<group>/<topic>/<partition>/<offset>` | as it came, with its headers, and `baton-parked-*` beside them |
//! | what is done | `done/<group>/<topic>/<partition>` | bytes |

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::consumer::{KeyInStore, Loaded, Parked};
use baton_core::partitioner::partition_of_key;
use baton_core::{Delivery, Headers, TopicPartition};
use baton_engine::{
    Engine, EngineError, EngineProducer, OLDEST, ProducerOptions, Record, Retry, SendError, TopicSpec, create_kept,
    large_producer,
};
use baton_guard::side::LOAD_BYTES_MAX;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::super::letters::{REASON_BYTES_MAX, SHORT_REASON_BYTES_MAX, shortened};
use super::{Offsets, Opened, Place, SideStore, StoreError, StoreFuture};

const PREFIX: &str = "baton-parked-";
const KEY: &str = "baton-parked-key";
const TIMESTAMP: &str = "baton-parked-timestamp";
const NO_CONTENT: &str = "baton-parked-no-content";
const ATTEMPTS: &str = "baton-parked-attempts";
const SOURCE: &str = "baton-parked-source";
const REASON: &str = "baton-parked-reason";
/// Bytes of a reason that are kept, from the first try on: as long as the topic says that a record is too large. With none, nothing is
/// added but what it takes to give the message back as it came.
const REASON_BYTES: [usize; 3] = [REASON_BYTES_MAX, SHORT_REASON_BYTES_MAX, 0];
/// Partitions of a topic that is made here: as many can be read side by side when partitions are assigned.
const PARTITIONS: u32 = 8;
/// After how long the engine's client gives a record up; the consumer tries it again.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
const LINGER_MS: u64 = 1;

/// Where a parked message lies, and how large it is.
#[derive(Debug, Clone, Copy)]
struct Lies {
    at: i64,
    bytes: usize,
}

/// The parked messages of a key, by their offset in the partition that they came from, which is also their order. This is all that is in
/// memory of them: some 30 bytes each, and of a partition no more than `ParkingSettings::messages_max`.
type Key = BTreeMap<u64, Lies>;

/// A side store in a topic. The topic is made when something is stored for the first time.
pub struct TopicStore {
    engine: Arc<dyn Engine>,
    topic: Arc<str>,
    made: OnceCell<NonZeroU32>,
    producer: OnceCell<Arc<dyn EngineProducer>>,
    places: Mutex<HashMap<Place, HashMap<Bytes, Key>>>,
}

impl TopicStore {
    /// In this topic. Several groups may share one, but each then reads what is the others' as well.
    pub fn new(engine: Arc<dyn Engine>, topic: impl Into<Arc<str>>) -> Self {
        Self { engine, topic: topic.into(), made: OnceCell::new(), producer: OnceCell::new(), places: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Place, HashMap<Bytes, Key>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many partitions the topic has, if it is there.
    async fn there(&self) -> Result<Option<NonZeroU32>, StoreError> {
        if let Some(partitions) = self.made.get() {
            return Ok(Some(*partitions));
        }
        match self.engine.partitions(&self.topic).await {
            Ok(partitions) => Ok(NonZeroU32::new(partitions)),
            Err(EngineError::Caller(_)) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn make(&self) -> Result<NonZeroU32, StoreError> {
        let made = self.made.get_or_try_init(|| async {
            if let Some(partitions) = self.there().await? {
                return Ok(partitions);
            }
            let topic = TopicSpec::new(self.topic.clone(), PARTITIONS);
            create_kept(&*self.engine, &topic).await.map_err(|error| self.failed(&error))?;
            NonZeroU32::new(PARTITIONS).ok_or_else(|| StoreError("no partitions".to_owned()))
        });
        made.await.copied()
    }

    fn failed(&self, error: &dyn std::error::Error) -> StoreError {
        StoreError(format!("side store {}: {error}", self.topic))
    }

    fn lies_in(&self, place: &Place, partitions: NonZeroU32) -> TopicPartition {
        let number = partition_of_key(place.partition.to_string().as_bytes(), partitions);
        TopicPartition::new(self.topic.clone(), number)
    }

    /// Stores records in their order; says of each where it lies, or why it does not.
    async fn send(&self, records: Vec<Record>) -> Result<Vec<Result<i64, SendError>>, StoreError> {
        let producer = self.producer.get_or_try_init(|| {
            let (client_id, settings) = (format!("{}-store", self.topic), Vec::new());
            let (linger_ms, delivery_timeout) = (LINGER_MS, DELIVERY_TIMEOUT);
            large_producer(&*self.engine, ProducerOptions { client_id, linger_ms, delivery_timeout, settings })
        });
        let producer = producer.await.map_err(|error| self.failed(&error))?;
        let mut waiting = Vec::with_capacity(records.len());
        for record in records {
            waiting.push(producer.send_when_room(record).await);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for stored in waiting {
            let nowhere = || StoreError("the engine does not say where it stored".to_owned());
            answers.push(match stored.await {
                Ok(stored) => Ok(stored.offset.ok_or_else(nowhere)?),
                Err(error) => Err(error),
            });
        }
        Ok(answers)
    }

    /// The same where nothing can be left out.
    async fn send_all(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let answers = self.send(records).await?;
        answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(|error| self.failed(&error)))
    }

    /// Stores parked messages, each with as much of its failure as there is room for; says where they lie.
    async fn send_parked(
        &self,
        to: &TopicPartition,
        place: &Place,
        key: &Bytes,
        messages: &[Parked],
    ) -> Result<Vec<i64>, StoreError> {
        let mut lie_at = vec![None; messages.len()];
        for reason_bytes in REASON_BYTES {
            let left: Vec<usize> = (0..messages.len()).filter(|at| lie_at[*at].is_none()).collect();
            if left.is_empty() {
                break;
            }
            let records = left.iter().map(|at| parked_record(to.clone(), place, key, &messages[*at], reason_bytes));
            for (at, answer) in left.iter().zip(self.send(records.collect()).await?) {
                match answer {
                    Ok(offset) => lie_at[*at] = Some(offset),
                    Err(error) if error.retry == Retry::Smaller && reason_bytes > 0 => {}
                    Err(error) => return Err(self.failed(&error)),
                }
            }
        }
        // With no reason left to shorten, whatever was not stored has ended this with its error.
        Ok(lie_at.into_iter().flatten().collect())
    }

    /// Reads what is kept of a place, and remembers where it lies.
    async fn read(&self, place: &Place) -> Result<Opened, StoreError> {
        let Some(partitions) = self.there().await? else {
            self.places().insert(place.clone(), HashMap::new());
            return Ok(Opened::default());
        };
        let from = self.lies_in(place, partitions);
        // Compaction and deletion take away what lies first.
        let mut reader = self.engine.reader(&from, OLDEST).await.map_err(|error| self.failed(&error))?;
        let mut found = Found::new(place);
        loop {
            let batch = reader.next().await.map_err(|error| self.failed(&error))?;
            if batch.is_empty() {
                break;
            }
            batch.into_iter().for_each(|record| found.add(record));
        }
        let Found { mut keys, done, .. } = found;
        keys.retain(|_, key| !key.is_empty());
        let parked = keys.iter().map(|(key, all)| KeyInStore { key: key.clone(), messages: all.len() }).collect();
        self.places().insert(place.clone(), keys);
        Ok(Opened { done, parked })
    }

    /// Where the oldest messages of a key lie, as far as they may be read at once.
    fn oldest(&self, place: &Place, key: &Bytes, messages_max: usize) -> BTreeMap<i64, u64> {
        let places = self.places();
        let found = places.get(place).and_then(|keys| keys.get(key));
        let mut bytes = 0;
        let mut wanted = BTreeMap::new();
        for (position, lies) in found.into_iter().flatten().take(messages_max) {
            bytes += lies.bytes;
            if bytes > LOAD_BYTES_MAX && !wanted.is_empty() {
                break;
            }
            wanted.insert(lies.at, *position);
        }
        wanted
    }

    /// Reads messages from where they lie. Those that are not there any more are left.
    async fn find(
        &self,
        place: &Place,
        key: &Bytes,
        wanted: &mut BTreeMap<i64, u64>,
    ) -> Result<Vec<Loaded>, StoreError> {
        let mut loaded = Vec::with_capacity(wanted.len());
        let Some(first) = wanted.keys().next().copied() else { return Ok(loaded) };
        let from = self.lies_in(place, self.make().await?);
        let mut reader = match self.engine.reader(&from, first).await {
            Ok(reader) => reader,
            // The oldest record that is kept lies behind it.
            Err(EngineError::Caller(_)) => {
                self.engine.reader(&from, OLDEST).await.map_err(|error| self.failed(&error))?
            }
            Err(error) => return Err(self.failed(&error)),
        };
        while !wanted.is_empty() {
            let batch = reader.next().await.map_err(|error| self.failed(&error))?;
            if batch.is_empty() {
                break;
            }
            for record in batch {
                if let Some(position) = wanted.remove(&record.offset) {
                    loaded.push(Loaded { position, delivery: restored(place, key, position, record) });
                }
            }
        }
        loaded.sort_unstable_by_key(|loaded| loaded.position);
        Ok(loaded)
    }
}

/// What was found of a place so far.
struct Found {
    parked_prefix: String,
    done_key: String,
    keys: HashMap<Bytes, Key>,
    /// Removals name no key: the message that they remove did.
    key_of: HashMap<u64, Bytes>,
    done: Bytes,
}

impl Found {
    fn new(place: &Place) -> Self {
        let (parked_prefix, done_key) = (parked_prefix(place), done_key(place));
        Self { parked_prefix, done_key, keys: HashMap::new(), key_of: HashMap::new(), done: Bytes::new() }
    }

    fn add(&mut self, record: Delivery) {
        let Some(name) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else { return };
        if name == self.done_key {
            // Not a part of what was read: that would stay in memory with it.
            self.done = Bytes::copy_from_slice(&record.payload.unwrap_or_default());
            return;
        }
        let offset = name.strip_prefix(&self.parked_prefix).and_then(|offset| offset.parse::<u64>().ok());
        let Some(offset) = offset else { return };
        match record.headers.last(KEY) {
            Some(key) if record.payload.is_some() => {
                let known = self.keys.get_key_value(key).map(|(key, _)| key.clone());
                let key = known.unwrap_or_else(|| Bytes::copy_from_slice(key));
                let lies = Lies { at: record.offset, bytes: record.bytes() };
                self.keys.entry(key.clone()).or_default().insert(offset, lies);
                self.key_of.insert(offset, key);
            }
            _ => {
                if let Some(key) = self.key_of.remove(&offset).and_then(|key| self.keys.get_mut(&key)) {
                    key.remove(&offset);
                }
            }
        }
    }
}

impl SideStore for TopicStore {
    fn needs_lasting_offsets(&self) -> bool {
        true
    }

    fn open<'a>(&'a self, place: &'a Place, offsets: Offsets) -> StoreFuture<'a, Opened> {
        Box::pin(async move {
            match offsets {
                Offsets::Lasting => self.read(place).await,
                Offsets::OfAssignment => Err(StoreError(
                    "a store in a topic needs an engine whose offsets last: use one in a database".to_owned(),
                )),
            }
        })
    }

    fn store_done<'a>(&'a self, place: &'a Place, bytes: Bytes) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let to = self.lies_in(place, self.make().await?);
            self.send_all(vec![record(to, done_key(place), Some(bytes), Headers::default())]).await
        })
    }

    fn park<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages: &'a [Parked]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let to = self.lies_in(place, self.make().await?);
            let offsets = self.send_parked(&to, place, key, messages).await?;
            let mut places = self.places();
            // Gone, if the partition is not ours any more: then the next owner finds them.
            let Some(keys) = places.get_mut(place) else { return Ok(()) };
            if !keys.contains_key(key) {
                // Not a part of the message, which would stay in memory with it.
                keys.insert(Bytes::copy_from_slice(key), Key::new());
            }
            if let Some(kept) = keys.get_mut(key) {
                for (parked, at) in messages.iter().zip(offsets) {
                    kept.insert(position(parked.delivery.offset), Lies { at, bytes: parked.delivery.bytes() });
                }
            }
            Ok(())
        })
    }

    fn load<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages_max: usize) -> StoreFuture<'a, Vec<Loaded>> {
        Box::pin(async move {
            let mut wanted = self.oldest(place, key, messages_max);
            let loaded = self.find(place, key, &mut wanted).await?;
            if wanted.is_empty() {
                return Ok(loaded);
            }
            // Somebody has removed them. That is said once; then it goes on with what is there.
            self.read(place).await?;
            let (gone, from, topic) = (wanted.len(), &place.partition, &self.topic);
            Err(StoreError(format!(
                "{gone} parked messages of {from} are not in {topic} any more, and are lost: is it compacted, or its retention.ms -1?"
            )))
        })
    }

    fn remove<'a>(&'a self, place: &'a Place, key: &'a Bytes, up_to: u64) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let to = self.lies_in(place, self.make().await?);
            let prefix = parked_prefix(place);
            let removed: Vec<u64> = {
                let places = self.places();
                let kept = places.get(place).and_then(|keys| keys.get(key));
                kept.into_iter().flat_map(|kept| kept.range(..=up_to)).map(|(position, _)| *position).collect()
            };
            let gone = |position: &u64| record(to.clone(), format!("{prefix}{position}"), None, Headers::default());
            self.send_all(removed.iter().map(gone).collect()).await?;
            let mut places = self.places();
            if let Some(keys) = places.get_mut(place)
                && let Some(kept) = keys.get_mut(key)
            {
                kept.retain(|position, _| *position > up_to);
                if kept.is_empty() {
                    keys.remove(key);
                }
            }
            Ok(())
        })
    }

    fn forget(&self, place: &Place) {
        self.places().remove(place);
    }
}

fn parked_prefix(place: &Place) -> String {
    format!("parked/{}/{}/{}/", place.group, place.partition.topic, place.partition.partition)
}

fn done_key(place: &Place) -> String {
    format!("done/{}/{}/{}", place.group, place.partition.topic, place.partition.partition)
}

/// Offsets that last are never negative.
fn position(offset: i64) -> u64 {
    offset.unsigned_abs()
}

fn record(to: TopicPartition, key: String, payload: Option<Bytes>, headers: Headers) -> Record {
    Record { to, key: Some(key.into()), payload, headers, timestamp_ms: None, id: None }
}

fn parked_record(to: TopicPartition, place: &Place, key: &Bytes, parked: &Parked, reason_bytes: usize) -> Record {
    let delivery = &parked.delivery;
    let mut headers: Headers =
        delivery.headers.iter().filter(|header| !header.name.starts_with(PREFIX)).cloned().collect();
    headers.push(KEY, Some(key.clone()));
    if let Some(timestamp_ms) = delivery.timestamp_ms {
        headers.push(TIMESTAMP, Some(timestamp_ms.to_string().into()));
    }
    if delivery.payload.is_none() {
        headers.push(NO_CONTENT, Some(Bytes::new()));
    }
    if reason_bytes > 0 {
        headers.push(ATTEMPTS, Some(parked.attempts.to_string().into()));
        for (name, text) in parked.failure.iter().flat_map(|each| [(SOURCE, &*each.source), (REASON, &*each.reason)]) {
            headers.push(name, Some(Bytes::copy_from_slice(shortened(text, reason_bytes).as_bytes())));
        }
    }
    let name = format!("{}{}", parked_prefix(place), position(delivery.offset));
    record(to, name, Some(delivery.payload.clone().unwrap_or_default()), headers)
}

/// The message as it came.
fn restored(place: &Place, key: &Bytes, position: u64, record: Delivery) -> Delivery {
    let timestamp = record.headers.last(TIMESTAMP).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    let payload = record.payload.filter(|_| record.headers.last(NO_CONTENT).is_none());
    Delivery {
        from: place.partition.clone(),
        offset: i64::try_from(position).unwrap_or(i64::MAX),
        key: Some(key.clone()),
        payload,
        headers: record.headers.iter().filter(|header| !header.name.starts_with(PREFIX)).cloned().collect(),
        timestamp_ms: timestamp,
        delivered_before: None,
    }
}

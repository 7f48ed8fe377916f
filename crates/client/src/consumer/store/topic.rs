//! A side store in a topic of the engine itself: needs nothing else, and an engine that can be read without a group and whose
//! offsets last.
//!
//! The topic is compacted where the engine can: each record has a key of its own, and is removed by one without content.
//!
//! | record | key | content |
//! |---|---|---|
//! | parked message | `parked/<group>/<topic>/<partition>/<offset>` | as it came, with its headers, and `baton-parked-*` beside them |
//! | what is done | `done/<group>/<topic>/<partition>` | bytes |

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::consumer::{Loaded, Parked};
use baton_core::partitioner::partition_of_key;
use baton_core::{Delivery, Headers, TopicPartition};
use baton_engine::{Engine, EngineError, EngineProducer, Full, ProducerOptions, Record, TopicSpec};
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::{Opened, Place, SideStore, StoreError, StoreFuture};

const PREFIX: &str = "baton-parked-";
const KEY: &str = "baton-parked-key";
const TIMESTAMP: &str = "baton-parked-timestamp";
const NO_CONTENT: &str = "baton-parked-no-content";
const ATTEMPTS: &str = "baton-parked-attempts";
const SOURCE: &str = "baton-parked-source";
const REASON: &str = "baton-parked-reason";
/// Partitions of a topic that is made here: as many can be read side by side when partitions are assigned.
const PARTITIONS: u32 = 8;
/// After how long the engine's client gives a record up; the consumer tries it again.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
const LINGER_MS: u64 = 1;

/// Where each parked message of a key lies: by its offset in the partition that it came from, which is also their order.
type Key = BTreeMap<u64, i64>;

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
            // The embedded broker keeps everything, and does not know how to compact yet.
            let compacts = self.engine.name() != "embedded";
            let settings = compacts.then(|| ("cleanup.policy".to_owned(), "compact".to_owned()));
            let settings = settings.into_iter().collect();
            let topic = TopicSpec { name: self.topic.clone(), partitions: PARTITIONS, copies: None, settings };
            self.engine.create_topic(&topic).await.map_err(|error| self.failed(&error))?;
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

    /// Stores records in their order; says where they lie.
    async fn send(&self, records: Vec<Record>) -> Result<Vec<i64>, StoreError> {
        let producer = self.producer.get_or_try_init(|| {
            let client_id = format!("{}-store", self.topic);
            let delivery_timeout = DELIVERY_TIMEOUT;
            self.engine.producer(ProducerOptions {
                client_id,
                linger_ms: LINGER_MS,
                delivery_timeout,
                settings: Vec::new(),
            })
        });
        let producer = producer.await.map_err(|error| self.failed(&error))?;
        let mut waiting = Vec::with_capacity(records.len());
        for mut record in records {
            waiting.push(loop {
                match producer.send(record) {
                    Ok(stored) => break stored,
                    Err(Full(back)) => {
                        record = *back;
                        producer.room().await;
                    }
                }
            });
        }
        let mut offsets = Vec::with_capacity(waiting.len());
        for stored in waiting {
            let stored = stored.await.map_err(|error| self.failed(&error))?;
            offsets
                .push(stored.offset.ok_or_else(|| StoreError("the engine does not say where it stored".to_owned()))?);
        }
        Ok(offsets)
    }

    async fn read(&self, place: &Place) -> Result<Opened, StoreError> {
        let Some(partitions) = self.there().await? else { return Ok(Opened::default()) };
        let from = self.lies_in(place, partitions);
        let mut reader = self.engine.reader(&from, 0).await.map_err(|error| self.failed(&error))?;
        let (mut keys, mut done): (HashMap<Bytes, Key>, Bytes) = (HashMap::new(), Bytes::new());
        // Removals name no key: the message that they remove did.
        let mut key_of: HashMap<u64, Bytes> = HashMap::new();
        let (prefix, done_key) = (parked_prefix(place), done_key(place));
        loop {
            let batch = reader.next().await.map_err(|error| self.failed(&error))?;
            if batch.is_empty() {
                break;
            }
            for record in batch {
                let Some(name) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else { continue };
                if name == done_key {
                    done = record.payload.unwrap_or_default();
                } else if let Some(offset) = name.strip_prefix(&prefix).and_then(|offset| offset.parse::<u64>().ok()) {
                    match record.headers.last(KEY) {
                        Some(key) if record.payload.is_some() => {
                            keys.entry(key.clone()).or_default().insert(offset, record.offset);
                            key_of.insert(offset, key.clone());
                        }
                        _ => {
                            if let Some(key) = key_of.remove(&offset).and_then(|key| keys.get_mut(&key)) {
                                key.remove(&offset);
                            }
                        }
                    }
                }
            }
        }
        keys.retain(|_, key| !key.is_empty());
        let parked = keys.keys().cloned().collect();
        self.places().insert(place.clone(), keys);
        Ok(Opened { done, parked })
    }

    /// Where the oldest messages of a key lie.
    fn oldest(&self, place: &Place, key: &Bytes, messages_max: usize) -> BTreeMap<i64, u64> {
        let places = self.places();
        let found = places.get(place).and_then(|keys| keys.get(key));
        found.into_iter().flatten().take(messages_max).map(|(position, lies_at)| (*lies_at, *position)).collect()
    }
}

impl SideStore for TopicStore {
    fn open<'a>(&'a self, place: &'a Place) -> StoreFuture<'a, Opened> {
        Box::pin(self.read(place))
    }

    fn store_done<'a>(&'a self, place: &'a Place, bytes: Bytes) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let to = self.lies_in(place, self.make().await?);
            self.send(vec![record(to, done_key(place), Some(bytes), Headers::default())]).await.map(drop)
        })
    }

    fn park<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages: &'a [Parked]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let to = self.lies_in(place, self.make().await?);
            let records = messages.iter().map(|parked| parked_record(to.clone(), place, key, parked)).collect();
            let offsets = self.send(records).await?;
            let mut places = self.places();
            let kept = places.entry(place.clone()).or_default().entry(key.clone()).or_default();
            for (parked, lies_at) in messages.iter().zip(offsets) {
                kept.insert(position(parked.delivery.offset), lies_at);
            }
            Ok(())
        })
    }

    fn load<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages_max: usize) -> StoreFuture<'a, Vec<Loaded>> {
        Box::pin(async move {
            let mut wanted = self.oldest(place, key, messages_max);
            let Some(first) = wanted.keys().next().copied() else { return Ok(Vec::new()) };
            let from = self.lies_in(place, self.make().await?);
            let mut reader = self.engine.reader(&from, first).await.map_err(|error| self.failed(&error))?;
            let mut loaded = Vec::with_capacity(wanted.len());
            while !wanted.is_empty() {
                let batch = reader.next().await.map_err(|error| self.failed(&error))?;
                if batch.is_empty() {
                    let text = format!("{} parked messages of {from} cannot be found again", wanted.len());
                    return Err(StoreError(text));
                }
                for record in batch {
                    if let Some(position) = wanted.remove(&record.offset) {
                        loaded.push(Loaded { position, delivery: restored(place, key, position, record) });
                    }
                }
            }
            loaded.sort_unstable_by_key(|loaded| loaded.position);
            Ok(loaded)
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
            self.send(removed.iter().map(gone).collect()).await?;
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

fn parked_record(to: TopicPartition, place: &Place, key: &Bytes, parked: &Parked) -> Record {
    let delivery = &parked.delivery;
    let mut headers: Headers =
        delivery.headers.iter().filter(|header| !header.name.starts_with(PREFIX)).cloned().collect();
    headers.push(KEY, Some(key.clone()));
    headers.push(ATTEMPTS, Some(parked.attempts.to_string().into()));
    if let Some(timestamp_ms) = delivery.timestamp_ms {
        headers.push(TIMESTAMP, Some(timestamp_ms.to_string().into()));
    }
    if delivery.payload.is_none() {
        headers.push(NO_CONTENT, Some(Bytes::new()));
    }
    if let Some(failure) = &parked.failure {
        headers.push(SOURCE, Some(Bytes::copy_from_slice(failure.source.as_bytes())));
        headers.push(REASON, Some(Bytes::copy_from_slice(failure.reason.as_bytes())));
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

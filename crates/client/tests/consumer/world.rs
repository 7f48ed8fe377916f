//! A broker, a database, and what tests ask of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::consumer::ConsumerBuilder;
use baton::{Delivery, TopicPartition};
use baton_core::{Headers, Retry};
use baton_engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use baton_engine::{Engine, EngineProducer, ProducerOptions, Record, TopicSpec};
use baton_guard::{EffectError, Inbox, Sqlite, SqliteEffect, SqliteGuard};
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::watched::{Log, Watched};

pub const TOPIC: &str = "orders";
pub const GROUP: &str = "beans-svc";
/// The header that names a message in these tests.
pub const ID: &str = "order-id";
/// What never takes so long, unless it never happens.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub struct World {
    pub engine: Arc<Watched>,
    pub log: Arc<Log>,
    /// Where other clients find the broker.
    pub address: String,
    pub sqlite: Sqlite,
    path: PathBuf,
    producer: Arc<dyn EngineProducer>,
    _folder: tempfile::TempDir,
}

/// What was written of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub id: String,
    pub key: String,
    pub by: String,
}

impl World {
    /// With an empty topic.
    pub async fn new(partitions: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded = EmbeddedEngine::start(EmbeddedOptions::local(folder.path().join("broker"))).await.unwrap();
        let address = embedded.address().to_owned();
        let log = Arc::new(Log::default());
        let engine = Arc::new(Watched { inner: Arc::new(embedded), log: log.clone() });
        let topic = TopicSpec { name: TOPIC.into(), partitions, copies: None, settings: Vec::new() };
        engine.create_topic(&topic).await.unwrap();
        let options = ProducerOptions {
            client_id: "test".to_owned(),
            linger_ms: 1,
            delivery_timeout: PATIENCE,
            settings: Vec::new(),
        };
        let producer = engine.inner.producer(options).await.unwrap();
        let path = folder.path().join("effects.db");
        let sqlite = Sqlite::open(&path).unwrap();
        Inbox::sqlite(&sqlite).prepare().await.unwrap();
        let table = "CREATE TABLE effects (at INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, key TEXT, by TEXT)";
        sqlite.run(move |database| database.execute_batch(table)).await.unwrap().unwrap();
        Self { engine, log, address, sqlite, path, producer, _folder: folder }
    }

    pub fn inbox(&self) -> SqliteGuard {
        Inbox::sqlite(&self.sqlite)
    }

    /// A consumer that retries quickly, so that tests do not wait for it.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.engine.clone(), GROUP)
            .topics([TOPIC])
            .identified_by(baton::consumer::Named::Header(ID.into()))
            .retry(Retry::exponential(Duration::from_millis(20), 2, Duration::from_millis(100)).max_attempts(3))
            .settle_interval(Duration::from_millis(20))
    }

    /// Sends messages to a partition, each as (id, key, content).
    pub async fn send(&self, partition: u32, messages: &[(&str, &str, &str)]) {
        let mut sent = Vec::with_capacity(messages.len());
        for (id, key, content) in messages {
            let mut headers = Headers::default();
            headers.push(ID, Some(Bytes::copy_from_slice(id.as_bytes())));
            let record = Record {
                to: TopicPartition::new(TOPIC, partition),
                key: (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes())),
                payload: Some(Bytes::copy_from_slice(content.as_bytes())),
                headers,
                timestamp_ms: Some(1_700_000_000_000),
                id: None,
            };
            sent.push(self.producer.send(record).expect("there is room"));
        }
        for stored in sent {
            stored.await.unwrap();
        }
    }

    /// Sends a message of this id that has neither key nor content.
    pub async fn send_bare(&self, partition: u32, id: &str) {
        let mut headers = Headers::default();
        headers.push(ID, Some(Bytes::copy_from_slice(id.as_bytes())));
        let to = TopicPartition::new(TOPIC, partition);
        let record = Record { to, key: None, payload: None, headers, timestamp_ms: None, id: None };
        self.producer.send(record).expect("there is room").await.unwrap();
    }

    /// Takes away the messages of a partition before an offset, as retention does.
    pub async fn remove(&self, partition: u32, before: i64) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(TOPIC, partition as i32, Offset::Offset(before)).unwrap();
        admin.delete_records(&offsets, &AdminOptions::new()).await.unwrap();
    }

    /// Sends `count` messages `m<number>` with `keys` keys in turn.
    pub async fn send_many(&self, partition: u32, from: usize, count: usize, keys: usize) {
        let all: Vec<(String, String)> = (from..from + count)
            .map(|number| (format!("m{number}"), format!("k{}-{partition}", number % keys)))
            .collect();
        let messages: Vec<(&str, &str, &str)> =
            all.iter().map(|(id, key)| (id.as_str(), key.as_str(), id.as_str())).collect();
        self.send(partition, &messages).await;
    }

    /// All that handlers wrote and committed, in the order in which they did.
    pub fn effects(&self) -> Vec<Effect> {
        let database = rusqlite::Connection::open(&self.path).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        let mut all = database.prepare("SELECT id, key, by FROM effects ORDER BY at").unwrap();
        let effects =
            all.query_map([], |row| Ok(Effect { id: row.get(0)?, key: row.get(1)?, by: row.get(2)? })).unwrap();
        effects.collect::<Result<_, _>>().unwrap()
    }

    pub fn ids(&self) -> Vec<String> {
        self.effects().into_iter().map(|effect| effect.id).collect()
    }

    /// Waits until so many effects are there, and a moment longer, so that one too many is seen.
    pub async fn until_effects(&self, count: usize) -> Vec<Effect> {
        eventually(&format!("{count} effects"), || self.effects().len() >= count).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let effects = self.effects();
        assert_eq!(effects.len(), count, "{effects:?}");
        effects
    }

    /// All that lies in a topic.
    pub async fn read(&self, topic: &str) -> Vec<Delivery> {
        let mut all = Vec::new();
        for partition in 0..self.engine.partitions(topic).await.unwrap() {
            let mut reader = self.engine.reader(&TopicPartition::new(topic, partition), 0).await.unwrap();
            loop {
                let batch = reader.next().await.unwrap();
                if batch.is_empty() {
                    break;
                }
                all.extend(batch);
            }
        }
        all
    }
}

/// Writes down that a message was handled.
pub async fn write(effect: &SqliteEffect, id: &str, key: &str, by: &str) -> Result<(), EffectError<rusqlite::Error>> {
    let row = (id.to_owned(), key.to_owned(), by.to_owned());
    effect.execute("INSERT INTO effects (id, key, by) VALUES (?1, ?2, ?3)", row).await.map(drop)
}

pub fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A header as text.
pub fn header(delivery: &Delivery, name: &str) -> Option<String> {
    delivery.headers.last(name).map(text)
}

pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Each id once.
pub fn assert_each_once(ids: &[String], expected: usize) {
    let mut sorted = ids.to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!((sorted.len(), ids.len()), (expected, expected), "different ones, and all of them");
}

/// The numbers of a key's ids `m<number>` only grow.
pub fn assert_order_per_key(effects: &[Effect]) {
    let mut last = std::collections::HashMap::new();
    for effect in effects {
        let number: usize = effect.id[1..].parse().unwrap();
        let before = last.insert(effect.key.clone(), number);
        assert!(before.is_none_or(|before| before < number), "{effect:?} came after {before:?}");
    }
}

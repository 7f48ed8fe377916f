//! Dead letters: what nobody could handle, with all that is needed to understand it and to send it again.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use baton_core::consumer::{DEAD_PARTITION, DEAD_TOPIC};
use baton_core::consumer::{DeadLetter as Letter, FailureClass, origin};
use baton_core::identity::{Identified, Named, Origin};
use baton_core::partitioner::partition_of_key;
use baton_core::{Headers, MessageId, TopicPartition};
use baton_engine::{
    ConsumerOptions, Engine, EngineError, EngineProducer, ProducerOptions, Record, Retry, SendError, Start, TopicSpec,
    create_large, large_producer,
};
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::handle::{Board, Notice};
use super::handler::identity;

/// Headers of a dead letter. The original ones go with it unchanged, before these.
pub const DEAD_ID: &str = "baton-dead-id";
/// The offset that it came from, in decimal.
pub const DEAD_OFFSET: &str = "baton-dead-offset";
/// The group that could not handle it.
pub const DEAD_GROUP: &str = "baton-dead-group";
/// Why: `permanent`, `exhausted` or `undecodable`.
pub const DEAD_CLASS: &str = "baton-dead-class";
/// What failed: the type of the error, or the name of what was called.
pub const DEAD_SOURCE: &str = "baton-dead-source";
/// What happened, for people; at most [`REASON_BYTES_MAX`] bytes.
pub const DEAD_REASON: &str = "baton-dead-reason";
/// How often it was tried, in decimal.
pub const DEAD_ATTEMPTS: &str = "baton-dead-attempts";
/// When this consumer got it, in milliseconds since 1970.
pub const DEAD_FIRST_TIME: &str = "baton-dead-first-time";
/// When it was given up, in milliseconds since 1970.
pub const DEAD_LAST_TIME: &str = "baton-dead-last-time";
/// The message's own time, in milliseconds since 1970, where it had one.
pub const DEAD_TIMESTAMP: &str = "baton-dead-timestamp";
/// Longest reason. Some errors quote the whole message: with that a large one would not fit into its own dead letter.
pub const REASON_BYTES_MAX: usize = 1_000;
/// Longest reason of a letter that would be too large with a longer one.
pub const SHORT_REASON_BYTES_MAX: usize = 100;
/// The group that dead letters are kept for, where an engine keeps only what somebody is subscribed to: on RabbitMQ their queues are
/// `<topic>.letters.<partition>`. Nobody consumes as this group; `baton dead` looks into it.
pub const LETTERS_GROUP: &str = "letters";
/// Behind the name of a topic of dead letters: where those go that are too large for it.
pub const LARGE_SUFFIX: &str = ".large";

/// All of the above begin like this.
const PREFIX: &str = "baton-dead-";
/// After how long the engine's client gives a send up. It is tried again for ever, under the same id.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a dead letter waits for others: they are few, and their keys wait for them.
const LINGER_MS: u64 = 1;
/// Partitions of a topic that is made here. Dead letters are few, and in one partition they are in order.
const PARTITIONS_DEFAULT: u32 = 1;

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub(super) topic: Arc<str>,
    pub(super) partitions: u32,
    pub(super) settings: Vec<(String, String)>,
}

impl DeadLetter {
    /// To this topic, which is created when the consumer starts if it is not there.
    pub fn topic(name: impl Into<Arc<str>>) -> Self {
        Self { topic: name.into(), partitions: PARTITIONS_DEFAULT, settings: Vec::new() }
    }

    /// How many partitions it gets if it has to be created. Default 1.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// A setting that it gets if it has to be created, under the engine's own name. How long dead letters are kept is the
    /// engine's default otherwise.
    #[must_use]
    pub fn topic_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// Sends dead letters.
pub(super) struct Letters {
    engine: Arc<dyn Engine>,
    to: DeadLetter,
    group: Arc<str>,
    named: Option<Named>,
    board: Arc<Board>,
    partitions: NonZeroU32,
    /// The topic of those that are too large, once it was needed.
    large: OnceCell<Arc<str>>,
    producer: OnceCell<Arc<dyn EngineProducer>>,
}

/// How much a letter says about itself. A message may be as large as its topic takes, and then has no room for more headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Everything.
    Whole,
    /// Reason and source in short.
    Short,
    /// What it takes to find the message's origin and to send it again.
    Bare,
}

/// When a letter's message came, and when it was given up; milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub first: i64,
    pub last: i64,
}

impl Letters {
    /// Makes sure that there is somewhere to send to, before the first message is handled.
    pub async fn open(
        engine: Arc<dyn Engine>,
        to: DeadLetter,
        group: Arc<str>,
        named: Option<Named>,
        board: Arc<Board>,
    ) -> Result<Self, EngineError> {
        let there = match engine.partitions(&to.topic).await {
            Ok(partitions) => partitions,
            Err(EngineError::Caller(_)) => {
                let (name, settings) = (to.topic.clone(), to.settings.clone());
                let topic = TopicSpec { name, partitions: to.partitions, copies: None, settings };
                create_large(&*engine, &topic).await?;
                to.partitions
            }
            Err(error) => return Err(error),
        };
        let partitions = NonZeroU32::new(there)
            .ok_or_else(|| EngineError::Caller(format!("dead-letter topic {} has no partitions", to.topic)))?;
        let (large, producer) = (OnceCell::new(), OnceCell::new());
        Ok(Self { engine, to, group, named, board, partitions, large, producer })
    }

    /// Returned means: it is durable.
    pub async fn send(&self, letter: &Letter, times: Times) -> Result<(), String> {
        for detail in [Detail::Whole, Detail::Short, Detail::Bare] {
            match self.store_kept(self.record(letter, times, detail)).await? {
                Err(error) if error.retry == Retry::Smaller => {}
                stored => return stored.map_err(|error| format!("dead letter to {}: {error}", self.to.topic)),
            }
        }
        self.send_large(letter, times).await
    }

    /// The topic does not even take the message as it came. It goes to one beside it.
    async fn send_large(&self, letter: &Letter, times: Times) -> Result<(), String> {
        let topic = self.large.get_or_try_init(|| async {
            let mut topic = TopicSpec::new(format!("{}{LARGE_SUFFIX}", self.to.topic), PARTITIONS_DEFAULT);
            if self.engine.partitions(&topic.name).await.is_err() {
                // But for how large its records may be, it is what the user asked for.
                let kept = self.to.settings.iter().filter(|(name, _)| !name.contains("message.bytes"));
                topic.settings = kept.cloned().collect();
                create_large(&*self.engine, &topic).await?;
            }
            Ok::<_, EngineError>(topic.name)
        });
        let too_large = |why: String| {
            let bytes = letter.delivery.bytes();
            format!("a dead letter of {bytes} bytes is larger than {} takes, and {why}", self.to.topic)
        };
        let topic = topic.await.map_err(|error| too_large(format!("there is no other topic for it: {error}")))?;
        let mut record = self.record(letter, times, Detail::Whole);
        record.to = TopicPartition::new(topic.clone(), 0);
        self.store_kept(record)
            .await?
            .map_err(|error| too_large(format!("{topic} does not take it either: {error}")))?;
        let (partition, offset) = (letter.delivery.from.clone(), letter.delivery.offset);
        self.board.notice(Notice::LargeLetter { partition, offset, topic: topic.clone() });
        Ok(())
    }

    /// Stores a record, and if the engine keeps it for nobody, has it kept for [`LETTERS_GROUP`].
    async fn store_kept(&self, record: Record) -> Result<Result<(), SendError>, String> {
        match self.store(record.clone()).await? {
            Err(error) if error.retry == Retry::Subscribed => {
                self.subscribe(&record.to.topic).await.map_err(|subscribing| format!("{error}; {subscribing}"))?;
                self.store(record).await
            }
            stored => Ok(stored),
        }
    }

    /// A group is subscribed for good once it was there.
    async fn subscribe(&self, topic: &Arc<str>) -> Result<(), EngineError> {
        let (group, topics, settings) = (LETTERS_GROUP.to_owned(), vec![topic.clone()], Vec::new());
        let (start, prefetch, release_wait) = (Start::Earliest, Some(1), Duration::ZERO);
        let options = ConsumerOptions { group, topics, start, prefetch, release_wait, settings };
        self.engine.consumer(options).await?.close().await
    }

    /// Waits until a record is durable or given up.
    async fn store(&self, record: Record) -> Result<Result<(), SendError>, String> {
        let producer = self.producer.get_or_try_init(|| {
            let client_id = format!("{}-dead-letters", self.group);
            let (linger_ms, delivery_timeout, settings) = (LINGER_MS, DELIVERY_TIMEOUT, Vec::new());
            let options = ProducerOptions { client_id, linger_ms, delivery_timeout, settings };
            large_producer(&*self.engine, options)
        });
        let producer = producer.await.map_err(|error| error.to_string())?;
        Ok(producer.send_when_room(record).await.await.map(drop))
    }

    fn record(&self, letter: &Letter, times: Times, detail: Detail) -> Record {
        let delivery = &letter.delivery;
        // What cannot be identified as the user wished still lies somewhere.
        let id = identity(delivery, self.named.as_ref()).or_else(|_| identity(&bare(delivery), None));
        let id = id.map(|identified| identified.id).ok();
        let mut headers: Headers =
            delivery.headers.iter().filter(|header| !header.name.starts_with(PREFIX)).cloned().collect();
        let mut add =
            |name: &'static str, value: &str| headers.push(name, Some(Bytes::copy_from_slice(value.as_bytes())));
        if let Some(id) = &id {
            add(DEAD_ID, id.as_str());
        }
        // A dead letter that dies again, in the service that handles dead letters, still comes from where it first came from.
        let origin = origin(&delivery.headers);
        let from = origin.as_ref().unwrap_or(&delivery.from);
        add(DEAD_TOPIC, &from.topic);
        add(DEAD_PARTITION, &from.partition.to_string());
        let offset = delivery.headers.last(DEAD_OFFSET).filter(|_| origin.is_some());
        let offset = offset.map(|offset| String::from_utf8_lossy(offset).into_owned());
        add(DEAD_OFFSET, &offset.unwrap_or_else(|| delivery.offset.to_string()));
        add(DEAD_GROUP, &self.group);
        add(DEAD_CLASS, class_name(letter.class));
        let bytes_max = if detail == Detail::Whole { REASON_BYTES_MAX } else { SHORT_REASON_BYTES_MAX };
        if detail != Detail::Bare {
            add(DEAD_SOURCE, shortened(&letter.failure.source, bytes_max));
            add(DEAD_REASON, shortened(&letter.failure.reason, bytes_max));
            add(DEAD_ATTEMPTS, &letter.attempts.to_string());
            add(DEAD_FIRST_TIME, &times.first.to_string());
            add(DEAD_LAST_TIME, &times.last.to_string());
            if let Some(timestamp_ms) = delivery.timestamp_ms {
                add(DEAD_TIMESTAMP, &timestamp_ms.to_string());
            }
        }
        let partition = match &delivery.key {
            Some(key) => partition_of_key(key, self.partitions),
            None => delivery.from.partition % self.partitions,
        };
        Record {
            to: TopicPartition::new(self.to.topic.clone(), partition),
            key: delivery.key.clone(),
            payload: delivery.payload.clone(),
            headers,
            timestamp_ms: None,
            id: id.map(|id| Arc::from(id.as_str())),
        }
    }
}

/// Without what may be wrong about it.
fn bare(delivery: &baton_core::Delivery) -> baton_core::Delivery {
    baton_core::Delivery { headers: Headers::default(), payload: None, ..delivery.clone() }
}

fn class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Exhausted => "exhausted",
        FailureClass::Permanent => "permanent",
        FailureClass::Undecodable => "undecodable",
    }
}

/// At most so many bytes, cut between characters.
pub(super) fn shortened(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The id that a dead letter had when it was alive: sent again it is the same message, wherever it lies.
pub(super) fn id_kept(headers: &Headers) -> Option<Identified> {
    let id = std::str::from_utf8(headers.last(DEAD_ID)?).ok()?;
    Some(Identified { id: MessageId::new(id).ok()?, origin: Origin::Named })
}

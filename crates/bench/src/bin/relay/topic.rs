//! A topic of the run, made with the engine's own times of appending, and read raw.

use std::collections::HashMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::Fallible;
use crate::table::now_us;

/// Partitions of each topic.
const PARTITIONS: i32 = 6;
/// How long anything that is asked of the engine may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A topic on an engine.
#[derive(Clone)]
pub struct Topic {
    /// Where the engine is.
    pub address: String,
    /// What the topic is called.
    pub name: String,
}

/// One record as it was found.
#[derive(Clone, Copy)]
pub struct Found {
    /// Which row it was.
    pub number: u64,
    /// When the engine appended it, in microseconds since 1970. The engine says in which millisecond: it is taken for its middle.
    pub appended_us: i64,
    /// When the reader got it.
    pub arrived_us: i64,
}

impl Topic {
    /// Makes it.
    pub async fn create(address: &str, name: &str) -> Fallible<Self> {
        let admin: AdminClient<DefaultClientContext> = client(address).create()?;
        let new =
            NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
        for made in admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(PATIENCE))).await? {
            made.map_err(|(name, error)| format!("topic {name}: {error}"))?;
        }
        Ok(Self { address: address.to_owned(), name: name.to_owned() })
    }

    fn reader(&self) -> Fallible<BaseConsumer> {
        let reader: BaseConsumer =
            client(&self.address).set("group.id", "bench").set("enable.auto.commit", "false").create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(&self.name, partition, Offset::Beginning)?;
        }
        reader.assign(&all)?;
        Ok(reader)
    }

    /// Waits until so many records are in the topic, or the time is over; how many there are.
    pub async fn holds(&self, records: u64, wait: Duration) -> Fallible<u64> {
        let topic = self.clone();
        tokio::task::spawn_blocking(move || {
            let watching: BaseConsumer = client(&topic.address).set("group.id", "bench").create()?;
            let began = Instant::now();
            loop {
                let count = topic.count(&watching)?;
                if count >= records || began.elapsed() >= wait {
                    return Ok(count);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        })
        .await?
    }

    /// How many records are in it, as `watching` is told.
    pub fn count(&self, watching: &BaseConsumer) -> Fallible<u64> {
        let mut count = 0;
        for partition in 0..PARTITIONS {
            let (low, high) = watching.fetch_watermarks(&self.name, partition, PATIENCE)?;
            count += u64::try_from(high - low)?;
        }
        Ok(count)
    }

    /// Reads so many records from the beginning, on a thread of its own. Each row must be there, and none but those below `rows`.
    pub fn read(&self, rows: u64) -> Fallible<JoinHandle<Fallible<Vec<Found>>>> {
        let reader = self.reader()?;
        Ok(std::thread::spawn(move || {
            let mut found: HashMap<u64, Found> = HashMap::with_capacity(usize::try_from(rows)?);
            let mut last = Instant::now();
            while (found.len() as u64) < rows {
                match reader.poll(Duration::from_millis(100)) {
                    Some(message) => {
                        let one = parse(&message?)?;
                        // Of a row that comes again the first copy counts.
                        found.entry(one.number).or_insert(one);
                        last = Instant::now();
                    }
                    None if last.elapsed() > PATIENCE => {
                        return Err(format!("{} of {rows} rows arrived", found.len()).into());
                    }
                    None => {}
                }
            }
            if let Some(strange) = found.keys().find(|number| **number >= rows) {
                return Err(format!("row {strange} was never written").into());
            }
            Ok(found.into_values().collect())
        }))
    }
}

/// Settings of every client of the run.
pub fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("fetch.queue.backoff.ms", "1");
    config
}

/// A row's content begins with its number.
fn parse(message: &BorrowedMessage<'_>) -> Fallible<Found> {
    let arrived_us = now_us();
    let payload = message.payload().ok_or("a record without content")?;
    let digits = payload.get(..crate::table::NUMBER_BYTES).ok_or("a record that is too short")?;
    let number = std::str::from_utf8(digits)?.parse()?;
    let appended_ms = message.timestamp().to_millis().ok_or("a record without a time")?;
    Ok(Found { number, appended_us: appended_ms * 1_000 + 500, arrived_us })
}

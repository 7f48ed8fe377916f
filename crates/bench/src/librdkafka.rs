//! The pipelined producer, the reader and the topic administration, through librdkafka.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigEntry, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::Fallible;

/// Settings of the pipelined producer that differ from librdkafka's defaults, or that matter enough to be shown.
pub const PRODUCER_SETTINGS: &[(&str, &str)] = &[
    ("acks", "all"),
    ("linger.ms", "5"),
    ("compression.type", "none"),
    ("batch.size", "1000000"),
    ("queue.buffering.max.messages", "100000"),
];
/// Settings of the reader.
pub const READER_SETTINGS: &[(&str, &str)] =
    &[("enable.auto.commit", "false"), ("check.crcs", "false"), ("auto.offset.reset", "earliest")];
/// Delivery reports are served after this many sends.
const SENDS_PER_POLL: u64 = 256;
const ADMIN_WAIT: Duration = Duration::from_secs(60);

/// Counts what was acknowledged and what failed.
#[derive(Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One producer that never waits for a single acknowledgement.
pub struct Pipelined {
    producer: BaseProducer<Deliveries>,
    topic: String,
    partitions: i32,
    value: Vec<u8>,
    sent: u64,
}

/// When a pipelined run stops sending.
pub enum Until {
    /// After this long.
    Elapsed(Duration),
    /// After this many records.
    Records(u64),
    /// After this long, with so many records per second at most.
    Paced(Duration, u32),
}

impl Until {
    /// Whether to send another one after `sent`. The clock is read once per poll only.
    fn goes_on(&self, sent: u64, start: Instant) -> bool {
        match self {
            Self::Records(records) => sent < *records,
            Self::Elapsed(duration) | Self::Paced(duration, _) => {
                !sent.is_multiple_of(SENDS_PER_POLL) || start.elapsed() < *duration
            }
        }
    }

    /// How far ahead of the pace the sender is.
    fn ahead(&self, sent: u64, start: Instant) -> Duration {
        match self {
            Self::Paced(_, rate) => {
                Duration::from_secs_f64(sent as f64 / f64::from(*rate)).saturating_sub(start.elapsed())
            }
            Self::Records(_) | Self::Elapsed(_) => Duration::ZERO,
        }
    }
}

impl Pipelined {
    /// A producer that sends `value` to each of `partitions` partitions in turn.
    pub fn connect(address: &str, topic: &str, partitions: i32, value: &[u8]) -> Fallible<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address);
        for (key, setting) in PRODUCER_SETTINGS {
            config.set(*key, *setting);
        }
        let producer = config.create_with_context(Deliveries::default())?;
        Ok(Self { producer, topic: topic.to_owned(), partitions, value: value.to_vec(), sent: 0 })
    }

    /// Sends until `until`, waits for all acknowledgements, and returns how many records and seconds it took.
    pub fn run(&mut self, until: &Until) -> Fallible<(u64, f64)> {
        let start = Instant::now();
        let acknowledged_before = self.producer.context().acknowledged.load(Ordering::Relaxed);
        let mut sent = 0_u64;
        while until.goes_on(sent, start) {
            self.send_one()?;
            sent += 1;
            if sent.is_multiple_of(SENDS_PER_POLL) {
                self.producer.poll(until.ahead(sent, start));
            }
        }
        self.producer.flush(ADMIN_WAIT)?;
        let seconds = start.elapsed().as_secs_f64();
        let failed = self.producer.context().failed.load(Ordering::Relaxed);
        let acknowledged = self.producer.context().acknowledged.load(Ordering::Relaxed) - acknowledged_before;
        if failed > 0 || acknowledged != sent {
            return Err(format!("{sent} records sent, {acknowledged} acknowledged, {failed} failed").into());
        }
        Ok((acknowledged, seconds))
    }

    fn send_one(&mut self) -> Fallible<()> {
        let partition = i32::try_from(self.sent % u64::try_from(self.partitions)?)?;
        let mut record = BaseRecord::<(), [u8]>::to(&self.topic).payload(&self.value).partition(partition);
        while let Err((error, back)) = self.producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            self.producer.poll(Duration::from_millis(10));
            record = back;
        }
        self.sent += 1;
        Ok(())
    }
}

/// Reads `records` records of all partitions from the start; returns the seconds it took from the first poll.
pub fn read(address: &str, topic: &str, partitions: i32, records: u64, bytes_each: usize) -> Fallible<f64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", "baton-bench");
    for (key, setting) in READER_SETTINGS {
        config.set(*key, *setting);
    }
    let consumer: BaseConsumer = config.create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let start = Instant::now();
    consumer.assign(&assignment)?;
    for seen in 0..records {
        let message = match consumer.poll(ADMIN_WAIT) {
            Some(message) => message?,
            None => return Err(format!("only {seen} of {records} records could be read").into()),
        };
        if message.payload_len() != bytes_each {
            return Err(format!("a record of {} bytes came back", message.payload_len()).into());
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Creates and deletes topics, and counts what they hold.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    consumer: BaseConsumer,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    /// A client of the server at `address`.
    pub fn connect(address: &str) -> Fallible<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address);
        Ok(Self {
            client: config.create()?,
            consumer: config.set("group.id", "baton-bench").create()?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        })
    }

    /// Creates `topic` and waits until every partition is led and answers.
    pub fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Fallible<()> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_WAIT)).request_timeout(Some(ADMIN_WAIT));
        let results = self.runtime.block_on(self.client.create_topics([&new], &options))?;
        for result in results {
            result.map_err(|(topic, code)| format!("creating topic {topic}: {code}"))?;
        }
        let wanted = usize::try_from(partitions)?;
        retried(|| match self.led(topic)? {
            led if led == wanted => Ok(()),
            led => Err(format!("{led} of {wanted} partitions of {topic} are led").into()),
        })?;
        self.stored(topic, partitions)?;
        Ok(())
    }

    /// Partitions of `topic` that have a leader.
    fn led(&self, topic: &str) -> Fallible<usize> {
        let metadata = self.consumer.fetch_metadata(Some(topic), ADMIN_WAIT)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Ok(partitions.filter(|partition| partition.error().is_none() && partition.leader() >= 0).count())
    }

    /// Every setting of the server and of `topic` as the server itself tells it, one `name=value` a line, sorted.
    pub fn settings(&self, topic: &str) -> Fallible<String> {
        let metadata = self.consumer.fetch_metadata(None, ADMIN_WAIT)?;
        let broker = metadata.brokers().first().ok_or("the metadata name no broker")?.id();
        let mut text = String::new();
        for resource in [ResourceSpecifier::Broker(broker), ResourceSpecifier::Topic(topic)] {
            let described = self.client.describe_configs([&resource], &AdminOptions::new());
            for config in self.runtime.block_on(described)? {
                let config = config.map_err(|code| format!("describing settings: {code}"))?;
                let value = |entry: &ConfigEntry| entry.value.clone().unwrap_or_default();
                let mut lines: Vec<String> =
                    config.entries.iter().map(|entry| format!("{}={}\n", entry.name, value(entry))).collect();
                lines.sort();
                text.push_str(&format!("# {resource:?}\n{}\n", lines.concat()));
            }
        }
        Ok(text)
    }

    /// Deletes `topic`.
    pub fn delete(&self, topic: &str) -> Fallible<()> {
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_WAIT)).request_timeout(Some(ADMIN_WAIT));
        for result in self.runtime.block_on(self.client.delete_topics(&[topic], &options))? {
            result.map_err(|(topic, code)| format!("deleting topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Records that `topic` holds, by its offsets. Waits for partitions that are not served yet: Kafka names a leader
    /// in its metadata a little before that leader takes requests.
    pub fn stored(&self, topic: &str, partitions: i32) -> Fallible<u64> {
        let mut sum = 0;
        for partition in 0..partitions {
            let (low, high) = retried(|| Ok(self.consumer.fetch_watermarks(topic, partition, ADMIN_WAIT)?))?;
            sum += u64::try_from(high - low)?;
        }
        Ok(sum)
    }
}

/// Tries `attempt` until it succeeds; after [`ADMIN_WAIT`] its error stands.
fn retried<T>(attempt: impl Fn() -> Fallible<T>) -> Fallible<T> {
    let deadline = Instant::now() + ADMIN_WAIT;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_sender_waits_for_what_it_is_ahead_and_no_more() {
        let start = Instant::now();
        let paced = Until::Paced(Duration::from_secs(10), 1000);
        let ahead = paced.ahead(2000, start);
        assert!(ahead > Duration::from_secs(1) && ahead <= Duration::from_secs(2), "{ahead:?}");
        assert_eq!(paced.ahead(0, start), Duration::ZERO);
        assert_eq!(Until::Records(5).ahead(2000, start), Duration::ZERO);
    }
}

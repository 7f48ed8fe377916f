//! The server under test, and what the cases share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::{Outcome, check, wait_until};

/// Longest wait for anything that must happen.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// The codecs of Kafka's protocol; this build of librdkafka has all of them.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// The server under test.
pub struct Server {
    bootstrap: String,
    runtime: Option<tokio::runtime::Runtime>,
}

/// A message to send.
#[derive(Clone, Default)]
pub struct Send {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Option<OwnedHeaders>,
    pub timestamp: Option<i64>,
}

impl Server {
    pub fn new(bootstrap: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok();
        Self { bootstrap: bootstrap.to_owned(), runtime }
    }

    /// The address of the server.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A name that no other case uses.
    pub fn unique(&self, stem: &str) -> String {
        let id = uuid::Uuid::new_v4().simple().to_string();
        format!("{stem}-{}", &id[..8])
    }

    /// Settings of every client: after a restart it should be back soon.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("log_level", "0");
        config
    }

    /// Waits for a future.
    pub fn wait<F: Future>(&self, future: F) -> Result<F::Output, String> {
        self.runtime.as_ref().map(|runtime| runtime.block_on(future)).ok_or_else(|| "no runtime".into())
    }

    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>, String> {
        self.config().create().map_err(text)
    }

    pub fn admin_options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(WAIT_MAX)).operation_timeout(Some(WAIT_MAX))
    }

    /// Creates a topic with a unique name and waits until the broker tells of it.
    pub fn topic(&self, partitions: i32, configs: &[(&str, &str)]) -> Result<String, String> {
        let name = self.unique("topic");
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        self.create(&topic)?.map_err(|code| format!("creating {name}: {code}"))?;
        wait_until("the topic appears", || Ok((self.partitions(&name)? > 0).then_some(())))?;
        Ok(name)
    }

    /// Creates a topic; the inner result is the broker's answer.
    pub fn create(&self, topic: &NewTopic<'_>) -> Result<Result<(), RDKafkaErrorCode>, String> {
        let admin = self.admin()?;
        let answers = self.wait(admin.create_topics([topic], &self.admin_options()))?.map_err(text)?;
        one(answers)
    }

    /// How many partitions the metadata tells of.
    pub fn partitions(&self, topic: &str) -> Result<usize, String> {
        let admin = self.admin()?;
        let metadata = admin.inner().fetch_metadata(None, WAIT_MAX).map_err(text)?;
        Ok(metadata.topics().iter().find(|found| found.name() == topic).map_or(0, |found| found.partitions().len()))
    }

    /// A consumer that commits nothing by itself.
    pub fn consumer_config(&self, group: &str, configs: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100")
            .set("heartbeat.interval.ms", "500");
        for (key, value) in configs {
            config.set(*key, *value);
        }
        config
    }

    pub fn consumer(&self, group: &str, configs: &[(&str, &str)]) -> Result<BaseConsumer, String> {
        self.consumer_config(group, configs).create().map_err(text)
    }

    pub fn sender(&self, configs: &[(&str, &str)]) -> Result<Sender, String> {
        let mut config = self.config();
        config.set("linger.ms", "0");
        for (key, value) in configs {
            config.set(*key, *value);
        }
        let reports = Reports::default();
        let producer = config.create_with_context(reports.clone()).map_err(text)?;
        Ok(Sender { producer, reports })
    }

    /// Sends messages by a producer of their own; returns the offsets in order.
    pub fn produce(&self, topic: &str, messages: &[Send], configs: &[(&str, &str)]) -> Result<Vec<i64>, String> {
        self.sender(configs)?.send(topic, messages)?.map_err(|code| format!("sending: {code}"))
    }

    /// Everything from an offset to the end of each partition; the inner error is the client's.
    pub fn try_read(
        &self,
        topic: &str,
        partitions: i32,
        start: Offset,
        configs: &[(&str, &str)],
    ) -> Result<Result<Vec<OwnedMessage>, KafkaError>, String> {
        let configs = [&[("enable.partition.eof", "true")], configs].concat();
        let reader = self.consumer(&self.unique("reader"), &configs)?;
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, start).map_err(text)?;
        }
        reader.assign(&all).map_err(text)?;
        let (mut messages, mut ended) = (Vec::new(), BTreeSet::new());
        let deadline = Instant::now() + WAIT_MAX;
        while ended.len() < all.count() {
            check(Instant::now() < deadline, || format!("{} messages and no end", messages.len()))?;
            match reader.poll(Duration::from_millis(500)) {
                None => {}
                Some(Ok(message)) => messages.push(message.detach()),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(error)) => return Ok(Err(error)),
            }
        }
        Ok(Ok(messages))
    }

    pub fn read(&self, topic: &str, partitions: i32, start: Offset) -> Result<Vec<OwnedMessage>, String> {
        self.try_read(topic, partitions, start, &[])?.map_err(text)
    }

    /// The committed offset and its metadata.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Result<(Offset, String), String> {
        let reader = self.consumer(group, &[])?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition);
        let answered = reader.committed_offsets(asked, WAIT_MAX).map_err(text)?;
        let found = answered.find_partition(topic, partition).ok_or("no answer for the partition")?;
        Ok((found.offset(), found.metadata().to_owned()))
    }
}

/// A producer that waits for the reports of what it sends.
pub struct Sender {
    producer: ThreadedProducer<Reports>,
    reports: Reports,
}

type Report = Result<i64, RDKafkaErrorCode>;

/// Delivery reports by the number of the message.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<BTreeMap<usize, Report>>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let report = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        if let Ok(mut reports) = self.0.lock() {
            reports.insert(*number, report);
        }
    }
}

impl Sender {
    /// Sends messages and waits for their reports: all offsets in order, or the first error.
    pub fn send(&self, topic: &str, messages: &[Send]) -> Result<Result<Vec<i64>, RDKafkaErrorCode>, String> {
        self.reports.0.lock().map_err(text)?.clear();
        for (number, message) in messages.iter().enumerate() {
            let mut record: BaseRecord<'_, [u8], [u8], Box<usize>> =
                BaseRecord::with_opaque_to(topic, Box::new(number)).partition(message.partition);
            record.key = message.key.as_deref();
            record.payload = message.value.as_deref();
            record.headers = message.headers.clone();
            record.timestamp = message.timestamp;
            self.producer.send(record).map_err(|(error, _)| text(error))?;
        }
        self.producer.flush(WAIT_MAX).map_err(text)?;
        let reports = std::mem::take(&mut *self.reports.0.lock().map_err(text)?);
        check(reports.len() == messages.len(), || format!("{} of {} reports", reports.len(), messages.len()))?;
        Ok(reports.into_values().collect())
    }
}

/// Numbered messages for one partition.
pub fn numbered(prefix: &str, count: usize, partition: i32) -> Vec<Send> {
    (0..count).map(|number| message(&format!("{prefix}-{number}"), partition)).collect()
}

/// A message with a value.
pub fn message(value: &str, partition: i32) -> Send {
    Send { partition, value: Some(value.as_bytes().to_vec()), ..Send::default() }
}

/// The values as text.
pub fn values(messages: &[OwnedMessage]) -> Vec<String> {
    messages.iter().map(|message| value(message.payload())).collect()
}

/// A value as text.
pub fn value(payload: Option<&[u8]>) -> String {
    String::from_utf8_lossy(payload.unwrap_or_default()).into_owned()
}

/// The only answer, without the name it is for.
pub fn one<T>(answers: Vec<Result<T, (T, RDKafkaErrorCode)>>) -> Result<Result<(), RDKafkaErrorCode>, String> {
    let answer = answers.into_iter().next().ok_or("no answer")?;
    Ok(answer.map(|_| ()).map_err(|(_, code)| code))
}

/// Fails unless the answer is this refusal.
pub fn refused<T>(answer: Result<T, RDKafkaErrorCode>, code: RDKafkaErrorCode, what: &str) -> Outcome {
    match answer {
        Ok(_) => Err(format!("{what} was accepted")),
        Err(found) => crate::equal(&found, &code, what),
    }
}

/// An error as text.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

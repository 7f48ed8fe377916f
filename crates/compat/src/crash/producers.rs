//! Producers that go on through every crash.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use super::history::{History, Line};
use super::{client_config, failed};
use crate::CompatError;

/// Pause between two bursts, so that the history of a long run stays small.
const PAUSE: Duration = Duration::from_millis(15);
const BURST_MESSAGES_MAX: u64 = 12;
const PADDING_BYTES_MAX: u64 = 400;
/// After the last round everything that was sent must be acknowledged within this time.
const FLUSH_WAIT: Duration = Duration::from_secs(60);

/// What a producer does.
pub struct Plan {
    /// Its name in the history.
    pub name: &'static str,
    /// Where it sends.
    pub topic: &'static str,
    /// How many partitions the topic has; it sends to all of them in turn.
    pub partitions: i32,
    /// Whether it is idempotent. One that is not has a single request in flight, so that its order is promised too.
    pub idempotent: bool,
    /// Compression.
    pub codec: &'static str,
    /// How long messages wait to become a batch.
    pub linger_ms: &'static str,
    /// Which acknowledgements it asks for; Baton's are durable in each case.
    pub acks: &'static str,
}

/// All producers of a run.
pub const PLANS: [Plan; 6] = [
    Plan { name: "p0", topic: "three", partitions: 3, idempotent: true, codec: "none", linger_ms: "0", acks: "all" },
    Plan { name: "p1", topic: "three", partitions: 3, idempotent: true, codec: "lz4", linger_ms: "5", acks: "all" },
    Plan { name: "p2", topic: "six", partitions: 6, idempotent: true, codec: "zstd", linger_ms: "2", acks: "all" },
    Plan { name: "p3", topic: "six", partitions: 6, idempotent: false, codec: "gzip", linger_ms: "2", acks: "all" },
    Plan { name: "p4", topic: "one", partitions: 1, idempotent: false, codec: "snappy", linger_ms: "1", acks: "1" },
    Plan { name: "p5", topic: "one", partitions: 1, idempotent: true, codec: "none", linger_ms: "20", acks: "all" },
];

/// The topics of all plans with their partitions.
pub fn topics() -> Vec<(&'static str, i32)> {
    let mut topics: Vec<(&str, i32)> = PLANS.iter().map(|plan| (plan.topic, plan.partitions)).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// Notes each delivery report.
struct Reports {
    name: &'static str,
    history: History,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        match result {
            Ok(message) => self.history.add(&Line::Acknowledged {
                producer: self.name,
                topic: message.topic(),
                partition: message.partition(),
                number: *number,
                offset: message.offset(),
                value: &String::from_utf8_lossy(message.payload().unwrap_or_default()),
            }),
            Err((error, _)) => {
                self.history.add(&Line::Failed { producer: self.name, error: error.to_string() });
            }
        }
    }
}

/// A producer in a thread.
pub struct Producer {
    thread: JoinHandle<Result<(), CompatError>>,
}

impl Producer {
    /// Starts one; it sends until `stop` is set and then waits for its last acknowledgements.
    pub fn start(
        plan: &'static Plan,
        address: &str,
        folder: &Path,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, CompatError> {
        let history = History::create(folder, plan.name)?;
        let context = Reports { name: plan.name, history: history.clone() };
        let producer = config(plan, address).create_with_context(context).map_err(failed("a producer"))?;
        let thread = std::thread::spawn(move || run(plan, &producer, &history, &stop));
        Ok(Self { thread })
    }

    /// Waits for its end; `stop` must have been set.
    pub fn join(self) -> Result<(), CompatError> {
        self.thread.join().map_err(|_| CompatError::Server("a producer panicked".into()))?
    }
}

fn config(plan: &Plan, address: &str) -> ClientConfig {
    let mut config = client_config(address);
    config
        .set("enable.idempotence", plan.idempotent.to_string())
        .set("compression.type", plan.codec)
        .set("linger.ms", plan.linger_ms)
        .set("acks", plan.acks)
        .set("message.timeout.ms", "300000")
        .set("request.timeout.ms", "5000")
        .set("queue.buffering.max.messages", "2000")
        .set("retry.backoff.max.ms", "200");
    if !plan.idempotent {
        config.set("max.in.flight.requests.per.connection", "1");
    }
    config
}

fn run(
    plan: &Plan,
    producer: &ThreadedProducer<Reports>,
    history: &History,
    stop: &AtomicBool,
) -> Result<(), CompatError> {
    let mut counts = vec![0_u64; usize::try_from(plan.partitions).unwrap_or(0)];
    let mut burst = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        burst += 1;
        for at in 0..=(burst % BURST_MESSAGES_MAX) {
            let slot = usize::try_from(burst + at).unwrap_or(0) % counts.len();
            let partition = i32::try_from(slot).unwrap_or(0);
            let number = counts[slot];
            let padding = "x".repeat(usize::try_from((number * 37) % PADDING_BYTES_MAX).unwrap_or(0));
            let (key, value) =
                (format!("{}-{partition}", plan.name), format!("{}:{partition}:{number}:{padding}", plan.name));
            let record = BaseRecord::with_opaque_to(plan.topic, Box::new(number));
            match producer.send(record.partition(partition).key(&key).payload(&value)) {
                Ok(()) => counts[slot] += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => {
                    history.add(&Line::Failed { producer: plan.name, error: error.to_string() });
                    break;
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
    producer.flush(FLUSH_WAIT).map_err(failed("waiting for the last acknowledgements"))?;
    for (partition, count) in counts.into_iter().enumerate() {
        let partition = i32::try_from(partition).unwrap_or(0);
        let (producer, idempotent, topic) = (plan.name, plan.idempotent, plan.topic);
        history.add(&Line::Sent { producer, idempotent, topic, partition, count });
    }
    history.finish()
}

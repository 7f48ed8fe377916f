//! Reading a partition without a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::{Delivery, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::task::JoinHandle;

use super::delivery::Copies;
use super::failure;
use crate::{EngineError, EngineFuture, EngineReader, OLDEST};

/// Messages and bytes that one call gives at most; one message more than the bytes, if it is large.
const BATCH_MESSAGES_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How long the engine may take to say where a partition ends, and to deliver something of what is there.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const DELIVERY_WAIT: Duration = Duration::from_secs(60);
/// How soon a partition without a leader is asked again.
const LEADER_WAIT: Duration = Duration::from_millis(100);

type Outcome = Result<Vec<Delivery>, EngineError>;

pub(super) struct KafkaReader {
    reading: Arc<Reading>,
    /// Where the next message is looked for.
    position: i64,
    /// Kept here, so that dropping a call does not drop what it has read.
    running: Option<JoinHandle<Outcome>>,
}

struct Reading {
    consumer: BaseConsumer,
    partition: TopicPartition,
    number: i32,
    delivery_wait: Duration,
}

/// The offset of the first message from `offset` on, if there is one that is delivered: marks of transactions are not. Blocks.
pub(super) fn first_message(
    config: &ClientConfig,
    partition: &TopicPartition,
    offset: i64,
    wait: Duration,
) -> Result<Option<i64>, EngineError> {
    let consumer = config.create().map_err(|error| failure::engine_error("a reader of Kafka", &error))?;
    let KafkaReader { reading, position, .. } = KafkaReader::start_with(consumer, partition, offset, wait)?;
    Ok(reading.next(position)?.first().map(|delivery| delivery.offset))
}

/// Where a partition begins and ends. One that is new, or whose leader moves, has no leader for a moment.
fn watermarks(consumer: &BaseConsumer, partition: &TopicPartition, number: i32) -> Result<(i64, i64), EngineError> {
    let deadline = Instant::now() + ANSWER_WAIT;
    loop {
        let error = match consumer.fetch_watermarks(&partition.topic, number, ANSWER_WAIT) {
            Ok(both) => return Ok(both),
            Err(error) => error,
        };
        let passes = matches!(
            error.rdkafka_error_code(),
            Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::FencedLeaderEpoch)
        );
        if !passes || Instant::now() + LEADER_WAIT >= deadline {
            return Err(failure::engine_error(&format!("reading {partition}"), &error));
        }
        std::thread::sleep(LEADER_WAIT);
    }
}

impl KafkaReader {
    pub(super) fn start(consumer: BaseConsumer, partition: &TopicPartition, offset: i64) -> Result<Self, EngineError> {
        Self::start_with(consumer, partition, offset, DELIVERY_WAIT)
    }

    fn start_with(
        consumer: BaseConsumer,
        partition: &TopicPartition,
        offset: i64,
        delivery_wait: Duration,
    ) -> Result<Self, EngineError> {
        let caller = |text: String| EngineError::Caller(format!("reading {partition}: {text}"));
        let number = i32::try_from(partition.partition).map_err(|_| caller("there is no such partition".to_owned()))?;
        let (low, high) = watermarks(&consumer, partition, number)?;
        let offset = if offset == OLDEST { low } else { offset };
        if offset < low || offset > high {
            return Err(caller(format!("offset {offset} is not there; it holds {low} to {high}")));
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, number, Offset::Offset(offset))
            .and_then(|()| consumer.assign(&list))
            .map_err(|error| failure::engine_error(&format!("reading {partition}"), &error))?;
        let reading = Arc::new(Reading { consumer, partition: partition.clone(), number, delivery_wait });
        Ok(Self { reading, position: offset, running: None })
    }
}

impl EngineReader for KafkaReader {
    fn next(&mut self) -> EngineFuture<'_, Outcome> {
        Box::pin(async move {
            let (reading, position) = (self.reading.clone(), self.position);
            let running =
                self.running.get_or_insert_with(|| tokio::task::spawn_blocking(move || reading.next(position)));
            let outcome = running.await;
            self.running = None;
            let batch = outcome.map_err(|error| EngineError::Bug(format!("reading a partition: {error}")))??;
            if let Some(last) = batch.last() {
                self.position = last.offset + 1;
            }
            Ok(batch)
        })
    }
}

impl Reading {
    fn next(&self, position: i64) -> Outcome {
        let wrong = |error: &KafkaError| failure::engine_error(&format!("reading {}", self.partition), error);
        let (_, end) = watermarks(&self.consumer, &self.partition, self.number)?;
        let (mut batch, mut bytes, mut copies) = (Vec::new(), 0, Copies::default());
        let deadline = Instant::now() + self.delivery_wait;
        let (mut at, mut asked_again) = (position, false);
        while at < end && batch.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
            // What is at hand is enough; only for the first message it waits.
            let wait =
                if batch.is_empty() { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    at = message.offset() + 1;
                    let delivery = copies.delivery(&message, &self.partition);
                    bytes += delivery.bytes();
                    batch.push(delivery);
                }
                // Said of now, it means that nothing but removed messages and marks of transactions is left. But it may be said of
                // an earlier call: a fetch that begins now tells.
                Some(Err(KafkaError::PartitionEOF(_))) if !asked_again && batch.is_empty() => {
                    asked_again = true;
                    let seeking =
                        self.consumer.seek(&self.partition.topic, self.number, Offset::Offset(at), ANSWER_WAIT);
                    seeking.map_err(|error| wrong(&error))?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(code @ (Code::AutoOffsetReset | Code::OffsetOutOfRange)) => {
                        let text = format!("reading {}: offset {at} is not there any more ({code})", self.partition);
                        return Err(EngineError::Caller(text));
                    }
                    Some(code) if failure::of_the_caller(code) => return Err(wrong(&error)),
                    _ => tracing::debug!(%error, "reading a partition"),
                },
                None if !batch.is_empty() => break,
                None if Instant::now() < deadline => {}
                None => return Err(EngineError::Unavailable(format!("reading {}: no answer", self.partition))),
            }
        }
        Ok(batch)
    }
}

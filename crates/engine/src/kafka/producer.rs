//! Sending to Kafka.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use super::durability::Durabilities;
use super::failure;
use super::settings::BufferLimits;
use crate::{Answer, EngineError, EngineFuture, EngineProducer, Fate, NoRoom, Record, SendError, Stored};

/// Bytes that a record takes up beside its key, content and headers.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// What librdkafka carries along with a record, and gives back when it was delivered or given up.
pub(super) struct Ticket {
    answer: Answer,
    topic: Arc<str>,
    bytes: usize,
}

/// What waits in the client, and who waits for it.
struct Buffer {
    limits: BufferLimits,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    changed: Notify,
    /// How many wait for a change: mostly nobody does, and telling nobody costs a lock.
    waiting: AtomicUsize,
}

impl Buffer {
    fn has_room(&self) -> bool {
        self.messages.load(Ordering::SeqCst) < self.limits.messages
            && self.bytes.load(Ordering::Acquire) < self.limits.bytes
    }

    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        // In one order with what `until` does: either it sees this, or this sees that somebody waits.
        self.messages.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Waits until it is so.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let _waiting = Waiting::begin(&self.waiting);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }
}

/// Somebody waits, until he has what he waits for or does not want it any more.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Context {
    buffer: Arc<Buffer>,
    durabilities: Arc<Durabilities>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let Ticket { answer, topic, bytes } = *ticket;
        let outcome = match result {
            Ok(message) => {
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                Ok(Stored { offset, durability: self.durabilities.of(&topic) })
            }
            Err((error, _)) => Err(failure::send_error(error.rdkafka_error_code().unwrap_or(Code::Unknown))),
        };
        // Before the answer: who hears that a record is done may count on its room.
        self.buffer.remove(bytes);
        answer.give(outcome);
    }
}

type Client = ThreadedProducer<Context>;

/// A producer of Kafka. Several may be used at once; each has its own sequence numbers at the broker.
pub(super) struct KafkaProducer {
    config: ClientConfig,
    buffer: Arc<Buffer>,
    durabilities: Arc<Durabilities>,
    /// Taken away when this producer ends. Replaced when the client library gives its producer up for good.
    client: Mutex<Option<Client>>,
}

impl KafkaProducer {
    pub(super) fn start(
        config: ClientConfig,
        limits: BufferLimits,
        durabilities: Arc<Durabilities>,
    ) -> Result<Self, EngineError> {
        let (messages, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let waiting = AtomicUsize::new(0);
        let buffer = Arc::new(Buffer { limits, messages, bytes, changed: Notify::new(), waiting });
        let client = Self::client(&config, &buffer, &durabilities)?;
        Ok(Self { config, buffer, durabilities, client: Mutex::new(Some(client)) })
    }

    fn client(
        config: &ClientConfig,
        buffer: &Arc<Buffer>,
        durabilities: &Arc<Durabilities>,
    ) -> Result<Client, EngineError> {
        let context = Context { buffer: buffer.clone(), durabilities: durabilities.clone() };
        ThreadedProducer::from_config_and_context(config, context)
            .map_err(|error| failure::engine_error("the producer for Kafka", &error))
    }

    /// Hands a record to the client library. A client that failed for good is replaced once. Gives the answer back with the reason if
    /// the record was not taken.
    fn take(&self, record: &Record, bytes: usize, answer: Answer) -> Result<(), (Code, Answer)> {
        let mut guard = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = guard.as_ref() else { return Err((Code::Fatal, answer)) };
        match self.try_send(client, record, bytes, answer) {
            Err((Code::Fatal, answer)) => {
                tracing::warn!(error = ?client.client().fatal_error(), "the Kafka producer failed for good and is replaced");
                let Ok(fresh) = Self::client(&self.config, &self.buffer, &self.durabilities) else {
                    return Err((Code::Fatal, answer));
                };
                end(guard.replace(fresh));
                let Some(client) = guard.as_ref() else { return Err((Code::Fatal, answer)) };
                self.try_send(client, record, bytes, answer)
            }
            result => result,
        }
    }

    fn try_send(&self, client: &Client, record: &Record, bytes: usize, answer: Answer) -> Result<(), (Code, Answer)> {
        let Ok(partition) = i32::try_from(record.to.partition) else { return Err((Code::UnknownPartition, answer)) };
        let headers = match headers(record) {
            Ok(headers) => headers,
            Err(code) => return Err((code, answer)),
        };
        let ticket = Box::new(Ticket { answer, topic: record.to.topic.clone(), bytes });
        let mut base = BaseRecord::<[u8], [u8], _>::with_opaque_to(&record.to.topic, ticket).partition(partition);
        base.key = record.key.as_deref();
        base.payload = record.payload.as_deref();
        base.timestamp = record.timestamp_ms;
        base.headers = headers;
        // Counted first: the delivery may be reported before `send` returns.
        self.buffer.add(bytes);
        client.send(base).map_err(|(error, back)| {
            self.buffer.remove(bytes);
            (error.rdkafka_error_code().unwrap_or(Code::InvalidArgument), back.delivery_opaque.answer)
        })
    }
}

/// The record's headers in the client's own form; none where there are none.
fn headers(record: &Record) -> Result<Option<OwnedHeaders>, Code> {
    if record.headers.is_empty() {
        return Ok(None);
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for header in &record.headers {
        // librdkafka ends names at the first NUL.
        if header.name.contains('\0') {
            return Err(Code::InvalidArgument);
        }
        headers = headers.insert(Header { key: &header.name, value: header.value.as_deref().map(Value).as_ref() });
    }
    Ok(Some(headers))
}

/// A header's value. (The trait of the client is not implemented for references to slices of unknown size.)
struct Value<'a>(&'a [u8]);

impl ToBytes for Value<'_> {
    fn to_bytes(&self) -> &[u8] {
        self.0
    }
}

impl EngineProducer for KafkaProducer {
    fn hand_over(&self, record: &Record, answer: Answer) -> Result<(), NoRoom> {
        if !self.buffer.has_room() {
            answer.withdraw();
            return Err(NoRoom);
        }
        let bytes = RECORD_OVERHEAD_BYTES + record_bytes(record);
        match self.take(record, bytes, answer) {
            Ok(()) => Ok(()),
            Err((Code::QueueFull, answer)) => {
                answer.withdraw();
                Err(NoRoom)
            }
            // It never left this process.
            Err((code, answer)) => {
                answer.give(Err(refused(code)));
                Ok(())
            }
        }
    }

    fn room(&self) -> EngineFuture<'_, ()> {
        Box::pin(self.buffer.until(Buffer::has_room))
    }

    fn flush(&self, wait: Duration) -> EngineFuture<'_, usize> {
        Box::pin(async move {
            // The client sends what lingers when it is told to flush; a wait of nothing is enough for that.
            if let Some(client) = &*self.client.lock().unwrap_or_else(PoisonError::into_inner) {
                // Says only that it is not done yet.
                let _ = client.flush(Duration::ZERO);
            }
            let emptied = self.buffer.until(|buffer| buffer.messages.load(Ordering::SeqCst) == 0);
            // Over or not, the count says it.
            let _ = tokio::time::timeout(wait, emptied).await;
            self.buffer.messages.load(Ordering::Acquire)
        })
    }
}

fn record_bytes(record: &Record) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    length(&record.key) + length(&record.payload) + record.headers.bytes()
}

/// The client library refused to take a record.
fn refused(code: Code) -> SendError {
    SendError { fate: Fate::NotStored, ..failure::send_error(code) }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        end(self.client.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Ends a client elsewhere: that waits for its thread. What it still held is answered as given up, of unknown fate.
fn end(client: Option<Client>) {
    let Some(client) = client else { return };
    let ending = std::thread::Builder::new().name("kafka-producer-end".to_owned());
    // If no thread can be had, the closure is dropped here, and the client with it.
    if let Err(error) = ending.spawn(move || drop(client)) {
        tracing::warn!(%error, "no thread to end a Kafka producer");
    }
}

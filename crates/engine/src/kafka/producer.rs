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
use tokio::sync::{Notify, oneshot};

use super::durability::Durabilities;
use super::failure;
use super::settings::BufferLimits;
use crate::{EngineError, EngineFuture, EngineProducer, Fate, Full, Record, Retry, SendError, Stored};

/// Bytes that a record takes up beside its key, content and headers.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// What librdkafka carries along with a record, and gives back when it was delivered or given up.
pub(super) struct Ticket {
    done: oneshot::Sender<Result<i64, Code>>,
    bytes: usize,
}

/// What waits in the client, and who waits for it.
struct Buffer {
    limits: BufferLimits,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    changed: Notify,
}

impl Buffer {
    fn has_room(&self) -> bool {
        self.messages.load(Ordering::Acquire) < self.limits.messages
            && self.bytes.load(Ordering::Acquire) < self.limits.bytes
    }

    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn remove(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.changed.notify_waiters();
    }
}

struct Context {
    buffer: Arc<Buffer>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        // Before the answer: who hears that a record is done may count on its room.
        self.buffer.remove(ticket.bytes);
        // Nobody listening is fine: the record was handed over all the same.
        let _ = ticket.done.send(outcome);
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
        let buffer = Arc::new(Buffer { limits, messages, bytes, changed: Notify::new() });
        let client = Self::client(&config, &buffer)?;
        Ok(Self { config, buffer, durabilities, client: Mutex::new(Some(client)) })
    }

    fn client(config: &ClientConfig, buffer: &Arc<Buffer>) -> Result<Client, EngineError> {
        ThreadedProducer::from_config_and_context(config, Context { buffer: buffer.clone() })
            .map_err(|error| failure::engine_error("the producer for Kafka", &error))
    }

    /// Hands a record to the client library. A client that failed for good is replaced once.
    fn hand_over(&self, record: &Record, bytes: usize) -> Result<oneshot::Receiver<Result<i64, Code>>, Code> {
        let mut guard = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let client = guard.as_ref().ok_or(Code::Fatal)?;
        match self.try_send(client, record, bytes) {
            Err(Code::Fatal) => {
                tracing::warn!(error = ?client.client().fatal_error(), "the Kafka producer failed for good and is replaced");
                let fresh = Self::client(&self.config, &self.buffer).map_err(|_| Code::Fatal)?;
                end(guard.replace(fresh));
                let client = guard.as_ref().ok_or(Code::Fatal)?;
                self.try_send(client, record, bytes)
            }
            result => result,
        }
    }

    fn try_send(
        &self,
        client: &Client,
        record: &Record,
        bytes: usize,
    ) -> Result<oneshot::Receiver<Result<i64, Code>>, Code> {
        let partition = i32::try_from(record.to.partition).map_err(|_| Code::UnknownPartition)?;
        let (done, receiver) = oneshot::channel();
        let mut base = BaseRecord::<[u8], [u8], _>::with_opaque_to(&record.to.topic, Box::new(Ticket { done, bytes }))
            .partition(partition);
        base.key = record.key.as_deref();
        base.payload = record.payload.as_deref();
        base.timestamp = record.timestamp_ms;
        base.headers = headers(record)?;
        // Counted first: the delivery may be reported before `send` returns.
        self.buffer.add(bytes);
        match client.send(base) {
            Ok(()) => Ok(receiver),
            Err((error, _)) => {
                self.buffer.remove(bytes);
                Err(error.rdkafka_error_code().unwrap_or(Code::InvalidArgument))
            }
        }
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
    fn send(&self, record: Record) -> Result<EngineFuture<'static, Result<Stored, SendError>>, Full> {
        if !self.buffer.has_room() {
            return Err(Full(Box::new(record)));
        }
        let bytes = RECORD_OVERHEAD_BYTES + record_bytes(&record);
        match self.hand_over(&record, bytes) {
            Ok(receiver) => {
                let durabilities = self.durabilities.clone();
                Ok(Box::pin(async move {
                    match receiver.await {
                        Ok(Ok(offset)) => {
                            let offset = (offset >= 0).then_some(offset);
                            Ok(Stored { offset, durability: durabilities.of(&record.to.topic) })
                        }
                        Ok(Err(code)) => Err(failure::send_error(code)),
                        Err(_) => Err(ended()),
                    }
                }))
            }
            Err(Code::QueueFull) => Err(Full(Box::new(record))),
            // It never left this process.
            Err(code) => Ok(Box::pin(std::future::ready(Err(refused(code))))),
        }
    }

    fn room(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let mut changed = std::pin::pin!(self.buffer.changed.notified());
                changed.as_mut().enable();
                if self.buffer.has_room() {
                    return;
                }
                changed.await;
            }
        })
    }

    fn flush(&self, wait: Duration) -> EngineFuture<'_, usize> {
        Box::pin(async move {
            // The client sends what lingers when it is told to flush; a wait of nothing is enough for that.
            if let Some(client) = &*self.client.lock().unwrap_or_else(PoisonError::into_inner) {
                // Says only that it is not done yet.
                let _ = client.flush(Duration::ZERO);
            }
            let emptied = async {
                loop {
                    let mut changed = std::pin::pin!(self.buffer.changed.notified());
                    changed.as_mut().enable();
                    if self.buffer.messages.load(Ordering::Acquire) == 0 {
                        return;
                    }
                    changed.await;
                }
            };
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

fn ended() -> SendError {
    let cause = "the producer ended before the record was acknowledged; it may be stored".to_owned();
    SendError { fate: Fate::Unknown, retry: Retry::Later, cause }
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

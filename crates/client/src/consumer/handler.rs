//! What a user writes: handlers, and what they are handed.

use std::future::Future;
use std::sync::Arc;

use baton_core::identity::{BadIdentity, Identified, Named, identify};
use baton_core::{Delivery, Headers, MessageId, TopicPartition};
use bytes::Bytes;

use super::error::HandlerError;
use super::letters;

/// A message in a handler.
#[derive(Debug, Clone)]
pub struct Received<T = Bytes> {
    /// Its content, decoded; the bytes as they came, unless the consumer was given a decoder. Absent content comes as no bytes:
    /// [`Received::payload`] tells the two apart. The bytes may share memory with those of neighbours: copy what is to be kept for long.
    pub body: T,
    delivery: Arc<Delivery>,
    attempt: u32,
}

impl<T> Received<T> {
    pub(super) fn new(body: T, delivery: Arc<Delivery>, attempt: u32) -> Self {
        Self { body, delivery, attempt }
    }

    pub(super) fn shared(&self) -> Arc<Delivery> {
        self.delivery.clone()
    }

    /// Everything as the engine delivered it.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Where it came from.
    pub fn from(&self) -> &TopicPartition {
        &self.delivery.from
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.delivery.from.topic
    }

    /// Its place in the partition.
    pub fn offset(&self) -> i64 {
        self.delivery.offset
    }

    /// Its key.
    pub fn key(&self) -> Option<&Bytes> {
        self.delivery.key.as_ref()
    }

    /// Its content as it came.
    pub fn payload(&self) -> Option<&Bytes> {
        self.delivery.payload.as_ref()
    }

    /// What goes with it.
    pub fn headers(&self) -> &Headers {
        &self.delivery.headers
    }

    /// Which attempt this is, from 1. The count is this process's: another consumer that gets the message begins again at 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What it is known by when nothing was named: its stamp, else `ce_id`, else its position.
    pub fn id(&self) -> Result<MessageId, BadIdentity> {
        identity(&self.delivery, None).map(|identified| identified.id)
    }
}

/// The id of a delivery; a dead letter keeps the one that it had.
pub(super) fn identity(delivery: &Delivery, named: Option<&Named>) -> Result<Identified, BadIdentity> {
    match letters::id_kept(&delivery.headers) {
        Some(kept) => Ok(kept),
        None => identify(delivery, named),
    }
}

/// Handles messages one by one. `E` is what the delivery level gives along: the guard's open transaction, or `()` without a guard.
///
/// Closures are handlers: `|message, effect| async move { .. Ok(()) }`.
///
/// A handler shares its thread with others up to its first `.await` that has to wait: what blocks a thread belongs into
/// `tokio::task::spawn_blocking`. One that blocks all the same holds up no other handler, but takes the thread from the runtime.
///
/// Whatever is to happen exactly once must be written through `effect`; everything else happens each time the handler runs. The
/// future may be dropped at any of its `.await`s, when the handler's deadline passes or its partition goes to somebody else: the
/// transaction is rolled back then. A panic is a transient failure.
pub trait Handler<E, T = Bytes>: Send + Sync + 'static {
    /// Handles a message. `Ok` means: commit the effect, and count the message as done.
    fn handle(&self, message: Received<T>, effect: E) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl<E, T, F, R> Handler<E, T> for F
where
    F: Fn(Received<T>, E) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HandlerError>> + Send,
{
    fn handle(&self, message: Received<T>, effect: E) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self(message, effect)
    }
}

/// Handles many messages in one transaction, oldest first for each partition. If it fails, nothing of the batch is committed and
/// each message is handed over alone, so that one bad message does not take the others with it.
pub trait BatchHandler<E, T = Bytes>: Send + Sync + 'static {
    /// Handles messages; never none. Those that were applied before are not among them.
    fn handle(&self, messages: Vec<Received<T>>, effect: E) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl<E, T, F, R> BatchHandler<E, T> for F
where
    F: Fn(Vec<Received<T>>, E) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HandlerError>> + Send,
{
    fn handle(&self, messages: Vec<Received<T>>, effect: E) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self(messages, effect)
    }
}

/// Either kind, seen from the inside.
pub(super) trait Handling<E, T>: Send + Sync + 'static {
    fn call_one(&self, message: Received<T>, effect: E) -> impl Future<Output = Result<(), HandlerError>> + Send;
    fn call(&self, messages: Vec<Received<T>>, effect: E) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// A [`Handler`]: a batch is handed to it message by message, all in the same transaction.
pub(super) struct OneByOne<H>(pub H);

impl<E: Clone + Send + Sync, T: Send, H: Handler<E, T>> Handling<E, T> for OneByOne<H> {
    fn call_one(&self, message: Received<T>, effect: E) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self.0.handle(message, effect)
    }

    async fn call(&self, messages: Vec<Received<T>>, effect: E) -> Result<(), HandlerError> {
        for message in messages {
            self.0.handle(message, effect.clone()).await?;
        }
        Ok(())
    }
}

/// A [`BatchHandler`].
pub(super) struct Together<H>(pub H);

impl<E: Send, T: Send, H: BatchHandler<E, T>> Handling<E, T> for Together<H> {
    fn call_one(&self, message: Received<T>, effect: E) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self.0.handle(vec![message], effect)
    }

    async fn call(&self, messages: Vec<Received<T>>, effect: E) -> Result<(), HandlerError> {
        self.0.handle(messages, effect).await
    }
}

/// Looks over the shoulder of a consumer, as an interceptor of Kafka's clients does. Called on the consumer's own task: must not
/// block. What panics in here is reported and passed over.
pub trait ConsumerInterceptor: Send + Sync + 'static {
    /// A message came, before anything is decided about it. Content and headers may be changed; where it came from stays.
    fn received(&self, _delivery: &mut Delivery) {}

    /// A handler ended with these messages.
    fn handled(&self, _delivery: &Delivery, _attempt: u32, _outcome: &baton_core::consumer::Outcome) {}

    /// The engine has these settlements.
    fn settled(&self, _settlements: &[baton_core::consumer::Settlement]) {}
}

//! RabbitMQ with quorum queues, through lapin.
//!
//! | here | there |
//! |---|---|
//! | topic | a durable direct exchange, and a stream `<topic>.partitions` whose first message says how many partitions there are |
//! | partition | a routing key |
//! | consumer group | for each partition a durable quorum queue `<topic>.<group>.<partition>` with a single active consumer |
//!
//! **What "stored" means.** A publisher confirm: every queue that the message was routed to has it on the disk of a majority of its
//! members. Messages are published as mandatory: one that no queue would get is refused with
//! [`Fate::NotStored`](crate::Fate::NotStored). So a topic that no group has subscribed to takes nothing: there is nobody who could
//! keep it. A group is subscribed, for good, from its first [`Engine::consumer`](crate::Engine::consumer) on.
//!
//! A consumer with the setting [`EXISTING_SETTING`] subscribes nothing: it consumes queues that are there already.
//!
//! **What "settled" means.** AMQP has no answer to an acknowledgement. After the acknowledgements of one call a request that has an answer
//! goes the same way; when [`settle`](crate::EngineConsumer::settle) returns, the node that we are connected to has them and has handed
//! them to the queue. If that node dies in that moment, the messages are delivered again: settling can be lost, a message cannot.
//! Nothing that was delivered before a connection was lost can be settled after it: [`Event::Lost`](crate::Event::Lost).
//!
//! **Order.** What is given back, or was not settled by a member that is gone, comes back in an order of the queue's choosing, and may come
//! behind later messages.
//!
//! **Outages.** The library's own recovery is off: it drops acknowledgements without a word. Producers connect again with growing waits
//! and publish what was not confirmed again, in order, under the same message id; consumers declare and consume again.
//!
//! **Nothing is waited for without a bound.** Heartbeats (10 s, unless the URI says otherwise) end a connection that has fallen silent within
//! twice their interval. A request may take 15 s, a confirm 30 s; then all that is not confirmed is published again over a new connection. Each
//! partition is consumed over its own channel, so a queue that does not answer, as one whose leader did not come back with its node, holds up
//! no other, nor keeps a member from joining. It is tried again ever later, up to a minute, since RabbitMQ may end the whole connection at it;
//! what is waited for is what [`next`](crate::EngineConsumer::next) returns as an error. A queue that has messages and no other consumer, and
//! delivers none for 20 s, gets a new channel. A consumer needs a channel for each partition, and one more for questions: `channel_max` (2,047) bounds how many it can have.

mod consumer;
mod link;
mod message;
mod producer;
mod registry;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use baton_core::TopicPartition;
use lapin::Connection;
use tokio::sync::Mutex;

pub use self::consumer::EXISTING_SETTING;
use self::link::Address;
use crate::{
    Capabilities, ConsumerOptions, Copies, Durability, Engine, EngineConsumer, EngineError, EngineFuture,
    EngineProducer, EngineReader, Medium, ProducerOptions, Settling, TopicSpec,
};

/// How many members a queue has is not told over AMQP.
const DURABILITY: Durability = Durability { medium: Medium::Disk, copies: Copies::Unknown };
/// How long anything may take that is not sending or receiving.
const REQUEST_WAIT: Duration = Duration::from_secs(30);

/// A RabbitMQ node or cluster.
pub struct RabbitEngine {
    address: Address,
    /// For questions about topics, as long as it lasts: some ask many times a minute, and a connection takes a MiB of memory that its client
    /// gives back late or never.
    asking: Mutex<Option<Arc<Connection>>>,
}

impl RabbitEngine {
    /// A server by its AMQP URI (`amqp://user:password@host:port/vhost?heartbeat=10`, `amqps://` for TLS). Nobody is connected to yet.
    pub fn connect(uri: &str) -> Result<Self, EngineError> {
        Ok(Self { address: Address::new(uri)?, asking: Mutex::default() })
    }

    /// The connection for questions.
    async fn asking(&self) -> Result<Arc<Connection>, EngineError> {
        let mut asking = self.asking.lock().await;
        if let Some(open) = asking.as_ref().filter(|connection| connection.status().connected()) {
            return Ok(Arc::clone(open));
        }
        let opened = Arc::new(self.address.connect("baton topics").await?);
        *asking = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// It did not answer: the next question is asked on another one.
    async fn give_up(&self, silent: &Arc<Connection>) {
        let mut asking = self.asking.lock().await;
        if asking.take_if(|connection| Arc::ptr_eq(connection, silent)).is_some() {
            drop(asking);
            link::close(silent).await;
        }
    }
}

/// Bounds a request.
async fn within<T>(doing: &str, request: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    match tokio::time::timeout(REQUEST_WAIT, request).await {
        Ok(result) => result,
        Err(_) => Err(EngineError::Unavailable(format!("{doing}: no answer in {} s", REQUEST_WAIT.as_secs()))),
    }
}

impl Engine for RabbitEngine {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            settling: Settling::Each,
            lasting_offsets: false,
            reading: false,
            metadata_bytes_max: 0,
            idempotent_retries: false,
            history: false,
            sharing: false,
            durability: DURABILITY,
        }
    }

    fn create_topic<'a>(&'a self, topic: &'a TopicSpec) -> EngineFuture<'a, Result<(), EngineError>> {
        Box::pin(within("creating a topic", async {
            let connection = self.address.connect("baton topics").await?;
            let result = registry::create(&connection, topic).await;
            link::close(&connection).await;
            result
        }))
    }

    fn partitions<'a>(&'a self, topic: &'a str) -> EngineFuture<'a, Result<u32, EngineError>> {
        Box::pin(async move {
            let doing = "asking for a topic";
            let connection = within(doing, self.asking()).await?;
            let result = within(doing, registry::partitions(&connection, topic)).await;
            if matches!(result, Err(EngineError::Unavailable(_))) {
                self.give_up(&connection).await;
            }
            result
        })
    }

    fn producer(&self, options: ProducerOptions) -> EngineFuture<'_, Result<Arc<dyn EngineProducer>, EngineError>> {
        Box::pin(async move {
            let producer = producer::RabbitProducer::start(self.address.clone(), &options)?;
            Ok(Arc::new(producer) as Arc<dyn EngineProducer>)
        })
    }

    fn consumer(&self, options: ConsumerOptions) -> EngineFuture<'_, Result<Box<dyn EngineConsumer>, EngineError>> {
        Box::pin(async move {
            let consumer =
                within("subscribing", consumer::RabbitConsumer::start(self.address.clone(), options)).await?;
            Ok(Box::new(consumer) as Box<dyn EngineConsumer>)
        })
    }

    fn reader<'a>(
        &'a self,
        _: &'a TopicPartition,
        _: i64,
    ) -> EngineFuture<'a, Result<Box<dyn EngineReader>, EngineError>> {
        Box::pin(std::future::ready(Err(EngineError::Unsupported("reading a partition without a group"))))
    }
}

//! Store-first mode: messages are made durable in the user's database, acknowledged at the engine, and handled from there.
//!
//! It stands between the engine and everything else of a consumer, as an engine of its own ([`StoringEngine`]): one that settles by a
//! frontier, and keeps that frontier in the database. What is behind it ([`desk`]) stores what comes, acknowledges what is stored, and
//! hands it up; what is decided about each partition is in [`shelf`].

mod desk;
mod member;
mod shelf;

use std::fmt;
use std::sync::Arc;

use baton_core::TopicPartition;
use baton_engine::{
    Capabilities, ConsumerOptions, Engine, EngineConsumer, EngineError, EngineFuture, EngineProducer, EngineReader,
    ProducerOptions, Settling, TopicSpec,
};
use baton_guard::intake::Intake;

/// How much of a partition may be stored and not be done, unless told otherwise: what a table keeps without being noticed.
const MESSAGES_MAX_DEFAULT: u64 = 100_000;
/// Room for what is done beyond the frontier, beside the place's frontier: tens of thousands of intervals. It is written anew with each
/// settlement that changes it.
const METADATA_BYTES_MAX: usize = 64 << 10;

/// Messages are kept in the service's own database from their arrival until they are done, and the engine is acknowledged as soon as
/// they are durable there. `docs/CONSUMER.md` says when that is worth it, and what it costs.
#[derive(Clone)]
pub struct StoreFirst {
    intake: Arc<dyn Intake>,
    messages_max: u64,
}

impl StoreFirst {
    /// In these tables.
    pub fn new(intake: Arc<dyn Intake>) -> Self {
        Self { intake, messages_max: MESSAGES_MAX_DEFAULT }
    }

    /// How many offsets of a partition may lie between the oldest message that is not done and the newest one that is stored; with as
    /// many, the engine keeps the rest. Default 100,000. With 0 nothing is taken in, and what is stored is handled: for leaving this mode.
    pub fn messages_max(mut self, messages: u64) -> Self {
        self.messages_max = messages;
        self
    }

    pub(super) fn intake(&self) -> &dyn Intake {
        &*self.intake
    }

    /// The engine, with the intake before everything that it delivers.
    pub(super) fn over(self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        Arc::new(StoringEngine { inner: engine, first: self })
    }
}

impl fmt::Debug for StoreFirst {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StoreFirst").field("messages_max", &self.messages_max).finish_non_exhaustive()
    }
}

struct StoringEngine {
    inner: Arc<dyn Engine>,
    first: StoreFirst,
}

impl Engine for StoringEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        Capabilities { settling: Settling::Frontier, metadata_bytes_max: METADATA_BYTES_MAX, ..inner }
    }

    fn create_topic<'a>(&'a self, topic: &'a TopicSpec) -> EngineFuture<'a, Result<(), EngineError>> {
        self.inner.create_topic(topic)
    }

    fn partitions<'a>(&'a self, topic: &'a str) -> EngineFuture<'a, Result<u32, EngineError>> {
        self.inner.partitions(topic)
    }

    fn producer(&self, options: ProducerOptions) -> EngineFuture<'_, Result<Arc<dyn EngineProducer>, EngineError>> {
        self.inner.producer(options)
    }

    fn consumer(&self, options: ConsumerOptions) -> EngineFuture<'_, Result<Box<dyn EngineConsumer>, EngineError>> {
        Box::pin(async move {
            let member = desk::open(self.inner.clone(), options, self.first.clone()).await?;
            Ok(Box::new(member) as Box<dyn EngineConsumer>)
        })
    }

    fn reader<'a>(
        &'a self,
        partition: &'a TopicPartition,
        offset: i64,
    ) -> EngineFuture<'a, Result<Box<dyn EngineReader>, EngineError>> {
        self.inner.reader(partition, offset)
    }
}

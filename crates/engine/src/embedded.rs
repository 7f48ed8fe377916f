//! The broker of this project, in this process: nothing to install, everything on the disk before it is acknowledged.
//!
//! It speaks Kafka's protocol on a port of the loopback address, and is spoken to as any Kafka is: moving to one later is a change
//! of the address.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_broker::{Broker, BrokerOptions};
use baton_core::TopicPartition;
use tokio::sync::Mutex;

use crate::kafka::KafkaEngine;
use crate::{
    Capabilities, ConsumerOptions, Copies, Durability, Engine, EngineConsumer, EngineError, EngineFuture,
    EngineProducer, EngineReader, Medium, ProducerOptions, TopicSpec,
};

/// What the broker acknowledges is on this machine's disk.
const DURABILITY: Durability = Durability { medium: Medium::Disk, copies: Copies::One };
/// Set unless they are given: a single process does not wait for other members to arrive.
const BROKER_SETTINGS: &[(&str, &str)] = &[("group.initial.rebalance.delay.ms", "0")];

/// How the embedded broker is started.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Where everything is kept; one process at a time.
    pub data: PathBuf,
    /// Where it listens, as `host:port`; any free port of the loopback address unless others shall reach it.
    pub listen: String,
    /// The broker's settings, under their own names (`docs/SETTINGS.md`).
    pub broker: Vec<(String, String)>,
    /// The client's settings, as for [`KafkaEngine`].
    pub client: Vec<(String, String)>,
}

impl EmbeddedOptions {
    /// Everything in this directory, for this process only.
    pub fn local(data: impl Into<PathBuf>) -> Self {
        let listen = "127.0.0.1:0".to_owned();
        Self { data: data.into(), listen, broker: Vec::new(), client: Vec::new() }
    }
}

/// The broker in this process, and the way to it.
pub struct EmbeddedEngine {
    kafka: KafkaEngine,
    options: BrokerOptions,
    broker: Mutex<Option<Broker>>,
}

impl EmbeddedEngine {
    /// Starts the broker on the caller's runtime.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EngineError> {
        let mut broker_options = BrokerOptions::local(options.data);
        broker_options.listen = options.listen;
        let given = options.broker.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in BROKER_SETTINGS.iter().copied().chain(given) {
            broker_options.settings.set(name, value).map_err(|error| EngineError::Caller(error.to_string()))?;
        }
        let broker = Self::broker(&broker_options).await?;
        // Started again it must be found where it was.
        broker_options.listen = broker.address().to_string();
        let kafka = KafkaEngine::connect_durable(&broker_options.listen, &options.client, DURABILITY)?;
        Ok(Self { kafka, options: broker_options, broker: Mutex::new(Some(broker)) })
    }

    async fn broker(options: &BrokerOptions) -> Result<Broker, EngineError> {
        Broker::start(options.clone())
            .await
            .map_err(|error| EngineError::Caller(format!("the embedded broker does not start: {error}")))
    }

    /// Where others can reach it.
    pub fn address(&self) -> &str {
        &self.options.listen
    }

    /// Answers what was asked, puts everything on the disk and stops. Connections that are not done by then are cut.
    pub async fn stop(&self, deadline: Duration) {
        if let Some(broker) = self.broker.lock().await.take() {
            broker.stop(deadline).await;
        }
    }

    /// Starts it again after [`EmbeddedEngine::stop`]; nothing happens if it runs.
    pub async fn start_again(&self) -> Result<(), EngineError> {
        let mut broker = self.broker.lock().await;
        if broker.is_none() {
            *broker = Some(Self::broker(&self.options).await?);
        }
        Ok(())
    }
}

impl Engine for EmbeddedEngine {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn capabilities(&self) -> Capabilities {
        self.kafka.capabilities()
    }

    fn create_topic<'a>(&'a self, topic: &'a TopicSpec) -> EngineFuture<'a, Result<(), EngineError>> {
        self.kafka.create_topic(topic)
    }

    fn partitions<'a>(&'a self, topic: &'a str) -> EngineFuture<'a, Result<u32, EngineError>> {
        self.kafka.partitions(topic)
    }

    fn producer(&self, options: ProducerOptions) -> EngineFuture<'_, Result<Arc<dyn EngineProducer>, EngineError>> {
        self.kafka.producer(options)
    }

    fn consumer(&self, options: ConsumerOptions) -> EngineFuture<'_, Result<Box<dyn EngineConsumer>, EngineError>> {
        self.kafka.consumer(options)
    }

    fn reader<'a>(
        &'a self,
        partition: &'a TopicPartition,
        offset: i64,
    ) -> EngineFuture<'a, Result<Box<dyn EngineReader>, EngineError>> {
        self.kafka.reader(partition, offset)
    }
}

//! Apache Kafka, and what speaks its protocol, through librdkafka.
//!
//! - A send is stored when all replicas that are in sync have it, and no fewer than the topic's `min.insync.replicas`. Kafka
//!   acknowledges from memory: [`Stored::durability`](crate::Stored) says what the topic insists on.
//! - A group's members share partitions cooperatively. A member's heartbeats go on by themselves, but it is only taken for alive
//!   while [`EngineConsumer::next`](crate::EngineConsumer::next) is called: after `max.poll.interval.ms` without, its partitions go
//!   to others.
//! - A group's position is committed with the member's generation. What a member that was put out commits is refused.
//! - A position that is out of range is never reset in silence: [`Event::Gap`](crate::Event::Gap).
//!
//! Settings are librdkafka's, under its own names; those that would break the promise are refused with the reason.

mod assignment;
mod backlog;
mod commits;
mod consumer;
mod context;
mod delivery;
mod durability;
mod failure;
mod member;
mod producer;
mod reader;
mod settings;
mod topics;

use std::sync::Arc;

use baton_core::TopicPartition;
use rdkafka::consumer::BaseConsumer;

use self::backlog::Backlogs;
use self::durability::Durabilities;
use self::settings::Settings;
use self::topics::Topics;
use crate::{
    Capabilities, ConsumerOptions, Engine, EngineConsumer, EngineError, EngineFuture, EngineProducer, EngineReader,
    ProducerOptions, Settling, TopicSpec,
};

/// Characters of metadata that a broker keeps with a position, unless its `offset.metadata.max.bytes` says otherwise.
const METADATA_BYTES_MAX: usize = 4_096;

/// A Kafka cluster.
pub struct KafkaEngine {
    settings: Settings,
    durabilities: Arc<Durabilities>,
    topics: Topics,
    backlogs: Arc<Backlogs>,
}

impl KafkaEngine {
    /// A cluster at `servers` (`host:port`, with commas between), with librdkafka's settings under their own names. Nobody is
    /// connected to yet.
    pub fn connect(servers: &str, settings: &[(String, String)]) -> Result<Self, EngineError> {
        Self::with(servers, settings, Durabilities::learned())
    }

    /// The same for servers of which is known what they mean by an acknowledgement.
    #[cfg(feature = "embedded")]
    pub(crate) fn connect_durable(
        servers: &str,
        settings: &[(String, String)],
        durability: crate::Durability,
    ) -> Result<Self, EngineError> {
        Self::with(servers, settings, Durabilities::fixed(durability))
    }

    fn with(servers: &str, settings: &[(String, String)], durabilities: Durabilities) -> Result<Self, EngineError> {
        if servers.is_empty() {
            return Err(EngineError::Caller("the address of Kafka is empty; give host:port".to_owned()));
        }
        let settings = Settings::new(servers, settings)?;
        let durabilities = Arc::new(durabilities);
        let topics = Topics::new(&settings.admin()?, durabilities.clone())?;
        let backlogs = Arc::new(Backlogs::new(settings.reader()?));
        Ok(Self { settings, durabilities, topics, backlogs })
    }
}

impl Engine for KafkaEngine {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            settling: Settling::Frontier,
            lasting_offsets: true,
            reading: true,
            metadata_bytes_max: METADATA_BYTES_MAX,
            idempotent_retries: true,
            history: true,
            sharing: true,
            durability: self.durabilities.otherwise(),
        }
    }

    fn create_topic<'a>(&'a self, topic: &'a TopicSpec) -> EngineFuture<'a, Result<(), EngineError>> {
        Box::pin(self.topics.create(topic))
    }

    fn partitions<'a>(&'a self, topic: &'a str) -> EngineFuture<'a, Result<u32, EngineError>> {
        Box::pin(self.topics.partitions(topic))
    }

    fn producer(&self, options: ProducerOptions) -> EngineFuture<'_, Result<Arc<dyn EngineProducer>, EngineError>> {
        Box::pin(async move {
            let (config, limits) = self.settings.producer(&options)?;
            let producer = producer::KafkaProducer::start(config, limits, self.durabilities.clone())?;
            Ok(Arc::new(producer) as Arc<dyn EngineProducer>)
        })
    }

    fn consumer(&self, options: ConsumerOptions) -> EngineFuture<'_, Result<Box<dyn EngineConsumer>, EngineError>> {
        Box::pin(async move {
            let config = self.settings.consumer(&options)?;
            // librdkafka waits in silence for a topic that is not there.
            for topic in &options.topics {
                self.topics.partitions(topic).await?;
            }
            let consumer = consumer::KafkaConsumer::start(config, options, self.backlogs.clone()).await?;
            Ok(Box::new(consumer) as Box<dyn EngineConsumer>)
        })
    }

    fn reader<'a>(
        &'a self,
        partition: &'a TopicPartition,
        offset: i64,
    ) -> EngineFuture<'a, Result<Box<dyn EngineReader>, EngineError>> {
        Box::pin(async move {
            let there = self.topics.partitions(&partition.topic).await?;
            if partition.partition >= there {
                let text = format!("there is no partition {partition}; the topic has {there}");
                return Err(EngineError::Caller(text));
            }
            let (config, partition) = (self.settings.reader()?, partition.clone());
            let starting = tokio::task::spawn_blocking(move || {
                let consumer: BaseConsumer =
                    config.create().map_err(|error| failure::engine_error("a reader of Kafka", &error))?;
                reader::KafkaReader::start(consumer, &partition, offset)
            });
            let reader = starting.await.map_err(|error| EngineError::Bug(format!("starting a reader: {error}")))??;
            Ok(Box::new(reader) as Box<dyn EngineReader>)
        })
    }
}

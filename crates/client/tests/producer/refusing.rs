//! An engine that takes everything but the first reports that are sent to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton::TopicPartition;
use baton_core::EVIDENCE_TOPIC;
use baton_engine::{
    Answer, Capabilities, ConsumerOptions, Engine, EngineConsumer, EngineError, EngineFuture, EngineProducer,
    EngineReader, Fate, NoRoom, ProducerOptions, Record, Retry, SendError, TopicSpec,
};

pub(crate) struct Refusing {
    pub(crate) inner: Arc<dyn Engine>,
    /// How many reports it refuses yet.
    pub(crate) reports: Arc<AtomicUsize>,
}

impl Engine for Refusing {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create_topic<'a>(&'a self, topic: &'a TopicSpec) -> EngineFuture<'a, Result<(), EngineError>> {
        self.inner.create_topic(topic)
    }

    fn partitions<'a>(&'a self, topic: &'a str) -> EngineFuture<'a, Result<u32, EngineError>> {
        self.inner.partitions(topic)
    }

    fn producer(&self, options: ProducerOptions) -> EngineFuture<'_, Result<Arc<dyn EngineProducer>, EngineError>> {
        Box::pin(async move {
            let inner = self.inner.producer(options).await?;
            Ok(Arc::new(Producer { inner, reports: Arc::clone(&self.reports) }) as Arc<dyn EngineProducer>)
        })
    }

    fn consumer(&self, options: ConsumerOptions) -> EngineFuture<'_, Result<Box<dyn EngineConsumer>, EngineError>> {
        self.inner.consumer(options)
    }

    fn reader<'a>(
        &'a self,
        partition: &'a TopicPartition,
        offset: i64,
    ) -> EngineFuture<'a, Result<Box<dyn EngineReader>, EngineError>> {
        self.inner.reader(partition, offset)
    }
}

struct Producer {
    inner: Arc<dyn EngineProducer>,
    reports: Arc<AtomicUsize>,
}

impl EngineProducer for Producer {
    fn hand_over(&self, record: &Record, answer: Answer) -> Result<(), NoRoom> {
        let less = |left: usize| left.checked_sub(1);
        if *record.to.topic == *EVIDENCE_TOPIC
            && self.reports.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
        {
            let cause = "refused by the test".to_owned();
            answer.give(Err(SendError { fate: Fate::NotStored, retry: Retry::Later, cause }));
            return Ok(());
        }
        self.inner.hand_over(record, answer)
    }

    fn room(&self) -> EngineFuture<'_, ()> {
        self.inner.room()
    }

    fn flush(&self, wait: Duration) -> EngineFuture<'_, usize> {
        self.inner.flush(wait)
    }
}

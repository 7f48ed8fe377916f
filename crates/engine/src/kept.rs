//! Topics whose records must still be there when nobody remembers them, and records that are larger than others.

use std::sync::Arc;

use crate::{Engine, EngineError, EngineProducer, ProducerOptions, TopicSpec};

/// Largest record that a topic made here takes, and that a producer made here hands over, in bytes. Below the 64 MiB that a producer
/// buffers, with room for headers; above what services send, so that a copy of a message with some headers more always fits.
pub const LARGE_RECORD_BYTES_MAX: usize = 60 << 20;

/// Kafka's name for it, as a topic's setting.
const TOPIC_LIMIT: &str = "max.message.bytes";
/// librdkafka's name for it: what its producers refuse without asking the engine.
const PRODUCER_LIMIT: &str = "message.max.bytes";

/// What keeps the newest record of each key for ever, best first. Each is a set of settings under Kafka's names.
const KEEPS: [&[(&str, &str)]; 2] = [
    &[("cleanup.policy", "compact")],
    // For an engine that cannot compact, or does not allow it: what was removed still takes room, but nothing is lost.
    &[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")],
];

/// Creates a topic that keeps at least the newest record of each key, for ever: compacted where the engine allows that, and else with
/// a retention that has no end. Which of the two is found out by asking. Settings of the topic itself are added to that.
///
/// A topic that is there already is left as it is.
///
/// # Errors
/// As [`Engine::create_topic`]. It is not created at all if the engine would not keep its records.
pub async fn create_kept(engine: &dyn Engine, topic: &TopicSpec) -> Result<(), EngineError> {
    let mut refused = None;
    for keeps in KEEPS {
        let mut spec = topic.clone();
        spec.settings.extend(keeps.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        match create_large(engine, &spec).await {
            Err(EngineError::Caller(text)) => _ = refused.get_or_insert(text),
            outcome => return outcome,
        }
    }
    Err(EngineError::Caller(refused.unwrap_or_default()))
}

/// Creates a topic that takes records of [`LARGE_RECORD_BYTES_MAX`], unless its own settings name another limit, or the engine does not
/// let clients choose one.
///
/// # Errors
/// As [`Engine::create_topic`].
pub async fn create_large(engine: &dyn Engine, topic: &TopicSpec) -> Result<(), EngineError> {
    if topic.settings.iter().any(|(name, _)| name == TOPIC_LIMIT) {
        return engine.create_topic(topic).await;
    }
    let mut large = topic.clone();
    large.settings.push((TOPIC_LIMIT.to_owned(), LARGE_RECORD_BYTES_MAX.to_string()));
    match engine.create_topic(&large).await {
        Err(EngineError::Caller(_)) => engine.create_topic(topic).await,
        outcome => outcome,
    }
}

/// A producer that leaves it to the topic how large a record may be: the client's own limit may be below what the topic took when
/// somebody else sent it.
///
/// # Errors
/// As [`Engine::producer`].
pub async fn large_producer(
    engine: &dyn Engine,
    options: ProducerOptions,
) -> Result<Arc<dyn EngineProducer>, EngineError> {
    let mut large = options.clone();
    large.settings.push((PRODUCER_LIMIT.to_owned(), LARGE_RECORD_BYTES_MAX.to_string()));
    match engine.producer(large).await {
        // An engine whose client has no such limit.
        Err(EngineError::Caller(_)) => engine.producer(options).await,
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use baton_core::TopicPartition;

    use super::*;
    use crate::{Capabilities, ConsumerOptions, EngineConsumer, EngineFuture, EngineReader};

    /// Refuses topics with a setting of this name, and keeps the settings of the others.
    struct Choosy {
        refuses: &'static [&'static str],
        created: Mutex<Vec<Vec<(String, String)>>>,
    }

    impl Engine for Choosy {
        fn name(&self) -> &'static str {
            "choosy"
        }

        fn capabilities(&self) -> Capabilities {
            unreachable!("nobody asks")
        }

        fn create_topic<'a>(&'a self, topic: &'a TopicSpec) -> EngineFuture<'a, Result<(), EngineError>> {
            let refused = |(name, value): &(String, String)| self.refuses.contains(&&*format!("{name}={value}"));
            let refused = topic.settings.iter().any(refused);
            if !refused {
                self.created.lock().unwrap().push(topic.settings.clone());
            }
            let outcome = if refused { Err(EngineError::Caller("no".to_owned())) } else { Ok(()) };
            Box::pin(std::future::ready(outcome))
        }

        fn partitions<'a>(&'a self, _: &'a str) -> EngineFuture<'a, Result<u32, EngineError>> {
            unreachable!("nobody asks")
        }

        fn producer(&self, _: ProducerOptions) -> EngineFuture<'_, Result<Arc<dyn EngineProducer>, EngineError>> {
            unreachable!("nobody asks")
        }

        fn consumer(&self, _: ConsumerOptions) -> EngineFuture<'_, Result<Box<dyn EngineConsumer>, EngineError>> {
            unreachable!("nobody asks")
        }

        fn reader<'a>(
            &'a self,
            _: &'a TopicPartition,
            _: i64,
        ) -> EngineFuture<'a, Result<Box<dyn EngineReader>, EngineError>> {
            unreachable!("nobody asks")
        }
    }

    async fn created(refuses: &'static [&'static str]) -> Result<Vec<String>, EngineError> {
        let engine = Choosy { refuses, created: Mutex::default() };
        create_kept(&engine, &TopicSpec::new("kept", 1)).await?;
        let all = engine.created.into_inner().unwrap();
        assert_eq!(all.len(), 1);
        let shown = all[0].iter().map(|(name, value)| format!("{name}={value}"));
        Ok(shown.filter(|setting| !setting.starts_with(TOPIC_LIMIT)).collect())
    }

    /// What is parked for longer than a topic keeps its records is lost.
    #[tokio::test]
    async fn a_topic_that_cannot_be_compacted_keeps_everything_for_ever_or_is_not_made() {
        assert_eq!(created(&[]).await.unwrap(), ["cleanup.policy=compact"]);
        let keeps = ["cleanup.policy=delete", "retention.ms=-1", "retention.bytes=-1"];
        assert_eq!(created(&["cleanup.policy=compact"]).await.unwrap(), keeps);
        created(&["cleanup.policy=compact", "retention.ms=-1"]).await.unwrap_err();
    }

    #[tokio::test]
    async fn the_limit_of_a_topic_is_raised_unless_the_engine_or_the_caller_knows_better() {
        let limit = |value: usize| (TOPIC_LIMIT.to_owned(), value.to_string());
        for (given, refuses, expected) in [
            (None, &[][..], Some(LARGE_RECORD_BYTES_MAX)),
            (Some(5), &[], Some(5)),
            (None, &["max.message.bytes=62914560"], None),
        ] {
            let engine = Choosy { refuses, created: Mutex::default() };
            let mut topic = TopicSpec::new("large", 1);
            topic.settings.extend(given.map(limit));
            create_large(&engine, &topic).await.unwrap();
            let all = engine.created.into_inner().unwrap();
            assert_eq!(all, [expected.map(limit).into_iter().collect::<Vec<_>>()]);
        }
    }
}

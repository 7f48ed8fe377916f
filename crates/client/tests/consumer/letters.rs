//! Dead letters of messages that are as large as their topic takes, and so have no room for more headers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::consumer::{
    ConsumerBuilder, DEAD_ATTEMPTS, DEAD_CLASS, DEAD_OFFSET, DEAD_REASON, Named, Notice, SHORT_REASON_BYTES_MAX,
};
use baton::{DeadLetter, Delivery, HandlerError, Received, TopicPartition};
use baton_core::Headers;
use baton_engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use baton_engine::kafka::KafkaEngine;
use baton_engine::{Engine, EngineProducer, OLDEST, ProducerOptions, Record, Retry, TopicSpec, large_producer};
use bytes::Bytes;

use crate::servers::Kafka;
use crate::world::{ID, PATIENCE, header};

const WAIT: Duration = Duration::from_secs(10);
/// Kafka's default limit of a batch, which is the embedded broker's as well.
const BATCH_BYTES_MAX: usize = 1_048_588;
const REASON: &str = "no such order; ";

fn record(topic: &str, id: &str, bytes: usize) -> Record {
    let mut headers = Headers::default();
    headers.push(ID, Some(Bytes::copy_from_slice(id.as_bytes())));
    Record {
        to: TopicPartition::new(topic, 0),
        key: Some(Bytes::copy_from_slice(id.as_bytes())),
        payload: Some(Bytes::from(vec![b'x'; bytes])),
        headers,
        timestamp_ms: Some(1_700_000_000_000),
        id: None,
    }
}

/// The largest payload that a topic takes in a message like ours.
async fn largest(producer: &dyn EngineProducer, topic: &str) -> usize {
    let (mut fits, mut too_large) = (BATCH_BYTES_MAX - 500, BATCH_BYTES_MAX);
    while too_large - fits > 1 {
        let bytes = (fits + too_large) / 2;
        match producer.send(record(topic, "m0", bytes)).expect("there is room").await {
            Ok(_) => fits = bytes,
            Err(error) => {
                assert_eq!(error.retry, Retry::Smaller, "{error}");
                too_large = bytes;
            }
        }
    }
    fits
}

async fn read(engine: &dyn Engine, topic: &str) -> Vec<Delivery> {
    let mut all = Vec::new();
    let mut reader = engine.reader(&TopicPartition::new(topic, 0), OLDEST).await.unwrap();
    loop {
        let batch = reader.next().await.unwrap();
        if batch.is_empty() {
            all.sort_by_key(|letter| header(letter, DEAD_OFFSET));
            return all;
        }
        all.extend(batch);
    }
}

/// Lets a group kill all messages; which of their letters are in another topic.
async fn kill_all(engine: &Arc<dyn Engine>, group: &str, dead: &str, messages: u64) -> Vec<i64> {
    let consumer = ConsumerBuilder::new(engine.clone(), group)
        .topics(["orders"])
        .identified_by(Named::Header(ID.into()))
        .dead_letter(DeadLetter::topic(dead))
        .at_least_once()
        .start(|_: Received, ()| async { Err(HandlerError::permanent("test", REASON.repeat(60))) });
    let consumer = consumer.await.unwrap();
    let mut notices = consumer.notices();
    let began = Instant::now();
    while consumer.metrics().counters.dead_lettered < messages {
        assert!(began.elapsed() < PATIENCE, "{:?}", consumer.metrics());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    consumer.stop(WAIT).await.unwrap();
    let mut elsewhere = Vec::new();
    while let Some(notice) = notices.next().await {
        if let Notice::LargeLetter { offset, topic, .. } = notice {
            assert_eq!(*topic, format!("{dead}.large"));
            elsewhere.push(offset);
        }
    }
    elsewhere
}

async fn every_letter_finds_room(engine: Arc<dyn Engine>) {
    for topic in ["sizes", "orders", "old.dead"] {
        engine.create_topic(&TopicSpec::new(topic, 1)).await.unwrap();
    }
    let options =
        ProducerOptions { client_id: "test".into(), linger_ms: 0, delivery_timeout: PATIENCE, settings: Vec::new() };
    let producer = large_producer(&*engine, options).await.unwrap();
    let largest = largest(&*producer, "sizes").await;
    let sizes = [10, largest - 800, largest - 250, largest];
    for (number, bytes) in sizes.into_iter().enumerate() {
        producer.send(record("orders", &format!("m{number}"), bytes)).expect("there is room").await.unwrap();
    }
    // A topic that was there with the limit that topics have.
    assert_eq!(kill_all(&engine, "first", "old.dead", 4).await, [3]);
    let letters = read(&*engine, "old.dead").await;
    let bytes =
        |letters: &[Delivery]| letters.iter().map(|letter| letter.payload.as_ref().unwrap().len()).collect::<Vec<_>>();
    assert_eq!(bytes(&letters), sizes[..3]);
    assert!(letters.iter().all(|letter| header(letter, DEAD_CLASS).as_deref() == Some("permanent")));
    let reasons: Vec<_> = letters.iter().map(|letter| header(letter, DEAD_REASON).map(|reason| reason.len())).collect();
    assert_eq!(reasons, [Some(REASON.len() * 60), Some(SHORT_REASON_BYTES_MAX), None]);
    let attempts: Vec<_> = letters.iter().map(|letter| header(letter, DEAD_ATTEMPTS)).collect();
    assert_eq!(attempts, [Some("1".to_owned()), Some("1".to_owned()), None]);
    let large = read(&*engine, "old.dead.large").await;
    assert_eq!(bytes(&large), [largest]);
    assert_eq!(header(&large[0], DEAD_REASON).map(|reason| reason.len()), Some(REASON.len() * 60));
    // A topic that the consumer makes itself has room for all of them.
    assert!(kill_all(&engine, "second", "new.dead", 4).await.is_empty());
    let letters = read(&*engine, "new.dead").await;
    assert_eq!(bytes(&letters), sizes);
    assert!(letters.iter().all(|letter| header(letter, DEAD_REASON).is_some_and(|reason| reason.len() > 800)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_a_message_at_the_limit_finds_room_on_the_embedded_broker() {
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::start(EmbeddedOptions::local(folder.path())).await.unwrap();
    every_letter_finds_room(Arc::new(engine)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_a_message_at_the_limit_finds_room_on_kafka() {
    let server = Kafka::start().await;
    every_letter_finds_room(Arc::new(KafkaEngine::connect(&server.address, &[]).unwrap())).await;
}

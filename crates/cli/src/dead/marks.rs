//! What was sent again: one record for each letter and each topic that it went to, in a topic beside that of the letters. The topic is
//! compacted where the engine can.
//!
//! | part | what it is |
//! |---|---|
//! | topic | `<topic of the letters>.replayed`, one partition |
//! | key | `<partition of the letter>/<its offset>/<message id>/<topic that it went to>` |
//! | content | JSON: `to`, `partition`, `offset` (where it lies now), `at_ms` |
//!
//! A letter is named by its place and not by its message's id alone: a message that is sent again and dies again is another letter, and
//! must not be skipped.

use std::collections::HashSet;
use std::sync::Arc;

use baton::{Baton, Engine, EngineError, Headers, TopicPartition, TopicSpec};
use baton_engine::{EngineProducer, OLDEST, Record, Stored, create_kept};
use bytes::Bytes;
use serde_json::json;

use super::letter::Letter;
use super::time::now_ms;
use crate::Failure;

/// Behind the name of the letters' topic.
const SUFFIX: &str = ".replayed";
/// Marks are small and few.
const PARTITIONS: u32 = 1;

/// What was sent again. In memory that is some hundred bytes for each letter.
pub(super) struct Marks {
    topic: Arc<str>,
    keys: HashSet<String>,
}

impl Marks {
    /// Reads them; none if nothing was ever sent again.
    pub(super) async fn read(baton: &Baton, letters: &str) -> Result<Self, Failure> {
        let failed = |error| Failure::failed("reading what was replayed", &error);
        let topic: Arc<str> = format!("{letters}{SUFFIX}").into();
        if !baton.engine().capabilities().reading {
            // Letters that were sent are not in their queue any more.
            return Ok(Self { topic, keys: HashSet::new() });
        }
        let partitions = match baton.engine().partitions(&topic).await {
            Ok(partitions) => partitions,
            Err(EngineError::Caller(_)) => 0,
            Err(error) => return Err(failed(error)),
        };
        let mut keys = HashSet::new();
        for partition in 0..partitions {
            let from = TopicPartition::new(Arc::clone(&topic), partition);
            let mut reader = baton.engine().reader(&from, OLDEST).await.map_err(failed)?;
            loop {
                let batch = reader.next().await.map_err(failed)?;
                if batch.is_empty() {
                    break;
                }
                let names = batch.iter().filter_map(|mark| mark.key.as_ref());
                keys.extend(names.map(|key| String::from_utf8_lossy(key).into_owned()));
            }
        }
        Ok(Self { topic, keys })
    }

    /// Whether a letter was sent to this topic before.
    pub(super) fn has(&self, letter: &Letter, to: &str) -> bool {
        self.keys.contains(&key(letter, to))
    }

    /// Makes the topic, where it is not there yet.
    pub(super) async fn prepare(&self, engine: &dyn Engine) -> Result<(), Failure> {
        if engine.partitions(&self.topic).await.is_ok() {
            return Ok(());
        }
        let created = create_kept(engine, &TopicSpec::new(Arc::clone(&self.topic), PARTITIONS)).await;
        created.map_err(|error| Failure::failed(&format!("creating the topic {}", self.topic), &error))
    }

    /// Remembers that a letter was sent.
    pub(super) async fn add(
        &self,
        producer: &dyn EngineProducer,
        letter: &Letter,
        to: &TopicPartition,
        stored: Stored,
    ) -> Result<(), Failure> {
        let content =
            json!({ "to": &*to.topic, "partition": to.partition, "offset": stored.offset, "at_ms": now_ms() });
        let mark = Record {
            to: TopicPartition::new(Arc::clone(&self.topic), 0),
            key: Some(Bytes::from(key(letter, &to.topic))),
            payload: Some(Bytes::from(content.to_string())),
            headers: Headers::default(),
            timestamp_ms: None,
            id: None,
        };
        let stored = producer.send_when_room(mark).await.await;
        stored
            .map(drop)
            .map_err(|error| Failure::failed(&format!("{letter} was sent, and could not be marked"), &error))
    }
}

fn key(letter: &Letter, to: &str) -> String {
    format!("{}/{to}", letter.name())
}

//! Reading a topic of dead letters, without any group: nothing is taken away, and nobody's position moves.

use std::collections::VecDeque;
use std::sync::Arc;

use baton::{Baton, Delivery, Engine, TopicPartition};
use baton_engine::{EngineReader, OLDEST};

use super::letter::Letter;
use crate::Failure;

/// All letters of a topic, partition by partition, the oldest first. What comes while it is read is read as well.
pub(super) struct Letters {
    engine: Arc<dyn Engine>,
    topic: Arc<str>,
    partitions: std::ops::Range<u32>,
    reader: Option<Box<dyn EngineReader>>,
    ready: VecDeque<Delivery>,
    /// Messages that are no dead letters.
    pub others: u64,
}

impl Letters {
    pub(super) async fn open(baton: &Baton, topic: &str) -> Result<Self, Failure> {
        let partitions = baton.engine().partitions(topic).await.map_err(|error| Failure::failed("--topic", &error))?;
        Ok(Self {
            engine: Arc::clone(baton.engine()),
            topic: Arc::from(topic),
            partitions: 0..partitions,
            reader: None,
            ready: VecDeque::new(),
            others: 0,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Option<Letter>, Failure> {
        let failed = |error| Failure::failed("reading dead letters", &error);
        loop {
            while let Some(delivery) = self.ready.pop_front() {
                match Letter::of(delivery) {
                    Some(letter) => return Ok(Some(letter)),
                    None => self.others += 1,
                }
            }
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => {
                    let Some(partition) = self.partitions.next() else { return Ok(None) };
                    let from = TopicPartition::new(Arc::clone(&self.topic), partition);
                    self.reader.insert(self.engine.reader(&from, OLDEST).await.map_err(failed)?)
                }
            };
            self.ready = reader.next().await.map_err(failed)?.into();
            if self.ready.is_empty() {
                self.reader = None;
            }
        }
    }
}

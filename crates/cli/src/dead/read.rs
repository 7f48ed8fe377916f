//! Reading dead letters without taking anything away.
//!
//! Where a topic can be read without a group, nobody's position moves. Where it cannot (RabbitMQ), the letters lie in the queues of a
//! group: [`Queues`].

use std::collections::VecDeque;
use std::sync::Arc;

use baton::{Baton, Delivery, Engine, EngineError, TopicPartition};
use baton_engine::{EngineReader, OLDEST};

use super::From;
use super::letter::Letter;
use super::queue::Queues;
use crate::Failure;

/// All letters of a topic, partition by partition, the oldest first. What comes while it is read is read as well.
pub(super) struct Letters {
    source: Source,
    ready: VecDeque<Delivery>,
    /// Messages that are no dead letters.
    pub others: u64,
}

enum Source {
    Topic {
        engine: Arc<dyn Engine>,
        topic: Arc<str>,
        partitions: std::ops::Range<u32>,
        reader: Option<Box<dyn EngineReader>>,
    },
    Queues(Queues),
}

fn failed(error: EngineError) -> Failure {
    Failure::failed("reading dead letters", &error)
}

impl Letters {
    pub(super) async fn open(baton: &Baton, from: &From) -> Result<Self, Failure> {
        let engine = Arc::clone(baton.engine());
        let partitions = engine.partitions(&from.topic).await.map_err(|error| Failure::failed("--topic", &error))?;
        let source = match engine.capabilities().reading {
            true => Source::Topic { engine, topic: Arc::from(&*from.topic), partitions: 0..partitions, reader: None },
            false => Source::Queues(Queues::open(&*engine, from, partitions).await?),
        };
        Ok(Self { source, ready: VecDeque::new(), others: 0 })
    }

    /// Whether letters are in queues, and leave them when they are settled.
    pub(super) fn are_queued(&self) -> bool {
        matches!(self.source, Source::Queues(_))
    }

    /// Whether there may be more than one look shows.
    pub(super) fn may_be_more(&self) -> bool {
        matches!(&self.source, Source::Queues(queues) if queues.may_be_more())
    }

    pub(super) async fn next(&mut self) -> Result<Option<Letter>, Failure> {
        loop {
            while let Some(delivery) = self.ready.pop_front() {
                match Letter::of(delivery) {
                    Some(letter) => return Ok(Some(letter)),
                    None => self.others += 1,
                }
            }
            match self.source.more().await? {
                Some(deliveries) => self.ready = deliveries.into(),
                None => return Ok(None),
            }
        }
    }

    /// Takes a letter out of its queue; where there is none, it stays where it is.
    pub(super) async fn take(&mut self, letter: &Letter) -> Result<(), Failure> {
        match &mut self.source {
            Source::Queues(queues) => queues.take(letter).await,
            Source::Topic { .. } => Ok(()),
        }
    }

    /// Gives back what was looked at.
    pub(super) async fn close(self) -> Result<(), Failure> {
        match self.source {
            Source::Queues(queues) => queues.close().await,
            Source::Topic { .. } => Ok(()),
        }
    }
}

impl Source {
    /// What comes next; `None` at the end.
    async fn more(&mut self) -> Result<Option<Vec<Delivery>>, Failure> {
        let (engine, topic, partitions, reader) = match self {
            Self::Topic { engine, topic, partitions, reader } => (engine, topic, partitions, reader),
            Self::Queues(queues) => return queues.more().await,
        };
        loop {
            let open = match reader {
                Some(open) => open,
                None => {
                    let Some(partition) = partitions.next() else { return Ok(None) };
                    let from = TopicPartition::new(Arc::clone(topic), partition);
                    reader.insert(engine.reader(&from, OLDEST).await.map_err(failed)?)
                }
            };
            let deliveries = open.next().await.map_err(failed)?;
            if !deliveries.is_empty() {
                return Ok(Some(deliveries));
            }
            *reader = None;
        }
    }
}

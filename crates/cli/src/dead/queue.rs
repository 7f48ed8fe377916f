//! Dead letters in the queues of a group, on an engine that cannot be read without one: received, not settled, and given back in the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::{Delivery, Engine, EngineError, TopicPartition};
use baton_engine::rabbitmq::EXISTING_SETTING;
use baton_engine::{ConsumerOptions, EngineConsumer, Event, Question, Settlement, Start, Waiting};

use super::From;
use super::letter::Letter;
use crate::Failure;

/// Letters that are looked at in one go, over all queues of a topic: they are in memory until they are given back.
pub(super) const BROWSED_MAX: u32 = 10_000;
/// How long nothing may come until the queues are asked whether there is more.
const POLL_WAIT: Duration = Duration::from_millis(300);
/// Times in a row that the queues say so until there is no more: what one has just sent may still be under way to us.
const EMPTY_TIMES: u32 = 2;
/// How long nothing may come in all. A queue of which nothing came yet cannot be asked, and somebody else may consume from it.
const SILENCE_MAX: Duration = Duration::from_secs(10);

pub(super) struct Queues {
    consumer: Box<dyn EngineConsumer>,
    topic: Arc<str>,
    partitions: u32,
    /// Letters of one partition that are looked at.
    share: u32,
    /// Letters that came, by partition.
    received: HashMap<u32, u32>,
}

fn failed(error: EngineError) -> Failure {
    Failure::failed("reading dead letters", &error)
}

impl Queues {
    pub(super) async fn open(engine: &dyn Engine, from: &From, partitions: u32) -> Result<Self, Failure> {
        let topic: Arc<str> = Arc::from(&*from.topic);
        let share = (BROWSED_MAX / partitions.max(1)).max(1);
        let options = ConsumerOptions {
            group: from.queue_of.clone(),
            topics: vec![Arc::clone(&topic)],
            start: Start::Earliest,
            prefetch: Some(share),
            release_wait: Duration::ZERO,
            settings: vec![(EXISTING_SETTING.to_owned(), "true".to_owned())],
        };
        let consumer = engine.consumer(options).await.map_err(|error| Failure::failed("--queue-of", &error))?;
        Ok(Self { consumer, topic, partitions, share, received: HashMap::new() })
    }

    /// Whether there may be more than one look shows.
    pub(super) fn may_be_more(&self) -> bool {
        self.received.values().any(|count| *count >= self.share)
    }

    /// What comes next; `None` at the end.
    pub(super) async fn more(&mut self) -> Result<Option<Vec<Delivery>>, Failure> {
        let (began, mut empty) = (Instant::now(), 0);
        while empty < EMPTY_TIMES && began.elapsed() < SILENCE_MAX {
            match self.consumer.next(POLL_WAIT).await.map_err(failed)? {
                Event::Messages(deliveries) => {
                    for delivery in &deliveries {
                        *self.received.entry(delivery.from.partition).or_insert(0) += 1;
                    }
                    return Ok(Some(deliveries));
                }
                Event::Idle if self.are_empty().await? => empty += 1,
                Event::Idle => empty = 0,
                Event::Lost(_) => {
                    let text = "the connection was lost; what was looked at is in its queue again";
                    return Err(Failure::Failed(text.to_owned()));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Whether every queue has delivered something and says that it has no more, or may deliver no more to us.
    async fn are_empty(&mut self) -> Result<bool, Failure> {
        if self.received.len() < self.partitions as usize {
            return Ok(false);
        }
        let open = self.received.iter().filter(|(_, count)| **count < self.share);
        let of = |partition: &u32| TopicPartition::new(Arc::clone(&self.topic), *partition);
        let questions: Vec<Question> =
            open.map(|(partition, _)| Question { partition: of(partition), next: None, exact: false }).collect();
        let asked = questions.len();
        let answers = self.consumer.backlog(questions).await.map_err(failed)?;
        Ok(answers.len() == asked && answers.iter().all(|answer| answer.waiting == Waiting::Undelivered(0)))
    }

    /// Takes a letter out of its queue.
    pub(super) async fn take(&mut self, letter: &Letter) -> Result<(), Failure> {
        let at = &letter.delivery;
        let settled = self.consumer.settle(&[Settlement::Done { partition: at.from.clone(), offset: at.offset }]).await;
        settled.map_err(|error| Failure::failed(&format!("{letter} was sent, and is still in its queue"), &error))
    }

    /// Gives back what was looked at.
    pub(super) async fn close(self) -> Result<(), Failure> {
        self.consumer.close().await.map_err(failed)
    }
}

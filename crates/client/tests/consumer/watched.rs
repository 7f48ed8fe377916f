//! An engine that writes down what is settled and sent, and whose sends can be held up or refused.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::TopicPartition;
use baton_engine::*;

/// What passed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A frontier was to be settled.
    Settling(TopicPartition, i64),
    /// A record of this topic was stored.
    Stored(String),
    /// Something that a test says.
    Said(String),
}

/// Until when an engine swallows what it should deliver of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swallows {
    /// Until it is told where to go on.
    UntilSeek(u32),
    /// Until the group is joined anew.
    UntilRejoin(u32),
}

#[derive(Default)]
pub struct Log {
    swallows: Mutex<Option<Swallows>>,
    seen: Mutex<Vec<Seen>>,
    held: Mutex<HashSet<String>>,
    refused: Mutex<HashSet<String>>,
    stop: Mutex<Option<Stop>>,
}

/// A step at which whoever gets there stands still for good, and whether somebody did.
struct Stop {
    step: &'static str,
    reached: bool,
}

impl Log {
    pub fn say(&self, text: impl Into<String>) {
        self.seen.lock().unwrap().push(Seen::Said(text.into()));
    }

    /// From now on whoever gets to this step goes no further.
    pub fn stop_at(&self, step: &'static str) {
        *self.stop.lock().unwrap() = Some(Stop { step, reached: false });
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.lock().unwrap().as_ref().is_some_and(|stop| stop.reached)
    }

    pub fn stop_nobody(&self) {
        *self.stop.lock().unwrap() = None;
    }

    /// Somebody gets to this step.
    pub async fn step(&self, step: &'static str) {
        let stops = match &mut *self.stop.lock().unwrap() {
            Some(stop) if stop.step == step => {
                stop.reached = true;
                true
            }
            _ => false,
        };
        if stops {
            std::future::pending::<()>().await;
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The highest frontier that was settled of a partition.
    pub fn settled(&self, partition: u32) -> i64 {
        let next = self.seen().into_iter().filter_map(|seen| match seen {
            Seen::Settling(of, next) if of.partition == partition => Some(next),
            _ => None,
        });
        next.max().unwrap_or(0)
    }

    /// From now on nothing of a partition is delivered, without a word.
    pub fn swallow(&self, swallows: Swallows) {
        *self.swallows.lock().unwrap() = Some(swallows);
    }

    fn heal(&self, of: impl Fn(Swallows) -> bool) {
        let mut swallows = self.swallows.lock().unwrap();
        *swallows = swallows.filter(|each| !of(*each));
    }

    /// What is sent to this topic is not stored until it is let go.
    pub fn hold(&self, topic: &str) {
        self.held.lock().unwrap().insert(topic.to_owned());
    }

    pub fn let_go(&self, topic: &str) {
        self.held.lock().unwrap().remove(topic);
    }

    /// What is sent to this topic is refused until it is accepted.
    pub fn refuse(&self, topic: &str) {
        self.refused.lock().unwrap().insert(topic.to_owned());
    }

    pub fn accept(&self, topic: &str) {
        self.refused.lock().unwrap().remove(topic);
    }
}

pub struct Watched {
    pub inner: Arc<dyn Engine>,
    pub log: Arc<Log>,
}

impl Engine for Watched {
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
            Ok(Arc::new(Producer { inner, log: self.log.clone() }) as Arc<dyn EngineProducer>)
        })
    }

    fn consumer(&self, options: ConsumerOptions) -> EngineFuture<'_, Result<Box<dyn EngineConsumer>, EngineError>> {
        Box::pin(async move {
            let inner = self.inner.consumer(options).await?;
            self.log.heal(|each| matches!(each, Swallows::UntilRejoin(_)));
            Ok(Box::new(Member { inner, log: self.log.clone() }) as Box<dyn EngineConsumer>)
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

struct Producer {
    inner: Arc<dyn EngineProducer>,
    log: Arc<Log>,
}

impl EngineProducer for Producer {
    fn hand_over(&self, record: &Record, answer: Answer) -> Result<(), NoRoom> {
        self.inner.hand_over(record, answer)
    }

    fn send(&self, record: Record) -> Result<EngineFuture<'static, Result<Stored, SendError>>, Full> {
        let (topic, log, inner) = (record.to.topic.to_string(), self.log.clone(), self.inner.clone());
        Ok(Box::pin(async move {
            if log.refused.lock().unwrap().contains(&topic) {
                let cause = "refused by the test".to_owned();
                return Err(SendError { fate: Fate::NotStored, retry: Retry::Later, cause });
            }
            while log.held.lock().unwrap().contains(&topic) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let stored = inner.send(record).expect("there is room").await?;
            log.seen.lock().unwrap().push(Seen::Stored(topic));
            Ok(stored)
        }))
    }

    fn room(&self) -> EngineFuture<'_, ()> {
        self.inner.room()
    }

    fn flush(&self, wait: Duration) -> EngineFuture<'_, usize> {
        self.inner.flush(wait)
    }
}

struct Member {
    inner: Box<dyn EngineConsumer>,
    log: Arc<Log>,
}

impl EngineConsumer for Member {
    fn next(&mut self, wait: Duration) -> EngineFuture<'_, Result<Event, EngineError>> {
        Box::pin(async move {
            let event = self.inner.next(wait).await?;
            let Event::Messages(mut messages) = event else { return Ok(event) };
            let swallows = *self.log.swallows.lock().unwrap();
            if let Some(Swallows::UntilSeek(partition) | Swallows::UntilRejoin(partition)) = swallows {
                messages.retain(|message| message.from.partition != partition);
            }
            Ok(if messages.is_empty() { Event::Idle } else { Event::Messages(messages) })
        })
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.inner.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.inner.resume(partitions)
    }

    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), EngineError> {
        self.log.heal(|each| each == Swallows::UntilSeek(partition.partition));
        self.inner.seek(partition, offset)
    }

    fn settle<'a>(&'a mut self, settlements: &'a [Settlement]) -> EngineFuture<'a, Result<(), EngineError>> {
        for settlement in settlements {
            if let Settlement::Frontier { partition, next, .. } = settlement {
                self.log.seen.lock().unwrap().push(Seen::Settling(partition.clone(), *next));
            }
        }
        Box::pin(async move {
            self.log.step("before acknowledging").await;
            self.inner.settle(settlements).await?;
            self.log.step("after acknowledging").await;
            Ok(())
        })
    }

    fn backlog(&mut self, questions: Vec<Question>) -> EngineFuture<'static, Result<Vec<Backlog>, EngineError>> {
        self.inner.backlog(questions)
    }

    fn release<'a>(&'a mut self, partitions: &'a [TopicPartition]) -> EngineFuture<'a, Result<(), EngineError>> {
        self.inner.release(partitions)
    }

    fn close(self: Box<Self>) -> EngineFuture<'static, Result<(), EngineError>> {
        self.inner.close()
    }
}

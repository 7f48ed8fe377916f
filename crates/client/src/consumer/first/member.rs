//! The member of a group that who handles messages sees: it looks like that of an engine whose offsets last. The other side is its
//! task ([`super::desk`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::{Delivery, TopicPartition};
use baton_engine::{Assignment, Backlog, EngineConsumer, EngineError, EngineFuture, Event, Question, Settlement};
use tokio::sync::mpsc::{Receiver, UnboundedSender};
use tokio::sync::oneshot;

/// A partition, and since which assignment or seek the caller has it, if it does. What is asked of an earlier one, because the caller
/// had not heard of the next, is not to reach that.
pub(super) type Held = (TopicPartition, Option<u64>);

/// What the task is asked to do.
pub(super) enum Command {
    Pause(Vec<Held>),
    Resume(Vec<Held>),
    /// Goes on at the offset; what comes then is named anew.
    Seek(Held, i64, u64),
    Settle(Vec<(Settlement, Option<u64>)>, Answer<()>),
    Backlog(Vec<Question>, Answer<Vec<Backlog>>),
    Release(Vec<Held>, Answer<()>),
    Close(Answer<()>),
}

/// To whom an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, EngineError>>;

/// What the task has for who calls.
pub(super) enum Told {
    Assigned(Assignment, u64),
    /// Messages of a partition, since this assignment or seek.
    Messages(TopicPartition, u64, Vec<Delivery>),
    Other(Result<Event, EngineError>),
}

pub(super) struct Member {
    pub commands: UnboundedSender<Command>,
    pub events: Receiver<Told>,
    /// Of the partitions that the caller knows to be its own: since which assignment or seek. What was on its way before is not wanted.
    pub tags: HashMap<TopicPartition, u64>,
    pub next_tag: Arc<AtomicU64>,
}

impl Member {
    fn ours(&self, partition: &TopicPartition) -> Result<(), EngineError> {
        if self.tags.contains_key(partition) { Ok(()) } else { Err(not_ours(partition)) }
    }

    fn held(&self, partition: &TopicPartition) -> Held {
        (partition.clone(), self.tags.get(partition).copied())
    }

    fn command(&self, command: Command) -> Result<(), EngineError> {
        self.commands.send(command).map_err(|_| ended())
    }

    /// What the caller is to hear of it; nothing if that is over.
    fn heard(&mut self, told: Told) -> Option<Result<Event, EngineError>> {
        match told {
            Told::Assigned(assignment, tag) => {
                self.tags.insert(assignment.partition.clone(), tag);
                Some(Ok(Event::Assigned(vec![assignment])))
            }
            Told::Messages(partition, tag, messages) => {
                (self.tags.get(&partition) == Some(&tag)).then_some(Ok(Event::Messages(messages)))
            }
            Told::Other(event) => {
                if let Ok(Event::Lost(partitions)) = &event {
                    partitions.iter().for_each(|partition| _ = self.tags.remove(partition));
                }
                Some(event)
            }
        }
    }
}

pub(super) fn not_ours(partition: &TopicPartition) -> EngineError {
    EngineError::Caller(format!(
        "partition {partition} is not ours any more; what is done of it cannot be settled here"
    ))
}

fn ended() -> EngineError {
    EngineError::Bug("the task that stores messages has ended".to_owned())
}

impl EngineConsumer for Member {
    fn next(&mut self, wait: Duration) -> EngineFuture<'_, Result<Event, EngineError>> {
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + wait;
            loop {
                match tokio::time::timeout_at(deadline, self.events.recv()).await {
                    Err(_) => return Ok(Event::Idle),
                    Ok(None) => return Err(ended()),
                    Ok(Some(told)) => {
                        if let Some(event) = self.heard(told) {
                            return event;
                        }
                    }
                }
            }
        })
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        partitions.iter().try_for_each(|each| self.ours(each))?;
        self.command(Command::Pause(partitions.iter().map(|each| self.held(each)).collect()))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        partitions.iter().try_for_each(|each| self.ours(each))?;
        self.command(Command::Resume(partitions.iter().map(|each| self.held(each)).collect()))
    }

    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), EngineError> {
        self.ours(partition)?;
        if offset < 0 {
            return Err(EngineError::Caller(format!("there is no offset {offset}")));
        }
        let held = self.held(partition);
        let tag = self.next_tag.fetch_add(1, Ordering::Relaxed);
        self.tags.insert(partition.clone(), tag);
        self.command(Command::Seek(held, offset, tag))
    }

    fn settle<'a>(&'a mut self, settlements: &'a [Settlement]) -> EngineFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let held = |settlement: &Settlement| match settlement {
                Settlement::Frontier { partition, .. } => (settlement.clone(), self.tags.get(partition).copied()),
                _ => (settlement.clone(), None),
            };
            self.command(Command::Settle(settlements.iter().map(held).collect(), answer))?;
            answered.await.unwrap_or_else(|_| Err(ended()))
        })
    }

    fn backlog(&mut self, mut questions: Vec<Question>) -> EngineFuture<'static, Result<Vec<Backlog>, EngineError>> {
        questions.retain(|question| self.tags.contains_key(&question.partition));
        let (answer, answered) = oneshot::channel();
        let asked = self.command(Command::Backlog(questions, answer));
        Box::pin(async move {
            asked?;
            answered.await.unwrap_or_else(|_| Err(ended()))
        })
    }

    fn release<'a>(&'a mut self, partitions: &'a [TopicPartition]) -> EngineFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let held = partitions.iter().map(|each| self.held(each)).collect();
            self.command(Command::Release(held, answer))?;
            partitions.iter().for_each(|each| _ = self.tags.remove(each));
            answered.await.unwrap_or_else(|_| Err(ended()))
        })
    }

    fn close(self: Box<Self>) -> EngineFuture<'static, Result<(), EngineError>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.command(Command::Close(answer))?;
            // Its events may be waiting to be heard: nobody will.
            drop(self.events);
            answered.await.unwrap_or_else(|_| Err(ended()))
        })
    }
}

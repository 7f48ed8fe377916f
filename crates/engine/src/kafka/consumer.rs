//! A member of a consumer group: the side of who calls. The other side is the member's thread ([`super::member`]).

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use baton_core::{Delivery, TopicPartition};
use rdkafka::ClientConfig;
use tokio::sync::{Notify, oneshot};

use super::backlog::{Backlogs, Voids};
use super::member;
use crate::{Backlog, ConsumerOptions, EngineConsumer, EngineError, EngineFuture, Event, Question, Settlement};

/// What the member's thread is asked to do.
pub(super) enum Command {
    Settle(Vec<Position>, oneshot::Sender<Result<(), EngineError>>),
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    Seek(TopicPartition, i64),
    Release(Vec<TopicPartition>, oneshot::Sender<()>),
    Close,
}

/// A frontier to be committed, and the assignment that it was reached in.
#[derive(Debug, Clone)]
pub(super) struct Position {
    pub(super) partition: TopicPartition,
    pub(super) next: i64,
    pub(super) metadata: String,
    pub(super) epoch: u64,
}

/// What the thread has for who calls.
#[derive(Default)]
pub(super) struct Inbox {
    /// With the bytes of the messages in it.
    events: VecDeque<(Result<Event, EngineError>, usize)>,
    messages: usize,
    bytes: usize,
    /// Partitions that were told to seek and have not yet done so: what comes from them is old.
    pub(super) seeking: HashMap<TopicPartition, usize>,
    /// When somebody last showed interest.
    pub(super) called_at: Option<Instant>,
    pub(super) ended: bool,
}

impl Inbox {
    /// Anything but messages.
    pub(super) fn push(&mut self, event: Result<Event, EngineError>) {
        self.events.push_back((event, 0));
    }

    pub(super) fn push_messages(&mut self, batch: Vec<Delivery>, bytes: usize) {
        self.messages += batch.len();
        self.bytes += bytes;
        self.events.push_back((Ok(Event::Messages(batch)), bytes));
    }

    fn pop(&mut self) -> Option<Result<Event, EngineError>> {
        let (event, bytes) = self.events.pop_front()?;
        if let Ok(Event::Messages(batch)) = &event {
            self.messages -= batch.len();
            self.bytes -= bytes;
        }
        Some(event)
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Result<Event, EngineError>> {
        self.events.iter().map(|(event, _)| event)
    }

    /// Messages that wait.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes of these.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes away what waits of a partition.
    pub(super) fn purge(&mut self, gone: impl Fn(&TopicPartition) -> bool) {
        (self.messages, self.bytes) = (0, 0);
        for (event, bytes) in std::mem::take(&mut self.events) {
            match event {
                Ok(Event::Messages(mut batch)) => {
                    batch.retain(|delivery| !gone(&delivery.from));
                    if !batch.is_empty() {
                        let bytes = batch.iter().map(Delivery::bytes).sum();
                        self.push_messages(batch, bytes);
                    }
                }
                event => self.events.push_back((event, bytes)),
            }
        }
    }
}

#[derive(Default)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    pub(super) ready: Notify,
}

impl Shared {
    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct KafkaConsumer {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    thread: Thread,
    ended: Option<oneshot::Receiver<()>>,
    /// The assignments that the caller knows of.
    epochs: HashMap<TopicPartition, u64>,
    backlogs: Arc<Backlogs>,
    voids: Voids,
}

impl KafkaConsumer {
    pub(super) async fn start(
        config: ClientConfig,
        options: ConsumerOptions,
        backlogs: Arc<Backlogs>,
    ) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared::default());
        let (commands, receiver) = mpsc::channel();
        let (started, starting) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let theirs = shared.clone();
        let spawned = std::thread::Builder::new().name("kafka-member".to_owned()).spawn(move || {
            member::run(config, options, theirs, receiver, started);
            // Nobody waiting for the end is fine.
            let _ = ending.send(());
        });
        let handle =
            spawned.map_err(|error| EngineError::Unavailable(format!("no thread for a Kafka consumer: {error}")))?;
        let thread = handle.thread().clone();
        starting
            .await
            .unwrap_or_else(|_| Err(EngineError::Bug("the member's thread ended at its start".to_owned())))?;
        let (epochs, voids) = (HashMap::new(), Voids::default());
        Ok(Self { shared, commands, thread, ended: Some(ended), epochs, backlogs, voids })
    }

    fn command(&self, command: Command) -> Result<(), EngineError> {
        self.commands.send(command).map_err(|_| ended())?;
        self.thread.unpark();
        Ok(())
    }

    fn alive(&self) {
        self.shared.inbox().called_at = Some(Instant::now());
        self.thread.unpark();
    }

    /// Notes what the caller now knows.
    fn told(&mut self, event: &Event) {
        match event {
            Event::Assigned(assignments) => {
                self.epochs.extend(assignments.iter().map(|each| (each.partition.clone(), each.epoch)));
            }
            Event::Lost(partitions) => partitions.iter().for_each(|each| _ = self.epochs.remove(each)),
            _ => {}
        }
    }

    fn ours(&self, partition: &TopicPartition) -> Result<u64, EngineError> {
        self.epochs.get(partition).copied().ok_or_else(|| not_ours(partition))
    }

    fn take(&mut self) -> Option<Result<Event, EngineError>> {
        let mut inbox = self.shared.inbox();
        inbox.called_at = Some(Instant::now());
        if inbox.events.is_empty() && inbox.ended {
            return Some(Err(ended()));
        }
        let event = inbox.pop()?;
        drop(inbox);
        // There is room now.
        self.thread.unpark();
        if let Ok(event) = &event {
            self.told(event);
        }
        Some(event)
    }

    fn positions(&self, settlements: &[Settlement]) -> (Vec<Position>, Option<EngineError>) {
        let (mut positions, mut refused) = (Vec::with_capacity(settlements.len()), None);
        for settlement in settlements {
            match settlement {
                Settlement::Frontier { partition, next, metadata } => match self.ours(partition) {
                    Ok(epoch) => positions.push(Position {
                        partition: partition.clone(),
                        next: *next,
                        metadata: metadata.clone(),
                        epoch,
                    }),
                    Err(error) => refused = Some(error),
                },
                Settlement::Done { .. } | Settlement::GiveBack { .. } => {
                    refused = Some(EngineError::Unsupported("settling each delivery for itself"));
                }
            }
        }
        (positions, refused)
    }
}

pub(super) fn not_ours(partition: &TopicPartition) -> EngineError {
    EngineError::Caller(format!(
        "partition {partition} is not ours any more; what is done of it cannot be settled here"
    ))
}

fn ended() -> EngineError {
    EngineError::Bug("a consumer is used after its end".to_owned())
}

impl EngineConsumer for KafkaConsumer {
    fn next(&mut self, wait: Duration) -> EngineFuture<'_, Result<Event, EngineError>> {
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + wait;
            let shared = self.shared.clone();
            self.alive();
            loop {
                let mut ready = std::pin::pin!(shared.ready.notified());
                ready.as_mut().enable();
                if let Some(event) = self.take() {
                    return event;
                }
                if tokio::time::timeout_at(deadline, ready).await.is_err() {
                    return Ok(Event::Idle);
                }
            }
        })
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        partitions.iter().try_for_each(|each| self.ours(each).map(drop))?;
        self.command(Command::Pause(partitions.to_vec()))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        partitions.iter().try_for_each(|each| self.ours(each).map(drop))?;
        self.command(Command::Resume(partitions.to_vec()))
    }

    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), EngineError> {
        self.ours(partition)?;
        if offset < 0 {
            return Err(EngineError::Caller(format!("there is no offset {offset}")));
        }
        {
            let mut inbox = self.shared.inbox();
            *inbox.seeking.entry(partition.clone()).or_default() += 1;
            inbox.purge(|each| each == partition);
        }
        self.command(Command::Seek(partition.clone(), offset))
    }

    fn settle<'a>(&'a mut self, settlements: &'a [Settlement]) -> EngineFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            self.alive();
            let (positions, refused) = self.positions(settlements);
            if !positions.is_empty() {
                let (done, settled) = oneshot::channel();
                self.command(Command::Settle(positions, done))?;
                settled.await.unwrap_or_else(|_| Err(ended()))?;
            }
            refused.map_or(Ok(()), Err)
        })
    }

    fn backlog(&mut self, mut questions: Vec<Question>) -> EngineFuture<'static, Result<Vec<Backlog>, EngineError>> {
        questions.retain(|question| self.epochs.contains_key(&question.partition));
        let (backlogs, voids) = (self.backlogs.clone(), self.voids.clone());
        Box::pin(async move {
            let asking = tokio::task::spawn_blocking(move || backlogs.answer(questions, &voids));
            asking.await.map_err(|error| EngineError::Bug(format!("asking for a backlog: {error}")))?
        })
    }

    fn release<'a>(&'a mut self, partitions: &'a [TopicPartition]) -> EngineFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            self.alive();
            let (done, released) = oneshot::channel();
            self.command(Command::Release(partitions.to_vec(), done))?;
            released.await.map_err(|_| ended())?;
            partitions.iter().for_each(|each| _ = self.epochs.remove(each));
            Ok(())
        })
    }

    fn close(mut self: Box<Self>) -> EngineFuture<'static, Result<(), EngineError>> {
        Box::pin(async move {
            self.command(Command::Close)?;
            match self.ended.take() {
                Some(ended) => ended.await.map_err(|_| EngineError::Bug("the member's thread panicked".to_owned())),
                None => Ok(()),
            }
        })
    }
}

impl Drop for KafkaConsumer {
    /// Leaves the group as well, without waiting for it.
    fn drop(&mut self) {
        // After `close` nobody is there to hear it.
        let _ = self.command(Command::Close);
    }
}

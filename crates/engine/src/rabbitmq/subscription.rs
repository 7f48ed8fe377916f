//! The task of a member: consumes every queue of its group, each over a channel of its own, and connects again.
//!
//! RabbitMQ can leave a queue without an answer: its leader is gone, or did not come back with its node. So nothing is waited for without
//! a bound. A queue that does not answer, or has messages, no other consumer, and delivers none, is given up for a while and consumed
//! again over a new channel, while the others go on. A channel that does not even say goodbye takes the connection with it: only that
//! makes RabbitMQ let go of what it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_core::TopicPartition;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{Notify, watch};

use super::consumer::Shared;
use super::link::{self, Address, Backoff};
use super::message;
use super::producer::routing_key;
use crate::EngineError;

/// How long a queue may be silent before it is asked whether it has messages; twice in a row that it has, and it is given up. Longer than
/// RabbitMQ takes to elect a leader (5 s at most), so that an election is not disturbed.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a queue that cannot be consumed is left alone at most. The others may lose their connection with each attempt.
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a member may take to declare the queues of its group before it begins. Each queue in trouble takes some time of it; what is left
/// over is declared when it is consumed.
const DECLARE_ALL_WAIT: Duration = Duration::from_secs(30);
/// How long until a channel that ended has a successor.
const CHANNEL_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Subscription {
    pub(super) shared: Arc<Shared>,
    pub(super) address: Address,
    pub(super) group: String,
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) arguments: FieldTable,
    /// Queues that are not there are not made.
    pub(super) existing: bool,
    pub(super) prefetch: u16,
    pub(super) troubles: Troubles,
}

/// Partitions that could not be consumed the last time, and how long they are left alone: over connections, since RabbitMQ may end the whole
/// connection at a queue that has no leader.
#[derive(Default)]
pub(super) struct Troubles(Mutex<HashMap<TopicPartition, Backoff>>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Backoff>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to leave a partition alone.
    fn pause(&self, partition: &TopicPartition) -> Option<Duration> {
        self.lock().get_mut(partition).map(Backoff::next)
    }

    fn one_more(&self, partition: &TopicPartition) {
        self.lock().entry(partition.clone()).or_insert_with(|| Backoff::up_to(TROUBLE_PAUSE_MAX));
    }

    fn over(&self, partition: &TopicPartition) {
        self.lock().remove(partition);
    }
}

/// What a queue says of itself.
pub(super) struct Depth {
    /// Messages that are with nobody.
    pub(super) messages: u64,
    consumers: u32,
}

/// Why a partition is not consumed any more.
enum End {
    /// It is tried again.
    Channel(EngineError),
    /// Over this connection it cannot be.
    Connection(EngineError),
}

fn queue(group: &str, partition: &TopicPartition) -> Result<ShortString, EngineError> {
    link::name(&format!("{}.{group}.{}", partition.topic, partition.partition))
}

/// Asks over a channel of its own: one that asks for what is not there is closed.
pub(super) async fn depth(
    connection: &Connection,
    group: &str,
    partition: &TopicPartition,
) -> Result<Depth, EngineError> {
    let name = queue(group, partition)?;
    let doing = format!("asking queue {name} how much it has");
    let asking = async {
        let channel = connection.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(name, passive, FieldTable::default()).await;
        if asked.is_ok() {
            // It is not needed any more, however its goodbye goes.
            let _ = channel.close(link::GOODBYE, "done".into()).await;
        }
        asked
    };
    let queue = link::answered(&doing, asking).await?;
    Ok(Depth { messages: queue.message_count().into(), consumers: queue.consumer_count() })
}

impl Subscription {
    pub(super) async fn run(self, connection: Connection, mut stopped: watch::Receiver<bool>) {
        let (mut connection, mut backoff) = (Some(connection), Backoff::default());
        loop {
            let present = match connection.take() {
                Some(connection) => Ok(connection),
                None => tokio::select! {
                    connected = self.address.connect(&self.group) => connected,
                    _ = stopped.wait_for(|stop| *stop) => return,
                },
            };
            let error = match present {
                Ok(connection) => {
                    let began = Instant::now();
                    let connection = Arc::new(connection);
                    let ended = tokio::select! {
                        ended = self.session(&connection) => Some(ended),
                        _ = stopped.wait_for(|stop| *stop) => None,
                    };
                    let consumers = self.shared.inbox().cut_all();
                    link::close(&connection).await;
                    drop(consumers);
                    backoff.lasted(began.elapsed());
                    match ended {
                        Some(error) => error,
                        None => return,
                    }
                }
                Err(error) => error,
            };
            tracing::debug!(%error, group = self.group, "RabbitMQ consumer: connecting again");
            self.tell(error);
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn tell(&self, error: EngineError) {
        self.shared.inbox().tell(error);
        self.shared.ready.notify_waiters();
    }

    /// Declares the queues of the group, so that nothing is lost to it from now on. One that has no leader, or cannot be asked for another
    /// reason, keeps nobody from the others: it is declared when it is consumed, which is tried until it succeeds. Gives back a connection that
    /// may go on, which is another one if such a queue has ended the first.
    pub(super) async fn declare_all(&self, mut connection: Connection) -> Result<Connection, EngineError> {
        let (began, mut declared, mut failed) = (Instant::now(), 0, None);
        let mut ready = None;
        for partition in &self.partitions {
            if failed.is_some() && began.elapsed() >= DECLARE_ALL_WAIT {
                return Ok(connection);
            }
            if !connection.status().connected() {
                connection = self.address.connect(&self.group).await?;
            }
            match self.declare_over(&connection, &mut ready, partition).await {
                Ok(()) => declared += 1,
                Err(error @ EngineError::Unavailable(_)) => {
                    let group = &*self.group;
                    tracing::warn!(%error, %partition, group, "RabbitMQ consumer: one queue is left for later, others are consumed");
                    self.troubles.one_more(partition);
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(channel) = ready {
            link::goodbye(channel).await;
        }
        match failed {
            Some(error) if declared == 0 => Err(error),
            _ => Ok(connection),
        }
    }

    /// Leaves the channel for the next one, if that can be used: one that asks for what cannot be had is closed, or waits for ever.
    async fn declare_over(
        &self,
        connection: &Connection,
        ready: &mut Option<Channel>,
        partition: &TopicPartition,
    ) -> Result<(), EngineError> {
        let channel = match ready.take() {
            Some(channel) => channel,
            None => link::answered("subscribing: opening a channel", connection.create_channel()).await?,
        };
        let declared = self.declare(&channel, partition).await;
        match declared {
            Ok(()) => *ready = Some(channel),
            Err(_) => _ = link::goodbye(channel).await,
        }
        declared
    }

    /// Queues that are there already are left as they are, if they are what they have to be.
    pub(super) async fn declare(&self, channel: &Channel, partition: &TopicPartition) -> Result<(), EngineError> {
        let queue = queue(&self.group, partition)?;
        let options = QueueDeclareOptions { durable: true, passive: self.existing, ..QueueDeclareOptions::default() };
        let declaring = channel.queue_declare(queue.clone(), options, self.arguments.clone());
        link::answered(&format!("subscribing: declaring queue {queue}"), declaring).await?;
        if self.existing {
            return Ok(());
        }
        let (exchange, key) = (link::name(&partition.topic)?, routing_key(partition.partition));
        let doing = format!("subscribing: binding queue {queue}");
        let binding = channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default());
        link::answered(&doing, binding).await
    }

    /// Consumes until the connection ends, and says why it did.
    async fn session(&self, connection: &Arc<Connection>) -> EngineError {
        self.shared.inbox().connected(connection.clone());
        let mut partitions: FuturesUnordered<_> =
            self.partitions.iter().map(|partition| self.serve(connection, partition)).collect();
        match partitions.next().await {
            Some(error) => error,
            // There are no partitions.
            None => std::future::pending().await,
        }
    }

    /// Consumes one partition, over channel after channel, until the connection ends.
    async fn serve(&self, connection: &Connection, partition: &TopicPartition) -> EngineError {
        loop {
            if let Some(pause) = self.troubles.pause(partition) {
                tokio::time::sleep(pause).await;
            }
            let end = self.consume(connection, partition).await;
            self.shared.inbox().cut(partition);
            self.shared.ready.notify_waiters();
            match end {
                End::Connection(error) => return error,
                End::Channel(error) if !connection.status().connected() => return error,
                End::Channel(error) => {
                    tracing::debug!(%error, %partition, group = self.group, "RabbitMQ consumer: a new channel");
                    self.tell(error);
                }
            }
            tokio::time::sleep(CHANNEL_PAUSE).await;
        }
    }

    async fn consume(&self, connection: &Connection, partition: &TopicPartition) -> End {
        let doing = format!("consuming {partition}: opening a channel");
        let channel = match link::answered(&doing, connection.create_channel()).await {
            Ok(channel) => channel,
            Err(error) => return End::Connection(error),
        };
        let error = match self.begin(&channel, partition).await {
            Ok(consumer) => {
                self.troubles.over(partition);
                let give_up = self.shared.inbox().opened(partition, channel.clone(), consumer.clone());
                self.deliver(connection, partition, consumer, &give_up).await
            }
            Err(error) => {
                self.troubles.one_more(partition);
                error
            }
        };
        match link::goodbye(channel).await {
            true => End::Channel(error),
            false => End::Connection(error),
        }
    }

    async fn begin(&self, channel: &Channel, partition: &TopicPartition) -> Result<Consumer, EngineError> {
        self.declare(channel, partition).await?;
        let doing = format!("consuming {partition}: limiting what is under way");
        link::answered(&doing, channel.basic_qos(self.prefetch, BasicQosOptions::default())).await?;
        let queue = queue(&self.group, partition)?;
        let doing = format!("consuming queue {queue}");
        let options = BasicConsumeOptions::default();
        link::answered(&doing, channel.basic_consume(queue, "".into(), options, FieldTable::default())).await
    }

    /// Takes what comes, until the channel ends or is given up; says why.
    async fn deliver(
        &self,
        connection: &Connection,
        partition: &TopicPartition,
        mut consumer: Consumer,
        give_up: &Notify,
    ) -> EngineError {
        let mut suspected = false;
        loop {
            tokio::select! {
                item = consumer.next() => {
                    let delivered = match item {
                        Some(Ok(delivered)) => delivered,
                        Some(Err(error)) => return link::engine_error(&format!("consuming {partition}"), &error),
                        None => return EngineError::Unavailable(format!("RabbitMQ ended the consumer of {partition}")),
                    };
                    suspected = false;
                    let mut inbox = self.shared.inbox();
                    let offset = inbox.next_offset(partition);
                    let (tag, data) = (delivered.delivery_tag, delivered.data);
                    inbox.arrived(message::delivery(partition.clone(), offset, &delivered.properties, data), tag);
                    drop(inbox);
                    self.shared.ready.notify_waiters();
                }
                () = give_up.notified() => {
                    return EngineError::Unavailable(format!("a settlement of {partition} was not answered"));
                }
                () = tokio::time::sleep(SILENCE_MAX) => match self.keeps_back(connection, partition).await {
                    Ok(true) if suspected => {
                        let text = "it has messages and no other consumer, and delivers none";
                        return EngineError::Unavailable(format!("waiting for the queue of {partition}: {text}"));
                    }
                    Ok(keeps_back) => suspected = keeps_back,
                    Err(error) => return error,
                },
            }
        }
    }

    /// Whether a queue has messages and nobody but us to give them to. With several consumers only one is active, and which one is
    /// not told.
    async fn keeps_back(&self, connection: &Connection, partition: &TopicPartition) -> Result<bool, EngineError> {
        if self.shared.inbox().owes(partition) {
            return Ok(false);
        }
        let depth = depth(connection, &self.group, partition).await?;
        Ok(depth.messages > 0 && depth.consumers <= 1)
    }
}

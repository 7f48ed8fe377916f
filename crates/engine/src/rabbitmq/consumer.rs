//! A member of a group on RabbitMQ: a task that consumes every queue of its group, connects again, and begins anew.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::{Delivery, TopicPartition};
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use tokio::sync::{Notify, watch};

use super::link::{self, Address, Backoff};
use super::producer::routing_key;
use super::{message, registry};
use crate::{Assignment, ConsumerOptions, EngineConsumer, EngineError, EngineFuture, Event, Settlement};

/// Deliveries handed over at once.
const BATCH_MESSAGES_MAX: usize = 1_024;
/// How often a queue delivers a message before it drops it, unless `x-delivery-limit` says otherwise: never. RabbitMQ's own default, 20
/// since 4.0, drops messages that members gave back or died with. Attempts are counted by who handles messages.
const DELIVERY_LIMIT: i64 = i32::MAX as i64;
const LIMIT_SETTING: &str = "x-delivery-limit";
/// What a queue has to be, and no setting may change.
const FIXED: &[&str] = &["x-queue-type", "x-single-active-consumer"];

/// A connection's lifetime, in which deliveries can be settled.
#[derive(Clone)]
struct Session {
    channel: Channel,
    /// Tags by the offsets that we gave.
    tags: HashMap<TopicPartition, BTreeMap<i64, u64>>,
    prefetch: u16,
}

#[derive(Default)]
struct Inbox {
    events: VecDeque<Result<Event, EngineError>>,
    ready: VecDeque<Delivery>,
    /// Deliveries of partitions that are paused.
    held: BTreeMap<TopicPartition, VecDeque<Delivery>>,
    paused: HashSet<TopicPartition>,
    session: Option<Session>,
    epochs: HashMap<TopicPartition, u64>,
    offsets: HashMap<TopicPartition, i64>,
    assigned: HashSet<TopicPartition>,
}

impl Inbox {
    fn arrived(&mut self, delivery: Delivery, tag: u64) {
        let Some(session) = &mut self.session else { return };
        let from = delivery.from.clone();
        session.tags.entry(from.clone()).or_default().insert(delivery.offset, tag);
        if self.assigned.insert(from.clone()) {
            let epoch = self.epochs.entry(from.clone()).and_modify(|epoch| *epoch += 1).or_insert(1);
            let assignment =
                Assignment { partition: from.clone(), frontier: None, metadata: String::new(), epoch: *epoch };
            self.events.push_back(Ok(Event::Assigned(vec![assignment])));
        }
        if self.paused.contains(&from) {
            self.held.entry(from).or_default().push_back(delivery);
        } else {
            self.ready.push_back(delivery);
        }
    }

    /// The connection is gone, and with it the right to settle what came over it.
    fn cut(&mut self) {
        self.session = None;
        self.ready.clear();
        self.held.clear();
        self.paused.clear();
        let lost: Vec<TopicPartition> = self.assigned.drain().collect();
        // Not even heard of by who calls: forgotten again.
        self.events.retain(|event| !matches!(event, Ok(Event::Assigned(_))));
        if !lost.is_empty() {
            self.events.push_back(Ok(Event::Lost(lost)));
        }
    }

    fn next_offset(&mut self, partition: &TopicPartition) -> i64 {
        let next = self.offsets.entry(partition.clone()).or_insert(0);
        *next += 1;
        *next - 1
    }

    fn take(&mut self) -> Option<Result<Event, EngineError>> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let count = self.ready.len().min(BATCH_MESSAGES_MAX);
        (count > 0).then(|| Ok(Event::Messages(self.ready.drain(..count).collect())))
    }
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    ready: Notify,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct RabbitConsumer {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl RabbitConsumer {
    /// The group is subscribed when this returns: its queues are there and bound.
    pub(super) async fn start(address: Address, options: ConsumerOptions) -> Result<Self, EngineError> {
        let arguments = arguments(&options.settings)?;
        let connection = address.connect(&options.group).await?;
        let mut partitions = Vec::new();
        for topic in &options.topics {
            let count = registry::partitions(&connection, topic).await?;
            partitions.extend((0..count).map(|number| TopicPartition::new(topic.clone(), number)));
        }
        let prefetch = u16::try_from(options.prefetch.max(1)).unwrap_or(u16::MAX);
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = watch::channel(false);
        let member =
            Subscription { shared: shared.clone(), address, group: options.group, partitions, arguments, prefetch };
        let channel = connection.create_channel().await.map_err(|error| link::engine_error("subscribing", &error))?;
        member.declare(&channel).await?;
        let task = tokio::spawn(member.run(connection, stopped));
        Ok(Self { shared, stop, task: Some(task) })
    }

    fn ours(&self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        let inbox = self.shared.inbox();
        partitions.iter().try_for_each(|each| if inbox.assigned.contains(each) { Ok(()) } else { Err(not_ours(each)) })
    }
}

fn not_ours(partition: &TopicPartition) -> EngineError {
    EngineError::Caller(format!(
        "partition {partition} is not ours any more; what is done of it cannot be settled here"
    ))
}

fn arguments(settings: &[(String, String)]) -> Result<FieldTable, EngineError> {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    table.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    table.insert(LIMIT_SETTING.into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    for (name, value) in settings {
        if FIXED.contains(&name.as_str()) || !name.starts_with("x-") {
            let text = "a queue's arguments can be given, under RabbitMQ's own names (x-...)";
            return Err(EngineError::Caller(format!("the setting {name} is refused: {text}, and not {FIXED:?}")));
        }
        let value = value.parse().map_or_else(|_| AMQPValue::LongString(value.as_str().into()), AMQPValue::LongLongInt);
        table.insert(link::name(name)?, value);
    }
    Ok(table)
}

impl EngineConsumer for RabbitConsumer {
    fn next(&mut self, wait: Duration) -> EngineFuture<'_, Result<Event, EngineError>> {
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + wait;
            loop {
                let mut ready = std::pin::pin!(self.shared.ready.notified());
                ready.as_mut().enable();
                if let Some(event) = self.shared.inbox().take() {
                    return event;
                }
                if tokio::time::timeout_at(deadline, ready).await.is_err() {
                    return Ok(Event::Idle);
                }
            }
        })
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.ours(partitions)?;
        let mut guard = self.shared.inbox();
        let inbox = &mut *guard;
        for partition in partitions {
            inbox.paused.insert(partition.clone());
            let held = inbox.held.entry(partition.clone()).or_default();
            let (theirs, others) =
                std::mem::take(&mut inbox.ready).into_iter().partition(|each| each.from == *partition);
            inbox.ready = others;
            let theirs: VecDeque<Delivery> = theirs;
            held.extend(theirs);
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.ours(partitions)?;
        let mut inbox = self.shared.inbox();
        for partition in partitions {
            inbox.paused.remove(partition);
            let held = inbox.held.remove(partition).unwrap_or_default();
            inbox.ready.extend(held);
        }
        drop(inbox);
        self.shared.ready.notify_waiters();
        Ok(())
    }

    fn seek(&mut self, _: &TopicPartition, _: i64) -> Result<(), EngineError> {
        Err(EngineError::Unsupported("seeking"))
    }

    fn settle<'a>(&'a mut self, settlements: &'a [Settlement]) -> EngineFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let (channel, prefetch, actions, refused) = self.actions(settlements);
            if let Some(channel) = channel
                && !actions.is_empty()
            {
                // A task of its own: a caller that waits no longer must not leave half of them unsaid, and those held for ever.
                let said = tokio::spawn(async move {
                    act(&channel, &actions).await?;
                    // An acknowledgement has no answer; this has one, and comes behind them.
                    let answered = channel.basic_qos(prefetch, BasicQosOptions::default()).await;
                    answered.map_err(|error| lost_on_the_way(&error))
                });
                said.await.map_err(|error| EngineError::Bug(format!("settling: {error}")))??;
            }
            refused.map_or(Ok(()), Err)
        })
    }

    fn release<'a>(&'a mut self, _: &'a [TopicPartition]) -> EngineFuture<'a, Result<(), EngineError>> {
        // Partitions are never asked for.
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(mut self: Box<Self>) -> EngineFuture<'static, Result<(), EngineError>> {
        Box::pin(async move {
            // A task that has ended has nothing to be told.
            let _ = self.stop.send(true);
            match self.task.take() {
                Some(task) => task.await.map_err(|error| EngineError::Bug(format!("a member's task: {error}"))),
                None => Ok(()),
            }
        })
    }
}

impl Drop for RabbitConsumer {
    /// Leaves the group as well, without waiting for it.
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

/// What is to be said of a delivery.
struct Action {
    tag: u64,
    done: bool,
}

impl RabbitConsumer {
    fn actions(&self, settlements: &[Settlement]) -> (Option<Channel>, u16, Vec<Action>, Option<EngineError>) {
        let mut inbox = self.shared.inbox();
        let (mut actions, mut refused) = (Vec::with_capacity(settlements.len()), None);
        for settlement in settlements {
            let (partition, offset, done) = match settlement {
                Settlement::Done { partition, offset } => (partition, *offset, true),
                Settlement::GiveBack { partition, offset } => (partition, *offset, false),
                Settlement::Frontier { .. } => {
                    refused = Some(EngineError::Unsupported("settling a frontier"));
                    continue;
                }
            };
            let tags = inbox.session.as_mut().and_then(|session| session.tags.get_mut(partition));
            match tags.and_then(|tags| tags.remove(&offset)) {
                Some(tag) => actions.push(Action { tag, done }),
                None => refused = Some(not_ours(partition)),
            }
        }
        let session = inbox.session.as_ref();
        (
            session.map(|session| session.channel.clone()),
            session.map_or(1, |session| session.prefetch),
            actions,
            refused,
        )
    }
}

async fn act(channel: &Channel, actions: &[Action]) -> Result<(), EngineError> {
    for Action { tag, done } in actions {
        let said = match done {
            true => channel.basic_ack(*tag, BasicAckOptions::default()).await,
            false => channel.basic_nack(*tag, BasicNackOptions { requeue: true, multiple: false }).await,
        };
        said.map_err(|error| lost_on_the_way(&error))?;
    }
    Ok(())
}

/// The connection ended under a settlement: what it said is void or not, and what is void comes again.
fn lost_on_the_way(error: &lapin::Error) -> EngineError {
    EngineError::Unavailable(format!("settling: {error}; what did not arrive is delivered again"))
}

struct Subscription {
    shared: Arc<Shared>,
    address: Address,
    group: String,
    partitions: Vec<TopicPartition>,
    arguments: FieldTable,
    prefetch: u16,
}

impl Subscription {
    async fn run(self, connection: Connection, mut stopped: watch::Receiver<bool>) {
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
                    let ended = tokio::select! {
                        ended = self.session(&connection, &mut backoff) => Some(ended),
                        _ = stopped.wait_for(|stop| *stop) => None,
                    };
                    self.shared.inbox().cut();
                    link::close(&connection).await;
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

    /// Said once until somebody has heard it.
    fn tell(&self, error: EngineError) {
        let mut inbox = self.shared.inbox();
        if !inbox.events.iter().any(Result::is_err) {
            inbox.events.push_back(Err(error));
        }
        drop(inbox);
        self.shared.ready.notify_waiters();
    }

    fn queue(&self, partition: &TopicPartition) -> Result<lapin::types::ShortString, EngineError> {
        link::name(&format!("{}.{}.{}", partition.topic, self.group, partition.partition))
    }

    /// Queues that are there already are left as they are, if they are what they have to be.
    async fn declare(&self, channel: &Channel) -> Result<(), EngineError> {
        let wrong = |error: lapin::Error| link::engine_error("subscribing", &error);
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        for partition in &self.partitions {
            let queue = self.queue(partition)?;
            channel.queue_declare(queue.clone(), durable, self.arguments.clone()).await.map_err(wrong)?;
            let (exchange, key) = (link::name(&partition.topic)?, routing_key(partition.partition));
            let bound = channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default());
            bound.await.map_err(wrong)?;
        }
        Ok(())
    }

    /// Consumes until the connection ends, and says why it did.
    async fn session(&self, connection: &Connection, backoff: &mut Backoff) -> EngineError {
        match self.consume(connection, backoff).await {
            Ok(()) => EngineError::Unavailable("RabbitMQ ended a consumer".to_owned()),
            Err(error) => error,
        }
    }

    async fn consume(&self, connection: &Connection, backoff: &mut Backoff) -> Result<(), EngineError> {
        let wrong = |error: lapin::Error| link::engine_error("consuming", &error);
        let channel = connection.create_channel().await.map_err(wrong)?;
        self.declare(&channel).await?;
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await.map_err(wrong)?;
        let session = Session { channel: channel.clone(), tags: HashMap::new(), prefetch: self.prefetch };
        self.shared.inbox().session = Some(session);
        let mut streams = SelectAll::new();
        for partition in &self.partitions {
            let consumer = channel
                .basic_consume(self.queue(partition)?, "".into(), BasicConsumeOptions::default(), FieldTable::default())
                .await
                .map_err(wrong)?;
            // The end of one is an item too: it would only go missing among the others.
            let ended = futures_util::stream::once(std::future::ready(None));
            let from = partition.clone();
            streams.push(consumer.map(Some).chain(ended).map(move |item| (from.clone(), item)).boxed());
        }
        *backoff = Backoff::default();
        while let Some((from, item)) = streams.next().await {
            let Some(delivered) = item else { return Ok(()) };
            let delivered = delivered.map_err(wrong)?;
            let mut inbox = self.shared.inbox();
            let offset = inbox.next_offset(&from);
            let (tag, data) = (delivered.delivery_tag, delivered.data);
            inbox.arrived(message::delivery(from, offset, &delivered.properties, data), tag);
            drop(inbox);
            self.shared.ready.notify_waiters();
        }
        Ok(())
    }
}

//! A member of a group on RabbitMQ: the side of who calls. The other side is its task ([`super::subscription`]).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::{Delivery, TopicPartition};
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{Notify, watch};

use super::link::{self, Address};
use super::registry;
use super::subscription::{self, Subscription, Troubles};
use crate::{
    Assignment, Backlog, ConsumerOptions, EngineConsumer, EngineError, EngineFuture, Event, Question, Settlement,
    Waiting,
};

/// Deliveries handed over at once.
const BATCH_MESSAGES_MAX: usize = 1_024;
/// Deliveries of a queue that may wait unsettled, unless the caller says how many: what RabbitMQ recommends at most.
const PREFETCH_DEFAULT: u32 = 300;
/// How often a queue delivers a message before it drops it, unless `x-delivery-limit` says otherwise: never. RabbitMQ's own default, 20
/// since 4.0, drops messages that members gave back or died with. Attempts are counted by who handles messages.
const DELIVERY_LIMIT: i64 = i32::MAX as i64;
const LIMIT_SETTING: &str = "x-delivery-limit";
/// A setting of a consumer. With `true`, only queues that are there already are consumed: who just looks subscribes no group for good.
pub const EXISTING_SETTING: &str = "queues.existing";
/// What a queue has to be, and no setting may change.
const FIXED: &[&str] = &["x-queue-type", "x-single-active-consumer"];

/// A connection's lifetime.
pub(super) struct Session {
    connection: Arc<Connection>,
    /// Partitions that are consumed over it.
    open: HashMap<TopicPartition, Open>,
}

/// A channel's lifetime, in which deliveries of its one partition can be settled. Each has its own: a queue that does not answer holds
/// up its own channel, and no other.
struct Open {
    channel: Channel,
    /// Tags by the offsets that we gave.
    tags: BTreeMap<i64, u64>,
    /// The first offset that was given for what came over it.
    first: i64,
    give_up: Arc<Notify>,
    /// Something that was said over it may not have arrived: it is about to end.
    broken: Arc<AtomicBool>,
    /// Kept until the channel is closed: the client library cancels a consumer that nobody has any more, and RabbitMQ then lets the next
    /// one begin with newer messages before what this one holds has come back. A channel that ends gives back first.
    _consumer: Consumer,
}

impl Open {
    /// Whether it was said already what is to become of this delivery. The offset that comes next is `next`.
    fn said(&self, offset: i64, next: i64) -> bool {
        (self.first..next).contains(&offset) && !self.tags.contains_key(&offset) && !self.broken.load(Ordering::Acquire)
    }
}

#[derive(Default)]
pub(super) struct Inbox {
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
    pub(super) fn connected(&mut self, connection: Arc<Connection>) {
        self.session = Some(Session { connection, open: HashMap::new() });
    }

    /// A partition is consumed; notified is who should give its channel up.
    pub(super) fn opened(&mut self, partition: &TopicPartition, channel: Channel, consumer: Consumer) -> Arc<Notify> {
        let give_up = Arc::new(Notify::new());
        let first = self.offsets.get(partition).copied().unwrap_or(0);
        if let Some(session) = &mut self.session {
            let (tags, give_up, broken) = (BTreeMap::new(), give_up.clone(), Arc::default());
            let open = Open { channel, tags, first, give_up, broken, _consumer: consumer };
            session.open.insert(partition.clone(), open);
        }
        give_up
    }

    pub(super) fn arrived(&mut self, delivery: Delivery, tag: u64) {
        let from = delivery.from.clone();
        let Some(open) = self.open(&from) else { return };
        open.tags.insert(delivery.offset, tag);
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

    fn open(&mut self, partition: &TopicPartition) -> Option<&mut Open> {
        self.session.as_mut().and_then(|session| session.open.get_mut(partition))
    }

    /// Whether deliveries of this partition wait to be settled.
    pub(super) fn owes(&mut self, partition: &TopicPartition) -> bool {
        self.open(partition).is_some_and(|open| !open.tags.is_empty())
    }

    /// A channel is gone, and with it the right to settle what came over it.
    pub(super) fn cut(&mut self, partition: &TopicPartition) {
        if let Some(session) = &mut self.session {
            session.open.remove(partition);
        }
        self.ready.retain(|delivery| delivery.from != *partition);
        self.held.remove(partition);
        self.paused.remove(partition);
        let is = |assignments: &[Assignment]| assignments.iter().any(|each| each.partition == *partition);
        // Not even heard of by who calls: forgotten again.
        self.events.retain(|event| !matches!(event, Ok(Event::Assigned(assignments)) if is(assignments)));
        if self.assigned.remove(partition) {
            self.events.push_back(Ok(Event::Lost(vec![partition.clone()])));
        }
    }

    /// The connection is gone, or about to go. What comes back is to be kept until it is closed.
    #[must_use]
    pub(super) fn cut_all(&mut self) -> Option<Session> {
        let session = self.session.take();
        let partitions: Vec<TopicPartition> = self.assigned.iter().cloned().collect();
        partitions.iter().for_each(|partition| self.cut(partition));
        session
    }

    pub(super) fn next_offset(&mut self, partition: &TopicPartition) -> i64 {
        let next = self.offsets.entry(partition.clone()).or_insert(0);
        *next += 1;
        *next - 1
    }

    /// Said once until somebody has heard it.
    pub(super) fn tell(&mut self, error: EngineError) {
        if !self.events.iter().any(Result::is_err) {
            self.events.push_back(Err(error));
        }
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
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    pub(super) ready: Notify,
}

impl Shared {
    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct RabbitConsumer {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: Option<tokio::task::JoinHandle<()>>,
    group: String,
    prefetch: u16,
}

impl RabbitConsumer {
    /// The group is subscribed when this returns: its queues are there and bound, but for those that could not be asked: see
    /// [`Subscription::declare_all`].
    pub(super) async fn start(address: Address, options: ConsumerOptions) -> Result<Self, EngineError> {
        let arguments = arguments(&options.settings)?;
        let existing = options.settings.iter().any(|(name, value)| name == EXISTING_SETTING && value == "true");
        let connection = address.connect(&options.group).await?;
        let mut partitions = Vec::new();
        for topic in &options.topics {
            let count = registry::partitions(&connection, topic).await?;
            partitions.extend((0..count).map(|number| TopicPartition::new(topic.clone(), number)));
        }
        let prefetch = options.prefetch.unwrap_or(PREFETCH_DEFAULT);
        let prefetch = u16::try_from(prefetch.max(1)).unwrap_or(u16::MAX);
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = watch::channel(false);
        let group = options.group;
        let member = Subscription {
            shared: shared.clone(),
            address,
            group: group.clone(),
            partitions,
            arguments,
            existing,
            prefetch,
            troubles: Troubles::default(),
        };
        let connection = member.declare_all(connection).await?;
        let task = tokio::spawn(member.run(connection, stopped));
        Ok(Self { shared, stop, task: Some(task), group, prefetch })
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
    for (name, value) in settings.iter().filter(|(name, _)| name != EXISTING_SETTING) {
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
            let (said, refused) = self.actions(settlements);
            // Tasks of their own: a caller that waits no longer must not leave half of them unsaid, and those held for ever.
            let saying: Vec<_> = said.into_iter().map(|each| tokio::spawn(each.say(self.prefetch))).collect();
            let mut failed = None;
            for said in saying {
                let said = said.await.map_err(|error| EngineError::Bug(format!("settling: {error}"))).flatten();
                failed = said.err().or(failed);
            }
            refused.or(failed).map_or(Ok(()), Err)
        })
    }

    fn backlog(&mut self, questions: Vec<Question>) -> EngineFuture<'static, Result<Vec<Backlog>, EngineError>> {
        let connection = self.shared.inbox().session.as_ref().map(|session| session.connection.clone());
        let (shared, group) = (self.shared.clone(), self.group.clone());
        Box::pin(async move {
            let Some(connection) = connection else {
                return Err(EngineError::Unavailable("asking for a backlog: there is no connection".to_owned()));
            };
            let mut answers = Vec::with_capacity(questions.len());
            for Question { partition, .. } in questions {
                if shared.inbox().assigned.contains(&partition) {
                    let depth = subscription::depth(&connection, &group, &partition).await?;
                    let waiting = Waiting::Undelivered(depth.messages);
                    answers.push(Backlog { partition, waiting, exact: true });
                }
            }
            Ok(answers)
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

/// What is to be said of a partition's deliveries.
struct Said {
    partition: TopicPartition,
    channel: Channel,
    give_up: Arc<Notify>,
    broken: Arc<AtomicBool>,
    actions: Vec<Action>,
}

impl RabbitConsumer {
    fn actions(&self, settlements: &[Settlement]) -> (Vec<Said>, Option<EngineError>) {
        let mut inbox = self.shared.inbox();
        let (mut said, mut refused) = (HashMap::<&TopicPartition, Said>::new(), None);
        for settlement in settlements {
            let (partition, offset, done) = match settlement {
                Settlement::Done { partition, offset } => (partition, *offset, true),
                Settlement::GiveBack { partition, offset } => (partition, *offset, false),
                Settlement::Frontier { .. } => {
                    refused = Some(EngineError::Unsupported("settling a frontier"));
                    continue;
                }
            };
            let next = inbox.offsets.get(partition).copied().unwrap_or(0);
            let open = inbox.open(partition);
            // Of a call that failed for another partition's sake, all is settled once more.
            if open.as_ref().is_some_and(|open| open.said(offset, next)) {
                continue;
            }
            let Some((open, tag)) = open.and_then(|open| open.tags.remove(&offset).map(|tag| (open, tag))) else {
                refused = Some(not_ours(partition));
                continue;
            };
            let of_partition = said.entry(partition).or_insert_with(|| Said {
                partition: partition.clone(),
                channel: open.channel.clone(),
                give_up: open.give_up.clone(),
                broken: open.broken.clone(),
                actions: Vec::new(),
            });
            of_partition.actions.push(Action { tag, done });
        }
        (said.into_values().collect(), refused)
    }
}

impl Said {
    async fn say(self, prefetch: u16) -> Result<(), EngineError> {
        let saying = async {
            for Action { tag, done } in &self.actions {
                match done {
                    true => self.channel.basic_ack(*tag, BasicAckOptions::default()).await?,
                    false => {
                        let options = BasicNackOptions { requeue: true, multiple: false };
                        self.channel.basic_nack(*tag, options).await?;
                    }
                }
            }
            // An acknowledgement has no answer; this has one, and comes behind them.
            self.channel.basic_qos(prefetch, BasicQosOptions::default()).await
        };
        let doing = format!("settling messages of {}", self.partition);
        link::answered(&doing, saying).await.map_err(|error| {
            // What was said is void or not, and nobody can tell: the channel ends, and what is void comes again.
            self.broken.store(true, Ordering::Release);
            self.give_up.notify_one();
            EngineError::Unavailable(format!("{error}; what did not arrive is delivered again"))
        })
    }
}

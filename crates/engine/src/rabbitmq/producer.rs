//! Sending to RabbitMQ: a task that publishes in order, connects again, and publishes again what was not confirmed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_core::TopicPartition;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection, ExchangeKind};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::link::{self, Address, Backoff};
use super::{DURABILITY, message};
use crate::{
    Answer, EngineError, EngineFuture, EngineProducer, Fate, NoRoom, ProducerOptions, Record, Retry, SendError,
    SendOutcome, Stored,
};

/// Messages and bytes that wait for their confirm, unless the settings say otherwise.
const BUFFER_MESSAGES_MAX: usize = 100_000;
const BUFFER_BYTES_MAX: usize = 64 << 20;
/// Names of those settings.
const BUFFER_MESSAGES: &str = "buffer.messages.max";
const BUFFER_BYTES: &str = "buffer.bytes.max";
/// Messages published and not confirmed at once: more is only more to publish again after a cut.
const UNCONFIRMED_MAX: usize = 10_000;
/// How long a confirm may take before the connection is given up and all that is not confirmed is published again under its id: a
/// queue that lost its leader, or a server that went without a word, may never confirm. An election takes less.
const CONFIRM_WAIT: Duration = Duration::from_secs(30);
/// Bytes that a record takes up beside its key, content and headers.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// A confirm that is waited for, of the record of this number.
type Confirm = Pin<Box<dyn Future<Output = Confirmed> + Send>>;
type Confirmed = (u64, lapin::Result<Confirmation>);

/// A record that is not confirmed yet.
struct Item {
    record: Record,
    bytes: usize,
    deadline: Instant,
    /// Whether it was ever on its way.
    published: bool,
    answer: Answer,
}

#[derive(Default)]
struct Queue {
    /// By number, in the order of the sends. Those below `next` are published on the present connection.
    items: BTreeMap<u64, Item>,
    waiting: VecDeque<u64>,
    number: u64,
    bytes: usize,
    ended: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to publish, or the end.
    work: Notify,
    /// Something was resolved.
    changed: Notify,
    messages_max: usize,
    bytes_max: usize,
    unresolved: AtomicUsize,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolve(&self, number: u64, outcome: SendOutcome) {
        let mut queue = self.queue();
        // One whose time was over may be confirmed later.
        let Some(item) = queue.items.remove(&number) else { return };
        queue.bytes -= item.bytes;
        drop(queue);
        self.unresolved.fetch_sub(1, Ordering::AcqRel);
        self.changed.notify_waiters();
        item.answer.give(outcome);
    }

    /// Everything that is not confirmed is to be published again, before what is new.
    fn start_over(&self) {
        let mut queue = self.queue();
        let all = queue.items.keys().copied().collect();
        queue.waiting = all;
    }

    /// Gives up what has waited too long; says when to look again.
    fn expire(&self, now: Instant) -> Option<Instant> {
        loop {
            let queue = self.queue();
            let (number, item) = queue.items.iter().next()?;
            if item.deadline > now {
                return Some(item.deadline);
            }
            let (number, published) = (*number, item.published);
            drop(queue);
            self.resolve(number, Err(given_up(published)));
        }
    }

    fn has_room(&self) -> bool {
        let queue = self.queue();
        queue.items.len() < self.messages_max && queue.bytes < self.bytes_max
    }
}

fn given_up(published: bool) -> SendError {
    let (fate, cause) = match published {
        true => {
            (Fate::Unknown, "RabbitMQ did not confirm in time; it may be stored, send it again under the same stamp")
        }
        false => (Fate::NotStored, "RabbitMQ could not be reached in time"),
    };
    SendError { fate, retry: Retry::Later, cause: cause.to_owned() }
}

fn never(cause: String) -> SendError {
    SendError { fate: Fate::NotStored, retry: Retry::Never, cause }
}

/// What a confirm means for a record that did not come back.
fn outcome(confirmation: &Confirmation) -> SendOutcome {
    let cause = match confirmation {
        Confirmation::Ack(_) => return Ok(Stored { offset: None, durability: DURABILITY }),
        // One of several queues may have it.
        Confirmation::Nack(_) => {
            "RabbitMQ refused to vouch for it; it may be stored, send it again under the same stamp"
        }
        Confirmation::NotRequested => "this is a bug in Baton: a channel without confirms",
    };
    Err(SendError { fate: Fate::Unknown, retry: Retry::Later, cause: cause.to_owned() })
}

fn came_back(returned: &BasicReturnMessage) -> SendError {
    SendError {
        fate: Fate::NotStored,
        retry: Retry::Subscribed,
        cause: format!(
            "RabbitMQ: {} {}; no group has subscribed to this partition: start its consumer once before sending",
            returned.reply_code, returned.reply_text
        ),
    }
}

/// What was published over a channel.
#[derive(Default)]
struct UnderWay {
    confirms: FuturesUnordered<Confirm>,
    /// When each that is not confirmed yet was published.
    published: BTreeMap<u64, Instant>,
    last_confirmed: HashMap<TopicPartition, u64>,
    /// What came back and is not confirmed yet.
    returned: HashMap<u64, SendError>,
}

impl UnderWay {
    /// All confirms that are there, behind this first one.
    ///
    /// RabbitMQ gives a message back before it confirms it, but the client library hangs what came back to whichever confirm ends next, which
    /// may be another message's. One acknowledgement for several messages ends them in no order: a message may have ended while the confirm
    /// that carries it has not. So if anything came back, `behind` is waited for, a request that is answered behind all that had come by now,
    /// and the confirms that ended meanwhile are taken along before any of them counts. Messages are told apart by the number that they carry.
    async fn all_with(
        &mut self,
        first: Confirmed,
        behind: impl Future<Output = Result<(), EngineError>>,
    ) -> Result<Vec<Confirmed>, EngineError> {
        let mut all = vec![first];
        self.take_ready(&mut all);
        if all.iter().any(|(_, confirmed)| carried(confirmed).is_some()) {
            behind.await?;
            self.take_ready(&mut all);
        }
        for (number, confirmed) in &all {
            let Some(returned) = carried(confirmed) else { continue };
            let whose = returned.delivery.properties.correlation_id().as_ref();
            let whose = whose.and_then(|whose| whose.as_str().parse().ok()).unwrap_or(*number);
            match self.published.contains_key(&whose) {
                true => _ = self.returned.insert(whose, came_back(returned)),
                false => tracing::error!(number = whose, "RabbitMQ gave a message back behind its confirm"),
            }
        }
        for (number, _) in &all {
            self.published.remove(number);
        }
        // Who is refused has to know what of its partition is stored already.
        all.sort_by_key(|(number, confirmed)| (!matches!(confirmed, Ok(Confirmation::Ack(_))), *number));
        Ok(all)
    }

    fn take_ready(&mut self, all: &mut Vec<Confirmed>) {
        while let Some(Some(next)) = self.confirms.next().now_or_never() {
            all.push(next);
        }
    }
}

/// The message that came back with a confirm: its own, or another one.
fn carried(confirmed: &lapin::Result<Confirmation>) -> Option<&BasicReturnMessage> {
    match confirmed {
        Ok(Confirmation::Ack(returned) | Confirmation::Nack(returned)) => returned.as_ref(),
        _ => None,
    }
}

pub(super) struct RabbitProducer {
    shared: Arc<Shared>,
    delivery_timeout: Duration,
}

impl RabbitProducer {
    pub(super) fn start(address: Address, options: &ProducerOptions) -> Result<Self, EngineError> {
        let (mut messages_max, mut bytes_max) = (BUFFER_MESSAGES_MAX, BUFFER_BYTES_MAX);
        for (name, value) in &options.settings {
            let limit = match name.as_str() {
                BUFFER_MESSAGES => &mut messages_max,
                BUFFER_BYTES => &mut bytes_max,
                _ => {
                    let known =
                        format!("{BUFFER_MESSAGES}, {BUFFER_BYTES}; what concerns the connection is in its URI");
                    return Err(EngineError::Caller(format!(
                        "RabbitMQ producers have no setting {name}; there are {known}"
                    )));
                }
            };
            *limit = value.parse().map_err(|_| EngineError::Caller(format!("{name}={value} is not a whole number")))?;
        }
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Notify::new(),
            changed: Notify::new(),
            messages_max: messages_max.max(1),
            bytes_max: bytes_max.max(1),
            unresolved: AtomicUsize::new(0),
        });
        let publisher = Publisher { shared: shared.clone(), address, name: options.client_id.clone() };
        tokio::spawn(publisher.run());
        Ok(Self { shared, delivery_timeout: options.delivery_timeout })
    }
}

impl EngineProducer for RabbitProducer {
    fn hand_over(&self, record: &Record, answer: Answer) -> Result<(), NoRoom> {
        let bytes = RECORD_OVERHEAD_BYTES + record_bytes(record);
        let deadline = Instant::now() + self.delivery_timeout;
        let mut queue = self.shared.queue();
        if queue.items.len() >= self.shared.messages_max || queue.bytes >= self.shared.bytes_max {
            drop(queue);
            answer.withdraw();
            return Err(NoRoom);
        }
        let number = queue.number;
        queue.number += 1;
        queue.bytes += bytes;
        queue.waiting.push_back(number);
        queue.items.insert(number, Item { record: record.clone(), bytes, deadline, published: false, answer });
        self.shared.unresolved.fetch_add(1, Ordering::AcqRel);
        drop(queue);
        self.shared.work.notify_one();
        Ok(())
    }

    fn room(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if self.shared.has_room() {
                    return;
                }
                changed.await;
            }
        })
    }

    fn flush(&self, wait: Duration) -> EngineFuture<'_, usize> {
        Box::pin(async move {
            let emptied = async {
                loop {
                    let mut changed = std::pin::pin!(self.shared.changed.notified());
                    changed.as_mut().enable();
                    if self.shared.unresolved.load(Ordering::Acquire) == 0 {
                        return;
                    }
                    changed.await;
                }
            };
            // Over or not, the count says it.
            let _ = tokio::time::timeout(wait, emptied).await;
            self.shared.unresolved.load(Ordering::Acquire)
        })
    }
}

impl Drop for RabbitProducer {
    fn drop(&mut self) {
        self.shared.queue().ended = true;
        self.shared.work.notify_one();
    }
}

fn record_bytes(record: &Record) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    length(&record.key) + length(&record.payload) + record.headers.bytes()
}

struct Publisher {
    shared: Arc<Shared>,
    address: Address,
    name: String,
}

/// Why a session ended.
enum End {
    Cut(EngineError),
    Over,
}

impl Publisher {
    async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            // Connected only when there is something to send.
            if !self.wait_for_work().await {
                return;
            }
            let connecting = self.address.connect(&self.name);
            let error = match self.expiring(connecting).await {
                Ok(connection) => {
                    let began = Instant::now();
                    let end = self.session(&connection).await;
                    // One that connects and refuses, as after a restart, would else be sent all that is not confirmed many times a second.
                    backoff.lasted(began.elapsed());
                    link::close(&connection).await;
                    match end {
                        End::Over => return,
                        End::Cut(error) => error,
                    }
                }
                Err(error) => error,
            };
            tracing::debug!(%error, "RabbitMQ producer: connecting again");
            self.expiring(tokio::time::sleep(backoff.next())).await;
        }
    }

    async fn wait_for_work(&self) -> bool {
        loop {
            {
                let queue = self.shared.queue();
                if !queue.items.is_empty() {
                    return !queue.ended;
                }
                if queue.ended {
                    return false;
                }
            }
            self.shared.work.notified().await;
        }
    }

    /// Waits for something while deadlines pass.
    async fn expiring<T>(&self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = std::pin::pin!(waiting);
        loop {
            let next = self.shared.expire(Instant::now());
            tokio::select! {
                done = &mut waiting => return done,
                () = sleep_until(next) => {}
                // What comes now has a deadline, too. Who waits for work looks at the queue first.
                () = self.shared.work.notified() => {}
            }
        }
    }

    async fn session(&self, connection: &Connection) -> End {
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        let channel = match self.expiring(link::answered("publishing: opening a channel", opening)).await {
            Ok(channel) => channel,
            Err(error) => return End::Cut(error),
        };
        self.shared.start_over();
        let (mut known, mut under_way) = (HashSet::new(), UnderWay::default());
        loop {
            let next_deadline = self.shared.expire(Instant::now());
            while under_way.confirms.len() < UNCONFIRMED_MAX {
                match self.publish_next(connection, &channel, &mut known).await {
                    Ok(Some((number, confirm))) => {
                        under_way.published.insert(number, Instant::now());
                        under_way.confirms.push(confirm);
                    }
                    Ok(None) => break,
                    Err(error) => return End::Cut(error),
                }
            }
            if self.shared.queue().ended {
                return End::Over;
            }
            let overdue = under_way.published.values().next().map(|at| *at + CONFIRM_WAIT);
            tokio::select! {
                Some(confirmed) = under_way.confirms.next(), if !under_way.confirms.is_empty() => {
                    if let Err(error) = self.confirmed(&channel, &mut under_way, confirmed).await {
                        return End::Cut(error);
                    }
                }
                () = self.shared.work.notified() => {}
                () = sleep_until(next_deadline) => {}
                () = sleep_until(overdue) => {
                    // A server that is short of memory or disk says so, and reads on when it is not any more.
                    if connection.status().blocked() {
                        under_way.published.values_mut().for_each(|at| *at = Instant::now());
                        continue;
                    }
                    let text = format!("RabbitMQ did not confirm a message in {} s", CONFIRM_WAIT.as_secs());
                    return End::Cut(EngineError::Unavailable(text));
                }
            }
        }
    }

    /// Takes in how records ended: this one, and all others of which it is known.
    async fn confirmed(
        &self,
        channel: &Channel,
        under_way: &mut UnderWay,
        first: Confirmed,
    ) -> Result<(), EngineError> {
        // It changes nothing: confirms are on.
        let asking = async { channel.confirm_select(ConfirmSelectOptions::default()).await };
        let behind = self.expiring(link::answered("publishing: waiting for what came back", asking));
        for (number, confirmed) in under_way.all_with(first, behind).await? {
            let confirmation = confirmed.map_err(|error| link::engine_error("publishing", &error))?;
            let returned = under_way.returned.remove(&number);
            let refused = returned.is_none() && matches!(confirmation, Confirmation::Nack(_));
            // A queue that has no leader yet, as after a restart. All that is not confirmed is published again in order.
            if refused && !overtaken(&self.shared, &under_way.last_confirmed, number) {
                return Err(EngineError::Unavailable("RabbitMQ refused to vouch for a message".to_owned()));
            }
            if let Some(item) = self.shared.queue().items.get(&number) {
                let last = under_way.last_confirmed.entry(item.record.to.clone()).or_insert(number);
                *last = number.max(*last);
            }
            self.shared.resolve(number, returned.map_or_else(|| outcome(&confirmation), Err));
        }
        Ok(())
    }

    /// Publishes the next record, if there is one. One that AMQP cannot carry, or whose topic is not there, is refused.
    async fn publish_next(
        &self,
        connection: &Connection,
        channel: &Channel,
        known: &mut HashSet<Arc<str>>,
    ) -> Result<Option<(u64, Confirm)>, EngineError> {
        loop {
            let (number, record) = {
                let mut queue = self.shared.queue();
                let Some(number) = queue.waiting.pop_front() else { return Ok(None) };
                match queue.items.get(&number) {
                    Some(item) => (number, item.record.clone()),
                    None => continue,
                }
            };
            let topic = &record.to.topic;
            // A message for an exchange that is not there would end the channel, and all that are under way on it.
            if !known.contains(topic) {
                match self.expiring(exchange_is_there(connection, topic)).await {
                    Ok(()) => _ = known.insert(topic.clone()),
                    Err(EngineError::Caller(text)) => {
                        self.shared.resolve(number, Err(never(text)));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            let prepared = message::properties(&record, now_ms())
                .and_then(|properties| Ok((properties, link::name(topic).map_err(|error| error.to_string())?)));
            let (properties, exchange) = match prepared {
                Ok(prepared) => prepared,
                Err(text) => {
                    self.shared.resolve(number, Err(never(text)));
                    continue;
                }
            };
            if let Some(item) = self.shared.queue().items.get_mut(&number) {
                item.published = true;
            }
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let (key, payload) = (routing_key(record.to.partition), record.payload.clone().unwrap_or_default());
            // What it is told apart by, should it come back.
            let properties = properties.with_correlation_id(ShortString::from(number.to_string()));
            // It waits while the server does not read.
            let publishing = channel.basic_publish(exchange, key, options, &payload, properties);
            let confirm = self.expiring(publishing).await.map_err(|error| link::engine_error("publishing", &error))?;
            return Ok(Some((number, Box::pin(async move { (number, confirm.await) }))));
        }
    }
}

/// Whether a later record of its partition is stored already: published again it would come behind that one.
fn overtaken(shared: &Shared, last_confirmed: &HashMap<TopicPartition, u64>, number: u64) -> bool {
    let queue = shared.queue();
    let partition = queue.items.get(&number).map(|item| &item.record.to);
    partition.and_then(|partition| last_confirmed.get(partition)).is_some_and(|last| *last > number)
}

pub(super) fn routing_key(partition: u32) -> ShortString {
    // Ten digits at most.
    ShortString::from(partition.to_string())
}

async fn exchange_is_there(connection: &Connection, topic: &str) -> Result<(), EngineError> {
    let name = link::name(topic)?;
    let asking = async {
        // Its own channel: one that asks for what is not there is closed.
        let channel = connection.create_channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(name, ExchangeKind::Direct, passive, FieldTable::default()).await?;
        // It is not needed any more, however its goodbye goes.
        let _ = channel.close(link::GOODBYE, "done".into()).await;
        Ok(())
    };
    link::answered("looking for the topic", asking).await.map_err(|error| match error {
        EngineError::Caller(text) => EngineError::Caller(format!("there is no topic {topic}; create it ({text})")),
        other => other,
    })
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use lapin::message::Delivery;
    use tokio::sync::oneshot;

    use super::*;

    /// What comes back with a confirm: the message of this number.
    fn returned(number: u64) -> BasicReturnMessage {
        let mut delivery = Delivery::mock(0, "orders".into(), "0".into(), false, Vec::new());
        delivery.properties = delivery.properties.with_correlation_id(number.to_string().into());
        BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() }
    }

    fn publish(under_way: &mut UnderWay, number: u64) -> oneshot::Sender<Confirmation> {
        let (confirm, confirmed) = oneshot::channel();
        under_way.published.insert(number, Instant::now());
        under_way.confirms.push(Box::pin(async move { (number, Ok(confirmed.await.unwrap())) }));
        confirm
    }

    fn numbers(all: &[Confirmed]) -> Vec<u64> {
        all.iter().map(|(number, _)| *number).collect()
    }

    #[tokio::test]
    async fn a_message_that_came_back_is_not_stored_whichever_confirm_carries_it() {
        let mut under_way = UnderWay::default();
        let mut confirms: Vec<_> = (0..4).map(|number| publish(&mut under_way, number)).collect();
        let late = confirms.remove(3);
        // One acknowledgement for 0, 1 and 2, of which 0 and 2 came back. The library ends 2 first, and has ended nothing else when we look.
        confirms.remove(2).send(Confirmation::Ack(Some(returned(0)))).unwrap();
        let first = under_way.confirms.next().await.unwrap();
        let behind = async {
            confirms.remove(1).send(Confirmation::Ack(Some(returned(2)))).unwrap();
            confirms.remove(0).send(Confirmation::Ack(None)).unwrap();
            Ok(())
        };
        let all = under_way.all_with(first, behind).await.unwrap();
        assert_eq!(numbers(&all), [0, 1, 2]);
        let mut refused: Vec<_> = under_way.returned.keys().copied().collect();
        refused.sort_unstable();
        assert_eq!(refused, [0, 2]);
        assert!(under_way.published.contains_key(&3) && !late.is_closed());
    }

    #[tokio::test]
    async fn nothing_is_waited_for_where_nothing_came_back() {
        let mut under_way = UnderWay::default();
        let confirms: Vec<_> = (0..2).map(|number| publish(&mut under_way, number)).collect();
        confirms.into_iter().for_each(|confirm| confirm.send(Confirmation::Ack(None)).unwrap());
        let first = under_way.confirms.next().await.unwrap();
        let all = under_way.all_with(first, std::future::pending()).await.unwrap();
        assert_eq!(numbers(&all), [0, 1]);
    }

    #[tokio::test]
    async fn a_connection_that_ends_meanwhile_leaves_all_of_them_to_the_next_one() {
        let mut under_way = UnderWay::default();
        publish(&mut under_way, 0).send(Confirmation::Ack(Some(returned(0)))).unwrap();
        let first = under_way.confirms.next().await.unwrap();
        let behind = async { Err(EngineError::Unavailable("cut".to_owned())) };
        assert!(under_way.all_with(first, behind).await.is_err());
    }
}

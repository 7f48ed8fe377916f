//! Building a consumer.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use baton_core::consumer::{
    Batches, Concurrency, DependencySettings, Failure, Filter, Limits, Order, ParkingSettings, Remedy, Settings,
    Settling,
};
use baton_core::identity::Named;
use baton_core::{Delivery, MessageId, Retry};
use baton_engine::{Capabilities, ConsumerOptions, Engine, EngineError, Start};
use baton_guard::{EffectOf, Group, Guard, Identity, Strength};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::Baton;

use super::driver::{Driver, Parts};
use super::error::{ConsumerError, HandlerError};
use super::evidence;
use super::first::StoreFirst;
use super::handle::{Board, Consumer, ConsumerMetrics, Notice};
use super::handler::{BatchHandler, ConsumerInterceptor, Handler, Handling, OneByOne, Received, Together};
use super::letters::{DeadLetter, Letters};
use super::link::Link;
use super::store::{Offsets, SideStore, TopicStore};
use super::work::{Decode, Unguarded, Work, Worker};

/// What the engine waits beyond the bounds of draining, before it takes partitions away: the way there and back.
const RELEASE_MARGIN: Duration = Duration::from_secs(2);
/// How long handlers may go on when the handle is dropped, unless told otherwise: below what supervisors wait before they kill.
const SHUTDOWN_WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// Nobody has said yet how often an effect may happen. Call `guard`, `at_least_once` or `at_most_once`.
#[derive(Debug, Clone, Copy)]
pub struct Undecided;

/// A delivery level: how often the effect of a message can happen, and what handlers are given along.
pub trait Level: Send + Sync + 'static {
    /// What admits messages.
    type Guard: Guard;
    /// Whether messages are settled before they are handled.
    const SETTLES_FIRST: bool;
    /// Whether the guard tells messages apart.
    const IDENTIFIES: bool;
    /// What the guard must promise.
    const STRENGTH_MIN: Strength;

    /// The guard.
    fn into_guard(self) -> Self::Guard;
}

/// A guard lets each message through once.
#[derive(Debug, Clone, Copy)]
pub struct Guarded<G>(G);

/// The guard commits mark and effect together.
#[derive(Debug, Clone, Copy)]
pub struct EffectivelyOnce<G>(G);

/// The effect of a message happens once or more.
#[derive(Debug, Clone, Copy)]
pub struct AtLeastOnce;

/// The effect of a message happens once or not at all.
#[derive(Debug, Clone, Copy)]
pub struct AtMostOnce;

impl<G: Guard> Level for Guarded<G> {
    type Guard = G;
    const SETTLES_FIRST: bool = false;
    const IDENTIFIES: bool = true;
    const STRENGTH_MIN: Strength = Strength::Conditional;

    fn into_guard(self) -> G {
        self.0
    }
}

impl<G: Guard> Level for EffectivelyOnce<G> {
    type Guard = G;
    const SETTLES_FIRST: bool = false;
    const IDENTIFIES: bool = true;
    const STRENGTH_MIN: Strength = Strength::Atomic;

    fn into_guard(self) -> G {
        self.0
    }
}

impl Level for AtLeastOnce {
    type Guard = Unguarded;
    const SETTLES_FIRST: bool = false;
    const IDENTIFIES: bool = false;
    const STRENGTH_MIN: Strength = Strength::Conditional;

    fn into_guard(self) -> Unguarded {
        Unguarded
    }
}

impl Level for AtMostOnce {
    type Guard = Unguarded;
    const SETTLES_FIRST: bool = true;
    const IDENTIFIES: bool = false;
    const STRENGTH_MIN: Strength = Strength::Conditional;

    fn into_guard(self) -> Unguarded {
        Unguarded
    }
}

/// What a handler of this level is given along with a message.
pub type LevelEffect<L> = EffectOf<<L as Level>::Guard>;

/// A consumer that is being set up. Every setting has a default that keeps what is promised; `docs/CONSUMER.md` lists them all
/// with their reasons.
#[must_use = "a consumer does nothing until it runs"]
pub struct ConsumerBuilder<L = Undecided, T = Bytes> {
    engine: Arc<dyn Engine>,
    group: Arc<str>,
    topics: Vec<Arc<str>>,
    level: L,
    decode: Decode<T>,
    settings: Settings,
    named: Option<Named>,
    start: Start,
    prefetch: Option<u32>,
    engine_settings: Vec<(String, String)>,
    dead_letter: Option<DeadLetter>,
    store: Option<Arc<dyn SideStore>>,
    first: Option<StoreFirst>,
    interceptors: Vec<Arc<dyn ConsumerInterceptor>>,
    shutdown_wait: Duration,
    evidence: bool,
    body: PhantomData<fn() -> T>,
}

impl Baton {
    /// A consumer of this group; see [`crate::consumer`].
    pub fn consumer(&self, group: impl Into<Arc<str>>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.engine().clone(), group)
    }
}

impl ConsumerBuilder {
    /// A consumer of this group.
    pub fn new(engine: Arc<dyn Engine>, group: impl Into<Arc<str>>) -> Self {
        Self {
            engine,
            group: group.into(),
            topics: Vec::new(),
            level: Undecided,
            decode: Arc::new(|delivery| Ok(delivery.payload.clone().unwrap_or_default())),
            settings: Settings::default(),
            named: None,
            start: Start::Earliest,
            prefetch: None,
            engine_settings: Vec::new(),
            dead_letter: None,
            store: None,
            first: None,
            interceptors: Vec::new(),
            shutdown_wait: SHUTDOWN_WAIT_DEFAULT,
            evidence: true,
            body: PhantomData,
        }
    }
}

impl<T> ConsumerBuilder<Undecided, T> {
    /// A guard lets each message through once; handlers get its open transaction. How strong that is depends on the guard: its
    /// documentation names its failure window.
    pub fn guard<G: Guard>(self, guard: G) -> ConsumerBuilder<Guarded<G>, T> {
        self.with_level(Guarded(guard))
    }

    /// The same, with a guard that has no failure window: mark and effect are one transaction. Any other one is refused at the start.
    pub fn effectively_once<G: Guard>(self, guard: G) -> ConsumerBuilder<EffectivelyOnce<G>, T> {
        self.with_level(EffectivelyOnce(guard))
    }

    /// No guard: after a crash, a rebalance or a lost acknowledgement, effects happen again. For handlers that are idempotent by
    /// themselves.
    pub fn at_least_once(self) -> ConsumerBuilder<AtLeastOnce, T> {
        self.with_level(AtLeastOnce)
    }

    /// No guard, and each message (or batch) is settled before it is handled, one after the other in a partition: a crash loses
    /// those that are being handled, and a failure is never tried again but becomes a dead letter. For what may be lost and must
    /// not happen twice.
    pub fn at_most_once(self) -> ConsumerBuilder<AtMostOnce, T> {
        let mut next = self.with_level(AtMostOnce);
        next.settings.order = Order::PerPartition;
        next
    }

    fn with_level<L>(self, level: L) -> ConsumerBuilder<L, T> {
        ConsumerBuilder {
            engine: self.engine,
            group: self.group,
            topics: self.topics,
            level,
            decode: self.decode,
            settings: self.settings,
            named: self.named,
            start: self.start,
            prefetch: self.prefetch,
            engine_settings: self.engine_settings,
            dead_letter: self.dead_letter,
            store: self.store,
            first: self.first,
            interceptors: self.interceptors,
            shutdown_wait: self.shutdown_wait,
            evidence: self.evidence,
            body: PhantomData,
        }
    }
}

impl<L, T> ConsumerBuilder<L, T> {
    /// The topics to consume.
    pub fn topics<S: Into<Arc<str>>>(mut self, topics: impl IntoIterator<Item = S>) -> Self {
        self.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// Decodes content before handlers see it. What cannot be decoded goes to the dead letters at once, as it came.
    pub fn decode<U, E>(
        self,
        decode: impl Fn(&Delivery) -> Result<U, E> + Send + Sync + 'static,
    ) -> ConsumerBuilder<L, U>
    where
        E: std::fmt::Display,
    {
        let decode = move |delivery: &Delivery| {
            decode(delivery).map_err(|error| Failure::new(std::any::type_name::<E>(), error.to_string()))
        };
        ConsumerBuilder {
            engine: self.engine,
            group: self.group,
            topics: self.topics,
            level: self.level,
            decode: Arc::new(decode),
            settings: self.settings,
            named: self.named,
            start: self.start,
            prefetch: self.prefetch,
            engine_settings: self.engine_settings,
            dead_letter: self.dead_letter,
            store: self.store,
            first: self.first,
            interceptors: self.interceptors,
            shutdown_wait: self.shutdown_wait,
            evidence: self.evidence,
            body: PhantomData,
        }
    }

    /// What messages are known by, before their stamp, `ce_id` and position are looked at.
    pub fn identified_by(mut self, named: Named) -> Self {
        self.named = Some(named);
        self
    }

    /// Which messages wait for which. Default [`Order::PerKey`].
    pub fn order(mut self, order: Order) -> Self {
        self.settings.order = order;
        self
    }

    /// Many messages in one transaction, in the order of their partition.
    pub fn batches(self, batches: Batches) -> Self {
        self.order(Order::Batches(batches))
    }

    /// So many handlers at once. Default 64.
    pub fn concurrency(mut self, handlers: u32) -> Self {
        self.settings.concurrency = Concurrency::Fixed(handlers);
        self
    }

    /// As many handlers at once as what they call carries: grows while latency is good, shrinks when it is not.
    pub fn adaptive(mut self, adaptive: baton_core::consumer::AdaptiveSettings) -> Self {
        self.settings.concurrency = Concurrency::Adaptive(adaptive);
        self
    }

    /// How often a message is tried, and how long it waits in between; only its key waits with it. Default 8 attempts, 100 ms
    /// doubling up to 30 s.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// What happens to a message that was tried often enough. Default: dead letter.
    pub fn exhausted(mut self, remedy: Remedy) -> Self {
        self.settings.exhausted = remedy;
        self
    }

    /// What happens to a message whose handler calls it hopeless. Default: dead letter.
    pub fn permanent(mut self, remedy: Remedy) -> Self {
        self.settings.permanent = remedy;
        self
    }

    /// Where dead letters go. Default: a topic `<group>.dead`.
    pub fn dead_letter(mut self, dead_letter: DeadLetter) -> Self {
        self.dead_letter = Some(dead_letter);
        self
    }

    /// When failures are a dependency's, and how it is probed.
    pub fn dependency(mut self, dependency: DependencySettings) -> Self {
        self.settings.dependency = dependency;
        self
    }

    /// Bounds of parking.
    pub fn parking(mut self, parking: ParkingSettings) -> Self {
        self.settings.parking = parking;
        self
    }

    /// Where parked messages lie, and what is done when it does not fit in a commit. Default: a topic `<group>.parked`, on engines
    /// that can be read without a group.
    pub fn side_store(mut self, store: Arc<dyn SideStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Takes messages into a table first, acknowledges them at the engine as soon as they are durable there, and handles them from there.
    /// For engines that must not keep what waits. Needs an engine whose offsets last.
    pub fn store_first(mut self, first: StoreFirst) -> Self {
        self.first = Some(first);
        self
    }

    /// Adds a filter: what does not pass all of them is skipped, before anything is decoded, and counted.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.settings.filters.push(filter);
        self
    }

    /// Adds an interceptor; they are called in this order.
    pub fn interceptor(mut self, interceptor: impl ConsumerInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// What may be held in memory.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// After how long a handler is cancelled, which is a transient failure. Default 60 s.
    pub fn handler_deadline(mut self, deadline: Duration) -> Self {
        self.settings.handler_deadline_ms = milliseconds(deadline);
        self
    }

    /// How often positions are settled. Default 200 ms.
    pub fn settle_interval(mut self, interval: Duration) -> Self {
        self.settings.settle_interval_ms = milliseconds(interval);
        self
    }

    /// How long handlers may go on when the group wants their partition elsewhere. Default 10 s.
    pub fn revoke_drain(mut self, wait: Duration) -> Self {
        self.settings.revoke_drain_ms = milliseconds(wait);
        self
    }

    /// After how long without progress a partition is reported. Default 30 s.
    pub fn stuck_after(mut self, bound: Duration) -> Self {
        self.settings.stuck_after_ms = milliseconds(bound);
        self
    }

    /// Where a group begins that has no position yet. Default [`Start::Earliest`]: nothing is ever skipped silently.
    pub fn start_at(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How many messages are fetched ahead. By default what suits the engine: 300 for each queue of RabbitMQ, 8 MiB on Kafka.
    pub fn prefetch(mut self, messages: u32) -> Self {
        self.prefetch = Some(messages);
        self
    }

    /// A setting under the name of the engine's own client.
    pub fn engine_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.engine_settings.push((name.into(), value.into()));
        self
    }

    /// Whether it is reported to the topic `baton.evidence` what was delivered and what came of it, so that an auditor finds losses; yes. It
    /// costs nothing if not.
    pub fn evidence(mut self, evidence: bool) -> Self {
        self.evidence = evidence;
        self
    }

    /// How long handlers may go on when the handle of the consumer is dropped. Default 10 s.
    pub fn shutdown_wait(mut self, wait: Duration) -> Self {
        self.shutdown_wait = wait;
        self
    }
}

impl<L: Level, T: Send + 'static> ConsumerBuilder<L, T> {
    /// Starts, with a closure that gets one message at a time. With [`ConsumerBuilder::batches`] it is called for each message of a
    /// batch, one after the other, in one transaction.
    pub async fn start<F, R>(self, handler: F) -> Result<Consumer, ConsumerError>
    where
        F: Fn(Received<T>, LevelEffect<L>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.start_handler(handler).await
    }

    /// The same, with a type.
    pub async fn start_handler<H: Handler<LevelEffect<L>, T>>(self, handler: H) -> Result<Consumer, ConsumerError> {
        if L::SETTLES_FIRST && matches!(self.settings.order, Order::Batches(_)) {
            // Of a batch that fails in the middle, some have happened and some have not.
            return Err(ConsumerError::OrderOfAtMostOnce);
        }
        self.launch(OneByOne(handler)).await
    }

    /// Starts, with a closure that gets many messages at once.
    pub async fn start_batches<F, R>(self, handler: F) -> Result<Consumer, ConsumerError>
    where
        F: Fn(Vec<Received<T>>, LevelEffect<L>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.start_batch_handler(handler).await
    }

    /// The same, with a type.
    pub async fn start_batch_handler<H: BatchHandler<LevelEffect<L>, T>>(
        mut self,
        handler: H,
    ) -> Result<Consumer, ConsumerError> {
        if !matches!(self.settings.order, Order::Batches(_)) {
            self.settings.order = Order::Batches(Batches::default());
        }
        self.launch(Together(handler)).await
    }

    /// Starts, and runs until it cannot go on. To stop it, drop this future, which is [`Consumer`] dropped; or use
    /// [`ConsumerBuilder::start`] and keep the handle.
    pub async fn run<F, R>(self, handler: F) -> Result<ConsumerMetrics, ConsumerError>
    where
        F: Fn(Received<T>, LevelEffect<L>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.start(handler).await?.ended().await
    }

    async fn launch<H: Handling<LevelEffect<L>, T>>(self, handling: H) -> Result<Consumer, ConsumerError> {
        let group = Group::new(self.group.clone())?;
        let Self { engine, topics, level, mut settings, named, interceptors, .. } = self;
        let guard = level.into_guard();
        if guard.strength() < L::STRENGTH_MIN {
            return Err(ConsumerError::WeakGuard { name: guard.name(), strength: guard.strength() });
        }
        if L::SETTLES_FIRST && matches!(settings.order, Order::PerKey | Order::None) {
            return Err(ConsumerError::OrderOfAtMostOnce);
        }
        let engine = storing(self.first.as_ref(), engine)?;
        let capabilities = engine.capabilities();
        fit(&mut settings, &capabilities);
        let (store, offsets) = side_store(self.store, &engine, &capabilities, &self.group, &mut settings)?;
        settings.check()?;
        let to = self.dead_letter.unwrap_or_else(|| DeadLetter::topic(format!("{}.dead", self.group)));
        check_topics(&*engine, &topics, &to).await?;
        let board = Arc::new(Board::new(self.group.clone()));
        let letters = Letters::open(engine.clone(), to, self.group.clone(), named.clone(), board.clone()).await?;
        let worker = Worker {
            // What a frontier is not told of it takes for a gap.
            filters: if guard.needs_place() { std::mem::take(&mut settings.filters) } else { Vec::new() },
            guard,
            handling,
            decode: self.decode,
            named,
            nobody: nobody(&group)?,
            group,
            identifies: L::IDENTIFIES,
            at_most_once: L::SETTLES_FIRST,
            lasting_offsets: capabilities.lasting_offsets,
            parks: store.is_some(),
            interceptors: interceptors.clone(),
            tells: self.evidence,
        };
        let options = ConsumerOptions {
            group: self.group.to_string(),
            topics,
            start: self.start,
            prefetch: self.prefetch,
            release_wait: release_wait(&settings),
            settings: self.engine_settings,
        };
        let (answers, inputs) = mpsc::unbounded_channel();
        let (commands, commanded) = mpsc::unbounded_channel();
        let work: Arc<dyn Work> = Arc::new(worker);
        tell_weaknesses(&*work, self.first.as_ref(), &board).await;
        let start = || evidence::start(engine.clone(), &self.group, answers.clone(), board.clone());
        let evidence = self.evidence.then(start).transpose()?;
        let link = Link::join(engine, options, answers.clone()).await?;
        let driver = Driver::new(Parts {
            link,
            inputs,
            answers,
            commands: commanded,
            work,
            letters: Arc::new(letters),
            store,
            evidence,
            offsets,
            interceptors,
            board: board.clone(),
            group: self.group,
            settings,
            at_most_once: L::SETTLES_FIRST,
            shutdown_wait: self.shutdown_wait,
        })?;
        let task = tokio::spawn(driver.run());
        Ok(Consumer::new(commands, board, task))
    }
}

/// What the engine can do decides some of the settings.
fn fit(settings: &mut Settings, capabilities: &Capabilities) {
    settings.metadata_bytes_max = capabilities.metadata_bytes_max;
    settings.settling = match capabilities.settling {
        baton_engine::Settling::Frontier => Settling::Frontier,
        baton_engine::Settling::Each => Settling::Each,
    };
}

/// The store that was asked for, else a topic where the engine has what that takes; and whether it can go by the engine's offsets.
fn side_store(
    chosen: Option<Arc<dyn SideStore>>,
    engine: &Arc<dyn Engine>,
    capabilities: &Capabilities,
    group: &str,
    settings: &mut Settings,
) -> Result<(Option<Arc<dyn SideStore>>, Offsets), ConsumerError> {
    let reads = capabilities.reading && capabilities.lasting_offsets;
    let in_topic = || Arc::new(TopicStore::new(engine.clone(), format!("{group}.parked"))) as Arc<dyn SideStore>;
    let store = chosen.or_else(|| reads.then(in_topic));
    let offsets = if capabilities.lasting_offsets { Offsets::Lasting } else { Offsets::OfAssignment };
    if offsets != Offsets::Lasting && store.as_ref().is_some_and(|store| store.needs_lasting_offsets()) {
        return Err(ConsumerError::SideStoreOfOffsets { engine: engine.name() });
    }
    settings.side_store = store.is_some();
    if settings.parks() && store.is_none() {
        return Err(ConsumerError::NoSideStore);
    }
    Ok((store, offsets))
}

/// The engine waits for longer than we take.
fn release_wait(settings: &Settings) -> Duration {
    let drain_ms = settings.revoke_drain_ms.saturating_add(settings.final_settle_ms);
    Duration::from_millis(drain_ms).saturating_add(RELEASE_MARGIN)
}

async fn tell_weaknesses(work: &dyn Work, first: Option<&StoreFirst>, board: &Board) {
    let mut found = work.weaknesses().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the settings of the guard's store cannot be read");
        Vec::new()
    });
    if let Some(first) = first {
        match first.intake().weaknesses().await {
            Ok(more) => found.extend(more),
            Err(error) => tracing::warn!(%error, "the settings of the intake's database cannot be read"),
        }
    }
    found.into_iter().for_each(|weakness| board.notice(Notice::Weakness(weakness)));
}

/// The engine, with the intake before it where there is one.
fn storing(first: Option<&StoreFirst>, engine: Arc<dyn Engine>) -> Result<Arc<dyn Engine>, ConsumerError> {
    match first {
        None => Ok(engine),
        Some(_) if !engine.capabilities().lasting_offsets => {
            Err(ConsumerError::StoreFirstNeedsOffsets { engine: engine.name() })
        }
        Some(first) => Ok(first.clone().over(engine)),
    }
}

/// Who consumes a topic that is not there waits for ever; who consumes his own dead letters handles them for ever.
async fn check_topics(engine: &dyn Engine, topics: &[Arc<str>], to: &DeadLetter) -> Result<(), ConsumerError> {
    if topics.is_empty() {
        return Err(ConsumerError::NoTopics);
    }
    if topics.contains(&to.topic) {
        return Err(ConsumerError::DeadLetterLoop(to.topic.clone()));
    }
    for topic in topics {
        engine.partitions(topic).await?;
    }
    Ok(())
}

/// Stands for every message where no guard tells them apart.
fn nobody(group: &Group) -> Result<Identity, ConsumerError> {
    let id = MessageId::new("-").map_err(|error| EngineError::Bug(error.to_string()))?;
    Ok(Identity::new(group.clone(), id))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! How a producer is set up.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use baton_core::stamp::{BadInstance, INSTANCE_BYTES_MAX, Instance};
use baton_core::trace::TraceParent;
use baton_core::{
    BUFFER_BYTES_DEFAULT, DELIVERY_TIMEOUT_MS_DEFAULT, IN_FLIGHT_MAX_DEFAULT, Retry, SendOptions, Sends, Sequences,
};
use baton_engine::{Engine, EngineError, ProducerOptions};
use thiserror::Error;

use super::clock::wall_ms;
use super::driver::{Driver, Parts, engine_timeout, timeout_ms};
use super::ids::IdMaker;
use super::inbox::Command;
use super::random::{NoRandom, Random};
use super::spool::{Desk, Spool, Store};
use super::topics::Topics;
use super::{Ids, Interceptor, OnAbandoned, Producer, SendError, Shared, TraceSource, evidence};

/// How long a record may wait for others to be sent with, in milliseconds: the default of librdkafka, and of Kafka's own client since 4.0.
pub const LINGER_MS_DEFAULT: u64 = 5;
/// Characters of the suffix behind the service in the name of an instance, with its hyphen. The others are random, five bits each: no two
/// starts of a service in the same second get the same in a trillion.
const SUFFIX_CHARACTERS: usize = 9;

/// No producer.
#[derive(Debug, Error)]
pub enum ProducerError {
    /// The service cannot have this name.
    #[error("the service cannot be called {0:?}: use visible ASCII without ';', such as \"orders-svc\"")]
    Service(String),
    /// The instance cannot have this name.
    #[error(transparent)]
    Instance(#[from] BadInstance),
    /// An ordered topic cannot have that many partitions.
    #[error("the topic {0} cannot be ordered over no partitions")]
    NoPartitions(String),
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(NoRandom),
    /// The spool cannot be opened.
    #[error("{0}")]
    Spool(String),
    /// The engine refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Sets a producer up; await it, or call [`ProducerBuilder::start`]. Everything has a default that is safe.
#[must_use = "there is no producer before this is awaited"]
pub struct ProducerBuilder {
    engine: Arc<dyn Engine>,
    service: String,
    instance: Option<(String, u32)>,
    linger_ms: u64,
    delivery_timeout: Duration,
    attempt_timeout: Option<Duration>,
    buffer_bytes_max: usize,
    in_flight_max: u32,
    retry: Retry,
    ids: Ids,
    evidence: bool,
    traces: bool,
    ordered: Vec<(String, u32)>,
    properties: Vec<(String, String)>,
    interceptors: Vec<Arc<dyn Interceptor>>,
    on_abandoned: Option<OnAbandoned>,
    trace_source: Option<TraceSource>,
    spool: Option<Spool>,
    #[cfg(feature = "measuring")]
    stamps: bool,
}

impl ProducerBuilder {
    pub(super) fn new(engine: Arc<dyn Engine>, service: String) -> Self {
        Self {
            engine,
            service,
            instance: None,
            linger_ms: LINGER_MS_DEFAULT,
            delivery_timeout: Duration::from_millis(DELIVERY_TIMEOUT_MS_DEFAULT),
            attempt_timeout: None,
            buffer_bytes_max: BUFFER_BYTES_DEFAULT,
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
            retry: Retry::default(),
            ids: Ids::default(),
            evidence: true,
            traces: true,
            ordered: Vec::new(),
            properties: Vec::new(),
            interceptors: Vec::new(),
            on_abandoned: None,
            trace_source: None,
            spool: None,
            #[cfg(feature = "measuring")]
            stamps: true,
        }
    }

    /// Sends messages without ids, stamps and traces, which nobody can account for: to measure what those cost. Numbers are allotted all
    /// the same.
    #[cfg(feature = "measuring")]
    #[doc(hidden)]
    pub fn without_stamps(mut self) -> Self {
        (self.stamps, self.traces) = (false, false);
        self
    }

    /// How long a message may wait for others to be sent with, in milliseconds; see [`LINGER_MS_DEFAULT`].
    pub fn linger_ms(mut self, linger_ms: u64) -> Self {
        self.linger_ms = linger_ms;
        self
    }

    /// From [`Producer::send`] to the end of a message, waiting for room and all retries included; 2 minutes.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// How long one attempt may take before the engine's client gives it up and it is tried again under the same stamp; as long as the
    /// delivery timeout, since an engine's client that tries again by itself stores nothing twice.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Bytes of messages that have not ended, 256 for each beside its own; 32 MiB. When they are used up, sending waits.
    pub fn buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.buffer_bytes_max = bytes;
        self
    }

    /// Messages of a partition that the engine may have at a time; 1,000. With 1 the order of a partition is kept whatever fails.
    pub fn in_flight_max(mut self, messages: u32) -> Self {
        self.in_flight_max = messages;
        self
    }

    /// When a message is tried again, within the delivery timeout.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Which ids messages get that bring none along; UUIDs of version 7.
    pub fn ids(mut self, ids: Ids) -> Self {
        self.ids = ids;
        self
    }

    /// Whether it is reported to the topic `baton.evidence` how the messages ended, so that an auditor finds losses; yes.
    pub fn evidence(mut self, evidence: bool) -> Self {
        self.evidence = evidence;
        self
    }

    /// Whether a message that brings no trace along, and for which [`ProducerBuilder::trace_source`] has none, begins one; yes.
    pub fn start_traces(mut self, start: bool) -> Self {
        self.traces = start;
        self
    }

    /// Where the current trace is asked for, on the thread of who sends.
    pub fn trace_source(mut self, source: impl Fn() -> Option<TraceParent> + Send + Sync + 'static) -> Self {
        self.trace_source = Some(Arc::new(source));
        self
    }

    /// The order of this topic's keys matters, and it has so many partitions: if it has another number, now or later, messages with a
    /// key are refused, as their keys would go elsewhere and overtake themselves.
    ///
    /// Without this, keys stay on the partitions that there were when this producer first used the topic, until it starts again.
    pub fn ordered(mut self, topic: impl Into<String>, partitions: u32) -> Self {
        self.ordered.push((topic.into(), partitions));
        self
    }

    /// Adds an interceptor.
    pub fn interceptor(mut self, interceptor: impl Interceptor + 'static) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Called with every failure that nobody looked at, because the future was dropped. Such failures are logged and counted as well. Must
    /// not block.
    pub fn on_abandoned(mut self, call: impl Fn(&SendError) + Send + Sync + 'static) -> Self {
        self.on_abandoned = Some(Arc::new(call));
        self
    }

    /// While the engine is away, messages go to a log on this machine; see [`Spool`]. Without one they wait in the buffer until their delivery
    /// timeout.
    pub fn spool(mut self, spool: Spool) -> Self {
        self.spool = Some(spool);
        self
    }

    /// Sets a property of the engine's own client, under its own name.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Names the producer instance. Whoever does so has to see to it that no two run under the same name at the same time, and that the
    /// epoch is higher each time.
    ///
    /// Without this an instance is new with each start: the service's name, cut to 15 characters, and 8 random ones; its epoch is the time of
    /// the start in seconds. So no number of a sequence can come twice, whatever was lost with the machine.
    pub fn instance(mut self, name: impl Into<String>, epoch: u32) -> Self {
        self.instance = Some((name.into(), epoch));
        self
    }

    /// Starts the producer, as a task of the current runtime.
    ///
    /// # Errors
    /// When a setting is wrong. An engine that is away is no error: messages wait for it.
    pub async fn start(self) -> Result<Producer, ProducerError> {
        let mut random = Random::new().map_err(ProducerError::Random)?;
        let (instance, epoch) = self.identity(&mut random)?;
        let mut ordered = HashMap::new();
        for (topic, partitions) in &self.ordered {
            let partitions = NonZeroU32::new(*partitions).ok_or_else(|| ProducerError::NoPartitions(topic.clone()))?;
            ordered.insert(Arc::from(topic.as_str()), partitions);
        }
        let options = ProducerOptions {
            client_id: instance.to_string(),
            linger_ms: self.linger_ms,
            delivery_timeout: engine_timeout(self.delivery_timeout, self.attempt_timeout),
            settings: self.properties,
        };
        let producer = self.engine.producer(options).await?;
        let spool = match self.spool {
            Some(spool) => Some(open(spool).await?),
            None => None,
        };
        let options = SendOptions {
            buffer_bytes_max: self.buffer_bytes_max,
            delivery_timeout_ms: timeout_ms(self.delivery_timeout),
            in_flight_max: self.in_flight_max,
            retry: self.retry,
        };
        let shared = Arc::new(Shared::new(
            &options,
            epoch,
            self.interceptors,
            self.on_abandoned,
            super::Tracing::new(self.trace_source, self.traces),
        ));
        let evidence = self.evidence.then(|| {
            let inbox = Arc::clone(&shared);
            let told = move |reports| inbox.inbox.command(Command::Reported(reports));
            let through = evidence::Through::Shared(Arc::clone(&producer));
            evidence::start(Arc::clone(&self.engine), through, evidence::warn, told)
        });
        let mut topics = Topics::new(ordered);
        for (topic, partitions) in spool.iter().flat_map(Desk::topics) {
            topics.recall(&topic, partitions, shared.clock.now_ms());
        }
        let parts = Parts {
            shared: Arc::clone(&shared),
            engine: self.engine,
            producer,
            sends: Sends::new(options, Sequences::new(instance.clone(), epoch)),
            topics,
            spool,
            #[cfg(not(feature = "measuring"))]
            ids: IdMaker::new(self.ids),
            #[cfg(feature = "measuring")]
            ids: if self.stamps { IdMaker::new(self.ids) } else { IdMaker::same() },
            evidence,
            #[cfg(feature = "measuring")]
            stamps: self.stamps,
        };
        // It lets other tasks run by its own count; the runtime's would make every answer that has come look as if it had not.
        let driver = tokio::task::unconstrained(Driver::new(parts, random));
        tokio::spawn(driver);
        Ok(Producer::new(shared, instance))
    }

    fn identity(&self, random: &mut Random) -> Result<(Instance, u32), ProducerError> {
        if let Some((name, epoch)) = &self.instance {
            return Ok((Instance::new(name.as_str())?, *epoch));
        }
        let instance = new_instance(&self.service, random);
        Ok((instance.ok_or_else(|| ProducerError::Service(self.service.clone()))?, epoch_now()))
    }
}

/// The name of an instance that is new with each start; `None` if the service has none that could be a part of it.
pub(crate) fn new_instance(service: &str, random: &mut Random) -> Option<Instance> {
    let service: String = service.chars().take(INSTANCE_BYTES_MAX - SUFFIX_CHARACTERS).collect();
    Instance::new(format!("{service}-{}", base32(random.u64()))).ok().filter(|_| !service.is_empty())
}

impl IntoFuture for ProducerBuilder {
    type Output = Result<Producer, ProducerError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// Without properties, which may be secrets.
impl fmt::Debug for ProducerBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProducerBuilder").field("service", &self.service).finish_non_exhaustive()
    }
}

/// Opening waits for the disk.
async fn open(spool: Spool) -> Result<Desk, ProducerError> {
    let opening = tokio::task::spawn_blocking(move || {
        let (store, found) = Store::open(&spool.path)?;
        Ok(Desk::new(store, found, spool.options))
    });
    opening.await.unwrap_or_else(|error| Err(error.to_string())).map_err(ProducerError::Spool)
}

/// Seconds since 1970, which fit until 2106.
pub(super) fn epoch_now() -> u32 {
    u32::try_from(wall_ms() / 1_000).unwrap_or(u32::MAX)
}

/// The lowest 40 bits, five to a character, in lower case and without those that look alike.
fn base32(number: u64) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    (0..SUFFIX_CHARACTERS - 1).rev().map(|at| char::from(ALPHABET[(number >> (at * 5) & 31) as usize])).collect()
}

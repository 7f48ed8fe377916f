//! Sending.
//!
//! ```text
//! send ─▶ interceptors ─▶ inbox (bounded in bytes) ─▶ driver: id, partition, number ─▶ engine
//!                            │ no room: in line            │        ▲ again, same stamp │
//!                            ▼                             ▼        └───────────────────┤
//!                         cancelled                    evidence ◀──── told ◀────────────┘
//! ```

mod builder;
pub(crate) mod clock;
mod close;
mod driver;
pub(crate) mod evidence;
mod future;
mod ids;
mod inbox;
mod interceptor;
pub(crate) mod random;
mod receipt;
mod spool;
mod topics;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use baton_core::stamp::Instance;
use baton_core::trace::{TRACEPARENT_HEADER, TraceParent};
use baton_core::{Message, SendId, SendOptions};
use baton_engine::{Answers, SendOutcome};
use tokio::sync::oneshot;

use crate::Baton;

pub(crate) use builder::new_instance;
pub use builder::{LINGER_MS_DEFAULT, ProducerBuilder, ProducerError};
pub use close::{Closed, UNSENT_NAMED_MAX};
pub use future::SendFuture;
pub use ids::{Ids, SegmentFuture, SegmentSource};
pub use interceptor::Interceptor;
pub use receipt::{Reason, Receipt, SendError, Unsent};
pub use spool::{Spool, SpoolState};

use clock::Clock;
use future::{Outcome, Reply};
use inbox::{Command, Hold, Inbox, NotTaken, NotTakenReason, Submission, Submitted, Trace};

impl Baton {
    /// A producer for a service: await it, or set it up first.
    ///
    /// ```no_run
    /// # async fn example(baton: baton::Baton) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use baton::Message;
    ///
    /// let producer = baton.producer("orders-svc").delivery_timeout(Duration::from_secs(30)).await?;
    /// let receipt = producer.send(Message::to("orders").key("order-17").payload("100 beans")).await?;
    /// println!("{} is in {} as number {}", receipt.id, receipt.partition, receipt.sequence);
    /// # Ok(())
    /// # }
    /// ```
    pub fn producer(&self, service: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(Arc::clone(self.engine()), service.into())
    }
}

/// Sends messages. Cheap to clone; all clones are the same producer, with the same sequences.
///
/// When the last clone is dropped, what was sent goes on to its end as long as the runtime lives. [`Producer::close`] waits for that, and
/// says what was not sent.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    instance: Instance,
}

/// What the handles and the driver share.
pub(crate) struct Shared {
    inbox: Inbox,
    clock: Clock,
    delivery_timeout_ms: u64,
    epoch: AtomicU32,
    interceptors: Vec<Arc<dyn Interceptor>>,
    on_abandoned: Option<OnAbandoned>,
    tracing: Tracing,
    spool: spool::Shown,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
}

type OnAbandoned = Arc<dyn Fn(&SendError) + Send + Sync>;
type TraceSource = Arc<dyn Fn() -> Option<TraceParent> + Send + Sync>;

/// Where traces come from.
struct Tracing {
    source: Option<TraceSource>,
    /// Whether a message without one begins one.
    roots: bool,
}

/// What a producer has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProducerCounters {
    /// Messages that were sent.
    pub sent: u64,
    /// Those that the engine has.
    pub acknowledged: u64,
    /// Those that were given up.
    pub failed: u64,
    /// Those of them at whose failure nobody looked.
    pub abandoned: u64,
    /// Messages that have not ended.
    pub open: u64,
    /// Their bytes in the buffer.
    pub buffer_bytes: usize,
}

/// The message was not sent, and is given back.
#[derive(Debug)]
pub enum NotSent {
    /// There is no room in the buffer now.
    Full(Message),
    /// It cannot be sent.
    Failed(Message, SendError),
}

impl Producer {
    fn new(shared: Arc<Shared>, instance: Instance) -> Self {
        Self { handle: Arc::new(Handle { shared, instance }) }
    }

    /// The name of this producer instance, as it stands in every stamp.
    pub fn instance(&self) -> &str {
        self.handle.instance.as_str()
    }

    /// Sends a message. It is on its way when this returns, whether the future is awaited or not, as long as there is room in the buffer;
    /// otherwise it waits in line, and nothing that is sent later overtakes it. Messages of a partition are stored in the order of
    /// these calls.
    pub fn send(&self, message: Message) -> SendFuture {
        let (sender, receiver) = oneshot::channel();
        match self.submit(message, Reply::Future(sender), true) {
            Ok(Submitted::Accepted) => SendFuture::sent(self.shared(), receiver, None),
            Ok(Submitted::Waiting(number)) => SendFuture::sent(self.shared(), receiver, Some(number)),
            Err(not_taken) => {
                let (_, error) = self.not_taken(*not_taken);
                SendFuture::refused(self.shared(), error)
            }
        }
    }

    /// Sends a message if there is room in the buffer.
    ///
    /// # Errors
    /// Gives the message back if there is none, or if it cannot be sent at all.
    pub fn try_send(&self, message: Message) -> Result<SendFuture, Box<NotSent>> {
        let (sender, receiver) = oneshot::channel();
        match self.submit(message, Reply::Future(sender), false) {
            Ok(_) => Ok(SendFuture::sent(self.shared(), receiver, None)),
            Err(not_taken) if matches!(not_taken.reason, NotTakenReason::Full) => {
                Err(Box::new(NotSent::Full(not_taken.submission.message)))
            }
            Err(not_taken) => {
                let (submission, error) = self.not_taken(*not_taken);
                Err(Box::new(NotSent::Failed(submission.message, error)))
            }
        }
    }

    /// Sends a message and waits, for code that is not async.
    ///
    /// # Errors
    /// When the message was given up.
    ///
    /// # Panics
    /// In an async function on a runtime that has one thread only, which would wait for itself.
    pub fn send_blocking(&self, message: Message) -> Result<Receipt, SendError> {
        self.send(message).wait()
    }

    /// Sends a message, and calls back when it has ended: once, on the producer's own task, so the call must not block. When there is no
    /// room in the buffer, the message is not sent, and the callback is given back with it.
    ///
    /// # Errors
    /// Gives message and callback back when there is no room. Other failures go to the callback.
    pub fn send_with<C>(&self, message: Message, callback: C) -> Result<(), Box<(Message, C)>>
    where
        C: FnOnce(Result<Receipt, SendError>) + Send + 'static,
    {
        let Err(not_taken) = self.submit(message, Reply::Callback(Box::new(callback)), false) else { return Ok(()) };
        if !matches!(not_taken.reason, NotTakenReason::Full) {
            let (submission, error) = self.not_taken(*not_taken);
            tell(submission.reply, Err(error));
            return Ok(());
        }
        let Submission { message, reply, .. } = not_taken.submission;
        match reply {
            Reply::Callback(callback) => match callback.into_any().downcast::<C>() {
                Ok(callback) => Err(Box::new((message, *callback))),
                // It is what was put in above.
                Err(_) => Ok(()),
            },
            Reply::Future(_) | Reply::Spool(_) => Ok(()),
        }
    }

    /// Sends many messages, as fast as the buffer takes them, and says how each ended, in their order.
    pub async fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> Vec<Result<Receipt, SendError>> {
        let mut sending = VecDeque::new();
        let mut outcomes = Vec::new();
        for message in messages {
            sending.push_back(self.send(message));
            // No more than one waits in line, so that what is taken from the iterator stays bounded.
            while sending.back().is_some_and(SendFuture::waits_for_room)
                && let Some(oldest) = sending.pop_front()
            {
                outcomes.push(oldest.await);
            }
        }
        for rest in sending {
            outcomes.push(rest.await);
        }
        outcomes
    }

    /// Waits until every message that was sent before has ended, or the time is over; says how many have not.
    pub async fn flush(&self, deadline: Duration) -> usize {
        let inbox = &self.handle.shared.inbox;
        let Some((generation, done)) = inbox.flush() else { return 0 };
        // Over or not, the count says it.
        let _ = tokio::time::timeout(deadline, done).await;
        inbox.unflushed(generation)
    }

    /// Ends the producer: takes no more messages, waits for those that were sent until the deadline, gives up what is left, and sends the last
    /// evidence, which may take a few seconds more if the engine is away. Says what was not sent.
    pub async fn close(&self, deadline: Duration) -> Closed {
        let shared = &self.handle.shared;
        shared.inbox.close();
        self.flush(deadline).await;
        let (sender, receiver) = oneshot::channel();
        shared.inbox.command(Command::Close(sender));
        // The driver is gone, because it was closed before or its runtime ended: all senders were told.
        receiver.await.unwrap_or_else(|_| Closed { abandoned: shared.abandoned_count(), ..Closed::default() })
    }

    /// What it has done so far.
    pub fn counters(&self) -> ProducerCounters {
        let shared = &self.handle.shared;
        let (open, buffer_bytes) = shared.inbox.level();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProducerCounters {
            sent: count(&shared.sent),
            acknowledged: count(&shared.acknowledged),
            failed: count(&shared.failed),
            abandoned: count(&shared.abandoned),
            open: open as u64,
            buffer_bytes,
        }
    }

    /// What waits in its spool, if it has one.
    pub fn spool(&self) -> Option<SpoolState> {
        let shared = &self.handle.shared;
        shared.spool.state(shared.clock.now_ms())
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.handle.shared)
    }

    fn submit(&self, mut message: Message, reply: Reply, wait: bool) -> Result<Submitted, Box<NotTaken>> {
        let shared = &self.handle.shared;
        let intercepted = shared.interceptors.iter().try_for_each(|interceptor| interceptor.on_send(&mut message));
        let trace = match message.headers.last(TRACEPARENT_HEADER) {
            Some(_) => Trace::AsItIs,
            None => shared.tracing.current(),
        };
        let hold = Hold::of(&message);
        let submission = Submission { message, trace, sent_ms: shared.clock.now_ms(), reply, hold };
        if let Err(reason) = intercepted {
            let reason = NotTakenReason::Never(Reason::Intercepted(reason));
            return Err(Box::new(NotTaken { submission, reason }));
        }
        let submitted = shared.inbox.submit(submission, wait)?;
        shared.sent.fetch_add(1, Ordering::Relaxed);
        Ok(submitted)
    }

    fn not_taken(&self, not_taken: NotTaken) -> (Submission, SendError) {
        let NotTaken { submission, reason } = not_taken;
        let reason = match reason {
            NotTakenReason::Never(reason) => reason,
            // Only who does not want to wait hears this, and handles it before.
            NotTakenReason::Full => Reason::Dropped,
        };
        let may_retry = reason == Reason::Closed;
        let error = SendError::refused(&submission.message, reason, may_retry);
        self.handle.shared.failed(&error);
        (submission, error)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Producer").field("instance", &self.instance()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.inbox.close();
        self.shared.inbox.command(Command::Detach);
    }
}

impl Tracing {
    fn new(source: Option<TraceSource>, roots: bool) -> Self {
        Self { source, roots }
    }

    /// The current trace, or a new one.
    fn current(&self) -> Trace {
        let current = self.source.as_ref().and_then(|source| source());
        current.map_or(if self.roots { Trace::New } else { Trace::AsItIs }, Trace::Of)
    }
}

impl Answers for Shared {
    fn answer(&self, name: u128, outcome: SendOutcome) {
        self.inbox.answered(SendId::of_number(name), outcome);
    }
}

impl Shared {
    fn new(
        options: &SendOptions,
        epoch: u32,
        interceptors: Vec<Arc<dyn Interceptor>>,
        on_abandoned: Option<OnAbandoned>,
        tracing: Tracing,
    ) -> Self {
        Self {
            inbox: Inbox::new(options.buffer_bytes_max),
            clock: Clock::start(),
            delivery_timeout_ms: options.delivery_timeout_ms,
            epoch: AtomicU32::new(epoch),
            interceptors,
            on_abandoned,
            tracing,
            spool: spool::Shown::default(),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
        }
    }

    /// An epoch above all before.
    fn next_epoch(&self) -> u32 {
        let before = self.epoch.fetch_add(1, Ordering::Relaxed);
        before.saturating_add(1)
    }

    fn abandoned_count(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Says how a message ended, to all who want to know.
    fn tell(&self, reply: Reply, outcome: Outcome) {
        match &outcome {
            Ok(receipt) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                for interceptor in &self.interceptors {
                    guarded("an interceptor", || interceptor.on_acknowledged(receipt));
                }
            }
            Err(error) => self.failed(error),
        }
        if let Some(Err(error)) = tell(reply, outcome) {
            self.abandoned(&error);
        }
    }

    /// A message was given up.
    fn failed(&self, error: &SendError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        for interceptor in &self.interceptors {
            guarded("an interceptor", || interceptor.on_failed(error));
        }
    }

    /// A message was given up, and its sender does not look.
    fn abandoned(&self, error: &SendError) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "a message was not sent, and its sender does not look");
        if let Some(call) = &self.on_abandoned {
            guarded("on_abandoned", || call(error));
        }
    }
}

/// Tells one sender; gives back what he does not listen to.
fn tell(reply: Reply, outcome: Outcome) -> Option<Outcome> {
    match reply {
        Reply::Future(sender) => sender.send(outcome).err(),
        Reply::Spool(_) => None,
        Reply::Callback(call) => {
            guarded("a callback of send_with", || call.call(outcome));
            None
        }
    }
}

/// What users give us to call may panic; messages of others must not pay for it.
fn guarded(what: &'static str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!(what, "it panicked");
    }
}

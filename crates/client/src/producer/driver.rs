//! The one task of a producer: carries messages from the inbox through [`Sends`] to the engine, and tells how they ended.

mod spooled;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use baton_core::stamp::{STAMP_HEADER, Stamp};
use baton_core::trace::{TRACEPARENT_HEADER, TraceParent};
use baton_core::{End, Ended, Fate, Message, MessageId, Report, Sends, TopicPartition, Why};
use baton_engine::{Answer, Answers, Engine, EngineFuture, EngineProducer, NoRoom, Record, SendOutcome, Stored};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::Shared;
use super::clock::{wall_ms, whole_ms};
use super::close::Closed;
use super::future::{Outcome, Reply};
use super::ids::{IdMaker, Named};
use super::inbox::{Came, Command, Hold, Submission, Trace};
use super::random::Random;
use super::receipt::{Reason, Receipt, SendError, Unsent};
use super::spool::Desk;
use super::topics::{Learned, Place, Topics};

/// Messages handed over before the driver looks at what came meanwhile.
const HAND_OVERS_MAX: usize = 512;
/// Rounds before the driver lets other tasks of its thread run.
const ROUNDS_MAX: usize = 16;
/// With so many messages in a millisecond the driver looks once a millisecond and not at each of them: being woken costs more than a message
/// does. With fewer, it is woken at once.
const BUSY_MESSAGES_MIN: usize = 16;
const BUSY_WAIT: std::time::Duration = std::time::Duration::from_millis(1);
/// How long a full engine is left alone if it does not say when there is room, in milliseconds.
const ROOM_WAIT_MS: u64 = 10;
/// How long until an allotter of segments that failed is asked again, in milliseconds.
const SEGMENT_WAIT_MS: u64 = 500;
/// How long the last reports are waited for, in milliseconds: longer than one may take.
const LAST_REPORTS_WAIT_MS: u64 = 6_000;
/// Sequences that nobody used for so long may be forgotten when there are many, in milliseconds.
const SEQUENCE_IDLE_MS: u64 = 10 * 60_000;
/// How often that is looked at, in milliseconds, and from how many sequences on.
const EXPIRE_INTERVAL_MS: u64 = 60_000;
const EXPIRE_SEQUENCES_MIN: usize = baton_core::SEQUENCES_MAX / 2;

/// What goes with a message through [`Sends`].
pub(super) struct Item {
    /// What the engine gets; complete once it was handed over.
    record: Record,
    complete: bool,
    id: MessageId,
    trace: Option<TraceParent>,
    reply: Reply,
    hold: Hold,
    /// What the engine said last.
    answer: Option<SendOutcome>,
}

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) producer: Arc<dyn EngineProducer>,
    pub(super) sends: Sends<Item>,
    pub(super) topics: Topics<Submission>,
    pub(super) ids: IdMaker,
    pub(super) evidence: Option<mpsc::Sender<Vec<Report>>>,
    pub(super) spool: Option<Desk>,
    #[cfg(feature = "measuring")]
    pub(super) stamps: bool,
}

/// See above. A future that is done when the producer is closed.
pub(super) struct Driver {
    parts: Parts,
    random: Random,
    names: Names,
    /// Whom the engine answers.
    answers: Arc<dyn Answers>,
    /// Taken from the inbox. Submissions stay there until they have an id.
    came: Came,
    /// The engine's client is full; resolves when there may be room. Looked at again at that time in any case.
    room: Option<(EngineFuture<'static, ()>, u64)>,
    timer: Pin<Box<Sleep>>,
    released: Vec<Hold>,
    outcomes: Vec<(Outcome, Reply)>,
    segment_ms: u64,
    expire_ms: u64,
    reporting: bool,
    /// Messages that were handed over or have ended since the millisecond began.
    moved: usize,
    moved_since_ms: u64,
    /// The timer runs, and nothing is looked at before it has.
    busy: bool,
    phase: Phase,
}

/// Names of headers, made once.
struct Names {
    stamp: Arc<str>,
    trace: Arc<str>,
    /// Neither of them is written.
    #[cfg(feature = "measuring")]
    left_out: bool,
}

/// How far the end has come.
enum Phase {
    Open,
    /// Nobody sends any more; what was sent goes on.
    Detached,
    /// Everything has ended; the last reports are under way.
    Closing(Closing),
    Done,
}

struct Closing {
    closed: Closed,
    reply: Option<oneshot::Sender<Closed>>,
    /// The reports that say that no numbers follow were taken.
    last_taken: bool,
    /// When nobody waits for them any more.
    until_ms: u64,
}

impl Driver {
    pub(super) fn new(parts: Parts, random: Random) -> Self {
        let now_ms = parts.shared.clock.now_ms();
        Self {
            names: Names {
                stamp: STAMP_HEADER.into(),
                trace: TRACEPARENT_HEADER.into(),
                #[cfg(feature = "measuring")]
                left_out: !parts.stamps,
            },
            answers: Arc::clone(&parts.shared) as Arc<dyn Answers>,
            parts,
            random,
            came: Came::default(),
            room: None,
            timer: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            released: Vec::new(),
            outcomes: Vec::new(),
            segment_ms: now_ms,
            expire_ms: now_ms.saturating_add(EXPIRE_INTERVAL_MS),
            reporting: false,
            moved: 0,
            moved_since_ms: now_ms,
            busy: false,
            phase: Phase::Open,
        }
    }

    /// Does all that can be done now; says whether it did anything.
    fn round(&mut self, context: &mut Context<'_>) -> bool {
        let now_ms = self.parts.shared.clock.now_ms();
        let mut worked = self.parts.shared.inbox.take(&mut self.came);
        // First: what the engine has answered is not given up by a close that comes with it.
        self.land(now_ms);
        for command in std::mem::take(&mut self.came.commands) {
            self.command(command, now_ms);
        }
        self.watch(now_ms);
        self.place_drained(now_ms);
        self.name(now_ms);
        self.expire(now_ms);
        worked |= self.hand_over(context, now_ms);
        worked |= self.serve_spool(context, now_ms);
        worked |= self.end(now_ms);
        self.ask(now_ms);
        self.report(now_ms);
        self.show_spool(now_ms);
        self.finish(now_ms);
        worked
    }

    fn command(&mut self, command: Command, now_ms: u64) {
        match command {
            Command::Partitions { topic, answer } => {
                let (random, partitions) = (self.random.u64(), answer.as_ref().ok().copied());
                let learned = self.parts.topics.learned(&topic, now_ms, random, answer);
                if let Some(partitions) = partitions {
                    self.engine_is_there(&topic, partitions, now_ms);
                }
                match learned {
                    Learned::Place(waiting) => {
                        waiting.into_iter().for_each(|submission| self.place(submission, now_ms))
                    }
                    Learned::Fail(waiting, reason) => {
                        waiting.into_iter().for_each(|submission| self.refuse(submission, reason.clone(), false));
                    }
                    Learned::Later => {}
                }
            }
            Command::Segment(segment) => {
                if let Err(cause) = self.parts.ids.supply(segment) {
                    tracing::warn!(cause, "no segment of message ids; it is asked for again");
                    self.segment_ms = now_ms.saturating_add(SEGMENT_WAIT_MS);
                }
            }
            Command::Reported(reports) => self.reported(reports, now_ms),
            Command::SpoolRead { partition, kept } => self.unspool(&partition, kept, now_ms),
            Command::Detach => {
                if matches!(self.phase, Phase::Open) {
                    self.phase = Phase::Detached;
                }
            }
            Command::Close(reply) => self.close(reply, now_ms),
        }
    }

    /// What the engine said meanwhile.
    fn land(&mut self, now_ms: u64) {
        let mut answers = std::mem::take(&mut self.came.answers);
        for (id, answer) in answers.drain(..) {
            let result = answer.as_ref().map(drop).map_err(baton_engine::SendError::failure);
            let acknowledged = result.is_ok();
            match self.parts.sends.item_mut(id) {
                Some(item) => {
                    if result.is_err_and(|failure| !failure.retryable) {
                        self.parts.topics.doubt(&item.record.to.topic, now_ms);
                    }
                    if let (Reply::Spool(_), Err(error), Some(desk)) = (&item.reply, &answer, &mut self.parts.spool) {
                        desk.blocked = Some(error.cause.clone());
                    }
                    item.answer = Some(answer);
                }
                None => self.out_of_limbo(id, acknowledged, now_ms),
            }
            let random = if acknowledged { 0 } else { self.random.u64() };
            self.parts.sends.resolved(id, now_ms, random, result);
            self.heard(acknowledged, now_ms);
        }
        // Its memory is used again.
        self.came.answers = answers;
    }

    /// Gives ids to those that came, in their order, and sends them on.
    fn name(&mut self, now_ms: u64) {
        let wall_ms = if self.came.submissions.is_empty() { 0 } else { wall_ms() };
        while let Some(mut submission) = self.came.submissions.pop_front() {
            match self.parts.ids.name(&submission.message, wall_ms, &mut self.random) {
                Named::As(id) => {
                    submission.message.id = Some(id);
                    self.place(submission, now_ms);
                }
                Named::Never(reason) => self.refuse(submission, reason, false),
                Named::Later => {
                    self.came.submissions.push_front(submission);
                    return;
                }
            }
        }
    }

    /// Chooses the partition, and takes the message.
    fn place(&mut self, submission: Submission, now_ms: u64) {
        let random = &mut self.random;
        let partition = match self.parts.topics.place(&submission.message, || random.u32()) {
            Place::To(partition) => partition,
            Place::Unknown => {
                let topic = Arc::clone(&submission.message.topic);
                return self.parts.topics.wait(&topic, now_ms, submission);
            }
            Place::Nowhere(reason) => return self.refuse(submission, reason, false),
        };
        let deadline_ms = submission.sent_ms.saturating_add(self.parts.shared.delivery_timeout_ms);
        let Some(submission) = self.spool(submission, &partition, now_ms) else { return };
        let Some(item) = self.item(submission, &partition) else { return };
        let (id, bytes) = (item.id.clone(), item.hold.message_bytes());
        if let Err(refused) = self.parts.sends.accept_until(now_ms, deadline_ms, &partition, id, bytes, item) {
            let (reason, may_retry) = match refused.refusal {
                baton_core::Refusal::TooManyPartitions(count) => (Reason::TooManyPartitions(count), true),
                baton_core::Refusal::Closed => (Reason::Closed, true),
                // The inbox lets no more in than there is room for.
                baton_core::Refusal::Full { bytes, max } | baton_core::Refusal::TooLarge { bytes, max } => {
                    (Reason::TooLarge { bytes, max }, true)
                }
            };
            let Item { record, id, reply, hold, .. } = refused.item;
            self.released.push(hold);
            let error = SendError::never_handed_over(record.to.topic, Some(id), reason, may_retry);
            self.outcomes.push((Err(error), reply));
        }
    }

    /// The message as the engine gets it, except for trace and stamp.
    fn item(&mut self, submission: Submission, to: &TopicPartition) -> Option<Item> {
        let Some(id) = submission.message.id.clone() else {
            self.refuse(submission, Reason::NoId("none was given".to_owned()), false);
            return None;
        };
        let Submission { message, trace, reply, hold, .. } = submission;
        let trace = match trace {
            Trace::AsItIs => None,
            Trace::Of(trace) => Some(trace),
            // Nothing is recorded here, so it is not marked as sampled.
            Trace::New => Some(TraceParent::root(self.random.u128(), self.random.u64(), false)),
        };
        let Message { key, payload, headers, timestamp_ms, .. } = message;
        let record = Record { to: to.clone(), key, payload, headers, timestamp_ms, id: Some(id.shared()) };
        Some(Item { record, complete: false, id, trace, reply, hold, answer: None })
    }

    /// Gives up what waited too long before it came to be handed over.
    fn expire(&mut self, now_ms: u64) {
        let timeout_ms = self.parts.shared.delivery_timeout_ms;
        let Some(late_ms) = now_ms.checked_sub(timeout_ms) else { return };
        while let Some(submission) = self.came.submissions.pop_front_if(|first| first.sent_ms <= late_ms) {
            self.refuse(submission, Reason::Deadline("no segment of message ids came".to_owned()), true);
        }
        while let Some((submission, cause)) = self.parts.topics.take_late(|waiting| waiting.sent_ms <= late_ms) {
            self.refuse(submission, Reason::Deadline(cause), true);
        }
        for submission in self.parts.shared.inbox.expired(late_ms) {
            self.refuse_unheld(submission, Reason::Deadline("there was no room in the buffer".to_owned()), true);
        }
    }

    /// Gives the engine what is to be handed over now.
    fn hand_over(&mut self, context: &mut Context<'_>, now_ms: u64) -> bool {
        if let Some((room, again_ms)) = &mut self.room
            && room.as_mut().poll(context).is_pending()
            && now_ms < *again_ms
        {
            self.parts.sends.tick(now_ms);
            return false;
        }
        self.room = None;
        for _ in 0..HAND_OVERS_MAX {
            let Some(next) = self.parts.sends.next(now_ms) else { return false };
            self.names.complete(next.item, next.stamp);
            self.moved += 1;
            let id = next.id;
            let answer = Answer::of(Arc::clone(&self.answers), id.to_number());
            match self.parts.producer.hand_over(&next.item.record, answer) {
                Ok(()) => {
                    if let Some(desk) = &mut self.parts.spool {
                        desk.spooling.asked(now_ms);
                    }
                }
                Err(NoRoom) => {
                    self.parts.sends.full(id);
                    let producer = Arc::clone(&self.parts.producer);
                    let room: EngineFuture<'static, ()> = Box::pin(async move { producer.room().await });
                    self.room = Some((room, now_ms.saturating_add(ROOM_WAIT_MS)));
                    // Polled once more, so that it wakes this task.
                    return true;
                }
            }
        }
        true
    }

    /// Tells how messages ended. Their room comes first: who hears that a message has ended may count on it.
    fn end(&mut self, now_ms: u64) -> bool {
        self.take_ended(now_ms);
        self.parts.shared.inbox.release(&mut self.released);
        let worked = !self.outcomes.is_empty();
        self.moved += self.outcomes.len();
        for (outcome, reply) in self.outcomes.drain(..) {
            self.parts.shared.tell(reply, outcome);
        }
        worked
    }

    fn take_ended(&mut self, now_ms: u64) {
        while let Some(ended) = self.parts.sends.take_ended() {
            if let Reply::Spool(at) = ended.item.reply {
                self.ended_spooled(&ended, at, now_ms);
                continue;
            }
            self.released.push(ended.item.hold);
            self.outcomes.push(outcome(ended));
        }
    }

    /// Asks for what is missing, each in a task of its own: there are few of them.
    fn ask(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::Closing(_) | Phase::Done) {
            return;
        }
        while let Some(topic) = self.parts.topics.ask(now_ms) {
            if self.parts.topics.is_recalled(&topic)
                && let Some(desk) = &mut self.parts.spool
            {
                desk.spooling.asked(now_ms);
            }
            let (engine, shared) = (Arc::clone(&self.parts.engine), Arc::clone(&self.parts.shared));
            tokio::spawn(async move {
                let answer = engine.partitions(&topic).await;
                shared.inbox.command(Command::Partitions { topic, answer });
            });
        }
        if now_ms >= self.segment_ms
            && let Some(segment) = self.parts.ids.ask()
        {
            let shared = Arc::clone(&self.parts.shared);
            tokio::spawn(async move {
                let segment = segment.await.map_err(|error| error.to_string());
                shared.inbox.command(Command::Segment(segment));
            });
        }
    }

    /// Sends reports when they are due.
    fn report(&mut self, now_ms: u64) {
        if !self.reporting && self.parts.sends.report_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let reports = self.parts.sends.sequences().take_reports(now_ms);
            self.send_reports(reports, now_ms);
        }
        if !self.reporting {
            let reports = self.others_reports(now_ms, false);
            self.send_reports(reports, now_ms);
        }
        if now_ms >= self.expire_ms {
            self.expire_ms = now_ms.saturating_add(EXPIRE_INTERVAL_MS);
            let sequences = self.parts.sends.sequences();
            if sequences.len() >= EXPIRE_SEQUENCES_MIN {
                let epoch = self.parts.shared.next_epoch();
                // The epoch grows by itself; a refusal means that nothing is forgotten this time.
                let _ = sequences.expire(SEQUENCE_IDLE_MS, epoch, now_ms);
            }
        }
    }

    fn send_reports(&mut self, reports: Vec<Report>, now_ms: u64) {
        let reports = match &self.parts.evidence {
            None => {
                reports.into_iter().for_each(|report| self.report_ended(report, true, now_ms));
                return;
            }
            Some(_) if reports.is_empty() => return,
            Some(evidence) => match evidence.try_send(reports) {
                Ok(()) => {
                    self.reporting = true;
                    return;
                }
                Err(mpsc::error::TrySendError::Full(reports) | mpsc::error::TrySendError::Closed(reports)) => reports,
            },
        };
        reports.into_iter().for_each(|report| self.report_ended(report, false, now_ms));
    }

    fn report_ended(&mut self, report: Report, stored: bool, now_ms: u64) {
        let sequences = self.parts.sends.sequences();
        let instance = report.instance.clone();
        let others = match (instance == *sequences.instance(), stored) {
            (true, true) => return sequences.reported(report),
            (false, true) => return,
            // An earlier process may have had the same name.
            (true, false) => sequences.give_back(report, now_ms),
            (false, false) => report.sequences,
        };
        if let Some(desk) = &mut self.parts.spool {
            desk.unreported(&instance, others, now_ms);
        }
    }

    fn reported(&mut self, reports: Vec<(Report, bool)>, now_ms: u64) {
        self.reporting = false;
        let mut all_stored = true;
        for (report, stored) in reports {
            all_stored &= stored;
            self.report_ended(report, stored, now_ms);
        }
        if let Phase::Closing(closing) = &mut self.phase {
            closing.closed.evidence_stored = all_stored;
        }
    }

    /// Gives up what has not ended, and begins to end.
    fn close(&mut self, reply: oneshot::Sender<Closed>, now_ms: u64) {
        if matches!(self.phase, Phase::Closing(_) | Phase::Done) {
            // Closed before; what was left behind has been told.
            let _ = reply.send(Closed { evidence_stored: true, ..Closed::default() });
            return;
        }
        let mut closed = Closed::default();
        self.abandon(now_ms, Reason::Closed, &mut closed);
        self.begin_end(closed, Some(reply), now_ms);
    }

    fn begin_end(&mut self, mut closed: Closed, reply: Option<oneshot::Sender<Closed>>, now_ms: u64) {
        closed.abandoned = self.parts.shared.abandoned_count();
        closed.evidence_stored = true;
        let until_ms = now_ms.saturating_add(LAST_REPORTS_WAIT_MS);
        self.phase = Phase::Closing(Closing { closed, reply, last_taken: false, until_ms });
    }

    /// Ends all that has not ended.
    fn abandon(&mut self, now_ms: u64, reason: Reason, closed: &mut Closed) {
        // What ended before is told first: it is no victim of this.
        self.end(now_ms);
        self.parts.sends.abandon(now_ms);
        self.take_ended(now_ms);
        closed.spooled = self.leave_spool(now_ms);
        let placeless = std::iter::from_fn(|| self.parts.topics.take_late(|_| true)).map(|(submission, _)| submission);
        let early: Vec<_> = placeless.chain(std::mem::take(&mut self.came.submissions)).collect();
        early.into_iter().for_each(|submission| self.refuse(submission, reason.clone(), true));
        for submission in self.parts.shared.inbox.drain() {
            self.refuse_unheld(submission, reason.clone(), true);
        }
        self.outcomes.iter().filter_map(|(outcome, _)| outcome.as_ref().err()).for_each(|error| closed.name(error));
        self.end(now_ms);
    }

    /// Ends when nothing is left to do.
    fn finish(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::Detached) && self.is_empty() {
            self.begin_end(Closed::default(), None, now_ms);
        }
        let Phase::Closing(closing) = &mut self.phase else { return };
        if !self.reporting && !std::mem::replace(&mut closing.last_taken, true) {
            let mut reports = self.parts.sends.sequences().take_last_reports(now_ms);
            reports.extend(self.others_reports(now_ms, true));
            self.send_reports(reports, now_ms);
        }
        let Phase::Closing(closing) = &mut self.phase else { return };
        let late = now_ms >= closing.until_ms;
        if self.reporting && !late {
            return;
        }
        closing.closed.evidence_stored &= !late;
        let (reply, closed) = (closing.reply.take(), std::mem::take(&mut closing.closed));
        // Who asked may have gone.
        let answer = move || drop(reply.map(|reply| reply.send(closed)));
        self.phase = Phase::Done;
        match self.parts.spool.take() {
            // Who hears that the producer is closed may open its spool again.
            Some(mut desk) => {
                desk.mark(now_ms, true);
                drop(tokio::task::spawn_blocking(move || {
                    desk.store().close();
                    answer();
                }));
            }
            None => answer(),
        }
    }

    fn is_empty(&self) -> bool {
        self.parts.sends.len() <= self.parts.spool.as_ref().map_or(0, |desk| desk.out)
            && self.came.submissions.is_empty()
            && self.parts.shared.inbox.level().0 == 0
    }

    /// A message that never came to be handed over.
    fn refuse(&mut self, submission: Submission, reason: Reason, may_retry: bool) {
        self.released.push(submission.hold);
        self.refuse_unheld(submission, reason, may_retry);
    }

    /// The same for one that holds nothing of the buffer any more.
    fn refuse_unheld(&mut self, submission: Submission, reason: Reason, may_retry: bool) {
        let error = SendError::refused(&submission.message, reason, may_retry);
        self.outcomes.push((Err(error), submission.reply));
    }

    /// When there is something to do, if nothing comes before.
    fn due_ms(&self, now_ms: u64) -> Option<u64> {
        let timeout_ms = self.parts.shared.delivery_timeout_ms;
        let room_ms = self.room.as_ref().map_or(0, |(_, again_ms)| *again_ms);
        let sends = self.parts.sends.due_ms().map(|due_ms| due_ms.max(room_ms));
        let report = self.parts.sends.report_due_ms().filter(|_| !self.reporting);
        let since = |sent_ms: u64| sent_ms.saturating_add(timeout_ms);
        let in_line = self.parts.shared.inbox.waiting_since_ms().map(since);
        let placeless = self.parts.topics.waiting_since_ms(|waiting| waiting.sent_ms).map(since);
        let unnamed = self.came.submissions.front().map(|first| since(first.sent_ms));
        let segment = (!self.came.submissions.is_empty()).then_some(self.segment_ms).filter(|due_ms| *due_ms > now_ms);
        if let Phase::Closing(closing) = &self.phase {
            return Some(closing.until_ms);
        }
        let spool = self.parts.spool.as_ref().and_then(|desk| desk.due_ms(self.reporting));
        let (topics, expire) = (self.parts.topics.ask_ms(), Some(self.expire_ms));
        let dues = [sends, report, in_line, placeless, unnamed, segment, spool, topics, expire];
        dues.into_iter().flatten().min()
    }
}

impl Driver {
    /// Nothing is to be done now: sleeps until something is due or comes. `false`: it was due meanwhile.
    fn sleep(&mut self, context: &mut Context<'_>) -> bool {
        let now_ms = self.parts.shared.clock.now_ms();
        let since_ms = usize::try_from(now_ms - self.moved_since_ms).unwrap_or(usize::MAX).max(1);
        if self.moved / since_ms >= BUSY_MESSAGES_MIN {
            self.timer.as_mut().reset(tokio::time::Instant::now() + BUSY_WAIT);
            self.busy = true;
        } else if let Some(due_ms) = self.due_ms(now_ms) {
            // A whole millisecond at least: what is due at once was done in this round.
            self.timer.as_mut().reset(self.parts.shared.clock.instant(due_ms.max(now_ms + 1)).into());
        }
        if now_ms > self.moved_since_ms {
            (self.moved, self.moved_since_ms) = (0, now_ms);
        }
        let due = self.timer.as_mut().poll(context).is_ready();
        self.busy &= !due;
        !due
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.busy && this.timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.busy = false;
        this.parts.shared.inbox.register(context.waker());
        for _ in 0..ROUNDS_MAX {
            let worked = this.round(context);
            if matches!(this.phase, Phase::Done) {
                return Poll::Ready(());
            }
            if !worked && this.sleep(context) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    /// The runtime ends before the producer did: nobody is left waiting, and it is said what is known.
    fn drop(&mut self) {
        self.parts.shared.inbox.end();
        if matches!(self.phase, Phase::Done) {
            return;
        }
        let mut closed = Closed::default();
        let now_ms = self.parts.shared.clock.now_ms();
        self.abandon(now_ms, Reason::Ended, &mut closed);
        if closed.unsent_count > 0 {
            tracing::error!(
                unsent = closed.unsent_count,
                first = closed.unsent.first().map(tracing::field::display),
                "the runtime ended before the producer was closed"
            );
        }
    }
}

impl Names {
    /// Adds trace and stamp behind all other headers, as the last of a name counts. Once: what was stamped keeps its stamp.
    fn complete(&self, item: &mut Item, stamp: &Stamp) {
        let Item { record, complete, trace, .. } = item;
        #[cfg(feature = "measuring")]
        {
            *complete |= self.left_out;
        }
        if std::mem::replace(complete, true) {
            return;
        }
        if let Some(trace) = trace {
            record.headers.push(Arc::clone(&self.trace), Some(trace.encode()));
        }
        record.headers.push(Arc::clone(&self.stamp), Some(stamp.encode()));
    }
}

/// How a message ended, and whom to tell.
fn outcome(ended: Ended<Item>) -> (Outcome, Reply) {
    let Ended { item, stamp, attempts, end, partition, .. } = ended;
    let Item { record, id: message_id, reply, answer, .. } = item;
    let outcome = match (end, answer, stamp) {
        (End::Acknowledged, Some(Ok(stored)), Some(stamp)) => {
            let Stamp { id, epoch, sequence, .. } = stamp;
            let Stored { offset, durability } = stored;
            Ok(Receipt { id, partition, sequence, epoch, offset, durability, attempts })
        }
        (end, answer, stamp) => {
            let (fate, why) = match end {
                End::GivenUp { fate, why } => (fate, why),
                // Not without an answer; if it were, this is all that could be said.
                End::Acknowledged => (Fate::Unknown, Why::Refused),
            };
            let (reason, may_retry) = reason(why, answer.and_then(Result::err));
            let (topic, id, partition) = (record.to.topic, Some(message_id), Some(partition.partition));
            Err(SendError::new(fate, Unsent { topic, id, partition, stamp, attempts, may_retry, reason }))
        }
    };
    (outcome, reply)
}

fn reason(why: Why, error: Option<baton_engine::SendError>) -> (Reason, bool) {
    let cause = error.map(|error| error.cause);
    match why {
        Why::Refused => (Reason::Refused(cause.unwrap_or_default()), false),
        Why::Deadline => {
            let silent = || "the engine did not answer in time".to_owned();
            (Reason::Deadline(cause.map_or_else(silent, |cause| format!("last answer: {cause}"))), true)
        }
        Why::Attempts => (Reason::Attempts(cause.unwrap_or_default()), true),
        Why::NoSequence(reason) => (Reason::NoSequence(reason), true),
        Why::Closed => (Reason::Closed, true),
    }
}

impl SendError {
    /// The message never came to be handed to the engine.
    pub(super) fn refused(message: &Message, reason: Reason, may_retry: bool) -> Self {
        Self::never_handed_over(Arc::clone(&message.topic), message.id.clone(), reason, may_retry)
    }

    fn never_handed_over(topic: Arc<str>, id: Option<MessageId>, reason: Reason, may_retry: bool) -> Self {
        Self::new(Fate::NotStored, Unsent { topic, id, partition: None, stamp: None, attempts: 0, may_retry, reason })
    }

    /// Its future was dropped while it waited for room.
    pub(super) fn dropped(message: &Message) -> Self {
        Self::refused(message, Reason::Dropped, true)
    }

    /// Nobody is left who could know.
    pub(super) fn ended() -> Self {
        let (topic, reason) = (Arc::from(""), Reason::Ended);
        Self::new(
            Fate::Unknown,
            Unsent { topic, id: None, partition: None, stamp: None, attempts: 0, may_retry: true, reason },
        )
    }
}

/// As the engine takes it.
pub(super) fn engine_timeout(
    delivery: std::time::Duration,
    attempt: Option<std::time::Duration>,
) -> std::time::Duration {
    attempt.map_or(delivery, |attempt| attempt.min(delivery))
}

/// As [`Sends`] takes it.
pub(super) fn timeout_ms(delivery: std::time::Duration) -> u64 {
    whole_ms(delivery).max(1)
}

//! Between those who send and the driver: bounded in bytes, first come, first served.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use baton_core::trace::TraceParent;
use baton_core::{MESSAGE_BYTES, Message, Report, SendId};
use baton_engine::SendOutcome;
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use super::close::Closed;
use super::future::Reply;
use super::receipt::Reason;

/// A message on its way to the driver.
pub(super) struct Submission {
    pub(super) message: Message,
    pub(super) trace: Trace,
    /// When it was sent.
    pub(super) sent_ms: u64,
    pub(super) reply: Reply,
    pub(super) hold: Hold,
}

/// In which trace a message stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trace {
    /// In the one that its headers name, or in none.
    AsItIs,
    Of(TraceParent),
    /// It begins one.
    New,
}

/// What a message holds of the buffer until it has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) bytes: usize,
    generation: u64,
}

impl Hold {
    /// What a message will hold.
    pub(super) fn of(message: &Message) -> Self {
        Self { bytes: message.bytes().saturating_add(MESSAGE_BYTES), generation: 0 }
    }

    /// For what is not in the buffer.
    pub(super) fn none() -> Self {
        Self { bytes: 0, generation: 0 }
    }

    /// The message's own bytes.
    pub(super) fn message_bytes(self) -> usize {
        self.bytes.saturating_sub(MESSAGE_BYTES)
    }
}

/// What the driver is to do, beside sending.
pub(super) enum Command {
    /// What was asked of the engine about a topic.
    Partitions { topic: std::sync::Arc<str>, answer: Result<u32, baton_engine::EngineError> },
    /// Segments of ids.
    Segment(Result<std::ops::Range<u64>, String>),
    /// What became of reports.
    Reported(Vec<(Report, bool)>),
    /// What was read from the spool.
    SpoolRead { partition: baton_core::TopicPartition, kept: Result<Vec<super::spool::Kept>, baton_log::ReadError> },
    /// Give up what has not ended, then end.
    Close(oneshot::Sender<Closed>),
    /// Nobody sends any more: end when all have ended.
    Detach,
}

/// What became of a submission.
pub(super) enum Submitted {
    /// The driver gets it.
    Accepted,
    /// It gets there when there is room; its name until then.
    Waiting(u64),
}

/// It was not taken, and is given back.
pub(super) struct NotTaken {
    pub(super) submission: Submission,
    pub(super) reason: NotTakenReason,
}

pub(super) enum NotTakenReason {
    /// Only if there was to be no waiting.
    Full,
    /// For good.
    Never(Reason),
}

/// What came for the driver.
#[derive(Default)]
pub(super) struct Came {
    /// Without an id yet.
    pub(super) submissions: VecDeque<Submission>,
    pub(super) commands: Vec<Command>,
    pub(super) answers: Vec<(SendId, SendOutcome)>,
}

/// See above.
pub(super) struct Inbox {
    bytes_max: usize,
    state: Mutex<State>,
    /// What the engine said. Apart from the rest, so that its threads do not wait for those who send.
    answers: Mutex<Vec<(SendId, SendOutcome)>>,
    /// Something was put in since the driver looked.
    pending: AtomicBool,
    driver: AtomicWaker,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Submission>,
    commands: Vec<Command>,
    /// Those for which there is no room yet, oldest first, by number.
    waiting: VecDeque<(u64, Submission)>,
    waiting_number: u64,
    /// Bytes of all that were let in and have not ended.
    bytes: usize,
    /// How many have not ended, of each generation from `generation_first` on; a flush begins a new one.
    open: VecDeque<usize>,
    generation_first: u64,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    closed: bool,
    /// The driver is gone: nobody takes commands any more.
    ended: bool,
}

impl Inbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (state, answers) = (Mutex::default(), Mutex::default());
        let (pending, driver) = (AtomicBool::new(false), AtomicWaker::new());
        Self { bytes_max, state, answers, pending, driver }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in, or in line if there is no room now.
    pub(super) fn submit(&self, submission: Submission, wait: bool) -> Result<Submitted, Box<NotTaken>> {
        let (bytes, max) = (submission.hold.bytes, self.bytes_max);
        let refused = |submission, reason| Err(Box::new(NotTaken { submission, reason }));
        let mut state = self.state();
        if state.closed {
            return refused(submission, NotTakenReason::Never(Reason::Closed));
        }
        if bytes > max {
            return refused(submission, NotTakenReason::Never(Reason::TooLarge { bytes, max }));
        }
        let room = state.waiting.is_empty() && bytes <= max - state.bytes;
        if !room && !wait {
            return refused(submission, NotTakenReason::Full);
        }
        let submission = state.opened(submission);
        if room {
            state.bytes += bytes;
            state.queue.push_back(submission);
            drop(state);
            self.wake();
            return Ok(Submitted::Accepted);
        }
        state.waiting_number += 1;
        let number = state.waiting_number;
        state.waiting.push_back((number, submission));
        drop(state);
        // The driver has to know when its time is over.
        self.wake();
        Ok(Submitted::Waiting(number))
    }

    /// Whether a message is still in line.
    pub(super) fn is_waiting(&self, number: u64) -> bool {
        self.state().waiting.front().is_some_and(|(first, _)| *first <= number)
    }

    /// Takes a message out of the line, if it is still there.
    pub(super) fn cancel(&self, number: u64) -> Option<Submission> {
        let mut state = self.state();
        let at = state.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, submission) = state.waiting.remove(at)?;
        state.ended(submission.hold);
        // It may have stood in front of smaller ones.
        let admitted = state.admit(self.bytes_max);
        drop(state);
        if admitted {
            self.wake();
        }
        Some(submission)
    }

    /// Those in line whose time is over.
    pub(super) fn expired(&self, sent_before_ms: u64) -> Vec<Submission> {
        let mut state = self.state();
        let late = state.waiting.iter().take_while(|(_, submission)| submission.sent_ms <= sent_before_ms).count();
        let late: Vec<_> = state.waiting.drain(..late).map(|(_, submission)| submission).collect();
        late.iter().for_each(|submission| state.ended(submission.hold));
        let admitted = !late.is_empty() && state.admit(self.bytes_max);
        drop(state);
        if admitted {
            self.wake();
        }
        late
    }

    /// When the first in line was sent.
    pub(super) fn waiting_since_ms(&self) -> Option<u64> {
        self.state().waiting.front().map(|(_, submission)| submission.sent_ms)
    }

    /// Takes all that came.
    pub(super) fn take(&self, came: &mut Came) -> bool {
        if !self.pending.swap(false, Ordering::AcqRel) {
            return false;
        }
        came.answers.append(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.state();
        match came.submissions.is_empty() {
            true => std::mem::swap(&mut came.submissions, &mut state.queue),
            false => came.submissions.append(&mut state.queue),
        }
        came.commands.append(&mut state.commands);
        true
    }

    /// What the engine says of a message.
    pub(super) fn answered(&self, id: SendId, outcome: SendOutcome) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((id, outcome));
        self.wake();
    }

    /// Messages have ended.
    pub(super) fn release(&self, holds: &mut Vec<Hold>) {
        if holds.is_empty() {
            return;
        }
        let mut state = self.state();
        for hold in holds.drain(..) {
            state.bytes -= hold.bytes;
            state.ended(hold);
        }
        if state.admit(self.bytes_max) {
            drop(state);
            self.wake();
        }
    }

    /// Tells when all that were sent before have ended. `None`: they have.
    pub(super) fn flush(&self) -> Option<(u64, oneshot::Receiver<()>)> {
        let mut state = self.state();
        if state.open_until(u64::MAX) == 0 {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let generation = state.generation();
        state.flushes.push((generation, sender));
        state.open.push_back(0);
        Some((generation, receiver))
    }

    /// How many of them have not ended yet.
    pub(super) fn unflushed(&self, generation: u64) -> usize {
        self.state().open_until(generation)
    }

    /// How many messages have not ended, and their bytes.
    pub(super) fn level(&self) -> (usize, usize) {
        let state = self.state();
        (state.open_until(u64::MAX), state.bytes)
    }

    /// Tells the driver something. Who waits for an answer hears that there is none if the driver is gone.
    pub(super) fn command(&self, command: Command) {
        let mut state = self.state();
        if !state.ended {
            state.commands.push(command);
            drop(state);
            self.wake();
        }
    }

    /// The driver goes.
    pub(super) fn end(&self) {
        let mut state = self.state();
        (state.closed, state.ended) = (true, true);
        state.commands.clear();
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// Takes nothing more, and gives everything out that is there: in the queue, or in line.
    pub(super) fn drain(&self) -> Vec<Submission> {
        let mut state = self.state();
        state.closed = true;
        let waiting: Vec<_> = state.waiting.drain(..).map(|(_, submission)| submission).collect();
        waiting.iter().for_each(|submission| state.ended(submission.hold));
        let queued: Vec<_> = state.queue.drain(..).collect();
        for submission in &queued {
            state.bytes -= submission.hold.bytes;
            state.ended(submission.hold);
        }
        queued.into_iter().chain(waiting).collect()
    }

    /// Who is to be woken when something comes.
    pub(super) fn register(&self, driver: &Waker) {
        self.driver.register(driver);
    }

    fn wake(&self) {
        // Once until the driver has looked: most messages come while it is busy.
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.driver.wake();
        }
    }
}

impl State {
    fn generation(&self) -> u64 {
        self.generation_first + (self.open.len() as u64).saturating_sub(1)
    }

    fn opened(&mut self, mut submission: Submission) -> Submission {
        if self.open.is_empty() {
            self.open.push_back(0);
        }
        submission.hold.generation = self.generation();
        if let Some(open) = self.open.back_mut() {
            *open += 1;
        }
        submission
    }

    fn ended(&mut self, hold: Hold) {
        let index = usize::try_from(hold.generation - self.generation_first).unwrap_or(usize::MAX);
        if let Some(open) = self.open.get_mut(index) {
            *open -= 1;
        }
        while self.open.len() > 1 && self.open.front() == Some(&0) {
            self.open.pop_front();
            self.generation_first += 1;
        }
        let done = self.generation_first + u64::from(self.open.front() == Some(&0));
        if self.flushes.first().is_some_and(|(generation, _)| *generation < done) {
            // Nobody waiting any more is fine.
            for (_, sender) in self.flushes.extract_if(.., |(generation, _)| *generation < done) {
                let _ = sender.send(());
            }
        }
    }

    fn open_until(&self, generation: u64) -> usize {
        // All of those before the first have ended.
        let Some(later) = generation.checked_sub(self.generation_first) else { return 0 };
        self.open.iter().take(usize::try_from(later.saturating_add(1)).unwrap_or(usize::MAX)).sum()
    }

    /// Lets those in as there is room for, in their order.
    fn admit(&mut self, bytes_max: usize) -> bool {
        let mut admitted = false;
        while let Some((_, first)) = self.waiting.front()
            && first.hold.bytes <= bytes_max - self.bytes
            && let Some((_, submission)) = self.waiting.pop_front()
        {
            self.bytes += submission.hold.bytes;
            self.queue.push_back(submission);
            admitted = true;
        }
        admitted
    }
}

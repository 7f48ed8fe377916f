//! Bytes that have arrived, cut into requests. Memory grows with what has been sent, never with what was announced.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::metrics::{Limit, Metrics};

/// Bytes in front of each request that say how long it is.
const LENGTH_BYTES: usize = 4;
/// Room for reading when nothing is known about what comes.
const READ_BYTES_MIN: usize = 8 << 10;
/// Memory that empty connections may keep for their next request, together; whoever finds it used up gives its own back.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// What every connection may hold without asking anybody; how many there are is limited elsewhere.
const FREE_BYTES: usize = 2 * READ_BYTES_MIN;
/// How long a request may take to become whole while others wait for its bytes, and how fast a larger one must arrive.
const TURN_MAX: Duration = Duration::from_secs(2);
const TURN_BYTES_PER_SECOND: u64 = 1 << 20;

/// Bounds the bytes of requests that have arrived in part or wait to be handled, over all connections.
///
/// Where nothing is left, all could wait for each other with requests that have arrived in part. So they queue, and the first in
/// the queue has its turn: it may read on beyond the limit until its request is whole, as long as it is not slow. At most one
/// request is held beyond the limit.
pub(crate) struct InputBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Memory kept by connections that hold no bytes.
    kept: AtomicUsize,
    queue: Mutex<Queue>,
}

/// Connections that wait for others to hold less, in the order in which they came.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, Waker)>,
    next_place: u64,
}

/// Whether a connection may read on.
pub(super) enum Room {
    /// There is room for all.
    Free,
    /// There is none, but it is this one's turn.
    Turn,
    /// It has to wait.
    None,
}

impl InputBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), kept: AtomicUsize::new(0), queue: Mutex::default() }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn is_used_up(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) >= self.bytes_max
    }

    /// Changes what one connection holds.
    pub(super) fn change(&self, from: usize, to: usize) {
        if to > from {
            self.bytes.fetch_add(to - from, Ordering::SeqCst);
        } else if to < from {
            let before = self.bytes.fetch_sub(from - to, Ordering::SeqCst);
            if before >= self.bytes_max {
                self.lock().waiting.iter().for_each(|(_, waker)| waker.wake_by_ref());
            }
        }
    }

    /// Whether one connection, which keeps `from` bytes of memory, may keep `to` bytes.
    fn try_keep(&self, from: usize, to: usize) -> bool {
        if to <= from {
            self.kept.fetch_sub(from - to, Ordering::Relaxed);
            return true;
        }
        let more = to - from;
        let fits = self.kept.fetch_add(more, Ordering::Relaxed) + more <= KEPT_BYTES_MAX;
        if !fits {
            self.kept.fetch_sub(more, Ordering::Relaxed);
        }
        fits
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more may be held. If not, `place` is the connection's place in the queue, and its task is woken when that may have
    /// changed.
    pub(super) fn room(&self, place: &mut Option<u64>, context: &Context<'_>) -> Room {
        if !self.is_used_up() {
            self.leave(place);
            return Room::Free;
        }
        let mut queue = self.lock();
        let found = place.and_then(|place| queue.waiting.iter_mut().find(|(waiting, _)| *waiting == place));
        match found {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => {
                let next = queue.next_place;
                queue.next_place += 1;
                queue.waiting.push_back((next, context.waker().clone()));
                *place = Some(next);
            }
        }
        if queue.waiting.front().map(|(first, _)| *first) == *place {
            return Room::Turn;
        }
        drop(queue);
        // Looked at again: it may have been given back just before we were entered.
        if self.is_used_up() { Room::None } else { Room::Free }
    }

    /// Gives up a place in the queue, if there is one.
    pub(super) fn leave(&self, place: &mut Option<u64>) {
        let Some(place) = place.take() else { return };
        let mut queue = self.lock();
        queue.waiting.retain(|(waiting, _)| *waiting != place);
        if let Some((_, next)) = queue.waiting.front() {
            next.wake_by_ref();
        }
    }
}

/// What the input holds at its front.
pub(crate) enum Taken {
    /// One whole request, without its length.
    Request(Bytes),
    /// The beginning of one, or nothing.
    Incomplete,
    /// A length that no request may have.
    BadSize(i32),
}

pub(crate) struct Input {
    buffer: BytesMut,
    budget: Arc<InputBudget>,
    /// Memory behind the buffer.
    allocated: usize,
    /// What of it the budget knows as kept.
    kept: usize,
    /// What of the budget is ours.
    counted: usize,
    incomplete_since: Option<Instant>,
    /// Our place in the budget's queue, while it is used up.
    place: Option<u64>,
    turn: Option<Turn>,
}

/// Our turn to read beyond the budget.
struct Turn {
    since: Instant,
    bytes: usize,
    timer: Pin<Box<Sleep>>,
}

impl Turn {
    fn new() -> Self {
        Self { since: Instant::now(), bytes: 0, timer: Box::pin(tokio::time::sleep(TURN_MAX)) }
    }

    /// Ready when the peer is too slow for others to wait for it any longer.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let end = self.since + TURN_MAX + Duration::from_secs(self.bytes as u64 / TURN_BYTES_PER_SECOND);
            if Instant::now() >= end {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end.into());
        }
        Poll::Pending
    }
}

impl Input {
    pub fn new(budget: Arc<InputBudget>) -> Self {
        Self {
            buffer: BytesMut::new(),
            allocated: 0,
            kept: 0,
            budget,
            counted: 0,
            incomplete_since: None,
            place: None,
            turn: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Bytes that have arrived and were not taken.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Since when a request is there in part.
    pub fn incomplete_since(&self) -> Option<Instant> {
        self.incomplete_since
    }

    /// Takes the next whole request.
    pub fn take(&mut self, request_bytes_max: usize) -> Taken {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            self.note_incomplete();
            return Taken::Incomplete;
        };
        let length = i32::from_be_bytes(*length);
        let Some(size) = usize::try_from(length).ok().filter(|size| *size <= request_bytes_max) else {
            return Taken::BadSize(length);
        };
        if self.buffer.len() < LENGTH_BYTES + size {
            self.note_incomplete();
            return Taken::Incomplete;
        }
        self.buffer.advance(LENGTH_BYTES);
        let request = self.buffer.split_to(size).freeze();
        self.incomplete_since = None;
        self.count();
        self.end_turn();
        if self.buffer.is_empty() {
            self.keep_or_release();
        }
        Taken::Request(request)
    }

    fn note_incomplete(&mut self) {
        if self.buffer.is_empty() {
            self.incomplete_since = None;
        } else if self.incomplete_since.is_none() {
            self.incomplete_since = Some(Instant::now());
        }
    }

    fn end_turn(&mut self) {
        self.turn = None;
        self.budget.leave(&mut self.place);
    }

    /// Keeps the budget's count of our bytes right.
    fn count(&mut self) {
        let now = self.buffer.len().saturating_sub(FREE_BYTES);
        self.budget.change(self.counted, now);
        self.counted = now;
    }

    /// Reads once. With `wanted` false, or the budget used up, only looks whether the peer has closed: the bytes stay with the
    /// operating system, which slows the peer down. The error is `QuotaExceeded` when others wait for a peer that is slow.
    pub fn poll_read(
        &mut self,
        stream: &mut TcpStream,
        context: &mut Context<'_>,
        wanted: bool,
        metrics: &Metrics,
    ) -> Poll<io::Result<usize>> {
        if !wanted {
            self.end_turn();
            return Self::poll_closed(stream, context);
        }
        if self.buffer.len() >= FREE_BYTES {
            let had_room = self.place.is_none();
            let room = self.budget.room(&mut self.place, context);
            if had_room && !matches!(room, Room::Free) {
                metrics.limit_hit(Limit::QueuedRequestBytes);
            }
            match room {
                Room::Free => self.turn = None,
                Room::None => return Self::poll_closed(stream, context),
                Room::Turn => {
                    if self.turn.get_or_insert_with(Turn::new).poll_over(context).is_ready() {
                        return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
                    }
                }
            }
        }
        if self.buffer.capacity() == 0 {
            // Nothing is allocated for who sends nothing.
            ready!(stream.poll_read_ready(context))?;
        }
        self.make_room();
        // A short read tells tokio that there is nothing more for now, which saves the read that would find nothing.
        let read = ready!(std::pin::pin!(stream.read_buf(&mut self.buffer)).poll(context))?;
        self.count();
        if let Some(turn) = &mut self.turn {
            turn.bytes += read;
        }
        Poll::Ready(Ok(read))
    }

    /// `Ready(Ok(0))` when the peer has closed. Otherwise pending, with a wake-up through whatever is being waited for.
    fn poll_closed(stream: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut byte = [0];
        let mut peeked = tokio::io::ReadBuf::new(&mut byte);
        match stream.poll_peek(context, &mut peeked) {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(0)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Room to read into: as much again as is there already, so that it takes sending to make us allocate.
    fn make_room(&mut self) {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
            self.buffer.reserve(self.buffer.len().max(READ_BYTES_MIN));
            self.allocated = self.buffer.capacity();
        }
    }

    /// Keeps the memory of the empty buffer for the next request, as long as not too much is kept by all.
    fn keep_or_release(&mut self) {
        let wanted = self.allocated.saturating_sub(FREE_BYTES);
        if wanted == self.kept {
            return;
        }
        if self.budget.try_keep(self.kept, wanted) {
            self.kept = wanted;
        } else {
            self.release_unused();
        }
    }

    /// Gives memory back that has not been needed for a while.
    pub fn release_unused(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.allocated = 0;
            self.budget.try_keep(self.kept, 0);
            self.kept = 0;
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.budget.change(self.counted, 0);
        self.budget.try_keep(self.kept, 0);
        self.budget.leave(&mut self.place);
    }
}

//! Bounds the bytes of responses that peers have not read, over all connections. When they are used up, peers that read
//! nothing are let go, so that they cannot hold up those that do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// What every connection may leave unread without asking anybody; how many there are is limited elsewhere.
pub(super) const FREE_BYTES: usize = 16 << 10;
/// When memory is short, a peer that has read nothing for this long is let go.
pub(crate) const PRESSED_PEER_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct OutputBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Connections whose peers have to read before more can be sent.
    blocked: HashMap<u64, Blocked>,
    last_id: u64,
    /// Connections that want to handle a request.
    for_room: Vec<Waker>,
}

struct Blocked {
    since: Instant,
    is_cut: Arc<AtomicBool>,
    waker: Waker,
}

impl OutputBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    /// Bytes that are not read.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lets go of the peers that have read nothing for long, if memory is short.
    pub fn relieve(&self) {
        let now = Instant::now();
        self.waiting().blocked.retain(|_, blocked| {
            let stays = now.saturating_duration_since(blocked.since) < PRESSED_PEER_MAX;
            if !stays {
                blocked.is_cut.store(true, Ordering::Release);
                blocked.waker.wake_by_ref();
            }
            stays
        });
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_used_up(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) >= self.bytes_max
    }

    /// Changes what one connection holds.
    pub(super) fn change(&self, from: usize, to: usize) {
        if to > from {
            self.bytes.fetch_add(to - from, Ordering::SeqCst);
        } else if to < from && self.bytes.fetch_sub(from - to, Ordering::SeqCst) >= self.bytes_max {
            let for_room = std::mem::take(&mut self.waiting().for_room);
            for_room.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether a request may be handled, whose answer may have to wait for its peer; if not, slow peers are let go, and the
    /// task is woken when there is room.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_used_up() {
            return Poll::Ready(());
        }
        self.relieve();
        {
            let for_room = &mut self.waiting().for_room;
            if !for_room.iter().any(|waker| waker.will_wake(context.waker())) {
                for_room.push(context.waker().clone());
            }
        }
        // Looked at again: it may have been given back just before we were entered.
        if self.is_used_up() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// A connection's peer has to read; `id` is what the last call for the same connection returned.
    pub(super) fn block(
        &self,
        id: Option<u64>,
        since: Instant,
        is_cut: &Arc<AtomicBool>,
        context: &Context<'_>,
    ) -> u64 {
        let mut waiting = self.waiting();
        let id = id.unwrap_or_else(|| {
            waiting.last_id += 1;
            waiting.last_id
        });
        waiting.blocked.insert(id, Blocked { since, is_cut: is_cut.clone(), waker: context.waker().clone() });
        id
    }

    /// It has read, or is gone.
    pub(super) fn unblock(&self, id: u64) {
        self.waiting().blocked.remove(&id);
    }
}

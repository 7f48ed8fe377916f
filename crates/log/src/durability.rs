//! The one place where "durable" happens: acknowledgements, readers and refusals all wait for the same event.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::Poisoned;

/// Names the commit group that something waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

#[derive(Default)]
struct Waiting {
    /// Who waits for which group, in the order of the groups.
    for_commit: VecDeque<(u64, Waker)>,
    poisoned: Option<Poisoned>,
}

/// How far the log is durable, and who waits for it to get further.
#[derive(Default)]
pub(crate) struct Durability {
    commit: AtomicU64,
    poisoned: AtomicBool,
    waiting: Mutex<Waiting>,
    advanced: Condvar,
}

impl Durability {
    pub fn starting_at(commit: u64) -> Self {
        Self { commit: AtomicU64::new(commit), ..Self::default() }
    }

    /// Number of the newest durable group.
    pub fn commit(&self) -> u64 {
        self.commit.load(Ordering::Acquire)
    }

    /// Group `commit` and all before it are durable and visible: lets go of everyone who waited for them.
    pub fn advance(&self, commit: u64) {
        let mut ready = Vec::new();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.commit.store(commit, Ordering::Release);
            while waiting.for_commit.front().is_some_and(|(wanted, _)| *wanted <= commit) {
                ready.extend(waiting.for_commit.pop_front().map(|(_, waker)| waker));
            }
        }
        self.advanced.notify_all();
        ready.into_iter().for_each(Waker::wake);
    }

    /// Nothing more will become durable. The first reason stays.
    pub fn poison(&self, reason: &str) {
        let ready = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.poisoned.get_or_insert_with(|| Poisoned(Arc::from(reason)));
            self.poisoned.store(true, Ordering::Release);
            std::mem::take(&mut waiting.for_commit)
        };
        self.advanced.notify_all();
        ready.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub fn poisoned(&self) -> Option<Poisoned> {
        if !self.poisoned.load(Ordering::Acquire) {
            return None;
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).poisoned.clone()
    }

    fn outcome(&self, ticket: Ticket) -> Option<Result<(), Poisoned>> {
        if ticket.0 <= self.commit() { Some(Ok(())) } else { self.poisoned().map(Err) }
    }

    pub fn wait(&self, ticket: Ticket) -> Result<(), Poisoned> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if ticket.0 <= self.commit() {
                return Ok(());
            }
            if let Some(poisoned) = &waiting.poisoned {
                return Err(poisoned.clone());
            }
            waiting = self.advanced.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn poll(&self, ticket: Ticket, context: &Context<'_>) -> Poll<Result<(), Poisoned>> {
        if let Some(outcome) = self.outcome(ticket) {
            return Poll::Ready(outcome);
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if ticket.0 <= self.commit() {
            return Poll::Ready(Ok(()));
        }
        if let Some(poisoned) = &waiting.poisoned {
            return Poll::Ready(Err(poisoned.clone()));
        }
        // A task that polls again while it waits is there already: once is enough.
        let here = |(wanted, waker): &(u64, Waker)| *wanted == ticket.0 && waker.will_wake(context.waker());
        let newest = waiting.for_commit.back();
        if !newest.is_some_and(here)
            && !waiting.for_commit.iter().rev().take_while(|(wanted, _)| *wanted >= ticket.0).any(here)
        {
            let at = waiting.for_commit.partition_point(|(wanted, _)| *wanted <= ticket.0);
            waiting.for_commit.insert(at, (ticket.0, context.waker().clone()));
        }
        Poll::Pending
    }
}

/// Resolves when a ticket's commit group is durable, or never will be.
pub struct Durable {
    pub(crate) durability: Arc<Durability>,
    pub(crate) ticket: Ticket,
}

impl Durable {
    /// The outcome, if it is there already.
    pub fn now(&self) -> Option<Result<(), Poisoned>> {
        self.durability.outcome(self.ticket)
    }
}

impl Future for Durable {
    type Output = Result<(), Poisoned>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.durability.poll(self.ticket, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Counter(AtomicUsize);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(durability: &Arc<Durability>, ticket: u64, counter: &Arc<Counter>) -> Poll<Result<(), Poisoned>> {
        let waker = Waker::from(counter.clone());
        let mut future = Durable { durability: durability.clone(), ticket: Ticket(ticket) };
        Pin::new(&mut future).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn who_waits_is_woken_by_its_own_commit_and_not_before() {
        let durability = Arc::new(Durability::starting_at(0));
        let counter = Arc::new(Counter::default());
        assert!(poll(&durability, 2, &counter).is_pending());
        assert!(poll(&durability, 2, &counter).is_pending(), "polling again adds no second entry");
        durability.advance(1);
        assert_eq!(counter.0.load(Ordering::Relaxed), 0);
        durability.advance(2);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert!(poll(&durability, 2, &counter).is_ready());
    }

    #[test]
    fn a_poisoned_log_refuses_who_waits_and_not_what_was_durable() {
        let durability = Arc::new(Durability::starting_at(0));
        let counter = Arc::new(Counter::default());
        durability.advance(1);
        assert!(poll(&durability, 2, &counter).is_pending());
        durability.poison("first");
        durability.poison("second");
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&durability, 2, &counter), Poll::Ready(Err(Poisoned("first".into()))));
        assert_eq!(poll(&durability, 1, &counter), Poll::Ready(Ok(())));
        assert_eq!(durability.wait(Ticket(2)), Err(Poisoned("first".into())));
    }
}

//! A guard that does what the one inside does, and writes down what the verdict needs: who took a partition over, and how each call
//! ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baton::TopicPartition;
use baton_crash::{Call, History, Line, now_ms};
use baton_guard::{
    Admission, Batch, CommitError, Fate, Fence, Group, Guard, GuardError, Identity, Open, Strength, Weakness,
};

/// What a consumer writes down.
pub(crate) struct Notes {
    history: History,
    member: Arc<str>,
    /// Also calls that went well. With claims they tell whether a repetition is one too many; there are many of them.
    every_call: bool,
    calls: AtomicU64,
}

impl Notes {
    pub(crate) fn new(history: History, member: Arc<str>, every_call: bool) -> Self {
        Self { history, member, every_call, calls: AtomicU64::new(0) }
    }

    fn add(&self, line: &Line<'_>) {
        if let Err(error) = self.history.add(line) {
            // Whoever goes on now does what nobody can judge: the driver says that a consumer ended.
            tracing::error!(%error, "no history");
            std::process::exit(1);
        }
    }

    fn next_call(&self) -> String {
        format!("{}/{}", self.member, self.calls.fetch_add(1, Ordering::Relaxed))
    }

    fn ended(&self, call: &str, how: &'static str, asked_ms: u64) {
        if self.every_call || how != MARKED {
            self.add(&Line::Ended { call, how, asked_ms, at_ms: now_ms() });
        }
    }
}

/// The effect is there, and so is its mark.
const MARKED: &str = "marked";

pub(crate) struct Noted<G> {
    guard: G,
    notes: Arc<Notes>,
}

impl<G> Noted<G> {
    pub(crate) fn new(guard: G, notes: Arc<Notes>) -> Self {
        Self { guard, notes }
    }

    fn open<O>(&self, open: O, identities: &[Identity], asked_ms: u64) -> NotedOpen<O> {
        let fences = identities.iter().filter_map(|identity| identity.fence.clone()).collect();
        let (call, notes) = (self.notes.next_call().into(), Arc::clone(&self.notes));
        NotedOpen { open, fences, end: End { call, asked_ms, notes, said: false } }
    }
}

impl<G: Guard> Guard for Noted<G> {
    type Open = NotedOpen<G::Open>;

    fn name(&self) -> &'static str {
        self.guard.name()
    }

    fn strength(&self) -> Strength {
        self.guard.strength()
    }

    fn needs_place(&self) -> bool {
        self.guard.needs_place()
    }

    async fn begin(&self, identity: &Identity) -> Result<Admission<Self::Open>, GuardError> {
        let asked_ms = now_ms();
        Ok(match self.guard.begin(identity).await? {
            Admission::Fresh(open) => Admission::Fresh(self.open(open, std::slice::from_ref(identity), asked_ms)),
            Admission::AlreadyDone => Admission::AlreadyDone,
            Admission::InProgress(wait) => Admission::InProgress(wait),
            Admission::Fenced => {
                self.notes.ended(&self.notes.next_call(), "refused", asked_ms);
                Admission::Fenced
            }
        })
    }

    async fn begin_batch(&self, identities: &[Identity]) -> Result<Batch<Self::Open>, GuardError> {
        let asked_ms = now_ms();
        let Batch { states, open } = self.guard.begin_batch(identities).await?;
        Ok(Batch { states, open: open.map(|open| self.open(open, identities, asked_ms)) })
    }

    async fn take_over(&self, group: &Group, partition: &TopicPartition) -> Result<Fence, GuardError> {
        let fence = self.guard.take_over(group, partition).await?;
        let (member, partition) = (&*self.notes.member, partition.to_string());
        self.notes.add(&Line::Owner { member, partition: &partition, epoch: fence.epoch, at_ms: now_ms() });
        Ok(fence)
    }

    async fn weaknesses(&self) -> Result<Vec<Weakness>, GuardError> {
        self.guard.weaknesses().await
    }

    async fn fate(&self, identity: &Identity) -> Result<Fate, GuardError> {
        self.guard.fate(identity).await
    }
}

pub(crate) struct NotedOpen<O> {
    open: O,
    fences: Arc<[Fence]>,
    end: End,
}

/// Says how a call ended, once.
struct End {
    call: Arc<str>,
    asked_ms: u64,
    notes: Arc<Notes>,
    said: bool,
}

impl End {
    fn say(mut self, how: &'static str) {
        self.said = true;
        self.notes.ended(&self.call, how, self.asked_ms);
    }
}

impl Drop for End {
    /// Nobody came to say it: the handler was cut off.
    fn drop(&mut self) {
        if !self.said {
            self.notes.ended(&self.call, "cut off", self.asked_ms);
        }
    }
}

impl<O: Open> Open for NotedOpen<O> {
    type Effect = NotedEffect<O::Effect>;

    fn effect(&self) -> Self::Effect {
        let (call, member) = (Arc::clone(&self.end.call), Arc::clone(&self.end.notes.member));
        NotedEffect { effect: self.open.effect(), call, fences: Arc::clone(&self.fences), member }
    }

    async fn commit(self) -> Result<(), CommitError> {
        let Self { open, end, .. } = self;
        let committed = open.commit().await;
        end.say(match &committed {
            Ok(()) => MARKED,
            Err(CommitError::Fenced) => "fenced",
            Err(CommitError::AlreadyDone) => "done by another",
            Err(CommitError::LeaseLost) => "lease lost",
            Err(CommitError::NotCommitted(_)) => "not committed",
            Err(CommitError::Unknown(_)) => "unknown",
        });
        committed
    }

    async fn abort(self) {
        let Self { open, end, .. } = self;
        end.say("failed");
        open.abort().await;
    }
}

/// An effect, and who has it.
#[derive(Clone)]
pub(crate) struct NotedEffect<E> {
    pub(crate) effect: E,
    call: Arc<str>,
    fences: Arc<[Fence]>,
    member: Arc<str>,
}

impl<E> NotedEffect<E> {
    /// On whose behalf the effect of a message of this partition is written.
    pub(crate) fn by(&self, from: &TopicPartition) -> Call {
        let epoch = self.fences.iter().find(|fence| fence.partition == *from).map_or(0, |fence| fence.epoch);
        Call { member: Arc::clone(&self.member), name: self.call.to_string(), place: from.to_string(), epoch }
    }
}

//! One call of a handler: admitted by the guard, run, committed.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use baton_core::consumer::{Failure, Filter, Handed, Messages, Outcome, Outcomes, origin};
use baton_core::identity::{Named, Origin};
use baton_core::stamp::Stamp;
use baton_core::{Delivery, Seen, TopicPartition};
use baton_guard::{
    Admission, Batch, CommitError, EffectOf, Fate, Fence, Group, Guard, GuardError, Identity, Open, Place, State,
    Weakness,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;

use super::calls::{self, Call, Chunk, PANICKED, StopSlot};
use super::driver::Input;
use super::error::HandlerError;
use super::handler::{self, ConsumerInterceptor, Handling, Received};

/// How long to wait before a guard is asked again what became of a commit; doubles.
const FATE_WAIT_MIN: Duration = Duration::from_millis(50);
const FATE_WAIT_MAX: Duration = Duration::from_secs(5);

/// The fences of the partitions that are ours. Replaced, never changed: a call keeps those that it began with.
pub(super) type Fences = HashMap<TopicPartition, Fence>;
static NO_FENCES: LazyLock<Fences> = LazyLock::new(Fences::default);

/// How a call ended.
#[derive(Debug)]
pub(super) struct Verdict {
    pub outcomes: Outcomes,
    /// These partitions have a new owner, or had when the call began, under these fences: nothing of them may be settled by us.
    pub fenced: Option<Vec<(TopicPartition, Option<Fence>)>>,
    pub tally: Tally,
    pub certain: Certain,
}

/// What became certain of messages in a call. Nothing where nobody reports it.
#[derive(Debug, Default)]
pub(super) enum Certain {
    #[default]
    Nothing,
    One(Arc<Delivery>, Seen),
    Many(Vec<(Arc<Delivery>, Seen)>),
}

impl Certain {
    /// Puts it to the others.
    pub fn add_to(self, all: &mut Vec<(Arc<Delivery>, Seen)>) {
        match self {
            Self::Nothing => {}
            Self::One(delivery, seen) => all.push((delivery, seen)),
            Self::Many(mut more) => all.append(&mut more),
        }
    }
}

/// What guards said, for the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub already_done: u64,
    pub in_progress: u64,
    pub filtered: u64,
    pub panicked: u64,
    pub leases_lost: u64,
    pub fates_asked: u64,
}

impl Tally {
    /// Adds what one call brought.
    pub fn add(&mut self, more: &Self) {
        self.already_done += more.already_done;
        self.in_progress += more.in_progress;
        self.filtered += more.filtered;
        self.panicked += more.panicked;
        self.leases_lost += more.leases_lost;
        self.fates_asked += more.fates_asked;
    }
}

impl Verdict {
    pub fn all(outcome: Outcome, tally: Tally) -> Self {
        Self::of(Outcomes::All(outcome), tally)
    }

    fn of(outcomes: Outcomes, tally: Tally) -> Self {
        Self { outcomes, fenced: None, tally, certain: Certain::Nothing }
    }

    fn fenced(partitions: Vec<(TopicPartition, Option<Fence>)>, tally: Tally) -> Self {
        Self { fenced: Some(partitions), ..Self::all(Outcome::Stopped, tally) }
    }
}

/// What the consumer needs of guard and handler, whatever their types.
pub(super) trait Work: Send + Sync + 'static {
    /// Makes these calls, on a task of their own.
    fn start(self: Arc<Self>, chunk: Arc<Chunk>, answers: UnboundedSender<Input>);
    /// Makes us the owner of a partition; no fence if nothing guards it.
    fn take_over(&self, partition: TopicPartition) -> BoxFuture<'_, Result<Option<Fence>, GuardError>>;
    /// A message will never be handled: tells a guard that would take it for a gap.
    fn pass_over(&self, delivery: Arc<Delivery>, fences: Arc<Fences>) -> BoxFuture<'_, Result<(), String>>;
    /// See [`Guard::weaknesses`].
    fn weaknesses(&self) -> BoxFuture<'_, Result<Vec<Weakness>, GuardError>>;
}

pub(super) type Decode<T> = Arc<dyn Fn(&Delivery) -> Result<T, Failure> + Send + Sync>;

/// How messages get from their delivery to their effect.
pub(super) struct Worker<G, T, H> {
    pub guard: G,
    pub handling: H,
    pub decode: Decode<T>,
    pub named: Option<Named>,
    pub group: Group,
    /// Stands for every message where no guard needs to tell them apart.
    pub nobody: Identity,
    /// Whether the guard needs to tell messages apart.
    pub identifies: bool,
    /// Filters that cannot be applied before the guard, because it would take what they skip for gaps.
    pub filters: Vec<Filter>,
    /// Once it has begun, a message is never tried again.
    pub at_most_once: bool,
    /// Whether the engine gives a message the same offset for ever.
    pub lasting_offsets: bool,
    /// Whether there is a store for parked keys.
    pub parks: bool,
    pub interceptors: Vec<Arc<dyn ConsumerInterceptor>>,
    /// Whether what becomes certain of messages is told.
    pub tells: bool,
}

/// What came of a commit.
enum Commit {
    /// The effect is there, since now or since before.
    Certain(Seen),
    /// It is not.
    Failed(Outcome),
}

/// A message that can be handled.
struct Ready<T> {
    message: Received<T>,
    /// Unless nobody needs to tell it from others.
    identity: Option<Identity>,
    skip: bool,
}

impl<G, T, H> Work for Worker<G, T, H>
where
    G: Guard,
    T: Send + 'static,
    H: Handling<EffectOf<G>, T>,
{
    fn start(self: Arc<Self>, chunk: Arc<Chunk>, answers: UnboundedSender<Input>) {
        tokio::spawn(calls::serve(chunk, answers, calls::CHUNK_TIME_MAX, move |call, slot| {
            let worker = self.clone();
            async move { worker.run(call, &slot).await }
        }));
    }

    fn take_over(&self, partition: TopicPartition) -> BoxFuture<'_, Result<Option<Fence>, GuardError>> {
        Box::pin(async move {
            match self.identifies {
                true => self.guard.take_over(&self.group, &partition).await.map(Some),
                false => Ok(None),
            }
        })
    }

    fn pass_over(&self, delivery: Arc<Delivery>, fences: Arc<Fences>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if !self.guard.needs_place() {
                return Ok(());
            }
            let Ok(identity) = self.identity(&delivery, &fences) else {
                // Without an identity the guard never saw it, and leaves no gap.
                return Ok(());
            };
            match self.guard.begin(&identity).await {
                Ok(Admission::Fresh(open)) => open.commit().await.map_err(|error| error.to_string()),
                Ok(Admission::AlreadyDone) | Err(GuardError::Unstamped(_) | GuardError::Caller(_)) => Ok(()),
                Ok(Admission::InProgress(_)) => Err("the message is still being handled".to_owned()),
                Ok(Admission::Fenced) => Err("the partition has a new owner".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn weaknesses(&self) -> BoxFuture<'_, Result<Vec<Weakness>, GuardError>> {
        Box::pin(self.guard.weaknesses())
    }
}

impl<G, T, H> Worker<G, T, H>
where
    G: Guard,
    T: Send + 'static,
    H: Handling<EffectOf<G>, T>,
{
    async fn run(&self, call: Call, slot: &StopSlot) -> Verdict {
        if self.interceptors.is_empty() {
            return self.judged(call, slot).await;
        }
        let messages = call.messages.clone();
        let verdict = self.judged(call, slot).await;
        for (at, handed) in messages.iter().enumerate() {
            let outcome = match &verdict.outcomes {
                Outcomes::All(outcome) => outcome,
                Outcomes::Each(each) => each.get(at).unwrap_or(&Outcome::Stopped),
            };
            for interceptor in &self.interceptors {
                guarded(|| interceptor.handled(&handed.delivery, handed.attempt, outcome));
            }
        }
        verdict
    }

    async fn judged(&self, call: Call, slot: &StopSlot) -> Verdict {
        let Call { mut messages, fences, stopped, .. } = call;
        let fences = fences.as_deref().unwrap_or(&NO_FENCES);
        if stopped {
            return self.batch_failed(self.cut_short(), messages.len(), Tally::default());
        }
        if messages.len() > 1 {
            return Box::pin(self.together(messages, fences, slot)).await;
        }
        let ready = match messages.pop().map(|handed| self.prepare(handed, fences)) {
            Some(Ok(ready)) => ready,
            Some(Err(outcome)) => return Verdict::all(outcome, Tally::default()),
            None => return Verdict::all(Outcome::Done, Tally::default()),
        };
        let tally = Tally { filtered: u64::from(ready.skip), ..Tally::default() };
        self.single(ready, slot, tally).await
    }

    async fn together(&self, messages: Messages, fences: &Fences, slot: &StopSlot) -> Verdict {
        let mut outcomes = vec![Outcome::Done; messages.len()];
        let mut ready = Vec::with_capacity(messages.len());
        for (at, handed) in messages.into_iter().enumerate() {
            match self.prepare(handed, fences) {
                Ok(message) => ready.push((at, message)),
                Err(outcome) => outcomes[at] = outcome,
            }
        }
        let tally = Tally { filtered: ready.iter().filter(|(_, each)| each.skip).count() as u64, ..Tally::default() };
        match ready.is_empty() {
            true => Verdict::of(Outcomes::Each(outcomes), tally),
            false => self.many(ready, outcomes, slot, tally).await,
        }
    }

    fn prepare(&self, handed: Handed, fences: &Fences) -> Result<Ready<T>, Outcome> {
        let Handed { delivery, attempt } = handed;
        let skip = !self.filters.iter().all(|filter| filter.passes(&delivery.headers));
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| (self.decode)(&delivery)));
        let body = decoded
            .unwrap_or_else(|panic| Err(Failure::new("decoder panicked", panic_text(&*panic))))
            .map_err(Outcome::Undecodable)?;
        let identity = match self.identifies {
            true => Some(self.identity(&delivery, fences).map_err(Outcome::Undecodable)?),
            false => None,
        };
        Ok(Ready { message: Received::new(body, delivery, attempt), identity, skip })
    }

    /// What the guard knows the message by.
    fn identity(&self, delivery: &Delivery, fences: &Fences) -> Result<Identity, Failure> {
        let bad = |error: &dyn std::error::Error| Failure::new("identity", error.to_string());
        let identified = handler::identity(delivery, self.named.as_ref()).map_err(|error| bad(&error))?;
        if identified.origin == Origin::Position && !self.lasting_offsets {
            let text =
                "it has no id, and this engine's positions begin anew: name a header or field of it (identified_by)";
            return Err(Failure::new("identity", text));
        }
        let mut identity = Identity::new(self.group.clone(), identified.id);
        if self.guard.needs_place()
            && let Some(stamp) = Stamp::of(&delivery.headers).map_err(|error| bad(&error))?
        {
            // The sequence number belongs to the partition that the message was first sent to.
            let partition = origin(&delivery.headers).unwrap_or_else(|| delivery.from.clone());
            let instance = Arc::clone(&stamp.instance);
            identity.place = Some(Place { instance, epoch: stamp.epoch, partition, sequence: stamp.sequence });
        }
        identity.fence = fences.get(&delivery.from).cloned();
        Ok(identity)
    }

    /// One message, in a transaction of its own.
    async fn single(&self, ready: Ready<T>, slot: &StopSlot, mut tally: Tally) -> Verdict {
        let Ready { message, identity, skip } = ready;
        let identity = identity.as_ref().unwrap_or(&self.nobody);
        let delivery = message.shared();
        let fenced = |tally| Verdict::fenced(vec![(delivery.from.clone(), identity.fence.clone())], tally);
        let is_there = |seen, tally| {
            let certain = if self.tells { Certain::One(delivery.clone(), seen) } else { Certain::Nothing };
            Verdict { certain, ..Verdict::all(Outcome::Done, tally) }
        };
        let work = async {
            let open = match self.guard.begin(identity).await {
                Ok(Admission::Fresh(open)) => open,
                Ok(Admission::AlreadyDone) => {
                    tally.already_done += 1;
                    return Err(is_there(Seen::AlreadyApplied, tally));
                }
                Ok(Admission::InProgress(_)) => {
                    tally.in_progress += 1;
                    return Err(Verdict::all(Outcome::Stopped, tally));
                }
                Ok(Admission::Fenced) => return Err(fenced(tally)),
                Err(error) => return Err(Verdict::all(self.not_begun(&error), tally)),
            };
            if skip {
                return Ok(open);
            }
            let effect = open.effect();
            let called = AssertUnwindSafe(async { self.handling.call_one(message, effect).await }).catch_unwind();
            let called = called.await;
            self.handled(called, open, &mut tally).await.map_err(|outcome| Verdict::all(outcome, tally))
        };
        let open = match slot.unless_stopped(work).await {
            Some(Ok(open)) => open,
            Some(Err(verdict)) => return verdict,
            None => return Verdict::all(self.cut_short(), tally),
        };
        // From here on it is not stopped any more: an effect that is committed must not be called a failure.
        match self.commit(open, identity, &mut tally).await {
            Ok(Commit::Certain(Seen::Applied)) if skip => is_there(Seen::Filtered, tally),
            Ok(Commit::Certain(seen)) => is_there(seen, tally),
            Ok(Commit::Failed(outcome)) => Verdict::all(outcome, tally),
            Err(Fenced) => fenced(tally),
        }
    }

    /// Several messages, in one transaction.
    async fn many(
        &self,
        ready: Vec<(usize, Ready<T>)>,
        mut outcomes: Vec<Outcome>,
        slot: &StopSlot,
        mut tally: Tally,
    ) -> Verdict {
        let mut identities = Vec::with_capacity(ready.len());
        let mut messages = Vec::with_capacity(ready.len());
        let mut partitions: Vec<(TopicPartition, Option<Fence>)> = Vec::with_capacity(1);
        for (at, Ready { message, identity, skip }) in ready {
            let identity = identity.unwrap_or_else(|| self.nobody.clone());
            if partitions.last().is_none_or(|(last, _)| last != message.from()) {
                partitions.push((message.from().clone(), identity.fence.clone()));
            }
            identities.push(identity);
            messages.push((at, message, skip));
        }
        let mut certain = Vec::new();
        let work = async {
            let batch = self.guard.begin_batch(&identities).await.map_err(|error| self.batch_not_begun(&error))?;
            // One by one it can be told which of the partitions it is.
            if batch.states.contains(&State::Fenced) {
                return Err((partitions.len() > 1).then(fenced_among_others));
            }
            let tells = self.tells.then_some(&mut certain);
            let (handed, first) = judge_states(&batch.states, messages, &mut outcomes, &mut tally, tells);
            match batch.open {
                Some(open) => self.handle(handed, open, &mut tally).await.map(|open| Some((open, first))).map_err(Some),
                None => Ok(None),
            }
        };
        let open = match slot.unless_stopped(work).await {
            Some(Ok(open)) => open,
            Some(Err(None)) => return Verdict::fenced(partitions, tally),
            Some(Err(Some(outcome))) => return self.batch_failed(outcome, outcomes.len(), tally),
            None => return self.batch_failed(self.cut_short(), outcomes.len(), tally),
        };
        if let Some((open, first)) = open {
            match self.commit(open, &identities[first], &mut tally).await {
                Ok(Commit::Certain(Seen::Applied)) => {}
                Ok(Commit::Certain(before)) => certain.iter_mut().for_each(|(_, seen)| *seen = before),
                Ok(Commit::Failed(outcome)) => return self.batch_failed(outcome, outcomes.len(), tally),
                Err(Fenced) if partitions.len() > 1 => {
                    return self.batch_failed(fenced_among_others(), outcomes.len(), tally);
                }
                Err(Fenced) => return Verdict::fenced(partitions, tally),
            }
        }
        Verdict { certain: Certain::Many(certain), ..Verdict::of(Outcomes::Each(outcomes), tally) }
    }

    /// A batch that failed as a whole is tried one by one; not where nothing may be tried again.
    fn batch_failed(&self, outcome: Outcome, messages: usize, tally: Tally) -> Verdict {
        match self.at_most_once {
            true => Verdict::of(Outcomes::Each(vec![outcome; messages]), tally),
            false => Verdict::all(outcome, tally),
        }
    }

    /// Calls the handler; gives the open transaction back if it is to be committed.
    async fn handle(&self, messages: Vec<Received<T>>, open: G::Open, tally: &mut Tally) -> Result<G::Open, Outcome> {
        if messages.is_empty() {
            return Ok(open);
        }
        let effect = open.effect();
        let called = AssertUnwindSafe(async { self.handling.call(messages, effect).await }).catch_unwind();
        let called = called.await;
        self.handled(called, open, tally).await
    }

    /// Gives the open transaction back if it is to be committed.
    async fn handled(
        &self,
        called: Result<Result<(), HandlerError>, Box<dyn Any + Send>>,
        open: G::Open,
        tally: &mut Tally,
    ) -> Result<G::Open, Outcome> {
        let outcome = match called {
            Ok(Ok(())) => return Ok(open),
            Ok(Err(error)) => error.into_outcome(),
            Err(panic) => {
                tally.panicked += 1;
                Outcome::Transient(Failure::new(PANICKED, panic_text(&*panic)))
            }
        };
        open.abort().await;
        Err(self.only_once(outcome))
    }

    /// What a failure means where a message may be handed over once only.
    fn only_once(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Transient(failure) | Outcome::DependencyDown(failure) | Outcome::Park(failure)
                if self.at_most_once =>
            {
                Outcome::Permanent(failure)
            }
            // With nowhere to park it, at least it is kept.
            Outcome::Park(failure) if !self.parks => Outcome::Permanent(failure),
            outcome => outcome,
        }
    }

    /// The handler was told to stop.
    fn cut_short(&self) -> Outcome {
        match self.at_most_once {
            true => {
                Outcome::Permanent(Failure::new("cancelled", "the handler was cancelled, and may not be called again"))
            }
            false => Outcome::Stopped,
        }
    }

    async fn commit(&self, open: G::Open, identity: &Identity, tally: &mut Tally) -> Result<Commit, Fenced> {
        Ok(match open.commit().await {
            Ok(()) => Commit::Certain(Seen::Applied),
            Err(CommitError::AlreadyDone) => {
                tally.already_done += 1;
                Commit::Certain(Seen::AlreadyApplied)
            }
            Err(CommitError::Fenced) => return Err(Fenced),
            Err(CommitError::LeaseLost) => {
                // The effect is there. To call the handler again would make sure that it happens twice.
                tally.leases_lost += 1;
                Commit::Certain(Seen::Applied)
            }
            Err(CommitError::NotCommitted(error)) => Commit::Failed(self.not_committed(&error)),
            Err(CommitError::Unknown(error)) => {
                tally.fates_asked += 1;
                return self.fate(identity, &error).await;
            }
        })
    }

    /// Nothing counts as done or as failed before it is known which of the two it is.
    async fn fate(&self, identity: &Identity, cause: &GuardError) -> Result<Commit, Fenced> {
        let mut wait = FATE_WAIT_MIN;
        loop {
            match self.guard.fate(identity).await {
                Ok(Fate::Committed) => return Ok(Commit::Certain(Seen::Applied)),
                Ok(Fate::NotCommitted) => return Ok(Commit::Failed(self.not_committed(cause))),
                Ok(Fate::Fenced) => return Err(Fenced),
                Ok(Fate::Undecided(after)) => tokio::time::sleep(after.max(FATE_WAIT_MIN)).await,
                Err(error) if error.is_transient() => tokio::time::sleep(wait).await,
                // Whoever begins it again finds out.
                Err(error) => return Ok(Commit::Failed(self.not_begun(&error))),
            }
            wait = (wait * 2).min(FATE_WAIT_MAX);
        }
    }

    /// The guard could not admit a message: that is hardly ever the message's fault.
    fn not_begun(&self, error: &GuardError) -> Outcome {
        let failure = || Failure::new(self.guard.name(), error.to_string());
        match error {
            GuardError::Busy { .. } | GuardError::TooManyGaps { .. } => Outcome::Stopped,
            GuardError::Unstamped(_) | GuardError::Caller(_) => Outcome::Permanent(failure()),
            _ => Outcome::DependencyDown(failure()),
        }
    }

    /// The guard could not admit a batch.
    fn batch_not_begun(&self, error: &GuardError) -> Option<Outcome> {
        match self.not_begun(error) {
            // One by one it can be told which of them it is.
            Outcome::Stopped => Some(Outcome::Transient(Failure::new(self.guard.name(), error.to_string()))),
            outcome => Some(outcome),
        }
    }

    fn not_committed(&self, error: &GuardError) -> Outcome {
        let failure = Failure::new(self.guard.name(), error.to_string());
        self.only_once(match error {
            GuardError::Unavailable { .. } => Outcome::DependencyDown(failure),
            GuardError::Busy { .. } | GuardError::TooManyGaps { .. } if !self.at_most_once => Outcome::Stopped,
            _ => Outcome::Transient(failure),
        })
    }
}

/// Somebody else owns the partition.
struct Fenced;

fn fenced_among_others() -> Outcome {
    Outcome::Transient(Failure::new("fence", "one of the batch's partitions has a new owner"))
}

/// Which messages of a batch go to the handler, and the first one that is this transaction's. What will be certain of each when that is
/// committed goes to `certain`.
fn judge_states<T>(
    states: &[State],
    messages: Vec<(usize, Received<T>, bool)>,
    outcomes: &mut [Outcome],
    tally: &mut Tally,
    mut certain: Option<&mut Vec<(Arc<Delivery>, Seen)>>,
) -> (Vec<Received<T>>, usize) {
    let mut handed = Vec::with_capacity(messages.len());
    let mut first = None;
    for (index, ((at, message, skip), state)) in messages.into_iter().zip(states).enumerate() {
        let seen = match state {
            State::Fresh if skip => Some(Seen::Filtered),
            State::Fresh => Some(Seen::Applied),
            State::AlreadyDone | State::Repeated => Some(Seen::AlreadyApplied),
            State::InProgress(_) | State::Fenced => None,
        };
        if let (Some(certain), Some(seen)) = (&mut certain, seen) {
            certain.push((message.shared(), seen));
        }
        match state {
            State::Fresh => {
                first.get_or_insert(index);
                if !skip {
                    handed.push(message);
                }
            }
            State::AlreadyDone | State::Repeated => tally.already_done += 1,
            State::InProgress(_) | State::Fenced => {
                tally.in_progress += 1;
                outcomes[at] = Outcome::Stopped;
            }
        }
    }
    (handed, first.unwrap_or_default())
}

/// Interceptors are somebody else's: what panics in there must not take the consumer with it.
pub(super) fn guarded(call: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("an interceptor panicked");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

/// Stands where no guard does: lets everything through, and remembers nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unguarded;

/// A transaction of nothing.
#[derive(Debug)]
pub struct NoTransaction;

impl Open for NoTransaction {
    type Effect = ();

    fn effect(&self) {}

    async fn commit(self) -> Result<(), CommitError> {
        Ok(())
    }

    async fn abort(self) {}
}

impl Guard for Unguarded {
    type Open = NoTransaction;

    fn name(&self) -> &'static str {
        "no guard"
    }

    fn strength(&self) -> baton_guard::Strength {
        baton_guard::Strength::Conditional
    }

    async fn begin(&self, _: &Identity) -> Result<Admission<NoTransaction>, GuardError> {
        Ok(Admission::Fresh(NoTransaction))
    }

    async fn begin_batch(&self, identities: &[Identity]) -> Result<Batch<NoTransaction>, GuardError> {
        Ok(Batch { states: vec![State::Fresh; identities.len()], open: Some(NoTransaction) })
    }

    fn take_over(
        &self,
        _: &Group,
        partition: &TopicPartition,
    ) -> impl Future<Output = Result<Fence, GuardError>> + Send {
        std::future::ready(Ok(Fence { partition: partition.clone(), epoch: 0 }))
    }

    async fn weaknesses(&self) -> Result<Vec<Weakness>, GuardError> {
        Ok(Vec::new())
    }
}

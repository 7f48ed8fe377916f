//! Calls of handlers, many at a time.
//!
//! A task for each call costs more than many a handler. So calls that begin together are made by one task, a *chunk*, one after the other:
//! those that end without having to wait for anything are answered together, and each that has to wait goes on as a task of its own.
//! A chunk is as long as calls have proved to be short, so that those that compute are spread over all threads. A handler that
//! blocks its thread holds up no other: what stands behind it in its chunk is taken out of there and begun elsewhere ([`Calls::rescue`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use baton_core::consumer::{Failure, Messages, Outcome, Outcomes, RunId};
use baton_core::{Delivery, Seen, TopicPartition};
use baton_guard::Fence;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use tokio::sync::mpsc::UnboundedSender;

use super::driver::Input;
use super::work::{Fences, Tally, Verdict, Work};

/// Calls in one chunk, at most: what starting a task costs is little for each by then.
const CHUNK_CALLS_MAX: usize = 64;
/// Calls in the first chunk, before anything is known about the handler.
const CHUNK_CALLS_FIRST: usize = 8;
/// How long a chunk should take. Longer ones make the next ones shorter: the other threads are to have something to do.
const CHUNK_TIME: Duration = Duration::from_micros(50);
/// After how long a chunk begins no further call.
pub(super) const CHUNK_TIME_MAX: Duration = Duration::from_micros(200);
/// After how long what stands in a chunk behind a call that does not return is begun elsewhere.
const HELD_UP_MAX_MS: u64 = 10;
/// Calls between two looks at the clock, once it is known that they are short.
const CALLS_PER_LOOK: usize = 8;
/// Source of the failure of a handler that panicked.
pub(super) const PANICKED: &str = "panicked";

/// What a handler is called with.
pub(super) struct Call {
    pub run: RunId,
    pub messages: Messages,
    /// `None` if there are none: threads that count references to the same thing wait for each other.
    pub fences: Option<Arc<Fences>>,
    /// Told to stop before it began.
    pub stopped: bool,
}

/// How calls ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub outcomes: Vec<(RunId, Outcomes)>,
    /// These partitions have a new owner, or had when the call began, under these fences: nothing of them may be settled by us.
    pub fenced: Vec<(TopicPartition, Option<Fence>)>,
    pub tally: Tally,
    /// What became certain of their messages.
    pub certain: Vec<(Arc<Delivery>, Seen)>,
}

impl Ended {
    /// One that ended like this.
    pub fn of(run: RunId, outcomes: Outcomes) -> Self {
        Self { outcomes: vec![(run, outcomes)], ..Self::default() }
    }

    /// Both together.
    pub fn join(&mut self, mut more: Self) {
        self.outcomes.append(&mut more.outcomes);
        self.fenced.append(&mut more.fenced);
        self.certain.append(&mut more.certain);
        self.tally.add(&more.tally);
    }

    fn add(&mut self, run: RunId, verdict: Verdict) {
        self.outcomes.push((run, verdict.outcomes));
        self.tally.add(&verdict.tally);
        self.fenced.extend(verdict.fenced.into_iter().flatten());
        verdict.certain.add_to(&mut self.certain);
    }
}

/// What came of a chunk.
pub(super) struct Ran {
    ended: Ended,
    /// How to stop those that have to wait for something.
    stops: Vec<(RunId, Stop)>,
    /// Not begun.
    rest: VecDeque<Call>,
    /// Calls that were begun, and how long all of them took until they ended or had to wait.
    begun: usize,
    took: Duration,
}

impl Ran {
    /// What ended, where the rest is given up: those that wait are stopped.
    pub fn into_ended(self) -> Ended {
        self.ended
    }
}

// ---- stopping --------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Signal {
    stopped: AtomicBool,
    waker: AtomicWaker,
}

/// Stops a call when it is dropped, so that none goes on after whoever could stop it is gone.
pub(super) struct Stop(Arc<Signal>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// Where a call leaves what stops it when it has to wait for the first time: those that never wait need none.
#[derive(Clone, Default)]
pub(super) struct StopSlot(Arc<Mutex<Option<Stop>>>);

impl StopSlot {
    fn take(&self) -> Option<Stop> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Does this work unless it is stopped first; `None` if it was.
    pub async fn unless_stopped<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        let mut signal: Option<Arc<Signal>> = None;
        let is_stopped = |signal: &Signal| signal.stopped.load(Ordering::Acquire);
        poll_fn(move |context| {
            if signal.as_deref().is_some_and(is_stopped) {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            let signal = signal.get_or_insert_with(|| {
                let signal = Arc::<Signal>::default();
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stop(signal.clone()));
                signal
            });
            signal.waker.register(context.waker());
            if is_stopped(signal) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

// ---- a chunk ---------------------------------------------------------------------------------------------------------

/// Calls that are made one after the other. All that is in here can be taken out at any time: only the call that is just being made is not.
#[derive(Default)]
pub(super) struct Chunk(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    waiting: VecDeque<Call>,
    ended: Ended,
    pending: Vec<Pending>,
    begun: usize,
}

/// A call that has to wait for something.
struct Pending {
    run: RunId,
    stop: Option<Stop>,
    future: BoxFuture<'static, Verdict>,
}

enum Step {
    Ended(RunId, Verdict),
    Waits(Pending),
}

impl Inside {
    fn put_down(&mut self, step: Step) {
        match step {
            Step::Ended(run, verdict) => self.ended.add(run, verdict),
            Step::Waits(pending) => self.pending.push(pending),
        }
    }
}

impl Chunk {
    fn of(calls: impl Iterator<Item = Call>) -> Arc<Self> {
        let waiting: VecDeque<Call> = calls.collect();
        let ended = Ended { outcomes: Vec::with_capacity(waiting.len()), ..Ended::default() };
        Arc::new(Self(Mutex::new(Inside { waiting, ended, ..Inside::default() })))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts down what came of one call and gives the next one.
    fn next(&self, step: Option<Step>) -> Option<Call> {
        let mut inside = self.inside();
        step.into_iter().for_each(|step| inside.put_down(step));
        let next = inside.waiting.pop_front();
        inside.begun += usize::from(next.is_some());
        next
    }

    /// Takes out all that is in here.
    fn take(&self, took: Duration) -> (Ran, Vec<Pending>) {
        let Inside { waiting, ended, mut pending, begun } = std::mem::take(&mut *self.inside());
        let stops = pending.iter_mut().filter_map(|each| Some((each.run, each.stop.take()?))).collect();
        (Ran { ended, stops, rest: waiting, begun, took }, pending)
    }
}

/// Makes the calls of a chunk, until none is left or this time is over.
pub(super) async fn serve<M, F>(chunk: Arc<Chunk>, answers: UnboundedSender<Input>, time_max: Duration, make: M)
where
    M: Fn(Call, StopSlot) -> F,
    F: Future<Output = Verdict> + Send + 'static,
{
    let began = Instant::now();
    let is_over = || began.elapsed() >= time_max;
    poll_fn(|context| {
        make_calls(&chunk, is_over, context, &make);
        Poll::Ready(())
    })
    .await;
    let (ran, pending) = chunk.take(began.elapsed());
    drop(chunk);
    // It is known how to stop them before they go on. Nobody listens only after the consumer has ended; then they are stopped already.
    let _ = answers.send(Input::Ran(ran));
    go_on(pending, &answers);
}

fn make_calls<M, F>(chunk: &Chunk, is_over: impl Fn() -> bool, context: &mut Context<'_>, make: &M)
where
    M: Fn(Call, StopSlot) -> F,
    F: Future<Output = Verdict> + Send + 'static,
{
    let slot = StopSlot::default();
    // Calls that end at once use the same memory, one after the other.
    let mut place: Option<Pin<Box<F>>> = None;
    let (mut next, mut calls) = (chunk.next(None), 0usize);
    while let Some(call) = next {
        let run = call.run;
        let mut future = match place.take() {
            Some(mut place) => {
                place.set(make(call, slot.clone()));
                place
            }
            None => Box::pin(make(call, slot.clone())),
        };
        // Handlers' own panics are caught where they are called: this is for what calls them.
        let step = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Step::Waits(Pending { run, stop: slot.take(), future }),
            Ok(Poll::Ready(verdict)) => {
                place = Some(future);
                Step::Ended(run, verdict)
            }
            Err(_) => Step::Ended(run, did_not_answer()),
        };
        calls += 1;
        let looks = calls.is_power_of_two() || calls.is_multiple_of(CALLS_PER_LOOK);
        if looks && is_over() {
            return chunk.inside().put_down(step);
        }
        next = chunk.next(Some(step));
    }
}

/// Each goes on as a task of its own.
fn go_on(pending: Vec<Pending>, answers: &UnboundedSender<Input>) {
    for Pending { run, future, .. } in pending {
        let answer = Answer { run, inputs: answers.clone(), verdict: None };
        tokio::spawn(async move { answer.give(future.await) });
    }
}

fn did_not_answer() -> Verdict {
    let failure = Failure::new(PANICKED, "what called the handler panicked or was dropped");
    Verdict::all(Outcome::Transient(failure), Tally::default())
}

/// Answers for a call in any case, and once: also when what was to answer it is dropped or panics.
struct Answer {
    run: RunId,
    inputs: UnboundedSender<Input>,
    verdict: Option<Verdict>,
}

impl Answer {
    fn give(mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut ended = Ended::default();
        ended.add(self.run, self.verdict.take().unwrap_or_else(did_not_answer));
        // Nobody listens only after the consumer has ended.
        let _ = self.inputs.send(Input::Ended(ended));
    }
}

// ---- all of them -----------------------------------------------------------------------------------------------------

/// The calls of a consumer: those that are about to begin, and how to stop the others.
pub(super) struct Calls {
    work: Arc<dyn Work>,
    answers: UnboundedSender<Input>,
    starting: VecDeque<Call>,
    /// How many go into the next chunk.
    chunk_calls: usize,
    /// Chunks that may still hold something, and until when nothing is done about it.
    chunks: VecDeque<(u64, Arc<Chunk>)>,
    stops: HashMap<RunId, Stop>,
    /// Told to stop before it was known how.
    stopped: HashSet<RunId>,
}

impl Calls {
    pub fn new(work: Arc<dyn Work>, answers: UnboundedSender<Input>) -> Self {
        Self {
            work,
            answers,
            starting: VecDeque::new(),
            chunk_calls: CHUNK_CALLS_FIRST,
            chunks: VecDeque::new(),
            stops: HashMap::new(),
            stopped: HashSet::new(),
        }
    }

    /// One more; [`Calls::begin`] begins it.
    pub fn push(&mut self, call: Call) {
        self.starting.push_back(call);
    }

    /// Begins those that were pushed.
    pub fn begin(&mut self, now_ms: u64) {
        while self.chunks.front().is_some_and(|(_, chunk)| Arc::strong_count(chunk) == 1) {
            self.chunks.pop_front();
        }
        if !self.stopped.is_empty() {
            self.starting.iter_mut().for_each(|call| call.stopped |= self.stopped.contains(&call.run));
        }
        while !self.starting.is_empty() {
            let count = self.chunk_calls.min(self.starting.len());
            let chunk = Chunk::of(self.starting.drain(..count));
            self.chunks.push_back((now_ms.saturating_add(HELD_UP_MAX_MS), chunk.clone()));
            self.work.clone().start(chunk, self.answers.clone());
        }
    }

    /// Whether calls are being made that will be answered soon: a chunk is through within its time, or is rescued.
    pub fn are_being_made(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Tells a call to stop.
    pub fn stop(&mut self, run: RunId) {
        if self.stops.remove(&run).is_none() {
            self.stopped.insert(run);
        }
    }

    /// A chunk is through, or took long enough.
    pub fn ran(&mut self, ran: Ran) -> Ended {
        let Ran { ended, stops, rest, begun, took } = ran;
        if took > CHUNK_TIME {
            self.chunk_calls = (begun / 2).clamp(1, CHUNK_CALLS_MAX);
        } else if took < CHUNK_TIME / 2 && begun >= self.chunk_calls {
            self.chunk_calls = (begun * 2).min(CHUNK_CALLS_MAX);
        }
        self.take_in(stops, rest);
        ended
    }

    fn take_in(&mut self, stops: Vec<(RunId, Stop)>, rest: VecDeque<Call>) {
        let stopped = &self.stopped;
        self.stops.extend(stops.into_iter().filter(|(run, _)| !stopped.contains(run)));
        rest.into_iter().rev().for_each(|call| self.starting.push_front(call));
    }

    /// Calls ended: nothing is kept of them.
    pub fn ended(&mut self, ended: &Ended) {
        if !self.stops.is_empty() || !self.stopped.is_empty() {
            for (run, _) in &ended.outcomes {
                self.stops.remove(run);
                self.stopped.remove(run);
            }
        }
    }

    /// When [`Calls::rescue`] is to be called.
    pub fn rescue_at_ms(&self) -> Option<u64> {
        self.chunks.front().map(|(at_ms, _)| *at_ms)
    }

    /// Takes out what stands behind a call that does not return, and begins each alone.
    pub fn rescue(&mut self, now_ms: u64) -> Vec<Ended> {
        let mut rescued = Vec::new();
        while self.chunks.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms)
            && let Some((_, chunk)) = self.chunks.pop_front()
        {
            if Arc::strong_count(&chunk) == 1 {
                continue;
            }
            self.chunk_calls = 1;
            let (Ran { ended, stops, rest, .. }, pending) = chunk.take(Duration::ZERO);
            self.take_in(stops, rest);
            go_on(pending, &self.answers);
            rescued.push(ended);
        }
        rescued
    }
}

impl Drop for Calls {
    /// What has not begun does not begin any more.
    fn drop(&mut self) {
        self.chunks.iter().for_each(|(_, chunk)| chunk.inside().waiting.clear());
    }
}

#[cfg(test)]
mod tests {
    use baton_guard::{GuardError, Weakness};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// Hands out ids of calls as the core does: by starting them.
    fn calls(count: i64) -> Vec<Call> {
        use baton_core::consumer::{Action, Assignment, Core, Order, Settings};
        let from = TopicPartition::new("orders", 0);
        let mut core = Core::new(Settings { order: Order::None, ..Settings::default() }, 1).unwrap();
        let assignment = Assignment {
            partition: from.clone(),
            frontier: Some(0),
            metadata: String::new(),
            stored_done: Vec::new(),
            epoch: 1,
            parked: Vec::new(),
        };
        core.assigned(vec![assignment], 0);
        let delivery = |offset| Delivery {
            from: from.clone(),
            offset,
            key: None,
            payload: None,
            headers: baton_core::Headers::default(),
            timestamp_ms: None,
            delivered_before: None,
        };
        core.messages((0..count).map(delivery).collect(), 0);
        let starts = std::iter::from_fn(|| core.next_action()).filter_map(|action| match action {
            Action::Start { calls } => Some(calls),
            _ => None,
        });
        let call = |started: baton_core::consumer::Started| Call {
            run: started.run,
            messages: started.messages,
            fences: None,
            stopped: false,
        };
        starts.flatten().map(call).collect()
    }

    fn offset(call: &Call) -> i64 {
        call.messages[0].delivery.offset
    }

    fn done() -> Verdict {
        Verdict::all(Outcome::Done, Tally::default())
    }

    fn ended(input: Option<Input>) -> Vec<Outcomes> {
        let ended = match input {
            Some(Input::Ran(ran)) => ran.ended,
            Some(Input::Ended(ended)) => ended,
            _ => panic!("nothing that ended"),
        };
        ended.outcomes.into_iter().map(|(_, outcomes)| outcomes).collect()
    }

    fn all_done(count: usize) -> Vec<Outcomes> {
        vec![Outcomes::All(Outcome::Done); count]
    }

    #[tokio::test]
    async fn calls_that_end_at_once_are_answered_together() {
        let (answers, mut inputs) = unbounded_channel();
        serve(Chunk::of(calls(20).into_iter()), answers, Duration::MAX, |_, _| async { done() }).await;
        assert_eq!(ended(inputs.recv().await), all_done(20));
        assert!(inputs.recv().await.is_none(), "one answer");
    }

    #[tokio::test]
    async fn what_calls_a_handler_may_panic_and_the_other_calls_are_made() {
        let (answers, mut inputs) = unbounded_channel();
        let make = |call: Call, _| async move {
            assert_ne!(offset(&call), 2, "this one panics");
            done()
        };
        serve(Chunk::of(calls(5).into_iter()), answers, Duration::MAX, make).await;
        let outcomes = ended(inputs.recv().await);
        assert!(matches!(&outcomes[2], Outcomes::All(Outcome::Transient(failure)) if &*failure.source == PANICKED));
        assert_eq!((&outcomes[..2], &outcomes[3..]), (&all_done(2)[..], &all_done(2)[..]));
    }

    #[tokio::test]
    async fn a_call_that_waits_goes_on_alone_and_stops_when_nobody_could_stop_it_any_more() {
        let (answers, mut inputs) = unbounded_channel();
        let make = |call: Call, slot: StopSlot| async move {
            let waits = async {
                if offset(&call) == 1 {
                    std::future::pending::<()>().await;
                }
            };
            match slot.unless_stopped(waits).await {
                Some(()) => done(),
                None => Verdict::all(Outcome::Stopped, Tally::default()),
            }
        };
        serve(Chunk::of(calls(3).into_iter()), answers, Duration::MAX, make).await;
        let Some(Input::Ran(ran)) = inputs.recv().await else { panic!("what came of the chunk") };
        assert_eq!((ran.ended.outcomes.len(), ran.stops.len(), ran.begun), (2, 1, 3));
        tokio::task::yield_now().await;
        assert!(inputs.try_recv().is_err(), "it waits");
        drop(ran);
        assert_eq!(ended(inputs.recv().await), [Outcomes::All(Outcome::Stopped)]);
    }

    #[tokio::test]
    async fn a_chunk_that_takes_long_gives_the_rest_back() {
        let (answers, mut inputs) = unbounded_channel();
        let make = |_, _| async {
            std::thread::sleep(CHUNK_TIME_MAX);
            done()
        };
        serve(Chunk::of(calls(9).into_iter()), answers, CHUNK_TIME_MAX, make).await;
        let Some(Input::Ran(ran)) = inputs.recv().await else { panic!("what came of the chunk") };
        assert_eq!((ran.ended.outcomes.len(), ran.begun, ran.rest.len()), (1, 1, 8));
    }

    /// Only keeps the chunks.
    #[derive(Default)]
    struct Kept(Mutex<Vec<Arc<Chunk>>>);

    impl Work for Kept {
        fn start(self: Arc<Self>, chunk: Arc<Chunk>, _: UnboundedSender<Input>) {
            self.0.lock().unwrap().push(chunk);
        }

        fn take_over(&self, _: TopicPartition) -> BoxFuture<'_, Result<Option<Fence>, GuardError>> {
            unreachable!("no partition is taken over here")
        }

        fn pass_over(&self, _: Arc<Delivery>, _: Arc<Fences>) -> BoxFuture<'_, Result<(), String>> {
            unreachable!("no message is passed over here")
        }

        fn weaknesses(&self) -> BoxFuture<'_, Result<Vec<Weakness>, GuardError>> {
            unreachable!("nobody asks here")
        }
    }

    fn kept() -> (Calls, Arc<Kept>, UnboundedReceiver<Input>) {
        let (answers, inputs) = unbounded_channel();
        let work = Arc::new(Kept::default());
        (Calls::new(work.clone(), answers), work, inputs)
    }

    fn sizes(work: &Kept) -> Vec<usize> {
        std::mem::take(&mut *work.0.lock().unwrap()).iter().map(|chunk| chunk.inside().waiting.len()).collect()
    }

    fn ran(begun: usize, took: Duration) -> Ran {
        Ran { ended: Ended::default(), stops: Vec::new(), rest: VecDeque::new(), begun, took }
    }

    #[test]
    fn chunks_are_as_long_as_calls_are_short() {
        let (mut all, work, _inputs) = kept();
        let begin = |all: &mut Calls| {
            calls(64).into_iter().for_each(|call| all.push(call));
            all.begin(0);
            sizes(&work)
        };
        assert_eq!(begin(&mut all), [8; 8]);
        for _ in 0..9 {
            let size = all.chunk_calls;
            drop(all.ran(ran(size, Duration::from_micros(5))));
        }
        assert_eq!(begin(&mut all), [64]);
        drop(all.ran(ran(64, Duration::from_micros(120))));
        assert_eq!(begin(&mut all), [32, 32]);
        drop(all.ran(ran(1, Duration::from_millis(3))));
        assert_eq!(begin(&mut all), [1; 64], "those that compute for long are spread over all threads");
    }

    #[test]
    fn what_stands_behind_a_call_that_does_not_return_begins_elsewhere() {
        let (mut all, work, _inputs) = kept();
        calls(8).into_iter().for_each(|call| all.push(call));
        all.begin(100);
        let chunk = work.0.lock().unwrap().pop().unwrap();
        let first = chunk.next(None).unwrap();
        let second = chunk.next(Some(Step::Ended(first.run, done()))).unwrap();
        assert!(all.rescue(100 + HELD_UP_MAX_MS - 1).is_empty());
        let rescued = all.rescue(all.rescue_at_ms().unwrap());
        assert_eq!(rescued.iter().flat_map(|ended| &ended.outcomes).count(), 1, "what had ended counts");
        all.begin(200);
        assert_eq!(sizes(&work), [1; 6]);
        // The one that held up the others answers for itself.
        assert!(chunk.next(Some(Step::Ended(second.run, done()))).is_none());
        assert_eq!(chunk.take(Duration::ZERO).0.ended.outcomes, [(second.run, Outcomes::All(Outcome::Done))]);
    }

    #[test]
    fn calls_are_being_made_until_their_chunk_is_through_or_holds_others_up() {
        let (mut all, work, _inputs) = kept();
        let begin = |all: &mut Calls, now_ms| {
            calls(3).into_iter().for_each(|call| all.push(call));
            all.begin(now_ms);
            work.0.lock().unwrap().pop().unwrap()
        };
        assert!(!all.are_being_made());
        let chunk = begin(&mut all, 0);
        assert!(all.are_being_made());
        drop(chunk);
        all.begin(1);
        assert!(!all.are_being_made());
        let _blocked = begin(&mut all, 2);
        drop(all.rescue(2 + HELD_UP_MAX_MS));
        assert!(!all.are_being_made(), "nobody waits for one that blocks its thread");
    }

    #[test]
    fn a_call_that_is_told_to_stop_before_it_begins_is_begun_as_stopped() {
        let (mut all, work, _inputs) = kept();
        let some = calls(3);
        let run = some[1].run;
        all.stop(run);
        some.into_iter().for_each(|call| all.push(call));
        all.begin(0);
        let chunk = work.0.lock().unwrap().pop().unwrap();
        let stopped: Vec<bool> = std::iter::from_fn(|| chunk.next(None)).map(|call| call.stopped).collect();
        assert_eq!(stopped, [false, true, false]);
        all.ended(&Ended::of(run, Outcomes::All(Outcome::Stopped)));
        assert!(all.stopped.is_empty(), "nothing is kept of it");
    }

    #[test]
    fn what_has_not_begun_when_the_consumer_ends_does_not_begin() {
        let (mut all, work, _inputs) = kept();
        calls(8).into_iter().for_each(|call| all.push(call));
        all.begin(0);
        let chunk = work.0.lock().unwrap().pop().unwrap();
        assert!(chunk.next(None).is_some());
        drop(all);
        assert!(chunk.next(None).is_none());
    }
}

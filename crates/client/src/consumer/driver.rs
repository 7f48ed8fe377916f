//! The task of a consumer: tells the core what happens, and carries out what it decides.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use baton_core::consumer::{
    self as core, Action, Core, Loaded, Outcome, Outcomes, Report, RunId, Settings, Started, Ticket, Witness,
};
use baton_core::{Delivery, TopicPartition};
use baton_engine::{EngineError, Event, Settlement};
use baton_guard::Fence;
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use super::backlog::{self, Asking};
use super::calls::{Call, Calls, Ended, Ran};
use super::error::ConsumerError;
use super::evidence::{Evidence, certain};
use super::handle::{Board, Command, Notice};
use super::handler::ConsumerInterceptor;
use super::letters::{Letters, Times};
use super::link::{Ask, For, Leaving, Link};
use super::once::AtMostOnce;
use super::prepare::{self, Preparing};
use super::store::{Offsets, Place, SideStore, StoreError};
use super::work::{Fences, Tally, Work, guarded};

/// Things that happened which are taken at once before anything else is looked at.
const INPUTS_AT_ONCE: usize = 1_024;
/// Messages that lie there, enough to do until the next calls have been made: many times as many as begin together.
const MESSAGES_PLENTY: usize = 2_048;
/// Who was told by the guard that a partition has a new owner hears the same from the engine within this time, or joins the group
/// anew: else nobody would handle the partition.
const FENCED_WAIT_MS: u64 = 10_000;

/// How long the same failure of the engine is not told again.
const SAME_FAILURE_MS: u64 = 10_000;
/// How long the engine may take to settle what is still under way and to leave the group, at the end; the latter has its own bound.
const CLOSE_WAIT: Duration = Duration::from_secs(20);

/// Something that happened.
pub(super) enum Input {
    /// Calls of the handler were made; some ended, others wait for something.
    Ran(Ran),
    /// Calls ended.
    Ended(Ended),
    /// The engine has what was settled of these, or not.
    Settled(Ticket, Result<Vec<Settlement>, Arc<str>>),
    /// At most once: the messages of this call are settled, or could not be.
    MayStart(RunId, Result<(), Arc<str>>),
    /// A store did what it was asked to, or could not.
    Confirmed(Ticket, Result<(), Arc<str>>),
    /// Parked messages were read.
    Loaded(Ticket, Vec<Loaded>),
    /// A partition may be handled.
    Prepared(Box<prepare::Prepared>),
    /// What the engine still has.
    Backlog(backlog::Answer),
    /// What became of reports of what was seen.
    Reported(Vec<(baton_core::Report, bool)>),
}

/// What a driver works with.
pub(super) struct Parts {
    pub link: Link,
    pub inputs: UnboundedReceiver<Input>,
    pub answers: UnboundedSender<Input>,
    pub commands: UnboundedReceiver<Command>,
    pub work: Arc<dyn Work>,
    pub letters: Arc<Letters>,
    pub store: Option<Arc<dyn SideStore>>,
    pub evidence: Option<(Witness, Evidence)>,
    pub offsets: Offsets,
    pub interceptors: Vec<Arc<dyn ConsumerInterceptor>>,
    pub board: Arc<Board>,
    pub group: Arc<str>,
    pub settings: Settings,
    pub at_most_once: bool,
    pub shutdown_wait: Duration,
}

pub(super) struct Driver {
    parts: Parts,
    core: Core,
    began: Instant,
    /// Milliseconds since 1970 when the clock of the core stood at 0.
    began_unix_ms: i64,
    fences: Arc<Fences>,
    preparing: HashMap<TopicPartition, Preparing>,
    calls: Calls,
    once: Option<AtMostOnce>,
    /// Partitions of which the guard said that they have a new owner, and until when the engine may confirm it.
    fenced: HashMap<TopicPartition, u64>,
    owned: HashSet<TopicPartition>,
    side_jobs: JoinSet<()>,
    tally: Tally,
    asking: Asking,
    evidence: Option<Evidence>,
    leaving: Leaving,
    /// What the engine failed of last, and until when that is not said again.
    failed: Option<(String, u64)>,
    stopping: bool,
    drained: bool,
}

impl Driver {
    pub fn new(mut parts: Parts) -> Result<Self, ConsumerError> {
        // The one source of randomness that the standard library has.
        let seed = RandomState::new().hash_one(std::process::id());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let core = Core::new(parts.settings.clone(), seed)?;
        let (core, evidence) = match parts.evidence.take() {
            Some((witness, evidence)) => (core.with_witness(witness), Some(evidence)),
            None => (core, None),
        };
        Ok(Self {
            core,
            evidence,
            began: Instant::now(),
            began_unix_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
            fences: Arc::default(),
            preparing: HashMap::new(),
            calls: Calls::new(parts.work.clone(), parts.answers.clone()),
            once: parts.at_most_once.then(AtMostOnce::default),
            fenced: HashMap::new(),
            owned: HashSet::new(),
            side_jobs: JoinSet::new(),
            tally: Tally::default(),
            asking: Asking::new(parts.settings.stuck_after_ms),
            leaving: Leaving::default(),
            failed: None,
            stopping: false,
            drained: false,
            parts,
        })
    }

    /// Runs until it is drained.
    pub async fn run(mut self) -> Result<(), ConsumerError> {
        let mut inputs = Vec::with_capacity(INPUTS_AT_ONCE);
        let mut wake_at = self.wake_at();
        let mut alarm = pin!(tokio::time::sleep_until(wake_at));
        loop {
            self.carry_out();
            self.report();
            self.publish();
            if self.drained {
                break;
            }
            // One that is set too early costs less than to set it anew each time.
            let wanted = self.wake_at();
            if wanted < wake_at || alarm.is_elapsed() {
                wake_at = wanted;
                alarm.as_mut().reset(wanted);
            }
            let listens = !self.leaves_events();
            tokio::select! {
                taken = self.parts.inputs.recv_many(&mut inputs, INPUTS_AT_ONCE) => {
                    debug_assert!(taken > 0, "the driver holds a sender itself");
                    self.inputs(&mut inputs);
                }
                heard = self.parts.link.events.recv(), if listens => match heard {
                    Some((membership, event)) => {
                        self.leaving.heard();
                        if self.parts.link.is_current(membership, &event) {
                            self.event(event);
                        }
                    }
                    None => return self.engine_is_gone().await,
                },
                command = self.parts.commands.recv(), if !self.stopping => self.command(command),
                () = alarm.as_mut() => self.tick(),
            }
        }
        self.close().await
    }

    /// Whether what comes from the engine waits there for the moment, where memory is bounded in bytes: there is enough to do, and what is
    /// taken when its turn comes is new to the processor's caches. Nothing wakes us for it meanwhile: calls that are being made do, since
    /// they are answered or rescued soon.
    fn leaves_events(&mut self) -> bool {
        let has_plenty = self.calls.are_being_made() && self.core.not_looked_at() >= MESSAGES_PLENTY;
        has_plenty && self.leaving.may_go_on(self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn unix_ms(&self, at_ms: u64) -> i64 {
        self.began_unix_ms.saturating_add(i64::try_from(at_ms).unwrap_or(i64::MAX))
    }

    fn wake_at(&self) -> tokio::time::Instant {
        let fenced = self.fenced.values().min().copied();
        let report = self.evidence.as_ref().and_then(|evidence| evidence.due_ms(&self.core));
        let at_ms = [self.core.wake_at_ms(), fenced, self.calls.rescue_at_ms(), self.asking.due_ms(), report]
            .into_iter()
            .flatten()
            .min();
        // One more, because the milliseconds that have passed are rounded down.
        let at_ms = at_ms.unwrap_or_else(|| self.now_ms() + 1_000);
        (self.began + Duration::from_millis(at_ms)).into()
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms();
        let rescued = self.calls.rescue(now_ms);
        rescued.into_iter().for_each(|ended| self.ended(ended, now_ms));
        self.core.tick(now_ms);
        self.ask_for_backlog(now_ms);
        if self.fenced.values().any(|until_ms| *until_ms <= now_ms) {
            self.rejoin();
        }
    }

    fn ask_for_backlog(&mut self, now_ms: u64) {
        match self.asking.questions(&self.core, now_ms) {
            Some(questions) if questions.is_empty() => self.parts.board.lags(Vec::new(), self.began),
            Some(questions) => self.parts.link.ask(Ask::Backlog(questions)),
            None => {}
        }
    }

    // ---- what happens ------------------------------------------------------------------------------------------------

    fn inputs(&mut self, inputs: &mut Vec<Input>) {
        let now_ms = self.now_ms();
        // Calls that ended one by one are looked at together.
        let mut together = Ended::default();
        for input in inputs.drain(..) {
            if let Input::Ended(ended) = input {
                together.join(ended);
                continue;
            }
            if !together.outcomes.is_empty() {
                self.ended(std::mem::take(&mut together), now_ms);
            }
            self.input(input, now_ms);
        }
        if !together.outcomes.is_empty() {
            self.ended(together, now_ms);
        }
    }

    fn input(&mut self, input: Input, now_ms: u64) {
        match input {
            Input::Ran(ran) => {
                let ended = self.calls.ran(ran);
                self.ended(ended, now_ms);
            }
            Input::Ended(ended) => self.ended(ended, now_ms),
            Input::Settled(ticket, result) => {
                if let Ok(settlements) = &result {
                    let settlements: Vec<core::Settlement> = settlements.iter().map(from_engine).collect();
                    self.intercept(|each| each.settled(&settlements));
                }
                self.core.confirmed(ticket, result.map(drop), now_ms);
            }
            Input::MayStart(run, Ok(())) => {
                if let Some(call) = self.once.as_mut().and_then(|once| once.take(run)) {
                    self.calls.push(call);
                }
            }
            Input::MayStart(run, Err(cause)) => {
                drop(self.once.as_mut().and_then(|once| once.take(run)));
                self.parts.board.notice(Notice::Consumer(Report::StoreFailed { cause }));
                self.ended(Ended::of(run, Outcomes::All(Outcome::Stopped)), now_ms);
            }
            Input::Confirmed(ticket, result) => self.core.confirmed(ticket, result, now_ms),
            Input::Loaded(ticket, messages) => self.core.parked_loaded(ticket, messages, now_ms),
            Input::Prepared(prepared) => self.prepared(*prepared),
            Input::Backlog(answer) => {
                self.asking.answered(answer, &mut self.core, now_ms);
                self.parts.board.lags(self.core.lags(), self.began);
            }
            Input::Reported(reports) => {
                if let Some(evidence) = &mut self.evidence {
                    evidence.reported(reports, &mut self.core, now_ms);
                }
            }
        }
    }

    fn ended(&mut self, ended: Ended, now_ms: u64) {
        self.calls.ended(&ended);
        self.tally.add(&ended.tally);
        certain(&ended, &mut self.core, now_ms);
        if !ended.fenced.is_empty() {
            self.is_fenced(&ended.fenced);
        }
        self.core.finished(ended.outcomes, now_ms);
    }

    /// Somebody else owns these partitions: what was of them is over for us, whatever the engine thinks.
    fn is_fenced(&mut self, under: &[(TopicPartition, Option<Fence>)]) {
        let now_ms = self.now_ms();
        // Unless it became ours once more since the call began.
        let still = |(partition, fence): &&(TopicPartition, Option<Fence>)| {
            self.owned.contains(partition) && fence.as_ref() == self.fences.get(partition)
        };
        let gone: Vec<TopicPartition> = under.iter().filter(still).map(|(partition, _)| partition.clone()).collect();
        for partition in &gone {
            self.parts.board.notice(Notice::Fenced { partition: partition.clone() });
            self.fenced.insert(partition.clone(), now_ms.saturating_add(FENCED_WAIT_MS));
        }
        if !gone.is_empty() {
            self.parts.link.ask(Ask::Pause(gone.clone()));
            self.core.lost(&gone, now_ms);
            self.disown(&gone);
        }
    }

    fn event(&mut self, event: Result<Event, EngineError>) {
        let now_ms = self.now_ms();
        match event {
            Ok(Event::Messages(deliveries)) => self.messages(deliveries),
            Ok(Event::Assigned(assignments)) => self.assigned(assignments),
            Ok(Event::Revoking(partitions)) => {
                partitions.iter().for_each(|partition| drop(self.preparing.remove(partition)));
                self.unfence(&partitions);
                self.core.revoking(&partitions, now_ms);
            }
            Ok(Event::Lost(partitions)) => {
                partitions.iter().for_each(|partition| drop(self.preparing.remove(partition)));
                self.unfence(&partitions);
                self.core.lost(&partitions, now_ms);
                self.disown(&partitions);
            }
            Ok(Event::Gap { partition, expected, next }) => {
                self.parts.board.notice(Notice::Gap { partition, expected, next });
            }
            Ok(Event::Idle) => {}
            Err(error) => {
                let is_bug = matches!(error, EngineError::Bug(_));
                self.engine_failed(error);
                if is_bug && !self.stopping {
                    self.rejoin();
                }
            }
        }
    }

    /// An engine that is away says so several times a second: people hear the same thing now and then.
    fn engine_failed(&mut self, error: EngineError) {
        let (now_ms, text) = (self.now_ms(), error.to_string());
        if self.failed.as_ref().is_none_or(|(said, until_ms)| *said != text || *until_ms <= now_ms) {
            self.failed = Some((text, now_ms.saturating_add(SAME_FAILURE_MS)));
            self.parts.board.notice(Notice::Engine { error });
        }
    }

    fn messages(&mut self, mut deliveries: Vec<Delivery>) {
        let now_ms = self.now_ms();
        for interceptor in &self.parts.interceptors {
            for delivery in &mut deliveries {
                let (from, offset) = (delivery.from.clone(), delivery.offset);
                guarded(|| interceptor.received(delivery));
                (delivery.from, delivery.offset) = (from, offset);
            }
        }
        if !self.preparing.is_empty() {
            let (held, others) = deliveries.into_iter().partition(|each| self.preparing.contains_key(&each.from));
            deliveries = others;
            for delivery in held {
                if let Some(preparing) = self.preparing.get_mut(&delivery.from) {
                    preparing.held.push(delivery);
                }
            }
        }
        if !deliveries.is_empty() {
            self.core.messages(deliveries, now_ms);
        }
    }

    /// Nothing of a partition is handled before its owner before is fenced off, and what that one left is known.
    fn assigned(&mut self, assignments: Vec<baton_engine::Assignment>) {
        let partitions: Vec<TopicPartition> = assignments.iter().map(|each| each.partition.clone()).collect();
        self.unfence(&partitions);
        self.parts.link.ask(Ask::Pause(partitions));
        if self.stopping {
            return;
        }
        for assignment in assignments {
            let partition = assignment.partition.clone();
            let place = Place { group: self.parts.group.clone(), partition: partition.clone() };
            let preparation = prepare::Preparation {
                work: self.parts.work.clone(),
                store: self.parts.store.clone(),
                place,
                offsets: self.parts.offsets,
                assignment,
                answers: self.parts.answers.clone(),
                board: self.parts.board.clone(),
            };
            let task = self.side_jobs.spawn(preparation.run());
            self.preparing.insert(partition, Preparing::new(task));
        }
    }

    fn prepared(&mut self, prepared: prepare::Prepared) {
        let now_ms = self.now_ms();
        let prepare::Prepared { assignment, fence, task } = prepared;
        let partition = assignment.partition.clone();
        // A later assignment is being prepared, or the partition is gone again.
        if !self.preparing.get(&partition).is_some_and(|preparing| preparing.is(task)) {
            return;
        }
        let Some(mut preparing) = self.preparing.remove(&partition) else { return };
        self.own(&partition, fence);
        self.core.assigned(vec![assignment], now_ms);
        self.parts.link.ask(Ask::Resume(vec![partition]));
        let held = std::mem::take(&mut preparing.held);
        if !held.is_empty() {
            self.core.messages(held, now_ms);
        }
    }

    fn own(&mut self, partition: &TopicPartition, fence: Option<Fence>) {
        self.owned.insert(partition.clone());
        if let Some(fence) = fence {
            Arc::make_mut(&mut self.fences).insert(partition.clone(), fence);
        }
    }

    fn disown(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.owned.remove(partition);
            if let Some(store) = &self.parts.store {
                store.forget(&Place { group: self.parts.group.clone(), partition: partition.clone() });
            }
            if self.fences.contains_key(partition) {
                Arc::make_mut(&mut self.fences).remove(partition);
            }
            if let Some(once) = &mut self.once {
                once.forget(partition);
            }
        }
    }

    fn unfence(&mut self, partitions: &[TopicPartition]) {
        partitions.iter().for_each(|partition| _ = self.fenced.remove(partition));
    }

    /// Leaves the group and joins it again: what comes of the old membership from here on is not heard.
    fn rejoin(&mut self) {
        let now_ms = self.now_ms();
        let owned: Vec<TopicPartition> = self.owned.iter().cloned().collect();
        self.preparing.clear();
        self.fenced.clear();
        self.core.lost(&owned, now_ms);
        self.disown(&owned);
        self.parts.link.ask(Ask::Rejoin);
    }

    fn command(&mut self, command: Option<Command>) {
        let now_ms = self.now_ms();
        match command {
            Some(Command::Release { partition, key, reply }) => {
                // Who asked may have gone.
                let _ = reply.send(self.core.release_key(&partition, &key, now_ms));
            }
            Some(Command::Stop { wait }) => self.stop(wait),
            // Everybody who could tell us to go on or to stop is gone.
            None => self.stop(self.parts.shutdown_wait),
        }
    }

    fn stop(&mut self, wait: Duration) {
        let now_ms = self.now_ms();
        self.stopping = true;
        self.preparing.clear();
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.core.drain(now_ms.saturating_add(wait_ms), now_ms);
    }

    // ---- what is to be done ------------------------------------------------------------------------------------------

    fn carry_out(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Start { calls } => calls.into_iter().for_each(|call| self.start(call)),
                Action::Cancel { run } => self.calls.stop(run),
                Action::Pause { partition } => self.parts.link.ask(Ask::Pause(vec![partition])),
                Action::Resume { partition } => self.parts.link.ask(Ask::Resume(vec![partition])),
                Action::Settle { ticket, settlements } => self.settle(ticket, settlements),
                Action::StoreDone { ticket, partition, bytes } => {
                    self.with_store(ticket, partition, move |store, place| async move {
                        store.store_done(&place, bytes.into()).await
                    });
                }
                Action::DeadLetter { ticket, letter } => self.dead_letter(ticket, letter),
                Action::Park { ticket, partition, key, messages } => {
                    self.with_store(ticket, partition, move |store, place| async move {
                        store.park(&place, &key, &messages).await
                    });
                }
                Action::LoadParked { ticket, partition, key, messages_max } => {
                    self.load(ticket, partition, key, messages_max);
                }
                Action::RemoveParked { ticket, partition, key, up_to } => {
                    self.with_store(ticket, partition, move |store, place| async move {
                        store.remove(&place, &key, up_to).await
                    });
                }
                Action::Release { partition } => {
                    self.disown(std::slice::from_ref(&partition));
                    self.parts.link.ask(Ask::Release(vec![partition]));
                }
                Action::Drained => self.drained = true,
                Action::Seek { partition, offset } => self.parts.link.ask(Ask::Seek(partition, offset)),
                Action::Rejoin { .. } => self.rejoin(),
                Action::Report(report) => self.parts.board.notice(Notice::Consumer(report)),
            }
        }
        let now_ms = self.now_ms();
        self.calls.begin(now_ms);
    }

    fn start(&mut self, Started { run, messages }: Started) {
        let fences = (!self.fences.is_empty()).then(|| self.fences.clone());
        let call = Call { run, messages, fences, stopped: false };
        match &mut self.once {
            None => self.calls.push(call),
            Some(once) => {
                let settlements = once.before(run, call, self.parts.settings.settling);
                self.parts.link.ask(Ask::Settle(For::Start(run), settlements));
            }
        }
    }

    fn settle(&mut self, ticket: Ticket, settlements: Vec<core::Settlement>) {
        let mut settlements: Vec<Settlement> = settlements.into_iter().map(to_engine).collect();
        if let Some(once) = &mut self.once {
            once.reconcile(&mut settlements);
        }
        self.parts.link.ask(Ask::Settle(For::Core(ticket), settlements));
    }

    fn dead_letter(&mut self, ticket: Ticket, letter: core::DeadLetter) {
        let times = Times { first: self.unix_ms(letter.arrived_ms), last: self.unix_ms(self.now_ms()) };
        let (letters, work, fences) = (self.parts.letters.clone(), self.parts.work.clone(), self.fences.clone());
        let answers = self.parts.answers.clone();
        self.side_jobs.spawn(async move {
            let result = match letters.send(&letter, times).await {
                Ok(()) => work.pass_over(letter.delivery, fences).await,
                Err(error) => Err(error),
            };
            // Nobody listens only after the consumer has ended.
            let _ = answers.send(Input::Confirmed(ticket, result.map_err(Arc::from)));
        });
    }

    fn with_store<F, R>(&mut self, ticket: Ticket, partition: TopicPartition, work: F)
    where
        F: FnOnce(Arc<dyn SideStore>, Place) -> R + Send + 'static,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let answers = self.parts.answers.clone();
        let place = Place { group: self.parts.group.clone(), partition };
        let Some(store) = self.parts.store.clone() else {
            let _ = answers.send(Input::Confirmed(ticket, Err("there is no side store".into())));
            return;
        };
        self.side_jobs.spawn(async move {
            let result = work(store, place).await;
            let _ = answers.send(Input::Confirmed(ticket, result.map_err(|error| error.to_string().into())));
        });
    }

    fn load(&mut self, ticket: Ticket, partition: TopicPartition, key: Bytes, messages_max: usize) {
        let answers = self.parts.answers.clone();
        let place = Place { group: self.parts.group.clone(), partition };
        let Some(store) = self.parts.store.clone() else {
            let _ = answers.send(Input::Loaded(ticket, Vec::new()));
            return;
        };
        self.side_jobs.spawn(async move {
            let input = match store.load(&place, &key, messages_max).await {
                Ok(messages) => Input::Loaded(ticket, messages),
                Err(error) => Input::Confirmed(ticket, Err(error.to_string().into())),
            };
            let _ = answers.send(input);
        });
    }

    /// Reports what was seen, if that is due.
    fn report(&mut self) {
        let now_ms = self.now_ms();
        if let Some(evidence) = &mut self.evidence {
            evidence.report(&mut self.core, now_ms);
        }
    }

    fn intercept(&self, call: impl Fn(&dyn ConsumerInterceptor)) {
        for interceptor in &self.parts.interceptors {
            guarded(|| call(&**interceptor));
        }
    }

    fn publish(&mut self) {
        while self.side_jobs.try_join_next().is_some() {}
        let now_ms = self.now_ms();
        self.parts.board.publish(&self.core, &self.tally, now_ms, self.drained);
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    async fn close(mut self) -> Result<(), ConsumerError> {
        let now_ms = self.now_ms();
        drop(self.calls);
        self.side_jobs.abort_all();
        // Who gets the partitions does not wait for the last reports.
        let left = leave(self.parts.link);
        // What came of calls and was not heard holds what stops those that wait: it is let go in either case.
        let Some(evidence) = self.evidence else {
            drop(self.parts.inputs);
            return left.await;
        };
        let ((), left) = tokio::join!(evidence.flush(&mut self.core, self.parts.inputs, now_ms), left);
        self.parts.board.publish(&self.core, &self.tally, now_ms, true);
        left
    }

    /// The engine's task has ended although nobody told it to.
    async fn engine_is_gone(self) -> Result<(), ConsumerError> {
        drop(self.calls);
        match self.parts.link.task.await {
            Ok(Ok(())) => Err(ConsumerError::Ended("the engine's task".to_owned())),
            Ok(Err(error)) => Err(ConsumerError::Engine(error)),
            Err(error) => Err(ConsumerError::Ended(error.to_string())),
        }
    }
}

async fn leave(link: Link) -> Result<(), ConsumerError> {
    let Link { asks, events, task, .. } = link;
    drop(asks);
    // Its events may be waiting to be heard: nobody will.
    drop(events);
    let abort = task.abort_handle();
    match tokio::time::timeout(CLOSE_WAIT, task).await {
        Ok(Ok(closed)) => closed.map_err(ConsumerError::Engine),
        Ok(Err(error)) => Err(ConsumerError::Ended(error.to_string())),
        Err(_) => {
            abort.abort();
            let text = "the engine does not answer; the group will notice that this member is gone";
            Err(EngineError::Unavailable(text.to_owned()).into())
        }
    }
}

fn to_engine(settlement: core::Settlement) -> Settlement {
    match settlement {
        core::Settlement::Frontier { partition, next, metadata } => Settlement::Frontier { partition, next, metadata },
        core::Settlement::Done { partition, offset } => Settlement::Done { partition, offset },
        core::Settlement::GiveBack { partition, offset } => Settlement::GiveBack { partition, offset },
    }
}

fn from_engine(settlement: &Settlement) -> core::Settlement {
    match settlement.clone() {
        Settlement::Frontier { partition, next, metadata } => core::Settlement::Frontier { partition, next, metadata },
        Settlement::Done { partition, offset } => core::Settlement::Done { partition, offset },
        Settlement::GiveBack { partition, offset } => core::Settlement::GiveBack { partition, offset },
    }
}

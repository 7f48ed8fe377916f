//! The task between the engine and who handles messages: stores what comes, acknowledges what is stored, hands it up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use baton_core::{Delivery, TopicPartition};
use baton_engine::{
    Assignment, Backlog, ConsumerOptions, Engine, EngineConsumer, EngineError, Event, Question, Settlement, Waiting,
};
use baton_guard::intake::{Intake, IntakeError, Ownership, Place, Progress, Taken};
use baton_guard::side::StoreError;
use tokio::sync::mpsc::{self, Permit, Sender, UnboundedReceiver};
use tokio::task::JoinSet;

use super::StoreFirst;
use super::member::{Answer, Command, Held, Member, Told, not_ours};
use super::shelf::{Known, Phase, READ_MESSAGES_MAX, Shelf};

/// Events that may wait for who handles messages; of messages, each is a batch.
const EVENTS_WAITING_MAX: usize = 2;
/// Transactions that add or read at the same time: a few connections of the pool, which others need as well.
const JOBS_MAX: usize = 4;
/// Those that take, beside them: a partition that has just come does not wait until those that are there have nothing to do.
const TAKES_MAX: usize = 2;
/// How often the engine is acknowledged: a commit for each batch would cost more, and a crash repeats nothing that is stored.
const ACKNOWLEDGE_INTERVAL_MS: u64 = 100;
/// How long to wait when the engine refused that.
const ACKNOWLEDGE_FAILED_MS: u64 = 1_000;
/// How long one call for the next event waits.
const NEXT_WAIT: Duration = Duration::from_secs(1);
/// How often it is said at most that something failed.
const SAY_INTERVAL_MS: u64 = 1_000;
/// How long a partition that is given up waits for what is just being stored.
const STORED_WAIT: Duration = Duration::from_secs(5);
/// Who was told by the store that a place has a new owner hears the same from the engine within this time, or joins the group anew.
const FENCED_WAIT_MS: u64 = 10_000;
/// How long leaving the group may take, when it is joined anew.
const CLOSE_WAIT: Duration = Duration::from_secs(15);
/// How long to wait before the group is joined again that could not be.
const JOIN_WAIT: Duration = Duration::from_millis(500);

/// Joins the group.
pub(super) async fn open(
    engine: Arc<dyn Engine>,
    options: ConsumerOptions,
    first: StoreFirst,
) -> Result<Member, EngineError> {
    let inner = engine.consumer(options.clone()).await?;
    let (commands, commanded) = mpsc::unbounded_channel();
    let (told, events) = mpsc::channel(EVENTS_WAITING_MAX);
    let next_tag = Arc::new(AtomicU64::new(0));
    let desk = Desk {
        engine,
        group: options.group.as_str().into(),
        options,
        intake: first.intake,
        messages_max: first.messages_max,
        inner,
        shelves: BTreeMap::new(),
        out: VecDeque::new(),
        jobs: JoinSet::new(),
        running: 0,
        taking: 0,
        begun_last: None,
        next_tag: next_tag.clone(),
        began: Instant::now(),
        acknowledge_at_ms: 0,
        say_at_ms: 0,
        turn: 0,
    };
    tokio::spawn(desk.serve(commanded, told));
    Ok(Member { commands, events, tags: HashMap::new(), next_tag })
}

/// Something that the store did, or could not.
enum Done {
    Taken(TopicPartition, u64, Result<Taken, StoreError>),
    Stored(TopicPartition, u64, Vec<Delivery>, Result<(), IntakeError>),
    Read(TopicPartition, u64, i64, Result<Vec<Delivery>, StoreError>),
    Restarted(TopicPartition, u64, i64, Result<Ownership, IntakeError>),
    Advanced(Vec<Moved>, Answer<()>, Result<(), EngineError>),
}

/// A frontier that was to be moved.
struct Moved {
    partition: TopicPartition,
    tenure: u64,
    epoch: i64,
    progress: Progress,
    result: Result<(), IntakeError>,
}

/// What woke the task.
enum Woken<'a> {
    Command(Option<Command>),
    Done(Done),
    Room(Permit<'a, Told>),
    Event(Result<Event, EngineError>),
    Time,
    /// Nobody listens any more.
    Over,
}

/// The partitions, beginning behind the one that had its turn last: with fewer slots than partitions, each gets one.
fn in_turn<'a>(
    partitions: impl Iterator<Item = &'a TopicPartition>,
    begun_last: Option<&TopicPartition>,
) -> Vec<TopicPartition> {
    let (before, mut behind): (Vec<_>, Vec<_>) = partitions.cloned().partition(|each| Some(each) <= begun_last);
    behind.extend(before);
    behind
}

struct Desk {
    engine: Arc<dyn Engine>,
    options: ConsumerOptions,
    group: Arc<str>,
    intake: Arc<dyn Intake>,
    messages_max: u64,
    inner: Box<dyn EngineConsumer>,
    shelves: BTreeMap<TopicPartition, Shelf>,
    /// Everything but messages, which lie on the shelves. The engine is asked for more when it was heard.
    out: VecDeque<Told>,
    jobs: JoinSet<Done>,
    /// How many of them add, begin anew or read.
    running: usize,
    /// How many of them take.
    taking: usize,
    /// For which partition one of these was begun last.
    begun_last: Option<TopicPartition>,
    next_tag: Arc<AtomicU64>,
    began: Instant,
    acknowledge_at_ms: u64,
    say_at_ms: u64,
    /// Whose turn it is to be handed up.
    turn: usize,
}

impl Desk {
    async fn serve(mut self, mut commands: UnboundedReceiver<Command>, told: Sender<Told>) {
        loop {
            self.begin();
            let now_ms = self.now_ms();
            if self
                .shelves
                .values()
                .any(|shelf| matches!(shelf.phase, Phase::Fenced { until_ms } if until_ms <= now_ms))
            {
                if !self.rejoin(&told).await {
                    return;
                }
                continue;
            }
            if self.acknowledge_at_ms <= now_ms && self.owes() {
                self.acknowledge().await;
            }
            let woken = self.woken(&mut commands, &told).await;
            match woken {
                Woken::Command(Some(Command::Close(answer))) => return self.close(answer).await,
                // Whoever used it is gone, and the group will be told by the member that is dropped.
                Woken::Command(None) | Woken::Over => return,
                Woken::Command(Some(command)) => self.command(command).await,
                Woken::Done(done) => self.done(done),
                Woken::Room(permit) => {
                    if let Some(told) = self.next_told() {
                        permit.send(told);
                    }
                }
                Woken::Event(event) => self.event(event).await,
                Woken::Time => {}
            }
        }
    }

    async fn woken<'a>(&mut self, commands: &mut UnboundedReceiver<Command>, told: &'a Sender<Told>) -> Woken<'a> {
        let has_more = !self.out.is_empty() || self.shelves.values().any(Shelf::has_ready);
        let wake_at = self.began + Duration::from_millis(self.wake_at_ms());
        tokio::select! {
            biased;
            command = commands.recv() => Woken::Command(command),
            Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => match done {
                Ok(done) => Woken::Done(done),
                Err(error) => {
                    // Only a panic: none is ever aborted. What it was about is known to nobody now.
                    tracing::error!(%error, "storing messages");
                    Woken::Over
                }
            },
            permit = told.reserve(), if has_more => permit.map_or(Woken::Over, Woken::Room),
            event = self.inner.next(NEXT_WAIT), if self.out.is_empty() => Woken::Event(event),
            () = tokio::time::sleep_until(wake_at.into()) => Woken::Time,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One more than is due, because the milliseconds that have passed are rounded down.
    fn wake_at_ms(&self) -> u64 {
        let fenced = |shelf: &Shelf| match shelf.phase {
            Phase::Fenced { until_ms } => Some(until_ms),
            _ => shelf.retry_at_ms(),
        };
        let due_ms = self.shelves.values().filter_map(fenced);
        let owed_ms = self.owes().then_some(self.acknowledge_at_ms);
        let now_ms = self.now_ms();
        due_ms.chain(owed_ms).min().unwrap_or(now_ms + 1_000).clamp(now_ms, now_ms + 1_000) + 1
    }

    fn shelf(&mut self, partition: &TopicPartition, tenure: u64) -> Option<&mut Shelf> {
        self.shelves.get_mut(partition).filter(|shelf| shelf.tenure == tenure)
    }

    // ---- the store -------------------------------------------------------------------------------------------------

    /// Begins whatever may begin, and tells the engine to stop or to go on.
    fn begin(&mut self) {
        let now_ms = self.now_ms();
        for partition in in_turn(self.shelves.keys(), self.begun_last.as_ref()) {
            self.begin_take(&partition, now_ms);
            self.begin_store(&partition, now_ms);
            self.begin_read(&partition, now_ms);
            let Some(shelf) = self.shelves.get_mut(&partition) else { continue };
            let stops = shelf.is_full(self.messages_max) || matches!(shelf.phase, Phase::Fenced { .. });
            if stops != shelf.stopped {
                shelf.stopped = stops;
                let only = std::slice::from_ref(&partition);
                let said = if stops { self.inner.pause(only) } else { self.inner.resume(only) };
                if let Err(error) = said {
                    // Of a partition that just went, mostly: then the event that says so is on its way.
                    tracing::debug!(%error, "the engine refused");
                }
            }
        }
    }

    fn place(&self, partition: &TopicPartition) -> Place {
        Place { group: self.group.clone(), partition: partition.clone() }
    }

    fn begin_take(&mut self, partition: &TopicPartition, now_ms: u64) {
        let (place, intake, room) = (self.place(partition), self.intake.clone(), self.taking < TAKES_MAX);
        let Some(shelf) = self.shelves.get_mut(partition) else { return };
        if shelf.phase != Phase::Taking || shelf.storing || !room || shelf.retry_at_ms().is_some_and(|at| at > now_ms) {
            return;
        }
        shelf.storing = true;
        self.taking += 1;
        let (partition, tenure, known) = (partition.clone(), shelf.tenure, shelf.known.clone());
        self.jobs.spawn(async move {
            let known = known.frontier.map(|frontier| (frontier, known.metadata.as_str()));
            Done::Taken(partition, tenure, intake.take(&place, known).await)
        });
    }

    fn begin_store(&mut self, partition: &TopicPartition, now_ms: u64) {
        let (intake, messages_max, room) = (self.intake.clone(), self.messages_max, self.running < JOBS_MAX);
        let Some(shelf) = self.shelves.get_mut(partition).filter(|_| room) else { return };
        let Some(ownership) = shelf.ownership.clone() else { return };
        let (partition, tenure, acknowledged) = (partition.clone(), shelf.tenure, shelf.acknowledged());
        if let Some(at) = shelf.to_restart(now_ms) {
            shelf.storing = true;
            self.running += 1;
            self.begun_last = Some(partition.clone());
            self.jobs.spawn(async move {
                let result = intake.restart(&ownership, at).await;
                Done::Restarted(partition, tenure, at, result)
            });
        } else if let Some(batch) = shelf.next_to_store(messages_max, now_ms) {
            self.running += 1;
            self.begun_last = Some(partition.clone());
            self.jobs.spawn(async move {
                let result = intake.append(&ownership, &batch, acknowledged).await;
                Done::Stored(partition, tenure, batch, result)
            });
        }
    }

    fn begin_read(&mut self, partition: &TopicPartition, now_ms: u64) {
        let (place, intake, room) = (self.place(partition), self.intake.clone(), self.running < JOBS_MAX);
        let Some(shelf) = self.shelves.get_mut(partition).filter(|_| room) else { return };
        let Some((from, end)) = shelf.next_to_read(now_ms) else { return };
        // Of a seek meanwhile the answer must not be taken for one to what is asked then.
        let read = self.next_tag.fetch_add(1, Ordering::Relaxed);
        shelf.reading = Some(read);
        self.running += 1;
        self.begun_last = Some(partition.clone());
        let partition = partition.clone();
        self.jobs.spawn(async move {
            let result = intake.read(&place, from, READ_MESSAGES_MAX).await;
            Done::Read(partition, read, end, result)
        });
    }

    fn done(&mut self, done: Done) {
        let now_ms = self.now_ms();
        match &done {
            Done::Taken(..) => self.taking -= 1,
            Done::Stored(..) | Done::Read(..) | Done::Restarted(..) => self.running -= 1,
            Done::Advanced(..) => {}
        }
        match done {
            Done::Taken(partition, tenure, result) => self.taken(partition, tenure, result),
            Done::Stored(partition, tenure, batch, result) => {
                let Some(shelf) = self.shelf(&partition, tenure) else { return };
                shelf.storing = false;
                match result {
                    Ok(()) => shelf.stored(batch),
                    Err(error) => {
                        shelf.not_stored(batch, now_ms);
                        self.failed(&partition, error);
                    }
                }
            }
            Done::Read(partition, read, end, result) => {
                let shelf = self.shelves.get_mut(&partition).filter(|shelf| shelf.reading == Some(read));
                let Some(shelf) = shelf else { return };
                shelf.reading = None;
                match result {
                    Ok(messages) => shelf.was_read(messages, end),
                    Err(error) => {
                        shelf.failed(now_ms);
                        self.failed(&partition, error.into());
                    }
                }
            }
            Done::Restarted(partition, tenure, at, result) => {
                let Some(shelf) = self.shelf(&partition, tenure) else { return };
                shelf.storing = false;
                match result {
                    Ok(ownership) => shelf.restarted(ownership, at),
                    Err(error) => {
                        shelf.failed(now_ms);
                        self.failed(&partition, error);
                    }
                }
            }
            Done::Advanced(all, answer, refused) => self.advanced(all, answer, refused),
        }
    }

    fn taken(&mut self, partition: TopicPartition, tenure: u64, result: Result<Taken, StoreError>) {
        let now_ms = self.now_ms();
        let Some(shelf) = self.shelf(&partition, tenure) else { return };
        shelf.storing = false;
        if shelf.phase != Phase::Taking {
            return;
        }
        match result {
            Ok(taken) => {
                let (frontier, metadata) = shelf.taken(taken);
                shelf.told = true;
                let (epoch, tag) = (shelf.known.epoch, shelf.tag);
                let assignment = Assignment { partition, frontier, metadata, epoch };
                self.out.push_back(Told::Assigned(assignment, tag));
            }
            Err(error) => {
                shelf.failed(now_ms);
                self.failed(&partition, error.into());
            }
        }
    }

    fn advanced(&mut self, all: Vec<Moved>, answer: Answer<()>, mut refused: Result<(), EngineError>) {
        for Moved { partition, tenure, epoch, progress, result } in all {
            let Some(shelf) = self.shelf(&partition, tenure) else {
                refused = Err(not_ours(&partition));
                continue;
            };
            let is_current = shelf.ownership.as_ref().is_some_and(|ours| ours.epoch == epoch);
            match result {
                // It was written before the place began anew, and says nothing of it now.
                Ok(()) if !is_current => {}
                Err(IntakeError::Fenced) if !is_current => refused = Err(not_ours(&partition)),
                Ok(()) => shelf.advanced(progress.frontier, progress.metadata),
                Err(error) => {
                    let told = match &error {
                        IntakeError::Fenced => not_ours(&partition),
                        IntakeError::Store(error) => EngineError::Unavailable(error.to_string()),
                    };
                    refused = Err(told);
                    self.failed(&partition, error);
                }
            }
        }
        // Who asked may have gone.
        let _ = answer.send(refused);
    }

    /// The store refused.
    fn failed(&mut self, partition: &TopicPartition, error: IntakeError) {
        match error {
            IntakeError::Fenced => self.fenced(partition),
            IntakeError::Store(error) => self.say(EngineError::Unavailable(format!(
                "store-first, nothing is acknowledged before it is stored: {error}"
            ))),
        }
    }

    fn say(&mut self, error: EngineError) {
        let now_ms = self.now_ms();
        if self.say_at_ms <= now_ms {
            self.say_at_ms = now_ms.saturating_add(SAY_INTERVAL_MS);
            self.out.push_back(Told::Other(Err(error)));
        }
    }

    /// Somebody else owns the place: what we hold of it is over, whatever the engine thinks.
    fn fenced(&mut self, partition: &TopicPartition) {
        let until_ms = self.now_ms().saturating_add(FENCED_WAIT_MS);
        let Some(shelf) = self.shelves.get_mut(partition) else { return };
        if matches!(shelf.phase, Phase::Fenced { .. }) {
            return;
        }
        shelf.leave(Phase::Fenced { until_ms });
        tracing::warn!(%partition, "the stored messages of a partition have a new owner");
        if std::mem::take(&mut shelf.told) {
            self.out.push_back(Told::Other(Ok(Event::Lost(vec![partition.clone()]))));
        }
    }

    // ---- the engine ------------------------------------------------------------------------------------------------

    async fn event(&mut self, event: Result<Event, EngineError>) {
        match event {
            Ok(Event::Messages(messages)) => {
                for message in messages {
                    if let Some(shelf) = self.shelves.get_mut(&message.from) {
                        shelf.came(message);
                    }
                }
            }
            Ok(Event::Assigned(assignments)) => assignments.into_iter().for_each(|assignment| {
                let Assignment { partition, frontier, metadata, epoch } = assignment;
                self.lose(&partition);
                let tenure = self.next_tag.fetch_add(1, Ordering::Relaxed);
                self.shelves.insert(partition, Shelf::new(tenure, Known { frontier, metadata, epoch }));
            }),
            Ok(Event::Revoking(partitions)) => self.revoking(partitions).await,
            Ok(Event::Lost(partitions)) => partitions.iter().for_each(|partition| self.lose(partition)),
            Ok(Event::Gap { partition, expected, next }) => {
                if let Some(shelf) = self.shelves.get_mut(&partition).filter(|_| next < expected) {
                    shelf.went_back();
                }
                self.out.push_back(Told::Other(Ok(Event::Gap { partition, expected, next })));
            }
            Ok(Event::Idle) => {}
            Err(error) => self.out.push_back(Told::Other(Err(error))),
        }
    }

    fn lose(&mut self, partition: &TopicPartition) {
        if self.shelves.remove(partition).is_some_and(|shelf| shelf.told) {
            self.out.push_back(Told::Other(Ok(Event::Lost(vec![partition.clone()]))));
        }
    }

    /// Those that nobody was told of are given up at once.
    async fn revoking(&mut self, partitions: Vec<TopicPartition>) {
        let (mut told, mut untold) = (Vec::new(), Vec::new());
        for partition in partitions {
            match self.shelves.get_mut(&partition) {
                Some(shelf) if shelf.told => {
                    shelf.leave(Phase::Leaving);
                    told.push(partition);
                }
                _ => {
                    self.shelves.remove(&partition);
                    untold.push(partition);
                }
            }
        }
        if !told.is_empty() {
            self.out.push_back(Told::Other(Ok(Event::Revoking(told))));
        }
        if !untold.is_empty()
            && let Err(error) = self.inner.release(&untold).await
        {
            self.out.push_back(Told::Other(Err(error)));
        }
    }

    fn owes(&self) -> bool {
        self.shelves.values().any(|shelf| shelf.owed().is_some())
    }

    /// Tells the engine what is stored.
    async fn acknowledge(&mut self) {
        let owed = |(partition, shelf): (&TopicPartition, &Shelf)| Some((partition.clone(), shelf.owed()?));
        let owed: Vec<(TopicPartition, i64)> = self.shelves.iter().filter_map(owed).collect();
        if owed.is_empty() {
            return;
        }
        let frontier = |(partition, next): &(TopicPartition, i64)| Settlement::Frontier {
            partition: partition.clone(),
            next: *next,
            metadata: String::new(),
        };
        let settlements: Vec<Settlement> = owed.iter().map(frontier).collect();
        let result = self.inner.settle(&settlements).await;
        let wait_ms = if result.is_ok() { ACKNOWLEDGE_INTERVAL_MS } else { ACKNOWLEDGE_FAILED_MS };
        self.acknowledge_at_ms = self.now_ms().saturating_add(wait_ms);
        match result {
            Ok(()) => {
                for (partition, next) in owed {
                    if let Some(shelf) = self.shelves.get_mut(&partition) {
                        shelf.was_acknowledged(next);
                    }
                }
            }
            // A partition that just went, of which an event is on its way; the others are settled all the same, and once more.
            Err(EngineError::Caller(error)) => tracing::debug!(error, "acknowledging what is stored"),
            Err(error) => self.say(error),
        }
    }

    /// Waits for what is just being stored of partitions that are given up.
    async fn let_finish(&mut self, partitions: &[TopicPartition]) {
        let waiting = async {
            while self.shelves.iter().any(|(partition, shelf)| shelf.storing && partitions.contains(partition)) {
                match self.jobs.join_next().await {
                    Some(Ok(done)) => self.done(done),
                    Some(Err(_)) | None => return,
                }
            }
        };
        // What is stored and not acknowledged is known by its offset to whoever is next.
        let _ = tokio::time::timeout(STORED_WAIT, waiting).await;
    }

    /// Leaves the group and joins it again; `false` if nobody listens any more.
    async fn rejoin(&mut self, told: &Sender<Told>) -> bool {
        let partitions: Vec<TopicPartition> = self.shelves.keys().cloned().collect();
        self.let_finish(&partitions).await;
        self.acknowledge().await;
        partitions.iter().for_each(|partition| self.lose(partition));
        let mut again = None;
        while again.is_none() {
            match self.engine.consumer(self.options.clone()).await {
                Ok(member) => again = Some(member),
                Err(error) => {
                    tracing::warn!(%error, group = self.options.group, "joining the group again");
                    tokio::time::sleep(JOIN_WAIT).await;
                }
            }
            if told.is_closed() {
                return false;
            }
        }
        if let Some(member) = again {
            let before = std::mem::replace(&mut self.inner, member);
            if let Ok(Err(error)) = tokio::time::timeout(CLOSE_WAIT, before.close()).await {
                tracing::debug!(%error, "leaving the group before joining again");
            }
        }
        true
    }

    // ---- who handles messages --------------------------------------------------------------------------------------

    fn next_told(&mut self) -> Option<Told> {
        if let Some(told) = self.out.pop_front() {
            return Some(told);
        }
        let ready: Vec<&TopicPartition> =
            self.shelves.iter().filter(|(_, shelf)| shelf.has_ready()).map(|(partition, _)| partition).collect();
        let partition = (*ready.get(self.turn % ready.len().max(1))?).clone();
        self.turn = self.turn.wrapping_add(1);
        let shelf = self.shelves.get_mut(&partition)?;
        Some(Told::Messages(partition, shelf.tag, shelf.hand_up()))
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Pause(partitions) => self.pause(&partitions, true),
            Command::Resume(partitions) => self.pause(&partitions, false),
            Command::Seek(held, offset, tag) => self.seek(&held, offset, tag),
            Command::Settle(settlements, answer) => self.settle(settlements, answer),
            Command::Backlog(questions, answer) => self.backlog(questions, answer),
            Command::Release(held, answer) => {
                // Of one that was assigned again meanwhile the engine is not to hear that it is given up.
                let partitions: Vec<TopicPartition> =
                    held.into_iter().filter(|held| !self.is_stale(held)).map(|(partition, _)| partition).collect();
                self.let_finish(&partitions).await;
                self.acknowledge().await;
                let _ = tokio::time::timeout(STORED_WAIT, self.note(&partitions)).await;
                partitions.iter().for_each(|partition| _ = self.shelves.remove(partition));
                // Who asked may have gone.
                let _ = answer.send(self.inner.release(&partitions).await);
            }
            // Taken by who reads the commands.
            Command::Close(_) => {}
        }
    }

    /// Whether it was asked of an assignment that is over, and there is another one by now.
    fn is_stale(&self, (partition, tag): &Held) -> bool {
        self.shelves.get(partition).is_some_and(|shelf| Some(shelf.tag) != *tag)
    }

    fn pause(&mut self, all: &[Held], paused: bool) {
        for (partition, tag) in all {
            if let Some(shelf) = self.shelves.get_mut(partition).filter(|shelf| Some(shelf.tag) == *tag) {
                shelf.paused = paused;
            }
        }
    }

    fn seek(&mut self, (partition, before): &Held, offset: i64, tag: u64) {
        let Some(shelf) = self.shelves.get_mut(partition).filter(|shelf| Some(shelf.tag) == *before) else { return };
        shelf.seek(offset, tag);
        if let Some(at) = shelf.refetch(offset)
            && let Err(error) = self.inner.seek(partition, at)
        {
            tracing::debug!(%error, "the engine refused");
        }
    }

    fn settle(&mut self, settlements: Vec<(Settlement, Option<u64>)>, answer: Answer<()>) {
        let (mut moves, mut refused) = (Vec::<(Ownership, u64, Progress)>::new(), Ok(()));
        for (settlement, tag) in settlements {
            let Settlement::Frontier { partition, next, metadata } = settlement else {
                refused = Err(EngineError::Unsupported("settling each delivery for itself"));
                continue;
            };
            let shelf = self.shelves.get(&partition).filter(|shelf| shelf.told && Some(shelf.tag) == tag);
            match shelf.and_then(|shelf| Some((shelf.ownership.clone()?, shelf.tenure, shelf.acknowledged()))) {
                Some((ownership, tenure, acknowledged)) => {
                    moves.push((ownership, tenure, Progress { frontier: next, metadata, acknowledged }));
                }
                None => refused = Err(not_ours(&partition)),
            }
        }
        let intake = self.intake.clone();
        self.jobs.spawn(async move {
            let mut all = Vec::with_capacity(moves.len());
            for (ownership, tenure, progress) in moves {
                let result = intake.advance(&ownership, &progress).await;
                let Ownership { place, epoch } = ownership;
                all.push(Moved { partition: place.partition, tenure, epoch, progress, result });
            }
            Done::Advanced(all, answer, refused)
        });
    }

    fn backlog(&mut self, questions: Vec<Question>, answer: Answer<Vec<Backlog>>) {
        let extent = |question: &Question| {
            let shelf = self.shelves.get(&question.partition)?;
            Some((question.partition.clone(), shelf.extent(self.messages_max)))
        };
        let extents: HashMap<_, _> = questions.iter().filter_map(extent).collect();
        let asking = self.inner.backlog(questions);
        tokio::spawn(async move {
            let add = |backlog: Backlog| {
                let Some((first, next, flows)) = extents.get(&backlog.partition) else { return backlog };
                let waiting = match backlog.waiting {
                    Waiting::Offsets { begin, end } => Waiting::Offsets {
                        begin: first.map_or(begin, |first| first.min(begin)),
                        end: next.map_or(end, |next| next.max(end)),
                    },
                    waiting @ Waiting::Undelivered(_) => waiting,
                };
                // What stands still because of the store or its bound is no fault of the engine's, and nothing that it could mend.
                Backlog { waiting, exact: backlog.exact && *flows, ..backlog }
            };
            let result = asking.await.map(|all| all.into_iter().map(add).collect());
            // Who asked may have gone.
            let _ = answer.send(result);
        });
    }

    /// Notes up to where the engine is acknowledged, so that it is seen if somebody sets it back.
    async fn note(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            let shelf = self.shelves.get(partition);
            let noted = shelf.and_then(|shelf| Some((shelf.ownership.clone()?, shelf.progress()?)));
            let Some((ownership, progress)) = noted else { continue };
            if let Err(error) = self.intake.advance(&ownership, &progress).await {
                tracing::debug!(%error, %partition, "noting how far the engine is acknowledged");
            }
        }
    }

    async fn close(mut self, answer: Answer<()>) {
        let partitions: Vec<TopicPartition> = self.shelves.keys().cloned().collect();
        for shelf in self.shelves.values_mut() {
            shelf.leave(Phase::Leaving);
        }
        self.let_finish(&partitions).await;
        self.acknowledge().await;
        let _ = tokio::time::timeout(STORED_WAIT, self.note(&partitions)).await;
        // Who asked may have gone.
        let _ = answer.send(self.inner.close().await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_one_slot_each_partition_has_its_turn() {
        let all: Vec<TopicPartition> = (0..5).map(|partition| TopicPartition::new("orders", partition)).collect();
        let (mut begun_last, mut turns) = (None, Vec::new());
        for _ in 0..7 {
            begun_last = in_turn(all.iter(), begun_last.as_ref()).into_iter().next();
            turns.extend(begun_last.as_ref().map(|partition| partition.partition));
        }
        assert_eq!(turns, [0, 1, 2, 3, 4, 0, 1]);
        let gone = TopicPartition::new("orders", 9);
        assert_eq!(in_turn(all.iter(), Some(&gone)), all, "one that is gone keeps nobody from it");
    }
}

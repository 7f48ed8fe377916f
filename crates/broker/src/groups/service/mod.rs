//! The shell around the core: who waits for what, the one timer, and what has to be durable before it is told.
//!
//! One lock guards the core and everything that must not be reordered against it: a commit is checked and handed to the
//! log under it, so the commit of a member that was just fenced can never overtake. Nothing is awaited under the lock.

mod offsets;
mod stores;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use baton_log::{AppendError, Clock, Log, TableId, Ticket};
use baton_wire::ErrorCode;
use bytes::Bytes;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub use self::offsets::{CommitOffset, FetchedOffset, TopicOffsets};
use self::offsets::{InFlight, OffsetTotals, offset_bytes};
use super::core::{
    Core, CoreCounts, CoreOptions, Effect, GroupDescription, GroupListing, Identity, Join, JoinReply, Now, StoreId,
    Sync, SyncReply, Token,
};
use super::format::{FormatError, OffsetKey, StoredGroup};

/// The table of groups: group id to [`StoredGroup`].
pub const GROUPS_TABLE: TableId = TableId(1);
/// The table of committed offsets: [`OffsetKey`] to [`super::format::StoredOffset`].
pub const OFFSETS_TABLE: TableId = TableId(2);

/// Settings of the coordinator.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// Limits and delays of membership.
    pub core: CoreOptions,
    /// `offset.metadata.max.bytes`: characters of what a client may keep with an offset. Default 4,096.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, here in milliseconds. Default seven days.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`. Default ten minutes.
    pub offsets_retention_check_interval: Duration,
    /// `offsets.commit.timeout.ms`: how long a commit waits for room in the log. Default five seconds.
    pub offset_commit_timeout: Duration,
    /// Offsets kept over all groups. Default 1,000,000.
    pub offsets_max: usize,
    /// Bytes that they take up in memory, with what clients keep with them. Default 128 MiB.
    pub offsets_bytes_max: usize,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            core: CoreOptions::default(),
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_retention_check_interval: Duration::from_secs(600),
            offset_commit_timeout: Duration::from_secs(5),
            offsets_max: 1_000_000,
            offsets_bytes_max: 128 << 20,
        }
    }
}

/// Why the groups could not be read back.
#[derive(Debug, Error)]
pub enum GroupsError {
    /// A group's state.
    #[error("the stored group {group:?} cannot be read: {reason}")]
    Group {
        /// Its id.
        group: String,
        /// Why.
        reason: FormatError,
    },
    /// The key of an offset.
    #[error("the key of a stored offset cannot be read: {0}")]
    OffsetKey(FormatError),
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupMetrics {
    /// Groups and members.
    pub core: CoreCounts,
    /// Offsets kept.
    pub offsets: usize,
    /// Bytes that they take up.
    pub offset_bytes: usize,
    /// Offsets committed since the start.
    pub offset_commits: u64,
    /// Offsets deleted on request since the start.
    pub offset_deletions: u64,
    /// Offsets that expired, or whose topic went, since the start.
    pub offset_expirations: u64,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    deletions: AtomicU64,
    expirations: AtomicU64,
}

/// Consumer groups: membership, assignment and committed offsets. Clones are handles to the same groups.
#[derive(Clone)]
pub struct GroupService {
    inner: Arc<Inner>,
}

struct Inner {
    log: Log,
    clock: Arc<dyn Clock>,
    started: Instant,
    options: GroupOptions,
    runtime: Handle,
    state: Mutex<State>,
    wakes: Arc<Wakes>,
    counters: Counters,
}

/// Wakes the service's two tasks, which do not keep it alive while they sleep.
#[derive(Default)]
struct Wakes {
    /// An earlier deadline, or the end.
    timer: Notify,
    /// Offsets may have lost their topics, or the end.
    sweep: Notify,
}

/// What the lock guards.
struct State {
    core: Core,
    joining: HashMap<Token, oneshot::Sender<JoinReply>>,
    syncing: HashMap<Token, oneshot::Sender<SyncReply>>,
    tokens: u64,
    /// What the timer sleeps for, on the timer's clock.
    timer_ms: i64,
    /// Group states that the log had no room for yet.
    outbox: VecDeque<OutgoingStore>,
    is_waiting_for_room: bool,
    /// Offset changes that are not visible in the table yet: the last write of each key.
    in_flight: BTreeMap<Bytes, InFlight>,
    flights: VecDeque<(Ticket, Vec<Bytes>)>,
    /// The newest write: who is told that there is nothing to delete must be told so for good.
    last_write: Option<Ticket>,
    /// What is kept, changes under way included.
    offsets: OffsetTotals,
    is_closed: bool,
}

struct OutgoingStore {
    id: StoreId,
    group_id: Arc<str>,
    value: Bytes,
}

impl GroupService {
    /// Reads the groups back from the log and starts the timer on `runtime`.
    ///
    /// # Errors
    /// When something stored cannot be read.
    pub fn open(log: Log, clock: Arc<dyn Clock>, options: GroupOptions, runtime: Handle) -> Result<Self, GroupsError> {
        let _guard = runtime.enter();
        let started = Instant::now();
        let mut core = Core::new(options.core.clone());
        let now = Now { timer_ms: 0, wall_ms: clock.now_ms() };
        for (key, value) in log.table_scan(GROUPS_TABLE, &[]) {
            let group_id = String::from_utf8_lossy(&key);
            let stored = StoredGroup::decode(&value)
                .map_err(|reason| GroupsError::Group { group: group_id.to_string(), reason })?;
            core.restore(now, Arc::from(&*group_id), stored);
        }
        let mut offsets = OffsetTotals::default();
        for (key, value) in log.table_scan(OFFSETS_TABLE, &[]) {
            offsets.add(offset_bytes(&key, &value));
            core.restore_simple(now, OffsetKey::decode(&key).map_err(GroupsError::OffsetKey)?.group_id);
        }
        let state = State {
            core,
            joining: HashMap::new(),
            syncing: HashMap::new(),
            tokens: 0,
            timer_ms: i64::MAX,
            outbox: VecDeque::new(),
            is_waiting_for_room: false,
            in_flight: BTreeMap::new(),
            flights: VecDeque::new(),
            last_write: None,
            offsets,
            is_closed: false,
        };
        let inner = Arc::new(Inner {
            log,
            clock,
            started,
            options,
            runtime: runtime.clone(),
            state: Mutex::new(state),
            wakes: Arc::default(),
            counters: Counters::default(),
        });
        inner.carry_out(&mut inner.lock());
        runtime.spawn(run_timer(Arc::downgrade(&inner), inner.wakes.clone()));
        runtime.spawn(sweep::run(Arc::downgrade(&inner), inner.wakes.clone()));
        Ok(Self { inner })
    }

    /// Answers everyone who waits with `COORDINATOR_NOT_AVAILABLE`, as every later request, and ends the timer.
    pub fn close(&self) {
        let mut state = self.inner.lock();
        state.is_closed = true;
        for (_, waiting) in state.joining.drain() {
            // Whoever is gone needs no answer.
            let _ = waiting.send(JoinReply::refused(ErrorCode::CoordinatorNotAvailable, Arc::from("")));
        }
        for (_, waiting) in state.syncing.drain() {
            let _ = waiting.send(SyncReply::refused(ErrorCode::CoordinatorNotAvailable));
        }
        drop(state);
        self.inner.wakes.timer.notify_one();
        self.inner.wakes.sweep.notify_one();
    }

    /// Lets a member join; waits for the rebalance.
    pub async fn join(&self, join: &Join) -> JoinReply {
        let closed = || JoinReply::refused(ErrorCode::CoordinatorNotAvailable, join.member_id.clone());
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.inner.lock();
            if state.is_closed {
                return closed();
            }
            let token = state.token();
            state.joining.insert(token, answer);
            state.core.join(self.inner.now(), token, join);
            self.inner.carry_out(&mut state);
        }
        answered.await.unwrap_or_else(|_| closed())
    }

    /// Gives a member its assignment; waits for the leader's.
    pub async fn sync(&self, sync: &Sync) -> SyncReply {
        let closed = || SyncReply::refused(ErrorCode::CoordinatorNotAvailable);
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.inner.lock();
            if state.is_closed {
                return closed();
            }
            let token = state.token();
            state.syncing.insert(token, answer);
            state.core.sync(self.inner.now(), token, sync);
            self.inner.carry_out(&mut state);
        }
        answered.await.unwrap_or_else(|_| closed())
    }

    /// A member's sign of life.
    pub fn heartbeat(&self, identity: &Identity<'_>) -> ErrorCode {
        self.with_core(|core, now| core.heartbeat(now, identity)).unwrap_or_else(|error| error)
    }

    /// Takes members out of a group: member id and instance id of each; one answer for each.
    ///
    /// # Errors
    /// What is wrong with the request as a whole.
    pub fn leave(&self, group_id: &str, leaving: &[(&str, Option<&str>)]) -> Result<Vec<ErrorCode>, ErrorCode> {
        self.with_core(|core, now| core.leave(now, group_id, leaving))?
    }

    /// All the groups.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE` when closed.
    pub fn list(&self) -> Result<Vec<GroupListing>, ErrorCode> {
        self.with_core(|core, _| core.list().collect())
    }

    /// A group in full, `None` if there is no such group.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE` when closed.
    pub fn describe(&self, group_id: &str) -> Result<Option<GroupDescription>, ErrorCode> {
        self.with_core(|core, _| core.describe(group_id))
    }

    /// Numbers for metrics.
    pub fn metrics(&self) -> GroupMetrics {
        let state = self.inner.lock();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GroupMetrics {
            core: state.core.counts(),
            offsets: state.offsets.count,
            offset_bytes: state.offsets.bytes,
            offset_commits: count(&self.inner.counters.commits),
            offset_deletions: count(&self.inner.counters.deletions),
            offset_expirations: count(&self.inner.counters.expirations),
        }
    }

    /// Has the offsets of deleted topics removed soon. They count as absent as soon as their topic is gone, in any case.
    pub fn topics_deleted(&self) {
        self.inner.wakes.sweep.notify_one();
    }

    fn with_core<T>(&self, ask: impl FnOnce(&mut Core, Now) -> T) -> Result<T, ErrorCode> {
        let mut state = self.inner.lock();
        if state.is_closed {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let answer = ask(&mut state.core, self.inner.now());
        self.inner.carry_out(&mut state);
        Ok(answer)
    }
}

impl State {
    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The core never panics half-way through a change that matters; if a test does, others may go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let timer_ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Now { timer_ms, wall_ms: self.clock.now_ms() }
    }

    /// Does what is due and answers when to come again; `None` when closed.
    fn tick(self: &Arc<Self>) -> Option<Instant> {
        let mut state = self.lock();
        if state.is_closed {
            return None;
        }
        state.core.tick(self.now());
        self.carry_out(&mut state);
        state.timer_ms = state.core.next_deadline_ms().unwrap_or(i64::MAX);
        let due = Duration::from_millis(u64::try_from(state.timer_ms).unwrap_or(0));
        Some((self.started + due.min(self.started.elapsed() + SLEEP_MAX)).max(Instant::now()))
    }

    /// Does what the core asks for, until it asks for nothing more.
    fn carry_out(self: &Arc<Self>, state: &mut State) {
        loop {
            let effects = state.core.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    // Whoever has gone away needs no answer.
                    Effect::Joined(token, reply) => {
                        drop(state.joining.remove(&token).map(|waiting| waiting.send(reply)))
                    }
                    Effect::Synced(token, reply) => {
                        drop(state.syncing.remove(&token).map(|waiting| waiting.send(reply)))
                    }
                    Effect::Store { id, group_id, value } => {
                        state.outbox.push_back(OutgoingStore { id, group_id, value })
                    }
                }
            }
            self.send_outbox(state);
        }
        let next_ms = state.core.next_deadline_ms().unwrap_or(i64::MAX);
        if next_ms < state.timer_ms {
            self.wakes.timer.notify_one();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wakes.timer.notify_one();
        self.wakes.sweep.notify_one();
    }
}

/// Calls the core whenever something is due, until the service is closed or gone.
async fn run_timer(inner: Weak<Inner>, wakes: Arc<Wakes>) {
    loop {
        let Some(deadline) = inner.upgrade().and_then(|inner| inner.tick()) else { return };
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            () = wakes.timer.notified() => {}
        }
    }
}

/// The timer looks at least this often; it makes no difference, but far times do not fit every clock.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// What a member is told when the log took nothing, as Kafka translates it.
fn store_error(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Poisoned(_) => ErrorCode::NotCoordinator,
        AppendError::DiskFull | AppendError::Backlogged => ErrorCode::CoordinatorNotAvailable,
        _ => ErrorCode::UnknownServerError,
    }
}

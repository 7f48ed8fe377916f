//! Guards on Postgres.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use baton_core::TopicPartition;
use deadpool_postgres::{ClientWrapper, Object, Pool};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row as PostgresRow};

use crate::kinds::{Mark, fences, inbox_states, one_group, sorted_ids};
use crate::sequences::{Meanwhile, Row, SequenceKey, Sequences};
use crate::{
    Admission, Batch, CommitError, Conditional, EffectError, Fence, Frontier, Group, Guard, GuardError, Identity,
    Inbox, Open, PRUNE_MARGIN, PRUNE_ROWS, Pruned, Redelivery, State, Strength, Weakness,
};

use crate::postgres_sql as sql;
use sql::Marking;

/// What is being done when messages are asked for.
const BEGINNING: &str = "beginning";
const MOVING: &str = "moving the frontier on";
/// Batches after a duplicate that are marked in the way that bears them: redelivered messages come in crowds. The other way takes
/// about half the time, but one duplicate costs it the attempt, rows that are dead at once, and a line in the server's log. So a
/// stream in which each batch holds a duplicate pays that for one batch in 33.
const CAREFUL_BATCHES: u32 = 32;
/// The same for frontiers, after somebody moved one of them between our look at it and our commit: so many transactions ask whether
/// theirs have moved before they commit, which is one more way there and back for each. One that does not ask and finds them moved
/// pays two more, and a line in the server's log.
const CAREFUL_COMMITS: u32 = 32;
/// How long a statement waits for a lock unless [`PostgresGuard::lock_wait`] says otherwise: longer than a transaction takes,
/// shorter than a broker's patience with a consumer.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long a transaction may wait for its handler's next statement unless [`PostgresGuard::idle_wait`] says otherwise. A process
/// that hangs or is cut off holds its locks, and the next owner of its partition up, for no longer than this.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// Guards on Postgres 12 or later. See [`Inbox`], [`Frontier`] and [`Conditional`] for what they promise.
///
/// The handler gets a [`PostgresEffect`]: the open transaction on a connection of the pool, `READ COMMITTED`. Each effect takes a
/// connection, so the pool's size bounds how many run side by side. Within it, `lock_timeout` and
/// `idle_in_transaction_session_timeout` are set, so that nothing waits without end.
///
/// An error of a statement makes Postgres fail the whole transaction, and a `COMMIT` of a failed transaction succeeds, as a roll
/// back. The guard therefore looks before it commits: a handler that passes over such an error gets
/// [`GuardError::TransactionEnded`], not an acknowledged message without an effect.
///
/// # Tables
///
/// [`PostgresGuard::prepare`] creates what is missing, in the first schema of the `search_path`; whoever may not create tables has
/// somebody else run [`PostgresGuard::TABLES`]. To work, a role needs `USAGE` on the schema and
///
/// ```sql
/// GRANT SELECT, INSERT ON baton_inbox TO consumer;             -- Inbox
/// GRANT SELECT, INSERT, UPDATE ON baton_frontier TO consumer;  -- Frontier
/// GRANT SELECT, INSERT, UPDATE ON baton_fence TO consumer;     -- take_over
/// GRANT SELECT, UPDATE, DELETE ON baton_inbox, baton_frontier TO janitor; -- prune; UPDATE for its row locks
/// ```
#[derive(Debug, Clone)]
pub struct PostgresGuard {
    pool: Pool,
    mark: Mark,
    lock_wait: Duration,
    idle_wait: Duration,
    begin: Arc<str>,
    /// How many more batches are marked in the way that bears duplicates, or commits ask for their frontiers first.
    careful: Arc<AtomicU32>,
}

impl Inbox {
    /// An inbox on Postgres.
    pub fn postgres(pool: Pool) -> PostgresGuard {
        PostgresGuard::new(pool, Mark::Inbox)
    }
}

impl Frontier {
    /// A frontier on Postgres.
    pub fn postgres(pool: Pool) -> PostgresGuard {
        PostgresGuard::new(pool, Mark::Frontier)
    }
}

impl Conditional {
    /// Transactions on Postgres, without marks.
    pub fn postgres(pool: Pool) -> PostgresGuard {
        PostgresGuard::new(pool, Mark::Nothing)
    }
}

impl PostgresGuard {
    /// The SQL that [`PostgresGuard::prepare`] runs. May be run any number of times.
    pub const TABLES: &'static str = sql::TABLES;

    fn new(pool: Pool, mark: Mark) -> Self {
        let (lock_wait, idle_wait) = (LOCK_WAIT, IDLE_WAIT);
        Self { pool, mark, lock_wait, idle_wait, begin: sql::begin(lock_wait, idle_wait), careful: Arc::default() }
    }

    /// How long a statement waits for a lock (5 s): a message that is in progress elsewhere is
    /// [`Admission::InProgress`] after this. Zero would wait without end, so it counts as 1 ms.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self.begin = sql::begin(self.lock_wait, self.idle_wait);
        self
    }

    /// How long a handler may take between two statements (60 s), until the server ends its transaction.
    pub fn idle_wait(mut self, wait: Duration) -> Self {
        self.idle_wait = wait;
        self.begin = sql::begin(self.lock_wait, self.idle_wait);
        self
    }

    /// Creates the tables where they are not there yet. Two that do so at once do not disturb each other.
    pub async fn prepare(&self) -> Result<(), GuardError> {
        let doing = "creating the tables";
        let session = self.session(doing).await?;
        // Postgres can fail one of two that create the same table at the same time, in spite of IF NOT EXISTS.
        let locked = format!("BEGIN; SELECT pg_advisory_xact_lock({}); {}; COMMIT", sql::PREPARE_LOCK, sql::TABLES);
        session.client().batch_execute(&locked).await.map_err(|error| self.refused(doing, error))?;
        session.back_to_pool();
        Ok(())
    }

    /// Deletes marks of a group that are older than `kept`, at most [`PRUNE_ROWS`] of them; call it again while there are more.
    /// Refused if messages can come again for longer than that. Rows that somebody has locked are left for the next time, so
    /// that neither waits for the other.
    pub async fn prune(&self, group: &Group, kept: Duration, redelivery: Redelivery) -> Result<Pruned, GuardError> {
        redelivery.check(kept)?;
        let sql = match self.mark {
            Mark::Inbox => sql::PRUNE_INBOX,
            Mark::Frontier => sql::PRUNE_FRONTIER,
            Mark::Nothing => return Ok(Pruned { rows: 0, more: false }),
        };
        let doing = "pruning";
        let session = self.session(doing).await?;
        let (age, limit) = (kept.saturating_add(PRUNE_MARGIN).as_secs_f64(), i64::from(PRUNE_ROWS));
        let rows = session.client().execute(sql, &[&group.as_str(), &age, &limit]).await;
        let rows = rows.map_err(|error| self.refused(doing, error))?;
        session.back_to_pool();
        Ok(Pruned { rows, more: rows == u64::from(PRUNE_ROWS) })
    }

    async fn session(&self, doing: &'static str) -> Result<Session, GuardError> {
        match self.pool.get().await {
            Ok(client) => Ok(Session { client: Some(client) }),
            Err(error) => Err(GuardError::Unavailable { doing, source: error.into() }),
        }
    }

    fn refused(&self, doing: &'static str, error: Error) -> GuardError {
        refused(doing, self.lock_wait, error)
    }

    /// Begins a transaction and asks for all of these in it.
    async fn begin_all(&self, identities: &[Identity]) -> Result<(Vec<State>, Option<OpenPostgres>), GuardError> {
        let group = one_group(identities)?;
        let session = self.session(BEGINNING).await?;
        let marking = self.marking(identities);
        let mut begun = self.begin_on(session.client(), group, identities, marking).await;
        if marking == Marking::New && begun.as_ref().is_err_and(is_duplicate) {
            // The whole transaction has failed, and there is nothing in it yet that a savepoint would save: the handler comes later.
            self.careful.store(CAREFUL_BATCHES, Relaxed);
            let rolled_back = session.client().batch_execute("ROLLBACK").await;
            rolled_back.map_err(|error| self.refused(BEGINNING, error))?;
            begun = self.begin_on(session.client(), group, identities, Marking::Any).await;
        }
        let (states, pending) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                session.roll_back().await;
                return Err(error);
            }
        };
        if !states.contains(&State::Fresh) {
            session.roll_back().await;
            return Ok((states, None));
        }
        let effect = PostgresEffect { session: Arc::new(RwLock::new(Some(session))) };
        Ok((
            states,
            Some(OpenPostgres {
                effect,
                pending,
                group: group.into(),
                lock_wait: self.lock_wait,
                careful: self.careful.clone(),
            }),
        ))
    }

    /// How the next batch is marked.
    fn marking(&self, identities: &[Identity]) -> Marking {
        if identities.len() == 1 {
            return Marking::One;
        }
        if is_careful(&self.careful) { Marking::Any } else { Marking::New }
    }

    /// Everything that a transaction begins with is sent at once, so that it costs one way there and back.
    async fn begin_on(
        &self,
        client: &ClientWrapper,
        group: &str,
        identities: &[Identity],
        marking: Marking,
    ) -> Result<(Vec<State>, Pending), GuardError> {
        let refused = |error| self.refused(BEGINNING, error);
        let fences = fences(identities)?;
        let begin = async { client.batch_execute(&self.begin).await.map_err(refused) };
        let check = async { check_fences(client, group, &fences).await.map_err(refused) };
        if !fences.is_empty() {
            // Here, and not while the transaction is sent: to prepare is a way there and back, once for each connection.
            client.prepare_cached(sql::CHECK_FENCES).await.map_err(refused)?;
        }
        let fresh = || vec![State::Fresh; identities.len()];
        let (begun, allowed, states, pending) = match self.mark {
            Mark::Nothing => {
                let (begun, allowed) = tokio::join!(biased; begin, check);
                (begun, allowed, Ok(fresh()), Pending::Nothing)
            }
            Mark::Inbox => {
                client.prepare_cached(sql::inbox_statement(marking)).await.map_err(refused)?;
                let mark = async { mark_inbox(client, group, identities, marking).await.map_err(refused) };
                let (begun, allowed, states) = tokio::join!(biased; begin, check, mark);
                (begun, allowed, states, Pending::Nothing)
            }
            Mark::Frontier => {
                let mut sequences = Sequences::of(identities)?;
                let keys: Vec<SequenceKey> = sequences.keys().cloned().collect();
                client.prepare_cached(sql::READ_FRONTIER).await.map_err(refused)?;
                let read = async { read_frontier(client, group, &keys).await.map_err(refused) };
                let (begun, allowed, rows) = tokio::join!(biased; begin, check, read);
                let (began_at, rows) = rows?;
                for (key, row) in keys.iter().zip(rows) {
                    sequences.load(key, &row)?;
                }
                let places = identities.iter().filter_map(|identity| identity.place.as_ref());
                let states = places.map(|place| sequences.admit(place)).collect();
                (begun, allowed, Ok(states), Pending::Frontier { sequences, began_at })
            }
        };
        begun?;
        if allowed? { Ok((states?, pending)) } else { Ok((vec![State::Fenced; identities.len()], Pending::Nothing)) }
    }
}

impl Guard for PostgresGuard {
    type Open = OpenPostgres;

    fn name(&self) -> &'static str {
        match self.mark {
            Mark::Inbox => "inbox on postgres",
            Mark::Frontier => "frontier on postgres",
            Mark::Nothing => "conditional on postgres",
        }
    }

    fn strength(&self) -> Strength {
        if self.mark == Mark::Nothing { Strength::Conditional } else { Strength::Atomic }
    }

    fn needs_place(&self) -> bool {
        self.mark == Mark::Frontier
    }

    async fn begin(&self, identity: &Identity) -> Result<Admission<OpenPostgres>, GuardError> {
        match self.begin_all(std::slice::from_ref(identity)).await {
            Ok((states, open)) => Ok(match (states.first(), open) {
                (Some(State::Fresh), Some(open)) => Admission::Fresh(open),
                (Some(State::Fenced), _) => Admission::Fenced,
                _ => Admission::AlreadyDone,
            }),
            // Its row, or its partition's fence, is locked by a transaction that is not decided.
            Err(GuardError::Busy { retry_after, .. }) => Ok(Admission::InProgress(retry_after)),
            Err(error) => Err(error),
        }
    }

    async fn begin_batch(&self, identities: &[Identity]) -> Result<Batch<OpenPostgres>, GuardError> {
        let (states, open) = self.begin_all(identities).await?;
        Ok(Batch { states, open })
    }

    async fn take_over(&self, group: &Group, partition: &TopicPartition) -> Result<Fence, GuardError> {
        let doing = "taking over a partition";
        let session = self.session(doing).await?;
        let (topic, number) = (&*partition.topic, i64::from(partition.partition));
        let client = session.client();
        let taken = async {
            client.batch_execute(&self.begin).await?;
            let row = client.query_one(sql::TAKE_OVER, &[&group.as_str(), &topic, &number]).await?;
            client.batch_execute("COMMIT").await?;
            row.try_get::<_, i64>(0)
        };
        // An epoch that was committed without our knowing it only makes the next one higher.
        let epoch = taken.await.map_err(|error| self.refused(doing, error))?;
        session.back_to_pool();
        let epoch = u64::try_from(epoch).map_err(|_| GuardError::Corrupt("baton_fence".to_owned()))?;
        Ok(Fence { partition: partition.clone(), epoch })
    }

    async fn weaknesses(&self) -> Result<Vec<Weakness>, GuardError> {
        let doing = "reading the settings";
        let session = self.session(doing).await?;
        let mut found = Vec::new();
        for setting in sql::SETTINGS {
            let row = session.client().query_one("SELECT current_setting($1)", &[&setting.setting]).await;
            let value: String = row.and_then(|row| row.try_get(0)).map_err(|error| self.refused(doing, error))?;
            found.extend(setting.judge(&value));
        }
        session.back_to_pool();
        Ok(found)
    }
}

/// Whether care is still to be taken, once less from now on. Guards that are cloned share the count; it need not be exact.
fn is_careful(left: &AtomicU32) -> bool {
    left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// What an open transaction still has to do at its end.
#[derive(Debug)]
enum Pending {
    /// Nothing: it was marked in the beginning, or is not at all.
    Nothing,
    /// Move these on, in the transaction that began then.
    Frontier { sequences: Sequences, began_at: SystemTime },
}

/// A connection of the pool. It goes back there only when it is known to be in no transaction; else it is closed, which makes the
/// server roll back.
#[derive(Debug)]
struct Session {
    client: Option<Object>,
}

impl Session {
    #[allow(clippy::expect_used, reason = "taken out only by the methods that consume the session")]
    fn client(&self) -> &ClientWrapper {
        self.client.as_ref().expect("a session that was not consumed has its client")
    }

    fn back_to_pool(mut self) {
        self.client = None;
    }

    async fn roll_back(self) {
        match self.client().batch_execute("ROLLBACK").await {
            Ok(()) => self.back_to_pool(),
            Err(error) => tracing::debug!(%error, "a connection that did not roll back is closed"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

/// An open transaction on Postgres.
#[derive(Debug)]
pub struct OpenPostgres {
    effect: PostgresEffect,
    pending: Pending,
    group: Box<str>,
    lock_wait: Duration,
    careful: Arc<AtomicU32>,
}

impl Open for OpenPostgres {
    type Effect = PostgresEffect;

    fn effect(&self) -> PostgresEffect {
        self.effect.clone()
    }

    async fn commit(self) -> Result<(), CommitError> {
        // Waits for statements of the handler that are still under way, and makes its handles useless.
        let Some(session) = self.effect.session.write().await.take() else {
            return Err(CommitError::NotCommitted(GuardError::TransactionEnded));
        };
        let client = session.client();
        let committed = async {
            match &self.pending {
                // The savepoint fails unless the transaction is open and sound; without it, COMMIT would succeed as a roll back.
                Pending::Nothing => client.batch_execute("SAVEPOINT baton_end; COMMIT").await.map_err(|e| self.fate(e)),
                Pending::Frontier { sequences, began_at } => self.move_and_commit(client, sequences, *began_at).await,
            }
        };
        match committed.await {
            Ok(()) => {
                session.back_to_pool();
                Ok(())
            }
            Err(error) => {
                if !matches!(error, CommitError::Unknown(_)) {
                    session.roll_back().await;
                }
                Err(error)
            }
        }
    }

    async fn abort(self) {
        if let Some(session) = self.effect.session.write().await.take() {
            session.roll_back().await;
        }
    }
}

impl Drop for OpenPostgres {
    fn drop(&mut self) {
        // A statement of the handler may hold the lock now; then the connection goes when the handler's last handle does.
        if let Ok(mut session) = self.effect.session.try_write() {
            drop(session.take());
        }
    }
}

impl OpenPostgres {
    /// Moves the sequences on, on the condition that their rows are as they were read, and that this still is the transaction in
    /// which they were; then commits. That the handler has left the transaction as it was is nearly always so, and nobody was in
    /// between: so all of it goes there at once, and the server commits on the condition that all rows have moved.
    ///
    /// Rows that somebody changed meanwhile are locked by the attempt, so what is read of them then stays, and the second attempt
    /// succeeds.
    async fn move_and_commit(
        &self,
        client: &ClientWrapper,
        sequences: &Sequences,
        began_at: SystemTime,
    ) -> Result<(), CommitError> {
        let changed = sequences.changed().map_err(CommitError::NotCommitted)?;
        let moved = if is_careful(&self.careful) {
            store(client, &self.group, &changed, began_at).await.map_err(|error| self.not_moved(error.into()))?
        } else {
            match self.commit_if_moved(client, &changed, began_at).await? {
                None => return Ok(()),
                Some(moved) => moved,
            }
        };
        let left: Vec<SequenceKey> = left_of(&changed, &moved);
        if !left.is_empty() {
            self.careful.store(CAREFUL_COMMITS, Relaxed);
            let moved = move_again(client, &self.group, sequences.only(&left), &left, began_at).await;
            moved.map_err(|failed| self.not_moved(failed))?;
        }
        client.batch_execute("COMMIT").await.map_err(|error| self.fate(error))
    }

    /// Moves rows and commits, if all of them were as expected; if not, says which were (by place), and leaves the transaction open.
    async fn commit_if_moved(
        &self,
        client: &ClientWrapper,
        changed: &[(&SequenceKey, Row)],
        began_at: SystemTime,
    ) -> Result<Option<Vec<usize>>, CommitError> {
        // Here, and not between the two: to prepare is a way there and back, once for each connection.
        client.prepare_cached(sql::MOVE_FRONTIER).await.map_err(|error| self.not_moved(error.into()))?;
        let commit = sql::commit_if_moved(changed.len());
        let (moved, committed) =
            tokio::join!(biased; store(client, &self.group, changed, began_at), client.batch_execute(&commit));
        let Err(error) = committed else { return Ok(None) };
        match moved {
            Ok(moved) if error.code() == Some(&sql::NOT_ALL_MOVED) && moved.len() < changed.len() => {
                // Nothing was committed, whatever becomes of this.
                let refused = |error| CommitError::NotCommitted(refused(MOVING, self.lock_wait, error));
                client.batch_execute("ROLLBACK TO SAVEPOINT baton_end").await.map_err(refused)?;
                Ok(Some(moved))
            }
            // The server's word that the transaction has failed: what came behind it could not commit.
            Err(failed) if is_server_error(&failed) && !is_outside(&error) => Err(self.not_moved(failed.into())),
            _ => Err(self.fate(error)),
        }
    }

    /// Why the frontier did not move, before anything was committed by us.
    fn not_moved(&self, failed: MoveError) -> CommitError {
        match failed {
            MoveError::AlreadyDone => CommitError::AlreadyDone,
            // The handler has committed or rolled back by itself.
            MoveError::Ended => CommitError::Unknown(GuardError::TransactionEnded),
            MoveError::Guard(error) => CommitError::NotCommitted(error),
            MoveError::Postgres(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {
                CommitError::NotCommitted(GuardError::TransactionEnded)
            }
            MoveError::Postgres(error) => CommitError::NotCommitted(refused(MOVING, self.lock_wait, error)),
        }
    }

    /// What an error of a commit says of its fate. An `ERROR` is the server's word that the transaction is rolled back. After
    /// anything else (the connection is gone, the server is shutting down) the commit may have happened.
    fn fate(&self, error: Error) -> CommitError {
        let rolled_back = is_server_error(&error);
        let cause = match error.code() {
            Some(code) if *code == SqlState::IN_FAILED_SQL_TRANSACTION => GuardError::TransactionEnded,
            // The handler has committed or rolled back by itself.
            Some(_) if is_outside(&error) => return CommitError::Unknown(GuardError::TransactionEnded),
            _ => refused("committing", self.lock_wait, error),
        };
        if rolled_back { CommitError::NotCommitted(cause) } else { CommitError::Unknown(cause) }
    }
}

/// What a handler on Postgres gets: the open transaction. It is dead once the handler has returned.
#[derive(Debug, Clone)]
pub struct PostgresEffect {
    session: Arc<RwLock<Option<Session>>>,
}

/// The connection of an open transaction, lent to a handler. It must not end the transaction.
#[derive(Debug)]
pub struct Lent<'a>(RwLockReadGuard<'a, Session>);

impl Deref for Lent<'_> {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        self.0.client()
    }
}

impl PostgresEffect {
    /// The connection itself, for what the methods here do not offer (COPY, pipelines, portals). The commit waits until this is
    /// dropped.
    pub async fn client(&self) -> Result<Lent<'_>, EffectError<Error>> {
        let session = self.session.read().await;
        RwLockReadGuard::try_map(session, Option::as_ref).map(Lent).map_err(|_| EffectError::Closed)
    }

    /// Runs one statement, and says how many rows it changed.
    pub async fn execute(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, EffectError<Error>> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.execute(&statement, parameters).await?)
    }

    /// Runs one query.
    pub async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<PostgresRow>, EffectError<Error>> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query(&statement, parameters).await?)
    }

    /// Runs a query for exactly one row.
    pub async fn query_one(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<PostgresRow, EffectError<Error>> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query_one(&statement, parameters).await?)
    }

    /// Runs a query for at most one row.
    pub async fn query_opt(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<PostgresRow>, EffectError<Error>> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query_opt(&statement, parameters).await?)
    }
}

async fn check_fences(
    client: &ClientWrapper,
    group: &str,
    fences: &std::collections::BTreeMap<(&str, u32), i64>,
) -> Result<bool, Error> {
    if fences.is_empty() {
        return Ok(true);
    }
    let topics: Vec<&str> = fences.keys().map(|(topic, _)| *topic).collect();
    let partitions: Vec<i64> = fences.keys().map(|(_, partition)| i64::from(*partition)).collect();
    let epochs: Vec<i64> = fences.values().copied().collect();
    let statement = client.prepare_cached(sql::CHECK_FENCES).await?;
    let held = client.query(&statement, &[&group, &topics, &partitions, &epochs]).await?;
    Ok(held.len() == fences.len())
}

/// Makes the marks, and says what each message is.
async fn mark_inbox(
    client: &ClientWrapper,
    group: &str,
    identities: &[Identity],
    marking: Marking,
) -> Result<Vec<State>, Error> {
    let statement = client.prepare_cached(sql::inbox_statement(marking)).await?;
    if let [identity] = identities {
        let rows = client.execute(&statement, &[&group, &identity.id.as_str()]).await?;
        return Ok(vec![if rows == 1 { State::Fresh } else { State::AlreadyDone }]);
    }
    let ids = sorted_ids(identities);
    if marking == Marking::New {
        // Each of them was, or the statement would have failed.
        client.execute(&statement, &[&group, &ids]).await?;
        return Ok(inbox_states(identities, |_| true));
    }
    let rows = client.query(&statement, &[&group, &ids]).await?;
    let mut new = Vec::with_capacity(rows.len());
    for row in &rows {
        new.push(row.try_get::<_, &str>(0)?);
    }
    // In the order of the ids, since they were sent sorted; but nothing promises that, and it costs little to make sure.
    new.sort_unstable();
    Ok(inbox_states(identities, |id| new.binary_search(&id).is_ok()))
}

/// The columns of the primary key of some sequences, as arrays.
struct Columns<'a> {
    topics: Vec<&'a str>,
    partitions: Vec<i64>,
    instances: Vec<&'a str>,
    epochs: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(keys: impl Iterator<Item = &'a SequenceKey>) -> Self {
        let (mut topics, mut partitions, mut instances, mut epochs) = (vec![], vec![], vec![], vec![]);
        for key in keys {
            topics.push(&*key.partition.topic);
            partitions.push(i64::from(key.partition.partition));
            instances.push(&*key.instance);
            epochs.push(i64::from(key.epoch));
        }
        Self { topics, partitions, instances, epochs }
    }
}

/// The rows of these sequences, in their order, and when the transaction began.
async fn read_frontier(
    client: &ClientWrapper,
    group: &str,
    keys: &[SequenceKey],
) -> Result<(SystemTime, Vec<Row>), Error> {
    let Columns { topics, partitions, instances, epochs } = Columns::of(keys.iter());
    let statement = client.prepare_cached(sql::READ_FRONTIER).await?;
    let found = client.query(&statement, &[&group, &topics, &partitions, &instances, &epochs]).await?;
    // There is a row for each key, and there are no batches without one.
    let mut began_at = SystemTime::UNIX_EPOCH;
    let mut rows = vec![Row::default(); keys.len()];
    for row in &found {
        began_at = row.try_get(0)?;
        let at = usize::try_from(row.try_get::<_, i64>(1)? - 1).unwrap_or(usize::MAX);
        if let (Some(slot), Some(version)) = (rows.get_mut(at), row.try_get(2)?) {
            *slot = Row { version, frontier: row.try_get(3)?, beyond: row.try_get(4)? };
        }
    }
    Ok((began_at, rows))
}

/// Why a frontier did not move.
enum MoveError {
    AlreadyDone,
    /// The transaction is not the one that the messages were begun in.
    Ended,
    Guard(GuardError),
    Postgres(Error),
}

impl From<Error> for MoveError {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

/// Those that did not move.
fn left_of(changed: &[(&SequenceKey, Row)], moved: &[usize]) -> Vec<SequenceKey> {
    changed.iter().enumerate().filter(|(at, _)| !moved.contains(at)).map(|(_, (key, _))| (*key).clone()).collect()
}

/// Moves sequences on that somebody moved since they were read. Their rows are locked by us.
async fn move_again(
    client: &ClientWrapper,
    group: &str,
    mut again: Sequences,
    left: &[SequenceKey],
    began_at: SystemTime,
) -> Result<(), MoveError> {
    let (now_in, rows) = read_frontier(client, group, left).await?;
    if now_in != began_at {
        return Err(MoveError::Ended);
    }
    for (key, row) in left.iter().zip(rows) {
        if again.load(key, &row).map_err(MoveError::Guard)? == Meanwhile::AlreadyDone {
            return Err(MoveError::AlreadyDone);
        }
    }
    let changed = again.changed().map_err(MoveError::Guard)?;
    if store(client, group, &changed, began_at).await?.len() == changed.len() {
        return Ok(());
    }
    // The row went away in between: somebody prunes what is in use.
    Err(MoveError::Guard(GuardError::Busy { doing: MOVING, retry_after: Duration::from_millis(1) }))
}

/// Stores rows; says which of them (by place) were as expected.
async fn store(
    client: &ClientWrapper,
    group: &str,
    rows: &[(&SequenceKey, Row)],
    began_at: SystemTime,
) -> Result<Vec<usize>, Error> {
    let Columns { topics, partitions, instances, epochs } = Columns::of(rows.iter().map(|(key, _)| *key));
    let versions: Vec<i64> = rows.iter().map(|(_, row)| row.version).collect();
    let frontiers: Vec<i64> = rows.iter().map(|(_, row)| row.frontier).collect();
    let beyond: Vec<&str> = rows.iter().map(|(_, row)| row.beyond.as_str()).collect();
    let statement = client.prepare_cached(sql::MOVE_FRONTIER).await?;
    let parameters: [&(dyn ToSql + Sync); 9] =
        [&group, &topics, &partitions, &instances, &epochs, &versions, &frontiers, &beyond, &began_at];
    let stored = client.query_one(&statement, &parameters).await?;
    // No rows come as no arrays.
    let topics: Vec<&str> = stored.try_get::<_, Option<_>>(1)?.unwrap_or_default();
    let partitions: Vec<i64> = stored.try_get::<_, Option<_>>(2)?.unwrap_or_default();
    let instances: Vec<&str> = stored.try_get::<_, Option<_>>(3)?.unwrap_or_default();
    let epochs: Vec<i64> = stored.try_get::<_, Option<_>>(4)?.unwrap_or_default();
    let names = topics.into_iter().zip(partitions).zip(instances.into_iter().zip(epochs));
    let place = |name: ((&str, i64), (&str, i64))| {
        rows.iter().position(|(key, _)| {
            let partition = (&*key.partition.topic, i64::from(key.partition.partition));
            (partition, (&*key.instance, i64::from(key.epoch))) == name
        })
    };
    Ok(names.filter_map(place).collect())
}

/// Whether the server says that the transaction has failed. After anything else (the connection is gone, the server is shutting
/// down) nobody knows.
fn is_server_error(error: &Error) -> bool {
    error.as_db_error().is_some_and(|answer| answer.parsed_severity() == Some(Severity::Error))
}

/// Whether there was no transaction.
fn is_outside(error: &Error) -> bool {
    error.code() == Some(&SqlState::NO_ACTIVE_SQL_TRANSACTION)
}

/// Whether [`Marking::New`] met a message that is marked already.
fn is_duplicate(error: &GuardError) -> bool {
    let GuardError::Refused { source, .. } = error else { return false };
    source.downcast_ref::<Error>().and_then(Error::code) == Some(&SqlState::UNIQUE_VIOLATION)
}

/// What a statement's error means.
fn refused(doing: &'static str, lock_wait: Duration, error: Error) -> GuardError {
    let Some(answer) = error.as_db_error() else {
        return GuardError::Unavailable { doing, source: error.into() };
    };
    let code = answer.code();
    let held = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];
    if held.contains(code) {
        return GuardError::Busy { doing, retry_after: lock_wait };
    }
    if *code == SqlState::UNDEFINED_TABLE {
        return GuardError::NotPrepared(error.into());
    }
    // Classes: connection, insufficient resources, operator intervention, system error. They pass, or a person is at it.
    if ["08", "53", "57", "58"].iter().any(|class| code.code().starts_with(class)) {
        return GuardError::Unavailable { doing, source: error.into() };
    }
    GuardError::Refused { doing, source: error.into() }
}

//! Guards on MariaDB and MySQL.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use baton_core::TopicPartition;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error, Params, Pool, Value, params};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use crate::kinds::{Mark, Pending, fences, inbox_states, one_group, sorted_ids};
use crate::sequences::{Meanwhile, Row, SequenceKey, Sequences};
use crate::{
    Admission, Batch, CommitError, Conditional, EffectError, Fence, Frontier, Group, Guard, GuardError, Identity,
    Inbox, Open, PRUNE_MARGIN, PRUNE_ROWS, Pruned, Redelivery, State, Strength, Weakness,
};

pub(crate) mod sql;

/// How long a statement waits for a lock unless [`MysqlGuard::lock_wait`] says otherwise.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long a transaction may wait for its handler's next statement unless [`MysqlGuard::idle_wait`] says otherwise.
const IDLE_WAIT: Duration = Duration::from_secs(60);
/// Marks that one statement of pruning names. From 1,000 on MariaDB makes a table of a list, and no longer goes by the key.
const PRUNE_CHUNK: usize = 500;
/// How long to wait after a deadlock: only until the other transaction has gone on.
const DEADLOCK_WAIT: Duration = Duration::from_millis(10);

const DUPLICATE_KEY: u16 = 1062;
const NO_SUCH_TABLE: u16 = 1146;
const COMMIT_FAILED: u16 = 1180;
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;
const NO_SUCH_SAVEPOINT: u16 = 1305;

/// Guards on MariaDB 10.6 or later, and MySQL 8.0 or later, with InnoDB. See [`Inbox`], [`Frontier`] and [`Conditional`] for what
/// they promise.
///
/// The handler gets a [`MysqlEffect`]: the open transaction on a connection of the pool, `READ COMMITTED`. Each effect takes a
/// connection. The pool must reset connections that come back to it, as it does by default.
///
/// A deadlock makes InnoDB roll back the whole transaction, and what a careless handler writes after it would be committed each for
/// itself. The guard therefore runs with `autocommit = 0` and leaves a savepoint at the beginning: at the end either it is still
/// there, or nothing is committed and the handler gets [`GuardError::TransactionEnded`]. A handler must not run statements that
/// commit by themselves (`CREATE TABLE`, `TRUNCATE`).
///
/// Names and ids are kept as bytes (`VARBINARY`): the usual collations take `a` and `A` for the same, which would lose a message.
///
/// # Tables
///
/// [`MysqlGuard::prepare`] creates what is missing; whoever may not create tables has somebody else run [`MysqlGuard::TABLES`].
/// To work, a user needs
///
/// ```sql
/// GRANT SELECT, INSERT ON baton_inbox TO consumer;                 -- Inbox
/// GRANT SELECT, INSERT, UPDATE ON baton_frontier TO consumer;      -- Frontier
/// GRANT SELECT, INSERT, UPDATE ON baton_fence TO consumer;         -- take_over
/// GRANT SELECT, DELETE ON baton_inbox TO janitor;                  -- prune, and the same on baton_frontier
/// ```
#[derive(Debug, Clone)]
pub struct MysqlGuard {
    pool: Pool,
    mark: Mark,
    lock_wait: Duration,
    idle_wait: Duration,
    /// Whether the server knows `INSERT .. RETURNING`: MariaDB does, MySQL does not. Asked for once.
    returning: Arc<OnceLock<bool>>,
}

impl Inbox {
    /// An inbox on MariaDB or MySQL.
    pub fn mysql(pool: Pool) -> MysqlGuard {
        MysqlGuard::new(pool, Mark::Inbox)
    }
}

impl Frontier {
    /// A frontier on MariaDB or MySQL.
    pub fn mysql(pool: Pool) -> MysqlGuard {
        MysqlGuard::new(pool, Mark::Frontier)
    }
}

impl Conditional {
    /// Transactions on MariaDB or MySQL, without marks.
    pub fn mysql(pool: Pool) -> MysqlGuard {
        MysqlGuard::new(pool, Mark::Nothing)
    }
}

impl MysqlGuard {
    /// The statements that [`MysqlGuard::prepare`] runs, one by one. May be run any number of times.
    pub const TABLES: [&'static str; 3] = sql::TABLES;

    fn new(pool: Pool, mark: Mark) -> Self {
        Self { pool, mark, lock_wait: LOCK_WAIT, idle_wait: IDLE_WAIT, returning: Arc::default() }
    }

    /// How long a statement waits for a lock (5 s), in whole seconds, at least one: a message that is in progress elsewhere is
    /// [`Admission::InProgress`] after this.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// How long a handler may take between two statements (60 s), in whole seconds, at least one, until the server closes the
    /// connection, which rolls its transaction back.
    pub fn idle_wait(mut self, wait: Duration) -> Self {
        self.idle_wait = wait;
        self
    }

    /// Marks batches the way that MySQL needs, with one more statement, whatever the server is.
    pub fn without_returning(mut self) -> Self {
        self.returning = Arc::new(OnceLock::from(false));
        self
    }

    /// Creates the tables where they are not there yet.
    pub async fn prepare(&self) -> Result<(), GuardError> {
        let doing = "creating the tables";
        let mut connection = self.connection(doing).await?;
        for statement in Self::TABLES {
            connection.query_drop(statement).await.map_err(|error| self.refused(doing, error))?;
        }
        Ok(())
    }

    /// Deletes marks of a group that are older than `kept`, at most [`PRUNE_ROWS`] of them; call it again while there are more.
    /// Refused if messages can come again for longer than that.
    pub async fn prune(&self, group: &Group, kept: Duration, redelivery: Redelivery) -> Result<Pruned, GuardError> {
        redelivery.check(kept)?;
        let doing = "pruning";
        let mut connection = self.connection(doing).await?;
        let (group, age) = (group.as_str().as_bytes(), kept.saturating_add(PRUNE_MARGIN).as_secs());
        let pruned = match self.mark {
            Mark::Inbox => prune_inbox(&mut connection, group, age).await,
            Mark::Frontier => {
                let pruned = connection.exec_drop(sql::PRUNE_FRONTIER, (group, age, PRUNE_ROWS)).await;
                let rows = connection.affected_rows();
                pruned.map(|()| Pruned { rows, more: rows == u64::from(PRUNE_ROWS) })
            }
            Mark::Nothing => Ok(Pruned { rows: 0, more: false }),
        };
        pruned.map_err(|error| self.refused(doing, error))
    }

    async fn connection(&self, doing: &'static str) -> Result<Conn, GuardError> {
        self.pool.get_conn().await.map_err(|error| self.refused(doing, error))
    }

    fn refused(&self, doing: &'static str, error: Error) -> GuardError {
        refused(doing, self.lock_wait, error)
    }

    async fn has_returning(&self, connection: &mut Conn) -> Result<bool, Error> {
        if let Some(known) = self.returning.get() {
            return Ok(*known);
        }
        let version: Option<String> = connection.query_first("SELECT VERSION()").await?;
        let returning = version.is_some_and(|version| version.contains("MariaDB"));
        // Another may have been quicker with the same answer.
        let _ = self.returning.set(returning);
        Ok(returning)
    }

    /// Begins a transaction and asks for all of these in it.
    async fn begin_all(&self, identities: &[Identity]) -> Result<(Vec<State>, Option<OpenMysql>), GuardError> {
        let doing = "beginning";
        let group = one_group(identities)?;
        let mut connection = self.connection(doing).await?;
        match self.begin_on(&mut connection, group, identities).await {
            Ok((states, pending)) if states.contains(&State::Fresh) => {
                let effect = MysqlEffect { connection: Arc::new(Mutex::new(Some(connection))) };
                Ok((states, Some(OpenMysql { effect, pending, group: group.into(), lock_wait: self.lock_wait })))
            }
            Ok((states, _)) => {
                roll_back(connection).await;
                Ok((states, None))
            }
            Err(error) => {
                roll_back(connection).await;
                Err(error)
            }
        }
    }

    async fn begin_on(
        &self,
        connection: &mut Conn,
        group: &str,
        identities: &[Identity],
    ) -> Result<(Vec<State>, Pending), GuardError> {
        let refused = |error| self.refused("beginning", error);
        connection.query_drop(sql::begin(self.lock_wait, self.idle_wait)).await.map_err(refused)?;
        for ((topic, partition), epoch) in fences(identities)? {
            let fence = (group.as_bytes(), topic.as_bytes(), partition, epoch);
            let held: Option<u8> = connection.exec_first(sql::CHECK_FENCE, fence).await.map_err(refused)?;
            if held.is_none() {
                return Ok((vec![State::Fenced; identities.len()], Pending::Nothing));
            }
        }
        match self.mark {
            Mark::Nothing => Ok((vec![State::Fresh; identities.len()], Pending::Nothing)),
            Mark::Inbox => {
                let states = self.mark_inbox(connection, group, identities).await.map_err(refused)?;
                Ok((states, Pending::Nothing))
            }
            Mark::Frontier => {
                let mut sequences = Sequences::of(identities)?;
                for key in sequences.keys().cloned().collect::<Vec<_>>() {
                    let row = read_row(connection, sql::READ_FRONTIER, group, &key).await.map_err(refused)?;
                    sequences.load(&key, &row)?;
                }
                let places = identities.iter().filter_map(|identity| identity.place.as_ref());
                let states = places.map(|place| sequences.admit(place)).collect();
                Ok((states, Pending::Frontier(sequences)))
            }
        }
    }

    /// Makes the marks, and says what each message is.
    async fn mark_inbox(
        &self,
        connection: &mut Conn,
        group: &str,
        identities: &[Identity],
    ) -> Result<Vec<State>, Error> {
        if let [identity] = identities {
            let mark = (group.as_bytes(), identity.id.as_str().as_bytes());
            connection.exec_drop(sql::MARK_ONE, mark).await?;
            let new = connection.affected_rows() == 1;
            return Ok(vec![if new { State::Fresh } else { State::AlreadyDone }]);
        }
        let ids = sorted_ids(identities);
        let mut new: Vec<Vec<u8>> = if self.has_returning(connection).await? {
            connection.exec(sql::MARK_MANY_RETURNING, (group.as_bytes(), sql::json_array(&ids))).await?
        } else {
            // What is there is locked; what is not is inserted without IGNORE, so that a race ends in an error, and one by one.
            let there = (group.as_bytes(), sql::json_array(&ids));
            let mut known: Vec<Vec<u8>> = connection.exec(sql::LOCK_MARKED, there).await?;
            known.sort_unstable();
            let is_new = |id: &&&str| known.binary_search_by(|known| known.as_slice().cmp(id.as_bytes())).is_err();
            let new: Vec<&str> = ids.iter().filter(is_new).copied().collect();
            if !new.is_empty() {
                connection.exec_drop(sql::MARK_MANY, (group.as_bytes(), sql::json_array(&new))).await?;
            }
            new.into_iter().map(|id| id.as_bytes().to_vec()).collect()
        };
        new.sort_unstable();
        let is_new = |id: &str| new.binary_search_by(|new| new.as_slice().cmp(id.as_bytes())).is_ok();
        Ok(inbox_states(identities, is_new))
    }
}

impl Guard for MysqlGuard {
    type Open = OpenMysql;

    fn name(&self) -> &'static str {
        match self.mark {
            Mark::Inbox => "inbox on mysql",
            Mark::Frontier => "frontier on mysql",
            Mark::Nothing => "conditional on mysql",
        }
    }

    fn strength(&self) -> Strength {
        if self.mark == Mark::Nothing { Strength::Conditional } else { Strength::Atomic }
    }

    fn needs_place(&self) -> bool {
        self.mark == Mark::Frontier
    }

    async fn begin(&self, identity: &Identity) -> Result<Admission<OpenMysql>, GuardError> {
        match self.begin_all(std::slice::from_ref(identity)).await {
            Ok((states, open)) => Ok(match (states.first(), open) {
                (Some(State::Fresh), Some(open)) => Admission::Fresh(open),
                (Some(State::Fenced), _) => Admission::Fenced,
                _ => Admission::AlreadyDone,
            }),
            Err(GuardError::Busy { retry_after, .. }) => Ok(Admission::InProgress(retry_after)),
            Err(error) => Err(error),
        }
    }

    async fn begin_batch(&self, identities: &[Identity]) -> Result<Batch<OpenMysql>, GuardError> {
        let (states, open) = self.begin_all(identities).await?;
        Ok(Batch { states, open })
    }

    async fn take_over(&self, group: &Group, partition: &TopicPartition) -> Result<Fence, GuardError> {
        let doing = "taking over a partition";
        let mut connection = self.connection(doing).await?;
        let fence = (group.as_str().as_bytes(), partition.topic.as_bytes(), partition.partition);
        let taken = async {
            connection.query_drop(sql::begin(self.lock_wait, self.idle_wait)).await?;
            connection.exec_drop(sql::TAKE_OVER, fence).await?;
            let epoch: Option<u64> = connection.exec_first(sql::READ_FENCE, fence).await?;
            connection.query_drop(sql::COMMIT).await?;
            Ok(epoch)
        };
        match taken.await {
            Ok(Some(epoch)) => Ok(Fence { partition: partition.clone(), epoch }),
            Ok(None) => Err(GuardError::Corrupt("baton_fence".to_owned())),
            Err(error) => {
                roll_back(connection).await;
                Err(self.refused(doing, error))
            }
        }
    }

    async fn weaknesses(&self) -> Result<Vec<Weakness>, GuardError> {
        let doing = "reading the settings";
        let mut connection = self.connection(doing).await?;
        let mut found = Vec::new();
        for setting in sql::SETTINGS {
            let ask = format!("SELECT CAST(@@GLOBAL.{} AS CHAR)", setting.setting);
            let value: Option<String> =
                connection.query_first(ask).await.map_err(|error| self.refused(doing, error))?;
            found.extend(value.and_then(|value| setting.judge(&value)));
        }
        Ok(found)
    }
}

/// An open transaction on MariaDB or MySQL.
#[derive(Debug)]
pub struct OpenMysql {
    effect: MysqlEffect,
    pending: Pending,
    group: Box<str>,
    lock_wait: Duration,
}

impl Open for OpenMysql {
    type Effect = MysqlEffect;

    fn effect(&self) -> MysqlEffect {
        self.effect.clone()
    }

    async fn commit(self) -> Result<(), CommitError> {
        // Waits for a statement of the handler that is still under way, and makes its handles useless.
        let Some(mut connection) = self.effect.connection.lock().await.take() else {
            return Err(CommitError::NotCommitted(GuardError::TransactionEnded));
        };
        if let Pending::Frontier(sequences) = &self.pending
            && let Err(failed) = move_on(&mut connection, &self.group, sequences).await
        {
            roll_back(connection).await;
            return Err(match failed {
                MoveError::AlreadyDone => CommitError::AlreadyDone,
                MoveError::Guard(error) => CommitError::NotCommitted(error),
                MoveError::Mysql(error) => {
                    CommitError::NotCommitted(refused("moving the frontier on", self.lock_wait, error))
                }
            });
        }
        let Err(error) = connection.query_drop(sql::CHECK_AND_COMMIT).await else { return Ok(()) };
        roll_back(connection).await;
        let code = if let Error::Server(answer) = &error { answer.code } else { 0 };
        Err(match code {
            // By a deadlock that the handler passed over, or by the handler, who may have committed: asking again tells.
            NO_SUCH_SAVEPOINT => CommitError::Unknown(GuardError::TransactionEnded),
            COMMIT_FAILED | LOCK_WAIT_TIMEOUT | DEADLOCK => {
                CommitError::NotCommitted(refused("committing", self.lock_wait, error))
            }
            // The connection is gone, the server is shutting down, or it says something that does not decide the matter.
            _ => CommitError::Unknown(refused("committing", self.lock_wait, error)),
        })
    }

    async fn abort(self) {
        if let Some(connection) = self.effect.connection.lock().await.take() {
            roll_back(connection).await;
        }
    }
}

impl Drop for OpenMysql {
    fn drop(&mut self) {
        // The pool resets what comes back to it, which rolls back. A statement that is under way keeps it until it has ended.
        if let Ok(mut connection) = self.effect.connection.try_lock() {
            drop(connection.take());
        }
    }
}

/// What a handler on MariaDB or MySQL gets: the open transaction. It is dead once the handler has returned.
#[derive(Debug, Clone)]
pub struct MysqlEffect {
    connection: Arc<Mutex<Option<Conn>>>,
}

/// The connection of an open transaction, lent to a handler. It must not end the transaction.
#[derive(Debug)]
pub struct LentConnection<'a>(MappedMutexGuard<'a, Conn>);

impl Deref for LentConnection<'_> {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl DerefMut for LentConnection<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}

impl MysqlEffect {
    /// The connection itself, for everything that it can do. Other handles and the commit wait until this is dropped.
    pub async fn connection(&self) -> Result<LentConnection<'_>, EffectError<Error>> {
        let connection = self.connection.lock().await;
        MutexGuard::try_map(connection, Option::as_mut).map(LentConnection).map_err(|_| EffectError::Closed)
    }

    /// Runs one statement, and says how many rows it changed.
    pub async fn execute(&self, sql: &str, parameters: impl Into<Params> + Send) -> Result<u64, EffectError<Error>> {
        let mut connection = self.connection().await?;
        connection.exec_drop(sql, parameters.into()).await?;
        Ok(connection.affected_rows())
    }

    /// Runs one query.
    pub async fn query<T: FromRow + Send + 'static>(
        &self,
        sql: &str,
        parameters: impl Into<Params> + Send,
    ) -> Result<Vec<T>, EffectError<Error>> {
        let mut connection = self.connection().await?;
        Ok(connection.exec(sql, parameters.into()).await?)
    }

    /// Runs a query for at most one row.
    pub async fn query_opt<T: FromRow + Send + 'static>(
        &self,
        sql: &str,
        parameters: impl Into<Params> + Send,
    ) -> Result<Option<T>, EffectError<Error>> {
        let mut connection = self.connection().await?;
        Ok(connection.exec_first(sql, parameters.into()).await?)
    }
}

/// Gives the connection back to the pool clean, or closes it, which makes the server roll back.
async fn roll_back(mut connection: Conn) {
    if let Err(error) = connection.query_drop(sql::ROLLBACK).await {
        tracing::debug!(%error, "a connection that did not roll back is closed");
        // What it says does not matter: either side has closed it then.
        let _ = connection.disconnect().await;
    }
}

async fn prune_inbox(connection: &mut Conn, group: &[u8], age: u64) -> Result<Pruned, Error> {
    let old: Vec<Vec<u8>> = connection.exec(sql::FIND_OLD_MARKS, (group, age, PRUNE_ROWS)).await?;
    let mut rows = 0;
    for ids in old.chunks(PRUNE_CHUNK) {
        let keys = ids.iter().map(|id| Value::from(id.as_slice()));
        let parameters = std::iter::once(Value::from(group)).chain(keys).chain([Value::from(age)]).collect();
        connection.exec_drop(sql::prune_marks(ids.len()), Params::Positional(parameters)).await?;
        rows += connection.affected_rows();
    }
    Ok(Pruned { rows, more: old.len() as u64 == u64::from(PRUNE_ROWS) })
}

/// The row of a sequence.
async fn read_row(connection: &mut Conn, sql: &str, group: &str, key: &SequenceKey) -> Result<Row, Error> {
    let found: Option<(i64, i64, String)> = connection.exec_first(sql, key_parameters(group, key)).await?;
    Ok(found.map_or_else(Row::default, |(version, frontier, beyond)| Row { version, frontier, beyond }))
}

fn key_parameters(group: &str, key: &SequenceKey) -> Params {
    params! {
        "group" => group.as_bytes(),
        "topic" => key.partition.topic.as_bytes(),
        "partition" => key.partition.partition,
        "instance" => key.instance.as_bytes(),
        "epoch" => key.epoch,
    }
}

/// Why a frontier did not move.
enum MoveError {
    AlreadyDone,
    Guard(GuardError),
    Mysql(Error),
}

impl From<Error> for MoveError {
    fn from(error: Error) -> Self {
        Self::Mysql(error)
    }
}

/// Moves the sequences on. Their rows are created where they are not there, locked in an order that is the same for everybody,
/// and looked at again.
async fn move_on(connection: &mut Conn, group: &str, sequences: &Sequences) -> Result<(), MoveError> {
    let keys: Vec<SequenceKey> =
        sequences.changed().map_err(MoveError::Guard)?.into_iter().map(|(key, _)| key.clone()).collect();
    let mut now = sequences.only(&keys);
    for key in &keys {
        connection.exec_drop(sql::CREATE_FRONTIER, key_parameters(group, key)).await?;
        let row = read_row(connection, sql::LOCK_FRONTIER, group, key).await?;
        if now.load(key, &row).map_err(MoveError::Guard)? == Meanwhile::AlreadyDone {
            return Err(MoveError::AlreadyDone);
        }
    }
    for (key, row) in now.changed().map_err(MoveError::Guard)? {
        let stored = params! {
            "group" => group.as_bytes(),
            "topic" => key.partition.topic.as_bytes(),
            "partition" => key.partition.partition,
            "instance" => key.instance.as_bytes(),
            "epoch" => key.epoch,
            "version" => row.version + 1,
            "frontier" => row.frontier,
            "beyond" => row.beyond,
        };
        connection.exec_drop(sql::MOVE_FRONTIER, stored).await?;
    }
    Ok(())
}

/// What a statement's error means.
fn refused(doing: &'static str, lock_wait: Duration, error: Error) -> GuardError {
    let Error::Server(answer) = &error else {
        return GuardError::Unavailable { doing, source: error.into() };
    };
    match answer.code {
        LOCK_WAIT_TIMEOUT => GuardError::Busy { doing, retry_after: lock_wait },
        DEADLOCK | DUPLICATE_KEY => GuardError::Busy { doing, retry_after: DEADLOCK_WAIT },
        NO_SUCH_TABLE => GuardError::NotPrepared(error.into()),
        // Classes: connection, insufficient resources; and a server that shuts down or ends this connection.
        _ if answer.state.starts_with("08") || answer.state.starts_with("53") => {
            GuardError::Unavailable { doing, source: error.into() }
        }
        1053 | 1317 | 1927 => GuardError::Unavailable { doing, source: error.into() },
        _ => GuardError::Refused { doing, source: error.into() },
    }
}

//! Guards on SQLite: one connection on a thread of its own, one transaction at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use baton_core::TopicPartition;
use rusqlite::{Connection, Error, ErrorCode, OptionalExtension, Params, params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::kinds::{Mark, Pending, fences, inbox_states, one_group};
use crate::sequences::{Row, SequenceKey, Sequences};
use crate::{
    Admission, Batch, CommitError, Conditional, Durable, EffectError, Fence, Frontier, Group, Guard, GuardError,
    Identity, Inbox, Open, PRUNE_MARGIN, PRUNE_ROWS, Pruned, Redelivery, State, Strength, Weakness,
};

/// How long to wait for the turn, and for the lock of another process, before [`GuardError::Busy`]. SQLite has one writer at a
/// time, so this is many transactions' time.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What keeps commits.
pub(crate) const SYNCHRONOUS: Durable = Durable {
    setting: "synchronous",
    fine: &["2", "3"],
    wanted: "FULL",
    consequence: "a power failure takes the last commits back: effects of messages that were acknowledged are missing",
};

/// The tables, as [`SqliteGuard::prepare`] creates them.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS baton_inbox (
  consumer_group TEXT NOT NULL, message_id TEXT NOT NULL, done_at INTEGER NOT NULL DEFAULT (unixepoch()),
  PRIMARY KEY (consumer_group, message_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS baton_inbox_done_at ON baton_inbox (consumer_group, done_at);
CREATE TABLE IF NOT EXISTS baton_frontier (
  consumer_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, instance TEXT NOT NULL, epoch INTEGER NOT NULL,
  version INTEGER NOT NULL, frontier INTEGER NOT NULL, beyond TEXT NOT NULL, changed_at INTEGER NOT NULL DEFAULT (unixepoch()),
  PRIMARY KEY (consumer_group, topic, partition, instance, epoch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS baton_fence (
  consumer_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL,
  PRIMARY KEY (consumer_group, topic, partition)) WITHOUT ROWID;";

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A SQLite database on a thread of its own. Copies share it; the thread ends with the last of them.
///
/// SQLite takes one writer at a time: effects of this process queue for their turn here, those of others wait for the file's lock.
/// Concurrency makes nothing faster; batches do, since each transaction waits for the disk once.
#[derive(Debug, Clone)]
pub struct Sqlite {
    // Not bounded by itself: whoever holds the turn waits for each of his jobs, except for one that rolls back.
    jobs: mpsc::Sender<Job>,
    turn: Arc<Semaphore>,
}

impl Sqlite {
    /// Opens or creates a database file. [`GuardError::Busy`] if another process holds it for seconds, as one does that stands still while it
    /// recovers the log of those that died.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GuardError> {
        Self::new(Connection::open(path).map_err(|error| refused("opening the database", error))?)
    }

    /// Takes over a connection, and makes it durable: write-ahead log, and a sync for each commit.
    pub fn new(connection: Connection) -> Result<Self, GuardError> {
        let doing = "setting up the connection";
        connection.busy_timeout(BUSY_WAIT).map_err(|error| refused(doing, error))?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(|error| refused(doing, error))?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(|error| refused(doing, error))?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || {
            for job in queue {
                // A handler's closure that panics must not take the store away from all others; who waits for it gets an error.
                if catch_unwind(AssertUnwindSafe(|| job(&connection))).is_err() {
                    tracing::error!("a statement on SQLite panicked");
                }
            }
        };
        std::thread::Builder::new().name("baton-sqlite".to_owned()).spawn(work).map_err(|error| {
            GuardError::Unavailable { doing: "starting the thread of SQLite", source: error.into() }
        })?;
        Ok(Self { jobs, turn: Arc::new(Semaphore::new(1)) })
    }

    /// Runs something on the connection while no effect is open.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, GuardError> {
        let _turn = self.turn().await?;
        self.send(work).await
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, GuardError> {
        let doing = "waiting for the turn to write";
        match tokio::time::timeout(BUSY_WAIT, Arc::clone(&self.turn).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(closed)) => Err(GuardError::Unavailable { doing, source: closed.into() }),
            Err(_) => Err(GuardError::Busy { doing, retry_after: BUSY_WAIT }),
        }
    }

    async fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, GuardError> {
        let doing = "running a statement on SQLite";
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody may be waiting any more, which is no fault.
            let _ = reply.send(work(connection));
        });
        self.jobs.send(job).map_err(|_| GuardError::Unavailable { doing, source: "its thread is gone".into() })?;
        answer.await.map_err(|_| GuardError::Unavailable { doing, source: "it panicked".into() })
    }
}

/// Guards on SQLite. See [`Inbox`], [`Frontier`] and [`Conditional`] for what they promise.
///
/// Whatever the handler wants to be committed together with the mark it writes through the effect, to the same database file.
#[derive(Debug, Clone)]
pub struct SqliteGuard {
    sqlite: Sqlite,
    mark: Mark,
}

impl Inbox {
    /// An inbox on SQLite.
    pub fn sqlite(sqlite: &Sqlite) -> SqliteGuard {
        SqliteGuard { sqlite: sqlite.clone(), mark: Mark::Inbox }
    }
}

impl Frontier {
    /// A frontier on SQLite.
    pub fn sqlite(sqlite: &Sqlite) -> SqliteGuard {
        SqliteGuard { sqlite: sqlite.clone(), mark: Mark::Frontier }
    }
}

impl Conditional {
    /// Transactions on SQLite, without marks.
    pub fn sqlite(sqlite: &Sqlite) -> SqliteGuard {
        SqliteGuard { sqlite: sqlite.clone(), mark: Mark::Nothing }
    }
}

impl SqliteGuard {
    /// Creates the tables where they are not there yet.
    pub async fn prepare(&self) -> Result<(), GuardError> {
        let created = self.sqlite.run(|connection| connection.execute_batch(TABLES)).await?;
        created.map_err(|error| refused("creating the tables", error))
    }

    /// Deletes marks of a group that are older than `kept`, at most [`PRUNE_ROWS`] of them; call it again while there are more.
    /// Refused if messages can come again for longer than that.
    pub async fn prune(&self, group: &Group, kept: Duration, redelivery: Redelivery) -> Result<Pruned, GuardError> {
        redelivery.check(kept)?;
        let sql = match self.mark {
            Mark::Inbox => {
                "DELETE FROM baton_inbox WHERE (consumer_group, message_id) IN (SELECT consumer_group, message_id \
                 FROM baton_inbox WHERE consumer_group = ?1 AND done_at < unixepoch() - ?2 LIMIT ?3)"
            }
            Mark::Frontier => {
                "DELETE FROM baton_frontier WHERE (consumer_group, topic, partition, instance, epoch) IN (SELECT \
                 consumer_group, topic, partition, instance, epoch FROM baton_frontier \
                 WHERE consumer_group = ?1 AND changed_at < unixepoch() - ?2 LIMIT ?3)"
            }
            Mark::Nothing => return Ok(Pruned { rows: 0, more: false }),
        };
        let age = i64::try_from((kept.saturating_add(PRUNE_MARGIN)).as_secs()).unwrap_or(i64::MAX);
        let group = group.as_str().to_owned();
        let rows = self.sqlite.run(move |connection| connection.execute(sql, params![group, age, PRUNE_ROWS])).await?;
        let rows = rows.map_err(|error| refused("pruning", error))? as u64;
        Ok(Pruned { rows, more: rows == u64::from(PRUNE_ROWS) })
    }

    /// Begins a transaction and asks for all of these in it.
    async fn begin_all(&self, identities: Vec<Identity>) -> Result<(Vec<State>, Option<OpenSqlite>), GuardError> {
        let turn = self.sqlite.turn().await?;
        let mark = self.mark;
        // From here on the transaction is rolled back whatever happens, also when this future is dropped.
        let mut open = OpenSqlite {
            effect: SqliteEffect { sqlite: self.sqlite.clone(), open: Arc::new(AtomicBool::new(true)) },
            pending: Some(Pending::Nothing),
            group: Arc::from(one_group(&identities)?),
            turn: Some(turn),
        };
        let begun = self.sqlite.send(move |connection| begin(connection, mark, &identities)).await??;
        let (states, pending) = begun;
        open.pending = Some(pending);
        if states.contains(&State::Fresh) {
            Ok((states, Some(open)))
        } else {
            open.abort().await;
            Ok((states, None))
        }
    }
}

impl Guard for SqliteGuard {
    type Open = OpenSqlite;

    fn name(&self) -> &'static str {
        match self.mark {
            Mark::Inbox => "inbox on sqlite",
            Mark::Frontier => "frontier on sqlite",
            Mark::Nothing => "conditional on sqlite",
        }
    }

    fn strength(&self) -> Strength {
        if self.mark == Mark::Nothing { Strength::Conditional } else { Strength::Atomic }
    }

    fn needs_place(&self) -> bool {
        self.mark == Mark::Frontier
    }

    async fn begin(&self, identity: &Identity) -> Result<Admission<OpenSqlite>, GuardError> {
        let (states, open) = self.begin_all(vec![identity.clone()]).await?;
        Ok(match (states.first(), open) {
            (Some(State::Fresh), Some(open)) => Admission::Fresh(open),
            (Some(State::Fenced), _) => Admission::Fenced,
            _ => Admission::AlreadyDone,
        })
    }

    async fn begin_batch(&self, identities: &[Identity]) -> Result<Batch<OpenSqlite>, GuardError> {
        let (states, open) = self.begin_all(identities.to_vec()).await?;
        Ok(Batch { states, open })
    }

    async fn take_over(&self, group: &Group, partition: &TopicPartition) -> Result<Fence, GuardError> {
        let sql = "INSERT INTO baton_fence VALUES (?1, ?2, ?3, 1) ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch";
        let (group, topic, number) = (group.as_str().to_owned(), Arc::clone(&partition.topic), partition.partition);
        let taken = move |connection: &Connection| -> Result<i64, Error> {
            connection.query_row(sql, params![group, topic, number], |row| row.get(0))
        };
        let epoch = self.sqlite.run(taken).await?.map_err(|error| refused("taking over a partition", error))?;
        let epoch = u64::try_from(epoch).map_err(|_| GuardError::Corrupt("baton_fence".to_owned()))?;
        Ok(Fence { partition: partition.clone(), epoch })
    }

    async fn weaknesses(&self) -> Result<Vec<Weakness>, GuardError> {
        let read = |connection: &Connection| -> Result<i64, Error> {
            connection.pragma_query_value(None, "synchronous", |row| row.get(0))
        };
        let value = self.sqlite.run(read).await?.map_err(|error| refused("reading the settings", error))?;
        Ok(SYNCHRONOUS.judge(&value.to_string()).into_iter().collect())
    }
}

/// An open transaction on SQLite.
#[derive(Debug)]
pub struct OpenSqlite {
    effect: SqliteEffect,
    pending: Option<Pending>,
    group: Arc<str>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Open for OpenSqlite {
    type Effect = SqliteEffect;

    fn effect(&self) -> SqliteEffect {
        self.effect.clone()
    }

    async fn commit(mut self) -> Result<(), CommitError> {
        let pending = self.pending.take().unwrap_or(Pending::Nothing);
        let (group, turn, is_open) = (Arc::clone(&self.group), self.turn.take(), Arc::clone(&self.effect.open));
        let committed = self.effect.sqlite.send(move |connection| {
            is_open.store(false, Relaxed);
            let result = commit(connection, &group, &pending);
            drop(turn);
            result
        });
        match committed.await {
            Ok(result) => result,
            Err(gone) => Err(CommitError::Unknown(gone)),
        }
    }

    async fn abort(mut self) {
        if let Some(turn) = self.turn.take() {
            // An error means that the thread is gone, and the transaction with it.
            let open = Arc::clone(&self.effect.open);
            let _ = self.effect.sqlite.send(move |connection| roll_back(connection, &open, turn)).await;
        }
    }
}

impl Drop for OpenSqlite {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            // The thread is gone only when the transaction is, too.
            let open = Arc::clone(&self.effect.open);
            let _ = self.effect.sqlite.jobs.send(Box::new(move |connection| roll_back(connection, &open, turn)));
        }
    }
}

/// What a handler on SQLite gets: the open transaction.
#[derive(Debug, Clone)]
pub struct SqliteEffect {
    sqlite: Sqlite,
    /// Whether the transaction is this handle's: read and written on the connection's thread only.
    open: Arc<AtomicBool>,
}

impl SqliteEffect {
    /// Runs one statement, and says how many rows it changed.
    pub async fn execute<P: Params + Send + 'static>(
        &self,
        sql: impl Into<String>,
        parameters: P,
    ) -> Result<u64, EffectError<Error>> {
        let sql = sql.into();
        self.with(move |connection| Ok(connection.prepare_cached(&sql)?.execute(parameters)? as u64)).await
    }

    /// Runs anything in the transaction, on the thread of the connection.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, EffectError<Error>> {
        let open = Arc::clone(&self.open);
        let done = self.sqlite.send(move |connection| {
            // Some errors end the transaction. What came after would be committed each for itself, without the mark.
            if !open.load(Relaxed) || connection.is_autocommit() {
                return Err(EffectError::Closed);
            }
            work(connection).map_err(EffectError::Store)
        });
        done.await.unwrap_or(Err(EffectError::Closed))
    }
}

fn begin(connection: &Connection, mark: Mark, identities: &[Identity]) -> Result<(Vec<State>, Pending), GuardError> {
    let doing = "beginning";
    connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| refused(doing, error))?;
    let group = one_group(identities)?;
    for ((topic, partition), epoch) in fences(identities)? {
        let sql = "SELECT epoch FROM baton_fence WHERE consumer_group = ?1 AND topic = ?2 AND partition = ?3";
        let newest: Option<i64> = connection
            .prepare_cached(sql)
            .and_then(|mut found| found.query_row(params![group, topic, partition], |row| row.get(0)).optional())
            .map_err(|error| refused(doing, error))?;
        if newest != Some(epoch) {
            return Ok((vec![State::Fenced; identities.len()], Pending::Nothing));
        }
    }
    match mark {
        Mark::Nothing => Ok((vec![State::Fresh; identities.len()], Pending::Nothing)),
        Mark::Inbox => Ok((mark_inbox(connection, group, identities)?, Pending::Nothing)),
        Mark::Frontier => {
            let mut sequences = Sequences::of(identities)?;
            for key in sequences.keys().cloned().collect::<Vec<_>>() {
                let row = read_row(connection, group, &key).map_err(|error| refused(doing, error))?;
                sequences.load(&key, &row)?;
            }
            let places = identities.iter().filter_map(|identity| identity.place.as_ref());
            let states = places.map(|place| sequences.admit(place)).collect();
            Ok((states, Pending::Frontier(sequences)))
        }
    }
}

/// One prepared statement for each message: in the same process there is no way there and back to be saved by a larger one.
fn mark_inbox(connection: &Connection, group: &str, identities: &[Identity]) -> Result<Vec<State>, GuardError> {
    let sql = "INSERT INTO baton_inbox (consumer_group, message_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    let doing = "marking";
    let mut insert = connection.prepare_cached(sql).map_err(|error| refused(doing, error))?;
    let mut failed = None;
    let states = inbox_states(identities, |id| match insert.execute(params![group, id]) {
        Ok(rows) => rows == 1,
        Err(error) => {
            failed.get_or_insert(error);
            false
        }
    });
    failed.map_or(Ok(states), |error| Err(refused(doing, error)))
}

fn read_row(connection: &Connection, group: &str, key: &SequenceKey) -> Result<Row, Error> {
    let sql = "SELECT version, frontier, beyond FROM baton_frontier \
               WHERE consumer_group = ?1 AND topic = ?2 AND partition = ?3 AND instance = ?4 AND epoch = ?5";
    let parameters = params![group, key.partition.topic, key.partition.partition, key.instance, key.epoch];
    let read = |row: &rusqlite::Row<'_>| Ok(Row { version: row.get(0)?, frontier: row.get(1)?, beyond: row.get(2)? });
    Ok(connection.prepare_cached(sql)?.query_row(parameters, read).optional()?.unwrap_or_default())
}

fn commit(connection: &Connection, group: &str, pending: &Pending) -> Result<(), CommitError> {
    if connection.is_autocommit() {
        // By an error that the handler passed over, or by the handler, who may have committed: asking again tells.
        return Err(CommitError::Unknown(GuardError::TransactionEnded));
    }
    let marked = match pending {
        Pending::Nothing => Ok(()),
        Pending::Frontier(sequences) => move_on(connection, group, sequences),
    };
    if let Err(error) = marked {
        end(connection);
        return Err(CommitError::NotCommitted(error));
    }
    let Err(error) = connection.execute_batch("COMMIT") else { return Ok(()) };
    let error = refused("committing", error);
    if connection.is_autocommit() {
        // SQLite has ended the transaction by itself, and does not say how.
        return Err(CommitError::Unknown(error));
    }
    end(connection);
    Err(CommitError::NotCommitted(error))
}

/// The rows cannot have changed since they were read: the transaction has been the only writer since then.
fn move_on(connection: &Connection, group: &str, sequences: &Sequences) -> Result<(), GuardError> {
    let sql = "INSERT INTO baton_frontier (consumer_group, topic, partition, instance, epoch, version, frontier, beyond) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6 + 1, ?7, ?8) ON CONFLICT DO UPDATE SET \
               version = excluded.version, frontier = excluded.frontier, beyond = excluded.beyond, changed_at = unixepoch()";
    for (key, row) in sequences.changed()? {
        let (partition, instance, epoch) = (&key.partition, &key.instance, key.epoch);
        let parameters = params![
            group,
            partition.topic,
            partition.partition,
            instance,
            epoch,
            row.version,
            row.frontier,
            row.beyond
        ];
        let stored = connection.prepare_cached(sql).and_then(|mut store| store.execute(parameters));
        stored.map_err(|error| refused("moving the frontier on", error))?;
    }
    Ok(())
}

fn roll_back(connection: &Connection, open: &AtomicBool, turn: OwnedSemaphorePermit) {
    open.store(false, Relaxed);
    end(connection);
    drop(turn);
}

fn end(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "SQLite did not roll back");
    }
}

fn refused(doing: &'static str, error: Error) -> GuardError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => GuardError::Busy { doing, retry_after: BUSY_WAIT },
        Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::OutOfMemory) => {
            GuardError::Unavailable { doing, source: error.into() }
        }
        _ if error.to_string().contains("no such table: baton_") => GuardError::NotPrepared(error.into()),
        _ => GuardError::Refused { doing, source: error.into() },
    }
}

//! The outbox on SQLite.

mod enqueue;
mod link;
mod search;
mod sleep;
mod sql;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baton_core::relay::{Change, Row, Seen, Window};
use bytes::Bytes;
use rusqlite::{Connection, Error, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tokio::sync::Mutex;

use crate::{
    Lease, Members, OutboxError, OutboxFuture, OutboxRow, OutboxStore, ParkedRow, Search, ShardStatus, Status, Tenure,
    Written,
};
use link::Link;
use search::{SqliteSearch, bytes, decode, text};
use sleep::Sleep;

/// SQLite has no function that would spread keys, and one writer at a time, so that relays that share the work would gain nothing: one works,
/// the others stand by.
const SHARD: u16 = 0;

/// The outbox in a file of SQLite, as its relay sees it. Services write with [`crate::Outbox::enqueue_sqlite`].
///
/// All processes that use the file are on one machine. The relay sets the file to write-ahead logging and syncs each of its commits;
/// services need `synchronous = FULL`, which is SQLite's default, or a power failure takes back what was committed. They had better begin
/// with `BEGIN IMMEDIATE`: a transaction that reads first and writes later is refused if somebody else has written in between.
///
/// A relay that has nothing to do sleeps until the write-ahead log is written to (inotify), and then looks at `PRAGMA data_version`; where
/// files cannot be watched, at that alone, every 1 to 16 ms. No table is read for it.
///
/// [`OutboxStore::init`] creates the file and the tables where they are missing. There are no roles: who may write to the file may do all.
/// Rows are never to be given a position by hand, which is how relays tell new rows from old ones.
pub struct SqliteOutbox {
    look: Link,
    write: Link,
    leases: Link,
    sleep: Mutex<Sleep>,
}

impl SqliteOutbox {
    /// For this file. Nothing is opened before it is needed.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path: Arc<Path> = Arc::from(path.as_ref());
        let link = || Link::new(Arc::clone(&path));
        Self { look: link(), write: link(), leases: link(), sleep: Mutex::new(Sleep::new(link(), &path)) }
    }

    async fn write_change(&self, change: &Change, keep_done: bool) -> Result<Written, OutboxError> {
        let change = change.clone();
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut lost = Vec::new();
            for (shard, epoch, claims) in &change.windows {
                let written =
                    transaction.prepare_cached(sql::WRITE_WINDOW)?.execute(params![shard, epoch, &claims[..]])?;
                if written == 0 {
                    lost.push((*shard, *epoch));
                }
            }
            if !lost.is_empty() {
                transaction.rollback()?;
                return Ok(Written::Fenced(lost));
            }
            for position in &change.done {
                if keep_done {
                    transaction.prepare_cached(sql::KEEP)?.execute([position])?;
                }
                transaction.prepare_cached(sql::DELETE)?.execute([position])?;
            }
            for parked in &change.parked {
                transaction.prepare_cached(sql::PARK)?.execute(params![parked.position, parked.reason])?;
            }
            transaction.commit()?;
            Ok(Written::Done)
        };
        self.write.run("writing claims", write).await
    }

    async fn beat(&self, lease: &Lease) -> Result<Members, OutboxError> {
        let (member, lasts_ms) = (lease.member.clone(), millis(lease.lasts));
        let beat = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.prepare_cached(sql::LIVE)?.execute(params![member, lasts_ms])?;
            transaction.prepare_cached(sql::RENEW)?.execute(params![member, lasts_ms])?;
            transaction.prepare_cached(sql::FORGET)?.execute([])?;
            let live = members(&transaction)?;
            let shards = shards(&transaction)?;
            transaction.commit()?;
            let shards = shards.into_iter().map(|(shard, owner, ..)| Seen { shard, owner }).collect();
            Ok(Members { live, shards })
        };
        self.leases.run("renewing the leases", beat).await
    }

    /// One statement for each of these positions, all in one transaction; says how many rows were changed.
    async fn each(&self, doing: &'static str, sql: &'static str, positions: &[i64]) -> Result<u64, OutboxError> {
        let positions = positions.to_vec();
        let each = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut rows = 0;
            for position in positions {
                rows += transaction.prepare_cached(sql)?.execute([position])?;
            }
            transaction.commit()?;
            Ok(rows as u64)
        };
        self.leases.run(doing, each).await
    }
}

type ShardRow = (u16, Option<String>, i64, Vec<u8>);

fn shards(connection: &Connection) -> Result<Vec<ShardRow>, Error> {
    let mut statement = connection.prepare_cached(sql::SHARDS)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}

fn members(connection: &Connection) -> Result<Vec<String>, Error> {
    connection.prepare_cached(sql::MEMBERS)?.query_map([], |row| row.get(0))?.collect()
}

fn status(connection: &mut Connection) -> Result<(Status, Vec<ShardRow>), Error> {
    let transaction = connection.transaction()?;
    let mut status = transaction.query_row(sql::STATUS, [], |row| {
        let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let oldest_ms: Option<i64> = row.get(1)?;
        Ok(Status {
            rows: count(0)?,
            oldest: oldest_ms.map(|oldest_ms| Duration::from_millis(oldest_ms.max(0).unsigned_abs())),
            parked: count(2)?,
            done: count(3)?,
            bytes: count(4)?,
            ..Status::default()
        })
    })?;
    status.members = members(&transaction)?;
    let shards = shards(&transaction)?;
    Ok((status, shards))
}

impl OutboxStore for SqliteOutbox {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn tables(&self) -> String {
        sql::TABLES.trim().to_owned()
    }

    fn init<'a>(&'a self, name: &'a str) -> OutboxFuture<'a, ()> {
        let name = name.to_owned();
        let init = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(sql::TABLES)?;
            transaction.execute(sql::NAME, [name])?;
            transaction.commit()
        };
        Box::pin(self.leases.create("creating the tables", init))
    }

    fn name(&self) -> OutboxFuture<'_, String> {
        Box::pin(async move {
            let read = |connection: &mut Connection| {
                connection.query_row(sql::READ_NAME, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            };
            let read: Option<(String, i64)> = self.leases.run("reading the outbox's name", read).await?;
            crate::store::checked_name(read)
        })
    }

    fn heartbeat<'a>(&'a self, lease: &'a Lease) -> OutboxFuture<'a, Members> {
        Box::pin(self.beat(lease))
    }

    fn take<'a>(&'a self, lease: &'a Lease, shard: u16) -> OutboxFuture<'a, Option<Tenure>> {
        Box::pin(async move {
            let (member, lasts_ms) = (lease.member.clone(), millis(lease.lasts));
            let take = move |connection: &mut Connection| {
                let whose = params![member, lasts_ms, shard];
                connection.query_row(sql::TAKE, whose, |row| Ok((row.get(0)?, row.get(1)?))).optional()
            };
            let taken: Option<(i64, Vec<u8>)> = self.leases.run("taking a shard", take).await?;
            let Some((epoch, window)) = taken else { return Ok(None) };
            let epoch = u32::try_from(epoch).map_err(|_| OutboxError::Corrupt(format!("the epoch {epoch}")))?;
            Ok(Some(Tenure { shard, epoch, window: Bytes::from(window) }))
        })
    }

    fn release(&self, shard: u16, epoch: u32) -> OutboxFuture<'_, ()> {
        let release = move |connection: &mut Connection| connection.execute(sql::RELEASE, params![shard, epoch]);
        Box::pin(async move { self.leases.run("giving up a shard", release).await.map(drop) })
    }

    fn leave<'a>(&'a self, lease: &'a Lease) -> OutboxFuture<'a, ()> {
        let member = lease.member.clone();
        let leave = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(sql::LEAVE, [&member])?;
            transaction.execute(sql::LEAVE_SHARDS, [&member])?;
            transaction.commit()
        };
        Box::pin(self.leases.run("leaving", leave))
    }

    fn search(&self) -> Box<dyn Search> {
        Box::new(SqliteSearch::new(self.look.clone()))
    }

    fn rows<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, Vec<Row<OutboxRow>>> {
        let positions = positions.to_vec();
        let rows = move |connection: &mut Connection| {
            let mut statement = connection.prepare_cached(sql::ROW)?;
            let found = positions.iter().map(|position| statement.query_row([position], decode).optional());
            found.filter_map(Result::transpose).collect()
        };
        Box::pin(self.leases.run("reading claimed rows", rows))
    }

    fn write<'a>(&'a self, change: &'a Change, keep_done: bool) -> OutboxFuture<'a, Written> {
        Box::pin(self.write_change(change, keep_done))
    }

    fn wait(&self, at_most: Duration) -> OutboxFuture<'_, ()> {
        Box::pin(async move { self.sleep.lock().await.wait(at_most).await })
    }

    fn parked(&self, after: i64, rows_max: usize) -> OutboxFuture<'_, Vec<ParkedRow>> {
        let read = move |connection: &mut Connection| {
            let mut statement = connection.prepare_cached(sql::PARKED)?;
            let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![after, rows_max], |row| {
                Ok(ParkedRow {
                    position: row.get(0)?,
                    topic: text(row.get_ref(1)?)?.unwrap_or_default(),
                    key: bytes(row.get_ref(2)?)?,
                    id: row.get(3)?,
                    reason: text(row.get_ref(4)?)?.unwrap_or_default(),
                })
            })?;
            rows.collect()
        };
        Box::pin(self.leases.run("reading parked rows", read))
    }

    fn retry<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, u64> {
        Box::pin(self.each("releasing parked rows", sql::RETRY, positions))
    }

    fn discard<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, u64> {
        Box::pin(self.each("deleting parked rows", sql::DISCARD, positions))
    }

    fn prune(&self, kept: Duration, rows_max: usize) -> OutboxFuture<'_, u64> {
        let prune = move |connection: &mut Connection| {
            let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
            let rows = connection.prepare_cached(sql::PRUNE)?.execute(params![millis(kept), rows_max])?;
            Ok(rows as u64)
        };
        Box::pin(self.leases.run("pruning done rows", prune))
    }

    fn status(&self) -> OutboxFuture<'_, Status> {
        Box::pin(async move {
            let name = self.name().await?;
            let (mut read, shards) = self.leases.run("reading the status", status).await?;
            read.name = name;
            for (shard, owner, epoch, claims) in shards {
                let claimed =
                    Window::decode(&claims).map_err(|error| OutboxError::Corrupt(format!("shard {shard}: {error}")))?;
                let epoch = epoch.unsigned_abs();
                read.shards.push(ShardStatus { shard, owner, epoch, claimed: claimed.len() });
            }
            Ok(read)
        })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

fn refused(doing: &'static str, error: Error) -> OutboxError {
    if let Error::FromSqlConversionFailure(column, _, source) = &error {
        return OutboxError::Corrupt(format!("{doing}: column {column}: {source}"));
    }
    let code = error.sqlite_error_code();
    match code {
        // It passes when another writer has ended, the disk has room again, or the file system is back.
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OperationInterrupted
            | ErrorCode::OutOfMemory
            | ErrorCode::SchemaChanged,
        ) => OutboxError::Unavailable { doing, source: error.into() },
        _ if error.to_string().contains("no such table: baton_outbox") => OutboxError::NotPrepared(error.into()),
        _ => OutboxError::Refused { doing, source: error.into() },
    }
}

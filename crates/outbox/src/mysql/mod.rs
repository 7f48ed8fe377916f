//! The outbox on MariaDB and MySQL.

mod enqueue;
mod link;
mod search;
mod sql;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use baton_core::relay::{Change, Row, Seen, Window};
use bytes::Bytes;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, Params, Row as MysqlRow, Value};

use crate::store::checked_name;
use crate::{
    Lease, Members, OutboxError, OutboxFuture, OutboxRow, OutboxStore, ParkedRow, Search, ShardStatus, Status, Tenure,
    Written,
};
use link::Link;
use search::{MysqlSearch, read};

const DUPLICATE_KEY: u16 = 1062;

/// How soon a relay looks again after rows came: from here, doubled each time that none came, up to what it was told.
const NAP_MIN: Duration = Duration::from_millis(5);
/// Positions that one statement names. From 1,000 on MariaDB makes a table of a list, and no longer goes by the key.
const POSITIONS_MAX: usize = 500;
/// A reason for parking is cut to what its column holds, in characters.
const REASON_CHARS_MAX: usize = 4_000;

/// The outbox on MariaDB 10.6 or later, and MySQL 8.0.16 or later, with InnoDB, as its relay sees it. What services write with is
/// [`crate::Outbox`], on a transaction of `mysql_async`.
///
/// A relay opens three connections: one each to look, to write, and for leases. These databases wake nobody: a relay that has nothing to do
/// looks again after 5 ms, then after twice as long each time, up to [`OutboxStore::wait`]'s bound.
///
/// `innodb_flush_log_at_trx_commit` must be 1. InnoDB shows what was committed before it is on the disk; since the relay's claims are
/// committed after it to the same log, what it sends is on the disk by then.
///
/// `max_allowed_packet` must be above the largest message: a server whose bound is 16 MiB, MariaDB's default, takes none of that size.
///
/// Services must not turn the strict mode off: without it the server cuts what does not fit.
///
/// # Tables
///
/// [`OutboxStore::init`] creates what is missing, in the database that the connection has chosen; [`OutboxStore::tables`] is the same to be run
/// by somebody else. To work, users need
///
/// ```sql
/// GRANT INSERT ON baton_outbox TO service;                                             -- enqueue
/// GRANT SELECT (id), UPDATE (id) ON baton_outbox TO service;                           -- the same with Duplicate::Ignore
/// GRANT SELECT, UPDATE, DELETE ON baton_outbox TO relay;
/// GRANT SELECT, INSERT, DELETE ON baton_outbox_done TO relay;                          -- keeping and pruning done rows
/// GRANT SELECT, UPDATE ON baton_outbox_shard TO relay;
/// GRANT SELECT, INSERT, UPDATE, DELETE ON baton_outbox_relay TO relay;
/// GRANT SELECT ON baton_outbox_info TO relay;
/// ```
pub struct MysqlOutbox {
    look: Arc<Link>,
    write: Link,
    leases: Link,
    naps: Arc<Naps>,
}

/// How often nothing came, one after the other.
#[derive(Debug, Default)]
struct Naps(AtomicU32);

impl Naps {
    fn rows_came(&self) {
        self.0.store(0, Relaxed);
    }

    fn next(&self, at_most: Duration) -> Duration {
        let doublings = self.0.fetch_add(1, Relaxed).min(16);
        (NAP_MIN * (1 << doublings)).min(at_most)
    }
}

impl MysqlOutbox {
    /// For this database. Nothing is connected before it is needed.
    pub fn new(opts: impl Into<Opts>) -> Self {
        let opts = opts.into();
        let link = || Link::new(opts.clone());
        Self { look: Arc::new(link()), write: link(), leases: link(), naps: Arc::default() }
    }

    async fn write_change(&self, change: &Change, keep_done: bool) -> Result<Written, Error> {
        let mut turn = self.write.turn().await?;
        let connection = &mut turn.connection;
        connection.query_drop(sql::BEGIN).await?;
        if !change.windows.is_empty() {
            let shards = listed(change.windows.iter().map(|(shard, ..)| shard));
            let held: Vec<(u16, i64)> = connection.query(sql::lock_shards(&shards)).await?;
            let lost = change.windows.iter().filter(|(shard, epoch, _)| !held.contains(&(*shard, i64::from(*epoch))));
            let lost: Vec<(u16, u32)> = lost.map(|(shard, epoch, _)| (*shard, *epoch)).collect();
            if !lost.is_empty() {
                connection.query_drop("ROLLBACK").await?;
                turn.keep();
                return Ok(Written::Fenced(lost));
            }
            let cases =
                change.windows.iter().flat_map(|(shard, _, claims)| [Value::from(*shard), Value::from(&claims[..])]);
            let written = sql::write_windows(&shards, change.windows.len());
            connection.exec_drop(written, Params::Positional(cases.collect())).await?;
        }
        for some in change.done.chunks(POSITIONS_MAX) {
            let positions = listed(some);
            if keep_done {
                connection.query_drop(sql::keep(&positions)).await?;
            }
            connection.query_drop(sql::delete(&positions)).await?;
        }
        for parked in &change.parked {
            let reason: String = parked.reason.chars().take(REASON_CHARS_MAX).collect();
            connection.exec_drop(sql::PARK, (reason, parked.position)).await?;
        }
        connection.query_drop("COMMIT").await?;
        turn.keep();
        Ok(Written::Done)
    }

    async fn beat(&self, lease: &Lease) -> Result<Members, Error> {
        let mut turn = self.leases.turn().await?;
        let connection = &mut turn.connection;
        let (member, lasts_ms) = (lease.member.as_bytes(), millis(lease.lasts));
        connection.exec_drop(sql::LIVE, (member, lasts_ms)).await?;
        let ours: Vec<u16> = connection.exec(sql::OWNED, (member,)).await?;
        for shard in ours {
            connection.exec_drop(sql::RENEW, (lasts_ms, shard, member)).await?;
        }
        connection.query_drop(sql::FORGET).await?;
        let live = members(connection).await?;
        let shards = shards(connection).await?;
        turn.keep();
        let shards = shards.into_iter().map(|(shard, owner, ..)| Seen { shard, owner: owner.map(text) }).collect();
        Ok(Members { live, shards })
    }

    async fn take_shard(&self, lease: &Lease, shard: u16) -> Result<Option<(i64, Option<Vec<u8>>)>, Error> {
        let mut turn = self.leases.turn().await?;
        let connection = &mut turn.connection;
        connection.query_drop(sql::BEGIN).await?;
        let member = lease.member.as_bytes();
        connection.exec_drop(sql::TAKE, (member, millis(lease.lasts), shard, member)).await?;
        let ours = connection.affected_rows() == 1;
        let taken = if ours { connection.exec_first(sql::TAKEN, (shard,)).await? } else { None };
        connection.query_drop("COMMIT").await?;
        turn.keep();
        Ok(taken)
    }

    async fn leave_all(&self, member: &str) -> Result<(), Error> {
        let mut turn = self.leases.turn().await?;
        let connection = &mut turn.connection;
        connection.exec_drop(sql::LEAVE, (member.as_bytes(),)).await?;
        let ours: Vec<u16> = connection.exec(sql::OWNED, (member.as_bytes(),)).await?;
        for shard in ours {
            connection.exec_drop(sql::LEAVE_SHARDS, (shard, member.as_bytes())).await?;
        }
        turn.keep();
        Ok(())
    }

    /// One statement on the connection for leases, and how many rows it changed.
    async fn run(&self, sql: &str, parameters: impl Into<Params>) -> Result<u64, Error> {
        let mut turn = self.leases.turn().await?;
        turn.connection.exec_drop(sql, parameters.into()).await?;
        let rows = turn.connection.affected_rows();
        turn.keep();
        Ok(rows)
    }

    /// The same for positions, so many at a time.
    async fn run_each(&self, sql: fn(&str) -> String, positions: &[i64]) -> Result<u64, Error> {
        let mut turn = self.leases.turn().await?;
        let mut rows = 0;
        for some in positions.chunks(POSITIONS_MAX) {
            turn.connection.query_drop(sql(&listed(some))).await?;
            rows += turn.connection.affected_rows();
        }
        turn.keep();
        Ok(rows)
    }

    async fn read_status(&self) -> Result<Status, OutboxError> {
        let failed = |error| refused("reading the status", error);
        let name = self.name().await?;
        let mut turn = self.leases.turn().await.map_err(failed)?;
        let connection = &mut turn.connection;
        let counts: Option<(u64, Option<i64>, u64, u64, u64)> =
            connection.query_first(sql::STATUS).await.map_err(failed)?;
        let live = members(connection).await.map_err(failed)?;
        let shards = shards(connection).await.map_err(failed)?;
        turn.keep();
        let (rows, oldest_ms, parked, done, bytes) = counts.unwrap_or_default();
        let oldest = oldest_ms.map(|oldest_ms| Duration::from_millis(oldest_ms.max(0).unsigned_abs()));
        let mut status = Status { name, rows, oldest, parked, done, bytes, members: live, ..Status::default() };
        for (shard, owner, epoch, claims) in shards {
            let claimed = Window::decode(&claims.unwrap_or_default());
            let claimed = claimed.map_err(|error| OutboxError::Corrupt(format!("shard {shard}: {error}")))?.len();
            status.shards.push(ShardStatus { shard, owner: owner.map(text), epoch, claimed });
        }
        Ok(status)
    }
}

type ShardRow = (u16, Option<Vec<u8>>, u64, Option<Vec<u8>>);

async fn shards(connection: &mut Conn) -> Result<Vec<ShardRow>, Error> {
    connection.query(sql::SHARDS).await
}

async fn members(connection: &mut Conn) -> Result<Vec<String>, Error> {
    let members: Vec<Vec<u8>> = connection.query(sql::MEMBERS).await?;
    Ok(members.into_iter().map(text).collect())
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

impl OutboxStore for MysqlOutbox {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    fn tables(&self) -> String {
        sql::TABLES.join(";\n")
    }

    fn init<'a>(&'a self, name: &'a str) -> OutboxFuture<'a, ()> {
        Box::pin(async move {
            let failed = |error| refused("creating the tables", error);
            let mut turn = self.leases.turn().await.map_err(failed)?;
            for statement in sql::TABLES {
                turn.connection.query_drop(statement).await.map_err(failed)?;
            }
            turn.connection.exec_drop(sql::NAME, (name.as_bytes(),)).await.map_err(failed)?;
            turn.keep();
            Ok(())
        })
    }

    fn name(&self) -> OutboxFuture<'_, String> {
        Box::pin(async move {
            let failed = |error| refused("reading the outbox's name", error);
            let mut turn = self.leases.turn().await.map_err(failed)?;
            let read: Option<(Vec<u8>, i64)> = turn.connection.query_first(sql::READ_NAME).await.map_err(failed)?;
            turn.keep();
            checked_name(read.map(|(name, version)| (text(name), version)))
        })
    }

    fn heartbeat<'a>(&'a self, lease: &'a Lease) -> OutboxFuture<'a, Members> {
        Box::pin(async move { self.beat(lease).await.map_err(|error| refused("renewing the leases", error)) })
    }

    fn take<'a>(&'a self, lease: &'a Lease, shard: u16) -> OutboxFuture<'a, Option<Tenure>> {
        Box::pin(async move {
            let taken = self.take_shard(lease, shard).await.map_err(|error| refused("taking a shard", error))?;
            let Some((epoch, window)) = taken else { return Ok(None) };
            let epoch = u32::try_from(epoch).map_err(|_| OutboxError::Corrupt(format!("the epoch {epoch}")))?;
            Ok(Some(Tenure { shard, epoch, window: Bytes::from(window.unwrap_or_default()) }))
        })
    }

    fn release(&self, shard: u16, epoch: u32) -> OutboxFuture<'_, ()> {
        Box::pin(async move {
            let released = self.run(sql::RELEASE, (shard, epoch)).await;
            released.map(drop).map_err(|error| refused("giving up a shard", error))
        })
    }

    fn leave<'a>(&'a self, lease: &'a Lease) -> OutboxFuture<'a, ()> {
        Box::pin(async move { self.leave_all(&lease.member).await.map_err(|error| refused("leaving", error)) })
    }

    fn search(&self) -> Box<dyn Search> {
        Box::new(MysqlSearch::new(Arc::clone(&self.look), Arc::clone(&self.naps)))
    }

    fn rows<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, Vec<Row<OutboxRow>>> {
        Box::pin(async move {
            let failed = |error| refused("reading claimed rows", error);
            let mut turn = self.leases.turn().await.map_err(failed)?;
            let rows = read(&mut turn.connection, positions).await?;
            turn.keep();
            Ok(rows)
        })
    }

    fn write<'a>(&'a self, change: &'a Change, keep_done: bool) -> OutboxFuture<'a, Written> {
        Box::pin(
            async move { self.write_change(change, keep_done).await.map_err(|error| refused("writing claims", error)) },
        )
    }

    fn wait(&self, at_most: Duration) -> OutboxFuture<'_, ()> {
        Box::pin(async move {
            tokio::time::sleep(self.naps.next(at_most)).await;
            Ok(())
        })
    }

    fn parked(&self, after: i64, rows_max: usize) -> OutboxFuture<'_, Vec<ParkedRow>> {
        Box::pin(async move {
            let failed = |error| refused("reading parked rows", error);
            let mut turn = self.leases.turn().await.map_err(failed)?;
            let rows: Vec<MysqlRow> = turn.connection.exec(sql::PARKED, (after, rows_max)).await.map_err(failed)?;
            turn.keep();
            let decode = |row: MysqlRow| {
                type Columns = (i64, Vec<u8>, Option<Vec<u8>>, Vec<u8>, Vec<u8>);
                let columns: Result<Columns, _> = mysql_async::from_row_opt(row);
                let (position, topic, key, id, reason) =
                    columns.map_err(|error| OutboxError::Corrupt(format!("a row of baton_outbox ({error})")))?;
                Ok(ParkedRow {
                    position,
                    topic: text(topic),
                    key: key.map(Bytes::from),
                    id: text(id),
                    reason: text(reason),
                })
            };
            rows.into_iter().map(decode).collect()
        })
    }

    fn retry<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, u64> {
        Box::pin(async move {
            self.run_each(sql::retry, positions).await.map_err(|error| refused("releasing parked rows", error))
        })
    }

    fn discard<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, u64> {
        Box::pin(async move {
            self.run_each(sql::discard, positions).await.map_err(|error| refused("deleting parked rows", error))
        })
    }

    fn prune(&self, kept: Duration, rows_max: usize) -> OutboxFuture<'_, u64> {
        Box::pin(async move {
            let pruned = self.run(sql::PRUNE, (millis(kept), rows_max)).await;
            pruned.map_err(|error| refused("pruning done rows", error))
        })
    }

    fn status(&self) -> OutboxFuture<'_, Status> {
        Box::pin(self.read_status())
    }
}

/// As `IN (..)` takes numbers.
fn listed<T: Display>(numbers: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for number in numbers {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&number.to_string());
    }
    text
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

fn refused(doing: &'static str, error: Error) -> OutboxError {
    let Error::Server(answer) = &error else {
        return OutboxError::Unavailable { doing, source: error.into() };
    };
    match answer.code {
        1146 => OutboxError::NotPrepared(error.into()),
        // Too many connections, a server that shuts down, no time left, a deadlock, a server that became read-only, a statement or a
        // connection that was killed, a commit that failed.
        1040 | 1053 | 1180 | 1205 | 1213 | 1290 | 1317 | 1836 | 1927 => {
            OutboxError::Unavailable { doing, source: error.into() }
        }
        // Classes: connection, insufficient resources.
        _ if answer.state.starts_with("08") || answer.state.starts_with("53") => {
            OutboxError::Unavailable { doing, source: error.into() }
        }
        _ => OutboxError::Refused { doing, source: error.into() },
    }
}

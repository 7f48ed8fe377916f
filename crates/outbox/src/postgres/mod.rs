//! The outbox on Postgres.

mod enqueue;
mod link;
mod search;
mod sql;

use std::sync::Arc;
use std::time::Duration;

use baton_core::relay::{Change, Row, Seen, Window};
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Config, Error, NoTls, Socket};

use crate::error::Source;
use crate::store::checked_name;
use crate::{
    Lease, Members, OutboxError, OutboxFuture, OutboxRow, OutboxStore, ParkedRow, Search, ShardStatus, Status, Tenure,
    Written,
};
use link::{Connector, Link, is_ready};
use search::{PostgresSearch, decode};

/// How soon a relay looks again while somebody is writing and has not committed: from here, doubled each time, up to [`WRITING_WAIT_MAX`].
const WRITING_WAIT_MIN: Duration = Duration::from_millis(1);
/// See [`WRITING_WAIT_MIN`]. A transaction that stays open for long makes its relay look so often, and costs no more than that.
const WRITING_WAIT_MAX: Duration = Duration::from_millis(16);

/// The outbox on Postgres 13 or later, as its relay sees it. What services write with is [`crate::Outbox`], on a transaction of
/// `tokio-postgres`.
///
/// A relay opens four connections: one each to look, to write, for leases, and to be woken. `synchronous_commit` must be on, or what was
/// committed could be gone after a crash of the server, and with it a message that was sent already or never will be.
///
/// # Tables
///
/// [`OutboxStore::init`] creates what is missing, in the first schema of the `search_path`; [`OutboxStore::tables`] is the same to be run by
/// somebody else. To work, roles need `USAGE` on the schema and
///
/// ```sql
/// GRANT INSERT ON baton_outbox TO service;                                             -- enqueue
/// GRANT SELECT (id) ON baton_outbox TO service;                                        -- which ids are new
/// GRANT SELECT, UPDATE, DELETE ON baton_outbox TO relay;
/// GRANT SELECT, INSERT, DELETE ON baton_outbox_done TO relay;                          -- keeping and pruning done rows
/// GRANT SELECT, UPDATE ON baton_outbox_shard TO relay;
/// GRANT SELECT, INSERT, UPDATE, DELETE ON baton_outbox_relay TO relay;
/// GRANT SELECT ON baton_outbox_info TO relay;
/// ```
pub struct PostgresOutbox {
    look: Arc<Link>,
    write: Link,
    leases: Link,
    sleep: Link,
    /// The slot whose lock this relay takes when it sleeps, once it has one.
    sleeping: Mutex<Sleeping>,
}

#[derive(Debug, Default)]
struct Sleeping {
    slot: i32,
    held: bool,
    wait: Duration,
}

impl PostgresOutbox {
    /// For a server without TLS. Nothing is connected before it is needed.
    pub fn new(config: Config) -> Self {
        Self::with_tls(config, NoTls)
    }

    /// The same with a connector of TLS, such as `tokio-postgres-rustls` has.
    pub fn with_tls<T>(config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as tokio_postgres::tls::TlsConnect<Socket>>::Future: Send,
    {
        let connector = Connector::new(config, tls);
        let link = || Link::new(connector.clone());
        Self { look: Arc::new(link()), write: link(), leases: link(), sleep: link(), sleeping: Mutex::default() }
    }

    /// What is due on the connection on which a relay sleeps. `true`: the lock is held, so whoever writes from now on wakes us; look once
    /// more before sleeping.
    async fn fall_asleep(&self, sleeping: &mut Sleeping) -> Result<bool, Error> {
        let (mut turn, new) = self.sleep.turn().await?;
        let session = turn.session();
        if new {
            session.client.batch_execute(&format!("LISTEN {}", sql::CHANNEL)).await?;
            sleeping.held = false;
        }
        if !sleeping.held {
            let lock = "SELECT pg_try_advisory_lock('baton_outbox'::regclass::integer, $1)";
            let lock = session.prepare(lock).await?;
            sleeping.held = session.client.query_one(&lock, &[&sleeping.slot]).await?.try_get(0)?;
            if !sleeping.held {
                // Somebody writes, or another relay has this slot.
                sleeping.slot = (sleeping.slot + 1) % sql::SLEEPERS;
            }
        }
        turn.keep();
        Ok(sleeping.held)
    }

    async fn wake_up(&self, sleeping: &mut Sleeping) -> Result<(), Error> {
        if !std::mem::take(&mut sleeping.held) {
            return Ok(());
        }
        let (mut turn, new) = self.sleep.turn().await?;
        if !new {
            let unlock = "SELECT pg_advisory_unlock('baton_outbox'::regclass::integer, $1)";
            let session = turn.session();
            let unlock = session.prepare(unlock).await?;
            session.client.execute(&unlock, &[&sleeping.slot]).await?;
        } else {
            turn.session().client.batch_execute(&format!("LISTEN {}", sql::CHANNEL)).await?;
        }
        turn.keep();
        Ok(())
    }

    async fn nap(&self, at_most: Duration) -> Result<(), Error> {
        let mut sleeping = self.sleeping.lock().await;
        if sleeping.held {
            // Looked once more since the lock was taken: nothing was written without waking us.
            let woken = tokio::time::timeout(at_most, self.sleep.woken.notified()).await.is_ok();
            if woken {
                sleeping.wait = Duration::ZERO;
                return self.wake_up(&mut sleeping).await;
            }
            return Ok(());
        }
        _ = is_ready(&self.sleep.woken);
        if self.fall_asleep(&mut sleeping).await? {
            return Ok(());
        }
        sleeping.wait = (sleeping.wait * 2).clamp(WRITING_WAIT_MIN, WRITING_WAIT_MAX).min(at_most);
        tokio::time::sleep(sleeping.wait).await;
        Ok(())
    }

    async fn write_change(&self, change: &Change, keep_done: bool) -> Result<Written, Error> {
        let (mut turn, _) = self.write.turn().await?;
        let session = turn.session();
        let windows = session.prepare(sql::WRITE_WINDOWS).await?;
        let delete = session.prepare(if keep_done { sql::KEEP } else { sql::DELETE }).await?;
        let park = session.prepare(sql::PARK).await?;
        let client = &session.client;
        let shards: Vec<i16> = change.windows.iter().map(|(shard, ..)| shard.cast_signed()).collect();
        let epochs: Vec<i64> = change.windows.iter().map(|(_, epoch, _)| i64::from(*epoch)).collect();
        let claims: Vec<&[u8]> = change.windows.iter().map(|(.., window)| &window[..]).collect();
        let parked: Vec<i64> = change.parked.iter().map(|parked| parked.position).collect();
        let reasons: Vec<&str> = change.parked.iter().map(|parked| parked.reason.as_str()).collect();
        let (begun, ours, deleted, marked) = tokio::join!(
            biased;
            client.batch_execute("BEGIN"),
            async { client.query(&windows, &[&shards, &epochs, &claims]).await },
            async { if change.done.is_empty() { Ok(0) } else { client.execute(&delete, &[&change.done]).await } },
            async { if parked.is_empty() { Ok(0) } else { client.execute(&park, &[&parked, &reasons]).await } },
        );
        begun?;
        let ours = ours?.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i16>, _>>()?;
        deleted?;
        marked?;
        let lost = change.windows.iter().filter(|(shard, ..)| !ours.contains(&shard.cast_signed()));
        let lost: Vec<(u16, u32)> = lost.map(|(shard, epoch, _)| (*shard, *epoch)).collect();
        client.batch_execute(if lost.is_empty() { "COMMIT" } else { "ROLLBACK" }).await?;
        turn.keep();
        Ok(if lost.is_empty() { Written::Done } else { Written::Fenced(lost) })
    }

    async fn beat(&self, lease: &Lease) -> Result<Members, Error> {
        let (mut turn, _) = self.leases.turn().await?;
        let session = turn.session();
        let mut prepared = Vec::new();
        for sql in [sql::LIVE, sql::RENEW, sql::MEMBERS, sql::SHARDS, sql::FORGET] {
            prepared.push(session.prepare(sql).await?);
        }
        let client = &session.client;
        let lasts_ms = millis(lease.lasts);
        let (live, renewed, members, shards, forgotten) = tokio::join!(
            biased;
            async { client.execute(&prepared[0], &[&lease.member, &lasts_ms]).await },
            async { client.execute(&prepared[1], &[&lease.member, &lasts_ms]).await },
            client.query(&prepared[2], &[]),
            client.query(&prepared[3], &[]),
            client.execute(&prepared[4], &[]),
        );
        live?;
        renewed?;
        forgotten?;
        let mut found = Members::default();
        for row in members? {
            found.live.push(row.try_get(0)?);
        }
        for row in shards? {
            found.shards.push(Seen { shard: row.try_get::<_, i16>(0)?.unsigned_abs(), owner: row.try_get(1)? });
        }
        turn.keep();
        Ok(found)
    }

    /// One statement on the connection for leases, and how many rows it changed.
    async fn run(
        &self,
        sql: &'static str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, Error> {
        let (mut turn, _) = self.leases.turn().await?;
        let session = turn.session();
        let statement = session.prepare(sql).await?;
        let rows = session.client.execute(&statement, parameters).await?;
        turn.keep();
        Ok(rows)
    }

    async fn fetch(
        &self,
        sql: &'static str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        let (mut turn, _) = self.leases.turn().await?;
        let session = turn.session();
        let statement = session.prepare(sql).await?;
        let rows = session.client.query(&statement, parameters).await?;
        turn.keep();
        Ok(rows)
    }

    async fn read_status(&self) -> Result<Status, OutboxError> {
        let doing = "reading the status";
        let failed = |error| refused(doing, error);
        let name = self.name().await?;
        let counts = self.fetch(sql::STATUS, &[]).await.map_err(failed)?;
        let shards = self.fetch(sql::SHARDS, &[]).await.map_err(failed)?;
        let members = self.fetch(sql::MEMBERS, &[]).await.map_err(failed)?;
        let mut status = Status { name, ..Status::default() };
        for row in counts {
            let number = |column| row.try_get::<_, Option<i64>>(column).map_err(failed);
            let count = |column| Ok::<_, OutboxError>(number(column)?.unwrap_or(0).unsigned_abs());
            status.rows = count(0)?;
            status.oldest = number(1)?.map(|ms| Duration::from_millis(ms.unsigned_abs()));
            (status.parked, status.done, status.bytes) = (count(2)?, count(3)?, count(4)?);
            status.dead = number(5)?.map(i64::unsigned_abs);
        }
        for row in shards {
            let shard = row.try_get::<_, i16>(0).map_err(failed)?.unsigned_abs();
            let claims: &[u8] = row.try_get(3).map_err(failed)?;
            let claimed =
                Window::decode(claims).map_err(|error| OutboxError::Corrupt(format!("shard {shard}: {error}")))?;
            let epoch = row.try_get::<_, i64>(2).map_err(failed)?.unsigned_abs();
            let owner = row.try_get(1).map_err(failed)?;
            status.shards.push(ShardStatus { shard, owner, epoch, claimed: claimed.len() });
        }
        for row in members {
            status.members.push(row.try_get(0).map_err(failed)?);
        }
        Ok(status)
    }
}

impl OutboxStore for PostgresOutbox {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn tables(&self) -> String {
        sql::TABLES.trim().to_owned()
    }

    fn init<'a>(&'a self, name: &'a str) -> OutboxFuture<'a, ()> {
        Box::pin(async move {
            let failed = |error| refused("creating the tables", error);
            let (mut turn, _) = self.leases.turn().await.map_err(failed)?;
            let session = turn.session();
            let tables = format!("BEGIN; SELECT pg_advisory_xact_lock({}); {}; COMMIT", sql::PREPARE_LOCK, sql::TABLES);
            session.client.batch_execute(&tables).await.map_err(failed)?;
            session.client.execute(sql::NAME, &[&name]).await.map_err(failed)?;
            turn.keep();
            Ok(())
        })
    }

    fn name(&self) -> OutboxFuture<'_, String> {
        Box::pin(async move {
            let failed = |error| refused("reading the outbox's name", error);
            let rows = self.fetch(sql::READ_NAME, &[]).await.map_err(failed)?;
            let read = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get::<_, i32>(1)?.into()));
            checked_name(rows.first().map(read).transpose().map_err(failed)?)
        })
    }

    fn heartbeat<'a>(&'a self, lease: &'a Lease) -> OutboxFuture<'a, Members> {
        Box::pin(async move { self.beat(lease).await.map_err(|error| refused("renewing the leases", error)) })
    }

    fn take<'a>(&'a self, lease: &'a Lease, shard: u16) -> OutboxFuture<'a, Option<Tenure>> {
        Box::pin(async move {
            let failed = |error| refused("taking a shard", error);
            let (number, lasts_ms) = (shard.cast_signed(), millis(lease.lasts));
            let rows = self.fetch(sql::TAKE, &[&lease.member, &lasts_ms, &number]).await.map_err(failed)?;
            let Some(row) = rows.first() else { return Ok(None) };
            let epoch: i64 = row.try_get(0).map_err(failed)?;
            let epoch = u32::try_from(epoch).map_err(|_| OutboxError::Corrupt(format!("the epoch {epoch}")))?;
            let window: &[u8] = row.try_get(1).map_err(failed)?;
            Ok(Some(Tenure { shard, epoch, window: Bytes::copy_from_slice(window) }))
        })
    }

    fn release(&self, shard: u16, epoch: u32) -> OutboxFuture<'_, ()> {
        Box::pin(async move {
            let released = self.run(sql::RELEASE, &[&shard.cast_signed(), &i64::from(epoch)]).await;
            released.map(drop).map_err(|error| refused("giving up a shard", error))
        })
    }

    fn leave<'a>(&'a self, lease: &'a Lease) -> OutboxFuture<'a, ()> {
        Box::pin(async move {
            let left = self.run(sql::LEAVE, &[&lease.member]).await;
            left.map(drop).map_err(|error| refused("leaving", error))
        })
    }

    fn search(&self) -> Box<dyn Search> {
        Box::new(PostgresSearch::new(Arc::clone(&self.look)))
    }

    fn rows<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, Vec<Row<OutboxRow>>> {
        Box::pin(async move {
            let rows = self.fetch(sql::ROWS, &[&positions]).await;
            decode(&rows.map_err(|error| refused("reading claimed rows", error))?)
        })
    }

    fn write<'a>(&'a self, change: &'a Change, keep_done: bool) -> OutboxFuture<'a, Written> {
        Box::pin(
            async move { self.write_change(change, keep_done).await.map_err(|error| refused("writing claims", error)) },
        )
    }

    fn wait(&self, at_most: Duration) -> OutboxFuture<'_, ()> {
        Box::pin(async move { self.nap(at_most).await.map_err(|error| refused("waiting for rows", error)) })
    }

    fn parked(&self, after: i64, rows_max: usize) -> OutboxFuture<'_, Vec<ParkedRow>> {
        Box::pin(async move {
            let failed = |error| refused("reading parked rows", error);
            let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
            let rows = self.fetch(sql::PARKED, &[&after, &rows_max]).await.map_err(failed)?;
            let decode = |row: &tokio_postgres::Row| {
                let key: Option<&[u8]> = row.try_get(2)?;
                Ok(ParkedRow {
                    position: row.try_get(0)?,
                    topic: row.try_get(1)?,
                    key: key.map(Bytes::copy_from_slice),
                    id: row.try_get(3)?,
                    reason: row.try_get(4)?,
                })
            };
            rows.iter().map(|row| decode(row).map_err(failed)).collect()
        })
    }

    fn retry<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, u64> {
        Box::pin(async move {
            self.run(sql::RETRY, &[&positions]).await.map_err(|error| refused("releasing parked rows", error))
        })
    }

    fn discard<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, u64> {
        Box::pin(async move {
            self.run(sql::DISCARD, &[&positions]).await.map_err(|error| refused("deleting parked rows", error))
        })
    }

    fn prune(&self, kept: Duration, rows_max: usize) -> OutboxFuture<'_, u64> {
        Box::pin(async move {
            let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
            let pruned = self.run(sql::PRUNE, &[&millis(kept), &rows_max]).await;
            pruned.map_err(|error| refused("pruning done rows", error))
        })
    }

    fn status(&self) -> OutboxFuture<'_, Status> {
        Box::pin(self.read_status())
    }
}

/// As `interval '1 ms'` is multiplied with.
#[allow(clippy::cast_precision_loss, reason = "nobody waits for so long")]
fn millis(duration: Duration) -> f64 {
    duration.as_millis() as f64
}

fn refused(doing: &'static str, error: Error) -> OutboxError {
    let code = error.code().map(|code| code.code().to_owned());
    match code.as_deref() {
        None => OutboxError::Unavailable { doing, source: said(&error) },
        Some("42P01") => OutboxError::NotPrepared(said(&error)),
        // Connection, resources, operator's intervention, system; not in time, deadlock, serialization.
        Some(code)
            if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                || ["55P03", "40P01", "40001"].contains(&code) =>
        {
            OutboxError::Unavailable { doing, source: said(&error) }
        }
        Some(_) => OutboxError::Refused { doing, source: said(&error) },
    }
}

/// What the server said, without its detail, in which a row's content may stand; or all that its client knows.
fn said(error: &Error) -> Source {
    if let Some(answer) = error.as_db_error() {
        return format!("{} ({})", answer.message(), answer.code().code()).into();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.into()
}

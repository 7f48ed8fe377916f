//! An intake on SQLite.

use baton_core::Delivery;
use rusqlite::{Connection, Error, OptionalExtension, Transaction, TransactionBehavior, params};

use super::rows::{self, Read, ReadPlace};
use super::{Intake, IntakeError, IntakeFuture, Ownership, Place, Progress, Taken};
use crate::side::StoreError;
use crate::side::rows::{check, failed, last_to_load};
use crate::sqlite::SYNCHRONOUS;
use crate::{Sqlite, Weakness};

const STORE: &str = "intake on SQLite";

/// The tables, as [`SqliteIntake::prepare`] creates them.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS baton_stored (
  consumer_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, position INTEGER NOT NULL,
  message_key BLOB, payload BLOB, headers BLOB NOT NULL, timestamp_ms INTEGER, stored_at INTEGER NOT NULL DEFAULT (unixepoch()),
  PRIMARY KEY (consumer_group, topic, partition, position));
CREATE TABLE IF NOT EXISTS baton_stored_place (
  consumer_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL, frontier INTEGER,
  metadata TEXT NOT NULL, next INTEGER, acknowledged INTEGER, changed_at INTEGER NOT NULL DEFAULT (unixepoch()),
  PRIMARY KEY (consumer_group, topic, partition));";

const OF_PLACE: &str = "consumer_group = ?1 AND topic = ?2 AND partition = ?3";
const TAKE: &str = "INSERT INTO baton_stored_place (consumer_group, topic, partition, epoch, frontier, metadata, next, acknowledged) \
VALUES (?1, ?2, ?3, 1, ?4, ?5, ?4, ?4) ON CONFLICT DO UPDATE SET epoch = epoch + 1, \
metadata = CASE WHEN frontier IS NULL THEN excluded.metadata ELSE metadata END, \
frontier = coalesce(frontier, excluded.frontier), next = coalesce(next, excluded.next), \
acknowledged = coalesce(acknowledged, excluded.acknowledged), changed_at = unixepoch() \
RETURNING epoch, frontier, metadata, next, acknowledged";
const INSERT: &str = "INSERT INTO baton_stored (consumer_group, topic, partition, position, message_key, payload, headers, timestamp_ms) \
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";

/// Messages in a SQLite database from their arrival until they are done. See [`Intake`].
///
/// Not in the guard's database: SQLite has one writer at a time, and messages would wait to be stored while handlers write.
#[derive(Debug)]
pub struct SqliteIntake {
    sqlite: Sqlite,
}

/// A place, as parameters want it.
type Names = (String, String, u32);

fn names(place: &Place) -> Result<Names, StoreError> {
    check(place)?;
    Ok((place.group.to_string(), place.partition.topic.to_string(), place.partition.partition))
}

impl SqliteIntake {
    /// An intake in this database.
    pub fn new(sqlite: &Sqlite) -> Self {
        Self { sqlite: sqlite.clone() }
    }

    /// Creates the tables where they are not there yet.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.run(|connection| connection.execute_batch(TABLES)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.sqlite.run(work).await.map_err(|error| failed(STORE, &error))?;
        done.map_err(|error| {
            let missing = error.to_string().contains("no such table: baton_");
            let error = failed(STORE, &error);
            if missing { StoreError(format!("{error}: call prepare() once")) } else { error }
        })
    }

    /// One transaction: the place's row is changed if it is still ours, and only then the rest is done.
    async fn write(
        &self,
        own: impl FnOnce(&Connection) -> Result<usize, Error> + Send + 'static,
        rest: impl FnOnce(&Connection) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), IntakeError> {
        let owned = self.run(move |connection| {
            // The lock at once: whoever reads first may find that another process has written meanwhile.
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let owned = own(&transaction)? == 1;
            if owned {
                rest(&transaction)?;
                transaction.commit()?;
            }
            Ok(owned)
        });
        if owned.await? { Ok(()) } else { Err(IntakeError::Fenced) }
    }
}

fn read_messages(connection: &Connection, place: &Names, from: i64, messages_max: usize) -> Result<Vec<Read>, Error> {
    let (group, topic, partition) = place;
    let sql = format!(
        "SELECT position, coalesce(length(message_key), 0) + coalesce(length(payload), 0) + length(headers) FROM baton_stored \
         WHERE {OF_PLACE} AND position >= ?4 ORDER BY position LIMIT ?5"
    );
    let limit = i64::try_from(messages_max).unwrap_or(i64::MAX);
    let mut sizes = connection.prepare_cached(&sql)?;
    let sizes = sizes.query_map(params![group, topic, partition, from, limit], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    let Some(last) = last_to_load(sizes.collect::<Result<Vec<_>, _>>()?) else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT position, message_key, payload, headers, timestamp_ms FROM baton_stored \
         WHERE {OF_PLACE} AND position BETWEEN ?4 AND ?5 ORDER BY position"
    );
    let mut all = connection.prepare_cached(&sql)?;
    let all = all.query_map(params![group, topic, partition, from, last], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    })?;
    all.collect()
}

impl Intake for SqliteIntake {
    fn take<'a>(&'a self, place: &'a Place, known: Option<(i64, &'a str)>) -> IntakeFuture<'a, Taken, StoreError> {
        Box::pin(async move {
            let (group, topic, partition) = names(place)?;
            let (frontier, metadata) = known.unzip();
            let metadata = metadata.unwrap_or_default().to_owned();
            let found = self.run(move |connection| -> Result<Option<ReadPlace>, Error> {
                let parameters = params![group, topic, partition, frontier, metadata];
                let read =
                    |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
                connection.query_row(TAKE, parameters, read).optional()
            });
            let found = found.await?.ok_or_else(|| StoreError(format!("{STORE}: it returned no row")))?;
            Ok(rows::taken(place, found))
        })
    }

    fn append<'a>(
        &'a self,
        ownership: &'a Ownership,
        messages: &'a [Delivery],
        acknowledged: Option<i64>,
    ) -> IntakeFuture<'a, ()> {
        Box::pin(async move {
            let Some((first, next)) = rows::span(messages) else { return Ok(()) };
            let (group, topic, partition) = names(&ownership.place)?;
            let (place, epoch) = ((group.clone(), topic.clone(), partition), ownership.epoch);
            let messages: Vec<(Delivery, Vec<u8>)> =
                messages.iter().map(|message| (message.clone(), rows::headers(message))).collect();
            let own = move |connection: &Connection| {
                let sql = format!(
                    "UPDATE baton_stored_place SET next = max(coalesce(next, ?5), ?5), frontier = coalesce(frontier, ?6), \
                     acknowledged = coalesce(?7, acknowledged), changed_at = unixepoch() WHERE {OF_PLACE} AND epoch = ?4"
                );
                connection.execute(&sql, params![group, topic, partition, epoch, next, first, acknowledged])
            };
            let rest = move |connection: &Connection| {
                let mut insert = connection.prepare_cached(INSERT)?;
                for (message, headers) in &messages {
                    let Delivery { offset, key, payload, timestamp_ms, .. } = message;
                    let (key, payload) = (key.as_deref(), payload.as_deref());
                    insert.execute(params![place.0, place.1, place.2, offset, key, payload, headers, timestamp_ms])?;
                }
                Ok(())
            };
            self.write(own, rest).await
        })
    }

    fn read<'a>(
        &'a self,
        place: &'a Place,
        from: i64,
        messages_max: usize,
    ) -> IntakeFuture<'a, Vec<Delivery>, StoreError> {
        Box::pin(async move {
            let names = names(place)?;
            let all = self.run(move |connection| read_messages(connection, &names, from, messages_max)).await?;
            all.into_iter().map(|read| rows::message(&place.partition, read)).collect()
        })
    }

    fn advance<'a>(&'a self, ownership: &'a Ownership, progress: &'a Progress) -> IntakeFuture<'a, ()> {
        Box::pin(async move {
            let (group, topic, partition) = names(&ownership.place)?;
            let (place, epoch) = ((group.clone(), topic.clone(), partition), ownership.epoch);
            let Progress { frontier, metadata, acknowledged } = progress.clone();
            let own = move |connection: &Connection| {
                let sql = format!(
                    "UPDATE baton_stored_place SET frontier = max(coalesce(frontier, ?5), ?5), \
                     metadata = CASE WHEN frontier > ?5 THEN metadata ELSE ?6 END, \
                     acknowledged = coalesce(?7, acknowledged), changed_at = unixepoch() WHERE {OF_PLACE} AND epoch = ?4"
                );
                connection.execute(&sql, params![group, topic, partition, epoch, frontier, metadata, acknowledged])
            };
            let rest = move |connection: &Connection| {
                let sql = format!("DELETE FROM baton_stored WHERE {OF_PLACE} AND position < ?4");
                connection.execute(&sql, params![place.0, place.1, place.2, frontier]).map(drop)
            };
            self.write(own, rest).await
        })
    }

    fn restart<'a>(&'a self, ownership: &'a Ownership, at: i64) -> IntakeFuture<'a, Ownership> {
        Box::pin(async move {
            let (group, topic, partition) = names(&ownership.place)?;
            let (place, epoch) = ((group.clone(), topic.clone(), partition), ownership.epoch);
            let own = move |connection: &Connection| {
                let sql = format!(
                    "UPDATE baton_stored_place SET epoch = epoch + 1, frontier = ?5, metadata = '', next = ?5, \
                     acknowledged = NULL, changed_at = unixepoch() WHERE {OF_PLACE} AND epoch = ?4"
                );
                connection.execute(&sql, params![group, topic, partition, epoch, at])
            };
            let rest = move |connection: &Connection| {
                let sql = format!("DELETE FROM baton_stored WHERE {OF_PLACE}");
                connection.execute(&sql, params![place.0, place.1, place.2]).map(drop)
            };
            self.write(own, rest).await?;
            Ok(ownership.begun_anew())
        })
    }

    fn weaknesses(&self) -> IntakeFuture<'_, Vec<Weakness>, StoreError> {
        Box::pin(async move {
            let read = |connection: &Connection| connection.pragma_query_value(None, "synchronous", |row| row.get(0));
            let value: i64 = self.run(read).await?;
            Ok(SYNCHRONOUS.judge(&value.to_string()).into_iter().collect())
        })
    }
}

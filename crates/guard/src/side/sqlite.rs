//! A side store on SQLite.

use baton_core::consumer::{KeyInStore, Loaded, Parked};
use bytes::Bytes;
use rusqlite::{Connection, Error, OptionalExtension, params};

use super::rows::{self, Places, Read};
use super::{Offsets, Opened, Place, SideStore, StoreError, StoreFuture};
use crate::Sqlite;

const STORE: &str = "side store on SQLite";

/// The tables, as [`SqliteSideStore::prepare`] creates them.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS baton_parked (
  consumer_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, position INTEGER NOT NULL,
  key_hash INTEGER NOT NULL, message_key BLOB NOT NULL, payload BLOB, headers BLOB NOT NULL, timestamp_ms INTEGER,
  attempts INTEGER NOT NULL, source TEXT, reason TEXT, parked_at INTEGER NOT NULL DEFAULT (unixepoch()),
  PRIMARY KEY (consumer_group, topic, partition, position));
CREATE INDEX IF NOT EXISTS baton_parked_key ON baton_parked (consumer_group, topic, partition, key_hash, position);
CREATE TABLE IF NOT EXISTS baton_done (
  consumer_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, done BLOB NOT NULL,
  assignment INTEGER NOT NULL DEFAULT 0, changed_at INTEGER NOT NULL DEFAULT (unixepoch()),
  PRIMARY KEY (consumer_group, topic, partition));";

const COUNT_ASSIGNMENT: &str = "INSERT INTO baton_done (consumer_group, topic, partition, done, assignment) \
VALUES (?1, ?2, ?3, x'', 1) ON CONFLICT DO UPDATE SET assignment = assignment + 1 RETURNING assignment";
const OF_PLACE: &str = "consumer_group = ?1 AND topic = ?2 AND partition = ?3";

/// Parked messages and done marks in a SQLite database: in that of the guard, or in any other. See [`SideStore`].
#[derive(Debug)]
pub struct SqliteSideStore {
    sqlite: Sqlite,
    places: Places,
}

impl SqliteSideStore {
    /// A store in this database.
    pub fn new(sqlite: &Sqlite) -> Self {
        Self { sqlite: sqlite.clone(), places: Places::default() }
    }

    /// Creates the tables where they are not there yet.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.run(|connection| connection.execute_batch(TABLES)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.sqlite.run(work).await.map_err(|error| rows::failed(STORE, &error))?;
        done.map_err(|error| {
            let missing = error.to_string().contains("no such table: baton_");
            let error = rows::failed(STORE, &error);
            if missing { StoreError(format!("{error}: call prepare() once")) } else { error }
        })
    }
}

/// A place, as parameters want it.
fn names(place: &Place) -> (String, String, u32) {
    (place.group.to_string(), place.partition.topic.to_string(), place.partition.partition)
}

fn opened(
    connection: &Connection,
    place: (String, String, u32),
    offsets: Offsets,
) -> Result<(Opened, Option<i64>), Error> {
    let place = params![place.0, place.1, place.2];
    let assignment = match offsets {
        Offsets::Lasting => None,
        Offsets::OfAssignment => Some(connection.query_row(COUNT_ASSIGNMENT, place, |row| row.get(0))?),
    };
    let done: Option<Vec<u8>> = connection
        .query_row(&format!("SELECT done FROM baton_done WHERE {OF_PLACE}"), place, |row| row.get(0))
        .optional()?;
    let sql = format!("SELECT message_key, count(*) FROM baton_parked WHERE {OF_PLACE} GROUP BY key_hash, message_key");
    let mut keys = connection.prepare(&sql)?;
    let keys = keys.query_map(place, |row| {
        let (key, messages): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
        Ok(KeyInStore { key: key.into(), messages: usize::try_from(messages).unwrap_or(usize::MAX) })
    })?;
    Ok((Opened { done: done.unwrap_or_default().into(), parked: keys.collect::<Result<_, _>>()? }, assignment))
}

fn read(
    connection: &Connection,
    place: (String, String, u32),
    key: &[u8],
    messages_max: usize,
) -> Result<Vec<Read>, Error> {
    let of_key = format!("FROM baton_parked WHERE {OF_PLACE} AND key_hash = ?4 AND message_key = ?5");
    let sql =
        format!("SELECT position, coalesce(length(payload), 0) + length(headers) {of_key} ORDER BY position LIMIT ?6");
    let (group, topic, partition) = place;
    let limit = i64::try_from(messages_max).unwrap_or(i64::MAX);
    let mut sizes = connection.prepare_cached(&sql)?;
    let sizes = sizes.query_map(params![group, topic, partition, rows::hash(key), key, limit], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
    let Some(last) = rows::last_to_load(sizes) else { return Ok(Vec::new()) };
    let sql = format!("SELECT position, payload, headers, timestamp_ms {of_key} AND position <= ?6 ORDER BY position");
    let mut all = connection.prepare_cached(&sql)?;
    let all = all.query_map(params![group, topic, partition, rows::hash(key), key, last], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    all.collect()
}

impl SideStore for SqliteSideStore {
    fn open<'a>(&'a self, place: &'a Place, offsets: Offsets) -> StoreFuture<'a, Opened> {
        Box::pin(async move {
            rows::check(place)?;
            let names = names(place);
            let (opened, assignment) = self.run(move |connection| opened(connection, names, offsets)).await?;
            self.places.open(place, assignment);
            Ok(opened)
        })
    }

    fn store_done<'a>(&'a self, place: &'a Place, bytes: Bytes) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let (group, topic, partition) = names(place);
            let sql = "INSERT INTO baton_done (consumer_group, topic, partition, done) VALUES (?1, ?2, ?3, ?4) \
                       ON CONFLICT DO UPDATE SET done = excluded.done, changed_at = unixepoch()";
            self.run(move |connection| connection.execute(sql, params![group, topic, partition, &bytes[..]]).map(drop))
                .await
        })
    }

    fn park<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages: &'a [Parked]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let rows = self.places.rows(place, messages)?;
            let ((group, topic, partition), key) = (names(place), key.clone());
            self.run(move |connection| {
                let transaction = connection.unchecked_transaction()?;
                let sql = "INSERT INTO baton_parked (consumer_group, topic, partition, position, key_hash, message_key, payload, \
                           headers, timestamp_ms, attempts, source, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
                           ON CONFLICT DO NOTHING";
                let mut park = transaction.prepare_cached(sql)?;
                for row in &rows {
                    park.execute(params![
                        group,
                        topic,
                        partition,
                        row.position,
                        rows::hash(&key),
                        &key[..],
                        row.payload.as_deref(),
                        row.headers,
                        row.timestamp_ms,
                        row.attempts,
                        row.source,
                        row.reason
                    ])?;
                }
                drop(park);
                transaction.commit()
            })
            .await
        })
    }

    fn load<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages_max: usize) -> StoreFuture<'a, Vec<Loaded>> {
        Box::pin(async move {
            let (names, of_key) = (names(place), key.clone());
            let all = self.run(move |connection| read(connection, names, &of_key, messages_max)).await?;
            all.into_iter().map(|read| rows::loaded(place, key, read)).collect()
        })
    }

    fn remove<'a>(&'a self, place: &'a Place, key: &'a Bytes, up_to: u64) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let ((group, topic, partition), key) = (names(place), key.clone());
            let up_to = i64::try_from(up_to).unwrap_or(i64::MAX);
            let sql = format!(
                "DELETE FROM baton_parked WHERE {OF_PLACE} AND key_hash = ?4 AND message_key = ?5 AND position <= ?6"
            );
            self.run(move |connection| {
                let removed = params![group, topic, partition, rows::hash(&key), &key[..], up_to];
                connection.execute(&sql, removed).map(drop)
            })
            .await
        })
    }

    fn forget(&self, place: &Place) {
        self.places.forget(place);
    }
}

//! A side store on Postgres.

use baton_core::consumer::{KeyInStore, Loaded, Parked};
use bytes::Bytes;
use deadpool_postgres::{Object, Pool};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::rows::{self, Places, Read, Row};
use super::{Offsets, Opened, Place, SideStore, StoreError, StoreFuture};

const STORE: &str = "side store on Postgres";
/// Held while tables are created; any number that nobody else uses.
const PREPARE_LOCK: i64 = 0x6261_746f_6e22;

const TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS baton_parked (
  consumer_group text COLLATE "C" NOT NULL,
  topic          text COLLATE "C" NOT NULL,
  partition      bigint NOT NULL,
  position       bigint NOT NULL,
  key_hash       bigint NOT NULL,
  message_key    bytea NOT NULL,
  payload        bytea,
  headers        bytea NOT NULL,
  timestamp_ms   bigint,
  attempts       integer NOT NULL,
  source         text,
  reason         text,
  parked_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer_group, topic, partition, position)
);
CREATE INDEX IF NOT EXISTS baton_parked_key ON baton_parked (consumer_group, topic, partition, key_hash, position);
CREATE TABLE IF NOT EXISTS baton_done (
  consumer_group text COLLATE "C" NOT NULL,
  topic          text COLLATE "C" NOT NULL,
  partition      bigint NOT NULL,
  done           bytea NOT NULL,
  assignment     bigint NOT NULL DEFAULT 0,
  changed_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50)"#;

const READ_DONE: &str = "SELECT done FROM baton_done WHERE consumer_group = $1 AND topic = $2 AND partition = $3";
const COUNT_ASSIGNMENT: &str = "INSERT INTO baton_done (consumer_group, topic, partition, done, assignment) VALUES ($1, $2, $3, '', 1) \
ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET assignment = baton_done.assignment + 1 RETURNING assignment";
const READ_KEYS: &str = "SELECT message_key, count(*) FROM baton_parked \
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 GROUP BY key_hash, message_key";
const STORE_DONE: &str = "INSERT INTO baton_done (consumer_group, topic, partition, done) VALUES ($1, $2, $3, $4) \
ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET done = excluded.done, changed_at = now()";
const PARK: &str = "INSERT INTO baton_parked (consumer_group, topic, partition, position, key_hash, message_key, payload, headers, \
timestamp_ms, attempts, source, reason) SELECT $1, $2, $3, position, $4, $5, payload, headers, timestamp_ms, attempts, source, reason \
FROM unnest($6::bigint[], $7::bytea[], $8::bytea[], $9::bigint[], $10::integer[], $11::text[], $12::text[]) \
AS parked (position, payload, headers, timestamp_ms, attempts, source, reason) ON CONFLICT DO NOTHING";
const READ_SIZES: &str = "SELECT position, (coalesce(octet_length(payload), 0) + octet_length(headers))::bigint FROM baton_parked \
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND key_hash = $4 AND message_key = $5 ORDER BY position LIMIT $6";
const READ_MESSAGES: &str = "SELECT position, payload, headers, timestamp_ms FROM baton_parked \
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND key_hash = $4 AND message_key = $5 AND position <= $6 ORDER BY position";
const REMOVE: &str = "DELETE FROM baton_parked \
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND key_hash = $4 AND message_key = $5 AND position <= $6";

/// Parked messages and done marks in a Postgres database: in that of the guard, or in any other. See [`SideStore`].
///
/// # Tables
///
/// [`PostgresSideStore::prepare`] creates what is missing, in the first schema of the `search_path`; whoever may not create tables has
/// somebody else run [`PostgresSideStore::TABLES`]. To work, a role needs `USAGE` on the schema and
///
/// ```sql
/// GRANT SELECT, INSERT, DELETE ON baton_parked TO consumer;
/// GRANT SELECT, INSERT, UPDATE ON baton_done TO consumer;
/// ```
#[derive(Debug)]
pub struct PostgresSideStore {
    pool: Pool,
    places: Places,
}

impl PostgresSideStore {
    /// The SQL that [`PostgresSideStore::prepare`] runs. May be run any number of times.
    pub const TABLES: &'static str = TABLES;

    /// A store in the database of these connections. They may be the guard's; each call takes one, for a moment.
    pub fn new(pool: Pool) -> Self {
        Self { pool, places: Places::default() }
    }

    /// Creates the tables where they are not there yet. Two that do so at once do not disturb each other.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        // Postgres can fail one of two that create the same table at the same time, in spite of IF NOT EXISTS.
        let locked = format!("BEGIN; SELECT pg_advisory_xact_lock({PREPARE_LOCK}); {TABLES}; COMMIT");
        rows::within(STORE, async {
            let client = self.client().await?;
            if let Err(error) = client.batch_execute(&locked).await {
                // The transaction that failed is still open: the connection must not go back to the others like this.
                drop(Object::take(client));
                return Err(failed(&error));
            }
            Ok(())
        })
        .await
    }

    async fn client(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| rows::failed(STORE, &error))
    }

    async fn query(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await.map_err(|error| failed(&error))?;
        client.query(&statement, parameters).await.map_err(|error| failed(&error))
    }

    async fn opened(&self, place: &Place, offsets: Offsets) -> Result<Opened, StoreError> {
        let (group, topic, partition) = names(place)?;
        let place_of: [&(dyn ToSql + Sync); 3] = [&group, &topic, &partition];
        let done = self.query(READ_DONE, &place_of).await?;
        let done: Option<Vec<u8>> =
            done.first().map(|row| row.try_get(0)).transpose().map_err(|error| failed(&error))?;
        let assignment = match offsets {
            Offsets::Lasting => None,
            Offsets::OfAssignment => {
                let counted = self.query(COUNT_ASSIGNMENT, &place_of).await?;
                counted.first().map(|row| row.try_get(0)).transpose().map_err(|error| failed(&error))?
            }
        };
        let key = |row: &tokio_postgres::Row| -> Result<KeyInStore, Error> {
            let (key, messages): (Vec<u8>, i64) = (row.try_get(0)?, row.try_get(1)?);
            Ok(KeyInStore { key: key.into(), messages: usize::try_from(messages).unwrap_or(usize::MAX) })
        };
        let parked = self.query(READ_KEYS, &place_of).await?;
        let parked = parked.iter().map(key).collect::<Result<_, _>>().map_err(|error| failed(&error))?;
        self.places.open(place, assignment);
        Ok(Opened { done: done.unwrap_or_default().into(), parked })
    }

    async fn insert(&self, place: &Place, key: &Bytes, rows: &[Row]) -> Result<(), StoreError> {
        let (group, topic, partition) = names(place)?;
        let (hash, key) = (rows::hash(key), &key[..]);
        for portion in rows::portions(rows) {
            let positions: Vec<i64> = portion.iter().map(|row| row.position).collect();
            let payloads: Vec<Option<&[u8]>> = portion.iter().map(|row| row.payload.as_deref()).collect();
            let headers: Vec<&[u8]> = portion.iter().map(|row| row.headers.as_slice()).collect();
            let timestamps: Vec<Option<i64>> = portion.iter().map(|row| row.timestamp_ms).collect();
            let attempts: Vec<i32> = portion.iter().map(|row| row.attempts).collect();
            let sources: Vec<Option<&str>> = portion.iter().map(|row| row.source.as_deref()).collect();
            let reasons: Vec<Option<&str>> = portion.iter().map(|row| row.reason.as_deref()).collect();
            let parameters: [&(dyn ToSql + Sync); 12] = [
                &group,
                &topic,
                &partition,
                &hash,
                &key,
                &positions,
                &payloads,
                &headers,
                &timestamps,
                &attempts,
                &sources,
                &reasons,
            ];
            self.query(PARK, &parameters).await?;
        }
        Ok(())
    }

    async fn read(&self, place: &Place, key: &Bytes, messages_max: usize) -> Result<Vec<Loaded>, StoreError> {
        let (group, topic, partition) = names(place)?;
        let (hash, of_key, limit) = (rows::hash(key), &key[..], i64::try_from(messages_max).unwrap_or(i64::MAX));
        let sizes = self.query(READ_SIZES, &[&group, &topic, &partition, &hash, &of_key, &limit]).await?;
        let size = |row: &tokio_postgres::Row| -> Result<(i64, u64), Error> {
            Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs()))
        };
        let sizes = sizes.iter().map(size).collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
        let Some(last) = rows::last_to_load(sizes) else { return Ok(Vec::new()) };
        let messages = self.query(READ_MESSAGES, &[&group, &topic, &partition, &hash, &of_key, &last]).await?;
        let message = |row| rows::loaded(place, key, message(row).map_err(|error| failed(&error))?);
        messages.iter().map(message).collect()
    }
}

fn message(row: &tokio_postgres::Row) -> Result<Read, Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
}

/// A place, as parameters want it.
fn names(place: &Place) -> Result<(&str, &str, i64), StoreError> {
    rows::check(place)?;
    Ok((&place.group, &place.partition.topic, i64::from(place.partition.partition)))
}

fn failed(error: &Error) -> StoreError {
    let told = rows::failed(STORE, error);
    match error.code() == Some(&SqlState::UNDEFINED_TABLE) {
        true => StoreError(format!("{told}: call prepare() once")),
        false => told,
    }
}

impl SideStore for PostgresSideStore {
    fn open<'a>(&'a self, place: &'a Place, offsets: Offsets) -> StoreFuture<'a, Opened> {
        Box::pin(rows::within(STORE, self.opened(place, offsets)))
    }

    fn store_done<'a>(&'a self, place: &'a Place, bytes: Bytes) -> StoreFuture<'a, ()> {
        Box::pin(rows::within(STORE, async move {
            let (group, topic, partition) = names(place)?;
            self.query(STORE_DONE, &[&group, &topic, &partition, &&bytes[..]]).await.map(drop)
        }))
    }

    fn park<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages: &'a [Parked]) -> StoreFuture<'a, ()> {
        Box::pin(rows::within(STORE, async move { self.insert(place, key, &self.places.rows(place, messages)?).await }))
    }

    fn load<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages_max: usize) -> StoreFuture<'a, Vec<Loaded>> {
        Box::pin(rows::within(STORE, self.read(place, key, messages_max)))
    }

    fn remove<'a>(&'a self, place: &'a Place, key: &'a Bytes, up_to: u64) -> StoreFuture<'a, ()> {
        Box::pin(rows::within(STORE, async move {
            let (group, topic, partition) = names(place)?;
            let (hash, key, up_to) = (rows::hash(key), &key[..], i64::try_from(up_to).unwrap_or(i64::MAX));
            self.query(REMOVE, &[&group, &topic, &partition, &hash, &key, &up_to]).await.map(drop)
        }))
    }

    fn forget(&self, place: &Place) {
        self.places.forget(place);
    }
}

//! An intake on Postgres.

use baton_core::Delivery;
use deadpool_postgres::{Object, Pool};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::rows::{self, Read};
use super::{Intake, IntakeError, IntakeFuture, Ownership, Place, Progress, Taken};
use crate::side::StoreError;
use crate::side::rows::{check, failed as told, last_to_load, within};
use crate::{Weakness, postgres_sql};

const STORE: &str = "intake on Postgres";
/// Held while tables are created; any number that nobody else uses.
const PREPARE_LOCK: i64 = 0x6261_746f_6e23;

const TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS baton_stored (
  consumer_group text COLLATE "C" NOT NULL,
  topic          text COLLATE "C" NOT NULL,
  partition      bigint NOT NULL,
  position       bigint NOT NULL,
  message_key    bytea,
  payload        bytea,
  headers        bytea NOT NULL,
  timestamp_ms   bigint,
  stored_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer_group, topic, partition, position)
);
CREATE TABLE IF NOT EXISTS baton_stored_place (
  consumer_group text COLLATE "C" NOT NULL,
  topic          text COLLATE "C" NOT NULL,
  partition      bigint NOT NULL,
  epoch          bigint NOT NULL,
  frontier       bigint,
  metadata       text NOT NULL,
  next           bigint,
  acknowledged   bigint,
  changed_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50)"#;

const TAKE: &str = "INSERT INTO baton_stored_place AS place (consumer_group, topic, partition, epoch, frontier, metadata, next, acknowledged) \
VALUES ($1, $2, $3, 1, $4, $5, $4, $4) ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET epoch = place.epoch + 1, \
metadata = CASE WHEN place.frontier IS NULL THEN excluded.metadata ELSE place.metadata END, \
frontier = coalesce(place.frontier, excluded.frontier), next = coalesce(place.next, excluded.next), \
acknowledged = coalesce(place.acknowledged, excluded.acknowledged), changed_at = now() \
RETURNING epoch, frontier, metadata, next, acknowledged";
// The rows are those of whoever owns the place: without the first part's row there is nothing to join, and nothing is written. The
// place's row stays locked until the commit, so whoever takes it comes before all of this or after.
const APPEND: &str = "WITH owned AS (UPDATE baton_stored_place SET next = greatest(next, $5), frontier = coalesce(frontier, $6), \
acknowledged = coalesce($7, acknowledged), changed_at = now() \
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND epoch = $4 RETURNING 1), \
stored AS (INSERT INTO baton_stored (consumer_group, topic, partition, position, message_key, payload, headers, timestamp_ms) \
SELECT $1, $2, $3, position, message_key, payload, headers, timestamp_ms FROM owned, \
unnest($8::bigint[], $9::bytea[], $10::bytea[], $11::bytea[], $12::bigint[]) \
AS message (position, message_key, payload, headers, timestamp_ms) ON CONFLICT DO NOTHING) SELECT count(*) FROM owned";
const READ_SIZES: &str = "SELECT position, (coalesce(octet_length(message_key), 0) + coalesce(octet_length(payload), 0) + \
octet_length(headers))::bigint FROM baton_stored \
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND position >= $4 ORDER BY position LIMIT $5";
const READ_MESSAGES: &str = "SELECT position, message_key, payload, headers, timestamp_ms FROM baton_stored \
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND position BETWEEN $4 AND $5 ORDER BY position";
const ADVANCE: &str = "WITH owned AS (UPDATE baton_stored_place SET frontier = greatest(frontier, $5), \
metadata = CASE WHEN frontier > $5 THEN metadata ELSE $6 END, acknowledged = coalesce($7, acknowledged), changed_at = now() \
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND epoch = $4 RETURNING 1), \
handled AS (DELETE FROM baton_stored WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND position < $5 \
AND EXISTS (SELECT FROM owned)) SELECT count(*) FROM owned";
const RESTART: &str = "WITH owned AS (UPDATE baton_stored_place SET epoch = epoch + 1, frontier = $5, metadata = '', next = $5, \
acknowledged = NULL, changed_at = now() WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND epoch = $4 RETURNING 1), \
handled AS (DELETE FROM baton_stored WHERE consumer_group = $1 AND topic = $2 AND partition = $3 \
AND EXISTS (SELECT FROM owned)) SELECT count(*) FROM owned";

/// Messages in a Postgres database, in that of the guard or in any other, from their arrival until they are done. See [`Intake`].
///
/// # Tables
///
/// [`PostgresIntake::prepare`] creates what is missing, in the first schema of the `search_path`; whoever may not create tables has
/// somebody else run [`PostgresIntake::TABLES`]. To work, a role needs `USAGE` on the schema and
///
/// ```sql
/// GRANT SELECT, INSERT, DELETE ON baton_stored TO consumer;
/// GRANT SELECT, INSERT, UPDATE ON baton_stored_place TO consumer;
/// ```
#[derive(Debug)]
pub struct PostgresIntake {
    pool: Pool,
}

impl PostgresIntake {
    /// The SQL that [`PostgresIntake::prepare`] runs. May be run any number of times.
    pub const TABLES: &'static str = TABLES;

    /// An intake in the database of these connections. They may be the guard's; each call takes one, for a moment, and no more than
    /// a few are made at once.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Creates the tables where they are not there yet. Two that do so at once do not disturb each other.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        // Postgres can fail one of two that create the same table at the same time, in spite of IF NOT EXISTS.
        let locked = format!("BEGIN; SELECT pg_advisory_xact_lock({PREPARE_LOCK}); {TABLES}; COMMIT");
        within(STORE, async {
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
        self.pool.get().await.map_err(|error| told(STORE, &error))
    }

    async fn query(&self, sql: &'static str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await.map_err(|error| failed(&error))?;
        client.query(&statement, parameters).await.map_err(|error| failed(&error))
    }

    /// Runs a statement that counts the place's row, if it is still ours.
    async fn write(&self, sql: &'static str, parameters: &[&(dyn ToSql + Sync)]) -> Result<(), IntakeError> {
        let counted = self.query(sql, parameters).await?;
        let owned: Option<i64> =
            counted.first().map(|row| row.try_get(0)).transpose().map_err(|error| failed(&error))?;
        if owned == Some(1) { Ok(()) } else { Err(IntakeError::Fenced) }
    }

    async fn taken(&self, place: &Place, known: Option<(i64, &str)>) -> Result<Taken, StoreError> {
        let (group, topic, partition) = names(place)?;
        let (frontier, metadata) = known.unzip();
        let metadata = metadata.unwrap_or_default();
        let found = self.query(TAKE, &[&group, &topic, &partition, &frontier, &metadata]).await?;
        let read =
            |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?));
        let found = found.first().ok_or_else(|| StoreError(format!("{STORE}: it returned no row")))?;
        Ok(rows::taken(place, read(found).map_err(|error: Error| failed(&error))?))
    }

    async fn insert(
        &self,
        ownership: &Ownership,
        messages: &[Delivery],
        acknowledged: Option<i64>,
    ) -> Result<(), IntakeError> {
        let (group, topic, partition) = names(&ownership.place)?;
        let Some((first, next)) = rows::span(messages) else { return Ok(()) };
        let positions: Vec<i64> = messages.iter().map(|message| message.offset).collect();
        let keys: Vec<Option<&[u8]>> = messages.iter().map(|message| message.key.as_deref()).collect();
        let payloads: Vec<Option<&[u8]>> = messages.iter().map(|message| message.payload.as_deref()).collect();
        let headers: Vec<Vec<u8>> = messages.iter().map(rows::headers).collect();
        let timestamps: Vec<Option<i64>> = messages.iter().map(|message| message.timestamp_ms).collect();
        let parameters: [&(dyn ToSql + Sync); 12] = [
            &group,
            &topic,
            &partition,
            &ownership.epoch,
            &next,
            &first,
            &acknowledged,
            &positions,
            &keys,
            &payloads,
            &headers,
            &timestamps,
        ];
        self.write(APPEND, &parameters).await
    }

    async fn messages(&self, place: &Place, from: i64, messages_max: usize) -> Result<Vec<Delivery>, StoreError> {
        let (group, topic, partition) = names(place)?;
        let limit = i64::try_from(messages_max).unwrap_or(i64::MAX);
        let sizes = self.query(READ_SIZES, &[&group, &topic, &partition, &from, &limit]).await?;
        let size = |row: &Row| -> Result<(i64, u64), Error> {
            Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs()))
        };
        let sizes = sizes.iter().map(size).collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
        let Some(last) = last_to_load(sizes) else { return Ok(Vec::new()) };
        let found = self.query(READ_MESSAGES, &[&group, &topic, &partition, &from, &last]).await?;
        let message = |row| rows::message(&place.partition, read(row).map_err(|error| failed(&error))?);
        found.iter().map(message).collect()
    }
}

fn read(row: &Row) -> Result<Read, Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
}

/// A place, as parameters want it.
fn names(place: &Place) -> Result<(&str, &str, i64), StoreError> {
    check(place)?;
    Ok((&place.group, &place.partition.topic, i64::from(place.partition.partition)))
}

fn failed(error: &Error) -> StoreError {
    let told = told(STORE, error);
    match error.code() == Some(&SqlState::UNDEFINED_TABLE) {
        true => StoreError(format!("{told}: call prepare() once")),
        false => told,
    }
}

impl Intake for PostgresIntake {
    fn take<'a>(&'a self, place: &'a Place, known: Option<(i64, &'a str)>) -> IntakeFuture<'a, Taken, StoreError> {
        Box::pin(within(STORE, self.taken(place, known)))
    }

    fn append<'a>(
        &'a self,
        ownership: &'a Ownership,
        messages: &'a [Delivery],
        acknowledged: Option<i64>,
    ) -> IntakeFuture<'a, ()> {
        Box::pin(rows::bounded(STORE, self.insert(ownership, messages, acknowledged)))
    }

    fn read<'a>(
        &'a self,
        place: &'a Place,
        from: i64,
        messages_max: usize,
    ) -> IntakeFuture<'a, Vec<Delivery>, StoreError> {
        Box::pin(within(STORE, self.messages(place, from, messages_max)))
    }

    fn advance<'a>(&'a self, ownership: &'a Ownership, progress: &'a Progress) -> IntakeFuture<'a, ()> {
        Box::pin(rows::bounded(STORE, async move {
            let (group, topic, partition) = names(&ownership.place)?;
            let Progress { frontier, metadata, acknowledged } = progress;
            let epoch = &ownership.epoch;
            self.write(ADVANCE, &[&group, &topic, &partition, epoch, frontier, metadata, acknowledged]).await
        }))
    }

    fn restart<'a>(&'a self, ownership: &'a Ownership, at: i64) -> IntakeFuture<'a, Ownership> {
        Box::pin(rows::bounded(STORE, async move {
            let (group, topic, partition) = names(&ownership.place)?;
            self.write(RESTART, &[&group, &topic, &partition, &ownership.epoch, &at]).await?;
            Ok(ownership.begun_anew())
        }))
    }

    fn weaknesses(&self) -> IntakeFuture<'_, Vec<Weakness>, StoreError> {
        Box::pin(within(STORE, async {
            let mut found = Vec::new();
            for setting in postgres_sql::SETTINGS {
                let rows = self.query("SELECT current_setting($1)", &[&setting.setting]).await?;
                let value: Option<String> =
                    rows.first().map(|row| row.try_get(0)).transpose().map_err(|error| failed(&error))?;
                found.extend(value.and_then(|value| setting.judge(&value)));
            }
            Ok(found)
        }))
    }
}

//! A side store on MariaDB and MySQL.

use baton_core::consumer::{KeyInStore, Loaded, Parked};
use bytes::Bytes;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error, Params, Pool, TxOpts, params};

use super::rows::{self, Places, Read, Row};
use super::{Offsets, Opened, Place, SideStore, StoreError, StoreFuture};

const STORE: &str = "side store on MySQL";
const NO_SUCH_TABLE: u16 = 1146;

const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS baton_parked (
  consumer_group VARBINARY(255) NOT NULL,
  topic          VARBINARY(255) NOT NULL,
  `partition`    INT UNSIGNED NOT NULL,
  position       BIGINT NOT NULL,
  key_hash       BIGINT NOT NULL,
  message_key    LONGBLOB NOT NULL,
  payload        LONGBLOB,
  headers        LONGBLOB NOT NULL,
  timestamp_ms   BIGINT,
  attempts       INT NOT NULL,
  source         TEXT CHARACTER SET utf8mb4,
  reason         TEXT CHARACTER SET utf8mb4,
  parked_at      TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (consumer_group, topic, `partition`, position),
  INDEX baton_parked_key (consumer_group, topic, `partition`, key_hash, position)
) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS baton_done (
  consumer_group VARBINARY(255) NOT NULL,
  topic          VARBINARY(255) NOT NULL,
  `partition`    INT UNSIGNED NOT NULL,
  done           LONGBLOB NOT NULL,
  assignment     BIGINT NOT NULL DEFAULT 0,
  changed_at     TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (consumer_group, topic, `partition`)
) ENGINE = InnoDB",
];

const READ_DONE: &str =
    "SELECT done FROM baton_done WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition";
const COUNT_ASSIGNMENT: &str = "INSERT INTO baton_done (consumer_group, topic, `partition`, done, assignment) \
VALUES (:group, :topic, :partition, '', 1) ON DUPLICATE KEY UPDATE assignment = assignment + 1";
const READ_ASSIGNMENT: &str =
    "SELECT assignment FROM baton_done WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition";
const READ_KEYS: &str = "SELECT message_key, COUNT(*) FROM baton_parked \
WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition GROUP BY key_hash, message_key";
const STORE_DONE: &str = "INSERT INTO baton_done (consumer_group, topic, `partition`, done) VALUES (:group, :topic, :partition, :done) \
ON DUPLICATE KEY UPDATE done = :done, changed_at = CURRENT_TIMESTAMP";
/// IGNORE would also pass over values that do not fit; these do: names and texts are checked before they get here.
const PARK: &str = "INSERT IGNORE INTO baton_parked (consumer_group, topic, `partition`, position, key_hash, message_key, payload, headers, \
timestamp_ms, attempts, source, reason) VALUES (:group, :topic, :partition, :position, :hash, :key, :payload, :headers, :timestamp, \
:attempts, :source, :reason)";
const READ_SIZES: &str = "SELECT position, COALESCE(LENGTH(payload), 0) + LENGTH(headers) FROM baton_parked WHERE consumer_group = :group \
AND topic = :topic AND `partition` = :partition AND key_hash = :hash AND message_key = :key ORDER BY position LIMIT :limit";
const READ_MESSAGES: &str = "SELECT position, payload, headers, timestamp_ms FROM baton_parked WHERE consumer_group = :group \
AND topic = :topic AND `partition` = :partition AND key_hash = :hash AND message_key = :key AND position <= :up_to ORDER BY position";
const REMOVE: &str = "DELETE FROM baton_parked WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition \
AND key_hash = :hash AND message_key = :key AND position <= :up_to";

/// Parked messages and done marks in a MariaDB or MySQL database: in that of the guard, or in any other. See [`SideStore`].
///
/// A message must fit into the server's `max_allowed_packet` (16 MiB unless set).
///
/// # Tables
///
/// [`MysqlSideStore::prepare`] creates what is missing; whoever may not create tables has somebody else run
/// [`MysqlSideStore::TABLES`]. To work, a user needs
///
/// ```sql
/// GRANT SELECT, INSERT, DELETE ON baton_parked TO consumer;
/// GRANT SELECT, INSERT, UPDATE ON baton_done TO consumer;
/// ```
#[derive(Debug)]
pub struct MysqlSideStore {
    pool: Pool,
    places: Places,
}

impl MysqlSideStore {
    /// The statements that [`MysqlSideStore::prepare`] runs, one by one. May be run any number of times.
    pub const TABLES: [&'static str; 2] = TABLES;

    /// A store in the database of these connections. They may be the guard's; each call takes one, for a moment.
    pub fn new(pool: Pool) -> Self {
        Self { pool, places: Places::default() }
    }

    /// Creates the tables where they are not there yet.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        rows::within(STORE, async {
            let mut connection = self.connection().await?;
            for statement in TABLES {
                connection.query_drop(statement).await.map_err(|error| failed(&error))?;
            }
            Ok(())
        })
        .await
    }

    async fn connection(&self) -> Result<Conn, StoreError> {
        self.pool.get_conn().await.map_err(|error| failed(&error))
    }

    async fn query<T: FromRow + Send + 'static>(
        &self,
        sql: &'static str,
        parameters: impl Into<Params> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let mut connection = self.connection().await?;
        connection.exec(sql, parameters).await.map_err(|error| failed(&error))
    }

    async fn opened(&self, place: &Place, offsets: Offsets) -> Result<Opened, StoreError> {
        rows::check(place)?;
        let done: Vec<Vec<u8>> = self.query(READ_DONE, of_place(place)).await?;
        let keys: Vec<(Vec<u8>, u64)> = self.query(READ_KEYS, of_place(place)).await?;
        let assignment = match offsets {
            Offsets::Lasting => None,
            Offsets::OfAssignment => self.count_assignment(place).await.map_err(|error| failed(&error))?,
        };
        self.places.open(place, assignment);
        let key = |(key, messages): (Vec<u8>, u64)| KeyInStore {
            key: key.into(),
            messages: usize::try_from(messages).unwrap_or(usize::MAX),
        };
        let parked = keys.into_iter().map(key).collect();
        Ok(Opened { done: done.into_iter().next().unwrap_or_default().into(), parked })
    }

    async fn count_assignment(&self, place: &Place) -> Result<Option<i64>, Error> {
        let mut connection = self.pool.get_conn().await?;
        // The row is ours until the end: no two read the same number.
        let mut transaction = connection.start_transaction(TxOpts::default()).await?;
        transaction.exec_drop(COUNT_ASSIGNMENT, of_place(place)).await?;
        let assignment = transaction.exec_first(READ_ASSIGNMENT, of_place(place)).await?;
        transaction.commit().await?;
        Ok(assignment)
    }

    async fn insert(&self, place: &Place, key: &Bytes, rows: &[Row]) -> Result<(), StoreError> {
        rows::check(place)?;
        let mut connection = self.connection().await?;
        for portion in rows::portions(rows) {
            let insert = async {
                let mut transaction = connection.start_transaction(TxOpts::default()).await?;
                let park = transaction.prep(PARK).await?;
                for row in portion {
                    transaction.exec_drop(&park, of_row(place, key, row)).await?;
                }
                transaction.commit().await
            };
            insert.await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    async fn read(&self, place: &Place, key: &Bytes, messages_max: usize) -> Result<Vec<Loaded>, StoreError> {
        rows::check(place)?;
        let limit = u64::try_from(messages_max).unwrap_or(u64::MAX);
        let sizes: Vec<(i64, u64)> = self.query(READ_SIZES, of_key(place, key, ("limit", limit.into()))).await?;
        let Some(last) = rows::last_to_load(sizes) else { return Ok(Vec::new()) };
        let messages: Vec<Read> = self.query(READ_MESSAGES, of_key(place, key, ("up_to", last.into()))).await?;
        messages.into_iter().map(|read| rows::loaded(place, key, read)).collect()
    }
}

fn of_place(place: &Place) -> Params {
    params! {
        "group" => place.group.as_bytes(),
        "topic" => place.partition.topic.as_bytes(),
        "partition" => place.partition.partition,
    }
}

fn of_key(place: &Place, key: &Bytes, more: (&'static str, mysql_async::Value)) -> Params {
    params! {
        "group" => place.group.as_bytes(),
        "topic" => place.partition.topic.as_bytes(),
        "partition" => place.partition.partition,
        "hash" => rows::hash(key),
        "key" => &key[..],
        more.0 => more.1,
    }
}

fn of_row(place: &Place, key: &Bytes, row: &Row) -> Params {
    params! {
        "group" => place.group.as_bytes(),
        "topic" => place.partition.topic.as_bytes(),
        "partition" => place.partition.partition,
        "position" => row.position,
        "hash" => rows::hash(key),
        "key" => &key[..],
        "payload" => row.payload.as_deref(),
        "headers" => &row.headers[..],
        "timestamp" => row.timestamp_ms,
        "attempts" => row.attempts,
        "source" => row.source.as_deref(),
        "reason" => row.reason.as_deref(),
    }
}

fn failed(error: &Error) -> StoreError {
    let told = rows::failed(STORE, error);
    match error {
        Error::Server(server) if server.code == NO_SUCH_TABLE => StoreError(format!("{told}: call prepare() once")),
        _ => told,
    }
}

impl SideStore for MysqlSideStore {
    fn open<'a>(&'a self, place: &'a Place, offsets: Offsets) -> StoreFuture<'a, Opened> {
        Box::pin(rows::within(STORE, self.opened(place, offsets)))
    }

    fn store_done<'a>(&'a self, place: &'a Place, bytes: Bytes) -> StoreFuture<'a, ()> {
        Box::pin(rows::within(STORE, async move {
            rows::check(place)?;
            let parameters = params! {
                "group" => place.group.as_bytes(),
                "topic" => place.partition.topic.as_bytes(),
                "partition" => place.partition.partition,
                "done" => &bytes[..],
            };
            let mut connection = self.connection().await?;
            connection.exec_drop(STORE_DONE, parameters).await.map_err(|error| failed(&error))
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
            let up_to = i64::try_from(up_to).unwrap_or(i64::MAX);
            let mut connection = self.connection().await?;
            connection
                .exec_drop(REMOVE, of_key(place, key, ("up_to", up_to.into())))
                .await
                .map_err(|error| failed(&error))
        }))
    }

    fn forget(&self, place: &Place) {
        self.places.forget(place);
    }
}

//! An intake on MariaDB and MySQL.

use baton_core::Delivery;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error, Params, Pool, Transaction, TxOpts, Value};

use super::rows::{self, Read, ReadPlace};
use super::{Intake, IntakeError, IntakeFuture, Ownership, Place, Progress, Taken};
use crate::Weakness;
use crate::mysql::sql;
use crate::side::StoreError;
use crate::side::rows::{check, failed as told, last_to_load, within};

const STORE: &str = "intake on MySQL";
const NO_SUCH_TABLE: u16 = 1146;
/// Rows that go into one statement: each number of them is a statement of its own to the server, so there are few numbers.
const ROWS_PER_STATEMENT: [usize; 3] = [256, 16, 1];
/// Bytes of messages that go into one statement, unless one message is larger: what exceeds the server's `max_allowed_packet` is refused,
/// however often it is tried again, and that may be as little as 1 MiB.
const BYTES_PER_STATEMENT: usize = 512 << 10;

const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS baton_stored (
  consumer_group VARBINARY(255) NOT NULL,
  topic          VARBINARY(255) NOT NULL,
  `partition`    INT UNSIGNED NOT NULL,
  position       BIGINT NOT NULL,
  message_key    LONGBLOB,
  payload        LONGBLOB,
  headers        LONGBLOB NOT NULL,
  timestamp_ms   BIGINT,
  stored_at      TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (consumer_group, topic, `partition`, position)
) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS baton_stored_place (
  consumer_group VARBINARY(255) NOT NULL,
  topic          VARBINARY(255) NOT NULL,
  `partition`    INT UNSIGNED NOT NULL,
  epoch          BIGINT NOT NULL,
  frontier       BIGINT,
  metadata       LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
  `next`         BIGINT,
  acknowledged   BIGINT,
  changed_at     TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (consumer_group, topic, `partition`)
) ENGINE = InnoDB",
];

// Columns are set one after the other, and what stands behind sees what was set before: metadata goes by the frontier as it was.
const TAKE: &str = "INSERT INTO baton_stored_place (consumer_group, topic, `partition`, epoch, frontier, metadata, `next`, acknowledged) \
VALUES (:group, :topic, :partition, 1, :frontier, :metadata, :frontier, :frontier) ON DUPLICATE KEY UPDATE epoch = epoch + 1, \
metadata = IF(frontier IS NULL, :metadata, metadata), frontier = COALESCE(frontier, :frontier), `next` = COALESCE(`next`, :frontier), \
acknowledged = COALESCE(acknowledged, :frontier), changed_at = CURRENT_TIMESTAMP";
const READ_PLACE: &str = "SELECT epoch, frontier, metadata, `next`, acknowledged FROM baton_stored_place \
WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition FOR UPDATE";
const APPENDED: &str = "UPDATE baton_stored_place SET `next` = GREATEST(COALESCE(`next`, :next), :next), \
frontier = COALESCE(frontier, :first), acknowledged = COALESCE(:acknowledged, acknowledged), changed_at = CURRENT_TIMESTAMP \
WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition";
const ADVANCE: &str = "UPDATE baton_stored_place SET metadata = IF(frontier > :frontier, metadata, :metadata), \
frontier = GREATEST(COALESCE(frontier, :frontier), :frontier), acknowledged = COALESCE(:acknowledged, acknowledged), \
changed_at = CURRENT_TIMESTAMP WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition";
const DELETE: &str = "DELETE FROM baton_stored WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition \
AND position < :frontier";
const RESTART: &str = "UPDATE baton_stored_place SET epoch = epoch + 1, frontier = :at, metadata = '', `next` = :at, acknowledged = NULL, \
changed_at = CURRENT_TIMESTAMP WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition";
const READ_SIZES: &str = "SELECT position, COALESCE(LENGTH(message_key), 0) + COALESCE(LENGTH(payload), 0) + LENGTH(headers) \
FROM baton_stored WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition AND position >= :from \
ORDER BY position LIMIT :limit";
const READ_MESSAGES: &str = "SELECT position, message_key, payload, headers, timestamp_ms FROM baton_stored \
WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition AND position BETWEEN :from AND :up_to ORDER BY position";

/// Messages in a MariaDB or MySQL database, in that of the guard or in any other, from their arrival until they are done. See [`Intake`].
///
/// A message must fit into the server's `max_allowed_packet` (16 MiB unless set), or its partition stands still.
///
/// # Tables
///
/// [`MysqlIntake::prepare`] creates what is missing; whoever may not create tables has somebody else run [`MysqlIntake::TABLES`]. To
/// work, a user needs
///
/// ```sql
/// GRANT SELECT, INSERT, DELETE ON baton_stored TO consumer;
/// GRANT SELECT, INSERT, UPDATE ON baton_stored_place TO consumer;
/// ```
#[derive(Debug)]
pub struct MysqlIntake {
    pool: Pool,
}

impl MysqlIntake {
    /// The statements that [`MysqlIntake::prepare`] runs, one by one. May be run any number of times.
    pub const TABLES: [&'static str; 2] = TABLES;

    /// An intake in the database of these connections. They may be the guard's; each call takes one, for a moment, and no more than
    /// a few are made at once.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Creates the tables where they are not there yet.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        within(STORE, async {
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
        parameters: Params,
    ) -> Result<Vec<T>, StoreError> {
        let mut connection = self.connection().await?;
        connection.exec(sql, parameters).await.map_err(|error| failed(&error))
    }

    async fn taken(&self, place: &Place, known: Option<(i64, &str)>) -> Result<Taken, StoreError> {
        check(place)?;
        let (frontier, metadata) = known.unzip();
        let parameters = [("frontier", frontier.into()), ("metadata", metadata.unwrap_or_default().into())];
        let mut connection = self.connection().await?;
        let take = async {
            let mut transaction = connection.start_transaction(TxOpts::default()).await?;
            transaction.exec_drop(TAKE, of(place, parameters)).await?;
            let found: Option<ReadPlace> = transaction.exec_first(READ_PLACE, of(place, [])).await?;
            transaction.commit().await?;
            Ok(found)
        };
        let found = take.await.map_err(|error| failed(&error))?;
        found.map(|found| rows::taken(place, found)).ok_or_else(|| StoreError(format!("{STORE}: it returned no row")))
    }

    /// One transaction: the place's row is locked, so that whoever takes it comes before all of this or after; and if it is still ours,
    /// the rest is done. Dropped before its end, it is rolled back.
    async fn write(
        &self,
        ownership: &Ownership,
        rest: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<(), Error> + Send,
    ) -> Result<(), IntakeError> {
        check(&ownership.place)?;
        let mut connection = self.connection().await?;
        let write = async {
            let mut transaction = connection.start_transaction(TxOpts::default()).await?;
            let found: Option<ReadPlace> = transaction.exec_first(READ_PLACE, of(&ownership.place, [])).await?;
            if found.is_none_or(|(epoch, ..)| epoch != ownership.epoch) {
                transaction.rollback().await?;
                return Ok(false);
            }
            rest(&mut transaction).await?;
            transaction.commit().await?;
            Ok(true)
        };
        let owned = write.await.map_err(|error| failed(&error))?;
        if owned { Ok(()) } else { Err(IntakeError::Fenced) }
    }

    async fn messages(&self, place: &Place, from: i64, messages_max: usize) -> Result<Vec<Delivery>, StoreError> {
        check(place)?;
        let limit = u64::try_from(messages_max).unwrap_or(u64::MAX);
        let sizes = of(place, [("from", from.into()), ("limit", limit.into())]);
        let sizes: Vec<(i64, u64)> = self.query(READ_SIZES, sizes).await?;
        let Some(last) = last_to_load(sizes) else { return Ok(Vec::new()) };
        let found = of(place, [("from", from.into()), ("up_to", last.into())]);
        let found: Vec<Read> = self.query(READ_MESSAGES, found).await?;
        found.into_iter().map(|read| rows::message(&place.partition, read)).collect()
    }
}

/// Parameters of a place, and more.
fn of<const MORE: usize>(place: &Place, more: [(&'static str, Value); MORE]) -> Params {
    let of_place = [
        ("group", place.group.as_bytes().into()),
        ("topic", place.partition.topic.as_bytes().into()),
        ("partition", place.partition.partition.into()),
    ];
    Params::from(of_place.into_iter().chain(more).collect::<Vec<(&'static str, Value)>>())
}

/// How many of the first of these go into one statement.
fn rows_that_fit(messages: &[Delivery]) -> usize {
    let mut bytes = 0;
    let row = |message: &&Delivery| {
        bytes += message.bytes();
        bytes <= BYTES_PER_STATEMENT
    };
    let fit = messages.iter().take(ROWS_PER_STATEMENT[0]).take_while(row).count();
    ROWS_PER_STATEMENT.into_iter().find(|rows| *rows <= fit).unwrap_or(1)
}

/// Adds rows, many with each statement.
async fn insert(transaction: &mut Transaction<'_>, place: &Place, messages: &[Delivery]) -> Result<(), Error> {
    let mut rest = messages;
    while !rest.is_empty() {
        let (portion, later) = rest.split_at(rows_that_fit(rest));
        let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?)"; portion.len()].join(", ");
        // IGNORE would also pass over values that do not fit; these do. ON DUPLICATE KEY would need the right to change rows.
        let sql = format!(
            "INSERT IGNORE INTO baton_stored (consumer_group, topic, `partition`, position, message_key, payload, headers, timestamp_ms) \
             VALUES {values}"
        );
        let row = |message: &Delivery| -> [Value; 8] {
            [
                place.group.as_bytes().into(),
                place.partition.topic.as_bytes().into(),
                place.partition.partition.into(),
                message.offset.into(),
                message.key.as_deref().into(),
                message.payload.as_deref().into(),
                rows::headers(message).into(),
                message.timestamp_ms.into(),
            ]
        };
        let parameters: Vec<Value> = portion.iter().flat_map(row).collect();
        transaction.exec_drop(sql, Params::Positional(parameters)).await?;
        rest = later;
    }
    Ok(())
}

fn failed(error: &Error) -> StoreError {
    let told = told(STORE, error);
    match error {
        Error::Server(server) if server.code == NO_SUCH_TABLE => StoreError(format!("{told}: call prepare() once")),
        _ => told,
    }
}

impl Intake for MysqlIntake {
    fn take<'a>(&'a self, place: &'a Place, known: Option<(i64, &'a str)>) -> IntakeFuture<'a, Taken, StoreError> {
        Box::pin(within(STORE, self.taken(place, known)))
    }

    fn append<'a>(
        &'a self,
        ownership: &'a Ownership,
        messages: &'a [Delivery],
        acknowledged: Option<i64>,
    ) -> IntakeFuture<'a, ()> {
        Box::pin(rows::bounded(STORE, async move {
            let Some((first, next)) = rows::span(messages) else { return Ok(()) };
            let place = &ownership.place;
            let parameters = [("first", first.into()), ("next", next.into()), ("acknowledged", acknowledged.into())];
            let rest = async |transaction: &mut Transaction<'_>| {
                insert(transaction, place, messages).await?;
                transaction.exec_drop(APPENDED, of(place, parameters)).await
            };
            self.write(ownership, rest).await
        }))
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
            let Progress { frontier, metadata, acknowledged } = progress;
            let place = &ownership.place;
            let rest = async |transaction: &mut Transaction<'_>| {
                let parameters = [
                    ("frontier", frontier.into()),
                    ("metadata", metadata.into()),
                    ("acknowledged", acknowledged.into()),
                ];
                transaction.exec_drop(ADVANCE, of(place, parameters)).await?;
                transaction.exec_drop(DELETE, of(place, [("frontier", frontier.into())])).await
            };
            self.write(ownership, rest).await
        }))
    }

    fn restart<'a>(&'a self, ownership: &'a Ownership, at: i64) -> IntakeFuture<'a, Ownership> {
        Box::pin(rows::bounded(STORE, async move {
            let place = &ownership.place;
            let rest = async |transaction: &mut Transaction<'_>| {
                transaction.exec_drop(RESTART, of(place, [("at", at.into())])).await?;
                transaction.exec_drop(DELETE, of(place, [("frontier", i64::MAX.into())])).await
            };
            self.write(ownership, rest).await?;
            Ok(ownership.begun_anew())
        }))
    }

    fn weaknesses(&self) -> IntakeFuture<'_, Vec<Weakness>, StoreError> {
        Box::pin(within(STORE, async {
            let mut connection = self.connection().await?;
            let mut found = Vec::new();
            for setting in sql::SETTINGS {
                let ask = format!("SELECT CAST(@@GLOBAL.{} AS CHAR)", setting.setting);
                let value: Option<String> = connection.query_first(ask).await.map_err(|error| failed(&error))?;
                found.extend(value.and_then(|value| setting.judge(&value)));
            }
            Ok(found)
        }))
    }
}

#[cfg(test)]
mod tests {
    use baton_core::{Headers, TopicPartition};

    use super::*;

    fn messages(count: usize, bytes: usize) -> Vec<Delivery> {
        let message = Delivery {
            from: TopicPartition::new("orders", 0),
            offset: 0,
            key: None,
            payload: Some(vec![7; bytes].into()),
            headers: Headers::default(),
            timestamp_ms: None,
            delivered_before: None,
        };
        vec![message; count]
    }

    #[test]
    fn a_statement_is_bounded_in_rows_and_bytes() {
        let fit = |count, bytes| rows_that_fit(&messages(count, bytes));
        assert_eq!((fit(2_000, 100), fit(255, 100), fit(15, 100)), (256, 16, 1));
        assert_eq!((fit(2_000, 2 << 10), fit(2_000, (2 << 10) + 1)), (256, 16));
        assert_eq!((fit(2_000, 32 << 10), fit(2_000, (32 << 10) + 1)), (16, 1));
        assert_eq!(fit(3, 4 << 20), 1, "one that is larger goes alone");
    }
}

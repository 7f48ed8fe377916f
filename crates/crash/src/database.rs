//! Where effects are written: two rows for each message, so that half an effect can be told from a whole one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use baton::MessageId;
use baton::consumer::HandlerError;
use baton_guard::{
    Conditional, EffectOf, Group, Guard, GuardError, Identity, MysqlEffect, Outcome, PostgresEffect, Sqlite,
    SqliteEffect, apply,
};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use mysql_async::prelude::Queryable;
use tokio_postgres::types::ToSql;

use crate::order::{GROUP, Order};
use crate::places::CrashError;

/// Connections of a process: more than its handlers take, so that none waits for another.
const CONNECTIONS_MAX: usize = 24;
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How often SQLite is opened while somebody holds it, waiting some seconds each time: after a kill of all, the first one that opens it
/// recovers its log, and may be the one that stands still just then.
const OPEN_ATTEMPTS_MAX: u32 = 12;

const POSTGRES_TABLES: &str = "
CREATE TABLE IF NOT EXISTS effects (position bigserial PRIMARY KEY, message_key text NOT NULL, number bigint NOT NULL,
  amount bigint NOT NULL, member text NOT NULL, call_name text NOT NULL, place text NOT NULL, epoch bigint NOT NULL);
CREATE TABLE IF NOT EXISTS totals (message_key text PRIMARY KEY, messages bigint NOT NULL, amount bigint NOT NULL)";
const SQLITE_TABLES: &str = "
CREATE TABLE IF NOT EXISTS effects (position INTEGER PRIMARY KEY AUTOINCREMENT, message_key TEXT NOT NULL, number INTEGER NOT NULL,
  amount INTEGER NOT NULL, member TEXT NOT NULL, call_name TEXT NOT NULL, place TEXT NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS totals (message_key TEXT PRIMARY KEY, messages INTEGER NOT NULL, amount INTEGER NOT NULL)";
const MARIADB_TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS effects (position BIGINT AUTO_INCREMENT PRIMARY KEY, message_key VARCHAR(200) NOT NULL,
       number BIGINT NOT NULL, amount BIGINT NOT NULL, member VARCHAR(200) NOT NULL, call_name VARCHAR(200) NOT NULL,
       place VARCHAR(200) NOT NULL, epoch BIGINT NOT NULL) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS totals (message_key VARCHAR(200) PRIMARY KEY, messages BIGINT NOT NULL,
       amount BIGINT NOT NULL) ENGINE = InnoDB",
];

const POSTGRES_EFFECT: &str = "INSERT INTO effects (message_key, number, amount, member, call_name, place, epoch) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const POSTGRES_TOTAL: &str = "INSERT INTO totals VALUES ($1, 1, $2) ON CONFLICT (message_key) DO UPDATE \
    SET messages = totals.messages + 1, amount = totals.amount + excluded.amount";
const SQLITE_EFFECT: &str = "INSERT INTO effects (message_key, number, amount, member, call_name, place, epoch) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const SQLITE_TOTAL: &str = "INSERT INTO totals VALUES (?1, 1, ?2) ON CONFLICT (message_key) DO UPDATE \
    SET messages = totals.messages + 1, amount = totals.amount + excluded.amount";
const MARIADB_EFFECT: &str = "INSERT INTO effects (message_key, number, amount, member, call_name, place, epoch) \
    VALUES (?, ?, ?, ?, ?, ?, ?)";
const MARIADB_TOTAL: &str = "INSERT INTO totals VALUES (?, 1, ?) ON DUPLICATE KEY UPDATE \
    messages = messages + 1, amount = amount + VALUES(amount)";

/// Who writes an effect, and on whose behalf.
#[derive(Debug, Clone)]
pub struct Call {
    /// The consumer.
    pub member: Arc<str>,
    /// This call of its handler; no other has this name.
    pub name: String,
    /// The partition that the message came from.
    pub place: String,
    /// The fence under which the consumer has it; 0 if there is none.
    pub epoch: u64,
}

/// The database of a run.
#[derive(Clone)]
pub enum Store {
    /// A file.
    Sqlite(Sqlite),
    /// PostgreSQL.
    Postgres(Pool),
    /// MariaDB.
    Mariadb(mysql_async::Pool),
}

/// An open transaction in which an order has its effect.
pub trait Apply: Send + Sync {
    /// Writes both rows of the effect, and takes its time between them.
    fn write(&self, order: &Order, by: &Call, pause: Duration)
    -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl Apply for PostgresEffect {
    async fn write(&self, order: &Order, by: &Call, pause: Duration) -> Result<(), HandlerError> {
        let (number, amount) = (signed(order.number), signed(order.amount));
        let (member, epoch) = (&*by.member, signed(by.epoch));
        let row: &[&(dyn ToSql + Sync)] = &[&order.key, &number, &amount, &member, &by.name, &by.place, &epoch];
        self.execute(POSTGRES_EFFECT, row).await?;
        tokio::time::sleep(pause).await;
        self.execute(POSTGRES_TOTAL, &[&order.key, &amount]).await?;
        Ok(())
    }
}

impl Apply for SqliteEffect {
    async fn write(&self, order: &Order, by: &Call, pause: Duration) -> Result<(), HandlerError> {
        let (key, number, amount) = (order.key.clone(), signed(order.number), signed(order.amount));
        let by = by.clone();
        let row = (key.clone(), number, amount, by.member.to_string(), by.name, by.place, signed(by.epoch));
        self.execute(SQLITE_EFFECT, row).await?;
        tokio::time::sleep(pause).await;
        self.execute(SQLITE_TOTAL, (key, amount)).await?;
        Ok(())
    }
}

impl Apply for MysqlEffect {
    async fn write(&self, order: &Order, by: &Call, pause: Duration) -> Result<(), HandlerError> {
        let (key, number, amount) = (order.key.as_str(), signed(order.number), signed(order.amount));
        let row = (key, number, amount, &*by.member, by.name.as_str(), by.place.as_str(), signed(by.epoch));
        self.execute(MARIADB_EFFECT, row).await?;
        tokio::time::sleep(pause).await;
        self.execute(MARIADB_TOTAL, (key, amount)).await?;
        Ok(())
    }
}

impl Store {
    /// Opens `sqlite:FILE`, `postgres:URI` or `mariadb:PORT`.
    ///
    /// # Errors
    /// When the address is none.
    pub fn open(address: &str) -> Result<Self, CrashError> {
        let bad = |error: &dyn std::fmt::Display| CrashError::Process(format!("database {address}: {error}"));
        match address.split_once(':') {
            Some(("sqlite", path)) => Ok(Self::Sqlite(open_sqlite(path).map_err(|error| bad(&error))?)),
            Some(("postgres", uri)) => {
                let mut config: tokio_postgres::Config = uri.parse().map_err(|error| bad(&error))?;
                config.connect_timeout(CONNECT_WAIT);
                let recycling_method = RecyclingMethod::Fast;
                let manager = Manager::from_config(config, tokio_postgres::NoTls, ManagerConfig { recycling_method });
                let pool = Pool::builder(manager).max_size(CONNECTIONS_MAX).build();
                Ok(Self::Postgres(pool.map_err(|error| bad(&error))?))
            }
            Some(("mariadb", port)) => {
                let uri = format!("mysql://root@127.0.0.1:{port}/test");
                Ok(Self::Mariadb(mysql_async::Pool::from_url(uri).map_err(|error| bad(&error))?))
            }
            _ => Err(bad(&"begin with sqlite:, postgres: or mariadb:")),
        }
    }

    /// Creates the tables of the effects where they are not there.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn create_tables(&self) -> Result<(), CrashError> {
        let failed = |error: &dyn std::fmt::Display| CrashError::Process(format!("creating the tables: {error}"));
        match self {
            Self::Sqlite(sqlite) => {
                let created = sqlite.run(|connection| connection.execute_batch(SQLITE_TABLES)).await;
                created.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
            }
            Self::Postgres(pool) => {
                let client = pool.get().await.map_err(|error| failed(&error))?;
                client.batch_execute(POSTGRES_TABLES).await.map_err(|error| failed(&error))
            }
            Self::Mariadb(pool) => {
                let mut connection = pool.get_conn().await.map_err(|error| failed(&error))?;
                for table in MARIADB_TABLES {
                    connection.query_drop(table).await.map_err(|error| failed(&error))?;
                }
                Ok(())
            }
        }
    }

    /// Writes an effect in a transaction of its own: for a guard whose marks are elsewhere.
    ///
    /// # Errors
    /// When it was not written, or that is not known.
    pub async fn write_alone(
        &self,
        id: MessageId,
        order: &Order,
        by: &Call,
        pause: Duration,
        refused: impl FnOnce() -> Result<(), HandlerError> + Send,
    ) -> Result<(), HandlerError> {
        match self {
            Self::Sqlite(sqlite) => alone(&Conditional::sqlite(sqlite), id, order, by, pause, refused).await,
            Self::Postgres(pool) => alone(&Conditional::postgres(pool.clone()), id, order, by, pause, refused).await,
            Self::Mariadb(pool) => alone(&Conditional::mysql(pool.clone()), id, order, by, pause, refused).await,
        }
    }
}

async fn alone<G: Guard>(
    guard: &G,
    id: MessageId,
    order: &Order,
    by: &Call,
    pause: Duration,
    refused: impl FnOnce() -> Result<(), HandlerError> + Send,
) -> Result<(), HandlerError>
where
    EffectOf<G>: Apply,
{
    let identity = Identity::new(Group::new(GROUP)?, id);
    let mut verdict = None;
    let applied = apply(guard, &identity, |effect| {
        let verdict = &mut verdict;
        async move {
            let written = effect.write(order, by, pause).await.and_then(|()| refused());
            written.map_err(|error| {
                *verdict = Some(error);
                std::io::Error::other("the handler failed")
            })
        }
    });
    match (applied.await, verdict) {
        (Ok(Outcome::Applied), _) => Ok(()),
        (_, Some(error)) => Err(error),
        (Ok(other), None) => Err(HandlerError::transient("effects", format!("{other:?}"))),
        (Err(error), None) => Err(error.into()),
    }
}

fn open_sqlite(path: &str) -> Result<Sqlite, GuardError> {
    let mut attempt = 1;
    loop {
        match Sqlite::open(path) {
            Err(error @ GuardError::Busy { .. }) if attempt < OPEN_ATTEMPTS_MAX => {
                tracing::info!(%error, attempt, "the database cannot be opened yet");
                attempt += 1;
            }
            opened => return opened,
        }
    }
}

/// Numbers of a run are small; one that is not would be told by the checker.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_somebody_holds_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("effects.db").display().to_string();
        let holder = rusqlite::Connection::open(&path).unwrap();
        holder.execute_batch("CREATE TABLE held (number INTEGER); BEGIN EXCLUSIVE").unwrap();
        // Who opens it once waits for a while, and gives up.
        assert!(matches!(Sqlite::open(&path), Err(GuardError::Busy { .. })));
        let lets_go = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(7));
            holder.execute_batch("COMMIT").unwrap();
        });
        let opened = open_sqlite(&path);
        lets_go.join().unwrap();
        assert!(opened.is_ok(), "{:?}", opened.err());
    }
}

//! The business of the services: accounts whose versions grow, and a row for each change. What these tables hold is what was committed.

use std::time::Duration;

use baton::outbox::{Outbox, OutboxError};
use baton::{Message, MessageId};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use rusqlite::Connection;
use thiserror::Error;
use tokio_postgres::{Client, NoTls};

use crate::places::CrashError;

/// Accounts that all services write to, and those among them whose messages have no key.
const KEYED: u64 = 120;
const LOOSE: u64 = 5;
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a transaction waits for the file: longer than anybody stands still with it.
const BUSY_WAIT: Duration = Duration::from_secs(20);

const TABLES: [&str; 2] = [
    "CREATE TABLE accounts (name VARCHAR(100) PRIMARY KEY, version BIGINT NOT NULL)",
    "CREATE TABLE changes (name VARCHAR(100) NOT NULL, version BIGINT NOT NULL, attempt VARCHAR(100) NOT NULL, \
     message_id VARCHAR(128) NOT NULL, bytes BIGINT NOT NULL, PRIMARY KEY (name, version))",
];
const RAISE: &str = "UPDATE accounts SET version = version + 1 WHERE name = ";

/// An account's name. The first ones have a key, and are in order; see [`accounts`].
pub fn account(number: u64) -> String {
    if number < KEYED { format!("account-{number}") } else { format!("loose-{number}") }
}

/// How many accounts there are.
pub fn accounts() -> u64 {
    KEYED + LOOSE
}

/// A change of an account, and its message.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which account.
    pub account: String,
    /// Its version from now on.
    pub version: i64,
    /// The attempt at a transaction that does this; no other has this name.
    pub attempt: String,
    /// How many bytes the message has.
    pub bytes: usize,
}

/// A statement failed: the transaction is over.
#[derive(Debug, Error)]
pub enum BookError {
    /// PostgreSQL.
    #[error("{0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// MariaDB.
    #[error("{0}")]
    Mariadb(#[from] mysql_async::Error),
    /// SQLite.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The outbox.
    #[error("{0}")]
    Outbox(#[from] OutboxError),
    /// There is no such account.
    #[error("there is no account {0}")]
    NoAccount(String),
}

/// A connection to the database, by the address that the relay takes as well.
pub enum Book {
    /// PostgreSQL.
    Postgres(Client),
    /// MariaDB.
    Mariadb(Conn),
    /// A file; its statements block the thread.
    Sqlite(Connection),
}

impl Book {
    /// Connects to `postgres://..`, `mysql://..` or `sqlite://FILE`.
    ///
    /// # Errors
    /// When the database is away, or the address is none.
    pub async fn open(address: &str) -> Result<Self, BookError> {
        if let Some(path) = address.strip_prefix("sqlite://") {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_WAIT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            return Ok(Self::Sqlite(connection));
        }
        if address.starts_with("mysql:") {
            let opts = Opts::from_url(address).map_err(mysql_async::Error::from)?;
            return Ok(Self::Mariadb(Conn::new(opts).await?));
        }
        let mut config: tokio_postgres::Config = address.parse()?;
        config.connect_timeout(CONNECT_WAIT);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(Self::Postgres(client))
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// When it does not begin.
    pub async fn begin(&mut self) -> Result<(), BookError> {
        let sql = if matches!(self, Self::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.run(sql).await
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run(&mut self, sql: &str) -> Result<(), BookError> {
        match self {
            Self::Postgres(client) => Ok(client.batch_execute(sql).await?),
            Self::Mariadb(connection) => Ok(connection.query_drop(sql).await?),
            Self::Sqlite(connection) => Ok(tokio::task::block_in_place(|| connection.execute_batch(sql))?),
        }
    }

    /// Raises an account's version, and gives it back; nobody else can until this transaction ends.
    ///
    /// # Errors
    /// When it fails.
    pub async fn raise(&mut self, account: &str) -> Result<i64, BookError> {
        // Names are ours: they hold nothing that would have to be quoted.
        let (raise, read) =
            (format!("{RAISE}'{account}'"), format!("SELECT version FROM accounts WHERE name = '{account}'"));
        self.run(&raise).await?;
        let version = match self {
            Self::Postgres(client) => client.query_opt(&read, &[]).await?.map(|row| row.get(0)),
            Self::Mariadb(connection) => connection.query_first(&read).await?,
            Self::Sqlite(connection) => {
                Some(tokio::task::block_in_place(|| connection.query_row(&read, (), |row| row.get(0)))?)
            }
        };
        version.ok_or_else(|| BookError::NoAccount(account.to_owned()))
    }

    /// Writes the message into the outbox, and the change, with the message's id, into the table of changes.
    ///
    /// # Errors
    /// When it fails.
    pub async fn write(&mut self, change: &Change, message: Message) -> Result<(), BookError> {
        let outbox = Outbox::new();
        let id: MessageId = match self {
            Self::Postgres(client) => outbox.enqueue(client, message).await?,
            Self::Mariadb(connection) => outbox.enqueue(connection, message).await?,
            Self::Sqlite(connection) => tokio::task::block_in_place(|| outbox.enqueue_sqlite(connection, message))?,
        };
        let Change { account, version, attempt, bytes } = change;
        self.run(&format!("INSERT INTO changes VALUES ('{account}', {version}, '{attempt}', '{id}', {bytes})")).await
    }
}

/// Creates the tables of the business.
pub(super) async fn prepare(address: &str) -> Result<(), CrashError> {
    let failed = |error: BookError| CrashError::Process(format!("creating the tables: {error}"));
    let mut book = Book::open(address).await.map_err(failed)?;
    for table in TABLES {
        book.run(table).await.map_err(failed)?;
    }
    for number in 0..accounts() {
        let insert = format!("INSERT INTO accounts VALUES ('{}', 0)", account(number));
        book.run(&insert).await.map_err(failed)?;
    }
    Ok(())
}

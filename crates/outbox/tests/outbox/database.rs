//! Databases of all kinds, with an outbox in each, and writers in them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use baton_core::{Message, MessageId};
use baton_outbox::{MysqlOutbox, Outbox, OutboxError, OutboxStore, PostgresOutbox, SqliteOutbox};
use baton_testkit::servers::Server;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use tokio::sync::OnceCell;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Mariadb,
    Sqlite,
}

/// A database of its own, with an outbox called `shop` in it.
pub struct Database {
    pub kind: Kind,
    place: Place,
}

#[allow(clippy::large_enum_variant, reason = "there are few of them")]
enum Place {
    Postgres(Config),
    Mariadb(OptsBuilder),
    Sqlite(PathBuf, #[allow(dead_code, reason = "kept until the database is done with")] tempfile::TempDir),
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// One server for all tests of a process.
async fn server(cell: &'static OnceCell<Server>, name: &'static str) -> (String, u16) {
    let start = || async move { tokio::task::spawn_blocking(move || Server::start(name)).await.unwrap() };
    let address = cell.get_or_init(start).await.address();
    let (host, port) = address.split_once(':').unwrap();
    (host.to_owned(), port.parse().unwrap())
}

impl Database {
    pub async fn new(kind: Kind) -> Self {
        static POSTGRES: OnceCell<Server> = OnceCell::const_new();
        static MARIADB: OnceCell<Server> = OnceCell::const_new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("outbox_{}", NEXT.fetch_add(1, Relaxed));
        let place = match kind {
            Kind::Postgres => {
                let (host, port) = server(&POSTGRES, "postgres").await;
                let mut config = Config::new();
                config.host(host).port(port).user("postgres").dbname("postgres");
                connect(&config).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
                config.dbname(&name);
                Place::Postgres(config)
            }
            Kind::Mariadb => {
                let (host, port) = server(&MARIADB, "mariadb").await;
                let opts = OptsBuilder::default().ip_or_hostname(host).tcp_port(port).user(Some("root"));
                let mut admin = Conn::new(opts.clone()).await.unwrap();
                admin.query_drop(format!("CREATE DATABASE {name}")).await.unwrap();
                Place::Mariadb(opts.db_name(Some(name)))
            }
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                Place::Sqlite(folder.path().join("shop.db"), folder)
            }
        };
        let database = Self { kind, place };
        database.store().init("shop").await.unwrap();
        database
    }

    /// As one more relay sees it.
    pub fn store(&self) -> Arc<dyn OutboxStore> {
        match &self.place {
            Place::Postgres(config) => Arc::new(PostgresOutbox::new(config.clone())),
            Place::Mariadb(opts) => Arc::new(MysqlOutbox::new(opts.clone())),
            Place::Sqlite(path, _) => Arc::new(SqliteOutbox::new(path)),
        }
    }

    /// Where its server is; `None` if it has none.
    #[allow(dead_code, reason = "the tests of relays use it")]
    pub fn address(&self) -> Option<String> {
        match &self.place {
            Place::Postgres(config) => {
                let Host::Tcp(host) = &config.get_hosts()[0] else { return None };
                Some(format!("{host}:{}", config.get_ports()[0]))
            }
            Place::Mariadb(opts) => {
                let opts = Opts::from(opts.clone());
                Some(format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port()))
            }
            Place::Sqlite(..) => None,
        }
    }

    /// As a relay sees it that goes through something that listens there.
    #[allow(dead_code, reason = "the tests of relays use it")]
    pub fn store_at(&self, listens: SocketAddr) -> Arc<dyn OutboxStore> {
        let host = listens.ip().to_string();
        match &self.place {
            Place::Postgres(config) => {
                let mut there = Config::new();
                there.host(host).port(listens.port()).user("postgres").dbname(config.get_dbname().unwrap());
                Arc::new(PostgresOutbox::new(there))
            }
            Place::Mariadb(opts) => {
                // Or it would go on through the server's socket.
                let opts = opts.clone().prefer_socket(false);
                Arc::new(MysqlOutbox::new(opts.ip_or_hostname(host).tcp_port(listens.port())))
            }
            Place::Sqlite(..) => self.store(),
        }
    }

    /// A connection of a service.
    pub async fn writer(&self) -> Writer {
        match &self.place {
            Place::Postgres(config) => Writer::Postgres(connect(config).await),
            Place::Mariadb(opts) => Writer::Mariadb(Conn::new(opts.clone()).await.unwrap()),
            Place::Sqlite(path, _) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(Duration::from_secs(30)).unwrap();
                Writer::Sqlite(connection)
            }
        }
    }

    /// How many rows the outbox has.
    pub async fn rows(&self) -> u64 {
        self.store().status().await.unwrap().rows
    }

    /// Whether two transactions can write at a time.
    pub fn overlaps(&self) -> bool {
        self.kind != Kind::Sqlite
    }
}

/// A service's connection.
pub enum Writer {
    Postgres(Client),
    Mariadb(Conn),
    Sqlite(rusqlite::Connection),
}

impl Writer {
    /// Any statement.
    pub async fn run(&mut self, sql: &str) -> Result<(), String> {
        match self {
            Self::Postgres(client) => client.batch_execute(sql).await.map_err(|error| format!("{error:?}")),
            Self::Mariadb(connection) => connection.query_drop(sql).await.map_err(|error| error.to_string()),
            Self::Sqlite(connection) => connection.execute_batch(sql).map_err(|error| error.to_string()),
        }
    }

    pub async fn begin(&mut self) {
        let sql = if matches!(self, Self::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.run(sql).await.unwrap();
    }

    pub async fn commit(&mut self) {
        self.run("COMMIT").await.unwrap();
    }

    pub async fn roll_back(&mut self) {
        self.run("ROLLBACK").await.unwrap();
    }

    pub async fn enqueue_with(
        &mut self,
        outbox: Outbox,
        messages: Vec<Message>,
    ) -> Result<Vec<MessageId>, OutboxError> {
        match self {
            Self::Postgres(client) => outbox.enqueue_all(client, messages).await,
            Self::Mariadb(connection) => outbox.enqueue_all(connection, messages).await,
            Self::Sqlite(connection) => outbox.enqueue_all_sqlite(connection, messages),
        }
    }

    /// In the open transaction.
    pub async fn enqueue(&mut self, messages: Vec<Message>) -> Vec<MessageId> {
        self.enqueue_with(Outbox::new(), messages).await.unwrap()
    }

    /// In a transaction of their own.
    pub async fn write(&mut self, messages: Vec<Message>) {
        self.begin().await;
        self.enqueue(messages).await;
        self.commit().await;
    }
}

/// The text of a message is its number.
pub fn numbered(key: &str, number: u64) -> Message {
    Message::to("orders").key(key.to_owned()).payload(number.to_string())
}

/// Each rule as a test on each database.
macro_rules! on_each_database {
    ($($rule:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                super::$rule(crate::database::Database::new(crate::database::Kind::Postgres).await).await;
            })*
        }
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                super::$rule(crate::database::Database::new(crate::database::Kind::Mariadb).await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                super::$rule(crate::database::Database::new(crate::database::Kind::Sqlite).await).await;
            })*
        }
    };
}
pub(crate) use on_each_database;

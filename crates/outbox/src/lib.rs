//! The outbox: a business write and its message, both or neither.
//!
//! A service writes its message into a table, in the transaction that it has open anyway; a relay brings it to the engine. From the commit
//! on the message is not lost, whatever crashes, and nothing is sent of a transaction that was rolled back.
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # async fn example(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use baton_core::Message;
//! use baton_outbox::Outbox;
//!
//! let outbox = Outbox::new();
//! let mut transaction = client.transaction().await?;
//! transaction.execute("UPDATE accounts SET balance = balance - 100 WHERE id = 17", &[]).await?;
//! outbox.enqueue(&mut transaction, Message::to("payments").key("17").payload(r#"{"amount":100}"#)).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! On SQLite, whose client is synchronous, it is `Outbox::enqueue_sqlite`; with `mysql_async` as above.
//!
//! # Any other language
//!
//! Messages are rows of `baton_outbox`, which any program can insert in its own transaction:
//!
//! ```sql
//! INSERT INTO baton_outbox (id, topic, key, payload, headers) VALUES ('order-17', 'orders', '17', '{"amount":100}', '{"tenant":"north"}')
//! ```
//!
//! `topic` alone is needed. An `id` is made if there is none; in MariaDB and MySQL `key` and `partition` are words of the language and stand in
//! backticks. `headers` are a JSON object of names and texts; a value that is no text is `{"base64": ".."}`, and an absent one `null`.
//! `occurred_at`, or `occurred_ms` on MariaDB, MySQL and SQLite, is the time of the event. Everything else is left to the database.
//!
//! # Order
//!
//! Rows of a key are sent in the order in which they were written. That is the order of their commits as soon as something makes
//! transactions of the same key wait for each other before they write to the outbox: the row of the account that they change, for one. Of
//! two transactions that write for one key and wait for nothing, the one that wrote first goes first, if both have committed by the time
//! the relay looks.
//!
//! A row whose transaction commits late is sent late, and nothing else waits for it.

mod enqueue;
mod error;
mod headers;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;

pub use enqueue::{Duplicate, Enqueue, NewRow, Outbox};
pub use error::OutboxError;
pub use headers::{BadHeaders, decode_headers, encode_headers};
#[cfg(feature = "mysql")]
pub use mysql::MysqlOutbox;
#[cfg(feature = "postgres")]
pub use postgres::PostgresOutbox;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteOutbox;
pub use store::{
    Found, Lease, Look, Members, OutboxFuture, OutboxRow, OutboxStore, ParkedRow, SHARDS, Search, ShardStatus, Status,
    Tenure, Written,
};

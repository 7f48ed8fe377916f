//! Carries a message from the service that sends it to the effect it must have: **none lost, none applied twice, none stuck.**
//!
//! # Connect
//!
//! An address says which engine it is. The code stays the same when the address changes; `Baton::builder` takes properties of the engine's
//! own client, such as passwords, beside it.
//!
//! | address | engine | cargo feature |
//! |---|---|---|
//! | `embedded:///var/lib/orders` | a broker in this very process: nothing to install, everything on the disk before it is acknowledged | `embedded` (default) |
//! | `kafka://host:9092,host:9092` | Apache Kafka, and what speaks its protocol | `kafka` (default) |
//! | `amqp://user:password@host/vhost` | RabbitMQ | `rabbitmq` |
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let baton = baton::Baton::connect("embedded:///var/lib/orders").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Send
//!
//! [`Producer::send`] resolves when the engine has the message, and its [`Receipt`] says what that meant. Until then it is tried again under
//! the same stamp, within one delivery timeout.
//!
//! ```no_run
//! # async fn example(baton: baton::Baton) -> Result<(), Box<dyn std::error::Error>> {
//! use baton::Message;
//!
//! let producer = baton.producer("orders-svc").await?;
//! let receipt = producer.send(Message::to("orders").key("order-17").payload("100 beans")).await?;
//! println!("{} is in {} at {:?}: {:?}", receipt.id, receipt.partition, receipt.offset, receipt.durability);
//! # Ok(())
//! # }
//! ```
//!
//! When it fails, [`SendError`] answers the two questions that count: could it be stored ([`SendError::could_be_stored`]), and may it be sent
//! again ([`SendError::may_retry`])? Sent again under the same id, it has its effect once.
//!
//! A [`SendFuture`] that is dropped takes nothing back, and a failure that nobody awaits is counted, logged and handed to
//! [`ProducerBuilder::on_abandoned`]. [`Producer::close`] says what was not sent.
//!
//! # Consume
//!
//! Engines deliver at least once: after a crash, a rebalance or a lost acknowledgement a message comes again. A guard lets it through
//! once: it keeps its mark in the transaction that the effect is written in, so that both are there or neither.
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn example(baton: baton::Baton) -> Result<(), Box<dyn std::error::Error>> {
//! use baton::guard::{Inbox, Sqlite};
//! use baton::{DeadLetter, Received};
//!
//! let beans = Sqlite::open("beans.db")?;
//! let consumer = baton
//!     .consumer("beans-svc")
//!     .topics(["orders"])
//!     .effectively_once(Inbox::sqlite(&beans))
//!     .dead_letter(DeadLetter::topic("orders.dead"))
//!     .start(|order: Received, effect: baton::guard::SqliteEffect| async move {
//!         let id = String::from_utf8_lossy(order.key().map_or(b"", |key| &key[..])).into_owned();
//!         effect.execute("INSERT INTO beans VALUES (?1, 100)", (id,)).await?;
//!         Ok(())
//!     })
//!     .await?;
//! // .. until the service ends:
//! consumer.stop(std::time::Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Whole services
//!
//! Each fits on a page, and is run by the tests as a program: killed on the way, moved to another engine, and judged by what its database
//! holds.
//!
//! | example | what it shows |
//! |---|---|
//! | `crates/client/examples/orders_to_beans_sqlite.rs` | 100 beans for each order, once: SQLite, and a broker inside of the service |
//! | `crates/client/examples/orders_to_beans_postgres.rs` | the same on Postgres, 500 orders to a transaction, on any engine |
//! | `crates/client/examples/embedded.rs` | a service with a broker in it that others can reach |
//! | `crates/client/examples/move_to_kafka.rs` | the embedded broker today, Apache Kafka tomorrow: its address changes |
//!
//! # Which guard
//!
//! | effects go to | guard | promise |
//! |---|---|---|
//! | a database | `Inbox`: a row for each message, in the effect's transaction | exactly once, whatever crashes |
//! | a database, many messages | `Frontier`: a row for each sequence, in the effect's transaction | exactly once, for messages sent with Baton |
//! | a database, writes that are conditional anyway | `Conditional` | what the conditions say |
//! | elsewhere | `Claim`: a key in Redis | once, except for a crash between the effect and its mark |
//!
//! Stores are features of the crate: `sqlite`, `postgres`, `mysql` (MariaDB, too), `redis`; and `sqlx`, for marks in a transaction that the
//! service has opened itself.
//!
//! # What is promised
//!
//! | | | holds while |
//! |---|---|---|
//! | no loss | after `send` returned a receipt, every subscribed group gets the message until it acknowledges it | the engine keeps what it acknowledged; [`Receipt::durability`] says what that was |
//! | no double effect | what a guarded handler writes is committed once per group and message id | it is written through the guard's transaction |
//! | order | messages of a key are handled in the order in which they were sent | the topic keeps its number of partitions: see [`ProducerBuilder::ordered`]; and with [`ProducerBuilder::in_flight_max`] of 1, also when a send fails and is tried again |
//! | never stuck | a message that cannot be handled becomes a dead letter with its reason; it holds up its own key at most | |
//! | accounted for | every message has a number in its sequence, and its end is reported to the topic `baton.evidence` | evidence is on, as by default |
//!
//! Nothing has no bound: the producer's buffer, attempts, deadlines, what is in flight and what waits. All of them are settings.

mod connect;
pub mod consumer;
mod producer;
pub mod relay;

pub use baton_core::ids;
pub use baton_core::stamp::{Instance, Stamp};
pub use baton_core::trace::TraceParent;
pub use baton_core::{Delivery, Headers, Message, MessageId, Retry, TopicPartition};
pub use baton_engine::{Copies, Durability, Engine, EngineError, Medium, TopicSpec};
pub use baton_guard as guard;
pub use baton_outbox as outbox;
pub use connect::{BadAddress, Baton, ConnectBuilder, ConnectError};
pub use consumer::{Consumer, ConsumerBuilder, DeadLetter, Handler, HandlerError, Order, Received};
pub use producer::{
    Closed, Ids, Interceptor, LINGER_MS_DEFAULT, NotSent, Producer, ProducerBuilder, ProducerCounters, ProducerError,
    Reason, Receipt, SegmentFuture, SegmentSource, SendError, SendFuture, Spool, SpoolState, UNSENT_NAMED_MAX, Unsent,
};
pub use relay::Relay;

//! Guards: what makes a handler's effect happen once.
//!
//! An engine delivers a message at least once: after a crash, a rebalance or a lost acknowledgement it comes again. A guard
//! stands between delivery and effect. It lets a message through once in a consumer group, by keeping a mark where the effect
//! itself is kept, so that both are there or neither.
//!
//! ```
//! use baton_guard::{Group, Identity, Inbox, Outcome, Sqlite, apply};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("beans.db");
//! let sqlite = Sqlite::open(&path)?;
//! let guard = Inbox::sqlite(&sqlite);
//! guard.prepare().await?; // creates the tables, once
//! sqlite.run(|database| database.execute_batch("CREATE TABLE beans (order_id TEXT, amount INTEGER)")).await??;
//!
//! let identity = Identity::new(Group::new("beans-svc")?, "order-17".try_into()?);
//! for expected in [Outcome::Applied, Outcome::AlreadyDone] {
//!     let outcome = apply(&guard, &identity, |effect| async move {
//!         effect.execute("INSERT INTO beans VALUES (?1, 100)", ("order-17",)).await.map(drop)
//!     });
//!     assert_eq!(outcome.await?, expected);
//! }
//! # Ok(()) }
//! ```
//!
//! # Which one
//!
//! | guard | remembers | a crash at any point | costs |
//! |---|---|---|---|
//! | [`Inbox`] | each message id, in the effect's own transaction | effect and mark, or neither | one row for each message, until it is pruned |
//! | [`Frontier`] | how far each sequence is done, in the effect's own transaction | effect and mark, or neither | one row for each sequence; needs stamped messages |
//! | [`Conditional`] | nothing: the handler's writes are conditional ([`Version`], [`Condition`]) | whatever the conditions say | nothing |
//! | [`Claim`] | each message id, in Redis, beside the effect | after the effect and before the mark: the effect happens again | one key for each message, until it expires |
//!
//! What is promised when the process dies between two steps, when the store loses its last second, and when marks are pruned too
//! early, is said in the documentation of each guard. [`Lock`] is no guard: it keeps two from doing the same thing at the same
//! time, and its fencing token lets the protected store refuse who lost it.
//!
//! # Who may still write
//!
//! Marks keep a message from being applied twice. They do not keep a consumer that was declared dead (a zombie) from applying
//! one late, after the next owner of its partition has gone on, which breaks the order of a key. [`Guard::take_over`] does: it
//! hands out a [`Fence`] that is newer than all before it, and every transaction that carries an older one is refused. It also
//! waits for transactions of the owner before to end, so that the new owner sees all of their effects.
//!
//! # What an id catches
//!
//! A stamp's id is the same in every copy of a message, so everything is caught: redelivery, a producer's retry, replay. So is a
//! business id or `ce_id`, if the sender makes it when the fact is recorded and not when it is sent. Topic, partition and offset
//! catch redelivery only: the same message sent twice has two offsets. [`baton_core::identity::identify`] chooses.

mod apply;
#[cfg(feature = "redis")]
mod claim;
mod condition;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod guard;
mod identity;
pub mod intake;
#[cfg_attr(
    not(all(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "some stores need less of it than others")
)]
mod kinds;
#[cfg(feature = "redis")]
mod lock;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlx"))]
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "sqlx needs some of it"))]
mod postgres_sql;
mod redelivery;
pub mod segments;
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "some stores need less of it than others"))]
mod sequences;
pub mod side;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlx")]
mod sqlx;

pub use apply::{ApplyError, Outcome, apply, apply_batch};
#[cfg(feature = "redis")]
pub use claim::{Claim, ClaimEffect, OpenClaim};
pub use condition::{Condition, ConditionError, Verdict, Version};
pub use error::{CommitError, EffectError, GuardError};
pub use guard::{Admission, Batch, Durable, EffectOf, Fate, Guard, Open, State, Strength, Weakness};
pub use identity::{BadGroup, Fence, GROUP_BYTES_MAX, Group, Identity, Place};
pub use kinds::{Conditional, Frontier, Inbox};
#[cfg(feature = "redis")]
pub use lock::{Held, Lock};
#[cfg(feature = "mysql")]
pub use mysql::{LentConnection, MysqlEffect, MysqlGuard, OpenMysql};
#[cfg(feature = "postgres")]
pub use postgres::{Lent, OpenPostgres, PostgresEffect, PostgresGuard};
pub use redelivery::{PRUNE_MARGIN, PRUNE_ROWS, Pruned, Redelivery};
pub use sequences::INTERVALS_MAX;
#[cfg(feature = "sqlite")]
pub use sqlite::{OpenSqlite, Sqlite, SqliteEffect, SqliteGuard};
#[cfg(feature = "sqlx")]
pub use sqlx::{mark_inbox, prepare_inbox};

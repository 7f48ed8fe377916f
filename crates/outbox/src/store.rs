//! What a relay asks of a database.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use baton_core::relay::{Change, Row, Seen};
use bytes::Bytes;

use crate::OutboxError;

/// How many shards an outbox has: each is worked on by one relay at a time, so that more relays than this share nothing. A key's shard is
/// computed by the database and stays with the row.
pub const SHARDS: u16 = 16;

/// A future of a store.
pub type OutboxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, OutboxError>> + Send + 'a>>;

/// What a row holds, beside what the relay decides with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The content.
    pub payload: Option<Bytes>,
    /// The headers, as they stand in the table.
    pub headers: Option<String>,
    /// A partition that the writer chose.
    pub partition: Option<u32>,
    /// When it was written, in milliseconds since 1970 by the database's clock.
    pub written_ms: i64,
    /// The time of the event, if the writer named one.
    pub timestamp_ms: Option<i64>,
}

/// Rows that were found.
#[derive(Debug, Default)]
pub struct Found {
    /// By position.
    pub rows: Vec<Row<OutboxRow>>,
    /// There are more already: look again at once.
    pub more: bool,
}

/// What a query asks for.
#[derive(Debug, Clone)]
pub struct Look {
    /// Begin at the beginning of the table.
    pub restart: bool,
    /// Of these shards.
    pub shards: Vec<u16>,
    /// At most so many rows, and rows of so many bytes (one row at least).
    pub rows_max: usize,
    /// See `rows_max`.
    pub bytes_max: usize,
}

/// Finds committed rows. Each search remembers what it has brought: every row that is there and not parked comes once after each restart,
/// however late its transaction commits, and rows of a key come by position.
pub trait Search: Send {
    /// The next rows. An error begins the search again.
    fn next<'a>(&'a mut self, look: &'a Look) -> OutboxFuture<'a, Found>;
}

/// A shard that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// Which one.
    pub shard: u16,
    /// Above all that it had before.
    pub epoch: u32,
    /// What was claimed of it.
    pub window: Bytes,
}

/// Who shares the outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// All relays that live.
    pub live: Vec<String>,
    /// All shards, with their owners.
    pub shards: Vec<Seen>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// All of it is durable.
    Done,
    /// None of it, because these shards are not ours under these epochs.
    Fenced(Vec<(u16, u32)>),
}

/// How leases are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// This relay; no two have the same name.
    pub member: String,
    /// How long a lease lasts after it was renewed.
    pub lasts: Duration,
}

/// A row that the engine cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    /// Which row.
    pub position: i64,
    /// Where it was to go.
    pub topic: String,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its message's id.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// A shard, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which one.
    pub shard: u16,
    /// Who has it; nobody if his lease has ended.
    pub owner: Option<String>,
    /// How often it was taken over.
    pub epoch: u64,
    /// How many rows are claimed.
    pub claimed: usize,
}

/// How an outbox is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Rows that are to be sent, parked ones included.
    pub rows: u64,
    /// How long ago the oldest of them was written.
    pub oldest: Option<Duration>,
    /// Rows that are parked.
    pub parked: u64,
    /// Done rows that are kept.
    pub done: u64,
    /// Bytes that the tables and their indexes take on the disk.
    pub bytes: u64,
    /// Dead rows that the database has not cleaned up yet, where it tells.
    pub dead: Option<u64>,
    /// All shards.
    pub shards: Vec<ShardStatus>,
    /// All relays that live.
    pub members: Vec<String>,
}

/// An outbox in a database, as its relay needs it.
pub trait OutboxStore: Send + Sync {
    /// What it is called: `postgres`, `mysql`, `sqlite`.
    fn kind(&self) -> &'static str;

    /// The SQL that [`OutboxStore::init`] runs, for who may not create tables himself.
    fn tables(&self) -> String;

    /// Creates what is missing, under this name, unless it has one already.
    fn init<'a>(&'a self, name: &'a str) -> OutboxFuture<'a, ()>;

    /// The name that it was given.
    fn name(&self) -> OutboxFuture<'_, String>;

    /// Says that this relay lives, renews its leases, and looks who else does.
    fn heartbeat<'a>(&'a self, lease: &'a Lease) -> OutboxFuture<'a, Members>;

    /// Takes a shard that nobody has; `None` if somebody was faster.
    fn take<'a>(&'a self, lease: &'a Lease, shard: u16) -> OutboxFuture<'a, Option<Tenure>>;

    /// Gives a shard up, if it is ours under this epoch.
    fn release<'a>(&'a self, shard: u16, epoch: u32) -> OutboxFuture<'a, ()>;

    /// This relay ends: the others need not wait.
    fn leave<'a>(&'a self, lease: &'a Lease) -> OutboxFuture<'a, ()>;

    /// A new search, from the beginning.
    fn search(&self) -> Box<dyn Search>;

    /// These rows, parked or not, as far as they are there.
    fn rows<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, Vec<Row<OutboxRow>>>;

    /// Writes a change: all of it or nothing. To do so again does no harm. With `keep_done`, rows that are done are kept for
    /// [`OutboxStore::prune`] to delete.
    fn write<'a>(&'a self, change: &'a Change, keep_done: bool) -> OutboxFuture<'a, Written>;

    /// Waits until rows may have been written, at most for so long. Where the database does not tell, a part of it.
    fn wait<'a>(&'a self, at_most: Duration) -> OutboxFuture<'a, ()>;

    /// Rows that are parked, from the oldest on, behind this position.
    fn parked<'a>(&'a self, after: i64, rows_max: usize) -> OutboxFuture<'a, Vec<ParkedRow>>;

    /// Lets parked rows be sent again; says how many there were.
    fn retry<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, u64>;

    /// Deletes parked rows; says how many there were.
    fn discard<'a>(&'a self, positions: &'a [i64]) -> OutboxFuture<'a, u64>;

    /// Deletes done rows that were sent longer ago than this, at most so many; says how many.
    fn prune<'a>(&'a self, kept: Duration, rows_max: usize) -> OutboxFuture<'a, u64>;

    /// How it is.
    fn status(&self) -> OutboxFuture<'_, Status>;
}

/// Whether there may be more than these.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn is_full(rows: &[Row<OutboxRow>], look: &Look) -> bool {
    rows.len() >= look.rows_max || rows.iter().map(bytes_of).sum::<usize>() >= look.bytes_max
}

/// What [`Look::bytes_max`] counts.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn bytes_of(row: &Row<OutboxRow>) -> usize {
    row.item.payload.as_ref().map_or(0, Bytes::len)
        + row.key.as_ref().map_or(0, Bytes::len)
        + row.item.headers.as_ref().map_or(0, String::len)
}

/// The outbox's name, if its tables are of the version that is known here.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn checked_name(read: Option<(String, i64)>) -> Result<String, OutboxError> {
    match read {
        None => Err(OutboxError::Corrupt("baton_outbox_info is empty".to_owned())),
        Some((name, 1)) => Ok(name),
        Some((_, newer)) => Err(OutboxError::Caller(format!(
            "the outbox's tables are of version {newer}, newer than the 1 known here: update this relay"
        ))),
    }
}

//! What is kept beside the engine's positions: parked messages, and what is done beyond a frontier when it does not fit in a commit.
//!
//! Kept in the database that the guard's marks are in, there is one thing less to run, to back up and to watch. Kept in a topic of the
//! engine (`TopicStore` of the library), nothing is needed but the engine.

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "some stores need less of it than others"))]
pub(crate) mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use baton_core::TopicPartition;
use baton_core::consumer::{KeyInStore, Loaded, Parked};
use bytes::Bytes;
use thiserror::Error;

#[cfg(feature = "mysql")]
pub use mysql::MysqlSideStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresSideStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteSideStore;

/// Bytes of parked messages that a store reads at once, at most, and one message more if that is larger: a key may hold many large ones.
pub const LOAD_BYTES_MAX: usize = 16 << 20;

/// Of which group and partition something is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The consumer group.
    pub group: Arc<str>,
    /// The partition that its messages came from.
    pub partition: TopicPartition,
}

/// What is kept of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// What [`SideStore::store_done`] stored last; empty if nothing.
    pub done: Bytes,
    /// The keys of which messages are parked.
    pub parked: Vec<KeyInStore>,
}

/// What an offset names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offsets {
    /// The same message for ever: one that is delivered and parked again is known by it.
    Lasting,
    /// A delivery of this assignment. A message that is delivered again in another one has another offset.
    OfAssignment,
}

/// A store could not do it; it is asked again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// A future of a store.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A durable store beside the engine. Returned means: durable. Who owns a partition is the only one who writes for it, but for a
/// moment somebody who was just replaced may write as well: storing the same message twice must leave it there once.
///
/// How many messages are parked is bounded by who parks (`ParkingSettings::messages_max`), so a store has no limit of its own. In memory
/// it may keep where messages lie, and not the messages.
pub trait SideStore: Send + Sync + 'static {
    /// Whether it knows messages by their offsets, and so is no store for an engine whose offsets do not last.
    fn needs_lasting_offsets(&self) -> bool {
        false
    }

    /// Reads what is kept of a partition that became ours. Comes before everything else of a place, and again with each assignment.
    fn open<'a>(&'a self, place: &'a Place, offsets: Offsets) -> StoreFuture<'a, Opened>;

    /// Keeps this in place of what was kept before.
    fn store_done<'a>(&'a self, place: &'a Place, bytes: Bytes) -> StoreFuture<'a, ()>;

    /// Adds messages behind those of the key that are there, in this order. All or none need not hold: if it fails, the same
    /// messages come again.
    fn park<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages: &'a [Parked]) -> StoreFuture<'a, ()>;

    /// The oldest messages of a key, at most so many, and no more than [`LOAD_BYTES_MAX`] unless the first is larger. None only if
    /// nothing of the key is parked.
    fn load<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages_max: usize) -> StoreFuture<'a, Vec<Loaded>>;

    /// Removes the messages of a key up to this position, itself included.
    fn remove<'a>(&'a self, place: &'a Place, key: &'a Bytes, up_to: u64) -> StoreFuture<'a, ()>;

    /// The partition is not ours any more: what is in memory of it may go.
    fn forget(&self, _place: &Place) {}
}

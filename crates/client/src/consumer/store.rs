//! What is kept beside the engine's positions: parked messages, and what is done beyond a frontier when it does not fit in a commit.

mod topic;

use std::pin::Pin;
use std::sync::Arc;

use baton_core::TopicPartition;
use baton_core::consumer::{Loaded, Parked};
use bytes::Bytes;
use thiserror::Error;

pub use topic::TopicStore;

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
    pub parked: Vec<Bytes>,
}

/// A store could not do it; it is asked again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// A future of a store.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A durable store beside the engine. Returned means: durable. Who owns a partition is the only one who writes for it, but for a
/// moment somebody who was just replaced may write as well: storing the same message twice must leave it there once.
pub trait SideStore: Send + Sync + 'static {
    /// Reads what is kept of a partition that became ours.
    fn open<'a>(&'a self, place: &'a Place) -> StoreFuture<'a, Opened>;

    /// Keeps this in place of what was kept before.
    fn store_done<'a>(&'a self, place: &'a Place, bytes: Bytes) -> StoreFuture<'a, ()>;

    /// Adds messages behind those of the key that are there, in this order. All or none need not hold: if it fails, the same
    /// messages come again.
    fn park<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages: &'a [Parked]) -> StoreFuture<'a, ()>;

    /// The oldest messages of a key, at most so many.
    fn load<'a>(&'a self, place: &'a Place, key: &'a Bytes, messages_max: usize) -> StoreFuture<'a, Vec<Loaded>>;

    /// Removes the messages of a key up to this position, itself included.
    fn remove<'a>(&'a self, place: &'a Place, key: &'a Bytes, up_to: u64) -> StoreFuture<'a, ()>;
}

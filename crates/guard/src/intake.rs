//! Where messages lie that are acknowledged at the engine before they are handled: the tables of a consumer in store-first mode.
//!
//! A place (a group's partition) has one owner at a time. Whoever takes it counts its epoch up, and everything that is written of it
//! carries the epoch: what a replaced owner writes is refused, also when it was on its way already.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "some stores need less of it than others"))]
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::future::Future;
use std::pin::Pin;

use baton_core::Delivery;
use thiserror::Error;

use crate::Weakness;
use crate::side::StoreError;

pub use crate::side::Place;
#[cfg(feature = "mysql")]
pub use mysql::MysqlIntake;
#[cfg(feature = "postgres")]
pub use postgres::PostgresIntake;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteIntake;

/// A place that is ours, until somebody takes it after us.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ownership {
    /// Of which group and partition.
    pub place: Place,
    /// The how-manieth owner we are.
    pub epoch: i64,
}

impl Ownership {
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    fn begun_anew(&self) -> Self {
        Self { place: self.place.clone(), epoch: self.epoch + 1 }
    }
}

/// What a place holds when it becomes ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What is ours from now on.
    pub ownership: Ownership,
    /// The first position that is not done; `None` if nothing was ever stored, and the group had no position at the engine.
    pub frontier: Option<i64>,
    /// What was kept with it.
    pub metadata: String,
    /// The first position that was never stored.
    pub next: Option<i64>,
    /// Up to where the engine was acknowledged, as far as it was noted: the engine may know more, and never less unless somebody set it back.
    pub acknowledged: Option<i64>,
}

/// How far a place is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The first position that is not done.
    pub frontier: i64,
    /// What is to be found with it.
    pub metadata: String,
    /// Up to where the engine has been acknowledged, if that is known.
    pub acknowledged: Option<i64>,
}

/// Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IntakeError {
    /// The place has a new owner.
    #[error("the place has a new owner")]
    Fenced,
    /// The store could not do it. It may have done it all the same, if the answer was lost: what is written again is there once.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A future of an intake.
pub type IntakeFuture<'a, T, E = IntakeError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// A durable store of messages that wait to be handled. Returned means: committed, and durable as far as [`Intake::weaknesses`] names none.
/// Each call is one transaction: all of it is there or nothing.
///
/// A position is the message's offset, and lasts: a message that is appended twice is there once.
pub trait Intake: Send + Sync + 'static {
    /// Makes a place ours: from the moment in which this returns, nobody who took it before writes anything there. `known` is the position
    /// and metadata that the engine has of the group; it counts if the place has no frontier yet.
    fn take<'a>(&'a self, place: &'a Place, known: Option<(i64, &'a str)>) -> IntakeFuture<'a, Taken, StoreError>;

    /// Adds messages, whose positions only grow, behind those that are there.
    fn append<'a>(
        &'a self,
        ownership: &'a Ownership,
        messages: &'a [Delivery],
        acknowledged: Option<i64>,
    ) -> IntakeFuture<'a, ()>;

    /// Messages from a position on, in order: at most so many, and no more than [`crate::side::LOAD_BYTES_MAX`] unless the first is larger.
    fn read<'a>(
        &'a self,
        place: &'a Place,
        from: i64,
        messages_max: usize,
    ) -> IntakeFuture<'a, Vec<Delivery>, StoreError>;

    /// Notes how far the place is done, and deletes what lies before. What comes late, behind a later one, takes nothing back.
    fn advance<'a>(&'a self, ownership: &'a Ownership, progress: &'a Progress) -> IntakeFuture<'a, ()>;

    /// Begins anew at a position, with nothing stored: the engine was set back, or its partition holds other messages by now. What is ours
    /// from then on is given back, under the next epoch: a write that was given up and comes late would else fall upon what is stored anew.
    fn restart<'a>(&'a self, ownership: &'a Ownership, at: i64) -> IntakeFuture<'a, Ownership>;

    /// Settings of the store that take back what was committed.
    fn weaknesses(&self) -> IntakeFuture<'_, Vec<Weakness>, StoreError>;
}

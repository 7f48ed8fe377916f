//! Consuming: from the delivery of a message to its effect, its dead letter, or its parking place.

mod backlog;
mod builder;
mod calls;
mod driver;
mod error;
mod evidence;
mod first;
mod handle;
mod handler;
mod letters;
mod link;
mod once;
mod prepare;
mod store;
mod work;

pub use baton_core::consumer::{
    Accept, AdaptiveSettings, Batches, Counters, DependencySettings, FailureClass, Filter, Held, KeyInStore, Limits,
    Order, Outcome, ParkingSettings, Remedy, Report, Urge, Waiting, WaitsFor,
};
pub use baton_core::identity::Named;
pub use baton_engine::Start;

pub use builder::{AtLeastOnce, AtMostOnce, ConsumerBuilder, EffectivelyOnce, Guarded, Level, LevelEffect, Undecided};
pub use error::{Classify, ConsumerError, ErrorClass, HandlerError};
pub use first::StoreFirst;
pub use handle::{Consumer, ConsumerMetrics, Notice, Notices, PartitionLag};
pub use handler::{BatchHandler, ConsumerInterceptor, Handler, Received};
pub use letters::{
    DEAD_ATTEMPTS, DEAD_CLASS, DEAD_FIRST_TIME, DEAD_GROUP, DEAD_ID, DEAD_LAST_TIME, DEAD_OFFSET, DEAD_PARTITION,
    DEAD_REASON, DEAD_SOURCE, DEAD_TIMESTAMP, DEAD_TOPIC, DeadLetter, LARGE_SUFFIX, LETTERS_GROUP, REASON_BYTES_MAX,
    SHORT_REASON_BYTES_MAX,
};
pub use store::{Offsets, Opened, Place, SideStore, StoreError, StoreFuture, TopicStore};
pub use work::{NoTransaction, Unguarded};

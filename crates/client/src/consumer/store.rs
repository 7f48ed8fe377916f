//! Where parked messages lie, and what is done beyond a frontier: in a topic, or in a database ([`baton_guard::side`]).

mod topic;

pub use baton_guard::side::{Offsets, Opened, Place, SideStore, StoreError, StoreFuture};
pub use topic::TopicStore;

//! Carries a message from the service that sends it to the effect it must have: none lost, none applied twice, none stuck.

pub use baton_core::{Delivery, Message, MessageId, TopicPartition};

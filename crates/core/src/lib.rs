//! Messages, stamps, and the decisions of producers and consumers. Nothing here does I/O, reads a clock or draws a random
//! number: what is needed of those is handed in, so that every decision can be driven by tests and by the simulator.

mod headers;
mod message;
mod message_id;
mod ranges;
pub mod stamp;

pub use headers::{Header, Headers};
pub use message::{Delivery, Message, TopicPartition};
pub use message_id::{BadMessageId, MESSAGE_ID_BYTES_MAX, MessageId};
pub use ranges::Ranges;

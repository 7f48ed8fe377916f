//! Messages, stamps, and the decisions of producers and consumers. Nothing here does I/O, reads a clock or draws a random
//! number: what is needed of those is handed in, so that every decision can be driven by tests and by the simulator.

pub mod consumer;
mod evidence;
mod headers;
pub mod identity;
pub mod ids;
mod message;
mod message_id;
pub mod partitioner;
mod ranges;
pub mod relay;
mod retry;
mod send;
mod sequences;
mod spool;
pub mod stamp;
pub mod trace;

pub use evidence::agenda::{REPORT_INTERVAL_MS, REPORT_MESSAGES, UNREPORTED_INTERVALS_MAX};
pub use evidence::{
    Account, BadReport, ConsumedSequence, Consumption, Counts, EVIDENCE_TOPIC, EVIDENCE_VERSION, GroupEvidence, Ledger,
    REPORT_BYTES_MAX, REPORTED_GROUP_BYTES_MAX, Report, ReportedSequence, Seen, SequenceEvidence, SequenceName,
    TOPIC_BYTES_MAX, Unstamped,
};
pub use headers::{Header, Headers};
pub use message::{Delivery, Message, TopicPartition};
pub use message_id::{BadMessageId, MESSAGE_ID_BYTES_MAX, MessageId};
pub use ranges::Ranges;
pub use retry::{ATTEMPTS_MAX_DEFAULT, DELAY_MAX, Retry};
pub use send::{
    BUFFER_BYTES_DEFAULT, DELIVERY_TIMEOUT_MS_DEFAULT, End, Ended, Failure, HandOver, IN_FLIGHT_GRACE_MS,
    IN_FLIGHT_MAX_DEFAULT, MESSAGE_BYTES, Refusal, Refused, SendId, SendOptions, Sends, TakenOut, Why,
};
pub use sequences::{EpochTooLow, Fate, NoSequence, SEQUENCES_MAX, Sequences, Ticket};
pub use spool::{
    Movable, OthersEvidence, SPOOL_AWAY_AFTER_MS_DEFAULT, SPOOL_BYTES_MAX_DEFAULT, SPOOL_LOADED_BYTES_MAX,
    SPOOL_WINDOW_BYTES_MAX, SPOOL_WINDOW_MAX, SpoolFull, SpoolLag, SpoolOptions, SpoolRead, Spooling,
};

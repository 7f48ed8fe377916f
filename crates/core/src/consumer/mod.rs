//! What a consumer decides: which message is handled when, what of it may be settled, and what happens when something fails.
//!
//! [`Core`] is a state machine without I/O, clock or randomness. A shell tells it what happens (time as milliseconds that only
//! grow), and after each of that carries out all the [`Action`]s that [`Core::next_action`] gives, in their order; and it calls
//! [`Core::tick`] when the time of [`Core::wake_at_ms`] has come.
//!
//! What holds, whatever the shell is told by engine and handlers:
//! - A message is settled only after it was handled, or its dead letter or parked copy is durable, or a filter skipped it.
//! - Messages of one key are handled one after the other; the next one begins only when the one before is done, dead-lettered or parked.
//! - Nothing is settled of a partition that is lost, and what comes of it late changes nothing.
//! - A partition that is blocked is paused at its own bound; no other is.

mod adaptive;
mod arena;
mod batches;
mod core;
mod dependency;
mod done_codec;
mod frontier;
mod lanes;
mod origin;
mod parking;
mod rebalance;
mod runs;
mod settings;
mod settling;
mod tenure;
mod types;
mod watchdog;
mod witness;

pub use self::adaptive::Adaptive;
pub use self::core::Core;
pub use self::done_codec::{BadDone, Done, decode, decode_text, encode, encode_text};
pub use self::frontier::{Fresh, Frontier};
pub use self::origin::{DEAD_PARTITION, DEAD_TOPIC, origin};
pub use self::settings::*;
pub use self::types::*;
pub use self::witness::{WITNESSED_SEQUENCES_MAX, Witness};

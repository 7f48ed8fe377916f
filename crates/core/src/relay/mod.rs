//! The decisions of a relay, which brings rows of an outbox table to the engine: which shards are its own, which row goes next, under which
//! stamp, and what may be forgotten. Without I/O, clock or randomness.
//!
//! A row is **found** when its transaction has committed. It gets its partition and its number, and both are written into the **window** of
//! its shard before the engine hears of it: that is the **claim**. When the engine has it, row and claim go together. So whoever takes a
//! shard over finds in its window all that could be with the engine already, and sends it again under the same stamps, before anything
//! newer. A relay that was replaced without knowing it can only repeat what its successor has sent or is about to send first: the window
//! is changed under the shard's epoch alone.

mod claims;
mod shares;
mod window;

pub use claims::{
    Change, Claims, Limits, Outgoing, Parked, Placed, ROWS_BYTES_MAX_DEFAULT, ROWS_MAX_DEFAULT, Row, STUCK_MS,
    TopicKey, WINDOW_ROWS_MAX,
};
pub use shares::{Seen, Shares, Turnover};
pub use window::{BadWindow, Claimed, Window};

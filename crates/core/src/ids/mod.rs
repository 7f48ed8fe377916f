//! Makers of message ids. A business's own id is better than any of these: it is the same when the business does the same thing twice.
//! Numbers turn into a [`crate::MessageId`] by `into()`.

mod segments;
mod snowflake;
mod uuid_v7;

pub use segments::{BadSegment, SEGMENT_LEFT_PERCENT, Segments};
pub use snowflake::{BadSnowflake, NoSnowflake, SNOWFLAKE_AHEAD_MS_MAX, SNOWFLAKE_NODES, Snowflake};
pub use uuid_v7::UuidV7;

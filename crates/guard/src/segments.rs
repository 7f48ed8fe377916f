//! Segments of numbers for message ids, allotted by a database or by Redis: a producer uses up a thousand numbers for one question.
//!
//! Every number is allotted once, whatever happens to those who ask: what was allotted is durable before it is handed out, and a segment
//! whose answer was lost is used by nobody. So ids have holes. That they never come twice matters more than anything else about
//! them: a guard takes the second message of an id for one that it has applied already.
//!
//! A name stands for one row of numbers; all producers whose ids must differ share it.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis", feature = "sqlite"))]
mod numbers;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::error::Error;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

#[cfg(feature = "mysql")]
pub use self::mysql::MysqlSegments;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis", feature = "sqlite"))]
pub use self::numbers::{BadNumbers, Numbers, SEGMENT_LENGTH_DEFAULT, SEGMENT_LENGTH_MAX, SEGMENT_NAME_BYTES_MAX};
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresSegments;
#[cfg(feature = "redis")]
pub use self::redis::RedisSegments;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteSegments;

/// What [`SegmentSource::allot`] returns.
pub type SegmentFuture = Pin<Box<dyn Future<Output = Result<Range<u64>, Box<dyn Error + Send + Sync>>> + Send>>;

/// Allots segments of numbers, each number once. An error is no answer: it is asked again.
pub trait SegmentSource: Send + Sync {
    /// The next segment. Each begins behind all that this source returned before.
    fn allot(&self) -> SegmentFuture;
}

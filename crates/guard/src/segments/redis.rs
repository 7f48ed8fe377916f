//! Segments from Redis.

use std::fmt;

use redis::aio::ConnectionManager;

use super::numbers::{Numbers, within};
use super::{SegmentFuture, SegmentSource};
use crate::Durable;
use crate::claim::weaknesses;

/// A Redis that loses its last writes allots their numbers once more.
const SETTINGS: &[Durable] = &[
    Durable {
        setting: "appendonly",
        fine: &["yes"],
        wanted: "yes",
        consequence: "a crash forgets which numbers were allotted: they come twice, and a guard drops the second message of an id",
    },
    Durable {
        setting: "appendfsync",
        fine: &["always"],
        wanted: "always",
        consequence: "a power failure forgets the last second's numbers: they come twice, and a guard drops the second message of an id",
    },
    Durable {
        setting: "no-appendfsync-on-rewrite",
        fine: &["no"],
        wanted: "no",
        consequence: "nothing is synced while the log is rewritten: numbers allotted then can come twice",
    },
    Durable {
        setting: "maxmemory-policy",
        fine: &["noeviction"],
        wanted: "noeviction",
        consequence: "the count is thrown away when memory is short, and begins anew",
    },
];

/// Segments of numbers from a counter of Redis (`INCRBY`).
///
/// With each question the settings of Redis are looked at, and nothing is allotted where they let a number come twice: `appendonly
/// yes`, `appendfsync always`, `no-appendfsync-on-rewrite no`, `maxmemory-policy noeviction`. **A failover can still go back**, since
/// replication is asynchronous: numbers of the last moment come twice then. A producer that saw them refuses a segment that goes back;
/// one that starts then cannot know. Where failover is automatic, let a database allot them.
///
/// A user needs `~<key> +incrby +config|get`.
#[derive(Clone)]
pub struct RedisSegments {
    connection: ConnectionManager,
    numbers: Numbers,
    vouched: bool,
}

impl fmt::Debug for RedisSegments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedisSegments").field("numbers", &self.numbers).field("vouched", &self.vouched).finish()
    }
}

impl RedisSegments {
    /// The numbers under this key, which belongs to them alone.
    pub fn new(connection: ConnectionManager, numbers: Numbers) -> Self {
        Self { connection, numbers, vouched: false }
    }

    /// You vouch for Redis losing no write that it answered: for servers that hide their settings. They are not looked at any more.
    #[must_use]
    pub fn vouched(self) -> Self {
        Self { vouched: true, ..self }
    }
}

impl SegmentSource for RedisSegments {
    fn allot(&self) -> SegmentFuture {
        let Self { mut connection, numbers, vouched } = self.clone();
        within(async move {
            let weak = if vouched { Vec::new() } else { weaknesses(&connection, SETTINGS).await? };
            if let Some(weak) = weak.first() {
                let (setting, value, wanted, consequence) = (&weak.setting, &weak.value, weak.wanted, weak.consequence);
                return Err(format!("{setting} of Redis is {value} instead of {wanted}: {consequence}").into());
            }
            let mut ask = redis::cmd("INCRBY");
            let last: i64 = ask.arg(&numbers.name).arg(numbers.length).query_async(&mut connection).await?;
            numbers.before(last.checked_add(1).ok_or("the numbers are used up")?)
        })
    }
}

//! Segments from MariaDB and MySQL.

use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use super::numbers::{Numbers, within};
use super::{SegmentFuture, SegmentSource};
use crate::GuardError;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS baton_segments (
  name       VARBINARY(255) NOT NULL PRIMARY KEY,
  next       BIGINT NOT NULL,
  changed_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB";

/// One statement, so that two who ask at once wait for each other in the row's lock. What it wrote comes back with its answer:
/// reading it afterwards would find what the other wrote.
const ALLOT: &str = "INSERT INTO baton_segments (name, next) VALUES (?, LAST_INSERT_ID(1 + ?)) \
ON DUPLICATE KEY UPDATE next = LAST_INSERT_ID(next + ?), changed_at = CURRENT_TIMESTAMP";

/// Segments of numbers from a row of MariaDB or MySQL.
///
/// They are not part of anybody's transaction, and `innodb_flush_log_at_trx_commit` must be 1: a number is durable before it is used.
///
/// # Table
///
/// [`MysqlSegments::prepare`] creates it where it is missing; whoever may not create tables has somebody else run
/// [`MysqlSegments::TABLE`]. To work, a user needs
///
/// ```sql
/// GRANT SELECT, INSERT, UPDATE ON baton_segments TO producer;
/// ```
#[derive(Debug, Clone)]
pub struct MysqlSegments {
    pool: Pool,
    numbers: Numbers,
}

impl MysqlSegments {
    /// The statement that [`MysqlSegments::prepare`] runs. May be run any number of times.
    pub const TABLE: &'static str = TABLE;

    /// The numbers of this name, in the database of these connections; each question takes one, for a moment.
    pub fn new(pool: Pool, numbers: Numbers) -> Self {
        Self { pool, numbers }
    }

    /// Creates the table where it is not there yet.
    pub async fn prepare(&self) -> Result<(), GuardError> {
        let doing = "creating the table of segments";
        let mut connection =
            self.pool.get_conn().await.map_err(|error| GuardError::Unavailable { doing, source: error.into() })?;
        connection.query_drop(TABLE).await.map_err(|error| GuardError::Refused { doing, source: error.into() })
    }
}

impl SegmentSource for MysqlSegments {
    fn allot(&self) -> SegmentFuture {
        let Self { pool, numbers } = self.clone();
        within(async move {
            let mut connection = pool.get_conn().await?;
            connection.exec_drop(ALLOT, (numbers.name.as_bytes(), numbers.length, numbers.length)).await?;
            let next = connection.last_insert_id().ok_or("the server did not say which numbers it allotted")?;
            numbers.before(i64::try_from(next)?)
        })
    }
}

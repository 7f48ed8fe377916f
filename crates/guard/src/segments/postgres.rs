//! Segments from Postgres.

use deadpool_postgres::{Object, Pool};

use super::numbers::{Numbers, within};
use super::{SegmentFuture, SegmentSource};
use crate::GuardError;

/// Held while the table is created; any number that nobody else uses.
const PREPARE_LOCK: i64 = 0x6261_746f_6e23;

const TABLE: &str = r#"
CREATE TABLE IF NOT EXISTS baton_segments (
  name       text COLLATE "C" PRIMARY KEY,
  next       bigint NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50)"#;

/// One statement, so that two who ask at once wait for each other in the row's lock.
const ALLOT: &str = "INSERT INTO baton_segments (name, next) VALUES ($1, 1 + $2::bigint) \
ON CONFLICT (name) DO UPDATE SET next = baton_segments.next + $2::bigint, changed_at = now() RETURNING next";

/// Segments of numbers from a row of Postgres.
///
/// They are not part of anybody's transaction, and `synchronous_commit` must not be `off`: a number is durable before it is used.
///
/// # Table
///
/// [`PostgresSegments::prepare`] creates it where it is missing; whoever may not create tables has somebody else run
/// [`PostgresSegments::TABLE`]. To work, a role needs `USAGE` on the schema and
///
/// ```sql
/// GRANT SELECT, INSERT, UPDATE ON baton_segments TO producer;
/// ```
#[derive(Debug, Clone)]
pub struct PostgresSegments {
    pool: Pool,
    numbers: Numbers,
}

impl PostgresSegments {
    /// The SQL that [`PostgresSegments::prepare`] runs. May be run any number of times.
    pub const TABLE: &'static str = TABLE;

    /// The numbers of this name, in the database of these connections; each question takes one, for a moment.
    pub fn new(pool: Pool, numbers: Numbers) -> Self {
        Self { pool, numbers }
    }

    /// Creates the table where it is not there yet. Two that do so at once do not disturb each other.
    pub async fn prepare(&self) -> Result<(), GuardError> {
        let doing = "creating the table of segments";
        let client = self.pool.get().await.map_err(|error| GuardError::Unavailable { doing, source: error.into() })?;
        // Postgres can fail one of two that create the same table at the same time, in spite of IF NOT EXISTS.
        let locked = format!("BEGIN; SELECT pg_advisory_xact_lock({PREPARE_LOCK}); {TABLE}; COMMIT");
        if let Err(error) = client.batch_execute(&locked).await {
            // The transaction that failed is still open: the connection must not go back to the others like this.
            drop(Object::take(client));
            return Err(GuardError::Refused { doing, source: error.into() });
        }
        Ok(())
    }
}

impl SegmentSource for PostgresSegments {
    fn allot(&self) -> SegmentFuture {
        let Self { pool, numbers } = self.clone();
        within(async move {
            let client = pool.get().await?;
            let statement = client.prepare_cached(ALLOT).await?;
            let row = client.query_one(&statement, &[&numbers.name, &i64::from(numbers.length)]).await?;
            numbers.before(row.try_get(0)?)
        })
    }
}

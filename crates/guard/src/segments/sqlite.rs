//! Segments from SQLite.

use rusqlite::params;

use super::numbers::{Numbers, within};
use super::{SegmentFuture, SegmentSource};
use crate::{GuardError, Sqlite};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS baton_segments (
  name TEXT PRIMARY KEY NOT NULL, next INTEGER NOT NULL, changed_at INTEGER NOT NULL DEFAULT (unixepoch())) WITHOUT ROWID";

const ALLOT: &str = "INSERT INTO baton_segments (name, next) VALUES (?1, 1 + ?2) \
ON CONFLICT (name) DO UPDATE SET next = next + ?2, changed_at = unixepoch() RETURNING next";

/// Segments of numbers from a row of SQLite, for the processes of one machine. [`SqliteSegments::prepare`] creates the table.
#[derive(Debug, Clone)]
pub struct SqliteSegments {
    sqlite: Sqlite,
    numbers: Numbers,
}

impl SqliteSegments {
    /// The numbers of this name, in this database.
    pub fn new(sqlite: &Sqlite, numbers: Numbers) -> Self {
        Self { sqlite: sqlite.clone(), numbers }
    }

    /// Creates the table where it is not there yet.
    pub async fn prepare(&self) -> Result<(), GuardError> {
        let created = self.sqlite.run(|connection| connection.execute_batch(TABLE)).await?;
        created.map_err(|error| GuardError::Refused { doing: "creating the table of segments", source: error.into() })
    }
}

impl SegmentSource for SqliteSegments {
    fn allot(&self) -> SegmentFuture {
        let Self { sqlite, numbers } = self.clone();
        within(async move {
            let (name, length) = (numbers.name.clone(), numbers.length);
            let ask = move |connection: &rusqlite::Connection| {
                connection.query_row(ALLOT, params![name, length], |row| row.get(0))
            };
            numbers.before(sqlite.run(ask).await??)
        })
    }
}

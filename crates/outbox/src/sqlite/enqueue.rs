//! Writing messages with `rusqlite`.

use baton_core::{Message, MessageId};
use rusqlite::{Connection, Error, params};

use super::{refused, sql};
use crate::enqueue::new_row;
use crate::{Duplicate, NewRow, Outbox, OutboxError};

impl Outbox {
    /// [`Outbox::enqueue`] for SQLite, whose client does not wait asynchronously: a [`rusqlite::Transaction`] can be given as it is.
    ///
    /// The connection must be as durable as SQLite makes it by default, `synchronous = FULL`: with less a power failure takes back what was
    /// committed, while its message may have been sent.
    ///
    /// # Errors
    /// As [`OutboxError`] says; the transaction is to be rolled back.
    pub fn enqueue_sqlite(&self, connection: &Connection, message: Message) -> Result<MessageId, OutboxError> {
        let row = new_row(message)?;
        insert(connection, &row, self.duplicate)?;
        Ok(row.id)
    }

    /// The same for many.
    ///
    /// # Errors
    /// As [`Outbox::enqueue_sqlite`].
    pub fn enqueue_all_sqlite(
        &self,
        connection: &Connection,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<MessageId>, OutboxError> {
        let rows = messages.into_iter().map(new_row).collect::<Result<Vec<_>, _>>()?;
        rows.iter().try_for_each(|row| insert(connection, row, self.duplicate))?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}

fn insert(connection: &Connection, row: &NewRow, duplicate: Duplicate) -> Result<(), OutboxError> {
    let written = || -> Result<usize, Error> {
        connection.prepare_cached(sql::INSERT)?.execute(params![
            row.id.as_str(),
            row.topic,
            row.key.as_deref(),
            row.payload.as_deref(),
            row.headers,
            row.partition,
            row.timestamp_ms
        ])
    };
    match written().map_err(|error| refused("writing to the outbox", error))? {
        0 if duplicate == Duplicate::Refuse => Err(OutboxError::Duplicate(row.id.to_string())),
        _ => Ok(()),
    }
}

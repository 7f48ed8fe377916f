//! Finding rows on SQLite.

use std::sync::Arc;

use baton_core::MessageId;
use baton_core::relay::Row;
use bytes::Bytes;
use rusqlite::types::{FromSqlError, Type, ValueRef};
use rusqlite::{Connection, Error, params};

use super::link::Link;
use super::{SHARD, sql};
use crate::store::{bytes_of, is_full};
use crate::{Found, Look, OutboxFuture, OutboxRow, Search};

/// SQLite has one writer at a time, from its first statement that writes to its commit, and a position is one above all that committed
/// before. So rows become visible in the order of their positions, and all that was not seen lies behind all that was.
pub(super) struct SqliteSearch {
    link: Link,
    cursor: i64,
}

impl SqliteSearch {
    pub(super) fn new(link: Link) -> Self {
        Self { link, cursor: 0 }
    }
}

impl Search for SqliteSearch {
    fn next<'a>(&'a mut self, look: &'a Look) -> OutboxFuture<'a, Found> {
        Box::pin(async move {
            // Until it is known what came.
            let cursor = if look.restart { 0 } else { self.cursor };
            self.cursor = 0;
            let found = if look.shards.contains(&SHARD) {
                let wanted = look.clone();
                self.link.run("looking for rows", move |connection| page(connection, cursor, &wanted)).await?
            } else {
                Found::default()
            };
            self.cursor = found.rows.last().map_or(cursor, |row| row.position);
            Ok(found)
        })
    }
}

fn page(connection: &Connection, after: i64, look: &Look) -> Result<Found, Error> {
    let mut statement = connection.prepare_cached(sql::PAGE)?;
    let mut found = statement.query(params![after, i64::try_from(look.rows_max).unwrap_or(i64::MAX)])?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let row = decode(row)?;
        bytes += bytes_of(&row);
        rows.push(row);
        if bytes >= look.bytes_max {
            break;
        }
    }
    let more = is_full(&rows, look);
    Ok(Found { rows, more })
}

/// Text and bytes are the same thing here: programs write either.
pub(super) fn bytes(value: ValueRef<'_>) -> Result<Option<Bytes>, FromSqlError> {
    match value {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Some(Bytes::copy_from_slice(bytes))),
        ValueRef::Integer(_) | ValueRef::Real(_) => Err(FromSqlError::InvalidType),
    }
}

/// SQLite does not look whether a text is one. What is none will be parked for what it is then: an unknown topic, headers that are no JSON.
pub(super) fn text(value: ValueRef<'_>) -> Result<Option<String>, FromSqlError> {
    Ok(bytes(value)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

pub(super) fn decode(row: &rusqlite::Row<'_>) -> Result<Row<OutboxRow>, Error> {
    let id: String = row.get(3)?;
    let id = MessageId::new(id).map_err(|error| Error::FromSqlConversionFailure(3, Type::Text, error.into()))?;
    let partition: Option<i64> = row.get(6)?;
    Ok(Row {
        position: row.get(0)?,
        shard: SHARD,
        topic: Arc::from(text(row.get_ref(1)?)?.unwrap_or_default()),
        key: bytes(row.get_ref(2)?)?,
        id,
        item: OutboxRow {
            payload: bytes(row.get_ref(4)?)?,
            headers: text(row.get_ref(5)?)?,
            // One that is too large is there nowhere, and parked with that reason.
            partition: partition.map(|partition| u32::try_from(partition).unwrap_or(u32::MAX)),
            written_ms: row.get(7)?,
            timestamp_ms: row.get(8)?,
        },
    })
}

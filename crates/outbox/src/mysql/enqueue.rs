//! Writing messages with `mysql_async`.

use std::future::Future;
use std::pin::Pin;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Transaction, Value};

use super::{DUPLICATE_KEY, refused, sql};
use crate::{Duplicate, Enqueue, NewRow, OutboxError};

/// Rows that one statement writes: more gains nothing.
const CHUNK_ROWS: usize = 200;
/// Bytes that one statement writes, if it writes more than one row: what every server takes, unless `max_allowed_packet` was made very small.
const CHUNK_BYTES: usize = 2 << 20;

type Inserting<'a> = Pin<Box<dyn Future<Output = Result<Vec<bool>, OutboxError>> + Send + 'a>>;

impl Enqueue for Transaction<'_> {
    fn insert<'a>(&'a mut self, rows: &'a [NewRow], duplicate: Duplicate) -> Inserting<'a> {
        Box::pin(insert(self, |transaction| transaction.affected_rows(), rows, duplicate))
    }
}

/// For a connection whose transaction was opened by hand.
impl Enqueue for Conn {
    fn insert<'a>(&'a mut self, rows: &'a [NewRow], duplicate: Duplicate) -> Inserting<'a> {
        Box::pin(insert(self, |connection| connection.affected_rows(), rows, duplicate))
    }
}

async fn insert<C: Queryable>(
    connection: &mut C,
    affected: fn(&C) -> u64,
    rows: &[NewRow],
    duplicate: Duplicate,
) -> Result<Vec<bool>, OutboxError> {
    let doing = "writing to the outbox";
    if duplicate == Duplicate::Refuse {
        for chunk in chunks(rows) {
            let values = Params::Positional(chunk.iter().flat_map(values).collect());
            let inserted = connection.exec_drop(sql::insert(chunk.len()), values).await;
            inserted.map_err(|error| duplicate_of(&error, chunk).unwrap_or_else(|| refused(doing, error)))?;
        }
        return Ok(vec![true; rows.len()]);
    }
    let mut new = Vec::with_capacity(rows.len());
    for row in rows {
        let values = Params::Positional(values(row).into());
        connection.exec_drop(sql::insert_new(), values).await.map_err(|error| refused(doing, error))?;
        new.push(affected(connection) == 1);
    }
    Ok(new)
}

fn values(row: &NewRow) -> [Value; 7] {
    [
        row.id.as_str().into(),
        row.topic.as_str().into(),
        row.key.as_deref().into(),
        row.payload.as_deref().into(),
        row.headers.as_deref().into(),
        row.partition.into(),
        row.timestamp_ms.into(),
    ]
}

fn duplicate_of(error: &Error, rows: &[NewRow]) -> Option<OutboxError> {
    let Error::Server(answer) = error else { return None };
    // It says: Duplicate entry 'order-17' for key 'baton_outbox_id'.
    let named = |row: &&NewRow| answer.message.contains(&format!("'{}'", row.id));
    let id = rows.iter().find(named).map(|row| row.id.to_string());
    (answer.code == DUPLICATE_KEY).then(|| OutboxError::Duplicate(id.unwrap_or_else(|| answer.message.clone())))
}

/// At most [`CHUNK_ROWS`] and [`CHUNK_BYTES`] in each, and one row at least.
fn chunks(mut rows: &[NewRow]) -> impl Iterator<Item = &[NewRow]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |row: &&NewRow| {
            let of = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
            bytes += of(&row.key) + of(&row.payload) + row.headers.as_ref().map_or(0, String::len);
            bytes <= CHUNK_BYTES
        };
        let count = rows.iter().take(CHUNK_ROWS).take_while(fits).count().max(1).min(rows.len());
        let (chunk, rest) = rows.split_at(count);
        rows = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

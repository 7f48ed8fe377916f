//! Writing messages with `tokio-postgres`.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Transaction};

use super::{refused, sql};
use crate::{Duplicate, Enqueue, NewRow, OutboxError};

type Inserting<'a> = Pin<Box<dyn Future<Output = Result<Vec<bool>, OutboxError>> + Send + 'a>>;

impl Enqueue for Transaction<'_> {
    fn insert<'a>(&'a mut self, rows: &'a [NewRow], duplicate: Duplicate) -> Inserting<'a> {
        Box::pin(async move {
            let columns = Columns::of(rows);
            let inserted = self.query(sql::INSERT, &columns.parameters()).await;
            columns.judge(inserted, rows, duplicate)
        })
    }
}

/// For a connection whose transaction was opened by hand.
impl Enqueue for Client {
    fn insert<'a>(&'a mut self, rows: &'a [NewRow], duplicate: Duplicate) -> Inserting<'a> {
        Box::pin(async move {
            let columns = Columns::of(rows);
            let inserted = self.query(sql::INSERT, &columns.parameters()).await;
            columns.judge(inserted, rows, duplicate)
        })
    }
}

/// Rows as arrays, one for each column.
struct Columns<'a> {
    ids: Vec<&'a str>,
    topics: Vec<&'a str>,
    keys: Vec<Option<&'a [u8]>>,
    payloads: Vec<Option<&'a [u8]>>,
    headers: Vec<Option<&'a str>>,
    partitions: Vec<Option<i32>>,
    occurred: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a [NewRow]) -> Self {
        Self {
            ids: rows.iter().map(|row| row.id.as_str()).collect(),
            topics: rows.iter().map(|row| row.topic.as_str()).collect(),
            keys: rows.iter().map(|row| row.key.as_deref()).collect(),
            payloads: rows.iter().map(|row| row.payload.as_deref()).collect(),
            headers: rows.iter().map(|row| row.headers.as_deref()).collect(),
            partitions: rows.iter().map(|row| row.partition).collect(),
            occurred: rows.iter().map(|row| row.timestamp_ms).collect(),
        }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 7] {
        let Self { ids, topics, keys, payloads, headers, partitions, occurred } = self;
        [ids, topics, keys, payloads, headers, partitions, occurred]
    }

    fn judge(
        &self,
        inserted: Result<Vec<Row>, Error>,
        rows: &[NewRow],
        duplicate: Duplicate,
    ) -> Result<Vec<bool>, OutboxError> {
        let failed = |error| refused("writing to the outbox", error);
        let inserted = inserted.map_err(failed)?;
        let new = inserted.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<&str>, _>>().map_err(failed)?;
        // Of two with one id in one call, the first one is new.
        let mut new = new;
        let new: Vec<bool> = rows.iter().map(|row| new.remove(row.id.as_str())).collect();
        match new.iter().position(|new| !new).filter(|_| duplicate == Duplicate::Refuse) {
            Some(at) => Err(OutboxError::Duplicate(rows[at].id.to_string())),
            None => Ok(new),
        }
    }
}

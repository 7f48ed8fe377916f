//! Finding rows on Postgres.

use baton_core::MessageId;
use baton_core::relay::Row;
use bytes::Bytes;
use std::sync::Arc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row as PostgresRow};

use super::link::Link;
use super::{refused, sql};
use crate::store::is_full;
use crate::{Found, Look, OutboxError, OutboxFuture, OutboxRow, Search};

const DOING: &str = "looking for rows";

/// Every row is found by one of two conditions: it lies behind all that was seen, or its transaction was open when the last snapshot was taken.
/// The second is what makes a late commit no different from any other, and it is true by the meaning of a snapshot: whatever one does not
/// show and the next does was written by a transaction that was open in the first.
pub(super) struct PostgresSearch {
    pub(super) link: Arc<Link>,
    cursor: i64,
    /// What was open when all up to the cursor was seen; nothing before the first query.
    open: Option<Snapshot>,
    /// Late rows that did not come with one query: how far they have come, and the snapshot that all of them are taken from, so that
    /// none of a key comes before one that became visible meanwhile.
    late: Option<(i64, String)>,
}

/// A snapshot of Postgres: who was open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot {
    /// These.
    open: Vec<String>,
    /// And everything from this one on.
    next: String,
}

impl Snapshot {
    /// `xmin:xmax:xip,xip,..`, as `pg_current_snapshot()` writes it.
    fn parse(text: &str) -> Result<Self, OutboxError> {
        let parts: Vec<&str> = text.split(':').collect();
        let [_, next, open] = parts[..] else { return Err(OutboxError::Corrupt(format!("the snapshot {text}"))) };
        let open = open.split(',').filter(|xid| !xid.is_empty()).map(str::to_owned).collect();
        Ok(Self { open, next: next.to_owned() })
    }
}

impl PostgresSearch {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, cursor: 0, open: None, late: None }
    }

    async fn query(&mut self, look: &Look) -> Result<Found, OutboxError> {
        let failed = |error| refused(DOING, error);
        let link = Arc::clone(&self.link);
        let (mut turn, new) = link.turn().await.map_err(failed)?;
        if new {
            // It may be another server by now, on which snapshots and positions of the one before mean nothing.
            self.restart();
        }
        let session = turn.session();
        // Here, and not while the rest is sent: to prepare is a way there and back, once for each connection.
        let snapshot = session.prepare(sql::SNAPSHOT).await.map_err(failed)?;
        let late = session.prepare(sql::LATE).await.map_err(failed)?;
        let page = session.prepare(sql::PAGE).await.map_err(failed)?;
        let client = &session.client;
        let shards: Vec<i16> = look.shards.iter().map(|shard| i16::try_from(*shard).unwrap_or(i16::MAX)).collect();
        let rows_max = i64::try_from(look.rows_max).unwrap_or(i64::MAX);
        let bytes_max = i64::try_from(look.bytes_max).unwrap_or(i64::MAX);
        let none = Snapshot { open: Vec::new(), next: u64::MAX.to_string() };
        let before = self.open.as_ref().unwrap_or(&none);
        let (after, first) = self.late.as_ref().map_or((0, None), |(after, first)| (*after, Some(first)));
        let of_late: [&(dyn ToSql + Sync); 8] =
            [&shards, &rows_max, &bytes_max, &self.cursor, &before.open, &before.next, &after, &first];
        let of_page: [&(dyn ToSql + Sync); 4] = [&shards, &rows_max, &bytes_max, &self.cursor];
        // One snapshot, and one way there and back.
        let (begun, now, late, page, ended) = tokio::join!(
            biased;
            client.batch_execute(sql::BEGIN_SEARCH),
            client.query_one(&snapshot, &[]),
            client.query(&late, &of_late),
            client.query(&page, &of_page),
            client.batch_execute("COMMIT"),
        );
        begun.and(ended).map_err(failed)?;
        let now: String = now.and_then(|row| row.try_get(0)).map_err(failed)?;
        let (late, page) = (late.map_err(failed)?, page.map_err(failed)?);
        turn.keep();
        self.take(now, &late, &page, look)
    }

    fn take(
        &mut self,
        now: String,
        late: &[PostgresRow],
        page: &[PostgresRow],
        look: &Look,
    ) -> Result<Found, OutboxError> {
        let mut rows = decode(late)?;
        if is_full(&rows, look) {
            let first = self.late.take().map_or(now, |(_, first)| first);
            self.late = rows.last().map(|row| (row.position, first));
            return Ok(Found { rows, more: true });
        }
        if let Some((_, first)) = self.late.take() {
            // The page is of a newer snapshot than these.
            self.open = Some(Snapshot::parse(&first)?);
            return Ok(Found { rows, more: true });
        }
        let of_page = decode(page)?;
        let more = is_full(&of_page, look);
        self.open = Some(Snapshot::parse(&now)?);
        self.cursor = of_page.last().map_or(self.cursor, |row| row.position);
        rows.extend(of_page);
        Ok(Found { rows, more })
    }

    fn restart(&mut self) {
        (self.cursor, self.open, self.late) = (0, None, None);
    }
}

impl Search for PostgresSearch {
    fn next<'a>(&'a mut self, look: &'a Look) -> OutboxFuture<'a, Found> {
        Box::pin(async move {
            if look.restart {
                self.restart();
            }
            let found = self.query(look).await;
            if found.is_err() {
                self.restart();
            }
            found
        })
    }
}

pub(super) fn decode(rows: &[PostgresRow]) -> Result<Vec<Row<OutboxRow>>, OutboxError> {
    let mut topic: Arc<str> = Arc::from("");
    let decoded = rows.iter().map(|row| {
        let id: &str = row.try_get(4).map_err(|error| refused(DOING, error))?;
        let id = MessageId::new(id).map_err(|error| OutboxError::Corrupt(format!("the id {id:?} ({error})")))?;
        decode_row(row, id, &mut topic).map_err(|error| refused(DOING, error))
    });
    decoded.collect()
}

fn decode_row(row: &PostgresRow, id: MessageId, last_topic: &mut Arc<str>) -> Result<Row<OutboxRow>, Error> {
    let bytes = |column| row.try_get::<_, Option<&[u8]>>(column).map(|bytes| bytes.map(Bytes::copy_from_slice));
    let position: i64 = row.try_get(0)?;
    let shard: i16 = row.try_get(1)?;
    let topic: &str = row.try_get(2)?;
    if topic != &**last_topic {
        *last_topic = Arc::from(topic);
    }
    let partition: Option<i32> = row.try_get(7)?;
    Ok(Row {
        position,
        shard: shard.unsigned_abs(),
        topic: Arc::clone(last_topic),
        key: bytes(3)?,
        id,
        item: OutboxRow {
            payload: bytes(5)?,
            headers: row.try_get(6)?,
            // A negative one is there nowhere, and parked with that reason.
            partition: partition.map(|partition| u32::try_from(partition).unwrap_or(u32::MAX)),
            written_ms: row.try_get(8)?,
            timestamp_ms: row.try_get(9)?,
        },
    })
}

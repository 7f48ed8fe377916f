//! Finding rows on MariaDB and MySQL.

use std::collections::HashSet;
use std::sync::Arc;

use baton_core::MessageId;
use baton_core::relay::Row;
use bytes::Bytes;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row as MysqlRow};

use super::link::Link;
use super::{Naps, POSITIONS_MAX, listed, refused, sql};
use crate::{Found, Look, OutboxError, OutboxFuture, OutboxRow, Search};

const DOING: &str = "looking for rows";

/// How many rows that were brought may still be in the table: 10 MiB of memory, and what the server reads of an index for each query. More are
/// there only when very many rows wait behind parked ones, or for what takes nothing. Then nothing behind them is brought until somebody has looked at those.
pub(super) const BROUGHT_MAX: usize = 100_000;

/// InnoDB shows nobody which transactions are open, so this remembers which rows it has brought, as long as they are in the table, and brings
/// whatever else there is. Each query is one snapshot, in which it reads
///
/// 1. the positions of all rows up to the cursor, from an index that holds nothing else. Those that were not brought are **late**: their
///    transactions committed after larger positions were seen. What was brought and is not there any more is forgotten.
/// 2. the **page**: rows behind the cursor, by position. The cursor moves to the last one.
///
/// Late rows come by position, as far as there is room; the page comes, behind them, only if all late rows fit.
///
/// *Nothing is skipped*: a row that is there and was not brought lies behind the cursor, where a page finds it, or up to it, where it is late.
///
/// *Rows of a key come by position*: let a be before b in the table, and be seen by everybody who sees b, as it is when something made their
/// transactions wait for each other. Then any snapshot from which b is brought shows a. Is a behind the cursor, so is b, and the page has a
/// first. Is a up to the cursor, it was brought before, or is late. If b is late, too, a comes first, and is not cut off without b, since
/// what is cut off is the end. If b is of the page, that comes only if a fits.
pub(super) struct MysqlSearch {
    link: Arc<Link>,
    naps: Arc<Naps>,
    cursor: i64,
    brought: HashSet<i64>,
}

/// Which rows are to be brought.
struct Chosen {
    positions: Vec<i64>,
    bytes: usize,
    full: bool,
}

impl Chosen {
    fn add(&mut self, position: i64, bytes: usize, look: &Look) {
        if !self.full {
            self.positions.push(position);
            self.bytes += bytes;
            self.full = self.positions.len() >= look.rows_max || self.bytes >= look.bytes_max;
        }
    }
}

impl MysqlSearch {
    pub(super) fn new(link: Arc<Link>, naps: Arc<Naps>) -> Self {
        Self { link, naps, cursor: 0, brought: HashSet::new() }
    }

    async fn query(&mut self, look: &Look) -> Result<Found, OutboxError> {
        let failed = |error| refused(DOING, error);
        if look.shards.is_empty() {
            return Ok(Found::default());
        }
        let link = Arc::clone(&self.link);
        let mut turn = link.turn().await.map_err(failed)?;
        let connection = &mut turn.connection;
        connection.query_drop(sql::BEGIN_SEARCH).await.map_err(failed)?;
        let mut chosen = Chosen { positions: Vec::new(), bytes: 0, full: false };
        let shards = listed(look.shards.iter());
        if self.cursor > 0 {
            self.choose_late(connection, &shards, look, &mut chosen).await.map_err(failed)?;
        }
        let mut cursor = self.cursor;
        if !chosen.full && self.brought.len() < BROUGHT_MAX {
            let rows_max = look.rows_max - chosen.positions.len();
            let page = connection.query(sql::page(&shards, cursor, rows_max)).await;
            let page: Vec<(i64, usize)> = page.map_err(failed)?;
            for (position, bytes) in page {
                if chosen.full {
                    break;
                }
                chosen.add(position, bytes, look);
                cursor = position;
            }
        }
        let rows = read(connection, &chosen.positions).await?;
        connection.query_drop("COMMIT").await.map_err(failed)?;
        turn.keep();
        self.cursor = cursor;
        self.brought.extend(chosen.positions);
        if self.brought.len() >= BROUGHT_MAX {
            tracing::error!(
                "{BROUGHT_MAX} rows wait in the table, behind parked ones or for topics and partitions that take nothing: what comes \
                 after them waits, too"
            );
        }
        if !rows.is_empty() {
            self.naps.rows_came();
        }
        Ok(Found { rows, more: chosen.full })
    }

    async fn choose_late(
        &mut self,
        connection: &mut Conn,
        shards: &str,
        look: &Look,
        chosen: &mut Chosen,
    ) -> Result<(), Error> {
        let present: Vec<i64> = connection.query(sql::present(shards, self.cursor)).await?;
        let mut late: Vec<i64> = Vec::new();
        let mut there = HashSet::with_capacity(self.brought.len());
        for position in present {
            if self.brought.contains(&position) {
                there.insert(position);
            } else {
                late.push(position);
            }
        }
        self.brought = there;
        late.sort_unstable();
        for some in late.chunks(POSITIONS_MAX) {
            let mut sizes: Vec<(i64, bool, usize)> = connection.query(sql::sizes(&listed(some))).await?;
            sizes.sort_unstable();
            for (position, parked, bytes) in sizes {
                if parked {
                    // Not to be looked at each time: when it is let go, the search begins again.
                    self.brought.insert(position);
                } else {
                    chosen.add(position, bytes, look);
                }
            }
            if chosen.full {
                break;
            }
        }
        Ok(())
    }
}

impl Search for MysqlSearch {
    fn next<'a>(&'a mut self, look: &'a Look) -> OutboxFuture<'a, Found> {
        Box::pin(async move {
            if look.restart {
                (self.cursor, self.brought) = (0, HashSet::new());
            }
            let found = self.query(look).await;
            if found.is_err() {
                (self.cursor, self.brought) = (0, HashSet::new());
            }
            found
        })
    }
}

/// These rows, as far as they are there, in the order in which they are named.
pub(super) async fn read(connection: &mut Conn, positions: &[i64]) -> Result<Vec<Row<OutboxRow>>, OutboxError> {
    let mut rows = Vec::with_capacity(positions.len());
    let mut topic: Arc<str> = Arc::from("");
    for some in positions.chunks(POSITIONS_MAX) {
        // Prepared and never again the same: as text it is one way there and back instead of two.
        let found: Vec<MysqlRow> =
            connection.query(sql::rows(&listed(some))).await.map_err(|error| refused(DOING, error))?;
        for row in found {
            rows.push(decode(row, &mut topic)?);
        }
    }
    Ok(rows)
}

type Columns =
    (i64, u16, Vec<u8>, Option<Vec<u8>>, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, i64, Option<i64>);

fn decode(row: MysqlRow, last_topic: &mut Arc<str>) -> Result<Row<OutboxRow>, OutboxError> {
    let damaged = |error: String| OutboxError::Corrupt(format!("a row of baton_outbox ({error})"));
    let columns: Result<Columns, _> = mysql_async::from_row_opt(row);
    let columns = columns.map_err(|error| damaged(error.to_string()))?;
    let (position, shard, topic, key, id, payload, headers, partition, written_ms, timestamp_ms) = columns;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let id = MessageId::new(text(id)).map_err(|error| damaged(error.to_string()))?;
    let topic = text(topic);
    if *topic != **last_topic {
        *last_topic = Arc::from(topic);
    }
    Ok(Row {
        position,
        shard,
        topic: Arc::clone(last_topic),
        key: key.map(Bytes::from),
        id,
        item: OutboxRow {
            payload: payload.map(Bytes::from),
            headers: headers.map(text),
            // A negative one is there nowhere, and parked with that reason.
            partition: partition.map(|partition| u32::try_from(partition).unwrap_or(u32::MAX)),
            written_ms,
            timestamp_ms,
        },
    })
}

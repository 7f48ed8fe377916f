//! The tables that rows are written into: filled before a run, or row by row at a rate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, NoTls};

use crate::Fallible;

/// A row's content begins with its number in so many digits.
pub const NUMBER_BYTES: usize = 12;
/// Rows of one transaction when a backlog is written.
const FILL_ROWS: u64 = 100;
/// Connections that write at a rate.
const WRITERS: u64 = 8;
/// Keys in a backlog, and at a rate.
const KEYS: u64 = 10_007;

/// Which layout of an outbox.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Baton's own.
    Baton,
    /// What Debezium's router expects by default.
    Debezium,
    /// A number, a topic, a key and content: enough for the naive loop.
    Naive,
}

impl Table {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baton => "baton_outbox",
            Self::Debezium => "outbox",
            Self::Naive => "naive_outbox",
        }
    }

    fn columns(self) -> &'static str {
        match self {
            Self::Baton | Self::Naive => "topic, key, payload",
            Self::Debezium => "aggregatetype, aggregateid, payload",
        }
    }

    /// As bytes or as text.
    fn value(self, expression: &str) -> String {
        match self {
            Self::Baton | Self::Naive => format!("convert_to({expression}, 'UTF8')"),
            Self::Debezium => expression.to_owned(),
        }
    }
}

/// Connects to the database of the run.
pub async fn connect(address: &str) -> Fallible<Client> {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Makes the tables that are not Baton's.
pub async fn create(client: &Client) -> Fallible<()> {
    let tables = "
        CREATE TABLE IF NOT EXISTS outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype varchar(255) NOT NULL,
          aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL DEFAULT 'bench', payload text);
        CREATE TABLE IF NOT EXISTS naive_outbox (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
          key bytea, payload bytea)";
    Ok(client.batch_execute(tables).await?)
}

/// What follows the number: nothing that could be compressed well, the same for all sides.
fn noise(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + u8::try_from(state % 26).unwrap_or(0))
    };
    (0..bytes.saturating_sub(NUMBER_BYTES)).map(letter).collect()
}

/// Writes the rows from one number to below another.
fn insert_series(table: Table, topic: &str, bytes: usize, from: &str, below: &str) -> String {
    let (name, columns, noise) = (table.name(), table.columns(), noise(bytes));
    let key = table.value(&format!("'k' || number % {KEYS}"));
    let payload = table.value(&format!("lpad(number::text, {NUMBER_BYTES}, '0') || '{noise}'"));
    format!(
        "INSERT INTO {name} ({columns}) SELECT '{topic}', {key}, {payload} FROM generate_series({from}, {below} - 1) AS number"
    )
}

/// A statement that writes the rows from `$1` to below `$2`.
pub fn insert_many(table: Table, topic: &str, bytes: usize) -> String {
    insert_series(table, topic, bytes, "$1::bigint", "$2::bigint")
}

/// Writes rows 0 to `rows`, a hundred to a transaction.
pub async fn fill(client: &Client, table: Table, topic: &str, rows: u64, bytes: usize) -> Fallible<()> {
    let transactions = rows.div_ceil(FILL_ROWS);
    let (from, below) = (format!("part * {FILL_ROWS}"), format!("least({rows}, (part + 1) * {FILL_ROWS})"));
    let insert = insert_series(table, topic, bytes, &from, &below);
    let sql = format!("DO $$ BEGIN FOR part IN 0..{transactions} - 1 LOOP {insert}; COMMIT; END LOOP; END $$");
    client.batch_execute("SET synchronous_commit = off").await?;
    client.batch_execute(&sql).await?;
    client.batch_execute("SET synchronous_commit = on").await?;
    settle(client).await
}

/// So that neither a checkpoint nor autovacuum falls into a measurement because of what was before.
pub async fn settle(client: &Client) -> Fallible<()> {
    for table in [Table::Baton, Table::Debezium, Table::Naive] {
        client.batch_execute(&format!("VACUUM ANALYZE {}", table.name())).await?;
    }
    Ok(client.batch_execute("CHECKPOINT").await?)
}

/// Empties all tables.
pub async fn empty(client: &Client) -> Fallible<()> {
    Ok(client.batch_execute("TRUNCATE baton_outbox, outbox, naive_outbox").await?)
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Writes rows 0 to `rows` one to a transaction, so many in a second; when each was committed, as its writer was told.
pub async fn write(address: &str, table: Table, topic: &str, rows: u64, rate: u64, bytes: usize) -> Fallible<Vec<i64>> {
    let began = Instant::now() + Duration::from_millis(200);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (client, topic, noise) = (connect(address).await?, topic.to_owned(), noise(bytes));
        writers.push(tokio::spawn(async move {
            let insert = format!("INSERT INTO {} ({}) VALUES ($1, $2, $3)", table.name(), table.columns());
            let insert = client.prepare(&insert).await?;
            let mut committed = Vec::new();
            let mut number = writer;
            while number < rows {
                sleep_until(began + Duration::from_micros(number * 1_000_000 / rate)).await;
                let (key, payload) = (format!("k{}", number % KEYS), format!("{number:012}{noise}"));
                match table {
                    Table::Debezium => client.execute(&insert, &[&topic, &key, &payload]).await?,
                    _ => client.execute(&insert, &[&topic, &key.as_bytes(), &payload.as_bytes()]).await?,
                };
                committed.push((number, now_us()));
                number += WRITERS;
            }
            Fallible::Ok(committed)
        }));
    }
    let mut all = vec![0; usize::try_from(rows)?];
    for writer in writers {
        for (number, at_us) in writer.await?? {
            all[usize::try_from(number)?] = at_us;
        }
    }
    Ok(all)
}

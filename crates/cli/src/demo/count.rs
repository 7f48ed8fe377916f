//! What came of it, counted in the databases with plain SQL and nothing of the library.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Error, OpenFlags, params};

use crate::Failure;

/// The service may be writing.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Made before anybody writes. There is no unique key: an order that is applied twice is there twice.
const BEANS: &str = "PRAGMA journal_mode = WAL; CREATE TABLE beans (order_id TEXT NOT NULL, beans INTEGER NOT NULL);";
const RECEIPTS: &str =
    "CREATE TABLE receipts (order_id TEXT NOT NULL PRIMARY KEY, message_id TEXT NOT NULL) WITHOUT ROWID;";

/// Each figure and the question that it answers.
const APPLIED: &str = "SELECT count(DISTINCT order_id) FROM beans";
const SENT: &str = "SELECT count(*) FROM sent.receipts";
const TOTAL: &str = "SELECT ifnull(sum(beans), 0) FROM beans";
const TWICE: &str = "SELECT count(*) FROM (SELECT order_id FROM beans GROUP BY order_id HAVING count(*) > 1)";
const MISSING: &str = "SELECT count(*) FROM sent.receipts WHERE order_id NOT IN (SELECT order_id FROM beans)";
const UNKNOWN: &str =
    "SELECT count(DISTINCT order_id) FROM beans WHERE order_id NOT IN (SELECT order_id FROM sent.receipts)";

/// What the databases say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    /// Orders with a receipt.
    pub sent: u64,
    /// Orders whose beans are there.
    pub applied: u64,
    /// All beans.
    pub beans: u64,
    /// Orders whose beans are there more than once.
    pub twice: u64,
    /// Orders with a receipt and without beans.
    pub missing: u64,
    /// Orders with beans and without a receipt.
    pub unknown: u64,
}

/// The database of the service, as seen from outside.
pub(super) struct Beans(Connection);

impl Beans {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let created = || -> Result<Connection, Error> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_WAIT)?;
            connection.execute_batch(BEANS)?;
            Ok(connection)
        };
        created().map(Self).map_err(|error| failed(path, &error))
    }

    /// Orders whose beans are there so far.
    pub(super) fn orders(&self) -> Result<u64, Failure> {
        number(&self.0, APPLIED).map_err(|error| Failure::failed("counting", &error))
    }
}

/// What was acknowledged, written down by who sent it.
pub(super) struct Receipts(Connection);

impl Receipts {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let created = || -> Result<Connection, Error> {
            let connection = Connection::open(path)?;
            connection.execute_batch(RECEIPTS)?;
            Ok(connection)
        };
        created().map(Self).map_err(|error| failed(path, &error))
    }

    pub(super) fn add(&mut self, receipts: &[(String, String)]) -> Result<(), Failure> {
        let mut add = || -> Result<(), Error> {
            let transaction = self.0.transaction()?;
            for (order, message) in receipts {
                transaction.execute("INSERT INTO receipts VALUES (?1, ?2)", params![order, message])?;
            }
            transaction.commit()
        };
        add().map_err(|error| Failure::failed("writing receipts down", &error))
    }
}

/// Counts, with a connection of its own that can only read.
pub(super) fn count(beans: &Path, receipts: &Path) -> Result<Count, Failure> {
    let counted = || -> Result<Count, Error> {
        let connection = Connection::open_with_flags(beans, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.execute("ATTACH DATABASE ?1 AS sent", params![receipts.to_string_lossy()])?;
        let number = |sql| number(&connection, sql);
        Ok(Count {
            sent: number(SENT)?,
            applied: number(APPLIED)?,
            beans: number(TOTAL)?,
            twice: number(TWICE)?,
            missing: number(MISSING)?,
            unknown: number(UNKNOWN)?,
        })
    };
    counted().map_err(|error| failed(beans, &error))
}

fn number(connection: &Connection, sql: &str) -> Result<u64, Error> {
    let number: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    u64::try_from(number).map_err(|_| Error::IntegralValueOutOfRange(0, number))
}

fn failed(path: &Path, error: &Error) -> Failure {
    Failure::failed(&path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_double_and_unknown_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let (beans, receipts) = (folder.path().join("beans.db"), folder.path().join("receipts.db"));
        let database = Beans::create(&beans).expect("created");
        let sent: Vec<_> = ["a", "b", "c", "d"].map(|order| (order.to_owned(), format!("id-{order}"))).into();
        Receipts::create(&receipts).expect("created").add(&sent).expect("added");
        for order in ["a", "b", "b", "x"] {
            database.0.execute("INSERT INTO beans VALUES (?1, 100)", [order]).expect("written");
        }
        let expected = Count { sent: 4, applied: 3, beans: 400, twice: 1, missing: 2, unknown: 1 };
        assert_eq!(count(&beans, &receipts).expect("counted"), expected);
    }
}

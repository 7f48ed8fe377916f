//! Connections that are opened when they are needed, and again after an error.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Error, OpenFlags};

use super::refused;
use crate::OutboxError;

/// How long a statement waits for the file's lock. SQLite has one writer at a time, so this is many transactions' time.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// A connection for one purpose. What runs on it blocks, and so has a thread that may.
#[derive(Clone)]
pub(super) struct Link {
    path: Arc<Path>,
    open: Arc<Mutex<Option<Connection>>>,
}

impl Link {
    pub(super) fn new(path: Arc<Path>) -> Self {
        Self { path, open: Arc::default() }
    }

    /// Runs something on the connection, and opens that if it is not open.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, OutboxError> {
        self.with(doing, OpenFlags::empty(), work).await
    }

    /// The same, and creates the file if it is not there.
    pub(super) async fn create<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, OutboxError> {
        self.with(doing, OpenFlags::SQLITE_OPEN_CREATE, work).await
    }

    async fn with<T: Send + 'static>(
        &self,
        doing: &'static str,
        flags: OpenFlags,
        work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let Self { path, open } = self.clone();
        // A caller who has given up may ask for something newer: what he waited for does not happen behind it.
        let waits = Arc::new(());
        let waiting = Arc::downgrade(&waits);
        let ran = tokio::task::spawn_blocking(move || {
            let mut slot = open.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.strong_count() == 0 {
                return Err(Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT), None));
            }
            let mut connection = match slot.take() {
                Some(connection) => connection,
                None => connect(&path, flags)?,
            };
            let done = work(&mut connection);
            // One that failed is closed: nobody knows what state it is in.
            if done.is_ok() {
                *slot = Some(connection);
            }
            done
        });
        let ran = ran.await;
        drop(waits);
        match ran {
            Ok(done) => done.map_err(|error| refused(doing, error)),
            Err(error) => Err(OutboxError::Unavailable { doing, source: error.into() }),
        }
    }
}

/// Durable: write-ahead log, and a sync for each commit.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

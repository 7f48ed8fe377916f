//! Connections that are opened when they are needed, and again when they are gone.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts};
use tokio::sync::{Mutex, MutexGuard};

use super::sql;

/// A connection for one purpose.
pub(super) struct Link {
    opts: Opts,
    open: Mutex<Option<Conn>>,
}

/// Somebody's turn on a link. Without [`Turn::keep`] the connection is closed at its end, which rolls back: nobody knows what state it is in.
pub(super) struct Turn<'a> {
    slot: MutexGuard<'a, Option<Conn>>,
    pub(super) connection: Conn,
}

impl Link {
    pub(super) fn new(opts: Opts) -> Self {
        Self { opts, open: Mutex::default() }
    }

    /// Waits for its turn; opens the connection if it is not open.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, Error> {
        let mut slot = self.open.lock().await;
        let connection = match slot.take() {
            Some(connection) => connection,
            None => {
                let mut connection = Conn::new(self.opts.clone()).await?;
                connection.query_drop(sql::SESSION).await?;
                connection
            }
        };
        Ok(Turn { slot, connection })
    }
}

impl Turn<'_> {
    /// The connection is in no transaction: the next one may have it.
    pub(super) fn keep(self) {
        let Self { mut slot, connection } = self;
        *slot = Some(connection);
    }
}

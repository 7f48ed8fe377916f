//! Connections that are opened when they are needed, and again when they are gone.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::poll_fn;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Socket, Statement};

use super::sql;

/// How long a connection may take to be opened, if the configuration names no time.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// A server that says nothing at all for so long is gone, and its connection with it.
const SILENCE_WAIT: Duration = Duration::from_secs(10);

type Opening = Pin<Box<dyn Future<Output = Result<Client, Error>> + Send>>;

/// Opens connections; what kind of TLS they have is forgotten here.
#[derive(Clone)]
pub(super) struct Connector(Arc<dyn Fn(Arc<Notify>) -> Opening + Send + Sync>);

impl Connector {
    pub(super) fn new<T>(mut config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as tokio_postgres::tls::TlsConnect<Socket>>::Future: Send,
    {
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WAIT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE_WAIT);
            config.keepalives_idle(SILENCE_WAIT);
        }
        if config.get_application_name().is_none() {
            config.application_name("baton-relay");
        }
        let config = Arc::new(config);
        Self(Arc::new(move |woken| {
            let (config, tls) = (Arc::clone(&config), tls.clone());
            Box::pin(async move {
                let (client, mut connection) = config.connect(tls).await?;
                tokio::spawn(async move {
                    let mut messages = poll_fn(move |context| connection.poll_message(context));
                    while let Some(message) = messages.next().await {
                        match message {
                            Ok(AsyncMessage::Notification(_)) => woken.notify_one(),
                            Ok(_) => {}
                            Err(_) => break,
                        }
                    }
                    // Whoever sleeps on it has to look what happened.
                    woken.notify_one();
                });
                Ok(client)
            })
        }))
    }
}

/// A connection for one purpose.
pub(super) struct Link {
    connector: Connector,
    pub(super) woken: Arc<Notify>,
    open: Mutex<Option<Session>>,
}

/// An open connection, and what was prepared on it.
pub(super) struct Session {
    pub(super) client: Client,
    prepared: HashMap<&'static str, Statement>,
}

impl Session {
    /// Prepared once for each connection.
    pub(super) async fn prepare(&mut self, sql: &'static str) -> Result<Statement, Error> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// Somebody's turn on a link. Without [`Turn::keep`] the connection is closed at its end: nobody knows what state it is in.
pub(super) struct Turn<'a> {
    slot: MutexGuard<'a, Option<Session>>,
    session: Option<Session>,
}

impl Link {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, woken: Arc::default(), open: Mutex::default() }
    }

    /// Waits for its turn; opens the connection if it is not open. Says whether it was opened now.
    pub(super) async fn turn(&self) -> Result<(Turn<'_>, bool), Error> {
        let mut slot = self.open.lock().await;
        if let Some(session) = slot.take().filter(|session| !session.client.is_closed()) {
            return Ok((Turn { slot, session: Some(session) }, false));
        }
        let client = (self.connector.0)(Arc::clone(&self.woken)).await?;
        client.batch_execute(sql::SESSION).await?;
        let session = Session { client, prepared: HashMap::new() };
        Ok((Turn { slot, session: Some(session) }, true))
    }
}

impl Turn<'_> {
    #[allow(clippy::expect_used, reason = "taken out only by the method that consumes the turn")]
    pub(super) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("a turn has its session until it is kept")
    }

    /// The connection is in no transaction: the next one may have it.
    pub(super) fn keep(mut self) {
        *self.slot = self.session.take();
    }
}

/// Whether something is there already.
pub(super) fn is_ready(notify: &Notify) -> bool {
    notify.notified().now_or_never().is_some()
}

//! Outboxes by the addresses of their databases.

use std::sync::Arc;

use baton::outbox::{MysqlOutbox, OutboxError, OutboxStore, PostgresOutbox, SqliteOutbox};
use clap::Args;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Failure;

/// Where the address comes from if it is not typed, so that passwords stand in no list of processes.
const DATABASE_VARIABLE: &str = "BATON_DATABASE";

/// Which database.
#[derive(Args)]
pub(crate) struct Database {
    /// The database's address: postgres://user@host/name, mysql://user@host/name (MariaDB, too), or sqlite:///path/to/file. With
    /// ?sslmode=require the certificate of Postgres is checked against the system's roots. If it is not given here, the environment variable BATON_DATABASE has it, which keeps a password out of the list of processes.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

impl Database {
    /// The outbox in it; nothing is connected yet.
    pub(crate) fn open(&self) -> Result<Arc<dyn OutboxStore>, Failure> {
        let address = match &self.database {
            Some(address) => address.clone(),
            None => std::env::var(DATABASE_VARIABLE)
                .map_err(|_| Failure::Usage(format!("no database: give --database URL, or set {DATABASE_VARIABLE}")))?,
        };
        match address.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => postgres(&address),
            Some("mysql" | "mariadb") => mysql(&address),
            Some("sqlite") => {
                let path = address.strip_prefix("sqlite://").or_else(|| address.strip_prefix("sqlite:"));
                Ok(Arc::new(SqliteOutbox::new(path.unwrap_or_default())))
            }
            _ => {
                Err(Failure::Usage("--database: an address begins with postgres://, mysql:// or sqlite://".to_owned()))
            }
        }
    }
}

fn mysql(address: &str) -> Result<Arc<dyn OutboxStore>, Failure> {
    let address = address.replacen("mariadb:", "mysql:", 1);
    let options = mysql_async::Opts::from_url(&address);
    let options = options.map_err(|error| Failure::failed("--database", &error))?;
    Ok(Arc::new(MysqlOutbox::new(options)))
}

fn postgres(address: &str) -> Result<Arc<dyn OutboxStore>, Failure> {
    // The error names what is wrong, and nothing of the address: a password may stand in it.
    let config: tokio_postgres::Config =
        address.parse().map_err(|error: tokio_postgres::Error| Failure::Usage(format!("--database: {error}")))?;
    if config.get_ssl_mode() == SslMode::Disable {
        return Ok(Arc::new(PostgresOutbox::new(config)));
    }
    let (tls, unread) = MakeRustlsConnect::with_native_certs().map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::Failed(format!("the system's certificates cannot be used: {}", errors.join("; ")))
    })?;
    for error in unread {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    Ok(Arc::new(PostgresOutbox::with_tls(config, tls)))
}

/// An error of an outbox, as a failure.
pub(crate) fn failed(error: OutboxError) -> Failure {
    match error {
        OutboxError::Caller(text) => Failure::Usage(text),
        other => Failure::Failed(other.to_string()),
    }
}

//! What a run is made of.

use std::time::Duration;

use clap::ValueEnum;

/// How long a message waits whose consumer died with a claim on it.
pub const CLAIM_LEASE: Duration = Duration::from_secs(4);

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// The broker of this project, in a process of its own: `baton serve`.
    Embedded,
    /// The broker of this project, in the process of a service that sends and consumes, and killed along with it.
    Service,
    /// Apache Kafka.
    Kafka,
    /// RabbitMQ.
    Rabbitmq,
}

/// What makes effects happen once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuardKind {
    /// A row for each message, in the effect's transaction.
    Inbox,
    /// A row for each sequence, in the effect's transaction.
    Frontier,
    /// A key in Redis, beside the effect.
    Claim,
}

/// Where the effects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatabaseKind {
    /// A file.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    Mariadb,
}

/// The name on the command line, and in messages.
pub(crate) fn name(value: impl ValueEnum) -> String {
    // Only values that are skipped on the command line have no name, and there are none.
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

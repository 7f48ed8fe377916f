//! The second driver: services that write into an outbox, relays that bring it to the engine, and both of their servers, killed at random.

mod book;
mod cast;
mod plan;
mod topic;

use std::path::Path;
use std::time::Instant;

use baton::{Baton, TopicSpec};
use tokio::runtime::Runtime;

use crate::child::failed;
use crate::faults::address;
use crate::history::History;
use crate::kinds::{DatabaseKind, EngineKind, name};
use crate::order::{PARTITIONS, TOPIC};
use crate::places::{CrashError, Places, verdict};
use crate::report::CrashReport;
use crate::run::drain;
use crate::servers::{Program, Server, database_address, start_database};
pub use book::{Book, BookError, Change, account, accounts};
use cast::{Addresses, Cast};
use plan::Plan;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// What carries the messages; not one in a service's own process.
    pub engine: EngineKind,
    /// Where the outbox is.
    pub database: DatabaseKind,
    /// How many rounds are played.
    pub rounds: u32,
    /// Fixes what is done, and when.
    pub seed: u64,
}

impl RelayOptions {
    /// The command that does the same again.
    pub fn replay(&self) -> String {
        let (engine, database) = (name(self.engine), name(self.database));
        format!(
            "cargo run -p baton-crash --bin relay -- run --rounds {} --engine {engine} --database {database} --seed {}",
            self.rounds, self.seed
        )
    }
}

/// Plays the rounds, waits until the outbox is empty, and has the topic judged; `folder` gets histories, databases and outputs.
///
/// # Errors
/// When the run could not be done, or somebody ended who was not killed.
pub fn run_relays(options: &RelayOptions, places: &Places, folder: &Path) -> Result<CrashReport, CrashError> {
    std::fs::create_dir_all(folder).map_err(CrashError::io(folder.display().to_string()))?;
    let program = Program::of_engine(options.engine)
        .ok_or_else(|| CrashError::Process("two relays need a broker in a process of its own".to_owned()))?;
    let server = Server::start(program, places, folder, None, &[])?;
    let database = start_database(options.database, places, folder)?;
    let (port, judged) = (
        database.as_ref().map(Server::port),
        database_address(options.database, folder, database.as_ref().map(Server::port)),
    );
    let addresses = Addresses {
        engine: address(options.engine, server.port()),
        database: relay_address(options.database, folder, port),
    };
    let engine = addresses.engine.clone();
    let mut cast = Cast::new(places, folder, options.seed, addresses, server, database)?;
    cast.enter()?;
    let began = Instant::now();
    let mut plan = Plan::new(options.seed);
    for _ in 0..options.rounds {
        cast.play(&plan.next_round())?;
    }
    cast.stop_services()?;
    let drained = drain(|| cast.left());
    cast.stop_relays()?;
    let history = History::create(folder, "topic")?;
    let runtime = Runtime::new().map_err(CrashError::io("threads to read the topic with"))?;
    runtime
        .block_on(async { tokio::spawn(async move { topic::read(&engine, &history).await }).await })
        .map_err(failed("reading the topic"))??;
    let (clean, mut said) = check_relays(places, folder, &judged)?;
    let drained_in_time = drained.is_ok();
    if let Err(error) = drained {
        said.push_str(&format!("{error}\n"));
    }
    let (rounds, kills, took) = (options.rounds, cast.kills, began.elapsed());
    Ok(CrashReport { said, clean: clean && drained_in_time, rounds, kills, took })
}

/// The verdict of `check_relay.py` over the histories in a folder and a database: whether it found nothing wrong, and what it printed.
///
/// # Errors
/// When it cannot be started.
pub fn check_relays(places: &Places, folder: &Path, database: &str) -> Result<(bool, String), CrashError> {
    verdict("check_relay.py", places, folder, database)
}

/// Creates the topic, what reads it, and the tables of the business.
///
/// # Errors
/// When the engine or the database refuses.
pub async fn prepare_relays(engine: &str, database: &str) -> Result<(), CrashError> {
    let baton = Baton::connect(engine).await.map_err(failed("connecting"))?;
    baton.create_topic(TopicSpec::new(TOPIC, PARTITIONS)).await.map_err(failed("creating the topic"))?;
    if engine.starts_with("amqp") {
        topic::bind_queues(engine).await?;
    }
    book::prepare(database).await
}

/// As `baton relay` reads it.
fn relay_address(kind: DatabaseKind, folder: &Path, port: Option<u16>) -> String {
    let port = port.unwrap_or_default();
    match kind {
        DatabaseKind::Sqlite => format!("sqlite://{}", folder.join("effects.db").display()),
        DatabaseKind::Postgres => format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable"),
        DatabaseKind::Mariadb => format!("mysql://root@127.0.0.1:{port}/test"),
    }
}

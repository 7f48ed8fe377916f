//! `baton relay` beside Debezium and beside a naive loop: rows per second from a backlog, and from the commit of a row to the engine.

// A command line program: what it finds out goes to standard output, what it does goes to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../../machine.rs"]
#[allow(dead_code, reason = "the other benchmark wants more of it")]
mod machine;
mod naive;
mod report;
mod sides;
mod soak;
mod table;
mod topic;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Parser};
use tokio_postgres::Client;

use crate::machine::Snapshot;
use crate::report::{Backlog, Figures, Latency};
use crate::sides::{Engine, Places, Process, Side};
use crate::topic::Topic;

/// Any error; it ends as one line on standard error.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The naive loop is stopped after so long.
const NAIVE_LASTS: Duration = Duration::from_secs(5);
/// A backlog is given up after so long.
const BACKLOG_WAIT: Duration = Duration::from_secs(600);
/// Rows at the beginning of a rate are not counted for so long.
const WARM_SECONDS: u64 = 1;

#[derive(Parser)]
#[command(name = "bench-relay")]
enum What {
    /// All sides in turns.
    Run(RunArguments),
    /// Rows through a relay while the tables are watched.
    Soak(soak::SoakArguments),
    /// The naive loop, as a process of its own.
    #[command(hide = true)]
    Naive {
        #[arg(long)]
        database: String,
        #[arg(long)]
        kafka: String,
    },
}

/// Where things are; scripts/bench-relay fills this in.
#[derive(Args, Clone)]
pub struct PlacesArguments {
    /// PostgreSQL with `wal_level=logical`, user `postgres` without a password.
    #[arg(long, env = "BENCH_POSTGRES")]
    postgres: String,
    /// Apache Kafka.
    #[arg(long, env = "BENCH_KAFKA", default_value = "")]
    kafka: String,
    /// The `baton` binary.
    #[arg(long, env = "BATON_BIN")]
    baton: PathBuf,
    /// Class path of Debezium's side.
    #[arg(long, env = "BENCH_CLASS_PATH", default_value = "")]
    class_path: String,
    /// Options of its virtual machine.
    #[arg(long, env = "BENCH_JVM_OPTS", default_value = "", allow_hyphen_values = true)]
    jvm_options: String,
    /// Data and logs.
    #[arg(long, env = "BENCH_DATA")]
    data: PathBuf,
    /// Process numbers of PostgreSQL and Kafka.
    #[arg(long, env = "BENCH_SERVERS", value_delimiter = ',')]
    servers: Vec<u32>,
    /// More arguments for `baton relay`.
    #[arg(long, env = "BENCH_RELAY_OPTS", default_value = "", allow_hyphen_values = true)]
    relay_options: String,
}

impl PlacesArguments {
    fn places(&self) -> Places {
        let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect();
        Places {
            postgres: self.postgres.clone(),
            kafka: self.kafka.clone(),
            baton: self.baton.clone(),
            java: (self.class_path.clone(), words(&self.jvm_options)),
            data: self.data.clone(),
            relay: words(&self.relay_options),
        }
    }
}

#[derive(Args)]
struct RunArguments {
    #[command(flatten)]
    places: PlacesArguments,
    /// Rounds; each runs every side once, in another order.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Sides: embedded, kafka, naive, debezium-N with N milliseconds between polls.
    #[arg(long, value_delimiter = ',', default_value = "embedded,kafka,debezium-500,debezium-10,debezium-1,naive")]
    sides: Vec<String>,
    /// Rows that wait before a relay is started.
    #[arg(long, default_value_t = 500_000)]
    rows: u64,
    /// The same for Debezium at other polls than its default, where it only warms up.
    #[arg(long, default_value_t = 50_000)]
    warm_rows: u64,
    /// Bytes of a row's content.
    #[arg(long, default_value_t = 500)]
    bytes: usize,
    /// Rows per second, one to a transaction.
    #[arg(long, value_delimiter = ',', default_value = "200,1000")]
    rates: Vec<u64>,
    /// Seconds at each rate that count.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
}

/// One turn of a side.
struct Turn<'a> {
    arguments: &'a RunArguments,
    places: &'a Places,
    client: &'a Client,
    side: Side,
    name: String,
    engine: Engine,
}

impl Turn<'_> {
    fn snapshot(&self) -> Fallible<Snapshot> {
        let mut servers = self.arguments.places.servers.clone();
        servers.extend(self.engine.broker.as_ref().map(Process::id));
        Snapshot::take(&servers, &self.places.data)
    }

    /// Rows that wait, and a relay that is started then.
    async fn backlog(&self) -> Fallible<(Backlog, Process)> {
        let RunArguments { rows, warm_rows, bytes, .. } = *self.arguments;
        let rows = if matches!(self.side, Side::Debezium(poll) if poll != 500) { warm_rows } else { rows };
        let topic = Topic::create(&self.engine.address, &format!("{}-backlog", self.name)).await?;
        table::empty(self.client).await?;
        sides::prepare(self.side, self.client).await?;
        eprintln!("{}: writing {rows} rows", self.name);
        table::fill(self.client, self.side.table(), &topic.name, rows, bytes).await?;
        eprintln!("measuring {}: backlog", self.name);
        let before = self.snapshot()?;
        let mut relay = sides::start(self.side, self.places, &self.engine)?;
        let wait = if self.side == Side::Naive { NAIVE_LASTS } else { BACKLOG_WAIT };
        let brought = topic.holds(rows, wait).await?;
        let window = before.until(&self.snapshot()?);
        eprintln!("measured {}: backlog", self.name);
        relay.lives()?;
        // The naive loop stands still while its topic is read.
        let (brought, relay) = if self.side == Side::Naive {
            let peak = machine::resident_mib(&[relay.id()]).1;
            drop(relay);
            let brought = topic.holds(brought + 1, Duration::from_secs(1)).await?;
            let found = report::read_all(&topic, brought)?;
            let backlog = Backlog::of(&found, peak, &window);
            return Ok((backlog, sides::start(self.side, self.places, &self.engine)?));
        } else {
            (brought, relay)
        };
        if brought < rows {
            return Err(format!("{}: {brought} of {rows} rows after {} s", self.name, BACKLOG_WAIT.as_secs()).into());
        }
        let found = report::read_all(&topic, rows)?;
        Ok((Backlog::of(&found, machine::resident_mib(&[relay.id()]).1, &window), relay))
    }

    async fn latency(&self, rate: u64) -> Fallible<Latency> {
        let RunArguments { bytes, seconds, .. } = *self.arguments;
        let rows = rate * (seconds + WARM_SECONDS);
        let topic = Topic::create(&self.engine.address, &format!("{}-{rate}", self.name)).await?;
        table::settle(self.client).await?;
        let reading = topic.read(rows)?;
        // The reader is connected by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        eprintln!("measuring {}: {rate}/s", self.name);
        let before = self.snapshot()?;
        let database = self.places.database();
        let committed = table::write(&database, self.side.table(), &topic.name, rows, rate, bytes).await?;
        let found = tokio::task::spawn_blocking(move || reading.join()).await?;
        let window = before.until(&self.snapshot()?);
        eprintln!("measured {}: {rate}/s", self.name);
        let found = found.map_err(|_| "the reader panicked")??;
        Ok(Latency::of(rate, &committed, &found, rate * WARM_SECONDS, &window))
    }

    async fn run(&self) -> Fallible<Figures> {
        let (backlog, mut relay) = self.backlog().await?;
        let mut latencies = Vec::new();
        // What the naive loop left waits before new rows; its latency is that of its throughput.
        if self.side != Side::Naive {
            for rate in &self.arguments.rates {
                latencies.push(self.latency(*rate).await?);
            }
        }
        relay.lives()?;
        let peak_mib = machine::resident_mib(&[relay.id()]).1.max(backlog.peak_mib);
        let broker_peak_mib = self.engine.broker.as_ref().map(|broker| machine::resident_mib(&[broker.id()]).1);
        Ok(Figures { side: self.side, backlog, latencies, peak_mib, broker_peak_mib })
    }
}

async fn run(arguments: RunArguments) -> Fallible<()> {
    let places = arguments.places.places();
    let sides: Vec<Side> = arguments.sides.iter().map(|name| Side::parse(name)).collect::<Fallible<_>>()?;
    let client = prepare_database(&places).await?;
    report::head(&places, arguments.rows, arguments.bytes);
    let mut all = Vec::new();
    for round in 0..arguments.rounds {
        let mut turns = sides.clone();
        turns.rotate_left(round % sides.len());
        for side in turns {
            let name = format!("{}-{}", side.name(), round + 1);
            let engine = Engine::start(side, &places)?;
            let turn = Turn { arguments: &arguments, places: &places, client: &client, side, name, engine };
            let figures = turn.run().await.map_err(|error| format!("{}: {error}", turn.name))?;
            println!("{}", figures.line(round + 1));
            all.push(figures);
        }
        sides::prepare(Side::Naive, &client).await?;
    }
    report::medians(&sides, &arguments.rates, &all);
    Ok(())
}

/// Makes all tables.
async fn prepare_database(places: &Places) -> Fallible<Client> {
    let init = Command::new(&places.baton).args(["outbox", "init", "--database", &places.database()]).output()?;
    if !init.status.success() {
        return Err(String::from_utf8_lossy(&init.stderr).into_owned().into());
    }
    let client = table::connect(&places.database()).await?;
    table::create(&client).await?;
    Ok(client)
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match What::parse() {
        What::Run(arguments) => run(arguments).await,
        What::Soak(arguments) => soak::run(arguments).await,
        What::Naive { database, kafka } => naive::run(&database, &kafka).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

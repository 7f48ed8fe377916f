//! `baton relay`: brings the rows of an outbox to the engine.

mod metrics;

use std::time::Duration;

use baton::relay::{INFLIGHT_BYTES_MAX_DEFAULT, Relay, RelayError, RelayMetrics};
use baton::{Baton, ConnectError};
use clap::Args;
use tokio::runtime::Runtime;

use crate::database::{self, Database};
use crate::dead::time::age;
use crate::serve::start_logging;
use crate::signals::Signals;
use crate::{EXIT_INTERRUPTED, Failure, LogFormat, say};

/// Where the engine's address comes from if it is not typed.
const ENGINE_VARIABLE: &str = "BATON_ENGINE";
/// How long a relay waits for the engine when it is stopped.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How often a line says how it does, while something happens.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "Any number of relays may run on one outbox: they share its shards, and one that dies is replaced within its lease. Exit codes: 0 stopped \
                          as asked; 1 the database cannot be reached at the start, or its tables are not there; 2 a wrong argument; 130 stopped by a second Ctrl-C. What \
                          was not finished is sent by the next relay, under the same ids and stamps.";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct RelayArguments {
    #[command(flatten)]
    database: Database,
    /// The engine's address: kafka://host:port, amqp://host/vhost, or embedded:///path/to/data. If it is not given here, the environment
    /// variable BATON_ENGINE has it.
    #[arg(long, value_name = "ADDRESS")]
    engine: Option<String>,
    /// The name of this relay; no two may have the same one. One is made if none is given.
    #[arg(long)]
    member: Option<String>,
    /// How long a lease lasts: after so long a relay that died is replaced (500ms, 10s, 2m).
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = age)]
    lease: Duration,
    /// How often a database is looked at that does not say when rows are written.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = age)]
    poll: Duration,
    /// Rows that are worked on at a time.
    #[arg(long, value_name = "ROWS", default_value_t = baton_core::relay::ROWS_MAX_DEFAULT)]
    rows_max: usize,
    /// Bytes of rows in memory.
    #[arg(long, value_name = "BYTES", default_value_t = INFLIGHT_BYTES_MAX_DEFAULT)]
    inflight_bytes_max: usize,
    /// Keep rows for so long after they were sent (30m, 12h, 7d), and not delete them at once.
    #[arg(long, value_name = "TIME", value_parser = age)]
    keep_done: Option<Duration>,
    /// Send no evidence of what was claimed and acknowledged.
    #[arg(long)]
    no_evidence: bool,
    /// Serve Prometheus metrics over HTTP on this address.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// How log lines look. They go to stderr; the environment variable BATON_LOG says how much.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// Runs until a signal.
pub(crate) fn run(arguments: RelayArguments) -> Result<(), Failure> {
    start_logging(arguments.log_format)?;
    let runtime = Runtime::new().map_err(|error| Failure::failed("no threads could be started", &error))?;
    let outcome = runtime.block_on(relay(arguments));
    runtime.shutdown_background();
    outcome
}

async fn relay(arguments: RelayArguments) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let store = arguments.database.open()?;
    let engine = match &arguments.engine {
        Some(engine) => engine.clone(),
        None => std::env::var(ENGINE_VARIABLE)
            .map_err(|_| Failure::Usage(format!("no engine: give --engine ADDRESS, or set {ENGINE_VARIABLE}")))?,
    };
    let baton = match Baton::connect(engine).await {
        Ok(baton) => baton,
        Err(error @ ConnectError::Address(_)) => return Err(Failure::Usage(format!("--engine: {error}"))),
        Err(error) => return Err(Failure::failed("--engine", &error)),
    };
    let name = store.name().await.map_err(database::failed)?;
    let (kind, engine) = (store.kind(), baton.engine().name());
    let mut relay = baton
        .relay(store)
        .lease(arguments.lease)
        .poll(arguments.poll)
        .rows_max(arguments.rows_max)
        .inflight_bytes_max(arguments.inflight_bytes_max)
        .evidence(!arguments.no_evidence);
    if let Some(member) = arguments.member {
        relay = relay.member(member);
    }
    if let Some(kept) = arguments.keep_done {
        relay = relay.keep_done(kept);
    }
    let mut relay = relay.start().await.map_err(failure)?;
    let board = relay.board();
    let _served = match &arguments.metrics {
        Some(address) => {
            let served = metrics::serve(address, board.clone()).await;
            Some(served.map_err(|error| Failure::failed(&format!("--metrics {address}"), &error))?)
        }
        None => None,
    };
    say(&format!("The outbox {name} on {kind} goes to {engine}. Ctrl-C stops.\n"));
    tokio::select! {
        ended = relay.ended() => return ended.map_err(failure),
        () = signals.next() => {}
        () = tell(board) => {}
    }
    say(&format!("\nStopping: waiting up to {} s for the engine. Ctrl-C again stops at once.\n", STOP_WAIT.as_secs()));
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(EXIT_INTERRUPTED);
    });
    stop(relay).await
}

async fn stop(relay: Relay) -> Result<(), Failure> {
    let held = relay.metrics().held;
    relay.stop(STOP_WAIT).await.map_err(failure)?;
    say(if held == 0 { "Stopped.\n" } else { "Stopped; what was not finished is sent by the next relay.\n" });
    Ok(())
}

/// A line now and then while something happens; never resolves.
async fn tell(board: baton::relay::RelayBoard) {
    let mut last = RelayMetrics::default();
    loop {
        tokio::time::sleep(SAY_INTERVAL).await;
        let now = board.metrics();
        let sent = now.acknowledged - last.acknowledged;
        if sent > 0 || now.parked > last.parked {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = sent as f64 / SAY_INTERVAL.as_secs_f64();
            let (sent, parked, held, shards) = (now.acknowledged, now.parked, now.held, now.shards);
            tracing::info!(sent, rate, parked, held, shards, "relay");
        }
        last = now;
    }
}

fn failure(error: RelayError) -> Failure {
    match error {
        RelayError::Setting(text) => Failure::Usage(text),
        RelayError::Outbox(error) => database::failed(error),
        other => Failure::Failed(other.to_string()),
    }
}

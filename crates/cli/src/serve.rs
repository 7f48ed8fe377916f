//! `baton serve`: starts the broker, says so, and stops it when asked.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use baton_broker::{Broker, BrokerOptions, StartError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use crate::signals::Signals;
use crate::{EXIT_INTERRUPTED, Failure, LogFormat, ServeArguments, config, say, start_text};

/// How much is logged, as tracing's filters say it.
const LOG_VARIABLE: &str = "BATON_LOG";
const LOG_DEFAULT: &str = "info";

/// Serves until a signal; returns when everything is on the disk.
pub(crate) fn serve(arguments: ServeArguments) -> Result<(), Failure> {
    start_logging(arguments.log_format)?;
    let settings = config::load(arguments.config.as_deref(), &arguments.set)?;
    let shutdown_max = Duration::from_millis(settings.values().shutdown_max_ms);
    raise_open_files_limit(settings.values().connections_max);
    let data = arguments.data.clone();
    let options = BrokerOptions {
        data: arguments.data,
        listen: arguments.listen,
        advertised: arguments.advertised_listener,
        metrics: arguments.metrics,
        settings,
    };
    let runtime = Runtime::new().map_err(|error| Failure::Failed(format!("no threads could be started: {error}")))?;
    let outcome = runtime.block_on(run(options, data, shutdown_max));
    // A log that is still being opened after Ctrl-C is left as it is: opening it can be cut off at any point.
    runtime.shutdown_background();
    outcome
}

async fn run(options: BrokerOptions, data: PathBuf, shutdown_max: Duration) -> Result<(), Failure> {
    let began = Instant::now();
    // From the beginning: a signal while the log is being opened stops the broker as soon as it is open.
    let mut signals = Signals::new()?;
    let advertised = options.advertised.clone();
    let starting = Broker::start(options);
    let broker = tokio::select! {
        started = starting => started.map_err(failure)?,
        // Nothing was promised to anybody yet.
        () = signals.next() => return Ok(()),
    };
    let bootstrap = advertised.unwrap_or_else(|| broker.address().to_string());
    say(&start_text::text(&broker, &data, &bootstrap, began.elapsed()));
    tracing::info!(address = %broker.address(), data = %data.display(), "ready");
    tokio::select! {
        () = signals.next() => {}
        () = stopped_log(&broker) => {}
    }
    say(&format!(
        "\nStopping: waiting up to {} ms for requests to be answered. Ctrl-C again stops at once.\n",
        shutdown_max.as_millis()
    ));
    tokio::spawn(async move {
        signals.next().await;
        // What was acknowledged is on the disk; the next start reads a little more of the log than after a clean stop.
        std::process::exit(EXIT_INTERRUPTED);
    });
    let was_cut = broker.stop(shutdown_max).await;
    tracing::info!(connections_cut = was_cut, "stopped");
    say(if was_cut { "Stopped; connections that were still open at the deadline were cut.\n" } else { "Stopped.\n" });
    Ok(())
}

/// Files that the broker has open besides its connections.
const FILES_WITHOUT_CONNECTIONS: u64 = 400;

/// Each connection is an open file, and many systems allow a process 1,024 unless it asks for more.
fn raise_open_files_limit(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let Some(allowed) = limit.current else { return };
    let wanted = FILES_WITHOUT_CONNECTIONS.saturating_add(connections_max as u64);
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if possible > allowed && setrlimit(Resource::Nofile, Rlimit { current: Some(possible), ..limit }).is_err() {
        tracing::warn!(allowed, wanted, "the limit of open files could not be raised");
    } else if possible < wanted {
        tracing::warn!(
            possible,
            wanted,
            "fewer files can be open than max.connections needs: raise the limit (ulimit -Hn), or lower max.connections"
        );
    }
}

/// Says when the log has stopped. Never resolves: what is durable is still served, until somebody restarts the broker.
async fn stopped_log(broker: &Broker) {
    let reason = broker.poisoned().await;
    tracing::error!(
        reason,
        "the log has stopped: nothing more is written, what was acknowledged can still be read; restart baton when the cause is gone"
    );
    std::future::pending().await
}

fn failure(error: StartError) -> Failure {
    match error {
        StartError::Advertised(_) => Failure::Usage(error.to_string()),
        // Says what to do itself.
        StartError::Directory { ref source, .. } if source.kind() == ErrorKind::ResourceBusy => {
            Failure::Failed(error.to_string())
        }
        StartError::Directory { .. } => Failure::Failed(format!("{error}; choose another with --data DIR")),
        other => Failure::Failed(other.to_string()),
    }
}

/// Starts logging to stderr.
pub(crate) fn start_logging(format: LogFormat) -> Result<(), Failure> {
    let filter = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Failure::Usage(format!("{LOG_VARIABLE}={filter}: {error}; it takes error, warn, info, debug or trace"))
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::Failed(format!("logging cannot be started: {error}")))
}

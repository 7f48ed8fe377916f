//! The `baton` binary: the only place that prints, reads arguments and catches signals.

mod colour;
mod config;
mod database;
mod dead;
mod demo;
mod outbox;
mod relay;
mod serve;
mod settings_list;
mod signals;
mod start_text;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Something went wrong that is not what was typed: an address that is taken, a directory that cannot be used, a full disk.
const EXIT_FAILED: u8 = 1;
/// What was typed is wrong: an argument, a setting, the configuration file. (clap uses the same number.)
const EXIT_USAGE: u8 = 2;
/// A second Ctrl-C: stopped without waiting. What was acknowledged is on the disk all the same.
pub(crate) const EXIT_INTERRUPTED: i32 = 130;

const AFTER_HELP: &str = "Exit codes: 0 stopped as asked; 1 the machine or the data does not allow it (address taken, directory in \
                          use, disk full); 2 a wrong argument, setting or configuration file; 130 stopped by a second Ctrl-C \
                          without waiting.";

/// A broker that any Kafka client can use, and that loses nothing it has acknowledged.
#[derive(Parser)]
#[command(name = "baton", version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the broker and serve until Ctrl-C.
    Serve(ServeArguments),
    /// Show all settings with their defaults, units and meanings.
    Settings(SettingsArguments),
    /// See it work: orders are sent, the consumer and the broker are killed on the way, and every order is counted once.
    Demo(demo::DemoArguments),
    /// Dead letters: list them, look at them, send them again.
    Dead(dead::DeadArguments),
    /// Bring the messages of an outbox to the engine until Ctrl-C.
    Relay(relay::RelayArguments),
    /// The outbox in a database: make it, look at it, release what is parked.
    Outbox(outbox::OutboxArguments),
    /// The broker of the demonstration.
    #[command(hide = true)]
    DemoBroker(ServeArguments),
    /// The consumer of the demonstration.
    #[command(hide = true)]
    DemoConsumer(demo::DemoConsumerArguments),
}

/// The two commands that matter: `baton serve`, and then any Kafka client.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
struct ServeArguments {
    /// Where everything is kept; made if it is missing. One process at a time.
    #[arg(long, value_name = "DIR", default_value = "baton-data")]
    data: PathBuf,
    /// Where clients connect. Port 0 takes any that is free.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    listen: String,
    /// Where clients are told to connect, if that is not where the broker listens.
    #[arg(long, value_name = "HOST:PORT")]
    advertised_listener: Option<String>,
    /// Serve Prometheus metrics and health over HTTP on this address.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// Settings from a TOML file; see docs/SETTINGS.md.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting; counts before the file. Can be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How log lines look. They go to stderr; the environment variable BATON_LOG says how much (error, warn, info, debug).
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Args)]
struct SettingsArguments {
    /// As JSON, one object for each setting.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// As docs/SETTINGS.md has them.
    #[arg(long)]
    markdown: bool,
}

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was typed is wrong.
    #[error("{0}")]
    Usage(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// Something that was tried, and what came of it.
    pub(crate) fn failed(doing: &str, error: &dyn std::error::Error) -> Self {
        Self::Failed(format!("{doing}: {error}"))
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => serve::serve(arguments),
        Command::Settings(arguments) => {
            say(&settings_list::text(&arguments));
            Ok(())
        }
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Dead(arguments) => dead::run(arguments),
        Command::Relay(arguments) => relay::run(arguments),
        Command::Outbox(arguments) => outbox::run(arguments),
        Command::DemoBroker(arguments) => demo::run_broker(arguments),
        Command::DemoConsumer(arguments) => demo::run_consumer(&arguments),
    };
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // Nobody to tell if stderr is gone; the exit code still does.
    let _ = writeln!(std::io::stderr(), "baton: {failure}");
    ExitCode::from(if matches!(failure, Failure::Usage(_)) { EXIT_USAGE } else { EXIT_FAILED })
}

/// Prints to stdout. A reader that has gone (`baton settings | head`) is no failure.
pub(crate) fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

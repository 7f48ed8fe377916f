//! The crash test of the outbox and its relays: the driver, and the services that write into it. The relays are `baton relay`.

mod service;

use std::path::PathBuf;
use std::process::ExitCode;

use baton_crash::{
    CrashError, DatabaseKind, EngineKind, HeldArguments, Places, RelayOptions, become_program, exit_code,
    prepare_relays, run_child, run_relays, told,
};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(
    about = "kill -9 of services, relays, database and engine; an independent checker judges what the topic holds"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts everything, kills, and has the topic judged.
    Run(RunArguments),
    /// Becomes a program that ends with the driver.
    Held(HeldArguments),
    /// Creates the topic and the tables of the business.
    Prepare(Common),
    /// Changes accounts and writes into the outbox, until it is told to end.
    Service(Common),
}

#[derive(Args)]
struct RunArguments {
    /// How many rounds are played; something is killed or stands still in each.
    #[arg(long, default_value_t = 300)]
    rounds: u32,
    #[arg(long, value_enum, default_value = "embedded")]
    engine: EngineKind,
    #[arg(long, value_enum, default_value = "sqlite")]
    database: DatabaseKind,
    /// Fixes what is done, and when (default: a new one each time).
    #[arg(long)]
    seed: Option<u64>,
    /// Where histories and databases go (default: a new directory, deleted when nothing is wrong).
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What the driver tells each process.
#[derive(Args)]
struct Common {
    /// What it is called in the histories.
    #[arg(long)]
    name: String,
    /// Where the histories go.
    #[arg(long)]
    history: PathBuf,
    /// The address of the engine.
    #[arg(long)]
    engine: String,
    /// The address of the database.
    #[arg(long)]
    database: String,
    /// Fixes what is written.
    #[arg(long)]
    seed: u64,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Held(arguments) => become_program(&arguments),
        Command::Prepare(common) => run_child(async move { prepare_relays(&common.engine, &common.database).await }),
        Command::Service(common) => run_child(service::serve(common)),
    };
    exit_code("relay", done)
}

fn run(arguments: &RunArguments) -> Result<bool, CrashError> {
    let places = Places::find(std::env::current_exe().map_err(CrashError::io("this program"))?)?;
    let options = RelayOptions {
        engine: arguments.engine,
        database: arguments.database,
        rounds: arguments.rounds,
        seed: arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0),
    };
    told(&options.replay(), arguments.folder.as_deref(), |folder| run_relays(&options, &places, folder))
}

//! The crash test of the library: the driver, and the services that it kills.

mod consumer;
mod driver;
mod noted;
mod prepare;
mod producer;
mod service;
mod undertaker;

use std::path::PathBuf;
use std::process::ExitCode;

use baton::Baton;
use baton_crash::{
    CrashError, GuardKind, HeldArguments, become_program, exit_code, failed, ready, run_child, told_to_end,
};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "kill -9 of services that use the library; an independent checker judges what their database holds")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts everything, kills, and has the database judged.
    Run(driver::RunArguments),
    /// Becomes a program that ends with the driver.
    Held(HeldArguments),
    /// Creates topics and tables.
    Prepare(Common),
    /// Sends orders until it is told to end.
    Producer(Common),
    /// Handles orders until it is told to end.
    Consumer(Common),
    /// Reads the dead letters back into the history.
    Undertaker(Common),
    /// Broker, producer and consumer in one process.
    Service(service::ServiceArguments),
}

/// What the driver tells each process.
#[derive(Args, Clone)]
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
    /// `sqlite:FILE`, `postgres:URI` or `mariadb:PORT`.
    #[arg(long)]
    database: String,
    /// The address of Redis, for claims.
    #[arg(long)]
    redis: Option<String>,
    #[arg(long, value_enum)]
    guard: GuardKind,
    /// Fixes what is sent.
    #[arg(long)]
    seed: u64,
    /// Handlers at once.
    #[arg(long)]
    concurrency: u32,
}

impl Common {
    async fn connect(&self) -> Result<Baton, CrashError> {
        Baton::connect(self.engine.as_str()).await.map_err(failed("connecting"))
    }

    /// Kafka's client misses a member that died after 45 s by default; most rounds would pass without anybody taking over.
    fn member_settings(&self) -> &'static [(&'static str, &'static str)] {
        if self.engine.starts_with("amqp") {
            &[]
        } else {
            &[("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "400")]
        }
    }

    fn ready(&self) -> Result<(), CrashError> {
        ready(&self.history, &self.name)
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => driver::run(&arguments),
        Command::Held(arguments) => become_program(&arguments),
        other => run_child(child(other)),
    };
    exit_code("effects", done)
}

async fn child(command: Command) -> Result<(), CrashError> {
    match command {
        // These need no runtime.
        Command::Run(_) | Command::Held(_) => Ok(()),
        Command::Prepare(common) => prepare::prepare(&common.connect().await?, &common).await,
        Command::Producer(common) => producer::produce(&common.connect().await?, &common, told_to_end()?).await,
        Command::Consumer(common) => consumer::consume(&common.connect().await?, &common, told_to_end()?).await,
        Command::Undertaker(common) => undertaker::read_back(&common.connect().await?, &common).await,
        Command::Service(arguments) => service::serve(&arguments).await,
    }
}

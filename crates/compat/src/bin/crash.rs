//! Kills the broker under load, again and again, and has the histories of its clients judged.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use baton_compat::CompatError;
use baton_compat::crash::run;
use baton_compat::places::Places;
use baton_compat::server::Kind;
use clap::Parser;

#[derive(Parser)]
#[command(about = "kill -9 of the broker under load; an independent checker gives the verdict")]
struct Arguments {
    /// How often the broker is killed.
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Fixes when it is killed (default: a new one each time).
    #[arg(long)]
    seed: Option<u64>,
    /// Which server.
    #[arg(long, value_enum, default_value = "baton")]
    server: Kind,
    /// Where the histories go (default: a new directory, deleted when nothing is wrong).
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match crash(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}

fn crash(arguments: &Arguments) -> Result<bool, CompatError> {
    let places = Places::find(PathBuf::new())?;
    let (rounds, server) = (arguments.rounds, arguments.server);
    let seed = arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let replay =
        format!("cargo run -p baton-compat --bin crash -- --rounds {rounds} --seed {seed} --server {}", server.name());
    println!("{replay}");
    let temporary = tempfile::tempdir().map_err(CompatError::io("a directory for the histories"))?;
    let folder = arguments.folder.as_deref().unwrap_or(temporary.path());
    let outcome = run(server, &places, rounds, seed, folder);
    let clean = outcome.as_ref().is_ok_and(|report| report.clean);
    if !clean && arguments.folder.is_none() {
        println!("histories kept in {}", temporary.keep().display());
    }
    let report = outcome?;
    print!("{}", report.said);
    println!(
        "{rounds} kills in {:.0} s, slowest start {} ms: {}",
        report.took.as_secs_f64(),
        report.slowest_start.as_millis(),
        if clean { "nothing wrong" } else { "NOT CLEAN; replay with the command above" }
    );
    Ok(clean)
}
